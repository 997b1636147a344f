"""What the scores compare beside latents and pixels: which networks, which attributes, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import perceptual, programs
from hyper_bids.attributes import Directions
from hyper_bids.bids.outputs import sha256
from hyper_bids.bids.stimuli import labels_of
from hyper_bids.config import ScoreSettings, Settings
from hyper_bids.errors import UsageError
from hyper_bids.participant.attribute_pairs import (
    boundaries,
    boundary_file,
    described,
    label_directions,
)
from hyper_bids.participant.features import Network, choose_networks
from hyper_bids.participant.methods import HYPER

if TYPE_CHECKING:
    from hyper_bids.participant.plan import Plan


def check_networks(settings: ScoreSettings) -> None:
    """Check the networks that were asked for by name or file, once for all participants.

    Raises
    ------
    UsageError, InputError
        As :func:`features.choose_networks`.
    """
    if settings.feature_networks != ("auto",) or settings.feature_layer is not None:
        choose_networks(settings)


def check_boundaries(settings: ScoreSettings, plans: Sequence[Plan]) -> None:
    """Check that the boundaries which were asked for can be used, once for all participants.

    Raises
    ------
    UsageError
        If no method has latents that they are of.
    InputError
        If they cannot be read, or the stimuli have another number of latents.
    """
    folder = settings.attribute_boundaries
    if folder is None:
        return
    if not all(any(m.name == HYPER for m in plan.methods) for plan in plans):
        raise UsageError(
            f"--attribute-boundaries {folder}: boundaries are of the latents that stimuli were "
            f"made from, which no method decodes. Add {HYPER} to --methods, or leave them out."
        )
    for n_latents in sorted({plan.n_latents for plan in plans}):
        boundaries(folder, n_latents)


def _folder(settings: Settings) -> str | None:
    # A stage runs in a folder of its own.
    folder = settings.scores.attribute_boundaries
    return None if folder is None else str(Path(folder).absolute())


def networks_of(plan: Plan, settings: Settings) -> tuple[Network, ...]:
    """Return the networks that compare a participant's images; none where there are no images."""
    return choose_networks(settings.scores) if plan.image_size else ()


def scores_job(plan: Plan, settings: Settings) -> dict[str, object]:
    """Return what the stage of scores is told of networks and attributes.

    Of labels, those of training trials only: no label of a test stimulus can reach a direction.
    """
    frame = plan.trials.trials
    names = frame["stim_id"][frame["split"] == "train"].tolist()
    folder = _folder(settings)
    labelled = folder is None and len(plan.stimuli.labels.columns)
    return {
        "boundaries": folder,
        "networks": [dataclasses.asdict(n) for n in networks_of(plan, settings)],
        "labels": labels_of(plan.stimuli, names) if labelled else {},
        "labelled": names if labelled else [],
    }


def input_files(plan: Plan, settings: Settings) -> list[str]:
    """Return the files of networks and boundaries, whose change makes the scores run again."""
    networks = [n.source for n in networks_of(plan, settings)]
    files = list(dict.fromkeys(s for s in networks if s not in perceptual.NETWORKS))
    # What says how an exported network is to be used.
    files += [str(Path(f).with_suffix(".json")) for f in files if programs.is_exported(Path(f))]
    folder = _folder(settings)
    if folder is not None:
        names = boundaries(folder, plan.n_latents).names
        files += [str(boundary_file(folder, name)) for name in names]
    return files


def directions_of(job: dict, method: str, latents_train: np.ndarray) -> Directions | None:
    """Return the directions of attributes among a method's latents, None where there are none.

    Parameters
    ----------
    job : dict
        Of the stage of scores: ``boundaries`` (folder or None), ``labels`` (column to an entry a
        training trial), ``labelled`` (the trials' stimuli).
    method : str
        Boundaries are of the latents of ``hyper`` alone; directions from labels, of any.
    latents_train : array of shape (n_trials, n_latents)
        Latents of the training trials.
    """
    folder = job["boundaries"]
    if folder is not None:
        return boundaries(folder, latents_train.shape[1]) if method == HYPER else None
    if not job["labels"]:
        return None
    found = label_directions(latents_train, job["labelled"], job["labels"])
    return found if found.names else None


def provenance(job: dict, directions: dict[str, Directions | None]) -> dict[str, list]:
    """Return what the sidecar of the scores says of networks and directions; nothing of none.

    Parameters
    ----------
    job : dict
        Of the stage of scores.
    directions : dict
        Name of a method to its directions.
    """
    folder = job["boundaries"]
    networks = [
        {"Name": n["short"], "Label": n["label"], "SHA256": n["checksum"]}
        | ({"File": Path(n["source"]).name} if n["source"] not in perceptual.NETWORKS else {})
        for n in job["networks"]
    ]
    rows = []
    for method, found in directions.items():
        for row in described(found) if found else []:
            file = boundary_file(folder, row["Name"]) if folder is not None else None
            source = (
                {"File": file.name, "SHA256": sha256(file)} if file else {"Column": row["Name"]}
            )
            rows.append({"Method": method, **row, **source})
    said = {"FeatureNetworks": networks, "AttributeDirections": rows}
    return {name: entries for name, entries in said.items() if entries}
