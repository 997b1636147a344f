"""Cross-validated encoding by voxel: how well responses follow what was shown, and by chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hyper_bids.glm.encoding import PENALTIES, Fold, correlation

# Of runs, at most so many groups are left out.
GROUPS = 10

# Columns of chance that are computed at a time, in values (64 MiB).
_BLOCK = 1 << 24


def encoding_correlation(betas: np.ndarray, folds: list[Fold]) -> np.ndarray:
    """Return each voxel's correlation with what is predicted from features in left-out trials.

    Ridge regression from features to betas without an intercept. Each voxel has a penalty of its
    own in each fold, the one of seven with the least generalised cross-validation error (Golub,
    Heath and Wahba 1979, Technometrics 21:215-223) in the trials that are not left out: the trials
    that are predicted have no part in it.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Training trials, standardised within runs.
    folds : list of Fold

    Returns
    -------
    float32 array of shape (n_voxels,), -1 to 1
        Mean over folds, weighted by their trials. NaN where betas or all predictions are 0.

    Notes
    -----
    Not one correlation over all folds together: where there is no signal, the fold whose other
    trials correlate by chance has the weakest penalty, so the longest predictions, and a negative
    correlation of its own. That took r below 0 by 1.1 / sqrt(n_trials).
    """
    betas = np.asarray(betas, np.float32)
    total, weight = np.zeros((2, betas.shape[1]), np.float32)
    for fold in folds:
        known = betas[fold.train]
        inside = fold.into @ known
        penalty = gcv_penalty(inside, np.einsum("ij,ij->j", known, known), fold)
        r = correlation(fold.predict(inside, penalty), betas[fold.test])
        counts = np.isfinite(r)
        total[counts] += len(fold.test) * r[counts]
        weight[counts] += len(fold.test)
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def gcv_penalty(inside: np.ndarray, power: np.ndarray, fold: Fold) -> np.ndarray:
    """Return for each voxel the penalty with the least generalised cross-validation error.

    Squared residuals over the square of the dimensions that the fit leaves free.

    Parameters
    ----------
    inside : array of shape (rank, n_voxels)
        ``fold.into @ betas[fold.train]``.
    power : array of shape (n_voxels,)
        Sum of squares of the training betas.
    fold : Fold

    Returns
    -------
    array of shape (n_voxels,), of :data:`~hyper_bids.glm.encoding.PENALTIES`
    """
    rest = fold.values / (fold.values + PENALTIES[:, None])
    n_free = max(len(fold.train) - fold.n_fixed, len(fold.values))
    explained = (1 - (1 - rest) ** 2).astype(np.float32) @ (inside * inside)
    residual = np.maximum(power - explained, 0)
    return PENALTIES[(residual / (n_free - rest.sum(axis=1, keepdims=True)) ** 2).argmin(axis=0)]


def encoding_map(
    read: Callable[[slice], np.ndarray], n_voxels: int, folds: list[Fold], step: int
) -> np.ndarray:
    """Return :func:`encoding_correlation` of many voxels, a block of them at a time.

    Parameters
    ----------
    read : callable
        Gives the standardised betas (n_trials, n_voxels of the block) of a slice of voxels.
    n_voxels : int
    folds : list of Fold
    step : int
        Voxels of a block; about 30 x trials bytes are held for each.

    Returns
    -------
    float32 array of shape (n_voxels,)
    """
    result = np.empty(n_voxels, np.float32)
    for start in range(0, n_voxels, step):
        part = slice(start, min(start + step, n_voxels))
        result[part] = encoding_correlation(read(part), folds)
    return result


def encoding_null(
    betas: np.ndarray, folds: list[Fold], run: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return what :func:`encoding_correlation` is where trials say nothing of what they showed.

    A voxel is drawn and its trials are shuffled within their runs, which keeps its distribution and
    what runs differ in. Standardised voxels share one distribution of chance, so that draws of all
    of them make one null. A t test would not do: predictions of a fold are made from the others'
    betas, which doubles the variance of r where the penalty is strong.

    Parameters
    ----------
    betas : array of shape (n_trials, n_sampled)
        Some voxels, a few thousand drawn at random from all; standardised within runs.
    folds : list of Fold
    run : array of shape (n_trials,)
    n : int
        Draws.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (n,), finite

    Raises
    ------
    ValueError
        If no voxel varies.
    """
    betas = np.asarray(betas, np.float32)
    varying = np.flatnonzero(np.einsum("ij,ij->j", betas, betas) > 0)
    if not len(varying):
        raise ValueError(f"none of {betas.shape[1]} voxels varies: chance cannot be drawn")
    rows = [np.flatnonzero(run == label) for label in np.unique(run)]
    null = np.empty(n, np.float32)
    step = max(1, _BLOCK // len(betas))
    for start in range(0, n, step):
        part = null[start : start + step]
        drawn = betas[:, rng.choice(varying, len(part))]
        for own in rows:
            drawn[own] = rng.permuted(drawn[own], axis=0)
        part[:] = np.nan_to_num(encoding_correlation(drawn, folds))
    return null


def fisher_z(r: np.ndarray, n: int) -> np.ndarray:
    """Return Fisher's z of correlations over ``n`` trials, in units of its standard error.

    Parameters
    ----------
    r : array, -1 to 1
    n : int, above 3
    """
    limit = 1 - 1e-7
    return np.arctanh(np.clip(r, -limit, limit)) * np.sqrt(max(n - 3, 1))
