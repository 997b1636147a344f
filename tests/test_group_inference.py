"""Means over participants, comparisons of methods, prevalence: planted truths, known formulas."""

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from hyper_bids import stats
from hyper_bids.stats import intervals

LEVEL = 0.9


def coverage(make, n_sets, rng, interval=None):
    """Return how often intervals of made sets hold their true mean, 0."""
    found = interval or (lambda x: stats.group_interval(x, rng, n=600, level=LEVEL))
    bounds = [found(make()) for _ in range(n_sets)]
    return np.mean([b.low <= 0 <= b.high for b in bounds])


def crossed(rng, shape, participant=0.0, stimulus=0.0, noise=0.1):
    """Return scores with effects of participants and of stimuli that all share."""
    people = participant * rng.standard_normal((shape[0], 1))
    return people + stimulus * rng.standard_normal(shape[1]) + noise * rng.standard_normal(shape)


def test_interval_over_shared_stimuli_covers_as_often_as_it_says_and_a_naive_one_does_not():
    rng = np.random.default_rng(31)

    def make():
        return crossed(rng, (3, 24), stimulus=0.2)

    def naive(values):
        _, low, high = stats.bootstrap_interval(values.ravel(), rng, n=600, level=LEVEL)
        return stats.GroupMean(0, 0, low, high, "stimuli")

    error = 3 * np.sqrt(LEVEL * (1 - LEVEL) / 500)
    assert abs(coverage(make, 500, rng) - LEVEL) < error
    assert coverage(make, 500, rng, naive) < 0.8


@pytest.mark.parametrize("participant, stimulus", [(0.2, 0.1), (0.1, 0.3)])
def test_interval_over_people_and_stimuli_covers_both(participant, stimulus):
    rng = np.random.default_rng(32)

    def make():
        return crossed(rng, (8, 24), participant, stimulus)

    error = 3 * np.sqrt(LEVEL * (1 - LEVEL) / 500)
    # Wide is allowed for where stimuli vary most: the tails are those of 8 participants.
    assert LEVEL - error < coverage(make, 500, rng) < 0.97


def test_interval_generalises_to_people_from_six_participants_on(rng):
    values = crossed(rng, (6, 10), participant=1.0)
    few, many = stats.group_interval(values[:5], rng), stats.group_interval(values, rng)
    assert few.over == "stimuli" and many.over == "stimuli and participants"
    assert many.se > 3 * few.se


def test_interval_of_one_participant_is_about_the_t_interval_of_their_stimuli(rng):
    values = rng.standard_normal((1, 30))
    found = stats.group_interval(values, rng, n=40_000)
    mean, low, high = stats.mean_interval(values[0])
    assert found.value == pytest.approx(mean)
    assert found.se == pytest.approx(reference.sem(values[0]), rel=0.02)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * found.se)


def test_standard_error_over_people_and_stimuli_is_that_of_the_pigeonhole_bootstrap(rng):
    values = crossed(rng, (9, 15), 0.2, 0.2)
    found = stats.group_interval(values, rng, n=40_000)
    draws = []
    for _ in range(4000):
        rows, columns = rng.integers(0, 9, 9), rng.integers(0, 15, 15)
        draws.append(values[np.ix_(rows, columns)].mean())
    assert found.se == pytest.approx(np.std(draws) * np.sqrt(9 / 8), rel=0.05)


def test_stimuli_that_some_did_not_see_count_for_those_who_did(rng):
    values = crossed(rng, (2, 12), stimulus=1.0)
    values[0, :4], values[1, 8:] = np.nan, np.nan
    found = stats.group_interval(values, rng, n=20_000)
    assert found.value == pytest.approx((values[0, 4:].mean() + values[1, :8].mean()) / 2)
    draws = []
    for _ in range(4000):
        own = values[:, rng.integers(0, 12, 12)]
        draws.append(np.nanmean(own, axis=1).mean())
    assert found.se == pytest.approx(np.std(draws) * np.sqrt(12 / 11), rel=0.06)


def test_who_saw_no_stimulus_of_a_resample_has_no_part_in_it(rng):
    values = 5 + crossed(rng, (2, 4), stimulus=0.1)
    values[0, 1:] = np.nan
    found = stats.group_interval(values, rng, n=20_000)
    own = [values[:, rng.integers(0, 4, 4)] for _ in range(4000)]
    draws = [np.mean([np.nanmean(row) for row in x if np.isfinite(row).any()]) for x in own]
    assert found.se == pytest.approx(np.std(draws) * np.sqrt(4 / 3), rel=0.1)


