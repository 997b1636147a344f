"""Evidence of left-out runs: against dense normal densities, and planted responses."""

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

from hyper_bids.glm.design import polynomial_drift, trial_regressors
from hyper_bids.glm.evidence import (
    SIGNAL_RATIOS,
    left_out_evidence,
    most_likely,
    orthonormal,
    ratios_to_gammas,
    remaining_power,
    run_model,
    shares,
)
from hyper_bids.glm.hrf import library
from hyper_bids.glm.noise import whitened

T_R, SOA = 1.5, 4.5
PEAKS = ("peak-3.9-dispersion-0.9", "peak-5.4-dispersion-0.9", "peak-6.9-dispersion-0.9")
FUNCTIONS = [library()[name] for name in PEAKS]


def regressors(rng, n_volumes, n_trials, soa=SOA, functions=FUNCTIONS):
    onsets = 3 + soa * np.arange(n_trials) + rng.uniform(0, 0.5, n_trials)
    durations = np.full(n_trials, 1.5)
    return [trial_regressors(onsets, durations, n_volumes, T_R, hrf) for hrf in functions]


@pytest.fixture
def tiny(rng):
    """Return two runs of a few trials, whitened: trials, nuisance, models, signal."""
    rho = 0.3
    trials = [regressors(rng, 30, 5, 7.0), regressors(rng, 26, 4, 7.0)]
    nuisance = [polynomial_drift(30, 1), polynomial_drift(26, 1)]
    models = [run_model(X, N, rho) for X, N in zip(trials, nuisance, strict=True)]
    series = []
    for X, N in zip(trials, nuisance, strict=True):
        b = 0.8 + rng.standard_normal((X[1].shape[1], 6))
        signal = X[1] @ b + N @ rng.normal(0, 5, (2, 6)) + 0.5 * rng.standard_normal((len(N), 6))
        series.append(whitened(signal.astype(np.float32), rho))
    return trials, nuisance, rho, models, series


def profiled(signals, means, covariances):
    """Height m and variance of y ~ N(m x, s2 V) that make independent signals most likely."""
    inverses = [np.linalg.inv(V) for V in covariances]
    across = sum(x @ P @ y for x, P, y in zip(means, inverses, signals, strict=True))
    size = sum(x @ P @ x for x, P in zip(means, inverses, strict=True))
    m = across / size if size > 0 else 0.0
    left = [y - m * x for x, y in zip(means, signals, strict=True)]
    s2 = sum(e @ P @ e for e, P in zip(left, inverses, strict=True)) / sum(map(len, left))
    return m, s2


def brute_force(series, designs, nuisance, gamma, left_out=True):
    """Log density of each run given the others, of one voxel; constants in."""
    signals, means, covariances = [], [], []
    for y, X, N in zip(series, designs, nuisance, strict=True):
        free = null_space(N.T).T
        signals.append(free @ y)
        means.append(free @ X.sum(axis=1))
        covariances.append(np.eye(len(free)) + gamma * free @ X @ X.T @ free.T)
    total = 0.0
    for k in range(len(signals)):
        rest = [j for j in range(len(signals)) if j != k or not left_out]
        m, s2 = profiled(*([part[j] for j in rest] for part in (signals, means, covariances)))
        total += multivariate_normal(m * means[k], s2 * covariances[k]).logpdf(signals[k])
    return total


def free_dimensions(models):
    return sum(len(model.left[0]) - model.fixed.shape[1] for model in models)


@pytest.mark.parametrize("n_runs", [1, 2])
def test_evidence_is_the_density_of_each_run_given_the_others(tiny, n_runs):
    trials, nuisance, rho, models, series = (
        part if isinstance(part, float) else part[:n_runs] for part in tiny
    )
    gammas = np.array([0.01, 0.3, 5.0])
    evidence, null = left_out_evidence(series, models, gammas)
    assert evidence.shape == (3, 3, 6)
    assert null.shape == (6,)
    # All densities lack the same factor.
    constant = free_dimensions(models) * np.log(2 * np.pi) / 2
    white = [whitened(N, rho) for N in nuisance]
    for voxel in range(6):
        own = [part[:, voxel].astype(float) for part in series]
        nothing = [np.zeros((len(N), 1)) for N in nuisance]
        expected = brute_force(own, nothing, white, 0.0, n_runs > 1) + constant
        assert null[voxel] == pytest.approx(expected, abs=2e-3)
        for index in range(3):
            designs = [whitened(X[index], rho) for X in trials]
            for place, gamma in enumerate(gammas):
                expected = brute_force(own, designs, white, gamma, n_runs > 1) + constant
                assert evidence[index, place, voxel] == pytest.approx(expected, abs=2e-3)


