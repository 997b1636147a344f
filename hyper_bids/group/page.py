"""The group's page, with its figures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hyper_bids import figures, stats
from hyper_bids.bids import outputs
from hyper_bids.errors import counted, listing
from hyper_bids.group.members import KEY, Member
from hyper_bids.group.nulls import family
from hyper_bids.group.sharing import Sharing
from hyper_bids.group.tables import DISTANCE
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import group_methods_text
from hyper_bids.report.published import beside_published
from hyper_bids.report.scores import label

# Test stimuli; of fewer, there are so few pairings that no p can be small.
_FEW_STIMULI = 3


def write_page(
    output_dir: Path,
    members: Sequence[Member],
    tables: dict[str, object],
    provenance: dict,
    sharing: Sharing | None = None,
    with_figures: bool = False,
) -> None:
    """Write the group's page.

    Parameters
    ----------
    output_dir : path
        Root of the derivatives.
    members : sequence of Member
    tables : dict
        ``metrics``, ``stats`` and ``comparisons``, as :mod:`tables` makes them; ``alignment``, as
        :func:`aligned_scores.on_page` does, or None.
    provenance : dict
        As in the sidecars; ``Missing`` (participants without scores) and ``Mixed`` (differences
        that were allowed) are told.
    sharing : Sharing, optional
        Of participants who were decoded together.
    with_figures : bool
        Write the figures as files, too. One that lies there already is brought up to date in any
        case.
    """
    drawn = dict(_figures(tables["metrics"]))
    for name, figure in drawn.items():
        path = _figure_path(output_dir, name)
        # One of an earlier run must not stand beside the results of this one.
        if with_figures or path.is_file():
            outputs.write_if_changed(path, figure)
    facts = [("Participants", str(len(members)))]
    if provenance["Missing"]:
        without = listing("sub-" + label for label in provenance["Missing"])
        facts.append(("Without scores", without))
    found = tables["stats"]
    described = _described(members, found)
    shown = {
        "stats": found[~described],
        "diagnostics": found[described],
        "prevalence": found[~described],
        "comparisons": tables["comparisons"],
        "alignment": tables.get("alignment"),
        "scores": tables["metrics"],
        "published": beside_published(found),
    }
    n_methods = found["method"].nunique()
    notes = [*_notes(members, provenance), *stimulus_notes(members)]
    notes += sharing.notes if sharing else ()
    write_report(
        output_dir / "group.html", "group", "Group", facts, drawn, shown,
        notes,
        About(
            provenance["Simulated"],
            group_methods_text(len(members), n_methods, _alignment(sharing)),
            provenance,
        ),
    )  # fmt: skip


def _alignment(sharing: Sharing | None) -> dict | None:
    """Return what the methods text is told of participants who were decoded together."""
    if sharing is None:
        return None
    done = {"averaged": sharing.averaged, "by_others": sharing.by_others}
    return {"method": sharing.method, "n_stimuli": len(sharing.stimuli), **done}


def _described(members: Sequence[Member], found) -> np.ndarray:
    """Return which rows describe responses and predictions: there is a value, but no test."""
    tested = {key for m in members for key in m.tested}
    valued = {key for m in members for key in m.values}
    keys = zip(*(found[name] for name in KEY), strict=True)
    return np.array([key in valued - tested and key[1] != DISTANCE for key in keys], bool)


def _notes(members: Sequence[Member], provenance: dict) -> list[str]:
    notes = []
    n = len(members)
    if provenance["Missing"]:
        notes.append("Participants without scores are not in the means.")
    if provenance.get("Mixed"):
        notes.append(
            f"Results of different settings were averaged, as was asked for: "
            f"{listing(provenance['Mixed'])}."
        )
    if n == 1:
        notes.append(
            "One participant: means, intervals and p are that participant's, and say nothing of "
            "others."
        )
    elif n < stats.MIN_PARTICIPANTS:
        notes.append(
            f"{n} participants are too few for an interval that speaks of other people: intervals "
            f"and p speak of these participants, the intervals of other stimuli."
        )
    return notes


def stimulus_notes(members: Sequence[Member]) -> list[str]:
    """Return what is to be known of participants whose test stimuli or permutations are others'."""
    notes = []
    sets = Counter(m.shown for m in members)
    usual = max(sets, key=lambda shown: sets[shown])
    other = [f"sub-{m.participant}" for m in members if m.shown != usual]
    if other:
        notes.append(
            f"Other test stimuli than in the rest: {listing(other)}. Means are of each "
            f"participant's own stimuli; intervals and comparisons know which are shared."
        )
    alike = {m.participant for m in family(members)}
    apart = [f"sub-{m.participant}" for m in members if m.participant not in alike]
    if apart:
        notes.append(
            f"Other permutations than in the rest, as numbers of test stimuli, of permutations, or "
            f"seeds differ: {listing(apart)}. Their corrected p is n/a."
        )
    numbers = {m.nulls.n_permutations for m in members}
    if len(numbers) > 1:
        notes.append(
            f"Participants have {min(numbers):,} to {max(numbers):,} permutations; p of the means "
            f"is from the first {min(numbers):,}."
        )
    few = [f"sub-{m.participant}" for m in members if len(m.shown) < _FEW_STIMULI]
    if few:
        least = min(len(m.shown) for m in members)
        notes.append(
            f"Fewer than {_FEW_STIMULI} test stimuli: {listing(few)}. Of "
            f"{counted(least, 'stimulus', 'stimuli')} there are so few pairings that no p can be "
            f"small, and intervals say little."
        )
    return notes


def _headline(frame) -> Iterator[tuple[str, object]]:
    """Return the main scores of the first method, and the rows of each."""
    frame = frame[frame["method"] == frame["method"].iloc[0]]
    for metric in ("two_way_identification", "latent_correlation", "structural_similarity"):
        block = frame[
            (frame["metric"] == metric) & frame["variant"].isin(("latents", "n/a", "reference"))
        ]
        if len(block):
            yield metric, block


def _figure_path(output_dir: Path, name: str) -> Path:
    metric = name.removeprefix("group_").replace("_", "")
    return output_dir / "figures" / f"group_desc-{metric}_scores.png"


def _figures(metrics) -> Iterator[tuple[str, bytes]]:
    """Return each figure's key on the page, and its PNG."""
    for metric, block in _headline(metrics):
        main = block[block["control"] == "n/a"]
        control = block[block["control"] == "mismatched"].set_index("participant")["value"]
        table = main[["participant", "value", "ci_low", "ci_high"]].assign(
            control=main["participant"].map(control).to_numpy()
        )
        buffer = io.BytesIO()
        figures.save(figures.group_scores(table, label(metric).lower()), buffer)
        yield f"group_{metric}", buffer.getvalue()
