"""Noise of a run: whitening against dense matrices, autocorrelation and components planted."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles, toeplitz

from hyper_bids.glm.evidence import orthonormal
from hyper_bids.glm.noise import (
    MAX_RHO,
    components,
    expected_lag_one,
    pooled_autocorrelation,
    residuals,
    whitened,
)

N_VOLUMES = 100


def covariance(rho, n=N_VOLUMES):
    """AR(1), innovations of variance 1."""
    return toeplitz(float(rho) ** np.arange(n)) / (1 - rho**2)


def ar1_noise(rng, rho, n_voxels, n=N_VOLUMES):
    return np.linalg.cholesky(covariance(rho, n)) @ rng.standard_normal((n, n_voxels))


def nuisance(rng, k, n=N_VOLUMES):
    """Constant, slow drift and confounds, orthonormal."""
    t = np.linspace(-1, 1, n)
    return orthonormal(np.column_stack([np.ones(n), t, t**2, rng.standard_normal((n, k))])[:, :k])


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.4, 0.9])
def test_whitening_makes_the_covariance_of_ar1_noise_the_identity(rho):
    W = whitened(np.eye(N_VOLUMES), rho)
    np.testing.assert_allclose(W @ covariance(rho) @ W.T, np.eye(N_VOLUMES), atol=1e-10)


@pytest.mark.parametrize("rho", [-0.3, 0.4, 0.9])
def test_whitening_is_the_inverse_of_the_cholesky_factor(rng, rho):
    series = rng.standard_normal((N_VOLUMES, 5))
    expected = np.linalg.solve(np.linalg.cholesky(covariance(rho)), series)
    np.testing.assert_allclose(whitened(series, rho), expected, atol=1e-10)
    single = whitened(series.astype(np.float32), rho)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_whitening_leaves_its_input_and_without_autocorrelation_is_the_input(rng):
    series = rng.standard_normal((N_VOLUMES, 3))
    before = series.copy()
    whitened(series, 0.5)
    np.testing.assert_array_equal(series, before)
    assert whitened(series, 0.0) is series


def test_residuals_are_those_of_least_squares(rng):
    fixed = nuisance(rng, 8)
    series = rng.standard_normal((N_VOLUMES, 6)).astype(np.float32)
    left = residuals(series, fixed)
    expected = series - fixed @ np.linalg.lstsq(fixed, series, rcond=None)[0]
    assert left.dtype == np.float32
    np.testing.assert_allclose(left, expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 8, 50])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.85])
def test_planted_autocorrelation_is_found_whatever_nuisance_takes(rng, rho, k):
    fixed = [nuisance(rng, k), nuisance(rng, k, 140)]
    runs = [ar1_noise(rng, rho, 1500), ar1_noise(rng, rho, 1500, 140)]
    runs = [run + basis @ rng.normal(0, 50, (basis.shape[1], 1500)) for run, basis in
            zip(runs, fixed, strict=True)]  # fmt: skip
    tolerance = 0.03 if rho > 0.8 else 0.02
    assert pooled_autocorrelation(runs, fixed) == pytest.approx(rho, abs=tolerance)


def test_voxels_count_alike_in_the_autocorrelation_and_dead_ones_do_not(rng):
    fixed = [nuisance(rng, 5)]
    quiet, loud = ar1_noise(rng, 0.1, 800), ar1_noise(rng, 0.5, 800)
    both = pooled_autocorrelation([np.hstack([quiet, loud])], fixed)
    scaled = pooled_autocorrelation([np.hstack([quiet, 1000 * loud])], fixed)
    assert both == pytest.approx(0.3, abs=0.02)
    assert scaled == pytest.approx(both, abs=1e-6)
    dead = np.hstack([quiet, np.zeros((N_VOLUMES, 800)), loud])
    assert pooled_autocorrelation([dead], fixed) == pytest.approx(both, abs=1e-9)
    empty = np.zeros((N_VOLUMES, 40)), np.zeros((N_VOLUMES, 0))
    assert pooled_autocorrelation([*empty, np.hstack([quiet, loud])], fixed * 3) == (
        pytest.approx(both, abs=1e-9)
    )


def test_autocorrelation_stays_between_zero_and_its_limit(rng):
    fixed = [nuisance(rng, 3)]
    assert pooled_autocorrelation([ar1_noise(rng, -0.4, 300)], fixed) == 0
    assert pooled_autocorrelation([ar1_noise(rng, 0.99, 300)], fixed) == MAX_RHO
    assert pooled_autocorrelation([np.zeros((N_VOLUMES, 9))], fixed) == 0


@pytest.mark.parametrize("k", [1, 12, 60])
def test_expected_autocorrelation_is_the_ratio_of_traces_and_what_residuals_show(rng, k):
    basis, grid = nuisance(rng, k), np.array([-0.2, 0.0, 0.3, 0.6, 0.9])
    R, D = np.eye(N_VOLUMES) - basis @ basis.T, np.eye(N_VOLUMES, k=1)
    found = expected_lag_one(basis, grid)
    for rho, value in zip(grid, found, strict=True):
        V = covariance(rho)
        assert value == pytest.approx(np.trace(R @ D @ R @ V) / np.trace(R @ V), abs=1e-10)
        left = R @ ar1_noise(rng, rho, 4000)
        assert value == pytest.approx((left[1:] * left[:-1]).sum() / (left**2).sum(), abs=0.01)
    assert (np.diff(found) > 0).all()


def shared_noise(rng, n_shared=3, n_voxels=200, noise=0.2):
    """Voxels with time courses in common, and these without what ``fixed`` spans."""
    fixed = nuisance(rng, 6)
    courses = rng.standard_normal((N_VOLUMES, n_shared))
    series = courses @ rng.standard_normal((n_shared, n_voxels))
    series += noise * rng.standard_normal(series.shape)
    series += fixed @ rng.normal(0, 30, (fixed.shape[1], n_voxels))
    return series.astype(np.float32), fixed, residuals(courses, fixed)


def test_components_span_the_time_courses_that_voxels_share(rng):
    series, fixed, courses = shared_noise(rng)
    found = components(series, fixed, 3)
    assert found.shape == (N_VOLUMES, 3)
    assert np.rad2deg(subspace_angles(found, courses).max()) < 3
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(fixed.T @ found, 0, atol=1e-5)


def test_components_are_the_singular_vectors_of_standardised_residuals(rng):
    series, fixed, _ = shared_noise(rng)
    left = series - fixed @ (fixed.T @ series)
    expected = np.linalg.svd(left / left.std(axis=0))[0][:, :4]
    found = components(series, fixed, 4)
    np.testing.assert_allclose(np.abs((expected * found).sum(axis=0)), 1, atol=1e-4)


def test_scale_of_a_voxel_and_dead_voxels_do_not_matter_to_components(rng):
    series, fixed, _ = shared_noise(rng)
    found = components(series, fixed, 3)
    scaled = series * np.geomspace(0.01, 100, series.shape[1], dtype=np.float32)
    dead = np.hstack([series, np.zeros((N_VOLUMES, 50), np.float32)])
    for other in (scaled, dead):
        angles = subspace_angles(components(other, fixed, 3), found)
        assert np.rad2deg(angles.max()) < 0.1


def test_no_more_components_than_the_voxels_have(rng):
    series, fixed, courses = shared_noise(rng, noise=0.0)
    found = components(series, fixed, 10)
    assert found.shape == (N_VOLUMES, 3)
    assert np.rad2deg(subspace_angles(found, courses).max()) < 0.1
    few = components(series[:, :2], fixed, 5)
    assert few.shape == (N_VOLUMES, 2)
    for none in (series[:, :0], 0 * series):
        assert components(none, fixed, 5).shape == (N_VOLUMES, 0)
    assert components(series, fixed, 0).shape == (N_VOLUMES, 0)
    noisy, fixed, _ = shared_noise(rng)
    assert components(noisy, fixed, 500).shape == (N_VOLUMES, N_VOLUMES - fixed.shape[1])
