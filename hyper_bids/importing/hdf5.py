"""HDF5: MATLAB's v7.3, bdpy's layout, and any other file of datasets in groups.

MATLAB keeps arrays by columns and HDF5 by rows, so that a dataset of MATLAB's has its axes in
reverse; its attribute ``MATLAB_class`` tells which these are. bdpy's layout is that of Kamitani's
laboratory: a matrix ``dataset`` of samples by columns, ``metadata/key`` (names), and
``metadata/value`` with a row a name and a column a column of the matrix, which says what each
column is: 1 where a column belongs to the name, NaN or 0 elsewhere (github.com/KamitaniLab/bdpy).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, UsageError, listing

_READABLE = "biuf"
_BDPY = (("dataset", "metadata"), ("dataSet", "metaData"))


@contextmanager
def opened(path: Path):
    """Open an HDF5 file to read.

    Raises
    ------
    UsageError
        If h5py is not installed.
    InputError
        If the file is damaged.
    """
    try:
        import h5py
    except ImportError:
        raise UsageError(
            f"{path}: this is an HDF5 file (.h5, or .mat of MATLAB's v7.3), for which h5py is "
            f"needed: pip install h5py. Or write the arrays as .npz, or with save -v7 in MATLAB."
        ) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _broken(path, error) from None
    try:
        with file:
            yield file
    # What h5py raises over parts that are damaged; text that is no name is a TypeError.
    except (KeyError, RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: not a whole HDF5 file ({' '.join(str(error).split())}). Copy or download it "
        f"again."
    )


def datasets(file) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return name to shape, as it is read, and type, of all datasets but MATLAB's own tables."""
    import h5py

    found = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("#refs#", "#subsystem#")):
            shape = tuple(item.shape or ())
            dtype = "bool" if _is_matlab(item, "logical") else str(item.dtype)
            found[name] = (shape[::-1] if _is_matlab(item) else shape, dtype)

    file.visititems(visit)
    for name, (columns, n_columns) in _columns(file).items():
        data = file[columns]
        found[f"{columns}[{name}]"] = ((data.shape[0], n_columns), str(data.dtype))
    return found


def read_dataset(path: Path, file, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Read a dataset; ``rows`` are those of its first axis, as :func:`datasets` shows it.

    ``dataset[NAME]`` are the columns of bdpy's matrix that have NAME in its metadata.

    Raises
    ------
    InputError
        If there is no such dataset, or it holds no numbers.
    """
    import h5py

    base, _, key = name.partition("[")
    columns = None
    if key and name not in file:
        columns = _column_numbers(path, file, base, key.removesuffix("]"))
        name = base
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        raise InputError(f"{path}: there is no dataset {name!r}; there are {listing(file.keys())}.")
    if _is_matlab(item, "char"):
        return np.array("".join(map(chr, item[()].ravel())))
    if item.dtype.kind not in _READABLE or item.shape is None or not item.size:
        what = "references to other variables (a cell array or struct)" if (
            item.dtype.kind == "O") else f"of type {item.dtype}, shape {item.shape}"  # fmt: skip
        raise InputError(
            f"{path}, variable {name}: {what}; an array of numbers that is not empty is wanted. "
            f"Give the name of the array itself (see --list)."
        )
    reverse = _is_matlab(item)
    array = _taken(item, rows, -1 if reverse else 0)
    array = array.T if reverse else array
    # MATLAB's truth values are stored as numbers.
    array = array.astype(bool) if _is_matlab(item, "logical") else array
    return array if columns is None else np.ascontiguousarray(array[:, columns])


def _taken(item, rows: np.ndarray | None, axis: int) -> np.ndarray:
    if rows is None or item.ndim == 0:
        return item[()]
    # h5py wants rows that ascend, each of them once.
    unique, back = np.unique(rows, return_inverse=True)
    if axis == 0:
        return item[unique][back]
    return item[(..., unique)][..., back]


def _is_matlab(item, kind: str | None = None) -> bool:
    named = item.attrs.get("MATLAB_class")
    named = named.decode() if isinstance(named, bytes) else named
    return named is not None if kind is None else named == kind


def _layout(file) -> tuple[str, list[str], np.ndarray] | None:
    """Return the matrix of bdpy's layout, the names of its metadata, and their values."""
    for matrix, metadata in _BDPY:
        parts = [file.get(name) for name in (matrix, f"{metadata}/key", f"{metadata}/value")]
        if any(part is None for part in parts):
            continue
        names = [key.decode() if isinstance(key, bytes) else str(key) for key in parts[1][()]]
        values = np.asarray(parts[2][()], float)
        if parts[0].ndim == 2 and values.shape == (len(names), parts[0].shape[1]):
            return matrix, names, values
    return None


def _columns(file) -> dict[str, tuple[str, int]]:
    """Return bdpy's names that stand for columns: the matrix, and how many they are."""
    layout = _layout(file)
    if layout is None:
        return {}
    matrix, names, values = layout
    counts = (values == 1).sum(axis=1)
    return {n: (matrix, int(count)) for n, count in zip(names, counts, strict=True) if count}


def _column_numbers(path: Path, file, matrix: str, key: str) -> np.ndarray:
    layout = _layout(file)
    if layout is None or layout[0] != matrix or key not in layout[1]:
        there = listing(f"{layout[0]}[{name}]" for name in layout[1]) if layout else (
            "no columns with names: the file is not in bdpy's layout")  # fmt: skip
        raise InputError(f"{path}: there is no variable {matrix}[{key}]; there are {there}.")
    found = np.flatnonzero(layout[2][layout[1].index(key)] == 1)
    if not len(found):
        raise InputError(f"{path}, variable {matrix}[{key}]: the name stands for no column.")
    return found
