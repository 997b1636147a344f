"""From another project's arrays to this one's: each key used, each shape checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, listing
from hyper_bids.generators import pggan
from hyper_bids.generators.formats.pggan_layouts import (
    DENSE,
    DENSE_BIAS,
    LAYOUTS,
    Hyper,
    Layout,
)

# How far a network has grown, in images of half the size that it lacks.
_GROWTH = "lod"  # codespell:ignore lod

# Keys of layers from RGB, which take pictures in: genforce's, the PyTorch GAN zoo's, the authors'.
_DISCRIMINATOR = re.compile(r"input\d+\.|(.*[./])?from_?rgb|decisionLayer", re.IGNORECASE)

# Parts of keys -> another model that has them.
_OTHERS = (
    (r"(G_)?(synthesis|mapping)\b|g_(synthesis|mapping)|style\.\d+\.", "a StyleGAN"),
    (r"(main|net|network)\.\d+\.(weight|running_mean)", "a DCGAN"),
    (r"(post_)?quant_conv|(encoder|decoder|first_stage_model)\.", "an autoencoder"),
    (r"(conv1|bn1|layer[1-4]\.\d+\.conv\d)\.weight", "a network that recognises images"),
)  # fmt: skip


def layout_of(path: Path, arrays: Mapping[str, np.ndarray], is_mxnet: bool = False) -> Layout:
    """Recognise whose PGGAN arrays are.

    Parameters
    ----------
    path : path
        For messages.
    arrays : mapping of str to array
        In the order of the file.
    is_mxnet : bool
        Whether the file is one of MXNet, where keys alone do not tell.

    Raises
    ------
    InputError
        If no project's PGGAN has such keys, or the image has a size that no PGGAN here has.
    """
    if any(_DISCRIMINATOR.match(key) for key in arrays):
        raise InputError(
            f"{path}: the discriminator of a GAN, or all of it with one ({len(arrays)} arrays: "
            f"{listing(arrays, 4)}). Give the generator's weights."
        )
    if is_mxnet:
        layout = Hyper(arrays)
        known = layout.resolution() > 0
    else:
        best = max(LAYOUTS, key=lambda kind: kind.matches(arrays))
        layout, known = best(arrays), best.matches(arrays) > 0
    if not known:
        other = next((n for p, n in _OTHERS if any(re.match(p, key) for key in arrays)), None)
        what = f"{other}, not a PGGAN" if other else "not a PGGAN of a known project"
        raise InputError(
            f"{path}: {what} ({len(arrays)} arrays: {listing(arrays, 4)}). "
            f"docs/image-models.md lists the models that are read."
        )
    if layout.resolution() not in pggan.RESOLUTIONS:
        raise InputError(
            f"{path}: {layout.source}, for images of {layout.resolution()} pixels; "
            f"{listing(pggan.RESOLUTIONS)} are read."
        )
    return layout


def convert(path: Path, arrays: Mapping[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """Convert the arrays of another project.

    Parameters
    ----------
    path : path
        For messages.
    arrays : mapping of str to array
    layout : Layout
        From :func:`layout_of`.

    Returns
    -------
    dict of str to float32 array
        As :meth:`pggan.Architecture.shapes` says, but for the PyTorch GAN zoo:
        ``block4.dense.bias`` is (16 C(4),), one for each unit in the order of the rows of
        ``block4.dense.weight``, unless it is the same for all units of a channel.

    Raises
    ------
    InputError
        If a key is missing or unknown, a shape is wrong, a network was saved while growing, or a
        number is not finite. The message names the key, and both shapes.
    """
    resolution = layout.resolution()
    architecture = _architecture(path, arrays, layout)
    ours = architecture.shapes()
    keys = {name: layout.key(name, resolution) for name in ours}
    spare = _spare_shapes(layout, architecture)
    missing = [key for key in keys.values() if key not in arrays]
    unknown = [key for key in arrays if key not in spare and key not in keys.values()]
    if missing or unknown:
        raise InputError(
            f"{path}: {layout.source}, {resolution} pixels, but not all of it. Missing: "
            f"{listing(missing, 4)}. Unknown: {listing(unknown, 4)}. Get the file again."
        )
    wanted = {keys[name]: layout.shape(name, shape) for name, shape in ours.items()}
    for key, shape in {**spare, **wanted}.items():
        if key in arrays and arrays[key].shape != shape:
            raise InputError(
                f"{path}: {key} has shape {arrays[key].shape}, but {shape} is wanted in a network "
                f"of {resolution} pixels ({layout.source}). Get the file again."
            )
    if _GROWTH in arrays and float(arrays[_GROWTH]) != 0:
        raise InputError(
            f"{path}: {_GROWTH} is {float(arrays[_GROWTH])}: a network that was saved while it "
            f"grew to {resolution} pixels; only a finished one (0) is read."
        )
    state = {}
    for name, key in keys.items():
        weight_shape = ours[name.replace(".bias", ".weight")]
        with np.errstate(over="ignore", invalid="ignore"):
            array = layout.convert(name, arrays[key].astype(np.float64), weight_shape)
            state[name] = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(state[name]).all():
            raise InputError(f"{path}: {key} holds a value that is not finite. Get the file again.")
    return state


def _architecture(
    path: Path, arrays: Mapping[str, np.ndarray], layout: Layout
) -> pggan.Architecture:
    # Sizes by majority, so that one wrong array is blamed itself, not all others.
    resolution = layout.resolution()

    def length(name: str, axis: int = 0) -> list[int]:
        array = arrays.get(layout.key(name, resolution))
        return [] if array is None or array.ndim <= axis else [array.shape[axis]]

    first = [n // layout.dense_biases for n in length(DENSE_BIAS)]
    first += length("block4.conv.bias") + length("block8.conv0.bias")
    last = length(f"block{resolution}.conv0.bias") + length(f"block{resolution}.conv1.bias")
    last += length("rgb.weight", layout.rgb_axis)
    n_latents = length(DENSE, layout.latent_axis)
    if not (first and last and n_latents):
        needed = ("rgb.weight", DENSE, DENSE_BIAS, "block4.conv.bias")
        absent = [k for k in (layout.key(n, resolution) for n in needed) if k not in arrays]
        raise InputError(
            f"{path}: {layout.source}, but not all of it. Missing: {listing(absent)}. "
            f"Get the file again."
        )
    try:
        return pggan.Architecture(
            resolution=resolution,
            n_latents=n_latents[0],
            fmap_base=Counter(last).most_common(1)[0][0] * resolution,
            fmap_max=Counter(first).most_common(1)[0][0],
        )
    except ValueError as error:
        raise InputError(f"{path}: {layout.source}, but {error}. Get the file again.") from None


def _spare_shapes(layout: Layout, architecture: pggan.Architecture) -> dict[str, tuple[int, ...]]:
    # What was only for training: smaller layers to RGB, and how far the network has grown.
    shapes: dict[str, tuple[int, ...]] = {} if layout.dense_biases > 1 else {_GROWTH: ()}
    size = 4
    while size < architecture.resolution:
        weight = (3, architecture.n_channels(size), 1, 1)
        key = layout.rgb_key(size, architecture.resolution, "weight")
        if key is not None:
            shapes[key] = layout.shape("rgb.weight", weight)
            shapes[layout.rgb_key(size, architecture.resolution, "bias")] = (3,)
        size *= 2
    return shapes
