"""VGG16 trained on ImageNet (Simonyan & Zisserman 2015), in the layout of torchvision.

Features are of ``fc7`` (4096, after the rectifier), ``fc6`` (the same one layer before), or
``pool5`` (25,088: the last pooling, flattened).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyper_bids.perceptual.network import standardise

if TYPE_CHECKING:
    import torch

SIDE = 224
LAYERS = ("fc7", "fc6", "pool5")
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Channels of the convolutions in units of the first's, between poolings, and their numbers.
_GROUPS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
_NUMBERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


@dataclass(frozen=True)
class Architecture:
    """Sizes: channels of the first convolution, units of fc6 and fc7, classes."""

    width: int = 64
    n_units: int = 4096
    n_classes: int = 1000

    def n_features(self, layer: str) -> int:
        """Return the length of a feature vector of a layer."""
        return 8 * self.width * 49 if layer == "pool5" else self.n_units

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name to shape of every array."""
        shapes: dict[str, tuple[int, ...]] = {}
        before = 3
        for sizes, numbers in zip(_GROUPS, _NUMBERS, strict=True):
            for size, number in zip(sizes, numbers, strict=True):
                n = size * self.width
                shapes[f"features.{number}.weight"] = (n, before, 3, 3)
                shapes[f"features.{number}.bias"] = (n,)
                before = n
        units = (49 * before, self.n_units, self.n_units, self.n_classes)
        for k, number in enumerate((0, 3, 6)):
            shapes[f"classifier.{number}.weight"] = (units[k + 1], units[k])
            shapes[f"classifier.{number}.bias"] = (units[k + 1],)
        return shapes


ARCHITECTURE = Architecture()


def forward(
    weights: Mapping[str, torch.Tensor], images: torch.Tensor, layer: str = "fc7"
) -> torch.Tensor:
    """Return the features of images.

    Parameters
    ----------
    weights : mapping of str to tensor
        Arrays by the names of :meth:`Architecture.shapes`.
    images : tensor of shape (n, 3, 224, 224)
        RGB in [0, 1].
    layer : {"fc7", "fc6", "pool5"}

    Returns
    -------
    tensor of shape (n, n_features)
    """
    import torch.nn.functional as F

    x = standardise(images, MEAN, SD)
    for numbers in _NUMBERS:
        for k in numbers:
            x = F.relu(
                F.conv2d(x, weights[f"features.{k}.weight"], weights[f"features.{k}.bias"], 1, 1)
            )
        x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for k in {"pool5": (), "fc6": (0,), "fc7": (0, 3)}[layer]:
        x = F.relu(F.linear(x, weights[f"classifier.{k}.weight"], weights[f"classifier.{k}.bias"]))
    return x
