"""Choosing BOLD by entities, so that no filter goes unused or empties the set unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from hyper_bids.bids.dataset import clean_labels
from hyper_bids.bids.index import ENTITIES, BidsFile
from hyper_bids.bids.tables import close, read_json
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError, listing

LOG = logging.getLogger("hyper_bids")

# What one image of the same run can differ in: how the volumes were resampled.
GRID = ("space", "cohort", "res", "den")
# Native space: fMRIPrep's name of the space that file names do not state.
NATIVE = "func"

_FILTERABLE = (
    "session", "task", "acquisition", "ceagent", "tracer", "reconstruction", "direction", "run",
    "echo", "part", "proc", "chunk", "space", "cohort", "res", "den", "desc",
    "datatype", "suffix", "extension",
)  # fmt: skip
_ALIASES = {**ENTITIES, "resolution": "res", "density": "den", "description": "desc"}


def choose_bold(
    files: Iterable[BidsFile], participant: str, settings: InputSettings, preprocessed: bool
) -> list[BidsFile]:
    """Return the BOLD images that all filters let through.

    Parameters
    ----------
    files : the participant's files, of the raw dataset or of all derivatives
    participant : label, for messages
    settings : InputSettings
    preprocessed : whether the files are derivatives, to which ``desc_label`` and ``space`` apply

    Raises
    ------
    UsageError
        If a filter lets nothing through; the message names it and lists the labels that are there.
    InputError
        If there is no BOLD at all.
    """
    chosen = [
        file for file in files if file.suffix == "bold" and file.extension in (".nii", ".nii.gz")
    ]
    if not preprocessed:
        chosen = [file for file in chosen if "desc" not in file.entities]
        if settings.space is not None:
            raise UsageError(
                f"--space {settings.space}: raw BOLD has no space; give preprocessed data with "
                f"--derivatives, or leave out --space."
            )
    if not chosen:
        where = "the --derivatives" if preprocessed else "the dataset"
        raise InputError(
            f"sub-{participant}: no BOLD in {where}; looked for "
            f"sub-{participant}/[ses-*/]func/*_bold.nii.gz."
        )
    wanted = read_filter_file(settings.bids_filter_file)
    if preprocessed and "desc" not in wanted:
        label = settings.desc_label.removeprefix("desc-")
        chosen = _keep(chosen, participant, f"--desc-label {label}", "desc", [label])
    for flag, entity, prefix, given in (
        ("--session-label", "session", "ses", settings.session_label),
        ("--task-id", "task", "task", settings.task_id),
        ("--run-id", "run", "run", settings.run_id),
    ):
        if given:
            labels = list(clean_labels(flag, prefix, given))
            chosen = _keep(chosen, participant, f"{flag} {' '.join(labels)}", entity, labels)
    for entity, values in wanted.items():
        chosen = _keep(chosen, participant, f"--bids-filter-file: {entity}", entity, values)
    if settings.space is not None:
        for entity, value in parse_space(settings.space).items():
            chosen = _keep(chosen, participant, f"--space {settings.space}", entity, [value])
    _check_one_space(chosen, participant)
    return chosen


def read_filter_file(path: str | None) -> dict[str, list[str | None]]:
    """Read ``{"bold": {entity: value or list}}``; null stands for "not in the name".

    Returns
    -------
    dict
        Entity, as pybids calls it, to the accepted values.

    Raises
    ------
    UsageError
        If the file cannot be read, or has an unknown query or entity.
    """
    if path is None:
        return {}
    flag = f"--bids-filter-file {path}"
    try:
        content = read_json(Path(path))
    except InputError as error:
        raise UsageError(f"--bids-filter-file {error}") from None
    for query, entities in content.items():
        if query != "bold":
            raise UsageError(f"{flag}: unknown query {query!r}; only bold is known.")
        if not isinstance(entities, dict):
            raise UsageError(f'{flag}: bold must be an object, such as {{"task": "faces"}}.')
    wanted = {}
    for given, value in content.get("bold", {}).items():
        entity = _ALIASES.get(given, given)
        if entity not in _FILTERABLE:
            raise UsageError(
                f"{flag}: unknown entity {given!r} in bold; {close(given, _FILTERABLE)}."
            )
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str | int | None) and not isinstance(v, bool) for v in values):
            raise UsageError(
                f"{flag}: {given} = {value!r}; a label, a list of labels or null is wanted."
            )
        wanted[entity] = [None if v is None else str(v) for v in values]
    return wanted


def parse_space(text: str) -> dict[str, str | None]:
    """Split ``SPACE[:res-X][:cohort-Y]``, as fMRIPrep's --output-spaces writes it, into entities.

    ``func`` is the space that names do not state.
    """
    space, *more = text.removeprefix("space-").split(":")
    wanted: dict[str, str | None] = {"space": None if space == NATIVE else space}
    for pair in more:
        key, separator, value = pair.partition("-")
        if not separator or key not in GRID[1:]:
            raise UsageError(
                f"--space {text}: {pair!r} is not understood; write SPACE, SPACE:res-2 or "
                f"SPACE:cohort-1."
            )
        wanted[key] = value
    return wanted


def same_label(a: str | None, b: str | None) -> bool:
    """Say whether two labels are the same; numbers are, whatever zeros precede them."""
    if a is None or b is None:
        return a is b
    return int(a) == int(b) if a.isdecimal() and b.isdecimal() else a == b


def space_name(file: BidsFile) -> str:
    """Return the space of an image as ``--space`` takes it."""
    more = (f":{key}-{file.entities[key]}" for key in GRID[1:] if key in file.entities)
    return file.entities.get("space", NATIVE) + "".join(more)


def _keep(
    files: list[BidsFile], participant: str, flag: str, entity: str, values: list[str | None]
) -> list[BidsFile]:
    value_of = _reader(entity)
    there = sorted({value_of(file) or "none" for file in files})
    kept = [file for file in files if any(same_label(value_of(file), v) for v in values)]
    if not kept:
        raise UsageError(
            f"{flag}: no BOLD of sub-{participant} is left; {entity} is {listing(there)} in what "
            f"the other filters let through."
        )
    unused = [v for v in values if not any(same_label(value_of(file), v) for file in kept)]
    if unused:
        LOG.warning(
            "%s: sub-%s has no BOLD with %s %s; there are %s.",
            flag, participant, entity, listing(unused), listing(there),
        )  # fmt: skip
    return kept


def _reader(entity: str) -> Callable[[BidsFile], str | None]:
    if entity == "datatype":
        return lambda file: file.path.parent.name
    if entity in ("suffix", "extension"):
        return lambda file: getattr(file, entity)
    return lambda file: file.entities.get(entity)


def _check_one_space(files: list[BidsFile], participant: str) -> None:
    spaces = sorted({space_name(file) for file in files})
    if len(spaces) > 1:
        raise UsageError(
            f"sub-{participant}: BOLD in {len(spaces)} spaces, {listing(spaces)}; choose one with "
            f"--space (such as --space {spaces[0]})."
        )
