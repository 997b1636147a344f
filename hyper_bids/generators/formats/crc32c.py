"""CRC-32C (Castagnoli), which every block of a TensorFlow checkpoint carries, with NumPy."""

from __future__ import annotations

import math
import mmap
from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78
_PIECE = 1 << 22


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


def masked(data: bytes | memoryview) -> int:
    """Return the CRC as it is stored: one of data that contain CRCs would be weak."""
    register = crc32c(data)
    return (((register >> 15) | (register << 17)) + 0xA282EAD8) & 0xFFFFFFFF
