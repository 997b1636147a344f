"""Solvers against scikit-learn and plain numpy; what a fit may depend on."""

import json
import logging
import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict

from hyper_bids import decode
from hyper_bids.decode import ridge
from hyper_bids.errors import InputError, UsageError

# Fewer trials than voxels, more, nearly equal either side, and trials that repeat.
SHAPES = {"n<p": (30, 50), "n>p": (60, 15), "n=p": (24, 24), "n=p+1": (25, 24), "n=p+2": (26, 24)}
ALPHAS = np.logspace(-3, 4, 15)


def planted(rng, n, p, t=4, noise=2.0):
    """Return betas with offsets, and latents that depend on them linearly, in single precision."""
    betas = rng.standard_normal((n, p)) * rng.uniform(0.5, 2, p) + rng.uniform(-2, 2, p)
    latents = betas @ rng.standard_normal((p, t)) + noise * p**0.5 * rng.standard_normal((n, t))
    return betas.astype(np.float32), (latents + 5).astype(np.float32)


@pytest.fixture(params=SHAPES)
def data(request, rng):
    return planted(rng, *SHAPES[request.param])


def close(decoder, model, tolerance=1e-4):
    """Compare weights and intercept with those of a scikit-learn model."""
    size = np.abs(model.coef_).max()
    np.testing.assert_allclose(decoder.weights, model.coef_.T, atol=tolerance * size)
    np.testing.assert_allclose(decoder.intercept, model.intercept_, atol=tolerance * size * 10)


@pytest.mark.parametrize("per_target", [False, True])
def test_ridge_equals_scikit_learn_leaving_one_trial_out(data, per_target, rng):
    betas, latents = data
    model = RidgeCV(alphas=ALPHAS, alpha_per_target=per_target, store_cv_results=True)
    model.fit(betas.astype(float), latents.astype(float))
    found = decode.fit("ridge", betas, latents, rng, {"alphas": ALPHAS, "per_target": per_target})
    assert np.array_equal(found.report["alpha"], model.alpha_)
    close(found, model)
    mse = model.cv_results_.mean(axis=(0, 1))
    expected = 1 - mse / np.square(latents - latents.mean(0, dtype=float)).mean()
    np.testing.assert_allclose(found.report["cv_r2"], expected, rtol=1e-4, atol=1e-5)


def test_ridge_chooses_as_scikit_learn_where_the_penalties_hardly_differ(rng):
    # Latents that have nothing to do with the responses: errors differ in the eighth digit.
    betas, latents = rng.standard_normal((60, 90)), rng.standard_normal((60, 300))
    alphas = np.logspace(4, 10, 25)
    model = RidgeCV(alphas=alphas, alpha_per_target=True).fit(betas, latents)
    found = decode.fit("ridge", betas, latents, rng, {"alphas": alphas, "per_target": True})
    assert np.array_equal(found.report["alpha"], model.alpha_)


