"""Refits to shuffled training pairs against as many fits of ridge; their p values."""

import app
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from threadpoolctl import threadpool_limits

from hyper_bids import decode, stats
from hyper_bids.decode import permutations
from hyper_bids.decode.permutations import Refit, RefitNull, refit_null, shuffled_rows
from hyper_bids.participant import refit as stage
from hyper_bids.simulate.dataset import simulate

# Fewer trials than voxels, more, and trials that were left out one at a time or in folds.
CASES = [(30, 50, None), (30, 50, 5), (40, 12, None), (40, 12, 4)]


def planted(rng, n, p, n_latents=3, signal=1.0):
    """Return training responses with offsets, latents with offsets, and test responses."""
    latents = rng.standard_normal((n + 6, n_latents)) + 5
    betas = signal * latents @ rng.standard_normal((n_latents, p)) + rng.standard_normal((n + 6, p))
    betas = (betas + rng.uniform(-2, 2, p)).astype(np.float32)
    return betas[:n], latents[:n].astype(np.float32), betas[n:], latents[n:]


def kept(predicted):
    """Return the predictions themselves, as scores."""
    return predicted.ravel()


@pytest.mark.parametrize(("n", "p", "n_folds"), CASES)
def test_each_refit_is_ridge_of_the_shuffled_latents(n, p, n_folds, rng):
    betas, latents, test, _ = planted(rng, n, p)
    folds = None if n_folds is None else rng.permutation(n) % n_folds
    null = refit_null(betas, latents, test, kept, np.random.default_rng(3), 12, Refit(folds=folds))
    rows = shuffled_rows(n, 12, np.random.default_rng(3))
    assert len(set(null.alpha)) > 1
    for order, scores, alpha in zip(rows, null.scores, null.alpha, strict=True):
        fitted = decode.fit("ridge", betas, latents[order], rng, {"folds": folds})
        assert alpha == pytest.approx(fitted.report["alpha"], rel=1e-9)
        expected = decode.predict(fitted, test).ravel()
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_refits_of_repeated_stimuli_and_few_matrices_at_a_time_are_ridge_too(rng, monkeypatch):
    monkeypatch.setattr(permutations, "_BYTES", 3 * 8 * 30**2)
    betas, latents, test, _ = planted(rng, 30, 50)
    stimulus = np.r_[np.repeat(np.arange(8), 3), np.arange(8, 14)]
    latents = latents[stimulus]
    refit = Refit(folds=stimulus % 4, stimulus=stimulus, alphas=np.logspace(0, 5, 8))
    null = refit_null(betas, latents, test, kept, np.random.default_rng(3), 7, refit)
    rows = shuffled_rows(30, 7, np.random.default_rng(3), stimulus=stimulus)
    for order, scores in zip(rows, null.scores, strict=True):
        assert all(len(np.unique(latents[order][stimulus == k], axis=0)) == 1 for k in range(14))
        options = {"folds": stimulus % 4, "alphas": refit.alphas}
        fitted = decode.fit("ridge", betas, latents[order], rng, options)
        np.testing.assert_allclose(
            scores, decode.predict(fitted, test).ravel(), rtol=1e-5, atol=1e-5
        )


def test_shuffles_are_permutations_within_groups_and_uniform(rng):
    groups = np.array([1, 1, 0, 0, 0])
    rows = shuffled_rows(5, 3000, rng, within=groups)
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(5), (3000, 1)))
    assert (groups[rows] == groups).all()
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    # 2 x 6 shuffles; a count is 250 with standard deviation 15.
    assert len(kinds) == 12 and np.abs(counts - 250).max() < 75


def similarity(latents):
    """Return a statistic: mean product of predictions and test latents, both centred."""
    centred = latents - latents.mean(axis=0)
    return lambda predicted: np.array([(predicted * centred).sum()])


