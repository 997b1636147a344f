"""Comparison of two methods on the same stimuli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyper_bids.stats.intervals import GroupMean, group_interval
from hyper_bids.stats.pairing import p_value

# Random numbers held at a time.
_BLOCK = 2**20


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two methods is.

    Attributes
    ----------
    difference : GroupMean
        Mean difference with standard error and interval.
    p : float
        Two-sided, of the sign-flip test.
    """

    difference: GroupMean
    p: float


def sign_flip_null(
    differences: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return mean differences under random signs: if the methods are alike, either could be first.

    Parameters
    ----------
    differences : array of shape (n,)
        First less second, of a stimulus or a participant.
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    array of shape (n_permutations,), float64
        Of so few differences that there are no more sign patterns than permutations, each pattern
        other than the observed one, once: 2^n - 1 values, an exact test.

    Raises
    ------
    ValueError
        If there is no difference, or for less than one permutation.
    """
    differences = np.asarray(differences, np.float64)
    n = len(differences)
    if differences.ndim != 1 or not n or n_permutations < 1:
        raise ValueError(
            f"differences of shape {differences.shape} and {n_permutations} permutations; (n,) and "
            "at least 1 are wanted"
        )
    if n < 63 and 2**n - 1 <= n_permutations:
        patterns = np.arange(1, 2**n)
        flipped = (patterns[:, None] >> np.arange(n)) & 1
        return (1 - 2 * flipped) @ differences / n
    null = np.empty(n_permutations)
    step = max(1, _BLOCK // n)
    for start in range(0, n_permutations, step):
        part = null[start : start + step]
        signs = 1 - 2 * rng.integers(0, 2, (len(part), n), np.int8)
        part[:] = signs @ differences / n
    return null


def paired_comparison(
    first: np.ndarray,
    second: np.ndarray,
    rng: np.random.Generator,
    n_permutations: int = 9999,
    level: float = 0.95,
) -> Comparison:
    """Compare two methods by their scores of the same participants and stimuli.

    Parameters
    ----------
    first, second : array of shape (n_participants, n_stimuli)
        NaN where a participant did not see a stimulus.
    rng : numpy.random.Generator
    n_permutations : int
    level : float, between 0 and 1
        Of the interval, see :func:`group_interval`.

    Returns
    -------
    Comparison
        Signs are flipped of what the interval generalises over: from 6 participants on of their
        mean differences; of fewer, of the stimuli's, each averaged over participants. A stimulus
        among few is also others' distractor in identification, so that its differences are nearly,
        not wholly, independent.

    Raises
    ------
    ValueError
        If the shapes differ, one method lacks a score that the other has, or no score is there.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"scores of shapes {first.shape} and {second.shape}; one shape is wanted")
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        raise ValueError("scores of one method are missing where the other's are not")
    differences = first - second
    found = group_interval(differences, rng, level=level)
    axis = 0 if found.over == "stimuli" else 1
    units = np.nanmean(differences, axis=axis)
    null = sign_flip_null(units, n_permutations, rng)
    return Comparison(found, p_value(abs(float(units.mean())), np.abs(null)))
