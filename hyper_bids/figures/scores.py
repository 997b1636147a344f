"""Figures of scores: pairs, null distributions, and participants side by side."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WIDTH,
    bins,
    legend_above,
    new_figure,
    number,
    shortened,
    styled,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ((RED, "--"), (GREEN, ":"), (ORANGE, "-."))
_MANY = 30  # participants; more are drawn by rank, without their labels


@styled
def pair_matrix(M: np.ndarray, title: str, label: str) -> Figure:
    """Draw the similarity of each prediction to each stimulus, and how far matched pairs stand out.

    Parameters
    ----------
    M : array of shape (n, n)
        ``M[i, j]`` is the similarity of prediction i and stimulus j; matched pairs on the diagonal.
    title, label : str
        Title of the matrix, and what its values are.

    Returns
    -------
    Figure
    """
    M = np.asarray(M, float)
    n = len(M)
    if M.shape != (n, n):
        raise ValueError(f"a square matrix is wanted, not {M.shape}")
    if n == 1:
        figure = new_figure(5, 4.3)
        left = figure.subplots()
    else:
        figure = new_figure(WIDTH, 4.3)
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.3, 1)})
        _matched_and_others(right, M, label)
    if M.min() < 0:  # white stands for none
        top = np.abs(M).max()
        colours = {"vmin": -top, "vmax": top, "cmap": "RdBu_r"}
    else:
        low, high = bins(M, 1)[[0, -1]]
        colours = {"vmin": low, "vmax": high, "cmap": "viridis"}
    shown = left.imshow(M, interpolation="nearest" if n < 200 else "antialiased", **colours)
    left.set(title=title, xlabel="stimulus shown", ylabel="prediction")
    left.set_xticks(ticks(n) - 1, ticks(n))
    left.set_yticks(ticks(n) - 1, ticks(n))
    left.spines[:].set_visible(False)
    figure.colorbar(shown, ax=left, label=label, shrink=0.85, pad=0.02).outline.set_visible(False)
    return figure


def _matched_and_others(axes: Axes, M: np.ndarray, label: str) -> None:
    edges = bins(M, 30)
    for values, colour, name in (
        (M[~np.eye(len(M), dtype=bool)], GREY, "other stimuli"),
        (np.diag(M), BLUE, "the stimulus shown"),
    ):
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, edges, weights=weights, color=colour, alpha=0.65)
        text = f"{name}: mean {number(values.mean())}"
        axes.axvline(values.mean(), color=colour, linewidth=2, label=text)
    axes.set(xlabel=label, ylabel="pairs (%)")
    legend_above(axes, columns=1)


@styled
def null_histogram(
    null: np.ndarray, observed: float, controls: dict[str, float], label: str, p: float
) -> Figure:
    """Draw a score against its permutation distribution.

    Parameters
    ----------
    null : array of shape (n_permutations,)
        Scores after shuffling the stimuli against the predictions.
    observed : float
        The score.
    controls : dict
        Names and values of other marks, such as chance.
    label : str
        What the score is.
    p : float
        Permutation p value.

    Returns
    -------
    Figure
    """
    null = np.asarray(null, float)
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    text = f"shuffled pairs ({len(null):,})"
    edges = bins(null, 40)
    axes.hist(null, edges, color="#B8B8B8", edgecolor="white", linewidth=0.4, label=text)
    text = f"observed: {number(observed, 3)}, p = {p:.2g}"
    axes.axvline(observed, color=BLUE, linewidth=2.5, label=text)
    for (name, value), (colour, dashes) in zip(controls.items(), cycle(_LINES), strict=False):
        text = f"{name}: {number(value, 3)}"
        axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.8, label=text)
    axes.set(xlabel=label, ylabel="permutations")
    axes.margins(x=0.04)
    legend_above(axes)
    return figure


@styled
def group_scores(table, label: str) -> Figure:
    """Draw each participant's score beside its control, and their mean.

    Parameters
    ----------
    table : DataFrame
        One row a participant: ``participant``, ``value`` and any of ``ci_low``, ``ci_high``
        (interval), ``control`` (score of mismatched pairs), ``chance``.
    label : str
        What the score is.

    Returns
    -------
    Figure
    """
    n = len(table)
    many = n > _MANY
    rows = table.sort_values("value", ascending=False, kind="stable") if many else table
    x = np.arange(1, n + 1)
    size = 3 if many else 6
    figure = new_figure(WIDTH if n > 8 else 5.6, 3.7)
    axes = figure.subplots()
    if {"ci_low", "ci_high"} <= set(rows.columns):
        bounds = rows[["ci_low", "ci_high"]].to_numpy(float).T
        axes.vlines(x, *bounds, color=BLUE, alpha=0.5, linewidth=1 if many else 2)
    values = rows["value"].to_numpy(float)
    axes.plot(x, values, "o", color=BLUE, markersize=size + 1, label="participant")
    if "control" in rows.columns:
        style = {"markerfacecolor": "white", "markeredgecolor": RED, "markersize": size}
        control = rows["control"].to_numpy(float)
        axes.plot(x, control, "D", **style, label="mismatched pairs")
    if "chance" in rows.columns and np.isfinite(rows["chance"].iloc[0]):
        chance = float(rows["chance"].iloc[0])
        axes.axhline(chance, color=GREY, linestyle=":", label=f"chance: {number(chance, 3)}")
    if n > 1:
        mean = float(np.nanmean(values))
        text = f"mean of {n}: {number(mean, 3)}"
        axes.axhline(mean, color="black", linestyle="--", linewidth=1.2, label=text)
    _label_participants(axes, [str(name) for name in rows["participant"]], many)
    axes.set_ylabel(label)
    axes.margins(y=0.12)
    legend_above(axes, columns=4 if n > 8 else 2)
    return figure


def _label_participants(axes: Axes, names: list[str], many: bool) -> None:
    n = len(names)
    axes.set_xlim(0.4, n + 0.6)
    if many:
        axes.set(xlabel="participant, best first", xticks=ticks(n))
        return
    names = [shortened(name, 12) for name in names]
    turned = max(map(len, names)) * n > 55
    axes.set_xticks(
        np.arange(1, n + 1), names, rotation=60 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlabel("participant")
