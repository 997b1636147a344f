"""The images of the stimuli: read where the dataset has them, else made from their latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.bids.fetched import refuse_absent
from hyper_bids.errors import InputError
from hyper_bids.generators import checkpoints, pictures
from hyper_bids.generators.protocol import to_uint8

if TYPE_CHECKING:
    from PIL import Image

FILES = "stimulus files"
GENERATED = "generated from the stimuli's latents"


def stimulus_images(
    names: list[str], job: dict, latents: np.ndarray, size: tuple[int, int], frame: float = 1.0
) -> tuple[np.ndarray, str]:
    """Return the images of stimuli at one size, and where they come from.

    They are read where the dataset has all of them, and else generated from the known latents.
    What is larger than a middle rectangle of the wanted aspect is cut off; what is left is resized.

    Parameters
    ----------
    names : list of str
        Image of each stimulus relative to ``stimuli/``, n/a where there is none.
    job : dict
        ``stimuli_folder``; and ``generator``, ``device``, ``batch_size`` where images are to be
        generated.
    latents : array of shape (n, n_latents)
        Known latents of the same stimuli.
    size : tuple of int
        Height and width in pixels.
    frame : float
        Part of the middle square that is taken, above 0 to 1.

    Returns
    -------
    uint8 array of shape (n, height, width, 3), and str

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    if all(name not in (None, "n/a") for name in names):
        images = np.empty((len(names), *size, 3), np.uint8)
        for image, name in zip(images, names, strict=True):
            path = Path(job["stimuli_folder"]) / name
            image[:] = to_uint8(pictures.read_picture(path, size, frame))
        return images, FILES
    generator = checkpoints.load(job["generator"], job["device"])
    images = checkpoints.generate_batches(generator, latents, job["batch_size"])
    return np.stack([pictures.cut(image, size, frame) for image in images]), GENERATED


def check_files(folder: Path, names: list[str]) -> None:
    """Check that the images of stimuli are there, and are images, by their first bytes.

    Raises
    ------
    NotFetchedError
        With all whose content is not here.
    InputError
        With the first that is no image.
    """
    refuse_absent(folder / name for name in names if name != "n/a")
    for name in names:
        if name != "n/a":
            with _opened(folder / name):
                pass


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise InputError(
            f"{path}: named in the events or in stimuli/latents.tsv, but not there. Add the image, "
            f"or write n/a in stim_file."
        ) from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        # Pillow's message has the path, too.
        raise InputError(
            f"{path}: {pictures.what_it_is(path)} ({type(error).__name__}). Write it again as PNG."
        ) from None