def p_of(betas, latents, test, test_latents, rng, n_permutations, **kind):
    statistic = similarity(test_latents)
    refit = Refit(alphas=np.array([3.0, 30.0, 300.0]), folds=np.arange(12) // 4, **kind)
    if refit.stimulus is not None:
        latents = latents[refit.stimulus]
    null = refit_null(betas, latents, test, statistic, rng, n_permutations, refit)
    options = {"alphas": refit.alphas, "folds": refit.folds}
    fitted = decode.fit("ridge", betas, latents, rng, options)
    observed = statistic(decode.predict(fitted, test))[0]
    return stats.p_value(observed, null.scores[:, 0])


@pytest.mark.parametrize(
    "kind", [{}, {"within": np.arange(12) // 4}, {"stimulus": np.r_[0:6, 0:6]}]
)
def test_p_values_are_uniform_where_responses_tell_nothing(rng, kind):
    with threadpool_limits(1):
        p = [p_of(*planted(rng, 12, 20, 2, signal=0), rng, 99, **kind) for _ in range(500)]
    # Uniform on 0.01, 0.02, ... 1: up to half a step from the continuous distribution.
    assert kstest(np.array(p) - rng.uniform(0, 0.01, 500), "uniform").pvalue > 0.01


def test_planted_relation_is_found_and_p_is_the_smallest_possible(rng):
    betas, latents, test, test_latents = planted(rng, 12, 20, 2, signal=1)
    assert p_of(betas, latents, test, test_latents, rng, 199) == 1 / 200


def test_unshuffled_pairs_are_given_the_scores_of_the_decoder_itself(tmp_path, monkeypatch):
    """Refits have the decoder's trials, folds, penalties, and test responses."""

    def as_they_are(n_trials, n_permutations, *_):
        return np.tile(np.arange(n_trials), (n_permutations, 1))

    monkeypatch.setattr(permutations, "shuffled_rows", as_they_are)
    root = simulate(tmp_path / "ds", app.small(noise=(3.0,)))
    flags = ("--betas", "lsa", "--drift-order", "1", "--use-plugin", "linear")
    assert app.run(root, tmp_path / "out", *flags, "--refit-permutations", "2") == 0
    table = app.table(tmp_path / "out", "_desc-summary_metrics.tsv").fillna({"variant": "n/a"})
    table = table.set_index(["metric", "variant"])
    own = table.loc[table["control"].isna(), "value"]
    refits = table.loc[table["control"] == "refit"]
    assert sorted(refits.index) == sorted(stage.FORMS)
    np.testing.assert_allclose(refits["value"], own[refits.index], rtol=1e-5)
    assert (refits["p"] == 1).all()


def test_repeated_stimuli_exchange_latents_and_others_do_within_their_run(
    tmp_path, rng, monkeypatch
):
    given = []
    monkeypatch.setattr(
        stage,
        "refit_null",
        lambda *args: given.append(args[-1]) or RefitNull(np.ones((1, 5)), None),
    )
    options = {"n": 1, "seed": 0, "folds": None, "device": "cpu"}
    run = np.array([0, 0, 1, 1])
    for shown in (["a", "b", "c", "d"], ["a", "b", "a", "c"]):
        trials = pd.DataFrame({"run_index": run, "stim_id": shown})
        stage.write_refit(
            tmp_path / stage.FILE, (None, None, None), np.zeros((3, 2)), trials, options
        )
    assert given[0].stimulus is None and given[0].within.tolist() == run.tolist()
    assert given[1].within is None and given[1].stimulus.tolist() == [0, 1, 0, 2]


def test_what_cannot_be_shuffled_is_refused(rng):
    betas, latents, test, _ = planted(rng, 30, 50)
    for refit, message in (
        (Refit(within=np.zeros(7)), r"\(7,\) for 30 trials"),
        (Refit(within=np.zeros(30), stimulus=np.zeros(30)), "groups or by stimulus"),
        (Refit(folds=np.zeros(30)), "at least 2 folds"),
    ):
        with pytest.raises(ValueError, match=message):
            refit_null(betas, latents, test, kept, rng, 3, refit)
    with pytest.raises(ValueError, match="at least 1"):
        refit_null(betas, latents, test, kept, rng, 0)
    with pytest.raises(ValueError, match=r"\(6, 9\) for 50 voxels"):
        refit_null(betas, latents, test[:, :9], kept, rng, 3)
