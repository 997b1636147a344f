"""Attributes: boundaries, scores of latents, directions from labels."""

import math
from pathlib import Path

import numpy as np
import pytest

from hyper_bids import attributes
from hyper_bids.errors import InputError

PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "interfacegan"
needs_public = pytest.mark.skipif(
    not PUBLIC.is_dir(), reason="InterFaceGAN's boundaries lie beside the checkout, and are absent"
)


def unit(rng, n=6):
    vector = rng.standard_normal((1, n))
    return vector / np.linalg.norm(vector)


def directions(vectors):
    names = tuple("abcdefgh"[: len(vectors)])
    return attributes.Directions(names, np.array(vectors), names, (math.nan,) * len(names))


# Boundaries


@needs_public
def test_public_boundaries_have_their_names_and_known_angles():
    found = attributes.load_boundaries(PUBLIC)
    assert found.names[:6] == ("age", "eyeglasses", "gender", "pose", "quality", "smile")
    assert len(found.names) == 15
    assert [attributes.is_conditional(name) for name in found.names] == [False] * 6 + [True] * 9
    gender, age, glasses, quality = found.select(["gender", "age", "eyeglasses", "quality"]).vectors
    assert gender @ age == pytest.approx(0.486, abs=5e-4)
    assert gender @ glasses == pytest.approx(0.523, abs=5e-4)
    assert glasses @ quality == pytest.approx(-0.441, abs=5e-4)


@needs_public
def test_public_conditional_boundaries_are_the_unconditional_ones_freed_of_others():
    found = attributes.load_boundaries(PUBLIC)
    vector = dict(zip(found.names, found.vectors, strict=True))

    def freed(name, *conditions):
        others = np.stack([vector[condition] for condition in conditions], axis=1)
        rest = vector[name] - others @ np.linalg.lstsq(others, vector[name])[0]
        return rest / np.linalg.norm(rest)

    np.testing.assert_allclose(freed("age", "gender"), vector["age_c_gender"], atol=1e-6)
    assert freed("eyeglasses", "age", "gender") @ vector["eyeglasses_c_age_gender"] > 0.999


def test_boundaries_load_under_their_names_unconditional_first(tmp_path, rng):
    written = {name: unit(rng) for name in ("smile", "age_c_gender", "age")}
    for name, vector in written.items():
        np.save(tmp_path / f"pggan_celebahq_{name}_boundary.npy", vector)
    (tmp_path / "LICENSE").write_text("MIT")
    found = attributes.load_boundaries(tmp_path, 6)
    assert found.names == ("age", "smile", "age_c_gender")
    for name, vector in zip(found.names, found.vectors, strict=True):
        np.testing.assert_array_equal(vector, written[name][0])
    assert found.select(["smile"]).vectors.shape == (1, 6)
    with pytest.raises(InputError, match=r"hair: not there\. Known: age, smile"):
        found.select(["hair"])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("stylegan_celebahq_age", np.eye(1, 6), "another image model"),
        ("age", np.eye(1, 6), "another image model"),
        ("pggan_celebahq_age", np.eye(1, 5), r"shape \(1, 5\).*want \(1, 6\)"),
        ("pggan_celebahq_age", np.eye(2, 6), r"shape \(2, 6\)"),
        ("pggan_celebahq_age", np.eye(1, 6, dtype=int), "type int64"),
        ("pggan_celebahq_age", 2 * np.eye(1, 6), "length 2; a boundary has length 1"),
        ("pggan_celebahq_age", np.full((1, 6), np.nan), "length nan"),
    ],
)
def test_boundaries_that_cannot_be_are_refused(tmp_path, name, array, message):
    np.save(tmp_path / f"{name}_boundary.npy", array)
    with pytest.raises(InputError, match=message):
        attributes.load_boundaries(tmp_path, 6)


def test_boundaries_of_other_models_in_the_folder_are_left_alone(tmp_path):
    np.save(tmp_path / "pggan_celebahq_age_boundary.npy", np.eye(1, 6))
    np.save(tmp_path / "stylegan_ffhq_age_w_boundary.npy", np.eye(1, 9))
    assert attributes.load_boundaries(tmp_path, 6).names == ("age",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<html></html>", "no NumPy array"),
        (b"", "no NumPy array"),
    ],
)
def test_files_that_are_no_boundaries_are_refused(tmp_path, content, message):
    (tmp_path / "pggan_celebahq_age_boundary.npy").write_bytes(content)
    with pytest.raises(InputError, match=message):
        attributes.load_boundaries(tmp_path, 6)


