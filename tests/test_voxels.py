"""Voxels: z values against scipy, and that no test trial leaks into what is fitted."""

import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import StandardScaler

from hyper_bids.voxels import (
    MIN_TRIALS,
    average_repeats,
    select,
    standardise,
    t_to_z,
)


@pytest.mark.parametrize("dof", [2, 30, 173, 1000])
def test_z_has_the_tail_probability_of_t(dof):
    t = np.concatenate([np.linspace(-30, 30, 61), [1e-4]])
    z = t_to_z(t, dof)
    expected = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), dof))
    np.testing.assert_allclose(z, expected, rtol=1e-8)
    np.testing.assert_allclose(stats.norm.logsf(z[t > 0]), stats.t.logsf(t[t > 0], dof), rtol=1e-10)


@pytest.mark.parametrize("dof", [2, 60, 500, 1500, 20_000, 100_000])
def test_z_is_finite_odd_and_increasing_to_t_of_50(dof):
    half = np.linspace(0, 50, 1001)
    t = np.concatenate([-half[:0:-1], half])
    z = t_to_z(t, dof)
    assert np.isfinite(z).all()
    assert (np.diff(z) > 0).all()
    np.testing.assert_array_equal(z, -z[::-1])
    assert (np.abs(z) <= np.abs(t)).all()


def test_z_beyond_the_smallest_number_agrees_with_an_expansion():
    """Where P(T > t) has no floating-point number (Wallace 1959, Ann Math Stat 30:1124)."""
    for dof in (2000, 5000, 50_000):
        t = np.array([46.0, 50.0])
        assert (stats.t.sf(t, dof) < 1e-300).all()
        wallace = (8 * dof + 1) / (8 * dof + 3) * np.sqrt(dof * np.log1p(t**2 / dof))
        np.testing.assert_allclose(t_to_z(t, dof), wallace, rtol=1e-5)


def test_z_is_standard_normal_under_the_null(rng):
    z = t_to_z(rng.standard_t(12, 20_000), 12)
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_z_of_zero_infinity_and_scalars():
    np.testing.assert_array_equal(t_to_z(np.array([0, np.inf, -np.inf]), 9), [0, np.inf, -np.inf])
    assert np.isnan(t_to_z(np.array([np.nan]), 9)).all()
    assert np.isfinite(t_to_z(50.0, 2000))


def test_selected_are_the_highest_scores(rng):
    score = rng.standard_normal(500)
    chosen = select(score, 40)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    assert score[chosen].min() > np.delete(score, chosen).max()


def test_ties_go_to_the_lower_index_and_non_finite_scores_never_win():
    score = np.array([np.inf, 1, 2, np.nan, 1, 2, 1, -np.inf])
    np.testing.assert_array_equal(select(score, 3), [1, 2, 5])
    np.testing.assert_array_equal(select(score, 4), [1, 2, 4, 5])
    np.testing.assert_array_equal(select(score, 99), [1, 2, 4, 5, 6])
    np.testing.assert_array_equal(select(np.arange(999) % 3 == 0, 7), np.arange(0, 21, 3))
    with pytest.raises(ValueError, match="0 voxels"):
        select(score, 0)


N_RUNS, PER_RUN, N_VOXELS = 4, 20, 15


@pytest.fixture
def trials(rng):
    """Return betas whose runs differ in level and scale, runs, and training flags.

    Runs 0 and 1 are training, 2 is mixed, 3 is test only.
    """
    run = np.repeat(np.arange(N_RUNS), PER_RUN)
    is_train = (run < 2) | ((run == 2) & (np.arange(run.size) % 2 == 0))
    betas = rng.standard_normal((run.size, N_VOXELS)) * (1 + run[:, None]) + 10 * run[:, None]
    return betas.astype(np.float32), run, is_train


def test_standardising_by_training_trials_equals_a_fitted_scaler(trials):
    betas, run, is_train = trials
    expected = StandardScaler().fit(betas[is_train].astype(float)).transform(betas)
    z = standardise(betas, run, is_train, "train")
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)


