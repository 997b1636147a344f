"""Noise ceilings and signs of collapse against planted truths."""

import numpy as np
import pytest

from hyper_bids import metrics, stats


def repeats(rng, n_repeats, n_columns=1500, signal=1.0, noise=2.0):
    """Return responses with planted signal and noise, their stimuli, and the signal."""
    truth = signal * rng.standard_normal((len(n_repeats), n_columns))
    stimulus = rng.permutation(np.repeat(np.arange(len(n_repeats)), n_repeats))
    values = truth[stimulus] + noise * rng.standard_normal((len(stimulus), n_columns))
    return values, stimulus, truth


@pytest.mark.parametrize("n_repeats", [(6,) * 60, (5,) * 60, (4,) * 30 + (9,) * 30])
def test_split_half_finds_the_planted_reliability(n_repeats, rng):
    values, stimulus, truth = repeats(rng, n_repeats)
    found = stats.split_half(values, stimulus, rng, n_splits=10)
    expected = 1 / (1 + 4 * np.mean(1 / np.array(n_repeats)))
    assert found.reliability.mean() == pytest.approx(expected, abs=0.015)
    assert found.n_stimuli == 60
    # The ceiling is what the planted signal itself reaches.
    means = np.stack([values[stimulus == s].mean(axis=0) for s in range(60)])
    reached = metrics.per_dimension_correlation(truth, means).mean()
    assert found.ceiling.mean() == pytest.approx(reached, abs=0.015)


def test_split_half_is_about_cronbachs_alpha(rng):
    values, stimulus, _ = repeats(rng, (8,) * 40, n_columns=5)
    by_repeat = np.stack([values[stimulus == s] for s in range(40)])
    total = by_repeat.sum(axis=1).var(axis=0, ddof=1)
    alpha = 8 / 7 * (1 - by_repeat.var(axis=0, ddof=1).sum(axis=0) / total)
    found = stats.split_half(values, stimulus, rng, n_splits=300)
    np.testing.assert_allclose(found.reliability, alpha, atol=0.015)


def test_halves_are_disjoint_equal_in_size_and_random(rng):
    # A column a trial: a mean of halves names the trials in it.
    stimulus = np.repeat([7, 3, 5], [4, 5, 1])
    first, second = stats.half_means(np.eye(10), stimulus, rng)
    assert first.shape == second.shape == (2, 10)
    for row, (numbers, half) in enumerate((([4, 5, 6, 7, 8], 2), ([0, 1, 2, 3], 2))):
        for means in (first, second):
            inside = np.flatnonzero(means[row])
            assert set(inside) <= set(numbers) and (means[row][inside] == 1 / half).all()
            assert len(inside) == half
        assert not (first[row] * second[row]).any()
    drawn = [tuple(np.flatnonzero(stats.half_means(np.eye(10), stimulus, rng)[0][1]))
             for _ in range(300)]  # fmt: skip
    assert len(set(drawn)) == 6


def test_one_split_is_corrcoef_of_the_half_means(rng):
    values, stimulus, _ = repeats(rng, (4,) * 9, n_columns=3)
    found = stats.split_half(values, stimulus, np.random.default_rng(5), n_splits=1)
    first, second = stats.half_means(values, stimulus, np.random.default_rng(5))
    r = [np.corrcoef(first[:, c], second[:, c])[0, 1] for c in range(3)]
    np.testing.assert_allclose(found.halves, r, atol=1e-12)
    expected = [2 * x / (1 + x) if x > 0 else x for x in r]
    np.testing.assert_allclose(found.reliability, expected, atol=1e-12)


def test_noise_has_no_reliability(rng):
    values, stimulus, _ = repeats(rng, (6,) * 40, signal=0.0)
    found = stats.split_half(values, stimulus, rng, n_splits=10)
    assert abs(found.halves.mean()) < 0.02
    assert (found.ceiling >= 0).all() and (found.ceiling[found.halves < 0] == 0).all()
    assert abs(stats.leave_one_repeat_out(values, stimulus).mean()) < 0.02


def test_leaving_one_repeat_out_finds_the_planted_correlation(rng):
    n = 6
    values, stimulus, _ = repeats(rng, (n,) * 60)
    found = stats.leave_one_repeat_out(values, stimulus)
    expected = 1 / np.sqrt((1 + 4) * (1 + 4 / (n - 1)))
    assert found.mean() == pytest.approx(expected, abs=0.015)


def test_leaving_one_repeat_out_equals_a_plain_loop(rng):
    values, stimulus, _ = repeats(rng, (3, 4, 3, 5, 1), n_columns=4)
    expected = []
    for repeat in range(3):
        one, rest = [], []
        for s in range(4):
            own = values[stimulus == s]
            one.append(own[repeat])
            rest.append(np.delete(own, repeat, axis=0).mean(axis=0))
        one, rest = np.array(one), np.array(rest)
        expected.append([np.corrcoef(one[:, c], rest[:, c])[0, 1] for c in range(4)])
    np.testing.assert_allclose(
        stats.leave_one_repeat_out(values, stimulus), np.mean(expected, axis=0), atol=1e-12
    )


