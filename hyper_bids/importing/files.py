"""What a file holds, and its arrays: .npy, .npz, .mat of both kinds, .h5, and pickles.

A file's kind is seen from its first bytes. Nothing in a file is ever run.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError

import numpy as np

from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.importing import hdf5, matlab5, pickles

KINDS = ".npy, .npz, .mat, .h5 and pickles of arrays (.dat, .pkl)"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLES = (".dat", ".pkl", ".pickle", ".p")


@dataclass(frozen=True)
class Variable:
    """One array of a file: the name it is asked for by, its shape and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def contents(path: Path | str) -> list[Variable]:
    """Return what can be read from a file.

    Raises
    ------
    InputError
        If it is absent, damaged, or of a kind that is not read.
    UsageError
        If it takes a library that is not installed.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "hdf5":
        with hdf5.opened(path) as file:
            found = hdf5.datasets(file)
        return [Variable(name, *told) for name, told in found.items()]
    if kind == "mat":
        return [Variable(e.name, e.shape, e.dtype) for e in matlab5.entries(path).values()]
    if kind == "npz":
        return _npz_contents(path)
    return [Variable(name, a.shape, str(a.dtype)) for name, a in _arrays(path, kind).items()]


def all_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read all arrays of a file, in their order; see :func:`read`."""
    return {variable.name: read(path, variable.name) for variable in contents(path)}


def read(path: Path | str, name: str | None = None, rows: np.ndarray | None = None) -> np.ndarray:
    """Read an array of numbers from a file.

    Parameters
    ----------
    path : path
    name : str, optional
        As :func:`contents` gives it; needed where there are several.
    rows : int array, optional
        Which rows of the first axis, counted from 0, in any order; all by default.

    Raises
    ------
    InputError, UsageError
        As :func:`contents`; or the name is not there, the array is empty, has no numbers (object
        arrays, text), or too few rows.
    """
    path = Path(path)
    there = contents(path)
    name = _chosen(path, name, there)
    shape = next((v.shape for v in there if v.name == name), ())
    if rows is not None and shape and (rows.min() < 0 or rows.max() >= shape[0]):
        raise InputError(
            f"{path}, variable {name}: rows {rows.min()} to {rows.max()} are asked for, but its "
            f"shape is {_shape(shape)}; rows 0 to {shape[0] - 1} are there."
        )
    kind = kind_of(path)
    if kind == "hdf5":
        with hdf5.opened(path) as file:
            array = hdf5.read_dataset(path, file, name, rows)
    else:
        if kind == "mat":
            array = matlab5.read_array(path, matlab5.entries(path)[name])
        else:
            array = _arrays(path, kind, name)[name]
        if rows is not None and np.ndim(array):
            array = array[rows]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.size:
        found = f"{array.dtype}, shape {_shape(array.shape)}" if hasattr(array, "dtype") else (
            f"of type {type(array).__name__}")  # fmt: skip
        raise InputError(
            f"{path}, variable {name}: {found}; an array of real numbers that is not empty is "
            f"wanted."
        )
    return array


def find(paths: Iterable[Path | str], wanted: str) -> tuple[Path, str]:
    """Return the file that holds a variable, and its name there.

    Parameters
    ----------
    paths : paths of the files that were given
    wanted : ``NAME``, or ``FILE:NAME``, or ``FILE`` of one variable

    Raises
    ------
    UsageError
        If no file has it, or several have.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        for given in (str(path), path.name):
            if wanted == given:
                return path, _chosen(path, None, contents(path))
            if wanted.startswith(f"{given}:"):
                return path, _chosen(path, wanted.removeprefix(f"{given}:"), contents(path))
    holding = [path for path in paths if any(v.name == wanted for v in contents(path))]
    if len(holding) == 1:
        return holding[0], wanted
    if holding:
        raise UsageError(
            f"variable {wanted}: {listing(holding)} have it; say which, as in "
            f"{holding[0].name}:{wanted}."
        )
    names = [f"{path.name}:{v.name}" for path in paths for v in contents(path)]
    raise UsageError(f"variable {wanted}: not in the files given; there are {listing(names, 16)}.")


def listed(path: Path | str) -> str:
    """Return a file's table of contents, a line a variable, for ``--list``."""
    found = contents(path)
    width = max((len(v.name) for v in found), default=0)
    lines = [f"  {v.name:{width}}  {_shape(v.shape):>20}  {v.dtype}" for v in found]
    return "\n".join([f"{path}", *(lines or ["  nothing that can be read"])])


