"""The files of one simulated participant: BOLD, events, derivatives and the planted truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import __version__
from hyper_bids.config import to_dict
from hyper_bids.simulate import signal
from hyper_bids.simulate.brain import CODE_SD, Brain, make_brain
from hyper_bids.simulate.design import Design, make_design
from hyper_bids.simulate.head import head_positions, moved
from hyper_bids.simulate.shared import shared_courses, shared_loadings
from hyper_bids.simulation_settings import SimulationSettings

TASK = "faces"
SPACE = "MNI152NLin2009cAsym"
VOXEL_SIZE = 2.0  # mm
DERIVATIVES = "derivatives/simprep"
TRUTH = "sourcedata/simulation"
MOTION_COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

# One independent stream of random numbers for each purpose: changing the use of one leaves the
# others, and so the rest of the dataset, as they are.
LATENTS, ORDER, BRAIN, NOISE, SPIKES, MOTION, LOADINGS, SHARED, HEAD = range(9)

# Settings that came later, and their names in the truth: told only where they are above 0, so that
# a dataset without them has the bytes that it had before.
_OPTIONAL = {"shared_noise": "SharedNoisePercent", "motion": "HeadMotionMm"}

_ARRAYS = {
    "coding_voxels": "Voxel indices (i, j, k) of the coding voxels; their order is that of the "
    "columns below",
    "weights": "Encoding weights, n_latents x n_coding, percent signal change per unit of a latent",
    "mean_response": "Response to the average stimulus, n_coding, percent signal change",
    "betas": "True peak responses, n_stimuli (rows of stimuli/latents.tsv) x n_coding, percent "
    "signal change: mean_response + latents @ weights",
    "time_to_peak": "Time to peak of the main lobe of the impulse response, n_coding, seconds",
    "dispersion": "Dispersion of that lobe, n_coding, seconds",
    "brain": "The brain, x by y by z",
    "baseline": "Mean signal without any response, x by y by z, 0 outside the brain",
    "spikes": "Volumes at which spikes peak, n_runs x n_spikes, counted from 0",
    "shared_courses": "Time courses of the shared noise, n_runs x n_volumes x n_shared; mean 0, "
    "sd 1 and uncorrelated in each run",
    "shared_loadings": "How much each brain voxel follows them, n_shared x n_brain, percent signal "
    "change; voxels in the order of brain, its last axis fastest",
    "head_positions": "Where the head is, n_runs x n_volumes x 6: translations (mm) and rotations "
    "(rad) along and about the three axes, from the place of brain and baseline",
}


@dataclass(frozen=True, eq=False)
class Stimuli:
    """What is shown: latents float32 (n_stimuli, n_latents), and a table of one row for each."""

    latents: np.ndarray
    table: object  # pandas.DataFrame with stim_id and stim_file


def random(settings: SimulationSettings, *key: int) -> np.random.Generator:
    """Return the generator of the stream ``key`` = (purpose, [participant, [run]])."""
    padded = (*key, 0, 0)[:3]
    return np.random.default_rng(np.random.SeedSequence(settings.random_seed, spawn_key=padded))


def participant_label(index: int) -> str:
    """Return the label of the participant ``index``, counted from 0: "01", "02", ..."""
    return f"{index + 1:02d}"


def noise_level(settings: SimulationSettings, index: int) -> float:
    """Return the noise level of the participant ``index``, counted from 0."""
    return float(settings.noise[index if len(settings.noise) > 1 else 0])


def affine(shape: tuple[int, ...]) -> np.ndarray:
    """Return voxel-to-mm of a volume centred on the origin, axes right, anterior, superior."""
    matrix = np.diag([VOXEL_SIZE] * 3 + [1.0])
    matrix[:3, 3] = -VOXEL_SIZE * (np.array(shape) - 1) / 2
    return matrix


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` as JSON, keys in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tsv(path: Path, table, float_format: str = "%.6g") -> None:
    """Write a DataFrame as BIDS wants it: tabs, n/a for what is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(
        path, sep="\t", index=False, na_rep="n/a", float_format=float_format, lineterminator="\n"
    )


def write_participant(
    out: Path, settings: SimulationSettings, index: int, stimuli: Stimuli, progress
) -> None:
    """Write all files of the participant ``index`` (from 0); one run is in memory at a time.

    Parameters
    ----------
    out : Path
        Root of the dataset.
    settings : SimulationSettings
    index : int
    stimuli : Stimuli
    progress : callable
        Called once after each run.
    """
    label = participant_label(index)
    brain = make_brain(settings, random(settings, BRAIN, index))
    design = make_design(settings, random(settings, ORDER, index))
    betas = brain.mean_response + stimuli.latents.astype(float) @ brain.weights
    sd = noise_level(settings, index) * signal.noise_percent(settings, design)
    extras = _extras(settings, index, brain, design)
    spikes = []
    for run, shown in enumerate(design.stimulus):
        name = f"sub-{label}_task-{TASK}_run-{run + 1:02d}"
        bold = out / f"sub-{label}" / "func" / f"{name}_bold.nii.gz"
        volumes, courses = signal.spike_courses(
            design.n_volumes, settings.spikes_per_run, random(settings, SPIKES, index, run)
        )
        spikes.append(volumes)
        evoked = signal.evoked(design, betas[shown], brain, settings.t_r, settings.duration)
        rng = random(settings, NOISE, index, run)
        shared = None
        if settings.shared_noise:
            shared = extras["shared_courses"][run], extras["shared_loadings"]
        values = signal.run_signal(settings, brain, evoked, sd, courses, rng, shared)
        image, still = signal.to_image(values, brain.mask, rng), None
        if settings.motion:
            still, image = image, moved(image, extras["head_positions"][run], VOXEL_SIZE)
        write_image(bold, image, settings.t_r)
        write_tsv(bold.with_name(f"{name}_events.tsv"), _events(settings, design, run, stimuli))
        if settings.with_derivatives:
            if settings.motion:
                motion = extras["head_positions"][run]
            else:  # numbers only: the images do not move
                motion = signal.motion(courses, random(settings, MOTION, index, run))
            _write_derivatives(out / DERIVATIVES, bold, still, brain.mask, motion, settings.t_r)
        progress()
    extras["spikes"] = np.array(spikes, np.int32).reshape(len(spikes), -1)
    _write_truth(out / TRUTH / f"sub-{label}_truth", settings, index, brain, betas, sd, extras)


