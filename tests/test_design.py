"""Regressors: against nilearn, and against what their definitions promise."""

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor

from hyper_bids.glm.design import (
    event_regressors,
    nuisance_design,
    polynomial_drift,
    trial_regressors,
)
from hyper_bids.glm.hrf import HRFS

T_R, N_VOLUMES = 1.5, 80


def frame_times(slice_time_ref=0.5):
    return (np.arange(N_VOLUMES) + slice_time_ref) * T_R


def nilearn_regressor(onsets, durations, hrf, times):
    condition = np.array([onsets, durations, np.ones(len(onsets))])
    # A fine grid: nilearn rounds onsets to it and delays its HRF by one step of it.
    return compute_regressor(condition, hrf, times, oversampling=500)[0][:, 0]


@pytest.mark.parametrize("hrf", ["glover", "spm"])
@pytest.mark.parametrize("slice_time_ref", [0.0, 0.5])
@pytest.mark.parametrize("duration", [0.0, 1.5, 7.3, 40.0])
def test_trial_regressor_is_proportional_to_nilearn(hrf, slice_time_ref, duration):
    onsets = np.array([-3.0, 0.0, 10.123, 61.7])
    own = trial_regressors(
        onsets, np.full(4, duration), N_VOLUMES, T_R, hrf, slice_time_ref=slice_time_ref
    )
    for column, onset in zip(own.T, onsets, strict=True):
        theirs = nilearn_regressor([onset], [duration], hrf, frame_times(slice_time_ref))
        assert np.corrcoef(column, theirs)[0, 1] > 0.9999
        scale = (column @ theirs) / (theirs @ theirs)
        np.testing.assert_allclose(column, theirs * scale, atol=5e-3)


@pytest.mark.parametrize("duration", [0.0, 0.004, 1.5, 20.0])
def test_response_peaks_at_one_whatever_the_duration(duration):
    fine = trial_regressors([5.0], [duration], 8000, 0.01, "glover", slice_time_ref=0)
    assert fine.max() == pytest.approx(1, abs=1e-5)
    assert not fine[:500].any()


def test_short_duration_tends_to_the_impulse():
    impulse = trial_regressors([3.21], [0.0], N_VOLUMES, T_R, "spm")
    short = trial_regressors([3.21], [0.02], N_VOLUMES, T_R, "spm")
    np.testing.assert_allclose(short, impulse, atol=5e-3)


def test_onsets_are_not_rounded_to_a_grid():
    """A delay of the onset by 3 ms is the response at a time 3 ms earlier."""
    times = frame_times()
    own = trial_regressors([10.003], [0.0], N_VOLUMES, T_R, "glover")[:, 0]
    np.testing.assert_allclose(own, HRFS["glover"](times - 10.003), atol=1e-4)


def test_callable_hrf_is_the_same_as_its_name():
    by_name = trial_regressors([4.0, 9.0], [1.0, 2.0], N_VOLUMES, T_R, "glover")
    called = trial_regressors(
        [4.0, 9.0], [1.0, 2.0], N_VOLUMES, T_R, lambda t: 7 * HRFS["glover"](t)
    )
    np.testing.assert_allclose(called, by_name, atol=1e-12)


def test_trial_that_starts_after_the_scan_has_no_regressor():
    assert not trial_regressors([N_VOLUMES * T_R], [1.0], N_VOLUMES, T_R, "glover").any()


@pytest.mark.parametrize(
    ("onsets", "durations", "options", "words"),
    [
        ([1.0, np.nan], [1.0, 1.0], {}, "event 1"),
        ([1.0], [-1.0], {}, "duration -1.0"),
        ([1.0, 2.0], [1.0], {}, r"\(2,\)"),
        ([1.0], [1.0], {"hrf": "boynton"}, "boynton.*glover, spm"),
        ([1.0], [1.0], {"hrf": lambda t: -t}, "rise above 0"),
        ([1.0], [1.0], {"t_r": 0.0}, "repetition time"),
        ([1.0], [1.0], {"slice_time_ref": 1.5}, "slice_time_ref"),
    ],
)
def test_impossible_events_are_refused(onsets, durations, options, words):
    values = {"n_volumes": N_VOLUMES, "t_r": T_R, "hrf": "glover", **options}
    with pytest.raises(ValueError, match=words):
        trial_regressors(onsets, durations, **values)


