"""Responses with what their trials showed: sizes, orientation, finite values, equal stimuli."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hyper_bids.errors import InputError, UsageError, counted
from hyper_bids.importing.orientation import Given, oriented, said
from hyper_bids.importing.pictures import Pictures, to_pictures

LOG = logging.getLogger("hyper_bids")


@dataclass(frozen=True, eq=False)
class TrialSet:
    """One checked set: responses, and the stimuli, each once.

    Attributes
    ----------
    responses : float32 array of shape (n_trials, n_voxels)
    stimulus : int array of shape (n_trials,)
        Row of ``latents`` and ``images``.
    latents : float32 array of shape (n_stimuli, n_latents)
    images : uint8 array of shape (n_stimuli, height, width, 3), or None
    runs : list of str, or None
    keys : list of bytes
        Of each stimulus, as :func:`stimulus_key` gives them.
    """

    responses: np.ndarray
    stimulus: np.ndarray
    latents: np.ndarray
    images: np.ndarray | None
    runs: list[str] | None
    keys: list[bytes]


Encoder = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def check_sets(
    train: Given, test: Given, how: Pictures | None = None, order: str = "auto",
    drop_voxels: bool = False, encode: Encoder | None = None,
) -> tuple[TrialSet, TrialSet]:  # fmt: skip
    """Check that two sets of trials go together, and bring them into one form.

    Parameters
    ----------
    train, test : Given
    how : Pictures, optional
        How images are to be understood.
    order : {"auto", "trials-first", "trials-last"}
        On which axis of the responses the trials are. auto: as sizes agree.
    drop_voxels : bool
        Whether voxels with values that are not finite are left out (of both sets), or refused.
    encode : callable, optional
        Gives the latents of training and test images (uint8) where none are given.

    Returns
    -------
    train, test : TrialSet

    Raises
    ------
    InputError
        If sizes disagree, or values are not finite.
    UsageError
        If more than one orientation agrees, or neither latents nor images with an encoder are
        given.
    """
    sets = {"training": train, "test": test}
    for what in ("latents", "images", "runs"):
        if (getattr(train, what) is None) != (getattr(test, what) is None):
            lacking = "training" if getattr(train, what) is None else "test"
            raise UsageError(
                f"{what}: given for one set and not for the {lacking} trials; give them for both, "
                f"or for none."
            )
    if train.latents is None and (train.images is None or encode is None):
        raise UsageError(
            "neither latents nor images are given; what the trials showed is needed: latents, or "
            "images with an image model that encodes them."
        )
    for name, given in sets.items():
        _check_numbers(name, given)
    responses, latents = oriented(train, test, order)
    responses = _finite(sets, responses, drop_voxels)
    images = _images(sets, responses, how)
    if train.latents is None:
        latents = [np.asarray(part, np.float32) for part in encode(*images)]
    found = [
        _set(name, given, *arrays)
        for (name, given), *arrays in zip(sets.items(), responses, latents, images, strict=True)
    ]
    _report(found)
    return found[0], found[1]


def _check_numbers(name: str, given: Given) -> None:
    for what in ("responses", "latents"):
        array = getattr(given, what)
        if array is None:
            continue
        if array.dtype.kind not in "biuf" or array.ndim < 2 or not array.size:
            raise InputError(
                f"{given.place(what)}: {array.dtype}, {said(array.shape)}; a matrix of real "
                f"numbers is wanted for the {name} {what}."
            )
        if what == "latents" and array.ndim != 2:
            raise InputError(f"{given.place(what)}: {said(array.shape)}; stimuli x latents wanted.")


def _finite(sets: dict[str, Given], responses: list, drop: bool) -> list[np.ndarray]:
    """Return float32 responses without the voxels that have values that are not finite."""
    with np.errstate(over="ignore"):  # too large for float32 becomes inf
        responses = [np.ascontiguousarray(part, np.float32) for part in responses]
    good = [np.isfinite(part).all(axis=0) for part in responses]
    both = np.logical_and(*good)
    if both.all():
        return responses
    n_bad = int((~both).sum())
    if not drop:
        k = 0 if not good[0].all() else 1
        trial, voxel = np.argwhere(~np.isfinite(responses[k]))[0]
        raise InputError(
            f"{list(sets.values())[k].place('responses')}: trial {trial}, voxel {voxel} (counted "
            f"from 0) is {responses[k][trial, voxel]}; {counted(n_bad, 'voxel')} of {len(both)} "
            f"have such values. Mend them, or leave these voxels out with --drop-voxels."
        )
    if not both.any():
        raise InputError("responses: every voxel has values that are not finite; mend them.")
    LOG.warning("%s of %d with values that are not finite: left out.",
                counted(n_bad, "voxel"), len(both))  # fmt: skip
    return [part[:, both] for part in responses]


def _images(sets: dict[str, Given], responses: list, how: Pictures | None) -> list:
    if next(iter(sets.values())).images is None:
        return [None, None]
    arrays = {f"{name} {given.place('images')}": given.images for name, given in sets.items()}
    counts = {
        where: len(part) if given.shown is None else None
        for where, part, given in zip(arrays, responses, sets.values(), strict=True)
    }
    return list(to_pictures(arrays, counts, how).values())


def _set(name: str, given: Given, responses, latents, images) -> TrialSet:
    n_stimuli = len(latents)
    for what, array in (("latents", latents), ("images", images)):
        if array is not None and given.shown is not None and given.shown.max() >= len(array):
            raise InputError(
                f"{given.place('shown')}: row {given.shown.max()} (counted from 0), but the {name} "
                f"{what} ({given.place(what)}) have {len(array)}."
            )
    if images is not None and len(images) != n_stimuli:
        raise InputError(
            f"{given.place('images')}: {len(images)} images for {n_stimuli} rows of {name} latents "
            f"({given.place('latents')}); as many are wanted."
        )
    latents = np.asarray(latents, np.float32)
    wrong = np.argwhere(~np.isfinite(latents))
    if len(wrong):
        raise InputError(
            f"{given.place('latents')}: row {wrong[0][0]}, column {wrong[0][1]} (counted from 0) "
            f"is {latents[tuple(wrong[0])]}; finite numbers are wanted."
        )
    shown = np.arange(n_stimuli) if given.shown is None else np.asarray(given.shown).ravel()
    # Latents that were encoded here differ in their last bits from batch to batch.
    keys = {
        row: stimulus_key(
            None if given.latents is None else latents[row], None if images is None else images[row]
        )
        for row in dict.fromkeys(shown.tolist())
    }
    # Equal latents and images are one stimulus, shown again.
    first: dict[bytes, int] = {}
    for row, key in keys.items():
        first.setdefault(key, row)
    place = {key: k for k, key in enumerate(first)}
    stimulus = np.array([place[keys[row]] for row in shown.tolist()], np.int64)
    kept = list(first.values())
    pictures = None if images is None else images[kept]
    return TrialSet(responses, stimulus, latents[kept], pictures, _run_labels(given), list(first))


def _run_labels(given: Given) -> list[str] | None:
    if given.runs is None:
        return None
    if not np.isfinite(given.runs).all():
        raise InputError(
            f"{given.place('runs')}: runs that are not finite; a number for each trial is wanted."
        )
    return [str(value).removesuffix(".0") for value in given.runs.ravel().tolist()]


def stimulus_key(latents: np.ndarray | None, image: np.ndarray | None) -> bytes:
    """Return what tells a stimulus from others: a digest of its latents and its image.

    None for what is not there, and for latents that were encoded from the image.
    """
    digest = hashlib.sha256()
    if latents is not None:
        # + 0.0: minus zero equals zero, but has other bytes.
        digest.update((np.asarray(latents, np.float32) + np.float32(0)).tobytes())
    if image is not None:
        digest.update(str(image.shape).encode() + image.tobytes())
    return digest.digest()


def _report(sets: list[TrialSet]) -> None:
    for name, part in zip(("Training", "Test"), sets, strict=True):
        pictures = "" if part.images is None else f", images of {said(part.images.shape[1:3])}"
        LOG.info(
            "%s: %d trials of %s, %d voxels, %d latents%s", name, len(part.responses),
            counted(len(part.latents), "stimulus", "stimuli"), part.responses.shape[1],
            part.latents.shape[1], pictures,
        )  # fmt: skip
    if len(sets[1].latents) < 2:
        raise InputError(
            f"the test trials show {len(sets[1].latents)} stimulus; at least 2 are needed to tell "
            f"them apart."
        )
