"""Reading TensorFlow 1 checkpoints without TensorFlow.

There are two kinds, both of them tables as LevelDB writes them, of protocol buffers. A bundle (V2)
is a table ``PREFIX.index`` of names, types, shapes and places, and the values in files named
``PREFIX.data-00000-of-00001``. A V1 checkpoint is one file, a table that has the values, too. Every
block of a table and every array of a bundle carries a CRC-32C; that of all that is read is checked.

References
----------
LevelDB table format: https://github.com/google/leveldb/blob/main/doc/table_format.md
TensorFlow, ``tensor_bundle.proto`` and ``saved_tensor_slice.proto``.
Snappy format: https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError

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
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48
_POLYNOMIAL = 0x82F63B78
_PIECE = 1 << 22
_DAMAGED = (IndexError, KeyError, OverflowError, TypeError, ValueError)
_AGAIN = "Copy or download it again."

# First bytes of a file that is something else -> what it is.
_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights; run 'git lfs pull'"),
    (b"<!doctype html", "an HTML page, not weights; download again"),
    (b"<html", "an HTML page, not weights; download again"),
    (b"<?xml", "an XML page, not weights; download again"),
)


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


def is_table(path: str | Path) -> bool:
    """Say whether a file ends as a table does: a V1 checkpoint, or the index of a bundle."""
    with Path(path).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - len(_MAGIC)))
        return stream.read() == _MAGIC


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
        raise _damaged(checkpoint.path, error) from None


def crc32c(data: bytes | memoryview | mmap.mmap) -> int:
    """Return the CRC-32C (Castagnoli) of bytes.

    A CRC is linear: the first half of the data, moved over the second by what that many zero bytes
    do to a register, can be added to it. So the data are folded until one word is left.
    """
    register = 0xFFFFFFFF
    for start in range(0, len(data), _PIECE):
        piece = np.frombuffer(data[start : start + _PIECE], dtype=np.uint8)
        # Zeros before the data change nothing; the number of words is a power of 2.
        level = max(0, math.ceil(math.log2(len(piece) / 4)))
        words = np.zeros(4 << level, dtype=np.uint8)
        words[-len(piece) :] = piece
        words = words.view("<u4").astype(np.uint32)
        for k in range(level - 1, -1, -1):
            words = _apply(_zeros(k + 2), words[: 1 << k]) ^ words[1 << k :]
        before = np.array([register], dtype=np.uint32)
        for k in range(len(piece).bit_length()):
            if len(piece) >> k & 1:
                before = _apply(_zeros(k), before)
        register = int((_apply(_zeros(2), words) ^ before)[0])
    return register ^ 0xFFFFFFFF


@cache
def _zeros(k: int) -> np.ndarray:
    """Return (4, 256): what 2^k zero bytes do to each value of each byte of a register."""
    if k:
        half = _zeros(k - 1)
        return _apply(half, half)
    values = np.arange(256, dtype=np.uint32)
    lowest = values
    for _ in range(8):
        lowest = (lowest >> 1) ^ np.where(lowest & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return np.stack([lowest, values, values << 8, values << 16])


def _apply(operator: np.ndarray, registers: np.ndarray) -> np.ndarray:
    octets = np.ascontiguousarray(registers, dtype="<u4").view(np.uint8)
    octets = octets.reshape(*registers.shape, 4)
    moved = operator[0][octets[..., 0]]
    for place in (1, 2, 3):
        moved ^= operator[place][octets[..., place]]
    return moved


def _masked_crc32c(data) -> int:
    # Stored so, because a CRC of data that contain CRCs is a weak one.
    register = crc32c(data)
    return (((register >> 15) | (register << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(path: Path, error: Exception | str) -> InputError:
    what = error if isinstance(error, str) else type(error).__name__
    return InputError(f"{path}: damaged ({what}). {_AGAIN}")


def _open(prefix: str | Path) -> _Checkpoint:
    given = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", str(prefix))
    index = Path(f"{given}.index")
    path = index if index.is_file() else Path(given)
    if not path.is_file():
        raise InputError(
            f"{prefix}: no TensorFlow checkpoint, there is neither {index} nor a file {given}."
        )
    try:
        items = _table(path)
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
        raise _damaged(path, error) from None


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
    for key, value in _table(checkpoint.path):
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
            raise _damaged(checkpoint.path, f"{name} has {values.size} values of {variable.shape}")
        arrays[name] = values.astype(variable.dtype).reshape(variable.shape)
    missing = [name for name in chosen if name not in arrays]
    if missing:
        raise _damaged(checkpoint.path, f"no values of {missing[0]}")
    return {name: arrays[name] for name in chosen}


def _values_v2(checkpoint: _Checkpoint, chosen: dict[str, Variable]) -> dict[str, np.ndarray]:
    prefix = str(checkpoint.path).removesuffix(".index")
    shards: dict[int, memoryview] = {}
    arrays = {}
    for name, variable in chosen.items():
        shard, first, size, crc = variable.place
        path = Path(f"{prefix}.data-{shard:05d}-of-{checkpoint.n_shards:05d}")
        if shard not in shards:
            shards[shard] = _map(path)
        dtype = np.dtype(variable.dtype).newbyteorder("<")
        if size != math.prod(variable.shape) * dtype.itemsize:
            raise _damaged(checkpoint.path, f"{name} has {size} bytes, shape {variable.shape}")
        if first + size > len(shards[shard]):
            raise InputError(
                f"{path}: truncated, {len(shards[shard])} bytes, but {name} ends at byte "
                f"{first + size}. {_AGAIN}"
            )
        values = shards[shard][first : first + size]
        if _masked_crc32c(values) != crc:
            raise _damaged(path, f"the CRC-32C of {name} is another")
        array = np.frombuffer(values, dtype=dtype).astype(variable.dtype)
        arrays[name] = array.reshape(variable.shape)
    return arrays


def _map(path: Path) -> memoryview:
    """Return the bytes of a file, read when they are used; refuse what is something else."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
            if not stream.seek(0, 2):
                raise InputError(f"{path}: the file is empty. {_AGAIN}")
            for magic, kind in _KINDS:
                if start.startswith(magic):
                    raise InputError(f"{path}: {kind}")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing. A checkpoint is its .index file and all its .data files; get all."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def _table(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the keys and the values of a table."""
    table = _map(path)
    footer = table[-_FOOTER:]
    if len(table) < _FOOTER or footer[-8:] != _MAGIC:
        raise InputError(
            f"{path}: truncated, or no TensorFlow checkpoint (no LevelDB table ends with it). "
            f"{_AGAIN}"
        )
    place = 0
    for _ in range(2):  # the place of the meta index, which has nothing in it
        _, place = _varint(footer, place)
    for _, handle in _items(_block(path, table, footer[place:])):
        yield from _items(_block(path, table, handle))


