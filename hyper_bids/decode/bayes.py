"""Latents by inverting a model of the responses: what the voxels would do, given the latents.

Responses of a trial with latents t are x = W't + e, with t from a normal distribution that has the
covariance C of the training latents, weights of voxel v from N(0, s_v^2), and noise of variance
o_v^2 and correlations R. All of these are estimated from the training trials. Then W is known up to
an error whose size is known, and the latents of a new response have the posterior mean

    t' = x'N^-1 M' (C^-1 + M N^-1 M')^-1        N = noise / number of repeats + uncertainty of W

where M is the posterior mean of W. It is linear in the responses, so that it is a decoder like any
other. Where ridge regression takes what the responses do together in the training trials as it is,
this tells apart what the latents made them do, which ridge takes for noise where latents happen to
correlate in few trials, from what the noise did.
"""

from __future__ import annotations

import numpy as np

from hyper_bids.decode import noise
from hyper_bids.decode.decoder import Averaged, Decoder, check_training
from hyper_bids.threads import eigh

# Ratios of signal to noise variance of a voxel that are tried, for all latents together.
GRID = np.r_[0.0, np.logspace(-4, 3, 43)]
_EM_STEPS = 200
# Part of a voxel's noise that the others never tell.
_MIN_LEFT = 0.05


def fit_bayes(
    betas: np.ndarray,
    latents: np.ndarray,
    rng: np.random.Generator,
    n_repeats: float = 1,
    places: np.ndarray | None = None,
) -> Decoder:
    """Fit the model of the responses, and return the linear map that inverts it.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Not used.
    n_repeats : float, at least 1
        Responses that are averaged before they are decoded: for such means, a second map is made.
    places : array of shape (n_voxels, n_axes), optional
        Where each voxel is, in any unit; the noise of near voxels is then taken as correlated by
        distance. Default: not known, and correlations are looked for among all pairs.

    Returns
    -------
    Decoder
        ``report``: ``signal`` (mean fraction of a voxel's variance that the latents make),
        ``n_components`` (of shared noise), ``n_pairs`` (mean number of voxels whose noise
        correlates with a voxel's), ``prior_shrinkage``, ``n_trials``.

    Raises
    ------
    ValueError
        For what :func:`check_training` refuses, repeats below 1, or places not one a voxel.

    Notes
    -----
    In float32 but for sums over trials and latents. Holds, beside the data, about 40 n_trials
    n_voxels + 24 n_voxels n_latents + 24 n_trials^2 bytes.
    """
    betas, latents = check_training(betas, latents)
    if not n_repeats >= 1:
        raise ValueError(f"{n_repeats} repeats; at least 1 is wanted")
    if places is not None and (np.ndim(places) != 2 or len(places) != betas.shape[1]):
        raise ValueError(f"places of shape {np.shape(places)} for {betas.shape[1]} voxels")
    x_mean = betas.mean(axis=0, dtype=np.float64)
    y_mean, y_sd = latents.mean(axis=0, dtype=np.float64), latents.std(axis=0, dtype=np.float64)
    used, varies = np.ptp(betas, axis=0) > 0, np.ptp(latents, axis=0) > 0
    report = {"n_trials": len(betas)}
    repeats = (1,) if n_repeats == 1 else (1, n_repeats)
    maps = [np.zeros((betas.shape[1], latents.shape[1]), np.float32) for _ in repeats]
    if used.any() and varies.any():
        T = (latents[:, varies] - y_mean[varies]) / y_sd[varies]
        X = (betas[:, used] - x_mean[used]).astype(np.float32)
        where = None if places is None else np.asarray(places, np.float64)[used]
        found, more = invert(X, T, repeats, where)
        report |= more
        for whole, part in zip(maps, found, strict=True):
            whole[np.ix_(used, varies)] = part * y_sd[varies]
    single, *averaged = ((w, (y_mean - x_mean @ w).astype(np.float32)) for w in maps)
    other = Averaged(float(n_repeats), *averaged[0]) if averaged else None
    return Decoder("bayes", *single, report, other)


def invert(
    X: np.ndarray, T: np.ndarray, repeats: tuple[float, ...], places: np.ndarray | None
) -> tuple[list[np.ndarray], dict]:
    """Return a map for each number of repeats, and what was estimated.

    Parameters
    ----------
    X : array of shape (n_trials, n_voxels), float32, centred
    T : array of shape (n_trials, n_latents), z-scored
    repeats : tuple of float
    places : array of shape (n_voxels, n_axes), or None

    Returns
    -------
    maps : list of arrays of shape (n_voxels, n_latents), float32
    report : dict
    """
    size, rows, axes = rotate(T)
    Z = rows.T.astype(np.float32) @ X
    ratio, sd = signal_to_noise(Z, size**2)
    shrink = 1 / np.sqrt(1 + np.square(size)[:, None] * ratio)
    shrink = shrink.astype(np.float32)
    Z /= sd
    correlation = noise.estimate(Z * shrink, shrink, places)
    # From here on in units of each voxel's noise, one column for each axis of the latents.
    ratio = refined_ratio(Z, size, ratio, correlation)
    seen = size > 0
    size, Z = size[seen].astype(np.float32), Z[seen]
    variance = np.square(size) * ratio[:, None]
    mean = (size * ratio[:, None]) * correlation.solve(variance, Z.T)
    prior, shrinkage = shrunk_correlation(T)
    along = np.einsum("ij,jk,ik->i", axes, prior, axes)
    doubt = (ratio[:, None] / (1 + variance)) @ along
    # Directions of the latents in which the training trials do not differ.
    doubt += ratio * max(0.0, len(prior) - along.sum())
    M = axes.T @ mean.T
    maps = []
    for n in repeats:
        A = n * correlation.solve(n * doubt[:, None], M.T.astype(np.float32))
        K = M @ A
        B = np.linalg.solve((np.eye(len(K)) + K @ prior).T, (A @ prior).T).T
        maps.append((B / sd[:, None]).astype(np.float32))
    explained = len(prior) * ratio
    return maps, {
        "signal": float((explained / (1 + explained)).mean()),
        "n_components": correlation.loadings.shape[1],
        "n_pairs": float(correlation.pairs.nnz / len(ratio) - 1),
        "prior_shrinkage": shrinkage,
    }


