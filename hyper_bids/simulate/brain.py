"""The simulated brain: its shape, where it codes, and the code that is planted there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.errors import UsageError
from hyper_bids.simulation_settings import SimulationSettings

BASELINE = 1000.0  # mean signal in the brain
BASELINE_SD = 0.1  # of the baseline, over voxels, as a fraction; limited to two sd
AIR_SD = 6.0  # noise around the brain, same units as BASELINE
# Semi-axes of the brain, as a fraction of the sides of the volume. The air that this leaves all
# round keeps the clean-up of brain-mask algorithms, an erosion, from eating into a small brain.
RADIUS = 0.42
# Of the two clusters, left and right at the back, as a fraction of the sides.
CENTRES = ((0.32, 0.28, 0.42), (0.68, 0.28, 0.42))

MEAN_RESPONSE = (1.0, 2.0)  # percent, range over coding voxels of the response to any stimulus
CODE_SD = 0.5  # percent, of the code in each coding voxel over stimuli
TIME_TO_PEAK = 5.1  # s, of the main lobe of the response to an impulse
TIME_TO_PEAK_SD = 0.5  # s over voxels at hrf_variation 1
DISPERSION = 0.9  # s
DISPERSION_SD = 0.15  # natural log, over voxels at hrf_variation 1


@dataclass(frozen=True, eq=False)
class Brain:
    """One participant's brain: what it looks like, and the code planted in it.

    Attributes
    ----------
    mask : bool array of shape (x, y, z)
        The brain; its True voxels in C order are the brain voxels.
    baseline : float32 array of shape (n_brain,)
        Mean signal of each brain voxel.
    coding : int array of shape (n_coding,)
        The coding voxels, as ascending positions among the brain voxels.
    mean_response : array of shape (n_coding,), percent signal change
        Response to the average stimulus.
    weights : array of shape (n_latents, n_coding), percent signal change
        The code: the response to a stimulus is ``mean_response + latents @ weights``.
    time_to_peak, dispersion : arrays of shape (n_coding,), seconds
        The main lobe of each coding voxel's response function.
    """

    mask: np.ndarray
    baseline: np.ndarray
    coding: np.ndarray
    mean_response: np.ndarray
    weights: np.ndarray
    time_to_peak: np.ndarray
    dispersion: np.ndarray


def brain_mask(shape: tuple[int, ...]) -> np.ndarray:
    """Return the ellipsoid that is the brain, bool, of ``shape``."""
    axes = [(np.arange(n) - (n - 1) / 2) / (RADIUS * n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= 1


def coding_mask(mask: np.ndarray, n_coding: int) -> np.ndarray:
    """Return the coding voxels: the nearest ones to a centre at the back of each hemisphere.

    Parameters
    ----------
    mask : bool array of shape (x, y, z)
        The brain; x runs from left to right, y from back to front.
    n_coding : int

    Returns
    -------
    bool array of shape (x, y, z)

    Raises
    ------
    UsageError
        If the back half of the brain has too few voxels.
    """
    coding = np.zeros(mask.shape, bool)
    back = mask & (np.arange(mask.shape[1]) < mask.shape[1] / 2)[:, None]
    middle = mask.shape[0] // 2
    sides = (slice(None, middle), slice(middle, None))
    wanted = ((n_coding + 1) // 2, n_coding // 2)
    fits = 2 * min(int(back[side].sum()) for side in sides)
    if n_coding > fits:
        raise UsageError(
            f"simulation setting n_coding_voxels = {n_coding}: at most {fits} fit into the back "
            f"of a brain of shape {mask.shape}; give fewer, or a larger shape."
        )
    for side, n, centre in zip(sides, wanted, CENTRES, strict=True):
        inside = np.zeros(mask.shape, bool)
        inside[side] = back[side]
        places = np.argwhere(inside)
        distance = ((places + 0.5 - np.array(centre) * mask.shape) ** 2).sum(1)
        coding[tuple(places[np.argsort(distance, kind="stable")[:n]].T)] = True
    return coding


def make_brain(settings: SimulationSettings, rng: np.random.Generator) -> Brain:
    """Draw one participant's brain and code.

    Parameters
    ----------
    settings : SimulationSettings
    rng : Generator

    Returns
    -------
    Brain
    """
    from scipy.ndimage import gaussian_filter

    mask = brain_mask(settings.shape)
    coding = np.flatnonzero(coding_mask(mask, settings.n_coding_voxels)[mask])
    field = gaussian_filter(rng.standard_normal(mask.shape), 2.0, mode="nearest")[mask]
    field = np.clip((field - field.mean()) / field.std(), -2, 2)
    weights = rng.standard_normal((settings.n_latents, coding.size))
    mean_response = rng.uniform(*MEAN_RESPONSE, coding.size)
    peak, width = np.clip(rng.standard_normal((2, coding.size)), -2, 2) * settings.hrf_variation
    return Brain(
        mask=mask,
        baseline=(BASELINE * (1 + BASELINE_SD * field)).astype(np.float32),
        coding=coding,
        mean_response=mean_response,
        weights=CODE_SD * weights / np.linalg.norm(weights, axis=0),
        time_to_peak=TIME_TO_PEAK + TIME_TO_PEAK_SD * peak,
        dispersion=DISPERSION * np.exp(DISPERSION_SD * width),
    )
