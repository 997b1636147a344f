"""Image models by name or file, the device they run on, and their precision there."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import filekinds
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, UsageError
from hyper_bids.generators import (
    eigenface,
    exported,
    pggan,
    vaegan,
    vaegan_tensorflow,
    weightfile,
)
from hyper_bids.generators.batches import generate_batches
from hyper_bids.generators.network import NetworkGenerator
from hyper_bids.generators.saving import MODELS, check_shapes
from hyper_bids.generators.weightfile import FORMAT

if TYPE_CHECKING:
    from hyper_bids.generators.protocol import ImageGenerator

__all__ = ["KNOWN", "PRECISIONS", "generate_batches", "load", "read_public"]

LOG = logging.getLogger("hyper_bids")

PRECISIONS = ("auto", "float32", "bf16")

_DATA = Path(__file__).resolve().parents[1] / "data"

# Names that need no file of the user's; the second is what the file calls itself.
KNOWN: dict[str, Path] = {
    "demo": _DATA / "dcgan_digiface1m.safetensors",
    "dcgan-digiface1m": _DATA / "dcgan_digiface1m.safetensors",
    "vaegan-digiface1m": _DATA / "vaegan_digiface1m.safetensors",
}


def load(
    path_or_name: str | os.PathLike, device: str = "cpu", precision: str = "float32"
) -> ImageGenerator:
    """Load an image model.

    Parameters
    ----------
    path_or_name : str or path
        A name in :data:`KNOWN`, or a file, told by its content: safetensors in the project's
        layout, a public checkpoint of a PGGAN (:mod:`hyper_bids.generators.formats`), or a model
        that PyTorch exported (:mod:`hyper_bids.generators.exported`).
    device : str
        As for :func:`resolve_device`.
    precision : str
        Of a PGGAN's convolutions: ``float32``; ``bf16`` (bfloat16); or ``auto``, bfloat16 where the
        device computes in it itself. Other models compute in single precision, whatever is asked
        for. The log says what was chosen, and the ``precision`` of what is returned.

    Returns
    -------
    ImageGenerator

    Raises
    ------
    UsageError
        If there is no such name and no such file.
    InputError
        If the file is not whole, of no known kind, or lacks or has too much of anything.
    DeviceError
        If the device is not there.
    """
    path = KNOWN.get(str(path_or_name), Path(path_or_name))
    if not path.is_file():
        what = filekinds.in_place_of_file(path)
        raise UsageError(
            f"--generator {path_or_name}: {what}, and no known name. Give a file of weights "
            f"(docs/image-models.md), or one of: {', '.join(KNOWN)}."
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}; one of {', '.join(PRECISIONS)} is wanted")
    generator = _load(path, resolve_device(device), precision)
    used = getattr(generator, "precision", "float32")
    if precision == "auto" or (precision == "bf16" and used == "float32"):
        LOG.info("%s: computes in %s (--precision %s)", generator.name, used, precision)
    return generator


def _load(path: Path, device: str, precision: str) -> ImageGenerator:
    try:
        if weightfile.is_safetensors(path):
            header = weightfile.read_header(path)
            if header.metadata.get("format") == FORMAT:
                return _load_own(path, header, device, precision)
        elif exported.is_exported(path):
            return exported.load_exported(path, device)
        return _load_public(path, device, precision)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: the weights cannot be read ({error.strerror}).")


def _load_own(path: Path, header: weightfile.Header, device: str, precision: str) -> ImageGenerator:
    if header.metadata.get("model") == "eigenface":
        return eigenface.load_eigenface(path)
    model = _model(path, header)
    architecture = _architecture(path, model, header.metadata)
    check_shapes(path, header.shapes, architecture.shapes())
    arrays = weightfile.read_arrays(path, header)
    name = header.metadata.get("name", path.stem)
    network = _network(path, model, architecture, name, arrays, (device, precision))
    frame = _frame(path, header.metadata)
    if model is not vaegan:
        return dataclasses.replace(network, frame=frame)
    display = header.metadata.get("display", "brightest")
    if display not in vaegan.DISPLAYS:
        raise InputError(
            f"{path}: metadata display = {display!r}; one of {', '.join(vaegan.DISPLAYS)} is "
            f"wanted. Convert the model again."
        )
    return dataclasses.replace(network, frame=frame, forward=vaegan.DISPLAYS[display])


def _load_public(path: Path, device: str, precision: str) -> ImageGenerator:
    """Load a PGGAN or a VAE-GAN from a checkpoint of another project."""
    import torch

    model, state, about = read_public(path)
    LOG.info("%s: %s. Licence: %s", path.name, about["source"], about["licence"])
    module = MODELS[model]
    architecture = module.architecture_of({key: array.shape for key, array in state.items()})
    arrays = {key: torch.from_numpy(array) for key, array in state.items()}
    network = _network(path, module, architecture, path.stem, arrays, (device, precision))
    return dataclasses.replace(network, frame=float(about.get("frame", 1.0)))


def read_public(path: Path) -> tuple[str, dict[str, np.ndarray], dict[str, object]]:
    """Read a PGGAN or a VAE-GAN from a checkpoint of another project.

    Parameters
    ----------
    path : path

    Returns
    -------
    model : str
        ``pggan`` or ``vaegan``.
    state : dict of str to array
        In the project's layout.
    about : dict
        ``format``, ``source`` (in words), ``licence`` and ``resolution``; ``frame`` of a VAE-GAN.

    Raises
    ------
    InputError
        If the file is damaged, or neither of the two in a known format.
    """
    from hyper_bids.generators import formats
    from hyper_bids.generators.formats import tf_bundle

    try:
        is_table = tf_bundle.is_table(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not is_table:
        return ("pggan", *formats.read_pggan(path))
    try:
        state = vaegan_tensorflow.from_tensorflow(
            tf_bundle.read_bundle(path, vaegan_tensorflow.is_used)
        )
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(str(path)) else f"{path}: {told}") from None
    sizes = vaegan.architecture_of({key: array.shape for key, array in state.items()})
    return "vaegan", state, vaegan_tensorflow.ABOUT | {"resolution": sizes.resolution}


def _network(path: Path, model, architecture, name: str, arrays: dict, where: tuple[str, str]):
    kind = vaegan.VaeGanGenerator if model is vaegan else NetworkGenerator
    device, precision = where
    on_device = {key: array.to(device) for key, array in arrays.items()}
    used, options = "float32", {}
    if model is pggan:
        native = precision == "auto" and pggan.native_bfloat16(device)
        used = "bfloat16" if precision == "bf16" or native else "float32"
        options = {"precision": used}
    return kind(
        name=name,
        n_latents=architecture.n_latents,
        image_shape=(architecture.resolution, architecture.resolution, 3),
        normalises=model.NORMALISES,
        checksum=filekinds.sha256(path),
        device=device,
        forward=model.forward,
        weights=model.prepare(on_device, **options),
        precision=used,
    )


def _model(path: Path, header: weightfile.Header):
    metadata = header.metadata
    if metadata.get("model") not in MODELS:
        raise InputError(
            f"{path}: metadata model = {metadata.get('model')!r} is not known. "
            f"Models: {', '.join([*MODELS, 'eigenface'])}."
        )
    return MODELS[metadata["model"]]


def _frame(path: Path, metadata: dict[str, str]) -> float:
    text = metadata.get("frame", "1")
    try:
        frame = float(text)
    except ValueError:
        frame = math.nan
    if not 0 < frame <= 1:
        raise InputError(
            f"{path}: metadata frame = {text!r}, a number above 0 to 1 is wanted. "
            f"Convert the model again."
        )
    return frame


def _architecture(path: Path, model, metadata: dict[str, str]):
    sizes = {}
    for field in dataclasses.fields(model.Architecture):
        text = metadata.get(field.name)
        if text is None and field.default is not dataclasses.MISSING:
            continue
        if text is None or not text.isdecimal():
            raise InputError(
                f"{path}: metadata {field.name} = {text!r}, a whole number is wanted. "
                f"Convert the model again."
            )
        sizes[field.name] = int(text)
    try:
        return model.Architecture(**sizes)
    except ValueError as error:
        raise InputError(f"{path}: metadata {error}. Convert the model again.") from None
