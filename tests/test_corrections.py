"""Corrections for many tests: known families, simulated nulls, scipy."""

import numpy as np
import pytest
from scipy import stats as reference

from hyper_bids import metrics, stats


def family(rng, signal=0.0, n=10):
    """Return three pair matrices of the same predictions, on three scales."""
    latents = rng.standard_normal((n, 15))
    predicted = signal * latents + rng.standard_normal((n, 15))
    S = metrics.correlation_similarity(predicted, latents)
    return [100 * metrics.latent_similarity(predicted, latents), metrics.two_way(S), S]


def scored(matrices, rng, n=199):
    nulls = stats.pairing_nulls(matrices, n, rng)
    return np.array([stats.score(M)["value"] for M in matrices]), nulls


def test_smallest_corrected_p_is_uniform_where_no_metric_has_information():
    rng = np.random.default_rng(21)
    p = np.array([stats.max_statistic(*scored(family(rng), rng)).min() for _ in range(500)])
    assert reference.kstest(p - rng.uniform(0, 1 / 200, 500), "uniform").pvalue > 0.01


def test_corrected_p_equals_a_plain_count_of_largest_standardised_scores(rng):
    observed, nulls = scored(family(rng, 0.2), rng)
    every = np.column_stack([observed, nulls])
    z = np.array([(row - row.mean()) / row.std() for row in every])
    expected = [(1 + sum(z[:, 1:].max(axis=0) >= own - 1e-9)) / 200 for own in z[:, 0]]
    np.testing.assert_allclose(stats.max_statistic(observed, nulls), expected, rtol=1e-12)


def test_one_test_is_not_corrected(rng):
    observed, nulls = scored(family(rng, 0.2)[:1], rng)
    assert stats.max_statistic(observed, nulls)[0] == stats.p_value(observed[0], nulls[0])


def test_corrected_p_is_never_below_p_and_a_planted_effect_is_found(rng):
    observed, nulls = scored(family(rng, 1.0, n=20), rng)
    alone = [stats.p_value(*pair) for pair in zip(observed, nulls, strict=True)]
    corrected = stats.max_statistic(observed, nulls)
    assert (corrected >= alone).all() and (corrected == 1 / 200).all()


def test_equal_tests_cost_nothing_and_independent_ones_do(rng):
    one, null = scored(family(rng, 0.4)[2:], rng, 999)
    alone = stats.p_value(one[0], null[0])
    copies = stats.max_statistic(np.repeat(one, 5), np.repeat(null, 5, axis=0))
    np.testing.assert_allclose(copies, alone, rtol=1e-12)
    others = rng.standard_normal((19, 1000))
    found = stats.max_statistic(np.append(one, others[:, 0]), np.concatenate([null, others[:, 1:]]))
    # 20 independent tests: 1 - (1 - p)^20.
    assert found[0] == pytest.approx(1 - (1 - alone) ** 20, abs=0.06)


def test_constant_and_undefined_scores_have_no_part_in_the_largest_statistic(rng):
    observed, nulls = scored(family(rng, 0.5), rng)
    constant = 0.5 * (1 + 1e-9 * rng.standard_normal(199))
    found = stats.max_statistic(
        np.append(observed, [0.5, np.nan]), np.vstack([nulls, constant, nulls[0]])
    )
    assert np.array_equal(found[:3], stats.max_statistic(observed, nulls))
    assert found[3] == 1 and np.isnan(found[4])
    assert (stats.max_statistic(np.ones(2), np.ones((2, 9))) == 1).all()


@pytest.mark.parametrize("sizes", [(5,), (2, 1, 4), (1,) * 6])
def test_p_corrected_in_parts_is_that_of_one_array_with_all_tests(rng, sizes):
    parts = []
    for size in sizes:
        nulls = rng.normal(size=(size, 300)) * rng.uniform(0.1, 10, (size, 1)) + 3
        parts.append((nulls.mean(axis=1) + rng.uniform(0, 3, size) * nulls.std(axis=1), nulls))
    parts[0][1][0, 7] = np.nan
    parts[-1][1][-1] = parts[-1][0][-1]  # the same however stimuli are shuffled
    found = stats.max_statistic_of_parts(iter(parts))
    together = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    expected = stats.max_statistic(*together)
    np.testing.assert_allclose(np.concatenate(found), expected)
    assert np.isnan(found[0][0])
    assert found[-1][-1] == 1


def test_p_corrected_where_no_score_varies_is_one():
    parts = [(np.full(2, 0.5), np.full((2, 9), 0.5))] * 2
    assert np.array_equal(stats.max_statistic_of_parts(parts), np.ones((2, 2)))
    assert stats.max_statistic_of_parts([]) == []


def test_different_numbers_of_permutations_cannot_be_corrected_together(rng):
    parts = [(np.zeros(1), rng.normal(size=(1, n))) for n in (20, 30)]
    with pytest.raises(ValueError, match="30 permutations beside 20"):
        stats.max_statistic_of_parts(parts)


def test_false_discovery_equals_scipy(rng):
    p = np.concatenate([rng.uniform(0, 0.01, 30), rng.uniform(size=70), [0.5, 0.5, 1.0]])
    rng.shuffle(p)
    np.testing.assert_allclose(
        stats.false_discovery(p), reference.false_discovery_control(p), rtol=1e-12
    )


def test_false_discovery_leaves_out_what_was_not_tested_and_keeps_the_shape(rng):
    p = rng.uniform(size=(4, 5))
    with_gaps = p.copy()
    with_gaps[1] = np.nan
    found = stats.false_discovery(with_gaps)
    assert found.shape == (4, 5) and np.isnan(found[1]).all()
    kept = np.delete(p, 1, axis=0).ravel()
    np.testing.assert_allclose(
        np.delete(found, 1, axis=0).ravel(), reference.false_discovery_control(kept), rtol=1e-12
    )
    assert not stats.false_discovery(np.array([])).size


def test_fraction_of_false_discoveries_is_what_was_asked_for():
    rng = np.random.default_rng(4)
    false = []
    for _ in range(300):
        z = rng.standard_normal(100)
        z[:30] += 3
        found = stats.false_discovery(reference.norm.sf(z)) <= 0.2
        false.append(found[30:].sum() / max(found.sum(), 1))
    # Of m tests, m0 with no effect: exactly q m0 / m = 0.14 for independent tests.
    assert np.mean(false) == pytest.approx(0.14, abs=4 * np.std(false) / np.sqrt(300))


def test_numbers_that_cannot_be_corrected_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2, 9\)"):
        stats.max_statistic(np.zeros(3), np.zeros((2, 9)))
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        stats.max_statistic(np.zeros(2), np.zeros((2, 0)))
    with pytest.raises(ValueError, match=r"-0\.1 to 0\.5"):
        stats.false_discovery(np.array([-0.1, 0.5]))
