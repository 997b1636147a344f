"""Figures of the decoder: its penalty, its loss, and what it predicts of each latent dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.figures.style import (
    BLUE,
    GREY,
    RED,
    WIDTH,
    legend_above,
    new_figure,
    number,
    styled,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def penalty_curve(
    alphas: Sequence[float], cv_r2: Sequence[float], chosen: float | Sequence[float]
) -> Figure:
    """Draw the cross-validated fit of each ridge penalty.

    Parameters
    ----------
    alphas, cv_r2 : sequence of float
        Penalties, and the fraction of the latents' variance predicted by cross-validation.
    chosen : float or sequence of float
        The penalty that was chosen (several where each latent has its own).

    Returns
    -------
    Figure
    """
    alphas, cv_r2 = np.asarray(alphas, float), np.asarray(cv_r2, float)
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(alphas, cv_r2, color=BLUE, marker="o", markersize=4, linewidth=1.5)
    best, picked = np.nanmax(cv_r2), np.unique(np.ravel(chosen))
    text = f"chosen: {picked[0]:.3g}" if len(picked) == 1 else f"chosen: {len(picked)} penalties"
    text += f"; best cross-validated R²: {number(best, 3)}"
    for value in picked:
        axes.axvline(value, color=RED, linestyle="--", linewidth=1.5, label=text)
        text = None
    # A penalty far too small can fall to any depth, and would flatten the part that matters.
    floor = max(np.nanmin(cv_r2), best - 1.0)
    room = 0.08 * max(max(best, 0) - floor, 1e-3)
    axes.set(xscale="log", xlabel="ridge penalty", ylabel="cross-validated R²")
    axes.set_ylim(floor - room, max(best, 0) + room)
    seen = np.flatnonzero(cv_r2 >= floor)
    first, last = alphas[max(seen[0] - 1, 0)], alphas[min(seen[-1] + 1, len(alphas) - 1)]
    margin = (last / first) ** 0.04 if last > first else 2.0
    axes.set_xlim(first / margin, last * margin)
    legend_above(axes)
    return figure


@styled
def loss_curve(loss: Sequence[float]) -> Figure:
    """Draw the mean training loss of each epoch.

    Parameters
    ----------
    loss : sequence of float
        Loss of epoch 1, 2, ...

    Returns
    -------
    Figure
    """
    loss = np.asarray(loss, float)
    n = len(loss)
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    text = f"epoch 1: {loss[0]:.4g}; epoch {n}: {loss[-1]:.4g}"
    marker = "o" if n < 20 else None
    axes.plot(
        np.arange(1, n + 1), loss, color=BLUE, linewidth=2, marker=marker, markersize=4, label=text
    )
    axes.set(xlabel="epoch", ylabel="training loss", xticks=ticks(n))
    if loss.min() > 0 and loss.max() > 20 * loss.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0.0, loss.min()))
    legend_above(axes)
    return figure


@styled
def dimension_correlations(r: np.ndarray, noise: float | None = None) -> Figure:
    """Draw how well each latent dimension is predicted, best first.

    Parameters
    ----------
    r : array of shape (n_latents,)
        Correlation of predicted and true values over test stimuli; NaN where it is undefined.
    noise : float, optional
        Half width of the band that chance stays in.

    Returns
    -------
    Figure
    """
    r = np.asarray(r, float)
    kept = np.sort(r[np.isfinite(r)])[::-1]
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    axes.bar(np.arange(1, len(kept) + 1), kept, width=1.0, color="#8FC1DE", linewidth=0)
    axes.stairs(kept, np.arange(len(kept) + 1) + 0.5, baseline=None, color=BLUE, linewidth=1.5)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if len(kept):
        mean = kept.mean()
        text = f"mean: {number(mean)}"
        axes.axhline(mean, color=RED, linestyle="--", linewidth=1.5, label=text)
    if noise is not None:
        text = f"chance stays within ±{noise:.2f}"
        for value in (noise, -noise):
            axes.axhline(value, color=GREY, linestyle=":", linewidth=1.5, label=text)
            text = None
    reach = [*kept, 0.0, 0.2] + ([noise, -noise] if noise is not None else [])
    room = 0.06 * (max(reach) - min(reach))
    axes.set_ylim(min(reach) - room, max(reach) + room)
    if len(kept):
        axes.set(xlim=(0.5, len(kept) + 0.5), xticks=ticks(len(kept)))
        legend_above(axes)
    undefined = "" if len(kept) == len(r) else f"; {len(r) - len(kept)} undefined left out"
    axes.set(xlabel=f"latent dimension, best first{undefined}", ylabel="correlation")
    return figure