def rotate(T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return T = rows diag(size) axes, with all rows that are orthogonal to the constant.

    Parameters
    ----------
    T : array of shape (n_trials, n_latents), centred

    Returns
    -------
    size : array of shape (n_trials - 1,), 0 for rows in which the latents do nothing
    rows : array of shape (n_trials, n_trials - 1), orthonormal columns, each of mean 0
    axes : array of shape (number of sizes above 0, n_latents), orthonormal rows
    """
    n = len(T)
    gram = T @ T.T
    top = 2 * np.trace(gram)
    # The constant vector is lifted above all others, so that it is the last one.
    eigenvalues, rows = eigh(gram + top / n)
    eigenvalues, rows = eigenvalues[:-1], rows[:, :-1]
    seen = eigenvalues > 1e-9 * eigenvalues[-1]
    size = np.where(seen, np.sqrt(np.maximum(eigenvalues, 0)), 0)
    axes = (rows[:, seen].T @ T) / size[seen, None]
    return size, rows, axes


def signal_to_noise(Z: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate each voxel's signal and noise from rows with known power of the signal.

    Row k of voxel v has variance o_v^2 (1 + power_k ratio_v). The density of each voxel's rows is
    taken at a grid of ratios, with the noise that fits best at each; how common each ratio is among
    the voxels is estimated from all of them, and a voxel's ratio is its posterior mean.

    Parameters
    ----------
    Z : array of shape (n_rows, n_voxels)
    power : array of shape (n_rows,)

    Returns
    -------
    ratio : array of shape (n_voxels,), float32
        Variance of the weights relative to the noise's.
    sd : array of shape (n_voxels,), float32
        Of the noise.
    """
    n = len(Z)
    squared = np.square(Z)
    grid = GRID / max(power.mean(), np.finfo(float).tiny)
    density = np.empty((len(grid), Z.shape[1]))
    variance = np.empty_like(density)
    for i, ratio in enumerate(grid):
        weight = 1 / (1 + power * ratio)
        variance[i] = weight.astype(np.float32) @ squared / n
        density[i] = 0.5 * (np.log(weight).sum() - n * np.log(variance[i]))
    density = np.exp(density - density.max(axis=0))
    common = np.full(len(grid), 1 / len(grid))
    for _ in range(_EM_STEPS):
        posterior = density * common[:, None]
        posterior /= posterior.sum(axis=0)
        common = posterior.mean(axis=1)
    return (grid @ posterior).astype(np.float32), np.sqrt((posterior * variance).sum(0)).astype(
        "f4"
    )


def refined_ratio(
    Z: np.ndarray, size: np.ndarray, ratio: np.ndarray, correlation: noise.NoiseCorrelation
) -> np.ndarray:
    """Estimate each voxel's signal again, from what the noise of other voxels leaves of its own.

    Of row k, y = (R + size_k^2 diag(ratio))^-1 z is what a voxel is off from what the others let
    expect, divided by the variance of that, size_k^2 ratio + c, with c the part of the noise's
    variance that others do not tell. Times that variance, it is the row without that noise.

    Parameters
    ----------
    Z : array of shape (n_rows, n_voxels), float32
        In units of each voxel's noise.
    size : array of shape (n_rows,)
    ratio : array of shape (n_voxels,)
    correlation : NoiseCorrelation

    Returns
    -------
    array of shape (n_voxels,), float32
    """
    power = np.square(size).astype(np.float32)
    signal = power[:, None] * ratio
    y = correlation.solve(signal.T, Z.T).T
    squared = np.square(y)
    left = (1 - (squared * signal).mean(axis=0)) / squared.mean(axis=0)
    y *= signal + np.clip(left, _MIN_LEFT, 1)
    found, sd = signal_to_noise(y, np.square(size))
    return found * np.square(sd)


def shrunk_correlation(T: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the latents' correlations shrunk towards 0, and by how much.

    The fraction has the smallest expected squared error (Schaefer and Strimmer 2005, target D).

    Parameters
    ----------
    T : array of shape (n_trials, n_latents), z-scored
    """
    n, n_latents = T.shape
    r = T.T @ T / n
    squared = np.square(T)
    off = ~np.eye(n_latents, dtype=bool)
    error = ((squared.T @ squared / n - r**2) / (n - 1))[off].sum()
    total = np.square(r)[off].sum()
    shrinkage = float(np.clip(error / total, 0, 1)) if total > 0 else 1.0
    r *= 1 - shrinkage
    np.fill_diagonal(r, 1)
    return r, shrinkage
