"""Scores of pair matrices, and permutation tests of the pairing.

A pair matrix ``M[i, j]`` holds the quality of prediction i against target j, higher is better; a
score is the mean of its diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Permuted indices held at a time.
_BLOCK = 2**20
# Null values that fall short of a score by less than this fraction reach it: float32 rounding.
TOLERANCE = 1e-6


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
    return pairing_nulls([M], n_permutations, rng)[0]


def pairing_nulls(
    matrices: Sequence[np.ndarray], n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the scores of several pair matrices under the same random pairings.

    What :func:`max_statistic` needs: metrics of the same predictions go up and down together, and
    so must their nulls. Participants who saw the same stimuli in the same order share pairings too,
    by their matrices in one call, or by generators of one seed.

    Parameters
    ----------
    matrices : sequence of n_matrices arrays of shape (n_stimuli, n_stimuli)
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    array of shape (n_matrices, n_permutations), float64
        A matrix has the same null whatever others there are.

    Raises
    ------
    ValueError
        If there is no matrix, one is not square, they differ in shape, or for less than one
        permutation.
    """
    stack = [_square(M) for M in matrices]
    shapes = sorted({M.shape for M in stack})
    if len(shapes) != 1:
        raise ValueError(f"pair matrices of shapes {shapes}; one shape is wanted")
    if n_permutations < 1:
        raise ValueError(f"{n_permutations} permutations; at least 1 is wanted")
    n = len(stack[0])
    nulls = np.zeros((len(stack), n_permutations))
    step = max(1, _BLOCK // n)
    for start in range(0, n_permutations, step):
        part = nulls[:, start : start + step]
        for i, targets in _random_pairings(n, part.shape[1], rng):
            for k, M in enumerate(stack):
                part[k] += M[i].take(targets)
    nulls /= n
    return nulls


def _random_pairings(
    n: int, n_permutations: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each prediction with its target in every permutation (Fisher and Yates' shuffle)."""
    # The narrowest index type keeps the shuffle within the processor's cache.
    remaining = np.empty((n, n_permutations), np.min_scalar_type(n - 1))
    remaining[:] = np.arange(n)[:, None]
    flat = remaining.reshape(-1)
    columns = np.arange(n_permutations)
    for i in range(n - 1, 0, -1):
        place = rng.integers(0, i + 1, n_permutations)
        place *= n_permutations
        place += columns
        targets = flat.take(place)
        flat[place] = remaining[i]
        yield i, targets
    yield 0, remaining[0]


def p_value(observed: float, null: np.ndarray, tolerance: float = TOLERANCE) -> float:
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


def prior_null(similarity: np.ndarray) -> np.ndarray:
    """Return the null of the HYPER paper's permutation test, in which nothing is permuted.

    The paper draws 1000 latents at random from the distribution of the stimuli's, N(0, I), and
    compares their similarity to the targets with that of the predictions. It tests whether a
    prediction is nearer to the targets than a random latent is, which the mean of the distribution
    is for free: a constant prediction passes. :func:`pairing_null` tests information.

    Parameters
    ----------
    similarity : array of shape (n_random, n_stimuli)
        Of each random latent (or its image) with each target.

    Returns
    -------
    array of shape (n_random,), float64
        Each random latent's mean over targets, for :func:`p_value` of the predictions' mean.

    Raises
    ------
    ValueError
        If the similarity is not a matrix, or empty.
    """
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise ValueError(f"similarity of shape {similarity.shape}; (n_random, n_stimuli) is wanted")
    return similarity.mean(axis=1)


def _square(M: np.ndarray) -> np.ndarray:
    M = np.asarray(M, np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not len(M):
        raise ValueError(f"pair matrix of shape {M.shape}; (n_stimuli, n_stimuli) is wanted")
    return M
