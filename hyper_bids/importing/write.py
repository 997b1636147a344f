"""Imported responses as a dataset that the participant level starts from, at the decoder.

The folder is a BIDS derivative: for each participant the responses (``desc-trials_statmap.npy``,
trials x voxels), their table and a mask, under the names that the app gives to its own; and
``stimuli/`` as in any dataset of the app.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import __version__, volumes
from hyper_bids.bids.atomic import atomic, json_text, tsv_text, write_if_changed
from hyper_bids.bids.dataset import IMPORT, is_import
from hyper_bids.bids.imported import TASK
from hyper_bids.bids.names import output_path
from hyper_bids.bids.outputs import sha256
from hyper_bids.bids.root import BIDS_VERSION
from hyper_bids.bids.tables import LINE, read_json, read_table
from hyper_bids.errors import InputError, OutputError, listing
from hyper_bids.importing.checks import TrialSet

# In latents.json: how many of the first stimuli the model in GeneratorFile was fitted to.
_FITTED = "GeneratorTrainingStimuli"
# The largest size of an axis in a NIfTI image.
_LONGEST = 32767

COLUMNS = {
    "session": "Session label",
    "task": "Task label",
    "run": "Run label, n/a where runs are unknown",
    "onset": "Onset of the trial, unknown",
    "duration": "Duration of the trial, unknown",
    "trial_type": "Type of the trial",
    "stim_id": "Key of the stimulus in stimuli/latents.tsv",
    "stim_file": "Image of the stimulus, relative to stimuli/",
    "split": "Use of the trial: train or test",
}
STIMULUS_COLUMNS = {
    "stim_id": "The stimulus, as in the tables of responses",
    "stim_file": "Image of the stimulus, relative to stimuli/",
    "latent_row": "Row of its latents in latent_file, counted from 0",
    "latent_file": "File with the latents, relative to stimuli/",
    "digest": "Start of the SHA-256 of its latents and image, of the image alone where it was "
    "encoded: equal stimuli stand there once",
}

_README = """\
# Imported responses

hyper_bids {version} wrote this dataset from response matrices that were estimated elsewhere, to
decode them: `hyper_bids THIS_FOLDER OUT participant`, then `group`.

- `sub-*/func/*_desc-trials_statmap.npy`: responses, trials x voxels (float32, `numpy.load`); the
  table of the same name has a row a trial, its JSON says which files they come from.
- `sub-*/func/*_desc-brain_mask.nii.gz`: its voxels, in C order, are the columns. Where it is said
  in the JSON that places are unknown, the image is a list of voxels and no brain.
- `stimuli`: latents and images of what was shown, all participants' together.
"""


@dataclass(frozen=True)
class Source:
    """Where an import comes from, for the sidecars.

    Attributes
    ----------
    files : tuple of path
        The files that were read.
    variables : dict
        Role, such as ``training responses``, to file and variable.
    generator, generator_checksum : str, optional
        Name and SHA-256 of the image model of the latents.
    latents : str
        Where the latents come from, a sentence.
    save_model : callable, optional
        Writes the image model to a path, and gives the SHA-256 of the file; of a model that was
        made of the imported images, and is nowhere else.
    """

    files: tuple[Path, ...]
    variables: dict[str, str]
    generator: str | None = None
    generator_checksum: str | None = None
    latents: str = "Given with the responses."
    save_model: Callable[[Path], str] | None = None


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels are: a mask (x, y, z) with as many voxels, in C order, and its affine."""

    mask: np.ndarray
    affine: np.ndarray
    known: bool = True


