"""From the participants' results to the group's tables and page."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.bids import outputs
from hyper_bids.bids.dataset import clean_labels
from hyper_bids.config import Settings, to_dict
from hyper_bids.errors import UsageError, listing
from hyper_bids.group import aligned_scores, mixing, tables
from hyper_bids.group.members import Member, find_scores, missing_participants, read_member
from hyper_bids.group.page import stimulus_notes, write_page
from hyper_bids.group.sharing import Sharing, find_sharing

LOG = logging.getLogger("hyper_bids")


def group_level(
    settings: Settings, dry_run: bool = False, work: str | os.PathLike | None = None
) -> None:
    """Write the group's tables and page from what the participants' jobs left.

    Parameters
    ----------
    settings : Settings
    dry_run : bool
        Say in the log which tables would be read, and write nothing.
    work : path, optional
        Folder for intermediate arrays of ``--align``; else the system's for temporary files.

    Raises
    ------
    UsageError, InputError
        If the folder holds no participant's scores, or not those that were asked for, or results
        of different versions or settings that may not be mixed, or that cannot be aligned.
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
    method = settings.group.align
    sharing = None if method == "none" else find_sharing({w: found[w] for w in wanted}, method)
    if dry_run:
        for name in wanted:
            LOG.info("sub-%s: %s", name, found[name])
        if sharing:
            LOG.info("--align %s: %d shared training stimuli", method, len(sharing.stimuli))
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
    if sharing is None:
        _write(settings, members, aligned_scores.nothing(), provenance)
    else:
        with tempfile.TemporaryDirectory(prefix="align-", dir=work) as scratch:
            decoded = _together(sharing, members, settings, Path(scratch))
            _write(settings, members, decoded, provenance)
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


def _together(
    sharing: Sharing, members: Sequence[Member], settings: Settings, scratch: Path
) -> aligned_scores.Decoded:
    """Return what comes of decoding participants together."""
    for note in sharing.notes:
        LOG.warning("%s", note)
    firsts = {m.participant: str(m.table["method"].iloc[0]) for m in members}
    if len(set(firsts.values())) > 1:
        raise UsageError(
            f"--align {sharing.method}: the first method, whose latents are decoded, is not the "
            f"same in all: {listing(f'sub-{name} {method}' for name, method in firsts.items())}. "
            f"Run the participant level with the same one first in --methods."
        )
    tests = aligned_scores.Tests(settings.scores.n_permutations, settings.random_seed)
    return aligned_scores.decode_together(sharing, firsts.popitem()[1], tests, scratch)


def _write(
    settings: Settings,
    members: Sequence[Member],
    decoded: aligned_scores.Decoded,
    provenance: dict,
) -> None:
    output_dir, seed = Path(settings.output_dir), settings.random_seed
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
    aligned_scores.write_decoded(output_dir, decoded, provenance)
    made["alignment"] = aligned_scores.on_page(decoded)
    with_figures = settings.images.write_images
    write_page(output_dir, members, made, provenance, decoded.sharing, with_figures)


def _table(output_dir: Path, name: str, frame, columns: dict, provenance: dict) -> None:
    outputs.write_if_changed(output_dir / f"{name}.tsv", outputs.tsv_text(frame))
    sidecar = {column: {"Description": text} for column, text in columns.items()}
    outputs.write_if_changed(
        output_dir / f"{name}.json", outputs.json_text({**provenance, **sidecar})
    )
