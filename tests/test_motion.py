"""Realignment: planted motion comes back, in a stated convention; and measures of motion."""

import io

import numpy as np
import pytest
from scipy import ndimage

from hyper_bids import figures, motion

SHAPE, SIZES = (40, 46, 28), np.array([3.0, 2.8, 3.5])


def turn(axis, angle):
    """Return the right-handed rotation about an axis of the world."""
    c, s = np.cos(angle), np.sin(angle)
    a, b = [k for k in range(3) if k != axis]
    R = np.eye(3)
    R[a, a], R[b, b], R[a, b], R[b, a] = c, c, -s, s
    return R if axis != 1 else R.T


def affine_of(flip=False, oblique=0.0):
    """Return an affine whose world origin is the middle of the grid; flip: from right to left."""
    affine = np.eye(4)
    axes = np.diag([-1.0 if flip else 1.0, 1, 1]) * SIZES
    affine[:3, :3] = turn(0, oblique) @ turn(2, oblique / 2) @ axes
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def head(points, active=0.0):
    """Return what a head, 150 mm long, shows at places of the world (x, y, z, in mm)."""
    x, y, z = points
    radius = np.sqrt((x / 46) ** 2 + (y / 52) ** 2 + (z / 36) ** 2)
    edge = 1 / (1 + np.exp((radius - 1) * 15))
    folds = np.sin(x / 7 + 1) * np.cos(y / 8) * np.sin(z / 6 + 0.5)
    centre = np.exp(-((np.abs(x) - 9) ** 2 + (y + 4) ** 2 / 4 + (z - 5) ** 2) / 60)
    activity = active * np.exp(-((x - 8) ** 2 + (y + 38) ** 2 + z**2) / 200)
    return edge * (800 + 120 * folds + 350 * centre + 1.2 * x + 1.8 * y) * (1 + activity)


def volume_of(affine, shift=(0, 0, 0), R=None, rng=None, active=0.0, noise=8.0):
    """Return an image of the head after each of its points went from p to R p + shift (mm)."""
    R = np.eye(3) if R is None else R
    indices = np.indices(SHAPE).reshape(3, -1)
    world = affine[:3, :3] @ indices + affine[:3, 3:]
    values = head(R.T @ (world - np.asarray(shift, float)[:, None]), active).reshape(SHAPE)
    return values + (noise * rng.standard_normal(SHAPE) if rng is not None else 0.0)


