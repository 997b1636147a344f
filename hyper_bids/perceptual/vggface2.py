"""ResNet50 trained on VGGFace2 (Cao et al. 2018): 2048 features of the last pooling.

The weights come from Caffe. Two graphs are in use, and their features differ for the same weights:

- ``keras``, of keras_vggface, which is the paper's: "SAME" padding of the first convolution (2
  before, 3 after), max pooling without padding (112 to 55 pixels), 1e-3 in the batch normalisation.
- ``caffe``, of the original and its PyTorch conversion: padding 3 on all sides, max pooling that
  goes over the edge (112 to 56), 1e-5.

Both have the stride in the first 1 x 1 convolution of a block. Input is BGR, 0 to 255, less the
mean of VGGFace2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyper_bids.perceptual.network import norm, norm_shapes, pad_same

if TYPE_CHECKING:
    import torch

SIDE = 224
_MEAN_BGR = (91.4953, 103.8827, 131.0912)
_BLOCKS = (3, 4, 6, 3)
_EPS = {"keras": 1e-3, "caffe": 1e-5}
_POOLED = 7

_LAYER = re.compile(r"conv([2-5])_([1-6])[/_](1x1_reduce|3x3|1x1_increase|1x1_proj)(/bn)?")
_PARTS = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}
_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Architecture:
    """Sizes: channels of the first convolution (64), and people of the classifier (8631)."""

    width: int = 64
    n_people: int = 8631

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return 32 * self.width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name to shape of every array but the classifier's, by the names of PyTorch."""
        shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (self.width, 3, 7, 7)}
        shapes |= norm_shapes("bn1", self.width)
        before = self.width
        for stage, n_blocks in enumerate(_BLOCKS):
            inner = self.width * 2**stage
            for block in range(n_blocks):
                name = f"layer{stage + 1}.{block}"
                sizes = [(inner, before, 1), (inner, inner, 3), (4 * inner, inner, 1)]
                for k, (n_out, n_in, kernel) in enumerate(sizes, start=1):
                    shapes[f"{name}.conv{k}.weight"] = (n_out, n_in, kernel, kernel)
                    shapes |= norm_shapes(f"{name}.bn{k}", n_out)
                if block == 0:
                    shapes[f"{name}.downsample.0.weight"] = (4 * inner, before, 1, 1)
                    shapes |= norm_shapes(f"{name}.downsample.1", 4 * inner)
                before = 4 * inner
        return shapes

    def classifier_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name to shape of the classifier's arrays, which tell whose weights these are."""
        return {"fc.weight": (self.n_people, self.n_features), "fc.bias": (self.n_people,)}


ARCHITECTURE = Architecture()


def from_keras(layer: str, variable: str) -> str | None:
    """Return the PyTorch name of a Keras variable; None if this network has no such variable.

    Parameters
    ----------
    layer : str
        ``conv1/7x7_s2``, ``conv2_1/1x1_reduce/bn`` (or with ``_`` for the first ``/``), ...
    variable : str
        ``kernel``, ``gamma``, ``beta``, ``moving_mean``, ``moving_variance`` or ``bias``.
    """
    if variable not in _VARIABLES:
        return None
    key = _VARIABLES[variable]
    plain = {"conv1/7x7_s2": "conv1", "conv1/7x7_s2/bn": "bn1", "classifier": "fc"}
    if layer in plain:
        return f"{plain[layer]}.{key}"
    match = _LAYER.fullmatch(layer)
    if match is None:
        return None
    stage, block, part, is_norm = match.groups()
    where = f"layer{int(stage) - 1}.{int(block) - 1}"
    if part == "1x1_proj":
        return f"{where}.downsample.{1 if is_norm else 0}.{key}"
    return f"{where}.{'bn' if is_norm else 'conv'}{_PARTS[part]}.{key}"


def forward(
    weights: Mapping[str, torch.Tensor], images: torch.Tensor, graph: str = "keras"
) -> torch.Tensor:
    """Return the pooled features of images.

    Parameters
    ----------
    weights : mapping of str to tensor
        Arrays by the names of :meth:`Architecture.shapes`.
    images : tensor of shape (n, 3, 224, 224)
        RGB in [0, 1].
    graph : {"keras", "caffe"}

    Returns
    -------
    tensor of shape (n, n_features)
    """
    import torch.nn.functional as F

    eps = _EPS[graph]
    keras = graph == "keras"
    x = 255 * images.flip(1) - images.new_tensor(_MEAN_BGR)[:, None, None]
    x = pad_same(x, 7, 2) if keras else F.pad(x, (3, 3, 3, 3))
    x = F.relu(norm(weights, "bn1", F.conv2d(x, weights["conv1.weight"], stride=2), eps))
    x = F.max_pool2d(x, 3, 2, ceil_mode=not keras)
    for stage, n_blocks in enumerate(_BLOCKS):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _bottleneck(weights, f"layer{stage + 1}.{block}", x, stride, eps)
    return F.avg_pool2d(x, _POOLED).flatten(1)


def _bottleneck(weights, name: str, x: torch.Tensor, stride: int, eps: float) -> torch.Tensor:
    import torch.nn.functional as F

    y = x
    for k, step, padding in ((1, stride, 0), (2, 1, 1), (3, 1, 0)):
        y = F.conv2d(y, weights[f"{name}.conv{k}.weight"], stride=step, padding=padding)
        y = norm(weights, f"{name}.bn{k}", y, eps)
        y = F.relu(y) if k < 3 else y
    if f"{name}.downsample.0.weight" in weights:
        x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
        x = norm(weights, f"{name}.downsample.1", x, eps)
    return F.relu(x + y)
