"""Scores of pair matrices, permutation p values, intervals."""

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from hyper_bids import metrics, stats
from hyper_bids.stats import intervals, pairing


def test_score_is_mean_diagonal_with_scipy_standard_error(rng):
    M = rng.standard_normal((7, 7))
    found = stats.score(M)
    assert found["value"] == pytest.approx(np.mean([M[i, i] for i in range(7)]), abs=1e-15)
    assert found["se"] == pytest.approx(reference.sem(np.diag(M)), rel=1e-12)
    assert found["n"] == 7


def test_mismatched_is_mean_of_all_other_pairs(rng):
    M = rng.standard_normal((5, 5))
    others = [M[i, j] for i in range(5) for j in range(5) if i != j]
    assert stats.mismatched(M) == pytest.approx(np.mean(others), abs=1e-15)


def test_one_stimulus_has_no_standard_error_and_no_mismatch():
    M = np.array([[0.3]])
    found = stats.score(M)
    assert found["value"] == 0.3 and np.isnan(found["se"]) and found["n"] == 1
    assert np.isnan(stats.mismatched(M))


@pytest.mark.parametrize("shape", [(2, 3), (4,), (0, 0)])
def test_matrix_that_is_not_square_is_refused_with_its_shape(shape, rng):
    for function in (stats.score, stats.mismatched, lambda M: stats.pairing_null(M, 5, rng)):
        with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
            function(np.zeros(shape))


def test_pairing_null_draws_each_permutation_equally_often(rng):
    # Entries whose sums are all different: a sum names its permutation.
    n, draws = 4, 24_000
    M = np.array([[float(4 ** (n * i + j) % 104_729) for j in range(n)] for i in range(n)])
    totals = {sum(M[i, p[i]] for i in range(n)): p for p in itertools.permutations(range(n))}
    assert len(totals) == 24
    null = np.rint(stats.pairing_null(M, draws, rng) * n)
    values, counts = np.unique(null, return_counts=True)
    assert set(values) == set(totals)
    assert reference.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("block", [42, 2**20])
def test_every_stimulus_meets_every_target_equally_often_in_every_block(block, rng, monkeypatch):
    monkeypatch.setattr(pairing, "_BLOCK", block)
    n, draws = 6, 6000
    for i in range(n):
        # Of one prediction only, the score names its target.
        M = np.zeros((n, n))
        M[i] = np.arange(n)
        targets = np.rint(stats.pairing_null(M, draws, rng) * n).astype(int)
        assert reference.chisquare(np.bincount(targets, minlength=n)).pvalue > 1e-4


def test_more_stimuli_than_one_byte_counts_are_still_paired_one_to_one(rng):
    n = 300
    M = np.zeros((n, n))
    M[:] = np.arange(n)
    np.testing.assert_allclose(stats.pairing_null(M, 5, rng), (n - 1) / 2, rtol=1e-12)


def test_nulls_of_several_matrices_are_of_the_same_pairings(rng):
    first, second = rng.standard_normal((2, 8, 8))
    both = [first, second, first + 2 * second]
    nulls = stats.pairing_nulls(both, 50, np.random.default_rng(3))
    np.testing.assert_allclose(nulls[2], nulls[0] + 2 * nulls[1], atol=1e-12)
    for M, null in zip(both, nulls, strict=True):
        assert np.array_equal(stats.pairing_null(M, 50, np.random.default_rng(3)), null)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 3\)"):
        stats.pairing_nulls([np.eye(2), np.eye(3)], 5, rng)
    with pytest.raises(ValueError, match="0 permutations"):
        stats.pairing_nulls([np.eye(2)], 0, rng)


def test_pairing_null_equals_scipy_permutation_test_in_distribution(rng):
    M = rng.standard_normal((36, 36)) + 0.3 * np.eye(36)

    def paired(order):
        return M[np.arange(36), order].mean()

    theirs = reference.permutation_test(
        (np.arange(36),), paired, permutation_type="pairings", n_resamples=2000,
        alternative="greater", rng=np.random.default_rng(1),
    )  # fmt: skip
    null = stats.pairing_null(M, 20_000, rng)
    assert reference.ks_2samp(null, theirs.null_distribution).pvalue > 0.001
    ours = stats.p_value(stats.score(M)["value"], null)
    assert abs(ours - theirs.pvalue) < 4 * np.sqrt(ours * (1 - ours) / 2000) + 1e-3


