"""Scores of images against scikit-image, Pillow and plain loops."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity as skimage_ssim

from hyper_bids import metrics, stats
from hyper_bids.metrics import images as pixels
from hyper_bids.metrics import structure


@pytest.fixture
def images(rng):
    """Return images that share structure, with flat and extreme ones among them."""
    base = rng.integers(0, 256, (4, 19, 23, 3))
    noise = rng.integers(-60, 60, (4, 19, 23, 3))
    first = np.clip(base, 0, 255).astype(np.uint8)
    second = np.clip(base + noise, 0, 255).astype(np.uint8)
    first[2], second[2] = 0, 255
    second[3] = 255
    first[3, ::2] = 255
    return first, second


def test_structural_similarity_equals_skimage_for_all_pairs(images):
    first, second = images
    expected = [[skimage_ssim(a, b, channel_axis=-1) for b in second] for a in first]
    np.testing.assert_allclose(metrics.structural_similarity(first, second), expected, atol=1e-10)


def test_structural_similarity_does_not_depend_on_threads_or_bands(images, monkeypatch):
    first, second = images
    whole = metrics.structural_similarity(first[:2], second, n_threads=1)
    assert whole.shape == (2, 4)
    assert np.array_equal(metrics.structural_similarity(first[:2], second, n_threads=3), whole)
    for name in ("_BAND", "_TILE_BYTES"):
        monkeypatch.setattr(structure, name, 1)
    np.testing.assert_allclose(metrics.structural_similarity(first[:2], second), whole, atol=1e-13)


def test_structural_similarity_of_an_image_with_itself_is_one(images):
    found = metrics.structural_similarity(images[0], images[0])
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-14)


@pytest.mark.parametrize("shape", [(7, 7, 3), (7, 40, 1), (33, 8, 4), (130, 90, 3)])
def test_structural_similarity_equals_skimage_for_any_shape(shape, rng):
    first, second = rng.integers(0, 256, (2, 3, *shape), np.uint8)
    second = first // 2 + second // 2
    expected = [skimage_ssim(a, b, channel_axis=-1) for a, b in zip(first, second, strict=True)]
    found = metrics.structural_similarity(first, second)
    np.testing.assert_allclose(np.diag(found), expected, atol=1e-10)


def test_paired_structural_similarity_is_the_diagonal_of_all_pairs(images, monkeypatch):
    first, second = images
    whole = np.diag(metrics.structural_similarity(first, second))
    found = metrics.structural_similarity_paired(first, second, n_threads=2)
    np.testing.assert_allclose(found, whole, atol=1e-13)
    monkeypatch.setattr(structure, "_BAND", 1)
    found = metrics.structural_similarity_paired(first, second)
    np.testing.assert_allclose(found, whole, atol=1e-13)


@pytest.mark.parametrize("side", [None, 40, 11])
def test_gaussian_structural_similarity_is_that_of_mindeye2_in_scikit_image(side, images):
    first, second = images
    expected = [
        [
            skimage_ssim(
                rgb2gray(a).astype(float), rgb2gray(b).astype(float), gaussian_weights=True,
                sigma=1.5, use_sample_covariance=False, data_range=1.0,
            )
            for b in metrics.resized(second, side)
        ]
        for a in metrics.resized(first, side)
    ]  # fmt: skip
    found = metrics.structural_similarity_gaussian(first, second, side, n_threads=2)
    # Grey values are single precision on both sides.
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_resizing_equals_pillow_where_it_shrinks_and_where_it_enlarges(rng):
    image = rng.integers(0, 256, (1, 37, 37, 3), np.uint8)
    for side in (12, 36, 50):
        found = metrics.resized(image, side)[0]
        assert found.shape == (side, side, 3) and found.dtype == np.float32
        for colour in range(3):
            single = Image.fromarray(image[0, :, :, colour].astype(np.float32) / 255)
            expected = np.asarray(single.resize((side, side), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(found[:, :, colour], expected, atol=2e-6)


def test_resizing_keeps_the_shape_of_what_is_not_square_and_values_as_they_are(images):
    assert metrics.resized(images[0], 10).shape == (4, 10, 12, 3)
    for side in (None, 19):
        assert np.array_equal(metrics.resized(images[0], side), images[0] / np.float32(255))


def test_grey_equals_skimage(images):
    np.testing.assert_allclose(metrics.grey(images[0]), rgb2gray(images[0]), atol=1e-6)


def each_correlation(first, second):
    return [[np.corrcoef(a.ravel(), b.ravel())[0, 1] for b in second] for a in first]


@pytest.mark.parametrize("side", [None, 12])
@pytest.mark.parametrize("block", [2**22, 100])
@pytest.mark.parametrize("held", [2**29, 4_100])
def test_pixel_correlation_is_corrcoef_of_flattened_images(side, block, held, rng, monkeypatch):
    monkeypatch.setattr(pixels, "_BLOCK", block)
    monkeypatch.setattr(pixels, "_HELD_BYTES", held)  # all images, or two at a time
    first, second = rng.integers(0, 256, (2, 5, 19, 23, 3), np.uint8)
    second = first // 2 + second // 2
    expected = each_correlation(metrics.resized(first, side), metrics.resized(second, side))
    found = metrics.pixel_correlation(first[:3], second, side)
    np.testing.assert_allclose(found, expected[:3], atol=1e-6)


def test_luminance_correlation_is_corrcoef_of_skimage_grey_at_the_papers_side(rng):
    first, second = rng.integers(0, 256, (2, 3, 240, 240, 3), np.uint8)
    second = first // 2 + second // 2
    grey = [[rgb2gray(image) for image in metrics.resized(s, 224)] for s in (first, second)]
    found = metrics.luminance_correlation(first, second)
    np.testing.assert_allclose(found, each_correlation(*grey), atol=1e-5)


def test_luminance_does_not_see_colours_of_equal_luminance(rng):
    value = rng.integers(0, 80, (1, 16, 16), np.uint8)
    red, blue = np.zeros((2, 1, 16, 16, 3), np.uint8)
    red[..., 0] = value
    blue[..., 2] = 3 * value
    assert metrics.luminance_correlation(red, blue, None)[0, 0] == pytest.approx(1, abs=1e-6)
    assert metrics.pixel_correlation(red, blue)[0, 0] < 0


@pytest.mark.parametrize("function", [metrics.pixel_correlation, metrics.luminance_correlation])
def test_correlation_of_an_image_of_one_value_is_zero(function, images):
    first, second = images
    first, second = first.copy(), second.copy()
    first[0], second[1] = 13, 251
    found = function(first, second)
    assert not found[0].any() and not found[:, 1].any() and np.isfinite(found).all()


def test_a_constant_image_has_p_one_in_every_image_score(rng):
    targets = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    same = np.repeat(rng.integers(0, 256, (1, 16, 16, 3), np.uint8), 8, axis=0)
    for M in (
        metrics.structural_similarity(same, targets),
        metrics.structural_similarity_gaussian(same, targets, None),
        metrics.pixel_correlation(same, targets),
        metrics.luminance_correlation(same, targets, None),
    ):
        assert stats.p_value(stats.score(M)["value"], stats.pairing_null(M, 499, rng)) == 1


def test_images_that_cannot_be_scored_are_refused_with_what_was_given(images):
    first, second = images
    with pytest.raises(ValueError, match=r"\(4, 19, 23, 3\).*\(4, 19, 20, 3\)"):
        metrics.structural_similarity(first, second[:, :, :20])
    with pytest.raises(ValueError, match="6 x 23"):
        metrics.structural_similarity(first[:, :6], second[:, :6])
    with pytest.raises(ValueError, match="float64"):
        metrics.structural_similarity(first / 255, second)
    with pytest.raises(ValueError, match=r"\(0, 19, 23, 3\)"):
        metrics.structural_similarity(first[:0], second)
    with pytest.raises(ValueError, match="2 images and 4 targets"):
        metrics.structural_similarity_paired(first[:2], second)
    with pytest.raises(ValueError, match="10 x 12; at least 11"):
        metrics.structural_similarity_gaussian(first, second, 10)
    with pytest.raises(ValueError, match=r"\(4, 19, 20, 3\)"):
        metrics.structural_similarity_gaussian(first, second[:, :, :20])
    with pytest.raises(ValueError, match=r"float64.*uint8 of"):
        metrics.pixel_correlation(first / 255, second)
    with pytest.raises(ValueError, match=r"\(4, 19, 23, 1\)"):
        metrics.grey(first[..., :1])
    with pytest.raises(ValueError, match=r"\(4, 19, 20, 3\)"):
        metrics.luminance_correlation(first, second[:, :, :20])
    with pytest.raises(ValueError, match="side of 0"):
        metrics.resized(first, 0)
