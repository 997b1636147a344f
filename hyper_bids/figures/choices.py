"""Figure of the models of the BOLD that were compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import BLUE, DARK, GREY, RED, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOISE = {"ols": "white noise", "ar1": "AR(1) noise"}


@styled
def model_choice(table: list[dict]) -> Figure:
    """Draw the score of each variant, one panel a step.

    Parameters
    ----------
    table : list of dict
        Rows with ``choice`` (the step), the variant (``drift_order``, ``noise_model``,
        ``n_components``, ``hrf``, ``shrinkage``), ``score`` and ``chosen``.

    Returns
    -------
    Figure
    """
    steps = list(dict.fromkeys(row["choice"] for row in table))
    groups = [[row for row in table if row["choice"] == step] for step in steps]
    figure = new_figure(WIDTH, 3.4)
    widths = [max(len({_place(row) for row in rows}), 3) for rows in groups]
    panels = figure.subplots(1, len(steps), sharey=True, width_ratios=widths, squeeze=False)[0]
    for axes, step, rows in zip(panels, steps, groups, strict=True):
        places = list(dict.fromkeys(_place(row) for row in rows))
        for kind, colour, marker in (("ols", GREY, "s"), ("ar1", BLUE, "o")):
            own = [row for row in rows if row["noise_model"] == kind]
            if own:
                x = [places.index(_place(row)) for row in own]
                axes.plot(
                    x, [row["score"] for row in own], color=colour, marker=marker, markersize=4,
                    linewidth=1.2, label=_NOISE[kind],
                )  # fmt: skip
        best = next(row for row in rows if row["chosen"])
        axes.plot(
            places.index(_place(best)), best["score"], "o", markersize=12, markerfacecolor="none",
            markeredgecolor=RED, markeredgewidth=1.5,
        )  # fmt: skip
        axes.set_title(step.replace(" f", "\nf"), fontsize=10, color=DARK)
        axes.set_xticks(np.arange(len(places)), places, fontsize=9)
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_xlabel(_AXES.get(step, ""))
    panels[0].set_ylabel("correlation with what\nthe stimuli predict")
    lines: dict = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    figure.legend(lines.values(), lines.keys(), loc="outside upper right", ncols=2, fontsize=9)
    return figure


_AXES = {"drift and noise": "order of drift", "noise components": "number"}


def _place(row: dict) -> str:
    return {
        "drift and noise": str(row["drift_order"]),
        "noise components": str(row["n_components"]),
        "response function": "own" if row["hrf"] == "library" else row["hrf"],
        "shrinkage": "yes" if row["shrinkage"] else "no",
    }[row["choice"]]
