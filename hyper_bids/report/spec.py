"""The specification of the pages: sections, captions, names of scores, references."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def specification() -> dict:
    """Return ``hyper_bids/data/report.toml``."""
    text = resources.files("hyper_bids").joinpath("data/report.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def sections(level: str) -> list[dict]:
    """Return the sections of a page of ``level``, in order."""
    return [s for s in specification()["section"] if s["level"] in (level, "both")]
