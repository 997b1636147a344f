"""Files that appear at once or not at all, and the plain text that goes into them."""

from __future__ import annotations

import errno
import json
import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from hyper_bids.errors import OutputError


@contextmanager
def atomic(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes the place of ``path`` when the block ends well.

    It is written under another name in the same folder and renamed, so that a reader, or another
    job that writes the same file, never sees a part of it. After an error, ``path`` is as it was.

    Parameters
    ----------
    path : path
        File to write; its folder is made if absent.
    mode : {"w", "wb"}
        Text (UTF-8, lines end in a line feed) or bytes.

    Yields
    ------
    file object
        To be written to.

    Raises
    ------
    OutputError
        If the folder or the file cannot be written.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode {mode!r}: 'w' or 'wb' is wanted")
    path = Path(path)
    # Unique for each writer: jobs of several participants write the same file at the root.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode.replace("w", "x"), **text) as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}). Check space, quota and rights."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_if_changed(path: str | os.PathLike, content: str | bytes) -> bool:
    """Write ``content`` to ``path`` atomically unless it is there; say if it was."""
    path = Path(path)
    content = content.encode("utf-8") if isinstance(content, str) else content
    try:
        if path.read_bytes() == content:
            return False
    except OSError:
        pass  # absent or not readable: the attempt to write says which
    with atomic(path, "wb") as stream:
        stream.write(content)
    return True


def reserve(path: str | os.PathLike) -> None:
    """Take the space of a file that was made without its content, as memory maps are.

    Without it, a file system that runs full ends the process that writes to the map (a bus error),
    with no message.

    Raises
    ------
    OSError
        If there is not enough space.
    """
    allocate = getattr(os, "posix_fallocate", None)  # not on macOS
    if allocate is None:
        return
    with Path(path).open("r+b") as stream:
        try:
            allocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def json_text(content: dict) -> str:
    """Return ``content`` as JSON, keys in their order; numpy types become plain ones."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def tsv_text(frame) -> str:
    """Return a DataFrame as BIDS TSV: ``n/a`` for what is missing, numbers to six digits.

    Numbers of 1000 and more keep three decimals, so that onsets in seconds keep milliseconds.
    """
    names = [str(name) for name in frame.columns]
    columns = [[_cell(value) for value in frame[name].tolist()] for name in frame.columns]
    lines = [names, *zip(*columns, strict=True)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "n/a"  # JSON has no number for it
    return value


def _cell(value: object) -> str:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT or value == "":
        return "n/a"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    text = str(value)
    if any(mark in text for mark in "\t\r\n"):
        raise ValueError(f"table cell {text!r}: a TSV cannot hold tabs or line breaks")
    return text


def _number(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    if 1e3 <= abs(value) < 1e9:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.6g}"
