"""Figures that show images: reconstructions beside stimuli, and voxels on the brain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import DARK, WIDTH, new_figure, shortened, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PAIRS = 60

_LEFT = 1.05  # inches, for the names of the rows
_LINE = 0.16  # inches, of a line of text below a stimulus' images
_GAP = 0.16  # inches, between blocks of rows
_INNER = 0.02  # inches of white around an image


def reconstruction_grid(
    stimuli: np.ndarray,
    reconstructions: np.ndarray,
    labels: Sequence[str],
    captions: Sequence[str] | None = None,
    columns: int = 10,
) -> Figure:
    """Draw what was shown above what was reconstructed, pair by pair.

    Parameters
    ----------
    stimuli, reconstructions : uint8 array of shape (n, height, width, 3)
        Images that were shown, and their reconstructions in the same order.
    labels, captions, columns
        As for :func:`method_grid`.

    Returns
    -------
    Figure
    """
    rows = {"shown": stimuli, "reconstructed": reconstructions}
    return method_grid(rows, labels, captions, columns)


@styled
def method_grid(
    rows: Mapping[str, np.ndarray],
    labels: Sequence[str],
    captions: Sequence[str] | None = None,
    columns: int = 10,
) -> Figure:
    """Draw several images of each stimulus below each other.

    Parameters
    ----------
    rows : mapping of str to uint8 array of shape (n, height, width, 3)
        What the images are, such as shown or the name of a method, to the images; all of one size
        and in one order.
    labels : sequence of str
        Name of each stimulus, below its images.
    captions : sequence of str, optional
        One more line below, such as its score.
    columns : int
        Stimuli side by side. Of more than 60 the first 60 are drawn, and the figure says so.

    Returns
    -------
    Figure
    """
    shapes = {images.shape for images in rows.values()}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 4 or not shape[0] or shape[3] != 3:
        told = ", ".join(f"{name} {images.shape}" for name, images in rows.items())
        raise ValueError(f"images do not go together: {told}")
    n = min(shape[0], MAX_PAIRS)
    columns = min(columns, n)
    tile = min(1.35, (WIDTH - _LEFT - 0.05) / columns)
    tall = tile * shape[1] / shape[2]
    above = 0.3 if shape[0] > n else 0.05
    text = _LINE * (2 if captions is not None else 1) + 0.06
    step = len(rows) * tall + text + _GAP
    n_blocks = math.ceil(n / columns)
    size = (_LEFT + tile * columns + 0.05, above + step * n_blocks - _GAP + 0.05)
    figure = new_figure(*size, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    letters = int(tile / 0.066)
    for k in range(n):
        block, column = divmod(k, columns)
        x, y = _LEFT + column * tile, above + block * step
        for row, images in enumerate(rows.values()):
            _tile(axes, images[k], x, y + row * tall, (tile, tall))
        lines = [shortened(str(of[k]), letters) for of in (labels, captions) if of is not None]
        place = (x + tile / 2, y + len(rows) * tall + 0.03)
        axes.text(*place, "\n".join(lines), ha="center", va="top", fontsize=8, linespacing=1.2)
    for block in range(n_blocks):
        for row, name in enumerate(rows):
            y = above + block * step + (row + 0.5) * tall
            axes.text(_LEFT - 0.08, y, name, ha="right", va="center", fontsize=9, color=DARK)
    if shape[0] > n:
        text = f"The first {n} of {shape[0]} test stimuli"
        axes.text(_LEFT + _INNER, above - 0.08, text, va="bottom", fontsize=10)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))  # in inches; images change the limits
    return figure


def _tile(axes: Axes, image: np.ndarray, x: float, y: float, size: tuple[float, float]) -> None:
    """Draw an image with its upper left corner at a place in inches, with white around it."""
    extent = (x + _INNER, x + size[0] - _INNER, y + size[1] - _INNER, y + _INNER)
    axes.imshow(image, extent=extent, interpolation="antialiased", aspect="auto")


@styled
def voxel_map(background: np.ndarray, overlay: np.ndarray, label: str, n_slices: int = 8) -> Figure:
    """Draw values of some voxels over axial slices of an image.

    Parameters
    ----------
    background : array of shape (x, y, z)
        Mean BOLD, or another image that shows the anatomy; 0 outside the brain.
    overlay : array of shape (x, y, z)
        Values; NaN where there is none.
    label : str
        What the values are.
    n_slices : int
        Slices at most, evenly through those that hold the values.

    Returns
    -------
    Figure
    """
    if background.shape != overlay.shape or background.ndim != 3:
        raise ValueError(f"background {background.shape} and overlay {overlay.shape} differ")
    inside, brain = np.isfinite(overlay), background > 0
    slices = _slices(inside if inside.any() else brain, n_slices)
    box = _bounding_box(brain | inside)
    rows = math.ceil(len(slices) / 4)
    columns = math.ceil(len(slices) / rows)
    tile = min((WIDTH - 1.1) / columns, 2.6)
    tall = tile * (box[1].stop - box[1].start) / (box[0].stop - box[0].start)
    figure = new_figure(max(tile * columns + 1.1, 4.2), rows * (tall + 0.25) + 0.1)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = _colours(overlay[inside])
    bright = np.percentile(background[brain], 99) if brain.any() else 1.0
    anatomy = np.where(brain, background, np.nan)  # white outside the brain
    flat = {"origin": "lower", "interpolation": "nearest"}
    for axes, k in zip(panels, slices, strict=False):
        axes.imshow(anatomy[box[0], box[1], k].T, cmap="gray", vmin=0, vmax=1.25 * bright, **flat)
        shown = axes.imshow(overlay[box[0], box[1], k].T, **colours, **flat)
        axes.set_title(f"slice {k + 1}", fontsize=10, loc="center", pad=3)
    for axes in panels:
        axes.axis("off")
    if inside.any():
        bar = figure.colorbar(shown, ax=list(panels), label=label, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
    return figure


def _slices(inside: np.ndarray, n: int) -> np.ndarray:
    """Choose slices evenly, leaving out the ends that hold hardly a voxel."""
    counts = inside.sum(axis=(0, 1)).cumsum()
    if counts[-1] == 0:
        first, last = 0, inside.shape[2] - 1
    else:
        first, last = np.searchsorted(counts, (0.02 * counts[-1], 0.98 * counts[-1]))
    return np.unique(np.linspace(first, last, n).round().astype(int))


def _bounding_box(inside: np.ndarray) -> tuple[slice, slice]:
    box = []
    for axis in (0, 1):
        found = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (found[0], found[-1]) if len(found) else (0, inside.shape[axis] - 1)
        box.append(slice(max(0, first - 1), min(inside.shape[axis], last + 2)))
    return tuple(box)


def _colours(values: np.ndarray) -> dict:
    """Return range and colours; outliers do not stretch the range, and a sign has a middle."""
    low, high = np.percentile(values, (2, 98)) if len(values) else (0.0, 1.0)
    if low < 0 < high:
        high = max(-low, high)
        return {"vmin": -high, "vmax": high, "cmap": "RdYlBu_r"}
    return {"vmin": low, "vmax": high if high > low else low + 1e-6, "cmap": "plasma"}
