"""Ridge regression whose penalty is chosen by leaving out one trial, or one fold, at a time.

One eigendecomposition serves all penalties and all folds. With centred responses X = U sqrt(S) V'
and centred latents Y, the residuals of all trials under penalty a are

    R(a) = Y - U U'Y + U diag(a / (s + a)) U'Y

and what the fit without the trials F would have got wrong on F is E_F = (I - H)_FF^-1 R_F, with
I - H = I - 11'/n - UU' + U diag(a / (s + a)) U' (for one trial: Allen's PRESS, Golub, Heath and
Wahba 1979, eq. 1.5; for a fold the same identity in blocks). The term 11'/n is the intercept's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from hyper_bids.decode.decoder import Decoder, check_training
from hyper_bids.threads import eigh, on_one_thread

LOG = logging.getLogger("hyper_bids")

# Penalties relative to the mean eigenvalue of the Gram matrix. For responses of equal variance the
# best one is about (1 - R2) / R2: from a clean signal to one latent variance part in a million.
GRID = np.logspace(-5, 7, 25)

# float64 copies of the responses are made in blocks of so many values (32 MiB).
_BLOCK = 4 * 2**20

# Squared errors that differ by less than this fraction are not told apart in float32.
_CLOSE = 1e-4


def fit_ridge(
    betas: np.ndarray,
    latents: np.ndarray,
    rng: np.random.Generator,
    alphas: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    per_target: bool = False,
) -> Decoder:
    """Fit ridge regression with an intercept that is not penalised.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Not used.
    alphas : array of shape (n_alphas,), optional
        Penalties to choose from, above 0, in squared units of ``betas``: |Y - XW|^2 + alpha |W|^2.
        Default: 25 from 1e-5 to 1e7 times the mean eigenvalue of the centred Gram matrix
        (its trace / n_trials).
    folds : int array of shape (n_trials,), optional
        Fold of each trial; each is left out once. Default: one trial at a time.
    per_target : bool
        Choose a penalty for each latent dimension; else one for all.

    Returns
    -------
    Decoder
        ``report``: ``alpha`` (a list with ``per_target``), ``alphas``, ``cv_r2`` (for each alpha:
        1 - squared errors / squared deviations from the mean, both summed over all left-out trials
        and all latents), ``cv``, ``alpha_at_end``, ``n_trials``.

    Raises
    ------
    ValueError
        For shapes that disagree, fewer than two trials or folds, values that are not finite, or a
        penalty that is not above 0.

    Notes
    -----
    The penalty with the smallest squared error over all left-out trials is taken, the first of
    equal ones. Works in the smaller of trials and voxels, m = min(n_trials, n_voxels): about
    24 m^2 + 20 n_trials m + 24 n_trials n_latents + 8 n_voxels n_latents bytes beside the data,
    and up to 32 MiB for blocks of them. Folds: also 24 (size of the largest fold)^2. In float64,
    but for the products that compare penalties trial by trial: those are float32, and penalties
    that are so close that rounding could decide between them are compared again in float64.
    """
    betas, latents = check_training(betas, latents)
    folds = checked_folds(folds, len(betas))
    x_mean = betas.mean(axis=0, dtype=np.float64)
    y_mean = latents.mean(axis=0, dtype=np.float64)
    Y = latents - y_mean
    spectrum = decompose(betas, x_mean)
    alphas = checked_alphas(alphas, spectrum.mean_eigenvalue)
    projected = spectrum.u.T @ Y
    chosen, report = _chosen(spectrum, Y, projected, alphas, folds, per_target)
    weights = spectrum.weights(betas, x_mean, projected / (spectrum.s[:, None] + alphas[chosen]))
    intercept = y_mean - x_mean @ weights
    return Decoder("ridge", weights.astype(np.float32), intercept.astype(np.float32), report)


def _chosen(
    spectrum: Spectrum,
    Y: np.ndarray,
    projected: np.ndarray,
    alphas: np.ndarray,
    folds: np.ndarray | None,
    per_target: bool,
) -> tuple[np.ndarray, dict]:
    """Return the places of the chosen penalties, one or one for each latent, and the report."""
    rest = None if spectrum.complete else Y - spectrum.u @ projected
    if folds is None:
        errors = _loo_errors(spectrum, projected, rest, alphas, per_target)
    else:
        errors = _fold_errors(spectrum, projected, rest, alphas, folds)
    total = float((Y * Y).sum())
    pooled = errors.sum(axis=1)
    cv_r2 = 1 - pooled / total if total > 0 else np.zeros(len(alphas))
    chosen = errors.argmin(axis=0) if per_target else np.array([pooled.argmin()])
    return chosen, {
        "alpha": alphas[chosen].tolist() if per_target else float(alphas[chosen[0]]),
        "alphas": alphas.tolist(),
        "cv_r2": cv_r2.tolist(),
        "cv": "leave-one-trial-out" if folds is None else f"{int(folds.max()) + 1} folds",
        "alpha_at_end": _warn_at_end(alphas, chosen),
        "n_trials": len(Y),
    }


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The centred responses as X = U sqrt(S) V'.

    Attributes
    ----------
    u : array of shape (n_trials, rank), float64, orthonormal columns, each of mean 0
    s : array of shape (rank,), float64
        Squared singular values.
    v : array of shape (n_voxels, rank), float64; None where ``u`` spans all centred vectors
    mean_eigenvalue : float
        Sum of ``s`` over the number of trials.
    """

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray | None
    mean_eigenvalue: float

    @property
    def complete(self) -> bool:
        """Whether ``u`` spans all centred vectors, so that nothing is left beside it."""
        return self.v is None

    def weights(self, betas: np.ndarray, mean: np.ndarray, dual: np.ndarray) -> np.ndarray:
        """Return X'U ``dual``, of shape (n_voxels, n_latents), float64."""
        if self.v is not None:
            return self.v @ (np.sqrt(self.s)[:, None] * dual)
        dual = self.u @ dual
        weights = np.empty((betas.shape[1], dual.shape[1]))
        for part, X in _voxel_blocks(betas, mean):
            np.matmul(X.T, dual, out=weights[part])
        return weights