def to_world(parameters, reference, affine):
    """Follow the stated convention with plain matrices: where a point of the reference lies.

    Returns the matrix (4, 4), in mm of the world, from the reference to the volume.
    """
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    fsl = np.diag([*sizes, 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        fsl[0, 0], fsl[0, 3] = -sizes[0], (SHAPE[0] - 1) * sizes[0]
    weights = reference - reference.min()
    c = fsl[:3, :3] @ ndimage.center_of_mass(weights) + fsl[:3, 3]
    (cx, cy, cz), (sx, sy, sz) = np.cos(parameters[3:]), np.sin(parameters[3:])
    R = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    R = R @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    R = R @ np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    onto = np.eye(4)
    onto[:3, :3], onto[:3, 3] = R, c + parameters[:3] - R @ c
    world = affine @ np.linalg.inv(fsl)
    return world @ np.linalg.inv(onto) @ np.linalg.inv(world)


def off(found, shift, R):
    """Return the root mean square error over a sphere of 50 mm, mm (Jenkinson 1999)."""
    planted = np.eye(4)
    planted[:3, :3], planted[:3, 3] = R, shift
    error = np.linalg.inv(planted) @ found - np.eye(4)
    return np.sqrt(50**2 / 5 * (error[:3, :3] ** 2).sum() + (error[:3, 3] ** 2).sum())


GRIDS = {
    "x to the right": affine_of(),
    "x to the left": affine_of(flip=True),
    "oblique": affine_of(oblique=0.3),
    "oblique, x to the left": affine_of(flip=True, oblique=-0.4),
}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_planted_motion_comes_back_within_hundredths_of_a_millimetre(rng, affine):
    reference = volume_of(affine, rng=rng)
    for size in (0.0, 0.4, 2.0):
        shift, angles = size * rng.uniform(-1, 1, 3), np.deg2rad(size) * rng.uniform(-1, 1, 3)
        R = turn(0, angles[0]) @ turn(1, angles[1]) @ turn(2, angles[2])
        moved = volume_of(affine, shift, R, rng)
        parameters = motion.estimate(moved, reference, affine)
        assert off(to_world(parameters, reference, affine), shift, R) < 0.07


@pytest.mark.parametrize("flip", [False, True], ids=["x to the right", "x to the left"])
def test_signs_are_those_of_the_text_however_x_is_stored(flip):
    affine = affine_of(flip)
    reference = volume_of(affine)

    def found(shift=(0, 0, 0), R=None):
        return motion.estimate(volume_of(affine, shift, R), reference, affine)

    degree = np.deg2rad(1)
    # To the right, to the front, upwards: the correction goes back, and x of FSL is to the left.
    np.testing.assert_allclose(found((1, 0, 0)), [1, 0, 0, 0, 0, 0], atol=0.03)
    np.testing.assert_allclose(found((0, 1, 0)), [0, -1, 0, 0, 0, 0], atol=0.03)
    np.testing.assert_allclose(found((0, 0, 1)), [0, 0, -1, 0, 0, 0], atol=0.03)
    # Front up; right ear down (about y); nose to the left (about z): right-handed turns.
    for axis, sign in ((0, 1), (1, -1), (2, -1)):
        expected = np.zeros(3)
        expected[axis] = sign * degree
        R = turn(axis, degree)
        np.testing.assert_allclose(found(R=R)[3:], expected, atol=6e-4)
    assert (turn(0, degree) @ [0, 1, 0])[2] > 0
    assert (turn(1, degree) @ [1, 0, 0])[2] < 0
    assert (turn(2, degree) @ [0, 1, 0])[0] < 0


def test_motionless_volumes_stay_as_they_are(rng):
    affine = GRIDS["oblique"]
    reference = volume_of(affine, rng=rng)
    np.testing.assert_allclose(motion.estimate(reference, reference, affine), 0, atol=1e-5)
    same = motion.resample(reference, np.zeros(6), reference, affine)
    assert same.dtype == np.float32
    np.testing.assert_allclose(same, reference, atol=0.01)
    other = volume_of(affine, rng=rng)
    parameters = motion.estimate(other, reference, affine)
    assert np.abs(parameters[:3]).max() < 0.02
    assert np.abs(parameters[3:]).max() < 2e-3
    kept = motion.resample(other, parameters, reference, affine)
    assert np.sqrt(np.mean((kept - other)[2:-2, 2:-2, 2:-2] ** 2)) < 1.0  # of noise 8


def test_activity_does_not_pass_for_motion(rng):
    affine = affine_of(flip=True)
    reference = volume_of(affine, rng=rng)
    at_rest = motion.estimate(volume_of(affine, rng=rng), reference, affine)
    active = motion.estimate(volume_of(affine, rng=rng, active=0.04), reference, affine)
    assert np.abs(active - at_rest)[:3].max() < 0.05
    assert np.abs(active - at_rest)[3:].max() < 8e-4


def test_brightness_of_the_whole_volume_does_not_pass_for_motion(rng):
    affine = affine_of()
    reference, volume = volume_of(affine, rng=rng), volume_of(affine, (0.3, 0.5, 0), rng=rng)
    dark = motion.estimate(volume, reference, affine)
    np.testing.assert_allclose(motion.estimate(1.5 * volume, reference, affine), dark, atol=1e-4)


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_resampling_is_that_of_scipy_with_cubic_splines(rng, affine):
    reference, volume = volume_of(affine, rng=rng), volume_of(affine, (3, 1, -4), rng=rng)
    parameters = np.array([-2.1, 0.7, 3.3, 0.02, -0.03, 0.01])
    moved = motion.resample(volume, parameters, reference, affine)
    index = np.linalg.inv(affine) @ to_world(parameters, reference, affine) @ affine
    expected = ndimage.affine_transform(volume, index, order=3, mode="mirror")
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(moved[inner], expected[inner], atol=0.05)
    seen = motion.in_view(parameters, reference, affine)
    assert not seen.all()
    np.testing.assert_array_equal(moved != 0, seen)


def test_a_run_is_closer_to_its_reference_after_realignment(rng):
    affine = GRIDS["oblique, x to the left"]
    path = np.cumsum(rng.normal(0, 0.3, (7, 3)), axis=0)
    run = [volume_of(affine, shift, turn(1, 0.01 * k), rng) for k, shift in enumerate(path)]
    run[5] = np.zeros(SHAPE)
    reference = motion.motion_reference(run, affine)
    parameters, moved = zip(*motion.realign(iter(run), reference, affine, threads=2), strict=True)
    inner = (slice(4, -4),) * 3
    for k in (0, 1, 2, 3, 4, 6):
        before, after = (np.std((v - reference)[inner]) for v in (run[k], moved[k]))
        assert after < 10  # noise 8, and what is left of it in the reference
        assert after < before
        found = to_world(parameters[k], reference, affine)
        first = to_world(parameters[0], reference, affine)
        R = turn(1, 0.01 * k)
        assert off(found @ np.linalg.inv(first), path[k] - R @ path[0], R) < 0.05
    np.testing.assert_array_equal(parameters[5], parameters[4])  # an empty volume tells nothing


def test_a_jump_of_a_centimetre_is_followed(rng):
    affine = affine_of()
    reference, R = volume_of(affine, rng=rng), turn(0, 0.1) @ turn(2, -0.1)
    moved = volume_of(affine, (6, -7, 5), R, rng)
    found = to_world(motion.estimate(moved, reference, affine), reference, affine)
    assert off(found, (6, -7, 5), R) < 0.3  # some of the head is out of view


def test_equal_volumes_give_equal_bits_with_any_number_of_threads(rng):
    affine = affine_of()
    reference = volume_of(affine, rng=rng)
    run = [volume_of(affine, (0, 0.2 * k, 0), rng=rng) for k in range(3)]
    once, again, single = (
        list(motion.realign(run, reference, affine, threads=threads)) for threads in (2, 2, 1)
    )
    for other in (again, single):
        for (parameters, moved), (parameters_2, moved_2) in zip(once, other, strict=True):
            assert parameters.tobytes() == parameters_2.tobytes()
            assert moved.tobytes() == moved_2.tobytes()


def test_a_mask_keeps_what_moves_by_itself_out(rng):
    affine = affine_of()
    reference, volume = volume_of(affine, rng=rng), volume_of(affine, rng=rng)
    for image, place in ((reference, 33), (volume, 35)):
        image[12:28, place : place + 6, 2:6] = 3000  # something bright before the face
    mask = np.zeros(SHAPE, bool)
    mask[6:34, 5:30, 5:24] = True
    with_mask = motion.estimate(volume, reference, affine, mask=mask)
    assert np.abs(with_mask[:3]).max() < 0.1
    assert np.abs(motion.estimate(volume, reference, affine)[:3]).max() > 1


def test_nan_and_infinity_count_as_zero(rng):
    affine = affine_of()
    reference, volume = volume_of(affine, rng=rng), volume_of(affine, (0.5, 0, 0), rng=rng)
    outside = head(affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + affine[:3, 3:]) < 1
    outside = outside.reshape(SHAPE)
    zeros = [np.where(outside, 0, image) for image in (volume, reference)]
    spoilt = [np.where(outside, value, image) for value, image in ((np.inf, volume),
                                                                  (np.nan, reference))]  # fmt: skip
    parameters = motion.estimate(*zeros, affine)
    np.testing.assert_array_equal(motion.estimate(*spoilt, affine), parameters)
    assert np.isfinite(motion.resample(spoilt[0], parameters, spoilt[1], affine)).all()


def test_thin_and_unfit_data_are_refused():
    assert motion.is_thin((64, 64, 7))
    assert motion.is_thin((64, 1, 64, 300))
    assert not motion.is_thin((8, 8, 8, 1))
    rng, affine = np.random.default_rng(0), np.eye(4)
    thin = rng.random((20, 20, 5))
    with pytest.raises(ValueError, match="at least 8 voxels"):
        motion.estimate(thin, thin, affine)
    flat = np.ones((10, 10, 10))
    with pytest.raises(ValueError, match="no contrast"):
        motion.estimate(flat, flat, affine)
    image = volume_of(affine_of())
    with pytest.raises(ValueError, match="for a reference of"):
        motion.estimate(image[1:], image, affine)
    with pytest.raises(ValueError, match="or empty"):
        motion.estimate(image, image, affine, mask=np.zeros(SHAPE, bool))
    with pytest.raises(ValueError, match="at least one volume"):
        motion.motion_reference([], affine)
    with pytest.raises(ValueError, match="six parameters"):
        motion.framewise_displacement(np.zeros((4, 3)))


def test_reference_volumes_are_evenly_spaced():
    np.testing.assert_array_equal(motion.evenly_spaced(3), [0, 1, 2])
    chosen = motion.evenly_spaced(525)
    assert len(chosen) == 20
    assert (chosen[0], chosen[-1]) == (0, 524)
    assert np.ptp(np.diff(chosen)) <= 1


def test_framewise_displacement_is_the_sum_of_six_changes():
    parameters = np.array(
        [[0, 0, 0, 0, 0, 0], [0.1, -0.2, 0, 0, 0.001, 0], [0.1, 0.1, 0.3, -0.002, 0.001, 0.01]]
    )
    found = motion.framewise_displacement(parameters)
    np.testing.assert_allclose(found, [np.nan, 0.1 + 0.2 + 0.05, 0.3 + 0.3 + 0.1 + 0.5])
    found = motion.framewise_displacement(parameters, radius=80)
    np.testing.assert_allclose(found[1], 0.38)
    np.testing.assert_array_equal(motion.framewise_displacement(parameters[:1]), [np.nan])


def test_dvars_is_the_root_mean_square_change_in_thousandths():
    bold = np.array([[98.0, 200, 5], [102, 204, 5], [100, 196, 5]])
    means = np.array([100.0, 200])  # the third voxel is constant
    change = np.sqrt([(16 + 16) / 2, (4 + 64) / 2]) * 1000 / np.median(means)
    found, _ = motion.dvars(bold)
    np.testing.assert_allclose(found, [np.nan, *change])
    spoilt = np.column_stack([bold, [np.nan, 1, 2]])
    np.testing.assert_array_equal(motion.dvars(spoilt)[0], found)
    assert np.isnan(motion.dvars(np.full((4, 3), 7.0))).all()
    assert np.isnan(motion.dvars(bold[:1])).all()


def test_standardised_dvars_are_one_in_noise_and_stand_out_where_it_jumps(rng):
    noise = rng.standard_normal((150, 6000))
    for t in range(1, len(noise)):
        noise[t] += 0.4 * noise[t - 1]
    bold = (1000 + 15 * noise).astype(np.float32)
    bold[70] += 30
    raw, standard = motion.dvars(bold)
    np.testing.assert_allclose(np.median(standard[1:]), 1, atol=0.02)
    assert set(np.argsort(standard[1:])[-2:]) == {69, 70}
    expected = []
    for series in bold.T.astype(float):
        low, high = np.quantile(series, [0.25, 0.75])
        lagged = np.correlate(series - series.mean(), series - series.mean(), "full")
        lag_1 = lagged[len(series)] / lagged[len(series) - 1]
        expected.append((high - low) / 1.349 * np.sqrt(2 - 2 * lag_1))
    change = np.sqrt(np.mean(np.diff(bold.astype(float), axis=0) ** 2, axis=1))
    np.testing.assert_allclose(standard[1:], change / np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(raw[1:], change, rtol=2e-3)


def runs(rng, lengths):
    parameters = [np.cumsum(rng.normal(0, 0.01, (n, 6)), axis=0) for n in lengths]
    displacement = [motion.framewise_displacement(run) for run in parameters]
    return parameters, displacement, [motion.dvars(rng.normal(9, 1, (n, 50)))[1] for n in lengths]


@pytest.mark.parametrize("lengths", [(40, 30, 35), (5,), (1, 1), (4,) * 40])
def test_traces_show_every_volume_and_break_between_runs(rng, lengths):
    parameters, displacement, dvars = runs(rng, lengths)
    labels = [f"task-images_run-{k:02d}" for k in range(len(lengths))]
    figure = figures.motion_traces(parameters, displacement, dvars, labels)
    line = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(line).sum() == len(lengths) - 1
    np.testing.assert_array_equal(line[~np.isnan(line)], np.concatenate(parameters)[:, 0])
    _, high = figure.axes[3].get_ylim()
    drawn = figure.axes[3].lines[0].get_ydata()
    assert not (drawn[np.isfinite(drawn)] > high).any()
    first, second = io.BytesIO(), io.BytesIO()
    figures.save(figure, first)
    figures.save(figures.motion_traces(parameters, displacement, dvars, labels), second)
    assert first.getvalue() == second.getvalue()
    with pytest.raises(ValueError, match="same runs"):
        figures.motion_traces(parameters, displacement[1:], dvars, labels)


def test_outline_is_drawn_where_the_mask_is():
    reference = volume_of(affine_of())
    mask = reference > 300
    figure = figures.reference_outline(reference, mask)
    assert all(len(axes.collections) == 1 for axes in figure.axes)
    figures.save(figure, io.BytesIO())
    empty = figures.reference_outline(reference, np.zeros(SHAPE, bool))
    assert not any(axes.collections for axes in empty.axes)
    with pytest.raises(ValueError, match="differ"):
        figures.reference_outline(reference, mask[1:])
