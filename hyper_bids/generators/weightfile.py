"""Reading and writing weight files: safetensors, and a name for everything else.

The format is eight bytes with the length of a header, the header (JSON: name to type, shape and
place; strings of metadata under ``__metadata__``), then the arrays
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError, OutputError, listing

if TYPE_CHECKING:
    import torch

# What the project's own files call their format in the metadata.
FORMAT = "hyper_bids"

_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_TYPE_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
_READABLE = (*_TYPES, "BF16")
_ADVICE = "docs/image-models.md lists the files that image models are read from."


@dataclass(frozen=True)
class Header:
    """What a weight file says about itself: metadata, and the type and shape of each array."""

    metadata: dict[str, str]
    types: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def is_safetensors(path: Path) -> bool:
    """Say whether a file starts as a safetensors file does."""
    with path.open("rb") as stream:
        return filekinds.is_safetensors(stream.read(9))


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, and check that the file is whole.

    Raises
    ------
    InputError
        If the file cannot be read, is something else (the message says what), or is cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(filekinds.N_BYTES)
            _refuse_other_kinds(path, start, size)
            length = int.from_bytes(start[:8], "little")
            if 8 + length > size:
                raise InputError(
                    f"{path}: truncated, {size} bytes, but its header alone has {8 + length}. "
                    f"Copy or download it again."
                )
            stream.seek(8)
            raw = stream.read(length)
    except OSError as error:
        raise InputError(f"{path}: the weights cannot be read ({error.strerror}).") from None
    return _parse(path, raw, size)


def read_arrays(path: Path, header: Header) -> dict[str, torch.Tensor]:
    """Read all arrays as float32 tensors.

    Raises
    ------
    InputError
        If an array is not of floating-point numbers, or holds a value that is not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    wrong = [f"{name} ({kind})" for name, kind in header.types.items() if kind not in _READABLE]
    if wrong:
        raise InputError(
            f"{path}: arrays of a type that weights cannot have: {listing(wrong)}. "
            f"Wanted: {', '.join(_READABLE)}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name).to(torch.float32) for name in header.shapes}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a valid safetensors file ({error}).") from None
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise InputError(
                f"{path}: array {name} holds a value that is not finite (NaN or infinity). "
                f"The file is damaged or badly converted; get it again."
            )
    return arrays


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on nothing but the arguments.

    The safetensors library writes the same format, but shuffles the metadata from run to run.

    Parameters
    ----------
    path : path
        The file; replaced at once when all is written.
    arrays : mapping of str to array
        Half, single or double precision.
    metadata : mapping of str to str

    Raises
    ------
    OutputError
        If the file cannot be written; one that was there is as before.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    place = 0
    for name, array in arrays.items():
        end = place + array.nbytes
        kind = _TYPE_NAMES[array.dtype]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for array in arrays.values():
                little = array.dtype.newbyteorder("<")
                stream.write(np.ascontiguousarray(array, dtype=little).tobytes())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        # A name that is too long cannot be deleted either.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _refuse_other_kinds(path: Path, start: bytes, size: int) -> None:
    if filekinds.is_safetensors(start):
        return
    kind = filekinds.kind_of(path, start) or f"{size} bytes of no known kind, no weights"
    raise InputError(f"{path}: {kind}. {_ADVICE}")


def _parse(path: Path, raw: bytes, size: int) -> Header:
    try:
        entries = json.loads(raw)
        metadata = entries.pop("__metadata__", {})
        types = {name: str(entry["dtype"]) for name, entry in entries.items()}
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
        metadata = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path}: not a safetensors file, its header cannot be read "
            f"({type(error).__name__}). {_ADVICE}"
        ) from None
    expected = 8 + len(raw) + max(ends, default=0)
    if size != expected:
        what = "truncated" if size < expected else "longer than it should be"
        raise InputError(f"{path}: {what}, {size} bytes of {expected}. Copy or download it again.")
    return Header(metadata, types, shapes)
