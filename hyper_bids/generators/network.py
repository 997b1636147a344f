"""A network with its weights on a device, as an image generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import exact_inference
from hyper_bids.errors import InputError
from hyper_bids.generators.protocol import checked_latents

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class NetworkGenerator:
    """An :class:`~hyper_bids.generators.protocol.ImageGenerator` without an encoder.

    ``forward(weights, latents)`` gives images of shape (n, 3, height, width), nominally in [-1, 1].
    """

    name: str
    n_latents: int
    image_shape: tuple[int, int, int]
    normalises: bool
    checksum: str
    device: str
    forward: Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor] = field(repr=False)
    weights: Mapping[str, torch.Tensor] = field(repr=False)
    latent_space: str = "z"
    frame: float = 1.0
    precision: str = "float32"

    def generate(self, latents: np.ndarray) -> np.ndarray:
        """Return the images of latents, all in one batch.

        Parameters
        ----------
        latents : array of shape (n, n_latents)

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            RGB, (x + 1) / 2 of the network's output x, clipped to [0, 1].

        Raises
        ------
        ValueError
            If the latents have another shape, or are not finite.
        """
        images = self._images(latents)
        return np.ascontiguousarray(images.cpu().numpy())

    def generate_uint8(self, latents: np.ndarray) -> np.ndarray:
        """Return what :meth:`generate` does as uint8, 0 to 255, rounded where it is computed.

        The bits are those of :func:`~hyper_bids.generators.protocol.to_uint8`; a GPU hands over a
        quarter of the bytes.
        """
        import torch

        with torch.inference_mode():
            images = self._images(latents).mul_(255).round_().to(torch.uint8)
            return np.ascontiguousarray(images.cpu().numpy())

    def _images(self, latents: np.ndarray) -> torch.Tensor:
        """Return images of shape (n, height, width, 3), 0 to 1, on the device."""
        import torch

        latents = np.ascontiguousarray(checked_latents(latents, self))
        if len(latents) == 0:
            return torch.empty((0, *self.image_shape))
        with exact_inference():
            images = self.forward(self.weights, torch.tensor(latents, device=self.device))
            return images.add_(1).mul_(0.5).clamp_(0, 1).permute(0, 2, 3, 1)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Raise an InputError: these models have no encoder."""
        raise InputError(
            f"{self.name}: this image model has no encoder and cannot turn images into latents. "
            f"Give the latents of the stimuli (stimuli/latents.tsv and latents.npy)."
        )
