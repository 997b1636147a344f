"""A pickled dict of NumPy arrays, as some authors give the weights of their networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyper_bids import unpickling
from hyper_bids.errors import InputError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a pickled dict of NumPy arrays; nothing that it names is run.

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
    with path.open("rb") as stream:
        found = unpickling.load(stream, path, lambda *_: False)
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path}: a pickle of {type(found).__name__}, but a dict of NumPy arrays is wanted."
        )
    arrays = {}
    for key, value in found.items():
        try:
            if not isinstance(value, unpickling.Record):
                raise ValueError(type(value).__name__)
            arrays[str(key)] = unpickling.array_of(value)
        except ValueError as error:
            raise InputError(
                f"{path}: entry {key} of the pickle is no NumPy array ({error}). A dict of arrays "
                f"is wanted."
            ) from None
    return arrays
