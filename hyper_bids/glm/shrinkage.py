"""Betas with each voxel's own response function and shrinkage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.glm.evidence import RunModel, remaining_power


@dataclass(frozen=True, eq=False)
class Shrunken:
    """Responses of a run's trials, and what tells how well they are known.

    Attributes
    ----------
    betas : array of shape (n_trials, n_voxels), float32
        Percent signal change.
    t : array of shape (n_trials, n_voxels), float32
        t values of the betas before they are shrunken.
    residual_sd : array of shape (n_voxels,), float32
        Standard deviation of the (whitened) noise, percent.
    r_square : array of shape (n_voxels,), float32
        Fraction of the variance left by nuisance that the trials explain, before shrinking.
    lengths : array of shape (2, n_voxels), float32
        Sums of squares of the betas' deviations from their mean response: shrunken, and before.
    dof : array of shape (n_voxels,), residual degrees of freedom
    """

    betas: np.ndarray
    t: np.ndarray
    residual_sd: np.ndarray
    r_square: np.ndarray
    lengths: np.ndarray
    dof: int


def estimate_shrunken(
    series: np.ndarray, model: RunModel, functions: np.ndarray, gammas: np.ndarray
) -> Shrunken:
    """Estimate the responses of a run's trials by ridge regression towards their mean.

    The best linear unbiased prediction of b = m + u (see :mod:`hyper_bids.glm.evidence`): m is the
    generalised least squares estimate of the run, u = g X' (I + g X X')^-1 (y - X m). A ``gamma``
    of infinity shrinks nothing: ordinary (or, whitened, generalised) least squares. Ridge with a
    shrinkage for each voxel follows Rokem and Kay (2020), GigaScience 9:giaa133; shrinking towards
    the mean response instead of 0 leaves the mean as it is.

    Parameters
    ----------
    series : array of shape (n_volumes, n_voxels), float32
        Whitened signal, percent, less its mean.
    model : RunModel
    functions : int array of shape (n_voxels,)
        Response function of each voxel, its position in the model.
    gammas : array of shape (n_voxels,)
        Variance of the responses over that of the noise.

    Returns
    -------
    Shrunken
    """
    n_trials, n_voxels = model.n_trials, series.shape[1]
    betas, t = np.zeros((2, n_trials, n_voxels), np.float32)
    residual_sd, r_square = np.zeros((2, n_voxels), np.float32)
    lengths = np.zeros((2, n_voxels), np.float32)
    dof = len(series) - model.fixed.shape[1] - n_trials
    whole = np.unique(functions)
    for index in whole:
        own = np.flatnonzero(functions == index)
        part = series if len(whole) == 1 else series[:, own]
        total = remaining_power(part, model)
        Z = model.left[index].T @ part
        left = np.maximum(total - np.einsum("ij,ij->j", Z, Z), 1e-6 * total)
        sd = np.sqrt(left / dof)
        size, a = model.sizes[index][:, None], model.loadings(index)[:, None]
        W = model.right[index].T
        free = (W / model.sizes[index]).astype(np.float32) @ Z
        scale = np.sqrt(np.einsum("ij,ij->i", W / model.sizes[index], W / model.sizes[index]))
        betas[:, own], lengths[:, own] = _towards_mean(Z, free, size, a, W, gammas[own])
        known = sd > 0
        precision = np.divide(1, sd, out=np.zeros_like(sd), where=known)
        t[:, own] = free * precision / scale[:, None].astype(np.float32)
        residual_sd[own] = sd
        r_square[own] = np.divide(total - left, total, out=np.zeros_like(total), where=known)
    return Shrunken(betas, t, residual_sd, r_square, lengths, dof)


def _towards_mean(Z, free, size, a, W, gammas) -> tuple[np.ndarray, np.ndarray]:
    """Return the shrunken betas, and the sums of squares about the mean after and before."""
    unshrunken = ~np.isfinite(gammas)
    gammas = np.where(unshrunken, 0, gammas).astype(np.float32)
    size, a = size.astype(np.float32), a.astype(np.float32)
    weight = 1 / (1 + gammas * size**2)
    mean = (weight * a * Z).sum(axis=0) / np.maximum((weight * a * a).sum(axis=0), 1e-12)
    deviation = W.astype(np.float32) @ (gammas * size * weight * (Z - a * mean))
    betas = np.where(unshrunken, free, mean + deviation)
    spread = free - free.mean(axis=0)
    after = betas - betas.mean(axis=0)
    return betas, np.stack([np.einsum("ij,ij->j", x, x) for x in (after, spread)])
