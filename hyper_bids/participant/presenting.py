"""The scores of a participant as tables, figures and page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import figures, metrics
from hyper_bids.attributes import Directions
from hyper_bids.bids.outputs import Fragment, figures_of
from hyper_bids.participant.attribute_pairs import METRIC, AttributeScores
from hyper_bids.participant.controls import DIAGNOSTICS
from hyper_bids.participant.pairs import Pairs
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import methods_text

SUMMARY_COLUMNS = {
    "method": "hyper decodes the stimuli's known latents, a baseline its encoding of their images; "
    "latents differ between methods, so that only scores of images compare them",
    "metric": "Name of the score; higher is better, but of correlation_distance",
    "variant": "Form of the score, or what it is computed on",
    "control": "n/a: the score itself; training_mean: every test stimulus is predicted as the mean "
    "of the training latents; mismatched: predictions against other stimuli; chance: by theory; "
    "refit: decoders fitted to shuffled training pairs; random_prior: random latents; "
    "model_ceiling: the image model's image of the true latents; "
    "noise_ceiling: the best that predictions of this reliability allow; targets: the true latents",
    "value": "Mean over the test stimuli",
    "se": "Standard error over the test stimuli; of correlations by bootstrap",
    "ci_low": "Lower end of the 95 % interval over test stimuli",
    "ci_high": "Upper end of that interval",
    "interval": "How it was computed. bootstrap: percentiles of resampled stimuli; binomial: the "
    "exact interval of Clopper and Pearson, of scores that count hits, a stimulus a trial",
    "p": "Permutation p, (b + 1) / (n + 1), test stimuli shuffled against predictions; of "
    "random_prior the paper's test, which a constant prediction passes",
    "p_max": "The same, corrected for all scores of the table (max-statistic)",
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


def figures_of_stages(folders: list[Path | None]) -> dict[str, bytes]:
    """Return the stages' figures, name to PNG; of those of one name the first."""
    drawn: dict[str, bytes] = {}
    for folder in filter(None, folders):
        drawn = figures_of(folder) | drawn
    return drawn


def write(fragment: Fragment, scored: list[Scored], index: dict, said: dict) -> None:
    """Write the tables of scores and the null distributions; ``said`` goes into the sidecar."""
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


def draw(fragment: Fragment, scored: list[Scored], index: dict) -> None:
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


def page(
    fragment: Fragment, job: dict, scored: list[Scored], drawn: dict, responses: Path, first: Path
) -> None:
    """Write the participant's page, with the figures ``drawn`` so far and those of this stage."""
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
    if "chosen" in decoder:
        facts.append(["Best decoder of left-out training trials", decoder["chosen"]])
    if networks:
        facts.append(["Feature networks", "; ".join(networks)])
    own = {name: (fragment.folder / path).read_bytes() for name, path in fragment.figures.items()}
    table = pd.DataFrame([row for one in scored for row in one.rows], columns=list(SUMMARY_COLUMNS))
    table["method"] = table["method"].map({one.name: one.label for one in scored})
    described = table["metric"].isin(DIAGNOSTICS)
    write_report(
        fragment.page(),
        "participant",
        page["title"],
        [tuple(fact) for fact in facts],
        drawn | own,
        {"scores": table[~described], "diagnostics": table[described]},
        page["notes"],
        About(page["simulated"], methods, job["provenance"]),
    )
