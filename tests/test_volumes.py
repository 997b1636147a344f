"""Masked reading and writing: against nibabel and nilearn, and files that are broken."""

import gzip
import tracemalloc

import nibabel
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker
from nilearn.masking import apply_mask, compute_epi_mask

from hyper_bids import volumes
from hyper_bids.errors import InputError

SHAPE, N_VOLUMES = (5, 6, 7), 9
AFFINE = np.array([[-2.0, 0.1, 0, 30], [0, 2.5, 0.2, -40], [0.1, 0, 3, 7], [0, 0, 0, 1]])


def save(path, data, t_r=1.5, unit="sec", image=nibabel.Nifti1Image, **options):
    """Write with nibabel; options: dtype, endianness, slope and inter."""
    header = image.header_class(endianness=options.get("endianness", "<"))
    header.set_data_dtype(options.get("dtype", data.dtype))
    result = image(data, AFFINE, header)
    result.header.set_xyzt_units("mm", unit)
    if data.ndim == 4:
        result.header.set_zooms((2, 2.5, 3, t_r))
    if "slope" in options:
        result.header.set_slope_inter(options["slope"], options["inter"])
    nibabel.save(result, path)
    return path


@pytest.fixture
def data(rng):
    return np.rint(1000 + 100 * rng.standard_normal((*SHAPE, N_VOLUMES))).astype(np.int16)


@pytest.fixture
def mask(rng):
    return rng.random(SHAPE) < 0.4


def mask_image(mask):
    return nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE)


