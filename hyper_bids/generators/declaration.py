"""What stands beside an exported image model: a JSON file that says what the model does not.

:mod:`hyper_bids.generators.exported` lists its keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyper_bids.errors import InputError
from hyper_bids.programs import Accepted, Keys, read_declared

RANGES = ((-1, 1), (0, 1), (0, 255))
LAYOUTS = ("NCHW", "NHWC")
CHANNELS = {"RGB": 3, "BGR": 3, "grey": 1}
SPACES = ("z", "w", "w+")

_REQUIRED = (
    "name", "licence", "n_latents", "output_range", "layout", "channels", "latent_space",
)  # fmt: skip
_OPTIONAL = ("latent_shape", "inputs", "truncation", "latent_mean", "batch", "normalises")
_WHERE = "hyper_bids.generators.exported lists what it holds."


@dataclass(frozen=True)
class Declaration:
    """What the JSON file beside an exported model says; see the module's text."""

    name: str
    licence: str
    n_latents: int
    output_range: tuple[float, float]
    layout: str
    channels: str
    latent_space: str
    latent_shape: tuple[int, ...]
    inputs: tuple = ()
    truncation: float = 1.0
    latent_mean: tuple[float, ...] = ()
    batch: int | None = None
    normalises: bool = False


def read_declaration(path: Path) -> Declaration:
    """Read and check the JSON file beside an exported model.

    Raises
    ------
    InputError
        With all keys that are missing, unknown, or have a value that is not accepted.
    """
    told = read_declared(path, Keys(_REQUIRED, _OPTIONAL, _WHERE), _accepted)
    if "truncation" in told and told["latent_space"] != "z" and "latent_mean" not in told:
        raise InputError(
            f"{path.with_suffix('.json')}: truncation in {told['latent_space']} needs latent_mean, "
            f"too. {_WHERE}"
        )
    lists = {k: tuple(v) for k, v in told.items() if isinstance(v, list)}
    return Declaration(**{"latent_shape": (told["n_latents"],), **told, **lists})


def _accepted(told: dict) -> Accepted:
    """Return, for each key, the test of its value, and what is accepted in words."""
    n = told["n_latents"]
    text = (lambda v: isinstance(v, str) and v.strip() != "", "a text")
    size = (lambda v: type(v) is int and v > 0, "a whole number above 0")

    def among(*values) -> tuple[Callable[[object], bool], str]:
        return lambda v: v in values, " or ".join(json.dumps(v) for v in values)

    def list_of(accepts, words: str, fits=lambda v: True) -> tuple[Callable[[object], bool], str]:
        return lambda v: isinstance(v, list) and all(map(accepts, v)) and fits(v), words

    return {
        "name": text,
        "licence": text,
        "n_latents": size,
        "output_range": among(*map(list, RANGES)),
        "layout": among(*LAYOUTS),
        "channels": among(*CHANNELS),
        "latent_space": among(*SPACES),
        "latent_shape": list_of(
            size[0], f"a list of sizes whose product is {n}", lambda v: math.prod(v) == n
        ),
        "inputs": list_of(
            lambda v: v is None or isinstance(v, bool) or _is_number(v) or _is_row(v),
            "a list of numbers, true, false, null, and lists of numbers",
        ),
        "truncation": (_is_number, "a number"),
        "latent_mean": list_of(_is_number, f"a list of {n} numbers", lambda v: len(v) == n),
        "batch": size,
        "normalises": (lambda v: isinstance(v, bool), "true or false"),
    }


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_row(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_number, value))
