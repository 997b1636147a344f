"""Stage 4: scores beside their controls, permutation tests, and the participant's page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hyper_bids import stats
from hyper_bids.bids.outputs import Fragment
from hyper_bids.participant import controls, presenting
from hyper_bids.participant.attribute_pairs import (
    attribute_columns,
    attribute_pairs,
    attribute_scores,
)
from hyper_bids.participant.comparisons import directions_of, provenance
from hyper_bids.participant.decoding import generator_for
from hyper_bids.participant.features import Network, absent_rows, distance_rows, feature_pairs
from hyper_bids.participant.methods import HYPER
from hyper_bids.participant.pairs import (
    Columns,
    Pairs,
    chance,
    columns,
    counts_hits,
    image_pairs,
    latent_pairs,
)
from hyper_bids.participant.refit import refit_rows

LOG = logging.getLogger("hyper_bids")


def score(
    job: dict, folder: Path, responses: Path, motion: Path | None = None, **results: Path
) -> str:
    """Score the predictions, test them against shuffled pairs, and write tables and page.

    Parameters
    ----------
    job : dict
        ``methods`` (name, label, suffix of its stages), ``scores`` (settings), ``random_seed``,
        ``networks``, ``boundaries``, ``labels``, ``labelled`` (see :mod:`comparisons`), ``device``,
        ``n_threads``, ``page`` (title, facts, notes, settings, design), ``entities``,
        ``provenance``.
    folder, responses, motion : path
        Where this stage writes, and where responses and motion are (no motion: the BOLD was taken
        as it is).
    **results : path
        ``decoding`` and ``images`` of each method, with its suffix; no images: latents only.

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    networks = [(n["short"], Network(**n).load(job["device"])) for n in job["networks"]]
    # Methods that show the same stimuli share what is known of them.
    by_features = partial(feature_pairs, networks, known={})
    scored = [
        score_method(
            job, (name, label), results[f"decoding{suffix}"], results.get(f"images{suffix}"),
            by_features,
        )
        for name, label, suffix in job["methods"]
    ]  # fmt: skip
    first = results[f"decoding{job['methods'][0][2]}"]
    index = json.loads((first / "internal" / "test_stimuli.json").read_text(encoding="utf-8"))
    _with_corrected(scored)
    said = provenance(job, {one.name: one.directions for one in scored})
    presenting.write(fragment, scored, index, said)
    presenting.draw(fragment, scored, index)
    # Of a figure that each method has, the first method's is shown.
    drawn = presenting.figures_of_stages([responses, motion, *results.values()])
    presenting.page(fragment, job, scored, drawn, responses, first)
    for one in scored:
        best = one.value("two_way_identification", "latents")
        LOG.info(
            "sub-%s: %s, two-way identification %.3f (p = %.2g)",
            job["entities"]["subject"], one.label, best["value"], best["p"],
        )  # fmt: skip
    return fragment.close()


def score_method(
    job: dict,
    method: tuple[str, str],
    decoding: Path,
    images: Path | None,
    by_features: Callable[[dict], Pairs],
) -> presenting.Scored:
    """Return the scores of one method, (name, label); they do not depend on which others are."""
    name, label = method
    data = dict(np.load(decoding / "internal" / "prediction.npz"))
    parts = {"": latent_pairs(data)}
    pictures = dict(np.load(images / "internal" / "images.npz")) if images else None
    if pictures:
        parts[""] |= image_pairs(pictures, job["n_threads"])
        parts["/features"] = by_features(pictures)
    correlated = columns(data)
    directions, attributes = directions_of(job, name, data["training_latents"]), None
    if directions:
        normalised = job["scores"]["attribute_scores"] == "normalised"
        attributes = attribute_scores(data, directions, normalised)
        parts["/attributes"] = attribute_pairs(attributes)
        correlated |= attribute_columns(attributes)
    stage = "scores" if name == HYPER else f"scores/{name}"
    rows, nulls = [], {}
    for part, pairs in parts.items():
        # Each part draws by itself: which networks are installed does not touch the other
        # intervals.
        rng = generator_for(job["random_seed"], job["entities"]["subject"], f"{stage}{part}")
        found = summarise(pairs, correlated, rng, _shuffled(job, len(data["targets"])))
        rows, nulls = rows + found[0], nulls | found[1]
    # Without its network there is no such score, and nothing stands in for it.
    rows += [*distance_rows(rows), *absent_rows(parts.get("/features", {}))]
    pairs = {key: both for part in parts.values() for key, both in part.items()}
    rows += refit_rows(decoding / "internal", rows)
    rows += _controls(job, data, pictures, pairs, decoding)
    rows = [{"method": name, **row} for row in rows]
    return presenting.Scored(
        name, label, data, pictures, pairs, rows, nulls, directions, attributes
    )


