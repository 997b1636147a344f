"""Pair matrices of every score: of the predictions, and of a decoder that knows the mean only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hyper_bids import metrics

# (metric, variant) to the matrix of the predictions and that of the training-mean prediction.
Pairs = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
# (metric, variant) to the columns of predictions and targets whose correlation over stimuli it is.
Columns = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]

# Similarities of latents, of (predicted, targets).
LATENT_FORMS: dict[tuple[str, str], Callable] = {
    ("latent_similarity", "code"): partial(metrics.latent_similarity, variant="code"),
    ("latent_similarity", "printed"): partial(metrics.latent_similarity, variant="printed"),
    ("latent_cosine", "n/a"): metrics.latent_cosine,
}


def _gaussian(images: np.ndarray, stimuli: np.ndarray, n_threads: int) -> np.ndarray:
    return metrics.structural_similarity_gaussian(images, stimuli, n_threads=n_threads)


# Similarities of images, of (images, stimuli, number of threads).
IMAGE_FORMS: dict[tuple[str, str], Callable] = {
    ("structural_similarity", "reference"): metrics.structural_similarity,
    ("structural_similarity", "MindEye2"): _gaussian,
    ("luminance_correlation", "n/a"): lambda a, b, _: metrics.luminance_correlation(a, b),
    ("pixel_correlation", "MindEye2"): lambda a, b, _: metrics.pixel_correlation(
        a, b, metrics.MINDEYE_SIDE
    ),
}
# Pairs of images grow with the square of their number: of more stimuli, this one is left out.
_MOST = {("structural_similarity", "MindEye2"): 100}

IDENTIFICATION: dict[str, Callable] = {
    "two_way_identification": metrics.two_way,
    "one_of_n_identification": metrics.one_of_n,
    "top_5_identification": partial(metrics.top_k, k=5),
}


def latent_pairs(data: dict) -> Pairs:
    """Return each latent score's pair matrix, and that of the training-mean prediction.

    Returns
    -------
    dict
        (metric, variant) to the matrix ``M[i, j]`` = quality of prediction i against target j,
        and the same of a decoder that knows the mean training latent only.
    """
    targets = data["targets"].astype(float)
    mean = data["training_latents"].mean(axis=0, dtype=float)
    constant = np.tile(mean, (len(targets), 1))
    # A decoder that always says the same has nothing to tell apart: its identification rests on
    # ties alone, and its correlation over stimuli is nought.
    predicted, single = data["predicted"].astype(float), data["single_predicted"].astype(float)
    forms = {**LATENT_FORMS, ("latent_correlation", "n/a"): metrics.latent_correlation}
    pairs = {
        key: (form(predicted, targets), form(constant, targets)) for key, form in forms.items()
    }
    ties = similarity(constant, targets)
    pairs |= identified("latents", similarity(predicted, targets), ties)
    if len(single) > len(predicted):
        stimulus = data["single_stimulus"]
        matrix = similarity(single, targets)
        for name, form in _identifications(len(targets)).items():
            found = form(matrix)
            by_stimulus = np.stack([found[stimulus == s].mean(0) for s in range(len(targets))])
            pairs[name, "latents, single trials"] = (by_stimulus, form(ties))
    return pairs


def identified(variant: str, matrix: np.ndarray, constant: np.ndarray) -> Pairs:
    """Return the identification scores that go by a similarity, and those of the constant."""
    forms = _identifications(matrix.shape[1])
    return {(name, variant): (form(matrix), form(constant)) for name, form in forms.items()}


def chance(metric: str, n_stimuli: int) -> float | None:
    """Return what guessing gives, where theory says."""
    known = {
        "two_way_identification": 0.5,
        "one_of_n_identification": 1 / n_stimuli,
        "top_5_identification": 5 / n_stimuli,
    }
    return known.get(metric)


def similarity(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity that identification goes by; equal for all where nothing varies."""
    values = metrics.correlation_similarity(predicted, targets)
    if len(predicted) > 1 and np.ptp(predicted, axis=0).max() == 0:
        return np.zeros_like(values)
    return values


def image_pairs(pictures: dict, n_threads: int) -> Pairs:
    """Return the pair matrices of the image scores."""
    stimuli = pictures["stimuli"]
    pairs: Pairs = {}
    for key, form in IMAGE_FORMS.items():
        if len(stimuli) <= _MOST.get(key, len(stimuli)):
            matrix = form(pictures["reconstructions"], stimuli, n_threads)
            # One picture against all: the row of a constant prediction, repeated.
            row = form(pictures["training_mean"], stimuli, n_threads)
            pairs[key] = (matrix, np.repeat(row, len(stimuli), axis=0))
    for variant, key in (
        ("images, SSIM", ("structural_similarity", "reference")),
        ("images, pixels", ("pixel_correlation", "MindEye2")),
    ):
        matrix = pairs[key][0]
        pairs |= identified(variant, matrix, np.zeros_like(matrix))
    return pairs


def columns(data: dict) -> Columns:
    """Return what is correlated over stimuli, in the scores that are no mean over stimuli."""
    return {("latent_correlation", "n/a"): (data["predicted"], data["targets"])}


def _identifications(n_stimuli: int) -> dict[str, Callable]:
    """Return the forms that say something: the best 5 of few stimuli are nearly all."""
    few = n_stimuli < 10
    return {k: form for k, form in IDENTIFICATION.items() if not (few and k.startswith("top_5"))}
