"""How well betas follow what was shown: the yardstick by which models of the BOLD are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Penalties relative to the mean eigenvalue of the kernel.
PENALTIES = np.logspace(-2, 4, 7)
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fold:
    """Trials that are left out, the others, and the kernel of what they show, decomposed."""

    test: np.ndarray
    train: np.ndarray
    vectors: np.ndarray
    values: np.ndarray
    across: np.ndarray


def encoding_folds(features: np.ndarray, run: np.ndarray) -> list[Fold]:
    """Prepare the cross-validation over runs for :func:`encoding_score`.

    Parameters
    ----------
    features : array of shape (n_trials, n_features)
        What the trials showed (latents), training trials only.
    run : array of shape (n_trials,)
        Run of each trial; each run is left out once. With a single run, fifths of it are.

    Returns
    -------
    list of Fold
    """
    X = features - features.mean(axis=0, dtype=float)
    K = X @ X.T
    K /= max(np.trace(K) / len(K), 1e-12)
    if len(np.unique(run)) < 2:
        run = np.arange(len(run)) * _FOLDS // len(run)
    folds = []
    for left in np.unique(run):
        test, train = np.flatnonzero(run == left), np.flatnonzero(run != left)
        values, vectors = np.linalg.eigh(K[np.ix_(train, train)])
        across = (K[np.ix_(test, train)] @ vectors).astype(np.float32)
        values = np.maximum(values, 0)
        folds.append(Fold(test, train, vectors.astype(np.float32), values, across))
    return folds


def encoding_score(betas: np.ndarray, folds: list[Fold]) -> float:
    """Return the correlation of betas with what their stimuli predict, a mean over voxels.

    Kernel ridge regression from features to betas, fitted without the run that it predicts; the
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
        inside = fold.vectors.T @ betas[fold.train]
        for row, penalty in zip(predicted, PENALTIES, strict=True):
            shrink = (1 / (fold.values + penalty))[:, None].astype(np.float32)
            row[fold.test] = fold.across @ (shrink * inside)
    power = np.einsum("ij,ij->j", betas, betas)
    scores = []
    for row in predicted:
        size = np.sqrt(power * np.einsum("ij,ij->j", row, row))
        product = np.einsum("ij,ij->j", row, betas)
        scores.append(np.divide(product, size, out=np.zeros_like(size), where=size > 0).mean())
    return float(max(scores))