def test_ceilings_of_single_trials_or_of_two_stimuli_are_undefined(rng):
    values = rng.standard_normal((6, 2))
    for stimulus in (np.arange(6), np.array([0, 0, 0, 1, 1, 1])):
        found = stats.split_half(values, stimulus, rng)
        assert np.isnan(found.reliability).all() and np.isnan(found.ceiling).all()
        assert np.isnan(stats.leave_one_repeat_out(values, stimulus)).all()
    constant = stats.split_half(np.ones((12, 1)), np.repeat(np.arange(4), 3), rng, n_splits=3)
    assert np.isnan(constant.reliability).all()


def test_trials_without_a_stimulus_are_refused(rng):
    for function in (stats.half_means, stats.split_half):
        with pytest.raises(ValueError, match=r"\(4, 2\).*\(3,\)"):
            function(np.zeros((4, 2)), np.zeros(3), rng)
    with pytest.raises(ValueError, match="0 splits"):
        stats.split_half(np.zeros((4, 2)), np.zeros(4), rng, n_splits=0)


def test_identification_between_halves_is_the_ceiling_of_predicted_latents(rng):
    # Predictions that repeat exactly identify each other; noise does so by chance.
    stimulus = np.repeat(np.arange(12), 4)
    exact = rng.standard_normal((12, 30))[stimulus]
    noise = rng.standard_normal((48, 30))
    for values, low, high in ((exact, 1, 1), (noise, 0.3, 0.7)):
        first, second = stats.half_means(values, stimulus, rng)
        S = metrics.correlation_similarity(first, second)
        assert low <= stats.score(metrics.two_way(S))["value"] <= high


def test_participation_ratio_is_that_of_the_eigenvalues_of_the_covariance(rng):
    for shape in ((36, 100), (50, 8)):
        values = rng.standard_normal(shape) * rng.uniform(0.1, 3, shape[1]) + 5
        eigenvalues = np.linalg.eigvalsh(np.cov(values.T))
        expected = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
        assert stats.participation_ratio(values) == pytest.approx(expected, rel=1e-9)


def test_participation_ratio_counts_planted_dimensions(rng):
    basis = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    scores = np.linalg.qr(rng.standard_normal((200, 5)) - 0.0)[0]
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]
    for d in (1, 3, 5):
        assert stats.participation_ratio(scores[:, :d] @ basis[:d] + 7) == pytest.approx(d)
    for constant in (0.1, 1e6 / 3):
        assert stats.participation_ratio(np.full((9, 4), constant)) == 0


def test_collapsed_predictions_show_in_variance_and_dimension(rng):
    targets = rng.standard_normal((36, 60))
    basis = np.linalg.qr(rng.standard_normal((60, 2)))[0]
    found = stats.spread(targets @ basis @ basis.T, targets)
    assert found.dimension <= 2 and found.target_dimension > 15
    assert found.variance == pytest.approx(2 / 60, abs=0.015)
    assert found.target_variance == pytest.approx(1, abs=0.1)
    assert stats.spread(targets, targets).dimension == found.target_dimension
    constant = stats.spread(np.ones((36, 60)), targets)
    assert constant.variance == constant.dimension == 0
    assert np.isnan(stats.spread(targets[:1], targets[:1]).variance)


def test_training_latents_said_again_are_found_out(rng):
    training, targets = rng.standard_normal((50, 30)), rng.standard_normal((8, 30))
    said = np.array([3, 3, 17, 3, 40, 3, 17, 3])
    for source, nearer in ((training[said], 1), (targets, 0)):
        predicted = source + 0.3 * rng.standard_normal((8, 30))
        found = stats.nearest_training(
            metrics.correlation_similarity(predicted, training),
            metrics.correlation_similarity(predicted, targets),
        )
        assert found.nearer == nearer
        if nearer:
            assert np.array_equal(found.index, said) and found.n_distinct == 3
        expected = [np.corrcoef(predicted[i], training[found.index[i]])[0, 1] for i in range(8)]
        np.testing.assert_allclose(found.similarity, expected, atol=1e-12)
        own = [np.corrcoef(predicted[i], targets[i])[0, 1] for i in range(8)]
        np.testing.assert_allclose(found.own, own, atol=1e-12)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        stats.spread(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"\(3, 9\).*\(4, 4\)"):
        stats.nearest_training(np.zeros((3, 9)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="finite"):
        stats.participation_ratio(np.full((2, 2), np.nan))
