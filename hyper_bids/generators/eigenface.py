"""Eigenfaces: images as a mean and weighted principal components (Sirovich and Kirby 1987).

The linear baseline of face reconstruction (Cowen, Chun and Kuhl 2014), and the one image model here
with an encoder.

A latent is a component score, and all scores are divided by one number, so that a latent's mean
square over the training images is 1, as in a standard normal prior. They are not whitened: as it
is, the distance of two latents is the distance of their images (within the span of the
components), up to that one number. What is least squares in latents, the one penalty that ridge
regression chooses for all of them included, is thus least squares in pixels; whitened, the hundreds
of components that carry hardly any variance would decide about it. It also makes the length of a
latent the contrast of its image.

References
----------
Sirovich L, Kirby M (1987). Low-dimensional procedure for the characterization of human faces.
J Opt Soc Am A 4(3):519-524. doi:10.1364/JOSAA.4.000519
Cowen AS, Chun MM, Kuhl BA (2014). Neural portraits of perception: reconstructing face images from
evoked brain activity. NeuroImage 94:12-22. doi:10.1016/j.neuroimage.2014.03.018
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, listing
from hyper_bids.generators import weightfile

LOG = logging.getLogger("hyper_bids")

FORMAT = "hyper_bids"
MODEL = "eigenface"

# Components whose standard deviation is a smaller part of the first one's are rounding.
_FLAT = 1e-6
# Loadings that differ by less than this part count as equal when a sign is chosen: those of a
# component that is odd about the middle of the face come in pairs of opposite sign.
_TIE = 1e-3


@dataclass(frozen=True, eq=False)
class Eigenface:
    """An :class:`~hyper_bids.generators.protocol.ImageGenerator` with an encoder.

    Attributes
    ----------
    name, n_latents, image_shape, normalises, checksum
        As for every image model; ``checksum`` is empty until the model is in a file.
    mean : float32 array of shape (height * width * 3,)
        Mean image.
    components : float32 array of shape (n_latents, height * width * 3)
        Orthonormal, by falling variance. The largest loading of each is positive (the first of
        those within a thousandth of it).
    variances : float32 array of shape (n_latents,)
        Variance of each latent over the training images; their mean is 1.
    scale : float
        Component score of a latent of 1, in units of the images.
    explained : float
        Part of the training images' variance that the components carry, 0 to 1.
    n_images : int
        Training images.
    source, licence : str
        Where the images are from, and the licence of the model.
    """

    name: str
    n_latents: int
    image_shape: tuple[int, int, int]
    mean: np.ndarray = field(repr=False)
    components: np.ndarray = field(repr=False)
    variances: np.ndarray = field(repr=False)
    scale: float
    explained: float
    n_images: int
    source: str = ""
    licence: str = ""
    normalises: bool = False
    checksum: str = ""

    def generate(self, latents: np.ndarray) -> np.ndarray:
        """Return the mean plus the components weighted by the latents, clipped to [0, 1].

        Parameters
        ----------
        latents : array of shape (n, n_latents)

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            RGB in [0, 1].

        Raises
        ------
        ValueError
            If the latents have another shape, or are not finite.
        """
        latents = np.asarray(latents, dtype=np.float32)
        if latents.ndim != 2 or latents.shape[1] != self.n_latents:
            raise ValueError(
                f"latents {latents.shape}, but {self.name} wants (n, {self.n_latents})"
            )
        if not np.isfinite(latents).all():
            row = int(np.flatnonzero(~np.isfinite(latents).all(axis=1))[0])
            raise ValueError(f"latents have a value that is not finite in row {row}")
        images = (latents * np.float32(self.scale)) @ self.components
        images += self.mean
        return np.clip(images, 0, 1, out=images).reshape(-1, *self.image_shape)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Project images onto the components.

        Parameters
        ----------
        images : array of shape (n, height, width, 3)
            RGB in [0, 1], or uint8.

        Returns
        -------
        float32 array of shape (n, n_latents)

        Raises
        ------
        ValueError
            If the images have another shape, or values outside [0, 1].
        """
        if np.shape(images)[1:] != self.image_shape:
            raise ValueError(f"images {np.shape(images)}, but {self.name} wants {self.image_shape}")
        return (_rows(images) - self.mean) @ self.components.T / np.float32(self.scale)


def fit_eigenface(
    images: np.ndarray | Iterable[np.ndarray],
    n_components: int = 512,
    *,
    name: str = MODEL,
    source: str = "",
    licence: str = "",
    in_memory: int = 2048,
) -> Eigenface:
    """Fit the principal components of images.

    Up to ``in_memory`` images are decomposed exactly. More are taken in chunks of so many (Ross
    et al. 2008, incremental PCA): exact but for the variance that the components leave out.
    Nothing is drawn at random.

    Parameters
    ----------
    images : array of shape (n, height, width, 3), or iterable of such arrays
        RGB in [0, 1], or uint8. Batches of any size.
    n_components : int
        Components at most; fewer where the images carry fewer.
    name, source, licence : str
        For the file of the model.
    in_memory : int
        Images that are held at a time, in double precision. At 64 x 64 pixels, 2048 take 0.2 GB,
        1.2 GB while they are decomposed, and 2 GB where more follow.

    Returns
    -------
    Eigenface

    Raises
    ------
    InputError
        If there are fewer than two images, or all are the same.
    ValueError
        If an array is not one of images, or images differ in size.
    """
    if n_components < 1 or in_memory < 2:
        raise ValueError(
            f"n_components = {n_components}, in_memory = {in_memory}; at least 1 and 2 are wanted"
        )
    batches = [images] if isinstance(images, np.ndarray) else images
    chunks = _Chunks(batches, max(in_memory, n_components + 1))
    n_images, fitted = _decompose(iter(chunks), n_components)
    deviations = np.sqrt(fitted.explained_variance_)
    if not deviations[0] > _FLAT:
        raise InputError(f"{n_images} images, all the same: no components. Give other images.")
    n_kept = int((deviations > _FLAT * deviations[0]).sum())
    if n_kept < n_components:
        LOG.info("%s: %d images carry %d components", name, n_images, n_kept)
    components = with_fixed_sign(fitted.components_[:n_kept])
    variances = fitted.explained_variance_[:n_kept]
    explained = min(1, fitted.explained_variance_ratio_[:n_kept].sum())
    return Eigenface(
        name=name,
        n_latents=n_kept,
        image_shape=chunks.shape,
        mean=fitted.mean_.astype(np.float32),
        components=np.ascontiguousarray(components, dtype=np.float32),
        variances=(variances / variances.mean()).astype(np.float32),
        # In single precision, as in the file.
        scale=float(np.float32(np.sqrt(variances.mean()))),
        explained=float(np.float32(explained)),
        n_images=n_images,
        source=source,
        licence=licence,
    )


