"""Small BIDS datasets for tests: real NIfTI files, sidecars, events, stimuli and latents.

`make_dataset` writes a dataset that the app accepts as it is; a test then spoils one thing in it.
`make_derivative` adds preprocessed data, under the names that fMRIPrep gives. The default design:
all runs but the last train, each stimulus shown once; the last run tests, each stimulus twice.
"""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np

SPACE = "MNI152NLin2009cAsym"
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
SOA = 8.0


def make_dataset(
    root,
    participants=("01", "02"),
    runs=("01", "02", "03"),
    sessions=(None,),
    task="faces",
    shape=(4, 5, 3),
    n_volumes=30,
    t_r=2.0,
    trials_per_run=6,
    n_latents=4,
    split="column",
    key="both",
    seed=0,
):
    """Write a raw dataset and return its root.

    Parameters
    ----------
    root : folder to make
    participants, runs, sessions : labels; ``None`` as session or run leaves out the entity
    task : label
    shape, n_volumes, t_r : of each BOLD image, noise around 100 with float32 voxels of 2 mm
    trials_per_run : even; trials come every 8 s, from 2 s on
    n_latents : of ``stimuli/latents.npy``, standard normal
    split : "column", "trial_type" or None: how the events say which trials test
    key : "both", "stim_id" or "stim_file": what names a stimulus, in events and latents.tsv
    seed : of latents and noise
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    stimuli = stimulus_names(len(sessions) * len(runs), trials_per_run)
    shown = [name for run in stimuli for name in run]
    write_json(
        root / "dataset_description.json",
        {"Name": "Test", "BIDSVersion": "1.11.1", "DatasetType": "raw"},
    )
    write_json(root / f"task-{task}_bold.json", {"RepetitionTime": t_r, "TaskName": task})
    write_latents(root, list(dict.fromkeys(shown)), n_latents, key, rng)
    for label in participants:
        for index, (session, run) in enumerate((s, r) for s in sessions for r in runs):
            stem = stem_of(root, label, session, run, task)
            write_bold(f"{stem}_bold.nii.gz", shape, n_volumes, t_r, rng)
            rows = event_rows(stimuli[index], index == len(stimuli) - 1, split, key)
            write_tsv(f"{stem}_events.tsv", rows)
    return root


def make_derivative(raw, folder=None, spaces=(SPACE,), sidecar_t_r=True):
    """Write preprocessed copies of all BOLD below ``raw``, with masks and confounds.

    Parameters
    ----------
    raw : root of a dataset
    folder : where to; ``raw/derivatives/fmriprep`` by default
    spaces : labels, each optionally followed by more entities ("MNI_res-2"); None is native space
    sidecar_t_r : whether the sidecars state RepetitionTime
    """
    raw = Path(raw)
    folder = Path(folder or raw / "derivatives" / "fmriprep")
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "Preprocessed",
            "BIDSVersion": "1.11.1",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep"}],
        },
    )
    for bold in sorted(raw.glob("sub-*/**/*_bold.nii.gz")):
        image = nibabel.load(bold)
        stem = folder / bold.relative_to(raw).parent / bold.name.removesuffix("_bold.nii.gz")
        stem.parent.mkdir(parents=True, exist_ok=True)
        for space in spaces:
            placed = f"{stem}_space-{space}" if space else f"{stem}"
            shutil.copy(bold, f"{placed}_desc-preproc_bold.nii.gz")
            t_r = {"RepetitionTime": float(image.header.get_zooms()[3])} if sidecar_t_r else {}
            write_json(f"{placed}_desc-preproc_bold.json", {**t_r, "SkullStripped": False})
            mask = np.ones(image.shape[:3], np.uint8)
            mask[0] = 0
            nibabel.save(
                nibabel.Nifti1Image(mask, image.affine), f"{placed}_desc-brain_mask.nii.gz"
            )
        motion = np.random.default_rng(1).standard_normal((image.shape[3], 6)).round(4)
        write_tsv(
            f"{stem}_desc-confounds_timeseries.tsv",
            [dict(zip(MOTION, row, strict=True)) for row in motion],
        )
    return folder


def stimulus_names(n_runs, trials_per_run):
    """Return the stimuli of each run: new ones in each, and half as many, twice, in the last."""
    numbers = iter(range(1, 1000))
    train = [[f"face{next(numbers):03d}" for _ in range(trials_per_run)] for _ in range(n_runs - 1)]
    return [*train, [f"face{next(numbers):03d}" for _ in range(trials_per_run // 2)] * 2]


def event_rows(stimuli, is_test, split, key):
    """Return the rows of one run's events."""
    name = "test" if is_test else "train"
    rows = []
    for index, stimulus in enumerate(stimuli):
        row = {
            "onset": 2 + SOA * index,
            "duration": 1.5,
            "trial_type": name if split == "trial_type" else "face",
        }
        if key in ("both", "stim_id"):
            row["stim_id"] = stimulus
        if key in ("both", "stim_file"):
            row["stim_file"] = f"{stimulus}.png"
        if split == "column":
            row["split"] = name
        rows.append(row)
    return rows


def write_latents(root, names, n_latents, key, rng):
    """Write ``stimuli/`` with latents.tsv, latents.npy, latents.json and images of one byte."""
    folder = Path(root) / "stimuli"
    folder.mkdir(parents=True)
    rows = []
    for index, name in enumerate(names):
        row = {"stim_id": name, "stim_file": f"{name}.png"}
        if key != "both":
            row = {key: row[key]}
        if key != "stim_id":
            (folder / f"{name}.png").write_bytes(b"0")
        rows.append({**row, "latent_row": index, "latent_file": "latents.npy"})
    write_tsv(folder / "latents.tsv", rows)
    np.save(folder / "latents.npy", rng.standard_normal((len(names), n_latents), np.float32))
    write_json(folder / "latents.json", {"LatentSpace": "gaussian", "LatentDimension": n_latents})


def stem_of(root, participant, session=None, run="01", task="faces"):
    """Return the path of a run's files, up to the suffix."""
    entities = [f"sub-{participant}", f"ses-{session}" if session else "", f"task-{task}"]
    name = "_".join(filter(None, [*entities, f"run-{run}" if run else ""]))
    folder = Path(root) / f"sub-{participant}" / (f"ses-{session}" if session else "")
    return folder / "func" / name


def write_bold(path, shape=(4, 5, 3), n_volumes=30, t_r=2.0, rng=None, affine=None):
    """Write noise around 100; ``t_r`` None leaves the header without a repetition time."""
    rng = rng or np.random.default_rng(0)
    data = (100 + rng.standard_normal((*shape, n_volumes))).astype(np.float32)
    image = nibabel.Nifti1Image(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 2, 2, t_r or 0))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def write_tsv(path, rows):
    """Write a list of dicts; the first one has the columns."""
    columns = list(rows[0])
    lines = [columns, *([row.get(name, "n/a") for name in columns] for row in rows)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), "utf-8")


def read_tsv(path):
    """Read a table as a list of dicts of str, to change and write again."""
    header, *lines = (line.split("\t") for line in Path(path).read_text("utf-8").splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_json(path, content):
    """Write an object, and its folder where it is not there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content), "utf-8")


def edit_tsv(path, change):
    """Apply ``change(rows)`` to a table; it changes the list of dicts in place."""
    rows = read_tsv(path)
    change(rows)
    write_tsv(path, rows)