def decompose(betas: np.ndarray, mean: np.ndarray) -> Spectrum:
    """Return the spectrum of ``betas`` less their ``mean``, in the smaller of trials and voxels."""
    n, n_voxels = betas.shape
    if n - 1 <= n_voxels:
        gram = np.zeros((n, n))
        for _, X in _voxel_blocks(betas, mean):
            gram += X @ X.T
        total = float(np.trace(gram))
        # The constant vector has eigenvalue 0; lifted above all others it is the last one, and is
        # kept apart from the centred vectors that also have 0.
        gram += (2 * total if total > 0 else 1.0) / n
        s, u = eigh(gram)
        return Spectrum(u[:, :-1], np.maximum(s[:-1], 0), None, total / n)
    scatter = np.zeros((n_voxels, n_voxels))
    for _, X in _trial_blocks(betas, mean):
        scatter += X.T @ X
    total = float(np.trace(scatter))
    s, v = eigh(scatter)
    kept = s > n * np.finfo(np.float64).eps * max(s[-1], 0.0)
    s, v = s[kept], v[:, kept]
    u = np.empty((n, len(s)))
    for part, X in _trial_blocks(betas, mean):
        np.matmul(X, v, out=u[part])
    u /= np.sqrt(s)
    return Spectrum(u, s, v, total / n)


