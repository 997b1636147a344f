"""The pickle of the authors' TensorFlow code: networks ``(G, D, Gs)``, of which ``Gs`` is wanted.

A network of ``tfutil`` pickles as its variables, its settings and the source code of the module
that builds it; the authors' loader runs that source. Here it is only text, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hyper_bids import unpickling
from hyper_bids.errors import InputError
from hyper_bids.unpickling import Record

_MODULES = ("tfutil", "dnnlib.tflib.network", "dnnlib.tflib.tfutil", "pggan_tf_official.tfutil")
_NAMES = frozenset((*((module, "Network") for module in _MODULES), ("dnnlib.util", "EasyDict")))

# Settings of the authors' ``G_paper`` that change the network, and the only value computed here.
_FIXED = {
    "label_size": 0,
    "num_channels": 3,
    "normalize_latents": True,
    "use_wscale": True,
    "use_pixelnorm": True,
    "pixelnorm_epsilon": 1e-8,
    "use_leakyrelu": True,
    "fmap_decay": 1.0,
}


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of ``Gs``, the generator whose weights were averaged over training.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to array
        TensorFlow's names and shapes.

    Raises
    ------
    InputError
        If the pickle holds anything else, is damaged, or the network is of another kind.
    """
    with path.open("rb") as stream:
        networks = unpickling.load(stream, path, lambda *name: name in _NAMES)
    if (
        not isinstance(networks, tuple | list)
        or len(networks) != 3
        or not all(isinstance(n, Record) and n.origin.endswith(".Network") for n in networks)
    ):
        raise InputError(
            f"{path}: a pickle of {_kind(networks)}, not of the three networks (G, D, Gs) that the "
            f"authors of PGGAN save. Give the file of the whole model."
        )
    state = networks[2].state
    if not isinstance(state, Mapping) or "variables" not in state:
        raise InputError(f"{path}: the network Gs has no variables. Give the authors' own file.")
    _check_settings(path, state.get("static_kwargs") or {})
    arrays = {}
    try:
        for name, value in state["variables"]:
            arrays[str(name)] = unpickling.array_of(value)
    except (ValueError, TypeError) as error:
        where = f"variable {list(arrays)[-1]}" if arrays else "the first variable"
        raise InputError(
            f"{path}: the variable after {where} of Gs cannot be read ({error}). Get it again."
        ) from None
    return arrays


def _check_settings(path: Path, settings: object) -> None:
    if not isinstance(settings, Mapping):
        return
    for name, wanted in _FIXED.items():
        given = settings.get(name, wanted)
        if isinstance(given, Record):
            given = _number(given)
        if given != wanted:
            raise InputError(
                f"{path}: a network with {name} = {given!r}; only {wanted!r} is computed here. "
                f"This generator cannot be used."
            )


def _number(record: Record) -> object:
    try:
        return unpickling.array_of(record).item()
    except ValueError:
        return record.origin


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return value.origin if isinstance(value, Record) else f"a {type(value).__name__}"
