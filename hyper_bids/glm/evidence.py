"""Which response function and how much shrinkage: the evidence of runs that were left out.

A voxel's responses to the trials of a run are taken as b = m + u, u of variance v, so that its
signal less nuisance is y = X b + e with the covariance s2 (I + g X X'), g = v / s2 (the random
effects whose best predictor is ridge regression towards the mean response). For each response
function and each g on a grid, m and s2 are fitted to all runs but one, and the density of the left
run's signal is taken; no trial has to be repeated. With X = U S W' everything is a sum over the
n_trials numbers U'y of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from hyper_bids.glm.noise import whitened
from hyper_bids.threads import on_one_thread

# Ratio of the responses' variance to that of their estimates, in a typical trial.
SIGNAL_RATIOS = np.logspace(-2, 2.5, 13)

# Of all pairs of response function and shrinkage: what no data can rule out.
_DOUBT = 0.02
_ROUNDS = 15
# Of the largest direction of the responses that are set aside: smaller ones are left.
_NEGLIGIBLE = 1e-3
# Sum of squares of a run, percent: a voxel with less does not vary.
_SILENT = 1e-9


@dataclass(frozen=True, eq=False)
class RunModel:
    """One run's design under each of several response functions, decomposed.

    Attributes
    ----------
    rho : float
        Autocorrelation of the noise, which all of this was whitened with.
    fixed : array of shape (n_volumes, k)
        Orthonormal basis of the nuisance, and of what else is set aside.
    left : list of arrays of shape (n_volumes, n_trials), float32
        U of X = U S W', the trials' regressors less nuisance.
    sizes : list of arrays of shape (n_trials,)
        S.
    right : list of arrays of shape (n_trials, n_trials)
        W'.
    """

    rho: float
    fixed: np.ndarray
    left: list[np.ndarray]
    sizes: list[np.ndarray]
    right: list[np.ndarray]

    @property
    def n_trials(self) -> int:
        """Trials of the run that are modelled as responses."""
        return len(self.sizes[0])

    def loadings(self, index: int) -> np.ndarray:
        """Return U'X1: where the response that all trials share lies."""
        return self.sizes[index] * self.right[index].sum(axis=1)


@on_one_thread
def run_model(
    trials: list[np.ndarray], nuisance: np.ndarray, rho: float = 0.0, others: list | None = None
) -> RunModel:
    """Decompose the design of one run.

    Parameters
    ----------
    trials : list of arrays of shape (n_volumes, n_trials)
        Regressors of the trials under each response function.
    nuisance : array of shape (n_volumes, k)
        With the constant.
    rho : float
    others : list of arrays of shape (n_volumes, m), optional
        Regressors of trials that are to have no part in what is fitted, under each function. What
        they can bring to the signal under any of them is set aside as nuisance, as far as half of
        the dimensions that are left allow.

    Returns
    -------
    RunModel
    """
    left, sizes, right = [], [], []
    fixed = orthonormal(whitened(np.asarray(nuisance, float), rho))
    if others is not None and others[0].shape[1]:
        fixed = _with_apart(fixed, whitened(np.hstack(others), rho), trials[0].shape[1])
    for regressors in trials:
        X = whitened(np.asarray(regressors, float), rho)
        for _ in range(2):
            X = X - fixed @ (fixed.T @ X)
        u, s, w = np.linalg.svd(X, full_matrices=False)
        left.append(u.astype(np.float32))
        sizes.append(s)
        right.append(w)
    return RunModel(rho, fixed, left, sizes, right)


def _with_apart(fixed: np.ndarray, apart: np.ndarray, n_trials: int) -> np.ndarray:
    """Return the basis ``fixed`` with the main directions of ``apart``."""
    for _ in range(2):
        apart = apart - fixed @ (fixed.T @ apart)
    u, s, _ = np.linalg.svd(apart, full_matrices=False)
    most = (len(fixed) - fixed.shape[1] - n_trials) // 2
    return np.hstack([fixed, u[:, s > _NEGLIGIBLE * s[0]][:, : max(most, 0)]])


@on_one_thread
def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns' span."""
    norms = np.linalg.norm(columns, axis=0)
    u, s, _ = np.linalg.svd(columns[:, norms > 0] / norms[norms > 0], full_matrices=False)
    return u[:, s > 1e-8]


def ratios_to_gammas(models: list[RunModel]) -> np.ndarray:
    """Return the grid of g: ``SIGNAL_RATIOS`` over the mean squared size of the first design."""
    return SIGNAL_RATIOS / np.mean(np.concatenate([model.sizes[0] ** 2 for model in models]))


