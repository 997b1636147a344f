"""A dataset as a whole: its description, its participants, and the derivatives that go with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hyper_bids.bids.tables import close, read_json
from hyper_bids.container import mount_hint
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.filekinds import is_absent

SIMULATION = "hyper_bids simulate"
IMPORT = "hyper_bids import"
DESCRIPTION = "dataset_description.json"

# The dashes that word processors put where a hyphen was typed.
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"


def read_description(bids_dir: Path | str) -> dict:
    """Read ``dataset_description.json``, which makes a folder a BIDS dataset.

    Raises
    ------
    UsageError
        If there is no such folder.
    InputError
        If the file is missing, is no JSON object, or lacks Name or BIDSVersion.
    """
    bids_dir = Path(bids_dir)
    if not bids_dir.is_dir():
        raise UsageError(
            f"{bids_dir}: no such folder; give the root of a BIDS dataset.{mount_hint(bids_dir)}"
        )
    path = bids_dir / DESCRIPTION
    if not path.is_file() and not path.is_symlink():
        inside = _datasets_inside(bids_dir)
        hint = f" There is one in {listing(inside)}: give that." if inside else ""
        lacking = f"there is no {DESCRIPTION} in it."
        if not any(bids_dir.iterdir()):
            lacking, hint = f"it is empty: no {DESCRIPTION}.", mount_hint(bids_dir)
        raise InputError(f"{bids_dir}: not a BIDS dataset, {lacking}{hint}")
    description = read_json(path)
    lacking = [key for key in ("Name", "BIDSVersion") if not description.get(key)]
    if lacking:
        raise InputError(
            f"{path}: not a valid dataset description, {listing(lacking)} is missing. Add it."
        )
    return description


def is_simulated(description: dict) -> bool:
    """Say whether ``hyper_bids simulate`` wrote the dataset with this description."""
    return _is_made_by(SIMULATION, description)


def is_import(description: dict) -> bool:
    """Say whether the dataset with this description holds imported responses, and no BOLD."""
    return _is_made_by(IMPORT, description)


def _is_made_by(program: str, description: dict) -> bool:
    programs = description.get("GeneratedBy") or []
    return any(isinstance(p, dict) and p.get("Name") == program for p in programs)


def participants(bids_dir: Path | str) -> list[str]:
    """Return the labels of the ``sub-*`` folders, sorted. Only the root folder is listed."""
    return sorted(
        path.name.removeprefix("sub-")
        for path in Path(bids_dir).iterdir()
        if re.fullmatch("sub-[0-9A-Za-z+]+", path.name) and path.is_dir()
    )


def chosen_participants(bids_dir: Path | str, labels: Iterable[str]) -> list[str]:
    """Return the participants to run: all of them, or those that ``labels`` name.

    Parameters
    ----------
    bids_dir : path
    labels : labels with or without ``sub-``; none means all

    Raises
    ------
    UsageError
        If a label is malformed or not in the dataset; the message lists what is there.
    InputError
        If the dataset has no participant.
    """
    there = participants(bids_dir)
    if not there:
        raise InputError(f"{bids_dir}: there are no participants (folders sub-*) in it.")
    labels = clean_labels("--participant-label", "sub", labels)
    absent = [label for label in labels if label not in there]
    if absent:
        named = [label for label in absent if label in _named(Path(bids_dir))]
        more = (
            f" {listing(named)} stands in participants.tsv: its folder is missing." if named else ""
        )
        raise UsageError(
            f"--participant-label {listing(absent)}: no such participant in {bids_dir}; "
            f"{close(absent[0], there)}.{more}"
        )
    return list(labels) or there


def _named(bids_dir: Path) -> list[str]:
    """Return the labels in ``participants.tsv``; none where it cannot be read."""
    try:
        lines = (bids_dir / "participants.tsv").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.split("\t")[0].strip().removeprefix("sub-") for line in lines[1:]]


def clean_labels(flag: str, prefix: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels without ``prefix``, each once, or raise UsageError naming the flag."""
    found = {}
    for given in labels:
        label = str(given).removeprefix(f"{prefix}-")
        if label[:1] and label[0] in _DASHES:
            raise UsageError(
                f"{flag} {given!r}: it begins with a dash that is not ASCII, as word processors "
                f"write it; type the flag again with plain hyphens."
            )
        if not re.fullmatch("[0-9A-Za-z+]+", label):
            raise UsageError(
                f"{flag} {given!r}: not a label; letters and digits are accepted, with or without "
                f"{prefix}- before them."
            )
        found[label] = None
    return tuple(found)


def derivative_roots(derivatives: Iterable[str]) -> dict[str, Path]:
    """Return the folders given with ``--derivatives``, under the names that BIDS URIs use.

    Parameters
    ----------
    derivatives : ``PATH`` or ``NAME=PATH`` each; those without NAME are preproc, preproc2, ...

    Raises
    ------
    UsageError
        If a folder does not exist, or two have one name.
    InputError
        If a folder is not a BIDS dataset.
    """
    roots: dict[str, Path] = {}
    for rank, given in enumerate(derivatives, start=1):
        name, separator, path = given.partition("=")
        # A path may hold an equals sign, too.
        if not separator or not re.fullmatch("[0-9A-Za-z_.-]+", name) or Path(given).is_dir():
            name, path = "preproc" if rank == 1 else f"preproc{rank}", given
        if name in roots or name == "raw":
            raise UsageError(
                f"--derivatives {given}: the name {name} is taken; give each its own NAME=PATH."
            )
        root = Path(path).absolute()
        if not root.is_dir():
            raise UsageError(
                f"--derivatives {given}: no such folder; give PATH or NAME=PATH of preprocessed "
                f"data, such as fMRIPrep's output folder.{mount_hint(root)}"
            )
        # What was not fetched is told later, with all other such files.
        if not is_absent(root / DESCRIPTION):
            read_description(root)
        roots[name] = root
    return roots


def _datasets_inside(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{DESCRIPTION}"))
