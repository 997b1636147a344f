"""Controls beside the scores: what each says of planted predictions."""

import html

import app
import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from hyper_bids import decode, metrics, perceptual, stats
from hyper_bids.metrics import predictions
from hyper_bids.participant import controls, scoring
from hyper_bids.participant.pairs import columns, image_pairs, latent_pairs
from hyper_bids.simulate.dataset import simulate


def data_of(rng, predicted, targets, training):
    return {
        "predicted": predicted, "targets": targets, "training_latents": training,
        "single_predicted": predicted, "single_stimulus": np.arange(len(targets)),
    }  # fmt: skip


def by_control(rows, metric, variant):
    found = [r for r in rows if (r["metric"], r["variant"]) == (metric, variant)]
    return {r["control"]: r for r in found}


def test_random_latents_are_standard_normal_as_in_the_paper_or_like_the_training_latents(rng):
    standard = controls.draw_prior(rng.standard_normal((500, 40)), 4000, rng)
    assert standard.mean() == pytest.approx(0, abs=0.01)
    assert standard.std() == pytest.approx(1, abs=0.01)
    scale, shift = rng.uniform(0.1, 4, 40), rng.uniform(-3, 3, 40)
    training = shift + scale * rng.standard_normal((500, 40))
    drawn = controls.draw_prior(training, 4000, rng)
    np.testing.assert_allclose(drawn.mean(0), training.mean(0), atol=4 * 4 / np.sqrt(4000))
    np.testing.assert_allclose(drawn.std(0), training.std(0), rtol=0.1)


def test_a_constant_passes_the_paper_s_test_whose_row_says_so_beside_a_score_without_p(rng):
    targets, training = rng.standard_normal((20, 50)), rng.standard_normal((200, 50))
    data = data_of(rng, np.zeros_like(targets), targets, training)
    pairs = latent_pairs(data)
    rows = controls.prior_rows(data, None, pairs, 500, rng)
    row = by_control(rows, "latent_similarity", "code")["random_prior"]
    assert row["p"] == pytest.approx(1 / 501)
    assert row["value"] == pytest.approx(1 / 3, abs=0.02)


def test_ceilings_of_images_are_those_of_the_model_s_own_images(rng):
    stimuli = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    noisy = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    pictures = {
        "stimuli": stimuli, "reconstructions": noisy, "training_mean": noisy[:1],
        "model_ceiling": stimuli, "prior": noisy,
    }  # fmt: skip
    targets = rng.standard_normal((6, 5))
    data = data_of(rng, targets, targets, rng.standard_normal((50, 5)))
    pairs = image_pairs(pictures, 1)
    rows = controls.ceiling_rows(data, pictures, pairs, {}, rng)
    for metric, variant in (
        ("structural_similarity", "reference"),
        ("luminance_correlation", "n/a"),
        ("pixel_correlation", "MindEye2"),
    ):
        assert by_control(rows, metric, variant)["model_ceiling"]["value"] == pytest.approx(1)
        assert np.diagonal(pairs[metric, variant][0]).mean() < 0.3
    drawn = controls.prior_rows(data, pictures, latent_pairs(data) | pairs, 50, rng)
    row = by_control(drawn, "luminance_correlation", "n/a")["random_prior"]
    assert abs(row["value"]) < 0.1


def test_reliability_and_noise_ceiling_find_the_planted_noise(rng):
    """Predictions of one trial are the truth and as much noise; four repeats of 40 stimuli."""
    truth = rng.standard_normal((40, 30))
    stimulus = np.repeat(np.arange(40), 4)
    single = truth[stimulus] + rng.standard_normal((160, 30))
    data = data_of(rng, single.reshape(40, 4, 30).mean(1), truth, rng.standard_normal((90, 30)))
    data |= {"single_predicted": single, "single_stimulus": stimulus}
    found = controls.response_ceilings(single, stimulus, rng)
    rows = controls.ceiling_rows(data, None, {}, found, rng)
    # The mean of four has signal 1 and noise 1/4; one trial against three, 1 / sqrt(2 * 4/3).
    expected = {
        ("response_reliability", "split-half", None): 0.8,
        ("prediction_reliability", "split-half", None): 0.8,
        ("response_reliability", "leave one out", None): 1 / np.sqrt(2 * 4 / 3),
        ("latent_correlation", "n/a", "noise_ceiling"): np.sqrt(0.8),
    }
    for (metric, variant, control), value in expected.items():
        assert by_control(rows, metric, variant)[control]["value"] == pytest.approx(value, abs=0.03)
    assert controls.response_ceilings(truth, np.arange(40), rng) == {}


