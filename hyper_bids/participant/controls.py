"""What stands beside the scores: random draws from the prior, ceilings, and signs of collapse.

None of it is fitted to anything, and none enters a p value of the scores. Definitions and sources:
``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hyper_bids import stats
from hyper_bids.participant.pairs import (
    IMAGE_FORMS,
    LATENT_FORMS,
    PAIRED_FORMS,
    Pairs,
    similarity,
)

# Latents whose mean is this near to 0, and spread to 1, are taken for draws from N(0, I).
_NEAR = 0.1
# Halves of the repeats that are drawn.
_N_SPLITS = 50

# Metrics that describe responses and predictions; no scores.
DIAGNOSTICS = (
    "response_reliability",
    "prediction_reliability",
    "prediction_variance",
    "effective_dimension",
    "nearest_training",
)


def draw_prior(training: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw latents from the distribution of the stimuli's.

    Parameters
    ----------
    training : array of shape (n_training, n_latents)
        Latents of the training trials.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (n, n_latents)
        Of N(0, I), as in the paper, if the training latents look like it; else normal in each
        dimension, with the training latents' mean and standard deviation.
    """
    drawn = rng.standard_normal((n, training.shape[1]))
    if abs(training.mean()) < _NEAR and abs(training.std() - 1) < _NEAR:
        return drawn.astype(np.float32)
    return (training.mean(axis=0) + drawn * training.std(axis=0)).astype(np.float32)


def prior_rows(
    data: dict, pictures: dict | None, pairs: Pairs, n: int, rng: np.random.Generator
) -> list[dict]:
    """Return the rows of the paper's permutation test, whose p does not test for information.

    Parameters
    ----------
    data, pictures : dict
        Of the method; ``pictures["prior"]`` has images of random latents, where there are any.
    pairs : Pairs
        Of the predictions.
    n : int
        Random latents.
    rng : numpy.random.Generator

    Returns
    -------
    list of dict
        One row a score, control ``random_prior``: the mean of the random draws, and the p of the
        paper's test (Dado et al. 2022), (b + 1) / (n + 1).
    """
    targets = data["targets"].astype(float)
    drawn = draw_prior(data["training_latents"], n, rng).astype(float)
    found = {key: form(drawn, targets) for key, form in LATENT_FORMS.items()}
    if pictures is not None and len(pictures.get("prior", ())):
        found |= {
            key: form(pictures["prior"], pictures["stimuli"], 1)
            for key, form in IMAGE_FORMS.items()
            # Thousands of pairs at that size take minutes.
            if key in pairs and key != ("structural_similarity", "MindEye2")
        }
    rows = []
    for (metric, variant), matrix in found.items():
        null = stats.prior_null(matrix)
        observed = float(np.diagonal(pairs[metric, variant][0]).mean())
        rows.append(
            {
                "metric": metric, "variant": variant, "control": "random_prior",
                "value": float(null.mean()), "p": stats.p_value(observed, null),
                "n": len(targets),
            }
        )  # fmt: skip
    return rows


def ceiling_rows(
    data: dict, pictures: dict | None, pairs: Pairs, ceilings: dict, rng: np.random.Generator
) -> list[dict]:
    """Return the rows of the ceilings: the image model's own, and that of the responses' noise.

    Parameters
    ----------
    data, pictures, pairs
        As for :func:`prior_rows`; ``pictures["model_ceiling"]`` has the images that the image model
        makes of the true latents.
    ceilings : dict
        Mean over the decoder's voxels: ``split_half``, ``leave_one_out``; empty without repeats,
        and of all methods but the first.
    rng : numpy.random.Generator
        For halves of the repeats.

    Returns
    -------
    list of dict
    """
    n = len(data["targets"])
    rows = []
    if pictures is not None and "model_ceiling" in pictures:
        for (metric, variant), form in IMAGE_FORMS.items():
            if (metric, variant) in pairs:
                found = PAIRED_FORMS.get((metric, variant), partial(_paired, form))
                best = float(np.mean(found(pictures["model_ceiling"], pictures["stimuli"])))
                control = {"control": "model_ceiling", "value": best, "n": n}
                rows.append({"metric": metric, "variant": variant, **control})
    for variant, key in (("split-half", "split_half"), ("leave one out", "leave_one_out")):
        if ceilings:
            rows.append(_row("response_reliability", variant, ceilings[key], n))
    single, stimulus = data["single_predicted"], data["single_stimulus"]
    if len(single) > len(data["predicted"]):
        found = stats.split_half(single, stimulus, rng, _N_SPLITS)
        if np.isfinite(found.reliability).any():
            rows.append(_row("prediction_reliability", "split-half", _mean(found.reliability), n))
            ceiling = {"control": "noise_ceiling", "value": _mean(found.ceiling), "n": n}
            rows.append({"metric": "latent_correlation", "variant": "n/a", **ceiling})
    return rows


def collapse_rows(data: dict) -> list[dict]:
    """Return the rows that tell whether predictions are alike, or training latents said again.

    Control ``targets`` is the same of the true latents: their variance and dimension; and, of
    ``nearest_training``, how many of them are nearer to a training latent than to their prediction.
    """
    predicted, targets = data["predicted"].astype(float), data["targets"].astype(float)
    n = len(targets)
    spread = stats.spread(predicted, targets)
    training = np.unique(data["training_latents"].astype(float), axis=0)
    own = similarity(predicted, targets)
    nearest = stats.nearest_training(similarity(predicted, training), own)
    of_targets = stats.nearest_training(similarity(targets, training), own)
    rows = []
    for metric, value, control in (
        ("prediction_variance", spread.variance, spread.target_variance),
        ("effective_dimension", spread.dimension, spread.target_dimension),
        ("nearest_training", nearest.nearer, of_targets.nearer),
    ):
        rows.append(_row(metric, "n/a", value, n))
        rows.append(_row(metric, "n/a", control, n) | {"control": "targets"})
    return rows


def response_ceilings(
    test: np.ndarray, stimulus: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """Return how well the decoder's voxels respond alike to repeats of the test stimuli.

    Parameters
    ----------
    test : array of shape (n_trials, n_voxels)
        Responses of the test trials, in order of presentation.
    stimulus : int array of shape (n_trials,)
    rng : numpy.random.Generator
        For halves of the repeats.

    Returns
    -------
    dict
        ``split_half`` (of the mean over repeats, by Spearman and Brown) and ``leave_one_out``,
        means over voxels; empty without repeats.
    """
    if (np.bincount(stimulus) >= 2).sum() < 3:
        return {}
    found = stats.split_half(test, stimulus, rng, _N_SPLITS)
    single = stats.leave_one_repeat_out(test, stimulus)
    return {"split_half": _mean(found.reliability), "leave_one_out": _mean(single)}


def _paired(form: Callable, images: np.ndarray, stimuli: np.ndarray) -> list[float]:
    """Return a score of each image with its own stimulus."""
    return [
        form(one[None], other[None], 1)[0, 0] for one, other in zip(images, stimuli, strict=True)
    ]


def _row(metric: str, variant: str, value: float, n: int) -> dict:
    return {"metric": metric, "variant": variant, "control": None, "value": value, "n": n}


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
