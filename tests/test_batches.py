"""Batches of images: how many, what an image does not depend on, and the precision of images."""

import logging

import numpy as np
import pytest

from hyper_bids import device
from hyper_bids.generators import batches, checkpoints, pggan, protocol, saving

SIZES = pggan.Architecture(resolution=64, n_latents=8, fmap_base=512, fmap_max=16)
GB = 2**30


class Painter:
    """Stands in for an image model of a size."""

    name = "painter"

    def __init__(self, side, device="cpu"):
        self.image_shape, self.device = (side, side, 3), device


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file with the random weights of a small PGGAN."""
    rng = np.random.default_rng(3)
    arrays = {
        name: rng.standard_normal(shape) * (1 if name.endswith("weight") else 0.1)
        for name, shape in SIZES.shapes().items()
    }
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    saving.save_network(path, "pggan", arrays, "small", "none")
    return path


@pytest.fixture
def latents(rng):
    return rng.standard_normal((11, SIZES.n_latents))


@pytest.fixture
def free(monkeypatch):
    """Return a function that sets the memory that is free, in bytes."""
    return lambda n: monkeypatch.setattr(batches, "free_memory", lambda device: n)


# How many at a time


@pytest.mark.parametrize(("side", "cpu"), [(64, 16), (512, 16), (1024, 4), (2048, 1), (4096, 1)])
def test_where_memory_suffices_its_amount_does_not_matter(side, cpu, free):
    for gigabytes in (40, 64, 1000):
        free(gigabytes * GB)
        assert batches.choose_batch(Painter(side)) == cpu
    assert batches.choose_batch(Painter(1024, "cuda:0")) == 16


def test_less_memory_means_fewer_images_that_fit_into_a_half_of_it_and_never_none(free, said):
    found = []
    for free_bytes in np.linspace(0, 3 * GB, 40):
        free(int(free_bytes))
        n = batches.choose_batch(Painter(128))
        assert n in (1, 2, 4, 8, 16)
        assert n == 1 or batches.BASE + n * 128**2 * 2048 <= free_bytes / 2
        found.append(n)
    assert found == sorted(found)
    assert set(found) == {1, 2, 4, 8, 16}
    assert "1 images at a time rather than 16, since 0 MB of memory are free" in said.text


def test_the_memory_of_the_job_counts_if_it_is_less_than_what_is_free(free):
    free(100 * GB)
    assert batches.choose_batch(Painter(128), limit_mb=600) == 2
    assert batches.choose_batch(Painter(128), limit_mb=10**6) == 16


def test_a_number_is_taken_as_it_is(free):
    free(0)
    assert batches.choose_batch(Painter(1024), 33) == 33
    assert batches.choose_batch(Painter(1024), "7") == 7
    for wrong in (0, "0", -1):
        with pytest.raises(ValueError, match="1 or more"):
            batches.choose_batch(Painter(64), wrong)


def test_a_container_s_limit_lowers_the_memory_that_is_free(monkeypatch, tmp_path):
    import psutil

    limit = tmp_path / "memory.max"
    monkeypatch.setattr(device, "MEMORY_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n", "ascii")
    unlimited = device.free_memory("cpu")
    assert abs(unlimited - psutil.virtual_memory().available) < GB
    held = psutil.Process().memory_info().rss
    limit.write_text(str(held + 50 * 2**20), "ascii")
    assert 0 < device.free_memory("cpu") <= 60 * 2**20
    limit.write_text("1000", "ascii")
    assert device.free_memory("cpu") == 0


# What an image does not depend on


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_image_has_the_same_bits_whatever_is_made_with_it(weights, latents, precision):
    model = checkpoints.load(weights, precision=precision)
    together = checkpoints.generate_batches(model, latents, 4)
    assert together.std() > 20
    for row in range(len(latents)):
        alone = checkpoints.generate_batches(model, latents[row : row + 1], 4)
        np.testing.assert_array_equal(alone[0], together[row])
    turned = checkpoints.generate_batches(model, latents[::-1], 4)
    np.testing.assert_array_equal(turned[::-1], together)


def test_rounding_on_the_device_gives_the_bits_of_rounding_afterwards(weights, latents):
    for model in (checkpoints.load(weights), checkpoints.load("demo")):
        some = np.random.default_rng(0).standard_normal((5, model.n_latents))
        expected = protocol.to_uint8(model.generate(some))
        np.testing.assert_array_equal(model.generate_uint8(some), expected)
    assert checkpoints.load(weights).generate_uint8(latents[:0]).shape == (0, 64, 64, 3)


# Precision


def test_bf16_images_are_others_but_within_two_of_255_on_average(weights, latents):
    exact, rounded = checkpoints.load(weights), checkpoints.load(weights, precision="bf16")
    assert (exact.precision, rounded.precision) == ("float32", "bfloat16")
    difference = np.abs(exact.generate(latents) - rounded.generate(latents))
    assert 0 < difference.mean() < 2 / 255


@pytest.mark.parametrize(("native", "used"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_bf16_where_the_device_has_it_and_says_so(
    weights, monkeypatch, said, native, used
):
    monkeypatch.setattr(pggan, "native_bfloat16", lambda device: native)
    assert checkpoints.load(weights, precision="auto").precision == used
    assert said.messages[-1] == f"small: computes in {used} (--precision auto)"


def test_the_usual_precision_is_float32_and_needs_no_word(weights, monkeypatch, said):
    monkeypatch.setattr(pggan, "native_bfloat16", lambda device: True)
    assert checkpoints.load(weights).precision == "float32"
    assert not said.messages


def test_a_model_that_has_one_precision_keeps_it_and_the_log_says_so(said):
    plain = checkpoints.load("demo")
    asked = checkpoints.load("demo", precision="bf16")
    assert said.messages == [f"{plain.name}: computes in float32 (--precision bf16)"]
    latents = np.random.default_rng(0).standard_normal((2, plain.n_latents))
    np.testing.assert_array_equal(asked.generate(latents), plain.generate(latents))
    with pytest.raises(ValueError, match="'half'; one of auto, float32, bf16"):
        checkpoints.load("demo", precision="half")


def test_a_gpu_makes_the_images_of_the_processor(weights, latents):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    on_cpu = checkpoints.load(weights).generate(latents)
    model = checkpoints.load(weights, "cuda")
    np.testing.assert_allclose(model.generate(latents), on_cpu, atol=1e-4)
    assert batches.choose_batch(model) == 16
    made = checkpoints.generate_batches(model, latents)
    assert np.abs(made - np.rint(on_cpu * 255)).max() <= 1


def test_nothing_is_said_of_memory_that_suffices(free, caplog):
    free(100 * GB)
    with caplog.at_level(logging.DEBUG, logger="hyper_bids"):
        batches.choose_batch(Painter(1024))
    assert not caplog.messages


def test_the_app_says_with_what_precision_and_in_what_batches_it_made_images(tmp_path, said):
    import app

    from hyper_bids.simulate.dataset import simulate

    sizes = pggan.Architecture(resolution=64, n_latents=4, fmap_base=256, fmap_max=8)
    rng = np.random.default_rng(0)
    arrays = {key: rng.standard_normal(shape) for key, shape in sizes.shapes().items()}
    saving.save_network(tmp_path / "w.safetensors", "pggan", arrays, "tiny", "none")
    simulate(tmp_path / "raw", app.small())
    flags = ["--generator", tmp_path / "w.safetensors", "--feature-network", "none"]
    made = {}
    for name, more in (("usual", []), ("other", ["--precision", "bf16", "--batch-size", "3"])):
        assert app.run(tmp_path / "raw", tmp_path / name, *flags, *more) == 0
        told = app.sidecar(tmp_path / name, "_desc-recon_images.json")
        made[name] = app.load(tmp_path / name, "_desc-recon_images.npy"), told
    assert (made["usual"][1]["Precision"], made["usual"][1]["BatchSize"]) == ("float32", 16)
    assert (made["other"][1]["Precision"], made["other"][1]["BatchSize"]) == ("bfloat16", 3)
    difference = np.abs(made["usual"][0].astype(float) - made["other"][0])
    assert 0 < difference.mean() < 2
