"""Pages from a specification, a template, and figures and tables that are there already.

Nothing is computed here, so that a page can be built again at no cost. The page holds its figures
and needs no other file and no network.
"""

from __future__ import annotations

import base64
import os
import uuid
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.report import group_scores, scores
from hyper_bids.report.spec import sections, specification


@dataclass(frozen=True)
class About:
    """What a page says beside its results."""

    simulated: bool = False
    methods: str = ""
    provenance: dict = field(default_factory=dict)


def write_report(
    path: str | os.PathLike,
    level: str,
    title: str,
    facts: list[tuple[str, str]],
    figures: dict[str, bytes],
    tables: dict[str, object],
    notes: list[str],
    about: About | None = None,
) -> None:
    """Write a page.

    Parameters
    ----------
    path : path
        HTML file to write.
    level : {"participant", "group"}
        Which sections of ``hyper_bids/data/report.toml`` stand on the page.
    title : str
        Heading.
    facts : list of (str, str)
        Names and values of what was analysed, for the box at the top.
    figures : dict
        Key of a section to the figure as PNG, which becomes a part of the page. Figures that no
        section names are not shown.
    tables : dict
        Key of a section to its DataFrame: of a participant ``scores``; of the group ``stats``,
        ``diagnostics``, ``prevalence``, ``comparisons``, ``scores`` and ``published``.
    notes : list of str
        What the reader should know before the results.
    about : About, optional
        Whether the data are simulated (a banner says so), methods text, and provenance as in the
        sidecars.

    Raises
    ------
    ValueError
        If ``level`` is unknown.
    """
    if level not in specification()["levels"]:
        raise ValueError(f"level {level!r}: known are {', '.join(specification()['levels'])}")
    about = about or About()
    headline = tables.get("scores" if level == "participant" else "stats")
    page = _template().render(
        title=title,
        subtitle=specification()["levels"][level]["subtitle"],
        simulated=about.simulated,
        summary="" if headline is None else scores.summary(level, headline),
        facts=facts,
        notes=notes,
        sections=[s for s in (_filled(s, figures, tables, about) for s in sections(level)) if s],
        version=__version__,
    )
    _write(Path(path), page)


def _template():
    from jinja2 import Environment, StrictUndefined

    text = resources.files("hyper_bids").joinpath("data/report.html.j2")
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.from_string(text.read_text(encoding="utf-8"))


def _filled(section: dict, figures: dict, tables: dict, about: About) -> dict | None:
    """Return a section with its material; None where there is none and nothing to say of it."""
    key, kind = section["key"], section["kind"]
    if kind == "figure":
        content = base64.b64encode(figures.get(key, b"")).decode("ascii")
    elif kind == "text":
        content = blocks(about.methods)
    elif kind == "provenance":
        content = provenance_rows(about.provenance)
    elif tables.get(key) is None or not len(tables[key]):
        content = None
    else:
        view = {
            "scores": scores.score_view,
            "participants": scores.participants_view,
            "published": scores.published_view,
            "prevalence": group_scores.prevalence_view,
            "comparisons": group_scores.comparisons_view,
        }[kind]
        content = view(tables[key])
    if content:
        return {**section, "content": content}
    return {**section, "kind": "absent"} if "absent" in section else None


def blocks(text: str) -> list[tuple[str, object]]:
    """Split Markdown of paragraphs, headings and lists into (kind, content)."""
    found = []
    for part in text.strip().split("\n\n"):
        if part.startswith("## "):
            found.append(("heading", part[3:]))
        elif part.startswith("- "):
            found.append(("list", [line.removeprefix("- ") for line in part.splitlines()]))
        elif part:
            found.append(("paragraph", part.replace("`", "")))
    return found


def provenance_rows(provenance: dict) -> list[tuple[str, list[str]]]:
    """Return names and lines of what the sidecars say about where results come from."""
    rows = [("Software", [f"hyper_bids {provenance.get('SoftwareVersion', __version__)}"])]
    if "RandomSeed" in provenance:
        rows.append(("Random seed", [str(provenance["RandomSeed"])]))
    if provenance.get("Missing"):
        rows.append(("Without scores", [f"sub-{label}" for label in provenance["Missing"]]))
    for stage, settings in provenance.get("Settings", {}).items():
        lines = [f"{name} = {_setting(value)}" for name, value in settings.items()]
        rows.append((f"Settings: {stage}", lines))
    if provenance.get("Sources"):
        rows.append(("Sources", [str(source) for source in provenance["Sources"]]))
    return rows


def _setting(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _write(path: Path, page: str) -> None:
    if path.is_file() and path.read_bytes() == page.encode("utf-8"):
        return
    # Another job, or a browser, may have the page open: it sees the old or the new one.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        part.write_text(page, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