def with_fixed_sign(components: np.ndarray) -> np.ndarray:
    """Return components, (n_components, n_values), whose largest loading is positive.

    Of loadings within a thousandth of the largest, the first decides, so that rounding does not.
    """
    size = np.abs(components)
    first = np.argmax(size >= (1 - _TIE) * size.max(axis=1, keepdims=True), axis=1)
    return components * np.sign(components[np.arange(len(components)), first])[:, None]


def save_eigenface(path: str | os.PathLike, model: Eigenface) -> Eigenface:
    """Write a model as a ``.safetensors`` file, and return it with the file's checksum."""
    shape = model.image_shape
    arrays = {
        "mean": model.mean.reshape(shape),
        "components": model.components.reshape(-1, *shape),
        "variances": model.variances,
        "scale": np.array([model.scale], dtype=np.float32),
        "explained": np.array([model.explained], dtype=np.float32),
    }
    sizes = {"height": shape[0], "width": shape[1]}
    told = {"format": FORMAT, "model": MODEL, **sizes} | {
        key: getattr(model, key) for key in ("n_latents", "n_images", "name", "source", "licence")
    }
    weightfile.write(Path(path), arrays, {key: str(value) for key, value in told.items()})
    return dataclasses.replace(model, checksum=weightfile.checksum(Path(path)))


def load_eigenface(path: str | os.PathLike) -> Eigenface:
    """Read a model that :func:`save_eigenface` wrote.

    Raises
    ------
    InputError
        If the file is something else, is not whole, or its arrays do not fit together.
    """
    path = Path(path)
    header = weightfile.read_header(path)
    told = header.metadata
    if (told.get("format"), told.get("model")) != (FORMAT, MODEL):
        raise InputError(
            f"{path}: metadata format = {told.get('format')!r}, model = {told.get('model')!r}; "
            f"{FORMAT!r} and {MODEL!r} are wanted. Give a file that save_eigenface wrote."
        )
    height, width, n_latents = (_size(path, told, key) for key in ("height", "width", "n_latents"))
    shape = (height, width, 3)
    _check_shapes(path, header.shapes, n_latents, shape)
    arrays = {key: value.numpy() for key, value in weightfile.read_arrays(path, header).items()}
    components = arrays["components"].reshape(n_latents, -1)
    lengths = np.linalg.norm(components, axis=1)
    if np.abs(lengths - 1).max() > 1e-3 or arrays["scale"][0] <= 0:
        raise InputError(
            f"{path}: not principal components (lengths {lengths.min():.3g} to "
            f"{lengths.max():.3g}, scale {arrays['scale'][0]:.3g}). Fit the model again."
        )
    return Eigenface(
        name=told.get("name", path.stem),
        n_latents=n_latents,
        image_shape=shape,
        mean=arrays["mean"].reshape(-1),
        components=components,
        variances=arrays["variances"],
        scale=float(arrays["scale"][0]),
        explained=float(arrays["explained"][0]),
        n_images=_size(path, told, "n_images"),
        source=told.get("source", ""),
        licence=told.get("licence", ""),
        checksum=weightfile.checksum(path),
    )


def _decompose(chunks: Iterator[np.ndarray], n_components: int):
    """Return the number of images, and scikit-learn's fitted PCA."""
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


class _Chunks:
    """The images of all batches as float64 rows, ``size`` at a time; the last may be fewer."""

    def __init__(self, batches: Iterable[np.ndarray], size: int):
        self.batches, self.size = batches, size
        self.shape: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        n_held = 0
        for images in self.batches:
            rows = _rows(images)
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


def _rows(images: np.ndarray) -> np.ndarray:
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


def _size(path: Path, metadata: dict[str, str], key: str) -> int:
    text = metadata.get(key)
    if text is None or not text.isdecimal() or int(text) < 1:
        raise InputError(f"{path}: metadata {key} = {text!r}; a whole number above 0 is wanted.")
    return int(text)


def _check_shapes(path: Path, shapes: dict, n_latents: int, shape: tuple[int, int, int]) -> None:
    expected = {"mean": shape, "components": (n_latents, *shape), "variances": (n_latents,)}
    expected |= {"scale": (1,), "explained": (1,)}
    wrong = sorted(k for k in shapes | expected if shapes.get(k) != expected.get(k))
    if wrong:
        raise InputError(
            f"{path}: not the arrays of this model; missing, unknown or of a wrong shape: "
            f"{listing(wrong)}. Wanted: {expected}."
        )
