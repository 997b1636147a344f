"""The group level: participants' scores to tables and tests. It reads the output folder alone."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import __version__, figures, stats
from hyper_bids.bids import outputs
from hyper_bids.bids.dataset import clean_labels
from hyper_bids.config import Settings
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import group_methods_text
from hyper_bids.report.published import beside_published
from hyper_bids.report.scores import label

LOG = logging.getLogger("hyper_bids")

METRIC_COLUMNS = {
    "participant": "Participant label",
    "method": "Image model's method",
    "metric": "Name of the score; higher is better",
    "variant": "Form of the score, or what it is computed on",
    "control": "n/a: the score itself; else the control, see the participants' tables",
    "value": "Mean over test stimuli",
    "se": "Standard error over test stimuli",
    "ci_low": "Lower end of the 95 % interval",
    "ci_high": "Upper end of the 95 % interval",
    "p": "Permutation p, (b + 1) / (n + 1)",
    "n": "Number of test stimuli",
}

STATS_COLUMNS = {
    "method": METRIC_COLUMNS["method"],
    "metric": METRIC_COLUMNS["metric"],
    "variant": METRIC_COLUMNS["variant"],
    "control": METRIC_COLUMNS["control"],
    "mean": "Mean over participants",
    "ci_low": "Lower end of the 95 % t interval over participants; n/a for one participant",
    "ci_high": "Upper end of that interval",
    "p": "Permutation p of the mean: test stimuli shuffled within each participant, (b+1)/(n+1)",
    "n_participants": "Number of participants",
}

# Participants; below it, a t interval says little.
_FEW = 5

_KEY = ("method", "metric", "variant")


@dataclass(frozen=True, eq=False)
class Scores:
    """One participant's summary table and null distributions."""

    participant: str
    table: object
    nulls: dict[tuple[str, str, str], np.ndarray]
    simulated: bool


def group_level(settings: Settings, dry_run: bool = False) -> None:
    """Write the group's tables, figures and page from what the participants' jobs left.

    With ``dry_run``, say in the log which tables would be read, and write nothing.

    Raises
    ------
    UsageError, InputError
        If the folder holds no participant's scores, or not those that were asked for.
    """
    import pandas as pd

    output_dir = Path(settings.output_dir)
    found = find_scores(output_dir)
    wanted = clean_labels("--participant-label", "sub", settings.inputs.participant_label)
    wanted = wanted or tuple(found)
    absent = [label for label in wanted if label not in found]
    if not found or absent:
        whose = listing("sub-" + label for label in absent) if absent else "any participant"
        there = listing("sub-" + label for label in found)
        rest = f"; there are those of {there}" if found else ""
        raise UsageError(
            f"{output_dir}: no scores of {whose}{rest}. Run the participant level first."
        )
    missing = (
        missing_participants(output_dir, wanted) if not settings.inputs.participant_label else []
    )
    if missing:
        LOG.warning(
            "Without scores, and so not in the group: %s", listing("sub-" + m for m in missing)
        )
    if dry_run:
        for name in wanted:
            LOG.info("sub-%s: %s", name, found[name])
        LOG.info("Dry run: nothing was computed or written.")
        return
    members = [read_scores(label, found[label]) for label in wanted]
    metrics = pd.concat(
        [m.table.assign(participant=m.participant) for m in members], ignore_index=True
    )[list(METRIC_COLUMNS)]
    summary = group_stats(members)
    provenance = {
        "Sources": [f"bids::{found[label].relative_to(output_dir).as_posix()}" for label in wanted],
        "SoftwareVersion": __version__,
        "Simulated": any(m.simulated for m in members),
        "Missing": missing,
    }
    _table(output_dir, "group_metrics", metrics, METRIC_COLUMNS, provenance)
    _table(output_dir, "group_stats", summary, STATS_COLUMNS, provenance)
    _page(output_dir, members, metrics, summary, provenance)
    LOG.info("Group of %d: see %s", len(members), output_dir / "group.html")


def find_scores(output_dir: Path) -> dict[str, Path]:
    """Return each participant's summary table in the output folder."""
    if not output_dir.is_dir():
        raise UsageError(f"{output_dir}: no such folder. Run the participant level first.")
    paths = sorted(output_dir.glob("sub-*/**/*_desc-summary_metrics.tsv"))
    found: dict[str, Path] = {}
    for path in paths:
        label = path.relative_to(output_dir).parts[0].removeprefix("sub-")
        if label in found:
            raise InputError(
                f"sub-{label} has two tables of scores, {found[label].name} and {path.name}: "
                f"results of different tasks, sessions or spaces lie in {output_dir}. Use one "
                f"output folder for each."
            )
        found[label] = path
    return found


def missing_participants(output_dir: Path, present: tuple[str, ...]) -> list[str]:
    """Return participants of the dataset that left no scores, as the jobs recorded them."""
    listed = output_dir / "logs" / "participants.txt"
    known = set(listed.read_text(encoding="utf-8").split()) if listed.is_file() else set()
    known |= {path.name for path in (output_dir / "logs").glob("sub-*")}
    return sorted({name.removeprefix("sub-") for name in known} - set(present))


