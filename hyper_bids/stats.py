"""Scores of pair matrices, permutation tests of the pairing, and intervals.

A pair matrix ``M[i, j]`` holds the quality of prediction i against target j, higher is better; a
score is the mean of its diagonal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Permuted or resampled indices held at a time (8 MiB).
_BLOCK = 2**20


def score(M: np.ndarray) -> dict:
    """Return the mean diagonal of a pair matrix with its standard error over stimuli.

    Parameters
    ----------
    M : array of shape (n_stimuli, n_stimuli)

    Returns
    -------
    dict
        ``value``; ``se``, standard deviation (n - 1) over the root of n, NaN for one stimulus; and
        ``n``, the number of stimuli.

    Raises
    ------
    ValueError
        If the matrix is not square, or empty.
    """
    diagonal = np.diagonal(_square(M))
    n = len(diagonal)
    se = float(diagonal.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return {"value": float(diagonal.mean()), "se": se, "n": n}


def mismatched(M: np.ndarray) -> float:
    """Return the mean of what is off the diagonal; NaN for one stimulus.

    Parameters
    ----------
    M : array of shape (n_stimuli, n_stimuli)
    """
    M = _square(M)
    n = len(M)
    return float(M[~np.eye(n, dtype=bool)].mean()) if n > 1 else np.nan


def pairing_null(M: np.ndarray, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Return the score under random pairings of predictions with targets.

    Parameters
    ----------
    M : array of shape (n_stimuli, n_stimuli)
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    array of shape (n_permutations,), float64
        The mean of ``M[i, perm(i)]``, permutations uniform (the identity may be among them).

    Raises
    ------
    ValueError
        If the matrix is not square or empty, or for less than one permutation.
    """
    M = _square(M)
    if n_permutations < 1:
        raise ValueError(f"{n_permutations} permutations; at least 1 is wanted")
    n = len(M)
    flat = np.ascontiguousarray(M).ravel()
    rows = n * np.arange(n)
    null = np.empty(n_permutations)
    step = max(1, _BLOCK // n)
    for start in range(0, n_permutations, step):
        part = null[start : start + step]
        columns = rng.permuted(np.tile(np.arange(n), (len(part), 1)), axis=1)
        columns += rows
        flat.take(columns).mean(axis=1, out=part)
    return null


def p_value(observed: float, null: np.ndarray, tolerance: float = 1e-6) -> float:
    """Return the one-sided p value (b + 1) / (n + 1) of a permutation test.

    Parameters
    ----------
    observed : float
    null : array of shape (n_permutations,)
    tolerance : float
        Null values that fall short of ``observed`` by less than this fraction of the larger of
        the two count as reaching it. The default covers rounding to float32, so that a score which
        does not depend on the pairing has p = 1.

    Returns
    -------
    float
        b is how many null values reach ``observed`` (Phipson and Smyth 2010); NaN if any number is
        NaN.

    Raises
    ------
    ValueError
        If the null is empty.
    """
    null = np.asarray(null, np.float64)
    if null.ndim != 1 or not len(null):
        raise ValueError(f"null of shape {null.shape}; (n_permutations,) is wanted")
    if np.isnan(observed) or np.isnan(null).any():
        return np.nan
    slack = tolerance * np.maximum(abs(observed), np.abs(null))
    reached = np.count_nonzero(null >= observed - slack)
    return (reached + 1) / (len(null) + 1)


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and its t interval.

    Parameters
    ----------
    values : array of shape (n,)
    level : float, between 0 and 1

    Returns
    -------
    mean, low, high : float
        The bounds are NaN for less than two values.
    """
    values = _vector(values)
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return mean, np.nan, np.nan
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, n: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean and its bootstrap percentile interval.

    Parameters
    ----------
    values : array of shape (n_values,)
    rng : numpy.random.Generator
    n : int
        Resamples.
    level : float, between 0 and 1

    Returns
    -------
    mean, low, high : float
        The bounds are NaN for less than two values, and where a value is NaN. Percentile intervals
        of few values are somewhat too narrow: about 93 % at 36 values for a level of 95 %.
    """
    values = _vector(values)
    mean = float(values.mean())
    if len(values) < 2 or np.isnan(mean):
        return mean, np.nan, np.nan
    means = np.empty(n)
    step = max(1, _BLOCK // len(values))
    for start in range(0, n, step):
        part = means[start : start + step]
        drawn = rng.integers(0, len(values), (len(part), len(values)))
        values.take(drawn).mean(axis=1, out=part)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    n_values: int,
    rng: np.random.Generator,
    n: int = 2000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return the bootstrap standard error and percentile interval of what is no mean over stimuli.

    Parameters
    ----------
    statistic : callable
        Computes it from the indices of a resample, an int array of shape (n_values,).
    n_values : int
        Number of stimuli.
    rng : numpy.random.Generator
    n : int
        Resamples.
    level : float, between 0 and 1

    Returns
    -------
    se, low, high : float
        NaN for less than two stimuli; resamples in which the statistic is undefined do not count.
    """
    if n_values < 2:
        return np.nan, np.nan, np.nan
    found = np.array([statistic(rng.integers(0, n_values, n_values)) for _ in range(n)])
    if np.isnan(found).all():
        return np.nan, np.nan, np.nan
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(np.nanstd(found, ddof=1)), float(low), float(high)


def _square(M: np.ndarray) -> np.ndarray:
    M = np.asarray(M, np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not len(M):
        raise ValueError(f"pair matrix of shape {M.shape}; (n_stimuli, n_stimuli) is wanted")
    return M


def _vector(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values of shape {values.shape}; (n,) with n of at least 1 is wanted")
    return values
