"""Alignment of participants: planted rotations of one response, chance, and nothing of the test."""

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from hyper_bids import decode, metrics
from hyper_bids.hyperalignment import (
    METHODS,
    AlignmentSettings,
    averaged_prediction,
    crossfitted,
    fit_map,
    fit_template,
    left_out_predictions,
    shared_stimuli,
    stimulus_means,
    transform,
)

N_TRAIN, N_TEST, N_LATENTS = 120, 40, 8
SETTINGS = {method: AlignmentSettings(method, n_components=20) for method in METHODS}
both = pytest.mark.parametrize("method", METHODS)


def planted(rng, n_participants=4, noise=1.0, signal=1.0, n_voxels=150):
    """Return responses of both sets by participant, and latents of all stimuli.

    Each participant has a random rotation of one response of 12 dimensions, 8 of them the latents;
    numbers of voxels differ.
    """
    response = rng.standard_normal((N_TRAIN + N_TEST, 12)) * np.geomspace(1.5, 0.7, 12)
    data = []
    for i in range(n_participants):
        rotation = np.linalg.qr(rng.standard_normal((n_voxels + 7 * i, 12)))[0].T
        X = signal * 4 * response @ rotation
        X += noise * rng.standard_normal(X.shape)
        data.append((X - X[:N_TRAIN].mean(axis=0)) / X[:N_TRAIN].std(axis=0))
    return [X[:N_TRAIN] for X in data], [X[N_TRAIN:] for X in data], response[:, :N_LATENTS]


def ridge(train, latents, stimulus):
    """Fit this package's ridge, whose penalty is chosen by leaving out stimuli."""
    folds = stimulus % 10
    fitted = decode.fit_ridge(train, latents, None, folds=folds)
    return lambda betas: decode.predict(fitted, betas)


def accuracy(predicted, latents):
    """Two-way identification; chance 0.5."""
    similarity = metrics.correlation_similarity(predicted, latents)
    return float(np.diag(metrics.two_way(similarity)).mean())


def averaged(train, test, latents, method):
    return averaged_prediction(
        train.__getitem__, test.__getitem__, len(train), latents[:N_TRAIN], ridge, SETTINGS[method]
    )[0]


def left_out(train, test, latents, method):
    return dict(
        left_out_predictions(
            train.__getitem__, test.__getitem__, len(train), latents[:N_TRAIN], ridge,
            SETTINGS[method],
        )
    )  # fmt: skip


# --- the space -----------------------------------------------------------------------------------


@both
def test_rotations_without_noise_are_undone(rng, method):
    """New trials of all participants coincide in the common space, and hold all of the response."""
    settings = AlignmentSettings(method, n_components=12, ridge=1)
    rotations = [np.linalg.qr(rng.standard_normal((40 + i, 12)))[0].T for i in range(3)]
    response = rng.standard_normal((140, 12))
    train = [response[:120] @ R for R in rotations]
    template = fit_template(train.__getitem__, [0, 1, 2], settings)
    new = [
        transform(response[120:] @ R, fit_map(X, template))
        for X, R in zip(train, rotations, strict=True)
    ]
    for other in new[1:]:
        np.testing.assert_allclose(other, new[0], atol=2e-4 * np.abs(new[0]).max())
    weights = np.linalg.lstsq(np.c_[new[0], np.ones(20)], response[120:], rcond=None)[0]
    np.testing.assert_allclose(np.c_[new[0], np.ones(20)] @ weights, response[120:], atol=1e-3)


@both
def test_alignment_makes_participants_new_responses_alike(rng, method):
    train, test, _ = planted(rng)
    template = fit_template(train.__getitem__, [0, 1, 2, 3], SETTINGS[method])
    new = [transform(Y, fit_map(X, template)) for X, Y in zip(train, test, strict=True)]
    aligned = np.mean([np.corrcoef(a[:, :8].ravel(), b[:, :8].ravel())[0, 1]
                       for k, a in enumerate(new) for b in new[:k]])  # fmt: skip
    before = np.mean([np.corrcoef(a[:, :150].ravel(), b[:, :150].ravel())[0, 1]
                      for k, a in enumerate(test) for b in test[:k]])  # fmt: skip
    assert aligned > 0.6
    assert abs(before) < 0.05


