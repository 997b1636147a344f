"""Confounds in: the columns of fMRIPrep's table that go into the design."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from hyper_bids.bids.tables import LINE, close, number, read_table
from hyper_bids.errors import InputError, UsageError

_MOTION = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
_EXPANSION = ("", "_derivative1", "_power2", "_derivative1_power2")

# Friston et al. (1996), Movement-related effects in fMRI time-series: 24 = 6 x (value, derivative)
# x (itself, square), under the names that fMRIPrep gives.
SETS = {
    "none": (),
    "motion6": _MOTION,
    "motion24": tuple(name + more for name in _MOTION for more in _EXPANSION),
}
ALWAYS = "non_steady_state_outlier*"


def read_confounds(
    path: Path | str, names: Iterable[str], n_volumes: int
) -> tuple[np.ndarray, list[str]]:
    """Read columns of a confounds file.

    Parameters
    ----------
    path : path of a ``desc-confounds_timeseries.tsv``
    names : ``none``, ``motion6``, ``motion24`` or column names, in which ``*`` stands for any text.
        Columns of volumes before steady state (``non_steady_state_outlier*``) are always taken.
    n_volumes : int, volumes of the run

    Returns
    -------
    confounds : array of shape (n_volumes, k), float64, as in the file; n/a in first rows is 0
    columns : list of k names

    Raises
    ------
    UsageError
        If ``none`` stands beside other names.
    InputError
        If a column is missing or holds something else than numbers, or the number of rows differs.
    """
    path, names = Path(path), list(names)
    if "none" in names and len(set(names)) > 1:
        raise UsageError(f"--confounds {' '.join(names)}: none cannot stand beside other names.")
    table = read_table(path)
    there = [column for column in table.columns if column != LINE]
    columns = _columns(path, names, there)
    if len(table) != n_volumes:
        raise InputError(
            f"{path}: {len(table)} rows, but the run has {n_volumes} volumes; each volume has one "
            f"row. Get the confounds of this run."
        )
    values = np.zeros((n_volumes, len(columns)))
    for index, column in enumerate(columns):
        values[:, index] = _numbers(path, column, table[column].tolist(), table[LINE].tolist())
    return values, columns


def _columns(path: Path, names: list[str], there: list[str]) -> list[str]:
    chosen: dict[str, None] = {}
    for name in names:
        for pattern in SETS.get(name, (name,)):
            found = [column for column in there if fnmatchcase(column, _literal(pattern))]
            if not found:
                part_of = f" (for {name})" if name in SETS else ""
                raise InputError(
                    f"{path}: there is no column {pattern}{part_of}; {close(pattern, there)}. "
                    f"Choose columns with --confounds, or none."
                )
            chosen.update(dict.fromkeys(found))
    chosen.update(dict.fromkeys(column for column in there if fnmatchcase(column, ALWAYS)))
    return list(chosen)


def _literal(pattern: str) -> str:
    # Of fnmatch's signs only the star is one here.
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _numbers(path: Path, column: str, cells: list[str], lines: list[int]) -> list[float]:
    """Convert cells; derivatives have no value in the first rows."""
    first = next((i for i, cell in enumerate(cells) if cell != "n/a"), len(cells))
    if cells and first == len(cells):
        raise InputError(f"{path}, column {column}: all rows are n/a; leave it out of --confounds.")
    return [0.0] * first + [
        number(path, line, column, cell)
        for line, cell in zip(lines[first:], cells[first:], strict=True)
    ]
