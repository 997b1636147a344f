"""Controls beside the scores: what each says of planted predictions."""

import app
import numpy as np
import pandas as pd
import pytest

from hyper_bids.participant import controls
from hyper_bids.participant.pairs import image_pairs, latent_pairs
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
