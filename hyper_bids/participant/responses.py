"""Stage 1: one response a trial and voxel, from the BOLD signal.

What is chosen here (the model of the BOLD, response functions, shrinkage, noise components) is
chosen from training trials; of latents, this stage is given those of the training trials only.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hyper_bids import figures, volumes
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.participant import tuning
from hyper_bids.participant.alignment import aligned
from hyper_bids.participant.estimation import Maps, estimate_blocks
from hyper_bids.participant.model import Chosen, described
from hyper_bids.participant.recording import Recording, record
from hyper_bids.participant.runs import common_mask, response_functions, run_regressors

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
MODEL_COLUMNS = {
    "choice": "What was varied; the steps follow each other, each with what those before it chose",
    "drift_order": "Order of the polynomial drift",
    "noise_model": "ols: white noise; ar1: autocorrelated",
    "n_components": "Noise components of each run",
    "hrf": "Response function; library: each voxel its own",
    "shrinkage": "Whether betas are shrunken towards each voxel's mean response",
    "score": "Correlation of betas with what their stimuli predict in training runs that were left "
    "out, mean over the voxels that respond most",
    "chosen": "Whether this variant was taken",
}


def estimate_responses(job: dict, folder: Path, motion: Path | None = None) -> str:
    """Choose the model of the BOLD, estimate all trials' responses, and write them.

    One run, then one block of voxels of all runs, is in memory at a time.

    Parameters
    ----------
    job : dict
        ``runs`` (files, TR, onsets, durations, nuisance events), ``trials`` (the table),
        ``latents`` (file with those of the training trials), ``settings``, ``memory_mb``,
        ``entities`` and ``provenance``, as :mod:`hyper_bids.participant.jobs` gives.
    folder, motion : path
        Where this stage's part of the derivatives is built, and where the stage that realigns
        wrote (None: the BOLD is taken as it is).

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    settings = from_dict("betas", job["settings"])
    runs = aligned(job["runs"], motion) if motion else job["runs"]
    mask, affine = common_mask(runs, settings.dummy_scans)
    regressors = [run_regressors(run, settings) for run in runs]
    names = list(response_functions(settings))
    latents = np.load(job["latents"])
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        memory = _block_memory(job["memory_mb"], runs, mask)

        def load(index: int) -> np.ndarray:
            bold = volumes.read_masked(runs[index]["bold"], mask, settings.dummy_scans)
            if "seen" in runs[index]:
                bold[:, ~volumes.read_mask(runs[index]["seen"])[mask]] = 0
            return bold

        recording = record(load, regressors, int(mask.sum()), settings, Path(scratch), memory)
        t_r = [run["t_r"] for run in runs]
        chosen = tuning.choose_model(recording, regressors, latents, t_r, settings, names)
        betas_file = fragment.internal("betas.npy")
        maps = estimate_blocks(recording, regressors, chosen, settings, betas_file)
    np.save(fragment.internal("mean_z.npy"), maps.mean_z)
    np.save(fragment.internal("mask.npy"), mask)
    np.save(fragment.internal("affine.npy"), affine)
    background = volumes.to_volume(recording.baseline.mean(axis=0), mask)
    np.save(fragment.internal("background.npy"), background)
    _write_trials(fragment, job, betas_file, mask, affine, chosen)
    _write_fit(fragment, chosen, maps, recording, names, mask, affine)
    _write_model(fragment, chosen)
    return fragment.close()


def _block_memory(memory_mb: float, runs: list[dict], mask: np.ndarray) -> float:
    """Return what is left for blocks beside libraries, and the run that is read."""
    largest = max(run["n_volumes"] for run in runs)
    run_mb = 4 * largest * mask.sum() / 2**20
    return max(memory_mb - LIBRARIES_MB - run_mb, 64.0)


# Megabytes that Python and the libraries take before any data are read.
LIBRARIES_MB = 500


def _write_trials(fragment: Fragment, job: dict, betas_file: Path, mask, affine, chosen) -> None:
    import pandas as pd

    betas = np.load(betas_file, mmap_mode="r")
    model = asdict(chosen.model)
    with fragment.file(
        "betas", "Single-trial responses; volume k is row k of the table of the same name.",
        Units="percent signal change", Model=model,
    ) as path:  # fmt: skip
        volumes.write_maps(path, betas, mask, affine)
    frame = pd.DataFrame(job["trials"])[list(TABLE_COLUMNS)]
    fragment.table("betas_table", frame, TABLE_COLUMNS)
    reliable = reliability(betas, frame, np.concatenate([run["is_train"] for run in job["runs"]]))
    if reliable is not None:
        with fragment.file(
            "reliability", "Reliability of the mean response to a test stimulus over its "
            "repetitions: 1 - within / between mean square, responses centred in each run. Its "
            "square root is the noise ceiling: the highest correlation with the mean responses "
            "that a model can reach.",
            Units="fraction",
        ) as path:  # fmt: skip
            volumes.write_map(path, reliable, mask, affine)