def left_out_evidence(
    runs: list[np.ndarray], models: list[RunModel], gammas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of each run's signal, given the other runs, summed over runs.

    Parameters
    ----------
    runs : list of arrays of shape (n_volumes, n_voxels), float32
        Whitened signal of the training runs, less its mean (single precision is for the rest).
    models : list of RunModel
        One a run, all with the same response functions.
    gammas : array of shape (n_gammas,)

    Returns
    -------
    evidence : array of shape (n_functions, n_gammas, n_voxels), float32
    null : array of shape (n_voxels,), float32
        The same without any response. With one run, nothing can be left out: both are then the
        density of the data that were fitted.
    """
    left_over = [remaining_power(series, model) for series, model in zip(runs, models, strict=True)]
    shape = len(models[0].left), len(gammas), runs[0].shape[1]
    evidence = np.empty(shape, np.float32)
    counts = [
        (len(y) - model.fixed.shape[1]) * (power > _SILENT).astype(np.float32)
        for y, model, power in zip(runs, models, left_over, strict=True)
    ]
    for index in range(shape[0]):
        powers, cross, own, logs = [], [], [], []
        for series, model, power in zip(runs, models, left_over, strict=True):
            size, a = model.sizes[index], model.loadings(index)
            Z = model.left[index].T @ series
            shrink = 1 / (1 + gammas[:, None] * size**2)
            powers.append(power - (1 - shrink).astype(np.float32) @ (Z * Z))
            cross.append((shrink * a).astype(np.float32) @ Z)
            own.append(_column((shrink * a**2).sum(axis=1)))
            logs.append(_column(-np.log(shrink).sum(axis=1)))
        evidence[index] = _predictive(powers, cross, own, logs, counts)
    nothing = [np.zeros((1, 1), np.float32)] * len(runs)
    null = _predictive([p[None] for p in left_over], nothing, nothing, nothing, counts)
    return evidence, null[0]


def _column(values: np.ndarray) -> np.ndarray:
    return values[:, None].astype(np.float32)


def remaining_power(series: np.ndarray, model: RunModel) -> np.ndarray:
    """Return each voxel's sum of squares less nuisance."""
    whole = np.einsum("ij,ij->j", series, series)
    taken = model.fixed.astype(np.float32).T @ series
    # A voxel that does not vary: any density will do, but it must be finite.
    floor = np.float32(1e-6) * whole + np.float32(1e-12)
    return np.maximum(whole - np.einsum("ij,ij->j", taken, taken), floor)


def _predictive(powers: list, cross: list, own: list, logs: list, counts: list) -> np.ndarray:
    """Return the summed log densities of left-out runs, from each run's sums.

    Lists over runs: y'V^-1 y and 1'X'V^-1 y (n_gammas, n_voxels), 1'X'V^-1 X1 and log |V|
    (n_gammas, 1), V = I + g X X', and the dimensions that nuisance leaves (n_voxels,), 0 where a
    voxel is silent in a run.
    """
    if len(powers) > 1:
        others = [_all_but_each(parts) for parts in (powers, cross, own, counts)]
    else:
        others = [powers, cross, own, counts]
    result = np.zeros_like(powers[0])
    for run, (power, across, size, count) in enumerate(zip(*others, strict=True)):
        mean = across / np.maximum(size, np.float32(1e-12))
        variance = np.maximum(power - mean * across, np.float32(1e-6) * power)
        variance /= np.maximum(count, 1)
        error = powers[run] - mean * (2 * cross[run] - mean * own[run])
        density = error / variance + counts[run] * np.log(variance) + logs[run]
        # A run in which the voxel is silent, or the only one in which it is not, says nothing.
        np.copyto(density, 0, where=(counts[run] == 0) | (count == 0))
        result -= density
    return result / 2


def _all_but_each(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return, for each run, the sum over the others: added up, as differences would cancel."""
    before = list(accumulate(parts[:-1]))
    after = list(accumulate(parts[:0:-1]))[::-1]
    inner = [a + b for a, b in zip(before[:-1], after[1:], strict=True)]
    return [after[0], *inner, before[-1]]


def shares(evidence: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return how often each pair of response function and shrinkage occurs over voxels.

    The distribution that makes the data of all voxels most likely, voxels without response apart
    (empirical Bayes, by expectation-maximisation). As a prior it draws voxels that say little to
    what the others have.

    Parameters
    ----------
    evidence : array of shape (n_functions, n_gammas, n_voxels)
    null : array of shape (n_voxels,)

    Returns
    -------
    array of shape (n_functions, n_gammas), float64, sum 1
    """
    top = np.maximum(evidence.max(axis=(0, 1)), null)
    density, empty = np.exp(evidence - top), np.exp(null - top)
    share = np.full(evidence.shape[:2], 0.5 / (evidence.shape[0] * evidence.shape[1]))
    no_response = 0.5
    for _ in range(_ROUNDS):
        weighted = density * share[:, :, None]
        whole = weighted.sum(axis=(0, 1)) + no_response * empty
        no_response = float((no_response * empty / whole).mean())
        share = (weighted / whole).mean(axis=2, dtype=float)
        share = (1 - _DOUBT) * share + _DOUBT * (1 - no_response) / share.size
    # Where no voxel responds at all, nothing is known of those that do.
    return share / share.sum() if share.sum() > 0 else np.full(share.shape, 1 / share.size)


def most_likely(evidence: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's response function, then its shrinkage given that.

    Parameters
    ----------
    evidence : array of shape (n_functions, n_gammas, n_voxels)
    share : array of shape (n_functions, n_gammas)

    Returns
    -------
    functions, gammas : arrays of shape (n_voxels,), int64, positions
    """
    posterior = evidence + np.log(share)[:, :, None].astype(np.float32)
    posterior = np.exp(posterior - posterior.max(axis=(0, 1)))
    functions = posterior.sum(axis=1).argmax(axis=0)
    given = np.take_along_axis(posterior, functions[None, None], axis=0)[0]
    return functions, given.argmax(axis=0)
