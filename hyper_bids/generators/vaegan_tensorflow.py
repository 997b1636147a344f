"""The variables of the original VAE-GAN's TensorFlow 1 checkpoint, in the project's layout.

:mod:`hyper_bids.generators.formats.tf_bundle` reads the checkpoint, and
:mod:`hyper_bids.generators.vaegan` has the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from hyper_bids.errors import InputError, listing
from hyper_bids.generators.vaegan import SIZES, architecture_of

# The original was trained on the middle 80 % of the middle square of photographs.
ABOUT = {
    "format": "vaegan-tensorflow",
    "source": "VanRullen and Reddy's TensorFlow checkpoint",
    "licence": "see https://github.com/rufinv/VAE-GAN-CelebA (code: MIT); trained on CelebA, which "
    "is for non-commercial research",
    "frame": 0.8,
}

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
        As :meth:`vaegan.Architecture.shapes` of :func:`vaegan.architecture_of` says.

    Raises
    ------
    InputError
        If a variable is missing, of a wrong shape or not finite, or if the encoder or the generator
        have a variable that is not known.
    """
    found = _by_plain_name(arrays)
    sizes = {_plain_name(key): key for key in SIZES}
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
