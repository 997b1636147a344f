"""Image models by name or file, the device they run on, and images in batches."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import resolve_device
from hyper_bids.errors import DeviceError, InputError, UsageError, listing
from hyper_bids.generators import dcgan, eigenface, exported, pggan, vaegan, weightfile
from hyper_bids.generators.network import NetworkGenerator
from hyper_bids.generators.protocol import to_uint8

if TYPE_CHECKING:
    from hyper_bids.generators.protocol import ImageGenerator

LOG = logging.getLogger("hyper_bids")

FORMAT = "hyper_bids"
MODELS = {"pggan": pggan, "dcgan": dcgan, "vaegan": vaegan}

_DATA = Path(__file__).resolve().parents[1] / "data"
_EMBEDDED = "dcgan-digiface1m"

# Names that need no file of the user's; the second is what the file calls itself.
KNOWN: dict[str, Path] = {
    "demo": _DATA / "dcgan_digiface1m.safetensors",
    _EMBEDDED: _DATA / "dcgan_digiface1m.safetensors",
}


def embedded_name() -> str:
    """Return the name of the image model that comes with the app."""
    return _EMBEDDED


def load(path_or_name: str | os.PathLike, device: str = "cpu") -> ImageGenerator:
    """Load an image model.

    Parameters
    ----------
    path_or_name : str or path
        A name in :data:`KNOWN`, or a file, told by its content: safetensors in the project's
        layout, a public checkpoint of a PGGAN (:mod:`hyper_bids.generators.formats`), or a model
        that PyTorch exported (:mod:`hyper_bids.generators.exported`).
    device : str
        As for :func:`resolve_device`.

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
        raise UsageError(
            f"--generator {path_or_name}: no such file and no known name. Give a file of "
            f"weights (docs/image-models.md), or one of: {', '.join(KNOWN)}."
        )
    device = resolve_device(device)
    if weightfile.is_safetensors(path):
        header = weightfile.read_header(path)
        if header.metadata.get("format") == FORMAT:
            return _load_own(path, header, device)
    elif exported.is_exported(path):
        return exported.load_exported(path, device)
    return _load_public(path, device)


def _load_own(path: Path, header: weightfile.Header, device: str) -> ImageGenerator:
    if header.metadata.get("model") == "eigenface":
        return eigenface.load_eigenface(path)
    model = _model(path, header)
    architecture = _architecture(path, model, header.metadata)
    _check_shapes(path, header.shapes, architecture.shapes())
    arrays = weightfile.read_arrays(path, header)
    name = header.metadata.get("name", path.stem)
    return _network(path, model, architecture, name, arrays, device)


def _load_public(path: Path, device: str) -> ImageGenerator:
    """Load a PGGAN or a VAE-GAN from a checkpoint of another project."""
    import torch

    from hyper_bids.generators import formats
    from hyper_bids.generators.formats import tf_bundle

    if tf_bundle.is_table(path):
        state = _from_tensorflow(path, tf_bundle.read_bundle(path, vaegan.is_used))
        architecture = vaegan.architecture_of({key: a.shape for key, a in state.items()})
        arrays = {key: torch.from_numpy(array) for key, array in state.items()}
        return _network(path, vaegan, architecture, path.stem, arrays, device)
    state, about = formats.read_pggan(path)
    LOG.info("%s: %s. Licence: %s", path.name, about["source"], about["licence"])
    architecture = pggan.architecture_of({key: array.shape for key, array in state.items()})
    arrays = {key: torch.from_numpy(array) for key, array in state.items()}
    return _network(path, pggan, architecture, path.stem, arrays, device)


