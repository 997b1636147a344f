"""Networks written in the project's layout, and the check that all arrays of a layout are there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, listing
from hyper_bids.generators import dcgan, pggan, vaegan, weightfile
from hyper_bids.generators.weightfile import FORMAT

MODELS = {"pggan": pggan, "dcgan": dcgan, "vaegan": vaegan}
# What a message calls the models that can be written.
_CALLED = {"pggan": "a PGGAN", "vaegan": "a VAE-GAN"}


def save_network(
    path: str | os.PathLike,
    model: str,
    state: Mapping[str, object],
    name: str,
    licence: str,
    source: str | None = None,
    **metadata: object,
) -> None:
    """Write the weights of a network in the project's layout.

    Parameters
    ----------
    path : str or path
        The ``.safetensors`` file.
    model : {"pggan", "vaegan"}
    state : mapping of str to array or tensor
        Arrays under the names that the model's ``Architecture.shapes`` gives; of a PGGAN without
        the scales of the equalised learning rate. Half precision is kept, all else becomes single
        precision.
    name : str
        Name of the weights, for ``Generator`` in ``stimuli/latents.json``.
    licence : str
        Licence of the weights.
    source : str, optional
        Format of the file that they come from, or what they were trained on.
    **metadata
        More for the file's metadata, such as ``frame``; written as text.

    Raises
    ------
    InputError
        If an array is missing, unknown, of a wrong shape, or not finite.
    ValueError
        If the model is none of these.
    """
    if model not in _CALLED:
        raise ValueError(f"model {model!r}; one of {', '.join(_CALLED)} is wanted")
    arrays = {key: _as_array(path, key, value) for key, value in state.items()}
    shapes = {key: array.shape for key, array in arrays.items()}
    architecture = checked_architecture(path, model, shapes)
    told = {"format": FORMAT, "model": model, "name": name, "licence": licence}
    told |= dataclasses.asdict(architecture)
    if source:
        told["source"] = source
    told = {key: str(value) for key, value in {**metadata, **told}.items()}
    weightfile.write(Path(path), {key: arrays[key] for key in architecture.shapes()}, told)


def checked_architecture(path: object, model: str, shapes: Mapping[str, tuple[int, ...]]):
    """Return the ``Architecture`` of a network with arrays of these shapes, all of them checked.

    Raises
    ------
    InputError
        If no network of the model, ``pggan`` or ``vaegan``, has such arrays.
    """
    try:
        architecture = MODELS[model].architecture_of(shapes)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not the arrays of {_CALLED[model]} ({error}).") from None
    check_shapes(path, shapes, architecture.shapes())
    return architecture


def check_shapes(
    path: object, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that all arrays of a layout are there, in their shapes, and no other.

    Raises
    ------
    InputError
        With the names of those that are missing or unknown, or both shapes of one.
    """
    missing = [key for key in expected if key not in shapes]
    unknown = [key for key in shapes if key not in expected]
    if missing or unknown:
        raise InputError(
            f"{path}: not the arrays of this model. Missing: {listing(missing, 4)}. "
            f"Unknown: {listing(unknown, 4)}. docs/image-models.md lists the layout."
        )
    for key, shape in expected.items():
        if tuple(shapes[key]) != shape:
            raise InputError(
                f"{path}: array {key} has shape {tuple(shapes[key])}, but {shape} is wanted. "
                f"docs/image-models.md lists the layout."
            )


def _as_array(path: object, key: str, value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = value if str(value.dtype) == "torch.float16" else value.float()
    array = np.asarray(value)
    array = array if array.dtype == np.float16 else array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: array {key} holds a value that is not finite; not written.")
    return array
