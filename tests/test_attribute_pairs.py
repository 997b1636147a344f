"""Attributes in the scores: a planted attribute, what a label is, and what never is one."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from hyper_bids import attributes, stats
from hyper_bids.errors import InputError
from hyper_bids.participant import attribute_pairs
from hyper_bids.participant.attribute_pairs import METRIC

PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "interfacegan"
needs_public = pytest.mark.skipif(
    not PUBLIC.is_dir(), reason="InterFaceGAN's boundaries lie beside the checkout, and are absent"
)


def unit_directions(n_latents, names=("x", "y_c_x")):
    vectors = np.eye(n_latents)[: len(names)]
    return attributes.Directions(names, vectors, names, (math.nan,) * len(names))


def data(rng, n=30, n_latents=6, noise=1.0):
    targets = rng.standard_normal((n, n_latents))
    return {
        "targets": targets.astype(np.float32),
        "predicted": (targets + noise * rng.standard_normal(targets.shape)).astype(np.float32),
    }


def found_in(one, directions, normalised=False):
    return attribute_pairs.attribute_scores(one, directions, normalised)


# Pairs


def test_the_score_is_pearsons_r_of_projections_and_a_constant_prediction_gets_nought(rng):
    one = data(rng)
    pairs = attribute_pairs.attribute_pairs(found_in(one, unit_directions(6)))
    assert list(pairs) == [(METRIC, "x"), (METRIC, "y_c_x")]
    for k, (matrix, constant) in enumerate(pairs.values()):
        r = reference.pearsonr(one["predicted"][:, k], one["targets"][:, k]).statistic
        assert stats.score(matrix)["value"] == pytest.approx(r, abs=1e-6)
        assert (constant == 0).all()


def test_shuffled_pairs_have_the_correlations_of_shuffled_stimuli(rng):
    one = data(rng)
    directions = unit_directions(6, ("x",))
    ((matrix, _),) = attribute_pairs.attribute_pairs(found_in(one, directions)).values()
    order = rng.permutation(30)
    shuffled = {**one, "targets": one["targets"][order]}
    r = attributes.score_correlation(
        attributes.scores(one["predicted"], directions),
        attributes.scores(shuffled["targets"], directions),
    )
    assert matrix[np.arange(30), order].mean() == pytest.approx(r[0], abs=1e-9)


def test_a_planted_attribute_is_significant_and_noise_is_not(rng):
    one = data(rng, noise=0.5)
    one["predicted"][:, 1] = rng.standard_normal(30)
    pairs = attribute_pairs.attribute_pairs(found_in(one, unit_directions(6)))
    p = {}
    for (_, name), (matrix, _) in pairs.items():
        null = stats.pairing_null(matrix, 999, rng)
        p[name] = stats.p_value(stats.score(matrix)["value"], null)
    assert p["x"] == 0.001
    assert p["y_c_x"] > 0.01


def test_the_interval_is_that_of_the_correlation_over_stimuli(rng):
    one = data(rng, n=40)
    found = found_in(one, unit_directions(6, ("x",)))
    ((key, columns),) = attribute_pairs.attribute_columns(found).items()
    assert key == (METRIC, "x")
    se, low, high = stats.bootstrap_correlation(*columns, rng)
    full = reference.pearsonr(one["predicted"][:, 0], one["targets"][:, 0]).statistic
    # The standard error of Pearson's r, by Fisher.
    assert se == pytest.approx((1 - full**2) / math.sqrt(39), rel=0.4)
    assert low < full < high


def test_true_scores_that_do_not_vary_have_no_score(rng):
    one = data(rng)
    one["targets"][:, 0] = 3
    pairs = attribute_pairs.attribute_pairs(found_in(one, unit_directions(6)))
    assert math.isnan(stats.score(pairs[METRIC, "x"][0])["value"])
    assert math.isfinite(stats.score(pairs[METRIC, "y_c_x"][0])["value"])


def test_normalised_scores_do_not_depend_on_the_length_of_latents(rng):
    one = data(rng)
    lengths = rng.uniform(0.1, 5, (30, 1)).astype(np.float32)
    stretched = {**one, "targets": one["targets"] * lengths}
    directions = unit_directions(6)
    same = found_in(one, directions, True).true
    np.testing.assert_allclose(found_in(stretched, directions, True).true, same, rtol=1e-5)
    assert np.abs(found_in(stretched, directions).true - same).max() > 0.1


@needs_public
def test_public_boundaries_score_latents_as_the_paper_does(rng):
    found = attribute_pairs.boundaries(str(PUBLIC), 512)
    assert len(found.names) == 15
    for name, vector in zip(found.names, found.vectors, strict=True):
        np.testing.assert_allclose(
            np.load(attribute_pairs.boundary_file(str(PUBLIC), name))[0], vector
        )
    one = data(rng, n=36, n_latents=512, noise=0.3)
    pairs = attribute_pairs.attribute_pairs(found_in(one, found))
    gender = np.load(PUBLIC / "pggan_celebahq_gender_boundary.npy")[0]
    r = np.corrcoef(one["predicted"] @ gender, one["targets"] @ gender)[0, 1]
    assert stats.score(pairs[METRIC, "gender"][0])["value"] == pytest.approx(r, abs=1e-6)
    with pytest.raises(InputError, match=r"\(1, 100\)"):
        attribute_pairs.boundaries(str(PUBLIC), 100)


# Labels


def test_a_label_is_a_number_or_one_of_two_words_and_no_key():
    n = 12
    columns = {
        "age": [str(20 + k) for k in range(n)],
        "gender": ["female", "male"] * 6,
        "smiles": ["True", "False"] * 6,
        "rated": ["3.5", "n/a", "4"] * 2 + ["2"] * 6,
        "name": [f"person {k}" for k in range(n)],
        "three_words": ["a", "b", "c"] * 4,
        "constant": ["1"] * n,
        "rare": ["1", "2", "3"] + ["n/a"] * 9,
        "nsd_id": [str(k) for k in range(n)],
        "ID": [str(k) for k in range(n)],
        "endless": ["1", "2", "inf"] * 4,
    }
    assert list(attribute_pairs.label_columns(columns)) == ["age", "gender", "smiles", "rated"]


def planted(rng, n=80, n_latents=6):
    """Return latents of training trials, their stimuli (each shown twice), labels and direction."""
    latents = rng.standard_normal((n, n_latents))
    vector = rng.standard_normal(n_latents)
    vector /= np.linalg.norm(vector)
    age = latents @ vector + 0.2 * rng.standard_normal(n)
    labels = {
        "age": [f"{value:.3f}" for value in age],
        "dice": [str(value) for value in rng.integers(1, 7, n)],
    }
    rows = np.repeat(np.arange(n), 2)
    shown = [f"face{k:03d}" for k in rows]
    return latents[rows], shown, {k: [v[r] for r in rows] for k, v in labels.items()}, vector


def test_a_planted_label_gives_its_direction_and_one_that_is_noise_gives_none(rng, said):
    latents, shown, labels, vector = planted(rng)
    found = attribute_pairs.label_directions(latents, shown, labels)
    assert found.names == ("age",)
    assert found.vectors[0] @ vector > 0.98
    assert found.fit[0] > 0.9
    assert "not scored: dice" in said.text
    (described,) = attribute_pairs.described(found)
    assert described == {"Name": "age", "High": "high age", "FitRSquare": round(found.fit[0], 4)}


def test_labels_drawn_by_chance_are_hardly_ever_told(rng, said):
    n_told = 0
    for _ in range(100):
        latents = rng.standard_normal((60, 20))
        labels = {"dice": [str(value) for value in rng.integers(1, 7, 60)]}
        names = [f"face{k}" for k in range(60)]
        n_told += len(attribute_pairs.label_directions(latents, names, labels).names)
    assert n_told <= 5


def test_a_stimulus_enters_once_however_often_it_was_shown(rng, said):
    latents, shown, labels, _ = planted(rng)
    once = slice(None, None, 2)
    first = attribute_pairs.label_directions(latents, shown, labels)
    second = attribute_pairs.label_directions(
        latents[once], shown[once], {k: v[once] for k, v in labels.items()}
    )
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-9)
    assert first.fit == pytest.approx(second.fit)


def test_without_a_label_that_the_latents_tell_there_is_no_direction(rng, said):
    latents, shown, labels, _ = planted(rng)
    nothing = attribute_pairs.label_directions(latents, shown, {"dice": labels["dice"]})
    assert nothing.names == ()
    assert attribute_pairs.label_directions(latents, shown, {}).names == ()
    assert attribute_pairs.attribute_pairs(found_in(data(rng), nothing)) == {}
