"""Files that are damaged, or are something else, are told as what they are, in one line."""

import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
from test_formats_references import (
    GROWTH,
    TINY,
    genforce_tensors,
    hyper_parameters,
    karras_variables,
    network,
    network_class,
    write_mxnet,
    write_torch,
    zoo_tensors,
)

from hyper_bids.errors import InputError
from hyper_bids.generators import formats, saving, weightfile


def said(path):
    with pytest.raises(InputError) as error:
        formats.read_pggan(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.fixture
def own(rng, tmp_path):
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in TINY.shapes().items()}
    saving.save_network(tmp_path / "own", "pggan", arrays, "tiny", "none")
    return tmp_path / "own"


@pytest.fixture
def files(rng, monkeypatch, tmp_path, own):
    """Return one good file of each container."""
    made = network_class(monkeypatch)
    three = (network(made, {}), network(made, {}), network(made, karras_variables(rng)))
    (tmp_path / "pickle").write_bytes(pickle.dumps(three, 4))
    write_torch(tmp_path / "zip", genforce_tensors(rng))
    write_torch(tmp_path / "legacy", genforce_tensors(rng), zipped=False)
    write_mxnet(tmp_path / "mxnet", hyper_parameters(rng))
    return [tmp_path / name for name in ("pickle", "zip", "legacy", "mxnet")] + [own]


def test_a_file_cut_off_anywhere_is_refused(files, tmp_path):
    cut = tmp_path / "cut"
    for path in files:
        formats.read_pggan(path)
        whole = path.read_bytes()
        for n in [*range(1, 40), *np.linspace(40, len(whole) - 1, 60).astype(int)]:
            cut.write_bytes(whole[:n])
            said(cut)
        cut.write_bytes(whole[: len(whole) // 2])
        assert "truncated" in said(cut)


def test_a_file_with_any_byte_of_its_structure_changed_gives_arrays_or_one_line(
    files, tmp_path, rng
):
    path = tmp_path / "changed"
    for file in files:
        whole = bytearray(file.read_bytes())
        for place in rng.integers(0, min(len(whole), 20000), 150):
            changed = whole.copy()
            changed[place] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            try:
                formats.read_pggan(path)
            except InputError as error:
                assert "\n" not in str(error)


def test_names_of_files_do_not_matter(files, tmp_path):
    for number, path in enumerate(files):
        for ending in (".safetensors", ".pkl", ".params", ""):
            other = tmp_path / f"file{number}{ending}"
            other.write_bytes(path.read_bytes())
            assert formats.read_pggan(other)[1] == formats.read_pggan(path)[1]


def test_other_files_are_told_as_what_they_are(tmp_path):
    path = tmp_path / "pggan_celebahq.pth"
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "HTML page"),
        (b"\n<html><body>404</body></html>", "HTML page"),
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"hello, this is no model at all", "no known kind"),
        (pickle.dumps({"a": 1}, 4), "a pickle of a dict, not of the three networks"),
        (pickle.dumps((1, 2, 3), 4), "a pickle of a tuple of 3, not of the three networks"),
    ):
        path.write_bytes(content)
        assert words in said(path)
    assert "cannot be read" in said(tmp_path / "absent")
    assert "cannot be read" in said(tmp_path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["synthesis.b4.const", "mapping.fc0.weight"], "a StyleGAN"),
        (["g_mapping.dense0.weight", "g_synthesis.blocks.4x4.const"], "a StyleGAN"),
        (["style.1.weight", "input.input", "conv1.conv.weight"], "a StyleGAN"),
        (["main.0.weight", "main.1.weight", "main.1.running_mean"], "a DCGAN"),
        (["conv1.weight", "layer1.0.conv1.weight"], "recognises images"),
        (["something"], "not a PGGAN of a known project"),
    ],
)
def test_another_model_is_told_by_its_keys(keys, words, tmp_path):
    arrays = {key: np.zeros((2, 2, 3, 3), np.float32) for key in keys}
    write_torch(tmp_path / "a", arrays, wrap=lambda tensors: {"g_ema": tensors})
    write_mxnet(tmp_path / "b", arrays)
    weightfile.write(tmp_path / "c", arrays, {"format": "pt"})
    for name in "abc":
        text = said(tmp_path / name)
        assert words in text
        assert keys[0] in text