def test_collapse_is_seen(rng):
    targets, training = rng.standard_normal((30, 20)), rng.standard_normal((100, 20))
    training /= np.linalg.norm(training, axis=1, keepdims=True) / 4
    line = rng.standard_normal((30, 1)) * rng.standard_normal(20)
    rows = controls.collapse_rows(data_of(rng, line, targets, training))
    dimension = by_control(rows, "effective_dimension", "n/a")
    assert dimension[None]["value"] == pytest.approx(1)
    assert dimension["targets"]["value"] > 8
    constant = controls.collapse_rows(data_of(rng, np.ones((30, 20)), targets, training))
    assert by_control(constant, "prediction_variance", "n/a")[None]["value"] == 0
    said_again = controls.collapse_rows(data_of(rng, training[:30], targets, training))
    assert by_control(said_again, "nearest_training", "n/a")[None]["value"] == 1
    right = controls.collapse_rows(data_of(rng, targets, targets, training))
    assert by_control(right, "nearest_training", "n/a")[None]["value"] == 0


def test_refits_of_shuffled_pairs_stand_beside_the_scores_and_change_nothing_else(tmp_path):
    root = simulate(tmp_path / "ds", app.SMALL)
    flags = ("--betas", "lsa", "--drift-order", "1")
    assert app.run(root, tmp_path / "without", *flags) == 0
    assert app.run(root, tmp_path / "with", *flags, "--refit-permutations", "99") == 0
    one, two = (
        app.table(tmp_path / name, "_desc-summary_metrics.tsv") for name in ("without", "with")
    )
    pd.testing.assert_frame_equal(one, two[two["control"] != "refit"].reset_index(drop=True))
    found = two[two["control"] == "refit"].set_index("metric")
    # Signal is planted; decoders of shuffled pairs are at chance.
    assert found.loc["two_way_identification", "p"] == 0.01
    assert found.loc["two_way_identification", "value"] == pytest.approx(0.5, abs=0.05)
    assert found.loc["latent_correlation", "value"] == pytest.approx(0, abs=0.08)
    assert app.run(root, tmp_path / "x", "--refit-permutations", "9", "--decoder", "ols") == 64


# No information


def constant_decoder(betas, latents, rng, **options):
    """Fit nothing: the mean latent, whatever the responses."""
    weights = np.zeros((betas.shape[1], latents.shape[1]), np.float32)
    return decode.Decoder("ols", weights, latents.mean(axis=0).astype(np.float32), {})


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """Return the derivatives of two participants whose decoder always says the same."""
    settings = app.small(
        n_participants=2, generator="demo", n_latents=100, n_test_stimuli=12, noise=(0.3,)
    )
    root = simulate(tmp_path_factory.mktemp("constant") / "ds", settings)
    # Looking for faces takes the time of all else.
    network = next((name for name in perceptual.available() if name != "dlib-face"), "none")
    flags = ("--betas", "lsa", "--drift-order", "1", "--decoder", "ols", "--no-maps")
    flags += ("--use-plugin", "linear", "--n-permutations", "199", "--prior-images", "3")
    flags += ("--feature-network", network)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(decode.SOLVERS, "ols", constant_decoder)
        assert app.run(root, root.parent / "out", *flags) == 0
    assert app.run(root, root.parent / "out", level="group") == 0
    return root.parent / "out"


def test_a_constant_prediction_has_no_information_in_any_score_of_the_tables(constant):
    tables = [app.table(constant, "_desc-summary_metrics.tsv", name) for name in ("01", "02")]
    group = pd.read_csv(constant / "group_stats.tsv", sep="\t", na_values="n/a")
    for table, value in ((tables[0], "value"), (tables[1], "value"), (group, "mean")):
        scores = table[table["control"].isna() & table["p"].notna()].copy()
        # Every score that has a test, in latents, pixels and features.
        assert len(scores) > 20
        assert (scores[["p", "p_max"]].max(axis=1) == 1).all()
        assert (scores["p"] == 1).all()
        key = ["metric", "variant"]
        chance = table[table["control"] == "chance"].set_index(key)[value]
        found = scores.set_index(key)[value].loc[chance.index]
        np.testing.assert_allclose(found, chance, atol=1e-6)
        r = scores.loc[scores["metric"] == "latent_correlation", value]
        assert r.tolist() == [0]
        # The paper's test does not see it, and its rows say so beside the scores.
        papers = table[table["control"] == "random_prior"].set_index(key)["p"]
        assert papers["latent_similarity", "code"] < 0.01
        assert papers["latent_similarity", "printed"] < 0.01
    assert (group.loc[group["n_significant"].notna() & group["control"].isna(), "n_significant"]
            == 0).all()  # fmt: skip