def test_map_without_whitening_is_scipys_orthogonal_procrustes(rng):
    """With as many dimensions as voxels: R of the map is that of scipy, up to the one scale."""
    train = [rng.standard_normal((40, 6)) for _ in range(2)]
    settings = AlignmentSettings(n_components=6, ridge=1)
    template = fit_template(train.__getitem__, [0, 1], settings)
    own = fit_map(train[0], template)
    R, _ = orthogonal_procrustes(train[0] - train[0].mean(axis=0), template.values)
    np.testing.assert_allclose(own.weights / np.linalg.norm(own.weights[0]), R, atol=1e-4)


def test_whitening_is_that_of_the_definition(rng):
    X = rng.standard_normal((30, 5)) * [5, 3, 1, 1, 0.5]
    X -= X.mean(axis=0)
    settings = AlignmentSettings(n_components=5, ridge=0.3)
    template = fit_template([X, X[:, ::-1]].__getitem__, [0, 1], settings)
    C = X.T @ X
    values, vectors = np.linalg.eigh((0.7 * C + 0.3 * np.trace(C) / 5 * np.eye(5)) / 30)
    A = vectors @ np.diag(values**-0.5) @ vectors.T
    u, _, v = np.linalg.svd((X @ A).T @ template.values)
    np.testing.assert_allclose(fit_map(X, template).weights, A @ u @ v, rtol=1e-3, atol=1e-5)


def test_template_is_the_best_approximation_of_all_participants_side_by_side(rng):
    train, _, _ = planted(rng, 3)
    settings = AlignmentSettings(n_components=7, ridge=1)
    template = fit_template(train.__getitem__, [0, 1, 2], settings)
    scaled = []
    for betas in train:
        X = betas - betas.mean(axis=0)
        rank = np.linalg.matrix_rank(X)
        scaled.append(X / np.sqrt((X**2).sum() / rank / len(X)) / np.sqrt(3))
    u, s, _ = np.linalg.svd(np.concatenate(scaled, axis=1), full_matrices=False)
    expected = (u[:, :7] * s[:7]) @ (u[:, :7] * s[:7]).T
    np.testing.assert_allclose(template.values @ template.values.T, expected, atol=1e-4)


def test_shared_response_model_is_that_of_alternating_procrustes_on_the_responses(rng):
    """The same steps with voxels in place of matrices of stimuli by stimuli."""
    train, _, _ = planted(rng, 3)
    settings = AlignmentSettings("srm", n_components=10, n_iterations=4, tolerance=0)
    found = fit_template(train.__getitem__, [0, 1, 2], settings)
    Y = []
    for betas in train:
        X = betas - betas.mean(axis=0)
        Y.append(X / np.sqrt((X**2).sum() / np.linalg.matrix_rank(X) / len(X)))
    u, s, _ = np.linalg.svd(np.concatenate(Y, axis=1) / np.sqrt(3), full_matrices=False)
    G, errors = u[:, :10] * s[:10], []
    for _ in range(4):
        R = []
        for own in Y:
            a, _, b = np.linalg.svd(own.T @ G, full_matrices=False)
            R.append(a @ b)
        errors.append(sum(((own - G @ r.T) ** 2).sum() for own, r in zip(Y, R, strict=True)))
        G = np.mean([own @ r for own, r in zip(Y, R, strict=True)], axis=0)
    np.testing.assert_allclose(found.report["error"], errors, rtol=1e-5)
    np.testing.assert_allclose(found.values @ found.values.T, G @ G.T, atol=1e-2)


