"""Pickles read as data: no class and no function that a pickle names is ever imported or called.

A pickle is a program for a small machine. What makes it dangerous is that it may name any function
of Python and have it called. Here each name is looked up in a table; what stands in the table
becomes a :class:`Record`, which notes the arguments and the state that it is given and does
nothing, and any other name ends the reading. Arrays are built from the records afterwards.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from hyper_bids.errors import InputError

# Old and new homes of the functions that NumPy's pickles name.
_NUMPY = frozenset(
    (*((f"numpy.{core}.multiarray", name)
       for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
     *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
     ("numpy", "ndarray"), ("numpy", "dtype"),
     # Bytes, in pickles of protocol 2 that Python 3 wrote.
     ("_codecs", "encode"), ("__builtin__", "bytes"))
)  # fmt: skip
# What a damaged pickle can make of the machine.
DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
_SCALAR = re.compile(r"[fiu][1248]|b1")


class Record:
    """Stands in for an object of a pickle: its name, arguments and state, and no behaviour."""

    origin = ""

    def __new__(cls, *args, **_):
        """Note the arguments."""
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *_, **__):
        """Do nothing; the arguments are noted already."""

    def __setstate__(self, state) -> None:
        """Note the state."""
        self.state = state


# Python's own machine, not the one in C, which gives as much memory as a damaged file asks for.
class _Unpickler(pickle._Unpickler):
    def __init__(self, stream, path, known, resolve):
        super().__init__(stream, encoding="latin1")
        self._path, self._known, self._resolve, self._made = path, known, resolve, {}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) not in _NUMPY and not self._known(module, name):
            shown = "".join(c if c.isprintable() else "?" for c in f"{module}.{name}")
            raise InputError(
                f"{self._path}: a pickle that names {shown[:120]}, which no data that is read "
                f"here needs; nothing of it was run, and it is not read. Get the file from its "
                f"authors again."
            )
        # Made anew for each file, so that a file can change no other's.
        if (module, name) not in self._made:
            body = {"origin": f"{module}.{name}"}
            self._made[module, name] = type("Record", (Record,), body)
        return self._made[module, name]

    def get_extension(self, code: int):
        raise pickle.UnpicklingError(f"extension {code}")

    def persistent_load(self, pid):
        if self._resolve is None:
            raise pickle.UnpicklingError("an object kept elsewhere")
        return self._resolve(pid)


def load(
    stream: IO[bytes],
    path: Path,
    known: Callable[[str, str], bool],
    resolve: Callable[[object], object] | None = None,
) -> object:
    """Read one pickle; the stream is left behind its end.

    Parameters
    ----------
    stream : binary stream
    path : path
        For messages.
    known : function of (module, name) to bool
        Which names, beside NumPy's arrays and ``OrderedDict``, may stand in the pickle; they
        become records.
    resolve : function, optional
        What stands for an object that the pickle keeps outside of itself.

    Returns
    -------
    object
        Of plain Python types, ``OrderedDict`` and :class:`Record`.

    Raises
    ------
    InputError
        If the pickle names anything else, or is damaged or truncated.
    """
    try:
        return _Unpickler(stream, path, known, resolve).load()
    except DAMAGE as error:
        raise InputError(
            f"{path}: a pickle that is truncated or damaged ({type(error).__name__}). "
            f"Copy or download it again."
        ) from None


def array_of(value: object) -> np.ndarray:
    """Build the array that a record of NumPy's stands for.

    Parameters
    ----------
    value : Record, float or int

    Returns
    -------
    array of numbers or booleans

    Raises
    ------
    ValueError
        If it is no array, not one of numbers, or its bytes do not fit its shape.
    """
    if isinstance(value, float | int):
        return np.asarray(value)
    kind = value.origin.rpartition(".")[2] if isinstance(value, Record) else type(value).__name__
    try:
        if kind == "_reconstruct":
            shape, dtype, fortran, raw = value.state[-4:]
            order = "F" if fortran else "C"
        elif kind == "_frombuffer":
            raw, dtype, shape, order = value.args
        elif kind == "scalar":
            (dtype, raw), shape, order = value.args, (), "C"
        else:
            raise ValueError(f"{kind} is not an array")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"a shape of {shape}")
        kind = _dtype(dtype)
        return np.frombuffer(_bytes(raw), kind).reshape(shape, order=order)
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"not an array ({type(error).__name__})") from None


def _bytes(raw: object) -> bytes:
    if isinstance(raw, Record) and raw.origin == "_codecs.encode":
        raw = raw.args[0]
    if isinstance(raw, Record) and raw.origin == "__builtin__.bytes":
        raw = b""
    return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)


def _dtype(record: object) -> np.dtype:
    code = record.args[0]
    if not _SCALAR.fullmatch(code):
        raise ValueError(f"an array of type {code!r}, not of numbers")
    order = record.state[1] if record.state else "="
    return np.dtype(code).newbyteorder(order if order in "<>" else "=")
