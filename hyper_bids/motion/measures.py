"""How much a head moved, and how much the image changed, from volume to volume."""

from __future__ import annotations

import numpy as np

_BLOCK = 4096  # voxels whose time series are in memory as float64


def framewise_displacement(parameters: np.ndarray, radius: float = 50.0) -> np.ndarray:
    """Sum the changes of all six parameters (Power et al. 2012, NeuroImage 59:2142).

    Parameters
    ----------
    parameters : array of shape (n_volumes, 6)
        Translations in mm, then rotations in radians; of one run.
    radius : float
        Rotations count as arcs on a sphere of this radius, mm.

    Returns
    -------
    array of shape (n_volumes,), mm
        The first is NaN.
    """
    parameters = np.asarray(parameters, float)
    if parameters.ndim != 2 or parameters.shape[1] != 6:
        raise ValueError(f"six parameters a volume are wanted, not {parameters.shape}")
    change = np.abs(np.diff(parameters, axis=0)) @ np.array([1, 1, 1, radius, radius, radius])
    return np.concatenate([np.full(min(1, len(parameters)), np.nan), change])


def dvars(bold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how much the image changes from each volume to the next.

    DVARS (Power et al. 2012, NeuroImage 59:2142) is the root mean square over voxels of the change.
    Standardised, it is divided by what changes would be without artefacts: the mean over voxels
    of the standard deviation of the change, from the interquartile range and the lag-1
    autocorrelation (Nichols 2013, Notes on creating a standardized version of DVARS,
    arXiv:1704.01469). 1 is what noise alone does.

    Parameters
    ----------
    bold : array of shape (n_volumes, n_voxels)
        One run, voxels of the brain; may be a memory map. Voxels that are constant or not finite
        are left out.

    Returns
    -------
    dvars, std_dvars : array of shape (n_volumes,)
        DVARS in thousandths of the median voxel's mean, and without unit. The first of each is
        NaN; all are if no voxel varies.
    """
    n_volumes, n_voxels = bold.shape
    squares, expected, means = np.zeros(max(n_volumes - 1, 0)), [], []
    for first in range(0, n_voxels, _BLOCK):
        block = np.asarray(bold[:, first : first + _BLOCK], np.float64)
        block = block[:, np.isfinite(block).all(axis=0)]
        block = block[:, np.ptp(block, axis=0) > 0] if n_volumes > 1 else block[:, :0]
        squares += (np.diff(block, axis=0) ** 2).sum(axis=1)
        means.append(block.mean(axis=0))
        expected.append(_expected_change(block, means[-1]))
    means, expected = np.concatenate([*means, []]), np.concatenate([*expected, []])
    result = np.full((2, n_volumes), np.nan)
    # The sign: data without their mean have no percent.
    if len(means) and np.median(means) > 0:
        result[0, 1:] = np.sqrt(squares / len(means)) * 1000 / np.median(means)
    if len(means) and expected.mean() > 0:
        result[1, 1:] = np.sqrt(squares / len(means)) / expected.mean()
    return result[0], result[1]


def _expected_change(block: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each voxel's change that its time series lets expect."""
    if not block.size:
        return np.empty(0)
    low, high = np.percentile(block, (25, 75), axis=0)
    centred = block - mean
    autocorrelation = (centred[1:] * centred[:-1]).sum(axis=0) / (centred**2).sum(axis=0)
    # 1.349: interquartile range of the normal distribution with standard deviation 1.
    return (high - low) / 1.349 * np.sqrt(2 * (1 - autocorrelation))
