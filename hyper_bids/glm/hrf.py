"""Canonical haemodynamic responses to an impulse, as functions of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

# Seconds after which a response counts as over (as in SPM and nilearn).
HRF_LENGTH = 32.0


def glover(t: np.ndarray) -> np.ndarray:
    """Return the response of Glover (1999), NeuroImage 9:416-429, with nilearn's parameters.

    Parameters
    ----------
    t : array
        Seconds after the impulse.

    Returns
    -------
    array
        The response, peak 1; 0 for t < 0.
    """
    return _gamma_difference(t, (6.0, 12.0), 0.9, 0.48)


def spm(t: np.ndarray) -> np.ndarray:
    """Return the canonical response of SPM (Friston et al. 1998, NeuroImage 7:30-40).

    Parameters
    ----------
    t : array
        Seconds after the impulse.

    Returns
    -------
    array
        The response, peak 1; 0 for t < 0.
    """
    return _gamma_difference(t, (6.0, 16.0), 1.0, 0.167)


HRFS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"glover": glover, "spm": spm}

# Seconds: times to peak and dispersions of the library. Times to peak differ by about 1 s (standard
# deviation) between places and people (Handwerker et al. 2004, NeuroImage 21:1639-1651).
LIBRARY_PEAKS = (3.9, 4.4, 4.9, 5.4, 5.9, 6.4, 6.9)
LIBRARY_DISPERSIONS = (0.7, 0.9, 1.15)


def library() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return 22 responses to choose from, by name: Glover's, and a grid around it.

    Choosing one of a fixed set for each voxel is the idea of Prince et al. (2022), eLife 11:e77599;
    theirs comes from data, this one is the double gamma of Glover (1999) with time to peak and
    dispersion on a grid. The undershoot follows the main lobe by 6 s in each.

    Returns
    -------
    dict
        Name to a function of seconds, peak 1. The first is ``glover``.
    """
    grid = {
        f"peak-{peak:g}-dispersion-{dispersion:g}": _peaking_at(peak, dispersion)
        for peak in LIBRARY_PEAKS
        for dispersion in LIBRARY_DISPERSIONS
    }
    return {"glover": glover, **grid}


def _peaking_at(peak: float, dispersion: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the response of a dispersion that has its peak at ``peak`` seconds."""
    t = np.arange(2.0, 9.0, 0.001)
    delay = peak + dispersion
    # The undershoot pulls the peak forward, the more the wider both are.
    for _ in range(6):
        response = partial(
            _gamma_difference, delays=(delay, delay + 6.0), dispersion=dispersion, ratio=0.48
        )
        delay += peak - t[response(t).argmax()]
    return response


def _gamma_difference(
    t: np.ndarray, delays: tuple[float, float], dispersion: float, ratio: float
) -> np.ndarray:
    """Return a response and its undershoot: gamma densities of mean ``delays`` seconds, peak 1."""

    def response(t: np.ndarray) -> np.ndarray:
        peak, undershoot = (_gamma_density(t, delay / dispersion, dispersion) for delay in delays)
        return peak - ratio * undershoot

    # All responses peak between 2 and 9 s; a step of 1 ms finds the peak to 1e-7.
    return response(np.asarray(t, float)) / response(np.arange(2.0, 9.0, 0.001)).max()


def _gamma_density(t: np.ndarray, shape: float, scale: float) -> np.ndarray:
    scaled = np.maximum(t, 0.0) / scale
    return scaled ** (shape - 1) * np.exp(-scaled) / (scale * math.gamma(shape))
