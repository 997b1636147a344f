"""Figure of regions: one bar a region, side by side for each of its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import BLUE, DARK, GREY, WIDTH, new_figure, shortened, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_REGIONS = 40
_LETTERS = 30


@styled
def region_bars(
    names: list[str], columns: dict[str, np.ndarray], by: str, last_is_rest: bool = True
) -> Figure:
    """Draw the numbers of each region as bars, the regions in the order of one of them.

    Parameters
    ----------
    names : list of str
        Regions. Of more than 40, the first 40 in the order are drawn, and the figure says so.
    columns : dict of str to array of shape (n_regions,)
        What a panel shows, and its numbers; a region whose number is NaN has no bar.
    by : str
        The key of ``columns`` that orders the regions, the largest first.
    last_is_rest : bool
        Whether the last one is what lies outside all regions: it is drawn last, in grey.

    Returns
    -------
    Figure
    """
    for label, values in columns.items():
        if len(values) != len(names):
            raise ValueError(f"{label}: {len(values)} numbers for {len(names)} regions")
    own = np.nan_to_num(np.asarray(columns[by], float)[: len(names) - last_is_rest], nan=-np.inf)
    order = np.argsort(-own, kind="stable")
    shown = order[:MAX_REGIONS]
    if last_is_rest:
        shown = np.append(shown, len(names) - 1)
    places = np.arange(len(shown))
    colours = [GREY if last_is_rest and k == len(names) - 1 else BLUE for k in shown]
    figure = new_figure(WIDTH, 1.1 + 0.24 * len(shown))
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (label, values) in zip(panels, columns.items(), strict=True):
        axes.barh(places, np.asarray(values, float)[shown], color=colours, height=0.7)
        axes.axvline(0, color=DARK, linewidth=0.8)
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, [shortened(names[k], _LETTERS) for k in shown], fontsize=9)
    panels[0].set_ylim(len(shown) - 0.4, -0.6)
    if len(order) > MAX_REGIONS:
        panels[0].set_title(f"The first {MAX_REGIONS} of {len(order)} regions", fontsize=10)
    return figure
