"""The canonical responses are nilearn's, with a peak of 1; the library is what its names say."""

import numpy as np
import pytest
from nilearn.glm.first_level import glover_hrf, spm_hrf

from hyper_bids.glm.hrf import HRF_LENGTH, HRFS, glover, library, spm

STEP = 0.02


@pytest.mark.parametrize(("own", "reference"), [(glover, glover_hrf), (spm, spm_hrf)])
def test_response_is_proportional_to_nilearn(own, reference):
    theirs = reference(t_r=1.0, oversampling=round(1 / STEP), time_length=HRF_LENGTH)
    # nilearn samples its grid of 1600 points from 0 to 32 s, delayed by one step.
    mine = own(np.linspace(0, HRF_LENGTH, len(theirs)) - STEP)
    np.testing.assert_allclose(mine / mine.sum(), theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("hrf", HRFS.values(), ids=HRFS)
def test_peak_is_one_and_nothing_comes_before_the_impulse(hrf):
    t = np.linspace(0, HRF_LENGTH, 1_000_001)
    assert hrf(t).max() == pytest.approx(1, abs=1e-6)
    assert not hrf(np.array([-100.0, -1.0, -1e-9, 0.0])).any()
    assert abs(hrf(np.array(HRF_LENGTH))) < 2e-3


@pytest.mark.parametrize("hrf", HRFS.values(), ids=HRFS)
def test_shape_of_the_times_is_kept(hrf):
    t = np.arange(6.0)
    np.testing.assert_array_equal(hrf(t.reshape(2, 3)).ravel(), hrf(t))
    np.testing.assert_array_equal(hrf(list(range(6))), hrf(t))


def test_library_is_glovers_and_a_grid_around_it():
    functions = library()
    assert len(functions) == 22
    assert next(iter(functions)) == "glover"
    t = np.arange(0, HRF_LENGTH, 0.01)
    np.testing.assert_array_equal(functions["glover"](t), glover(t))
    # Glover's lies within the grid: some are near, and those on both sides are far.
    curves = np.array([f(t) for f in functions.values()])
    others = np.sqrt(((curves[1:] - curves[0]) ** 2).mean(axis=1))
    assert others.min() < 0.2 * others.max()


@pytest.mark.parametrize("name", list(library())[1:])
def test_response_of_the_library_peaks_at_one_when_its_name_says(name):
    t = np.arange(-5, HRF_LENGTH, 0.001)
    response = library()[name](t)
    assert response.max() == pytest.approx(1, abs=1e-6)
    assert t[response.argmax()] == pytest.approx(float(name.split("-")[1]), abs=0.1)
    assert not response[t <= 0].any()
    assert abs(response[-1]) < 2e-3
    # One lobe, and one undershoot.
    turns = np.flatnonzero(np.diff(np.sign(np.diff(response[t > 0.01]))))
    assert len(turns) == 2


def test_responses_of_the_library_differ_and_are_as_wide_as_their_names_say():
    t = np.arange(0, HRF_LENGTH, 0.01)
    functions = library()
    curves = np.array([f(t) for f in functions.values()])
    apart = np.sqrt(((curves[:, None] - curves) ** 2).mean(axis=2))
    assert apart[~np.eye(22, dtype=bool)].min() > 0.005
    for peak in {name.split("-")[1] for name in list(functions)[1:]}:
        own = [name for name in functions if name.startswith(f"peak-{peak}-")]
        assert len(own) == 3
        widths = [(functions[name](t) > 0.5).sum() for name in own]
        assert widths == sorted(set(widths))
