"""Decoders by inversion of a model, and by combination, against planted truth and brute force."""

import json

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from hyper_bids import decode, metrics
from hyper_bids.decode import bayes, combined, noise


def responses(rng, n, ratio, n_latents, correlation=None):
    """Return latents, responses of noise variance 1, and weights of variance ``ratio``."""
    latents = rng.standard_normal((n, n_latents))
    weights = rng.standard_normal((n_latents, len(ratio))) * np.sqrt(ratio)
    error = rng.standard_normal((n, len(ratio)))
    if correlation is not None:
        error = error @ np.linalg.cholesky(correlation).T
    return latents, latents @ weights + error, weights


def neighbours(side, r):
    """Return places on a square and correlations r^distance."""
    places = np.stack(np.unravel_index(np.arange(side**2), (side, side)), axis=1).astype(float)
    return places, r ** np.linalg.norm(places[:, None] - places, axis=2)


def trained(rng, n=60, side=8, n_latents=10):
    ratio = rng.lognormal(-3, 1, side**2)
    places, correlation = neighbours(side, 0.4)
    latents, betas, weights = responses(rng, n, ratio, n_latents, correlation)
    return betas.astype(np.float32), latents.astype(np.float32), weights, places, correlation


def test_conjugate_gradients_are_an_exact_solution(rng):
    _, R = neighbours(6, 0.4)
    loadings = rng.standard_normal((36, 2)).astype(np.float32)
    from scipy.sparse import csr_array

    found = noise.NoiseCorrelation(loadings, csr_array(R.astype(np.float32)))
    rhs = rng.standard_normal((36, 5))
    rhs[:, 2] = 0
    diagonal = rng.uniform(0, 20, (36, 5))
    x = found.solve(diagonal, rhs)
    for k in range(5):
        exact = np.linalg.solve(R + loadings @ loadings.T + np.diag(diagonal[:, k]), rhs[:, k])
        np.testing.assert_allclose(x[:, k], exact, atol=2e-4 * np.abs(rhs).max())


def brute_force(T, X, ratio, prior, repeats):
    """Return the map to the posterior mean, with the weights' joint posterior written out."""
    n, n_latents = T.shape
    n_voxels = X.shape[1]
    # Of vec: weights (voxel by voxel), and responses. Mean responses are taken off both sides.
    centre = np.eye(n) - 1 / n
    mean, doubt = np.empty((n_latents, n_voxels)), np.empty(n_voxels)
    for v in range(n_voxels):
        precision = T.T @ centre @ T + np.eye(n_latents) / ratio[v]
        mean[:, v] = np.linalg.solve(precision, T.T @ X[:, v])
        doubt[v] = np.trace(prior @ np.linalg.inv(precision))
    N = np.diag(1 / repeats + doubt)
    # Covariance of a test response, and of the latents with it.
    return np.linalg.solve(mean.T @ prior @ mean + N, mean.T @ prior)


@pytest.mark.parametrize("shape", [(30, 4), (9, 12)])
def test_inversion_with_known_variances_is_the_posterior_mean(shape, rng, monkeypatch):
    ratio = rng.uniform(0.05, 1, 20)
    T, X, _ = responses(rng, shape[0], ratio, shape[1])
    T = (T - T.mean(axis=0)) / T.std(axis=0)
    X = (X - X.mean(axis=0)).astype(np.float32)
    from scipy.sparse import eye_array

    ones = np.ones(20, np.float32)
    independent = noise.NoiseCorrelation(ones[:, None][:, :0], eye_array(20, dtype="f4").tocsr())
    monkeypatch.setattr(bayes, "signal_to_noise", lambda Z, power: (ratio.astype("f4"), ones))
    monkeypatch.setattr(noise, "estimate", lambda *_: independent)
    prior, _ = bayes.shrunk_correlation(T)
    maps, _ = bayes.invert(X, T, (1, 14), None)
    for repeats, found in zip((1, 14), maps, strict=True):
        exact = brute_force(T, X, ratio, prior, repeats)
        np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


