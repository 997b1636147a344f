"""NumPy arrays out of a pickle, without running what the pickle says.

A pickle names functions to call. Only the names that NumPy writes for an array are accepted, and
what stands for them here takes the bytes and builds the array; nothing is imported.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError


class _Type:
    """A NumPy type: its code, and its byte order once it is told."""

    def __init__(self, code: str, *_: object):
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        code = self.code.decode() if isinstance(self.code, bytes) else str(self.code)
        if code[:1] not in ("f", "i", "u"):
            raise pickle.UnpicklingError(f"an array of type {code!r}, not of numbers")
        order = self.order if self.order in ("<", ">", "=") else "="
        return np.dtype(code).newbyteorder(order)


class _Array:
    """An array that is filled by its state."""

    def __init__(self, *_: object):
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.value = _frombuffer(raw, kind, shape, "F" if fortran else "C").value


def _frombuffer(raw: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.value = np.frombuffer(raw, dtype=kind.numpy()).reshape(shape, order=order)
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if str(encoding).replace("-", "") not in ("latin1", "iso88591"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return str(text).encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ACCEPTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _ACCEPTED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ACCEPTED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ACCEPTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no NumPy array and is not run"
            ) from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a pickled dict of NumPy arrays.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to array

    Raises
    ------
    InputError
        If the pickle is cut off or damaged, names anything but NumPy arrays, or is no dict of them.
    """
    try:
        with path.open("rb") as stream:
            found = _Unpickler(stream, encoding="latin1").load()
    except EOFError:
        raise InputError(f"{path}: a truncated pickle. Copy or download it again.") from None
    except Exception as error:
        # What a damaged pickle raises can be anything.
        if "truncated" in str(error):
            raise InputError(f"{path}: a truncated pickle. Copy or download it again.") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: a pickle that is not read: {reason}. A dict of NumPy arrays is wanted, or "
            f"a state dict that torch.save wrote."
        ) from None
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path}: a pickle of {type(found).__name__}, but a dict of NumPy arrays is wanted."
        )
    wrong = [key for key, value in found.items() if not isinstance(value, _Array)]
    if wrong:
        raise InputError(
            f"{path}: entry {wrong[0]} of the pickle is no NumPy array. A dict of arrays is wanted."
        )
    return {str(key): value.value for key, value in found.items()}
