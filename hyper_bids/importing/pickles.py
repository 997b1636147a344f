"""Pickles of plain arrays, read by the unpickler that runs nothing that a file asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyper_bids import unpickling
from hyper_bids.errors import InputError
from hyper_bids.unpickling import Record

_DEPTH = 8
_SCALARS = (bool, int, float, str, bytes)


def read_pickle(path: Path) -> object:
    """Read a pickle of arrays, lists, tuples, dicts, numbers and text; nothing in it is run.

    Returns
    -------
    object
        numpy arrays for arrays of numbers; lists, tuples and dicts as they are; None for arrays of
        text and for what else has no numbers.

    Raises
    ------
    InputError
        If the file asks for anything else (the message names it), is damaged, or holds a list
        that contains itself.
    """
    try:
        with path.open("rb") as stream:
            found = unpickling.load(stream, path, lambda module, name: False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except InputError as error:
        raise InputError(f"{error} Or have its arrays written with numpy.savez.") from None
    try:
        return _plain(found, 0)
    except ValueError as error:
        raise InputError(
            f"{path}: the pickle holds {' '.join(str(error).split())}. Arrays, lists, tuples, "
            f"dicts, numbers and text are accepted; write the arrays with numpy.savez instead."
        ) from None


def _plain(value: object, depth: int) -> object:
    if depth > _DEPTH:
        raise ValueError(f"lists more than {_DEPTH} deep")
    if isinstance(value, Record):
        return _of_record(value, depth)
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        # Most are numbers, millions of them.
        if all(type(entry) in (int, float) for entry in value):
            return value
        return type(value)(_plain(entry, depth + 1) for entry in value)
    raise ValueError(f"an object of type {type(value).__name__}")


def _of_record(record: Record, depth: int) -> object:
    """Return the array of a record, the entries of one of objects, None for text."""
    if record.origin == "_codecs.encode":  # how protocols that have no bytes write them
        if record.args[1:] not in ((), ("latin1",)):
            raise ValueError("text in a coding other than latin1 (_codecs.encode)")
        return None
    code = _type_code(record)
    if code.startswith(("U", "S")):
        return None
    if not code.startswith("O"):
        try:
            return unpickling.array_of(record)
        except ValueError as error:
            raise ValueError(f"no whole array of numbers ({record.origin}: {error})") from None
    shape, _, fortran, data = record.state[-4:]
    if not isinstance(data, list) or not isinstance(shape, tuple):
        raise ValueError("an array of objects without a list of them, or without a shape")
    entries = [_plain(entry, depth + 1) for entry in data]
    if len(shape) == 1:
        return entries
    return np.reshape(np.array(entries), shape, "F" if fortran else "C")


def _type_code(record: Record) -> str:
    """Return the type that an array's record states, nothing where it states none."""
    kind = record.origin.rpartition(".")[2]
    held = {"_reconstruct": record.state or (), "_frombuffer": record.args, "scalar": record.args}
    place = {"_reconstruct": -3, "_frombuffer": 1, "scalar": 0}
    try:
        code = held[kind][place[kind]].args[0]
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""
    return code if isinstance(code, str) else ""
