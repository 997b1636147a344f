"""What a file is: by its first bytes, for messages about one that is not wanted; its checksum."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from hyper_bids.container import file_hint

# As many bytes of a file as :func:`stand_in` and :func:`kind_of` need.
N_BYTES = 512

HDF5 = b"\x89HDF\r\n\x1a\n"
MXNET = (0x112).to_bytes(8, "little")
# The older format of PyTorch starts with this number, pickled.
OLD_TORCH = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
PICKLE = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
ZIP = b"PK\x03\x04"

# git-annex takes no larger file for a pointer (its internals, "pointer files").
_LARGEST_POINTER = 32 * 1024

_AGAIN = "download it again"

# First bytes, lower case -> what stands there in the place of a file, and what to do.
_STAND_INS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the {}; fetch with 'git lfs pull'"),
    (b"/annex/objects/", "a git-annex pointer, not the {}; fetch with 'datalad get'"),
    (b"<!doctype html", f"an HTML page, not the {{}}; {_AGAIN} (a server gave its page instead)"),
    (b"<html", f"an HTML page, not the {{}}; {_AGAIN} (a server gave its page instead)"),
    (b"<?xml", f"an XML page, not the {{}}; {_AGAIN} (a server gave its error instead)"),
)

_KINDS = (
    (OLD_TORCH, "a PyTorch checkpoint of the older format"),
    *((start, "a Python pickle") for start in PICKLE),
    (MXNET, "a file of MXNet parameters"),
    (HDF5, "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stand_in(start: bytes, wanted: str = "weights") -> str | None:
    """Say what came in the place of a file, if something did, and what to do.

    Parameters
    ----------
    start : bytes
        The first bytes of the file, up to :data:`N_BYTES`.
    wanted : str
        What the file should be, for the message.

    Returns
    -------
    str or None
        An empty file, a pointer of Git LFS or git-annex, or a web page; else None.
    """
    if not start:
        return f"an empty file, not the {wanted}; copy or {_AGAIN}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((what for magic, what in _STAND_INS if text.startswith(magic)), None)
    return found and found.format(wanted)


def kind_of(path: Path, start: bytes, wanted: str = "weights") -> str | None:
    """Say what a file is, with its article; None if it is of no kind that is known here.

    Parameters
    ----------
    path : path
        The list of a zip archive is read from it.
    start, wanted
        As for :func:`stand_in`, whose answers come first.
    """
    found = stand_in(start, wanted)
    if found is None and start.startswith(ZIP):
        return kind_of_zip(path)
    return found or next((what for magic, what in _KINDS if start.startswith(magic)), None)


def kind_of_zip(path: Path) -> str:
    """Say what a zip archive is, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a truncated zip archive (perhaps a PyTorch checkpoint)"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy .npz archive"
    return "a zip archive; unpack it first"


def in_place_of_file(path: Path) -> str:
    """Say what stands where a file should be: nothing, a folder, or a link to nowhere."""
    if path.is_dir():
        return "a folder; give the file of weights in it"
    if path.is_symlink():
        return "a link to a file that is not here; fetch it ('datalad get', 'git annex get')"
    hint = file_hint(path).strip()
    return f"no such file ({hint})" if hint else "no such file"


def is_absent(path: str | os.PathLike) -> bool:
    """Say whether the content of a file of DataLad or git-annex is not here.

    Such a file is a link that leads nowhere or, unlocked or where there are no links, a small text
    file that names the object. One that does not exist at all is not said to be absent.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError:
        return path.is_symlink()
    if size > _LARGEST_POINTER or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            first = stream.readline(1024)
    except OSError:
        return False
    return b"annex/objects/" in first and first.startswith((b"/annex", b".git/", b"../"))


def is_safetensors(start: bytes) -> bool:
    """Say whether a file that starts so is one of safetensors.

    That is a header of less than 4 GiB whose first character is a brace. Ask this first: the length
    of the header can look like the first bytes of another kind.
    """
    return start[4:9] == b"\0\0\0\0{"
