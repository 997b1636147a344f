"""Corrections of p values for many tests."""

from __future__ import annotations

import numpy as np

from hyper_bids.stats.pairing import TOLERANCE


def max_statistic(
    observed: np.ndarray, nulls: np.ndarray, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Return p values corrected for all tests at once, by each permutation's largest statistic.

    Controls the chance of one false positive or more among all tests, whatever their dependence
    (Westfall and Young 1993; Nichols and Holmes 2002). Scores of different scales are brought to
    one by mean and standard deviation of their null, the observed score counted in.

    Parameters
    ----------
    observed : array of shape (n_tests,)
        Of metrics, participants, methods: one family.
    nulls : array of shape (n_tests, n_permutations)
        Column k of all tests by the same permutations (:func:`pairing_nulls`).
    tolerance : float
        As in :func:`p_value`.

    Returns
    -------
    array of shape (n_tests,), float64
        (b + 1) / (n + 1), b being how many permutations' largest statistic reaches the test's own.
        1 where a score does not depend on the pairing; NaN where a number is NaN. Such tests have
        no part in the largest statistic.

    Raises
    ------
    ValueError
        If shapes disagree, or there is no test or no permutation.
    """
    observed, nulls = np.asarray(observed, np.float64), np.asarray(nulls, np.float64)
    if observed.ndim != 1 or nulls.shape[:-1] != observed.shape or not nulls.size:
        raise ValueError(f"scores of shape {observed.shape} with nulls of shape {nulls.shape}")
    values = np.concatenate([observed[:, None], nulls], axis=1)
    size = np.abs(values).max(axis=1)
    p = np.where(np.isnan(size), np.nan, 1.0)
    varies = np.ptp(values, axis=1) > tolerance * size
    if not varies.any():
        return p
    values, size = values[varies], size[varies]
    sd = values.std(axis=1)
    standard = (values - values.mean(axis=1, keepdims=True)) / sd[:, None]
    largest = np.sort(standard[:, 1:].max(axis=0))
    needed = standard[:, 0] - tolerance * size / sd
    reached = len(largest) - np.searchsorted(largest, needed, "left")
    p[varies] = (reached + 1) / (len(largest) + 1)
    return p


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Return p values adjusted so that those below q hold a fraction q of false ones at most.

    The step-up procedure of Benjamini and Hochberg (1995), for independent or positively dependent
    tests.

    Parameters
    ----------
    p : array of any shape, 0 to 1
        NaN is no test, and stays.

    Returns
    -------
    array of the same shape, float64

    Raises
    ------
    ValueError
        For values outside 0 to 1.
    """
    p = np.asarray(p, np.float64)
    tested = ~np.isnan(p)
    known = p[tested]
    if ((known < 0) | (known > 1)).any():
        raise ValueError(f"p values from {known.min():g} to {known.max():g}; 0 to 1 is wanted")
    order = np.argsort(known)[::-1]
    rank = len(known) - np.arange(len(known))
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum(np.minimum.accumulate(known[order] * len(known) / rank), 1)
    found = p.copy()
    found[tested] = adjusted
    return found
