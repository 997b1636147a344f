"""Regressors of one run: trials, nuisance events, drift and confounds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from hyper_bids.glm.hrf import HRF_LENGTH, HRFS

# Seconds; the grid on which a response is integrated and its peak looked for.
_STEP = 0.01

Hrf = str | Callable[[np.ndarray], np.ndarray]


def trial_regressors(
    onsets: np.ndarray,
    durations: np.ndarray,
    n_volumes: int,
    t_r: float,
    hrf: Hrf,
    slice_time_ref: float = 0.5,
) -> np.ndarray:
    """Return one regressor a trial (Mumford et al. 2012, NeuroImage 59:2636-2643: LSA).

    The response to a trial is the HRF, averaged over the trial's duration, and scaled to a peak of
    1 on a grid of 10 ms; a beta is thus the height of the response's peak. It is evaluated at the
    volumes' times themselves, so onsets are not rounded to a grid.

    Parameters
    ----------
    onsets : array of shape (n_trials,), seconds from the start of the first volume; may be negative
    durations : array of shape (n_trials,), seconds; 0 is an impulse
    n_volumes : int
    t_r : float, seconds
    hrf : str or callable
        A name in ``HRFS``, or a function of seconds.
    slice_time_ref : float
        When in its volume a sample was taken, as a fraction of ``t_r``, 0 to 1.

    Returns
    -------
    array of shape (n_volumes, n_trials), float64

    Raises
    ------
    ValueError
        For an unknown HRF, one that never rises above 0, or an impossible onset, duration or TR.
    """
    onsets, durations = _checked_events(onsets, durations)
    regressors = _responses(onsets, durations, _times(n_volumes, t_r, slice_time_ref), hrf)
    peaks = {d: _peak(d, hrf) for d in np.unique(durations).tolist()}
    return regressors / np.array([peaks[d] for d in durations.tolist()])


def event_regressors(
    onsets: np.ndarray,
    durations: np.ndarray,
    kinds: Sequence[Hashable],
    n_volumes: int,
    t_r: float,
    hrf: Hrf,
    slice_time_ref: float = 0.5,
) -> tuple[np.ndarray, list]:
    """Return one regressor a kind of event, in order of the kinds' first appearance.

    Longer events of a kind get the larger response that a linear system gives them. The other
    parameters and errors are those of :func:`trial_regressors`.

    Parameters
    ----------
    onsets, durations : arrays of shape (n_events,), seconds
    kinds : sequence of n_events hashable values

    Returns
    -------
    regressors : array of shape (n_volumes, n_kinds), float64
        Scaled to a largest value of 1; 0 throughout if the kind has no response in this run.
    names : list of n_kinds
    """
    onsets, durations = _checked_events(onsets, durations)
    if len(kinds) != len(onsets):
        raise ValueError(f"{len(kinds)} kinds for {len(onsets)} events")
    responses = _responses(onsets, durations, _times(n_volumes, t_r, slice_time_ref), hrf)
    # A response is a mean over the event; times its duration it is the integral.
    responses = responses * np.maximum(durations, _STEP)
    names = list(dict.fromkeys(kinds))
    regressors = np.zeros((n_volumes, len(names)))
    for response, kind in zip(responses.T, kinds, strict=True):
        regressors[:, names.index(kind)] += response
    largest = np.abs(regressors).max(axis=0)
    return regressors / np.where(largest > 0, largest, 1.0), names


def polynomial_drift(n_volumes: int, order: int) -> np.ndarray:
    """Return orthonormal polynomials of time up to ``order``, the constant first.

    Returns
    -------
    array of shape (n_volumes, order + 1), float64
    """
    if not 0 <= order < n_volumes:
        raise ValueError(f"drift of order {order} in {n_volumes} volumes; 0 to n_volumes - 1 is ok")
    legendre = np.polynomial.legendre.legvander(np.linspace(-1, 1, n_volumes), order)
    q, r = np.linalg.qr(legendre)
    return q * np.sign(np.diag(r))


def nuisance_design(
    n_volumes: int,
    drift_order: int,
    confounds: np.ndarray | None = None,
    events: np.ndarray | None = None,
) -> np.ndarray:
    """Return everything that is modelled and not of interest.

    Parameters
    ----------
    n_volumes : int
    drift_order : int
    confounds : array of shape (n_volumes, n_confounds), optional
        Any unit: each column is standardised, constant ones are dropped.
    events : array of shape (n_volumes, n_kinds), optional
        Regressors of nuisance events, as they are; columns of zeros are dropped.

    Returns
    -------
    array of shape (n_volumes, k), float64
        Drift, confounds, events.

    Raises
    ------
    ValueError
        For a wrong number of rows, or values that are not finite.
    """
    parts = [polynomial_drift(n_volumes, drift_order)]
    if confounds is not None:
        confounds = _checked_columns("confounds", confounds, n_volumes)
        mean, sd = confounds.mean(axis=0), confounds.std(axis=0)
        varies = sd > 1e-10 * np.abs(mean)
        parts.append((confounds[:, varies] - mean[varies]) / sd[varies])
    if events is not None:
        events = _checked_columns("events", events, n_volumes)
        parts.append(events[:, np.any(events != 0, axis=0)])
    return np.hstack(parts)


def _times(n_volumes: int, t_r: float, slice_time_ref: float) -> np.ndarray:
    if not (np.isfinite(t_r) and t_r > 0):
        raise ValueError(f"a repetition time of {t_r} s; it must be above 0")
    if not 0 <= slice_time_ref <= 1:
        raise ValueError(f"slice_time_ref is {slice_time_ref}; 0 to 1 is accepted")
    return (np.arange(n_volumes) + slice_time_ref) * t_r


def _checked_events(onsets, durations) -> tuple[np.ndarray, np.ndarray]:
    onsets, durations = np.asarray(onsets, float), np.asarray(durations, float)
    if onsets.ndim != 1 or onsets.shape != durations.shape:
        raise ValueError(f"onsets of shape {onsets.shape}, durations of {durations.shape}")
    wrong = ~np.isfinite(onsets) | ~np.isfinite(durations) | (durations < 0)
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"event {k} has onset {onsets[k]} and duration {durations[k]} s; a finite onset and a "
            f"duration of 0 or more are wanted"
        )
    return onsets, durations


def _checked_columns(name: str, columns: np.ndarray, n_volumes: int) -> np.ndarray:
    columns = np.asarray(columns, float)
    if columns.ndim != 2 or len(columns) != n_volumes:
        raise ValueError(f"{name} of shape {columns.shape} for {n_volumes} volumes")
    broken = np.flatnonzero(~np.isfinite(columns).all(axis=0))
    if broken.size:
        raise ValueError(f"{name} have values that are not finite in columns {broken.tolist()}")
    return columns


def _kernel(hrf: Hrf) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(hrf, str) and hrf not in HRFS:
        raise ValueError(f"unknown HRF {hrf!r}; known: {', '.join(HRFS)}")
    function = HRFS[hrf] if isinstance(hrf, str) else hrf
    t = np.arange(round(HRF_LENGTH / _STEP) + 1) * _STEP
    return t, np.asarray(function(t), float)


def _mean_over(lags: np.ndarray, durations: np.ndarray, hrf: Hrf) -> np.ndarray:
    """Return the HRF averaged over the last ``durations`` seconds, at ``lags`` after the onset."""
    t, response = _kernel(hrf)
    integral = np.concatenate([[0.0], np.cumsum((response[1:] + response[:-1]) * _STEP / 2)])
    # Shorter than a step is an impulse: the quotient below would be 0 / 0.
    impulse = durations < _STEP
    width = np.where(impulse, 1.0, durations)
    mean = (np.interp(lags, t, integral) - np.interp(lags - width, t, integral)) / width
    return np.where(impulse, np.interp(lags, t, response, left=0.0, right=0.0), mean)


def _responses(onsets, durations, times, hrf: Hrf) -> np.ndarray:
    return _mean_over(times[:, None] - onsets, np.broadcast_to(durations, onsets.shape), hrf)


def _peak(duration: float, hrf: Hrf) -> float:
    lags = np.arange(0.0, HRF_LENGTH + duration + _STEP, _STEP)
    peak = float(_mean_over(lags, np.array(duration), hrf).max())
    if not (np.isfinite(peak) and peak > 0):
        raise ValueError(f"the HRF {hrf!r} has a peak of {peak}; it must rise above 0")
    return peak
