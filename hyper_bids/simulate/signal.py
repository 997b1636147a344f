"""The signal of a simulated run: what its trials evoke, and the noise; arrays in, arrays out.

``docs/simulation.md`` has the model as formulas. The response function is written out here
instead of taken from ``hyper_bids.glm``, so that an error there cannot cancel itself in a test on
simulated data.
"""

from __future__ import annotations

import numpy as np

from hyper_bids.simulate.brain import AIR_SD, CODE_SD, DISPERSION, TIME_TO_PEAK, Brain
from hyper_bids.simulate.design import Design
from hyper_bids.simulation_settings import SimulationSettings

UNDERSHOOT = (6.0, 0.9, 0.48)  # delay after the main lobe (s), dispersion (s), share
HRF_LENGTH = 32.0  # s
SLICE_TIME = 0.5  # a volume shows the brain at the middle of its acquisition

DRIFT_SHARES = (1.0, 1 / 2, 1 / 3)  # of the drift's cosines, before scaling to unit variance
DRIFT_PERIOD = 100.0  # s, the shortest; a short run has fewer cosines, but always the first
SPIKE_SD = 2.0  # percent, of a spike over voxels at its peak
SPIKE_SHAPE = (1.0, 0.5, 0.25)  # of a spike over volumes
MOTION_STEP = np.repeat([0.01, 0.0002], 3)  # mm and rad a volume
MOTION_SPIKE = np.repeat([0.5, 0.008], 3)  # mm and rad at a spike's peak


def response(
    lags: np.ndarray, duration: float, time_to_peak: np.ndarray, dispersion: np.ndarray
) -> np.ndarray:
    """Return the noise-free response to one trial; its peak is 1.

    The difference of two gamma densities [1]_, convolved with the trial exactly: the convolution
    with a box is the difference of the distribution function at its two ends.

    Parameters
    ----------
    lags : array of shape (n_lags,), seconds
        Time since the trial's onset.
    duration : float, seconds
    time_to_peak, dispersion : arrays of shape (n_voxels,), seconds

    Returns
    -------
    float64 array of shape (n_lags, n_voxels)

    References
    ----------
    .. [1] Glover (1999), NeuroImage 9:416-429, with the constants that nilearn has.
    """
    peaks = np.arange(0, HRF_LENGTH / 2 + duration, 0.05)
    fine = _box_response(peaks, duration, time_to_peak, dispersion)
    return _box_response(lags, duration, time_to_peak, dispersion) / fine.max(axis=0)


def _box_response(lags, duration, time_to_peak, dispersion) -> np.ndarray:
    from scipy.special import gammainc

    delay, width, share = UNDERSHOOT

    def cumulative(t: np.ndarray) -> np.ndarray:
        t = np.maximum(t, 0)[:, None]
        # Mode of a gamma density of mean m and scale s: m - s.
        mean = time_to_peak + dispersion
        lobe = gammainc(mean / dispersion, t / dispersion)
        return lobe - share * gammainc((mean + delay) / width, t / width)

    return cumulative(lags) - cumulative(lags - duration)


def evoked(
    design: Design, run_betas: np.ndarray, brain: Brain, t_r: float, duration: float
) -> np.ndarray:
    """Return the signal that the trials of a run evoke.

    Parameters
    ----------
    design : Design
    run_betas : array of shape (n_trials, n_coding), percent signal change
        Peak response to each trial.
    brain : Brain
    t_r, duration : float, seconds

    Returns
    -------
    float64 array of shape (n_volumes, n_coding), percent signal change
    """
    signal = np.zeros((design.n_volumes, brain.coding.size))
    seen: dict[float, np.ndarray] = {}
    n_lags = int(np.ceil((HRF_LENGTH + duration) / t_r))
    for onset, betas in zip(design.onsets, run_betas, strict=True):
        first = int(np.ceil(onset / t_r - SLICE_TIME))
        # Onsets often fall on few phases of the sampling: the response is the same for those.
        phase = round((first + SLICE_TIME) * t_r - onset, 6)
        if phase not in seen:
            lags = phase + t_r * np.arange(n_lags)
            seen[phase] = response(lags, duration, brain.time_to_peak, brain.dispersion)
        target = signal[first : first + n_lags]
        target += betas * seen[phase][: len(target)]
    return signal


def noise_percent(settings: SimulationSettings, design: Design) -> float:
    """Return the sd of the noise in a voxel's signal, percent, at noise level 1.

    It is such that a trial's beta, estimated by ordinary least squares with the average response
    function and a quadratic drift, errs by the sd of the code, about the mean error of its run:

        sd = CODE_SD / sqrt(trace(C P S P' C) / (n_trials - 1))

    with P the trials' rows of the pseudo-inverse of the design, S the AR(1) correlation of the
    noise, and C the centring over a run's trials.
    """
    from scipy.linalg import toeplitz

    times = (np.arange(design.n_volumes) + SLICE_TIME) * settings.t_r
    lags = times[:, None] - design.onsets
    mean_hrf = (np.array([TIME_TO_PEAK]), np.array([DISPERSION]))
    trials = response(lags.ravel(), settings.duration, *mean_hrf).reshape(lags.shape)
    drift = np.vander(np.linspace(-1, 1, design.n_volumes), 3)
    rows = np.linalg.pinv(np.hstack([trials, drift]))[: design.onsets.size]
    rows = rows - rows.mean(axis=0)
    correlation = toeplitz(settings.autocorrelation ** np.arange(design.n_volumes))
    variance = np.einsum("ij,ij->", rows @ correlation, rows) / (design.onsets.size - 1)
    return CODE_SD / float(np.sqrt(variance))


