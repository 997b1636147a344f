"""Names of the derivatives; they stand in ``hyper_bids/data/outputs.json`` and nowhere else."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

ENTITIES = ("subject", "session", "task", "acquisition", "direction", "run", "space", "res", "desc")
# Stands before the label of desc, as in desc-eigenfacePredicted; not an entity of its own.
METHOD = "method"


@cache
def layout() -> dict:
    """Return ``outputs.json``: names of the outputs, their descriptions, ignored patterns."""
    text = resources.files("hyper_bids").joinpath("data/outputs.json").read_text(encoding="utf-8")
    return json.loads(text)


def output_path(key: str, entities: dict[str, str]) -> PurePosixPath:
    """Return where an output stands, relative to the root of the derivatives.

    Parameters
    ----------
    key : str
        Name of the output in ``outputs.json``, such as ``"betas"``.
    entities : dict
        ``subject`` and any of ``session``, ``task``, ``run``, ``space``, ``res`` and ``desc`` to
        labels; what is not there is left out of the name. ``desc`` names the decoder. ``method``
        stands before the label of ``desc``: ``desc-eigenfacePredicted``.

    Returns
    -------
    PurePosixPath
        For example ``sub-01/func/sub-01_task-faces_space-T1w_desc-trials_statmap.nii.gz``.

    Raises
    ------
    KeyError
        If no output has this key.
    ValueError
        If ``subject`` is absent, or an entity is unknown or not a BIDS label.
    """
    names = layout()
    return PurePosixPath(_fill(names["folder"] + "/" + names["files"][key]["name"], entities))


def figure_path(name: str, entities: dict[str, str]) -> PurePosixPath:
    """Return where a participant's figure stands, relative to the root of the derivatives."""
    return PurePosixPath(_fill(layout()["figure"], {**entities, "desc": name}))


def page_path(participant: str) -> PurePosixPath:
    """Return where a participant's page stands, relative to the root of the derivatives."""
    return PurePosixPath(_fill(layout()["page"], {"subject": participant}))


def _fill(pattern: str, entities: dict[str, str]) -> str:
    for name, label in entities.items():
        if name not in (*ENTITIES, METHOD):
            raise ValueError(f"entity {name!r} is unknown; known are {', '.join(ENTITIES)}")
        if not re.fullmatch(r"[0-9A-Za-z+]+", str(label)):
            raise ValueError(f"entity {name!r}: {label!r} is no BIDS label (letters and digits)")
    for part in ("stem", "grid"):
        pattern = pattern.replace(f"{{{part}}}", layout()[part])
    pattern = re.sub(
        r"\[([^\[\]{}]*)\{(\w+)\}\]",
        lambda found: f"{found[1]}{{{found[2]}}}" if found[2] in entities else "",
        pattern,
    )

    def label(found: re.Match) -> str:
        name, default = found[1], found[2]
        if name not in entities and default is None:
            raise ValueError(f"entity {name!r} is missing; it is part of every name")
        return str(entities.get(name, default))

    filled = re.sub(r"\{(\w+)(?:=(\w+))?\}", label, pattern)
    if METHOD not in entities:
        return filled
    found = re.search(r"_desc-([0-9A-Za-z+]+)", filled)
    return filled.replace(found[0], f"_desc-{of_method(entities[METHOD], found[1])}")


def of_method(method: str, label: str) -> str:
    """Return the label of ``desc`` of a method's own output: eigenfacePredicted."""
    return f"{method}{label[0].upper()}{label[1:]}"
