"""Betas, noise and t values: against nilearn, generalised least squares, and planted truth."""

import tracemalloc

import numpy as np
import pytest
from nilearn.glm.contrasts import compute_contrast
from nilearn.glm.first_level import run_glm
from scipy.linalg import toeplitz

from hyper_bids.glm import betas as module
from hyper_bids.glm.betas import ESTIMATORS, estimate_betas
from hyper_bids.glm.design import nuisance_design, trial_regressors
from hyper_bids.glm.evidence import orthonormal
from hyper_bids.glm.prewhitened import LIMITS, STEP, Prewhitened

N_VOLUMES, N_TRIALS, N_VOXELS, T_R = 120, 20, 70, 1.5


def make_design(rng):
    onsets = 3.0 + 8.0 * np.arange(N_TRIALS) + rng.uniform(0, 1, N_TRIALS)
    trials = trial_regressors(onsets, np.full(N_TRIALS, 1.5), N_VOLUMES, T_R, "glover")
    return trials, nuisance_design(N_VOLUMES, 2, rng.standard_normal((N_VOLUMES, 4)))


@pytest.fixture
def design(rng):
    return make_design(rng)


def make_bold(rng, trials, noise=8.0, drift=60.0):
    """BOLD with planted percent signal changes, a strong drift and noise; and the betas."""
    truth = rng.standard_normal((trials.shape[1], N_VOXELS))
    baseline = rng.uniform(500, 2000, N_VOXELS)
    ramp = np.linspace(-1, 1, len(trials))[:, None]
    bold = baseline + drift * ramp + trials @ (truth * baseline / 100)
    bold += noise * rng.standard_normal(bold.shape)
    return bold.astype(np.float32), truth


def standard_errors(own):
    """Return the standard errors of the betas, n_trials x n_voxels."""
    return own.residual_sd * np.sqrt(own.variance_factors[own.model].T)


def nilearn_fit(bold, trials, nuisance, noise_model="ols"):
    """Percent betas and t values of nilearn."""
    model = np.hstack([trials, nuisance])
    labels, results = run_glm(bold.astype(float), model, noise_model=noise_model)
    contrasts = [
        compute_contrast(labels, results, row, stat_type="t")
        for row in np.eye(model.shape[1])[: trials.shape[1]]
    ]
    percent = 100 / bold.mean(axis=0, dtype=float)
    betas = np.array([c.effect.ravel() for c in contrasts]) * percent
    t = np.array([c.stat() for c in contrasts]).reshape(betas.shape)
    return betas, t


@pytest.mark.parametrize("drift", [0.0, 60.0, 3000.0])
def test_betas_and_t_equal_nilearn_ols(rng, design, drift):
    """Also where drift is 300 times the noise, and single precision could lose the noise."""
    trials, nuisance = design
    bold, _ = make_bold(rng, trials, drift=drift)
    own = estimate_betas(bold, trials, nuisance)
    betas, t = nilearn_fit(bold, trials, nuisance)
    np.testing.assert_allclose(own.betas, betas, rtol=1e-4, atol=1e-4 * betas.std())
    np.testing.assert_allclose(own.betas / standard_errors(own), t, rtol=1e-4, atol=1e-4 * t.std())
    assert own.dof == N_VOLUMES - N_TRIALS - nuisance.shape[1]
    assert own.betas.dtype == own.residual_sd.dtype == own.r_square.dtype == np.float32


