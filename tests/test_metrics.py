"""Pair matrices against naive loops and independent implementations."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from skimage.metrics import structural_similarity as skimage_ssim

from hyper_bids import metrics, stats


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


@pytest.fixture
def images(rng):
    """Return images that share structure, with flat and extreme ones among them."""
    base = rng.integers(0, 256, (4, 19, 23, 3))
    noise = rng.integers(-60, 60, (4, 19, 23, 3))
    first = np.clip(base, 0, 255).astype(np.uint8)
    second = np.clip(base + noise, 0, 255).astype(np.uint8)
    first[2], second[2] = 0, 255
    second[3] = 255
    first[3, ::2] = 255
    return first, second


def test_structural_similarity_equals_skimage_for_all_pairs(images):
    first, second = images
    expected = [[skimage_ssim(a, b, channel_axis=-1) for b in second] for a in first]
    np.testing.assert_allclose(metrics.structural_similarity(first, second), expected, atol=1e-10)


def test_structural_similarity_does_not_depend_on_threads_or_bands(images, monkeypatch):
    first, second = images
    whole = metrics.structural_similarity(first[:2], second, n_threads=1)
    assert whole.shape == (2, 4)
    assert np.array_equal(metrics.structural_similarity(first[:2], second, n_threads=3), whole)
    monkeypatch.setattr(metrics, "_BAND_BYTES", 1)
    np.testing.assert_allclose(metrics.structural_similarity(first[:2], second), whole, atol=1e-13)


def test_structural_similarity_of_an_image_with_itself_is_one(images):
    found = metrics.structural_similarity(images[0], images[0])
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-14)


def test_shapes_that_disagree_are_named_both(images):
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        metrics.latent_similarity(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(3, 5\)"):
        metrics.latent_correlation(np.zeros((2, 5)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"\(4, 19, 23, 3\).*\(4, 19, 20, 3\)"):
        metrics.structural_similarity(images[0], images[1][:, :, :20])
    with pytest.raises(ValueError, match="6 x 23"):
        metrics.structural_similarity(images[0][:, :6], images[1][:, :6])
    with pytest.raises(ValueError, match="float64"):
        metrics.structural_similarity(images[0] / 255, images[1])


def test_values_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.latent_cosine(np.full((2, 3), np.nan), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        metrics.two_way(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="'mse'"):
        metrics.latent_similarity(np.zeros((2, 3)), np.zeros((2, 3)), "mse")