def test_p_is_uniform_where_the_pairing_means_nothing():
    rng = np.random.default_rng(8)
    p = []
    for _ in range(500):
        predicted, targets = rng.standard_normal((2, 12, 20))
        M = predicted @ targets.T
        p.append(stats.p_value(stats.score(M)["value"], stats.pairing_null(M, 199, rng)))
    # Jittered within its steps of 1/200, a valid permutation p is uniform exactly.
    jittered = np.array(p) - rng.uniform(0, 1 / 200, 500)
    assert reference.kstest(jittered, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_p_never_falls_below_one_over_n_plus_one():
    assert stats.p_value(9.0, np.zeros(99)) == 0.01
    assert stats.p_value(-9.0, np.zeros(99)) == 1.0


@pytest.mark.parametrize("value", [1 / 3, -0.1, 0.0, 1e7 / 3])
def test_score_that_does_not_depend_on_the_pairing_has_p_one(value, rng):
    row = value * (1 + rng.uniform(size=36))
    M = np.tile(row, (36, 1))
    observed = stats.score(M)["value"]
    null = stats.pairing_null(M, 999, rng)
    assert stats.p_value(observed, null) == 1.0
    assert stats.p_value(observed * (1 + 1e-9), null) == 1.0
    assert stats.p_value(observed, null.astype(np.float32)) == 1.0


def test_tolerance_of_p_does_not_swallow_real_differences():
    null = np.full(99, 0.5)
    assert stats.p_value(0.50001, null) == 0.01
    assert stats.p_value(0.50001, null, tolerance=1e-4) == 1.0


def test_p_of_an_undefined_score_is_undefined():
    assert np.isnan(stats.p_value(np.nan, np.zeros(9)))
    assert np.isnan(stats.p_value(0.0, np.full(9, np.nan)))
    with pytest.raises(ValueError, match="null of shape"):
        stats.p_value(0.0, np.array([]))


def test_mean_interval_equals_scipy_t_interval(rng):
    values = rng.standard_normal(9)
    for level in (0.8, 0.95):
        low, high = reference.t.interval(level, 8, values.mean(), reference.sem(values))
        assert stats.mean_interval(values, level) == pytest.approx((values.mean(), low, high))


def test_intervals_of_one_value_are_undefined(rng):
    for found in (stats.mean_interval(np.ones(1)), stats.bootstrap_interval(np.ones(1), rng)):
        assert found[0] == 1.0 and np.isnan(found[1]) and np.isnan(found[2])


def test_bootstrap_interval_equals_scipy_percentile_bootstrap(rng):
    values = rng.exponential(size=40)
    mean, low, high = stats.bootstrap_interval(values, rng, n=20_000)
    theirs = reference.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    spread = reference.sem(values)
    assert mean == pytest.approx(values.mean())
    assert abs(low - theirs.low) < 0.06 * spread and abs(high - theirs.high) < 0.06 * spread


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(5)
    n_sets, size = 1000, 36
    sets = rng.normal(2.0, 3.0, (n_sets, size))
    t = np.array([stats.mean_interval(v, 0.9) for v in sets])
    boot = np.array([stats.bootstrap_interval(v, rng, n=400, level=0.9) for v in sets])
    error = 3 * np.sqrt(0.9 * 0.1 / n_sets)
    assert abs(np.mean((t[:, 1] <= 2) & (t[:, 2] >= 2)) - 0.9) < error
    # The percentile bootstrap has the width of a normal interval without n / (n - 1).
    z = reference.norm.ppf(0.95) * np.sqrt((size - 1) / size)
    expected = 1 - 2 * reference.t.sf(z, size - 1)
    assert abs(np.mean((boot[:, 1] <= 2) & (boot[:, 2] >= 2)) - expected) < error + 0.01


def test_interval_of_a_correlation_stays_within_its_bounds_and_equals_scipy_bootstrap(rng):
    x = rng.standard_normal(30)
    y = x + 0.2 * rng.standard_normal(30)

    def r(x, y):
        return np.corrcoef(x, y)[0, 1]

    se, low, high = stats.bootstrap_correlation(x[:, None], y[:, None], rng, n=4000)
    expected = reference.bootstrap(
        (x, y), r, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=1
    )
    interval = expected.confidence_interval
    assert low < r(x, y) < high < 1
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=0.01)
    assert se == pytest.approx(expected.standard_error, rel=0.1)


def test_bootstrap_does_not_depend_on_blocks(rng, monkeypatch):
    values = rng.standard_normal(10)
    whole = stats.bootstrap_interval(values, np.random.default_rng(4), n=300)
    monkeypatch.setattr(intervals, "_BLOCK", 64)
    assert stats.bootstrap_interval(values, np.random.default_rng(4), n=300) == whole


def random_latents(latents, rng, n=1000):
    """Return the paper's null of the similarity of latents, from N(0, I)."""
    drawn = rng.standard_normal((n, latents.shape[1]))
    return stats.prior_null(metrics.latent_similarity(drawn, latents))