def read_scores(participant: str, path: Path) -> Scores:
    """Read one participant's scores and nulls; say which file is wrong where one is."""
    try:
        table = _scores_table(path)
        stem = path.name.removesuffix("_desc-summary_metrics.tsv")
        null_path = path.with_name(f"{stem}_desc-null_metrics.npy")
        values = np.load(null_path, allow_pickle=False)
        sidecar = json.loads(null_path.with_suffix(".json").read_text(encoding="utf-8"))
        nulls = dict(zip(map(tuple, sidecar["Scores"]), values, strict=True))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(
            f"{path}: not a table of scores as the participant level writes it "
            f"({' '.join(str(error).split())}). Run sub-{participant} again."
        ) from None
    return Scores(participant, table, nulls, bool(sidecar.get("Simulated", False)))


def _scores_table(path: Path):
    """Return the table; ValueError says what is wrong with it."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    lacking = [name for name in METRIC_COLUMNS if name not in (*table.columns, "participant")]
    if lacking:
        raise ValueError(f"it has no column {listing(lacking)}")
    for name in ("value", "se", "ci_low", "ci_high", "p", "n"):
        table[name] = table[name].astype(float)
    table["variant"] = table["variant"].fillna("n/a")
    twice = table[table.duplicated([*_KEY, "control"])]
    if len(twice):
        raise ValueError(f"{' '.join(map(str, twice.iloc[0][[*_KEY, 'control']]))} is there twice")
    return table


def group_stats(members: list[Scores]):
    """Return the mean over participants of each score and control, its interval and p.

    The null distribution of the mean is the mean of the participants' null distributions, each
    with its own shuffling: under the null hypothesis the pairings of one participant say nothing
    about those of another.
    """
    import pandas as pd

    both = pd.concat([m.table.assign(participant=m.participant) for m in members])
    rows = []
    both["control"] = both["control"].fillna("n/a")
    for (method, metric, variant, control), block in both.groupby(
        [*_KEY, "control"], sort=False, dropna=False
    ):
        known = block[np.isfinite(block["value"])]
        values = known["value"].to_numpy(float)
        mean, low, high = stats.mean_interval(values) if len(values) else (np.nan,) * 3
        row = {"method": method, "metric": metric, "variant": variant, "control": control}
        row |= {"mean": mean, "ci_low": low, "ci_high": high, "n_participants": len(values)}
        of = set(known["participant"])
        held = [m.nulls.get((method, metric, variant)) for m in members if m.participant in of]
        held = [null for null in held if null is not None]
        if control == "n/a" and len(held) == len(values) > 0:
            n = min(map(len, held))
            # The values come from tables of six digits.
            row["p"] = stats.p_value(mean, mean_null(held, n), tolerance=1e-5)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(STATS_COLUMNS))


def mean_null(nulls: list[np.ndarray], n: int) -> np.ndarray:
    """Return the mean of the participants' nulls, one after the other."""
    total = np.zeros(n)
    for null in nulls:
        total += null[:n]
    return total / len(nulls)


def _table(output_dir: Path, name: str, frame, columns: dict, provenance: dict) -> None:
    outputs.write_if_changed(output_dir / f"{name}.tsv", outputs.tsv_text(frame))
    sidecar = {column: {"Description": text} for column, text in columns.items()}
    outputs.write_if_changed(
        output_dir / f"{name}.json", outputs.json_text({**provenance, **sidecar})
    )


def _headline(frame) -> Iterator[tuple[str, object]]:
    """Return the main scores of the first method, and the rows of each."""
    frame = frame[frame["method"] == frame["method"].iloc[0]]
    for metric in ("two_way_identification", "latent_correlation", "structural_similarity"):
        block = frame[
            (frame["metric"] == metric) & frame["variant"].isin(("latents", "n/a", "reference"))
        ]
        if len(block):
            yield metric, block


def _page(output_dir: Path, members: list[Scores], metrics, summary, provenance: dict) -> None:
    drawn, missing = {}, provenance["Missing"]
    for metric, block in _headline(metrics):
        main = block[block["control"].isna() | (block["control"] == "n/a")]
        control = block[block["control"] == "mismatched"].set_index("participant")["value"]
        table = main[["participant", "value", "ci_low", "ci_high"]].assign(
            control=main["participant"].map(control).to_numpy()
        )
        path = output_dir / "figures" / f"group_desc-{metric.replace('_', '')}_scores.png"
        buffer = io.BytesIO()
        figures.save(figures.group_scores(table, label(metric).lower()), buffer)
        outputs.write_if_changed(path, buffer.getvalue())
        drawn[f"group_{metric}"] = path.relative_to(output_dir).as_posix()
    facts = [("Participants", str(len(members)))]
    notes = []
    if missing:
        facts.append(("Without scores", listing("sub-" + m for m in missing)))
        notes.append("Participants without scores are not in the means.")
    if len(members) == 1:
        notes.append("One participant: the group mean is that participant's, without an interval.")
    if 1 < len(members) < _FEW:
        notes.append(
            f"{len(members)} participants: t intervals of so few are wide, and can reach beyond "
            f"what a score can be. The participants' own intervals say more."
        )
    write_report(
        output_dir / "group.html", "group", "Group", facts, drawn,
        {"scores": metrics, "stats": summary, "published": beside_published(summary)}, notes,
        About(provenance["Simulated"], group_methods_text(len(members)), provenance),
    )  # fmt: skip
