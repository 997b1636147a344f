"""The stimuli of a dataset: their table, and the latents that each was made from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from hyper_bids.bids.tables import LINE, MISSING, absent, read_json, read_table
from hyper_bids.errors import InputError, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from hyper_bids.bids.events import Trials

LATENTS = "latents.tsv"
BEP044 = "stimuli.tsv"
DEFAULT_FILE = "latents.npy"
NO_ROW = -1
# Columns of the table that have a meaning; others are labels.
KNOWN = ("stim_id", "stim_file", "latent_row", "latent_file")

_IMAGE = re.compile(r"(stim-[^_.]+)(_.*)?\.(png|jpe?g|bmp|gif|tiff?|webp)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """What may be shown.

    ``table`` has a row a stimulus: stim_id, stim_file, latent_file (str, n/a where unknown),
    latent_row (int, from 0; -1 where unknown) and line (of the table's file). ``meta`` is
    ``latents.json``; ``folder`` is ``stimuli/``; ``labels`` has the table's other columns, as text;
    ``source`` is the name of the table's file.
    """

    table: pd.DataFrame
    meta: dict
    folder: Path
    labels: pd.DataFrame
    source: str = LATENTS

    @property
    def path(self) -> Path:
        """File that holds the table."""
        return self.folder / self.source


def read_stimuli(bids_dir: Path | str) -> Stimuli:
    """Read ``stimuli/latents.tsv``, or the draft BEP044's ``stimuli/stimuli.tsv`` in its absence.

    Raises
    ------
    InputError
        If neither is there, or a row is wrong: the message names file, line and column.
    """
    folder = Path(bids_dir).absolute() / "stimuli"
    source = next((name for name in (LATENTS, BEP044) if _is_there(folder / name)), None)
    if source is None:
        raise InputError(
            f"{folder}: neither {LATENTS} nor {BEP044} is there, so the latents of the stimuli are "
            f"unknown. Write {LATENTS} with the columns stim_id, latent_row and latent_file."
        )
    path = folder / source
    table = read_table(path, required=("latent_row",))
    if not {"stim_id", "stim_file"} & set(table.columns):
        raise InputError(f"{path}: there is no column stim_id and no stim_file; add one of them.")
    for column in ("stim_id", "stim_file"):
        table[column] = table[column].replace("", "n/a") if column in table else "n/a"
    if source == BEP044 and (table["stim_file"] == "n/a").all():
        table["stim_file"] = _images(folder, table["stim_id"])
    if "latent_file" not in table:
        table["latent_file"] = DEFAULT_FILE
    table["latent_row"] = [
        _row_number(path, line, text)
        for line, text in zip(table[LINE], table["latent_row"], strict=True)
    ]
    _check_rows(path, table)
    sidecars = [folder / name for name in ("latents.json", f"{path.stem}.json")]
    meta = next((read_json(file) for file in sidecars if _is_there(file)), {})
    known = [*KNOWN, LINE]
    return Stimuli(table[known], meta, folder, table.drop(columns=known), source)


def labels_of(stimuli: Stimuli, names: Sequence[str]) -> dict[str, list[str]]:
    """Return what the further columns of the table say of stimuli.

    Parameters
    ----------
    stimuli : Stimuli
    names : sequence of str
        ``stim_id`` of trials, as :func:`hyper_bids.bids.events.trial_tables` gives it: the image
        of stimuli without a name.

    Returns
    -------
    dict
        Column to an entry for each name, n/a where the table has none.
    """
    table = stimuli.table
    of_file = {file: row for row, file in enumerate(table["stim_file"])}
    of_name = {name: row for row, name in enumerate(table["stim_id"]) if name != "n/a"}
    row_of = {**of_file, **of_name}
    rows = [row_of[name] for name in names]
    return {
        str(column): [text or "n/a" for text in stimuli.labels[column].iloc[rows]]
        for column in stimuli.labels
    }


def load_latents(stimuli: Stimuli, trials: Trials) -> np.ndarray:
    """Read the latents of each trial; the files are memory-mapped, and only these rows are read.

    Parameters
    ----------
    stimuli : Stimuli
    trials : Trials, as :func:`hyper_bids.bids.events.trial_tables` gives them

    Returns
    -------
    array of shape (n_trials, n_latents), float32

    Raises
    ------
    InputError
        If a file is missing or no two-dimensional array of numbers, files disagree in size, a row
        is out of range or not finite, or training and test share a vector under two names though
        ``trials.shared_allowed`` is false.
    """
    frame = trials.trials
    files = list(dict.fromkeys(frame["latent_file"]))
    arrays = {name: _open(stimuli.folder / name) for name in files}
    _check_sizes(stimuli, arrays)
    n_latents = next(iter(arrays.values())).shape[1] if arrays else 0
    latents = np.empty((len(frame), n_latents), np.float32)
    for name, array in arrays.items():
        here = np.flatnonzero(frame["latent_file"] == name)
        rows = frame["latent_row"].to_numpy()[here]
        beyond = rows[(rows < 0) | (rows >= len(array))]
        if beyond.size:
            raise InputError(
                f"{_place(stimuli, name, beyond[0])}, column latent_row: {beyond[0]}, but "
                f"{stimuli.folder / name} has {len(array)} rows; 0 to {len(array) - 1} are "
                f"accepted."
            )
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, refused below
            values = array[rows].astype(np.float32)
        if not np.isfinite(values).all():
            at, column = np.argwhere(~np.isfinite(values))[0]
            raise InputError(
                f"{stimuli.folder / name}, row {rows[at]}, column {column} (counted from 0): "
                f"{array[rows[at], column]} is no finite float32 number; mend the latents."
            )
        latents[here] = values
    if not trials.shared_allowed:
        _check_no_twins(stimuli, frame, latents)
    return latents


def _is_there(path: Path) -> bool:
    # A link to content that was not fetched counts: reading it says so.
    return path.is_file() or path.is_symlink()


def _row_number(path: Path, line: int, text: str) -> int:
    if text in MISSING:
        return NO_ROW
    if not re.fullmatch("[0-9]{1,18}", text):
        raise InputError(
            f"{path}, line {line}, column latent_row: {text!r} is not a row number; write a whole "
            f"number from 0, or n/a where the latents are unknown."
        )
    return int(text)


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    known = table[table["stim_id"] != "n/a"]
    twice = known[known["stim_id"].duplicated()]
    if len(twice):
        name = twice["stim_id"].iloc[0]
        lines = known[LINE][known["stim_id"] == name]
        raise InputError(
            f"{path}, lines {listing(lines)}, column stim_id: {name!r} stands there "
            f"{len(lines)} times; each stimulus has one row."
        )
    for line, row, file in zip(table[LINE], table["latent_row"], table["latent_file"], strict=True):
        parts = PurePosixPath(file).parts
        wrong = not file.endswith(".npy") or file.startswith("/") or ".." in parts
        if row != NO_ROW and wrong:
            raise InputError(
                f"{path}, line {line}, column latent_file: {file!r}; the name of a .npy file in "
                f"stimuli/ is wanted, relative to that folder."
            )


def _images(folder: Path, names: pd.Series) -> list[str]:
    """Return the image of each stimulus: BEP044 calls it stim-<label>_<suffix>.<extension>."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        match = _IMAGE.fullmatch(path.name)
        if match:
            found.setdefault(match[1], path.name)
    return [found.get(f"stim-{name.removeprefix('stim-')}", "n/a") for name in names]


def _open(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise absent(path) from None
    except (OSError, ValueError, EOFError, TypeError, TokenError, BadZipFile) as error:
        # numpy's advice, to allow pickles, is none for a file of numbers.
        reason = "" if "pickle" in str(error) else f" ({' '.join(str(error).split())})"
        raise InputError(
            f"{path}: cannot be read as a .npy array of numbers{reason}; write it with numpy.save."
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise InputError(f"{path}: {found}; real numbers, n_stimuli x n_latents, are wanted.")
    if 0 in array.shape:
        raise InputError(f"{path}: the array is empty {array.shape}; n_stimuli x n_latents wanted.")
    return array


def _check_sizes(stimuli: Stimuli, arrays: dict[str, np.ndarray]) -> None:
    sizes = {name: array.shape[1] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = listing(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(
            f"{stimuli.folder}: the latent files disagree in the number of latents: {listed}."
        )
    stated = stimuli.meta.get("LatentDimension")
    for name, size in sizes.items():
        if isinstance(stated, int) and stated != size:
            raise InputError(
                f"{stimuli.folder / name}: {size} latents, but LatentDimension is {stated} in the "
                f"JSON beside {stimuli.source}. Mend the one that is wrong."
            )


def _place(stimuli: Stimuli, name: str, row: int) -> str:
    table = stimuli.table
    lines = table[LINE][(table["latent_file"] == name) & (table["latent_row"] == row)]
    return f"{stimuli.path}, line {lines.iloc[0]}" if len(lines) else f"{stimuli.path}"


def _check_no_twins(stimuli: Stimuli, frame: pd.DataFrame, latents: np.ndarray) -> None:
    """Refuse two stimuli of the same latents, one in training and one in test."""
    # + 0.0: minus zero equals zero, but has other bytes.
    vectors = [row.tobytes() for row in latents + np.float32(0)]
    sets: dict[str, dict[bytes, int]] = {"train": {}, "test": {}}
    for index, (split, vector) in enumerate(zip(frame["split"], vectors, strict=True)):
        sets[split].setdefault(vector, index)
    for vector in sets["train"].keys() & sets["test"].keys():
        train, test = frame.iloc[sets["train"][vector]], frame.iloc[sets["test"][vector]]
        raise InputError(
            f"{stimuli.path}: {train['stim_id']} (training) and {test['stim_id']} (test) have the "
            f"same latents, so the test would not be of unseen stimuli. Move one of them, or, if "
            f"latents are categories, give --allow-shared-stimuli."
        )
