"""The variables of one set of trials: from one file or several, all trials or some, masked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, UsageError, counted
from hyper_bids.importing import files
from hyper_bids.importing.orientation import Given, said

SETS = ("training", "test")
ROLES = ("responses", "trials", "latents", "images", "shown", "runs")

Place = tuple[Path, str]


@dataclass(frozen=True, eq=False)
class Reading:
    """How the variables of a set are read.

    Attributes
    ----------
    places : dict
        Role to the files and variables that hold it, one after the other.
    first : int
        Number of the first row, in variables of row numbers.
    order : str
        On which axis of responses trials are.
    mask : bool array (x, y, z), optional
        Voxels of responses that are volumes, or places of those that are in a matrix.
    matrix : bool
        Whether responses must become trials x voxels here, since parts of them are taken.
    """

    places: dict[str, tuple[Place, ...]]
    first: int = 0
    order: str = "auto"
    mask: np.ndarray | None = None
    matrix: bool = False


def split_value(text: str) -> tuple[str, float | None]:
    """Split ``NAME=VALUE``, trials where a variable has a value, into both."""
    match = re.fullmatch(r"(.+)=(-?\d+(?:\.\d+)?)", text)
    return (match[1], float(match[2])) if match else (text, None)


def gather(
    reading: Reading, value: float | None = None
) -> tuple[Given, dict[Place, np.ndarray | None]]:
    """Read one set.

    Parameters
    ----------
    reading : Reading
    value : float, optional
        The set's trials are those where the variable ``trials`` has this value.

    Returns
    -------
    Given
    dict
        Each variable of responses to the trials that were taken of it; None: all.
    """
    places = reading.places
    where = {role: ", ".join(f"{p}: {name}" for p, name in held) for role, held in places.items()}
    rows, total = None, None
    if "trials" in places:
        rows, total = _selected(_flat(places["trials"]), where["trials"], reading.first, value)
    if reading.matrix:
        responses, n_all, taken = _responses(reading, where["responses"], rows, total)
    else:
        responses, n_all = files.read(*places["responses"][0]), 0
        taken = {places["responses"][0]: None}
    arrays: dict[str, np.ndarray | None] = {}
    for role in ("shown", "runs"):
        if role in places:
            array = _flat(places[role])
            # Of all trials, if of as many.
            arrays[role] = array[rows] if rows is not None and len(array) == n_all else array
    if "latents" in places:
        arrays["latents"] = _joined(places["latents"])
    if "shown" in arrays:
        arrays["shown"] = row_numbers(arrays["shown"], where["shown"], reading.first)
    if "images" in places:
        arrays["images"], arrays["shown"] = _images(places["images"], arrays)
    return Given(responses, **arrays, where=where), taken


def check_apart(
    train: dict[Place, np.ndarray | None], test: dict[Place, np.ndarray | None]
) -> None:
    """Check that no trial is in both sets.

    Raises
    ------
    InputError
        With how many are.
    """
    for place in train.keys() & test.keys():
        first, second = train[place], test[place]
        both = "all trials"
        if first is not None and second is not None:
            common = np.intersect1d(first, second)
            if not len(common):
                continue
            both = f"{counted(len(common), 'trial')} (the first is {common[0]}, from 0)"
        raise InputError(
            f"{place[0]}: {place[1]}: {both} in both training and test. Say which trials are whose "
            f"with --train-trials and --test-trials."
        )


def row_numbers(values: np.ndarray, where: str, first: int) -> np.ndarray:
    """Convert an array of row numbers, counted from ``first`` (1 in MATLAB), to count from 0.

    Raises
    ------
    InputError
        If they are not whole numbers from ``first``.
    """
    flat = np.asarray(values).ravel()
    whole = flat.dtype.kind in "iu" or (flat.dtype.kind == "f" and (flat == np.floor(flat)).all())
    if not whole or flat.min() < first:
        raise InputError(
            f"{where}: row numbers are whole numbers from {first}; {flat.min():g} is the smallest "
            f"there. Say whether they count from 0 or 1."
        )
    return flat.astype(np.int64) - first


def _selected(
    values: np.ndarray, where: str, first: int, value: float | None
) -> tuple[np.ndarray, int | None]:
    """Return the rows of the set's trials, and the number of all, if it is known."""
    if value is not None or values.dtype == bool:
        rows = np.flatnonzero(values if value is None else values == value)
        if not len(rows):
            there = ", ".join(f"{v:g}" for v in np.unique(values)[:8])
            raise InputError(f"{where}: no trial has the value {value}; there are {there}.")
        return rows, len(values)
    rows = row_numbers(values, where, first)
    each, counts = np.unique(rows, return_counts=True)
    if counts.max() > 1:
        raise InputError(
            f"{where}: the row number {each[counts.argmax()] + first} stands there {counts.max()} "
            f"times; each trial is wanted once. Of numbers that are truth values, say NAME=1."
        )
    return rows, None