def _extras(
    settings: SimulationSettings, index: int, brain: Brain, design: Design
) -> dict[str, np.ndarray]:
    """Draw the shared noise and the positions of the head, where they were asked for."""
    extras = {}
    n_runs = len(design.stimulus)
    if settings.shared_noise:
        extras["shared_courses"] = np.stack(
            [
                shared_courses(design.n_volumes, settings.t_r, random(settings, SHARED, index, run))
                for run in range(n_runs)
            ]
        )
        extras["shared_loadings"] = shared_loadings(
            brain.mask, settings.shared_noise, random(settings, LOADINGS, index)
        )
    if settings.motion:
        extras["head_positions"] = head_positions(
            n_runs, design.n_volumes, settings.t_r, settings.motion, random(settings, HEAD, index)
        )
    return extras


def write_image(path: Path, data: np.ndarray, t_r: float | None = None) -> None:
    """Write ``data`` (x, y, z[, n_volumes]) as NIfTI; the same bytes for the same data."""
    import nibabel

    image = nibabel.Nifti1Image(data, affine(data.shape[:3]))
    image.header.set_xyzt_units("mm", "sec")
    if t_r is not None:
        image.header.set_zooms((VOXEL_SIZE,) * 3 + (t_r,))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def _events(settings: SimulationSettings, design: Design, run: int, stimuli: Stimuli):
    import pandas as pd

    shown = stimuli.table.iloc[design.stimulus[run]]
    return pd.DataFrame(
        {
            "onset": [f"{onset:.3f}" for onset in design.onsets],
            "duration": settings.duration,
            "trial_type": "face",
            "stim_id": shown["stim_id"].to_numpy(),
            "stim_file": shown["stim_file"].to_numpy(),
            "split": "test" if design.is_test[run] else "train",
        }
    )


def _write_derivatives(
    root: Path,
    bold: Path,
    still: np.ndarray | None,
    mask: np.ndarray,
    motion: np.ndarray,
    t_r: float,
) -> None:
    """Write the derivative of a run: the BOLD of the ``still`` head, or what was recorded."""
    import pandas as pd

    name = bold.name.removesuffix("_bold.nii.gz")
    folder = root / bold.parent.parent.name / "func"
    source = f"bids:raw:{bold.parent.parent.name}/func/{bold.name}"
    preproc = folder / f"{name}_space-{SPACE}_desc-preproc_bold.nii.gz"
    brain = folder / f"{name}_space-{SPACE}_desc-brain_mask.nii.gz"
    confounds = folder / f"{name}_desc-confounds_timeseries.tsv"
    folder.mkdir(parents=True, exist_ok=True)
    if still is None:
        shutil.copyfile(bold, preproc)
    else:
        write_image(preproc, still, t_r)
    write_json(
        folder / f"{name}_space-{SPACE}_desc-preproc_bold.json",
        {"RepetitionTime": t_r, "TaskName": TASK, "SkullStripped": False, "Sources": [source]},
    )
    write_image(brain, mask.astype(np.uint8))
    write_json(
        folder / f"{name}_space-{SPACE}_desc-brain_mask.json",
        {"Type": "Brain", "Sources": [source]},
    )
    write_tsv(confounds, pd.DataFrame(motion, columns=list(MOTION_COLUMNS)))
    write_json(
        confounds.with_suffix(".json"),
        {
            column: {
                "Description": "Simulated motion parameter",
                "Units": "mm" if column.startswith("trans") else "rad",
            }
            for column in MOTION_COLUMNS
        },
    )


def _write_truth(
    stem: Path, settings: SimulationSettings, index: int, brain: Brain, betas, sd, extras
) -> None:
    baseline = np.zeros(brain.mask.shape, np.float32)
    baseline[brain.mask] = brain.baseline
    arrays = {
        "coding_voxels": np.argwhere(brain.mask)[brain.coding].astype(np.int32),
        "weights": brain.weights.astype(np.float32),
        "mean_response": brain.mean_response.astype(np.float32),
        "betas": betas.astype(np.float32),
        "time_to_peak": brain.time_to_peak.astype(np.float32),
        "dispersion": brain.dispersion.astype(np.float32),
        "brain": brain.mask,
        "baseline": baseline,
        **extras,
    }
    absent = [name for name in _OPTIONAL if not getattr(settings, name)]
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.savez(stem.with_suffix(".npz"), **arrays)
    write_json(
        stem.with_suffix(".json"),
        {
            "Description": f"What was planted in the simulated participant {stem.name[:6]}",
            "Arrays": {name: _ARRAYS[name] for name in arrays},
            "NoiseLevel": noise_level(settings, index),
            "NoisePercent": sd,
            "CodePercent": CODE_SD,
            "DriftPercent": settings.drift,
            "SpikePercent": signal.SPIKE_SD,
            **{_OPTIONAL[n]: getattr(settings, n) for n in _OPTIONAL if n not in absent},
            "RandomSeed": settings.random_seed,
            "Settings": {n: v for n, v in to_dict(settings).items() if n not in absent},
            "SoftwareVersion": __version__,
        },
    )
