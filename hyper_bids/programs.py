"""Networks that PyTorch exported with their program: told apart, opened, run.

Such a file carries the network's operations, and **using one is running a program**, with the
rights of the user; nothing here confines it. What could be shut out is: a ``.pt2`` file with
compiled libraries (AOTInductor) or Python objects is refused, and pickles in it are read as tensors
only. What remains: PyTorch evaluates text of the file (shapes, in ``.pt2``), and its readers are
written for files of good will. So take such a file from whom you would take a program.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids.errors import InputError, listing

if TYPE_CHECKING:
    import torch

SAVED = "An exported model is what torch.jit.save or torch.export.save writes."

# Parts of a .pt2 archive that are machine code or Python objects.
_FOREIGN_PARTS = ("/data/aotinductor/", "/custom_obj_", "/opaque_obj_")
_EXPORT_PARTS = ("/archive_format", "/serialized_exported_program.json")


@dataclass(frozen=True)
class Keys:
    """Keys of the JSON file beside an exported network, and where they are explained."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    where: str


# Tests of a key's value, and what is accepted in words.
Accepted = dict[str, tuple[Callable[[object], bool], str]]


def read_declared(path: Path, keys: Keys, accepted: Callable[[dict], Accepted]) -> dict:
    """Read and check the JSON file beside an exported network.

    Parameters
    ----------
    path : path
        The network's file; the other has its name with ``.json``.
    keys : Keys
    accepted : callable
        Given all that the file says, the test of each key's value.

    Raises
    ------
    InputError
        With all keys that are missing, unknown, or have a value that is not accepted.
    """
    beside, where = path.with_suffix(".json"), keys.where
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
    except OSError as error:
        more = f"; {', '.join(keys.optional)}" if keys.optional else ""
        raise InputError(
            f"{beside}: cannot be read ({error.strerror}), but {path.name}, an exported network, "
            f"needs it: {', '.join(keys.required)}{more}. {where}"
        ) from None
    except ValueError as error:
        raise InputError(f"{beside}: not JSON ({error}). {where}") from None
    if not isinstance(told, dict):
        raise InputError(f"{beside}: a JSON object is wanted. {where}")
    missing = [key for key in keys.required if key not in told]
    unknown = [key for key in told if key not in keys.required + keys.optional]
    if missing or unknown:
        raise InputError(
            f"{beside}: missing: {listing(missing)}. Unknown: {listing(unknown)}. {where}"
        )
    wrong = [
        f"{key} = {json.dumps(told[key])[:60]} ({wanted} is wanted)"
        for key, (accepts, wanted) in accepted(told).items()
        if key in told and not accepts(told[key])
    ]
    if wrong:
        raise InputError(f"{beside}: {'; '.join(wrong)}. {where}")
    return told


def is_exported(path: Path) -> bool:
    """Say whether a file is an archive with a network in it, whether or not it can be used."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = ["/" + name for name in archive.namelist()]
    except zipfile.BadZipFile:
        return False  # what reads checkpoints says that it is damaged
    signs = ("/code/", *_EXPORT_PARTS, *_FOREIGN_PARTS)
    return any(sign in name for name in names for sign in signs)


def exported_kind(path: Path) -> str:
    """Return ``"TorchScript"`` or ``"torch.export"``, of a zip archive.

    Raises
    ------
    InputError
        If the archive is something else, or not whole; the message says what.
    """
    names = _parts(path)
    foreign = [name for name in names if any(part in name for part in _FOREIGN_PARTS)]
    if foreign:
        raise InputError(
            f"{path}: holds compiled code or Python objects ({listing(foreign, 2)}), which are not "
            f"run here. Save it with torch.export.save, without them."
        )
    if any(name.endswith(_EXPORT_PARTS) for name in names):
        return "torch.export"
    if any("/code/" in name for name in names) and any("constants.pkl" in name for name in names):
        return "TorchScript"
    if any(name.endswith("/data.pkl") for name in names):
        raise InputError(
            f"{path}: a PyTorch checkpoint (a pickle: arrays of a state dict, or a model that "
            f"needs its Python code), which is never read here. {SAVED}"
        )
    raise InputError(f"{path}: a zip archive without a model. {SAVED}")


def _parts(path: Path) -> list[str]:
    """Return the names of the parts of an archive that is whole, each with a slash before it."""
    try:
        with zipfile.ZipFile(path) as archive:
            # An export holds archives; one that is cut off looks like the last of them.
            if min((part.header_offset for part in archive.infolist()), default=0) > 0:
                raise zipfile.BadZipFile
            damaged = archive.testzip()
            if damaged:
                raise InputError(f"{path}: damaged in {damaged}. Copy it again. {SAVED}")
            return ["/" + name for name in archive.namelist()]
    except OSError as error:
        raise InputError(f"{path}: the model cannot be read ({error.strerror}). {SAVED}") from None
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: a truncated or damaged archive. Copy it again. {SAVED}"
        ) from None


def open_exported(path: Path, kind: str, device: str) -> Callable:
    """Return the network of an archive, which is a program: see the module's text.

    Parameters
    ----------
    path : path
    kind : str
        What :func:`exported_kind` says.
    device : str
        ``cpu``, ``cuda:0``.

    Raises
    ------
    InputError
        If this version of PyTorch cannot load it.
    """
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
            f"{path}: PyTorch {torch.__version__} cannot load this {kind} file "
            f"({last_line(error)}). Export the model again, on the CPU, with this version."
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


def call(network: Callable, *inputs) -> torch.Tensor:
    """Return what a network makes of its inputs; a MemoryError if a device's memory is short."""
    import torch

    try:
        # Without TorchScript's own optimiser, whose code changes from the first runs to later ones.
        with torch.jit.optimized_execution(False):
            return network(*inputs)
    except (RuntimeError, torch.jit.Error) as error:
        # TorchScript wraps what an operation raised.
        if "out of memory" in str(error):
            raise MemoryError(last_line(error)) from None
        raise


def in_batches(
    apply: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, size: int | None
) -> torch.Tensor:
    """Apply a network that takes one number of inputs at a time, the last of them repeated.

    Parameters
    ----------
    apply : callable
        Tensor of ``size`` rows to another.
    inputs : tensor of shape (n, ...)
    size : int, optional
        None: all at once.
    """
    import torch

    size = size or len(inputs)
    parts = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        wanted = len(part)
        if wanted < size:
            part = torch.cat([part, part[-1:].expand(size - wanted, *part.shape[1:])])
        parts.append(apply(part)[:wanted])
    return torch.cat(parts)


def last_line(error: BaseException) -> str:
    """Return the last line of an error, where TorchScript puts its reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__
