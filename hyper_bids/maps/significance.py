"""p values of maps from a null that voxels share, and the false discovery rate over voxels."""

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


def fdr(p: np.ndarray) -> np.ndarray:
    """Return p values adjusted to control the false discovery rate over voxels.

    Benjamini and Hochberg 1995, which holds for voxels that depend on each other positively
    (Benjamini and Yekutieli 2001); a voxel is taken at rate q where its value is at most q.

    Parameters
    ----------
    p : array of shape (n_voxels,)
        NaN where there is none; such voxels are not counted.

    Returns
    -------
    array of shape (n_voxels,), float64
    """
    from scipy.stats import false_discovery_control

    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested])
    return adjusted
