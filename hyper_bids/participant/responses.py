"""Stage 1: one response a trial and voxel, from the BOLD signal. It knows no latents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids.confounds import read_confounds
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import BetaSettings, from_dict
from hyper_bids.errors import InputError
from hyper_bids.glm import betas as glm
from hyper_bids.glm import design

if TYPE_CHECKING:
    from hyper_bids.bids.inputs import Run

LOG = logging.getLogger("hyper_bids")

# Percent: half of a run's voxels with noise of half their mean are no BOLD with a baseline.
_MOST_NOISE = 50.0

TABLE_COLUMNS = {
    "session": "Session label",
    "task": "Task label",
    "run": "Run label",
    "onset": "Onset of the trial in its run, seconds",
    "duration": "Duration of the trial, seconds",
    "trial_type": "Type of the trial in the events",
    "stim_id": "Key of the stimulus in stimuli/latents.tsv",
    "stim_file": "Image of the stimulus, relative to stimuli/",
    "split": "Use of the trial: train or test",
}


def estimate_responses(job: dict, folder: Path) -> str:
    """Estimate all trials' responses, one run in memory at a time, and write them.

    Parameters
    ----------
    job : dict
        ``runs`` (files, TR, onsets, durations, nuisance events), ``trials`` (the table),
        ``settings``, ``entities`` and ``provenance``, as :mod:`hyper_bids.participant.jobs` gives.
    folder : path
        Where this stage's part of the derivatives is built.

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    settings = from_dict("betas", job["settings"])
    first = settings.dummy_scans
    mask, affine = common_mask(job["runs"], first)
    n_trials = sum(len(run["onsets"]) for run in job["runs"])
    betas = np.lib.format.open_memmap(
        fragment.internal("betas.npy"), "w+", np.float32, (n_trials, int(mask.sum()))
    )
    estimates, filled = [], 0
    for run in job["runs"]:
        estimate = estimate_run(run, mask, settings)
        n_run = len(run["onsets"])
        betas[filled : filled + n_run] = estimate.betas
        filled += n_run
        estimates.append(
            (
                estimate.residual_sd,
                estimate.variance_factors,
                estimate.dof,
                estimate.r_square,
                estimate.baseline,
            )
        )
        LOG.info("%s: %d trials in %d voxels", run["label"], n_run, mask.sum())
    betas.flush()
    residual_sd, factors, dof, r_square, baseline = zip(*estimates, strict=True)
    weights = np.array(dof, float)
    np.savez(
        fragment.internal("noise.npz"),
        residual_sd=np.stack(residual_sd),
        variance_factors=np.concatenate(factors),
        dof=np.array(dof),
    )
    np.save(fragment.internal("mask.npy"), mask)
    np.save(fragment.internal("affine.npy"), affine)
    np.save(fragment.internal("background.npy"), volumes.to_volume(np.mean(baseline, 0), mask))
    _write(fragment, job, betas, np.average(r_square, axis=0, weights=weights), baseline)
    return fragment.close()


def _write(fragment: Fragment, job: dict, betas, r_square, baseline) -> None:
    import pandas as pd

    mask = np.load(fragment.internal("mask.npy"))
    affine = np.load(fragment.internal("affine.npy"))
    with fragment.file(
        "betas", "Single-trial responses; volume k is row k of the table of the same name.",
        Units="percent signal change",
    ) as path:  # fmt: skip
        volumes.write_maps(path, betas, mask, affine)
    frame = pd.DataFrame(job["trials"])[list(TABLE_COLUMNS)]
    fragment.table("betas_table", frame, TABLE_COLUMNS)
    with fragment.file(
        "r_square", "Variance that the trials explain, of what drift and confounds leave.",
        Units="fraction",
    ) as path:  # fmt: skip
        volumes.write_map(path, r_square, mask, affine)
    with fragment.file(
        "baseline", "Mean BOLD signal, to which the responses are relative.", Units="arbitrary"
    ) as path:
        volumes.write_map(path, np.mean(baseline, 0), mask, affine)
    with fragment.file("brain_mask", "Voxels with a response estimate.", Type="Brain") as path:
        volumes.write_mask(path, mask, affine)


