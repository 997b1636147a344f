"""Pair matrices of every score: of the predictions, and of a decoder that knows the mean only."""

from __future__ import annotations

import numpy as np

from hyper_bids import metrics

# (metric, variant) to the matrix of the predictions and that of the training-mean prediction.
Pairs = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
# (metric, variant) to the columns of predictions and targets whose correlation over stimuli it is.
Columns = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def latent_pairs(data: dict) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray | None]]:
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
    single = data["single_predicted"].astype(float)
    forms = {
        ("latent_similarity", "code"): lambda p: metrics.latent_similarity(p, targets, "code"),
        ("latent_similarity", "printed"): lambda p: metrics.latent_similarity(
            p, targets, "printed"
        ),
        ("latent_cosine", "n/a"): lambda p: metrics.latent_cosine(p, targets),
        ("latent_correlation", "n/a"): lambda p: metrics.latent_correlation(p, targets),
        ("two_way_identification", "latents"): lambda p: metrics.two_way(similarity(p, targets)),
        ("one_of_n_identification", "latents"): lambda p: metrics.one_of_n(similarity(p, targets)),
    }
    predicted = data["predicted"].astype(float)
    pairs = {key: (form(predicted), form(constant)) for key, form in forms.items()}
    if len(single) > len(predicted):
        stimulus = data["single_stimulus"]
        for name, form in (
            ("two_way_identification", metrics.two_way),
            ("one_of_n_identification", metrics.one_of_n),
        ):
            matrix = form(similarity(single, targets))
            by_stimulus = np.stack([matrix[stimulus == s].mean(0) for s in range(len(targets))])
            pairs[name, "latents, single trials"] = (
                by_stimulus,
                form(similarity(constant, targets)),
            )
    return pairs


def similarity(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity that identification goes by; equal for all where nothing varies."""
    values = metrics.correlation_similarity(predicted, targets)
    if len(predicted) > 1 and np.ptp(predicted, axis=0).max() == 0:
        return np.zeros_like(values)
    return values


def image_pairs(pictures: dict, n_threads: int) -> dict:
    """Return the pair matrices of the image scores."""
    stimuli = pictures["stimuli"]
    matrix = metrics.structural_similarity(pictures["reconstructions"], stimuli, n_threads)
    # One picture against all: the row of a constant prediction, repeated.
    row = metrics.structural_similarity(pictures["training_mean"], stimuli, n_threads)
    constant = np.repeat(row, len(stimuli), axis=0)
    ties = np.zeros_like(matrix)
    return {
        ("structural_similarity", "reference"): (matrix, constant),
        ("two_way_identification", "images, SSIM"): (
            metrics.two_way(matrix), metrics.two_way(ties)),
    }  # fmt: skip


def columns(data: dict) -> Columns:
    """Return what is correlated over stimuli, in the scores that are no mean over stimuli."""
    return {("latent_correlation", "n/a"): (data["predicted"], data["targets"])}
