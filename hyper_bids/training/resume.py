"""A training that was broken off, in a file: arrays and text, no pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.errors import InputError, UsageError, counted, listing
from hyper_bids.generators import weightfile

if TYPE_CHECKING:
    from hyper_bids.training.vaegan import Training

FORMAT = "hyper_bids training"
# What Adam keeps of each array: running means of the gradient and of its square, and the step.
_KEPT = ("exp_avg", "exp_avg_sq", "step")


def partial_path(out: Path) -> Path:
    """Return the file that holds the training of a model until it is finished."""
    return out.with_name(f"{out.name}.partial")


def checksum_of(images: np.ndarray) -> str:
    """Return the SHA-256 of images, with their number and size."""
    found = hashlib.sha256(repr(images.shape).encode())
    found.update(np.ascontiguousarray(images))
    return found.hexdigest()


def save_progress(path: Path, training: Training, images: str) -> None:
    """Write the weights, what the optimisers keep, epoch and settings.

    What is drawn needs no place in the file: each epoch draws from a generator of its own.

    Parameters
    ----------
    path : path
        Replaced at once when all is written.
    training : Training
    images : str
        From :func:`checksum_of`.
    """
    arrays = {f"weights/{name}": tensor for name, tensor in training.state.items()}
    for group, optimiser in training.optimisers.items():
        for name in training.trained(group):
            for part, tensor in optimiser.state.get(training.state[name], {}).items():
                arrays[f"{part}/{name}"] = tensor
    told = {
        "format": FORMAT,
        "settings": json.dumps(dataclasses.asdict(training.settings)),
        "epoch": str(training.epoch),
        "images": images,
    }
    weightfile.write(path, {key: a.detach().cpu().numpy() for key, a in arrays.items()}, told)


def load_progress(path: Path, training: Training, images: str) -> None:
    """Bring a training that has not begun to where a file's was.

    Raises
    ------
    UsageError
        If the file is of other settings or other images.
    InputError
        If the file is damaged, or not of a training.
    """
    header = weightfile.read_header(path)
    told = header.metadata
    if told.get("format") != FORMAT or not told.keys() >= {"settings", "images", "epoch"}:
        raise InputError(f"{path}: not a training that was broken off. Move it away.")
    _check_same(path, told, training, images)
    wrong = [key for key, shape in _wanted(training, header.shapes).items()
             if header.shapes.get(key) != shape]  # fmt: skip
    if wrong:
        raise InputError(
            f"{path}: missing, or of another shape: {listing(wrong, 4)}. Begin anew with --restart."
        )
    arrays = weightfile.read_arrays(path, header)
    for name, tensor in training.state.items():
        tensor.data.copy_(arrays[f"weights/{name}"])
    for group, optimiser in training.optimisers.items():
        for name in training.trained(group):
            if f"step/{name}" not in arrays:
                continue
            kept = {part: arrays[f"{part}/{name}"] for part in _KEPT}
            # As Adam has it, the number of steps stays on the CPU.
            optimiser.state[training.state[name]] = {
                part: tensor if part == "step" else tensor.to(training.device)
                for part, tensor in kept.items()
            }
    training.epoch = int(told["epoch"])


def _wanted(training: Training, there: Container[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays: of what an optimiser keeps, where it has begun."""
    shapes = {name: tuple(tensor.shape) for name, tensor in training.state.items()}
    wanted = {f"weights/{name}": shape for name, shape in shapes.items()}
    for group in training.optimisers:
        for name in training.trained(group):
            if f"step/{name}" in there:
                wanted |= {f"{p}/{name}": () if p == "step" else shapes[name] for p in _KEPT}
    return wanted


def _check_same(path: Path, told: dict[str, str], training: Training, images: str) -> None:
    before, now = json.loads(told["settings"]), dataclasses.asdict(training.settings)
    others = [
        f"{key} {before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key]
    ]
    if told["images"] != images:
        others.append("other images")
    if others:
        raise UsageError(
            f"{path}: a training of {counted(int(told['epoch']), 'epoch')} with {listing(others)}. "
            f"Give the same to go on, or --restart to begin anew."
        )