def _block(path: Path, table: memoryview, handle: memoryview) -> memoryview:
    first, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    end = first + size
    if end + 5 > len(table) - _FOOTER:
        raise InputError(
            f"{path}: truncated, {len(table)} bytes, but a block ends at byte {end + 5}. {_AGAIN}"
        )
    if _masked_crc32c(table[first : end + 1]) != int.from_bytes(table[end + 1 : end + 5], "little"):
        raise _damaged(path, f"the CRC-32C of the block at byte {first} is another")
    block, kind = table[first:end], table[end]
    if kind not in (0, 1):
        raise InputError(
            f"{path}: compressed in a way that is not read here (type {kind}; none and Snappy are)."
        )
    return memoryview(_snappy(block)) if kind else block


def _items(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (n_restarts + 1)
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        added, place = _varint(block, place)
        length, place = _varint(block, place)
        if place + added + length > end or shared > len(key):
            raise ValueError("an item that ends after its block")
        key = key[:shared] + bytes(block[place : place + added])
        place += added + length
        yield key, block[place - length : place]


def _snappy(data: memoryview) -> bytes:
    size, place = _varint(data, 0)
    out = bytearray()
    while place < len(data):
        kind, rest = data[place] & 3, data[place] >> 2
        place += 1
        # Bytes that follow the tag: with the length of a literal, or the distance of a copy.
        more = (max(0, rest - 59), 1, 2, 4)[kind]
        number = int.from_bytes(data[place : place + more], "little")
        place += more
        if kind == 0:
            length = (number if more else rest) + 1
            out += data[place : place + length]
            place += length
            continue
        length = 4 + (rest & 7) if kind == 1 else rest + 1
        distance = number + ((rest >> 3) << 8) if kind == 1 else number
        if not 0 < distance <= len(out):
            raise ValueError("a copy from before the start")
        pattern = out[-distance:][:length]
        out += (pattern * (length // len(pattern) + 1))[:length]
    if len(out) != size:
        raise ValueError("a block of another size than it says")
    return bytes(out)


def _fields(message) -> dict[int, list]:
    """Return the fields of a protocol buffer: numbers, or bytes where a field has a length."""
    fields: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(message, place)
        else:
            size, place = _varint(message, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
            if place + size > len(message):
                raise ValueError("a field that ends after its message")
            value = message[place : place + size]
            value = value if wire == 2 else int.from_bytes(value, "little")
            place += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _varints(data) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
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
