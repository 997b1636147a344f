"""How well responses follow what was shown: ridge regression onto left-out runs.

:func:`encoding_score` is the yardstick by which models of the BOLD are chosen; by voxel, see
:mod:`hyper_bids.glm.voxelwise`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.threads import on_one_thread

# Penalties relative to the mean eigenvalue of the kernel.
PENALTIES = np.logspace(-2, 4, 7)

# Of one run, so many parts are left out.
_PARTS = 5


@dataclass(frozen=True, eq=False)
class Fold:
    """Trials that are left out, and the ridge regression of the others on their features.

    With the others' features X = U sqrt(S) V', the left trials are predicted under penalty a as
    ``across @ (into @ betas[train] / (values + a))``.

    Attributes
    ----------
    test, train : int arrays
        Rows of the trials that are left out, and of the others.
    values : array of shape (rank,), float64
        S, above 0.
    into : array of shape (rank, n_train), float32
        U'.
    across : array of shape (n_test, rank), float32
        X_test V sqrt(S).
    n_fixed : int
        Dimensions that the others' betas have lost: the means of their runs.
    """

    test: np.ndarray
    train: np.ndarray
    values: np.ndarray
    into: np.ndarray
    across: np.ndarray
    n_fixed: int

    def predict(self, inside: np.ndarray, penalty: np.ndarray | float) -> np.ndarray:
        """Return predictions (n_test, n_voxels) from ``into @ betas[train]``.

        ``penalty`` is one number, or one for each voxel, of shape (n_voxels,).
        """
        shrink = 1 / (self.values[:, None] + np.asarray(penalty))
        return self.across @ (shrink.astype(np.float32) * inside)


@on_one_thread
def encoding_folds(features: np.ndarray, run: np.ndarray, most: int | None = None) -> list[Fold]:
    """Prepare the cross-validation over runs.

    Works in the smaller of trials and features.

    Parameters
    ----------
    features : array of shape (n_trials, n_features)
        What the trials showed (latents), training trials only.
    run : array of shape (n_trials,)
        Run of each trial; each run is left out once. Of one run, fifths are left out in the order
        of the trials, so that neighbours, which share drift, stay together.
    most : int, optional
        Leave out at most so many groups of whole runs.

    Returns
    -------
    list of Fold
        Penalties are relative to the mean over trials of the centred features' squared length.

    Raises
    ------
    ValueError
        For fewer than two trials.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} trials; at least 2 are wanted to leave one out")
    X = features - features.mean(axis=0, dtype=float)
    size = np.sqrt((X * X).sum() / len(X))
    X *= 1 / size if size > 1e-12 * max(np.abs(features).max(), 1.0) else 0
    groups = _groups(run, most)
    return [_fold(X, np.asarray(run), groups == left) for left in np.unique(groups)]


def _fold(X: np.ndarray, run: np.ndarray, left: np.ndarray) -> Fold:
    test, train = np.flatnonzero(left), np.flatnonzero(~left)
    is_primal = X.shape[1] <= len(train)
    values, vectors = np.linalg.eigh(X[train].T @ X[train] if is_primal else X[train] @ X[train].T)
    kept = values > len(train) * np.finfo(float).eps * max(values[-1], 0)
    values, vectors = values[kept], vectors[:, kept]
    size = np.sqrt(values)
    if is_primal:
        into, across = (X[train] @ (vectors / size)).T, X[test] @ (vectors * size)
    else:
        into, across = vectors.T, X[test] @ (X[train].T @ vectors)
    n_fixed = len(np.unique(run[train]))
    return Fold(test, train, values, into.astype("f4"), across.astype("f4"), n_fixed)


def _groups(run: np.ndarray, most: int | None) -> np.ndarray:
    _, index = np.unique(run, return_inverse=True)
    n_runs = int(index.max()) + 1
    if n_runs < 2:
        return np.arange(len(index)) * _PARTS // len(index)
    return index if most is None or n_runs <= most else index * most // n_runs


def encoding_score(betas: np.ndarray, folds: list[Fold]) -> float:
    """Return the correlation of betas with what their stimuli predict, a mean over voxels.

    Ridge regression from features to betas, fitted without the run that it predicts; the
    penalty is the one that is best for all voxels together. Stimuli that are shown again have the
    same features: then this is the betas' reliability over repeats. Where none is, it asks for
    the same, a part of the betas that depends on the stimulus, through the stimuli's similarity.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Training trials, standardised within runs.
    folds : list of Fold

    Returns
    -------
    float, -1 to 1
    """
    betas = np.asarray(betas, np.float32)
    predicted = np.zeros((len(PENALTIES), *betas.shape), np.float32)
    for fold in folds:
        inside = fold.into @ betas[fold.train]
        for row, penalty in zip(predicted, PENALTIES, strict=True):
            row[fold.test] = fold.predict(inside, penalty)
    return float(max(np.nan_to_num(correlation(row, betas)).mean() for row in predicted))


def correlation(predicted: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Return each column's correlation about 0, which is where standardised betas have their mean.

    Parameters
    ----------
    predicted, betas : array of shape (n_trials, n_voxels)

    Returns
    -------
    array of shape (n_voxels,), -1 to 1
        NaN where either is 0 in all trials.
    """
    power = np.einsum("ij,ij->j", betas, betas)
    size = np.sqrt(power * np.einsum("ij,ij->j", predicted, predicted))
    product = np.einsum("ij,ij->j", predicted, betas)
    return np.divide(product, size, out=np.full_like(size, np.nan), where=size > 0)