def _responses(
    reading: Reading, where: str, rows: np.ndarray | None, total: int | None
) -> tuple[np.ndarray, int, dict[Place, np.ndarray]]:
    """Return the chosen trials x voxels, how many there are in all, and which of each variable."""
    places = reading.places["responses"]
    shapes = [
        next((v.shape for v in files.contents(path) if v.name == name), None)
        or files.read(path, name).shape
        for path, name in places
    ]
    last = reading.order == "trials-last" or (
        reading.order == "auto"
        and total is not None
        and sum(shape[0] for shape in shapes) != total == sum(shape[-1] for shape in shapes)
    )
    sizes = [shape[-1 if last else 0] for shape in shapes]
    n_all = sum(sizes)
    if total not in (None, n_all):
        raise InputError(
            f"{where}: {n_all} trials, but the variable that chooses among them has {total} values."
        )
    rows = np.arange(n_all) if rows is None else rows
    if len(rows) and rows.max() >= n_all:
        raise InputError(f"{where}: {n_all} trials, but row {rows.max()} (from 0) is asked for.")
    result: np.ndarray | None = None
    start, taken = 0, {}
    for (path, name), size in zip(places, sizes, strict=True):
        here = np.flatnonzero((rows >= start) & (rows < start + size))
        if len(here):
            taken[path, name] = rows[here] - start
            part = _part(path, name, taken[path, name], last)
            part = _masked(f"{path}: {name}", part, reading.mask)
            result = np.empty((len(rows), part.shape[1]), np.float32) if result is None else result
            if part.shape[1] != result.shape[1]:
                raise InputError(
                    f"{path}: {name} has {part.shape[1]} voxels, but the files before it have "
                    f"{result.shape[1]}."
                )
            result[here] = part
        start += size
    if result is None:
        raise InputError(f"{where}: none of its trials is chosen.")
    return result, n_all, taken


def _part(path: Path, name: str, rows: np.ndarray, last: bool) -> np.ndarray:
    if not last:
        return files.read(path, name, rows)
    return np.moveaxis(files.read(path, name), -1, 0)[rows]


def _masked(where: str, part: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return trials x voxels: the mask's, in C order of its axes."""
    if mask is None:
        return part.reshape(len(part), -1)
    n_voxels = int(mask.sum())
    if part.ndim == 2 and part.shape[1] == n_voxels:
        return part
    if part.shape[1:] == mask.shape:
        return part[:, mask]
    # Written by MATLAB or for it, a volume's axes are in reverse.
    if part.shape[1:] == mask.shape[::-1]:
        return np.moveaxis(part, [1, 2, 3], [3, 2, 1])[:, mask]
    raise InputError(
        f"{where}: {said(part.shape[1:])} values a trial; the mask is {said(mask.shape)} with "
        f"{n_voxels} voxels. Volumes of its shape, or a column for each of its voxels are wanted."
    )


def _flat(places: tuple[Place, ...]) -> np.ndarray:
    return np.concatenate([files.read(*place).ravel() for place in places])


def _joined(places: tuple[Place, ...]) -> np.ndarray:
    parts = [files.read(*place) for place in places]
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(f"{p}: {n} {said(a.shape)}" for (p, n), a in zip(places, parts))  # noqa: B905
        raise InputError(f"{shapes}: parts of one variable may differ in their first axis only.")
    return np.concatenate(parts)


def _images(places: tuple[Place, ...], arrays: dict):
    """Read images, and only those that are shown where there is a row of each."""
    rows = arrays.get("shown")
    read: Callable = lambda: _joined(places)  # noqa: E731
    if rows is None or "latents" in arrays or len(places) > 1:
        return read(), rows
    path, name = places[0]
    shape = next((v.shape for v in files.contents(path) if v.name == name), ())
    if len(shape) < 3 or shape[0] <= rows.max():
        return read(), rows
    unique, back = np.unique(rows, return_inverse=True)
    return files.read(path, name, unique), back


def takes_parts(variables: dict[str, tuple[str, ...]], mask: np.ndarray | None) -> bool:
    """Say whether parts of responses are taken, so that their axes must be known at once."""
    several = any(len(held) > 1 for role, held in variables.items() if role.endswith("responses"))
    return mask is not None or several or any(role.endswith("trials") for role in variables)


def check_roles(variables: dict[str, tuple[str, ...]]) -> None:
    """Check that responses of both sets are there, and nothing that is unknown.

    Raises
    ------
    UsageError
    """
    roles = [f"{name} {role}" for name in SETS for role in ROLES]
    unknown = [role for role in variables if role not in roles]
    lacking = [f"{name} responses" for name in SETS if not variables.get(f"{name} responses")]
    if unknown or lacking:
        told = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(lacking)}"
        raise UsageError(f"variables to import, {told}; {', '.join(roles)} can be given.")
