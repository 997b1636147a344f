"""AlexNet trained on ImageNet (Krizhevsky 2014), in the layout of torchvision.

Features are of the second and of the fifth convolution, after the rectifier: AlexNet(2) and
AlexNet(5) of MindEye2's table (Scotti et al. 2024), which takes images of 256 x 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyper_bids.perceptual.network import standardise
from hyper_bids.perceptual.vgg16 import MEAN, SD

if TYPE_CHECKING:
    import torch

SIDE = 256
LAYERS = ("2", "5")

# Of each convolution: number in torchvision's list, kernel, stride, padding, whether pooling of
# 3 x 3 by 2 comes before it.
_CONVOLUTIONS = (
    (0, 11, 4, 2, False),
    (3, 5, 1, 2, True),
    (6, 3, 1, 1, True),
    (8, 3, 1, 1, False),
    (10, 3, 1, 1, False),
)


@dataclass(frozen=True)
class Architecture:
    """Sizes: channels of the convolutions, units of the two hidden layers, classes."""

    channels: tuple[int, ...] = (64, 192, 384, 256, 256)
    n_units: int = 4096
    n_classes: int = 1000

    def n_features(self, layer: str) -> int:
        """Return the length of a feature vector of a layer: 31 x 31 or 15 x 15 places."""
        return self.channels[int(layer) - 1] * {"2": 31, "5": 15}[layer] ** 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name to shape of every array."""
        shapes: dict[str, tuple[int, ...]] = {}
        before = 3
        for (number, kernel, *_), n in zip(_CONVOLUTIONS, self.channels, strict=True):
            shapes[f"features.{number}.weight"] = (n, before, kernel, kernel)
            shapes[f"features.{number}.bias"] = (n,)
            before = n
        units = (36 * before, self.n_units, self.n_units, self.n_classes)
        for k, number in enumerate((1, 4, 6)):
            shapes[f"classifier.{number}.weight"] = (units[k + 1], units[k])
            shapes[f"classifier.{number}.bias"] = (units[k + 1],)
        return shapes


ARCHITECTURE = Architecture()


def name_of(layer: str) -> str:
    """Return the name of the network with a layer."""
    return f"AlexNet {layer} (ImageNet)"


def forward(
    weights: Mapping[str, torch.Tensor], images: torch.Tensor, layer: str = "5"
) -> torch.Tensor:
    """Return the features of images.

    Parameters
    ----------
    weights : mapping of str to tensor
        Arrays by the names of :meth:`Architecture.shapes`; those of the convolutions are used.
    images : tensor of shape (n, 3, 256, 256)
        RGB in [0, 1].
    layer : {"2", "5"}

    Returns
    -------
    tensor of shape (n, n_features)
    """
    import torch.nn.functional as F

    x = standardise(images, MEAN, SD)
    for number, _, stride, padding, pools in _CONVOLUTIONS[: int(layer)]:
        x = F.max_pool2d(x, 3, 2) if pools else x
        weight, bias = (weights[f"features.{number}.{name}"] for name in ("weight", "bias"))
        x = F.relu(F.conv2d(x, weight, bias, stride, padding))
    return x.flatten(1)
