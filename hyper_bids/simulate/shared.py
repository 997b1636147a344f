"""Noise that many voxels share, as breathing and global fluctuations give; arrays in, arrays out.

``docs/simulation.md`` has the model as formulas.
"""

from __future__ import annotations

import numpy as np

from hyper_bids.simulate.signal import autocorrelated

# Of each time course: its frequency (Hz) and its time constant (s). A plain AR(1) process, which
# all voxels follow, then two slow rhythms and two of breathing. None knows the task.
RHYTHMS = ((0.0, 6.0), (0.02, 30.0), (0.045, 25.0), (0.22, 15.0), (0.3, 15.0))
GLOBAL_SPREAD = 0.3  # sd over voxels of the first course's loading, whose mean is 1
SMOOTHNESS = 0.15  # of the loadings: sd of the Gaussian, as a fraction of the volume's sides


def shared_loadings(mask: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Draw how much each brain voxel follows each shared time course.

    Parameters
    ----------
    mask : bool array of shape (x, y, z)
        The brain.
    size : float, percent signal change
        Mean over brain voxels of the sd over time that the time courses give together.
    rng : Generator

    Returns
    -------
    float32 array of shape (n_courses, n_brain), percent signal change
        Smooth over space. The first is positive nearly everywhere; all have the same mean square.
    """
    from scipy.ndimage import gaussian_filter

    width = SMOOTHNESS * np.array(mask.shape)
    fields = np.empty((len(RHYTHMS), int(mask.sum())))
    for row in range(len(fields)):
        field = gaussian_filter(rng.standard_normal(mask.shape), width, mode="nearest")[mask]
        fields[row] = (field - field.mean()) / field.std()
    fields[0] = (1 + GLOBAL_SPREAD * fields[0]) / np.sqrt(1 + GLOBAL_SPREAD**2)
    return (size / np.linalg.norm(fields, axis=0).mean() * fields).astype(np.float32)


def shared_courses(n_volumes: int, t_r: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the shared time courses of a run.

    Each is a cosine and a sine of its frequency, both with an AR(1) process as amplitude: a
    stationary process of autocovariance exp(-lag / time constant) cos(2 pi frequency lag). They
    are then made uncorrelated over the run by the smallest change that does it [1]_, so that the
    variance that a voxel gets from them is the sum of its squared loadings.

    Parameters
    ----------
    n_volumes : int
        At least 10.
    t_r : float, seconds
    rng : Generator

    Returns
    -------
    float32 array of shape (n_volumes, n_courses)
        Mean 0 and sd 1 over time, uncorrelated.

    References
    ----------
    .. [1] Löwdin (1950), J Chem Phys 18:365-375.
    """
    times = t_r * np.arange(n_volumes)
    courses = np.empty((n_volumes, len(RHYTHMS)))
    for column, (frequency, time_constant) in enumerate(RHYTHMS):
        amplitudes = autocorrelated(n_volumes, 2, np.exp(-t_r / time_constant), rng)
        angle = 2 * np.pi * frequency * times
        courses[:, column] = amplitudes[:, 0] * np.cos(angle) + amplitudes[:, 1] * np.sin(angle)
    courses -= courses.mean(axis=0)
    left, _, right = np.linalg.svd(courses / courses.std(axis=0), full_matrices=False)
    return (np.sqrt(n_volumes) * left @ right).astype(np.float32)
