"""Canonical haemodynamic responses to an impulse, as functions of time."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def _gamma_difference(
    t: np.ndarray, delays: tuple[float, float], dispersion: float, ratio: float
) -> np.ndarray:
    """Return a response and its undershoot: gamma densities of mean ``delays`` seconds, peak 1."""

    def response(t: np.ndarray) -> np.ndarray:
        peak, undershoot = (_gamma_density(t, delay / dispersion, dispersion) for delay in delays)
        return peak - ratio * undershoot

    # Both responses peak between 4 and 6 s; a step of 1 ms finds the peak to 1e-7.
    return response(np.asarray(t, float)) / response(np.arange(4.0, 6.0, 0.001)).max()


def _gamma_density(t: np.ndarray, shape: float, scale: float) -> np.ndarray:
    scaled = np.maximum(t, 0.0) / scale
    return scaled ** (shape - 1) * np.exp(-scaled) / (scale * math.gamma(shape))
