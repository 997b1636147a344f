"""Imported responses of one participant: their files, found and checked, and their trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids import split
from hyper_bids.bids.events import NUISANCE_COLUMNS, TRIAL_COLUMNS, Trials, with_stimuli
from hyper_bids.bids.names import output_path
from hyper_bids.bids.tables import LINE, read_json, read_table
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, listing

if TYPE_CHECKING:
    from hyper_bids.bids.stimuli import Stimuli

TASK = "imported"
SOURCE = "the import"
_UNKNOWN = "n/a"


@dataclass(frozen=True)
class Imported:
    """One participant's imported responses.

    Attributes
    ----------
    responses, table, mask : path
        Array (n_trials, n_voxels) float32, its trials, and the image of its voxels.
    n_trials, n_voxels : int
    places_known : bool
        Whether the mask says where the voxels are; else it is a list of them.
    files : tuple of str
        Names of the files that the responses were imported from.
    sources : tuple of str
        BIDS URIs of the three files.
    """

    responses: Path
    table: Path
    mask: Path
    n_trials: int
    n_voxels: int
    places_known: bool
    files: tuple[str, ...]
    sources: tuple[str, ...]


def find_imported(bids_dir: Path | str, participant: str) -> Imported:
    """Find the imported responses of a participant; of the array, the header is read.

    Parameters
    ----------
    bids_dir : path
        A dataset that ``import-hyper`` or ``import-responses`` wrote.
    participant : str
        Label without ``sub-``.

    Raises
    ------
    InputError
        If a file is missing or damaged, or sizes disagree.
    """
    root = Path(bids_dir).absolute()
    entities = {"subject": participant, "task": TASK}
    table = root / output_path("betas_table", entities)
    mask = root / output_path("brain_mask", entities)
    responses, sidecar = table.with_suffix(".npy"), table.with_suffix(".json")
    mask_sidecar = mask.with_name(f"{mask.name.removesuffix('.nii.gz')}.json")
    absent = [path for path in (table, responses, sidecar, mask, mask_sidecar) if not path.exists()]
    if absent:
        raise InputError(
            f"{absent[0]}: not there, so the import of sub-{participant} is not whole. Import it "
            f"again with --overwrite."
        )
    n_trials, n_voxels = _shape(responses)
    n_places = int(volumes.read_mask(mask).sum())
    if n_places != n_voxels:
        raise InputError(
            f"{responses}: {n_voxels} voxels, but {mask.name} has {n_places}. Import sub-"
            f"{participant} again with --overwrite."
        )
    paths = (responses, table, mask)
    return Imported(
        *paths,
        n_trials=n_trials,
        n_voxels=n_voxels,
        places_known=read_json(mask_sidecar).get("VoxelPlaces") == "known",
        files=tuple(sorted(read_json(sidecar).get("SourceFiles") or {})),
        sources=tuple(f"bids:raw:{path.relative_to(root).as_posix()}" for path in paths),
    )


def trials_of(imported: Imported, stimuli: Stimuli, settings: InputSettings) -> Trials:
    """Return the trials of imported responses, in the order of their rows.

    ``run_index`` counts the runs from 0, in the order in which they come. Where runs are unknown,
    all trials count as one run, so that test trials are standardised as training trials are.

    Parameters
    ----------
    imported : Imported
    stimuli : Stimuli
    settings : InputSettings
        ``allow_shared_stimuli``.

    Raises
    ------
    InputError
        If the table does not fit the responses, names an unknown stimulus, or lacks one of the
        sets, or both sets share a stimulus without ``allow_shared_stimuli``.
    """
    import pandas as pd

    path = imported.table
    frame = read_table(path, required=("run", "stim_id", "stim_file", "split"))
    if len(frame) != imported.n_trials:
        raise InputError(
            f"{path}: {len(frame)} rows, but {imported.responses.name} has {imported.n_trials} "
            f"trials. Import the participant again with --overwrite."
        )
    wrong = frame[~frame["split"].isin(split.SETS)]
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"{path}, line {row[LINE]}, column split: {row['split']!r}; train and test are "
            f"accepted."
        )
    lacking = [name for name in split.SETS if name not in set(frame["split"])]
    if lacking:
        raise InputError(f"{path}, column split: no {lacking[0]} trials; both sets are needed.")
    given_split = frame["split"]
    frame = with_stimuli(frame.assign(path=str(path)), stimuli).assign(split=given_split)
    frame["run_index"] = pd.factorize(frame["run"])[0]
    frame["onset"] = frame["duration"] = np.nan
    frame = frame.reindex(columns=[*TRIAL_COLUMNS, "path"])
    for column in ("session", "task", "trial_type"):
        frame[column] = frame[column].fillna(_UNKNOWN)
    if not settings.allow_shared_stimuli:
        split.check_not_shared(frame)
    return Trials(
        trials=frame[list(TRIAL_COLUMNS)],
        nuisance=pd.DataFrame(columns=list(NUISANCE_COLUMNS)),
        split_source=SOURCE,
        shared_allowed=settings.allow_shared_stimuli,
    )


def runs_known(trials: Trials) -> bool:
    """Say whether imported trials have the labels of their runs."""
    return bool((trials.trials["run"] != _UNKNOWN).all())


def _shape(path: Path) -> tuple[int, int]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: not a whole array of numpy ({type(error).__name__}). Import the participant "
            f"again with --overwrite."
        ) from None
    if array.ndim != 2 or array.dtype != np.float32 or not array.size:
        found = f"{array.dtype}, {listing(map(str, array.shape))}"
        raise InputError(f"{path}: {found}; trials x voxels as float32 are wanted.")
    return array.shape
