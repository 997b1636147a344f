"""Stage 1: one response a trial and voxel, from the BOLD signal. It knows no latents."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids.confounds import read_confounds
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.errors import InputError
from hyper_bids.glm import betas as glm
from hyper_bids.glm import design

LOG = logging.getLogger("hyper_bids")

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

    Masks that come with the data are intersected; where a run has none, a brain mask is computed
    from the mean image of those of them that train, so that test data decide nothing.
    """
    affine = volumes.read_header(runs[0]["bold"]).affine
    masks = [volumes.read_mask(run["mask"]) for run in runs if run["mask"]]
    bare = [run for run in runs if not run["mask"]]
    bare = [run for run in bare if run["trains"]] or bare
    if bare:
        mean = sum(volumes.mean_volume(run["bold"], first) / len(bare) for run in bare)
        masks.append(volumes.brain_mask(mean, affine))
    mask = np.logical_and.reduce(masks)
    if not mask.any():
        raise InputError(
            f"{Path(runs[0]['bold']).name} and the other runs: no voxel lies in all brain masks. "
            f"Check the masks, or leave runs out with --run-id."
        )
    return mask, affine


def estimate_run(run: dict, mask: np.ndarray, settings) -> glm.TrialBetas:
    """Estimate the responses of one run's trials."""
    first = settings.dummy_scans
    bold = volumes.read_masked(run["bold"], mask, first)
    timing = {
        "n_volumes": len(bold),
        "t_r": run["t_r"],
        "hrf": settings.hrf,
        "slice_time_ref": settings.slice_time_ref,
    }
    shift = first * run["t_r"]
    trials = design.trial_regressors(
        np.array(run["onsets"]) - shift, np.array(run["durations"]), **timing
    )
    confounds = None
    if run["confounds"]:
        confounds = read_confounds(run["confounds"], settings.confounds, run["n_volumes"])[0][
            first:
        ]
    other = None
    nuisance = run["nuisance"]
    if nuisance["onsets"]:
        other = design.event_regressors(
            np.array(nuisance["onsets"]) - shift, np.array(nuisance["durations"]),
            nuisance["kinds"], **timing,
        )[0]  # fmt: skip
    fixed = design.nuisance_design(len(bold), settings.drift_order, confounds, other)
    try:
        estimate = glm.estimate_betas(bold, trials, fixed)
    except ValueError as error:
        raise InputError(f"{run['label']}: {error}") from None
    silent = float(np.mean(estimate.baseline <= 0))
    if silent > 0.5:
        raise InputError(
            f"{Path(run['bold']).name}: {silent:.0%} of the voxels have a mean of 0 or less, so "
            f"percent signal change is undefined. Give BOLD with its baseline, not cleaned data."
        )
    return estimate
