"""Betas of all runs, one block of voxels at a time, with the model that was chosen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import voxels
from hyper_bids.bids.atomic import reserve
from hyper_bids.config import BetaSettings
from hyper_bids.glm import betas as glm
from hyper_bids.glm import evidence, noise
from hyper_bids.glm.shrinkage import estimate_shrunken
from hyper_bids.participant import tuning
from hyper_bids.participant.model import Chosen
from hyper_bids.participant.recording import Recording, check_baseline, mean_t
from hyper_bids.participant.runs import Regressors

LOG = logging.getLogger("hyper_bids")


@dataclass(frozen=True, eq=False)
class Maps:
    """What is known of each voxel beside its betas; arrays of shape (n_voxels,)."""

    mean_z: np.ndarray
    r_square: np.ndarray
    tsnr: np.ndarray
    hrf_index: np.ndarray
    fraction: np.ndarray


def estimate_blocks(
    recording: Recording, regressors: list[Regressors], chosen: Chosen,
    settings: BetaSettings, betas_file: Path,
) -> Maps:  # fmt: skip
    """Estimate all runs' responses, block by block.

    Parameters
    ----------
    recording : Recording
    regressors : list of Regressors
    chosen : Chosen
    settings : BetaSettings
    betas_file : path
        ``.npy`` to write: n_trials x n_voxels, float32, percent signal change.

    Returns
    -------
    Maps

    Raises
    ------
    InputError
        If a run's signal has no baseline.
    """
    n_trials = [len(part.is_train) for part in regressors]
    shape = sum(n_trials), recording.n_voxels
    np.lib.format.open_memmap(betas_file, "w+", np.float32, shape).flush()
    reserve(betas_file)
    maps = Maps(*(np.zeros(recording.n_voxels, np.float32) for _ in range(5)))
    residual_sd = np.zeros((len(regressors), recording.n_voxels), np.float32)
    estimate = _Optimised if settings.estimator == "optimised" else _Plain
    fit = estimate(regressors, chosen, settings)
    for part in recording.blocks():
        signals = [recording.read(run, part) for run in range(len(regressors))]
        found = fit(signals)
        # Opened for each block, so that what was written need not stay in memory.
        betas = np.load(betas_file, mmap_mode="r+")
        first = 0
        for n, own in zip(n_trials, found["betas"], strict=True):
            betas[first : first + n, part] = own
            first += n
        betas.flush()
        del betas
        residual_sd[:, part] = found["residual_sd"]
        for name in ("mean_z", "r_square", "tsnr", "hrf_index", "fraction"):
            getattr(maps, name)[part] = found[name]
        LOG.debug("responses: voxels to %d of %d", part.stop, recording.n_voxels)
    for run, sd, mean in zip(regressors, residual_sd, recording.baseline, strict=True):
        check_baseline(run.label, sd, mean)
    LOG.info("%d trials in %d voxels of %d runs", shape[0], shape[1], len(regressors))
    return maps


class _Plain:
    """Blocks of voxels through ``lsa`` or ``lss``, run by run."""

    def __init__(self, regressors: list[Regressors], chosen: Chosen, settings: BetaSettings):
        self._designs = [
            (part.trials[0], part.nuisance(chosen.model.drift_order, components), part.is_train)
            for part, components in zip(regressors, chosen.components, strict=True)
        ]
        self._how = settings.estimator, chosen.model.noise_model

    def __call__(self, signals: list[np.ndarray]) -> dict:
        found = []
        for signal, (trials, nuisance, is_train) in zip(signals, self._designs, strict=True):
            # Percent less 100 has no mean, of which the estimator makes percent.
            silent = ~signal.any(axis=0)
            fit = glm.estimate_betas(signal + np.float32(100), trials, nuisance, *self._how)
            fit.betas[:, silent] = 0
            t = mean_t(fit, is_train) if is_train.any() else None
            found.append((fit.betas, fit.residual_sd, fit.r_square, t, fit.dof, is_train.sum()))
        ones = np.ones(signals[0].shape[1], np.float32)
        return _summary(found, signals) | {"hrf_index": 0 * ones, "fraction": ones}


class _Optimised:
    """Blocks of voxels with each voxel's own response function and shrinkage."""

    def __init__(self, regressors: list[Regressors], chosen: Chosen, settings: BetaSettings):
        model = self._model = chosen.model
        self._chosen, self._is_train = chosen, [part.is_train for part in regressors]
        self._training = [k for k, part in enumerate(regressors) if part.is_train.any()]
        own = [regressors[k] for k in self._training]
        courses = [chosen.components[k] for k in self._training]
        self._for_choice = tuning.evidence_models(model, own, courses)
        n = len(self._for_choice[0].left)
        self._fits = [
            evidence.run_model(
                part.trials[:n], part.nuisance(model.drift_order, components), model.rho
            )
            for part, components in zip(regressors, chosen.components, strict=True)
        ]

    def __call__(self, signals: list[np.ndarray]) -> dict:
        model, n_voxels = self._model, signals[0].shape[1]
        white = [noise.whitened(signal, model.rho) for signal in signals]
        functions = np.zeros(n_voxels, int)
        gammas = tuning.unshrunken(model, self._chosen.gammas, n_voxels)
        if model.hrf == "library" or model.shrinkage:
            own = [white[k] for k in self._training]
            likely, _ = evidence.left_out_evidence(own, self._for_choice, self._chosen.gammas)
            functions, places = evidence.most_likely(likely, self._chosen.share)
            if model.shrinkage:
                gammas = self._chosen.gammas[places]
        found, lengths = [], np.zeros((2, n_voxels))
        for series, fit, is_train in zip(white, self._fits, self._is_train, strict=True):
            part = estimate_shrunken(series, fit, functions, gammas)
            t = part.t[is_train].mean(axis=0) if is_train.any() else None
            if t is not None:
                lengths += part.lengths
            found.append((part.betas, part.residual_sd, part.r_square, t, part.dof, is_train.sum()))
        ratio = np.divide(lengths[0], lengths[1], out=np.ones(n_voxels), where=lengths[1] > 0)
        return _summary(found, signals) | {"hrf_index": functions, "fraction": np.sqrt(ratio)}


def _summary(found: list[tuple], signals: list[np.ndarray]) -> dict:
    """Return the maps of one block from each run's (betas, sd, R^2, mean t, dof, n_train)."""
    betas, sds, r_squares, ts, dofs, counts = zip(*found, strict=True)
    z = sum(
        n * voxels.t_to_z(t, dof) for t, dof, n in zip(ts, dofs, counts, strict=True) if n
    ) / sum(counts)
    total = sum(np.einsum("ij,ij->j", s, s) for s in signals)
    counts = sum(len(s) * s.any(axis=0) for s in signals)
    drop = np.sqrt(total / np.maximum(counts, 1))
    return {
        "betas": betas,
        "residual_sd": np.stack(sds),
        "mean_z": z,
        "r_square": np.average(r_squares, axis=0, weights=np.array(dofs, float)),
        "tsnr": np.divide(100, drop, out=np.zeros_like(drop), where=drop > 0),
    }