def test_run_model_is_the_svd_of_whitened_trials_less_nuisance(tiny, rng):
    trials, nuisance, rho, models, _ = tiny
    for X, N, model in zip(trials, nuisance, models, strict=True):
        white = whitened(N, rho)
        assert model.n_trials == X[0].shape[1]
        for index in range(3):
            own = whitened(X[index], rho)
            own = own - white @ np.linalg.lstsq(white, own, rcond=None)[0]
            product = model.left[index] * model.sizes[index] @ model.right[index]
            np.testing.assert_allclose(product, own, atol=1e-6)
            np.testing.assert_allclose(
                model.loadings(index), model.left[index].T @ own.sum(axis=1), atol=1e-5
            )


def test_columns_of_zeros_or_repeated_ones_have_no_part_in_a_basis(rng):
    columns = rng.standard_normal((20, 3))
    more = np.hstack([columns, np.zeros((20, 1)), 5 * columns[:, :1], columns[:, 1:2]])
    basis = orthonormal(more)
    assert basis.shape == (20, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ columns), columns, atol=1e-12)


def test_remaining_power_is_the_sum_of_squares_less_nuisance(tiny, rng):
    _, nuisance, rho, models, series = tiny
    white = orthonormal(whitened(nuisance[0], rho))
    left = series[0] - white @ (white.T @ series[0])
    power = remaining_power(series[0], models[0])
    np.testing.assert_allclose(power, (left**2).sum(axis=0), rtol=1e-3)
    assert np.isfinite(remaining_power(0 * series[0], models[0])).all()


def test_grid_of_shrinkage_is_relative_to_the_mean_size_of_a_regressor(tiny):
    _, _, _, models, _ = tiny
    size = np.mean(np.concatenate([model.sizes[0] ** 2 for model in models]))
    np.testing.assert_allclose(ratios_to_gammas(models) * size, SIGNAL_RATIOS)


N_RUNS, N_VOLUMES, N_TRIALS = 4, 150, 45


def planted(rng, index, ratio, n_voxels, mean=1.0, noise=1.0):
    """Return runs in which all voxels respond by one function, trials varying by ``ratio``."""
    nuisance = polynomial_drift(N_VOLUMES, 2)
    trials = [regressors(rng, N_VOLUMES, N_TRIALS) for _ in range(N_RUNS)]
    models = [run_model(X, nuisance) for X in trials]
    gamma = ratio / np.mean(np.concatenate([model.sizes[0] ** 2 for model in models]))
    runs = []
    for X in trials:
        b = mean + np.sqrt(gamma) * noise * rng.standard_normal((N_TRIALS, n_voxels))
        signal = X[index] @ b + nuisance @ rng.normal(0, 20, (3, n_voxels))
        signal += noise * rng.standard_normal((N_VOLUMES, n_voxels))
        runs.append(signal.astype(np.float32))
    return runs, models, trials, nuisance


@pytest.mark.parametrize("index", [0, 1, 2])
def test_planted_response_function_is_found_where_signal_is_high(rng, index):
    runs, models, _, _ = planted(rng, index, 10.0, 60)
    evidence, null = left_out_evidence(runs, models, ratios_to_gammas(models))
    functions, _ = most_likely(evidence, shares(evidence, null))
    assert (functions == index).mean() > 0.95
    assert (evidence.max(axis=(0, 1)) > null).all()


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_planted_shrinkage_is_found_on_average(rng, ratio):
    runs, models, _, _ = planted(rng, 0, ratio, 300)
    gammas = ratios_to_gammas(models)
    evidence, null = left_out_evidence(runs, models, gammas)
    # Of all voxels together, and as the choices of single ones.
    together = SIGNAL_RATIOS[evidence[0].sum(axis=1).argmax()]
    step = SIGNAL_RATIOS[1] / SIGNAL_RATIOS[0]
    assert ratio / step < together < ratio * step
    _, places = most_likely(evidence, shares(evidence, null))
    typical = np.exp(np.log(SIGNAL_RATIOS[places]).mean())
    assert ratio / step < typical < ratio * step


