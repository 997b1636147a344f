"""Tables of keys and values as LevelDB writes them, and the numbers within them.

Each block of a table carries a CRC-32C; that of all that is read is checked.

References
----------
LevelDB table format: https://github.com/google/leveldb/blob/main/doc/table_format.md
Snappy format: https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from hyper_bids import filekinds
from hyper_bids.errors import InputError
from hyper_bids.generators.formats import crc32c

AGAIN = "Copy or download it again."

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48


def is_table(path: str | Path) -> bool:
    """Say whether a file ends as a table does: a V1 checkpoint, or the index of a bundle."""
    with Path(path).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - len(_MAGIC)))
        return stream.read() == _MAGIC


def read_table(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the keys and the values of a table."""
    table = mapped(path)
    footer = table[-_FOOTER:]
    if len(table) < _FOOTER or footer[-8:] != _MAGIC:
        raise InputError(
            f"{path}: truncated, or no TensorFlow checkpoint (no LevelDB table ends with it). "
            f"{AGAIN}"
        )
    place = 0
    for _ in range(2):  # the place of the meta index, which has nothing in it
        _, place = varint(footer, place)
    for _, handle in _items(_block(path, table, footer[place:])):
        yield from _items(_block(path, table, handle))


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file, read when they are used; refuse what is something else."""
    try:
        with path.open("rb") as stream:
            other = filekinds.stand_in(stream.read(filekinds.N_BYTES))
            if other:
                raise InputError(f"{path}: {other}.")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing. A checkpoint is its .index file and all its .data files; get all."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def damaged(path: Path, error: Exception | str) -> InputError:
    """Return the error that says that a file is damaged, and how it was seen."""
    what = error if isinstance(error, str) else type(error).__name__
    return InputError(f"{path}: damaged ({what}). {AGAIN}")


def varint(data, place: int) -> tuple[int, int]:
    """Return the number of seven bits a byte at ``place``, and the place after it."""
    value = shift = 0
    while shift < 64:
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _block(path: Path, table: memoryview, handle: memoryview) -> memoryview:
    first, place = varint(handle, 0)
    size, _ = varint(handle, place)
    end = first + size
    if end + 5 > len(table) - _FOOTER:
        raise InputError(
            f"{path}: truncated, {len(table)} bytes, but a block ends at byte {end + 5}. {AGAIN}"
        )
    if crc32c.masked(table[first : end + 1]) != int.from_bytes(table[end + 1 : end + 5], "little"):
        raise damaged(path, f"the CRC-32C of the block at byte {first} is another")
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
        shared, place = varint(block, place)
        added, place = varint(block, place)
        length, place = varint(block, place)
        if place + added + length > end or shared > len(key):
            raise ValueError("an item that ends after its block")
        key = key[:shared] + bytes(block[place : place + added])
        place += added + length
        yield key, block[place - length : place]


def _snappy(data: memoryview) -> bytes:
    size, place = varint(data, 0)
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
