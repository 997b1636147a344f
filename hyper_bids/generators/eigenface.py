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
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError, listing
from hyper_bids.generators import weightfile
from hyper_bids.generators.components import Chunks, decompose, rows_of, with_fixed_sign
from hyper_bids.generators.protocol import checked_latents
from hyper_bids.generators.weightfile import FORMAT

LOG = logging.getLogger("hyper_bids")

MODEL = "eigenface"

# Components whose standard deviation is a smaller part of the first one's are rounding.
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class Eigenface:
    """An :class:`~hyper_bids.generators.protocol.ImageGenerator` with an encoder.

    Attributes
    ----------
    name, n_latents, image_shape, normalises, checksum, latent_space, frame
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
    latent_space: str = "encoded"
    frame: float = 1.0

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
        images = (checked_latents(latents, self) * np.float32(self.scale)) @ self.components
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
        return (rows_of(images) - self.mean) @ self.components.T / np.float32(self.scale)


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
    chunks = Chunks(batches, max(in_memory, n_components + 1))
    n_images, fitted = decompose(iter(chunks), n_components)
    model = _model_of(fitted, n_images, chunks.shape)
    if model.n_latents < n_components:
        LOG.info("%s: %d images carry %d components", name, n_images, model.n_latents)
    return dataclasses.replace(model, name=name, source=source, licence=licence)


def _model_of(fitted, n_images: int, shape: tuple[int, int, int]) -> Eigenface:
    """Return a model of scikit-learn's fitted PCA, with the components that images carry."""
    deviations = np.sqrt(fitted.explained_variance_)
    if not deviations[0] > _FLAT:
        raise InputError(f"{n_images} images, all the same: no components. Give other images.")
    n_kept = int((deviations > _FLAT * deviations[0]).sum())
    components = with_fixed_sign(fitted.components_[:n_kept])
    variances = fitted.explained_variance_[:n_kept]
    explained = min(1, fitted.explained_variance_ratio_[:n_kept].sum())
    return Eigenface(
        name=MODEL,
        n_latents=n_kept,
        image_shape=shape,
        mean=fitted.mean_.astype(np.float32),
        components=np.ascontiguousarray(components, dtype=np.float32),
        variances=(variances / variances.mean()).astype(np.float32),
        # In single precision, as in the file.
        scale=float(np.float32(np.sqrt(variances.mean()))),
        explained=float(np.float32(explained)),
        n_images=n_images,
    )


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
    return dataclasses.replace(model, checksum=filekinds.sha256(Path(path)))


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
        checksum=filekinds.sha256(path),
    )


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