def test_posterior_mean_of_weights_uses_the_noise_that_voxels_share(rng):
    # With correlated noise, a voxel's weights are also told by the noise of its neighbours.
    betas, latents, weights, places, correlation = trained(rng)
    test = rng.standard_normal((2000, 10))
    shown = test @ weights + rng.standard_normal((2000, 64)) @ np.linalg.cholesky(correlation).T
    error = {}
    for name, where in (("near", places), ("shuffled", rng.permutation(places))):
        decoder = decode.fit("bayes", betas, latents, rng, {"places": where})
        error[name] = np.square(decode.predict(decoder, shown) - test).mean()
    ridge = decode.predict(decode.fit("ridge", betas, latents, rng), shown)
    assert error["near"] < 0.97 * error["shuffled"]
    assert error["near"] < 0.95 * np.square(ridge - test).mean()


def test_rotation_gives_back_the_latents_and_rows_without_any(rng):
    for shape in ((20, 5), (12, 30)):
        T = rng.standard_normal(shape)
        T -= T.mean(axis=0)
        size, rows, axes = bayes.rotate(T)
        seen = size > 0
        assert seen.sum() == min(shape[0] - 1, shape[1])
        np.testing.assert_allclose(rows[:, seen] * size[seen] @ axes, T, atol=1e-10)
        np.testing.assert_allclose(rows.T @ rows, np.eye(shape[0] - 1), atol=1e-10)
        np.testing.assert_allclose(rows.sum(axis=0), 0, atol=1e-10)


def test_planted_signal_and_noise_of_voxels_are_found(rng):
    ratio = np.repeat([0.0, 0.002, 0.01, 0.05], 100)
    T, X, _ = responses(rng, 400, ratio, 80)
    T -= T.mean(axis=0)
    size, rows, _ = bayes.rotate(T)
    found, sd = bayes.signal_to_noise(rows.T @ (3 * X), size**2)
    means = found.reshape(4, 100).mean(axis=1)
    np.testing.assert_allclose(means[1:], ratio[::100][1:], rtol=0.15)
    assert means[0] < 0.0004
    np.testing.assert_allclose(sd, 3, rtol=0.25)
    assert sd.mean() == pytest.approx(3, rel=0.02)


def test_signal_is_told_better_once_the_noise_that_voxels_share_is_taken_off(rng):
    from scipy.sparse import eye_array

    error = {"first": [], "refined": []}
    for _ in range(4):
        loadings = rng.choice([-1, 1], (100, 1)) * np.sqrt(0.9)
        ratio = rng.lognormal(-3.5, 1, 100)
        R = loadings @ loadings.T + 0.1 * np.eye(100)
        T, X, _ = responses(rng, 150, ratio, 20, R)
        size, rows, _ = bayes.rotate(T - T.mean(axis=0))
        Z = (rows.T @ X).astype(np.float32)
        first, sd = bayes.signal_to_noise(Z, size**2)
        own = (0.1 * eye_array(100, dtype="f4")).tocsr()
        known = noise.NoiseCorrelation(loadings.astype(np.float32), own)
        refined = bayes.refined_ratio(Z / sd, size, first, known)
        for name, found in (("first", first), ("refined", refined)):
            error[name].append(np.square(np.log(found / ratio)).mean())
    assert np.mean(error["refined"]) < 0.8 * np.mean(error["first"])


def test_noise_that_neighbours_share_is_found_with_places_and_without(rng):
    places, R = neighbours(16, 0.4)
    rows = (rng.standard_normal((1200, 256)) @ np.linalg.cholesky(R).T).astype(np.float32)
    size = rng.uniform(0.5, 1, rows.shape).astype(np.float32)
    observed = size * rows + np.sqrt(1 - size**2) * rng.standard_normal(rows.shape, np.float32)
    near = (R > 0.39) & (R < 1)
    diagonal = np.eye(256, dtype=bool)
    for where, tolerance in ((places, 0.03), (None, 0.15)):
        found = noise.estimate(observed, size, where)
        matrix = found @ np.eye(256, dtype=np.float32)
        np.testing.assert_allclose(matrix[diagonal], 1, atol=1e-5)
        assert matrix[near].mean() == pytest.approx(0.4, abs=tolerance)
        assert abs(matrix[R < 0.01].mean()) < 0.01
        assert np.linalg.eigvalsh(matrix)[0] > 0.05