def common_mask(runs: list[dict], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that all runs have, and the affine.

    Masks that come with the data are intersected. Where runs that train have none, a brain mask is
    computed from their mean image; runs that only test have no part in it.
    """
    affine = volumes.read_header(runs[0]["bold"]).affine
    masks = [volumes.read_mask(run["mask"]) for run in runs if run["mask"]]
    bare = [run for run in runs if run["trains"] and not run["mask"]]
    if bare:
        mean = sum(volumes.mean_volume(run["bold"], first) / len(bare) for run in bare)
        # Voxels that were blanked are no brain, although a mask may close over them.
        masks.append(volumes.brain_mask(mean, affine) & (mean != 0))
    mask = np.logical_and.reduce(masks)
    if not mask.any():
        raise InputError(
            f"{Path(runs[0]['bold']).name} and the other runs: no voxel lies in all brain masks. "
            f"Check the masks, or leave runs out with --run-id."
        )
    return mask, affine


def run_jobs(runs: list[Run], trials, nuisance) -> list[dict]:
    """Return what the stage is told of each run, as plain JSON.

    Parameters
    ----------
    runs : list of Run
    trials, nuisance : DataFrame
        Of :class:`hyper_bids.bids.events.Trials`.
    """
    found = []
    for index, run in enumerate(runs):
        own = trials[trials["run_index"] == index]
        other = nuisance[nuisance["run_index"] == index]
        found.append(
            {
                "label": run.bold.name.removesuffix(".gz").removesuffix(".nii"),
                "bold": str(run.bold),
                "mask": str(run.mask) if run.mask else None,
                "confounds": str(run.confounds) if run.confounds else None,
                "t_r": run.t_r,
                "n_volumes": run.n_volumes,
                "trains": bool((own["split"] == "train").any()),
                "onsets": own["onset"].tolist(),
                "durations": own["duration"].tolist(),
                "nuisance": {
                    "onsets": other["onset"].tolist(),
                    "durations": other["duration"].tolist(),
                    "kinds": other["trial_type"].tolist(),
                },
            }
        )
    return found


def run_design(run: dict, settings: BetaSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the regressors of one run's trials, and those of no interest.

    Returns
    -------
    trials : array of shape (n_volumes, n_trials)
    nuisance : array of shape (n_volumes, k)
        Drift, confounds, other events; without the volumes that ``dummy_scans`` drops.
    """
    first = settings.dummy_scans
    n_volumes = run["n_volumes"] - first
    timing = {
        "n_volumes": n_volumes,
        "t_r": run["t_r"],
        "hrf": settings.hrf,
        "slice_time_ref": settings.slice_time_ref,
    }
    shift = first * run["t_r"]
    trials = design.trial_regressors(
        np.array(run["onsets"]) - shift, np.array(run["durations"]), **timing
    )
    confounds = other = None
    if run["confounds"]:
        values, _ = read_confounds(run["confounds"], settings.confounds, run["n_volumes"])
        confounds = values[first:]
    events = run["nuisance"]
    if events["onsets"]:
        other, _ = design.event_regressors(
            np.array(events["onsets"]) - shift, np.array(events["durations"]), events["kinds"],
            **timing,
        )  # fmt: skip
    return trials, design.nuisance_design(n_volumes, settings.drift_order, confounds, other)


def estimate_run(run: dict, mask: np.ndarray, settings: BetaSettings) -> glm.TrialBetas:
    """Estimate the responses of one run's trials."""
    trials, nuisance = run_design(run, settings)
    bold = volumes.read_masked(run["bold"], mask, settings.dummy_scans)
    try:
        estimate = glm.estimate_betas(bold, trials, nuisance, settings.estimator)
    except ValueError as error:
        raise InputError(f"{run['label']}: {error}") from None
    varying = np.median(np.where(estimate.baseline > 0, estimate.residual_sd, np.inf))
    if varying > _MOST_NOISE:
        raise InputError(
            f"{Path(run['bold']).name}: the signal of most voxels varies about a mean of almost 0 "
            f"or less, so percent signal change is undefined. Give BOLD with its baseline, not "
            f"cleaned or demeaned data."
        )
    return estimate
