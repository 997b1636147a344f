"""The generator of a progressively grown GAN (Karras et al. 2018), 64 to 1024 pixels.

The network is ``G_paper`` of the authors' code without its growing phase: pixel norm, equalised
learning rate, nearest upsampling, leaky ReLU of 0.2, and one linear 1x1 layer to RGB. Written as
functions over a dictionary of tensors.

References
----------
Karras T, Aila T, Laine S, Lehtinen J (2018). Progressive growing of GANs for improved quality,
stability, and variation. ICLR. arXiv:1710.10196
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

RESOLUTIONS = (64, 128, 256, 512, 1024)
# The image depends on the direction of the latent only: its first step is a pixel norm.
NORMALISES = True
EPSILON = 1e-8
SLOPE = 0.2


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network; the defaults are those of the published face models.

    Parameters
    ----------
    resolution : int
        Height and width of the image in pixels: 64, 128, 256, 512 or 1024.
    n_latents : int
        Length of a latent vector.
    fmap_base, fmap_max : int
        A layer at r pixels has ``min(fmap_base // r, fmap_max)`` channels. (The authors' code
        counts from half of r, so that its ``fmap_base`` is half of this one.)
    """

    resolution: int
    n_latents: int = 512
    fmap_base: int = 16384
    fmap_max: int = 512

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution = {self.resolution}; one of {RESOLUTIONS} is wanted")
        if min(self.n_latents, self.fmap_max) < 1 or self.fmap_base < self.resolution:
            raise ValueError(
                f"n_latents = {self.n_latents}, fmap_base = {self.fmap_base}, fmap_max = "
                f"{self.fmap_max}; every layer needs at least one channel"
            )

    def n_channels(self, resolution: int) -> int:
        """Return the number of channels at ``resolution`` pixels."""
        return min(self.fmap_base // resolution, self.fmap_max)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every array, in the order of the network.

        Rows of ``block4.dense.weight`` are ordered channel, y, x.
        """
        before = self.n_channels(4)
        shapes: dict[str, tuple[int, ...]] = {
            "block4.dense.weight": (before * 16, self.n_latents),
            "block4.dense.bias": (before,),
            "block4.conv.weight": (before, before, 3, 3),
            "block4.conv.bias": (before,),
        }
        for resolution in _doublings(self.resolution):
            n = self.n_channels(resolution)
            shapes[f"block{resolution}.conv0.weight"] = (n, before, 3, 3)
            shapes[f"block{resolution}.conv0.bias"] = (n,)
            shapes[f"block{resolution}.conv1.weight"] = (n, n, 3, 3)
            shapes[f"block{resolution}.conv1.bias"] = (n,)
            before = n
        return {**shapes, "rgb.weight": (3, before, 1, 1), "rgb.bias": (3,)}


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Infer the sizes of a network from the shapes of its arrays.

    Raises
    ------
    ValueError
        If an array that tells a size is missing, or the sizes are not of this kind of network.
    """
    for key in ("block4.dense.weight", "block4.dense.bias", "rgb.weight"):
        if key not in shapes:
            raise ValueError(f"{key} is missing")
    resolution = next(
        r
        for r in (*reversed(_doublings(RESOLUTIONS[-1])), 4)
        if any(name.startswith(f"block{r}.") for name in shapes)
    )
    return Architecture(
        resolution=resolution,
        n_latents=shapes["block4.dense.weight"][1],
        fmap_base=shapes["rgb.weight"][1] * resolution,
        fmap_max=shapes["block4.dense.bias"][0],
    )


def prepare(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Apply the scales of the equalised learning rate, which the stored weights lack.

    A weight is multiplied by gain / sqrt(fan-in) (Karras et al. 2018, section 4.1), a bias is not.
    The gain is sqrt(2); 1 for the layer to RGB, and sqrt(2) / 4 for the dense layer.

    Parameters
    ----------
    weights : mapping of str to float32 tensor
        As :meth:`Architecture.shapes` says.

    Returns
    -------
    dict of str to float32 tensor
        The same names, for :func:`forward`.
    """
    import torch

    ready = {}
    for name, tensor in weights.items():
        if name.endswith(".bias"):
            ready[name] = tensor
            continue
        gain = {"block4.dense.weight": math.sqrt(2) / 4, "rgb.weight": 1.0}
        scale = gain.get(name, math.sqrt(2)) / math.sqrt(tensor[0].numel())
        # Channels last in memory: about a third faster on processors.
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        ready[name] = (tensor * scale).contiguous(memory_format=layout)
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
    float32 tensor of shape (n, 3, resolution, resolution)
        Linear RGB layer: nominally in [-1, 1], but not bounded.
    """
    import torch
    from torch.nn import functional

    x = functional.linear(_pixel_norm(latents.clone()), weights["block4.dense.weight"])
    x = x.reshape(len(x), -1, 4, 4).contiguous(memory_format=torch.channels_last)
    x = _activate(x.add_(weights["block4.dense.bias"].reshape(1, -1, 1, 1)))
    x = _convolve(weights, "block4.conv", x)
    resolution = 8
    while f"block{resolution}.conv0.weight" in weights:
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = _convolve(weights, f"block{resolution}.conv0", x)
        x = _convolve(weights, f"block{resolution}.conv1", x)
        resolution *= 2
    return functional.conv2d(x, weights["rgb.weight"], weights["rgb.bias"])


def _doublings(resolution: int) -> list[int]:
    return [2**power for power in range(3, resolution.bit_length())]


def _convolve(weights: Mapping[str, torch.Tensor], layer: str, x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return _activate(
        functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1)
    )


# In place: at 1024 pixels a copy of the activations is 64 MiB an image.
def _activate(x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return _pixel_norm(functional.leaky_relu(x, SLOPE, inplace=True))


def _pixel_norm(x: torch.Tensor) -> torch.Tensor:
    import torch

    mean_square = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().div_(x.shape[1])
    return x.mul_(mean_square.add_(EPSILON).rsqrt_())