def autocorrelated(n_volumes: int, n_voxels: int, rho: float, rng) -> np.ndarray:
    """Return stationary AR(1) noise of unit variance, float32, shape (n_volumes, n_voxels)."""
    noise = rng.standard_normal((n_volumes, n_voxels), dtype=np.float32)
    if rho:
        fresh = np.float32(np.sqrt(1 - rho**2))
        for volume in range(1, n_volumes):
            noise[volume] *= fresh
            noise[volume] += np.float32(rho) * noise[volume - 1]
    return noise


def drifts(n_volumes: int, n_voxels: int, t_r: float, rng) -> np.ndarray:
    """Return slow drifts of unit sd over time, each voxel its own mix of up to three cosines.

    Parameters
    ----------
    n_volumes, n_voxels : int
    t_r : float, seconds
    rng : Generator

    Returns
    -------
    float32 array of shape (n_volumes, n_voxels)
        Sum of the first cosines of the DCT-II, sd over time exactly 1.
    """
    times = (np.arange(n_volumes) + 0.5) / n_volumes
    slow = int(2 * n_volumes * t_r / DRIFT_PERIOD)
    shares = np.array(DRIFT_SHARES[: max(slow, 1)])
    cosines = np.sqrt(2) * np.cos(np.pi * times[:, None] * np.arange(1, shares.size + 1))
    mix = rng.standard_normal((shares.size, n_voxels)) * shares[:, None]
    mix /= np.linalg.norm(mix, axis=0)
    return cosines.astype(np.float32) @ mix.astype(np.float32)


def spike_courses(n_volumes: int, n_spikes: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw when a run's spikes are.

    Returns
    -------
    volumes : int array of shape (n_spikes,)
        The volume of each spike's peak, ascending, none twice.
    courses : float32 array of shape (n_volumes, n_spikes)
        Peak 1, then decaying as ``SPIKE_SHAPE``.
    """
    last = n_volumes - len(SPIKE_SHAPE) + 1
    volumes = np.sort(rng.choice(last, n_spikes, replace=False))
    courses = np.zeros((n_volumes, n_spikes), np.float32)
    for step, size in enumerate(SPIKE_SHAPE):
        courses[volumes + step, np.arange(n_spikes)] = size
    return volumes, courses


def motion(courses: np.ndarray, rng) -> np.ndarray:
    """Return motion parameters that go with the spikes.

    Parameters
    ----------
    courses : array of shape (n_volumes, n_spikes)
    rng : Generator

    Returns
    -------
    float64 array of shape (n_volumes, 6)
        Three translations (mm) and three rotations (rad): a random walk plus the spikes.
    """
    steps = rng.standard_normal((courses.shape[0], 6)) * MOTION_STEP
    steps[0] = 0
    jumps = rng.standard_normal((courses.shape[1], 6)) * MOTION_SPIKE
    return np.cumsum(steps, axis=0) + courses @ jumps


def run_signal(
    settings: SimulationSettings,
    brain: Brain,
    run_evoked: np.ndarray,
    sd: float,
    courses,
    rng,
    shared: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the signal of a run in each brain voxel.

    Parameters
    ----------
    settings : SimulationSettings
    brain : Brain
    run_evoked : array of shape (n_volumes, n_coding), percent signal change
    sd : float, percent
        Standard deviation of the AR(1) noise.
    courses : array of shape (n_volumes, n_spikes)
    rng : Generator
    shared : arrays of shape (n_volumes, n_shared) and (n_shared, n_brain), percent, optional
        Time courses of the noise that voxels share, and how much each voxel follows them.

    Returns
    -------
    float32 array of shape (n_volumes, n_brain)
        Units of the baseline: baseline * (1 + percent / 100).
    """
    shape = len(run_evoked), brain.baseline.size
    percent = autocorrelated(*shape, settings.autocorrelation, rng)
    percent *= np.float32(sd)
    if settings.drift:
        percent += np.float32(settings.drift) * drifts(*shape, settings.t_r, rng)
    if courses.shape[1]:
        patterns = rng.standard_normal((courses.shape[1], shape[1]), dtype=np.float32)
        percent += courses @ (np.float32(SPIKE_SD) * patterns)
    if shared is not None:
        percent += shared[0] @ shared[1]
    percent[:, brain.coding] += run_evoked.astype(np.float32)
    percent *= brain.baseline / 100
    percent += brain.baseline
    return percent


def to_image(signal: np.ndarray, mask: np.ndarray, rng) -> np.ndarray:
    """Place brain voxels into volumes, with faint noise around them.

    Parameters
    ----------
    signal : array of shape (n_volumes, n_brain)
    mask : bool array of shape (x, y, z)
    rng : Generator

    Returns
    -------
    int16 array of shape (x, y, z, n_volumes), Fortran order as on disk
        Rounded to whole units, limited to the range of the type.
    """
    image = np.empty((*mask.shape, len(signal)), np.int16, order="F")
    n_air = int((~mask).sum())
    for volume, values in enumerate(signal):
        air = np.abs(AIR_SD * rng.standard_normal(n_air, dtype=np.float32))
        image[..., volume][~mask] = np.rint(air)
        image[..., volume][mask] = np.rint(np.clip(values, 0, np.iinfo(np.int16).max))
    return image