def unknown_grid(n_voxels: int) -> Grid:
    """Return a grid for voxels whose places are unknown: one row of them, or several."""
    length = min(n_voxels, _LONGEST)
    shape = (1, -(-n_voxels // length), length)
    mask = np.zeros(shape, bool)
    mask.ravel()[:n_voxels] = True
    return Grid(mask, np.eye(4), known=False)


def check_folder(out: Path | str, participant: str, overwrite: bool = False) -> None:
    """Refuse a folder that an import must not write to; write nothing.

    Raises
    ------
    OutputError
        If it holds something else than imports, or the participant is there already.
    """
    out = Path(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise OutputError(f"{out}: a file; give a new folder, or one of an earlier import.")
    path = out / "dataset_description.json"
    if not (path.is_file() and is_import(read_json(path))):
        raise OutputError(
            f"{out}: not empty, and not made by {IMPORT}; nothing is written there. Give a new "
            f"folder, or one of an earlier import."
        )
    if (out / f"sub-{participant}").exists() and not overwrite:
        raise OutputError(
            f"{out / f'sub-{participant}'}: this participant is there already. Give another "
            f"--participant-label or folder, or --overwrite."
        )


def write_participant(
    out: Path | str, participant: str, sets: tuple[TrialSet, TrialSet], source: Source,
    grid: Grid | None = None, overwrite: bool = False,
) -> None:  # fmt: skip
    """Add a participant to a dataset of imports, which is made if absent.

    Stimuli that are there already, of an earlier participant, are used again.

    Parameters
    ----------
    out : path
    participant : str
        Label without ``sub-``.
    sets : training and test trials
    source : Source
    grid : Grid, optional
        Where the voxels are; unknown by default.
    overwrite : bool
        Whether a participant of this label that is there is replaced.

    Raises
    ------
    OutputError
        As :func:`check_folder`, or if a file cannot be written.
    InputError
        If the latents are of another length or image model than those that are there, or test
        stimuli are among those that this model was fitted to.
    """
    out = Path(out)
    check_folder(out, participant, overwrite)
    grid = grid or unknown_grid(sets[0].responses.shape[1])
    if int(grid.mask.sum()) != sets[0].responses.shape[1]:
        raise InputError(
            f"the mask has {int(grid.mask.sum())} voxels, but the responses have "
            f"{sets[0].responses.shape[1]}; as many are wanted."
        )
    # First: what was interrupted is known as an import, and can be done again.
    _write_root(out)
    names = _add_stimuli(out / "stimuli", sets, source)
    _write_responses(out, participant, sets, names, grid, source)
    _add_to_list(out / "participants.tsv", participant)


def _add_stimuli(folder: Path, sets: tuple[TrialSet, TrialSet], source: Source) -> list:
    """Add stimuli that are not there; return (stim_id, stim_file) of each set's stimuli."""
    import pandas as pd

    path = folder / "latents.tsv"
    rows, latents = _there(path, sets[0].latents.shape[1], source)
    known = {row["digest"]: row for row in rows}
    digests = [[key.hex()[:32] for key in part.keys] for part in sets]
    _check_unseen(folder, rows, *digests)
    found, new = [], []
    for part, own in zip(sets, digests, strict=True):
        named = []
        for k, (digest, vector) in enumerate(zip(own, part.latents, strict=True)):
            image = None if part.images is None else part.images[k]
            if digest not in known:
                name = f"stimulus{len(rows) + 1:05d}"
                file = "n/a" if image is None else f"images/{name}.png"
                if image is not None:
                    _write_png(folder / file, image)
                known[digest] = {
                    "stim_id": name, "stim_file": file, "latent_row": len(rows),
                    "latent_file": "latents.npy", "digest": digest,
                }  # fmt: skip
                rows.append(known[digest])
                new.append(vector)
            named.append((known[digest]["stim_id"], known[digest]["stim_file"]))
        found.append(named)
    parts = [
        part for part in (latents, np.array(new, np.float32)) if part is not None and len(part)
    ]
    _write_npy(folder / "latents.npy", np.concatenate(parts))
    if latents is None:
        write_if_changed(folder / "latents.json", json_text(_latents_sidecar(folder, sets, source)))
    write_if_changed(path, tsv_text(pd.DataFrame(rows, columns=list(STIMULUS_COLUMNS))))
    return found


def _there(path: Path, n_latents: int, source: Source) -> tuple[list[dict], np.ndarray | None]:
    """Return the rows and latents of earlier imports, and check that these go with them."""
    if not path.is_file():
        return [], None
    about = read_json(path.with_name("latents.json"))
    stated = {"LatentDimension": n_latents, "Generator": source.generator}
    if source.generator_checksum is not None:
        stated["GeneratorChecksum"] = source.generator_checksum
    for key, value in stated.items():
        if about.get(key) != value:
            raise InputError(
                f"{path.parent}: the participants there have {key} {about.get(key) or 'unknown'}, "
                f"but this one {value or 'unknown'}; all in one folder have the same latents. Give "
                f"another folder."
            )
    table = read_table(path, required=STIMULUS_COLUMNS)
    rows = table.drop(columns=LINE).to_dict("records")
    latents = np.load(path.with_name("latents.npy"), allow_pickle=False)
    # An interrupted import may have left latents without their rows.
    return rows, latents[: len(rows)]


def _check_unseen(folder: Path, rows: list[dict], train: list[str], test: list[str]) -> None:
    """Refuse test stimuli that the image model of an earlier import was fitted to.

    Those that this participant has in training, too, are refused at the participant level.
    """
    n_fitted = read_json(folder / "latents.json").get(_FITTED, 0) if rows else 0
    names = {row["digest"]: row["stim_id"] for row in rows[:n_fitted]}
    seen = [names[digest] for digest in test if digest in names and digest not in set(train)]
    if seen:
        raise InputError(
            f"{folder}: the image model there was fitted to test stimuli of this participant "
            f"({listing(seen)}), which an earlier import had in training. Give another folder."
        )


def _latents_sidecar(folder: Path, sets: tuple[TrialSet, TrialSet], source: Source) -> dict:
    model = {}
    if source.generator is not None:
        model["Generator"] = source.generator
    if source.generator_checksum is not None:
        model["GeneratorChecksum"] = source.generator_checksum
    if source.save_model is not None:
        model["GeneratorFile"] = f"{source.generator}.safetensors"
        model["GeneratorChecksum"] = source.save_model(folder / model["GeneratorFile"])
        model[_FITTED] = len(sets[0].latents)
    described = {name: {"Description": text} for name, text in STIMULUS_COLUMNS.items()}
    return {
        "Description": f"Latents of what was shown. {source.latents}",
        **model,
        "LatentDimension": int(sets[0].latents.shape[1]),
        **described,
    }


def _write_responses(out: Path, participant: str, sets, names: list, grid: Grid, source) -> None:
    import pandas as pd

    entities = {"subject": participant, "task": TASK}
    table = out / output_path("betas_table", entities)
    rows = []
    for split, part, named in zip(("train", "test"), sets, names, strict=True):
        runs = part.runs or ["n/a"] * len(part.stimulus)
        rows += [
            {"run": run, "stim_id": named[k][0], "stim_file": named[k][1], "split": split}
            for run, k in zip(runs, part.stimulus, strict=True)
        ]
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(task=TASK)
    responses = table.with_suffix(".npy")
    _write_npy(responses, np.concatenate([part.responses for part in sets]))
    mask = out / output_path("brain_mask", entities)
    volumes.write_mask(mask, grid.mask, grid.affine)
    where = "as given" if grid.known else "unknown: the image is a list of voxels, no brain"
    kinds = {"Type": "Brain", "VoxelPlaces": "known" if grid.known else "unknown"}
    text = f"Voxels of the responses, in C order. Places {where}."
    stem = mask.name.removesuffix(".nii.gz")
    sidecar = {"Description": text, "Sources": [], "SpatialReference": "orig", **kinds}
    write_if_changed(mask.with_name(f"{stem}.json"), json_text(sidecar))
    about = {
        "Description": "Single-trial responses, trials x voxels; row k is row k of the table.",
        "Shape": [len(frame), sets[0].responses.shape[1]],
        "DataType": "float32",
        "Units": "arbitrary",
        "SourceFiles": {path.name: sha256(path) for path in map(Path, source.files)},
        "SourceVariables": source.variables,
        "SHA256": {responses.name: sha256(responses)},
        "SoftwareVersion": __version__,
        **{name: {"Description": description} for name, description in COLUMNS.items()},
    }
    write_if_changed(table.with_suffix(".json"), json_text(about))
    # Last: a participant without a table is not taken for a whole one.
    write_if_changed(table, tsv_text(frame))


def _write_root(out: Path) -> None:
    description = {
        "Name": "Imported responses",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": IMPORT, "Version": __version__, "Description": "Responses estimated elsewhere"}
        ],
    }
    write_if_changed(out / "dataset_description.json", json_text(description))
    write_if_changed(out / "README.md", _README.format(version=__version__))
    write_if_changed(out / ".bidsignore", "*_statmap.*\n")


def _add_to_list(path: Path, participant: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ["participant_id"]
    added = sorted({*lines[1:], f"sub-{participant}"})
    write_if_changed(path, "\n".join([lines[0], *added]) + "\n")


def _write_npy(path: Path, array: np.ndarray) -> None:
    with atomic(path, "wb") as stream:
        np.save(stream, np.ascontiguousarray(array, np.float32))


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    write_if_changed(path, buffer.getvalue())
