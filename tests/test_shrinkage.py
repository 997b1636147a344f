"""Shrunken betas: against least squares, dense best linear prediction, ridge and planted trials."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from hyper_bids.glm.betas import estimate_betas
from hyper_bids.glm.design import nuisance_design, polynomial_drift, trial_regressors
from hyper_bids.glm.evidence import (
    left_out_evidence,
    most_likely,
    ratios_to_gammas,
    run_model,
    shares,
)
from hyper_bids.glm.hrf import library
from hyper_bids.glm.noise import whitened
from hyper_bids.glm.shrinkage import estimate_shrunken

N_VOLUMES, N_TRIALS, N_VOXELS, T_R = 130, 20, 40, 1.5
NAMES = ("glover", "peak-3.9-dispersion-0.7", "peak-6.4-dispersion-1.15")
FUNCTIONS = [library()[name] for name in NAMES]


@pytest.fixture
def run(rng):
    """Return trials under three functions, nuisance, and a signal in percent, less 100."""
    onsets = 3 + 8 * np.arange(N_TRIALS) + rng.uniform(0, 1, N_TRIALS)
    durations = np.full(N_TRIALS, 1.5)
    trials = [trial_regressors(onsets, durations, N_VOLUMES, T_R, hrf) for hrf in FUNCTIONS]
    nuisance = nuisance_design(N_VOLUMES, 2, rng.standard_normal((N_VOLUMES, 3)))
    signal = trials[0] @ (1 + rng.standard_normal((N_TRIALS, N_VOXELS)))
    signal += nuisance @ rng.normal(0, 5, (nuisance.shape[1], N_VOXELS))
    signal += rng.standard_normal(signal.shape)
    return trials, nuisance, percent(signal)


def percent(signal):
    """As the app gives it: percent of the mean of the run, less 100."""
    signal = 100 + signal - signal.mean(axis=0)
    return (100 * signal / signal.mean(axis=0) - 100).astype(np.float32)


def everywhere(value, n_voxels=N_VOXELS, kind=float):
    return np.full(n_voxels, value, kind)


def least_squares(series, trials, nuisance):
    """Return what ``lsa`` makes of percent signals."""
    return estimate_betas(series.astype(float) + 100, trials, nuisance)


def without(nuisance, columns):
    columns = columns.astype(float)
    return columns - nuisance @ np.linalg.lstsq(nuisance, columns, rcond=None)[0]


def best_prediction(series, trials, nuisance, gamma):
    """Mean response and betas by dense generalised least squares, b = m + u, in float64."""
    X, Y = without(nuisance, trials), without(nuisance, series)
    x = X.sum(axis=1)
    V = np.eye(len(X)) + gamma * X @ X.T
    mean = x @ np.linalg.solve(V, Y) / (x @ np.linalg.solve(V, x))
    return mean, mean + gamma * X.T @ np.linalg.solve(V, Y - np.outer(x, mean))


def test_without_shrinkage_betas_are_least_squares(run):
    trials, nuisance, series = run
    for index in range(3):
        own = estimate_shrunken(
            series,
            run_model(trials, nuisance),
            everywhere(index, kind=int),
            everywhere(np.inf),
        )
        expected = least_squares(series, trials[index], nuisance)
        scale = expected.betas.std()
        np.testing.assert_allclose(own.betas, expected.betas, rtol=1e-4, atol=1e-4 * scale)
        np.testing.assert_allclose(own.residual_sd, expected.residual_sd, rtol=1e-3)
        np.testing.assert_allclose(own.r_square, expected.r_square, atol=1e-4)
        error = expected.residual_sd * np.sqrt(expected.variance_factors[0])[:, None]
        np.testing.assert_allclose(own.t, expected.betas / error, rtol=1e-3, atol=1e-3)
        assert own.dof == expected.dof
        assert own.betas.dtype == own.t.dtype == own.residual_sd.dtype == np.float32


def test_whitened_betas_are_generalised_least_squares(run):
    trials, nuisance, series = run
    rho = 0.4
    model = run_model(trials[:1], nuisance, rho)
    own = estimate_shrunken(
        whitened(series, rho), model, everywhere(0, kind=int), everywhere(np.inf)
    )
    whole = whitened(np.hstack([trials[0], nuisance]), rho)
    expected = np.linalg.lstsq(whole, whitened(series.astype(float), rho), rcond=None)[0]
    np.testing.assert_allclose(own.betas, expected[:N_TRIALS], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gamma", [1e-3, 0.05, 1.0, 30.0])
def test_shrunken_betas_are_the_best_linear_unbiased_prediction(run, gamma):
    trials, nuisance, series = run
    own = estimate_shrunken(
        series, run_model(trials, nuisance), everywhere(2, kind=int), everywhere(gamma)
    )
    mean, expected = best_prediction(series, trials[2], nuisance, gamma)
    np.testing.assert_allclose(own.betas, expected, rtol=1e-3, atol=1e-4 * expected.std())
    # The response that trials share is that of generalised least squares, whatever is shrunken.
    np.testing.assert_allclose(own.betas.mean(axis=0), mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [0.05, 1.0])
def test_shrinkage_is_ridge_towards_the_mean_response(run, gamma):
    trials, nuisance, series = run
    own = estimate_shrunken(
        series, run_model(trials[:1], nuisance), everywhere(0, kind=int), everywhere(gamma)
    )
    X, Y = without(nuisance, trials[0]), without(nuisance, series)
    mean, _ = best_prediction(series, trials[0], nuisance, gamma)
    ridge = Ridge(alpha=1 / gamma, fit_intercept=False).fit(X, Y - X.sum(axis=1)[:, None] * mean)
    np.testing.assert_allclose(own.betas, mean + ridge.coef_.T, rtol=1e-3, atol=1e-4)


def test_all_shrinkage_leaves_the_mean_response_for_every_trial(run):
    trials, nuisance, series = run
    model = run_model(trials[:1], nuisance)
    own = estimate_shrunken(series, model, everywhere(0, kind=int), everywhere(1e-9))
    x, Y = without(nuisance, trials[0]).sum(axis=1), without(nuisance, series)
    np.testing.assert_allclose(own.betas, np.tile(x @ Y / (x @ x), (N_TRIALS, 1)), atol=1e-4)
    assert own.lengths[0].max() < 1e-6 * own.lengths[1].min()


def test_little_shrinkage_tends_to_least_squares(run):
    trials, nuisance, series = run
    model = run_model(trials[:1], nuisance)
    free, nearly = (
        estimate_shrunken(series, model, everywhere(0, kind=int), everywhere(gamma))
        for gamma in (np.inf, 1e6)
    )
    np.testing.assert_allclose(nearly.betas, free.betas, rtol=1e-3, atol=1e-3)


def test_shrinkage_leaves_t_noise_and_r_square_and_shortens_deviations(run):
    trials, nuisance, series = run
    model = run_model(trials[:1], nuisance)
    results = [
        estimate_shrunken(series, model, everywhere(0, kind=int), everywhere(gamma))
        for gamma in (np.inf, 1.0, 0.1, 0.01)
    ]
    for own in results:
        np.testing.assert_array_equal(own.t, results[0].t)
        np.testing.assert_array_equal(own.residual_sd, results[0].residual_sd)
        np.testing.assert_array_equal(own.r_square, results[0].r_square)
        deviation = own.betas - own.betas.mean(axis=0)
        np.testing.assert_allclose(own.lengths[0], (deviation**2).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(own.lengths[1], results[0].lengths[0], rtol=1e-4)
    for more, less in zip(results[1:], results, strict=False):
        assert (more.lengths[0] < less.lengths[0]).all()


def test_mixed_functions_and_shrinkages_are_those_of_separate_calls(run, rng):
    trials, nuisance, series = run
    model = run_model(trials, nuisance)
    functions = rng.integers(0, 3, N_VOXELS)
    gammas = rng.choice([np.inf, 0.02, 0.5], N_VOXELS)
    own = estimate_shrunken(series, model, functions, gammas)
    for voxel in range(N_VOXELS):
        alone = estimate_shrunken(series[:, [voxel]], model, functions[[voxel]], gammas[[voxel]])
        for name in ("betas", "t", "residual_sd", "r_square", "lengths"):
            part = getattr(own, name)[..., [voxel]]
            np.testing.assert_allclose(part, getattr(alone, name), rtol=1e-4, atol=1e-4)
        assert alone.dof == own.dof


def test_betas_do_not_depend_on_the_mean_or_on_nuisance_in_the_signal(run, rng):
    trials, nuisance, series = run
    model = run_model(trials[:1], nuisance)
    where = everywhere(0, kind=int), np.tile([np.inf, 0.1], N_VOXELS // 2)
    before = estimate_shrunken(series, model, *where)
    with_mean = estimate_shrunken(series + np.float32(100), model, *where)
    added = nuisance @ rng.normal(0, 20, (nuisance.shape[1], N_VOXELS))
    drifting = estimate_shrunken(series + added.astype(np.float32), model, *where)
    # Single precision costs the sums of squares most, where a mean of 100 times the noise is left.
    for after, tolerance in ((with_mean, 0.02), (drifting, 2e-3)):
        np.testing.assert_allclose(after.betas, before.betas, atol=1e-3)
        np.testing.assert_allclose(after.residual_sd, before.residual_sd, rtol=tolerance)
        np.testing.assert_allclose(after.r_square, before.r_square, atol=tolerance)


def test_dead_voxels_are_zero_and_leave_the_others_alone(run):
    trials, nuisance, series = run
    model = run_model(trials, nuisance)
    functions, gammas = np.arange(N_VOXELS) % 3, np.tile([np.inf, 0.1], N_VOXELS // 2)
    before = estimate_shrunken(series, model, functions, gammas)
    broken = series.copy()
    dead = [0, 1, 5, 8]
    broken[:, dead] = 0
    own = estimate_shrunken(broken, model, functions, gammas)
    for name in ("betas", "t", "r_square", "lengths"):
        values = getattr(own, name)
        assert np.isfinite(values).all()
        assert not values[..., dead].any()
    assert (own.residual_sd[dead] < 1e-6).all()
    alive = np.delete(np.arange(N_VOXELS), dead)
    np.testing.assert_allclose(own.betas[:, alive], before.betas[:, alive], rtol=1e-5, atol=1e-5)


def correlation(a, b):
    """Mean over voxels of the correlation over trials."""
    a, b = (x - x.mean(axis=0) for x in (a, b))
    return ((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))).mean()


def dense_run(rng, n_voxels, trial_sd, index=0):
    """Plant betas of a trial every 4.5 s in white noise of sd 1."""
    n_volumes, n_trials = 200, 62
    onsets = 3 + 4.5 * np.arange(n_trials)
    trials = [
        trial_regressors(onsets, np.full(n_trials, 1.5), n_volumes, T_R, hrf) for hrf in FUNCTIONS
    ]
    nuisance = polynomial_drift(n_volumes, 2)
    truth = 1 + trial_sd * rng.standard_normal((n_trials, n_voxels))
    signal = trials[index] @ truth + nuisance @ rng.normal(0, 10, (3, n_voxels))
    return trials, nuisance, percent(signal + rng.standard_normal(signal.shape)), truth


@pytest.mark.parametrize(("trial_sd", "gain"), [(0.5, 0.04), (1.5, 0.015)])
def test_shrunken_betas_are_nearer_to_the_planted_ones_in_dense_designs(rng, trial_sd, gain):
    trials, nuisance, series, truth = dense_run(rng, 200, trial_sd)
    free, shrunken = (
        estimate_shrunken(
            series, run_model(trials[:1], nuisance), everywhere(0, 200, int), everywhere(gamma, 200)
        )
        for gamma in (np.inf, trial_sd**2)
    )
    lsa = least_squares(series, trials[0], nuisance).betas
    assert correlation(free.betas, truth) == pytest.approx(correlation(lsa, truth), abs=1e-3)
    assert correlation(shrunken.betas, truth) > correlation(lsa, truth) + gain
    error = [np.sqrt(((b - truth) ** 2).mean()) for b in (shrunken.betas, lsa)]
    assert error[0] < 0.8 * error[1]
    # The best linear prediction varies as much as it goes with the truth.
    deviation = shrunken.betas - shrunken.betas.mean(axis=0)
    slope = (deviation * (truth - truth.mean(axis=0))).sum() / (deviation**2).sum()
    assert slope == pytest.approx(1, abs=0.1)


def test_function_and_shrinkage_of_left_out_runs_make_betas_better(rng):
    """All as the app does it, with voxels that respond late and no repeated stimulus."""
    runs = [dense_run(rng, 150, 1.0, index=2) for _ in range(4)]
    models = [run_model(trials, nuisance) for trials, nuisance, _, _ in runs]
    gammas = ratios_to_gammas(models)
    found, null = left_out_evidence([series for _, _, series, _ in runs], models, gammas)
    functions, places = most_likely(found, shares(found, null))
    assert (functions == 2).mean() > 0.9
    trials, nuisance, series, truth = runs[0]
    own = estimate_shrunken(series, models[0], functions, gammas[places])
    lsa = least_squares(series, trials[0], nuisance).betas
    assert correlation(own.betas, truth) > correlation(lsa, truth) + 0.1
