"""References in running text: ``[key]`` becomes author and year, and a list at the end."""

from __future__ import annotations

import re

from hyper_bids.report.spec import specification

# Stands for a bracket in a name of the user's, which is no citation.
BRACKET = "\0"


def with_references(paragraphs: list[str]) -> str:
    """Turn ``[key]`` into author and year, and list what was cited by author."""
    references = specification()["references"]
    text = "\n\n".join(paragraphs)
    cited: set[str] = set()

    def name(found: re.Match) -> str:
        keys = found[1].split(", ")
        cited.update(keys)
        return f"({'; '.join(_short(references[key]) for key in keys)})"

    text = re.sub(r"\[((?:[a-z]+\d{4}(?:, )?)+)\]", name, text)
    listed = sorted((references[key] for key in cited), key=str.casefold)
    text = text.replace(BRACKET, "[")
    return text + "\n\n## References\n\n" + "\n".join(f"- {entry}" for entry in listed) + "\n"


def verbatim(name: str) -> str:
    """Return a name of the user's so that its brackets are no citation."""
    return name.replace("[", BRACKET)


def _short(reference: str) -> str:
    authors, year = re.match(r"(.+?) \((\d{4})\)", reference).groups()
    names = [name.rsplit(" ", 1)[0] for name in authors.removesuffix(" et al.").split(", ")]
    if len(names) > 2 or authors.endswith("et al."):
        return f"{names[0]} et al., {year}"
    return f"{' & '.join(names)}, {year}"
