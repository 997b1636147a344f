"""Figures of motion: its course over all runs, and the image that volumes were aligned to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WIDTH,
    legend_above,
    new_figure,
    number,
    shortened,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = ((BLUE, "-", "x"), (ORANGE, "-", "y"), (GREEN, "-", "z"))
_HEIGHTS = (1.0, 1.0, 0.9, 0.9)
_LETTER = 0.085  # inches, of a label of a run
_LARGE = 0.5  # mm; Power et al. 2012 leave out volumes above it


@styled
def motion_traces(
    parameters: Sequence[np.ndarray],
    displacement: Sequence[np.ndarray],
    dvars: Sequence[np.ndarray],
    labels: Sequence[str],
) -> Figure:
    """Draw motion and change of the image over the volumes of all runs, one run after the other.

    Parameters
    ----------
    parameters : sequence of arrays of shape (n_volumes, 6)
        Translations in mm, then rotations in radians, of each run.
    displacement, dvars : sequence of arrays of shape (n_volumes,)
        Framewise displacement in mm, and standardised DVARS, of each run; NaN where undefined.
    labels : sequence of str
        Name of each run.

    Returns
    -------
    Figure
    """
    lengths = [len(run) for run in parameters]
    if not lengths or any(
        [len(run) for run in other] != lengths for other in (displacement, dvars)
    ):
        raise ValueError("parameters, displacement and DVARS are not of the same runs and volumes")
    figure = new_figure(WIDTH, 7.4)
    panels = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": _HEIGHTS})
    together = np.concatenate([np.asarray(run, float) for run in parameters])
    for axes, columns in zip(
        panels[:2], (together[:, :3], np.rad2deg(together[:, 3:])), strict=True
    ):
        for values, (colour, line, name) in zip(columns.T, _AXES, strict=True):
            _trace(axes, values, lengths, color=colour, linestyle=line, label=name)
    panels[0].set_ylabel("translation\n(mm)")
    panels[1].set_ylabel("rotation\n(degrees)")
    _measure(panels[2], displacement, lengths, "framewise\ndispl. (mm)", _LARGE)
    _measure(panels[3], dvars, lengths, "DVARS\n(standardised)", None)
    starts = np.cumsum([0, *lengths])
    for axes in panels:
        for start in starts[1:-1]:
            axes.axvline(start + 0.5, color=GREY, linewidth=0.8, linestyle=":")
        if axes.get_legend_handles_labels()[1]:
            legend_above(axes)
    panels[3].set(xlabel="volume, all runs", xlim=(0.5, starts[-1] + 0.5))
    _name_runs(panels[0], starts, labels)
    return figure


def _trace(axes: Axes, values: np.ndarray, lengths: Sequence[int], **look) -> None:
    """Draw a line that breaks where a run ends."""
    ends = np.cumsum(lengths)[:-1]
    x = np.insert(np.arange(1.0, len(values) + 1), ends, np.nan)
    marker = "o" if len(values) < 20 else None
    axes.plot(
        x, np.insert(values, ends, np.nan), linewidth=1.2, marker=marker, markersize=3, **look
    )


def _measure(
    axes: Axes, runs: Sequence[np.ndarray], lengths: Sequence[int], name: str, large: float | None
) -> None:
    values = np.concatenate([np.asarray(run, float) for run in runs])
    known = values[np.isfinite(values)]
    text = f"mean: {number(known.mean())}; largest: {number(known.max())}" if len(known) else None
    _trace(axes, values, lengths, color=BLUE, label=text)
    if large is not None:
        n = int((known > large).sum())
        text = f"{n} of {len(values)} volumes above {large:g} mm"
        # A line far above all values would flatten them.
        if len(known) and known.max() > large / 2:
            axes.axhline(large, color=RED, linestyle="--", linewidth=1.2, label=text)
        else:
            axes.plot([], [], linestyle="none", label=text)
    axes.set_ylabel(name)
    axes.set_ylim(0, 1.08 * max(known.max(), 1e-6) if len(known) else 1.0)


def _name_runs(axes: Axes, starts: np.ndarray, labels: Sequence[str]) -> None:
    """Write the names of runs inside the top of a panel, where each has room for its own."""
    room = (WIDTH - 1.0) * np.diff(starts) / starts[-1] / _LETTER
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
    for start, letters, label in zip(starts, room, labels, strict=False):
        if letters >= min(4, len(str(label))):
            text = shortened(str(label), int(letters))
            place = (start + 0.5 + 0.006 * starts[-1], 0.99)
            axes.text(*place, text, transform=axes.get_xaxis_transform(), va="top", fontsize=9)


@styled
def reference_outline(reference: np.ndarray, mask: np.ndarray, n_slices: int = 8) -> Figure:
    """Draw axial slices of the reference with the outline of the brain mask.

    Parameters
    ----------
    reference : array of shape (x, y, z)
    mask : bool array of shape (x, y, z)
    n_slices : int
        Slices at most, evenly through the mask.

    Returns
    -------
    Figure
    """
    reference, mask = np.nan_to_num(np.asarray(reference, float)), np.asarray(mask, bool)
    if reference.shape != mask.shape or reference.ndim != 3:
        raise ValueError(f"reference {reference.shape} and mask {mask.shape} differ")
    held = np.flatnonzero(mask.any(axis=(0, 1)))
    first, last = (held[0], held[-1]) if len(held) else (0, mask.shape[2] - 1)
    # The outermost slices of a mask hold hardly a voxel.
    ends = (first + 0.04 * (last - first), last - 0.04 * (last - first))
    slices = np.unique(np.linspace(*ends, n_slices).round().astype(int))
    rows = math.ceil(len(slices) / 4)
    columns = math.ceil(len(slices) / rows)
    tile = min(WIDTH / columns, 2.6)
    tall = tile * reference.shape[1] / reference.shape[0]
    figure = new_figure(max(tile * columns, 4.2), rows * (tall + 0.25) + 0.1)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    bright = float(np.percentile(reference[mask], 99)) if mask.any() else float(reference.max())
    look = {"cmap": "gray", "vmin": 0, "vmax": max(1.1 * bright, 1e-6), "interpolation": "nearest"}
    for axes, k in zip(panels, slices, strict=False):
        axes.imshow(reference[:, :, k].T, origin="lower", **look)
        # The edge of the image closes an outline that reaches it.
        outline = np.pad(mask[:, :, k], 1).T.astype(float)
        if outline.any():
            places = [np.arange(-1, n + 1) for n in reference.shape[:2]]
            axes.contour(*places, outline, levels=[0.5], colors=[ORANGE], linewidths=1.2)
        axes.set_title(f"slice {k + 1}", fontsize=10, loc="center", pad=3)
    for axes in panels:
        axes.axis("off")
    return figure
