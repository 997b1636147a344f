"""The noise of a run: its autocorrelation, and the time courses that many voxels share."""

from __future__ import annotations

import numpy as np

from hyper_bids.threads import on_one_thread

# Beyond it a first difference would be left, and next to nothing of slow responses.
MAX_RHO = 0.9


def whitened(series: np.ndarray, rho: float) -> np.ndarray:
    """Return what makes AR(1) noise white: each row less ``rho`` times the row before it.

    Parameters
    ----------
    series : array of shape (n_volumes, n)
        Signal or regressors.
    rho : float, above -1 and below 1

    Returns
    -------
    array of shape (n_volumes, n)
        The first row is scaled so that it has the variance of the others (Prais and Winsten 1954).
        ``series`` itself for a ``rho`` of 0.
    """
    if rho == 0:
        return series
    result = np.empty_like(series)
    np.multiply(series[:-1], -rho, out=result[1:])
    result[1:] += series[1:]
    result[0] = series[0] * np.sqrt(1 - rho**2)
    return result


def residuals(series: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return ``series`` (n_volumes, n) less its projection on the orthonormal ``fixed``."""
    fixed = fixed.astype(series.dtype)
    return series - fixed @ (fixed.T @ series)


def pooled_autocorrelation(runs: list[np.ndarray], fixed: list[np.ndarray]) -> float:
    """Return one lag-1 autocorrelation of the noise for all voxels of all runs.

    Voxels count alike, each by its own variance. What the nuisance takes from the autocorrelation
    is given back: for residuals Re of noise with the covariance V, the expected sums of products
    are tr(R V) at lag 0 and tr(R D R V) at lag 1, D the shift (as Worsley et al. 2002, NeuroImage
    15:1-15); the ``rho`` is sought that gives the ratio seen.

    Parameters
    ----------
    runs : list of arrays of shape (n_volumes, n_voxels)
        Voxels without responses to trials.
    fixed : list of arrays of shape (n_volumes, k)
        Orthonormal nuisance of each run, the constant included.

    Returns
    -------
    float, 0 to ``MAX_RHO``
    """
    seen = weight = 0.0
    grid = np.linspace(0, 0.98, 99)
    expected = np.zeros(len(grid))
    for series, basis in zip(runs, fixed, strict=True):
        left = residuals(series, basis)
        power = np.einsum("ij,ij->j", left, left)
        alive = power > 0
        if not alive.any():
            continue
        lagged = np.einsum("ij,ij->j", left[1:, alive], left[:-1, alive])
        seen += float((lagged / power[alive]).mean()) * len(series)
        weight += len(series)
        expected += len(series) * expected_lag_one(basis, grid)
    if not weight:
        return 0.0
    return float(np.clip(np.interp(seen / weight, expected / weight, grid), 0, MAX_RHO))


@on_one_thread
def expected_lag_one(basis: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Return the lag-1 autocorrelation that residuals are expected to have under AR(1) noise.

    Parameters
    ----------
    basis : array of shape (n_volumes, k)
        Orthonormal; what was taken off the signal.
    rho : array of shape (n,)
        Autocorrelations of the noise.

    Returns
    -------
    array of shape (n,), rising with ``rho``
    """
    n = len(basis)
    maker = np.eye(n) - basis @ basis.T
    shifted = maker[:, :-1] @ maker[1:]
    # V is constant along its diagonals: traces of products with it need sums along them only.
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).ravel()
    zero, one = (np.bincount(lags, matrix.ravel(), n) for matrix in (maker, shifted))
    powers = rho[:, None] ** np.arange(n)
    return np.maximum.accumulate((powers @ one) / (powers @ zero))


def components(series: np.ndarray, fixed: np.ndarray, n_components: int) -> np.ndarray:
    """Return the time courses that explain most of the voxels' noise.

    Kay et al. (2013), Frontiers in Neuroscience 7:247: principal components of voxels without
    responses, each scaled to the same variance after drift and nuisance are taken off.

    Parameters
    ----------
    series : array of shape (n_volumes, n_voxels)
        Signal of voxels without responses to trials.
    fixed : array of shape (n_volumes, k)
        Orthonormal nuisance.
    n_components : int

    Returns
    -------
    array of shape (n_volumes, n_components), float64, orthonormal, orthogonal to ``fixed``
        Those of the largest variance first; fewer if the voxels have no more.
    """
    left = residuals(series, fixed)
    norms = np.linalg.norm(left, axis=0)
    left = left[:, norms > 0] / norms[norms > 0]
    if not n_components or not left.shape[1]:
        return np.zeros((len(series), 0))
    values, vectors = np.linalg.eigh((left @ left.T).astype(float))
    most = min(n_components, int((values > 1e-6 * values[-1]).sum()))
    return vectors[:, ::-1][:, :most]
