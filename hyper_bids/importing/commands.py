"""The two imports: HYPER's published files, and anybody's response matrices."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, UsageError, counted, listing
from hyper_bids.importing import files
from hyper_bids.importing.checks import Encoder, check_sets
from hyper_bids.importing.encode import ModelEncoder, model_of
from hyper_bids.importing.gather import (
    ROLES,
    SETS,
    Reading,
    check_apart,
    check_roles,
    gather,
    split_value,
    takes_parts,
)
from hyper_bids.importing.orientation import Given, said
from hyper_bids.importing.pictures import Pictures
from hyper_bids.importing.write import Grid, Source, check_folder, write_participant

LOG = logging.getLogger("hyper_bids")

HYPER = ("X_tr", "T_tr", "X_te", "T_te")
# The image model whose latents the published files hold, by its name in docs/image-models.md.
HYPER_GENERATOR = "pggan-celebahq-1024"


@dataclass(frozen=True)
class Import:
    """What of which files is imported, as what.

    Attributes
    ----------
    paths : tuple of path
    variables : dict
        Role, such as ``training responses`` or ``test images`` (of both sets: responses, trials,
        latents, images, shown, runs), to the variable: ``NAME``, ``FILE:NAME`` or ``FILE``, or
        several, one after the other. ``trials`` chooses among the responses: row numbers, truth
        values, or ``NAME=VALUE``, all trials where the variable has the value. ``shown`` has the
        row of latents and images of each trial.
    participant : str
        Label without ``sub-``.
    pictures : Pictures
    order : str
        On which axis of the responses trials are: auto, trials-first, trials-last.
    first : int
        Number of the first row in ``shown``: 0, or 1 as in MATLAB.
    drop_voxels, overwrite : bool
        As in :func:`check_sets` and :func:`write_participant`.
    generator, generator_checksum : str, optional
        Image model of the latents.
    n_latents : int, optional
        How many that model takes.
    """

    paths: tuple[Path, ...]
    variables: dict[str, str | tuple[str, ...]]
    participant: str = "01"
    pictures: Pictures = field(default_factory=Pictures)
    order: str = "auto"
    first: int = 0
    drop_voxels: bool = False
    overwrite: bool = False
    generator: str | None = None
    generator_checksum: str | None = None
    n_latents: int | None = None


def import_responses(
    out: Path | str, wanted: Import, encode: Encoder | None = None, grid: Grid | None = None
) -> None:
    """Import one participant's responses.

    Parameters
    ----------
    out : path
        Dataset to make, or of earlier imports.
    wanted : Import
    encode : callable, optional
        Training and test images (uint8) to the latents of both, where no latents are given. By
        default the model that earlier imports into this dataset have, else eigenfaces.
    grid : Grid, optional
        Where the voxels are; of responses that are volumes, those in its mask are taken.

    Raises
    ------
    UsageError, InputError, OutputError
        Before anything is written.
    """
    check_folder(out, wanted.participant, wanted.overwrite)
    encode = encode or ModelEncoder(model_of(out))
    given, found, matrix = _read(wanted, grid)
    sets = check_sets(
        *given, wanted.pictures, "trials-first" if matrix else wanted.order,
        drop_voxels=wanted.drop_voxels, encode=encode,
    )  # fmt: skip
    if wanted.n_latents not in (None, sets[0].latents.shape[1]):
        raise InputError(
            f"--generator {wanted.generator}: the model takes {wanted.n_latents} latents, but the "
            f"stimuli have {sets[0].latents.shape[1]}. Give the model that made the stimuli, or "
            f"leave out --generator."
        )
    coded = given[0].latents is None and isinstance(encode, ModelEncoder)
    source = Source(
        files=tuple(dict.fromkeys(path for held in found.values() for path, _ in held)),
        variables={
            role: ", ".join(f"{path.name}:{name}" for path, name in held)
            for role, held in found.items()
        },
        generator=encode.name if coded else wanted.generator,
        generator_checksum=encode.checksum if coded else wanted.generator_checksum,
        latents="Encoded from the images." if coded else "Given with the responses.",
        save_model=encode.save if coded and encode.is_fitted_here else None,
    )
    write_participant(out, wanted.participant, sets, source, grid, wanted.overwrite)
    LOG.info("sub-%s: imported into %s", wanted.participant, out)


def import_hyper(
    out: Path | str, paths: list[Path], labels: list[str] | None = None, overwrite: bool = False
) -> None:
    """Import HYPER's published files, each of one participant (Dado et al. 2022).

    A file is a pickle of ``X_tr, T_tr, X_te, T_te``: responses (trials x voxels) and latents
    (trials x 512) of training trials, then of test trials, whose repetitions are averaged.

    Parameters
    ----------
    out : path
    paths : list of path
    labels : list of str, optional
        Participants; 01, 02, ... by default.
    overwrite : bool
        Whether participants that are there are replaced.

    Raises
    ------
    UsageError, InputError, OutputError
        All files are checked before anything is written.
    """
    labels = labels or [f"{k + 1:02d}" for k in range(len(paths))]
    if len(labels) != len(paths) or len(set(labels)) != len(labels):
        raise UsageError(
            f"--participant-label {listing(labels)}: {counted(len(labels), 'label')} for "
            f"{counted(len(paths), 'file')}; one for each is wanted, all different."
        )
    checked = []
    for path, label in zip(map(Path, paths), labels, strict=True):
        check_folder(out, label, overwrite)
        sets = check_sets(*hyper_sets(files.all_arrays(path), str(path)))
        checked.append((label, path, sets))
    sizes = {str(path): sets[0].latents.shape[1] for _, path, sets in checked}
    if len(set(sizes.values())) > 1:
        told = listing(f"{path} has {size}" for path, size in sizes.items())
        raise InputError(f"the files disagree in the number of latents: {told}.")
    for label, path, sets in checked:
        variables = {
            role: f"{path.name}:{name}"
            for role, name in zip(
                ("training responses", "training latents", "test responses", "test latents"),
                HYPER,
                strict=True,
            )
        }
        source = Source((path,), variables, HYPER_GENERATOR)
        write_participant(out, label, sets, source, overwrite=overwrite)
        LOG.info("sub-%s: imported from %s into %s", label, path, out)


def hyper_sets(arrays: dict[str, np.ndarray], path: str) -> tuple[Given, Given]:
    """Sort the four arrays of HYPER's published data: X_tr, T_tr, X_te, T_te.

    Parameters
    ----------
    arrays : dict
        Name to array, in the order of the file.
    path : str
        For messages.

    Raises
    ------
    InputError
        If these are not four matrices.
    """
    named = [arrays.get(name) for name in HYPER]
    if any(array is None for array in named):
        named = list(arrays.values())
    if len(named) != 4 or any(array.ndim != 2 for array in named):
        found = listing(f"{name} {said(array.shape)}" for name, array in arrays.items())
        raise InputError(
            f"{path}: four matrices are wanted ({', '.join(HYPER)}: responses and latents of "
            f"training trials, then of test trials); there are {found}. For other files there is "
            f"import-responses."
        )
    where = [{"responses": f"{path}: {x}", "latents": f"{path}: {t}"}
             for x, t in (HYPER[:2], HYPER[2:])]  # fmt: skip
    return Given(*named[:2], where=where[0]), Given(*named[2:], where=where[1])


def _read(wanted: Import, grid: Grid | None) -> tuple[list[Given], dict, bool]:
    """Return both sets, where each role was found, and whether trials are on the first axis."""
    variables = {
        role: (held,) if isinstance(held, str) else tuple(held)
        for role, held in wanted.variables.items()
    }
    check_roles(variables)
    values = {}
    for role in [role for role in variables if role.endswith(" trials")]:
        split = [split_value(name) for name in variables[role]]
        variables[role] = tuple(name for name, _ in split)
        if len({value for _, value in split}) > 1:
            raise UsageError(
                f"{role}, {' '.join(variables[role])}: one value for all variables is wanted."
            )
        values[role] = split[0][1]
    found = {
        role: tuple(files.find(wanted.paths, name) for name in held)
        for role, held in variables.items()
    }
    matrix = takes_parts(variables, None if grid is None else grid.mask)
    given, taken = [], []
    for name in SETS:
        own = {role: found[f"{name} {role}"] for role in ROLES if f"{name} {role}" in found}
        mask = None if grid is None else grid.mask
        reading = Reading(own, wanted.first, wanted.order, mask, matrix)
        arrays, trials = gather(reading, values.get(f"{name} trials"))
        given.append(arrays)
        taken.append(trials)
    check_apart(*taken)
    return given, found, matrix
