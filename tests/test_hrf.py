"""The canonical responses are nilearn's, with a peak of 1."""

import numpy as np
import pytest
from nilearn.glm.first_level import glover_hrf, spm_hrf

from hyper_bids.glm.hrf import HRF_LENGTH, HRFS, glover, spm

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