def test_noise_that_all_share_is_found_at_its_size(rng):
    shared = np.sqrt(0.3) * rng.standard_normal((200, 1))
    signs = np.sign(rng.standard_normal(500))
    rows = shared * signs + np.sqrt(0.7) * rng.standard_normal((200, 500))
    rows = rows.astype(np.float32)
    found = noise.estimate(rows, np.ones_like(rows))
    assert found.loadings.shape[1] == 1
    np.testing.assert_allclose(found.loadings[:, 0] ** 2, 0.3, atol=0.2)
    assert (found.loadings[:, 0] ** 2).mean() == pytest.approx(0.3, abs=0.05)
    independent = rng.standard_normal((200, 500), np.float32)
    none = noise.estimate(independent, np.ones_like(independent))
    assert np.square(none.loadings).sum(axis=1).mean() < 0.02


def test_weak_shared_noise_has_the_size_that_it_has_along_the_component_found(rng):
    """Of few trials, a component is off its true direction and its eigenvalue too large."""
    found, true = [], []
    for _ in range(60):
        signs = np.sign(rng.standard_normal(500))
        rows = np.sqrt(0.03) * rng.standard_normal((200, 1)) * signs
        rows = (rows + np.sqrt(0.97) * rng.standard_normal((200, 500))).astype(np.float32)
        loading = noise.estimate(rows, np.ones_like(rows)).loadings[:, 0]
        found.append(loading @ loading)
        true.append(0.03 * (loading @ signs) ** 2 / found[-1])
    # The sample's eigenvalue along it would be 0.03 x 500 = 15 and more, which is 17 % too large.
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.07)


def test_shrinkage_of_correlations_is_that_of_the_published_sums(rng):
    T = rng.standard_normal((40, 6)) @ (np.eye(6) + 0.3)
    T = (T - T.mean(axis=0)) / T.std(axis=0)
    error = total = 0.0
    for i in range(6):
        for j in range(6):
            if i != j:
                w = T[:, i] * T[:, j]
                error += 40 / 39**3 * np.square(w - w.mean()).sum() * (39 / 40) ** 2
                total += w.mean() ** 2
    matrix, shrinkage = bayes.shrunk_correlation(T)
    assert shrinkage == pytest.approx(error / total, rel=1e-9)
    expected = (1 - shrinkage) * (T.T @ T / 40) + shrinkage * np.eye(6)
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


def test_map_for_means_is_better_for_means_and_the_other_for_single_responses(rng):
    betas, latents, weights, places, correlation = trained(rng, 100)
    options = {"places": places, "n_repeats": 14}
    decoder = decode.fit("bayes", betas, latents, rng, options)
    test = rng.standard_normal((4000, 10))
    root = np.linalg.cholesky(correlation).T
    for repeats, other in ((1, 14), (14, 1)):
        error = rng.standard_normal((4000, 64)) @ root / np.sqrt(repeats)
        shown = test @ weights + error
        own, wrong = (
            np.square(decode.predict(decoder, shown, k) - test).mean() for k in (repeats, other)
        )
        assert own < wrong
    mixed = decode.predict(decoder, shown[:4], np.array([1, 3, 4, 14]))
    np.testing.assert_allclose(mixed[:2], decode.predict(decoder, shown[:2]), atol=1e-5)
    np.testing.assert_allclose(mixed[2:], decode.predict(decoder, shown[2:4], 14), atol=1e-5)