def test_each_step_of_the_shared_response_model_lowers_its_error(rng):
    train, _, _ = planted(rng, noise=3)
    settings = AlignmentSettings("srm", n_components=10, n_iterations=50, tolerance=1e-6)
    errors = np.array(fit_template(train.__getitem__, [0, 1, 2, 3], settings).report["error"])
    assert 3 < len(errors) < 50
    assert (np.diff(errors) < 1e-6 * errors[0]).all()
    assert errors[-1] < errors[0]


@both
def test_more_stimuli_than_voxels_or_fewer_give_the_same_map(rng, method):
    """Zero voxels change nothing but which of the two matrices is decomposed."""
    train = [rng.standard_normal((30, 20)) for _ in range(2)]
    wide = [np.concatenate([X, np.zeros((30, 25))], axis=1) for X in train]
    narrow, wider = (fit_template(data.__getitem__, [0, 1], AlignmentSettings(method, 8))
                     for data in (train, wide))  # fmt: skip
    first, second = fit_map(train[0], narrow), fit_map(wide[0], wider)
    new = rng.standard_normal((5, 20))
    a = transform(new, first)
    b = transform(np.concatenate([new, np.zeros((5, 25))], axis=1), second)
    np.testing.assert_allclose(a @ a.T, b @ b.T, rtol=1e-3, atol=1e-4)


@both
def test_order_of_participants_does_not_matter(rng, method):
    train, _, _ = planted(rng)
    one, other = (fit_template(train.__getitem__, order, SETTINGS[method]).values
                  for order in ([0, 1, 2, 3], [2, 0, 3, 1]))  # fmt: skip
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-4)


def test_crossfitted_responses_of_noise_are_not_close_to_the_template(rng):
    """With more voxels than stimuli, the fitted ones are: a decoder must not learn from these."""
    train, _, _ = planted(rng, n_voxels=400)
    template = fit_template(train.__getitem__, [0, 1, 2, 3], SETTINGS["ridge-procrustes"])
    noise = rng.standard_normal((N_TRAIN, 400)).astype(np.float32)
    target = template.values - template.values.mean(axis=0)
    fitted = np.corrcoef(transform(noise, fit_map(noise, template)).ravel(), target.ravel())[0, 1]
    honest = np.corrcoef(crossfitted(noise, template).ravel(), target.ravel())[0, 1]
    assert fitted > 0.7
    assert abs(honest) < 0.06


# --- decoding ------------------------------------------------------------------------------------


@both
def test_mean_of_aligned_participants_is_decoded_better_than_each_and_than_without(rng, method):
    train, test, latents = planted(rng, 5, noise=5, n_voxels=300)
    truth = latents[N_TRAIN:]
    own = [accuracy(ridge(X, latents[:N_TRAIN], np.arange(N_TRAIN))(Y), truth)
           for X, Y in zip(train, test, strict=True)]  # fmt: skip
    unaligned = [np.mean([X[:, :300] for X in data], axis=0) for data in (train, test)]
    without = accuracy(ridge(unaligned[0], latents[:N_TRAIN], np.arange(N_TRAIN))(unaligned[1]),
                       truth)  # fmt: skip
    aligned = accuracy(averaged(train, test, latents, method), truth)
    assert aligned > np.mean(own) + 0.08
    assert aligned > without + 0.08


@both
def test_decoders_learn_from_crossfitted_responses(rng, method):
    train, test, latents = planted(rng, n_voxels=60)
    given = []

    def fit(X, Y, stimulus):
        given.append(X)
        return ridge(X, Y, stimulus)

    both_sets = (train.__getitem__, test.__getitem__, 4, latents[:N_TRAIN], fit, SETTINGS[method])
    _, template = averaged_prediction(*both_sets)
    expected = np.mean([crossfitted(X, template) for X in train], axis=0)
    np.testing.assert_allclose(given[0], expected, atol=1e-5)
    list(left_out_predictions(*both_sets))
    for i, rows in enumerate(given[1:]):
        others = [k for k in range(4) if k != i]
        template = fit_template(train.__getitem__, others, SETTINGS[method])
        expected = np.concatenate([crossfitted(train[k], template) for k in others])
        np.testing.assert_allclose(rows, expected, atol=1e-5)