def test_a_pickled_boundary_is_not_run(tmp_path):
    np.save(tmp_path / "pggan_celebahq_age_boundary.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="no NumPy array"):
        attributes.load_boundaries(tmp_path, 6)


def test_a_folder_without_boundaries_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no boundaries"):
            attributes.load_boundaries(folder)


# Scores


def test_scores_are_projections_of_latents_as_they_are(rng):
    latents, vectors = rng.standard_normal((4, 6)), [unit(rng)[0], unit(rng)[0]]
    found = attributes.scores(latents, directions(vectors))
    for i in range(4):
        for a in range(2):
            wanted = sum(latents[i, k] * vectors[a][k] for k in range(6))
            assert found[i, a] == pytest.approx(wanted)


def test_normalised_scores_do_not_know_the_length_of_latents(rng):
    latents, target = rng.standard_normal((4, 6)), directions([unit(rng)[0]])
    found = attributes.scores(latents, target, normalised=True)
    longer = attributes.scores(latents * [[2.0], [0.1], [30], [1]], target, normalised=True)
    np.testing.assert_allclose(found, longer)
    wanted = latents[2] / math.sqrt(sum(latents[2] ** 2)) * math.sqrt(6) @ target.vectors[0]
    assert found[2, 0] == pytest.approx(wanted)
    assert attributes.scores(np.zeros((1, 6)), target, normalised=True) == 0


@pytest.mark.parametrize("latents", [np.zeros((2, 5)), np.zeros(6), np.full((1, 6), np.inf)])
def test_latents_of_another_space_are_refused(rng, latents):
    with pytest.raises(ValueError, match="latents of shape"):
        attributes.scores(latents, directions([unit(rng)[0]]))


def test_correlation_is_that_of_numpy_and_the_mean_diagonal_of_the_pairs(rng):
    true = rng.standard_normal((9, 3))
    predicted = true + rng.standard_normal((9, 3))
    found = attributes.score_correlation(predicted, true)
    wanted = [np.corrcoef(predicted[:, a], true[:, a])[0, 1] for a in range(3)]
    np.testing.assert_allclose(found, wanted)
    pairs = attributes.score_pairs(predicted, true)
    np.testing.assert_allclose([np.diag(M).mean() for M in pairs], wanted)
    order = rng.permutation(9)
    shuffled = attributes.score_correlation(predicted, true[order])
    np.testing.assert_allclose([np.diag(M[:, order]).mean() for M in pairs], shuffled)


def test_a_constant_prediction_has_no_correlation(rng):
    true = rng.standard_normal((5, 1))
    assert np.isnan(attributes.score_correlation(np.ones((5, 1)), true)).all()
    assert (attributes.score_pairs(np.ones((5, 1)), true) == 0).all()
    assert np.isnan(attributes.score_pairs(true, np.ones((5, 1)))).all()
    with pytest.raises(ValueError, match="against"):
        attributes.score_pairs(true, true[:4])


# Directions from labels


def test_a_planted_direction_is_found_from_numbers_and_from_two_words(rng):
    latents, planted = rng.standard_normal((200, 5)), unit(rng, 5)[0]
    score = latents @ planted
    words = np.where(score > 0, "smiling", "neutral")
    found = attributes.from_labels(latents, {"age": 30 + 7 * score, "smile": words})
    assert found.names == ("age", "smile")
    assert found.high == ("high age", "smiling")
    np.testing.assert_allclose(found.vectors[0], planted, atol=1e-6)
    assert found.vectors[1] @ planted > 0.97
    assert found.fit[0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1)


@pytest.mark.parametrize("n_latents", [4, 40])
def test_the_penalty_is_the_one_that_predicts_left_out_stimuli_best(rng, n_latents):
    latents = rng.standard_normal((25, n_latents))
    labels = latents[:, 0] + 0.8 * rng.standard_normal(25)
    found = attributes.from_labels(latents, {"x": labels})

    def refitted(penalty):
        errors, constant = [], []
        for i in range(25):
            rest = np.arange(25) != i
            X, y = latents[rest] - latents[rest].mean(0), labels[rest] - labels[rest].mean()
            w = np.linalg.solve(X.T @ X + penalty * np.eye(n_latents), X.T @ y)
            prediction = labels[rest].mean() + (latents[i] - latents[rest].mean(0)) @ w
            errors.append((labels[i] - prediction) ** 2)
            constant.append((labels[i] - labels[rest].mean()) ** 2)
        return 1 - sum(errors) / sum(constant)

    s = np.linalg.svd(latents - latents.mean(0), compute_uv=False)
    s = s[s > 1e-8]
    grid = list(np.mean(s**2) * np.logspace(-4, 4, 17)) + ([0.0] if n_latents == 4 else [])
    best = max(grid, key=refitted)
    assert found.fit[0] == pytest.approx(refitted(best))
    X = latents - latents.mean(0)
    w = np.linalg.solve(X.T @ X + best * np.eye(n_latents), X.T @ (labels - labels.mean()))
    np.testing.assert_allclose(found.vectors[0], w / np.linalg.norm(w), atol=1e-8)


def test_stimuli_without_a_label_are_left_out_of_that_attribute(rng):
    latents = rng.standard_normal((20, 3))
    labels = [str(v) for v in latents[:, 1]]
    labels[3], labels[7], labels[9] = "n/a", float("nan"), None
    rest = [i for i in range(20) if i not in (3, 7, 9)]
    found = attributes.from_labels(latents, {"x": labels})
    wanted = attributes.from_labels(latents[rest], {"x": [labels[i] for i in rest]})
    np.testing.assert_array_equal(found.vectors, wanted.vectors)


def test_true_and_false_are_numbers(rng):
    latents = rng.standard_normal((20, 3))
    is_high = latents[:, 0] > 0
    found = attributes.from_labels(latents, {"x": is_high})
    wanted = attributes.from_labels(latents, {"x": is_high.astype(int)})
    np.testing.assert_array_equal(found.vectors, wanted.vectors)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c", "a"], r"text of 3 values \(a, b, c\)"),
        (["a", "a", "a", "a"], "text of 1 values"),
        ([1, 1, 1, 1], "4 labels of training stimuli, with 1 different values"),
        ([1, 2, "n/a", "n/a"], "2 labels"),
        ([1, 2, 3, "inf"], "infinite label"),
    ],
)
def test_labels_that_say_nothing_are_refused(rng, labels, message):
    with pytest.raises(InputError, match=f"attribute x: .*{message}|{message}"):
        attributes.from_labels(rng.standard_normal((4, 2)), {"x": labels})


def test_labels_of_another_number_of_stimuli_are_refused(rng):
    with pytest.raises(ValueError, match="3 labels of x for 5 stimuli"):
        attributes.from_labels(rng.standard_normal((5, 2)), {"x": [1, 2, 3]})