@pytest.mark.parametrize("drift", [0.0, 3000.0])
def test_a_model_a_trial_equals_nilearn_ols_of_each_of_those_models(rng, design, drift):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials, drift=drift)
    own = estimate_betas(bold, trials, nuisance, "lss")
    expected = np.empty(own.betas.shape)
    for trial in range(N_TRIALS):
        others = np.delete(trials, trial, axis=1).sum(axis=1)
        pair = np.column_stack([trials[:, trial], others])
        expected[trial] = nilearn_fit(bold, pair, nuisance)[0][0]
    np.testing.assert_allclose(own.betas, expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_both_estimators_are_one_where_trials_do_not_overlap(rng):
    onsets = 4.0 + 48.0 * np.arange(6)
    trials = trial_regressors(onsets, np.zeros(6), 220, T_R, "glover")
    constant = np.zeros((220, 0))
    bold = (1000 + 8 * rng.standard_normal((220, N_VOXELS))).astype(np.float32)
    lsa, lss = (estimate_betas(bold, trials, constant, name) for name in ("lsa", "lss"))
    # They share the constant, and so are not quite apart.
    np.testing.assert_allclose(lss.betas, lsa.betas, atol=0.02 * lsa.betas.std())
    np.testing.assert_allclose(lss.residual_sd, lsa.residual_sd)


@pytest.mark.parametrize("estimator", ["lsa", "lss"])
def test_noise_gives_betas_of_the_variance_that_the_factors_say(rng, design, estimator):
    trials, nuisance = design
    bold = 1000 + rng.standard_normal((N_VOLUMES, 20_000)).astype(np.float32)
    own = estimate_betas(bold, trials, nuisance, estimator)
    # Noise of sd 1 on a mean of 1000 is 0.1 %.
    np.testing.assert_allclose(own.betas.var(axis=1), 0.01 * own.variance_factors[0], rtol=0.05)


def test_a_single_trial_is_the_same_by_both_estimators(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    lsa, lss = (
        estimate_betas(bold, trials[:, :1], nuisance, name).betas for name in ("lsa", "lss")
    )
    np.testing.assert_allclose(lss, lsa, rtol=1e-5)


def test_noise_free_responses_are_recovered(rng, design):
    """Percent signal change at the peak, as planted; a mean taken with the responses in it."""
    trials, nuisance = design
    bold, truth = make_bold(rng, trials, noise=0.0)
    own = estimate_betas(bold, trials, nuisance)
    with_responses = 1 + (trials @ truth).mean(axis=0) / 100
    np.testing.assert_allclose(own.betas, truth / with_responses, atol=2e-4)
    assert own.residual_sd.max() < 1e-3
    np.testing.assert_allclose(own.r_square, 1, atol=1e-5)
    np.testing.assert_allclose(own.baseline, bold.mean(axis=0, dtype=float), rtol=1e-6)


def test_r_square_is_the_trials_share_of_what_nuisance_leaves(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials, noise=15.0)

    def residuals(model):
        return bold - model @ np.linalg.lstsq(model, bold.astype(float), rcond=None)[0]

    without = (residuals(nuisance) ** 2).sum(axis=0)
    with_trials = (residuals(np.hstack([nuisance, trials])) ** 2).sum(axis=0)
    own = estimate_betas(bold, trials, nuisance)
    np.testing.assert_allclose(own.r_square, 1 - with_trials / without, atol=1e-5)
    assert 0.1 < own.r_square.mean() < 0.9


def test_nuisance_signal_changes_no_beta(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    # Without its first column, the constant, which would change the mean and so the percent.
    added = bold + (nuisance[:, 1:] - nuisance[:, 1:].mean(axis=0)) @ rng.normal(
        0, 40, (nuisance.shape[1] - 1, N_VOXELS)
    )
    before, after = (estimate_betas(b, trials, nuisance) for b in (bold, added))
    np.testing.assert_allclose(after.betas, before.betas, atol=2e-4)
    np.testing.assert_allclose(after.residual_sd, before.residual_sd, rtol=1e-3)


def test_betas_do_not_depend_on_the_signals_unit(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    own, scaled = (estimate_betas(b, trials, nuisance) for b in (bold, bold.astype(float) * 1e-6))
    np.testing.assert_allclose(scaled.betas, own.betas, atol=1e-4)
    np.testing.assert_allclose(scaled.residual_sd, own.residual_sd, rtol=1e-4)


def test_betas_are_unbiased_and_vary_as_the_variance_factors_say(rng, design):
    trials, nuisance = design
    n, sd = 4000, 1.0
    bold = 100 + sd * rng.standard_normal((N_VOLUMES, n))
    own = estimate_betas(bold, trials, nuisance)
    expected = sd * np.sqrt(own.variance_factors[0])
    assert np.abs(own.betas.mean(axis=1) / (expected / np.sqrt(n))).max() < 4.5
    np.testing.assert_allclose(own.betas.std(axis=1), expected, rtol=0.06)
    assert own.residual_sd.mean() == pytest.approx(sd, rel=0.01)


def test_rank_deficient_nuisance_costs_its_rank_only(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    doubled = np.hstack([nuisance, 3 * nuisance[:, 2:4], np.zeros((N_VOLUMES, 1))])
    once, twice = (estimate_betas(bold, trials, n) for n in (nuisance, doubled))
    assert twice.dof == once.dof
    np.testing.assert_allclose(twice.betas, once.betas, atol=1e-4)
    np.testing.assert_allclose(twice.variance_factors, once.variance_factors, rtol=1e-8)


def test_constant_is_in_the_model_without_being_asked_for(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    with_it, without = (estimate_betas(bold, trials, n) for n in (nuisance, nuisance[:, 1:]))
    np.testing.assert_allclose(without.betas, with_it.betas, atol=1e-5)
    none = estimate_betas(bold, trials, np.empty((N_VOLUMES, 0)))
    assert none.dof == N_VOLUMES - N_TRIALS - 1


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
def test_voxels_without_signal_are_zero_and_leave_the_others_alone(rng, design, noise_model):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    reference = estimate_betas(bold, trials, nuisance, noise_model=noise_model)
    dead = [0, 1, 2, 3, 4, 5, 6, 7]
    broken = bold.copy()
    broken[:, 0] = 0
    broken[:, 1] -= 2 * broken[:, 1].mean()
    broken[:, 2] = 1234.5678
    broken[7, 3] = np.nan
    broken[0, 4], broken[9, 4] = np.inf, -np.inf
    broken[3, 5] = np.inf
    broken[:, 6] = np.nan
    # Constant but for rounding, which is no signal either.
    broken[:, 7] = np.float32(1234.5678)
    broken[::3, 7] = np.nextafter(np.float32(1234.5678), np.float32(0))
    own = estimate_betas(broken, trials, nuisance, noise_model=noise_model)
    assert own.variance_factors.shape == (own.model.max() + 1, N_TRIALS)
    for values in (own.betas, own.residual_sd, own.r_square, own.baseline, own.variance_factors):
        assert np.isfinite(values).all()
    assert not own.betas[:, dead].any()
    assert not own.residual_sd[dead].any()
    assert not own.r_square[dead].any()
    alive = np.delete(np.arange(N_VOXELS), dead)
    np.testing.assert_allclose(own.betas[:, alive], reference.betas[:, alive], atol=1e-6)


def ar1_noise(rng, rho, n_voxels):
    """AR(1) noise of innovations of sd 1, from its stationary distribution; rho may differ."""
    noise = rng.standard_normal((N_VOLUMES, n_voxels))
    noise[0] /= np.sqrt(1 - np.square(rho))
    for k in range(1, N_VOLUMES):
        noise[k] += rho * noise[k - 1]
    return noise


def rho_found(bold, trials, nuisance):
    """Each voxel's autocorrelation, as ``ar1`` finds it."""
    constant = np.ones((N_VOLUMES, 1))
    fit = Prewhitened(orthonormal(np.hstack([constant, nuisance])), trials, ESTIMATORS["lsa"])
    return fit.grid[fit.models((bold - bold.mean(axis=0, dtype=float)).astype(np.float32))]


def generalised(bold, trials, nuisance, rho, estimator):
    """Percent betas, noise sd and standard errors of one voxel with a dense covariance."""
    V = toeplitz(rho ** np.arange(N_VOLUMES)) / (1 - rho**2)
    precision = np.linalg.inv(V)

    def operator(design):
        return np.linalg.solve(design.T @ precision @ design, design.T @ precision)

    everything = np.hstack([trials, nuisance])
    whole = operator(everything)
    left = bold - everything @ (whole @ bold)
    sd = np.sqrt(left @ precision @ left / (N_VOLUMES - everything.shape[1]))
    rows = whole[:N_TRIALS]
    if estimator == "lss":
        rows = np.empty_like(rows)
        for trial in range(N_TRIALS):
            others = np.delete(trials, trial, axis=1).sum(axis=1)
            rows[trial] = operator(np.column_stack([trials[:, trial], others, nuisance]))[0]
    percent = 100 / bold.mean()
    errors = sd * np.sqrt(np.einsum("ij,jk,ik->i", rows, V, rows))
    return percent * (rows @ bold), percent * sd, percent * errors


@pytest.mark.parametrize("estimator", ["lsa", "lss"])
@pytest.mark.parametrize("drift", [0.0, 300.0, 3000.0])
def test_ar1_is_generalised_least_squares_with_each_voxels_covariance(
    rng, design, estimator, drift
):
    """Also with a baseline of 10,000 and a drift of 400 times the noise, in single precision."""
    trials, nuisance = design
    rho = np.tile([-0.2, 0, 0.3, 0.6, 0.85], 4)
    truth = rng.standard_normal((N_TRIALS, 20))
    bold = 10_000 + drift * np.linspace(-1, 1, N_VOLUMES)[:, None] + 30 * trials @ truth
    bold = (bold + 8 * ar1_noise(rng, rho, 20)).astype(np.float32)
    own = estimate_betas(bold, trials, nuisance, estimator, "ar1")
    found = rho_found(bold, trials, nuisance)
    assert len(np.unique(found)) == len(own.variance_factors) > 5
    for voxel, signal in enumerate(bold.T.astype(float)):
        betas, sd, errors = generalised(signal, trials, nuisance, found[voxel], estimator)
        np.testing.assert_allclose(own.betas[:, voxel], betas, rtol=0, atol=2e-3 * errors.mean())
        np.testing.assert_allclose(own.residual_sd[voxel], sd, rtol=2e-3)
        np.testing.assert_allclose(standard_errors(own)[:, voxel], errors, rtol=2e-3)
    assert own.dof == N_VOLUMES - N_TRIALS - nuisance.shape[1]


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_autocorrelation_is_found_without_the_bias_of_the_design(rng, design, rho):
    """With 20 trials and 7 other columns in 120 volumes, residuals say something else."""
    trials, nuisance = design
    bold = 1000 + ar1_noise(rng, rho, 3000)
    model = np.hstack([trials, nuisance])
    left = bold - model @ (np.linalg.pinv(model) @ bold)
    naive = ((left[1:] * left[:-1]).sum(axis=0) / (left**2).sum(axis=0)).mean()
    assert naive < rho - 0.15
    found = rho_found(bold, trials, nuisance)
    assert found.mean() == pytest.approx(rho, abs=0.025)
    assert found.std() < 0.15
    steps = (found - LIMITS[0]) / STEP
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@pytest.mark.parametrize("estimator", ["lsa", "lss"])
def test_errors_under_autocorrelated_noise_are_smaller_than_by_ols_and_known(
    rng, design, estimator
):
    trials, nuisance = design
    bold = 100 + ar1_noise(rng, 0.6, 4000)
    ols, ar1 = (estimate_betas(bold, trials, nuisance, estimator, kind) for kind in ("ols", "ar1"))
    wrong = np.sqrt((ols.betas**2).mean())
    error = np.sqrt((ar1.betas**2).mean())
    assert error < 0.95 * wrong
    # That rho is estimated too makes errors a little larger than they are said to be.
    said = np.sqrt((standard_errors(ar1) ** 2).mean(axis=1))
    np.testing.assert_allclose(said, np.sqrt((ar1.betas**2).mean(axis=1)), rtol=0.08)
    assert np.sqrt((said**2).mean()) == pytest.approx(error, rel=0.05)
    assert np.sqrt((standard_errors(ols) ** 2).mean()) < 0.7 * wrong
    # The innovations have an sd of 1.
    assert ar1.residual_sd.mean() == pytest.approx(1, abs=0.02)


def test_ar1_betas_and_t_are_nilearns_where_the_design_takes_little(rng, design):
    """The rho of nilearn is that of the residuals; with few regressors both are the same."""
    trials, nuisance = design[0][:, :3], design[1][:, :1]
    bold = 1000 + 8 * ar1_noise(rng, 0.5, 200) + 30 * trials @ rng.standard_normal((3, 200))
    own, ols = (estimate_betas(bold, trials, nuisance, noise_model=kind) for kind in ("ar1", "ols"))
    theirs, t = nilearn_fit(bold, trials, nuisance, "ar1")
    typical = standard_errors(own).mean()
    assert np.abs(own.betas - theirs).mean() < 0.07 * typical
    assert np.abs(ols.betas - theirs).mean() > 0.2 * typical
    np.testing.assert_allclose(own.betas / standard_errors(own), t, rtol=0.25, atol=0.25)


@pytest.mark.parametrize("estimator", ["lsa", "lss"])
def test_ar1_of_white_noise_costs_little(rng, design, estimator):
    trials, nuisance = design
    bold = 100 + rng.standard_normal((N_VOLUMES, 2000))
    ols, ar1 = (estimate_betas(bold, trials, nuisance, estimator, kind) for kind in ("ols", "ar1"))
    assert np.corrcoef(ols.betas.ravel(), ar1.betas.ravel())[0, 1] > 0.98
    assert (ar1.betas**2).mean() < 1.05 * (ols.betas**2).mean()
    np.testing.assert_allclose(ar1.residual_sd, ols.residual_sd, rtol=0.15)
    assert ar1.residual_sd.mean() == pytest.approx(1, abs=0.02)


def test_ols_has_one_noise_model(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    own = estimate_betas(bold, trials, nuisance)
    assert own.variance_factors.shape == (1, N_TRIALS)
    np.testing.assert_array_equal(own.model, np.zeros(N_VOXELS))


def test_nuisance_signal_changes_no_beta_of_ar1(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    added = bold + (nuisance[:, 1:] - nuisance[:, 1:].mean(axis=0)) @ rng.normal(
        0, 40, (nuisance.shape[1] - 1, N_VOXELS)
    )
    before, after = (estimate_betas(b, trials, nuisance, noise_model="ar1") for b in (bold, added))
    # A voxel may fall on the other side of a step of rho.
    moved = np.abs(after.betas - before.betas).max(axis=0)
    assert np.median(moved) < 2e-4
    assert (moved < 0.02 * before.betas.std()).all()


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float64])
def test_integer_and_double_signals_are_read_for_what_they_are(rng, design, kind):
    trials, nuisance = design
    bold = np.rint(make_bold(rng, trials)[0])
    expected = estimate_betas(bold, trials, nuisance)
    own = estimate_betas(bold.astype(kind), trials, nuisance)
    np.testing.assert_allclose(own.betas, expected.betas, atol=1e-4)


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
def test_blocks_of_voxels_do_not_show(rng, design, monkeypatch, noise_model):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    whole = estimate_betas(bold, trials, nuisance, noise_model=noise_model)
    monkeypatch.setattr(module, "_BLOCK", 32)
    parts = estimate_betas(bold, trials, nuisance, noise_model=noise_model)
    for name in ("betas", "residual_sd", "r_square", "baseline", "variance_factors", "model"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-5)


def test_input_is_left_as_it_was(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    copies = bold.copy(), trials.copy(), nuisance.copy()
    estimate_betas(bold, trials, nuisance)
    for array, copy in zip((bold, trials, nuisance), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_working_memory_is_small_beside_the_run(rng, design):
    trials, nuisance = design
    bold = (1000 + rng.standard_normal((N_VOLUMES, 60_000), np.float32)).astype(np.float32)
    estimate_betas(bold[:, :10], trials, nuisance)
    tracemalloc.start()
    own = estimate_betas(bold, trials, nuisance)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = own.betas.nbytes + own.residual_sd.nbytes * 3
    assert peak - results < bold.nbytes / 4


def test_too_few_volumes_are_refused_with_the_counts(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    n = N_TRIALS + nuisance.shape[1]
    with pytest.raises(ValueError, match=rf"20 trials and 7 .* more than {n} volumes; .* has {n}"):
        estimate_betas(bold[:n], trials[:n], nuisance[:n])
    assert estimate_betas(bold[: n + 1], *make_square(rng, n + 1, nuisance)).dof == 1


def make_square(rng, n_volumes, nuisance):
    return rng.standard_normal((n_volumes, N_TRIALS)), nuisance[:n_volumes]


def test_trials_that_cannot_be_told_apart_are_named(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    same = trials.copy()
    same[:, 11] = same[:, 4]
    with pytest.raises(ValueError, match=r"each other.*: trials 4, 11 \(counted from 0\)"):
        estimate_betas(bold, same, nuisance)
    explained = np.hstack([nuisance, trials[:, [6]]])
    with pytest.raises(ValueError, match=r"confounds .*: trials 6 \(counted from 0\)"):
        estimate_betas(bold, trials, explained)


def test_trial_outside_the_run_is_named(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    late = trials.copy()
    late[:, 19] = 0
    # The foot of a response that the scan cuts off: a beta would be noise a thousandfold.
    late[:, 3] = 0
    late[-1, 3] = 1e-3
    with pytest.raises(ValueError, match=r"no response .*: trials 3, 19 \(counted from 0\)"):
        estimate_betas(bold, late, nuisance)


def test_disagreeing_shapes_are_refused_with_the_shapes(rng, design):
    trials, nuisance = design
    bold, _ = make_bold(rng, trials)
    with pytest.raises(ValueError, match=r"\(119, 70\), \(120, 20\) and \(120, 7\)"):
        estimate_betas(bold[1:], trials, nuisance)
    with pytest.raises(ValueError, match="not all finite"):
        estimate_betas(bold, trials * np.nan, nuisance)
    with pytest.raises(ValueError, match="no trial"):
        estimate_betas(bold, trials[:, :0], nuisance)
