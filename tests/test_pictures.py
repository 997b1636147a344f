"""Image files of all kinds, read as float32 RGB of one size."""

import numpy as np
import pytest
from PIL import Image

from hyper_bids.errors import InputError
from hyper_bids.generators.pictures import (
    crop_box,
    cut,
    find_pictures,
    picture_batches,
    read_picture,
)
from hyper_bids.participant.shown import stimulus_images


@pytest.fixture
def photo(rng):
    """Return a smooth picture of 24 x 20 pixels, uint8 RGB."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((20, 24), Image.Resampling.BICUBIC))


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves an image or an array, and gives the path."""

    def save(image, name="a.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_a_picture_of_the_wanted_size_keeps_each_value(saved, photo, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    image = read_picture(saved(photo, name, **options), (24, 20))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, photo.astype(np.float32) / np.float32(255))


def test_a_picture_is_the_one_that_the_stage_of_images_shows(saved, photo):
    path = saved(photo)
    image = read_picture(path, (12, 10))
    told = {"stimuli_folder": str(path.parent)}
    images, _ = stimulus_images([path.name], told, np.zeros((1, 2)), (12, 10))
    np.testing.assert_array_equal(np.rint(image * 255), images[0])


def test_the_middle_of_a_wide_or_high_picture_is_taken_undistorted(saved, photo):
    wide = np.zeros((24, 51, 3), np.uint8)
    wide[:, 15:35] = photo
    high = np.zeros((41, 20, 3), np.uint8)
    high[8:32] = photo
    for padded in (wide, high):
        np.testing.assert_array_equal(
            read_picture(saved(padded), (24, 20)), photo / np.float32(255)
        )


@pytest.mark.parametrize("size", [(64, 64), (10, 30), (1, 7)])
def test_the_part_taken_is_the_largest_centred_one_of_the_aspect(size):
    for width, height in [(178, 218), (3, 500), (500, 3), (1, 1), (64, 64)]:
        left, top, right, bottom = crop_box(width, height, size)
        wide, high = right - left, bottom - top
        assert wide == width or high == height
        assert 0 <= width - right - left <= 1
        assert 0 <= height - bottom - top <= 1
        aspect = size[1] / size[0]
        if min(wide, high) > 1:
            assert abs(wide - high * aspect) <= 0.5 * max(1, aspect)
    assert crop_box(178, 218, (64, 64)) == (0, 20, 178, 198)


def test_a_frame_is_the_middle_part_of_what_is_taken(saved, photo):
    wide = np.zeros((40, 70, 3), np.uint8)
    wide[:, 15:55] = 90
    wide[8:32, 25:45] = photo
    # The photograph is the middle 0.6 of the square of 40 pixels in height, 0.5 in width.
    path = saved(wide)
    np.testing.assert_array_equal(
        read_picture(path, (24, 24), 0.6)[:, 2:22], photo / np.float32(255)
    )
    np.testing.assert_array_equal(read_picture(path, (20, 20), 0.5), photo[2:22] / np.float32(255))
    whole = read_picture(path, (40, 40))
    np.testing.assert_array_equal(read_picture(path, (40, 40), 1.0), whole)
    assert (whole[[0, -1]] == np.float32(90) / np.float32(255)).all()
    (read,) = picture_batches([path], (20, 20), 9, 0.5)
    np.testing.assert_array_equal(read[0], read_picture(path, (20, 20), 0.5))
    for size, frame in (((20, 20), 0.5), ((7, 9), 0.83), ((40, 70), 1.0)):
        as_read = np.rint(255 * read_picture(path, size, frame))
        np.testing.assert_array_equal(cut(wide, size, frame), as_read)
    for wrong in (0, 1.01, -0.5, np.nan):
        with pytest.raises(ValueError, match="above 0 to 1"):
            read_picture(path, (20, 20), wrong)


def test_a_fine_pattern_becomes_grey_when_it_shrinks_and_not_stripes(saved):
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    image = read_picture(saved(stripes), (9, 9))
    np.testing.assert_allclose(image[:, 1:-1], 0.5, atol=0.02)


def test_a_small_picture_is_enlarged(saved):
    assert read_picture(saved(np.full((1, 3, 3), 51, np.uint8)), (8, 8)) == pytest.approx(0.2)


def test_grey_black_and_white_and_palettes_become_rgb(saved, photo):
    grey = photo[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2) / np.float32(255)
    np.testing.assert_array_equal(read_picture(saved(grey), (24, 20)), expected)
    black = Image.fromarray(grey).convert("1")
    image = read_picture(saved(black), (24, 20))
    np.testing.assert_array_equal(image[..., 1], np.asarray(black, dtype=np.float32))
    palette = Image.fromarray(photo).quantize(16)
    image = read_picture(saved(palette, "a.gif"), (24, 20))
    np.testing.assert_array_equal(np.rint(image * 255), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb(saved):
    ink = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    image = read_picture(saved(ink, "a.tif"), (4, 4))
    np.testing.assert_allclose(image[2, 2], [1, 0, 0], atol=0.01)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_depth(saved, name):
    ramp = np.linspace(0, 65535, 16 * 16).round().astype(np.uint16).reshape(16, 16)
    path = saved(ramp, name)
    image = read_picture(path, (16, 16))
    np.testing.assert_allclose(image[..., 2], ramp / 65535, atol=1e-7)
    assert len(np.unique(image)) == 256
    # An edge does not ring out of the range when it is resized.
    edge = np.zeros((16, 16), np.uint16)
    edge[:, 8:] = 65535
    small = read_picture(saved(edge, name), (9, 9))
    assert small.min() == 0
    assert small.max() == 1


def test_a_pgm_of_16_bits_is_read_to_the_same_range(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 2 65535\n" + np.array([0, 65535, 13107, 0], ">u2").tobytes())
    image = read_picture(path, (2, 2))
    np.testing.assert_allclose(image[..., 0], [[0, 1], [0.2, 0]], atol=1e-6)


def test_what_is_transparent_shows_white(saved, photo):
    alpha = np.zeros((24, 20, 1), np.uint8)
    alpha[:12] = 255
    alpha[12] = 51
    image = read_picture(saved(np.concatenate([photo, alpha], axis=2)), (24, 20))
    plain = photo / 255
    np.testing.assert_allclose(image[:12], plain[:12], atol=1e-6)
    np.testing.assert_allclose(image[12], 0.8 + 0.2 * plain[12], atol=1 / 255)
    np.testing.assert_array_equal(image[13:], 1)
    grey = np.stack([photo[..., 0], np.zeros((24, 20), np.uint8)], axis=2)
    np.testing.assert_array_equal(read_picture(saved(Image.fromarray(grey, "LA")), (24, 20)), 1)


def test_a_transparent_colour_of_a_palette_shows_white(saved):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    read = read_picture(saved(image, "a.gif", transparency=0), (4, 4))
    np.testing.assert_array_equal(read[0, 1], [0, 1, 0])
    np.testing.assert_array_equal(read[2, 2], [1, 1, 1])


def test_a_picture_is_turned_as_its_camera_says_before_it_is_cut(saved, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees, clockwise.
    image = read_picture(saved(photo, exif=exif), (20, 24))
    np.testing.assert_array_equal(image, np.rot90(photo, -1) / np.float32(255))


def test_an_animation_gives_its_first_frame(saved):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(path, (4, 4))[0, 0], [1, 0, 0])


# Files that are refused


BROKEN = {
    "text": (b"stimulus\tfile\n", "not a readable picture"),
    "empty": (b"", "an empty file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_picture_is_called_what_it_is(kind, tmp_path):
    content, told = BROKEN[kind]
    path = tmp_path / "face.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_picture(path, (4, 4))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp", "a.ppm"])
def test_a_picture_that_is_cut_off_or_damaged_is_refused_by_name(saved, rng, name):
    path = saved(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), name)
    whole = path.read_bytes()
    for length in (len(whole) // 2, 30, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=name):
            read_picture(path, (8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_noise_in_a_file_gives_an_image_or_a_refusal_but_no_other_error(saved, photo, rng):
    for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp"):
        path = saved(photo, name)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(30):
            noisy = whole.copy()
            noisy[rng.integers(4, len(whole), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(noisy.tobytes())
            try:
                assert read_picture(path, (8, 8)).shape == (8, 8, 3)
            except InputError as error:
                assert name in str(error)


def test_values_of_no_known_range_are_refused(saved, photo):
    for values in (photo[..., 0].astype(np.float32), photo[..., 0].astype(np.int32)):
        with pytest.raises(InputError, match="range is not known"):
            read_picture(saved(values, "a.tif"), (4, 4))


def test_a_file_that_is_not_there_and_a_link_to_nowhere_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: no such file"):
        read_picture(tmp_path / "a.png", (4, 4))
    (tmp_path / "b.png").symlink_to(".git/annex/objects/nowhere")
    with pytest.raises(InputError, match=r"b\.png: a link.*datalad get"):
        read_picture(tmp_path / "b.png", (4, 4))
    assert find_pictures(tmp_path) == [tmp_path / "b.png"]


# Folders and batches


def test_a_folders_pictures_are_sorted_and_counted_and_other_files_told(saved, photo, said):
    (saved(photo).parent / "sub").mkdir()
    for name in ("sub/z.JPG", "c.png", "b.tiff"):
        saved(photo, name)
    folder = saved(photo).parent
    for name in ("README.md", ".DS_Store", "._a.png"):
        (folder / name).write_text("x")
    found = find_pictures(folder)
    assert [str(p.relative_to(folder)) for p in found] == ["a.png", "b.tiff", "c.png", "sub/z.JPG"]
    assert "4 pictures; 1 other file left out: README.md" in said.text


def test_lists_of_files_are_sorted_and_what_is_wrong_with_them_is_told(saved, photo, tmp_path):
    paths = [saved(photo, name) for name in ("b.png", "a.png")]
    assert find_pictures(paths) == paths[::-1]
    assert find_pictures(str(paths[0])) == paths[:1]
    with pytest.raises(InputError, match=r"twice: .*b\.png"):
        find_pictures([*paths, paths[0]])
    with pytest.raises(InputError, match="No pictures"):
        find_pictures([])
    with pytest.raises(InputError, match="no such file or folder"):
        find_pictures(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"no pictures .*other files: a\.txt"):
        find_pictures(tmp_path / "empty")


def test_batches_are_the_pictures_in_order_and_read_when_they_are_asked_for(saved, tmp_path):
    paths = [saved(np.full((3, 3, 3), k, np.uint8), f"{k}.png") for k in range(5)]
    batches = list(picture_batches(paths, (3, 3), 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(batches)[:, 1, 1, 1] * 255, range(5), atol=1e-4)
    assert list(picture_batches([], (3, 4))) == []
    lazy = picture_batches([*paths[:2], tmp_path / "none.png"], (3, 3), 2)
    assert next(lazy).shape == (2, 3, 3, 3)
    with pytest.raises(InputError, match=r"none\.png"):
        next(lazy)
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(picture_batches(paths, (3, 3), 0))
    with pytest.raises(ValueError, match=r"size \(0, 3\)"):
        read_picture(paths[0], (0, 3))


def test_a_folder_gives_eigenfaces_whatever_the_size_of_its_batches(saved, rng):
    from hyper_bids.generators.eigenface import fit_eigenface

    for k in range(9):
        saved(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8), f"{k}.png")
    paths = find_pictures(saved(np.zeros((5, 5), np.uint8), "9.png").parent)
    models = [fit_eigenface(picture_batches(paths, (4, 4), size), 3) for size in (2, 10)]
    np.testing.assert_array_equal(models[0].components, models[1].components)
