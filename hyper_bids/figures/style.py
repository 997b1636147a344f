"""One look for all figures: sizes, colours (Okabe and Ito 2008), legends, ticks, and saving."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.2  # inches; 900 pixels at the resolution of save()
BLUE, RED, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#767676"
DARK = "#444444"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in this module's look, whatever the user's own matplotlib settings are."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, path: str | os.PathLike | IO[bytes], dpi: int = 110) -> None:
    """Write a figure as PNG without time or version, so that equal figures are equal files."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """Return an empty figure, sizes in inches; it belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def legend_above(axes: Axes, columns: int = 3) -> None:
    """Put the legend above the axes, where it hides no data."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.3,
        handlelength=1.6,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def ticks(n: int) -> np.ndarray:
    """Return at most eleven of the numbers 1 to n, 1 among them."""
    # Not 2: beside 1, its label would touch.
    steps = (s * 10**k for k in range(12) for s in (1, 2, 5) if s * 10**k != 2)
    step = next(s for s in steps if n <= 10 * s)
    return np.arange(1, n + 1) if step == 1 else np.array([1, *range(step, n + 1, step)])


def bins(values: np.ndarray, n: int) -> np.ndarray:
    """Return the edges of ``n`` bins; where all values are the same, the middle one holds them."""
    low, high = float(np.min(values)), float(np.max(values))
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high, n = low - 0.05, low + 0.05, n + 1 - n % 2
    return np.linspace(low, high, n + 1)


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\u2212")


def shortened(text: str, letters: int) -> str:
    """Cut the middle of a name that is too long for its place: its ends tell it from others."""
    if len(text) <= letters:
        return text
    tail = (letters - 1) // 2
    return f"{text[: letters - 1 - tail]}…{text[len(text) - tail :]}"