def _voxel_blocks(betas: np.ndarray, mean: np.ndarray):
    step = max(1, _BLOCK // len(betas))
    for start in range(0, betas.shape[1], step):
        part = slice(start, start + step)
        yield part, betas[:, part] - mean[part]


def _trial_blocks(betas: np.ndarray, mean: np.ndarray):
    step = max(1, _BLOCK // betas.shape[1])
    for start in range(0, len(betas), step):
        part = slice(start, start + step)
        yield part, betas[part] - mean


def _loo_errors(
    spectrum: Spectrum,
    projected: np.ndarray,
    rest: np.ndarray | None,
    alphas: np.ndarray,
    per_target: bool,
) -> np.ndarray:
    """Return squared errors on left-out trials, of shape (n_alphas, n_latents)."""
    shrink = alphas / (spectrum.s[:, None] + alphas)
    squared = spectrum.u * spectrum.u
    free = squared @ shrink
    if rest is not None:
        free += (1 - 1 / len(free) - squared.sum(axis=1))[:, None]
    del squared
    errors = _press(spectrum.u, projected, rest, shrink, free, np.float32)
    compared = errors if per_target else errors.sum(axis=1, keepdims=True)
    close = (compared <= compared.min(axis=0) * (1 + _CLOSE)).any(axis=1)
    if close.sum() > 1:
        errors[close] = _press(
            spectrum.u, projected, rest, shrink[:, close], free[:, close], np.float64
        )
    return errors


def _press(u, projected, rest, shrink, free, dtype) -> np.ndarray:
    """Return sums over trials of (residual / free)^2, of shape (n_alphas, n_latents)."""
    u, projected = u.astype(dtype, copy=False), projected.astype(dtype, copy=False)
    shrink = shrink.astype(dtype, copy=False)
    shrunk = np.empty_like(projected)
    left_out = np.empty((len(u), projected.shape[1]), dtype)
    errors = np.empty((shrink.shape[1], projected.shape[1]))
    for k in range(len(errors)):
        np.multiply(projected, shrink[:, k, None], out=shrunk)
        np.matmul(u, shrunk, out=left_out)
        if rest is not None:
            left_out += rest
        left_out /= free[:, k, None]
        np.square(left_out, out=left_out)
        left_out.sum(axis=0, dtype=np.float64, out=errors[k])
    return errors


# Beside other processes, 1,050 trials in 6 folds took 2.5 to 5 s, and 27 s with two threads.
@on_one_thread
def _fold_errors(
    spectrum: Spectrum,
    projected: np.ndarray,
    rest: np.ndarray | None,
    alphas: np.ndarray,
    folds: np.ndarray,
) -> np.ndarray:
    """Return squared errors on left-out folds, of shape (n_alphas, n_latents)."""
    n = len(folds)
    shrink = alphas / (spectrum.s[:, None] + alphas)
    errors = np.zeros((len(alphas), projected.shape[1]))
    for fold in range(int(folds.max()) + 1):
        inside = np.flatnonzero(folds == fold)
        u = spectrum.u[inside]
        beside = None if rest is None else np.eye(len(u)) - 1 / n - u @ u.T
        for k in range(len(alphas)):
            shrunk = u * shrink[:, k]
            free, residual = shrunk @ u.T, shrunk @ projected
            if beside is not None:
                free += beside
                residual += rest[inside]
            left_out = np.linalg.solve(free, residual)
            errors[k] += np.square(left_out, out=left_out).sum(axis=0)
    return errors


def checked_folds(folds: np.ndarray | None, n: int) -> np.ndarray | None:
    """Return the fold of each of ``n`` trials, counted from 0; None stays."""
    if folds is None:
        return None
    folds = np.asarray(folds)
    if folds.shape != (n,):
        raise ValueError(f"folds of shape {folds.shape} for {n} trials")
    labels, numbered = np.unique(folds, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"all {n} trials are in one fold; at least 2 folds are wanted")
    return numbered


def checked_alphas(alphas: np.ndarray | None, mean_eigenvalue: float) -> np.ndarray:
    """Return the penalties to choose from: those given, or :data:`GRID`."""
    if alphas is None:
        return GRID * (mean_eigenvalue if mean_eigenvalue > 0 else 1.0)
    alphas = np.atleast_1d(np.asarray(alphas, np.float64))
    if alphas.ndim != 1 or not len(alphas) or not (np.isfinite(alphas) & (alphas > 0)).all():
        raise ValueError(f"penalties {alphas}; one or more numbers above 0 are wanted")
    return alphas


def _warn_at_end(alphas: np.ndarray, chosen: np.ndarray) -> bool:
    """Return whether a choice is the smallest or largest penalty; say so where it is."""
    if len(alphas) < 2:
        return False
    low = np.count_nonzero(alphas[chosen] == alphas.min())
    high = np.count_nonzero(alphas[chosen] == alphas.max())
    for count, end, meaning in (
        (low, "lower", "next to no penalty is best"),
        (high, "upper", "the responses tell next to nothing about the latents"),
    ):
        if count:
            which = (
                f"{count} of {len(chosen)} ridge penalties" if len(chosen) > 1 else "Ridge penalty"
            )
            LOG.warning(
                "%s chosen at the %s end of the grid %.3g to %.3g: %s.",
                which, end, alphas.min(), alphas.max(), meaning,
            )  # fmt: skip
    return bool(low or high)