def test_no_response_wins_where_there_is_none(rng):
    runs, models, _, _ = planted(rng, 0, 0.0, 300, mean=0.0)
    evidence, null = left_out_evidence(runs, models, ratios_to_gammas(models))
    # Over all voxels nothing is as likely as no response; for one, chance may find something.
    assert (evidence.sum(axis=2) < null.sum()).all()
    strong = evidence[:, SIGNAL_RATIOS > 0.5]
    assert (strong.max(axis=(0, 1)) < null).mean() > 0.95


def test_trials_apart_have_no_part_in_the_evidence(rng):
    """Whatever test trials of a mixed run bring to the signal, and with one function to the bit."""
    nuisance = polynomial_drift(N_VOLUMES, 2)
    runs, _, trials, _ = planted(rng, 1, 1.0, 40)
    test = np.arange(N_TRIALS) % 2 == 1
    for functions in ([0], [1], [2]):
        models = [
            run_model(
                [X[k][:, ~test] for k in functions], nuisance, 0.2,
                [X[k][:, test] for k in functions],
            )
            for X in trials
        ]  # fmt: skip
        changed = [
            run + X[k][:, test] @ rng.normal(0, 3, (test.sum(), 40))
            for run, X in zip(runs, trials, strict=True)
            for k in functions
        ]
        white, other = (
            [whitened(run.astype(np.float32), 0.2) for run in signals]
            for signals in (runs, changed)
        )
        gammas = ratios_to_gammas(models)
        before, after = (left_out_evidence(signals, models, gammas) for signals in (white, other))
        np.testing.assert_allclose(after[0], before[0], atol=0.02)
        np.testing.assert_allclose(after[1], before[1], atol=0.02)


def test_trials_apart_have_no_part_in_the_choice_of_a_function(rng):
    """As long as half of what nuisance and training trials leave has room for all of them."""
    nuisance = polynomial_drift(N_VOLUMES, 2)
    runs, _, trials, _ = planted(rng, 1, 1.0, 40)
    test = np.arange(N_TRIALS) % 4 == 1
    models = [
        run_model([x[:, ~test] for x in X], nuisance, 0.0, [x[:, test] for x in X]) for X in trials
    ]
    changed = [
        (run + X[2][:, test] @ rng.normal(0, 1, (test.sum(), 40))).astype(np.float32)
        for run, X in zip(runs, trials, strict=True)
    ]
    gammas = ratios_to_gammas(models)
    before, after = (left_out_evidence(signals, models, gammas)[0] for signals in (runs, changed))
    np.testing.assert_allclose(after, before, atol=0.05)


def test_evidence_does_not_prefer_by_a_voxels_unit_or_drift(rng):
    runs, models, _, nuisance = planted(rng, 1, 1.0, 50)
    gammas = ratios_to_gammas(models)
    before = left_out_evidence(runs, models, gammas)[0]
    scale = np.geomspace(1e-3, 1e3, 50).astype(np.float32)
    changed = [run + (nuisance @ rng.normal(0, 100, (3, 50))).astype(np.float32) for run in runs]
    for signals in ([run * scale for run in runs], changed):
        after = left_out_evidence(signals, models, gammas)[0]
        relative = [part - part[:1, :1] for part in (before, after)]
        np.testing.assert_allclose(relative[1], relative[0], atol=0.3)


