"""The networks of a VAE-GAN while they are trained: functions over a dictionary of tensors.

Encoder and generator are those of :mod:`hyper_bids.generators.vaegan`; their batch norms use the
batch's own mean and variance, or the running averages of them (``frozen``). Two parts are needed
for training only: the spread of the latents, and a discriminator of four convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hyper_bids.generators.vaegan import EPSILON, N_LAYERS, Architecture

if TYPE_CHECKING:
    import torch

# Part of a batch's mean and variance that goes into the running averages.
MOMENTUM = 0.1
# Channels of the discriminator's layers, in widths.
_JUDGE = (2, 4, 8, 12)
# Twice the stride, so that all pixels count alike; else the generator learns a chequerboard.
_JUDGE_KERNEL = 4
# The layer in whose features a reconstruction is compared, as the third of Larsen et al. (2016).
FEATURE_LAYER = 3
# Bounds of the logarithm of a latent's spread.
_SPREAD = (-5.0, 1.0)


def shapes_of_training(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every array, those of the finished model first."""
    shapes = architecture.shapes()
    hidden = shapes["encoder.mean.weight"]
    shapes |= {"spread.weight": hidden, "spread.bias": hidden[:1]}
    channels = [3, *(architecture.width * factor for factor in _JUDGE)]
    for layer in range(1, len(channels)):
        before, after = channels[layer - 1 : layer + 1]
        shapes[f"discriminator.layer{layer}.conv.weight"] = (
            after,
            before,
            _JUDGE_KERNEL,
            _JUDGE_KERNEL,
        )
        for part in ("weight", "bias"):
            shapes[f"discriminator.layer{layer}.norm.{part}"] = (after,)
    n_pixels = (architecture.resolution // 2 ** len(_JUDGE)) ** 2
    shapes["discriminator.fc.weight"] = (1, channels[-1] * n_pixels)
    shapes["discriminator.fc.bias"] = (1,)
    return shapes


def initial_state(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    """Draw the weights that training starts from.

    Weights are normal with variance 2 / fan-in (He et al. 2015), those without a rectifier behind
    them with 1 / fan-in; biases are 0, batch norms the identity but for the last one.
    """
    import torch

    drawn = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes_of_training(architecture).items():
        if len(shape) == 1:
            is_one = name.endswith(("norm.weight", "norm.variance"))
            state[name] = torch.full(shape, float(is_one))
            continue
        fan_in = math.prod(shape[1:])
        if name.startswith("generator.layer"):
            # A pixel of a transposed convolution of stride 2 is reached by a quarter of the kernel.
            fan_in = shape[0] * 9 / 4
        gain = 2.0 if "layer" in name or name == "generator.fc.weight" else 1.0
        state[name] = torch.randn(shape, generator=drawn) * (gain / fan_in) ** 0.5
    # The first images are about as bright, and as rich in contrast, as photographs.
    state[f"generator.layer{N_LAYERS}.norm.weight"].fill_(0.25)
    state[f"generator.layer{N_LAYERS}.norm.bias"].fill_(0.5)
    return state


def encoded(
    state: Mapping[str, torch.Tensor], images: torch.Tensor, frozen: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and logarithm of the spread of the latents of images.

    Parameters
    ----------
    state : mapping of str to tensor
        Its running averages are updated, unless ``frozen``.
    images : float32 tensor of shape (n, 3, resolution, resolution)
        In [0, 1].
    frozen : bool
        Whether batch norms use the running averages.

    Returns
    -------
    tensors of shape (n, n_latents)
        The mean in (-1, 1).
    """
    from torch.nn import functional

    x = images
    for layer in range(1, N_LAYERS + 1):
        name = f"encoder.layer{layer}"
        # Padding as in vaegan.encode_forward.
        x = functional.conv2d(
            functional.pad(x, (0, 1, 0, 1)), state[f"{name}.conv.weight"], stride=2
        )
        x = functional.elu(_normalised(state, name, x, frozen))
    x = _dense(state, "encoder.fc", x.flatten(1))
    return _dense(state, "encoder.mean", x).tanh(), _dense(state, "spread", x).clamp(*_SPREAD)


def generated(
    state: Mapping[str, torch.Tensor], latents: torch.Tensor, frozen: bool = False
) -> torch.Tensor:
    """Return the images of latents, nominally in [0, 1]; parameters as for :func:`encoded`."""
    from torch.nn import functional

    x = functional.elu(_dense(state, "generator.fc", latents))
    channels = state["generator.layer1.conv.weight"].shape[0]
    side = round((x.shape[1] // channels) ** 0.5)
    x = x.reshape(-1, channels, side, side)
    for layer in range(1, N_LAYERS + 1):
        name = f"generator.layer{layer}"
        x = functional.conv_transpose2d(x, state[f"{name}.conv.weight"], stride=2)
        x = functional.elu(_normalised(state, name, x[:, :, :-1, :-1], frozen))
    return x


def judged(
    state: Mapping[str, torch.Tensor], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of images, and the discriminator's logit that they are real.

    Returns
    -------
    tensors of shape (n, channels, height, width) and (n,)
    """
    from torch.nn import functional

    x, features = images, images
    for layer in range(1, len(_JUDGE) + 1):
        name = f"discriminator.layer{layer}"
        x = functional.conv2d(x, state[f"{name}.conv.weight"], stride=2, padding=1)
        norm = (state[f"{name}.norm.{part}"] for part in ("weight", "bias"))
        x = functional.batch_norm(x, None, None, *norm, training=True, eps=EPSILON)
        if layer == FEATURE_LAYER:
            features = x
        x = functional.leaky_relu(x, 0.2)
    return features, _dense(state, "discriminator.fc", x.flatten(1)).squeeze(1)


def _normalised(
    state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor, frozen: bool
) -> torch.Tensor:
    from torch.nn import functional

    # The bias of the convolution is left out: batch norm would take it away again. It stays 0.
    parts = (state[f"{name}.norm.{part}"] for part in ("mean", "variance", "weight", "bias"))
    return functional.batch_norm(x, *parts, not frozen, MOMENTUM, EPSILON)


def _dense(state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
