"""How well stimuli predict betas: against scikit-learn's ridge, and planted dependence."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from hyper_bids.glm.encoding import PENALTIES, encoding_folds, encoding_score

N_RUNS, PER_RUN, N_FEATURES, N_VOXELS = 4, 15, 12, 25


def standardised(betas, run):
    """Betas, z-scored within runs."""
    result = np.array(betas, float)
    for label in np.unique(run):
        own = result[run == label]
        result[run == label] = (own - own.mean(axis=0)) / own.std(axis=0)
    return result


@pytest.fixture
def shown(rng):
    """Return features and runs of trials; betas that follow the features, and noise."""
    run = np.repeat(np.arange(N_RUNS), PER_RUN)
    features = rng.standard_normal((run.size, N_FEATURES)) + 3
    betas = features @ rng.standard_normal((N_FEATURES, N_VOXELS))
    betas += 4 * rng.standard_normal(betas.shape)
    return features, run, standardised(betas, run)


def direct(betas, features, groups, penalty, kind):
    """Mean over voxels of the correlation of betas with ridge predictions of left-out groups."""
    X = features - features.mean(axis=0)
    X = X / np.sqrt((X**2).sum() / len(X))
    predicted = np.empty(betas.shape)
    for label in np.unique(groups):
        train, test = groups != label, groups == label
        if kind == "kernel":
            model = KernelRidge(alpha=penalty, kernel="linear")
        else:
            model = Ridge(alpha=penalty, fit_intercept=False)
        predicted[test] = model.fit(X[train], betas[train]).predict(X[test])
    norms = np.linalg.norm(predicted, axis=0) * np.linalg.norm(betas, axis=0)
    return ((predicted * betas).sum(axis=0) / norms).mean()


@pytest.mark.parametrize("kind", ["kernel", "primal"])
def test_score_is_that_of_ridge_of_left_out_runs_with_each_penalty(shown, monkeypatch, kind):
    features, run, betas = shown
    folds = encoding_folds(features, run)
    expected = [direct(betas, features, run, penalty, kind) for penalty in PENALTIES]
    assert np.ptp(expected) > 0.01
    for penalty, value in zip(PENALTIES, expected, strict=True):
        monkeypatch.setattr("hyper_bids.glm.encoding.PENALTIES", [penalty])
        assert encoding_score(betas, folds) == pytest.approx(value, abs=1e-4)
    monkeypatch.undo()
    assert encoding_score(betas, folds) == pytest.approx(max(expected), abs=1e-4)


def test_more_features_than_trials_are_no_matter(rng, shown):
    _, run, _ = shown
    features = rng.standard_normal((run.size, 200))
    betas = features @ rng.standard_normal((200, N_VOXELS)) + rng.standard_normal((run.size, 1))
    betas = standardised(betas, run)
    expected = max(direct(betas, features, run, penalty, "primal") for penalty in PENALTIES)
    own = encoding_score(betas, encoding_folds(features, run))
    assert own == pytest.approx(expected, abs=1e-4)


def test_a_single_run_is_predicted_by_fifths(shown):
    features, _, betas = shown
    n = 33
    folds = encoding_folds(features[:n], np.full(n, 7))
    assert len(folds) == 5
    assert {len(fold.test) for fold in folds} == {6, 7}
    np.testing.assert_array_equal(np.concatenate([fold.test for fold in folds]), np.arange(n))
    fifths = np.repeat(np.arange(5), [len(fold.test) for fold in folds])
    expected = max(direct(betas[:n], features[:n], fifths, p, "primal") for p in PENALTIES)
    assert encoding_score(betas[:n], folds) == pytest.approx(expected, abs=1e-4)


def test_no_trial_is_predicted_from_its_own_run(shown):
    features, run, _ = shown
    for label, fold in zip(np.unique(run), encoding_folds(features, run), strict=True):
        np.testing.assert_array_equal(fold.test, np.flatnonzero(run == label))
        np.testing.assert_array_equal(fold.train, np.flatnonzero(run != label))


def test_score_of_betas_without_relation_to_the_features_is_about_zero(rng):
    scores = []
    for _ in range(20):
        run = np.repeat(np.arange(N_RUNS), PER_RUN)
        features = rng.standard_normal((run.size, N_FEATURES))
        betas = standardised(rng.standard_normal((run.size, 200)), run)
        scores.append(encoding_score(betas, encoding_folds(features, run)))
    assert abs(np.mean(scores)) < 0.03
    assert max(np.abs(scores)) < 0.1


def test_score_of_noiseless_linear_betas_is_about_one(rng):
    run = np.repeat(np.arange(N_RUNS), 60)
    features = standardised(rng.standard_normal((run.size, N_FEATURES)), run)
    betas = features @ rng.standard_normal((N_FEATURES, N_VOXELS))
    folds = encoding_folds(features, run)
    assert encoding_score(betas, folds) > 0.999
    assert encoding_score(-betas, folds) > 0.999


def test_score_falls_with_noise(shown, rng):
    features, run, _ = shown
    folds = encoding_folds(features, run)
    signal = features @ rng.standard_normal((N_FEATURES, 200))
    noise = rng.standard_normal(signal.shape)
    scores = [encoding_score(standardised(signal + sd * noise, run), folds) for sd in (0, 2, 5, 20)]
    assert (np.diff(scores) < -0.05).all()


def test_constant_betas_score_zero_and_no_nan(shown):
    features, run, betas = shown
    folds = encoding_folds(features, run)
    assert encoding_score(np.zeros(betas.shape), folds) == 0
    half = np.hstack([betas, np.zeros(betas.shape)])
    assert encoding_score(half, folds) == pytest.approx(encoding_score(betas, folds) / 2, abs=1e-6)


def test_features_that_never_vary_score_zero(shown):
    features, run, betas = shown
    folds = encoding_folds(np.tile(features[:1], (run.size, 1)), run)
    assert encoding_score(betas, folds) == pytest.approx(0, abs=1e-6)


def test_score_does_not_depend_on_scale_of_voxels_or_features(shown, rng):
    features, run, betas = shown
    before = encoding_score(betas, encoding_folds(features, run))
    scales = np.geomspace(1e-3, 1e3, N_VOXELS)
    assert encoding_score(betas * scales, encoding_folds(features, run)) == (
        pytest.approx(before, abs=1e-5)
    )
    moved = 50 * features - 7
    assert encoding_score(betas, encoding_folds(moved, run)) == pytest.approx(before, abs=1e-5)


def test_order_of_trials_does_not_matter(shown, rng):
    features, run, betas = shown
    order = rng.permutation(run.size)
    before = encoding_score(betas, encoding_folds(features, run))
    after = encoding_score(betas[order], encoding_folds(features[order], run[order]))
    assert after == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_with_categories_that_repeat_score_is_their_reliability(rng, sd):
    """One trial correlates with the mean of the n others as Spearman and Brown say."""
    n_categories, n_runs = 12, 6
    category = np.concatenate([rng.permutation(n_categories) for _ in range(n_runs)])
    run = np.repeat(np.arange(n_runs), n_categories)
    pattern = rng.standard_normal((n_categories, 400))
    betas = pattern[category] + sd * rng.standard_normal((run.size, 400))
    betas = standardised(betas, run)
    score = encoding_score(betas, encoding_folds(np.eye(n_categories)[category], run))
    n = n_runs - 1
    expected = 1 / np.sqrt((1 + sd**2) * (1 + sd**2 / n))
    assert score == pytest.approx(expected, abs=0.04)
    means = np.array([[betas[(category == c) & (run != r)].mean(axis=0) for c in category[run == r]]
                      for r in range(n_runs)]).reshape(betas.shape)  # fmt: skip
    norms = np.linalg.norm(means, axis=0) * np.linalg.norm(betas, axis=0)
    assert score == pytest.approx(((means * betas).sum(axis=0) / norms).mean(), abs=1e-3)
