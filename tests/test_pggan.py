"""The PGGAN against a plain numpy one that starts from the authors' own variables."""

import dataclasses
import math
import platform
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import correlate2d

from hyper_bids.errors import InputError
from hyper_bids.generators import checkpoints, pggan, saving, weightfile

TINY = pggan.Architecture(resolution=64, n_latents=24, fmap_base=512, fmap_max=16)


def tensorflow_variables(rng, architecture):
    """Draw variables as in the authors' code: dense (in, out), convolution (y, x, in, out)."""
    n = architecture.n_channels
    shapes = {
        "4x4/Dense/weight": (architecture.n_latents, n(4) * 16),
        "4x4/Dense/bias": (n(4),),
        "4x4/Conv/weight": (3, 3, n(4), n(4)),
        "4x4/Conv/bias": (n(4),),
        "ToRGB_lod0/weight": (1, 1, n(architecture.resolution), 3),
        "ToRGB_lod0/bias": (3,),
    }
    size = 8
    while size <= architecture.resolution:
        shapes[f"{size}x{size}/Conv0/weight"] = (3, 3, n(size // 2), n(size))
        shapes[f"{size}x{size}/Conv0/bias"] = (n(size),)
        shapes[f"{size}x{size}/Conv1/weight"] = (3, 3, n(size), n(size))
        shapes[f"{size}x{size}/Conv1/bias"] = (n(size),)
        size *= 2
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def to_project(variables):
    """Rename and transpose as docs/image-models.md says."""
    state = {}
    for name, array in variables.items():
        scope, *rest = name.split("/")
        ours = {"Dense": "dense", "Conv": "conv", "Conv0": "conv0", "Conv1": "conv1"}
        where = "rgb" if scope == "ToRGB_lod0" else f"block{scope.split('x')[0]}.{ours[rest[0]]}"
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[array.ndim]
        state[f"{where}.{rest[-1]}"] = np.ascontiguousarray(array.transpose(axes))
    return state


def reference(variables, z, resolution):
    """Run the network of one latent in float64, without torch: (3, resolution, resolution)."""

    def pixel_norm(x):
        return x / np.sqrt((x**2).mean(axis=0, keepdims=True) + 1e-8)

    def finish(x, bias):
        x = x + bias[:, None, None]
        return pixel_norm(np.where(x > 0, x, 0.2 * x))

    def conv(x, weight, gain):
        height, width, n_in, n_out = weight.shape
        weight = weight * (gain / math.sqrt(height * width * n_in))
        return np.stack(
            [
                sum(correlate2d(x[i], weight[:, :, i, o], mode="same") for i in range(n_in))
                for o in range(n_out)
            ]
        )

    def block(x, scope):
        weight, bias = variables[f"{scope}/weight"], variables[f"{scope}/bias"]
        return finish(conv(x, weight.astype(np.float64), math.sqrt(2)), bias)

    dense = variables["4x4/Dense/weight"].astype(np.float64)
    x = pixel_norm(z.astype(np.float64)) @ dense * (math.sqrt(2) / 4 / math.sqrt(len(z)))
    x = finish(x.reshape(-1, 4, 4), variables["4x4/Dense/bias"])
    x = block(x, "4x4/Conv")
    size = 8
    while size <= resolution:
        x = np.kron(x, np.ones((1, 2, 2)))
        x = block(x, f"{size}x{size}/Conv0")
        x = block(x, f"{size}x{size}/Conv1")
        size *= 2
    rgb = conv(x, variables["ToRGB_lod0/weight"].astype(np.float64), 1.0)
    return rgb + variables["ToRGB_lod0/bias"][:, None, None]


def prepared(state, precision="float32"):
    import torch

    return pggan.prepare({k: torch.from_numpy(v) for k, v in state.items()}, precision)


def run(state, latents, precision="float32"):
    import torch

    with torch.inference_mode():
        return pggan.forward(prepared(state, precision), torch.from_numpy(latents)).numpy()


def image(output):
    return np.clip((output + 1) / 2, 0, 1)


@pytest.fixture
def variables(rng):
    return tensorflow_variables(rng, TINY)


@pytest.fixture
def state(variables):
    return to_project(variables)


def test_the_network_equals_an_independent_numpy_one(variables, state, rng):
    latents = rng.standard_normal((2, TINY.n_latents)).astype(np.float32)
    expected = np.stack([reference(variables, z, 64) for z in latents])
    assert expected.std() > 0.3
    np.testing.assert_allclose(run(state, latents), expected, atol=2e-5)


def test_an_image_in_bands_of_rows_equals_the_independent_one(variables, state, rng, monkeypatch):
    latents = rng.standard_normal((3, TINY.n_latents)).astype(np.float32)
    expected = image(np.stack([reference(variables, z, 64) for z in latents]))
    # All at once; then in bands from 4 to 32 pixels on, that do and do not divide the height.
    for whole, band in ((128, 128), (8, 16), (4, 24), (32, 13)):
        monkeypatch.setattr(pggan, "WHOLE", whole)
        monkeypatch.setattr(pggan, "BAND", band)
        np.testing.assert_allclose(image(run(state, latents)), expected, atol=1e-5)


@pytest.mark.parametrize("precision", pggan.PRECISIONS)
@pytest.mark.parametrize("whole", [8, 128])
def test_an_image_is_that_of_its_latent_whatever_the_batch(
    state, rng, monkeypatch, precision, whole
):
    monkeypatch.setattr(pggan, "WHOLE", whole)
    latents = rng.standard_normal((7, TINY.n_latents)).astype(np.float32)
    together = image(run(state, latents, precision))
    # In bfloat16 a rounding that falls the other way is seen; what is not one is far larger.
    accepted = {"float32": 1e-5, "bfloat16": 2 / 255}[precision]
    for chosen in ([4], [6, 1, 0], [5, 5, 2, 4, 3]):
        apart = image(run(state, latents[chosen], precision))
        assert np.abs(apart - together[chosen]).mean(axis=(1, 2, 3)).max() <= accepted


@pytest.mark.parametrize("whole", [8, 128])
def test_bfloat16_is_within_two_of_255_grey_levels_on_average(
    variables, state, rng, monkeypatch, whole
):
    monkeypatch.setattr(pggan, "WHOLE", whole)
    latents = rng.standard_normal((3, TINY.n_latents)).astype(np.float32)
    expected = image(np.stack([reference(variables, z, 64) for z in latents]))
    output = run(state, latents, "bfloat16")
    error = np.abs(image(output) - expected).mean()
    assert output.dtype == np.float32
    assert 1e-5 < error < 2 / 255


@pytest.mark.parametrize("precision", pggan.PRECISIONS)
@pytest.mark.parametrize("whole", [8, 128])
def test_a_run_leaves_the_weights_and_the_latents_as_they_are(
    state, rng, monkeypatch, precision, whole
):
    import torch

    monkeypatch.setattr(pggan, "WHOLE", whole)
    latents = torch.from_numpy(rng.standard_normal((2, TINY.n_latents)).astype(np.float32))
    given = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
    weights = pggan.prepare(given, precision)
    before = {k: v.clone() for k, v in weights.items()}
    kept = latents.clone()
    with torch.inference_mode():
        first = pggan.forward(weights, latents)
        assert torch.equal(pggan.forward(weights, latents), first)
    assert torch.equal(latents, kept)
    for name, tensor in before.items():
        assert torch.equal(weights[name], tensor), name
        assert torch.equal(given[name], torch.from_numpy(state[name])), name


def test_only_the_convolutions_are_in_bfloat16(state):
    weights = prepared(state, "bfloat16")
    half = {name for name, tensor in weights.items() if str(tensor.dtype) == "torch.bfloat16"}
    assert half == {name for name in state if ".conv" in name}


def test_an_unknown_precision_is_refused_with_those_there_are(state):
    with pytest.raises(ValueError, match="'half'; one of float32, bfloat16"):
        prepared(state, "half")


# A device without data that is not the processor: shapes, types and layout only.
@pytest.mark.parametrize("precision", pggan.PRECISIONS)
def test_a_device_other_than_the_processor_computes_whole_images(state, monkeypatch, precision):
    import torch

    monkeypatch.setattr(pggan, "WHOLE", 8)
    monkeypatch.setattr(pggan, "BAND", 0)
    given = {k: torch.from_numpy(v).to("meta") for k, v in state.items()}
    latents = torch.empty((3, TINY.n_latents), device="meta")
    images = pggan.forward(pggan.prepare(given, precision), latents)
    assert (images.device.type, images.dtype) == ("meta", torch.float32)
    assert images.shape == (3, 3, 64, 64)


def test_the_processor_has_bfloat16_where_linux_says_so():
    import torch

    listing = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not listing.is_file():
        pytest.skip("not an x86 processor under Linux")
    flags = set(listing.read_text("ascii", errors="replace").split())
    there = bool(flags & {"avx512_bf16", "amx_bf16"}) and torch.backends.mkldnn.is_available()
    assert pggan.native_bfloat16("cpu") is there


def test_a_first_layer_stored_as_a_convolution_is_turned_around_as_documented(state, rng):
    import torch
    from torch.nn import functional

    kernel = rng.standard_normal((16, TINY.n_latents, 4, 4)).astype(np.float32)
    turned = kernel[:, :, ::-1, ::-1].transpose(0, 2, 3, 1).reshape(-1, TINY.n_latents)
    z = rng.standard_normal((2, TINY.n_latents)).astype(np.float32)
    pixel = torch.from_numpy(z)[:, :, None, None]
    convolved = functional.conv2d(pixel, torch.from_numpy(kernel), padding=3).numpy()
    np.testing.assert_allclose((z @ turned.T).reshape(2, 16, 4, 4), convolved, atol=1e-4)
    assert turned.shape == state["block4.dense.weight"].shape


def test_the_channel_counts_of_the_face_model_are_those_of_the_paper():
    full = pggan.Architecture(resolution=1024)
    sizes = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
    assert [full.n_channels(r) for r in sizes] == [512, 512, 512, 512, 256, 128, 64, 32, 16]


def test_the_face_model_has_as_many_parameters_as_the_published_one():
    counts = {k: math.prod(s) for k, s in pggan.Architecture(resolution=1024).shapes().items()}
    rgb = counts.pop("rgb.weight") + counts.pop("rgb.bias")
    assert (sum(counts.values()), rgb) == (23_071_456, 51)


def test_an_image_depends_on_the_direction_of_its_latent_only(state, rng):
    latents = rng.standard_normal((3, TINY.n_latents)).astype(np.float32)
    images = run(state, latents)
    np.testing.assert_allclose(run(state, latents * 0.3), images, atol=2e-5)
    np.testing.assert_allclose(run(state, latents * 50), images, atol=2e-5)
    assert np.abs(run(state, -latents) - images).max() > 0.1


def test_the_last_layer_is_linear_and_not_bounded(state, rng):
    latents = rng.standard_normal((1, TINY.n_latents)).astype(np.float32)
    once = run(state, latents)
    rgb = {k: 10 * v if k.startswith("rgb") else v for k, v in state.items()}
    np.testing.assert_allclose(run(rgb, latents), 10 * once, rtol=1e-4, atol=1e-4)
    assert np.abs(10 * once).max() > 1


def test_the_image_is_half_of_the_output_plus_one_clipped_to_0_and_1(state, rng, tmp_path):
    latents = rng.standard_normal((2, TINY.n_latents)).astype(np.float32)
    saving.save_network(tmp_path / "tiny.safetensors", "pggan", state, "tiny", "none")
    images = checkpoints.load(tmp_path / "tiny.safetensors").generate(latents)
    output = run(state, latents).transpose(0, 2, 3, 1)
    assert images.dtype == np.float32
    assert (output < -1).any()
    assert (output > 1).any()
    np.testing.assert_allclose(images, np.clip((output + 1) / 2, 0, 1), atol=1e-6)


def test_the_given_latents_are_left_as_they_are(state, rng, tmp_path):
    saving.save_network(tmp_path / "tiny.safetensors", "pggan", state, "tiny", "none")
    latents = rng.standard_normal((2, TINY.n_latents)).astype(np.float32)
    before = latents.copy()
    generator = checkpoints.load(tmp_path / "tiny.safetensors")
    first = generator.generate(latents)
    np.testing.assert_array_equal(latents, before)
    np.testing.assert_array_equal(generator.generate(latents), first)


def test_the_same_latent_gives_the_same_image_in_any_batch(state, rng, tmp_path):
    saving.save_network(tmp_path / "tiny.safetensors", "pggan", state, "tiny", "none")
    generator = checkpoints.load(tmp_path / "tiny.safetensors")
    latents = rng.standard_normal((9, TINY.n_latents)).astype(np.float32)
    together = generator.generate(latents)
    for size in (1, 2, 4):
        parts = [generator.generate(latents[k : k + size]) for k in range(0, 9, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)


@pytest.mark.parametrize("resolution", pggan.RESOLUTIONS)
def test_a_saved_model_says_what_it_is_at_each_resolution(resolution, rng, tmp_path):
    small = pggan.Architecture(resolution, n_latents=8, fmap_base=1024, fmap_max=4)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in small.shapes().items()}
    assert pggan.architecture_of({k: a.shape for k, a in arrays.items()}).shapes() == small.shapes()
    saving.save_network(tmp_path / "m.safetensors", "pggan", arrays, "small faces", "CC0")
    generator = checkpoints.load(tmp_path / "m.safetensors")
    assert (generator.name, generator.n_latents, generator.normalises) == ("small faces", 8, True)
    assert generator.image_shape == (resolution, resolution, 3)
    images = generator.generate(rng.standard_normal((1, 8)))
    assert images.shape == (1, resolution, resolution, 3)


def test_saving_twice_gives_the_same_bytes_and_loading_the_same_image(state, rng, tmp_path):
    for name in ("a", "b"):
        saving.save_network(tmp_path / name, "pggan", state, "tiny", "none")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    latents = rng.standard_normal((2, TINY.n_latents)).astype(np.float32)
    direct = np.clip((run(state, latents) + 1) / 2, 0, 1).transpose(0, 2, 3, 1)
    loaded = checkpoints.load(tmp_path / "a")
    np.testing.assert_allclose(loaded.generate(latents), direct, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_the_safetensors_library_wrote_is_read_the_same(state, rng, tmp_path):
    from safetensors.torch import save_file
    from torch import from_numpy

    sizes = {k: str(v) for k, v in dataclasses.asdict(TINY).items()}
    metadata = {"format": "hyper_bids", "model": "pggan", "name": "tiny", **sizes}
    tensors = {k: from_numpy(v) for k, v in state.items()}
    save_file(tensors, tmp_path / "theirs.safetensors", metadata)
    saving.save_network(tmp_path / "ours.safetensors", "pggan", tensors, "tiny", "none")
    latents = rng.standard_normal((1, TINY.n_latents))
    theirs, ours = (checkpoints.load(tmp_path / f"{n}.safetensors") for n in ("theirs", "ours"))
    np.testing.assert_array_equal(theirs.generate(latents), ours.generate(latents))


def test_every_single_missing_array_is_named(state, tmp_path):
    for key in state:
        rest = {k: v for k, v in state.items() if k != key}
        with pytest.raises(InputError, match=key.replace(".", r"\.")):
            saving.save_network(tmp_path / "x.safetensors", "pggan", rest, "x", "none")
    assert not list(tmp_path.iterdir())


def test_an_array_without_a_row_or_an_axis_is_refused(state, tmp_path):
    for key in ("block4.dense.weight", "block4.dense.bias", "rgb.weight"):
        for array in (state[key][:0], np.float32(1)):
            with pytest.raises(InputError):
                saving.save_network(tmp_path / "x", "pggan", {**state, key: array}, "x", "none")


def test_an_array_too_many_is_named(state, tmp_path):
    extra = {**state, "rgb8.weight": np.zeros((3, 16, 1, 1), np.float32)}
    with pytest.raises(InputError, match=r"Unknown: rgb8\.weight"):
        saving.save_network(tmp_path / "x.safetensors", "pggan", extra, "x", "none")


def test_a_wrong_shape_is_told_with_both_shapes(state, tmp_path):
    state["block16.conv1.weight"] = state["block16.conv1.weight"][:, :, :1]
    with pytest.raises(InputError, match=r"block16\.conv1\.weight.*16, 16, 1, 3.*16, 16, 3, 3"):
        saving.save_network(tmp_path / "x.safetensors", "pggan", state, "x", "none")


def test_weights_that_are_not_finite_are_not_written(state, tmp_path):
    state["rgb.bias"][1] = np.nan
    with pytest.raises(InputError, match=r"rgb\.bias .*not finite"):
        saving.save_network(tmp_path / "x.safetensors", "pggan", state, "x", "none")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_kept_and_bfloat16_becomes_single(state, tmp_path):
    import torch

    tensors = {k: torch.from_numpy(v).bfloat16() for k, v in state.items()}
    half = {k: v.astype(np.float16) for k, v in state.items()}
    for name, given, kind in (("b", tensors, "F32"), ("h", half, "F16")):
        saving.save_network(tmp_path / name, "pggan", given, name, "none")
        assert set(weightfile.read_header(tmp_path / name).types.values()) == {kind}
        assert checkpoints.load(tmp_path / name).name == name


def test_a_network_that_ends_below_64_pixels_is_refused(state, tmp_path):
    small = {k: v for k, v in state.items() if not k.startswith("block64")}
    with pytest.raises(InputError, match="resolution = 32"):
        saving.save_network(tmp_path / "x.safetensors", "pggan", small, "x", "none")


def test_the_gpu_gives_the_same_images_as_the_processor(state, rng, tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    saving.save_network(tmp_path / "tiny.safetensors", "pggan", state, "tiny", "none")
    latents = rng.standard_normal((4, TINY.n_latents))
    cpu, gpu = (checkpoints.load(tmp_path / "tiny.safetensors", d) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.generate(latents), cpu.generate(latents), atol=1e-5)