def _from_tensorflow(path: Path, arrays: dict) -> dict:
    try:
        return vaegan.from_tensorflow(arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _network(path: Path, model, architecture, name: str, arrays: dict, device: str):
    kind = vaegan.VaeGanGenerator if model is vaegan else NetworkGenerator
    return kind(
        name=name,
        n_latents=architecture.n_latents,
        image_shape=(architecture.resolution, architecture.resolution, 3),
        normalises=model.NORMALISES,
        checksum=weightfile.checksum(path),
        device=device,
        forward=model.forward,
        weights=model.prepare({key: array.to(device) for key, array in arrays.items()}),
    )


def save_pggan(
    path: str | os.PathLike,
    state: Mapping[str, object],
    name: str,
    licence: str,
    source: str | None = None,
) -> None:
    """Write the weights of a PGGAN in the project's layout.

    Parameters
    ----------
    path : str or path
        The ``.safetensors`` file.
    state : mapping of str to array or tensor
        Arrays under the names that :meth:`pggan.Architecture.shapes` gives, without the scales of
        the equalised learning rate. Half precision is kept, all else becomes single precision.
    name : str
        Name of the weights, for ``Generator`` in ``stimuli/latents.json``.
    licence : str
        Licence of the weights.
    source : str, optional
        Format of the file that they come from.

    Raises
    ------
    InputError
        If an array is missing, unknown, of a wrong shape, or not finite.
    """
    arrays = {key: _as_array(path, key, value) for key, value in state.items()}
    shapes = {key: array.shape for key, array in arrays.items()}
    try:
        architecture = pggan.architecture_of(shapes)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not the arrays of a PGGAN ({error}).") from None
    expected = architecture.shapes()
    _check_shapes(path, shapes, expected)
    sizes = {key: str(value) for key, value in dataclasses.asdict(architecture).items()}
    metadata = {"format": FORMAT, "model": "pggan", "name": name, "licence": licence, **sizes}
    if source:
        metadata["source"] = source
    weightfile.write(Path(path), {key: arrays[key] for key in expected}, metadata)


def generate_batches(
    generator: ImageGenerator, latents: np.ndarray, batch_size: int, progress: bool = False
) -> np.ndarray:
    """Generate images in batches; a batch that does not fit into memory is halved.

    Parameters
    ----------
    generator : ImageGenerator
    latents : array of shape (n, n_latents)
    batch_size : int
        Images at a time; bounds the memory that is needed beside the result.
    progress : bool
        Show a progress bar.

    Returns
    -------
    uint8 array of shape (n, height, width, 3)

    Raises
    ------
    DeviceError
        If not even one image fits into memory.
    """
    from tqdm import tqdm

    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; 1 or more is wanted")
    images = np.empty((len(latents), *generator.image_shape), dtype=np.uint8)
    done = 0
    with tqdm(total=len(latents), desc="images", unit="image", disable=not progress) as bar:
        while done < len(latents):
            part = slice(done, min(done + batch_size, len(latents)))
            if _generate_into(images, part, generator, latents):
                bar.update(part.stop - done)
                done = part.stop
                continue
            if part.stop - done == 1:
                raise DeviceError(
                    f"{generator.name}: not even one image of {generator.image_shape[0]} x "
                    f"{generator.image_shape[1]} fits into memory. Use --device cpu, or give the "
                    f"job more memory."
                )
            batch_size = (part.stop - done) // 2
            LOG.warning("%s: out of memory, going on with %d at a time", generator.name, batch_size)
    return images


def _generate_into(images: np.ndarray, part: slice, generator, latents: np.ndarray) -> bool:
    import torch

    try:
        images[part] = to_uint8(generator.generate(latents[part]))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    else:
        return True
    # Only here, after the exception has let go of its tensors, can their memory be given back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    # On the CPU, PyTorch has no class of its own for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )


def _model(path: Path, header: weightfile.Header):
    metadata = header.metadata
    if metadata.get("model") not in MODELS:
        raise InputError(
            f"{path}: metadata model = {metadata.get('model')!r} is not known. "
            f"Models: {', '.join([*MODELS, 'eigenface'])}."
        )
    return MODELS[metadata["model"]]


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


def _check_shapes(
    path: object, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
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
