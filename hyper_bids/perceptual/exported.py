"""Any feature network, exported by PyTorch: TorchScript or ``torch.export``.

**Using one is running a program** (:mod:`hyper_bids.programs` says what that means). It takes
images of shape (n, 3, side, side), and gives one row of features, of any shape, for each.

Beside ``network.pt2`` lies ``network.json``, which says what the file does not:

- ``name``: the network's name in the tables of scores. ``Inception v3``, ``CLIP``,
  ``EfficientNet-B1`` and ``SwAV`` (``AlexNet 2`` and ``AlexNet 5``, too) stand for those of
  MindEye2's evaluation, whose rows they fill.
- ``side``: images are brought to this many pixels, height and width.

and, where it is wanted:

- ``mean``, ``sd``: three numbers each; the network is given (RGB in [0, 1] - mean) / sd.
- ``batch``: the one number of images that the network takes at a time, if it takes one only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import programs
from hyper_bids.errors import InputError, counted
from hyper_bids.perceptual.network import TorchNetwork, standardise

if TYPE_CHECKING:
    import torch

_KEYS = programs.Keys(
    ("name", "side"), ("mean", "sd", "batch"), "docs/image-models.md says what it holds."
)
# Features of one image may differ so much, relative to the largest, from batch to batch.
_SAME = 1e-3


@dataclass(frozen=True)
class Declaration:
    """What the JSON file beside an exported network says; see the module's text."""

    name: str
    side: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    sd: tuple[float, ...] = (1.0, 1.0, 1.0)
    batch: int | None = None


def load(path: Path, device: str, checksum: str) -> TorchNetwork:
    """Load an exported network, and check it by the features of two images.

    Parameters
    ----------
    path : path
        A zip archive of ``torch.jit.save`` or ``torch.export.save``, its JSON file beside it.
    device : str
        ``cpu``, ``cuda:0``.
    checksum : str
        SHA-256 of the file.

    Raises
    ------
    InputError
        If the file is something else, its JSON file is missing or wrong, or the network cannot be
        run, gives no row for each image, values that are not finite, or one image two rows.
    """
    declared = read_declaration(path)
    network = programs.open_exported(path, programs.exported_kind(path), device)

    def forward(_weights, images: torch.Tensor) -> torch.Tensor:
        images = standardise(images, declared.mean, declared.sd)
        return programs.in_batches(lambda part: _rows(network, part), images, declared.batch)

    n_features = _probe(path, declared, forward, device)
    return TorchNetwork(
        name=declared.name,
        label=f"{declared.name}: exported, {path.name}",
        is_papers=False,
        n_features=n_features,
        checksum=checksum,
        side=declared.side,
        device=device,
        forward=forward,
        weights={},
    )


def read_declaration(path: Path) -> Declaration:
    """Read and check the JSON file beside an exported network.

    Raises
    ------
    InputError
        With all keys that are missing, unknown, or have a value that is not accepted.
    """
    told = programs.read_declared(path, _KEYS, lambda told: _ACCEPTED)
    return Declaration(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items()})


def _is_name(value: object) -> bool:
    # The name is part of a score's form, and nobody's but the paper's network is called VGGFace.
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w .+-]{0,40}", value, re.ASCII)
    return bool(plain) and value == value.strip() and "vggface" not in value.lower()


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _are_three(value: object, low: float = -math.inf) -> bool:
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    return numbers and len(value) == 3 and all(low < v < math.inf for v in value)


_ACCEPTED: programs.Accepted = {
    "name": (
        _is_name,
        "a short text of letters, digits, spaces, dots, - and +, without VGGFace, the paper's,",
    ),
    "side": (_is_size, "a whole number above 0"),
    "mean": (_are_three, "a list of three numbers"),
    "sd": (lambda value: _are_three(value, 0.0), "a list of three numbers above 0"),
    "batch": (_is_size, "a whole number above 0"),
}


def _rows(network: Callable, images: torch.Tensor) -> torch.Tensor:
    import torch

    found = programs.call(network, images)
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"it gives a {type(found).__name__}, but one tensor is wanted")
    if found.ndim < 2 or found.shape[0] != len(images) or 0 in found.shape:
        raise ValueError(
            f"it gives {tuple(found.shape)} of {len(images)} images, but a row each is wanted"
        )
    return found.float().flatten(1)


def _probe(path: Path, declared: Declaration, forward: Callable, device: str) -> int:
    """Take the features of two images, together and alone, and return their number."""
    import torch

    drawn = np.random.default_rng(0).random((2, 3, declared.side, declared.side), np.float32)
    images = torch.from_numpy(drawn).to(device)

    def features(n: int) -> np.ndarray:
        try:
            with torch.inference_mode():
                return forward({}, images[:n]).cpu().numpy()
        except Exception as error:  # The file's code can raise anything.
            raise InputError(
                f"{path}: the network gives no features of {counted(n, 'image')} of "
                f"3 x {declared.side} x {declared.side} ({programs.last_line(error)}). Mend "
                f"{path.with_suffix('.json').name} (batch, where it takes one number of images "
                f"only), or export the network again."
            ) from None

    alone, both = features(1), features(2)
    if not np.isfinite(both).all():
        raise InputError(f"{path}: the network's features have values that are not finite.")
    apart = np.abs(both[:1] - alone).max()
    if apart > _SAME * np.abs(both).max():
        raise InputError(
            f"{path}: features of one image differ by {apart:.2g} from batch to batch. Export the "
            f"network in evaluation mode (.eval())."
        )
    return both.shape[1]
