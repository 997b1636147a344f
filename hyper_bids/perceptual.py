"""Image features: networks that say how alike two images look.

No network comes with the app: the weights of those in use (VGGFace2, ImageNet models) may not be
passed on. A network is added by an entry in :data:`NETWORKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network that turns images into features.

    Attributes
    ----------
    name : str
        Name of the network and its layer.
    n_features : int
        Length of a feature vector.
    """

    name: str
    n_features: int

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


# Name -> function that loads the network for a device ("cpu", "cuda:0").
NETWORKS: dict[str, Callable[[str], FeatureNetwork]] = {}


def available() -> list[str]:
    """Return the names of the networks that can be used, sorted."""
    return sorted(NETWORKS)
