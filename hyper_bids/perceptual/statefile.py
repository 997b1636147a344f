"""Reading the weights of feature networks, recognised by content: name to array."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.perceptual import unpickle

EXPECTED = (
    "Wanted: VGGFace2 ResNet50 (keras_vggface's .h5, or a PyTorch .pkl or .pth), VGG16 of "
    "torchvision (.pth), AlexNet of torchvision (.pth), or EfficientNet-Lite0 (.pth)."
)

# First bytes of the oldest pickles, which are text, and of Torch7.
_OLD_PICKLES = (b"(d", b"}q", b"ccoll")
_TORCH7 = b"torch7"


def read_state(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read a weight file.

    Parameters
    ----------
    path : path

    Returns
    -------
    layout : {"keras", "state dict"}
    arrays : dict of str to array
        Under the file's names; of a Keras file ``layer/variable``.

    Raises
    ------
    InputError
        If the file is cut off, or holds something else (the message says what).
    UsageError
        If an HDF5 file is given where h5py is not installed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(filekinds.N_BYTES)
    except OSError as error:
        raise InputError(f"{path}: the weights cannot be read ({error.strerror}).") from None
    if start.startswith(filekinds.HDF5):
        return "keras", _read_keras(path)
    if start.startswith((filekinds.ZIP, filekinds.OLD_TORCH)):
        return "state dict", _read_torch(path, start.startswith(filekinds.ZIP))
    if filekinds.is_safetensors(start):
        return "state dict", _read_safetensors(path)
    if start.startswith((*filekinds.PICKLE, *_OLD_PICKLES)):
        return "state dict", unpickle.read_arrays(path)
    kind = "a Torch7 file" if start.startswith(_TORCH7) else filekinds.kind_of(path, start)
    raise InputError(f"{path}: {kind or f'{size} bytes of no known kind, no weights'}. {EXPECTED}")


def checked(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    network: str,
) -> dict[str, np.ndarray]:
    """Return the wanted arrays as float32, every one of the file having been accounted for.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array
    wanted : mapping of str to tuple of int
        Name to shape. Only counts of batches (``num_batches_tracked``) may be there beside these.
    network : str
        Its name, for messages.

    Raises
    ------
    InputError
        If an array is missing, unknown, of another shape or no floating point, or holds a value
        that is not finite, or a variance below 0.
    """
    missing = [key for key in wanted if key not in arrays]
    counts = "num_batches_tracked"
    unknown = [key for key in arrays if key not in wanted and key.rpartition(".")[2] != counts]
    if missing or unknown:
        raise InputError(
            f"{path}: not the arrays of {network}. Missing: {listing(missing, 4)}. Unknown: "
            f"{listing(unknown, 4)}. {EXPECTED}"
        )
    state = {}
    for key, shape in wanted.items():
        array = np.asarray(arrays[key])
        if array.shape != tuple(shape):
            raise InputError(
                f"{path}: array {key} has shape {array.shape}, but {network} wants {tuple(shape)}."
            )
        if array.dtype.kind != "f":
            raise InputError(
                f"{path}: array {key} is of type {array.dtype}; floating point is wanted."
            )
        array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all() or (key.endswith("running_var") and array.min() < 0):
            raise InputError(
                f"{path}: array {key} holds a value that cannot be (NaN, infinity or a variance "
                f"below 0). The file is damaged; get it again."
            )
        state[key] = array
    return state


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise UsageError(
            f"{path}: a Keras file (HDF5), which the package h5py reads. It is not installed: "
            f"pip install 'hyper_bids[faces]', or pip install h5py."
        ) from None
    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" not in root.attrs:
                raise InputError(
                    f"{path}: an HDF5 file, but not of Keras weights (no layer_names). {EXPECTED}"
                )
            for layer in map(_text, root.attrs["layer_names"]):
                group = root[layer]
                for name in map(_text, group.attrs.get("weight_names", ())):
                    variable = name.rpartition("/")[2].partition(":")[0]
                    arrays[f"{layer}/{variable}"] = np.asarray(group[name])
    except (OSError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
        raise InputError(
            f"{path}: a truncated or damaged HDF5 file ({reason}). Copy or download it again."
        ) from None
    return arrays


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _read_torch(path: Path, is_zip: bool) -> dict[str, np.ndarray]:
    import torch

    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            raise InputError(f"{path}: a damaged zip archive. Copy or download it again.") from None
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(f"{path}: a zip archive, but not of PyTorch. {EXPECTED}")
    elif is_zip:
        raise InputError(f"{path}: a truncated zip archive. Copy or download it again.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        raise InputError(
            f"{path}: a PyTorch file that is truncated or holds more than tensors; it could run "
            f"code and is not read. {reason.strip()} Save its state dict: "
            f"torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: a truncated or damaged PyTorch file ({reason}). Copy or download it again."
        ) from None
    for key in ("state_dict", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(hasattr(v, "detach") for v in found.values()):
        raise InputError(f"{path}: a PyTorch file, but not a state dict of tensors. {EXPECTED}")
    names = [str(key).removeprefix("module.") for key in found]
    return {
        name: (value.float() if value.is_floating_point() else value).detach().numpy()
        for name, value in zip(names, found.values(), strict=True)
    }


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: a truncated or damaged safetensors file ({error}). Get it again."
        ) from None
