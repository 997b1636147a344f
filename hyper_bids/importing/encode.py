"""Latents of images: an image model's encoder; by default, eigenfaces of the training images."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.bids.tables import read_json
from hyper_bids.errors import InputError
from hyper_bids.generators.batches import encode_images
from hyper_bids.generators.pictures import cut

if TYPE_CHECKING:
    from hyper_bids.generators.protocol import ImageGenerator

LOG = logging.getLogger("hyper_bids")

EIGENFACE = "eigenface"
# Eigenfaces of larger images than this are of images that are made smaller: fine detail is not in
# the first hundreds of components, and they take memory.
LONGEST_SIDE = 128


class ModelEncoder:
    """Encodes training and test images; eigenfaces are fitted to the training images.

    Parameters
    ----------
    model : ImageGenerator, optional
        A model with an encoder. By default, eigenfaces are fitted when images are given.
    n_components : int
        Eigenfaces, at most.
    """

    def __init__(self, model: ImageGenerator | None = None, n_components: int = 512):
        self.model = model
        self._n_components = n_components
        self.is_fitted_here = False

    def __call__(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the latents of images, uint8 (n, height, width, 3)."""
        if self.model is None:
            self.model = self._fit(train)
            self.is_fitted_here = True
        return encode_images(self.model, train), encode_images(self.model, test)

    @property
    def name(self) -> str:
        """Name of the model."""
        return EIGENFACE if self.model is None else self.model.name

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the model's file, None where it is in none yet."""
        return (self.model.checksum or None) if self.model is not None else None

    def save(self, path: Path) -> str:
        """Write eigenfaces that were fitted here; return the SHA-256 of the file."""
        from hyper_bids.generators.eigenface import save_eigenface

        path.parent.mkdir(parents=True, exist_ok=True)
        self.model = save_eigenface(path, self.model)
        return self.model.checksum

    def _fit(self, images: np.ndarray):
        from hyper_bids.generators.eigenface import fit_eigenface

        # An image that is shown again counts once.
        first: dict[bytes, int] = {}
        for k, image in enumerate(images):
            first.setdefault(hashlib.sha256(image.tobytes()).digest(), k)
        unique = images if len(first) == len(images) else images[list(first.values())]
        scale = LONGEST_SIDE / max(images.shape[1:3])
        if scale < 1:
            shape = tuple(max(1, round(side * scale)) for side in images.shape[1:3])
            LOG.info("Eigenfaces of the training images at %d x %d pixels.", *shape)
            unique = np.stack([cut(image, shape) for image in unique])
        return fit_eigenface(
            unique, self._n_components, name=EIGENFACE, source="training images of the import"
        )


def model_of(out: Path | str) -> ImageGenerator | None:
    """Return the image model that an earlier import left in a dataset, None if there is none.

    Raises
    ------
    InputError
        If it is named in ``stimuli/latents.json``, but not there.
    """
    about = Path(out) / "stimuli" / "latents.json"
    # The table is written last: without it, an import was interrupted, and nothing is there.
    whole = about.is_file() and about.with_name("latents.tsv").is_file()
    file = read_json(about).get("GeneratorFile") if whole else None
    if file is None:
        return None
    from hyper_bids.generators.eigenface import load_eigenface

    path = about.with_name(Path(str(file)).name)
    if not path.is_file():
        raise InputError(f"{about}: GeneratorFile {file} is not there; put it back.")
    return load_eigenface(path)


def load_encoder(name: str) -> ImageGenerator:
    """Load an image model that encodes images.

    Raises
    ------
    UsageError, InputError
        As :func:`checkpoints.load`, or if it has no encoder.
    """
    from hyper_bids.generators import checkpoints

    model = checkpoints.load(name)
    try:
        model.encode(np.zeros((0, *model.image_shape), np.float32))
    except InputError:
        raise InputError(
            f"--generator {name}: {model.name} has no encoder, so that images cannot be turned "
            f"into its latents. Give the latents (--train-latents, --test-latents), or a VAE-GAN "
            f"or eigenfaces (docs/image-models.md)."
        ) from None
    return model
