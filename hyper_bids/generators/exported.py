"""Any image model, exported by PyTorch with its network: TorchScript or ``torch.export``.

A weight file in the project's layout is arrays only. These files carry the network itself, so
that any architecture can be used without its Python code, and **using one is running a program**:
the network's operations are the file's own, with the rights of the user, and nothing here confines
them. What could be shut out is: a ``.pt2`` file with compiled libraries (AOTInductor) or Python
objects is refused, and pickles in it are read as tensors only. What remains: PyTorch evaluates
text of the file (shapes, in ``.pt2``), and its readers are written for files of good will. So take
such a file from whom you would take a program.

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
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, counted, listing
from hyper_bids.generators import weightfile
from hyper_bids.generators.declaration import CHANNELS, Declaration, read_declaration
from hyper_bids.generators.network import NetworkGenerator

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger("hyper_bids")

SUFFIXES = (".pt", ".pt2", ".pth", ".torchscript", ".ts")
_SAVED = "An exported model is what torch.jit.save or torch.export.save writes."
# Parts of a .pt2 archive that are machine code or Python objects.
_FOREIGN_PARTS = ("/data/aotinductor/", "/custom_obj_", "/opaque_obj_")
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
    network = _open(path, kind, device)

    def forward(_weights, latents: torch.Tensor) -> torch.Tensor:
        return _run(network, declared, latents)

    generator = NetworkGenerator(
        name=declared.name,
        n_latents=declared.n_latents,
        image_shape=(0, 0, 3),
        normalises=declared.normalises,
        checksum=weightfile.checksum(path),
        device=device,
        forward=forward,
        weights={},
        latent_space=declared.latent_space,
    )
    return replace(generator, image_shape=_probe(path, generator, declared))


def is_exported(path: Path) -> bool:
    """Say whether a file is an archive with a network in it, whether or not it can be used."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = ["/" + name for name in archive.namelist()]
    signs = ("/code/", "/archive_format", "/serialized_exported_program.json", *_FOREIGN_PARTS)
    return any(sign in name for name in names for sign in signs)


def exported_kind(path: Path) -> str:
    """Return ``"TorchScript"`` or ``"torch.export"``.

    Raises
    ------
    InputError
        If the file is something else; the message says what.
    """
    names = _parts(path)
    foreign = [name for name in names if any(part in name for part in _FOREIGN_PARTS)]
    if foreign:
        raise InputError(
            f"{path}: holds compiled code or Python objects ({listing(foreign, 2)}), which are not "
            f"run here. Save it with torch.export.save, without them."
        )
    if any(
        name.endswith(("/archive_format", "/serialized_exported_program.json")) for name in names
    ):
        return "torch.export"
    if any("/code/" in name for name in names) and any("constants.pkl" in name for name in names):
        return "TorchScript"
    if any(name.endswith("/data.pkl") for name in names):
        raise InputError(
            f"{path}: a PyTorch checkpoint (a pickle: arrays of a state dict, or a model that "
            f"needs its Python code), which is never read here. {_SAVED}"
        )
    raise InputError(f"{path}: a zip archive without a model. {_SAVED}")


def _parts(path: Path) -> list[str]:
    """Return the names of the parts of an archive that is whole, each with a slash before it."""
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        if not is_zip:
            weightfile.read_header(path)
            raise InputError(f"{path}: a safetensors file, whose name should end so.")
        with zipfile.ZipFile(path) as archive:
            # An export holds archives; one that is cut off looks like the last of them.
            if min((part.header_offset for part in archive.infolist()), default=0) > 0:
                raise zipfile.BadZipFile
            damaged = archive.testzip()
            if damaged:
                raise InputError(f"{path}: damaged in {damaged}. Copy it again.")
            return ["/" + name for name in archive.namelist()]
    except OSError as error:
        raise InputError(f"{path}: the model cannot be read ({error.strerror}).") from None
    except zipfile.BadZipFile:
        raise InputError(f"{path}: a truncated or damaged archive. Copy it again.") from None
    except InputError as error:
        raise InputError(f"{error} {_SAVED}") from None


def _open(path: Path, kind: str, device: str) -> Callable:
    import torch

    try:
        if kind == "TorchScript":
            return torch.jit.load(str(path), map_location=device).eval()
        with _tensors_only(), path.open("rb") as stream:
            program = torch.export.load(stream)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return program.module()
    except Exception as error:  # PyTorch's readers raise errors of all kinds.
        raise InputError(
            f"{path}: PyTorch {torch.__version__} cannot load this {kind} file ({_last(error)}). "
            f"Export the model again, on the CPU, with this version."
        ) from None


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Let torch.load read nothing but tensors, whatever its caller asks for."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before


def _run(network: Callable, declared: Declaration, latents: torch.Tensor) -> torch.Tensor:
    """Return images of shape (n, 3, height, width), nominally in [-1, 1], RGB."""
    import torch

    if declared.latent_mean or declared.truncation != 1:
        mean = torch.tensor(declared.latent_mean or (0.0,), device=latents.device)
        latents = mean + declared.truncation * (latents - mean)
    latents = latents.reshape(-1, *declared.latent_shape)
    size = declared.batch or len(latents)
    parts = []
    for start in range(0, len(latents), size):
        part = latents[start : start + size]
        wanted = len(part)
        if wanted < size:
            part = torch.cat([part, part[-1:].expand(size - wanted, *part.shape[1:])])
        parts.append(_to_rgb(_call(network, declared, part), declared, size)[:wanted])
    return torch.cat(parts)


def _call(network: Callable, declared: Declaration, latents: torch.Tensor) -> torch.Tensor:
    import torch

    def constant(value):
        if not isinstance(value, list):
            return value
        row = torch.tensor(value, dtype=torch.float32, device=latents.device)
        return row.repeat(len(latents), 1)

    try:
        # Without TorchScript's own optimiser, whose code changes from the first runs to later ones.
        with torch.jit.optimized_execution(False):
            return network(latents, *map(constant, declared.inputs))
    except (RuntimeError, torch.jit.Error) as error:
        # TorchScript wraps what an operation raised.
        if "out of memory" in str(error):
            raise MemoryError(_last(error)) from None
        raise


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
                f"latents each ({_last(error)}). Mend {path.with_suffix('.json').name} (batch, "
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


def _last(error: BaseException) -> str:
    """Return the last line of an error, where TorchScript puts its reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__
