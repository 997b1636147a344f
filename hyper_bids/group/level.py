"""From the participants' results to the group's tables and page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.bids import outputs
from hyper_bids.bids.dataset import clean_labels
from hyper_bids.config import Settings, to_dict
from hyper_bids.errors import UsageError, listing
from hyper_bids.group import mixing, tables
from hyper_bids.group.members import Member, find_scores, missing_participants, read_member
from hyper_bids.group.page import stimulus_notes, write_page

LOG = logging.getLogger("hyper_bids")


def group_level(settings: Settings, dry_run: bool = False) -> None:
    """Write the group's tables, figures and page from what the participants' jobs left.

    With ``dry_run``, say in the log which tables would be read, and write nothing.

    Raises
    ------
    UsageError, InputError
        If the folder holds no participant's scores, or not those that were asked for, or results
        of different versions or settings that may not be mixed.
    """
    output_dir = Path(settings.output_dir)
    asked = clean_labels("--participant-label", "sub", settings.inputs.participant_label)
    found = find_scores(output_dir)
    wanted = _wanted(output_dir, found, asked)
    missing = [] if asked else missing_participants(output_dir, wanted)
    if missing:
        LOG.warning(
            "Without scores, and so not in the group: %s", listing("sub-" + m for m in missing)
        )
    if dry_run:
        for name in wanted:
            LOG.info("sub-%s: %s", name, found[name])
        LOG.info("Dry run: nothing was computed or written.")
        return
    members = [read_member(label, found[label]) for label in wanted]
    mixed = mixing.differences({m.participant: m.settings for m in members})
    mixing.check(output_dir, mixed, settings.group.allow_mixed)
    if mixed:
        LOG.warning("Results of different settings are averaged: %s", listing(mixed))
    for note in stimulus_notes(members):
        LOG.warning("%s", note)
    provenance = {
        "Sources": [f"bids::{found[label].relative_to(output_dir).as_posix()}" for label in wanted],
        "Settings": {"group": to_dict(settings.group)},
        "RandomSeed": settings.random_seed,
        "SoftwareVersion": __version__,
        "Simulated": any(m.simulated for m in members),
        "Missing": missing,
        **({"Mixed": mixed} if mixed else {}),
    }
    _write(output_dir, members, settings.random_seed, provenance)
    LOG.info("Group of %d: see %s", len(members), output_dir / "group.html")


def _wanted(output_dir: Path, found: dict[str, Path], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the participants of the group; UsageError if one, or any, has no scores."""
    wanted = asked or tuple(found)
    absent = [label for label in wanted if label not in found]
    if not found or absent:
        whose = listing("sub-" + label for label in absent) if absent else "any participant"
        there = listing("sub-" + label for label in found)
        rest = f"; there are those of {there}" if found else ""
        raise UsageError(
            f"{output_dir}: no scores of {whose}{rest}. Run the participant level first."
        )
    return wanted


def _write(output_dir: Path, members: Sequence[Member], seed: int, provenance: dict) -> None:
    made = {
        "metrics": tables.group_metrics(members),
        "stats": tables.group_stats(members, seed),
        "comparisons": tables.group_comparisons(members, seed),
    }
    _table(output_dir, "group_metrics", made["metrics"], tables.METRIC_COLUMNS, provenance)
    _table(output_dir, "group_stats", made["stats"], tables.STATS_COLUMNS, provenance)
    # One of an earlier run must not stand beside the means of this one.
    compared = len(made["comparisons"]) or (output_dir / "group_comparisons.tsv").is_file()
    if compared:
        columns = tables.COMPARISON_COLUMNS
        _table(output_dir, "group_comparisons", made["comparisons"], columns, provenance)
    write_page(output_dir, members, made, provenance)


def _table(output_dir: Path, name: str, frame, columns: dict, provenance: dict) -> None:
    outputs.write_if_changed(output_dir / f"{name}.tsv", outputs.tsv_text(frame))
    sidecar = {column: {"Description": text} for column, text in columns.items()}
    outputs.write_if_changed(
        output_dir / f"{name}.json", outputs.json_text({**provenance, **sidecar})
    )