@both
def test_a_participant_is_decoded_by_others_and_not_without_alignment(rng, method):
    train, test, latents = planted(rng, noise=2)
    truth = latents[N_TRAIN:]
    found = left_out(train, test, latents, method)
    assert sorted(found) == [0, 1, 2, 3]
    assert min(accuracy(predicted, truth) for predicted in found.values()) > 0.85
    stimulus = np.tile(np.arange(N_TRAIN), 3)
    unaligned = []
    for i in range(4):
        pooled = np.concatenate([train[k][:, :150] for k in range(4) if k != i])
        predict = ridge(pooled, latents[stimulus], stimulus)
        unaligned.append(accuracy(predict(test[i][:, :150]), truth))
    assert np.mean(unaligned) < 0.65


@both
def test_random_responses_give_chance_for_the_mean_and_for_others_decoders(rng, method):
    scores = []
    for _ in range(6):
        train, test, latents = planted(rng, signal=0, n_voxels=60)
        truth = latents[N_TRAIN:]
        scores.append(accuracy(averaged(train, test, latents, method), truth))
        found = left_out(train, test, latents, method).values()
        scores.append(np.mean([accuracy(predicted, truth) for predicted in found]))
    # One score has a standard deviation of about 0.07, and those of one draw depend on each other.
    assert abs(np.mean(scores) - 0.5) < 0.07