def reliability(betas: np.ndarray, table, is_train: np.ndarray) -> np.ndarray | None:
    """Return each voxel's reliability over repeated test stimuli, None where none is repeated.

    One-way analysis of variance, the intraclass correlation of means, ICC(1, k) (Shrout and Fleiss
    1979, Psychological Bulletin 86:420-428), 0 where it would be negative.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    table : DataFrame with session, task, run and stim_id
    is_train : bool array of shape (n_trials,)
    """
    test = np.flatnonzero(~is_train)
    own = table.iloc[test]
    shown, counts = np.unique(own["stim_id"].astype(str), return_counts=True)
    repeated = shown[counts > 1]
    if len(repeated) < 2:
        return None
    run = own[["session", "task", "run"]].astype(str).agg("/".join, axis=1).to_numpy()
    stimulus = own["stim_id"].astype(str).to_numpy()
    result = np.zeros(betas.shape[1], np.float32)
    for start in range(0, betas.shape[1], 1 << 14):
        part = np.array(betas[test[0] : test[-1] + 1, start : start + (1 << 14)])[test - test[0]]
        for label in np.unique(run):
            part[run == label] -= part[run == label].mean(axis=0)
        groups = [part[stimulus == label] for label in repeated]
        n = sum(len(group) for group in groups)
        mean = sum(group.sum(axis=0) for group in groups) / n
        between = sum(len(g) * (g.mean(axis=0) - mean) ** 2 for g in groups) / (len(groups) - 1)
        within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups) / (n - len(groups))
        ratio = np.divide(within, between, out=np.ones_like(within), where=between > 0)
        result[start : start + (1 << 14)] = np.clip(1 - ratio, 0, 1)
    return result


def _write_fit(
    fragment: Fragment, chosen: Chosen, maps: Maps, recording: Recording, names: list[str],
    mask, affine,
) -> None:  # fmt: skip
    """Write what the model of the BOLD found in each voxel, a volume a quantity, and the mask."""
    described = {
        "baseline": (
            recording.baseline.mean(axis=0),
            "Mean BOLD signal, to which the responses are relative.",
            "arbitrary",
        ),
        "tsnr": (
            maps.tsnr,
            "Temporal signal-to-noise ratio: mean over standard deviation of the signal, in runs.",
            "ratio",
        ),
        "r_square": (
            maps.r_square,
            "Variance that the trials explain, of what drift, confounds and noise leave.",
            "fraction",
        ),
    }
    more = {}
    if chosen.model.hrf == "library":
        text = "Response function of each voxel; ResponseFunctions has their names."
        described["hrf_index"] = (maps.hrf_index, text, "index")
        used = np.bincount(maps.hrf_index.astype(int), minlength=len(names)).tolist()
        more["ResponseFunctions"] = [
            {"hrf_index": k, "hrf": name, "n_voxels": n}
            for k, (name, n) in enumerate(zip(names, used, strict=True))
        ]
    if chosen.model.shrinkage:
        described["ridge_fraction"] = (
            maps.fraction,
            "How long the vector of a voxel's betas is, about their mean, as a fraction of its "
            "length without shrinkage (training runs).",
            "fraction",
        )
    volumes_of = [
        {"Name": name, "Description": text, "Units": units}
        for name, (_, text, units) in described.items()
    ]
    text = "How the model of the BOLD fits; volume k is entry k of Volumes, counted from 0."
    with fragment.file("fit", text, Volumes=volumes_of, **more) as path:
        rows = np.stack([values.astype(np.float32) for values, _, _ in described.values()])
        volumes.write_maps(path, rows, mask, affine)
    with fragment.file("brain_mask", "Voxels with a response estimate.", Type="Brain") as path:
        volumes.write_mask(path, mask, affine)


def _write_model(fragment: Fragment, chosen: Chosen) -> None:
    import pandas as pd

    model = chosen.model
    if chosen.table:
        fragment.table(
            "model_table", pd.DataFrame(chosen.table), MODEL_COLUMNS, Model=asdict(model)
        )
        figures.save(figures.model_choice(chosen.table), fragment.figure("model"))
    fragment.internal("model.json").write_text(
        json.dumps({**asdict(model), "described": described(model)}), encoding="utf-8"
    )