FILES = {
    "float32": {"dtype": np.float32},
    "float64": {"dtype": np.float64},
    "int16": {"dtype": np.int16},
    "uint8, scaled": {"dtype": np.uint8},
    "int16, slope and intercept": {"dtype": np.int16, "slope": 0.37, "inter": 512.25},
    "big-endian int16, scaled": {"dtype": np.int16, "endianness": ">", "slope": 2, "inter": -9},
    "big-endian float32": {"dtype": np.float32, "endianness": ">"},
    "NIfTI-2": {"dtype": np.int32, "image": nibabel.Nifti2Image},
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("options", FILES.values(), ids=FILES)
def test_masked_values_equal_nilearn_in_value_and_order(tmp_path, data, mask, suffix, options):
    path = save(tmp_path / f"bold{suffix}", data, **options)
    bold = volumes.read_masked(path, mask)
    assert bold.dtype == np.float32
    image = nibabel.load(path).get_fdata()
    np.testing.assert_array_equal(bold, image[mask].T.astype(np.float32))
    np.testing.assert_allclose(bold, apply_mask(path, mask_image(mask)), rtol=1e-6)
    masker = NiftiMasker(mask_image(mask), standardize=None)
    np.testing.assert_allclose(bold, masker.fit_transform(path), rtol=1e-6)
    np.testing.assert_array_equal(volumes.read_masked(path, mask, first=4), bold[4:])
    np.testing.assert_allclose(volumes.mean_volume(path, 2), image[..., 2:].mean(-1), rtol=1e-6)


def test_one_slice_and_one_volume_are_read(tmp_path, data, mask):
    path = save(tmp_path / "slice.nii.gz", data[:, :, :1])
    assert volumes.read_header(path).shape == (5, 6, 1)
    np.testing.assert_array_equal(
        volumes.read_masked(path, mask[:, :, :1]), data[:, :, :1][mask[:, :, :1]].T
    )
    path = save(tmp_path / "volume.nii.gz", data[..., 0])
    assert volumes.read_header(path).n_volumes == 1
    np.testing.assert_array_equal(volumes.read_masked(path, mask), data[..., 0][mask][None])


def test_header_extension_does_not_shift_the_voxels(tmp_path, data, mask):
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 333))
    nibabel.save(image, tmp_path / "bold.nii.gz")
    bold = volumes.read_masked(tmp_path / "bold.nii.gz", mask)
    np.testing.assert_array_equal(bold, data[mask].T)
    volumes.check_complete(tmp_path / "bold.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_reading_holds_the_result_and_a_few_volumes_only(tmp_path, rng, suffix):
    shape, n_volumes = (40, 40, 20), 60
    path = save(tmp_path / f"bold{suffix}", rng.integers(0, 99, (*shape, n_volumes), np.int16))
    mask = rng.random(shape) < 0.2
    volumes.read_masked(path, mask)
    tracemalloc.start()
    bold = volumes.read_masked(path, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    volume = 8 * np.prod(shape)
    assert peak < bold.nbytes + 4 * volume
    assert peak < volume * n_volumes / 3


@pytest.mark.parametrize(
    ("t_r", "unit", "expected"),
    [
        (0.8, "sec", 0.8),
        (2500, "msec", 2.5),
        (1_500_000, "usec", 1.5),
        (0, "sec", None),
        (2, "unknown", None),
        (2, "hz", None),
    ],
)
def test_repetition_time_is_in_seconds_or_none(tmp_path, data, t_r, unit, expected):
    header = volumes.read_header(save(tmp_path / "bold.nii", data, t_r, unit))
    assert header.t_r == expected
    assert header.shape == SHAPE
    assert header.n_volumes == N_VOLUMES
    np.testing.assert_allclose(header.affine, AFFINE, atol=1e-6)


def test_same_grid_is_shape_and_affine(tmp_path, data):
    bold = volumes.read_header(save(tmp_path / "a.nii", data))
    single = volumes.read_header(save(tmp_path / "b.nii", data[..., 0]))
    other = volumes.read_header(save(tmp_path / "c.nii", data[:-1]))
    image = nibabel.Nifti1Image(data, AFFINE + 0.01)
    nibabel.save(image, tmp_path / "d.nii")
    assert volumes.same_grid(bold, single)
    assert not volumes.same_grid(bold, other)
    assert not volumes.same_grid(bold, volumes.read_header(tmp_path / "d.nii"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_truncated_file_is_found_before_and_during_the_reading(tmp_path, data, mask, suffix, kept):
    path = save(tmp_path / f"bold{suffix}", data)
    volumes.check_complete(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for action in (
        lambda: volumes.check_complete(path),
        lambda: volumes.read_masked(path, mask),
        lambda: volumes.mean_volume(path),
    ):
        with pytest.raises(InputError, match=rf"bold{suffix}.*(truncated|NIfTI)") as error:
            action()
        assert "\n" not in str(error.value)


def test_compressed_file_of_several_members_is_complete(tmp_path, data, mask):
    """Its last four bytes give the last member's size only (as bgzip and pigz -i write it)."""
    plain = save(tmp_path / "bold.nii", data).read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(b"".join(gzip.compress(plain[k : k + 1000]) for k in range(0, 9000, 1000)))
    volumes.check_complete(path)
    np.testing.assert_array_equal(volumes.read_masked(path, mask), data[mask].T)


def test_compressed_file_with_padding_is_complete(tmp_path, data):
    plain = save(tmp_path / "bold.nii", data).read_bytes()
    path = tmp_path / "padded.nii.gz"
    path.write_bytes(gzip.compress(plain + bytes(512)))
    volumes.check_complete(path)


def test_flipped_bit_in_a_compressed_file_is_found(tmp_path, data, mask):
    path = tmp_path / "bold.nii.gz"
    plain = save(tmp_path / "bold.nii", data).read_bytes()
    # Stored, not deflated: the file can be read through, only the checksum tells.
    content = bytearray(gzip.compress(plain, compresslevel=0))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"truncated or damaged.*CRC"):
        volumes.read_masked(path, mask)


def test_files_that_are_no_images_are_refused_by_name(tmp_path, data):
    text, other, fake = tmp_path / "a.nii", tmp_path / "b.nii.gz", tmp_path / "c.nii.gz"
    text.write_text("Not an image, but long enough to hold a header. " * 20)
    other.write_bytes(b"")
    fake.write_bytes(save(tmp_path / "plain.nii", data).read_bytes())
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tmp_path / "annex" / "content")
    surface = tmp_path / "s.func.gii"
    nibabel.save(
        nibabel.gifti.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(data[0, 0].astype("f4"))]),
        surface,
    )
    for path in (text, other, fake, link, surface, tmp_path / "missing.nii", tmp_path):
        with pytest.raises(InputError, match=path.name) as error:
            volumes.read_header(path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="datalad get"):
        volumes.read_header(link)


def test_images_of_other_dimensions_or_types_are_refused(tmp_path, data):
    save(tmp_path / "five.nii", data[:, :, :, None, :])
    save(tmp_path / "complex.nii", data.astype(np.complex64))
    with pytest.raises(InputError, match=r"five.nii.*\(5, 6, 7, 1, 9\)"):
        volumes.read_header(tmp_path / "five.nii")
    with pytest.raises(InputError, match=r"complex.nii.*complex64"):
        volumes.read_header(tmp_path / "complex.nii")


def test_wrong_mask_or_too_many_dropped_volumes_are_refused(tmp_path, data, mask):
    path = save(tmp_path / "bold.nii", data)
    with pytest.raises(InputError, match=r"\(5, 6, 7\), the mask has \(4, 6, 7\)"):
        volumes.read_masked(path, mask[1:])
    with pytest.raises(InputError, match=r"9 volumes.*first 9"):
        volumes.read_masked(path, mask, first=9)
    with pytest.raises(InputError, match="one volume is wanted; it has 9"):
        volumes.read_mask(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_mask_and_labels_come_back(tmp_path, rng, mask, dtype):
    labels = rng.integers(0, 200, SHAPE)
    path = save(tmp_path / "labels.nii.gz", labels.astype(dtype))
    np.testing.assert_array_equal(volumes.read_labels(path), labels)
    path = save(tmp_path / "mask.nii.gz", mask[..., None].astype(dtype))
    np.testing.assert_array_equal(volumes.read_mask(path), mask)
    assert volumes.read_mask(path).dtype == bool


def test_not_a_number_is_outside_of_mask_and_labels(tmp_path, mask):
    path = save(tmp_path / "mask.nii.gz", np.where(mask, 1, np.nan).astype(np.float32))
    np.testing.assert_array_equal(volumes.read_mask(path), mask)
    np.testing.assert_array_equal(volumes.read_labels(path), mask)


def test_fractional_labels_are_refused(tmp_path, mask):
    path = save(tmp_path / "probability.nii", (mask * 0.5).astype(np.float32))
    with pytest.raises(InputError, match=r"probability.nii.*whole numbers.*0\.5"):
        volumes.read_labels(path)


def ball(rng, shape, radius):
    """Return a bright ball with a dim, noisy surround, and the ball."""
    axes = [np.arange(n) - (n - 1) / 2 for n in shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    inside = distance < radius
    image = np.where(inside, 1000.0, 50.0) + 20 * rng.standard_normal(shape)
    return image.astype(np.float32), inside


def test_brain_mask_is_nilearns_where_air_surrounds_the_brain(rng):
    image, inside = ball(rng, (30, 32, 28), 9)
    affine = np.diag([3.0, 3, 3, 1])
    own = volumes.brain_mask(image, affine)
    theirs = compute_epi_mask(nibabel.Nifti1Image(image, affine)).get_fdata() > 0
    np.testing.assert_array_equal(own, theirs)
    assert own[inside].all()
    assert (own == inside).mean() > 0.96


@pytest.mark.parametrize("n_slices", [1, 2, 3, 5])
def test_brain_mask_keeps_all_slices_of_a_thin_slab(rng, n_slices):
    image, inside = ball(rng, (40, 40, n_slices), 13)
    own = volumes.brain_mask(image, np.diag([3.0, 3, 3, 1]))
    assert own.shape == image.shape
    assert own.dtype == bool
    assert (own == inside).mean(axis=(0, 1)).min() > 0.97


def test_brain_mask_takes_the_largest_part_and_survives_nan(rng):
    image, inside = ball(rng, (30, 32, 28), 9)
    image[1:4, 1:4, 1:4] = 1000
    image[-1] = np.nan
    own = volumes.brain_mask(image, np.diag([3.0, 3, 3, 1]))
    assert not own[:4, :4, :4].any()
    assert own[inside].all()
    assert (own == inside).mean() > 0.96


def test_brain_mask_is_never_empty(rng):
    tiny, _ = ball(rng, (4, 4, 3), 1.6)
    assert volumes.brain_mask(tiny, np.eye(4)).any()
    for flat in (np.zeros((9, 9, 9)), np.full((9, 9, 9), np.nan), np.ones((1, 1, 1))):
        with pytest.raises(ValueError, match="contrast"):
            volumes.brain_mask(flat, np.eye(4))


def test_to_volume_undoes_masking_and_keeps_the_type(rng, mask):
    for values in (
        rng.standard_normal(mask.sum()),
        rng.standard_normal(mask.sum()).astype(np.float32),
        rng.random(mask.sum()) < 0.5,
    ):
        volume = volumes.to_volume(values, mask)
        assert volume.dtype == values.dtype
        np.testing.assert_array_equal(volume[mask], values)
        assert not volume[~mask].any()
    assert np.isnan(volumes.to_volume(np.arange(mask.sum()), mask, np.nan)[~mask]).all()
    with pytest.raises(ValueError, match=rf"\(3,\) for a mask of {mask.sum()}"):
        volumes.to_volume(np.zeros(3), mask)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_maps_come_back_bit_for_bit(tmp_path, rng, mask, suffix):
    rows = rng.standard_normal((4, mask.sum())).astype(np.float32)
    path = tmp_path / f"maps{suffix}"
    volumes.write_maps(path, rows, mask, AFFINE)
    volumes.check_complete(path)
    np.testing.assert_array_equal(volumes.read_masked(path, mask), rows)
    image = nibabel.load(path)
    assert image.shape == (*SHAPE, 4)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert not image.get_fdata()[~mask].any()
    volumes.write_map(path, rows[0].astype(float), mask, AFFINE)
    np.testing.assert_array_equal(nibabel.load(path).get_fdata()[mask], rows[0])
    volumes.write_mask(path, mask, AFFINE)
    assert nibabel.load(path).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(volumes.read_mask(path), mask)


def test_written_bytes_depend_on_the_content_only(tmp_path, rng, mask):
    rows = rng.standard_normal((3, mask.sum())).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    volumes.write_maps(tmp_path / "a.nii.gz", rows, mask, AFFINE)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    volumes.write_maps(tmp_path / "other_name.nii.gz", mapped, mask, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "other_name.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)


def test_rows_of_another_mask_are_refused(tmp_path, mask):
    with pytest.raises(ValueError, match=rf"\(3,\) for a mask of {mask.sum()}"):
        volumes.write_maps(tmp_path / "a.nii.gz", np.zeros((2, 3), np.float32), mask, AFFINE)