def test_a_constant_prediction_passes_the_papers_test_and_has_p_one_in_that_of_the_pairing(rng):
    latents = rng.standard_normal((36, 512))
    M = metrics.latent_similarity(np.zeros((36, 512)), latents)
    value = stats.score(M)["value"]
    assert stats.p_value(value, random_latents(latents, rng)) == 1 / 1001
    assert stats.p_value(value, stats.pairing_null(M, 1000, rng)) == 1


def test_information_passes_both_tests(rng):
    latents = rng.standard_normal((36, 512))
    M = metrics.latent_similarity(latents + rng.standard_normal((36, 512)), latents)
    value = stats.score(M)["value"]
    assert stats.p_value(value, random_latents(latents, rng)) == 1 / 1001
    assert stats.p_value(value, stats.pairing_null(M, 1000, rng)) == 1 / 1001


def test_the_papers_null_is_each_random_latents_mean_over_targets(rng):
    latents, drawn = rng.standard_normal((7, 12)), rng.standard_normal((9, 12))
    null = stats.prior_null(metrics.latent_similarity(drawn, latents))
    expected = [np.mean([1 / (1 + np.mean((r - z) ** 2)) for z in latents]) for r in drawn]
    np.testing.assert_allclose(null, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"\(0, 5\)"):
        stats.prior_null(np.zeros((0, 5)))


def test_p_of_the_papers_test_is_uniform_for_a_random_latent():
    rng = np.random.default_rng(12)
    p = []
    for _ in range(500):
        latents = rng.standard_normal((12, 20))
        M = metrics.latent_similarity(np.tile(rng.standard_normal(20), (12, 1)), latents)
        p.append(stats.p_value(stats.score(M)["value"], random_latents(latents, rng, 199)))
    assert reference.kstest(np.array(p) - rng.uniform(0, 1 / 200, 500), "uniform").pvalue > 0.01


@pytest.mark.parametrize("hits, n", [(0, 36), (5, 36), (36, 36), (1, 1)])
def test_binomial_interval_equals_scipy_exact_interval(hits, n):
    expected = reference.binomtest(hits, n).proportion_ci(0.9, method="exact")
    found = stats.binomial_interval(hits, n, 0.9)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_binomial_interval_covers_at_least_as_often_as_it_says():
    k = np.arange(37)
    bounds = np.array([stats.binomial_interval(h, 36) for h in k])
    for rate in (1 / 36, 0.3, 0.9):
        covered = (bounds[:, 0] <= rate) & (rate <= bounds[:, 1])
        assert 0.95 <= reference.binom(36, rate).pmf(k[covered]).sum() < 1
    for hits, n in ((2.5, 9), (-1, 9), (10, 9), (0, 0)):
        with pytest.raises(ValueError, match="hits of"):
            stats.binomial_interval(hits, n)


def test_interval_of_hits_is_the_exact_one_and_of_shared_hits_the_wider_of_both_sides():
    hits = np.array([1.0, 0, 0, 1, 0, 1, 0])
    assert stats.hits_interval(hits) == stats.binomial_interval(3, 7)
    thirds = np.array([1 / 3, 1 / 3, 1 / 3, 1, 0, 1, 0])
    assert stats.hits_interval(thirds) == stats.binomial_interval(3, 7)
    low, high = stats.hits_interval(np.array([0.5, 0, 1, 1, 0, 0, 0]))
    assert low == stats.binomial_interval(2, 7)[0]
    assert high == stats.binomial_interval(3, 7)[1]
    assert np.isnan(stats.hits_interval(np.array([1, np.nan]))).all()
    for wrong in ([1.5, 0], [-0.1]):
        with pytest.raises(ValueError, match="0 to 1 is wanted"):
            stats.hits_interval(np.array(wrong))


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    "form", [metrics.one_of_n, lambda S: metrics.top_k(S, 5), lambda S: metrics.one_of_n(S.T)]
)
def test_exact_interval_of_identification_covers_as_often_as_it_says(form, signal):
    # Stimuli and predictions are drawn anew; all are candidates of each other, so that hits are no
    # independent trials: this is what shows that it does not matter.
    rng = np.random.default_rng(31)
    values, bounds, of_bootstrap = [], [], []
    for k in range(1500):
        targets = rng.standard_normal((24, 12))
        predicted = signal * targets + rng.standard_normal((24, 12))
        hits = np.diag(form(metrics.correlation_similarity(predicted, targets)))
        values.append(hits.mean())
        bounds.append(stats.hits_interval(hits))
        if k < 400:
            of_bootstrap.append(stats.bootstrap_interval(hits, rng, 300)[1:])
    rate = np.mean(values)
    low, high = np.array(bounds).T
    assert np.mean((low <= rate) & (rate <= high)) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 1500)
    if rate < 0.05:
        # The bootstrap of no hit at all is the point 0: why these scores have another interval.
        low, high = np.array(of_bootstrap).T
        assert np.mean((low <= rate) & (rate <= high)) < 0.85
