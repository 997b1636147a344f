"""MATLAB's files of version 5 to 7 (``save -v6`` and ``-v7``): full matrices of numbers in them.

The format is a header of 128 bytes and elements, each a type, a number of bytes and the bytes; an
array is an element of elements, and from version 7 on compressed (MathWorks, "MAT-File Format").
Read here rather than by scipy, whose reader crashes the interpreter over damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hyper_bids.errors import InputError

_COMPRESSED, _MATRIX = 15, 14
# Of the elements, how numbers are stored; and of arrays, what they are.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8"}  # fmt: skip
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function",
            17: "object"}  # fmt: skip
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8",
            15: "u8"}  # fmt: skip
_LOGICAL, _COMPLEX = 0x02, 0x08
# Flags, shape and name of an array stand in fewer bytes than this.
_HEAD = 4096


class _Damaged(ValueError):
    """An element does not hold what it says."""


@dataclass(frozen=True)
class Entry:
    """One array of a file: name, shape, type (of numbers), and where it is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    n_bytes: int
    compressed: bool
    order: str


def entries(path: Path) -> dict[str, Entry]:
    """Return the named arrays of a file, by name; of numbers or of other classes.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    found: dict[str, Entry] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = stream.read(128)
            if len(header) < 128 or header[126:128] not in (b"IM", b"MI"):
                raise _Damaged("the header is not whole")
            order = "<" if header[126:128] == b"IM" else ">"
            place = 128
            while place < size:
                stream.seek(place)
                kind, n_bytes = struct.unpack(f"{order}II", _exactly(stream, 8))
                if place + 8 + n_bytes > size:
                    raise _Damaged("cut off")
                if kind in (_COMPRESSED, _MATRIX):
                    entry = _entry(stream, place + 8, n_bytes, kind == _COMPRESSED, order)
                    if entry is not None and entry.name:
                        found[entry.name] = entry
                place += 8 + n_bytes
    except (_Damaged, zlib.error, struct.error, OSError) as error:
        raise _broken(path, error) from None
    return found


def read_array(path: Path, entry: Entry) -> np.ndarray:
    """Read an array of numbers.

    Raises
    ------
    InputError
        If it is no full array of real numbers, or the file is damaged.
    """
    if np.dtype(_type_of(entry.dtype)).kind not in "biuf":
        raise InputError(
            f"{path}, variable {entry.name}: of MATLAB's class {entry.dtype}; a full matrix of "
            f"real numbers is wanted. Save it as a variable of its own."
        )
    try:
        with path.open("rb") as stream:
            stream.seek(entry.start)
            data = _exactly(stream, entry.n_bytes)
        if entry.compressed:
            machine = zlib.decompressobj()
            _, n_bytes = struct.unpack(f"{entry.order}II", machine.decompress(data, 8))
            data = machine.decompress(machine.unconsumed_tail, n_bytes) if n_bytes else b""
        parts = _elements(data, entry.order)
        for _ in range(3):
            next(parts)
        kind, content = next(parts)
        if kind not in _STORED:
            raise _Damaged(f"numbers stored as type {kind}")
        values = np.frombuffer(content, np.dtype(_STORED[kind]).newbyteorder(entry.order))
        if len(values) != math.prod(entry.shape):
            raise _Damaged(f"{len(values)} values for the shape {entry.shape}")
        # MATLAB stores whole numbers in the smallest type that holds them.
        return values.astype(_type_of(entry.dtype)).reshape(entry.shape, order="F")
    except (StopIteration, _Damaged, ValueError, zlib.error, struct.error, OSError) as error:
        raise _broken(path, error) from None


def _type_of(name: str) -> str:
    return "O" if name in _CLASSES.values() else name


def _entry(
    stream: BinaryIO, start: int, n_bytes: int, compressed: bool, order: str
) -> Entry | None:
    head = _exactly(stream, min(n_bytes, _HEAD))
    if compressed:
        head = zlib.decompressobj().decompress(head, _HEAD)
        if len(head) < 8 or struct.unpack(f"{order}I", head[:4])[0] != _MATRIX:
            return None
        head = head[8:]
    parts = _elements(head, order)
    try:
        (_, flags), (_, shape), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise _Damaged("an array without a name") from None
    if len(flags) < 4 or not 8 <= len(shape) <= 4 * 32 or len(shape) % 4:
        raise _Damaged("an array without class or shape")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    kind, bits = word & 0xFF, word >> 8 & 0xFF
    dtype = _CLASSES.get(kind) or (
        "complex128" if bits & _COMPLEX else "bool" if bits & _LOGICAL else
        str(np.dtype(_NUMBERS[kind])) if kind in _NUMBERS else "object"
    )  # fmt: skip
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    if min(sizes) < 0:
        raise _Damaged(f"an array of shape {sizes}")
    label = name.decode("latin1").rstrip("\0")
    return Entry(label, sizes, dtype, start, n_bytes, compressed, order)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 8 <= len(data):
        kind, n_bytes = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, n_bytes = kind & 0xFFFF, kind >> 16
            if n_bytes > 4:
                raise _Damaged(f"{n_bytes} bytes in a place of 4")
            yield kind, data[place + 4 : place + 4 + n_bytes]
            place += 8
            continue
        if place + 8 + n_bytes > len(data):
            raise _Damaged("cut off inside of an array")
        yield kind, data[place + 8 : place + 8 + n_bytes]
        place += 8 + n_bytes + -n_bytes % 8


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    data = stream.read(n_bytes)
    if len(data) != n_bytes:
        raise _Damaged("cut off")
    return data


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: not a whole .mat file ({' '.join(str(error).split()) or 'cut off'}). Copy it "
        f"again, or write it again with save -v7 or -v7.3."
    )
