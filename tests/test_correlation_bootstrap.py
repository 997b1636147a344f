"""The bootstrap by counts is that of resampled stimuli."""

import numpy as np
import pytest

from hyper_bids import metrics
from hyper_bids.stats.correlation import _mean_correlation, _scaled, bootstrap_correlation


def brute(predicted, targets):
    return np.diag(metrics.latent_correlation(predicted, targets)).mean()


def test_a_resample_by_counts_is_the_score_of_the_resampled_stimuli(rng):
    t = rng.standard_normal((12, 5)).astype(np.float32) + 40
    p = (t + rng.standard_normal(t.shape)).astype(np.float32)
    p[:, 1], t[:, 2] = 3, -7  # a constant prediction, and a target that does not vary
    P, T = _scaled(p), _scaled(t)
    for _ in range(20):
        rows = rng.integers(0, 12, 12)
        counts = np.bincount(rows, minlength=12)[None]
        found = [counts @ x / 12 for x in (P, T, P * P, T * T, P * T)]
        assert _mean_correlation(*found)[0] == pytest.approx(brute(p[rows], t[rows]), abs=1e-6)


def test_error_and_interval_are_those_of_drawn_stimuli(rng):
    t = rng.standard_normal((30, 6))
    p = t + rng.standard_normal(t.shape)
    se, low, high = bootstrap_correlation(p, t, rng, n=4000)
    drawn = [brute(p[rows], t[rows]) for rows in rng.integers(0, 30, (4000, 30))]
    assert se == pytest.approx(np.std(drawn, ddof=1), rel=0.08)
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.01)


def test_what_says_nothing_has_no_spread_and_one_stimulus_no_interval(rng):
    t = rng.standard_normal((9, 4))
    assert bootstrap_correlation(np.ones((9, 4)), t, rng) == (0, 0, 0)
    assert np.isnan(bootstrap_correlation(t[:1], t[:1], rng)).all()
    assert np.isnan(bootstrap_correlation(t, np.ones((9, 4)), rng)).all()


def test_interval_of_the_latent_correlation_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    true = 0.5
    covered = []
    for _ in range(400):
        targets = rng.standard_normal((40, 6))
        noise = rng.standard_normal((40, 6))
        predicted = true * targets + np.sqrt(1 - true**2) * noise
        _, low, high = bootstrap_correlation(predicted, targets, rng)
        covered.append(low <= true <= high)
    # Percentiles of 40 stimuli are a little narrow.
    assert 0.9 < np.mean(covered) < 0.975
