"""Scores by feature networks: by hand on a small network, names that are honest, and choices."""

import logging

import numpy as np
import pytest

from hyper_bids import perceptual, stats
from hyper_bids.config import ScoreSettings
from hyper_bids.errors import InputError, UsageError
from hyper_bids.generators import checkpoints
from hyper_bids.participant import features, scoring

INSTALLED = perceptual.available()


class Projection:
    """A network of random projections of the pixels."""

    def __init__(self, name="Projection (of pixels), last", is_papers=False, seed=0):
        self.name, self.label, self.is_papers = name, f"{name}: a stand-in", is_papers
        self.n_features, self.checksum, self.seed = 5, f"{seed:x}".zfill(6).ljust(64, "0"), seed
        self.seen = []

    def extract(self, images):
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        self.seen.append(len(images))
        flat = images.reshape(len(images), -1)
        weights = np.random.default_rng(self.seed).standard_normal((flat.shape[1], 5))
        return (flat @ weights).astype(np.float32)


@pytest.fixture
def pictures(rng):
    """Return four stimuli, reconstructions near them, and a grey picture of the mean."""
    stimuli = rng.integers(0, 256, (4, 6, 7, 3), dtype=np.uint8)
    noise = rng.integers(-9, 10, stimuli.shape)
    return {
        "stimuli": stimuli,
        "reconstructions": np.clip(stimuli + noise, 0, 255).astype(np.uint8),
        "training_mean": np.full((1, 6, 7, 3), 128, np.uint8),
    }


def choose(*names, layer=None):
    return features.choose_networks(ScoreSettings(feature_networks=names, feature_layer=layer))


# The scores


def test_scores_are_those_of_the_features_by_hand(pictures):
    network = Projection()
    pairs = features.feature_pairs([("Projection", network)], pictures)
    found, shown, mean = (
        network.extract(pictures[name].astype(np.float32) / 255).astype(float)
        for name in ("reconstructions", "stimuli", "training_mean")
    )
    for i in range(4):
        for j in range(4):
            squared = np.sum((found[i] - shown[j]) ** 2)
            constant = np.sum((mean[0] - shown[j]) ** 2)
            code, nothing = pairs["feature_similarity", "code, Projection"]
            assert code[i, j] == pytest.approx(1 / (1 + squared / 5))
            assert nothing[i, j] == pytest.approx(1 / (1 + constant / 5))
            printed, nothing = pairs["feature_similarity", "printed, Projection"]
            assert printed[i, j] == pytest.approx(1 / (1 + squared**0.5))
            assert nothing[i, j] == pytest.approx(1 / (1 + constant**0.5))
    r = np.corrcoef(found, shown)[:4, 4:]
    matrix, _ = pairs["two_way_identification", "features, Projection"]
    for i in range(4):
        others = [r[i, k] < r[i, i] for k in range(4) if k != i]
        assert matrix[i, i] == np.mean(others)
    np.testing.assert_allclose(pairs["feature_correlation", "Projection"][0], r, rtol=1e-12)
    of_mean = np.corrcoef(mean, shown)[0, 1:]
    constant = pairs["feature_correlation", "Projection"][1]
    np.testing.assert_allclose(constant, np.tile(of_mean, (4, 1)), rtol=1e-12)
    retrieved, _ = pairs["brain_retrieval", "features, Projection"]
    for j in range(4):
        assert retrieved[j, j] == (r[:, j].argmax() == j)
    assert len(pairs) == 6


def test_reconstructions_are_identified_and_the_constant_prediction_is_not(pictures):
    pairs = features.feature_pairs([("P", Projection())], pictures)
    for metric, chance in (("two_way_identification", 0.5), ("one_of_n_identification", 0.25)):
        matrix, constant = pairs[metric, "features, P"]
        assert np.diag(matrix).mean() == 1
        assert np.diag(constant).mean() == chance
    code, constant = pairs["feature_similarity", "code, P"]
    assert np.diag(code).mean() > np.diag(constant).mean() + 0.1


def test_reconstructions_that_are_all_one_picture_are_ties(pictures):
    pictures = pictures | {"reconstructions": np.repeat(pictures["training_mean"], 4, axis=0)}
    pairs = features.feature_pairs([("P", Projection())], pictures)
    assert np.diag(pairs["two_way_identification", "features, P"][0]).tolist() == [0.5] * 4


