"""Corrections of p values for many tests."""

from __future__ import annotations

from collections.abc import Iterable

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
    return max_statistic_of_parts([(observed, nulls)], tolerance)[0]


def max_statistic_of_parts(
    parts: Iterable[tuple[np.ndarray, np.ndarray]], tolerance: float = TOLERANCE
) -> list[np.ndarray]:
    """Return the same p values of tests that do not fit in memory at once, part by part.

    Of a part, only the largest standardised score of each permutation is kept.

    Parameters
    ----------
    parts : iterable of (observed, nulls)
        As of :func:`max_statistic`; the permutations are the same in all. Gone through once.
    tolerance : float

    Returns
    -------
    list of array of shape (n_tests,)
        Of each part, corrected for the tests of all.

    Raises
    ------
    ValueError
        As of :func:`max_statistic`, or if the numbers of permutations differ.
    """
    largest: np.ndarray | None = None
    needed = []
    for observed, nulls in parts:
        need, best = _standardised(observed, nulls, tolerance)
        if largest is not None and len(best) != len(largest):
            raise ValueError(f"{len(best)} permutations beside {len(largest)} of others")
        largest = best if largest is None else np.maximum(largest, best)
        needed.append(need)
    if largest is None:
        return []
    largest.sort()
    found = []
    for need in needed:
        reached = len(largest) - np.searchsorted(largest, need, "left")
        found.append(np.where(np.isnan(need), np.nan, (reached + 1) / (len(largest) + 1)))
    return found


def _standardised(
    observed: np.ndarray, nulls: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the largest score must reach for each test, and that of each permutation.

    Every permutation reaches -inf, that of a test whose score does not vary.
    """
    observed, nulls = np.asarray(observed, np.float64), np.asarray(nulls, np.float64)
    if observed.ndim != 1 or nulls.shape[:-1] != observed.shape or not nulls.size:
        raise ValueError(f"scores of shape {observed.shape} with nulls of shape {nulls.shape}")
    values = np.concatenate([observed[:, None], nulls], axis=1)
    size = np.abs(values).max(axis=1)
    needed = np.where(np.isnan(size), np.nan, -np.inf)
    varies = np.ptp(values, axis=1) > tolerance * size
    values, size = values[varies], size[varies]
    sd = values.std(axis=1)
    standard = (values - values.mean(axis=1, keepdims=True)) / sd[:, None]
    needed[varies] = standard[:, 0] - tolerance * size / sd
    return needed, standard[:, 1:].max(axis=0, initial=-np.inf)


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
