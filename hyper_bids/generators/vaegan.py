"""The VAE-GAN of VanRullen and Reddy (2019): images to latents and back, 128 pixels.

An encoder and a generator of five convolutions each, with batch norm and ELU, written as functions
over a dictionary of tensors. The latent of an image is the mean that the encoder gives. Outputs
equal those of the TensorFlow 1 original (:mod:`hyper_bids.generators.vaegan_tensorflow`).

References
----------
VanRullen R, Reddy L (2019). Reconstructing faces from fMRI patterns using deep generative neural
networks. Communications Biology 2, 193. Code: https://github.com/rufinv/VAE-GAN-CelebA
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import exact_inference
from hyper_bids.errors import listing
from hyper_bids.generators.network import NetworkGenerator

if TYPE_CHECKING:
    import torch

N_LAYERS = 5
# The length of a latent matters, too.
NORMALISES = False
EPSILON = 1e-6
# Channels of the encoder's layers, in widths; the generator's are these backwards.
_CHANNELS = (3, 4, 6, 8, 12)
_HIDDEN = 16
_NORM = ("weight", "bias", "mean", "variance")
# The arrays that tell the sizes of the network.
SIZES = ("encoder.layer1.conv.weight", "encoder.fc.weight", "encoder.mean.weight")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network; those of the original if not given.

    Parameters
    ----------
    resolution : int
        Height and width of the image in pixels, a multiple of 32.
    n_latents : int
        Length of a latent vector.
    width : int
        A third of the channels of the encoder's first layer; all others are in proportion.
    """

    resolution: int = 128
    n_latents: int = 1024
    width: int = 64

    def __post_init__(self) -> None:
        if self.resolution < 32 or self.resolution % 2**N_LAYERS:
            raise ValueError(f"resolution = {self.resolution}; a multiple of 32 is wanted")
        if min(self.n_latents, self.width) < 1:
            raise ValueError(
                f"n_latents = {self.n_latents}, width = {self.width}; 1 or more is wanted"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every array, in the order of the network."""
        inner = [self.width * factor for factor in _CHANNELS]
        hidden = self.width * _HIDDEN
        n_pixels = (self.resolution // 2**N_LAYERS) ** 2
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (before, after) in enumerate(zip([3, *inner[:-1]], inner, strict=True), 1):
            shapes |= _layer(f"encoder.layer{layer}", (after, before, 3, 3), after)
        shapes |= _dense("encoder.fc", hidden, inner[-1] * n_pixels)
        shapes |= _dense("encoder.mean", self.n_latents, hidden)
        shapes |= _dense("generator.fc", hidden * n_pixels, self.n_latents)
        channels = [hidden, *inner[-2::-1], 3]
        for layer in range(1, N_LAYERS + 1):
            before, after = channels[layer - 1 : layer + 1]
            shapes |= _layer(f"generator.layer{layer}", (before, after, 3, 3), after)
        return shapes


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Return the sizes of the network that has arrays of these shapes.

    Raises
    ------
    ValueError
        If the arrays that tell the sizes are missing, or fit no network.
    """
    missing = [key for key in SIZES if key not in shapes]
    if missing:
        raise ValueError(f"no {listing(missing)}")
    first, last, mean = (shapes[key] for key in SIZES)
    width = first[0] // _CHANNELS[0] if first else 0
    if width < 1 or len(last) != 2 or len(mean) != 2:
        raise ValueError(f"shapes {first}, {last} and {mean} of {listing(SIZES)}")
    side = round((last[1] / (width * _CHANNELS[-1])) ** 0.5)
    return Architecture(side * 2**N_LAYERS, mean[0], width)


def prepare(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold each batch norm into the convolution before it.

    With the moving mean m and variance v, batch norm is s * (x - m) + b, where
    s = weight / sqrt(v + 1e-6): another convolution weight and another bias.

    Parameters
    ----------
    weights : mapping of str to float32 tensor
        As :meth:`Architecture.shapes` says.

    Returns
    -------
    dict of str to float32 tensor
        For :func:`forward` and :func:`encode_forward`.
    """
    ready = {key: value for key, value in weights.items() if ".layer" not in key}
    for layer in range(1, N_LAYERS + 1):
        for scope, axes in (("encoder", (-1, 1, 1, 1)), ("generator", (1, -1, 1, 1))):
            name = f"{scope}.layer{layer}"
            norm = {part: weights[f"{name}.norm.{part}"] for part in _NORM}
            scale = norm["weight"] * (norm["variance"] + EPSILON).rsqrt()
            bias = weights[f"{name}.conv.bias"]
            ready[f"{name}.weight"] = weights[f"{name}.conv.weight"] * scale.reshape(axes)
            ready[f"{name}.bias"] = norm["bias"] + (bias - norm["mean"]) * scale
    return ready


def forward(weights: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Run the generator.

    The original shows an image x as x / max(x), clipped to [0, 1]; here that is scaled to [-1, 1],
    as the other models have it. With several images at a time, the original's maximum is that of
    all of them; here it is always the image's own. An image without a value above 0 is black.

    Parameters
    ----------
    weights : mapping of str to tensor
        From :func:`prepare`.
    latents : float32 tensor of shape (n, n_latents)

    Returns
    -------
    float32 tensor of shape (n, 3, resolution, resolution)
        In [-1, 1].
    """
    x = generator_output(weights, latents)
    brightest = x.amax(dim=(1, 2, 3), keepdim=True)
    brightest = brightest.masked_fill(brightest <= 0, 1)
    return x.div_(brightest).clamp_(0, 1).mul_(2).sub_(1)


def forward_clipped(weights: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Run the generator of a model that was trained on images in [0, 1] to give such; else alike.

    Values outside are clipped, and brightness is kept.
    """
    return generator_output(weights, latents).clamp_(0, 1).mul_(2).sub_(1)


# What becomes of the generator's output; the first is the original's.
DISPLAYS = {"brightest": forward, "clip": forward_clipped}


def generator_output(weights: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Return what the generator makes of latents, before it is scaled for display: above -1."""
    from torch.nn import functional

    x = functional.linear(latents, weights["generator.fc.weight"], weights["generator.fc.bias"])
    x = functional.elu(x)
    channels = weights["generator.layer1.weight"].shape[0]
    side = round((x.shape[1] // channels) ** 0.5)
    x = x.reshape(-1, channels, side, side)
    for layer in range(1, N_LAYERS + 1):
        kernel, bias = (weights[f"generator.layer{layer}.{part}"] for part in ("weight", "bias"))
        # TensorFlow pads an even image at its bottom and right only (SAME, stride 2). The gradient
        # of that, which is the transposed convolution, leaves off the last row and column.
        x = functional.conv_transpose2d(x, kernel, bias, stride=2)[:, :, :-1, :-1]
        x = functional.elu(x)
    return x


def encode_forward(weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Run the encoder.

    Parameters
    ----------
    weights : mapping of str to tensor
        From :func:`prepare`.
    images : float32 tensor of shape (n, 3, resolution, resolution)
        In [0, 1].

    Returns
    -------
    float32 tensor of shape (n, n_latents)
        The mean of the latent's distribution, in (-1, 1).
    """
    from torch.nn import functional

    x = images
    for layer in range(1, N_LAYERS + 1):
        kernel, bias = (weights[f"encoder.layer{layer}.{part}"] for part in ("weight", "bias"))
        # As SAME pads an even image at stride 2: nothing at the left and the top.
        x = functional.conv2d(functional.pad(x, (0, 1, 0, 1)), kernel, bias, stride=2)
        x = functional.elu(x)
    for name in ("encoder.fc", "encoder.mean"):
        x = functional.linear(x.flatten(1), weights[f"{name}.weight"], weights[f"{name}.bias"])
    return x.tanh()


@dataclass(frozen=True, eq=False)
class VaeGanGenerator(NetworkGenerator):
    """An :class:`~hyper_bids.generators.protocol.ImageGenerator` with an encoder."""

    latent_space: str = "encoded"

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return the latents of images, all in one batch.

        Of a photograph, the caller takes the part that ``frame`` says.

        Parameters
        ----------
        images : array of shape (n, height, width, 3)
            RGB in [0, 1], of the model's size.

        Returns
        -------
        float32 array of shape (n, n_latents)

        Raises
        ------
        ValueError
            If the images have another shape, or values outside [0, 1].
        """
        import torch

        images = np.asarray(images, dtype=np.float32)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images {images.shape}, but {self.name} wants (n, {wanted})")
        if len(images) == 0:
            return np.empty((0, self.n_latents), dtype=np.float32)
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"images from {images.min():g} to {images.max():g}; 0 to 1 is wanted "
                f"(divide uint8 by 255)"
            )
        with exact_inference():
            pixels = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).contiguous()
            return encode_forward(self.weights, pixels).cpu().numpy()


def _layer(name: str, kernel: tuple[int, ...], after: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.conv.weight": kernel, f"{name}.conv.bias": (after,)}
    return {**shapes, **{f"{name}.norm.{part}": (after,) for part in _NORM}}


def _dense(name: str, after: int, before: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}
