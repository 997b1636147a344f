"""How well each voxel's responses follow what was shown: cross-validated encoding, by voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.glm.encoding import PENALTIES

# Of runs, at most so many groups are left out; of trials whose runs are unknown, so many parts.
_GROUPS, _PARTS = 10, 5


@dataclass(frozen=True, eq=False)
class Part:
    """Trials that are left out, and the ridge regression of the others on their features.

    Under penalty a, the left trials are predicted as ``across @ (into @ betas[train] / (values +
    a))``.
    """

    test: np.ndarray
    train: np.ndarray
    values: np.ndarray
    into: np.ndarray
    across: np.ndarray


def encoding_parts(features: np.ndarray, run: np.ndarray) -> list[Part]:
    """Prepare the cross-validation of :func:`encoding_correlation`.

    Works in the smaller of trials and features.

    Parameters
    ----------
    features : array of shape (n_trials, n_features)
        What the trials showed (latents).
    run : int array of shape (n_trials,)
        Run of each trial. Whole runs are left out, ten groups of them if there are more; of one
        run, fifths in the order of the trials, so that neighbours, which share drift, stay
        together.

    Returns
    -------
    list of Part
        Penalties are relative to the mean over trials of the centred features' squared length.

    Raises
    ------
    ValueError
        For fewer than two trials.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} trials; at least 2 are wanted to leave one out")
    X = features - features.mean(axis=0, dtype=float)
    X /= max(np.sqrt((X * X).sum() / len(X)), 1e-12)
    groups = _groups(run)
    parts = []
    for left in np.unique(groups):
        test, train = np.flatnonzero(groups == left), np.flatnonzero(groups != left)
        is_primal = X.shape[1] <= len(train)
        gram = X[train].T @ X[train] if is_primal else X[train] @ X[train].T
        values, vectors = np.linalg.eigh(gram)
        into = vectors.T @ X[train].T if is_primal else vectors.T
        across = X[test] @ vectors if is_primal else (X[test] @ X[train].T) @ vectors
        parts.append(
            Part(
                test, train, np.maximum(values, 0),
                into.astype(np.float32), across.astype(np.float32),
            )
        )  # fmt: skip
    return parts


def encoding_correlation(betas: np.ndarray, parts: list[Part]) -> np.ndarray:
    """Return each voxel's correlation with what is predicted from features in left-out trials.

    Ridge regression from features to betas without an intercept; each voxel has the penalty, of
    seven, that is best for it. So r is not that of one prediction made in advance, and slightly
    too high; it is to rank voxels by.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Training trials, standardised.
    parts : list of Part

    Returns
    -------
    float32 array of shape (n_voxels,), -1 to 1
        NaN where betas or all predictions are constant at 0.
    """
    betas = np.asarray(betas, np.float32)
    inside = [part.into @ betas[part.train] for part in parts]
    power = np.einsum("ij,ij->j", betas, betas)
    best = np.full(betas.shape[1], np.nan, np.float32)
    predicted = np.empty_like(betas)
    for penalty in PENALTIES:
        for part, known in zip(parts, inside, strict=True):
            shrink = (1 / (part.values + penalty)).astype(np.float32)
            predicted[part.test] = part.across @ (shrink[:, None] * known)
        size = np.sqrt(power * np.einsum("ij,ij->j", predicted, predicted))
        product = np.einsum("ij,ij->j", predicted, betas)
        r = np.divide(product, size, out=np.full_like(size, np.nan), where=size > 0)
        best = np.fmax(best, r)
    return best


def fisher_z(r: np.ndarray, n: int) -> np.ndarray:
    """Return Fisher's z of correlations over ``n`` trials, in units of its standard error.

    Parameters
    ----------
    r : array, -1 to 1
    n : int, above 3
    """
    limit = 1 - 1e-7
    return np.arctanh(np.clip(r, -limit, limit)) * np.sqrt(max(n - 3, 1))


def _groups(run: np.ndarray) -> np.ndarray:
    _, index = np.unique(run, return_inverse=True)
    n_runs = int(index.max()) + 1
    if n_runs < 2:
        return np.arange(len(run)) * _PARTS // len(run)
    return index if n_runs <= _GROUPS else index * _GROUPS // n_runs
