"""Identification and retrieval from a similarity of every prediction with every target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Similarities in float64 that differ by less, relative to the largest of the row, are ties.
_TIE = 1e-12

# MindEye2's retrieval: this many draws of this many candidates.
DRAWS, CANDIDATES = 30, 300


def two_way(similarity: np.ndarray) -> np.ndarray:
    """Return for each pair the fraction of other targets that are less similar; a tie counts 1/2.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, 0 to 1
        ``M[i, j]``: fraction of k other than j with S[i, k] < S[i, j]. Its mean diagonal is the
        two-way identification accuracy, chance 0.5. NaN for one stimulus.
    """
    better, ties = _better_and_ties(similarity)
    n = better.shape[1]
    if n < 2:
        return np.full(better.shape, np.nan)
    # A tie is half a win: twice the targets below, and once those beside.
    return (2 * (n - better) - ties - 1) / (2 * (n - 1))


def one_of_n(similarity: np.ndarray) -> np.ndarray:
    """Return for each pair whether the target is the most similar one; m that tie get 1/m each.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64; rows sum to 1
        Its mean diagonal is the one-of-n identification accuracy, chance 1 / n_stimuli.
    """
    S, slack = _similarity(similarity)
    best = S.max(axis=1, keepdims=True) - S <= slack[:, None]
    return best / best.sum(axis=1, keepdims=True)


def top_k(similarity: np.ndarray, k: int) -> np.ndarray:
    """Return for each pair how likely the target is among the k most similar; ties fall at random.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)
    k : int, 1 to n_stimuli

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, 0 to 1; rows sum to k
        Its mean diagonal is the top-k accuracy of one-of-n identification, chance k / n_stimuli.
        ``k = 1`` is :func:`one_of_n`.

    Raises
    ------
    ValueError
        For a k outside 1 to n_stimuli, or a similarity that is not a finite matrix.
    """
    n = np.asarray(similarity).shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"k of {k}; 1 to {n}, the number of stimuli, is wanted")
    better, ties = _better_and_ties(similarity)
    return np.clip((k - better) / ties, 0, 1)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Retrieval accuracies of each draw of candidates.

    Attributes
    ----------
    image, brain : array of shape (n_draws,), float64, 0 to 1
        Fraction of predictions whose own image is the most similar candidate; and of images whose
        own prediction is.
    n_candidates : int
        In each draw; chance is 1 / n_candidates.
    """

    image: np.ndarray
    brain: np.ndarray
    n_candidates: int


def retrieval(
    similarity: np.ndarray,
    rng: np.random.Generator,
    n_draws: int = DRAWS,
    n_candidates: int = CANDIDATES,
) -> Retrieval:
    """Return retrieval accuracy in both directions, as MindEye2 has it (Scotti et al. 2024).

    In each draw, stimuli are chosen without replacement; within them, each prediction looks for its
    image, and each image for its prediction. MindEye2 goes by the cosine of CLIP embeddings.

    Parameters
    ----------
    similarity : array of shape (n_stimuli, n_stimuli)
        Row i, column j: prediction i with image j.
    rng : numpy.random.Generator
    n_draws, n_candidates : int
        Of fewer stimuli, all are candidates, and since all draws would be equal, one is made.

    Returns
    -------
    Retrieval
        Hits are shared among ties, so that a constant prediction scores chance.

    Raises
    ------
    ValueError
        If the similarity is not square, or not finite, or a number is below 1.
    """
    S, _ = _similarity(similarity)
    n = _paired(S)
    if min(n_draws, n_candidates) < 1:
        raise ValueError(f"{n_draws} draws of {n_candidates} candidates; at least 1 is wanted")
    if n <= n_candidates:
        n_draws, n_candidates = 1, n
    image, brain = np.empty((2, n_draws))
    for draw in range(n_draws):
        chosen = rng.choice(n, n_candidates, replace=False)
        among = S[np.ix_(chosen, chosen)]
        image[draw] = np.diagonal(one_of_n(among)).mean()
        brain[draw] = np.diagonal(one_of_n(among.T)).mean()
    return Retrieval(image, brain, n_candidates)


def retrieval_expected(similarity: np.ndarray, n_candidates: int = CANDIDATES) -> np.ndarray:
    """Return what :func:`retrieval` comes to over infinitely many draws, as a pair matrix.

    With b stimuli more similar than the target, a draw of c - 1 of the n - 1 others leaves them all
    out with probability C(n - 1 - b, c - 1) / C(n - 1, c - 1). No noise of the draws, and a matrix
    that the pairing test takes.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)
        Its transpose for the other direction.
    n_candidates : int

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, 0 to 1
        Of no more than n_candidates stimuli, :func:`one_of_n`.
    """
    from scipy.special import gammaln

    better, ties = _better_and_ties(similarity)
    n = better.shape[1]
    if n_candidates < 1:
        raise ValueError(f"{n_candidates} candidates; at least 1 is wanted")
    others = min(n_candidates, n) - 1
    ahead = np.arange(n)
    # Probability that none of those ahead is drawn; ln C(n - 1 - b, others) - ln C(n - 1, others).
    possible = ahead <= n - 1 - others
    left = np.where(possible, n - 1 - ahead, others)
    ln = gammaln(left + 1) - gammaln(left - others + 1) - gammaln(n) + gammaln(n - others)
    clear = np.where(possible, np.exp(ln), 0.0)
    # A target that ties with others stands at any place among them.
    below = np.concatenate([[0.0], np.cumsum(clear)])
    return (below[better + ties] - below[better]) / ties


def _better_and_ties(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each pair how many targets are more similar, and how many tie, itself included."""
    S, slack = _similarity(similarity)
    better, ties = np.empty((2, *S.shape), np.int64)
    for i, row in enumerate(S):
        ordered = np.sort(row)
        below = np.searchsorted(ordered, row - slack[i], "left")
        up_to = np.searchsorted(ordered, row + slack[i], "right")
        better[i], ties[i] = len(row) - up_to, up_to - below
    return better, ties


def _paired(S: np.ndarray) -> int:
    if S.shape[0] != S.shape[1]:
        raise ValueError(f"similarity of shape {S.shape}; a prediction a stimulus is wanted")
    return len(S)


def _similarity(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    S = np.asarray(similarity, np.float64)
    if S.ndim != 2 or 0 in S.shape or not np.isfinite(S).all():
        raise ValueError(f"similarity of shape {S.shape}; a finite matrix is wanted")
    return S, _TIE * np.abs(S).max(axis=1)
