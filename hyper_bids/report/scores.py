"""Tables of scores as people read them: one line a score, its controls beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatch

from hyper_bids.errors import counted
from hyper_bids.report import mindeye
from hyper_bids.report.spec import specification

KEY = ("method", "metric", "variant")
# The control whose p is that of the paper's test.
PRIOR = "random_prior"
CONTROLS = {
    "training_mean": "training mean",
    "mismatched": "mismatched",
    PRIOR: "random latent",
    "refit": "refitted",
    "chance": "chance",
    "targets": "true latents",
}
# At most one of them stands beside a score.
CEILINGS = ("model_ceiling", "noise_ceiling")

# By this score, a prediction that is the same for all stimuli has exactly chance, and p = 1.
_INFORMED = ("two_way_identification", "latents")
ALPHA = 0.05

# Columns of the value, its interval and its count, in the participants' and the group's tables.
_NAMES = {"mean": "value", "n_participants": "n"}


def beside_controls(table):
    """Put each score on one line, with its controls in columns.

    Parameters
    ----------
    table : DataFrame
        Long form: ``method``, ``metric``, ``variant``, ``control`` (n/a or missing for the score
        itself), ``value`` or ``mean``, and any of ``se``, ``ci_low``, ``ci_high``, ``p``, ``n`` or
        ``n_participants``.

    Returns
    -------
    DataFrame
        One row a method, metric and variant in order of first appearance: ``method``, ``metric``,
        ``variant``, ``value``, ``se``, ``ci_low``, ``ci_high``, ``p``, ``p_max``, ``p_prior`` (of
        the control ``random_prior``: the paper's test), ``n``, then one column a control: those of
        :data:`CONTROLS` and any others. NaN where absent.

    Raises
    ------
    ValueError
        If a score or a control stands in the table twice.
    """
    import pandas as pd

    table = table.rename(columns=_NAMES)
    fields = ["value", "se", "ci_low", "ci_high", "p", "p_max", "n"]
    lines: dict[tuple, dict] = {}
    seen = set()
    controls = [*CONTROLS, *CEILINGS]
    for row in table.to_dict("records"):
        key = tuple(text_of(row.get(name)) for name in KEY)
        control = text_of(row.get("control"))
        if (key, control) in seen:
            raise ValueError(f"score {key}, control {control!r}, stands in the table twice")
        seen.add((key, control))
        line = lines.setdefault(key, dict(zip(KEY, key, strict=True)))
        if control == "n/a":
            line.update({name: _float(row.get(name)) for name in fields})
        else:
            line[control] = _float(row.get("value"))
            if control == PRIOR:
                line["p_prior"] = _float(row.get("p"))
            controls += [control] if control not in controls else []
    return pd.DataFrame(
        list(lines.values()), columns=[*KEY, *fields[:-1], "p_prior", "n", *controls]
    )


def score_view(table) -> dict:
    """Return a table of scores as text, for the template.

    Returns
    -------
    dict
        ``columns``, ``rows`` and ``more`` (lists of str; a row of one cell is a heading),
        ``absent`` (names of scores without a value), ``explained`` (name and meaning of each).
    """
    wide = beside_controls(table)
    known = _by_score(wide[wide["value"].notna()])
    several = wide["method"].nunique() > 1
    cells = _cells(known, several)
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    last = None
    for line in known.to_dict("records"):
        name = label(line["metric"], line["variant"])
        held = rows[stands_first(line["metric"], line["variant"])]
        if several and name != last:
            held.append([name])  # a heading for all methods' values
        held.append([text(line) for _, text in cells])
        last = name
    texts = specification()["metrics"]
    return {
        "columns": [name for name, _ in cells],
        "rows": rows[True],
        "more": rows[False],
        "absent": _absent(wide),
        "explained": [
            (texts[metric]["label"], texts[metric]["text"])
            for metric in dict.fromkeys(known["metric"])
            if metric in texts
        ],
    }


def _cells(known, several: bool) -> list[tuple[str, Callable[[dict], str]]]:
    """Return the columns that have something in them: heading, and the text of a line's cell."""

    def value(line: dict) -> str:
        se = f" ± {number(line['se'])}" if is_known(line["se"]) else ""
        return f"{number(line['value'])}{se}"

    def ceiling(line: dict) -> str:
        return next((number(line[c]) for c in CEILINGS if is_known(line.get(c))), "")

    cells: list[tuple[str, Callable]] = [
        ("method", lambda line: method_label(line["method"]))
        if several
        else ("score", lambda line: label(line["metric"], line["variant"])),
        ("value", value),
    ]
    if known["ci_low"].notna().any():
        cells.append(("95 % interval", lambda line: interval(line["ci_low"], line["ci_high"])))
    for key, name in (("p", "p"), ("p_max", "p, corrected")):
        if known[key].notna().any():
            cells.append((name, lambda line, key=key: p_text(line[key])))
    cells += _control_cells(known)
    if any(known[c].notna().any() for c in CEILINGS if c in known):
        cells.append(("ceiling", ceiling))
    if known["n"].nunique() > 1:  # else the summary says it
        cells.append(("n", lambda line: f"{line['n']:.0f}" if is_known(line["n"]) else ""))
    return cells


def _control_cells(known) -> list[tuple[str, Callable[[dict], str]]]:
    """Return the columns of the controls; beside the random latents, p of the paper's test."""
    cells: list[tuple[str, Callable]] = []
    for control in known.columns[known.columns.get_loc("n") + 1 :]:
        if control not in CEILINGS and known[control].notna().any():
            name = CONTROLS.get(control, control.replace("_", " "))
            cells.append((name, lambda line, key=control: number(line[key])))
        if control == PRIOR and known["p_prior"].notna().any():
            cells.append(("p, paper's test", lambda line: p_text(line["p_prior"])))
    return cells


def stands_first(metric: str, variant: str) -> bool:
    """Say whether a score stands in the table that is open, and not among the others below it."""
    first = specification()["metrics"].get(metric, {}).get("first", ["*"])
    return any(fnmatch(variant, pattern) for pattern in first)


def _by_score(wide):
    """Return the lines with all methods' of one score below each other."""
    keys = list(dict.fromkeys(zip(wide["metric"], wide["variant"], strict=True)))
    order = [keys.index(key) for key in zip(wide["metric"], wide["variant"], strict=True)]
    return wide.iloc[sorted(range(len(wide)), key=lambda k: order[k])]


def method_label(name: str) -> str:
    """Return the name of a method as people read it."""
    return specification()["methods"].get(name, name)


def _absent(wide) -> list[str]:
    """Return the names of scores without a value; their forms, where others have one.

    What MindEye2's evaluation asks of networks that were not given is one name, with what to do.
    """
    partly = set(wide.loc[wide["value"].notna(), "metric"])
    absent = wide[wide["value"].isna()]
    names, networks = [], []
    for metric, variant in zip(absent["metric"], absent["variant"], strict=True):
        network = mindeye.network_of(metric, variant)
        if network is None:
            names.append(label(metric, variant if metric in partly else "n/a").lower())
        else:
            networks.append(network)
    return list(dict.fromkeys(names)) + ([mindeye.absent(networks)] if networks else [])


def participants_view(table) -> dict:
    """Return the first method's main scores of each participant as text: one row a participant."""
    texts = specification()["metrics"]
    columns: dict[tuple, str] = {}
    cells: dict[str, dict] = {}
    table = table[table["method"] == table["method"].iloc[0]]
    for row in table.to_dict("records"):
        metric, variant = text_of(row["metric"]), text_of(row["variant"])
        held = cells.setdefault(str(row["participant"]), {})
        main = variant in texts.get(metric, {}).get("main", ())
        if text_of(row["control"]) != "n/a" or not main or not is_known(row["value"]):
            continue
        key = (text_of(row["method"]), metric, variant)
        name = label(metric, variant)
        columns[key] = name
        p = f" ({p_text(row['p'])})" if is_known(row["p"]) else ""
        held[key] = f"{number(row['value'])}{p}"
    rows = [
        [f"sub-{name.removeprefix('sub-')}", *(held.get(key, "") for key in columns)]
        for name, held in cells.items()
    ]
    names = ["participant", *columns.values()]
    return {"columns": names, "rows": rows, "more": [], "absent": [], "explained": []}


def published_view(table) -> dict:
    """Return what :func:`beside_published` gives as text, for the template."""
    sources = list(table.columns[4:])
    rows = [
        [
            label(line["metric"], line["variant"]),
            method_label(line["method"]),
            number(line["mean"]),
            *(number(line[name]) for name in sources),
        ]
        for line in table.to_dict("records")
    ]
    names = ["score", "method", "value", *(name.replace(" ", ", S") for name in sources)]
    return {"columns": names, "rows": rows, "more": [], "absent": [], "explained": []}


def summary(level: str, table) -> str:
    """Say in one sentence how well it went, and against what; first, if nothing was found.

    Information is what two-way identification of the first method shows, by its test of pairings.
    """
    wide = beside_controls(table)
    said, counts = [], []
    for metric, variant, text in (
        ("two_way_identification", "latents", "Two-way identification {value}"),
        ("latent_correlation", "n/a", "latent correlation {value}"),
        ("structural_similarity", "reference", "structural similarity of the images {value}"),
    ):
        found = wide[(wide["metric"] == metric) & (wide["variant"] == variant)]
        if not len(found) or not is_known(found["value"].iloc[0]):
            continue
        line = found.iloc[0]
        against = [f"p {_compared(line['p'])}"] if is_known(line["p"]) else []
        for name, word in (("chance", "chance"), ("mismatched", "mismatched pairs")):
            if is_known(line[name]):
                against.insert(0, f"{word} {number(line[name])}")
                break
        brackets = f" ({', '.join(against)})" if against else ""
        said.append(text.format(value=number(line["value"])) + brackets)
        counts.append(_over(level, line["n"]))
    if not said:
        return ""
    if len(set(counts)) > 1:
        said = [f"{one}{over}" for one, over in zip(said, counts, strict=True)]
    text = "; ".join(said)
    methods = list(dict.fromkeys(wide["method"]))
    if len(methods) > 1:
        text = f"{method_label(methods[0])}: {text[0].lower()}{text[1:]}"
    over = f" {counts[0].strip().capitalize()}." if len(set(counts)) == 1 and counts[0] else ""
    return _verdict(wide) + text[0].upper() + text[1:] + "." + over


def _verdict(wide) -> str:
    """Say that predictions know nothing of what was shown, if so; nothing if they do."""
    found = wide[(wide["metric"] == _INFORMED[0]) & (wide["variant"] == _INFORMED[1])]
    if not len(found) or not is_known(found["p"].iloc[0]) or found["p"].iloc[0] <= ALPHA:
        return ""
    return "No information was found on which stimulus was shown. "


def _over(level: str, n: float) -> str:
    if not is_known(n):
        return ""
    one, many = {
        "participant": ("test stimulus", "test stimuli"),
        "group": ("participant", "participants"),
    }[level]
    return f" over {counted(int(n), one, many)}"


def label(metric: str, variant: str = "n/a") -> str:
    """Return the name of a score as people read it, with its form in brackets."""
    names = specification()
    name = names["metrics"].get(metric, {}).get("label", metric.replace("_", " "))
    form = _form(metric, variant, names["variants"])
    return f"{name} ({form})" if form else name


def _form(metric: str, variant: str, known: dict[str, str]) -> str:
    """Return a form as people read it: ``code, NETWORK`` has the network's name behind it."""
    if metric == "attribute_correlation":
        name, _, others = variant.partition("_c_")
        return f"{name}, free of {others.replace('_', ' and ')}" if others else variant
    first, _, network = variant.partition(", ")
    if metric == "feature_similarity" and network:
        return f"{known.get(first, first)}; {network}"
    return known.get(variant, variant)


def text_of(value: object) -> str:
    """Return a cell of a table as text, ``n/a`` where it is empty."""
    return value if isinstance(value, str) and value else "n/a"


def is_known(value: object) -> bool:
    """Say whether there is a number."""
    return value is not None and not math.isnan(value)


def _float(value: object) -> float:
    import pandas as pd

    return math.nan if value is None or pd.isna(value) else float(value)


def number(value: float) -> str:
    """Return three decimals with a true minus sign; nothing of what is unknown."""
    if not is_known(value):
        return ""
    text = f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\u2212")


def interval(low: float, high: float) -> str:
    """Return both bounds in brackets; nothing if one is unknown."""
    return f"[{number(low)}, {number(high)}]" if is_known(low) and is_known(high) else ""


def p_text(value: float) -> str:
    """Return a p value with two digits; nothing if it is unknown."""
    return f"{value:.2g}" if is_known(value) else ""


def _compared(p: float) -> str:
    return f"= {p_text(p)}"