def test_a_pytorch_file_without_named_tensors_is_refused(tmp_path):
    import torch

    for what in ([torch.zeros(2)], torch.zeros(2), {"epoch": 3}, OrderedDict()):
        torch.save(what, tmp_path / "a")
        assert "not of a generator's weights by name" in said(tmp_path / "a")
    torch.save({"a": torch.zeros(2), "epoch": 3}, tmp_path / "a")
    assert "holds epoch" in said(tmp_path / "a")


def test_a_size_of_image_that_is_not_of_this_network_is_told(rng, tmp_path):
    small = {
        k: a
        for k, a in zoo_tensors(rng).items()
        if not k.startswith(("scaleLayers.3", "toRGBLayers.4"))
    }
    write_torch(tmp_path / "a", small)
    assert "32 pixels; 64, 128, 256, 512, 1024 are read" in said(tmp_path / "a")
    small = {
        k: a for k, a in genforce_tensors(rng).items() if not k.startswith(("layer8", "layer9"))
    }
    write_torch(tmp_path / "a", small)
    assert "32 pixels; 64, 128, 256, 512, 1024 are read" in said(tmp_path / "a")


def test_a_network_saved_while_growing_is_refused(rng, tmp_path):
    arrays = {**genforce_tensors(rng), GROWTH: np.array(1.5, np.float32)}
    write_torch(tmp_path / "a", arrays)
    assert f"{GROWTH} is 1.5" in said(tmp_path / "a")


def test_a_network_with_other_settings_is_refused(rng, monkeypatch, tmp_path):
    made = network_class(monkeypatch)

    def write(**settings):
        last = network(made, karras_variables(rng), **settings)
        three = (network(made, {}), network(made, {}), last)
        (tmp_path / "a").write_bytes(pickle.dumps(three, 4))

    for name, value in (
        ("label_size", 10),
        ("label_size", np.int64(10)),
        ("num_channels", 1),
        ("normalize_latents", False),
        ("use_wscale", False),
        ("use_pixelnorm", False),
        ("pixelnorm_epsilon", 1e-6),
        ("use_leakyrelu", False),
        ("fmap_decay", np.float32(2)),
    ):
        write(**{name: value})
        assert name in said(tmp_path / "a")
    write(label_size=np.int64(0), use_leakyrelu=True, fmap_max=512)
    formats.read_pggan(tmp_path / "a")


@pytest.mark.parametrize("module", ["tfutil", "dnnlib.tflib.network"])
def test_the_third_network_of_the_pickle_is_taken(module, rng, monkeypatch, tmp_path):
    made = network_class(monkeypatch, module)
    first, last = karras_variables(rng), karras_variables(rng)
    three = (network(made, first), network(made, {}), network(made, last))
    (tmp_path / "a").write_bytes(pickle.dumps(three, 2))
    state, about = formats.read_pggan(tmp_path / "a")
    np.testing.assert_array_equal(state["block4.conv.bias"], last["4x4/Conv/bias"])
    assert about["branch"] == "Gs"


