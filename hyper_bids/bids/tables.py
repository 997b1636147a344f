"""Tab-separated tables, read so that an error can name the line and the column."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids.errors import InputError, listing

if TYPE_CHECKING:
    import pandas as pd

# An empty cell is not BIDS, but can mean nothing else.
MISSING = ("n/a", "")
LINE = "line"


def read_table(path: Path, required: Iterable[str] = ()) -> pd.DataFrame:
    """Read a BIDS table as text.

    Parameters
    ----------
    path : path of a .tsv file
    required : names of the columns that must be there

    Returns
    -------
    DataFrame
        One str column a column of the file, and ``line``: the line in the file, the header being 1
        (a column of the file that has this name is left out).

    Raises
    ------
    InputError
        If the file cannot be read, a required column is missing, or a row has more or fewer cells
        than the header.
    """
    import pandas as pd

    lines = _lines(path)
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    for name in required:
        if name not in header:
            commas = len(header) == 1 and re.search("[,; ]", header[0])
            raise InputError(
                f"{path}: there is no column {name}; its columns are {listing(header)}. "
                + ("Separate the columns by tabs." if commas else f"Add the column {name}.")
            )
    wrong = [name for name in header if not name or header.count(name) > 1]
    if wrong:
        what = f"the column {wrong[0]} stands there twice" if wrong[0] else "a column has no name"
        raise InputError(f"{path}, line 1: {what}. Give each column its own name.")
    cells, numbers = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        row = [cell.strip() for cell in line.split("\t")]
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells, but the header has {len(header)} "
                f"columns. Separate cells by single tabs, and write n/a where a value is missing."
            )
        cells.append(row)
        numbers.append(number)
    table = pd.DataFrame(cells, columns=header, dtype=str)
    table[LINE] = pd.Series(numbers, dtype="int64")
    return table


def number(path: Path, line: int, column: str, text: str) -> float:
    """Return the finite number that ``text`` is, or raise InputError with its place."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise InputError(
            f"{path}, line {line}, column {column}: {text!r} is not a finite number; "
            f"write a number such as 1.5."
        )
    return value


def read_json(path: Path) -> dict:
    """Read a JSON object, or raise InputError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise absent(path) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Mend it.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object {{...}} is wanted; it is something else.")
    return content


def absent(path: Path) -> InputError:
    """Return the error of a file that is not there, or a link to content that was not fetched."""
    linked = "a link to content that is not here; get it (datalad get)"
    return InputError(f"{path}: {linked if path.is_symlink() else 'no such file'}.")


def close(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that lists what resembles ``name``, or else what is there."""
    known = list(dict.fromkeys(known))
    alike = difflib.get_close_matches(name, known, n=3)
    return f"close to it: {listing(alike)}" if alike else f"there are {listing(known)}"


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise absent(path) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason}).") from None
    # Not splitlines: it also breaks at characters that may stand inside a cell.
    return re.split("\r\n|\n|\r", text) if text.strip() else []
