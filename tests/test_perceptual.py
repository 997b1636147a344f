"""The table of feature networks."""

import numpy as np

from hyper_bids import perceptual


class MeanColour:
    """The mean of red, green and blue."""

    name = "mean colour"
    n_features = 3

    def extract(self, images):
        return images.mean(axis=(1, 2)).astype(np.float32)


def test_no_network_comes_with_the_app():
    assert perceptual.available() == []


def test_networks_that_are_entered_are_listed_sorted_and_load(monkeypatch, rng):
    entered = {"vgg": lambda device: None, "colour": lambda device: MeanColour()}
    monkeypatch.setattr(perceptual, "NETWORKS", entered)
    assert perceptual.available() == ["colour", "vgg"]
    network = perceptual.NETWORKS["colour"]("cpu")
    assert isinstance(network, perceptual.FeatureNetwork)
    images = rng.random((4, 5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(network.extract(images)[2], images[2].reshape(-1, 3).mean(0), 1e-5)


def test_what_cannot_extract_features_is_no_feature_network():
    assert not isinstance(object(), perceptual.FeatureNetwork)
