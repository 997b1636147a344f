"""Pair matrices against naive loops and independent implementations."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import hypergeom, pearsonr
from sklearn.metrics import top_k_accuracy_score

from hyper_bids import metrics, stats
from hyper_bids.metrics import predictions


@pytest.fixture
def pair(rng):
    """Return predictions that carry some signal, and their targets."""
    latents = rng.standard_normal((9, 14)).astype(np.float32)
    return (0.4 * latents + rng.standard_normal((9, 14))).astype(np.float32), latents


def each(function, predicted, targets):
    """Return ``function`` of each pair of rows, by a plain loop."""
    return np.array([[function(p, t) for t in targets] for p in predicted.astype(float)])


NAIVE = {
    "code": lambda p, t: 1 / (1 + sum((p - t) ** 2) / len(t)),
    "printed": lambda p, t: 1 / (1 + sum((p - t) ** 2) ** 0.5),
}


@pytest.mark.parametrize("variant", NAIVE)
@pytest.mark.parametrize("function", [metrics.latent_similarity, metrics.feature_similarity])
def test_similarity_is_the_formula_of_its_variant(function, variant, pair):
    predicted, latents = pair
    expected = each(NAIVE[variant], predicted, latents)
    found = function(predicted[:5], latents, variant)
    np.testing.assert_allclose(found, expected[:5], rtol=1e-12)
    assert found.dtype == np.float64


def test_similarity_of_equal_latents_is_exactly_one(pair):
    for variant in NAIVE:
        found = metrics.latent_similarity(pair[1], pair[1], variant)
        assert np.array_equal(np.diag(found), np.ones(9))


def test_predicting_zero_has_the_similarity_that_the_paper_s_distribution_implies(rng):
    # Latents N(0, 1) in 512 dimensions: mean square 1, so 1/2; printed form 1/(1 + sqrt(512)).
    latents = rng.standard_normal((200, 512))
    zero = np.zeros((200, 512))
    code = stats.score(metrics.latent_similarity(zero, latents, "code"))["value"]
    printed = stats.score(metrics.latent_similarity(zero, latents, "printed"))["value"]
    assert code == pytest.approx(0.5, abs=0.005)
    assert printed == pytest.approx(1 / (1 + np.sqrt(512)), abs=0.0005)


def test_cosine_is_that_of_each_pair_and_zero_for_zero_latents(pair):
    predicted, latents = pair
    predicted[2] = 0
    expected = each(
        lambda p, t: p @ t / max(np.linalg.norm(p) * np.linalg.norm(t), 1e-300), predicted, latents
    )
    np.testing.assert_allclose(metrics.latent_cosine(predicted, latents), expected, atol=1e-7)
    assert not metrics.latent_cosine(predicted, latents)[2].any()


def test_correlation_similarity_is_pearson_of_each_pair_of_patterns(pair):
    predicted, latents = pair
    expected = each(lambda p, t: pearsonr(p, t)[0], predicted, latents.astype(float))
    found = metrics.correlation_similarity(predicted[:4], latents)
    np.testing.assert_allclose(found, expected[:4], atol=1e-12)


def test_correlation_similarity_of_a_constant_pattern_is_zero(pair):
    predicted, latents = pair
    predicted[3], latents[5] = 0.1, -7.3
    found = metrics.correlation_similarity(predicted, latents)
    assert not found[3].any() and not found[:, 5].any()


def test_mean_diagonal_of_latent_correlation_is_mean_pearson_over_dimensions(pair):
    predicted, latents = pair
    r = [pearsonr(predicted[:, d], latents[:, d])[0] for d in range(14)]
    found = stats.score(metrics.latent_correlation(predicted, latents))["value"]
    assert found == pytest.approx(np.mean(r), abs=1e-7)
    np.testing.assert_allclose(metrics.per_dimension_correlation(predicted, latents), r, atol=1e-7)


def test_reordered_targets_reorder_the_columns_of_latent_correlation(pair, rng):
    predicted, latents = pair
    order = rng.permutation(9)
    found = metrics.latent_correlation(predicted, latents[order])
    np.testing.assert_allclose(
        found, metrics.latent_correlation(predicted, latents)[:, order], atol=1e-13
    )


def test_constant_prediction_counts_as_zero_and_constant_target_not_at_all(pair):
    predicted, latents = pair
    r = [pearsonr(predicted[:, d], latents[:, d])[0] for d in range(14)]
    predicted[:, 0] = 0.1
    latents[:, 1] = 0.7
    found = stats.score(metrics.latent_correlation(predicted, latents))["value"]
    assert found == pytest.approx((0 + sum(r[2:])) / 13, abs=1e-7)
    by_dimension = metrics.per_dimension_correlation(predicted, latents)
    assert np.isnan(by_dimension[:2]).all() and np.isfinite(by_dimension[2:]).all()


def test_rounding_of_a_constant_prediction_is_not_correlated(pair):
    _, latents = pair
    rounding = np.float32(0.3) * np.ones((9, 14), np.float32)
    rounding[::2] = np.nextafter(rounding[::2], np.float32(1))
    assert not metrics.latent_correlation(rounding, latents).any()
    assert not metrics.correlation_similarity(rounding.T, latents.T).any()


def test_correlation_of_latents_that_do_not_vary_is_undefined():
    one = metrics.latent_correlation(np.ones((1, 4)), np.ones((1, 4)))
    assert one.shape == (1, 1) and np.isnan(one).all()


def test_correlation_distance_equals_scipy_and_is_one_for_a_constant(pair):
    predicted, latents = pair
    found = metrics.correlation_distance(predicted, latents)
    np.testing.assert_allclose(found, cdist(predicted, latents, "correlation"), atol=1e-6)
    assert (metrics.correlation_distance(np.ones((2, 14)), latents) == 1).all()


@pytest.fixture(params=["distinct", "ties"])
def similarity(request, rng):
    """Return a similarity matrix of 7 predictions and 6 stimuli, with and without ties."""
    S = rng.standard_normal((7, 6))
    return S if request.param == "distinct" else np.round(S)


def test_two_way_is_the_fraction_of_less_similar_others(similarity):
    S, n = similarity, 6
    expected = np.array(
        [
            [
                sum((S[i, k] < S[i, j]) + 0.5 * (S[i, k] == S[i, j]) for k in range(n) if k != j)
                / (n - 1)
                for j in range(n)
            ]
            for i in range(7)
        ]
    )
    assert np.array_equal(metrics.two_way(S), expected)


def test_one_of_n_shares_the_hit_among_ties(similarity):
    expected = np.zeros((7, 6))
    for i, row in enumerate(similarity):
        best = np.flatnonzero(row == row.max())
        expected[i, best] = 1 / len(best)
    assert np.array_equal(metrics.one_of_n(similarity), expected)


def test_perfect_prediction_is_identified_always(pair):
    S = metrics.correlation_similarity(pair[1], pair[1])
    assert stats.score(metrics.two_way(S))["value"] == 1
    assert stats.score(metrics.one_of_n(S))["value"] == 1


@pytest.mark.parametrize("n", [2, 7, 36])
def test_constant_predictions_score_chance_exactly_with_p_one(n, rng):
    latents = rng.standard_normal((n, 20)).astype(np.float32)
    for constant in (rng.standard_normal(20), np.full(20, 0.1), np.zeros(20)):
        S = metrics.correlation_similarity(np.tile(constant, (n, 1)), latents)
        for M, chance in ((metrics.two_way(S), 0.5), (metrics.one_of_n(S), 1 / n)):
            value = stats.score(M)["value"]
            assert value == pytest.approx(chance, abs=1e-14)
            assert stats.p_value(value, stats.pairing_null(M, 499, rng)) == 1


def test_constant_predictions_score_p_one_in_every_latent_score(rng):
    latents = rng.standard_normal((12, 20)).astype(np.float32)
    constant = np.tile(rng.standard_normal(20).astype(np.float32), (12, 1))
    for M in (
        metrics.latent_similarity(constant, latents, "code"),
        metrics.latent_similarity(constant, latents, "printed"),
        metrics.latent_cosine(constant, latents),
        metrics.latent_correlation(constant, latents),
    ):
        assert stats.p_value(stats.score(M)["value"], stats.pairing_null(M, 499, rng)) == 1


def test_stimuli_with_equal_latents_tie_in_spite_of_rounding(rng):
    latents = np.repeat(rng.standard_normal((3, 50)), 2, axis=0)
    predicted = rng.standard_normal((6, 50))
    # Equal targets through another order of the sums.
    S = metrics.correlation_similarity(predicted, latents)
    S[:, 1::2] += 1e-15
    M = metrics.two_way(S)
    assert np.array_equal(M[:, ::2], M[:, 1::2])
    assert set(np.unique(metrics.one_of_n(S))) == {0, 0.5}


def test_identification_of_one_stimulus_is_undefined_two_way_and_certain_one_of_n():
    assert np.isnan(metrics.two_way(np.ones((1, 1)))).all()
    assert metrics.one_of_n(np.ones((1, 1))) == 1


def test_shapes_that_disagree_are_named_both():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        metrics.latent_similarity(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(3, 5\)"):
        metrics.latent_correlation(np.zeros((2, 5)), np.zeros((3, 5)))


def test_values_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.latent_cosine(np.full((2, 3), np.nan), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        metrics.two_way(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="'mse'"):
        metrics.latent_similarity(np.zeros((2, 3)), np.zeros((2, 3)), "mse")


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_is_the_mean_hit_over_orders_of_the_ties(k, similarity):
    rng = np.random.default_rng(6)
    expected = np.zeros((7, 6))
    n_orders = 4000
    for _ in range(n_orders):
        order = rng.permutation(6)
        best = np.argsort(-similarity[:, order], axis=1, kind="stable")[:, :k]
        np.put_along_axis(
            expected, order[best], np.take_along_axis(expected, order[best], 1) + 1, 1
        )
    found = metrics.top_k(similarity, k)
    np.testing.assert_allclose(found, expected / n_orders, atol=4 * 0.5 / np.sqrt(n_orders))
    np.testing.assert_allclose(found.sum(axis=1), k, rtol=1e-12)


def test_top_k_equals_scikit_learn_and_top_one_is_one_of_n(rng):
    S = rng.standard_normal((20, 20)) + np.eye(20)
    for k in (1, 3, 5):
        value = stats.score(metrics.top_k(S, k))["value"]
        assert value == pytest.approx(top_k_accuracy_score(np.arange(20), S, k=k), abs=1e-12)
    assert np.array_equal(metrics.top_k(S, 1), metrics.one_of_n(S))
    assert np.array_equal(metrics.top_k(np.round(S), 1), metrics.one_of_n(np.round(S)))


def test_retrieval_of_all_stimuli_is_one_of_n_in_both_directions(rng):
    S = rng.standard_normal((30, 30)) + 2 * np.eye(30)
    found = metrics.retrieval(S, rng)
    assert found.n_candidates == 30 and found.image.shape == found.brain.shape == (1,)
    assert found.image[0] == pytest.approx((S.argmax(axis=1) == np.arange(30)).mean(), abs=1e-12)
    assert found.brain[0] == pytest.approx((S.argmax(axis=0) == np.arange(30)).mean(), abs=1e-12)


def test_retrieval_draws_as_many_candidates_as_asked_and_differs_by_direction(rng):
    # Prediction 0 is the most similar to every image: images find it, and not their own.
    S = 2 * np.eye(40) + 0.1 * rng.standard_normal((40, 40))
    S[0] += 5
    found = metrics.retrieval(S, rng, n_draws=30, n_candidates=10)
    assert found.image.shape == (30,) and found.n_candidates == 10
    assert (found.image == 1).all()
    assert set(np.round(found.brain, 9)) == {0.1, 1.0}


def test_expected_retrieval_is_the_mean_of_many_draws(rng):
    S = np.round(2 * rng.standard_normal((25, 25)) + 2 * np.eye(25))
    found = metrics.retrieval(S, rng, n_draws=6000, n_candidates=8)
    for draws, M in ((found.image, S), (found.brain, S.T)):
        error = draws.std(ddof=1) / np.sqrt(6000)
        expected = stats.score(metrics.retrieval_expected(M, 8))["value"]
        assert abs(draws.mean() - expected) < 4 * error


def test_expected_retrieval_is_the_chance_that_no_better_target_is_drawn(rng):
    S = rng.standard_normal((4, 12))
    found = metrics.retrieval_expected(S, 5)
    for i, j in np.ndindex(4, 12):
        better = int((S[i] > S[i, j]).sum())
        assert found[i, j] == pytest.approx(hypergeom(11, better, 4).pmf(0), abs=1e-12)


def test_expected_retrieval_among_all_is_one_of_n_and_among_one_is_certain(similarity):
    for n_candidates in (6, 300):
        found = metrics.retrieval_expected(similarity, n_candidates)
        np.testing.assert_allclose(found, metrics.one_of_n(similarity), atol=1e-12)
    np.testing.assert_allclose(metrics.retrieval_expected(similarity, 1), 1, rtol=1e-12)


def test_constant_predictions_are_retrieved_at_chance_with_p_one(rng):
    S = np.tile(rng.standard_normal(20), (20, 1))
    drawn = metrics.retrieval(S, rng, n_draws=5, n_candidates=8)
    np.testing.assert_allclose([drawn.image, drawn.brain], 1 / 8, rtol=1e-12)
    for M, chance in (
        (metrics.top_k(S, 5), 5 / 20),
        (metrics.retrieval_expected(S, 8), 1 / 8),
        (metrics.retrieval_expected(S.T, 8), 1 / 8),
    ):
        value = stats.score(M)["value"]
        assert value == pytest.approx(chance, abs=1e-12)
        assert stats.p_value(value, stats.pairing_null(M, 499, rng)) == 1


def test_numbers_that_identification_cannot_take_are_refused(rng):
    S = rng.standard_normal((6, 6))
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"k of {k}; 1 to 6"):
            metrics.top_k(S, k)
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        metrics.retrieval(S[:4], rng)
    with pytest.raises(ValueError, match="0 draws of 3"):
        metrics.retrieval(S, rng, n_draws=0, n_candidates=3)
    with pytest.raises(ValueError, match="0 candidates"):
        metrics.retrieval_expected(S, 0)


def test_brain_retrieval_looks_for_the_prediction_of_a_stimulus_and_one_of_n_for_its_stimulus():
    S = np.array([[3, 2, 9], [1, 5, 0], [4, 4, 7]])
    pairs = predictions.identified("latents", S, np.zeros((3, 3)))
    assert np.diag(pairs["one_of_n_identification", "latents"][0]).tolist() == [0, 1, 1]
    found, constant = pairs["brain_retrieval", "latents"]
    # Column j is about stimulus j, whichever prediction it is paired with.
    assert found.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert constant.tolist() == np.full((3, 3), 1 / 3).tolist()
