"""PGGAN generators from the files in which they are passed around.

Formats are told by content; the ending of a file's name says nothing. No code from a file is run.

References
----------
Karras T, Aila T, Laine S, Lehtinen J (2018). Progressive growing of GANs for improved quality,
stability, and variation. ICLR. arXiv:1710.10196
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError
from hyper_bids.generators import saving, weightfile
from hyper_bids.generators.formats import karras_pickle, mxnet_params, torch_files
from hyper_bids.generators.formats.conversion import convert, layout_of
from hyper_bids.generators.weightfile import FORMAT


def read_pggan(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Read a PGGAN generator from any known format.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    state : dict of str to float32 array
        Names and orientation of :meth:`pggan.Architecture.shapes`, weights without their scales.
        See :func:`conversion.convert` for the one exception, the biases of the PyTorch GAN zoo.
    about : dict
        ``format``: ``hyper_bids`` (this project's safetensors), ``karras`` (TensorFlow pickle),
        ``interfacegan``, ``interfacegan-2019``, ``genforce``, ``gan-zoo``, or ``hyper`` (MXNet);
        ``source`` (in words), ``branch`` (of a checkpoint, such as ``generator_smooth``),
        ``licence`` (a note), and ``resolution``.

    Raises
    ------
    InputError
        If the file cannot be read, is truncated, names code, or does not hold a PGGAN of a known
        layout with every array in its shape and no other.
    """
    path = Path(path)
    arrays, about, is_mxnet = _read(path)
    if about.get("format") == FORMAT:
        shapes = {key: array.shape for key, array in arrays.items()}
        architecture = saving.checked_architecture(path, "pggan", shapes)
        more = {"source": "this project's safetensors", "resolution": architecture.resolution}
        return arrays, about | more
    layout = layout_of(path, arrays, is_mxnet)
    state = convert(path, arrays, layout)
    return state, about | {
        "format": layout.name,
        "source": layout.source,
        "licence": layout.licence,
        "resolution": layout.resolution(),
    }


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object], bool]:
    arrays, about, is_mxnet = _read_container(path)
    if not all(key.isprintable() and len(key) < 200 for key in arrays):
        raise InputError(f"{path}: names of arrays are damaged. Copy or download it again.")
    return _unwrapped(arrays), about, is_mxnet


def _read_container(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object], bool]:
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
        if filekinds.is_safetensors(start):
            return *_read_safetensors(path), False
        if start.startswith(filekinds.MXNET):
            return mxnet_params.read_arrays(path), {"branch": ""}, True
        if start.startswith(filekinds.OLD_TORCH) or zipfile.is_zipfile(path):
            arrays, branch = torch_files.read_tensors(path)
            return arrays, {"branch": branch}, False
        if start.startswith(filekinds.PICKLE):
            return karras_pickle.read_variables(path), {"branch": "Gs"}, False
    except OSError as error:
        raise InputError(f"{path}: the weights cannot be read ({error.strerror}).") from None
    # Says what else it is, such as a web page.
    weightfile.read_header(path)
    raise InputError(f"{path}: of no known format.")


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    header = weightfile.read_header(path)
    arrays = {name: array.numpy() for name, array in weightfile.read_arrays(path, header).items()}
    about: dict[str, object] = {"branch": ""}
    if header.metadata.get("format") == FORMAT:
        model = header.metadata.get("model")
        if model != "pggan":
            raise InputError(f"{path}: a {model} in the project's layout; a pggan is wanted.")
        licence = header.metadata.get("licence", "not given in the file")
        return arrays, {**about, "format": FORMAT, "licence": licence}
    return arrays, about


def _unwrapped(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # A network that was trained on several GPUs is saved inside of another one.
    if arrays and all(key.startswith("module.") for key in arrays):
        return {key.removeprefix("module."): array for key, array in arrays.items()}
    return arrays