def test_map_for_means_is_saved_with_the_decoder(tmp_path, rng):
    betas, latents, *_ = trained(rng)
    decoder = decode.fit("bayes", betas, latents, rng, {"n_repeats": 3.5})
    decode.save(tmp_path / "decoder.npz", decoder)
    loaded = decode.load(tmp_path / "decoder.npz")
    assert loaded.averaged.n_repeats == 3.5
    assert np.array_equal(loaded.averaged.weights, decoder.averaged.weights)
    assert np.array_equal(loaded.averaged.intercept, decoder.averaged.intercept)
    assert decode.fit("bayes", betas, latents, rng).averaged is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["bayes", "averaged", "best"])
def test_constant_voxels_and_latents_take_no_part(name, rng):
    betas, latents, *_ = trained(rng)
    betas[:, 7], latents[:, 2] = 0.1, 0.7
    decoder = decode.fit(name, betas, latents, rng)
    assert not np.abs(decoder.weights[7]).max() > 1e-6
    np.testing.assert_allclose(decode.predict(decoder, 9 * betas)[:, 2], 0.7, atol=1e-5)
    flat = decode.fit(name, np.full((20, 7), 0.1, np.float32), latents[:20], rng)
    expected = np.tile(latents[:20].mean(axis=0), (2, 1))
    np.testing.assert_allclose(decode.predict(flat, np.ones((2, 7))), expected, atol=1e-5)


def test_predictions_follow_neither_units_nor_order_of_trials(rng):
    betas, latents, _, places, _ = trained(rng)
    test = rng.standard_normal((5, 64))
    one = decode.fit("bayes", betas, latents, rng, {"places": places})
    scale, order = rng.uniform(0.1, 10, 64), rng.permutation(60)
    other = decode.fit(
        "bayes", (betas * scale + 3)[order], 5 * latents[order], rng, {"places": places}
    )
    expected = 5 * decode.predict(one, test)
    np.testing.assert_allclose(decode.predict(other, test * scale + 3), expected, atol=0.01)


@pytest.mark.parametrize("shape", [(24, 40), (40, 12)])
def test_left_out_predictions_of_ridge_are_scikit_learn_s(shape, rng):
    betas, latents = rng.standard_normal(shape), rng.standard_normal((shape[0], 3)) + 2
    alpha = np.array([3.0, 30.0, 3.0])
    for folds in (None, rng.permutation(shape[0]) % 4):
        found = combined.left_out(betas, latents, alpha, folds)
        split = PredefinedSplit(np.arange(shape[0]) if folds is None else folds)
        for k in range(3):
            expected = cross_val_predict(Ridge(alpha=alpha[k]), betas, latents[:, k], cv=split)
            np.testing.assert_allclose(found[:, k], expected, rtol=1e-8)


def test_stacking_weights_are_those_of_least_squares_that_are_not_negative(rng):
    latents = rng.standard_normal((50, 4)) + 3
    guesses = [latents + rng.standard_normal((50, 4)) * s for s in (1, 2, 3)]
    guesses += [-latents, guesses[0]]
    mean = latents.mean(axis=0)
    flat = np.stack([(g - mean).ravel() for g in guesses], axis=1)
    expected, distance = nnls(flat, (latents - mean).ravel())
    weights = combined.stacked(guesses, latents, mean)
    assert weights.min() >= 0
    assert np.linalg.norm(flat @ weights - (latents - mean).ravel()) == pytest.approx(distance)
    assert weights[3] == 0 and weights[[0, 4]].sum() == pytest.approx(expected[[0, 4]].sum())


def test_averaged_leans_on_few_voxels_where_only_few_respond(rng):
    ratio = np.r_[np.full(16, 0.3), np.zeros(112)]
    latents, betas, weights = responses(rng, 80, ratio, 5)
    test = rng.standard_normal((1000, 5))
    shown = test @ weights + rng.standard_normal((1000, 128))
    options = {"folds": np.arange(80) % 5}
    ridge = decode.fit("ridge", betas, latents, rng, options)
    found = decode.fit("averaged", betas, latents, rng, {**options, "rank": ratio})
    members = found.report["members"]
    assert max(members, key=members.get) == "16 voxels"
    error, plain = (np.square(decode.predict(d, shown) - test).mean() for d in (found, ridge))
    assert error < 0.97 * plain
    # In expectation what left-out trials promise is what test trials give.
    assert found.report["left_out_r2"] == pytest.approx(1 - error, abs=0.1)


