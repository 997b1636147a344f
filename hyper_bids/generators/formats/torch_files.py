"""Files of ``torch.save``, zip archives and the older format, read without running anything.

Both hold a pickle in which a tensor is (storage, offset, size, stride), and the bytes of the
storages apart from it. ``torch.load(weights_only=True)`` refuses the checkpoints of the PyTorch
GAN zoo, which hold an object of settings beside the weights; here it is read as a record.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hyper_bids import unpickling
from hyper_bids.errors import InputError, listing
from hyper_bids.unpickling import Record

_TYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "u2",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "b1",
}  # fmt: skip
_FUNCTIONS = frozenset(
    (*(("torch._utils", f"_rebuild_{what}") for what in ("tensor", "tensor_v2", "parameter")),
     *(("torch", name) for name in ("Size", "Tensor", "device")))
)  # fmt: skip

# An archive that asks for a password or for another kind of compression is damaged, too.
_DAMAGE = (*unpickling.DAMAGE, zipfile.BadZipFile, RuntimeError)

# Networks within one checkpoint, the wanted one first: averaged over training, then as it ended.
_BRANCHES = ("generator_smooth", "avgG", "g_ema", "G_ema", "state_dict", "generator", "netG", "G")


class _Storage(NamedTuple):
    kind: str
    key: str
    offset: int
    n: int


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read the generator of a PyTorch checkpoint.

    Parameters
    ----------
    path : path
        A zip archive or a file of the older format.

    Returns
    -------
    arrays : dict of str to array
        All tensors of the generator, bfloat16 as single precision.
    branch : str
        Where in the checkpoint they were, such as ``generator_smooth``; empty: the checkpoint is
        the generator.

    Raises
    ------
    InputError
        If the file is truncated or damaged, names code, or holds no tensors by name.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(path, archive)
        return _read_legacy(path)
    except _DAMAGE as error:
        raise InputError(
            f"{path}: a PyTorch checkpoint that is truncated or damaged "
            f"({type(error).__name__}: {error}). Copy or download it again."
        ) from None


def _read_zip(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], str]:
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(
            f"{path}: a zip archive, but not a PyTorch checkpoint (it holds "
            f"{listing(archive.namelist(), 3)}). Give the file of weights itself."
        )
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    big = order in archive.namelist() and _stored(archive, order).strip() == b"big"
    tree = _load(path, io.BytesIO(_stored(archive, pickles[0])))

    def fetch(storage: _Storage) -> np.ndarray:
        dtype = np.dtype(_TYPES[storage.kind]).newbyteorder(">" if big else "<")
        return np.frombuffer(_stored(archive, f"{folder}data/{storage.key}"), dtype)

    return _tensors(path, tree, fetch)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    # PyTorch compresses nothing, and what is stored as it is cannot be larger than the file.
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(entry)


def _read_legacy(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with path.open("rb") as stream:
        _load(path, stream)
        version, system = _load(path, stream), _load(path, stream)
        if version != 1001 or not system.get("little_endian", True):
            raise InputError(
                f"{path}: a PyTorch checkpoint of version {version} that is not read here. "
                f"Load and save it again with a PyTorch of today."
            )
        kinds: dict[str, str] = {}
        tree = _load(path, stream, kinds)
        places = {}
        for key in _load(path, stream):
            (n,) = struct.unpack("<q", stream.read(8))
            dtype = np.dtype(_TYPES[kinds[str(key)]]).newbyteorder("<")
            places[str(key)] = (stream.tell(), n, dtype)
            stream.seek(n * dtype.itemsize, io.SEEK_CUR)

        def fetch(storage: _Storage) -> np.ndarray:
            place, n, dtype = places[storage.key]
            stream.seek(place)
            raw = stream.read(n * dtype.itemsize)
            if len(raw) < n * dtype.itemsize:
                raise EOFError("the end of the file was reached")
            return np.frombuffer(raw, dtype)

        return _tensors(path, tree, fetch)


def _load(path: Path, stream, kinds: dict[str, str] | None = None) -> object:
    def resolve(pid) -> _Storage:
        _, kind, key, _, n, *view = pid
        storage = _Storage(kind.origin.rpartition(".")[2], str(key), 0, n)
        if kinds is not None:
            kinds[storage.key] = storage.kind
        # The older format tells the part of a storage that another one shares.
        return storage if not view or view[0] is None else storage._replace(offset=view[0][1])

    return unpickling.load(stream, path, _is_known, resolve)


def _is_known(module: str, name: str) -> bool:
    return (
        (module, name) in _FUNCTIONS
        or (module in ("torch", "torch.cuda") and name in _TYPES)
        # Settings in the checkpoints of the PyTorch GAN zoo.
        or (name == "BaseConfig" and module.rpartition(".")[2] == "config")
    )


def _tensors(
    path: Path, tree: object, fetch: Callable[[_Storage], np.ndarray]
) -> tuple[dict[str, np.ndarray], str]:
    branch = ""
    if isinstance(tree, Mapping):
        branch = next((b for b in _BRANCHES if isinstance(tree.get(b), Mapping)), "")
    tensors = tree[branch] if branch else tree
    if not isinstance(tensors, Mapping) or not any(_is_tensor(t) for t in tensors.values()):
        what = f"keys {listing(tree, 4)}" if isinstance(tree, Mapping) else type(tree).__name__
        raise InputError(
            f"{path}: a PyTorch file, but not of a generator's weights by name ({what}). "
            f"Give the checkpoint with the generator's state_dict."
        )
    other = [str(key) for key, value in tensors.items() if not _is_tensor(value)]
    if other:
        raise InputError(
            f"{path}: beside tensors, the checkpoint holds {listing(other, 4)}. "
            f"Give the checkpoint with the generator's state_dict."
        )
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for key, value in tensors.items():
        tensor = _unwrapped(value)
        storage = tensor.args[0]
        if storage.key not in storages:
            storages[storage.key] = fetch(storage)
        try:
            arrays[str(key)] = _view(storages[storage.key], storage, tensor.args)
        except ValueError as error:
            raise InputError(
                f"{path}: tensor {key} is damaged ({error}). Copy or download it again."
            ) from None
    return arrays, branch


def _is_tensor(value: object) -> bool:
    tensor = _unwrapped(value)
    return (
        isinstance(tensor, Record)
        and tensor.origin in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
        and len(tensor.args) >= 4
        and isinstance(tensor.args[0], _Storage)
    )


def _unwrapped(value: object) -> object:
    is_parameter = isinstance(value, Record) and value.origin.endswith("_rebuild_parameter")
    return value.args[0] if is_parameter and value.args else value


def _view(flat: np.ndarray, storage: _Storage, args: tuple) -> np.ndarray:
    offset, size, stride = (storage.offset + args[1], tuple(args[2]), tuple(args[3]))
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise ValueError(f"size {size}, stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size or last >= len(flat) or np.prod(size, dtype=object) > len(flat):
        raise ValueError(f"size {size} from a storage of {len(flat)}")
    steps = tuple(step * flat.itemsize for step in stride)
    array = np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)
    if storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array.copy()
