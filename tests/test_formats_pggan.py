"""Generators in other projects' formats give the images that those projects' networks give."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
from test_formats_references import (
    GROWTH,
    IFG,
    TINY,
    genforce_image,
    genforce_tensors,
    hyper_image,
    hyper_parameters,
    karras_image,
    karras_variables,
    network,
    network_class,
    stand_in,
    write_mxnet,
    write_torch,
    zoo_image,
    zoo_tensors,
)

from hyper_bids.errors import InputError
from hyper_bids.generators import checkpoints, formats, pggan, saving

KINDS = (
    "karras",
    "karras-fused",
    "interfacegan",
    "interfacegan-2019",
    "genforce",
    "hugging-face",
    "gan-zoo",
    "hyper",
    "hyper-prefixed",
)


@pytest.fixture(params=KINDS)
def foreign(request, rng, monkeypatch, tmp_path):
    """Return arrays, the project's own image, a function that writes a file, and the format."""
    path, kind = tmp_path / "weights.bin", request.param
    legacy = writer(write_torch, path, zipped=False)
    if kind.startswith("karras"):
        arrays = karras_variables(rng, kind == "karras-fused")
        image, write = (karras_image, kind == "karras-fused"), karras_writer(path, monkeypatch)
    elif kind.startswith("hyper"):
        arrays = hyper_parameters(rng, kind == "hyper-prefixed")
        image, write = (hyper_image,), writer(write_mxnet, path)
    elif kind == "gan-zoo":
        arrays = zoo_tensors(rng)
        image, write = (zoo_image,), zoo_writer(path, monkeypatch)
    elif kind == "interfacegan":
        arrays = genforce_tensors(rng, IFG)
        image, write = (genforce_image, IFG), legacy
    elif kind == "interfacegan-2019":
        arrays = genforce_tensors(rng, IFG, first=1, all_rgb=False)
        image, write = (genforce_image, IFG, 1, "output_64x64"), legacy
    elif kind == "hugging-face":
        arrays = genforce_tensors(rng)
        image, write = (genforce_image,), writer(write_torch, path)
    else:
        arrays = genforce_tensors(rng)
        image = (genforce_image,)
        write = writer(write_torch, path, wrap=lambda t: {"generator": {}, "generator_smooth": t})
    name = {"hugging-face": "genforce"}.get(kind, kind.removesuffix("-fused"))
    name = name.removesuffix("-prefixed")
    return arrays, lambda z: image[0](arrays, z, *image[1:]), write, name


def karras_writer(path, monkeypatch):
    made = network_class(monkeypatch)

    def write(arrays):
        three = tuple(network(made, a) for a in ({}, {"x": np.ones(2)}, arrays))
        path.write_bytes(pickle.dumps(three, protocol=4))
        return path

    return write


def zoo_writer(path, monkeypatch):
    config = stand_in(monkeypatch, "models.utils.config", "BaseConfig")()
    config.depthScale0, config.scale = 16, np.float32(2)
    rest = {"config": config, "netG": OrderedDict(), "netD": OrderedDict()}
    return writer(write_torch, path, wrap=lambda t: {**rest, "avgG": t}, zipped=False)


def writer(function, path, **options):
    def write(arrays):
        function(path, arrays, **options)
        return path

    return write


def run(state, z):
    """Run this project's network."""
    import torch

    with torch.inference_mode():
        ready = pggan.prepare({k: torch.from_numpy(v) for k, v in state.items()})
        return pggan.forward(ready, z.float()).numpy()


@pytest.fixture
def latents(rng):
    import torch

    return torch.from_numpy(rng.standard_normal((3, 24)))


def test_the_image_is_that_of_the_project_that_the_file_is_from(foreign, latents):
    _, image, write, kind = foreign
    path = write(foreign[0])
    state, about = formats.read_pggan(path)
    expected = image(latents).numpy()
    assert expected.std() > 0.2
    np.testing.assert_allclose(run(state, latents), expected, atol=1e-4)
    assert (about["format"], about["resolution"]) == (kind, 64)
    assert about["licence"]
    assert all(array.dtype == np.float32 for array in state.values())
    shapes = TINY.shapes() | ({"block4.dense.bias": (256,)} if kind == "gan-zoo" else {})
    assert {key: array.shape for key, array in state.items()} == shapes