def test_best_takes_what_predicts_left_out_trials_better(rng):
    betas, latents, _, places, _ = trained(rng)
    folds = np.arange(60) % 4
    options = {"folds": folds, "places": places, "n_repeats": 6}
    found = decode.fit("best", betas, latents, rng, options)
    scores = found.report["left_out"]
    assert found.report["chosen"] == "bayes" and scores["bayes"] > scores["averaged"]
    alone = decode.fit("bayes", betas, latents, rng, {"places": places, "n_repeats": 6})
    assert np.array_equal(found.weights, alone.weights)
    assert np.array_equal(found.averaged.weights, alone.averaged.weights)
    assert json.loads(json.dumps(found.report)) == found.report
    guess = np.empty_like(latents)
    for fold in range(4):
        inside = folds == fold
        part = decode.fit("bayes", betas[~inside], latents[~inside], rng, {"places": places})
        guess[inside] = decode.predict(part, betas[inside])
    expected = 1 - np.square(guess - latents).sum() / np.square(latents - latents.mean(0)).sum()
    assert scores["bayes"] == pytest.approx(expected, rel=1e-4)


def test_best_is_averaged_where_one_latent_holds_all_that_is_coded(rng):
    latents = rng.standard_normal((60, 10)).astype(np.float32)
    betas = np.outer(latents[:, 0], rng.standard_normal(64)) + rng.standard_normal((60, 64))
    betas, latents[:, 0] = betas.astype(np.float32), 10 * latents[:, 0]
    options = {"folds": np.arange(60) % 4}
    found = decode.fit("best", betas, latents, rng, options)
    assert found.report["chosen"] == "averaged"
    assert found.report["left_out"]["averaged"] > found.report["left_out"]["bayes"]
    alone = decode.fit("averaged", betas, latents, rng, options)
    assert np.array_equal(found.weights, alone.weights)


@pytest.mark.parametrize("name", ["bayes", "averaged", "best"])
def test_shuffled_latents_are_not_predicted(name, rng):
    betas, latents, weights, *_ = trained(rng, 120)
    test = rng.standard_normal((500, 10))
    decoder = decode.fit(name, betas, rng.permutation(latents), rng)
    predicted = decode.predict(decoder, test @ weights)
    # A constant prediction counts as 0; else it is the mean of ten correlations of chance signs.
    assert abs(np.diag(metrics.latent_correlation(predicted, test)).mean()) < 0.35


def test_dense_with_decay_comes_to_ridge_with_the_penalty_of_its_loss(rng):
    latents, betas, _ = responses(rng, 40, np.full(6, 0.5), 3)
    latents, betas = latents - latents.mean(axis=0), betas - betas.mean(axis=0)
    options = {"epochs": 400, "learning_rate": 0.03, "weight_decay": 0.1, "batch_size": 40}
    found = decode.fit("dense", betas.astype(np.float32), latents.astype(np.float32), rng, options)
    exact = decode.fit("ridge", betas, latents, rng, {"alphas": [0.1 * 3 * 40]})
    np.testing.assert_allclose(found.weights, exact.weights, atol=1e-3)


def test_options_out_of_range_are_refused(rng):
    betas, latents, *_ = trained(rng)
    with pytest.raises(ValueError, match=r"0.5 repeats; at least 1"):
        decode.fit("bayes", betas, latents, rng, {"n_repeats": 0.5})
    with pytest.raises(ValueError, match=r"\(3,\) for 64 voxels"):
        decode.fit("averaged", betas, latents, rng, {"rank": np.ones(3)})
    with pytest.raises(ValueError, match=r"\(3, 2\) for 64 voxels"):
        decode.fit("bayes", betas, latents, rng, {"places": np.ones((3, 2))})