def test_event_regressor_of_a_kind_is_nilearns_condition(rng):
    onsets = np.sort(rng.uniform(0, 100, 9))
    durations = np.array([1.0, 2.0, 5.0] * 3)
    kinds = ["cue", "button", "cue"] * 3
    own, names = event_regressors(onsets, durations, kinds, N_VOLUMES, T_R, "glover")
    assert names == ["cue", "button"]
    for column, name in zip(own.T, names, strict=True):
        rows = [k for k, kind in enumerate(kinds) if kind == name]
        theirs = nilearn_regressor(onsets[rows], durations[rows], "glover", frame_times())
        assert np.corrcoef(column, theirs)[0, 1] > 0.9999
        assert np.abs(column).max() == pytest.approx(1)


def test_event_regressor_of_impulses_is_the_sum_of_their_trials():
    onsets, durations = np.array([2.0, 20.0, 41.5]), np.zeros(3)
    trials = trial_regressors(onsets, durations, N_VOLUMES, T_R, "spm").sum(axis=1)
    events, _ = event_regressors(onsets, durations, [1, 1, 1], N_VOLUMES, T_R, "spm")
    np.testing.assert_allclose(events[:, 0], trials / trials.max(), atol=1e-12)


def test_kind_without_response_is_zero_and_not_a_division_by_zero():
    events, names = event_regressors([500.0], [1.0], ["late"], N_VOLUMES, T_R, "spm")
    assert names == ["late"]
    assert not events.any()


def test_no_events_give_no_column():
    events, names = event_regressors([], [], [], N_VOLUMES, T_R, "spm")
    assert events.shape == (N_VOLUMES, 0)
    assert names == []


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_drift_is_an_orthonormal_basis_of_polynomials(order):
    drift = polynomial_drift(50, order)
    np.testing.assert_allclose(drift.T @ drift, np.eye(order + 1), atol=1e-12)
    np.testing.assert_allclose(drift[:, 0], 50**-0.5)
    t = np.arange(50.0)
    for power in range(order + 1):
        curve = t**power
        np.testing.assert_allclose(drift @ (drift.T @ curve), curve, rtol=1e-8, atol=1e-6)


def test_drift_of_too_high_order_is_refused():
    with pytest.raises(ValueError, match="order 5 in 5 volumes"):
        polynomial_drift(5, 5)


def test_nuisance_design_is_drift_then_standardised_confounds_then_events(rng):
    confounds = rng.standard_normal((N_VOLUMES, 3)) * [1e-4, 1, 500] + [0, 7, 1e5]
    confounds = np.insert(confounds, 1, 3.3, axis=1)
    events = np.column_stack([np.zeros(N_VOLUMES), rng.random(N_VOLUMES)])
    design = nuisance_design(N_VOLUMES, 2, confounds, events)
    assert design.shape == (N_VOLUMES, 3 + 3 + 1)
    np.testing.assert_array_equal(design[:, :3], polynomial_drift(N_VOLUMES, 2))
    np.testing.assert_allclose(design[:, 3:6].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(design[:, 3:6].std(axis=0), 1)
    np.testing.assert_array_equal(design[:, 6], events[:, 1])


def test_nuisance_design_refuses_what_would_spread_nan():
    broken = np.zeros((N_VOLUMES, 3))
    broken[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"confounds .* columns \[2\]"):
        nuisance_design(N_VOLUMES, 1, broken)
    with pytest.raises(ValueError, match=rf"\(79, 3\) for {N_VOLUMES} volumes"):
        nuisance_design(N_VOLUMES, 1, np.zeros((79, 3)))
