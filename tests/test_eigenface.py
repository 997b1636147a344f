"""Eigenfaces: principal components of images, against scikit-learn and NumPy."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from hyper_bids.errors import InputError
from hyper_bids.generators import weightfile
from hyper_bids.generators.eigenface import (
    fit_eigenface,
    load_eigenface,
    save_eigenface,
    with_fixed_sign,
)
from hyper_bids.generators.protocol import ImageGenerator

SHAPE = (6, 5, 3)


@pytest.fixture
def images(rng):
    """Sixty images of a planted spectrum that falls, well within [0, 1]."""
    basis = np.linalg.qr(rng.standard_normal((90, 90)))[0]
    scores = rng.standard_normal((60, 90)) * 0.6 * 0.85 ** np.arange(90)
    return (0.5 + np.clip(scores @ basis.T, -0.45, 0.45)).reshape(-1, *SHAPE).astype(np.float32)


def in_batches(images, size):
    return (images[k : k + size] for k in range(0, len(images), size))


def test_components_and_variances_are_those_of_numpys_svd(images):
    model = fit_eigenface(images, n_components=7)
    rows = images.reshape(60, -1).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    overlap = model.components @ vt[:7].T
    np.testing.assert_allclose(np.abs(overlap), np.eye(7), atol=1e-6)
    np.testing.assert_allclose(model.mean, rows.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(model.variances * model.scale**2, s[:7] ** 2 / 59, rtol=1e-5)
    assert model.explained == pytest.approx((s[:7] ** 2).sum() / (s**2).sum(), rel=1e-6)
    assert model.n_images == 60


def test_latents_are_scikit_learns_scores_over_one_number_and_have_mean_square_one(images):
    from sklearn.decomposition import PCA

    model = fit_eigenface(images, n_components=7)
    pca = PCA(7, svd_solver="full").fit(images.reshape(60, -1).astype(np.float64))
    scores = pca.transform(images.reshape(60, -1))
    latents = model.encode(images)
    signs = np.sign((scores * latents).sum(axis=0))
    np.testing.assert_allclose(latents * model.scale * signs, scores, atol=2e-6)
    assert latents.var(axis=0, ddof=1).mean() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(latents.var(axis=0, ddof=1), model.variances, rtol=1e-4)


def test_distances_of_latents_are_distances_of_their_images_up_to_the_scale(images, rng):
    model = fit_eigenface(images, n_components=5)
    a, b = rng.standard_normal((2, 20, 5)) * 0.1
    apart = (model.generate(a) - model.generate(b)).reshape(20, -1)
    expected = np.linalg.norm(a - b, axis=1) * model.scale
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), expected, rtol=1e-4)


def test_encoding_a_generated_image_gives_its_latent_back(images, rng):
    model = fit_eigenface(images, n_components=9)
    latents = rng.standard_normal((11, 9)).astype(np.float32) * 0.2
    made = model.generate(latents)
    assert 0 < made.min() < made.max() < 1
    np.testing.assert_allclose(model.encode(made), latents, atol=2e-6)


def test_the_error_of_reconstructions_falls_with_components_and_ends_at_nothing(images):
    errors = []
    for n in (1, 3, 9, 27, 59):
        model = fit_eigenface(images, n_components=n)
        errors.append(np.square(model.generate(model.encode(images)) - images).mean())
    assert all(after < 0.9 * before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-12


def test_images_leave_the_model_within_black_and_white_as_float32(images):
    model = fit_eigenface(images, n_components=4)
    made = model.generate(np.full((3, 4), 1e3))
    assert made.dtype == np.float32
    assert made.shape == (3, *SHAPE)
    assert made.min() == 0
    assert made.max() == 1
    assert model.generate(np.empty((0, 4))).shape == (0, *SHAPE)
    assert model.encode(np.empty((0, *SHAPE))).shape == (0, 4)
    assert isinstance(model, ImageGenerator)
    assert not model.normalises


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_of_any_size_give_the_bits_of_one_array(images, size):
    whole = fit_eigenface(images, n_components=8)
    parts = fit_eigenface(in_batches(images, size), n_components=8)
    np.testing.assert_array_equal(parts.components, whole.components)
    assert parts.scale == whole.scale


@pytest.mark.parametrize("batch", [4, 25])
def test_images_that_do_not_fit_memory_give_what_they_give_at_once(images, batch):
    # Chunks of 13 + 1: the last has four images. All 12 dimensions of the images are kept.
    flat = images.reshape(60, -1)
    mean = flat.mean(axis=0)
    vt = np.linalg.svd(flat - mean, full_matrices=False)[2][:12]
    images = (mean + 0.8 * (flat - mean) @ vt.T @ vt).reshape(images.shape)
    whole = fit_eigenface(images, n_components=12)
    chunked = fit_eigenface(in_batches(images, batch), n_components=13, in_memory=2)
    assert chunked.n_latents == 12
    np.testing.assert_allclose(chunked.encode(images), whole.encode(images), atol=1e-4)
    np.testing.assert_allclose(chunked.mean, whole.mean, atol=1e-7)
    assert chunked.n_images == 60


def test_chunks_lose_little_where_components_leave_variance_out(images):
    whole = fit_eigenface(images, n_components=12)
    chunked = fit_eigenface(images, n_components=12, in_memory=20)

    def error(model):
        return np.square(model.generate(model.encode(images)) - images).mean()

    assert error(whole) < error(chunked) < 1.1 * error(whole)


def test_as_many_components_are_kept_as_the_images_carry(images, said):
    assert fit_eigenface(images[:10]).n_latents == 9
    assert "10 images carry 9 components" in said.text
    # Three images, each many times.
    assert fit_eigenface(np.repeat(images[:3], 5, axis=0)).n_latents == 2
    assert fit_eigenface(np.repeat(images[:3], 9, axis=0), 4, in_memory=5).n_latents == 2


def test_the_largest_loading_is_positive_and_rounding_does_not_choose_it():
    odd = np.array([[0.1, -0.7, 0.0, 0.7], [0.6, -0.8, 0.0, 0.1]])
    for nudge in (-1e-7, 1e-7):
        nudged = odd + np.array([0, nudge, 0, 0])
        np.testing.assert_allclose(with_fixed_sign(nudged), -odd, atol=1e-6)
        np.testing.assert_allclose(with_fixed_sign(-nudged), -odd, atol=1e-6)


def test_uint8_images_are_taken_as_0_to_255(images):
    coarse = np.rint(images * 255).astype(np.uint8)
    whole = fit_eigenface(coarse, n_components=5)
    same = fit_eigenface(coarse.astype(np.float32) / np.float32(255), n_components=5)
    np.testing.assert_array_equal(whole.components, same.components)
    np.testing.assert_array_equal(whole.encode(coarse), same.encode(coarse / np.float32(255)))


def test_a_saved_and_loaded_model_has_the_same_bits_and_a_file_of_arrays_only(images, tmp_path):
    path = tmp_path / "model.safetensors"
    told = {"name": "faces", "source": "60 drawn", "licence": "CC0"}
    fitted = fit_eigenface(images, n_components=6, **told)
    assert fitted.checksum == ""
    saved = save_eigenface(path, fitted)
    loaded = load_eigenface(path)
    for field in dataclasses.fields(fitted):
        a, b = getattr(saved, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(a, b)
    latents = fitted.encode(images)
    np.testing.assert_array_equal(loaded.encode(images), latents)
    np.testing.assert_array_equal(loaded.generate(latents), fitted.generate(latents))
    assert loaded.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    metadata = weightfile.read_header(path).metadata
    assert (metadata["model"], metadata["format"]) == ("eigenface", "hyper_bids")
    assert {k: metadata[k] for k in told} == told
    # The same images give the same file.
    again = save_eigenface(tmp_path / "again", fit_eigenface(images, n_components=6, **told))
    assert again.checksum == saved.checksum


def test_a_file_of_another_model_or_of_parts_is_refused(images, tmp_path):
    path = tmp_path / "model.safetensors"
    save_eigenface(path, fit_eigenface(images, n_components=3))
    header = weightfile.read_header(path)
    arrays = {k: v.numpy() for k, v in weightfile.read_arrays(path, header).items()}

    def refused(match, arrays=arrays, **metadata):
        weightfile.write(path, arrays, {**header.metadata, **metadata})
        with pytest.raises(InputError, match=match) as caught:
            load_eigenface(path)
        assert str(path) in str(caught.value)

    refused("model = 'dcgan'", model="dcgan")
    refused("metadata height = '6.5'", height="6.5")
    refused("n_images = '0'", n_images="0")
    refused("wrong shape: components, mean", width="6")
    refused("unknown.*: other", arrays={**arrays, "other": arrays["mean"]})
    refused("missing.*: scale", arrays={k: v for k, v in arrays.items() if k != "scale"})
    refused("not principal comp", arrays={**arrays, "components": 2 * arrays["components"]})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        load_eigenface(path)


def test_images_that_are_too_few_or_all_the_same_are_refused(images):
    for few in (images[:0], images[:1], iter([])):
        with pytest.raises(InputError, match=r"[01] images.*2 at least"):
            fit_eigenface(few)
    for in_memory in (2048, 2):
        with pytest.raises(InputError, match="all the same"):
            fit_eigenface(np.repeat(images[:1], 9, axis=0), 2, in_memory=in_memory)


def test_arrays_that_are_no_images_are_refused(images):
    model = fit_eigenface(images, n_components=3)
    for wrong in (images[0], images[..., :1], images[:, :0]):
        with pytest.raises(ValueError, match="height, width, 3"):
            fit_eigenface(wrong)
    with pytest.raises(ValueError, match=r"RGB in \[0, 1\]"):
        fit_eigenface(images * 255)
    with pytest.raises(ValueError, match="nan"):
        model.encode(np.full_like(images, np.nan))
    with pytest.raises(ValueError, match=r"after images of \(6, 5, 3\)"):
        fit_eigenface([images, images[:, :3]])
    with pytest.raises(ValueError, match=r"wants \(6, 5, 3\)"):
        model.encode(images[:, :5])
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        model.generate(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="row 1"):
        model.generate([[0, 0, 0], [0, np.inf, 0]])
    with pytest.raises(ValueError, match="n_components = 0"):
        fit_eigenface(images, 0)
