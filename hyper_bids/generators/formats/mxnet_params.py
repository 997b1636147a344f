"""Files of MXNet parameters, read without MXNet, whose development has ended.

A file is a list of arrays and the list of their names (``NDArray::Save`` and ``MXNDArraySave`` of
MXNet 1.x): a magic number, a reserved one, the number of arrays, the arrays, the number of names,
the names. All numbers are little-endian.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError

# First number of an array: dimensions of 64 bits; with a storage type; with shapes as in NumPy.
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "b1"}
_MAX_DIMENSIONS = 32


class _Cursor:
    """Goes through the bytes of a file, and says where they end too early."""

    def __init__(self, path: Path, data: bytes):
        self.path, self.data, self.place = path, data, 0

    def take(self, n: int) -> bytes:
        if n < 0 or self.place + n > len(self.data):
            raise InputError(
                f"{self.path}: MXNet parameters that are truncated or damaged at byte "
                f"{self.place} of {len(self.data)}. Copy or download the file again."
            )
        self.place += n
        return self.data[self.place - n : self.place]

    def numbers(self, layout: str) -> tuple:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays by name, in the order of the file.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to array
        Names lack the ``arg:`` and ``aux:`` that files of MXNet's symbols have.

    Raises
    ------
    InputError
        If the file is truncated, longer than it says, has arrays without names, or arrays that
        are sparse or of an unknown type.
    """
    cursor = _Cursor(path, path.read_bytes())
    magic, _, count = cursor.numbers("QQQ")
    if magic != 0x112:
        raise InputError(f"{path}: not a file of MXNet parameters (it starts with {magic:#x}).")
    arrays = [_array(cursor, number) for number in range(_bounded(cursor, count))]
    (n_names,) = cursor.numbers("Q")
    names = [_name(cursor) for _ in range(_bounded(cursor, n_names))]
    if cursor.place != len(cursor.data):
        raise InputError(
            f"{path}: MXNet parameters end at byte {cursor.place}, but the file has "
            f"{len(cursor.data)}. Copy or download it again."
        )
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise InputError(
            f"{path}: {len(arrays)} MXNet arrays, but {len(names)} names, {len(set(names))} of "
            f"them different. Save the network with its names (gluon's save_parameters)."
        )
    return dict(zip(names, arrays, strict=True))


def _bounded(cursor: _Cursor, count: int) -> int:
    # Each of them takes bytes: a number that cannot be is not counted to.
    if count > len(cursor.data):
        cursor.take(len(cursor.data) + 1)
    return count


def _name(cursor: _Cursor) -> str:
    (length,) = cursor.numbers("Q")
    name = cursor.take(length).decode("utf-8", "replace")
    return name.removeprefix("arg:").removeprefix("aux:")


def _array(cursor: _Cursor, number: int) -> np.ndarray:
    (magic,) = cursor.numbers("I")
    if magic in (_V2, _V3):
        (storage,) = cursor.numbers("i")
        if storage != 0:
            raise InputError(
                f"{cursor.path}: MXNet array {number} is sparse (storage type {storage}); weights "
                f"of an image model are dense. Give the generator's own parameters."
            )
    if magic in (_V1, _V2, _V3):
        (n,) = cursor.numbers("i")
        shape = cursor.numbers(f"{n}q") if 0 < n <= _MAX_DIMENSIONS else ()
    else:  # The oldest files start with the number of dimensions.
        n = magic
        shape = cursor.numbers(f"{n}I") if 0 < n <= _MAX_DIMENSIONS else ()
    if n < (magic != _V3) or len(shape) != n or min(shape, default=1) < 1:
        raise InputError(
            f"{cursor.path}: MXNet array {number} has no shape that can be read ({n} dimensions at "
            f"byte {cursor.place}). The file is damaged, or the network was never used; get it "
            f"again."
        )
    cursor.numbers("ii")  # the device that it was on
    (kind,) = cursor.numbers("i")
    if kind not in _TYPES:
        raise InputError(
            f"{cursor.path}: MXNet array {number} has type number {kind}; known are "
            f"{', '.join(map(str, _TYPES))}. Save the network in single precision."
        )
    dtype = np.dtype(_TYPES[kind])
    return np.frombuffer(cursor.take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
