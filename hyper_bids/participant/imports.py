"""Imported responses before any long work: settings that are refused, and what is told of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids import events
from hyper_bids.bids.imported import Imported, find_imported, runs_known, trials_of
from hyper_bids.config import Settings, VoxelSettings
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.participant.fitting import check_fit

# Settings of what is read that concern imports, too.
_INPUTS = ("participant_label", "skip_bids_validation", "allow_shared_stimuli", "no_realign")
# Names of settings that are spelt otherwise as flags.
_FLAGS = {"estimator": "betas"}


def plan_import(
    bids_dir: Path, participant: str, settings: Settings, stimuli: events.Stimuli
) -> tuple[Imported, events.Trials, list[str]]:
    """Find and check imported responses and the settings that they are decoded with.

    Returns
    -------
    imported : Imported
    trials : Trials
    notes : list of str
        What the report has to say of them.

    Raises
    ------
    UsageError
        If a setting is given that has no effect on imported responses, or cannot be followed.
    InputError
        If a file is damaged, or the trials are not enough.
    """
    refuse_settings(settings)
    imported = find_imported(bids_dir, participant)
    trials = trials_of(imported, stimuli, settings.inputs)
    check_decoder_mask(imported, settings.voxels)
    frame = trials.trials
    train = (frame["split"] == "train").to_numpy()
    if train.sum() < 2:
        raise InputError(f"{imported.table}: {train.sum()} training trial; at least 2 are needed.")
    check_fit(settings.decoder, frame["run_index"].to_numpy()[train])
    n_test = frame["stim_id"][~train].nunique()
    if n_test < 2:
        raise InputError(
            f"{imported.table}: the test trials show {n_test} stimulus; at least 2 are needed to "
            f"tell them apart."
        )
    return imported, trials, _notes(imported, trials)


def refuse_settings(settings: Settings) -> None:
    """Refuse settings of runs and BOLD that are not the default: there is none.

    Raises
    ------
    UsageError
    """
    given = [
        _FLAGS.get(field.name, field.name)
        for held in (settings.inputs, settings.betas)
        for field in fields(held)
        if field.name not in _INPUTS and getattr(held, field.name) != field.default
    ]
    if given:
        flags = listing("--" + name.replace("_", "-") for name in given)
        raise UsageError(
            f"{flags}: without effect on this dataset, whose responses were estimated elsewhere "
            f"and imported. Leave it out."
        )


def check_decoder_mask(imported: Imported, settings: VoxelSettings) -> None:
    """Check that a mask of the user's lies on the grid of imported responses.

    Raises
    ------
    UsageError, InputError
    """
    path, wanted = settings.decoder_mask, settings.mask_labels
    if path is None:
        return
    if not imported.places_known:
        raise UsageError(
            f"--decoder-mask {path}: the places of the imported voxels are unknown. Import them "
            f"again with --mask, or choose voxels by --n-voxels."
        )
    if not volumes.same_grid(volumes.read_header(path), volumes.read_header(imported.mask)):
        raise InputError(
            f"--decoder-mask {path}: another grid than that of {imported.mask.name}. Resample the "
            f"mask to the grid of the import."
        )
    labels = volumes.read_labels(path)[volumes.read_mask(imported.mask)]
    if not (np.isin(labels, wanted) if wanted else labels > 0).any():
        raise UsageError(
            f"--decoder-mask {path}: none of its voxels "
            f"{'with the labels given ' if wanted else ''}is among the imported ones."
        )


def own_model(stimuli: events.Stimuli) -> dict:
    """Return ``latents.json`` with the path of the image model that the dataset brings, if any.

    Raises
    ------
    InputError
        If it names a model that is not there.
    """
    name = stimuli.meta.get("GeneratorFile")
    if name is None:
        return stimuli.meta
    path = stimuli.folder / Path(str(name)).name
    if not path.is_file():
        raise InputError(
            f"{stimuli.folder / 'latents.json'}: GeneratorFile {name} is not in stimuli/; put it "
            f"back, or give an image model with --generator."
        )
    return {**stimuli.meta, "GeneratorFile": str(path)}


def described(imported: Imported) -> str:
    """Return a line of ``--dry-run``."""
    places = "known" if imported.places_known else "unknown"
    return (
        f"  {imported.responses}: imported responses, {imported.n_trials} trials of "
        f"{imported.n_voxels} voxels, places {places}"
    )


def facts_of(imported: Imported, trials: events.Trials) -> dict[str, object]:
    """Return what the methods text tells of an import."""
    return {
        "files": list(imported.files),
        "places_known": imported.places_known,
        "runs_known": runs_known(trials),
    }


def _notes(imported: Imported, trials: events.Trials) -> list[str]:
    notes = [
        f"The responses were imported from {listing(imported.files)}; no BOLD was modelled. What "
        f"was done before that, the app cannot see: if test trials had a part in it, scores are "
        f"too high."
    ]
    if not imported.places_known:
        notes.append("The places of the voxels are unknown, so that there are no maps of them.")
    if not runs_known(trials):
        notes.append(
            "The runs of the trials are unknown: responses were standardised by all training "
            "trials."
        )
    return notes
