"""The generator of a deep convolutional GAN (Radford et al. 2016), 64 pixels.

Five transposed convolutions; batch norm and ReLU between them, tanh at the end. Written as
functions over a dictionary of tensors.

References
----------
Radford A, Metz L, Chintala S (2016). Unsupervised representation learning with deep convolutional
generative adversarial networks. ICLR. arXiv:1511.06434
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

RESOLUTION = 64
N_LAYERS = 5
# The length of a latent matters, too.
NORMALISES = False
EPSILON = 1e-5


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network.

    Parameters
    ----------
    resolution : int
        Height and width of the image in pixels: 64.
    n_latents : int
        Length of a latent vector.
    width : int
        Channels of the last hidden layer; each layer before it has twice as many.
    """

    resolution: int
    n_latents: int = 100
    width: int = 64

    def __post_init__(self) -> None:
        if self.resolution != RESOLUTION:
            raise ValueError(f"resolution = {self.resolution}; {RESOLUTION} is wanted")
        if min(self.n_latents, self.width) < 1:
            raise ValueError(
                f"n_latents = {self.n_latents}, width = {self.width}; 1 or more is wanted"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every array, in the order of the network."""
        channels = [self.n_latents, *(self.width * 2**k for k in (3, 2, 1, 0)), 3]
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(N_LAYERS):
            shapes[f"conv{layer}.weight"] = (channels[layer], channels[layer + 1], 4, 4)
            if layer < N_LAYERS - 1:
                for part in ("weight", "bias", "mean", "variance"):
                    shapes[f"norm{layer}.{part}"] = (channels[layer + 1],)
        return shapes


def prepare(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold each batch norm into the convolution before it.

    With the running mean m and variance v, batch norm is s * (x - m) + b, where
    s = weight / sqrt(v + 1e-5): another convolution weight and a bias.

    Parameters
    ----------
    weights : mapping of str to float32 tensor
        As :meth:`Architecture.shapes` says.

    Returns
    -------
    dict of str to float32 tensor
        ``conv{k}.weight`` and ``conv{k}.bias``, for :func:`forward`.
    """
    import torch

    last = f"conv{N_LAYERS - 1}"
    ready = {
        f"{last}.weight": weights[f"{last}.weight"],
        f"{last}.bias": torch.zeros_like(weights[f"{last}.weight"][0, :, 0, 0]),
    }
    for layer in range(N_LAYERS - 1):
        norm = {p: weights[f"norm{layer}.{p}"] for p in ("weight", "bias", "mean", "variance")}
        scale = norm["weight"] * (norm["variance"] + EPSILON).rsqrt()
        ready[f"conv{layer}.weight"] = weights[f"conv{layer}.weight"] * scale.reshape(1, -1, 1, 1)
        ready[f"conv{layer}.bias"] = norm["bias"] - norm["mean"] * scale
    return ready


def forward(weights: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Run the network.

    Parameters
    ----------
    weights : mapping of str to tensor
        From :func:`prepare`.
    latents : float32 tensor of shape (n, n_latents)

    Returns
    -------
    float32 tensor of shape (n, 3, 64, 64)
        In [-1, 1].
    """
    from torch.nn import functional

    x = latents.reshape(*latents.shape, 1, 1)
    for layer in range(N_LAYERS):
        step = {"stride": 2, "padding": 1} if layer else {}
        kernel, bias = weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"]
        x = functional.conv_transpose2d(x, kernel, bias, **step)
        x = x.relu_() if layer < N_LAYERS - 1 else x.tanh_()
    return x