def test_features_of_stimuli_are_computed_once_for_all_methods_that_show_them(pictures):
    network, known = Projection(), {}
    first = features.feature_pairs([("P", network)], pictures, known)
    assert network.seen == [4, 4, 1]
    again = features.feature_pairs([("P", network)], pictures, known)
    assert network.seen == [4, 4, 1, 4, 1]
    for key, (matrix, _) in first.items():
        np.testing.assert_array_equal(again[key][0], matrix)
    other = pictures | {"stimuli": pictures["stimuli"][::-1]}
    turned = features.feature_pairs([("P", network)], other, known)
    key = ("feature_similarity", "code, P")
    np.testing.assert_allclose(turned[key][0], first[key][0][:, ::-1])


def test_each_network_has_scores_of_its_own(pictures):
    networks = [("A", Projection(seed=1)), ("B", Projection(seed=2))]
    pairs, known = features.feature_pairs(networks, pictures), {}
    alone = features.feature_pairs(networks[1:], pictures, known)
    for key, (matrix, constant) in alone.items():
        np.testing.assert_array_equal(pairs[key][0], matrix)
        np.testing.assert_array_equal(pairs[key][1], constant)
    assert len(pairs) == 2 * len(alone)


def test_many_large_images_are_handed_over_in_blocks_of_the_same_features(pictures, monkeypatch):
    network = Projection()
    whole = features.features_of(network, pictures["stimuli"])
    monkeypatch.setattr(features, "_BLOCK", 3 * 4 * 6 * 7 * 3)
    np.testing.assert_allclose(features.features_of(network, pictures["stimuli"]), whole, rtol=1e-6)
    assert network.seen == [4, 3, 1]


# Names


@pytest.mark.parametrize(
    ("name", "is_papers", "short"),
    [
        ("VGGFace2 ResNet50, pool5", True, "VGGFace"),
        ("VGGFace2 ResNet50, pool5, Caffe graph", False, "ResNet50"),
        ("VGG16 (ImageNet), fc7", False, "VGG16 fc7"),
        ("EfficientNet-Lite0 (ImageNet), pooled head", False, "EfficientNet-Lite0"),
        ("dlib face ResNet v1, descriptor", False, "dlib face ResNet v1"),
    ],
)
def test_only_the_papers_network_is_called_vggface_in_the_scores(name, is_papers, short):
    assert features.short_name(Projection(name, is_papers)) == short


def test_the_names_of_what_is_installed_say_that_it_stands_in(said):
    for network in choose("auto"):
        assert "VGGFace" not in network.short
        assert "stand-in" in network.label


# The evaluation of MindEye2


def rows_of(pairs):
    """Return rows of the scores as the stage writes them, by its own function."""
    rng = np.random.default_rng(0)
    rows, _ = scoring.summarise(
        pairs, {}, rng, lambda matrices: stats.pairing_nulls(matrices, 99, rng)
    )
    return [*rows, *features.distance_rows(rows), *features.absent_rows(pairs)]


def test_correlation_distance_is_that_of_scipy_with_its_p_and_interval_turned(pictures):
    from scipy.spatial.distance import correlation

    network = Projection()
    pairs = features.feature_pairs([("SwAV", network), ("Other", Projection(seed=3))], pictures)
    rows = rows_of(pairs)
    found = {r["control"]: r for r in rows if r["metric"] == "correlation_distance"
             and r["variant"] == "SwAV"}  # fmt: skip
    ours, shown, mean = (
        network.extract(pictures[name].astype(np.float32) / 255).astype(float)
        for name in ("reconstructions", "stimuli", "training_mean")
    )
    values = [correlation(a, b) for a, b in zip(ours, shown, strict=True)]
    assert found[None]["value"] == pytest.approx(np.mean(values), rel=1e-12)
    assert found[None]["ci_low"] < found[None]["value"] < found[None]["ci_high"]
    of_mean = np.mean([correlation(mean[0], b) for b in shown])
    assert found["training_mean"]["value"] == pytest.approx(of_mean, rel=1e-12)
    r = next(r for r in rows if r["metric"] == "feature_correlation" and r["control"] is None)
    assert (r["value"], r["p"]) == (1 - found[None]["value"], found[None]["p"])
    # Of a network that is none of MindEye2's, there is no such row.
    distances = {r["variant"] for r in rows if r["metric"] == "correlation_distance"}
    assert distances == {"SwAV", "EfficientNet-B1"}


