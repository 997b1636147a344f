"""The figure of attributes: predicted against true scores, a small panel an attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import BLUE, GREY, WIDTH, new_figure, number, shortened, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 28

_COLUMNS = 4


@styled
def attribute_scatter(
    true: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    r: Sequence[float],
    p: Sequence[float],
) -> Figure:
    """Draw predicted against true scores of each attribute, a point a test stimulus.

    Parameters
    ----------
    true, predicted : array of shape (n_stimuli, n_attributes)
        Scores; each panel has its own range, as predictions are drawn towards their mean.
    names : sequence of str
        Attributes. Of more than 28 the first 28 are drawn, and the figure says so.
    r, p : sequence of float
        Correlation and permutation p of each, for the titles; NaN where undefined.

    Returns
    -------
    Figure
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape or true.shape[1:] != (len(names),) or not len(names):
        raise ValueError(
            f"scores {true.shape} and {predicted.shape} of {len(names)} attributes do not pair"
        )
    n = min(len(names), MAX_PANELS)
    columns = min(_COLUMNS, n)
    rows = math.ceil(n / columns)
    width = max(WIDTH * columns / _COLUMNS, 3.4)
    above = 0.3 if len(names) > n else 0.0
    figure = new_figure(width, 2.05 * rows + 0.35 + above)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, axes in enumerate(panels[:n]):
        _panel(axes, true[:, k], predicted[:, k])
        said = f"r = {number(r[k])}, p = {p[k]:.2g}" if np.isfinite([r[k], p[k]]).all() else "r n/a"
        axes.set_title(f"{shortened(names[k], 21)}\n{said}", fontsize=8.5, loc="left")
    for axes in panels[n:]:
        axes.axis("off")
    figure.supxlabel("score of the stimulus shown", fontsize=10)
    figure.supylabel("predicted score", fontsize=10)
    if len(names) > n:
        figure.suptitle(f"The first {n} of {len(names)} attributes", fontsize=10, x=0.02, ha="left")
    return figure


def _panel(axes: Axes, true: np.ndarray, predicted: np.ndarray) -> None:
    axes.plot(true, predicted, "o", color=BLUE, markersize=4, alpha=0.65, markeredgewidth=0)
    if np.ptp(true) > 0:
        slope, offset = np.polyfit(true, predicted, 1)
        ends = np.array([true.min(), true.max()])
        axes.plot(ends, slope * ends + offset, color=GREY, linewidth=1.2)
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=8)
    axes.margins(0.1)
