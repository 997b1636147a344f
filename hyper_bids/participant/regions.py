"""Regions of the brain that the user gave: checked before any long work, and read by the stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids.outputs import sha256
from hyper_bids.bids.regions import check_space, names_beside, read_names
from hyper_bids.config import MapSettings
from hyper_bids.errors import InputError, UsageError

if TYPE_CHECKING:
    from hyper_bids.participant.plan import Plan

LOG = logging.getLogger("hyper_bids")


def check_regions(settings: MapSettings, plans: Sequence[Plan]) -> None:
    """Check that the regions which were asked for can be used, for all participants.

    Parameters
    ----------
    settings : MapSettings
    plans : sequence of Plan
        Regions have to meet their brain masks or, where a run has none, the field of view.

    Raises
    ------
    UsageError
        If a flag has no effect, a file is not there, or regions are in another space than BOLD.
    InputError
        If image or names cannot be read, or no region lies in the brain.
    """
    atlas, names = settings.atlas, settings.atlas_names
    if atlas is None:
        if names is not None:
            raise UsageError(
                f"--atlas-names {names}: without effect, since there are no regions to name. Give "
                f"the label image as --atlas FILE."
            )
        return
    if settings.no_maps:
        raise UsageError(
            f"--atlas {atlas}: without effect beside --no-maps. Leave out one of them."
        )
    for flag, path in (("--atlas", atlas), ("--atlas-names", names)):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"{flag} {path}: no such file.")
    if not volumes.read_labels(atlas).any():
        raise InputError(f"{atlas}: all labels are 0; an image of regions is wanted.")
    found = names_of(settings)
    if found is None:
        LOG.warning(
            "--atlas %s: no table of names lies beside it; regions are called by their numbers. "
            "Give it as --atlas-names FILE.",
            atlas,
        )
    else:
        read_names(found)
    for plan in plans:
        _check_plan(atlas, plan)


def names_of(settings: MapSettings) -> Path | None:
    """Return the table of the regions' names, as given or beside the image; None without one."""
    if settings.atlas is None or settings.atlas_names is not None:
        return None if settings.atlas_names is None else Path(settings.atlas_names)
    return names_beside(settings.atlas)


def regions_job(settings: MapSettings) -> dict[str, str | None]:
    """Return what the stage of maps is told of regions: files, absolute, None where there are none.

    A stage runs in a folder of its own.
    """
    names = names_of(settings)
    return {
        "atlas": None if settings.atlas is None else str(Path(settings.atlas).absolute()),
        "atlas_names": None if names is None else str(names.absolute()),
    }


def read_regions(
    job: dict[str, str | None], mask: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, dict[int, str], dict]:
    """Read the region of each voxel of the brain.

    Parameters
    ----------
    job : dict
        As :func:`regions_job` gives it, with an atlas.
    mask : bool array of shape (x, y, z)
    affine : array of shape (4, 4), mm

    Returns
    -------
    labels : int array of shape (n_voxels,)
        0 outside all regions.
    names : dict of int to str
        One line each, whatever blanks stand in the file.
    said : dict
        What the sidecar of the table says of the atlas.
    """
    labels, resampled = volumes.read_labels_onto(job["atlas"], mask, affine)
    if resampled:
        LOG.info(
            "%s: on another grid than the BOLD; each voxel has the label at its centre.",
            job["atlas"],
        )
    files = {"File": job["atlas"], "NamesFile": job["atlas_names"]}
    said = {
        name: {"Name": Path(file).name, "SHA256": sha256(file)}
        for name, file in files.items()
        if file is not None
    }
    names = read_names(job["atlas_names"]) if job["atlas_names"] is not None else {}
    names = {label: " ".join(name.split()) for label, name in names.items()}
    return labels, names, {**said, "Resampled": resampled}


def _check_plan(atlas: str, plan: Plan) -> None:
    if plan.imported:
        if not plan.imported.places_known:
            raise UsageError(
                f"--atlas {atlas}: the places of the imported voxels are unknown. Import them "
                f"again with --mask, or leave it out."
            )
        paths = [plan.imported.mask]
    else:
        check_space(atlas, plan.entities.get("space"))
        paths = [run.mask for run in plan.runs]
    if all(path is not None for path in paths):
        brain = np.logical_and.reduce([volumes.read_mask(path) for path in paths])
        affine = volumes.read_header(paths[0]).affine
    else:
        # The brain is not known yet: regions have to meet at least what was scanned.
        scanned = volumes.read_header(plan.runs[0].bold)
        brain, affine = np.ones(scanned.shape, bool), scanned.affine
    volumes.read_labels_onto(atlas, brain, affine)
