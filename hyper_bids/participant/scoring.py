"""Stage 4: scores beside their controls, permutation tests, and the participant's page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hyper_bids import figures, metrics, stats
from hyper_bids.attributes import Directions
from hyper_bids.bids.outputs import Fragment, figures_of
from hyper_bids.participant.attribute_pairs import (
    METRIC,
    AttributeScores,
    attribute_columns,
    attribute_pairs,
    attribute_scores,
)
from hyper_bids.participant.comparisons import directions_of, provenance
from hyper_bids.participant.decoding import generator_for
from hyper_bids.participant.features import Network, feature_pairs
from hyper_bids.participant.methods import HYPER
from hyper_bids.participant.pairs import Columns, Pairs, columns, image_pairs, latent_pairs
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import methods_text

LOG = logging.getLogger("hyper_bids")

SUMMARY_COLUMNS = {
    "method": "hyper decodes the stimuli's known latents, a baseline its encoding of their images; "
    "latents differ between methods, so that only scores of images compare them",
    "metric": "Name of the score; higher is better",
    "variant": "Form of the score, or what it is computed on",
    "control": "n/a: the score itself; training_mean: every test stimulus is predicted as the mean "
    "of the training latents; mismatched: predictions against other stimuli; chance: by theory",
    "value": "Mean over the test stimuli",
    "se": "Standard error over the test stimuli; of correlations by bootstrap",
    "ci_low": "Lower end of the 95 % bootstrap interval over test stimuli",
    "ci_high": "Upper end of that interval",
    "p": "Permutation p, (b + 1) / (n + 1), test stimuli shuffled against predictions",
    "n": "Number of test stimuli",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """One method's scores.

    Attributes
    ----------
    name, label : str
        As in the tables, and as people read it.
    data : dict
        ``predicted``, ``targets``, ``training_latents``, ``single_predicted``.
    pictures : dict or None
        ``reconstructions``, ``stimuli``, ``training_mean``.
    pairs : Pairs
    rows : list of dict
        Of the summary.
    nulls : dict
        (metric, variant) to the null distribution.
    directions : Directions or None
        Of attributes among the method's latents.
    attributes : AttributeScores or None
        Along these directions.
    """

    name: str
    label: str
    data: dict
    pictures: dict | None
    pairs: Pairs
    rows: list[dict]
    nulls: dict[tuple[str, str], np.ndarray]
    directions: Directions | None
    attributes: AttributeScores | None

    def value(self, metric: str, variant: str, control: str | None = None) -> dict:
        """Return a row of the summary."""
        key = (metric, variant, control)
        return next(r for r in self.rows if (r["metric"], r["variant"], r["control"]) == key)


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
    said = provenance(job, {one.name: one.directions for one in scored})
    _write(fragment, scored, index, said)
    _draw(fragment, scored, index)
    # Of a figure that each method has, the first method's is shown.
    drawn = figures_of_stages([responses, motion, *results.values()])
    _page(fragment, job, scored, drawn, responses, first)
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
) -> Scored:
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
        # Each part draws by itself: which networks are installed does not touch the other p values.
        rng = generator_for(job["random_seed"], job["entities"]["subject"], f"{stage}{part}")
        found = summarise(pairs, correlated, job["scores"]["n_permutations"], rng)
        rows, nulls = rows + found[0], nulls | found[1]
    if not parts.get("/features"):
        # Without a feature network there is no such score, and nothing stands in for it.
        absent = {"metric": "feature_similarity", "control": None}
        rows += [absent | {"variant": form} for form in ("code", "printed")]
    rows = [{"method": name, **row} for row in rows]
    pairs = {key: both for part in parts.values() for key, both in part.items()}
    return Scored(name, label, data, pictures, pairs, rows, nulls, directions, attributes)


def figures_of_stages(folders: list[Path | None]) -> dict[str, str]:
    """Return the stages' figures, name to path; of those of one name the first."""
    drawn: dict[str, str] = {}
    for folder in filter(None, folders):
        drawn = {name: str(path) for name, path in figures_of(folder).items()} | drawn
    return drawn


def summarise(
    pairs: Pairs, correlated: Columns, n_permutations: int, rng: np.random.Generator
) -> tuple[list[dict], dict[tuple[str, str], np.ndarray]]:
    """Return the summary rows, and each score's null distribution under shuffled pairs."""
    rows, nulls = [], {}
    for (metric, variant), (matrix, constant) in pairs.items():
        found = stats.score(matrix)
        null = stats.pairing_null(matrix, n_permutations, rng)
        nulls[metric, variant] = null
        if (metric, variant) in correlated:
            held = correlated[metric, variant]
            found["se"], low, high = stats.bootstrap_correlation(*held, rng)
        else:
            _, low, high = stats.bootstrap_interval(np.diag(matrix), rng)
        base = {"metric": metric, "variant": variant, "n": found["n"]}
        rows.append(
            base
            | {
                "control": None,
                "value": found["value"],
                "se": found["se"],
                "ci_low": low,
                "ci_high": high,
                "p": stats.p_value(found["value"], null),
            }
        )
        rows.append(base | {"control": "training_mean", "value": stats.score(constant)["value"]})
        rows.append(base | {"control": "mismatched", "value": stats.mismatched(matrix)})
        chance = {"two_way_identification": 0.5, "one_of_n_identification": 1 / len(matrix)}
        if metric in chance:
            rows.append(base | {"control": "chance", "value": chance[metric]})
    return rows, nulls


