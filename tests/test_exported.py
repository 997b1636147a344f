"""Image models that bring their network: TorchScript and torch.export files."""

import hashlib
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from hyper_bids.errors import DeviceError, InputError
from hyper_bids.generators import checkpoints
from hyper_bids.generators.exported import exported_kind, load_exported
from hyper_bids.generators.protocol import ImageGenerator

KINDS = ("TorchScript", "torch.export")
DECLARED = {
    "name": "tiny", "licence": "CC0", "n_latents": 4, "output_range": [-1, 1], "layout": "NCHW",
    "channels": "RGB", "latent_space": "z",
}  # fmt: skip


class Tiny(nn.Module):
    """A network with a batch norm, for images of 3 x 5 pixels."""

    def __init__(self, channels=3):
        super().__init__()
        self.channels = channels
        self.dense = nn.Linear(4, channels * 15)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, z):
        return self.norm(self.dense(z).reshape(-1, self.channels, 3, 5)).tanh()


class Around(nn.Module):
    """The tiny network with something after it."""

    def __init__(self, core, after):
        super().__init__()
        self.core, self.after = core, after

    def forward(self, z):
        return self.after(self.core(z))


class Steered(nn.Module):
    """A network with a label, a number and layers of latents, of grey images."""

    def __init__(self):
        super().__init__()
        self.core = Tiny(1)

    def forward(self, w, label, strength: float):
        return (self.core(w[:, 0] + w[:, 1] * label) * strength).squeeze(1)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(5)
    return Tiny().eval()


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """Both files of the tiny network; exporting takes seconds, so that it is done once."""
    folder = tmp_path_factory.mktemp("exported")
    names = {kind: export(tiny, kind, folder / kind.replace(".", "")) for kind in KINDS}
    return {kind: path.read_bytes() for kind, path in names.items()}


def export(network, kind, stem, arguments=None):
    arguments = arguments or (torch.zeros(2, 4),)
    if kind == "TorchScript":
        path = stem.with_suffix(".pt")
        torch.jit.save(torch.jit.script(network), path)
        return path
    path = stem.with_suffix(".pt2")
    n = torch.export.Dim("n")
    shapes = tuple({0: n} if isinstance(a, torch.Tensor) else None for a in arguments)
    torch.export.save(torch.export.export(network, arguments, dynamic_shapes=shapes), path)
    return path


@pytest.fixture
def given(files, tmp_path):
    """Return a function that writes a model and its JSON file, and gives the path."""

    def write(model="TorchScript", drop=(), **declared):
        path = tmp_path / ("model.pt2" if model == "torch.export" else "model.pt")
        if isinstance(model, nn.Module):
            torch.jit.save(torch.jit.trace(model, torch.zeros(2, 4)), path)
        else:
            path.write_bytes(files.get(model, model))
        told = {k: v for k, v in {**DECLARED, **declared}.items() if k not in drop}
        path.with_suffix(".json").write_text(json.dumps(told))
        return path

    return write


def eager(network, latents):
    with torch.no_grad():
        return network(torch.from_numpy(latents)).numpy()


@pytest.fixture
def latents(rng):
    return rng.standard_normal((7, 4)).astype(np.float32)


# Images


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_network_makes_the_images_of_the_original(kind, given, tiny, latents):
    path = given(kind)
    model = load_exported(path)
    assert exported_kind(path) == kind
    assert isinstance(model, ImageGenerator)
    assert (model.name, model.n_latents, model.image_shape) == ("tiny", 4, (3, 5, 3))
    assert (model.latent_space, model.frame) == ("z", 1.0)
    assert model.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    expected = (eager(tiny, latents).transpose(0, 2, 3, 1) + 1) / 2
    images = model.generate(latents)
    assert images.dtype == np.float32
    assert images.std() > 0.1
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_allclose(model.generate(latents[3:4]), expected[3:4], atol=1e-6)
    assert model.generate(latents[:0]).shape == (0, 3, 5, 3)
    # As the stage of images makes them, and the same bits at each call.
    in_batches = checkpoints.generate_batches(model, latents, 3)
    assert np.abs(in_batches - np.rint(expected * 255)).max() <= 1
    np.testing.assert_array_equal(model.generate(latents), images)


