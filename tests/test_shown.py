"""The stimuli's images as the app compares them: files of any kind, or made from their latents."""

import numpy as np
import pytest
from PIL import Image

from hyper_bids.errors import InputError
from hyper_bids.generators import checkpoints
from hyper_bids.participant import shown


@pytest.fixture
def photo(rng):
    """Return a smooth picture of 32 x 32 pixels, uint8 RGB."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC))


@pytest.fixture
def show(tmp_path):
    """Return a function that gives the images of files in the stimuli's folder."""

    def images(*names, size=(32, 32)):
        shown.check_files(tmp_path, list(names))
        told = {"stimuli_folder": str(tmp_path)}
        found, source = shown.stimulus_images(list(names), told, np.zeros((len(names), 2)), size)
        assert source == shown.FILES
        assert found.dtype == np.uint8
        assert found.shape == (len(names), *size, 3)
        return found

    return images


def test_one_picture_in_files_of_many_kinds_is_one_image(photo, show, tmp_path):
    image = Image.fromarray(photo)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "tiff.tif")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    turned, exif = image.rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    wide = np.pad(photo, ((0, 0), (9, 9), (0, 0)))
    Image.fromarray(wide).save(tmp_path / "wide.png")
    images = show("plain.png", "tiff.tif", "alpha.png", "turned.png", "wide.png")
    for found in images:
        np.testing.assert_array_equal(found, photo)


def test_grey_of_8_and_16_bits_is_the_same_in_all_channels(photo, show, tmp_path):
    grey = photo[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for found in show("grey.png", "deep.png"):
        np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def test_a_picture_of_odd_size_keeps_its_proportions(show, tmp_path):
    disc = np.zeros((101, 211, 3), np.uint8)
    y, x = np.mgrid[:101, :211]
    disc[(y - 50) ** 2 + (x - 105) ** 2 < 40**2] = 255
    Image.fromarray(disc).save(tmp_path / "disc.png")
    bright = show("disc.png", size=(64, 64))[0, :, :, 0] > 127
    assert abs(bright.any(axis=0).sum() - bright.any(axis=1).sum()) <= 1
    assert abs(bright.sum() / 64**2 - np.pi * 40**2 / 101**2) < 0.02


def test_a_picture_whose_end_is_missing_is_refused_by_name(rng, show, tmp_path):
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.png: not a readable picture"):
        show("cut.png")


def test_what_is_no_picture_is_told_by_its_first_bytes(tmp_path):
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<html>", "an HTML page"),
        (b"", "an empty file"),
        (b"GIF? no", "not a readable picture"),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.png: .*{words}"):
            shown.check_files(tmp_path, ["n/a", "a.png"])
    with pytest.raises(InputError, match=r"absent\.png: named .* but not there"):
        shown.check_files(tmp_path, ["absent.png"])


def test_without_a_file_for_each_all_are_made_from_their_latents(photo, rng, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    model = checkpoints.load("demo")
    latents = rng.standard_normal((2, model.n_latents))
    told = {
        "stimuli_folder": str(tmp_path), "generator": "demo", "device": "cpu", "batch_size": "auto",
    }  # fmt: skip
    found, source = shown.stimulus_images(["a.png", "n/a"], told, latents, (64, 64))
    assert source == shown.GENERATED
    np.testing.assert_array_equal(found, checkpoints.generate_batches(model, latents))