def test_standardising_by_run_equals_a_scaler_a_run(trials):
    betas, run, is_train = trials
    z = standardise(betas, run, is_train, "run")
    for label in range(N_RUNS):
        rows = run == label
        fitted = rows & is_train if label < 3 else rows
        expected = StandardScaler().fit(betas[fitted].astype(float)).transform(betas[rows])
        np.testing.assert_allclose(z[rows], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["run", "train", "none"])
def test_training_trials_do_not_change_by_a_bit_with_test_trials(trials, rng, how):
    betas, run, is_train = trials
    before = standardise(betas, run, is_train, how)
    changed = betas.copy()
    changed[~is_train] = 1e4 * rng.standard_normal((int((~is_train).sum()), N_VOXELS))
    after = standardise(changed, run, is_train, how)
    np.testing.assert_array_equal(after[is_train], before[is_train])
    keep = is_train.copy()
    keep[-3:] = True
    fewer = standardise(betas[keep], run[keep], is_train[keep], how)
    np.testing.assert_array_equal(fewer[:-3], before[is_train])


@pytest.mark.parametrize("label", [2, 3])
def test_runs_of_few_trials_use_the_general_training_statistics(trials, label):
    """Seven training trials of a mixed run, or seven trials of a test-only run, are too few."""
    betas, run, is_train = trials
    own = (run == label) & (is_train if label == 2 else True)
    for n, general in ((MIN_TRIALS - 1, True), (MIN_TRIALS, False)):
        keep = np.ones(run.size, bool)
        keep[np.flatnonzero(own)[n:]] = False
        part = betas[keep], run[keep], is_train[keep]
        by_run, by_train = standardise(*part, "run"), standardise(*part, "train")
        rows = part[1] == label
        assert np.array_equal(by_run[rows], by_train[rows]) == general


def test_mixed_run_is_not_standardised_by_its_test_trials(trials):
    """A run with a few training and many test trials must not fall back on the latter."""
    betas, run, is_train = trials
    few = is_train & ((run != 2) | (np.cumsum(is_train & (run == 2)) <= 3))
    z = standardise(betas, run, few, "run")
    np.testing.assert_array_equal(z[run == 2], standardise(betas, run, few, "train")[run == 2])


def test_voxel_that_never_varies_becomes_zero(trials):
    betas, run, is_train = trials
    betas[:, 4] = np.float32(0.1)
    for how in ("run", "train"):
        z = standardise(betas, run, is_train, how)
        assert not z[:, 4].any()
        assert np.isfinite(z).all()


def test_standardise_refuses_what_it_cannot_do(trials):
    betas, run, is_train = trials
    with pytest.raises(ValueError, match=r"'session'.*'run', 'train' and 'none'"):
        standardise(betas, run, is_train, "session")
    with pytest.raises(ValueError, match="no training trial"):
        standardise(betas, run, np.zeros(run.size, bool), "train")
    with pytest.raises(ValueError, match="80 trials, 79 runs"):
        standardise(betas, run[1:], is_train, "run")
    np.testing.assert_array_equal(standardise(betas, run, is_train, "none"), betas)


def test_repeats_are_averaged_in_order_of_first_appearance(rng):
    betas = rng.standard_normal((7, 3)).astype(np.float32)
    stimulus = ["b", "a", "b", "c", "a", "b", "d"]
    means, stimuli, counts = average_repeats(betas, np.array(stimulus, object))
    assert stimuli == ["b", "a", "c", "d"]
    np.testing.assert_array_equal(counts, [3, 2, 1, 1])
    np.testing.assert_allclose(means[0], betas[[0, 2, 5]].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(means[2], betas[3])
    assert means.dtype == np.float32
    again, _, _ = average_repeats(betas, [(s, 1) for s in stimulus])
    np.testing.assert_array_equal(again, means)
    with pytest.raises(ValueError, match="7 trials with 6"):
        average_repeats(betas, stimulus[1:])