def test_ranges_layouts_and_channels_are_turned_into_rgb_of_0_to_1(given, tiny, latents):
    expected = load_exported(given()).generate(latents)
    variants = [
        (lambda x: (x + 1) / 2, {"output_range": [0, 1]}),
        (lambda x: (x + 1) * 127.5, {"output_range": [0, 255]}),
        (lambda x: x.permute(0, 2, 3, 1), {"layout": "NHWC"}),
        (lambda x: x.flip(1), {"channels": "BGR"}),
        (lambda x: x.flip(1).permute(0, 2, 3, 1).double(), {"channels": "BGR", "layout": "NHWC"}),
    ]
    for after, declared in variants:
        model = load_exported(given(Around(tiny, after), **declared))
        np.testing.assert_allclose(model.generate(latents), expected, atol=1e-6)
    whole = load_exported(
        given(Around(tiny, lambda x: ((x + 1) * 127.5).to(torch.uint8)), output_range=[0, 255])
    )
    np.testing.assert_allclose(whole.generate(latents), expected, atol=1 / 255 + 1e-6)


def test_grey_images_are_repeated_to_rgb_with_or_without_an_axis(given, tiny, latents):
    expected = load_exported(given()).generate(latents)[..., :1].repeat(3, axis=3)
    for after, layout in [
        (lambda x: x[:, :1], "NCHW"),
        (lambda x: x[:, 0], "NCHW"),
        (lambda x: x[:, 0, :, :, None], "NHWC"),
    ]:
        model = load_exported(given(Around(tiny, after), channels="grey", layout=layout))
        np.testing.assert_allclose(model.generate(latents), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_latents_and_constant_inputs_reach_the_network(kind, rng, tmp_path):
    network = Steered().eval()
    label = [0.5, -1.0, 2.0, 0.0]
    path = export(
        network, kind, tmp_path / "model", (torch.zeros(2, 2, 4), torch.zeros(2, 4), 0.25)
    )
    told = {"n_latents": 8, "latent_shape": [2, 4], "latent_space": "w+", "channels": "grey"}
    told["inputs"] = [label, 0.25]
    path.with_suffix(".json").write_text(json.dumps({**DECLARED, **told}))
    latents = rng.standard_normal((5, 8)).astype(np.float32)
    with torch.no_grad():
        w = torch.from_numpy(latents).reshape(5, 2, 4)
        expected = (network(w, torch.tensor(label), 0.25).numpy() + 1) / 2
    images = load_exported(path).generate(latents)
    np.testing.assert_allclose(images[..., 1], expected, atol=1e-6)


def test_truncation_moves_latents_towards_their_mean(given, latents):
    plain = load_exported(given())
    mean = np.array([1.0, 2.0, -1.0, 0.5], np.float32)
    zero = load_exported(given(truncation=0.7))
    np.testing.assert_allclose(zero.generate(latents), plain.generate(0.7 * latents), atol=1e-6)
    told = {"latent_space": "w", "truncation": 0.7, "latent_mean": mean.tolist()}
    moved = load_exported(given(**told))
    expected = plain.generate(mean + 0.7 * (latents - mean))
    np.testing.assert_allclose(moved.generate(latents), expected, atol=1e-6)
    with pytest.raises(InputError, match="truncation in w needs latent_mean"):
        load_exported(given(latent_space="w", truncation=0.7))


def test_a_network_for_one_number_of_images_gets_just_so_many(tiny, latents, given, tmp_path):
    expected = load_exported(given()).generate(latents)
    path = tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(tiny, (torch.zeros(3, 4),)), path)
    told = path.with_suffix(".json")
    told.write_text(json.dumps(DECLARED))
    with pytest.raises(InputError, match=r"cannot make 1 image .*fixed\.json \(batch"):
        load_exported(path)
    told.write_text(json.dumps({**DECLARED, "batch": 3}))
    np.testing.assert_allclose(load_exported(path).generate(latents), expected, atol=1e-6)


