"""The VAE-GAN against a reference of what TensorFlow computes, its layouts, and its encoder."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hyper_bids.errors import InputError
from hyper_bids.generators import (
    checkpoints,
    protocol,
    saving,
    vaegan,
    vaegan_tensorflow,
    weightfile,
)
from hyper_bids.generators.formats import tf_bundle

ROOT = Path(__file__).resolve().parents[1]
SMALL = vaegan.Architecture(resolution=64, n_latents=7, width=1)
ENCODER = [3, 3, 4, 6, 8, 12]
GENERATOR = [16, 8, 6, 4, 3, 3]


# A reference of TensorFlow's semantics, in NumPy, in float64


def same_padding(size, kernel, stride):
    """Return what SAME pads before and after, as TensorFlow's documentation says."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv2d(image, kernel, stride=2):
    """Convolve (y, x, in) with (y, x, in, out), padding SAME."""
    height, width, _ = image.shape
    size = kernel.shape[0]
    padded = np.pad(
        image,
        (same_padding(height, size, stride), same_padding(width, size, stride), (0, 0)),
    )
    out = np.zeros((-(-height // stride), -(-width // stride), kernel.shape[3]))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            window = padded[y * stride : y * stride + size, x * stride : x * stride + size]
            out[y, x] = np.tensordot(window, kernel, axes=3)
    return out


def conv2d_gradient(image, kernel, stride=2):
    """Return the gradient of sum(conv2d(u) * image) for u; the kernel is (y, x, out, in).

    A pixel of the convolution's output that saw a pixel of its input gives to it.
    """
    height, width, _ = image.shape
    size = kernel.shape[0]
    before, after = same_padding(height * stride, size, stride)
    padded = np.zeros(
        (height * stride + before + after, width * stride + before + after, kernel.shape[2])
    )
    for y in range(height):
        for x in range(width):
            part = padded[y * stride : y * stride + size, x * stride : x * stride + size]
            part += kernel @ image[y, x]
    return padded[before : before + height * stride, before : before + width * stride]


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def batch_norm(x, variables, scope):
    average = f"{scope}/bn/{scope}/bn/moments/{{}}/ExponentialMovingAverage"
    mean, variance = (variables[average.format(name)] for name in ("Squeeze", "Squeeze_1"))
    scaled = (x - mean) / np.sqrt(variance + 1e-6)
    return scaled * variables[f"{scope}/bn/gamma"] + variables[f"{scope}/bn/beta"]


def dense(x, variables, scope):
    return x @ variables[f"{scope}/W"] + variables[f"{scope}/b"]


def reference_latent(variables, image):
    x = image
    for layer in range(1, 6):
        scope = f"encoder/layer{layer}"
        x = conv2d(x, variables[f"{scope}/conv2d/W"]) + variables[f"{scope}/conv2d/b"]
        x = elu(batch_norm(x, variables, scope))
    x = dense(x.reshape(-1), variables, "encoder/fc")
    return np.tanh(dense(x, variables, "encoder/variational/mu"))


def reference_image(variables, latent):
    x = elu(dense(latent, variables, "generator/fc")).reshape(2, 2, -1)
    for layer in range(1, 6):
        scope = f"generator/layer{layer}"
        x = conv2d_gradient(x, variables[f"{scope}/deconv2d/W"]) + variables[f"{scope}/deconv2d/b"]
        x = elu(batch_norm(x, variables, scope))
    return np.clip(x / x.max(), 0, 1)


# A small network in TensorFlow's layout


def tensorflow_shapes():
    """Return the shapes of the variables of a network of width 1, 7 latents and 64 pixels."""
    shapes = {}
    for scope, kind, channels in (
        ("encoder", "conv2d", ENCODER),
        ("generator", "deconv2d", GENERATOR),
    ):
        for layer in range(1, 6):
            before, after = channels[layer - 1 : layer + 1]
            name = f"{scope}/layer{layer}"
            pair = (before, after) if kind == "conv2d" else (after, before)
            shapes[f"{name}/{kind}/W"] = (3, 3, *pair)
            average = f"{name}/bn/{name}/bn/moments/{{}}/ExponentialMovingAverage"
            for part in ("bn/beta", "bn/gamma", f"{kind}/b"):
                shapes[f"{name}/{part}"] = (after,)
            shapes[average.format("Squeeze")] = (after,)
            shapes[average.format("Squeeze_1")] = (after,)
    for name, before, after in (
        ("encoder/fc", 2 * 2 * 12, 16),
        ("encoder/variational/mu", 16, 7),
        ("encoder/variational/log_sigma", 16, 7),
        ("generator/fc", 7, 2 * 2 * 16),
    ):
        shapes[f"{name}/W"], shapes[f"{name}/b"] = (before, after), (after,)
    return shapes


@pytest.fixture
def variables(rng):
    return drawn_variables(rng)


def drawn_variables(rng):
    """Return the variables of the encoder and the generator, drawn at random."""
    drawn = {}
    for name, shape in tensorflow_shapes().items():
        if name.endswith(("gamma", "Squeeze_1/ExponentialMovingAverage")):
            values = rng.random(shape) + 0.5
        elif name.endswith("/W"):
            values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        else:
            values = rng.standard_normal(shape) * 0.3
        drawn[name] = values.astype(np.float32)
    # So small that the epsilon of batch norm is seen.
    average = "{0}/bn/{0}/bn/moments/Squeeze_1/ExponentialMovingAverage"
    drawn[average.format("encoder/layer2")] *= 1e-6
    drawn["encoder/layer2/bn/gamma"] *= 1e-3
    return drawn


def others(variables):
    """Return what a training checkpoint has beside the two networks."""
    slots = {
        f"{name}/{slot}": array
        for name, array in variables.items()
        if "ExponentialMovingAverage" not in name
        for slot in ("Adam", "Adam_1")
    }
    average = "encoder/layer1/bn/encoder/layer1/bn/moments/Squeeze/ExponentialMovingAverage"
    return {
        **slots,
        **{f"{average}/biased": np.zeros(3), f"{average}/local_step": np.zeros(())},
        "discriminator/fc/W": np.zeros((3, 1)),
        "discriminator/layer1/bn/beta": np.zeros(3),
        "beta1_power": np.zeros(()),
        "generator/beta2_power_1": np.zeros(()),
        "global_step": np.array(3),
    }


def load(arrays, architecture=SMALL):
    """Return an image model from arrays in the project's layout."""
    import torch

    assert {name: array.shape for name, array in arrays.items()} == architecture.shapes()
    side = architecture.resolution
    return vaegan.VaeGanGenerator(
        name="small",
        n_latents=architecture.n_latents,
        image_shape=(side, side, 3),
        normalises=vaegan.NORMALISES,
        checksum="",
        device="cpu",
        forward=vaegan.forward,
        weights=vaegan.prepare({key: torch.from_numpy(value) for key, value in arrays.items()}),
    )


@pytest.fixture
def model(variables):
    return load(vaegan_tensorflow.from_tensorflow(variables))


# What TensorFlow computes


def test_the_reference_convolves_as_gradients_and_padding_want(rng):
    assert same_padding(8, 3, 2) == (0, 1)
    u, image = rng.standard_normal((8, 8, 2)), rng.standard_normal((4, 4, 5))
    kernel = rng.standard_normal((3, 3, 2, 5))
    through = (conv2d(u, kernel) * image).sum()
    np.testing.assert_allclose((u * conv2d_gradient(image, kernel)).sum(), through, rtol=1e-12)


def test_latents_are_those_of_the_tensorflow_network(model, variables, rng):
    images = rng.random((3, 64, 64, 3))
    expected = [reference_latent(variables, image) for image in images]
    assert np.std(expected) > 0.1
    assert np.max(np.ptp(expected, axis=0)) > 0.01
    latents = model.encode(images)
    np.testing.assert_allclose(latents, expected, atol=1e-4)
    assert latents.dtype == np.float32


def test_images_are_those_of_the_tensorflow_network(model, variables, rng):
    latents = rng.standard_normal((3, 7))
    expected = [reference_image(variables, latent) for latent in latents]
    assert np.std(expected) > 0.05
    images = model.generate(latents)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    assert images.dtype == np.float32


def test_a_training_checkpoint_gives_the_same_model_from_either_kind_of_file(
    variables, rng, tmp_path
):
    from test_tf_bundle import write_bundle, write_v1

    everything = dict(sorted({**variables, **others(variables)}.items()))
    everything = {name: np.asarray(array, np.float32) for name, array in everything.items()}
    expected = vaegan_tensorflow.from_tensorflow(variables)
    for write in (write_bundle, write_v1):
        path = write(tmp_path / write.__name__, everything)
        read = tf_bundle.read_bundle(path, vaegan_tensorflow.is_used)
        log_sigma = [name for name in variables if "log_sigma" in name]
        assert set(read) == set(variables) - set(log_sigma)
        state = vaegan_tensorflow.from_tensorflow(read)
        for key, array in expected.items():
            np.testing.assert_array_equal(state[key], array)


def test_all_that_a_training_checkpoint_has_is_used_or_known(variables):
    state = vaegan_tensorflow.from_tensorflow({**variables, **others(variables)})
    expected = vaegan_tensorflow.from_tensorflow(variables)
    assert set(state) == set(expected) == set(SMALL.shapes())
    for key, array in expected.items():
        np.testing.assert_array_equal(state[key], array)


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ("moments/moments_1/mean", "moments/moments_1/variance"),
        ("moments/normalize/mean", "moments/normalize/variance"),
    ],
)
def test_moving_averages_under_the_names_of_older_versions_are_known(mean, variance, variables):
    renamed = {
        name.replace("moments/Squeeze_1/", f"{variance}/").replace(
            "moments/Squeeze/", f"{mean}/"
        ): a
        for name, a in variables.items()
    }
    state, expected = (
        vaegan_tensorflow.from_tensorflow(renamed),
        vaegan_tensorflow.from_tensorflow(variables),
    )
    for key, array in expected.items():
        np.testing.assert_array_equal(state[key], array)


# Shapes, images and latents


def test_the_original_has_the_sizes_of_the_paper():
    original = vaegan.Architecture()
    shapes = original.shapes()
    assert (original.resolution, original.n_latents) == (128, 1024)
    layers = [shapes[f"encoder.layer{k}.conv.bias"][0] for k in range(1, 6)]
    assert layers == [192, 256, 384, 512, 768]
    layers = [shapes[f"generator.layer{k}.conv.bias"][0] for k in range(1, 6)]
    assert layers == [512, 384, 256, 192, 3]
    assert shapes["encoder.fc.weight"] == (1024, 12288)
    assert shapes["generator.fc.weight"] == (16384, 1024)
    assert shapes["generator.layer1.conv.weight"] == (1024, 512, 3, 3)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 44_905_487


@pytest.mark.parametrize("sizes", [(32, 3, 1), (64, 7, 1), (96, 5, 2)])
def test_images_and_latents_have_their_shapes_and_ranges(sizes, rng):
    architecture = vaegan.Architecture(*sizes)
    shapes = architecture.shapes()
    assert vaegan.architecture_of(shapes) == architecture
    arrays = {key: rng.random(shape).astype(np.float32) - 0.3 for key, shape in shapes.items()}
    arrays |= {key: np.abs(a) + 0.5 for key, a in arrays.items() if key.endswith("variance")}
    model = load(arrays, architecture)
    assert isinstance(model, protocol.ImageGenerator)
    images = model.generate(rng.standard_normal((2, sizes[1])))
    assert images.shape == (2, sizes[0], sizes[0], 3)
    assert images.min() >= 0
    np.testing.assert_allclose(images.max(axis=(1, 2, 3)), 1)
    latents = model.encode(images)
    assert latents.shape == (2, sizes[1])
    assert np.abs(latents).max() <= 1
    assert model.generate(latents).shape == images.shape
    assert model.encode(images[:0]).shape == (0, sizes[1])


def test_an_image_does_not_depend_on_its_batch(model, rng):
    latents = rng.standard_normal((4, 7)) * np.array([[0.1], [1], [3], [9]])
    together = model.generate(latents)
    for k in range(4):
        np.testing.assert_allclose(model.generate(latents[k : k + 1])[0], together[k], atol=1e-5)
    encoded = model.encode(together)
    np.testing.assert_allclose(model.encode(together[2:3])[0], encoded[2], atol=1e-5)


def test_an_image_without_a_value_above_zero_is_black(variables):
    variables["generator/layer5/bn/gamma"][:] = 0
    variables["generator/layer5/bn/beta"][:] = -1
    model = load(vaegan_tensorflow.from_tensorflow(variables))
    np.testing.assert_array_equal(model.generate(np.ones((1, 7))), 0)


def test_images_of_another_size_or_range_are_refused(model):
    with pytest.raises(ValueError, match=r"\(2, 64, 32, 3\).*\(n, 64, 64, 3\)"):
        model.encode(np.zeros((2, 64, 32, 3)))
    with pytest.raises(ValueError, match="0 to 255; 0 to 1 is wanted"):
        model.encode(np.arange(256).repeat(48).reshape(1, 64, 64, 3).astype(np.uint8))
    for value in (np.nan, np.inf, -0.1):
        images = np.zeros((1, 64, 64, 3))
        images[0, 1, 2, 0] = value
        with pytest.raises(ValueError, match="0 to 1 is wanted"):
            model.encode(images)
    with pytest.raises(ValueError, match=r"\(1, 6\).*\(n, 7\)"):
        model.generate(np.zeros((1, 6)))


@pytest.mark.parametrize("sizes", [(48, 7, 1), (0, 7, 1), (64, 0, 1), (64, 7, 0)])
def test_sizes_that_no_network_has_are_refused(sizes):
    with pytest.raises(ValueError, match="is wanted"):
        vaegan.Architecture(*sizes)


def test_a_converted_model_is_the_same_after_it_is_written_and_read(
    model, variables, tmp_path, rng
):
    state = vaegan_tensorflow.from_tensorflow(variables)
    path = tmp_path / "small.safetensors"
    weightfile.write(path, state, {"format": "hyper_bids", "model": "vaegan"})
    header = weightfile.read_header(path)
    assert header.shapes == SMALL.shapes()
    assert vaegan.architecture_of(header.shapes) == SMALL
    arrays = weightfile.read_arrays(path, header)
    again = load({key: array.numpy() for key, array in arrays.items()})
    latents = rng.standard_normal((2, 7))
    np.testing.assert_array_equal(again.generate(latents), model.generate(latents))


def test_batches_are_made_like_those_of_any_model(model, rng):
    latents = rng.standard_normal((5, 7))
    images = checkpoints.generate_batches(model, latents, 2)
    whole = protocol.to_uint8(model.generate(latents)).astype(int)
    assert np.abs(images.astype(int) - whole).max() <= 1


# Refusals


def used():
    return [name for name in tensorflow_shapes() if "log_sigma" not in name]


@pytest.mark.parametrize("name", used())
def test_every_missing_or_misshapen_variable_is_named(name, variables):
    plain = re.sub(r"/bn/.*/Squeeze/.*", "/bn/mean", name)
    plain = re.sub(r"/bn/.*/Squeeze_1/.*", "/bn/variance", plain)
    array = variables.pop(name)
    with pytest.raises(InputError) as caught:
        vaegan_tensorflow.from_tensorflow(variables)
    assert f"Missing: {plain}" in str(caught.value)
    wrong = np.concatenate([array, array[:1]], axis=0)
    with pytest.raises(InputError) as caught:
        vaegan_tensorflow.from_tensorflow({**variables, name: wrong})
    told = str(caught.value)
    assert name in told
    assert str(wrong.shape) in told
    assert str(array.shape) in told


def test_a_part_of_the_networks_that_is_not_known_is_refused(variables):
    for name in ("encoder/layer6/conv2d/W", "generator/fc2/b", "generator/layer1/conv2d/W"):
        with pytest.raises(InputError, match=f"Unknown: {name}"):
            vaegan_tensorflow.from_tensorflow({**variables, name: np.zeros(2)})


def test_two_moving_averages_of_one_layer_are_refused(variables):
    name = "encoder/layer1/bn/encoder_1/layer1/bn/moments/Squeeze/ExponentialMovingAverage"
    with pytest.raises(InputError, match="the same moving average"):
        vaegan_tensorflow.from_tensorflow({**variables, name: np.zeros(3, np.float32)})


def test_a_value_that_is_not_finite_is_refused(variables):
    variables["generator/fc/W"][2, 3] = np.nan
    with pytest.raises(InputError, match="generator/fc/W holds a value that is not finite"):
        vaegan_tensorflow.from_tensorflow(variables)


def test_variables_of_something_else_are_refused():
    for arrays in ({}, {"conv1/W": np.zeros((3, 3))}, {"encoder/fc/W": np.zeros(())}):
        with pytest.raises(InputError, match="not the variables of a VAE-GAN"):
            vaegan_tensorflow.from_tensorflow(arrays)
    scalars = dict.fromkeys(
        ("encoder/layer1/conv2d/W", "encoder/fc/W", "encoder/variational/mu/W"), np.zeros(())
    )
    with pytest.raises(InputError, match="not the variables of a VAE-GAN"):
        vaegan_tensorflow.from_tensorflow(scalars)


def test_no_import_loads_torch():
    code = (
        "import sys, hyper_bids.generators.vaegan, hyper_bids.generators.formats.tf_bundle; "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "False"


def test_a_checkpoint_given_as_image_model_decodes_and_encodes(variables, model, rng, tmp_path):
    from test_tf_bundle import write_v1

    everything = dict(sorted({**variables, **others(variables)}.items()))
    path = write_v1(
        tmp_path / "vaegan.ckpt",
        {name: np.asarray(array, np.float32) for name, array in everything.items()},
    )
    loaded = checkpoints.load(path)
    assert (loaded.latent_space, loaded.frame) == ("encoded", 0.8)
    latents = rng.standard_normal((2, loaded.n_latents))
    np.testing.assert_array_equal(loaded.generate(latents), model.generate(latents))
    images = rng.random((2, *loaded.image_shape), dtype=np.float32)
    np.testing.assert_array_equal(loaded.encode(images), model.encode(images))


def test_a_weight_file_of_the_project_decodes_and_encodes(variables, model, rng, tmp_path):
    sizes = {key: str(value) for key, value in dataclasses.asdict(SMALL).items()}
    path = tmp_path / "small.safetensors"
    state = vaegan_tensorflow.from_tensorflow(variables)
    weightfile.write(path, state, {"format": "hyper_bids", "model": "vaegan", **sizes})
    loaded = checkpoints.load(path)
    latents = rng.standard_normal((2, loaded.n_latents))
    np.testing.assert_array_equal(loaded.generate(latents), model.generate(latents))
    assert loaded.encode(loaded.generate(latents)).shape == latents.shape
    assert (loaded.latent_space, loaded.frame) == ("encoded", 1.0)


@pytest.fixture
def written(variables, tmp_path):
    """Return a function that writes a weight file with metadata, and gives its path."""

    def write(**metadata):
        path = tmp_path / "small.safetensors"
        state = vaegan_tensorflow.from_tensorflow(variables)
        saving.save_network(path, "vaegan", state, "small", "none", **metadata)
        return path

    return write


def test_frame_and_display_of_a_weight_file_are_kept(written, variables, rng):
    latents = rng.standard_normal((3, 7))
    loaded = checkpoints.load(written(frame=0.75, display="clip"))
    assert loaded.frame == 0.75
    import torch

    state = vaegan_tensorflow.from_tensorflow(variables)
    weights = vaegan.prepare({key: torch.from_numpy(value) for key, value in state.items()})
    raw = vaegan.generator_output(weights, torch.tensor(latents, dtype=torch.float32))
    expected = np.clip(raw.permute(0, 2, 3, 1).numpy(), 0, 1)
    assert 0.05 < (expected < 1).mean() < 1
    np.testing.assert_allclose(loaded.generate(latents), expected, atol=1e-6)
    brightest = checkpoints.load(written(display="brightest")).generate(latents)
    np.testing.assert_array_equal(brightest, checkpoints.load(written()).generate(latents))
    assert np.abs(brightest - expected).max() > 0.1


def test_a_frame_or_display_that_no_model_has_is_refused(written):
    for frame in (0, 1.5, "nan", "all"):
        with pytest.raises(InputError, match=f"metadata frame = '{frame}'"):
            checkpoints.load(written(frame=frame))
    with pytest.raises(InputError, match="metadata display = 'max'; one of brightest, clip"):
        checkpoints.load(written(display="max"))


def test_arrays_that_are_no_vaegan_are_not_written(written, variables, tmp_path):
    state = vaegan_tensorflow.from_tensorflow(variables)
    path = tmp_path / "x.safetensors"
    for arrays, match in (
        ({}, "not the arrays of a VAE-GAN"),
        ({**state, "more": np.zeros(2)}, "Unknown: more"),
        ({**state, "encoder.fc.bias": np.zeros(15)}, r"encoder.fc.bias has shape \(15,\)"),
        ({**state, "encoder.fc.bias": np.full(16, np.nan)}, "not finite"),
    ):
        with pytest.raises(InputError, match=match):
            saving.save_network(path, "vaegan", arrays, "x", "none")
    with pytest.raises(ValueError, match="model 'dcgan'; one of pggan, vaegan"):
        saving.save_network(path, "dcgan", state, "x", "none")
    assert not path.exists()