def test_ridge_equals_a_grid_search_over_folds(data, rng):
    betas, latents = (a[: len(a) // 3 * 3].astype(float) for a in data)
    folds = rng.permutation(len(betas)) % 3
    model = GridSearchCV(
        Ridge(), {"alpha": ALPHAS}, cv=PredefinedSplit(folds), scoring="neg_mean_squared_error"
    ).fit(betas, latents)
    found = decode.fit("ridge", betas, latents, rng, {"alphas": ALPHAS, "folds": folds})
    assert found.report["alpha"] == model.best_params_["alpha"]
    assert found.report["cv"] == "3 folds"
    close(found, model.best_estimator_)
    expected = (
        1 + model.cv_results_["mean_test_score"] / np.square(latents - latents.mean(0)).mean()
    )
    np.testing.assert_allclose(found.report["cv_r2"], expected, rtol=1e-6, atol=1e-7)


def test_ridge_with_folds_of_unequal_size_counts_each_trial_once(data, rng):
    betas, latents = (a.astype(float) for a in data)
    folds = np.searchsorted([3, 11], np.arange(len(betas)), "right")
    left_out = [
        cross_val_predict(Ridge(alpha=a), betas, latents, cv=PredefinedSplit(folds)) - latents
        for a in ALPHAS
    ]
    errors = np.array([np.square(e).sum(axis=0) for e in left_out])
    found = decode.fit("ridge", betas, latents, rng, {"alphas": ALPHAS, "folds": 7 * folds - 2})
    assert found.report["alpha"] == ALPHAS[errors.sum(axis=1).argmin()]
    by_target = decode.fit(
        "ridge", betas, latents, rng, {"alphas": ALPHAS, "folds": folds, "per_target": True}
    )
    assert by_target.report["alpha"] == ALPHAS[errors.argmin(axis=0)].tolist()
    for k, alpha in enumerate(by_target.report["alpha"]):
        model = Ridge(alpha=alpha).fit(betas, latents[:, k])
        np.testing.assert_allclose(by_target.weights[:, k], model.coef_, rtol=1e-3, atol=1e-5)


def test_one_fold_a_trial_is_leaving_one_trial_out(data, rng):
    betas, latents = data
    folds = rng.permutation(len(betas))
    loo = decode.fit("ridge", betas, latents, rng, {})
    by_fold = decode.fit("ridge", betas, latents, rng, {"folds": folds})
    assert loo.report["alpha"] == by_fold.report["alpha"]
    np.testing.assert_allclose(loo.report["cv_r2"], by_fold.report["cv_r2"], rtol=1e-4, atol=1e-5)


def test_left_out_trials_of_ridge_are_predicted_by_fits_without_them(rng):
    betas, latents = planted(rng, 12, 20)
    betas[5] = betas[4]
    betas[:, 3] = 1.5
    alphas = np.array([1e-2, 1.0, 100.0])
    found = decode.fit("ridge", betas, latents, rng, {"alphas": alphas})
    for alpha, r2 in zip(alphas, found.report["cv_r2"], strict=True):
        errors = 0.0
        for i in range(12):
            rest = np.arange(12) != i
            x, y = betas[rest].astype(float), latents[rest].astype(float)
            gram = (x - x.mean(0)) @ (x - x.mean(0)).T + alpha * np.eye(11)
            dual = np.linalg.solve(gram, y - y.mean(0))
            guess = y.mean(0) + (betas[i] - x.mean(0)) @ (x - x.mean(0)).T @ dual
            errors += np.square(latents[i] - guess).sum()
        total = np.square(latents - latents.mean(0, dtype=float)).sum()
        assert r2 == pytest.approx(1 - errors / total, rel=1e-4, abs=1e-5)


def test_fit_is_a_function_of_the_set_of_training_trials_not_of_their_order(data, rng):
    betas, latents = data
    folds = np.arange(len(betas)) % 4
    order = rng.permutation(len(betas))
    one = decode.fit("ridge", betas, latents, rng, {"folds": folds})
    other = decode.fit("ridge", betas[order], latents[order], rng, {"folds": folds[order]})
    assert one.report["alpha"] == pytest.approx(other.report["alpha"], rel=1e-9)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.intercept, other.intercept, rtol=1e-4, atol=1e-5)


def test_penalty_does_not_follow_the_unit_of_the_responses(rng):
    betas, latents = planted(rng, 40, 60)
    one = decode.fit("ridge", betas, latents, rng, {})
    other = decode.fit("ridge", 1000 * betas, latents, rng, {})
    assert other.report["alpha"] == pytest.approx(1e6 * one.report["alpha"], rel=1e-5)
    np.testing.assert_allclose(1000 * other.weights, one.weights, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("shape", [(150, 300), (300, 60)])
def test_default_grid_holds_the_penalty_of_ordinary_data(shape, noise, rng, caplog):
    betas, latents = planted(rng, *shape, noise=noise)
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        found = decode.fit("ridge", betas, latents, rng, {})
    assert not found.report["alpha_at_end"]
    assert not caplog.records
    grid = np.array(found.report["alphas"])
    centred = betas - betas.mean(0, dtype=float)
    np.testing.assert_allclose(grid, ridge.GRID * np.square(centred).sum() / len(betas), rtol=1e-9)


def test_choice_at_an_end_of_the_grid_warns_and_is_recorded(rng, caplog):
    betas = rng.standard_normal((40, 30))
    latents = betas @ rng.standard_normal((30, 3))
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        found = decode.fit("ridge", betas, latents, rng, {"alphas": [10.0, 1.0, 100.0]})
    assert found.report["alpha"] == 1.0 and found.report["alpha_at_end"]
    assert "lower end of the grid" in caplog.text
    caplog.clear()
    noise = rng.standard_normal((40, 3))
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        decode.fit("ridge", betas, noise, rng, {"alphas": [1e-9, 1e-8], "per_target": True})
    assert "3 of 3" in caplog.text and "upper end" in caplog.text
    caplog.clear()
    single = decode.fit("ridge", betas, latents, rng, {"alphas": [1.0]})
    assert not single.report["alpha_at_end"] and not caplog.records


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["ridge", "ols"])
def test_constant_betas_give_the_mean_latent(name, rng):
    latents = rng.standard_normal((20, 3)).astype(np.float32)
    decoder = decode.fit(name, np.full((20, 7), 0.1, np.float32), latents, rng, {})
    predicted = decode.predict(decoder, np.full((4, 7), 0.1, np.float32))
    np.testing.assert_allclose(predicted, np.tile(latents.mean(0), (4, 1)), atol=1e-6)
    assert not decoder.weights.any()


@pytest.mark.filterwarnings("error")
def test_constant_latents_are_predicted_as_they_are(rng):
    betas = rng.standard_normal((20, 30))
    decoder = decode.fit("ridge", betas, np.full((20, 3), 0.7), rng, {"per_target": True})
    np.testing.assert_allclose(decode.predict(decoder, 9 * betas), 0.7, atol=1e-6)


def test_ridge_in_small_blocks_is_the_same(data, rng, monkeypatch):
    betas, latents = data
    whole = decode.fit("ridge", betas, latents, rng, {})
    monkeypatch.setattr(ridge, "_BLOCK", 130)
    parts = decode.fit("ridge", betas, latents, rng, {})
    np.testing.assert_allclose(parts.weights, whole.weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n_folds", [None, 5])
@pytest.mark.parametrize("shape", [(300, 4000), (4000, 300)])
def test_ridge_holds_the_memory_that_it_states(shape, n_folds, rng, monkeypatch):
    monkeypatch.setattr(ridge, "_BLOCK", 2**16)
    n, p, t = *shape, 50
    betas = rng.standard_normal(shape, np.float32)
    latents = rng.standard_normal((n, t), np.float32)
    folds = np.arange(n) % n_folds if n_folds else None
    tracemalloc.start()
    try:
        decode.fit("ridge", betas, latents, rng, {"folds": folds})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    m = min(n, p)
    stated = 24 * m**2 + 20 * n * m + 24 * n * t + 8 * p * t
    stated += 24 * (n // n_folds) ** 2 if n_folds else 0
    assert peak < 1.05 * stated + 8 * 2**17


def test_ols_of_trials_that_were_centred_run_by_run_is_not_ruled_by_rounding(rng):
    run = np.repeat(np.arange(4), 10)
    betas = rng.standard_normal((40, 90))
    for label in range(4):
        betas[run == label] -= betas[run == label].mean(axis=0)
    latents = rng.standard_normal((40, 3))
    exact = np.linalg.pinv(betas, rcond=1e-10) @ (latents - latents.mean(axis=0))
    decoder = decode.fit("ols", betas.astype(np.float32), latents.astype(np.float32), rng)
    assert decoder.report["rank"] == 40 - 4
    np.testing.assert_allclose(decoder.weights, exact, atol=1e-5)


def test_ols_is_scikit_learn_s_least_squares_of_smallest_norm(data, rng):
    betas, latents = data
    betas[3] = betas[4]
    latents[3] = latents[4]
    model = LinearRegression().fit(betas.astype(float), latents.astype(float))
    found = decode.fit("ols", betas, latents, rng, {})
    close(found, model, 1e-5)
    assert found.report["rank"] == np.linalg.matrix_rank(betas - betas.mean(0, dtype=float))
    weights, *_ = np.linalg.lstsq(
        betas - betas.mean(0, dtype=float), latents - latents.mean(0, dtype=float), rcond=None
    )
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5, atol=1e-6)


def adam_by_hand(betas, latents, rng, epochs, rate, decay, batch_size):
    """Train a dense layer by Adam in plain float64 numpy (Kingma and Ba 2015, algorithm 1)."""
    n, p = betas.shape
    t = latents.shape[1]
    theta = np.vstack([rng.uniform(-0.07, 0.07, (t, p)).T, np.zeros(t)])
    first, second, step, losses = np.zeros_like(theta), np.zeros_like(theta), 0, []
    x = np.hstack([betas, np.ones((n, 1))])
    for _ in range(epochs):
        order, total = rng.permutation(n), 0.0
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            error = x[rows] @ theta - latents[rows]
            total += 0.5 * np.square(error).sum() / t
            gradient = x[rows].T @ error / error.size + decay * theta
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            scaled = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            theta = theta - rate * first / (1 - 0.9**step) / scaled
        losses.append(total / n)
    return theta[:-1], theta[-1], losses


# 11 trials in batches of 4: the last batch has 3.
DENSE = {"epochs": 5, "learning_rate": 0.01, "weight_decay": 0.3, "batch_size": 4}


def test_dense_is_adam_with_coupled_weight_decay_on_half_the_mean_square(rng):
    betas, latents = planted(rng, 11, 6)
    weights, bias, loss = adam_by_hand(betas, latents, np.random.default_rng(3), 5, 0.01, 0.3, 4)
    found = decode.fit("dense", betas, latents, np.random.default_rng(3), DENSE)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.intercept, bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.report["loss"], loss, rtol=1e-5)
    assert found.weights.dtype == found.intercept.dtype == np.float32


def test_dense_of_one_seed_is_the_same_to_the_bit_and_of_another_is_not(rng):
    betas, latents = planted(rng, 50, 40)
    one, two, other = (
        decode.fit("dense", betas, latents, np.random.default_rng(seed), DENSE)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one.weights, two.weights) and one.report == two.report
    assert not np.array_equal(one.weights, other.weights)


def test_dense_without_decay_comes_to_least_squares(rng):
    betas, latents = planted(rng, 60, 5, t=3, noise=0.5)
    options = {"epochs": 3000, "learning_rate": 0.02, "weight_decay": 0.0, "batch_size": 60}
    found = decode.fit("dense", betas, latents, rng, options)
    exact = decode.fit("ols", betas, latents, rng, {})
    np.testing.assert_allclose(found.weights, exact.weights, atol=0.01)
    np.testing.assert_allclose(found.intercept, exact.intercept, atol=0.02)
    error = decode.predict(exact, betas) - latents
    assert found.report["loss"][-1] == pytest.approx(0.5 * np.square(error).mean(), rel=0.01)


def test_dense_that_diverges_names_the_flag(rng):
    betas, latents = planted(rng, 11, 6)
    with pytest.raises(UsageError, match="--learning-rate 1e"):
        decode.fit("dense", betas, latents, rng, {"epochs": 9, "learning_rate": 1e30})


@pytest.mark.parametrize("name", decode.SOLVERS)
def test_solvers_leave_their_input_as_it_was_and_report_plain_json(name, rng):
    betas, latents = planted(rng, 20, 9)
    kept = betas.copy(), latents.copy()
    decoder = decode.fit(name, betas, latents, rng, {"epochs": 2} if name == "dense" else {})
    assert np.array_equal(betas, kept[0]) and np.array_equal(latents, kept[1])
    assert json.loads(json.dumps(decoder.report)) == decoder.report
    assert decoder.name == name
    assert decoder.weights.shape == (9, 4) and decoder.intercept.shape == (4,)
    assert decoder.weights.dtype == decoder.intercept.dtype == np.float32
    expected = betas.astype(float) @ decoder.weights + decoder.intercept
    np.testing.assert_allclose(decode.predict(decoder, betas), expected, rtol=1e-5, atol=1e-5)


def test_saved_decoder_comes_back_to_the_bit_and_files_are_equal(tmp_path, rng):
    betas, latents = planted(rng, 20, 9)
    decoder = decode.fit("ridge", betas, latents, rng, {})
    paths = tmp_path / "one.npz", tmp_path / "two.part"
    for path in paths:
        decode.save(path, decoder)
    loaded = decode.load(paths[0])
    assert np.array_equal(loaded.weights, decoder.weights)
    assert np.array_equal(loaded.intercept, decoder.intercept)
    assert (loaded.name, loaded.report) == (decoder.name, decoder.report)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with np.load(paths[0], allow_pickle=False) as arrays:
        assert all(arrays[key].dtype != object for key in arrays)


def test_what_is_no_decoder_is_refused_with_the_name_of_the_file(tmp_path, rng):
    text, other, pickled, torn = (tmp_path / f"{k}.npz" for k in "abcd")
    text.write_text("not a decoder")
    np.savez(other, weights=np.zeros(3))
    np.savez(pickled, **{k: {1: object} for k in ("name", "weights", "intercept", "report")})
    decode.save(torn, decode.Decoder("ols", np.zeros((5, 2)), np.zeros(2)))
    torn.write_bytes(torn.read_bytes()[:-30])
    for path in (text, other, pickled, torn, tmp_path / "none.npz", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            decode.load(path)


@pytest.mark.parametrize("name", decode.SOLVERS)
@pytest.mark.parametrize(
    ("betas", "latents", "message"),
    [
        (np.zeros((5, 3)), np.zeros((4, 2)), r"\(5, 3\).*\(4, 2\)"),
        (np.zeros((5, 3)), np.zeros(5), r"\(5, 3\).*\(5,\)"),
        (np.zeros((1, 3)), np.zeros((1, 2)), "at least 2 trials"),
        (np.zeros((5, 0)), np.zeros((5, 2)), "1 voxel"),
        (np.full((5, 3), np.nan), np.zeros((5, 2)), "betas of 5 training trials hold NaN"),
        (np.zeros((5, 3)), np.full((5, 2), np.inf), "latents of 5 training trials hold NaN"),
    ],
)
def test_training_data_that_cannot_be_fitted_are_refused(name, betas, latents, message, rng):
    with pytest.raises(ValueError, match=message):
        decode.fit(name, betas, latents, rng, {})


def test_large_finite_values_are_not_taken_for_infinite():
    betas = np.zeros((5, 3), np.float32)
    betas[0] = 3e38
    decode.decoder.check_training(betas, betas.astype(float) * 1e269)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": [1.0, 0.0]}, "above 0"),
        ({"alphas": []}, "one or more"),
        ({"folds": np.zeros(8, int)}, "at least 2 folds"),
        ({"folds": np.arange(7)}, r"\(7,\) for 8 trials"),
    ],
)
def test_ridge_options_out_of_range_are_refused(options, message, rng):
    with pytest.raises(ValueError, match=message):
        decode.fit("ridge", np.ones((8, 3)), np.ones((8, 2)), rng, options)


def test_dense_options_out_of_range_are_refused(rng):
    for option in ({"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"weight_decay": -1}):
        with pytest.raises(ValueError, match="wanted"):
            decode.fit("dense", np.ones((8, 3)), np.ones((8, 2)), rng, option)


def test_unknown_decoder_and_wrong_number_of_voxels_are_named(rng):
    with pytest.raises(UsageError, match=r"--decoder lasso.*ridge, ols, dense"):
        decode.fit("lasso", np.ones((8, 3)), np.ones((8, 2)), rng, {})
    decoder = decode.Decoder("ols", np.zeros((5, 2), np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(5, 2\)"):
        decode.predict(decoder, np.zeros((4, 6)))
