"""Reading TensorFlow 1 checkpoints without TensorFlow.

There are two kinds, both of them tables as LevelDB writes them, of protocol buffers. A bundle (V2)
is a table ``PREFIX.index`` of names, types, shapes and places, and the values in files named
``PREFIX.data-00000-of-00001``. A V1 checkpoint is one file, a table that has the values, too. Every
block of a table and every array of a bundle carries a CRC-32C; that of all that is read is checked.

References
----------
TensorFlow, ``tensor_bundle.proto`` and ``saved_tensor_slice.proto``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError
from hyper_bids.generators.formats import crc32c
from hyper_bids.generators.formats.leveldb import (
    AGAIN,
    damaged,
    is_table,
    mapped,
    read_table,
    varint,
)

__all__ = ["Variable", "contents", "is_table", "read_bundle"]

# TensorFlow's number of a type -> NumPy's name of it.
_TYPES = {
    **{1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8"},
    **{9: "int64", 10: "bool", 19: "float16"},
}
_READABLE = tuple(_TYPES.values())
# Where a V1 checkpoint has the values of a type: field of TensorProto, and form in the message.
_VALUE_FIELDS = {
    **{"float32": (5, "<f4"), "float64": (6, "<f8"), "float16": (13, "varint")},
    **{"int64": (10, "varint"), "bool": (11, "varint")},
    **dict.fromkeys(("int32", "uint8", "int16", "int8"), (7, "varint")),
}
_DAMAGED = (IndexError, KeyError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True)
class Variable:
    """What a checkpoint says of a variable.

    Attributes
    ----------
    dtype : str
        NumPy's name of the type, or TensorFlow's number of one that is not read here.
    shape : tuple of int
    n_slices : int
        Parts that it is saved in; only one is read here.
    place : tuple of int
        Shard, first byte, bytes and masked CRC-32C; zeros in a V1 checkpoint.
    """

    dtype: str
    shape: tuple[int, ...]
    n_slices: int = 1
    place: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    variables: dict[str, Variable]
    # The number of files with values; 0 in a V1 checkpoint, whose table has them.
    n_shards: int


def contents(prefix: str | Path) -> dict[str, Variable]:
    """Return the type and the shape of every variable of a checkpoint.

    Parameters
    ----------
    prefix : str or path
        What TensorFlow calls the checkpoint (``model.ckpt``), or one of its files.

    Raises
    ------
    InputError
        As for :func:`read_bundle`.
    """
    return _open(prefix).variables


def read_bundle(
    prefix: str | Path, wanted: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """Read the variables of a checkpoint, V1 or V2.

    Parameters
    ----------
    prefix : str or path
        What TensorFlow calls the checkpoint (``model.ckpt``), or one of its files.
    wanted : callable, optional
        Called with a name, says whether to read the variable. If not given, all are read that are
        of real numbers; strings are not.

    Returns
    -------
    dict of str to array
        In the type that they were saved in.

    Raises
    ------
    InputError
        If a file is missing, truncated, damaged (CRC-32C) or something else, or if a variable that
        is wanted is of another type or in several slices.
    """
    checkpoint = _open(prefix)
    chosen = {
        name: variable
        for name, variable in checkpoint.variables.items()
        if (wanted(name) if wanted else variable.dtype in _READABLE)
    }
    for name, variable in chosen.items():
        if variable.dtype not in _READABLE:
            raise InputError(
                f"{checkpoint.path}: variable {name} is of {variable.dtype}. "
                f"Wanted: {', '.join(_READABLE)}."
            )
        if variable.n_slices != 1:
            raise InputError(
                f"{checkpoint.path}: variable {name} is saved in slices, which is not read here. "
                f"Save it whole (without a partitioner)."
            )
    read = _values_v2 if checkpoint.n_shards else _values_v1
    try:
        return read(checkpoint, chosen)
    except _DAMAGED as error:
        raise damaged(checkpoint.path, error) from None


def _open(prefix: str | Path) -> _Checkpoint:
    given = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", str(prefix))
    index = Path(f"{given}.index")
    path = index if index.is_file() else Path(given)
    if not path.is_file():
        raise InputError(
            f"{prefix}: no TensorFlow checkpoint, there is neither {index} nor a file {given}."
        )
    try:
        items = read_table(path)
        key, header = next(items, (b"?", b""))
        if key != b"":
            raise InputError(f"{path}: a LevelDB table, but not a TensorFlow checkpoint.")
        # V1 starts with a message (its field 1), V2 with the number of shards.
        if header[:1] == b"\x0a":
            return _Checkpoint(path, _variables_v1(header), 0)
        fields = _fields(header)
        if fields.get(2, [0])[0]:
            raise InputError(f"{path}: saved on a big-endian machine, which is not read here.")
        variables = {_text(key): _variable_v2(value) for key, value in items if key[0]}
        return _Checkpoint(path, variables, int(fields[1][0]))
    except _DAMAGED as error:
        raise damaged(path, error) from None


def _variables_v1(header) -> dict[str, Variable]:
    variables = {}
    for entry in map(_fields, _fields(_fields(header)[1][0]).get(1, [])):
        slices = entry.get(4, [b""])
        # A whole variable is one slice, with no start and no length in any dimension.
        whole = len(slices) == 1 and not any(map(_fields, _fields(slices[0]).get(1, [])))
        variables[_text(entry[1][0])] = Variable(
            _dtype(entry, 3), _shape(entry), 1 if whole else max(2, len(slices))
        )
    return variables


def _variable_v2(message) -> Variable:
    entry = _fields(message)
    shard, first, size, crc = (int(entry.get(field, [0])[0]) for field in (3, 4, 5, 6))
    n_slices = max(2, len(entry[7])) if 7 in entry else 1
    return Variable(_dtype(entry, 1), _shape(entry), n_slices, (shard, first, size, crc))


def _values_v1(checkpoint: _Checkpoint, chosen: dict[str, Variable]) -> dict[str, np.ndarray]:
    arrays = {}
    for key, value in read_table(checkpoint.path):
        if key == b"":
            continue
        data = _fields(_fields(value)[2][0])
        name = _text(data[1][0])
        if name not in chosen:
            continue
        variable = chosen[name]
        field, form = _VALUE_FIELDS[variable.dtype]
        parts = _fields(data[3][0]).get(field, [])
        if form == "varint":
            values = np.array([v for part in parts for v in _varints(part)], dtype=np.int64)
            if variable.dtype == "float16":
                values = values.astype(np.uint16).view(np.float16)
        else:
            values = np.frombuffer(b"".join(parts), dtype=form)
        if values.size != math.prod(variable.shape):
            raise damaged(checkpoint.path, f"{name} has {values.size} values of {variable.shape}")
        arrays[name] = values.astype(variable.dtype).reshape(variable.shape)
    missing = [name for name in chosen if name not in arrays]
    if missing:
        raise damaged(checkpoint.path, f"no values of {missing[0]}")
    return {name: arrays[name] for name in chosen}


def _values_v2(checkpoint: _Checkpoint, chosen: dict[str, Variable]) -> dict[str, np.ndarray]:
    prefix = str(checkpoint.path).removesuffix(".index")
    shards: dict[int, memoryview] = {}
    arrays = {}
    for name, variable in chosen.items():
        shard, first, size, crc = variable.place
        path = Path(f"{prefix}.data-{shard:05d}-of-{checkpoint.n_shards:05d}")
        if shard not in shards:
            shards[shard] = mapped(path)
        dtype = np.dtype(variable.dtype).newbyteorder("<")
        if size != math.prod(variable.shape) * dtype.itemsize:
            raise damaged(checkpoint.path, f"{name} has {size} bytes, shape {variable.shape}")
        if first + size > len(shards[shard]):
            raise InputError(
                f"{path}: truncated, {len(shards[shard])} bytes, but {name} ends at byte "
                f"{first + size}. {AGAIN}"
            )
        values = shards[shard][first : first + size]
        if crc32c.masked(values) != crc:
            raise damaged(path, f"the CRC-32C of {name} is another")
        array = np.frombuffer(values, dtype=dtype).astype(variable.dtype)
        arrays[name] = array.reshape(variable.shape)
    return arrays


def _fields(message) -> dict[int, list]:
    """Return the fields of a protocol buffer: numbers, or bytes where a field has a length."""
    fields: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = varint(message, place)
        else:
            size, place = varint(message, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
            if place + size > len(message):
                raise ValueError("a field that ends after its message")
            value = message[place : place + size]
            value = value if wire == 2 else int.from_bytes(value, "little")
            place += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varints(data) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = varint(data, place)
        yield value - (1 << 64) if value >> 63 else value


def _text(value) -> str:
    text = bytes(value).decode()
    if not text.isprintable():
        raise ValueError("a name that cannot be printed")
    return text


def _dtype(entry: dict[int, list], field: int) -> str:
    kind = entry.get(field, [0])[0]
    return _TYPES.get(kind, f"TensorFlow's type {kind}")


def _shape(entry: dict[int, list]) -> tuple[int, ...]:
    """Return the shape of field 2, a TensorShapeProto."""
    dimensions = _fields(entry.get(2, [b""])[0]).get(2, [])
    return tuple(int(_fields(dimension).get(1, [0])[0]) for dimension in dimensions)