def _write(fragment: Fragment, scored: list[Scored], index: dict, said: dict) -> None:
    import pandas as pd

    rows = [row for one in scored for row in one.rows]
    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    summary["n"] = summary["n"].astype("Int64")
    fragment.table("summary_metrics", summary, SUMMARY_COLUMNS, **said)
    columns = {
        "method": "Method, as in the summary",
        "stim_id": "Key of the stimulus in stimuli/latents.tsv",
        "n_presentations": "Presentations that were averaged",
    }
    tables = []
    for one in scored:
        table = pd.DataFrame({k: index[k] for k in ("stim_id", "n_presentations")})
        table.insert(0, "method", one.name)
        for (metric, variant), (matrix, _) in one.pairs.items():
            name = metric if variant == "n/a" else f"{metric} ({variant})"
            table[name] = np.diag(matrix)
            columns[name] = "Score of this stimulus; the summary has the mean and the controls"
        tables.append(table)
    fragment.table("perstim_metrics", pd.concat(tables, ignore_index=True), columns)
    nulls = {(one.name, *key): null for one in scored for key, null in one.nulls.items()}
    with fragment.file(
        "null_metrics", "Null distributions of the scores: row k is score k of the list, a column "
        "one shuffling of the test stimuli against the predictions.",
        Scores=[list(key) for key in nulls], DataType="float32",
    ) as path:  # fmt: skip
        np.save(path, np.stack(list(nulls.values())).astype(np.float32))


def _draw(fragment: Fragment, scored: list[Scored], index: dict) -> None:
    """Draw the first method's scores, and the images of all."""
    first = scored[0]
    key = ("two_way_identification", "latents")
    found = first.value(*key)
    figures.save(
        figures.null_histogram(
            first.nulls[key], found["value"], {"chance": 0.5}, "two-way identification",
            found["p"],
        ),
        fragment.figure("null"),
    )  # fmt: skip
    data = first.data
    matrix = metrics.correlation_similarity(data["predicted"], data["targets"])
    figures.save(
        figures.pair_matrix(matrix, "Predictions against stimuli", "correlation of latents"),
        fragment.figure("pairs"),
    )
    r = metrics.per_dimension_correlation(data["predicted"], data["targets"])
    figures.save(figures.dimension_correlations(r), fragment.figure("dimensions"))
    found = next((one for one in scored if one.attributes), None)
    if found:
        rows = [found.value(METRIC, name) for name in found.attributes.names]
        figures.save(
            figures.attribute_scatter(
                found.attributes.true, found.attributes.predicted, found.attributes.names,
                [row["value"] for row in rows], [row["p"] for row in rows],
            ),
            fragment.figure("attributes"),
        )  # fmt: skip
    drawn = [one for one in scored if one.pictures]
    if len(drawn) > 1:
        rows = {"shown": drawn[0].pictures["stimuli"]}
        rows |= {one.label: one.pictures["reconstructions"] for one in drawn}
        figures.save(figures.method_grid(rows, index["stim_id"]), fragment.figure("comparison"))


def _page(
    fragment: Fragment, job: dict, scored: list[Scored], drawn: dict, responses: Path, first: Path
) -> None:
    import pandas as pd

    page = job["page"]
    model = json.loads((responses / "internal" / "model.json").read_text(encoding="utf-8"))
    networks = [n["label"] for n in job["networks"]]
    found = any(one.directions for one in scored)
    source = "boundaries" if job["boundaries"] else "labels"
    used = {"networks": networks, "attributes": source if found else None}
    methods = methods_text(page["settings"], page["design"] | {"model": model} | used)
    decoder = json.loads((first / "internal" / "decoder.json").read_text(encoding="utf-8"))
    facts = [*page["facts"], ["Model of the BOLD", model["described"]]]
    facts.append(["Voxels of the decoder", str(decoder["n_voxels"])])
    if "alpha" in decoder and np.isscalar(decoder["alpha"]):
        facts.append(["Ridge penalty", f"{decoder['alpha']:.4g}"])
    if networks:
        facts.append(["Feature networks", "; ".join(networks)])
    drawn = drawn | {name: str(path) for name, path in fragment.figures.items()}
    table = pd.DataFrame([row for one in scored for row in one.rows], columns=list(SUMMARY_COLUMNS))
    table["method"] = table["method"].map({one.name: one.label for one in scored})
    write_report(
        fragment.page(),
        "participant",
        page["title"],
        [tuple(fact) for fact in facts],
        drawn,
        {"scores": table},
        page["notes"],
        About(page["simulated"], methods, job["provenance"]),
    )