def test_scores_of_mindeye_whose_network_is_not_given_are_there_without_a_value(pictures):
    pairs = features.feature_pairs([("CLIP", Projection())], pictures)
    rows = rows_of(pairs)
    absent = {(r["metric"], r["variant"]) for r in rows if r.get("value") is None}
    by_features = ("AlexNet 2", "AlexNet 5", "Inception v3")
    measured = ("EfficientNet-B1", "SwAV")
    assert absent == {("two_way_identification", f"features, {name}") for name in by_features} | {
        (metric, name) for metric in ("feature_correlation", "correlation_distance")
        for name in measured
    }  # fmt: skip
    keys = [(r["metric"], r["variant"], r["control"]) for r in rows]
    assert len(keys) == len(set(keys))
    similarity = {("feature_similarity", form) for form in ("code", "printed")}
    nothing = {(r["metric"], r["variant"]) for r in features.absent_rows({})}
    assert nothing == absent | similarity | {("two_way_identification", "features, CLIP")}


def test_alexnet_is_scored_by_two_layers_unless_one_is_asked_for(monkeypatch, tmp_path):
    file = tmp_path / "alexnet.pth"
    file.touch()
    monkeypatch.setattr(
        perceptual, "load", lambda source, device="cpu", layer=None:
        Projection(f"AlexNet {layer or 5} (ImageNet)"),
    )  # fmt: skip
    features._chosen.cache_clear()
    networks = choose(str(file))
    assert [(n.short, n.layer) for n in networks] == [("AlexNet 2", "2"), ("AlexNet 5", "5")]
    features._chosen.cache_clear()
    with pytest.raises(UsageError, match="the same weights"):
        choose(str(file), str(file.parent / "other" / ".." / file.name))
    features._chosen.cache_clear()


# Choices


def test_auto_is_every_embedded_network_that_is_installed(monkeypatch):
    assert [network.source for network in choose("auto")] == INSTALLED
    assert choose("none") == ()
    monkeypatch.setattr(perceptual, "available", list)
    features._chosen.cache_clear()
    assert choose("auto") == ()
    features._chosen.cache_clear()


@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_network_knows_faces_of_latents_that_are_near(name, rng, said):
    latents = rng.standard_normal((6, 100)).astype(np.float32)
    near = latents + 0.2 * rng.standard_normal(latents.shape).astype(np.float32)
    model = checkpoints.load("demo")
    names = ("stimuli", "reconstructions", "training_mean")
    pictures = {
        name: checkpoints.generate_batches(model, chosen, 8)
        for name, chosen in zip(names, (latents, near, rng.standard_normal((1, 100))), strict=True)
    }
    (network,) = choose(name)
    pairs = features.feature_pairs([(network.short, network.load("cpu"))], pictures)
    matrix, constant = pairs["two_way_identification", f"features, {network.short}"]
    assert np.diag(matrix).mean() > 0.8
    assert np.diag(constant).mean() == 0.5


@pytest.mark.parametrize(
    ("names", "layer", "words"),
    [
        (("none", "auto"), None, "none stands alone"),
        (("nowhere.pth",), None, "no such file,? and no known name"),
        (("auto",), "fc6", "only a VGG16 has layers"),
        (("none",), "fc6", "only a VGG16 has layers"),
    ],
)
def test_networks_that_cannot_be_are_refused(names, layer, words):
    with pytest.raises(UsageError, match=words):
        choose(*names, layer=layer)


def test_a_file_that_is_no_network_is_refused_by_name(tmp_path):
    path = tmp_path / "page.pth"
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(InputError, match=r"page\.pth"):
        choose(str(path))


def test_networks_of_one_name_are_told_apart_by_their_weights(monkeypatch, tmp_path):
    files = [tmp_path / f"{k}.pth" for k in range(2)]
    for file in files:
        file.touch()

    def load(source, device="cpu", layer=None):
        return Projection(f"VGG16 (ImageNet), {layer}", seed=int(source[-5]) + 0xABCDEF)

    monkeypatch.setattr(perceptual, "load", load)
    names = [network.short for network in choose(*map(str, files), layer="fc6")]
    assert len(set(names)) == 2
    assert all(name.startswith("VGG16 fc6 ") for name in names)
    monkeypatch.setattr(perceptual, "load", lambda *_: Projection())
    with pytest.raises(UsageError, match="the same weights"):
        choose(*map(str, files))


@pytest.mark.skipif("dlib-face" not in INSTALLED, reason="dlib is not installed")
def test_the_log_says_where_no_face_was_found(said):
    (network,) = choose("dlib-face")
    features.features_of(network.load("cpu"), np.full((2, 64, 64, 3), 127, np.uint8))
    told = [r.getMessage() for r in said.records if r.levelno == logging.INFO]
    assert any("no face found in 2 of 2 images" in text for text in told)