def test_what_was_read_is_saved_and_loaded_as_the_same_image(foreign, latents, tmp_path):
    state, about = formats.read_pggan(foreign[2](foreign[0]))
    saving.save_network(tmp_path / "own", "pggan", state, "tiny", about["licence"])
    images = checkpoints.load(tmp_path / "own").generate(latents.numpy())
    expected = np.clip((foreign[1](latents).numpy() + 1) / 2, 0, 1).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    again, own = formats.read_pggan(tmp_path / "own")
    assert (own["format"], own["licence"]) == ("hyper_bids", about["licence"])
    assert all(np.array_equal(again[key], state[key]) for key in state)


def test_every_number_of_the_file_but_those_of_the_training_has_its_effect(foreign):
    arrays, _, write, kind = foreign
    before, _ = formats.read_pggan(write(arrays))
    of_training = (
        "ToRGB_lod4",
        "ToRGB_lod3",
        "ToRGB_lod2",
        "ToRGB_lod1",
        GROWTH,
        "output0.",
        "output1.",
        "output2.",
        "output3.",
        *(f"toRGBLayers.{k}." for k in range(4)),
    )
    for key in arrays:
        changed = {**arrays, key: arrays[key] + 0}
        if key == GROWTH:
            continue
        changed[key].flat[-1] += 1
        after, _ = formats.read_pggan(write(changed))
        differ = sum(int((after[k] != before[k]).sum()) for k in before)
        assert differ == (0 if key.startswith(of_training) else 1), (kind, key)


def test_each_missing_array_is_named(foreign):
    arrays, _, write, kind = foreign
    needed = [k for k in arrays if k != GROWTH]
    for key in needed:
        rest = {k: v for k, v in arrays.items() if k != key}
        if kind == "hyper":
            with pytest.raises(InputError):
                formats.read_pggan(write(rest))
            continue
        path = write(rest)
        try:
            formats.read_pggan(path)
        except InputError as error:
            assert key in str(error).split("Unknown")[0]
            assert "\n" not in str(error)
        else:
            assert key.startswith(("ToRGB", "output", "toRGB"))


def test_an_array_too_many_is_named(foreign):
    arrays, _, write, _ = foreign
    with pytest.raises(InputError, match=r"not a PGGAN|Unknown: noise"):
        formats.read_pggan(write({**arrays, "noise": np.zeros((2, 2), np.float32)}))


def test_a_wrong_shape_is_told_with_its_key_and_both_shapes(foreign):
    arrays, _, write, _ = foreign
    for key, array in arrays.items():
        if array.ndim < 1 or (array.ndim == 2 and key != "formatLayer.module.weight"):
            continue
        wrong = np.concatenate([array, array[:1]])
        with pytest.raises(InputError) as error:
            formats.read_pggan(write({**arrays, key: wrong}))
        for part in (key, str(wrong.shape), str(array.shape)):
            assert part in str(error.value), (key, str(error.value))
        assert "\n" not in str(error.value)


def test_a_zoo_bias_that_is_the_same_within_each_channel_fits_the_layout(rng, latents, tmp_path):
    arrays = zoo_tensors(rng, infix="")
    arrays["formatLayer.bias"] = np.repeat(arrays["formatLayer.bias"][:16], 16)
    write_torch(tmp_path / "zoo", arrays, wrap=lambda tensors: {"avgG": tensors})
    state, about = formats.read_pggan(tmp_path / "zoo")
    assert about["format"] == "gan-zoo"
    assert {key: array.shape for key, array in state.items()} == TINY.shapes()
    expected = zoo_image(arrays, latents, infix="").numpy()
    np.testing.assert_allclose(run(state, latents), expected, atol=1e-4)


def test_mxnet_layers_are_found_by_their_numbers_when_the_file_is_sorted_by_letters(rng, tmp_path):
    for prefixed in (False, True):
        arrays = hyper_parameters(rng, prefixed)
        write_mxnet(tmp_path / "a", arrays)
        write_mxnet(tmp_path / "b", {key: arrays[key] for key in sorted(arrays)})
        a, b = (formats.read_pggan(tmp_path / name)[0] for name in "ab")
        assert all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_each_version_of_the_mxnet_container_is_read_the_same(version, rng, tmp_path):
    arrays = hyper_parameters(rng)
    write_mxnet(tmp_path / "new", arrays)
    write_mxnet(tmp_path / "old", {f"arg:{k}": a for k, a in arrays.items()}, version)
    new, old = (formats.read_pggan(tmp_path / name)[0] for name in ("new", "old"))
    assert all(np.array_equal(new[key], old[key]) for key in new)