@both
@pytest.mark.parametrize("kind", ["averaged", "left out"])
def test_test_responses_change_no_bit_of_what_is_fitted(rng, method, kind):
    """Templates, what decoders are trained on, and maps, as they act on the same responses."""
    train, test, latents = planted(rng, n_voxels=60)
    run = averaged if kind == "averaged" else left_out
    seen = {}
    for name, given in (("true", test), ("spoilt", [1e3 * rng.standard_normal(Y.shape)
                                                    for Y in test])):  # fmt: skip
        seen[name] = []
        events = []

        def fit(X, Y, stimulus, held=seen[name], events=events):
            events.append("fit")
            held.append(X.copy())
            predict = ridge(X, Y, stimulus)
            held.append(predict(np.eye(X.shape[1], dtype=np.float32)))
            return predict

        def load_test(i, given=given, events=events):
            events.append("test")
            return given[i]

        both_sets = (train.__getitem__, load_test, 4, latents[:N_TRAIN], fit, SETTINGS[method])
        if run is averaged:
            _, template = averaged_prediction(*both_sets)
            seen[name] += [template.values, *(fit_map(X, template).weights for X in train)]
            assert events == ["fit"] + 4 * ["test"]
        else:
            list(left_out_predictions(*both_sets))
            assert events == 4 * ["fit", "test"]
    for a, b in zip(seen["true"], seen["spoilt"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_left_out_participant_has_no_part_in_template_and_decoder(rng):
    train, test, latents = planted(rng, n_voxels=60)
    kept = {}
    for name in ("true", "spoilt"):
        own = list(train)
        if name == "spoilt":
            own[2] = rng.standard_normal(train[2].shape)
        held = []

        def fit(X, Y, stimulus, held=held):
            held.append(X.copy())
            return ridge(X, Y, stimulus)

        list(left_out_predictions(own.__getitem__, test.__getitem__, 4, latents[:N_TRAIN], fit,
                                  SETTINGS["srm"]))  # fmt: skip
        kept[name] = held
    np.testing.assert_array_equal(kept["true"][2], kept["spoilt"][2])
    assert not np.array_equal(kept["true"][1], kept["spoilt"][1])


def test_of_many_participants_tenths_are_left_out_and_twenty_teach(rng):
    response = rng.standard_normal((64, 4))
    drawn = [np.linalg.qr(rng.standard_normal((9, 4)))[0].T for _ in range(33)]
    rows = []

    def fit(X, Y, stimulus):
        rows.append(len(X))
        return ridge(X, Y, stimulus)

    found = dict(left_out_predictions(
        lambda i: response[:60] @ drawn[i], lambda i: response[60:] @ drawn[i], 33,
        response[:60], fit, AlignmentSettings(n_components=4, ridge=1),
    ))  # fmt: skip
    assert sorted(found) == list(range(33))
    assert rows == [20 * 60] * 10
    for predicted in found.values():
        np.testing.assert_allclose(predicted, response[60:], atol=0.15)


def test_memory_does_not_grow_with_participants(rng):
    response = rng.standard_normal((60, 5))

    def load(i):
        own = np.random.default_rng(i)
        return response @ own.standard_normal((5, 500)) + own.standard_normal((60, 500))

    peaks = []
    for n in (4, 40):
        tracemalloc.start()
        averaged_prediction(load, lambda i: load(i)[:7], n, response, ridge, AlignmentSettings())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# --- stimuli, and what is refused ----------------------------------------------------------------


def test_shared_stimuli_are_those_of_all_and_their_responses_are_means_in_one_order(rng):
    shown = [["b", "a", "c", "a"], ["a", "d", "b"], ["b", "a"]]
    assert shared_stimuli(shown) == ["a", "b"]
    assert shared_stimuli([["a"], ["b"]]) == []
    betas = rng.standard_normal((4, 3))
    means = stimulus_means(betas, shown[0], ["a", "b"])
    np.testing.assert_allclose(means, [(betas[1] + betas[3]) / 2, betas[0]], rtol=1e-6)
    with pytest.raises(ValueError, match="'d' was not shown"):
        stimulus_means(betas, shown[0], ["d"])


def test_what_cannot_be_aligned_is_refused_with_what_was_given(rng):
    X = rng.standard_normal((10, 5))
    settings = AlignmentSettings()
    with pytest.raises(ValueError, match="1 participants; at least 2"):
        fit_template([X].__getitem__, [0], settings)
    with pytest.raises(ValueError, match="participant 1 has 9 shared stimuli, participant 0 has"):
        fit_template([X, X[:9]].__getitem__, [0, 1], settings)
    with pytest.raises(ValueError, match="participant 1: responses to shared stimuli do not vary"):
        fit_template([X, np.ones((10, 5))].__getitem__, [0, 1], settings)
    with pytest.raises(ValueError, match="at least 3 shared stimuli"):
        fit_template([X[:2], X[:2]].__getitem__, [0, 1], settings)
    template = fit_template([X, X + 1].__getitem__, [0, 1], settings)
    with pytest.raises(ValueError, match="9 stimuli for a template of 10"):
        fit_map(X[:9], template)
    with pytest.raises(ValueError, match=r"shape \(10, 4\) for a map of 5 voxels"):
        transform(X[:, :4], fit_map(X, template))
    with pytest.raises(ValueError, match="2 participants; at least 3"):
        list(left_out_predictions([X, X].__getitem__, None, 2, X, ridge, settings))
    for wrong in ({"method": "cca"}, {"ridge": 0.0}, {"n_components": -1}):
        with pytest.raises(ValueError, match=r"wanted|known"):
            AlignmentSettings(**wrong)


def test_matrices_kept_on_disk_give_the_same_shared_response(rng, tmp_path):
    train, _, _ = planted(rng)
    shape = (6, N_TRAIN, N_TRAIN)
    kept = np.lib.format.open_memmap(tmp_path / "grams.npy", "w+", np.float32, shape)
    found = fit_template(train.__getitem__, [0, 1, 2, 3], SETTINGS["srm"], kept)
    other = fit_template(train.__getitem__, [0, 1, 2, 3], SETTINGS["srm"])
    np.testing.assert_array_equal(found.values, other.values)
