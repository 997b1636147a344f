"""Pair matrices of every score: of the predictions, and of a decoder that knows the mean only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hyper_bids import metrics
from hyper_bids.metrics.predictions import (
    LATENT_FORMS,
    SINGLE,
    Pairs,
    chance,
    counts_hits,
    identifications,
    identified,
    predicted_pairs,
    similarity,
)

__all__ = [
    "IMAGE_FORMS",
    "LATENT_FORMS",
    "PAIRED_FORMS",
    "Columns",
    "Pairs",
    "chance",
    "columns",
    "identified",
]
__all__ += ["counts_hits", "image_pairs", "latent_pairs", "similarity"]

# (metric, variant) to the columns of predictions and targets whose correlation over stimuli it is.
Columns = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


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
# The same of each image with its own stimulus, where that is quicker than all pairs.
PAIRED_FORMS: dict[tuple[str, str], Callable] = {
    ("structural_similarity", "reference"): metrics.structural_similarity_paired
}
# Pairs of images grow with the square of their number: of more stimuli, this one is left out.
_MOST = {("structural_similarity", "MindEye2"): 100}


def latent_pairs(data: dict) -> Pairs:
    """Return each latent score's pair matrix, and that of the training-mean prediction.

    Returns
    -------
    dict
        (metric, variant) to the matrix ``M[i, j]`` = quality of prediction i against target j,
        and the same of a decoder that knows the mean training latent only.
    """
    targets, predicted = data["targets"].astype(float), data["predicted"].astype(float)
    mean = data["training_latents"].mean(axis=0, dtype=float)
    pairs = predicted_pairs(predicted, targets, mean)
    single = data["single_predicted"].astype(float)
    if len(single) > len(predicted):
        stimulus = data["single_stimulus"]
        matrix = similarity(single, targets)
        ties = similarity(np.tile(mean, (len(targets), 1)), targets)
        for name, form in identifications(len(targets)).items():
            found = form(matrix)
            by_stimulus = np.stack([found[stimulus == s].mean(0) for s in range(len(targets))])
            pairs[name, SINGLE] = (by_stimulus, form(ties))
    return pairs


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