def kind_of(path: Path) -> str:
    """Return npy, npz, mat, hdf5 or pickle, from a file's first bytes.

    Raises
    ------
    InputError
        If it is absent, empty, or something else.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(520)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if not start:
        raise InputError(f"{path}: the file is empty. Copy or download it again.")
    # A .mat file of v7.3 is HDF5 after 512 bytes of MATLAB's own.
    if start.startswith(_HDF5) or start[512:].startswith(_HDF5):
        return "hdf5"
    signs = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"MATLAB 5.0": "mat"}
    for sign, kind in signs.items():
        if start.startswith(sign):
            return kind
    if start[0] == 0x80 or path.suffix.lower() in _PICKLES:
        return "pickle"
    hint = " Of MATLAB's files, those of save -v7 and -v7.3." if path.suffix == ".mat" else ""
    raise InputError(f"{path}: of no kind that is read; {KINDS} are.{hint}")


def _chosen(path: Path, name: str | None, there: list[Variable]) -> str:
    if name is None:
        if len(there) == 1:
            return there[0].name
        raise UsageError(
            f"{path}: holds {len(there)} variables, {listing(v.name for v in there)}; say which."
        )
    # A bare name of bdpy's matrix may lead to columns that are listed only by groups.
    if "[" not in name and all(v.name != name for v in there):
        names = listing(f"{v.name} {_shape(v.shape)}" for v in there)
        raise UsageError(f"{path}: there is no variable {name!r} in it; there are {names}.")
    return name


def _arrays(path: Path, kind: str, name: str | None = None) -> dict[str, np.ndarray]:
    if kind == "pickle":
        status = path.stat()
        return _pickled(path, status.st_mtime_ns, status.st_size)
    try:
        if kind == "npy":
            return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name]}
    except _NUMPY_ERRORS as error:
        raise _broken(path, kind, error) from None


# What numpy and zipfile raise over damaged files.
_NUMPY_ERRORS = (
    OSError, ValueError, EOFError, TypeError, AttributeError, KeyError, RuntimeError,
    NotImplementedError, MemoryError, TokenError, zipfile.BadZipFile, zlib.error, SyntaxError,
)  # fmt: skip


def _broken(path: Path, kind: str, error: Exception) -> InputError:
    what = f"not a whole .{kind} file of numpy ({type(error).__name__})"
    if any(word in str(error) for word in ("pickle", "Python objects")):
        what = "an object array, which is a pickle and not read"
    return InputError(f"{path}: {what}; write arrays of numbers with numpy.save or numpy.savez.")


def _npz_contents(path: Path) -> list[Variable]:
    """Read the headers of an archive's arrays, not the arrays."""
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    raise InputError(f"{path}: a zip archive of {name}, no .npz file of numpy.")
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                        version, np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = header(stream)
                found.append(Variable(name.removesuffix(".npy"), shape, str(dtype)))
    except _NUMPY_ERRORS as error:
        raise _broken(path, "npz", error) from None
    return found


@lru_cache(maxsize=1)
def _pickled(path: Path, *_: int) -> dict[str, np.ndarray]:
    # Kept: a pickle is read as a whole, whichever of its arrays is wanted.
    return _flat(pickles.read_pickle(path), "", {})


def _flat(value: object, name: str, found: dict) -> dict[str, np.ndarray]:
    """Add the arrays in tuples, lists and dicts, under names such as ``0`` and ``train/1``."""
    array = value if isinstance(value, np.ndarray) else None
    if isinstance(value, list) or (isinstance(value, tuple) and name):
        try:
            array = np.array(value)
            array = array if array.dtype.kind in "biuf" else None
        except ValueError:  # rows of different lengths
            array = None
    if array is not None:
        found[name or "0"] = array
    elif isinstance(value, (list, tuple, dict)):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            _flat(entry, f"{name}/{key}" if name else str(key), found)
    elif isinstance(value, (bool, int, float, np.generic)):
        found[name or "0"] = np.array(value)
    return found


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
