"""Pickles of plain arrays, read by an unpickler that runs nothing that a file asks for.

A pickle is a program for a small machine, whose one dangerous instruction fetches any function by
name. Here, each name that numpy's arrays need leads to a stand-in of this module, and all others
are refused. Stand-ins keep what the file says; arrays are made of it afterwards, and checked.
"""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError

_DEPTH = 8
_SCALARS = (bool, int, float, str, bytes, np.generic)


class Refused(pickle.UnpicklingError):
    """What a pickle asks for is none of the plain things that are read."""


@dataclass(eq=False)
class _Type:
    """Stand-in of ``numpy.dtype``: its code and, once its state is known, its byte order."""

    code: str
    order: str = "="

    def __setstate__(self, state) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("numpy.dtype with a state that no array of numbers has")
        self.order = state[1]

    def resolved(self) -> np.dtype:
        kind = np.dtype(self.code)
        return kind if self.order in "|=" else kind.newbyteorder(self.order)


@dataclass(eq=False)
class _Array:
    """Stand-in of ``numpy.ndarray``: what its state says, unchecked."""

    shape: object = ()
    kind: object = None
    fortran: object = False
    data: object = b""

    def __setstate__(self, state) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("numpy.ndarray with a state of another form")
        self.shape, self.kind, self.fortran, self.data = state[-4:]


class _Allowed:
    """A global that may be called; it has no attributes that a pickle could set."""

    __slots__ = ("_make",)

    def __init__(self, make):
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments):
        return self._make(*arguments)

    def __setattr__(self, name, value):
        raise Refused(f"setting the attribute {name!r} of a function")

    def __setstate__(self, state):
        raise Refused("setting the state of a function")


def _dtype(code, *_) -> _Type:
    text = code.decode("latin1") if isinstance(code, bytes) else code
    plain = (
        isinstance(text, str) and len(text) <= 5 and text.lstrip("<>|=")[:1] in tuple("biufcOSU")
    )
    if not plain:
        raise Refused(f"numpy.dtype({text!r}); numbers and text are accepted")
    np.dtype(text)
    return _Type(text)


def _empty(*_) -> _Array:
    return _Array()


def _from_buffer(data, kind, shape, order="C") -> _Array:
    return _Array(shape, kind, order == "F", data)


def _scalar(kind, data=None) -> _Array:
    return _Array((), kind, False, data)


def _encoded(text, encoding="latin1") -> bytes:
    # How bytes are written in protocols that have none.
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


_GLOBALS = {
    ("numpy", "ndarray"): _empty,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encoded,
}
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[_core + ".multiarray", "_reconstruct"] = _empty
    _GLOBALS[_core + ".multiarray", "scalar"] = _scalar
    _GLOBALS[_core + ".numeric", "_frombuffer"] = _from_buffer


class _Restricted(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _GLOBALS:
            raise Refused(f"{module}.{name}")
        return _Allowed(_GLOBALS[module, name])

    def persistent_load(self, pid):
        raise Refused("an object that is kept outside of the file")


def read_pickle(path: Path) -> object:
    """Read a pickle of arrays, lists, tuples, dicts, numbers and text; nothing in it is run.

    Returns
    -------
    object
        numpy arrays for arrays; lists, tuples and dicts as they are.

    Raises
    ------
    InputError
        If the file asks for anything else (the message names it), is damaged, or holds a list
        that contains itself.
    """
    try:
        found = _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return _plain(found, 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except Refused as error:
        wish = " ".join(str(error).split())
        raise InputError(
            f"{path}: the pickle asks for {wish}, which is not read, since a pickle can run any "
            f"program. Arrays, lists, tuples, dicts, numbers and text are accepted; write the "
            f"arrays with numpy.savez instead."
        ) from None
    except (MemoryError, RecursionError):
        raise InputError(
            f"{path}: the pickle is larger or deeper than it can be read. Write the arrays with "
            f"numpy.savez instead."
        ) from None
    # A damaged pickle can raise nearly anything from inside the unpickler.
    except Exception as error:
        raise InputError(
            f"{path}: not a whole pickle ({type(error).__name__}: {' '.join(str(error).split())}). "
            f"Copy or download it again."
        ) from None


def _plain(value: object, depth: int) -> object:
    if depth > _DEPTH:
        raise Refused(f"lists more than {_DEPTH} deep")
    if isinstance(value, _Array):
        return _array(value, depth)
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        # Most are numbers, millions of them.
        if all(type(entry) in (int, float) for entry in value):
            return value
        return type(value)(_plain(entry, depth + 1) for entry in value)
    raise Refused(f"an object of type {type(value).__name__}")


def _array(found: _Array, depth: int) -> object:
    if not isinstance(found.kind, _Type):
        raise Refused("an array without a type")
    shape = found.shape if isinstance(found.shape, tuple) else (found.shape,)
    if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 32:
        raise Refused(f"an array of shape {found.shape!r}")
    kind, size = found.kind.resolved(), math.prod(shape)
    order = "F" if found.fortran else "C"
    if kind.kind == "O":
        if not isinstance(found.data, list) or len(found.data) != size:
            raise Refused("an array of objects whose number is not that of its shape")
        entries = [_plain(entry, depth + 1) for entry in found.data]
        return entries if len(shape) == 1 else np.reshape(np.array(entries), shape, order)
    # Written by Python 2, bytes come as text.
    data = found.data.encode("latin1") if isinstance(found.data, str) else found.data
    if not isinstance(data, (bytes, bytearray)) or len(data) != size * kind.itemsize:
        raise Refused(f"an array of shape {shape} and type {kind} with other than its bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order).copy()
