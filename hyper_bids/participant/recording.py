"""The BOLD of all runs, read once and kept on disk, to be taken in blocks of voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids.config import BetaSettings
from hyper_bids.errors import InputError
from hyper_bids.glm.betas import TrialBetas, estimate_betas
from hyper_bids.glm.evidence import SIGNAL_RATIOS
from hyper_bids.participant.runs import Regressors

# Voxels whose mean is less than this share of the median one lie outside the tissue.
_DIM = 0.5
# Percent: half of a run's voxels with noise of half their mean are no BOLD with a baseline.
_MOST_NOISE = 50.0
# Drift order of the first look, where the user sets none.
FIRST_ORDER = 2
# Voxels that are kept in memory to choose a model: those that respond, and those that do not.
N_CANDIDATES = 1024
N_QUIET = 4096

# Bytes that a block needs for each of its voxels: for each volume, trial, pair of response function
# and shrinkage, and pair of run and shrinkage (float32, with the copies that are made of them).
_A_VOLUME, _A_TRIAL, _A_PAIR, _A_RUN_PAIR = 12, 20, 16, 24
_LEAST_VOXELS = 256
_MOST_VOXELS = 1 << 15


@dataclass(eq=False)
class Recording:
    """Runs as files of float32, each block of voxels contiguous.

    Attributes
    ----------
    folder : path
        Where the files lie; removed by whoever made it.
    lengths : list of int
        Volumes of each run.
    baseline : array of shape (n_runs, n_voxels), float32
        Mean signal; 0 where the signal is not finite.
    r_square, t_mean : arrays of shape (n_voxels,)
        Of a first look at the training trials: variance explained, and mean t value.
    mean : array of shape (n_voxels,)
        Mean signal of the runs that train.
    alive : bool array of shape (n_voxels,)
        Voxels that vary about a mean above 0 in every run that trains.
    block : int
        Voxels of a block.
    """

    folder: Path
    lengths: list[int]
    baseline: np.ndarray
    r_square: np.ndarray
    t_mean: np.ndarray
    mean: np.ndarray
    alive: np.ndarray
    block: int

    @property
    def n_voxels(self) -> int:
        """Voxels of the mask."""
        return self.baseline.shape[1]

    def blocks(self) -> Iterator[slice]:
        """Give the blocks of voxels."""
        for start in range(0, self.n_voxels, self.block):
            yield slice(start, min(start + self.block, self.n_voxels))

    def read(self, run: int, part: slice) -> np.ndarray:
        """Return the signal of one block (n_volumes, n_voxels) as percent of its mean, less 100.

        Voxels that are constant, not finite or of mean <= 0 in the run are 0.
        """
        n, width = self.lengths[run], part.stop - part.start
        signal = np.fromfile(
            self._file(run), np.float32, n * width, offset=4 * n * part.start
        ).reshape(n, width)
        mean = self.baseline[run, part]
        with np.errstate(invalid="ignore", over="ignore"):
            signal -= mean
            signal *= np.divide(100, mean, out=np.zeros_like(mean), where=mean > 0)
        signal[:, ~np.isfinite(signal).all(axis=0) | (mean <= 0)] = 0
        return signal

    def columns(self, run: int, voxels: np.ndarray) -> np.ndarray:
        """Return the signal of some voxels (ascending), as :meth:`read` does."""
        parts = []
        for part in self.blocks():
            wanted = voxels[(voxels >= part.start) & (voxels < part.stop)] - part.start
            if wanted.size:
                parts.append(self.read(run, part)[:, wanted])
        return np.hstack(parts) if parts else np.zeros((self.lengths[run], 0), np.float32)

    def _file(self, run: int) -> Path:
        return self.folder / f"run-{run}.f32"


def record(
    load: Callable[[int], np.ndarray], regressors: list[Regressors], n_voxels: int,
    settings: BetaSettings, folder: Path, memory_mb: float,
) -> Recording:  # fmt: skip
    """Read all runs, one in memory at a time, and look once at what responds.

    Parameters
    ----------
    load : callable
        From a run's position to its signal (n_volumes, n_voxels), float32.
    regressors : list of Regressors
    n_voxels : int
    settings : BetaSettings
    folder : path
        For the files: 4 bytes a volume and voxel.
    memory_mb : float
        Megabytes that blocks of voxels may take.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If the trials of a run cannot be estimated.
    """
    lengths = [part.n_volumes for part in regressors]
    baseline = np.zeros((len(regressors), n_voxels), np.float32)
    r_square, t_mean, mean = np.zeros((3, n_voxels))
    alive = np.ones(n_voxels, bool)
    block = block_size(regressors, memory_mb)
    recording = Recording(folder, lengths, baseline, r_square, t_mean, mean, alive, block)
    order = FIRST_ORDER if settings.drift_order == "auto" else int(settings.drift_order)
    for index, part in enumerate(regressors):
        # Of two runs, the next must not be read while this one is still held: it has no name here.
        sd = _write_run(recording, index, load(index), part, order)
        n = int(part.is_train.sum())
        if n:
            check_baseline(part.label, sd, baseline[index])
            alive &= (sd > 0) & (baseline[index] > 0)
            mean += n * baseline[index]
    n_trained = sum(int(part.is_train.sum()) for part in regressors)
    r_square /= n_trained
    t_mean /= n_trained
    mean /= n_trained
    if not alive.any():
        raise InputError(
            "no voxel of the brain mask varies about a mean above 0 in all runs that train. Check "
            "BOLD and masks, or leave runs out with --run-id."
        )
    return recording


def _write_run(
    recording: Recording, index: int, bold: np.ndarray, part: Regressors, order: int
) -> np.ndarray:
    """Write a run's file, and add what a first look at its training trials tells.

    Returns
    -------
    array of shape (n_voxels,), float32
        Standard deviation of the noise, percent; 0 where the run does not train.
    """
    n = int(part.is_train.sum())
    sd = np.zeros(recording.n_voxels, np.float32)
    with recording._file(index).open("wb") as stream:
        for own in recording.blocks():
            signal = np.ascontiguousarray(bold[:, own])
            signal.tofile(stream)
            with np.errstate(invalid="ignore", over="ignore"):
                level = signal.mean(axis=0, dtype=np.float64)
            recording.baseline[index, own] = np.where(np.isfinite(level), level, 0)
            if n:
                first = _first_look(signal, part, order)
                recording.r_square[own] += n * first.r_square
                recording.t_mean[own] += n * mean_t(first, part.is_train)
                sd[own] = first.residual_sd
    return sd


def check_baseline(label: str, residual_sd: np.ndarray, baseline: np.ndarray) -> None:
    """Refuse a run most of whose voxels have no baseline.

    Parameters
    ----------
    label : str
    residual_sd : array of shape (n_voxels,), percent
    baseline : array of shape (n_voxels,)

    Raises
    ------
    InputError
        If half of the voxels that have a signal have noise of half their mean, or no mean above 0.
    """
    there = baseline != 0  # 0 throughout: blanked, or out of view in the run
    if not there.any():
        raise InputError(f"{label}: no voxel of the brain mask has a signal. Leave the run out.")
    if np.median(np.where(baseline > 0, residual_sd, np.inf)[there]) > _MOST_NOISE:
        raise InputError(
            f"{label}: the signal of most voxels varies about a mean of almost 0 or less, so "
            f"percent signal change is undefined. Give BOLD with its baseline, not cleaned or "
            f"demeaned data."
        )


def _first_look(signal: np.ndarray, part: Regressors, order: int) -> TrialBetas:
    try:
        return estimate_betas(signal, part.trials[0], part.nuisance(order))
    except ValueError as error:
        raise InputError(f"{part.label}: {error}.") from None


def mean_t(estimate, chosen: np.ndarray) -> np.ndarray:
    """Return the mean t value of the ``chosen`` trials in each voxel; 0 without noise."""
    total = np.zeros(estimate.betas.shape[1])
    for place in range(len(estimate.variance_factors)):
        own = estimate.model == place
        weight = chosen / np.sqrt(estimate.variance_factors[place]) / chosen.sum()
        total[own] = weight.astype(np.float32) @ estimate.betas[:, own]
    sd = estimate.residual_sd
    return np.divide(total, sd, out=np.zeros_like(total), where=sd > 0)


def block_size(regressors: list[Regressors], memory_mb: float) -> int:
    """Return how many voxels of all runs may be in memory at a time."""
    n_volumes = sum(part.n_volumes for part in regressors)
    n_trials = sum(len(part.is_train) for part in regressors)
    n_gammas = len(SIGNAL_RATIOS)
    each = _A_VOLUME * n_volumes + _A_TRIAL * n_trials
    each += _A_PAIR * n_gammas * len(regressors[0].trials) + _A_RUN_PAIR * n_gammas * len(
        regressors
    )
    fits = int(memory_mb * 2**20 / each)
    return int(np.clip(fits, _LEAST_VOXELS, _MOST_VOXELS))


def responding_and_quiet(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels by which a model is chosen: those that respond most, and the quiet ones.

    Both are told from training trials: the highest mean t, and the half of the other bright voxels
    that the trials explain least, evenly thinned. Voxels without signal in a run that trains are
    neither.

    Returns
    -------
    responding, quiet : int arrays, ascending
    """
    alive = recording.alive
    n = min(N_CANDIDATES, max(1, int(alive.sum()) // 2))
    order = np.argsort(-np.where(alive, recording.t_mean, -np.inf), kind="stable")
    responding = np.sort(order[:n])
    bright = alive & (recording.mean > _DIM * np.median(recording.mean[alive]))
    bright[responding] = False
    rest = np.flatnonzero(bright)
    quiet = (
        rest[recording.r_square[rest] <= np.median(recording.r_square[rest])] if rest.size else rest
    )
    step = max(1, -(-len(quiet) // N_QUIET))
    return responding, quiet[::step]
