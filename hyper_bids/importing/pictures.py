"""Images in any of the forms that arrays of them have, as uint8 RGB."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from hyper_bids.errors import InputError, UsageError
from hyper_bids.importing.orientation import said

LOG = logging.getLogger("hyper_bids")

_CHANNELS = (1, 3, 4)
_TOLERANCE = 1e-3
_BLOCK = 256
_ACCEPTED = (
    "n x h x w, n x h x w x c, n x c x h x w, n x (h w), or MATLAB's h x w x n and h x w x c x n"
)


@dataclass(frozen=True)
class Pictures:
    """How arrays of images are to be understood; what is None is found.

    Attributes
    ----------
    shape : tuple of int, optional
        Height and width, of images that are rows of numbers.
    axes : str, optional
        Letters of the axes: ``n`` images, ``h`` height, ``w`` width, ``c`` channels, such as
        ``nchw``; of images that are rows, the axes within a row, such as ``hwc``.
    by_columns : bool
        Whether a row has an image column by column, as MATLAB's ``image(:)`` gives it.
    low, high : float, optional
        Values of black and of full intensity.
    """

    shape: tuple[int, int] | None = None
    axes: str | None = None
    by_columns: bool = False
    low: float | None = None
    high: float | None = None


def to_pictures(
    arrays: dict[str, np.ndarray], counts: dict[str, int | None], how: Pictures | None = None
) -> dict[str, np.ndarray]:
    """Convert sets of images, which are all understood in the same way.

    Parameters
    ----------
    arrays : dict
        Where each set comes from, for messages, to its array.
    counts : dict
        The same names to the number of images, where it is known.
    how : Pictures, optional

    Returns
    -------
    dict
        The same names to uint8 arrays of shape (n, height, width, 3).

    Raises
    ------
    InputError
        If shapes, numbers or values do not allow it.
    UsageError
        If they allow more than one reading; the message says how to choose.
    """
    how = how or Pictures()
    upright: dict[str, np.ndarray] = {}
    found: dict[int, Pictures] = {}  # sets with as many axes are of one form
    for where, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.size:
            raise InputError(f"{where}: {array.dtype} {array.shape}; images of numbers are wanted.")
        upright[where], found[array.ndim] = _upright(
            where, array, counts.get(where), found.get(array.ndim, how)
        )
    sizes = {where: images.shape[1:3] for where, images in upright.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{where} {h} x {w}" for where, (h, w) in sizes.items())
        raise InputError(f"the images differ in size: {told}; one size for all is wanted.")
    low, high = _range(upright, how)
    return {where: _to_uint8(where, images, low, high) for where, images in upright.items()}


def _upright(
    where: str, array: np.ndarray, n: int | None, how: Pictures
) -> tuple[np.ndarray, Pictures]:
    """Return a view of shape (n, height, width, channels), and the reading with what was found."""
    if array.ndim == 2:
        return _from_rows(where, array, n, how)
    axes = how.axes or _axes(where, array.shape, n)
    if sorted(axes) not in (sorted("nhw"), sorted("nhwc")) or len(axes) != array.ndim:
        raise UsageError(
            f"{where}: axes {axes!r} for an array of {said(array.shape)}; each of n, h, w and, "
            f"for colour, c is wanted once, as many as the array has axes."
        )
    view = np.transpose(array, [axes.index(name) for name in "nhwc" if name in axes])
    view = view if view.ndim == 4 else view[..., None]
    if n is not None and len(view) != n:
        raise InputError(
            f"{where}: {len(view)} images in an array of {said(array.shape)} (axes {axes}), but "
            f"{n} are wanted. Accepted: {_ACCEPTED}."
        )
    if view.shape[3] not in _CHANNELS:
        raise InputError(
            f"{where}: {view.shape[3]} channels in an array of {said(array.shape)} (axes {axes}); "
            f"1, 3 and 4 are accepted."
        )
    return view, replace(how, axes=axes)


def _axes(where: str, shape: tuple[int, ...], n: int | None) -> str:
    """Find the axes: images first or last, channels where there are 1, 3 or 4 of them."""
    if len(shape) not in (3, 4):
        raise InputError(f"{where}: {len(shape)} axes ({said(shape)}). Accepted: {_ACCEPTED}.")
    first, last = (n is None or shape[axis] == n for axis in (0, -1))
    if not first and not last:
        raise InputError(
            f"{where}: {said(shape)}, but {n} images are wanted, on the first axis "
            f"or the last. Accepted: {_ACCEPTED}."
        )
    if len(shape) == 3:
        return "nhw" if first else "hwn"
    readings = ("nhwc", "nchw") if first else ("hwcn", "chwn")
    fitting = [axes for axes in readings if shape[axes.index("c")] in _CHANNELS]
    if not fitting:
        raise InputError(
            f"{where}: {said(shape)}, no axis has 1, 3 or 4 channels. Accepted: {_ACCEPTED}."
        )
    return fitting[0]


def _from_rows(
    where: str, array: np.ndarray, n: int | None, how: Pictures
) -> tuple[np.ndarray, Pictures]:
    """Return images of which each is a row (or a column, where only that agrees with ``n``)."""
    if n is not None and array.shape[0] != n:
        if array.shape[1] != n:
            raise InputError(
                f"{where}: {said(array.shape)}, but {n} images are wanted, one a row or a column."
            )
        array = array.T
    n_values = array.shape[1]
    height, width, channels = _row_shape(where, n_values, how.shape)
    if how.axes and sorted(how.axes) not in (sorted("hw"), sorted("hwc")):
        raise UsageError(
            f"{where}: axes {how.axes!r}; of images that are rows, the axes within a row are "
            f"wanted: hw, hwc or chw."
        )
    sizes = {"h": height, "w": width, "c": channels}
    options = [how.axes] if how.axes else ["hwc", "chw"] if channels > 1 else ["hw"]
    if channels > 1 and "c" not in options[0]:
        raise UsageError(f"{where}: {channels} channels, but axes {how.axes!r} have no c.")

    def view(axes: str) -> np.ndarray:
        shape = [sizes[name] for name in axes]
        shape = shape[::-1] if how.by_columns else shape
        images = array.reshape(len(array), *shape)
        images = np.transpose(images, [0, *range(len(shape), 0, -1)]) if how.by_columns else images
        order = [1 + axes.index(name) for name in "hwc" if name in axes]
        images = np.transpose(images, [0, *order])
        return images if images.ndim == 4 else images[..., None]

    axes = min(options, key=lambda axes: _roughness(view(axes)))
    if len(options) > 1:
        LOG.info("%s: a row is taken as %s, which gives the smoother images.", where, axes)
    return view(axes), replace(how, axes=axes, shape=(height, width))


def _row_shape(where: str, n_values: int, shape: tuple[int, int] | None) -> tuple[int, int, int]:
    if shape is not None:
        channels, rest = divmod(n_values, shape[0] * shape[1])
        if rest or channels not in _CHANNELS:
            raise InputError(
                f"{where}: {n_values} values an image are not {shape[0]} x {shape[1]} of 1, 3 or 4 "
                f"channels. Mend the shape that was given."
            )
        return (*shape, channels)
    for channels in (1, 3):
        side = math.isqrt(n_values // channels)
        if side * side * channels == n_values:
            return side, side, channels
    raise UsageError(
        f"{where}: {n_values} values an image are no square of 1 or 3 channels; give height and "
        f"width (--image-shape)."
    )


def _roughness(images: np.ndarray) -> float:
    """Return the mean difference of neighbours, of some images."""
    some = np.asarray(images[:: max(1, len(images) // 16)], np.float32)
    return float(np.abs(np.diff(some, axis=1)).mean() + np.abs(np.diff(some, axis=2)).mean())


def _range(images: dict[str, np.ndarray], how: Pictures) -> tuple[float, float]:
    """Return the values of black and of full intensity, the same for all sets."""
    if how.low is not None and how.high is not None:
        if not how.low < how.high:
            raise UsageError(f"image range {how.low:g} to {how.high:g}: the second must be larger.")
        return how.low, how.high
    if all(array.dtype == bool for array in images.values()):
        return 0, 1
    low, high = math.inf, -math.inf
    for where, array in images.items():
        ends = float(array.min()), float(array.max())
        if not np.isfinite(ends).all():
            raise InputError(f"{where}: values that are not finite; mend the images.")
        low, high = min(low, ends[0]), max(high, ends[1])
    for least, most in ((0, 1), (-1, 1), (0, 255)):
        if least - _TOLERANCE <= low and high <= most + _TOLERANCE:
            LOG.info("Images: values %g to %g are taken as of the range %g to %g.",
                     low, high, least, most)  # fmt: skip
            return least, most
    raise UsageError(
        f"{' and '.join(images)}: values from {low:g} to {high:g} are of no known range (0 to 1, "
        f"-1 to 1, 0 to 255); give black and white (--image-range)."
    )


def _to_uint8(where: str, images: np.ndarray, low: float, high: float) -> np.ndarray:
    n, height, width, channels = images.shape
    result = np.empty((n, height, width, 3), np.uint8)
    # What lies outside of the range is clipped; transparency is left out.
    for first in range(0, n, _BLOCK):
        part = images[first : first + _BLOCK, ..., : min(channels, 3)].astype(np.float32)
        if not np.isfinite(part).all():
            raise InputError(f"{where}: values that are not finite; mend the images.")
        part = np.clip((part - np.float32(low)) / np.float32(high - low), 0, 1)
        result[first : first + _BLOCK] = np.rint(part * 255)
    return result
