"""Single-trial betas of one run by least squares: all trials at once, or one trial at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.errors import listing
from hyper_bids.glm.prewhitened import Prewhitened
from hyper_bids.threads import on_one_thread

# Voxels in one matrix product: 300 volumes of them stay in a processor's cache (5 MB).
_BLOCK = 4096
# A trial is not told from the others if less of its regressor than this is its own (squared norm).
_COLLINEAR = 1e-8
# Of the largest trial regressor's norm: below it, the response is not in the run.
_UNSEEN = 0.01
# Of a voxel's sum of squares: what is left by a subtraction below it is computed again, exactly.
_CANCELLED = 0.05
# Of a voxel's mean: variation below this (standard deviation) is rounding of single precision.
_CONSTANT = 1e-6


class DesignError(ValueError):
    """A design whose trials cannot be estimated; ``trials`` has their indices within the run."""

    def __init__(self, message: str, trials: np.ndarray):
        super().__init__(f"{message}: trials {listing(trials)} (counted from 0)")
        self.message = message
        self.trials = [int(trial) for trial in trials]


@dataclass(frozen=True, eq=False)
class TrialBetas:
    """Responses of a run's trials and what tells how well they are known.

    Attributes
    ----------
    betas : array of shape (n_trials, n_voxels), float32
        Percent signal change: of the voxel's mean, at the peak of the response.
    variance_factors : array of shape (n_models, n_trials), float64
        Variance of a beta for a noise variance of 1, under each noise model.
    model : array of shape (n_voxels,), int
        Each voxel's noise model; 0 throughout without autocorrelation.
    rho : array of shape (n_models,), float64
        Autocorrelation of each noise model.
    residual_sd : array of shape (n_voxels,), float32
        Standard deviation of the noise, percent.
    dof : int
        Residual degrees of freedom.
    r_square : array of shape (n_voxels,), float32
        Fraction of the variance left by drift and nuisance that the trials explain, 0 to 1.
    baseline : array of shape (n_voxels,), float32
        Mean signal; 0 where the signal is not finite.
    """

    betas: np.ndarray
    variance_factors: np.ndarray
    model: np.ndarray
    rho: np.ndarray
    residual_sd: np.ndarray
    dof: int
    r_square: np.ndarray
    baseline: np.ndarray


def estimate_betas(
    bold: np.ndarray,
    trials: np.ndarray,
    nuisance: np.ndarray,
    estimator: str = "lsa",
    noise_model: str = "ols",
) -> TrialBetas:
    """Estimate all trials' responses by ordinary or generalised least squares.

    With N the nuisance and a constant, M = I - N N^+ and X the trials, betas = C X'M Y (Frisch,
    Waugh and Lovell) with a small matrix C: for ``lsa``, one model with a regressor for every
    trial, (X'MX)^-1; for ``lss``, a model a trial with that trial's regressor and the sum of all
    others (Mumford et al. 2012, NeuroImage 59:2636-2643), so that both take the same time. The
    small matrices are float64; those with voxels are float32, relative to a reference near each
    voxel's mean. Working memory is one block of voxels.

    The noise (``residual_sd``, ``dof``, ``r_square``) is that of the model with all trials, for
    both: what ``lss`` leaves holds responses to other trials. Variance factors are those of the
    estimator, |row of C X'M|^2.

    Parameters
    ----------
    bold : array of shape (n_volumes, n_voxels)
        Signal with its mean.
    trials : array of shape (n_volumes, n_trials)
        One regressor a trial, peak 1.
    nuisance : array of shape (n_volumes, k)
        Drift, confounds, other events; may be rank deficient. The constant is always in the model.
    estimator : {"lsa", "lss"}
    noise_model : {"ols", "ar1"}
        ``ar1``: each voxel's noise has the lag-1 autocorrelation of its residuals, corrected for
        what the design takes from it (Worsley et al. 2002, NeuroImage 15:1-15), in steps of 0.02.

    Returns
    -------
    TrialBetas
        Voxels that are constant, not finite, or of mean <= 0 have betas, residual_sd and r_square
        of 0.

    Raises
    ------
    ValueError
        If shapes disagree, there are not more volumes than regressors, or trials cannot be told
        from each other or from nuisance; the message gives the trials' indices.
    """
    _check_shapes(bold, trials, nuisance)
    fixed, own, triangle = _decompose(np.asarray(trials, float), np.asarray(nuisance, float))
    solve = ESTIMATORS[estimator](triangle)
    dof = len(trials) - trials.shape[1] - fixed.shape[1]
    if noise_model == "ar1":
        fit = Prewhitened(fixed, np.asarray(trials, float), ESTIMATORS[estimator])
    else:
        fit = _Ordinary(fixed, own, solve)
    return _estimate(bold, fit, trials.shape[1], dof)


def _estimate(bold: np.ndarray, fit: _Ordinary | Prewhitened, n_trials: int, dof: int):
    """Return the betas of ``fit``, a block of voxels at a time."""
    n_volumes, n_voxels = bold.shape
    betas = np.empty((n_trials, n_voxels), np.float32)
    residual_sd, r_square, baseline = np.empty((3, n_voxels), np.float32)
    models = np.zeros(n_voxels, int)
    buffer = np.empty((n_volumes, min(_BLOCK, n_voxels)), np.float32)
    for start in range(0, n_voxels, _BLOCK):
        part = slice(start, start + _BLOCK)
        signal = bold[:, part]
        Y = buffer[:, : signal.shape[1]]
        with np.errstate(invalid="ignore", over="ignore"):  # voxels that are not finite
            reference = _reference(signal)
            np.subtract(signal, reference, out=Y, casting="same_kind")
            mean = reference + Y.mean(axis=0)
            broken = ~np.isfinite(mean)
            Y[:, broken] = 0
            models[part] = fit.models(Y)
            heights, total, left = fit.estimate(Y, models[part])
            alive = (mean > 0) & (total > n_volumes * (_CONSTANT * mean) ** 2)
        percent = np.divide(100, mean, out=np.zeros(mean.shape, np.float32), where=alive)
        np.multiply(heights, percent, out=betas[:, part])
        left[~alive] = 0
        residual_sd[part] = np.sqrt(np.maximum(left, 0) / dof) * percent
        r_square[part] = np.divide(total - left, total, out=np.zeros_like(total), where=alive)
        baseline[part] = np.where(broken, 0, mean)
    np.clip(r_square, 0, 1, out=r_square)
    used, models = np.unique(models, return_inverse=True)
    factors = np.stack([fit.variance_factors(place) for place in used])
    rho = fit.grid[used]
    return TrialBetas(betas, factors, models, rho, residual_sd, dof, r_square, baseline)


class _Ordinary:
    """Ordinary least squares for blocks of voxels: no autocorrelation."""

    grid = np.zeros(1)

    def __init__(self, fixed: np.ndarray, own: np.ndarray, solve: np.ndarray):
        self._basis = np.hstack([fixed, own]).T.astype(np.float32)
        self._n_fixed = fixed.shape[1]
        self._solve, self._solve32 = solve, solve.astype(np.float32)

    def models(self, Y: np.ndarray) -> int:
        return 0

    def estimate(self, Y: np.ndarray, models: np.ndarray) -> tuple[np.ndarray, ...]:
        Z = self._basis @ Y
        total, left = _sums_of_squares(Y, Z, self._basis, self._n_fixed)
        return self._solve32 @ Z[self._n_fixed :], total, left

    def variance_factors(self, model: int) -> np.ndarray:
        return np.einsum("ij,ij->i", self._solve, self._solve)


def check_design(trials: np.ndarray, nuisance: np.ndarray, estimator: str = "lsa") -> None:
    """Check, without the signal, that :func:`estimate_betas` can estimate each trial.

    Raises
    ------
    ValueError
        As :func:`estimate_betas`; DesignError where it is certain trials that cannot be estimated.
    """
    _check_shapes(trials, trials, nuisance)
    triangle = _decompose(np.asarray(trials, float), np.asarray(nuisance, float))[-1]
    ESTIMATORS[estimator](triangle)


def _check_shapes(bold: np.ndarray, trials: np.ndarray, nuisance: np.ndarray) -> None:
    shapes = bold.shape, trials.shape, nuisance.shape
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(
            f"bold, trials and nuisance must have one row a volume; their shapes are "
            f"{bold.shape}, {trials.shape} and {nuisance.shape}"
        )
    if not (np.isfinite(trials).all() and np.isfinite(nuisance).all()):
        raise ValueError("the regressors of trials or nuisance are not all finite")
    if not trials.shape[1]:
        raise ValueError("there is no trial to estimate")


@on_one_thread
def _decompose(trials: np.ndarray, nuisance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return orthonormal bases of nuisance and of what trials add to it, MX = QR.

    Returns
    -------
    fixed : array of shape (n_volumes, rank of nuisance and constant), the constant first
    own : array of shape (n_volumes, n_trials), Q
    triangle : array of shape (n_trials, n_trials), R
    """
    fixed = _basis(nuisance)
    n_volumes, n_trials = trials.shape
    if n_trials + fixed.shape[1] >= n_volumes:
        raise ValueError(
            f"{n_trials} trials and {fixed.shape[1]} nuisance regressors need more than "
            f"{n_trials + fixed.shape[1]} volumes; the run has {n_volumes}. Use fewer confounds or "
            f"a lower drift order, or leave the run out"
        )
    norms = np.linalg.norm(trials, axis=0)
    unseen = np.flatnonzero(norms <= _UNSEEN * norms.max())
    if unseen.size:
        raise DesignError("trials that have no response within the run's volumes", unseen)
    scaled = trials / norms
    # Twice, since one pass leaves rounding errors of the size of what is taken off.
    for _ in range(2):
        scaled = scaled - fixed @ (fixed.T @ scaled)
    _check_separable(scaled)
    own, r = np.linalg.qr(scaled)
    return fixed, own, r * norms


@on_one_thread
def _all_at_once(triangle: np.ndarray) -> np.ndarray:
    """Return C X'M = (X'MX)^-1 X'M as R^-1 Q', without the Q'."""
    norms = np.linalg.norm(triangle, axis=0)
    return np.linalg.inv(triangle / norms) / norms[:, None]


def _one_at_a_time(triangle: np.ndarray) -> np.ndarray:
    """Return C X'M = C R'Q', without the Q', of a model a trial.

    With a the trial, b the sum of the others (both less nuisance) and y the signal, the beta of a
    is (b'b a'y - a'b b'y) / (a'a b'b - (a'b)^2), and all products are sums over G = X'MX = R'R.
    """
    G = triangle.T @ triangle
    aa, with_all = np.diag(G), G.sum(axis=0)
    ab, bb = with_all - aa, G.sum() - 2 * with_all + aa
    if len(G) == 1:
        return triangle.T / aa
    determinant = aa * bb - ab**2
    alone = np.flatnonzero(determinant < _COLLINEAR * aa * np.maximum(bb, aa))
    if alone.size:
        raise DesignError("trials that cannot be told from the sum of all others", alone)
    # b'y is the sum of all trials' products, less a'y.
    weights = -np.repeat(ab[:, None], len(G), axis=1)
    weights[np.diag_indices(len(G))] = bb
    return (weights / determinant[:, None]) @ triangle.T


ESTIMATORS = {"lsa": _all_at_once, "lss": _one_at_a_time}


def _check_separable(scaled: np.ndarray) -> None:
    """Refuse trials whose regressors, of norm 1 before nuisance was taken off, are collinear."""
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    loadings = np.abs(vectors[:, values < _COLLINEAR])
    if loadings.size:
        involved = np.flatnonzero(loadings.max(axis=1) > 0.05)
        raise DesignError(
            "trials that cannot be told from each other, or from drift, confounds and other events",
            involved,
        )


def _basis(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns' and the constant's span, the constant first."""
    constant = np.full((len(columns), 1), len(columns) ** -0.5)
    norms = np.linalg.norm(columns, axis=0)
    scaled = columns[:, norms > 0] / norms[norms > 0]
    for _ in range(2):
        scaled = scaled - constant @ (constant.T @ scaled)
    vectors, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.hstack([constant, vectors[:, sizes > 1e-8]])


def _reference(signal: np.ndarray) -> np.ndarray:
    """Return a value near each voxel's mean: single precision is then spent on the variation."""
    kind = np.float32 if signal.dtype == np.float32 else np.float64
    rows = np.linspace(0, len(signal) - 1, 8).astype(int)
    return signal[rows].mean(axis=0, dtype=kind)


def _sums_of_squares(
    Y: np.ndarray, Z: np.ndarray, basis: np.ndarray, n_fixed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's sum of squares after nuisance, and after the trials too.

    Pythagoras gives both from Z = basis Y. Where little is left, rounding would be most of the
    result, and the residuals themselves are summed.
    """
    whole = np.einsum("ij,ij->j", Y, Y)
    fixed, own = Z[:n_fixed], Z[n_fixed:]
    total = whole - np.einsum("ij,ij->j", fixed, fixed)
    left = total - np.einsum("ij,ij->j", own, own)
    little = np.flatnonzero(left < _CANCELLED * whole)
    if little.size:
        rest = Y[:, little] - basis[:n_fixed].T @ fixed[:, little]
        total[little] = np.einsum("ij,ij->j", rest, rest)
        rest -= basis[n_fixed:].T @ own[:, little]
        left[little] = np.einsum("ij,ij->j", rest, rest)
    return total, left