def test_a_scripted_network_in_training_mode_is_put_into_evaluation(tiny, given, tmp_path, latents):
    expected = load_exported(given()).generate(latents)
    tiny.train()
    path = export(tiny, "TorchScript", tmp_path / "training")
    tiny.eval()
    path.with_suffix(".json").write_text(json.dumps(DECLARED))
    np.testing.assert_allclose(load_exported(path).generate(latents), expected, atol=1e-6)


def test_an_exported_model_has_no_encoder_and_says_so(given):
    with pytest.raises(InputError, match="tiny: this image model has no encoder"):
        load_exported(given()).encode(np.zeros((1, 3, 5, 3)))


# Networks that are wrong


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"n_latents": 5}, "cannot make 1 image of 5 latents.*mat1 and mat2"),
        ({"layout": "NHWC"}, r"gives \(1, 3, 3, 5\), but NHWC with 1 images and 3 channels"),
        ({"channels": "grey"}, r"gives \(1, 3, 3, 5\), but NCHW .* 1 channels \(grey\)"),
        ({"inputs": [1.0]}, "cannot make 1 image"),
        ({"latent_shape": [2, 2]}, "cannot make 1 image"),
    ],
)
def test_a_network_that_is_not_what_its_declaration_says_is_refused(declared, told, given):
    for kind in KINDS:
        match = told if kind == "TorchScript" else told.split(".*mat1")[0]
        with pytest.raises(InputError, match=match) as caught:
            load_exported(given(kind, **declared))
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_images_that_depend_on_the_batch_or_on_chance_are_refused(tiny, given):
    # A trace keeps the training mode for good.
    with pytest.raises(InputError, match=r"one latent gives two images.*\.eval\(\)"):
        load_exported(given(Tiny().train()))
    noisy = Around(tiny, lambda x: (x + torch.randn_like(x)).clamp(-1, 1))
    with pytest.raises(InputError, match=r"one latent gives two images.*random noise"):
        load_exported(given(noisy))


def test_images_that_are_not_finite_are_refused(tiny, given):
    with pytest.raises(InputError, match="not finite"):
        load_exported(given(Around(tiny, lambda x: x * float("nan"))))


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        (lambda x: x, [0, 1]),
        (lambda x: x, [0, 255]),
        (lambda x: (x + 1) / 2, [-1, 1]),
        (lambda x: (x + 1) / 2, [0, 255]),
        (lambda x: (x + 1) * 127.5, [0, 1]),
        (lambda x: (x + 1) * 127.5, [-1, 1]),
    ],
)
def test_a_range_that_cannot_be_right_is_told(after, wrong, tiny, given, said):
    load_exported(given(Around(tiny, after), output_range=wrong))
    assert f"output_range = {wrong} right?" in said.text


def test_nothing_is_said_about_a_range_that_is_right(given, said):
    load_exported(given())
    assert said.text == ""


# Files and declarations that are wrong


def zipped(**parts):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name.replace("__", "/"), content)

    return write


