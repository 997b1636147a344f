"""The published values of the method, beside those of a group.

They are from the article (Dado et al. 2022) and from the poster that came before it; how the app
takes them to have been computed is in ``docs/reproducing-hyper.md``.
"""

from __future__ import annotations

from importlib import resources

from hyper_bids.report.scores import KEY


def published():
    """Return the published values, a row each.

    Returns
    -------
    DataFrame
        ``source`` (article, poster), ``participant`` (1, 2), ``method``, ``metric``, ``variant``,
        ``value`` (mean over test faces), ``se``, ``p`` (text).
    """
    import pandas as pd

    path = resources.files("hyper_bids").joinpath("data/published.tsv")
    with path.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, sep="\t", na_values="n/a", keep_default_na=False, dtype={
            "participant": str, "p": str}).fillna({"variant": "n/a"})  # fmt: skip


def beside_published(stats):
    """Return the group's means that have a published counterpart, and that.

    Parameters
    ----------
    stats : DataFrame
        ``group_stats``: method, metric, variant, control, mean.

    Returns
    -------
    DataFrame
        ``method``, ``metric``, ``variant``, ``mean``, and of each source and participant a column,
        such as ``article 1``; NaN where nothing was published. Rows are those of ``stats``, in
        order.
    """
    import pandas as pd

    own = stats[(stats["control"] == "n/a") & stats["mean"].notna()]
    columns: dict[str, dict] = {}
    for row in published().to_dict("records"):
        name = f"{row['source']} {row['participant']}"
        columns.setdefault(name, {})[tuple(row[k] for k in KEY)] = row["value"]
    lines = []
    for row in own.to_dict("records"):
        key = tuple(row[k] for k in KEY)
        found = {name: values.get(key, float("nan")) for name, values in columns.items()}
        if pd.notna(list(found.values())).any():
            lines.append({**dict(zip(KEY, key, strict=True)), "mean": row["mean"], **found})
    return pd.DataFrame(lines, columns=[*KEY, "mean", *columns])
