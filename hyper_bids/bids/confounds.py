"""Confounds in: the columns of fMRIPrep's table that go into the design."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from hyper_bids.bids.tables import LINE, MISSING, close, number, read_json, read_table
from hyper_bids.errors import InputError, UsageError

LOG = logging.getLogger("hyper_bids")

_MOTION = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
_EXPANSION = ("", "_derivative1", "_power2", "_derivative1_power2")
_ACOMPCOR = "a_comp_cor_*"

# Friston et al. (1996), Movement-related effects in fMRI time-series: 24 = 6 x (value, derivative)
# x (itself, square), under the names that fMRIPrep gives.
SETS = {
    "none": (),
    "motion6": _MOTION,
    "motion24": tuple(name + more for name in _MOTION for more in _EXPANSION),
    "acompcor": (_ACOMPCOR,),
    "spikes": ("motion_outlier*",),
}
ALWAYS = "non_steady_state_outlier*"
# Behzadi et al. (2007), NeuroImage 37:90-101: components of white matter and CSF together.
N_COMPONENTS = 5


def read_confounds(
    path: Path | str, names: Iterable[str], n_volumes: int
) -> tuple[np.ndarray, list[str]]:
    """Read columns of a confounds file.

    Parameters
    ----------
    path : path of a ``desc-confounds_timeseries.tsv``
    names : names of sets or of columns, in which ``*`` stands for any text
        The sets are ``none``, ``motion6``, ``motion24``, ``acompcor`` (the first five anatomical
        components of white matter and CSF together, or as many as there are) and ``spikes``
        (``motion_outlier*``, of which a run may have none). Columns of volumes before steady state
        (``non_steady_state_outlier*``) are always taken.
    n_volumes : int, volumes of the run

    Returns
    -------
    confounds : array of shape (n_volumes, k), float64
        As in the file; values that are missing in first rows are 0.
    columns : list of k names

    Raises
    ------
    UsageError
        If ``none`` stands beside other names.
    InputError
        If a column is missing, lacks a value after its first rows or holds something else than
        finite numbers, or the number of rows differs.
    """
    path, names = Path(path), list(names)
    if "none" in names and len(set(names)) > 1:
        raise UsageError(f"--confounds {' '.join(names)}: none cannot stand beside other names.")
    table = read_table(path)
    there = [column for column in table.columns if column != LINE]
    columns = choose_columns(path, names, there)
    if len(table) != n_volumes:
        raise InputError(
            f"{path}: {len(table)} rows, but the run has {n_volumes} volumes; each volume has one "
            f"row. Get the confounds of this run."
        )
    values = np.zeros((n_volumes, len(columns)))
    for index, column in enumerate(columns):
        values[:, index] = _numbers(path, column, table[column].tolist(), table[LINE].tolist())
    return values, columns


def models_drift(columns: Iterable[str]) -> bool:
    """Say whether columns hold fMRIPrep's cosines (``cosine00``), which are a model of drift.

    Polynomials beside them would model the same drift a second time.
    """
    return any(re.fullmatch(r"cosine_?[0-9]{2,}", column) for column in columns)


def choose_columns(path: Path, names: list[str], there: list[str]) -> list[str]:
    """Return the columns of ``there`` that ``names`` mean, as :func:`read_confounds` says."""
    chosen: dict[str, None] = {}
    for name in names:
        for pattern in SETS.get(name, (name,)):
            found = [column for column in there if fnmatchcase(column, _literal(pattern))]
            part_of = f" (for {name})" if name in SETS else ""
            if name == "acompcor" and found:
                found = _components(path, found, there)
                part_of = " of the combined mask (for acompcor)"
            # A run in which nobody moved has no spikes.
            if not found and name != "spikes":
                raise InputError(
                    f"{path}: there is no column {pattern}{part_of}; {close(pattern, there)}. "
                    f"Choose columns with --confounds, or none."
                )
            chosen.update(dict.fromkeys(found))
    chosen.update(dict.fromkeys(column for column in there if fnmatchcase(column, ALWAYS)))
    return list(chosen)


def _components(path: Path, found: list[str], there: list[str]) -> list[str]:
    """Return the first anatomical components of the mask of white matter and CSF together.

    From fMRIPrep 21.0 on, those of WM and of CSF alone have other names (``w_``, ``c_comp_cor_``).
    Before, all were numbered as one series, in which the sidecar tells the mask of each.
    """
    ordered = sorted(
        (column for column in found if re.fullmatch("a_comp_cor_[0-9]+", column)),
        key=lambda column: int(column.rsplit("_", 1)[1]),
    )
    sidecar = path.with_suffix(".json")
    # A link to content that was not fetched is refused: without it, the mask would be a guess.
    about = read_json(sidecar) if sidecar.is_file() or sidecar.is_symlink() else {}
    told = [c for c in ordered if isinstance(about.get(c), dict) and "Mask" in about[c]]
    if told:
        combined = [c for c in told if about[c]["Mask"] == "combined"]
        return [c for c in combined if about[c].get("Retained", True)][:N_COMPONENTS]
    # Before it had sidecars (1.4), fMRIPrep wrote six, of both together.
    if len(ordered) > 6 and not any(re.match("[cw]_comp_cor_", column) for column in there):
        LOG.warning(
            "%s: no Mask in %s tells which components are of white matter and CSF together; "
            "taking the first %d.",
            *(path, sidecar.name, N_COMPONENTS),
        )
    return ordered[:N_COMPONENTS]


def _literal(pattern: str) -> str:
    # Of fnmatch's signs only the star is one here.
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _numbers(path: Path, column: str, cells: list[str], lines: list[int]) -> list[float]:
    """Convert cells; derivatives have no value in the first rows."""
    missing = [cell in MISSING or cell.lower() == "nan" for cell in cells]
    first = missing.index(False) if False in missing else len(cells)
    if cells and first == len(cells):
        raise InputError(f"{path}, column {column}: all rows are n/a; leave it out of --confounds.")
    if True in missing[first:]:
        row = missing.index(True, first)
        raise InputError(
            f"{path}, line {lines[row]}, column {column}: {cells[row]!r}, but only the first rows "
            f"of a column may lack a value. Mend it, or leave the column out of --confounds."
        )
    return [0.0] * first + [
        number(path, line, column, cell)
        for line, cell in zip(lines[first:], cells[first:], strict=True)
    ]
