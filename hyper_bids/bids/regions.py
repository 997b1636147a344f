"""The regions of a label image: their names, and the space that its name says it is in."""

from __future__ import annotations

import re
from pathlib import Path

from hyper_bids.bids.tables import LINE, read_table
from hyper_bids.errors import InputError, UsageError, listing

_NIFTI = re.compile(r"\.nii(\.gz)?$")
# Index, name, and the colour as red, green, blue and transparency.
_LUT = re.compile(r"\s*(-?\d+)\s+(\S.*?)((\s+\d{1,3}){3,4})?\s*$")
# What the names' table need not repeat of the image's name: it holds in any grid.
_GRID = (r"_res-[a-zA-Z0-9+]+", r"_den-[a-zA-Z0-9+]+", r"(_|^)(space|tpl)-[a-zA-Z0-9+]+")


def names_beside(atlas: Path | str) -> Path | None:
    """Return the table of a label image's names that lies beside it, None where there is none.

    A BIDS ``.tsv`` or a FreeSurfer ``.txt`` of the same name; or of the name without resolution,
    as in TemplateFlow, and without space.
    """
    atlas = Path(atlas)
    stem = _NIFTI.sub("", atlas.name)
    for pattern in ("$^", *_GRID):
        stem = re.sub(pattern, "", stem).lstrip("_")
        for suffix in (".tsv", ".txt"):
            if (path := atlas.with_name(stem + suffix)).is_file():
                return path
    return None


def read_names(path: Path | str) -> dict[int, str]:
    """Read the names of regions by label.

    Parameters
    ----------
    path : path
        ``.tsv``: as BIDS has it for ``dseg`` images, the columns ``index`` and ``name`` (or
        ``label``). Else as FreeSurfer's look-up tables, lines of index and name, colours if any,
        and comments after ``#``.

    Returns
    -------
    dict of int to str

    Raises
    ------
    InputError
        If the file cannot be read, an index is no whole number or stands there twice, or no name
        is there.
    """
    path = Path(path)
    rows = _table_rows(path) if path.suffix == ".tsv" else _lut_rows(path)
    names: dict[int, str] = {}
    for line, index, name in rows:
        if names.get(index, name) != name:
            raise InputError(
                f"{path}, line {line}: the index {index} is {name!r} and, above, "
                f"{names[index]!r}. Give each index one name."
            )
        names[index] = name
    if not names:
        raise InputError(f"{path}: no region is named there; lines of index and name are wanted.")
    return names


def check_space(atlas: Path | str, space: str | None) -> None:
    """Check that a label image is in the space of the BOLD, as far as its name says.

    Parameters
    ----------
    atlas : path
        Its ``space-`` or TemplateFlow's ``tpl-``, if it has one.
    space : str or None
        ``space-`` of the BOLD; None where it is in the participant's own space.

    Raises
    ------
    UsageError
        If both are named and differ.
    """
    found = re.search(r"(?:^|_)(?:space|tpl)-([a-zA-Z0-9+]+)", Path(atlas).name)
    if found and space and found[1] != space:
        raise UsageError(
            f"--atlas {atlas}: it is in the space {found[1]}, the BOLD in {space}. Give regions in "
            f"the space {space}, or choose the BOLD with --space."
        )


def _table_rows(path: Path) -> list[tuple[int, int, str]]:
    table = read_table(path, ["index"])
    column = next((name for name in ("name", "label") if name in table), None)
    if column is None:
        raise InputError(
            f"{path}: there is no column name; its columns are "
            f"{listing(name for name in table if name != LINE)}. Add the column name."
        )
    rows = []
    for line, index, name in zip(table[LINE], table["index"], table[column], strict=True):
        if not re.fullmatch(r"-?\d+(\.0+)?", index):
            raise InputError(
                f"{path}, line {line}, column index: {index!r} is no whole number; write the "
                f"region's value in the image."
            )
        rows.append((int(line), int(float(index)), name))
    return rows


def _lut_rows(path: Path) -> list[tuple[int, int, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason}).") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0]
        if not text.strip():
            continue
        found = _LUT.fullmatch(text)
        if not found:
            raise InputError(
                f"{path}, line {number}: {line.strip()[:40]!r} is not an index and a name; write "
                f"lines such as '17 Left-Hippocampus 220 216 20 0', or give a .tsv with the "
                f"columns index and name."
            )
        rows.append((number, int(found[1]), found[2]))
    return rows
