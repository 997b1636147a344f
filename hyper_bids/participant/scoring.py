"""Stage 4: scores beside their controls, permutation tests, and the participant's page."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from hyper_bids import figures, metrics, stats
from hyper_bids.bids.outputs import Fragment, figures_of
from hyper_bids.participant.decoding import generator_for
from hyper_bids.participant.pairs import image_pairs, latent_pairs, resampled
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import methods_text

LOG = logging.getLogger("hyper_bids")

METHOD = "hyper"

SUMMARY_COLUMNS = {
    "method": "Image model's method: hyper decodes the stimuli's known latents",
    "metric": "Name of the score; higher is better",
    "variant": "Form of the score, or what it is computed on",
    "control": "n/a: the score itself; training_mean: every test stimulus is predicted as the mean "
    "of the training latents; mismatched: predictions against other stimuli; chance: by theory",
    "value": "Mean over the test stimuli",
    "se": "Standard error over the test stimuli; of latent_correlation by bootstrap",
    "ci_low": "Lower end of the 95 % bootstrap interval over test stimuli",
    "ci_high": "Upper end of that interval",
    "p": "Permutation p, (b + 1) / (n + 1), test stimuli shuffled against predictions",
    "n": "Number of test stimuli",
}


def score(
    job: dict,
    folder: Path,
    motion: Path | None,
    responses: Path,
    decoding: Path,
    images: Path | None,
) -> str:
    """Score the predictions, test them against shuffled pairs, and write tables and page.

    Parameters
    ----------
    job : dict
        ``scores`` (settings), ``random_seed``, ``n_threads``, ``page`` (title, facts, notes,
        settings, design), ``entities``, ``provenance``.
    folder, motion, responses, decoding, images : path
        Where this stage writes, and where stages 0 to 3 wrote (no motion: the BOLD was taken as
        it is; no images: latents only).

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    index = json.loads((decoding / "internal" / "test_stimuli.json").read_text(encoding="utf-8"))
    data = dict(np.load(decoding / "internal" / "prediction.npz"))
    pairs = latent_pairs(data)
    pictures = dict(np.load(images / "internal" / "images.npz")) if images else None
    if pictures:
        pairs |= image_pairs(pictures, job["n_threads"])
    rng = generator_for(job["random_seed"], job["entities"]["subject"], "scores")
    rows, nulls = summarise(pairs, resampled(data), job["scores"]["n_permutations"], rng)
    _write(fragment, rows, nulls, pairs, index)
    _draw(fragment, data, pairs, nulls, rows)
    _page(fragment, job, rows, (motion, responses, decoding, images))
    best = next(r for r in rows if r["metric"] == "two_way_identification" and r["control"] is None)
    LOG.info(
        "sub-%s: two-way identification %.3f (p = %.2g)",
        job["entities"]["subject"], best["value"], best["p"],
    )  # fmt: skip
    return fragment.close()


def summarise(
    pairs: dict, resampled: dict, n_permutations: int, rng: np.random.Generator
) -> tuple[list[dict], dict[tuple[str, str], np.ndarray]]:
    """Return the summary rows, and each score's null distribution under shuffled pairs."""
    rows, nulls = [], {}
    for (metric, variant), (matrix, constant) in pairs.items():
        found = stats.score(matrix)
        null = stats.pairing_null(matrix, n_permutations, rng)
        nulls[metric, variant] = null
        if (metric, variant) in resampled:
            statistic = resampled[metric, variant]
            found["se"], low, high = stats.bootstrap_statistic(statistic, len(matrix), rng)
        else:
            _, low, high = stats.bootstrap_interval(np.diag(matrix), rng)
        base = {"method": METHOD, "metric": metric, "variant": variant, "n": found["n"]}
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
    # Until a feature network is given there is no such score, and nothing stands in for it.
    rows += [
        {"method": METHOD, "metric": "feature_similarity", "variant": v, "control": None}
        for v in ("code", "printed")
    ]
    return rows, nulls


def _write(fragment: Fragment, rows, nulls, pairs, index: dict) -> None:
    import pandas as pd

    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    summary["n"] = summary["n"].astype("Int64")
    fragment.table("summary_metrics", summary, SUMMARY_COLUMNS)
    table = pd.DataFrame({k: index[k] for k in ("stim_id", "n_presentations")})
    columns = {
        "stim_id": "Key of the stimulus in stimuli/latents.tsv",
        "n_presentations": "Presentations that were averaged",
    }
    for (metric, variant), (matrix, _) in pairs.items():
        name = metric if variant == "n/a" else f"{metric} ({variant})"
        table[name] = np.diag(matrix)
        columns[name] = "Score of this stimulus; the summary has the mean and the controls"
    fragment.table("perstim_metrics", table, columns)
    with fragment.file(
        "null_metrics", "Null distributions of the scores: row k is score k of the list, a column "
        "one shuffling of the test stimuli against the predictions.",
        Scores=[list(key) for key in nulls], DataType="float32",
    ) as path:  # fmt: skip
        np.save(path, np.stack(list(nulls.values())).astype(np.float32))


def _draw(fragment: Fragment, data, pairs, nulls, rows) -> None:
    key = ("two_way_identification", "latents")
    found = {r["control"]: r for r in rows if (r["metric"], r["variant"]) == key and "value" in r}
    figures.save(
        figures.null_histogram(
            nulls[key], found[None]["value"], {"chance": 0.5}, "two-way identification",
            found[None]["p"],
        ),
        fragment.figure("null"),
    )  # fmt: skip
    matrix = metrics.correlation_similarity(data["predicted"], data["targets"])
    figures.save(
        figures.pair_matrix(matrix, "Predictions against stimuli", "correlation of latents"),
        fragment.figure("pairs"),
    )
    r = metrics.per_dimension_correlation(data["predicted"], data["targets"])
    figures.save(figures.dimension_correlations(r), fragment.figure("dimensions"))


def _page(fragment: Fragment, job: dict, rows, stages: tuple[Path | None, ...]) -> None:
    import pandas as pd

    _, responses, decoding, _ = stages
    drawn = {}
    for stage in filter(None, stages):
        drawn |= figures_of(stage)
    drawn |= fragment.figures
    page = job["page"]
    model = json.loads((responses / "internal" / "model.json").read_text(encoding="utf-8"))
    methods = methods_text(page["settings"], page["design"] | {"model": model})
    decoder = json.loads((decoding / "internal" / "decoder.json").read_text(encoding="utf-8"))
    facts = [*page["facts"], ["Model of the BOLD", model["described"]]]
    facts.append(["Voxels of the decoder", str(decoder["n_voxels"])])
    if "alpha" in decoder and np.isscalar(decoder["alpha"]):
        facts.append(["Ridge penalty", f"{decoder['alpha']:.4g}"])
    write_report(
        fragment.page(),
        "participant",
        page["title"],
        [tuple(fact) for fact in facts],
        {name: str(path) for name, path in drawn.items()},
        {"scores": pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))},
        page["notes"],
        About(page["simulated"], methods, job["provenance"]),
    )
