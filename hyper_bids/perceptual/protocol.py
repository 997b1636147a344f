"""What every feature network offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

# Networks of MindEye2's evaluation (Scotti et al. 2024), by their names in scores: those by whose
# features it identifies, and those whose correlation distance it reports.
MINDEYE_IDENTIFIES = ("AlexNet 2", "AlexNet 5", "Inception v3", "CLIP")
MINDEYE_MEASURES = ("EfficientNet-B1", "SwAV")


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network that turns images into features.

    Attributes
    ----------
    name : str
        Name of the network and its layer.
    label : str
        The name, and what the network is to the paper's: the same, computed otherwise, or a
        stand-in.
    is_papers : bool
        Whether features are computed as the paper's code does.
    n_features : int
        Length of a feature vector.
    checksum : str
        SHA-256 of the weight file, in hexadecimal.
    """

    name: str
    label: str
    is_papers: bool
    n_features: int
    checksum: str

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images.

        Parameters
        ----------
        images : float32 array of shape (n, height, width, 3)
            RGB in [0, 1].

        Returns
        -------
        float32 array of shape (n, n_features)
        """
        ...


def checked_images(images: np.ndarray) -> np.ndarray:
    """Return images as float32; raise a ValueError for anything but RGB in [0, 1]."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"images of shape {images.shape}; (n, height, width, 3) is wanted")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images of type {images.dtype}; floating point in [0, 1] is wanted")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images from {images.min():.4g} to {images.max():.4g}; values in [0, 1] are wanted"
        )
    return np.ascontiguousarray(images, dtype=np.float32)
