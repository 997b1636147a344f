"""A head that moves as a rigid body while it is scanned; arrays in, arrays out."""

from __future__ import annotations

import numpy as np

RADIUS = 50.0  # mm from the centre, where a rotation moves the head as far as a translation
SMOOTHING = 3.0  # s, sd of the Gaussian that smooths the random walk


def head_positions(
    n_runs: int, n_volumes: int, t_r: float, size: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a smooth random walk of the head that goes on from run to run.

    Parameters
    ----------
    n_runs, n_volumes : int
    t_r : float, seconds
    size : float, mm
        Sd of each parameter over all volumes; rotations in mm at ``RADIUS``.
    rng : Generator

    Returns
    -------
    float64 array of shape (n_runs, n_volumes, 6)
        Three translations (mm) and three rotations (rad), of mean 0 over all volumes.
    """
    from scipy.ndimage import gaussian_filter1d

    steps = rng.standard_normal((n_runs * n_volumes, 6))
    walk = gaussian_filter1d(np.cumsum(steps, axis=0), SMOOTHING / t_r, axis=0, mode="nearest")
    walk -= walk.mean(axis=0)
    walk *= size / walk.std(axis=0)
    walk[:, 3:] /= RADIUS
    return walk.reshape(n_runs, n_volumes, 6)


def moved(image: np.ndarray, positions: np.ndarray, voxel_size: float) -> np.ndarray:
    """Return what a scanner sees of a head that moves: each volume resampled.

    What is at x in ``image`` (mm from the centre of the volume) appears at R x + t, where t are
    the translations and R turns about the first axis, then the second, then the third.

    Parameters
    ----------
    image : int16 array of shape (x, y, z, n_volumes)
    positions : array of shape (n_volumes, 6)
        Translations (mm) and rotations (rad) along and about the three axes.
    voxel_size : float, mm
        The same along all axes.

    Returns
    -------
    int16 array of shape (x, y, z, n_volumes), Fortran order
        By cubic splines, rounded; no value below 0. The border is repeated beyond it.
    """
    from scipy.ndimage import affine_transform
    from scipy.spatial.transform import Rotation

    seen = np.empty_like(image, order="F")
    centre = (np.array(image.shape[:3]) - 1) / 2
    for volume, position in enumerate(positions):
        back = Rotation.from_euler("xyz", position[3:]).as_matrix().T
        offset = centre - back @ (centre + position[:3] / voxel_size)
        values = affine_transform(
            image[..., volume].astype(np.float32), back, offset, order=3, mode="nearest"
        )
        seen[..., volume] = np.rint(np.clip(values, 0, np.iinfo(np.int16).max))
    return seen