def test_interval_does_not_depend_on_how_much_is_held(rng, monkeypatch):
    values = crossed(rng, (7, 11), 0.1)
    whole = stats.group_interval(values, np.random.default_rng(2), n=4000)
    monkeypatch.setattr(intervals, "_BLOCK", 200)
    found = stats.group_interval(values, np.random.default_rng(2), n=4000)
    # Draws come in another order.
    assert found.value == whole.value and found.se == pytest.approx(whole.se, rel=0.1)


def test_one_stimulus_has_no_interval_and_missing_rows_are_refused(rng):
    found = stats.group_interval(np.array([[0.2], [0.4]]), rng)
    assert found.value == pytest.approx(0.3) and np.isnan([found.se, found.low, found.high]).all()
    for values in (np.zeros(3), np.zeros((0, 2)), np.array([[1.0, np.nan], [2.0, np.nan]])):
        with pytest.raises(ValueError, match="n_participants"):
            stats.group_interval(values, rng)


def test_sign_flips_of_few_differences_are_every_pattern_once(rng):
    differences = rng.standard_normal(5)
    signs = itertools.product((1, -1), repeat=5)
    expected = sorted(np.mean(s * differences) for s in map(np.array, signs))
    null = stats.sign_flip_null(differences, 31, rng)
    assert len(null) == 31
    np.testing.assert_allclose(sorted([*null, differences.mean()]), expected, atol=1e-12)
    assert len(stats.sign_flip_null(differences, 30, rng)) == 30


@pytest.mark.parametrize("shape", [(2, 9), (2, 30), (8, 20)])
def test_comparison_equals_scipy_permutation_test_of_signs(shape, rng):
    second = crossed(rng, shape, 0.1, 0.2)
    first = second + 0.02 + 0.1 * rng.standard_normal(shape)
    found = stats.paired_comparison(first, second, rng, n_permutations=9999)
    units = (first - second).mean(axis=1 if shape[0] == 8 else 0)
    expected = reference.permutation_test(
        (units,), np.mean, permutation_type="samples", n_resamples=9999, rng=1
    ).pvalue
    assert found.p == pytest.approx(expected, abs=4 * np.sqrt(expected / 9999))
    assert found.difference.value == pytest.approx((first - second).mean())


def test_p_of_the_comparison_is_uniform_where_methods_are_alike():
    rng = np.random.default_rng(33)
    p = []
    for _ in range(500):
        first, second = crossed(rng, (2, 20)), crossed(rng, (2, 20))
        null = stats.sign_flip_null((first - second).mean(axis=0), 199, rng)
        p.append(stats.p_value(abs((first - second).mean()), np.abs(null)))
    assert reference.kstest(np.array(p) - rng.uniform(0, 1 / 200, 500), "uniform").pvalue > 0.01


def test_a_better_method_is_found_and_the_sign_says_which(rng):
    second = crossed(rng, (2, 36), stimulus=0.5)
    first = second + 0.1 + 0.1 * rng.standard_normal((2, 36))
    for a, b, sign in ((first, second, 1), (second, first, -1)):
        found = stats.paired_comparison(a, b, rng)
        assert found.p == 1e-4
        assert min(sign * found.difference.low, sign * found.difference.high) > 0


def test_equal_methods_have_no_difference_and_p_one(rng):
    scores = crossed(rng, (2, 12))
    found = stats.paired_comparison(scores, scores, rng)
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert found.p == 1


def test_scores_that_do_not_pair_are_refused(rng):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        stats.paired_comparison(np.zeros((2, 3)), np.zeros((2, 4)), rng)
    gap = np.array([[0.0, np.nan, 1.0]])
    with pytest.raises(ValueError, match="missing"):
        stats.paired_comparison(gap, np.zeros((1, 3)), rng)
    with pytest.raises(ValueError, match=r"\(0,\)"):
        stats.sign_flip_null(np.zeros(0), 9, rng)


def posterior(k, n, alpha):
    """Return a grid of fractions and their posterior, by Bayes' rule."""
    g = np.linspace(0, 1, 200_001)
    density = reference.binom(n, alpha + (1 - alpha) * g).pmf(k)
    return g, density / density.sum()


