"""Pair matrices of every score of predicted latents, beside those of the training mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hyper_bids.metrics.identification import (
    CANDIDATES,
    one_of_n,
    retrieval_expected,
    top_k,
    two_way,
)
from hyper_bids.metrics.latents import (
    correlation_similarity,
    latent_correlation,
    latent_cosine,
    latent_similarity,
)

# (metric, variant) to the matrix of the predictions and that of the training-mean prediction.
Pairs = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]

# Similarities of latents, of (predicted, targets).
LATENT_FORMS: dict[tuple[str, str], Callable] = {
    ("latent_similarity", "code"): partial(latent_similarity, variant="code"),
    ("latent_similarity", "printed"): partial(latent_similarity, variant="printed"),
    ("latent_cosine", "n/a"): latent_cosine,
}

IDENTIFICATION: dict[str, Callable] = {
    "two_way_identification": two_way,
    "one_of_n_identification": one_of_n,
    "top_5_identification": partial(top_k, k=5),
}


def _brain_retrieval(similarity: np.ndarray) -> np.ndarray:
    return retrieval_expected(similarity.T).T


# As MindEye2 has it, in expectation over its draws of 300 candidates.
RETRIEVAL: dict[str, Callable] = {
    "image_retrieval": retrieval_expected,
    "brain_retrieval": _brain_retrieval,
}
# Scores that count hits, of which there is an exact interval.
_HITS = ("one_of_n_identification", "top_5_identification", "brain_retrieval")
# What identification of single trials goes by.
SINGLE = "latents, single trials"


def predicted_pairs(predicted: np.ndarray, targets: np.ndarray, mean: np.ndarray) -> Pairs:
    """Return each latent score's pair matrix, and that of a prediction that is always the mean.

    Parameters
    ----------
    predicted, targets : array of shape (n_stimuli, n_latents), float64
    mean : array of shape (n_latents,)
        Of the training latents.

    Returns
    -------
    dict
        (metric, variant) to the matrix ``M[i, j]`` = quality of prediction i against target j, and
        the same of a decoder that knows the mean training latent only.
    """
    constant = np.tile(mean, (len(targets), 1))
    # A decoder that always says the same has nothing to tell apart: its identification rests on
    # ties alone, and its correlation over stimuli is nought.
    forms = {**LATENT_FORMS, ("latent_correlation", "n/a"): latent_correlation}
    pairs = {
        key: (form(predicted, targets), form(constant, targets)) for key, form in forms.items()
    }
    ties = similarity(constant, targets)
    return pairs | identified("latents", similarity(predicted, targets), ties)


def identified(variant: str, matrix: np.ndarray, constant: np.ndarray) -> Pairs:
    """Return identification and retrieval by a similarity, and those of the constant."""
    forms = identifications(matrix.shape[1]) | RETRIEVAL
    if matrix.shape[1] <= CANDIDATES:
        del forms["image_retrieval"]  # it is one-of-n identification
    return {(name, variant): (form(matrix), form(constant)) for name, form in forms.items()}


def identifications(n_stimuli: int) -> dict[str, Callable]:
    """Return the forms that say something: the best 5 of few stimuli are nearly all."""
    few = n_stimuli < 10
    return {k: form for k, form in IDENTIFICATION.items() if not (few and k.startswith("top_5"))}


def chance(metric: str, n_stimuli: int) -> float | None:
    """Return what guessing gives, where theory says."""
    known = {
        "two_way_identification": 0.5,
        "one_of_n_identification": 1 / n_stimuli,
        "top_5_identification": 5 / n_stimuli,
    }
    known |= dict.fromkeys(RETRIEVAL, 1 / min(n_stimuli, CANDIDATES))
    return known.get(metric)


def counts_hits(metric: str, variant: str, n_stimuli: int) -> bool:
    """Say whether a score is a share of hits with a stimulus as a trial; ties share their hit.

    Single trials of one stimulus are no independent trials, and among more stimuli than there are
    candidates, retrieval is a mean over draws.
    """
    among_all = metric not in RETRIEVAL or n_stimuli <= CANDIDATES
    return metric in _HITS and variant != SINGLE and among_all


def similarity(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity that identification goes by; equal for all where nothing varies."""
    return told_apart(predicted, correlation_similarity(predicted, targets))


def told_apart(predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return similarities of predictions; equal for all where nothing varies."""
    constant = len(predicted) > 1 and np.ptp(predicted, axis=0).max() == 0
    return np.zeros_like(values) if constant else values
