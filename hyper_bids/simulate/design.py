"""When each trial starts and what it shows, and whether the settings of a simulation agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hyper_bids.errors import UsageError
from hyper_bids.simulation_settings import SimulationSettings

LEAD_IN = 6.0  # s before the first stimulus
LEAD_OUT = 12.0  # s after the end of the last trial
MIN_SIDE = 5  # voxels; a smaller ellipsoid has no inside
MIN_SLICES = 8  # of a head that moves; fewer do not show where it is
MIN_VOLUMES = 10  # of a run with shared noise, so that its time courses can be uncorrelated
MAX_HRF_VARIATION = 3.0  # beyond it the earliest responses would peak at the stimulus

_LEAST = {
    "n_participants": 1,
    "n_train_runs": 1,
    "n_test_runs": 1,
    "trials_per_run": 2,
    "n_test_stimuli": 1,
    "n_coding_voxels": 1,
    "n_latents": 1,
    "spikes_per_run": 0,
    "drift": 0,
    "shared_noise": 0,
    "motion": 0,
    "random_seed": 0,
}
_ABOVE_ZERO = ("t_r", "soa", "duration")


@dataclass(frozen=True, eq=False)
class Design:
    """What one participant sees, and when.

    Attributes
    ----------
    onsets : array of shape (n_trials,), seconds
        Start of each trial, the same in every run.
    n_volumes : int
        Volumes of each run.
    stimulus : int array of shape (n_runs, n_trials)
        Row of the latents that a trial shows; training stimuli are the first rows.
    is_test : bool array of shape (n_runs,)
        Whether a run tests; the first ones do.
    """

    onsets: np.ndarray
    n_volumes: int
    stimulus: np.ndarray
    is_test: np.ndarray


def check(settings: SimulationSettings) -> None:
    """Refuse settings that are out of range or that contradict each other.

    Raises
    ------
    UsageError
        Naming the setting, what was given and what is accepted.
    """
    for name, least in _LEAST.items():
        if not getattr(settings, name) >= least or not math.isfinite(getattr(settings, name)):
            _refuse(name, getattr(settings, name), f"at least {least} is wanted")
    for name in _ABOVE_ZERO:
        if not 0 < getattr(settings, name) < math.inf:
            _refuse(name, getattr(settings, name), "seconds above 0 are wanted")
    if not 0 <= settings.autocorrelation < 1:
        _refuse("autocorrelation", settings.autocorrelation, "from 0 to below 1 is accepted")
    if not 0 <= settings.hrf_variation <= MAX_HRF_VARIATION:
        _refuse(
            "hrf_variation", settings.hrf_variation, f"from 0 to {MAX_HRF_VARIATION:g} is accepted"
        )
    if len(settings.shape) != 3 or min(settings.shape) < MIN_SIDE:
        _refuse("shape", settings.shape, f"three sides of at least {MIN_SIDE} voxels are wanted")
    if len(settings.noise) not in (1, settings.n_participants):
        _refuse(
            "noise",
            settings.noise,
            f"one level, or one for each of the {settings.n_participants} participants, is wanted",
        )
    if not all(0 <= level < math.inf for level in settings.noise):
        _refuse("noise", settings.noise, "levels of at least 0 are wanted")
    _check_timing(settings)
    _check_extras(settings)


def _check_timing(settings: SimulationSettings) -> None:
    if settings.soa < settings.t_r:
        _refuse(
            "soa",
            settings.soa,
            f"at least t_r ({settings.t_r:g} s) is wanted, or single trials cannot be told apart",
        )
    if settings.duration > settings.soa:
        _refuse("duration", settings.duration, f"at most soa ({settings.soa:g} s) is accepted")
    n_shown = settings.n_test_runs * settings.trials_per_run
    if settings.n_test_stimuli > n_shown:
        _refuse(
            "n_test_stimuli",
            settings.n_test_stimuli,
            f"n_test_runs x trials_per_run = {n_shown} trials cannot show more than {n_shown}",
        )
    if settings.spikes_per_run > n_volumes(settings) // 4:
        _refuse(
            "spikes_per_run",
            settings.spikes_per_run,
            f"at most {n_volumes(settings) // 4}, a quarter of a run's volumes, are accepted",
        )


def _check_extras(settings: SimulationSettings) -> None:
    if settings.shared_noise and n_volumes(settings) < MIN_VOLUMES:
        _refuse(
            "shared_noise",
            settings.shared_noise,
            f"it needs at least {MIN_VOLUMES} volumes in a run, and these have "
            f"{n_volumes(settings)}",
        )
    if settings.motion and settings.shape[2] < MIN_SLICES:
        _refuse(
            "motion",
            settings.motion,
            f"it needs a shape of at least {MIN_SLICES} slices, and this has {settings.shape[2]}",
        )


def _refuse(name: str, value: object, reason: str) -> None:
    raise UsageError(f"simulation setting {name} = {value}: {reason}.")


def n_train_stimuli(settings: SimulationSettings) -> int:
    """Return how many stimuli train: one for each trial of the training runs."""
    return settings.n_train_runs * settings.trials_per_run


def n_stimuli(settings: SimulationSettings) -> int:
    """Return how many stimuli there are, training and test."""
    return n_train_stimuli(settings) + settings.n_test_stimuli


def trial_onsets(settings: SimulationSettings) -> np.ndarray:
    """Return the onsets of a run, shape (n_trials,), seconds, in whole milliseconds."""
    return np.round(LEAD_IN + settings.soa * np.arange(settings.trials_per_run), 3)


def n_volumes(settings: SimulationSettings) -> int:
    """Return the volumes of a run: lead-in, trials and lead-out, rounded up."""
    seconds = LEAD_IN + settings.soa * settings.trials_per_run + LEAD_OUT
    # A run that fits exactly must not grow by a volume through rounding.
    return math.ceil(round(seconds / settings.t_r, 6))


def make_design(settings: SimulationSettings, rng: np.random.Generator) -> Design:
    """Draw what one participant sees.

    The first ``n_test_runs`` runs show the test stimuli, in blocks: each block is a new order of
    all of them, so that they are shown equally often up to a remainder, evenly over the runs. The
    other runs show each training stimulus once.

    Parameters
    ----------
    settings : SimulationSettings
    rng : Generator
        The participant's own, so that the order differs between participants.

    Returns
    -------
    Design
    """
    n_train = n_train_stimuli(settings)
    test = n_train + _blocks(
        settings.n_test_stimuli, settings.n_test_runs * settings.trials_per_run, rng
    )
    order = np.concatenate([test, rng.permutation(n_train)])
    return Design(
        onsets=trial_onsets(settings),
        n_volumes=n_volumes(settings),
        stimulus=order.reshape(-1, settings.trials_per_run),
        is_test=np.arange(settings.n_test_runs + settings.n_train_runs) < settings.n_test_runs,
    )


def _blocks(n_items: int, n_trials: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n_trials`` items, shuffled block by block, none twice in a row if there are two."""
    order: list[int] = []
    while len(order) < n_trials:
        block = rng.permutation(n_items)
        if order and n_items > 1 and block[0] == order[-1]:
            other = rng.integers(1, n_items)
            block[[0, other]] = block[[other, 0]]
        order.extend(block)
    return np.array(order[:n_trials])
