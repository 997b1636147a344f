"""p values of maps from a null that voxels share."""

from __future__ import annotations

import numpy as np


def p_values(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return one-sided p values (b + 1) / (n + 1) (Phipson and Smyth 2010).

    Parameters
    ----------
    values : array of shape (n_voxels,)
    null : array of shape (n,)
        Draws of chance, the same for all voxels.

    Returns
    -------
    array of shape (n_voxels,), float64, above 0
        b is how many draws reach the value; NaN where the value is.

    Raises
    ------
    ValueError
        If the null is empty or has values that are not finite.
    """
    values, null = np.asarray(values), np.sort(np.asarray(null).ravel())
    if not len(null) or not np.isfinite(null).all():
        raise ValueError(f"null of {len(null)} draws; one or more finite ones are wanted")
    reached = len(null) - np.searchsorted(null, values, "left")
    return np.where(np.isfinite(values), (reached + 1) / (len(null) + 1), np.nan)
