"""Tables that only the group's page has, as people read them: how many people, which method."""

from __future__ import annotations

import math

from hyper_bids.report.scores import (
    interval,
    is_known,
    label,
    method_label,
    number,
    p_text,
    stands_first,
    text_of,
)
from hyper_bids.report.spec import specification


def prevalence_view(table) -> dict:
    """Return in how many participants, and people, the main scores are above chance, as text.

    Parameters
    ----------
    table : DataFrame
        ``group_stats``: with ``n_participants``, ``n_significant``, ``prevalence``,
        ``prevalence_low``; without them, there are no rows.

    Returns
    -------
    dict
        As :func:`scores.score_view`.
    """
    texts = specification()["metrics"]
    lines = [
        line
        for line in table.to_dict("records")
        if is_known(line.get("n_significant", math.nan)) and is_known(line["prevalence_low"])
        and text_of(line["variant"]) in texts.get(line["metric"], {}).get("main", ())
    ]  # fmt: skip
    several = len({line["method"] for line in lines}) > 1
    rows = [
        [
            label(line["metric"], text_of(line["variant"])),
            *([method_label(line["method"])] if several else []),
            f"{line['n_significant']:.0f} of {line['n_participants']:.0f}",
            f"at least {math.floor(100 * line['prevalence_low'] + 1e-9)} % of people",
            f"{100 * line['prevalence']:.0f} %",
        ]
        for line in lines
    ]
    columns = ["score", *(["method"] if several else []), "participants", "people", "most likely"]
    return _view(columns, rows)


def comparisons_view(table) -> dict:
    """Return the comparisons of methods as text.

    Parameters
    ----------
    table : DataFrame
        ``group_comparisons``.

    Returns
    -------
    dict
        As :func:`scores.score_view`.
    """
    rows: dict[bool, list] = {True: [], False: []}
    for line in table.to_dict("records"):
        cells = [
            label(line["metric"], text_of(line["variant"])),
            f"{method_label(line['method'])} \u2212 {method_label(line['other'])}",
            number(line["difference"])
            + (f" ± {number(line['se'])}" if is_known(line["se"]) else ""),
            interval(line["ci_low"], line["ci_high"]),
            p_text(line["p"]),
            f"{line['n_participants']:.0f}",
        ]
        rows[stands_first(line["metric"], text_of(line["variant"]))].append(cells)
    columns = ["score", "methods", "difference", "95 % interval", "p", "n"]
    return _view(columns, rows[True] or rows[False], rows[False] if rows[True] else [])


def _view(columns: list[str], rows: list[list[str]], more: list[list[str]] | None = None) -> dict:
    if not rows:
        return {}
    return {"columns": columns, "rows": rows, "more": more or [], "absent": [], "explained": []}
