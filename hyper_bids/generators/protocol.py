"""What every image model offers, and helpers for latents and images of any of them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class ImageGenerator(Protocol):
    """An image model: latents to images, and back where it has an encoder.

    Attributes
    ----------
    name : str
        Name of the weights, as in ``Generator`` of ``stimuli/latents.json``.
    n_latents : int
        Length of a latent vector.
    image_shape : tuple of int
        Height, width, 3.
    normalises : bool
        Whether an image depends on the direction of its latent only, not on its length.
    checksum : str
        SHA-256 of the weight file, in hexadecimal.
    latent_space : str
        Where latents are from: ``"z"`` (drawn from the prior), ``"w"`` or ``"w+"`` (of a mapping
        network), or ``"encoded"`` (an encoder makes them of images).
    frame : float
        Part of the middle square's side that the model sees of a picture, above 0 to 1.
    """

    name: str
    n_latents: int
    image_shape: tuple[int, int, int]
    normalises: bool
    checksum: str
    latent_space: str
    frame: float

    def generate(self, latents: np.ndarray) -> np.ndarray:
        """Return the images of latents.

        Parameters
        ----------
        latents : array of shape (n, n_latents)

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            RGB in [0, 1].
        """
        ...

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return the latents of images.

        Parameters
        ----------
        images : array of shape (n, height, width, 3)
            RGB in [0, 1].

        Returns
        -------
        float32 array of shape (n, n_latents)

        Raises
        ------
        InputError
            If the model has no encoder.
        """
        ...


def checked_latents(latents: np.ndarray, model: ImageGenerator) -> np.ndarray:
    """Return latents as float32; raise a ValueError for another shape, or a value not finite."""
    latents = np.asarray(latents, dtype=np.float32)
    if latents.ndim != 2 or latents.shape[1] != model.n_latents:
        raise ValueError(f"latents {latents.shape}, but {model.name} wants (n, {model.n_latents})")
    if not np.isfinite(latents).all():
        row = int(np.flatnonzero(~np.isfinite(latents).all(axis=1))[0])
        raise ValueError(f"latents have a value that is not finite in row {row}")
    return latents


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Convert images in [0, 1] to uint8, 0 to 255, by rounding; what lies outside is clipped."""
    return np.rint(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


def on_prior_shell(predicted: np.ndarray, latents_train: np.ndarray) -> np.ndarray:
    """Rescale predicted latents to the mean length of the training latents.

    A regression shrinks its predictions towards their mean, but a Gaussian prior of many dimensions
    has nearly all its mass close to one length; a model that has seen no short latents makes dull
    images of them. Directions stay as they are.

    Parameters
    ----------
    predicted : array of shape (n, n_latents)
    latents_train : array of shape (n_train, n_latents)

    Returns
    -------
    float32 array of shape (n, n_latents)
        Rows of zeros stay zero.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    latents_train = np.asarray(latents_train, dtype=np.float64)
    if predicted.ndim != 2 or predicted.shape[1:] != latents_train.shape[1:]:
        raise ValueError(
            f"predicted {predicted.shape} and training latents {latents_train.shape} differ in "
            f"their number of latents"
        )
    target = np.linalg.norm(latents_train, axis=1).mean()
    lengths = np.linalg.norm(predicted, axis=1, keepdims=True)
    lengths[lengths == 0] = 1.0
    return (predicted / lengths * target).astype(np.float32)