OTHERS = {
    "state dict": (lambda p: torch.save(Tiny().state_dict(), p), "PyTorch checkpoint.*state dict"),
    "whole model": (lambda p: torch.save(Tiny(), p), "needs its Python code"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({}, protocol=2)), "Python pickle"),
    "lfs": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS pointer",
    ),
    "html": (lambda p: p.write_bytes(b"<!DOCTYPE html><html>Sign in</html>"), "HTML page"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "safetensors": (lambda p: p.write_bytes(b"\x02" + bytes(7) + b"{}"), "a safetensors file"),
    "zip": (zipped(a__b="x"), "a zip archive without a model"),
    "compiled": (
        zipped(m__archive_format="pt2", m__data__aotinductor__model__a="x"),
        "compiled code or Python objects",
    ),
    "objects": (
        zipped(m__archive_format="pt2", m__data__constants__opaque_obj_0="x"),
        "compiled code or Python objects",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_that_is_no_exported_model_is_called_what_it_is(kind, given):
    write, told = OTHERS[kind]
    path = given(b"")
    write(path)
    with pytest.raises(InputError, match=told) as caught:
        load_exported(path)
    assert str(path) in str(caught.value)
    assert "torch.export.save" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_cut_off_or_damaged_is_refused(kind, given, files):
    whole = files[kind]
    with pytest.raises(InputError, match="truncated or damaged"):
        load_exported(given(whole[:-40]))
    at = whole.index(b"model.json" if kind == "torch.export" else b"__torch__")
    damaged = bytearray(whole)
    damaged[at + 200] ^= 255
    with pytest.raises(InputError, match="damaged"):
        load_exported(given(bytes(damaged)))


def test_a_file_that_is_not_there_and_one_of_another_version_are_told(given, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_exported(tmp_path / "none.pt")
    path = given(b"")
    zipped(m__archive_format="pt2", m__archive_version="99")(path)
    with pytest.raises(InputError, match=r"PyTorch .* cannot load this torch\.export file"):
        load_exported(path)


def test_a_pickle_inside_an_export_is_not_run(given, files, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = given("torch.export")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sample = next(name for name in parts if "sample_inputs" in name)
    torch.save(Trap(), tmp_path / "trap.pt")
    parts[sample] = (tmp_path / "trap.pt").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="cannot load"):
        load_exported(path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_declaration_is_told_with_what_it_holds(given):
    path = given()
    path.with_suffix(".json").unlink()
    with pytest.raises(
        InputError,
        match=r"model\.json: cannot be read.*model\.pt, an exported network, needs it: name",
    ):
        load_exported(path)
    for text, told in [("{", "not JSON"), ("[1]", "a JSON object is wanted")]:
        path.with_suffix(".json").write_text(text)
        with pytest.raises(InputError, match=told):
            load_exported(path)


def test_all_keys_that_are_missing_or_unknown_are_told_at_once(given):
    with pytest.raises(InputError, match=r"missing: licence, layout\. Unknown: layuot\."):
        load_exported(given(drop=("licence", "layout"), layuot="NCHW"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", " "), ("licence", None), ("n_latents", 0), ("n_latents", True),
        ("n_latents", "4"), ("output_range", [1, 0]), ("output_range", 255), ("layout", "nchw"),
        ("layout", ["NCHW"]), ("channels", "RGBA"), ("channels", []), ("latent_space", "y"),
        ("latent_shape", [3, 2]), ("latent_shape", 4), ("latent_shape", [-4, -1]),
        ("inputs", 1.0), ("inputs", ["a"]), ("inputs", [[]]), ("inputs", [[[1]]]),
        ("truncation", "0.7"), ("truncation", float("nan")), ("latent_mean", [0, 0]),
        ("latent_mean", [0, 0, 0, None]), ("batch", 0), ("batch", None), ("normalises", "no"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_accepted_is_told_with_what_is(key, value, given):
    with pytest.raises(InputError, match=rf"model\.json: {key} = .* \(.* is wanted\)") as caught:
        load_exported(given(**{key: value}))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_told(given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda"):
        load_exported(given(), "cuda")


def test_memory_that_does_not_do_is_told_so_that_a_batch_can_be_halved(given, latents):
    class Full(nn.Module):
        def __init__(self, core):
            super().__init__()
            self.core = core

        def forward(self, z):
            if z.shape[0] > 2:
                raise RuntimeError("CUDA out of memory.")
            return self.core(z)

    path = given()
    tiny = Tiny().eval()
    torch.jit.save(torch.jit.script(Full(tiny)), path)
    model = load_exported(path)
    with pytest.raises(MemoryError):
        model.generate(latents)
    expected = (eager(tiny, latents).transpose(0, 2, 3, 1) + 1) / 2
    images = checkpoints.generate_batches(model, latents, 7)
    assert np.abs(images - np.rint(expected * 255)).max() <= 1