def test_the_averaged_generator_is_taken_where_there_is_one(rng, tmp_path):
    first, last = genforce_tensors(rng), genforce_tensors(rng)
    import torch

    def tensors(arrays):
        return OrderedDict((k, torch.from_numpy(np.array(a))) for k, a in arrays.items())

    torch.save({"generator": tensors(first), "generator_smooth": tensors(last)}, tmp_path / "a")
    torch.save({"generator": tensors(first)}, tmp_path / "b")
    torch.save({f"module.{k}": t for k, t in tensors(last).items()}, tmp_path / "c")
    for name, arrays, branch in (
        ("a", last, "generator_smooth"),
        ("b", first, "generator"),
        ("c", last, ""),
    ):
        state, about = formats.read_pggan(tmp_path / name)
        np.testing.assert_array_equal(state["rgb.bias"], arrays["output4.bias"])
        assert about["branch"] == branch


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_all_types_and_strides_are_read_as_pytorch_reads_them(zipped, rng, tmp_path):
    import torch

    from hyper_bids.generators.formats import torch_files

    base = torch.from_numpy(rng.standard_normal((6, 8)))
    tensors = {
        **{str(t): base.to(t) for t in (torch.float32, torch.float16, torch.bfloat16)},
        **{str(t): (base * 9).to(t) for t in (torch.int64, torch.int32, torch.uint8, torch.bool)},
        "part": base[2:5, 1::3],
        "turned": base.T,
        "shared": base,
        "scalar": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(base[1].clone()),
        "channels last": base.reshape(1, 2, 4, 6).contiguous(memory_format=torch.channels_last),
    }
    torch.save(tensors, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    arrays, _ = torch_files.read_tensors(tmp_path / "a")
    for key, tensor in tensors.items():
        expected = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(arrays[key], expected.detach().numpy())
        assert arrays[key].shape == tuple(tensor.shape)


def test_hugging_face_safetensors_are_read_as_the_pytorch_file(rng, tmp_path):
    from safetensors.numpy import save_file

    arrays = genforce_tensors(rng)
    save_file(arrays, tmp_path / "a", {"format": "pt"})
    write_torch(tmp_path / "b", arrays)
    a, b = (formats.read_pggan(tmp_path / name) for name in "ab")
    assert a[1]["format"] == b[1]["format"] == "genforce"
    assert all(np.array_equal(a[0][key], b[0][key]) for key in b[0])


def test_the_project_s_own_file_is_checked_too(own, tmp_path):
    state, about = formats.read_pggan(own)
    assert (about["format"], about["resolution"], about["licence"]) == ("hyper_bids", 64, "none")
    metadata = {"format": "hyper_bids", "model": "pggan"}
    state["block16.conv1.weight"] = state["block16.conv1.weight"][:, :, :1]
    weightfile.write(tmp_path / "a", state, metadata)
    text = said(tmp_path / "a")
    assert "block16.conv1.weight has shape (16, 16, 1, 3), but (16, 16, 3, 3)" in text
    weightfile.write(tmp_path / "a", state, {**metadata, "model": "dcgan"})
    assert "a pggan is wanted" in said(tmp_path / "a")


def test_weights_that_are_not_finite_are_named(rng, tmp_path):
    arrays = genforce_tensors(rng)
    arrays["layer3.bias"][2] = np.nan
    write_torch(tmp_path / "a", arrays)
    assert "layer3.bias holds a value that is not finite" in said(tmp_path / "a")


def test_an_mxnet_file_of_sparse_arrays_too_many_names_or_too_many_bytes_is_refused(rng, tmp_path):
    path = tmp_path / "a"
    arrays = hyper_parameters(rng)
    write_mxnet(path, arrays)
    whole, n = path.read_bytes(), len(arrays)
    # Where the names begin, the first of which is then given twice.
    first = struct.pack("<Q", len(next(iter(arrays)))) + next(iter(arrays)).encode()
    end = whole.rindex(struct.pack("<Q", n) + first)
    for content, words in (
        (whole + b"\0", "end at byte"),
        (whole[:28] + struct.pack("<i", 1) + whole[32:], "sparse"),
        (whole[:32] + struct.pack("<i", 0) + whole[36:], "the network was never used"),
        (whole[:16] + struct.pack("<Q", 2**60) + whole[24:], "truncated or damaged"),
        (struct.pack("<QQQQ", 0x112, 0, 0, 0), "not a PGGAN"),
        (whole[:end] + struct.pack("<Q", n + 1) + whole[end + 8 :] + first, "names, "),
    ):
        path.write_bytes(content)
        assert words in said(path)
