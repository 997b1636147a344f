"""Principal components of images, of all at once or in chunks (Ross et al. 2008)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from hyper_bids.errors import InputError

# Loadings that differ by less than this part count as equal when a sign is chosen: those of a
# component that is odd about the middle of the face come in pairs of opposite sign.
_TIE = 1e-3


def decompose(chunks: Iterator[np.ndarray], n_components: int):
    """Decompose rows: exactly where there is one chunk, else in chunks.

    Parameters
    ----------
    chunks : iterator of float64 array of shape (n, n_values)
    n_components : int
        At most.

    Returns
    -------
    int, and sklearn.decomposition.PCA or IncrementalPCA
        The number of rows, and what is fitted to them.

    Raises
    ------
    InputError
        If there are fewer than two.
    """
    from sklearn.decomposition import PCA, IncrementalPCA

    first, second = next(chunks, np.empty((0, 1))), next(chunks, None)
    n_images, n_values = first.shape
    if n_images < 2:
        raise InputError(f"{n_images} images for principal components; give 2 at least.")
    # Images that are all the same give a ratio of 0 / 0, and are refused by the caller.
    with np.errstate(invalid="ignore"):
        if second is None:
            n_components = min(n_components, n_images - 1, n_values)
            return n_images, PCA(n_components, svd_solver="full").fit(first)
        fitted = IncrementalPCA(min(n_components, n_values), copy=False).partial_fit(first)
        while second is not None:
            n_images += len(second)
            fitted.partial_fit(second)
            second = next(chunks, None)
    return n_images, fitted


class Chunks:
    """The images of all batches as float64 rows, ``size`` at a time; the last may be fewer."""

    def __init__(self, batches: Iterable[np.ndarray], size: int):
        self.batches, self.size = batches, size
        self.shape: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        n_held = 0
        for images in self.batches:
            rows = rows_of(images)
            shape = tuple(map(int, np.shape(images)[1:]))
            self.shape = self.shape or shape
            if shape != self.shape:
                raise ValueError(f"images of {shape} after images of {self.shape}")
            while len(rows):
                part, rows = rows[: self.size - n_held], rows[self.size - n_held :]
                held.append(part)
                n_held += len(part)
                if n_held == self.size:
                    yield np.concatenate(held, dtype=np.float64)
                    held, n_held = [], 0
        if n_held:
            yield np.concatenate(held, dtype=np.float64)


def rows_of(images: np.ndarray) -> np.ndarray:
    """Return checked images as float32 rows in [0, 1]."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"images {images.shape}; (n, height, width, 3) is wanted")
    rows = images.astype(np.float32).reshape(len(images), math.prod(images.shape[1:]))
    if images.dtype == np.uint8:
        return rows / np.float32(255)
    low, high = (rows.min(), rows.max()) if len(rows) else (0, 0)
    # A value that is not a number fails this, too.
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(f"images from {low:.4g} to {high:.4g}; RGB in [0, 1] is wanted")
    return rows


def with_fixed_sign(components: np.ndarray) -> np.ndarray:
    """Return components, (n_components, n_values), whose largest loading is positive.

    Of loadings within a thousandth of the largest, the first decides, so that rounding does not.
    """
    size = np.abs(components)
    first = np.argmax(size >= (1 - _TIE) * size.max(axis=1, keepdims=True), axis=1)
    return components * np.sign(components[np.arange(len(components)), first])[:, None]