@pytest.mark.parametrize("page", ["sub-01", "sub-02", "group"])
def test_the_headline_of_a_constant_prediction_says_that_there_is_no_information(constant, page):
    text = html.unescape((constant / f"{page}.html").read_text("utf-8"))
    headline = next(line for line in text.splitlines() if "wo-way identification 0.5" in line)
    assert "No information was found on which stimulus was shown." in headline
    assert "wo-way identification 0.500 (chance 0.500, p = 1)" in headline
    assert "latent correlation 0.000" in headline
    assert "p, paper's test" in text


def test_the_headline_of_a_decoder_that_knows_does_not_say_so(tmp_path):
    root = simulate(tmp_path / "ds", app.small(noise=(0.3,)))
    assert app.run(root, tmp_path / "out", "--betas", "lsa", "--drift-order", "1") == 0
    assert app.scores(tmp_path / "out", "two_way_identification", "latents")["p"] < 0.05
    assert "No information" not in (tmp_path / "out" / "sub-01.html").read_text("utf-8")


# Hits


def test_scores_that_count_hits_have_exact_intervals_and_all_others_bootstrap(rng):
    targets = rng.standard_normal((14, 8))
    single = np.repeat(targets, 2, axis=0) + 2 * rng.standard_normal((28, 8))
    predicted = single.reshape(14, 2, 8).mean(1)
    data = data_of(rng, predicted, targets, rng.standard_normal((50, 8)))
    data |= {"single_predicted": single, "single_stimulus": np.repeat(np.arange(14), 2)}
    pairs = latent_pairs(data)
    rows, _ = scoring.summarise(
        pairs, columns(data), rng, lambda matrices: stats.pairing_nulls(matrices, 99, rng)
    )
    main = {(r["metric"], r["variant"]): r for r in rows if r["control"] is None}
    exact = {key for key, row in main.items() if row["interval"] == "binomial"}
    hits = ("one_of_n_identification", "top_5_identification", "brain_retrieval")
    assert exact == {(name, "latents") for name in hits}
    assert ("one_of_n_identification", "latents, single trials") in main
    for key in exact:
        n_hits = round(14 * main[key]["value"])
        expected = reference.binomtest(n_hits, 14).proportion_ci(0.95, method="exact")
        found = main[key]["ci_low"], main[key]["ci_high"]
        assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    guessed = {r["metric"]: r["value"] for r in rows if r["control"] == "chance"}
    assert guessed["one_of_n_identification"] == guessed["brain_retrieval"] == 1 / 14
    assert guessed["top_5_identification"] == 5 / 14


def test_retrieval_among_more_stimuli_than_candidates_is_a_mean_over_draws_of_300(rng):
    targets = rng.standard_normal((310, 6)).astype(float)
    predicted = targets + 2 * rng.standard_normal((310, 6))
    S = metrics.correlation_similarity(predicted, targets)
    pairs = predictions.identified("latents", S, np.zeros_like(S))
    drawn = metrics.retrieval(S, rng, n_draws=400)
    for name, values in (("image_retrieval", drawn.image), ("brain_retrieval", drawn.brain)):
        found = np.diag(pairs[name, "latents"][0]).mean()
        assert abs(found - values.mean()) < 4 * values.std() / 20
        assert np.diag(pairs[name, "latents"][1]).mean() == pytest.approx(1 / 300)
        assert predictions.chance(name, 310) == 1 / 300
        assert not predictions.counts_hits(name, "latents", 310)
    few = predictions.identified("latents", S[:300, :300], S[:300, :300])
    assert ("image_retrieval", "latents") not in few
    assert ("brain_retrieval", "latents") in few
