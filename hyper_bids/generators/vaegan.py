"""The VAE-GAN of VanRullen and Reddy (2019): images to latents and back, 128 pixels.

An encoder and a generator of five convolutions each, with batch norm and ELU, written as functions
over a dictionary of tensors. The latent of an image is the mean that the encoder gives. Outputs
equal those of the TensorFlow 1 original, of which :func:`from_tensorflow` takes the variables.

References
----------
VanRullen R, Reddy L (2019). Reconstructing faces from fMRI patterns using deep generative neural
networks. Communications Biology 2, 193. Code: https://github.com/rufinv/VAE-GAN-CelebA
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.errors import InputError, listing
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
_SIZES = ("encoder.layer1.conv.weight", "encoder.fc.weight", "encoder.mean.weight")


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
    missing = [key for key in _SIZES if key not in shapes]
    if missing:
        raise ValueError(f"no {listing(missing)}")
    first, last, mean = (shapes[key] for key in _SIZES)
    width = first[0] // _CHANNELS[0] if first else 0
    if width < 1 or len(last) != 2 or len(mean) != 2:
        raise ValueError(f"shapes {first}, {last} and {mean} of {listing(_SIZES)}")
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


class VaeGanGenerator(NetworkGenerator):
    """An :class:`~hyper_bids.generators.protocol.ImageGenerator` with an encoder."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return the latents of images, all in one batch.

        The original takes the middle 80 % of the middle square of a photograph; the caller does.

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
        # As in generate: the same on every device.
        exact = {"benchmark": False, "deterministic": True, "allow_tf32": False}
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, **exact):
            pixels = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).contiguous()
            return encode_forward(self.weights, pixels).cpu().numpy()


# TensorFlow's names. A batch norm's moving averages are called after the operations that gave the
# averaged values, whose names changed between versions.
_AVERAGE = re.compile(
    r"((?:encoder|generator)/layer\d+)/bn/(?:.*/)?moments/"
    r"(?:(?:moments_\d+|normalize)/)?(Squeeze|mean|Squeeze_1|variance)/ExponentialMovingAverage"
)
_AVERAGED = {"Squeeze": "mean", "mean": "mean", "Squeeze_1": "variance", "variance": "variance"}
# In the two networks, but not needed: what optimisers and moving averages keep, and the spread of
# the latents.
_LEFT_OUT = re.compile(
    r".*/(?:Adam(?:_\d+)?|Momentum|RMSProp(?:_\d+)?|Adagrad|biased|local_step)"
    r"|.*/beta[12]_power(?:_\d+)?|encoder/variational/log_sigma/[Wb]"
)


def is_used(variable: str) -> bool:
    """Say whether a variable of TensorFlow's belongs to the encoder or the generator.

    Left out is all that is in neither (the discriminator, counters), what optimisers keep, and the
    spread of the latents. An argument for :func:`formats.tf_bundle.read_bundle`.
    """
    scope = variable.partition("/")[0]
    return scope in ("encoder", "generator") and not _LEFT_OUT.fullmatch(variable)


def from_tensorflow(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring the variables of the original's checkpoint into the project's layout.

    Kernels of TensorFlow are (y, x, in, out), those of transposed convolutions (y, x, out, in), and
    dense ones (in, out), with images in the order y, x, channel.

    Parameters
    ----------
    arrays : mapping of str to array
        From :func:`formats.tf_bundle.read_bundle`.

    Returns
    -------
    dict of str to float32 array
        As :meth:`Architecture.shapes` of :func:`architecture_of` says.

    Raises
    ------
    InputError
        If a variable is missing, of a wrong shape or not finite, or if the encoder or the generator
        have a variable that is not known.
    """
    found = _by_plain_name(arrays)
    sizes = {_plain_name(key): key for key in _SIZES}
    missing = [name for name in sizes if name not in found]
    if missing:
        raise InputError(f"not the variables of a VAE-GAN. Missing: {listing(missing)}.")
    try:
        # Dense kernels are stored the other way round; those of convolutions end with the output.
        shapes = {key: found[name][1].shape[::-1] for name, key in sizes.items()}
        expected = architecture_of(shapes).shapes()
    except ValueError as error:
        raise InputError(f"not the variables of a VAE-GAN ({error}).") from None
    plain = {_plain_name(key): key for key in expected}
    missing = [name for name in plain if name not in found]
    unknown = [original for name, (original, _) in found.items() if name not in plain]
    if missing or unknown:
        raise InputError(
            f"not the variables of a VAE-GAN. Missing: {listing(missing, 4)}. "
            f"Unknown: {listing(unknown, 4)}."
        )
    n_pixels = expected["encoder.fc.weight"][1] // expected["encoder.layer5.conv.bias"][0]
    return {
        key: _converted(key, *found[name], expected[key], n_pixels) for name, key in plain.items()
    }


def _plain_name(key: str) -> str:
    """Return TensorFlow's name of an array; bn/mean and bn/variance stand for moving averages."""
    scope, *layer, kind, part = key.split(".")
    if kind == "norm":
        kind = "bn"
        part = {"weight": "gamma", "bias": "beta"}.get(part, part)
    else:
        conv = "conv2d" if scope == "encoder" else "deconv2d"
        kind = {"conv": conv, "mean": "variational/mu"}.get(kind, kind)
        part = {"weight": "W", "bias": "b"}[part]
    return "/".join([scope, *layer, kind, part])


def _by_plain_name(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    found: dict[str, tuple[str, np.ndarray]] = {}
    for name in filter(is_used, arrays):
        average = _AVERAGE.fullmatch(name)
        plain = f"{average[1]}/bn/{_AVERAGED[average[2]]}" if average else name
        if plain in found:
            raise InputError(f"variables {found[plain][0]} and {name} are the same moving average.")
        found[plain] = (name, np.asarray(arrays[name]))
    return found


def _converted(
    key: str, name: str, array: np.ndarray, shape: tuple[int, ...], n_pixels: int
) -> np.ndarray:
    wanted = shape
    if len(shape) == 4:
        wanted = (*shape[2:], shape[1], shape[0])
    elif len(shape) == 2:
        wanted = shape[::-1]
    if array.shape != wanted:
        raise InputError(f"variable {name} has shape {array.shape}, but {wanted} is wanted.")
    if not np.isfinite(array).all():
        raise InputError(f"variable {name} holds a value that is not finite (NaN or infinity).")
    if len(shape) == 4:
        array = array.transpose(3, 2, 0, 1)
    elif key == "encoder.fc.weight":
        array = array.reshape(n_pixels, -1, shape[0]).transpose(2, 1, 0)
    elif key.startswith("generator.fc"):
        # Rows, or the values of the bias.
        array = array.reshape(-1, n_pixels, shape[0] // n_pixels).transpose(2, 1, 0)
    elif len(shape) == 2:
        array = array.T
    return np.ascontiguousarray(array, dtype=np.float32).reshape(shape)


def _layer(name: str, kernel: tuple[int, ...], after: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.conv.weight": kernel, f"{name}.conv.bias": (after,)}
    return {**shapes, **{f"{name}.norm.{part}": (after,) for part in _NORM}}


def _dense(name: str, after: int, before: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}
