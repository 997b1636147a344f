"""Any image model, exported by PyTorch with its network: TorchScript or ``torch.export``.

A weight file in the project's layout is arrays only. These files carry the network itself, so
that any architecture can be used without its Python code, and **using one is running a program**
(:mod:`hyper_bids.programs` says what that means).

Beside ``model.pt2`` lies ``model.json``, which says what the file does not:

- ``name``, ``licence``: texts.
- ``n_latents``: length of a latent as the dataset has it.
- ``output_range``: ``[-1, 1]``, ``[0, 1]`` or ``[0, 255]``, black to white in the network's output.
- ``layout``: ``NCHW`` or ``NHWC``, the order of the output's axes.
- ``channels``: ``RGB``, ``BGR`` or ``grey``.
- ``latent_space``: ``z``, ``w`` or ``w+``, the space that the latents are from.

and, where it is wanted:

- ``latent_shape``: shape of a latent as the network takes it, such as ``[18, 512]`` or
  ``[100, 1, 1]``, in C order; else ``[n_latents]``.
- ``inputs``: further positional arguments, the same for every image. A number, true, false or null
  is passed as it is, a list of numbers as a float32 tensor with a row for each image.
- ``truncation``, ``latent_mean``: the network is given mean + truncation * (latent - mean); a
  number, and a list of ``n_latents`` numbers (zeros for ``z`` if it is not given).
- ``batch``: the one number of images that the network takes at a time, if it takes one only.
- ``normalises``: whether an image depends on the direction of its latent only; else false.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import filekinds, programs
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, counted
from hyper_bids.generators import weightfile
from hyper_bids.generators.declaration import CHANNELS, Declaration, read_declaration
from hyper_bids.generators.network import NetworkGenerator
from hyper_bids.programs import SAVED, is_exported, last_line

if TYPE_CHECKING:
    import torch

__all__ = ["SUFFIXES", "exported_kind", "is_exported", "load_exported"]

LOG = logging.getLogger("hyper_bids")

SUFFIXES = (".pt", ".pt2", ".pth", ".torchscript", ".ts")
# Images of one latent may differ so much, relative to the range, from batch to batch.
_SAME = 1e-3


def load_exported(path: str | os.PathLike, device: str = "cpu") -> NetworkGenerator:
    """Load an exported model, and check it by making images.

    Loading runs the file's own code; see the module's text.

    Parameters
    ----------
    path : str or path
        A file of ``torch.jit.save`` or ``torch.export.save``, with a JSON file beside it that has
        the same name but for its ending.
    device : str
        As for :func:`resolve_device`.

    Returns
    -------
    NetworkGenerator
        An image generator without an encoder. Its checksum is that of the model's file.

    Raises
    ------
    InputError
        If the file is something else, its JSON file is missing or wrong, the network cannot be run
        or gives another shape, values that are not finite, or one latent two images.
    DeviceError
        If the device is not there.
    """
    path = Path(path)
    kind = exported_kind(path)
    declared = read_declaration(path)
    device = resolve_device(device)
    network = programs.open_exported(path, kind, device)

    def forward(_weights, latents: torch.Tensor) -> torch.Tensor:
        return _run(network, declared, latents)

    generator = NetworkGenerator(
        name=declared.name,
        n_latents=declared.n_latents,
        image_shape=(0, 0, 3),
        normalises=declared.normalises,
        checksum=filekinds.sha256(path),
        device=device,
        forward=forward,
        weights={},
        latent_space=declared.latent_space,
    )
    return replace(generator, image_shape=_probe(path, generator, declared))


def exported_kind(path: Path) -> str:
    """Return ``"TorchScript"`` or ``"torch.export"``.

    Raises
    ------
    InputError
        If the file is something else; the message says what.
    """
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        if not is_zip:
            weightfile.read_header(path)
            raise InputError(f"{path}: a safetensors file, whose name should end so.")
    except OSError as error:
        raise InputError(f"{path}: the model cannot be read ({error.strerror}). {SAVED}") from None
    except InputError as error:
        raise InputError(f"{error} {SAVED}") from None
    return programs.exported_kind(path)


def _run(network: Callable, declared: Declaration, latents: torch.Tensor) -> torch.Tensor:
    """Return images of shape (n, 3, height, width), nominally in [-1, 1], RGB."""
    import torch

    if declared.latent_mean or declared.truncation != 1:
        mean = torch.tensor(declared.latent_mean or (0.0,), device=latents.device)
        latents = mean + declared.truncation * (latents - mean)
    latents = latents.reshape(-1, *declared.latent_shape)

    def images(part: torch.Tensor) -> torch.Tensor:
        return _to_rgb(_call(network, declared, part), declared, len(part))

    return programs.in_batches(images, latents, declared.batch)


def _call(network: Callable, declared: Declaration, latents: torch.Tensor) -> torch.Tensor:
    import torch

    def constant(value):
        if not isinstance(value, list):
            return value
        row = torch.tensor(value, dtype=torch.float32, device=latents.device)
        return row.repeat(len(latents), 1)

    return programs.call(network, latents, *map(constant, declared.inputs))


def _to_rgb(images: torch.Tensor, declared: Declaration, n: int) -> torch.Tensor:
    import torch

    if not isinstance(images, torch.Tensor):
        raise ValueError(f"it gives a {type(images).__name__}, but one tensor is wanted")
    n_channels = CHANNELS[declared.channels]
    shape = tuple(images.shape)
    if images.ndim == 3 and n_channels == 1:
        images = images.unsqueeze(1)
    elif images.ndim == 4 and declared.layout == "NHWC":
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[:2] != (n, n_channels) or 0 in images.shape:
        raise ValueError(
            f"it gives {shape}, but {declared.layout} with {n} images and {n_channels} channels "
            f"({declared.channels}) is declared"
        )
    images = images.flip(1) if declared.channels == "BGR" else images.expand(-1, 3, -1, -1)
    low, high = declared.output_range
    return (images.to(torch.float32) - low) * (2 / (high - low)) - 1


def _probe(path: Path, generator: NetworkGenerator, declared: Declaration) -> tuple[int, int, int]:
    """Make images of two latents, together and alone, and return the shape of one."""
    latents = np.random.default_rng(0).standard_normal((2, declared.n_latents))
    latents = latents + np.array(declared.latent_mean or 0.0)

    def images(n: int) -> np.ndarray:
        try:
            return generator.generate(latents[:n])
        except Exception as error:  # The file's code can raise anything.
            raise InputError(
                f"{path}: the network cannot make {counted(n, 'image')} of {declared.n_latents} "
                f"latents each ({last_line(error)}). Mend {path.with_suffix('.json').name} (batch, "
                f"where it takes one number of images only), or export the model again."
            ) from None

    alone, both = images(1), images(2)
    if not np.isfinite(both).all():
        raise InputError(f"{path}: the network's images have values that are not finite.")
    apart = np.abs(both[:1] - alone).max()
    if apart > _SAME:
        raise InputError(
            f"{path}: one latent gives two images, which differ by {apart:.2g} of the range. "
            f"Export the network in evaluation mode (.eval()), and without random noise."
        )
    clipped = max(np.mean(both == 0), np.mean(both == 1))
    if clipped > 0.3 or both.max() < 0.01 or both.min() >= 0.5:
        LOG.warning(
            "%s: random images are black, white or bright all over (%.2f to %.2f); is "
            "output_range = %s right?",
            path, both.min(), both.max(), list(declared.output_range),
        )  # fmt: skip
    return tuple(map(int, both.shape[1:]))
