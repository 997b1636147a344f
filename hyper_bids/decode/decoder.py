"""What a solver returns: a linear map with an intercept, how to apply it, and its file."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError

_ARRAYS = ("name", "weights", "intercept", "report")
_AVERAGED = ("averaged_repeats", "averaged_weights", "averaged_intercept")


@dataclass(frozen=True, eq=False)
class Averaged:
    """The map for means of repeated responses, which are less noisy than single ones.

    Attributes
    ----------
    n_repeats : float
        Responses in a mean, of which the map was made.
    weights : array of shape (n_voxels, n_latents), float32
    intercept : array of shape (n_latents,), float32
    """

    n_repeats: float
    weights: np.ndarray
    intercept: np.ndarray


@dataclass(frozen=True, eq=False)
class Decoder:
    """A fitted linear map from responses to latents.

    Attributes
    ----------
    name : str
        Name of the solver.
    weights : array of shape (n_voxels, n_latents), float32
    intercept : array of shape (n_latents,), float32
    report : dict
        What the solver chose and how the fit went; plain JSON types.
    averaged : Averaged, optional
        Of solvers that weigh means of repeats otherwise than single responses.
    """

    name: str
    weights: np.ndarray
    intercept: np.ndarray
    report: dict = field(default_factory=dict)
    averaged: Averaged | None = None


def predict(
    decoder: Decoder, betas: np.ndarray, n_repeats: float | np.ndarray | None = None
) -> np.ndarray:
    """Return ``betas @ weights + intercept``.

    Parameters
    ----------
    decoder : Decoder
    betas : array of shape (n_trials, n_voxels)
        Standardised as the training trials were.
    n_repeats : array of shape (n_trials,), or a number, optional
        Responses that were averaged in each row. A decoder that has a map for means uses it where
        the number is nearer, as a ratio, to that map's than to 1. Default: 1.

    Returns
    -------
    array of shape (n_trials, n_latents), float32

    Raises
    ------
    ValueError
        If the number of voxels is not that of the decoder.
    """
    betas = np.asarray(betas, np.float32)
    if betas.ndim != 2 or betas.shape[1] != len(decoder.weights):
        raise ValueError(
            f"betas of shape {betas.shape} for a decoder with weights of shape "
            f"{decoder.weights.shape}"
        )
    latents = betas @ decoder.weights
    latents += decoder.intercept
    other = decoder.averaged
    if other is not None and n_repeats is not None:
        n_repeats = np.broadcast_to(np.asarray(n_repeats, np.float64), len(betas))
        nearer = n_repeats**2 > other.n_repeats
        latents[nearer] = betas[nearer] @ other.weights + other.intercept
    return latents


def weights_for(decoder: Decoder, n_repeats: float) -> np.ndarray:
    """Return the weights (n_voxels, n_latents) that :func:`predict` uses for means of repeats."""
    other = decoder.averaged
    return decoder.weights if other is None or n_repeats**2 <= other.n_repeats else other.weights


def save(path: str | os.PathLike, decoder: Decoder) -> None:
    """Write the decoder as ``.npz``: no pickle, equal bytes for equal decoders.

    Four arrays, and three more where it has a map for means of repeats.
    """
    other, more = decoder.averaged, {}
    if other is not None:
        values = np.float64(other.n_repeats), other.weights, other.intercept
        more = dict(zip(_AVERAGED, values, strict=True))
    # Through an open file: given a name, numpy would add a suffix of its own.
    with Path(path).open("wb") as stream:
        np.savez(
            stream,
            name=np.array(decoder.name),
            weights=np.asarray(decoder.weights, np.float32),
            intercept=np.asarray(decoder.intercept, np.float32),
            report=np.array(json.dumps(decoder.report)),
            **more,
        )


def load(path: str | os.PathLike) -> Decoder:
    """Read a decoder that :func:`save` wrote.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a decoder. Nothing in it is executed.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [key for key in _ARRAYS if key not in arrays]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}")
            held = {key: arrays[key] for key in _ARRAYS}
            other = [arrays[key] for key in _AVERAGED if key in arrays]
        decoder = Decoder(
            str(held["name"]),
            held["weights"],
            held["intercept"],
            json.loads(str(held["report"])),
            Averaged(float(other[0]), *other[1:]) if other else None,
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a decoder as this app writes it ({error}).") from None
    if decoder.weights.ndim != 2 or decoder.weights.shape[1:] != decoder.intercept.shape:
        raise InputError(
            f"{path}: weights of shape {decoder.weights.shape} do not go with an intercept of "
            f"shape {decoder.intercept.shape}."
        )
    return decoder


def check_training(betas: np.ndarray, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that a solver can use.

    Raises
    ------
    ValueError
        For shapes that disagree, fewer than two trials, or values that are not finite.
    """
    betas, latents = np.asarray(betas), np.asarray(latents)
    if betas.ndim != 2 or latents.ndim != 2 or len(betas) != len(latents):
        raise ValueError(
            f"betas of shape {betas.shape} and latents of shape {latents.shape}; (n_trials, "
            f"n_voxels) and (n_trials, n_latents) are wanted"
        )
    if len(betas) < 2 or 0 in betas.shape + latents.shape:
        raise ValueError(
            f"betas of shape {betas.shape} and latents of shape {latents.shape}; at least 2 "
            f"trials, 1 voxel and 1 latent are wanted"
        )
    for what, values in (("betas", betas), ("latents", latents)):
        # The sum is finite only where all values are, and needs no array of flags.
        if not np.isfinite(values.sum(dtype=np.float64)) and not np.isfinite(values).all():
            raise ValueError(f"{what} of {len(values)} training trials hold NaN or infinity")
    return betas, latents
