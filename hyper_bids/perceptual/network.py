"""A network with its weights on a device, as a feature network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import exact_inference
from hyper_bids.perceptual.protocol import checked_images

if TYPE_CHECKING:
    import torch

# Images at a time; 16 of 224 x 224 need less than 1 GB in each of the networks.
BATCH = 16


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A :class:`~hyper_bids.perceptual.protocol.FeatureNetwork` in PyTorch.

    ``forward(weights, images)`` takes RGB in [0, 1] of shape (n, 3, side, side), and gives features
    of shape (n, n_features). Images of another size are resized bilinearly, with antialiasing.
    """

    name: str
    label: str
    is_papers: bool
    n_features: int
    checksum: str
    side: int
    device: str
    forward: Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor] = field(repr=False)
    weights: Mapping[str, torch.Tensor] = field(repr=False)

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images, computed in batches of 16.

        Parameters
        ----------
        images : float32 array of shape (n, height, width, 3)
            RGB in [0, 1].

        Returns
        -------
        float32 array of shape (n, n_features)

        Raises
        ------
        ValueError
            If the images have another shape or type, or values outside [0, 1].
        """
        import torch

        images = checked_images(images)
        features = np.empty((len(images), self.n_features), dtype=np.float32)
        with exact_inference():
            for start in range(0, len(images), BATCH):
                batch = torch.tensor(images[start : start + BATCH], device=self.device)
                found = self.forward(self.weights, resized(batch.permute(0, 3, 1, 2), self.side))
                features[start : start + BATCH] = found.cpu().numpy()
        return features


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images of side x side pixels: bilinear, with antialiasing where they shrink."""
    import torch.nn.functional as F

    if images.shape[2:] == (side, side):
        return images.contiguous()
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def standardise(
    images: torch.Tensor, mean: tuple[float, ...], sd: tuple[float, ...]
) -> torch.Tensor:
    """Return (images - mean) / sd, each of three channels by its own."""
    offset, scale = (images.new_tensor(values)[:, None, None] for values in (mean, sd))
    return (images - offset) / scale


def pad_same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Return images with TensorFlow's "SAME" padding: zeros, the odd one below and right."""
    import torch.nn.functional as F

    sides = []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def norm_shapes(name: str, n: int) -> dict[str, tuple[int, ...]]:
    """Return name to shape of the arrays of a batch normalisation."""
    return {f"{name}.{key}": (n,) for key in ("weight", "bias", "running_mean", "running_var")}


def norm(weights: Mapping[str, torch.Tensor], name: str, x: torch.Tensor, eps: float):
    """Return x under the batch normalisation of that name, by its running mean and variance."""
    import torch.nn.functional as F

    mean, var, weight, bias = (
        weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