def _shuffled(job: dict, n_stimuli: int) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Return what gives pair matrices their nulls: the same pairings for all.

    Scores, methods and participants with as many stimuli share permutations, so that the largest
    of their scores has a null of its own (:func:`stats.max_statistic`).
    """
    n = job["scores"]["n_permutations"]

    def nulls(matrices: list[np.ndarray]) -> np.ndarray:
        rng = np.random.default_rng([job["random_seed"], n_stimuli])
        return stats.pairing_nulls(matrices, n, rng)

    return nulls


def _controls(job: dict, data: dict, pictures: dict | None, pairs: Pairs, decoding: Path) -> list:
    rng = generator_for(job["random_seed"], job["entities"]["subject"], "scores/prior")
    report = json.loads((decoding / "internal" / "decoder.json").read_text(encoding="utf-8"))
    return [
        *controls.prior_rows(data, pictures, pairs, job["scores"]["prior_samples"], rng),
        *controls.ceiling_rows(data, pictures, pairs, report.get("ceilings", {}), rng),
        *controls.collapse_rows(data),
    ]


def _with_corrected(scored: list[presenting.Scored]) -> None:
    """Add to each score its p over all scores of all methods."""
    keys = [(one, key) for one in scored for key in one.nulls]
    observed = np.array([one.value(*key)["value"] for one, key in keys])
    p = stats.max_statistic(observed, np.stack([one.nulls[key] for one, key in keys]))
    for (one, key), value in zip(keys, p, strict=True):
        one.value(*key)["p_max"] = float(value)


def _interval(
    metric: str, variant: str, matrix: np.ndarray, correlated: Columns, rng: np.random.Generator
) -> dict:
    """Return the interval of a score, and which kind it is; of correlations the error, too."""
    if (metric, variant) in correlated:
        se, low, high = stats.bootstrap_correlation(*correlated[metric, variant], rng)
        return {"se": se, "ci_low": low, "ci_high": high, "interval": "bootstrap"}
    if counts_hits(metric, variant, len(matrix)):
        low, high = stats.hits_interval(np.diag(matrix))
        return {"ci_low": low, "ci_high": high, "interval": "binomial"}
    _, low, high = stats.bootstrap_interval(np.diag(matrix), rng)
    return {"ci_low": low, "ci_high": high, "interval": "bootstrap"}


def summarise(
    pairs: Pairs,
    correlated: Columns,
    rng: np.random.Generator,
    shuffled: Callable[[list[np.ndarray]], np.ndarray],
) -> tuple[list[dict], dict[tuple[str, str], np.ndarray]]:
    """Return the summary rows, and each score's null distribution under shuffled pairs."""
    if not pairs:
        return [], {}
    drawn = shuffled([matrix for matrix, _ in pairs.values()])
    nulls = dict(zip(pairs, drawn, strict=True))
    rows = []
    for (metric, variant), (matrix, constant) in pairs.items():
        found = stats.score(matrix)
        base = {"metric": metric, "variant": variant, "n": found["n"]}
        found["p"] = stats.p_value(found["value"], nulls[metric, variant])
        found |= _interval(metric, variant, matrix, correlated, rng)
        rows.append(base | {"control": None, **found})
        rows.append(base | {"control": "training_mean", "value": stats.score(constant)["value"]})
        rows.append(base | {"control": "mismatched", "value": stats.mismatched(matrix)})
        guessed = chance(metric, len(matrix))
        if guessed is not None:
            rows.append(base | {"control": "chance", "value": guessed})
    return rows, nulls