@pytest.mark.parametrize("k, n", [(0, 2), (2, 2), (3, 5), (8, 8), (1, 8)])
def test_prevalence_is_the_posterior_by_bayes_rule(k, n):
    p = np.where(np.arange(n) < k, 0.001, 0.6)
    found = stats.prevalence(p, alpha=0.05, level=0.9)
    g, density = posterior(k, n, 0.05)
    assert (found.k, found.n) == (k, n)
    assert found.value == pytest.approx(g[density.argmax()], abs=1e-4)
    # The highest density region: the most probable fractions, up to the level.
    order = np.argsort(-density, kind="stable")
    region = g[order[: np.searchsorted(np.cumsum(density[order]), 0.9) + 1]]
    assert (found.low, found.high) == pytest.approx((region.min(), region.max()), abs=2e-3)


def test_prevalence_interval_covers_the_planted_fraction_on_average_over_its_prior():
    rng = np.random.default_rng(34)
    held = []
    known = {}
    for _ in range(2000):
        g = rng.uniform()
        informed = rng.uniform(size=6) < g
        p = np.where(informed, 0.001, rng.uniform(size=6))
        k = int((p <= 0.05).sum())
        if k not in known:
            known[k] = stats.prevalence(p, level=LEVEL)
        held.append(known[k].low <= g <= known[k].high)
    assert np.mean(held) == pytest.approx(LEVEL, abs=3 * np.sqrt(LEVEL * (1 - LEVEL) / 2000))


def test_information_prevalence_has_the_published_closed_form_where_nulls_are_alike(rng):
    null = rng.standard_normal(999)
    observed = np.array([3.5, 2.0, 4.0])
    one = stats.p_value(2.0, null)
    found = stats.information_prevalence(observed, [null] * 3, alpha=0.05)
    # Allefeld et al. 2016: by one participant's share of the p value of the global null.
    assert found.p_global == pytest.approx(one**3, rel=1e-12)
    assert found.p_majority == pytest.approx((0.5 * one + 0.5) ** 3, rel=1e-12)
    expected = (0.05 ** (1 / 3) - one) / (1 - one)
    assert found.bound == pytest.approx(expected, abs=1e-9)


def test_global_p_counts_all_combinations_of_the_participants_permutations(rng):
    nulls = rng.standard_normal((2, 30)) * np.array([[1.0], [2.0]])
    observed = np.array([1.1, 0.9])
    every = np.minimum.outer(np.append(nulls[0], 9), np.append(nulls[1], 9))
    found = stats.information_prevalence(observed, nulls)
    assert found.p_global == pytest.approx((every >= 0.9).mean(), rel=1e-12)


def test_global_p_is_uniform_where_nobody_has_information():
    rng = np.random.default_rng(35)
    p = []
    for _ in range(500):
        matrices = rng.standard_normal((3, 9, 9))
        nulls = [stats.pairing_null(M, 199, rng) for M in matrices]
        observed = np.array([stats.score(M)["value"] for M in matrices])
        p.append(stats.information_prevalence(observed, nulls).p_global)
    assert reference.kstest(p, "uniform").pvalue > 0.01


def test_majority_null_is_kept_where_half_of_all_people_have_the_effect():
    rng = np.random.default_rng(36)
    rejected, n_sets = 0, 500
    for _ in range(n_sets):
        observed = rng.standard_normal(8) + np.where(rng.uniform(size=8) < 0.5, 8, 0)
        nulls = [rng.standard_normal(199) for _ in range(8)]
        rejected += stats.information_prevalence(observed, nulls).p_majority <= 0.05
    assert rejected / n_sets < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_sets)


def test_one_participant_without_effect_takes_the_bound_away(rng):
    nulls = [rng.standard_normal(999) for _ in range(4)]
    assert stats.information_prevalence(np.full(4, 9.0), nulls).bound > 0.4
    found = stats.information_prevalence(np.array([9.0, 9.0, 9.0, -0.5]), nulls)
    assert np.isnan(found.bound) and found.p_global > 0.05
    undefined = stats.information_prevalence(np.array([np.nan, 1.0]), nulls[:2])
    assert np.isnan([undefined.p_global, undefined.p_majority, undefined.bound]).all()


def test_prevalence_of_nobody_is_refused():
    with pytest.raises(ValueError, match=r"\(0,\)"):
        stats.prevalence(np.zeros(0))
    with pytest.raises(ValueError, match="alpha 1"):
        stats.prevalence(np.zeros(2), alpha=1)
    with pytest.raises(ValueError, match="1 nulls"):
        stats.information_prevalence(np.zeros(2), [np.zeros(9)])