def test_dead_voxels_have_finite_evidence_and_leave_the_others_alone(rng):
    runs, models, _, _ = planted(rng, 1, 1.0, 30)
    gammas = ratios_to_gammas(models)
    before, null = left_out_evidence(runs, models, gammas)
    for run in runs:
        run[:, 3] = 0
    runs[1][:, 7] = 0
    after, nothing = left_out_evidence(runs, models, gammas)
    assert np.isfinite(after).all()
    assert np.isfinite(nothing).all()
    share = shares(after, nothing)
    assert np.isfinite(share).all()
    alive = np.delete(np.arange(30), [3, 7])
    np.testing.assert_allclose(after[..., alive], before[..., alive], rtol=1e-6)
    np.testing.assert_allclose(nothing[alive], null[alive], rtol=1e-6)


def test_shares_are_a_distribution_that_finds_what_is_common(rng):
    """Voxels that respond and voxels that do not: shares are those of the former."""
    first, models, trials, nuisance = planted(rng, 2, 3.0, 120)
    silent = [
        (rng.standard_normal((N_VOLUMES, 200)) + nuisance @ rng.normal(0, 20, (3, 200))).astype(
            np.float32
        )
        for _ in trials
    ]
    runs = [np.hstack(pair) for pair in zip(first, silent, strict=True)]
    evidence, null = left_out_evidence(runs, models, ratios_to_gammas(models))
    share = shares(evidence, null)
    assert share.shape == evidence.shape[:2]
    assert share.sum() == pytest.approx(1)
    assert (share > 0).all()
    assert share[2].sum() > 0.75
    step = SIGNAL_RATIOS[1] / SIGNAL_RATIOS[0]
    near = np.abs(np.log(SIGNAL_RATIOS / 3)) < 1.5 * np.log(step)
    assert share[2, near].sum() > 0.6


def test_shares_draw_weak_voxels_to_the_population(rng):
    strong, models, trials, nuisance = planted(rng, 2, 3.0, 200)
    weak = []
    for X in trials:
        signal = 0.3 * X[2] @ (1 + rng.standard_normal((N_TRIALS, 200)))
        signal += rng.standard_normal((N_VOLUMES, 200)) + nuisance @ rng.normal(0, 20, (3, 200))
        weak.append(signal.astype(np.float32))
    runs = [np.hstack(pair) for pair in zip(strong, weak, strict=True)]
    evidence, null = left_out_evidence(runs, models, ratios_to_gammas(models))
    flat = np.full(evidence.shape[:2], 1 / evidence[..., 0].size)
    alone, _ = most_likely(evidence, flat)
    drawn, _ = most_likely(evidence, shares(evidence, null))
    assert (drawn[200:] == 2).mean() > (alone[200:] == 2).mean() + 0.02
    assert (drawn[:200] == 2).mean() > 0.95


def test_flat_share_takes_the_function_of_the_largest_marginal(rng):
    evidence = rng.normal(-500, 3, (4, 5, 300)).astype(np.float32)
    functions, places = most_likely(evidence, np.full((4, 5), 0.05))
    marginal = np.logaddexp.reduce(evidence.astype(float), axis=1)
    np.testing.assert_array_equal(functions, marginal.argmax(axis=0))
    best = evidence[functions, :, np.arange(300)].argmax(axis=1)
    np.testing.assert_array_equal(places, best)


def test_share_is_the_prior_of_the_choice(rng):
    evidence = np.zeros((3, 4, 2), np.float32)
    evidence[0, 1, 0], evidence[2, 2, 1] = 3.0, 1.0
    share = np.full((3, 4), 0.01)
    share[1, 3] = 0.89
    functions, places = most_likely(evidence, share)
    # exp(3) = 20 times as likely is not enough against 89 times as common.
    np.testing.assert_array_equal(functions, [1, 1])
    np.testing.assert_array_equal(places, [3, 3])
    evidence[0, 1, 0] = 8.0
    functions, places = most_likely(evidence, share)
    np.testing.assert_array_equal([functions[0], places[0]], [0, 1])


def test_shares_stay_a_distribution_where_no_voxel_responds_at_all():
    """Null densities so much higher that the others have no number beside them."""
    share = shares(np.full((2, 3, 10), -900, np.float32), np.zeros(10, np.float32))
    assert np.isfinite(share).all()
    assert share.sum() == pytest.approx(1)
