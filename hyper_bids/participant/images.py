"""Stage 3: predicted latents to images, beside the images that were shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import figures
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError
from hyper_bids.generators import checkpoints, protocol
from hyper_bids.participant.decoding import INDEX_COLUMNS

if TYPE_CHECKING:
    from PIL import Image

LOG = logging.getLogger("hyper_bids")


def reconstruct(job: dict, folder: Path, decoding: Path) -> str:
    """Generate the reconstructions of the test stimuli and write them with a figure.

    Parameters
    ----------
    job : dict
        ``images`` (settings, the generator resolved), ``stimuli_folder``, ``device``,
        ``entities``, ``provenance``.
    folder, decoding : path
        Where this stage writes, and where stage 2 wrote.

    Returns
    -------
    str
        Digest of what was written.
    """
    import pandas as pd

    fragment = Fragment(folder, job["entities"], job["provenance"])
    settings = from_dict("images", job["images"])
    generator = checkpoints.load(settings.generator, resolve_device(job["device"]))
    data = np.load(decoding / "internal" / "prediction.npz")
    index = json.loads((decoding / "internal" / "test_stimuli.json").read_text(encoding="utf-8"))

    def painted(latents: np.ndarray) -> np.ndarray:
        if settings.latent_norm == "prior" and not generator.normalises:
            latents = protocol.on_prior_shell(latents, data["training_latents"])
        return checkpoints.generate_batches(
            generator, latents, settings.batch_size, progress=job["progress"]
        )

    images = painted(data["predicted"])
    stimuli, source = shown(generator, data["targets"], index, job["stimuli_folder"], settings)
    mean = data["training_latents"].mean(axis=0, keepdims=True)
    np.savez(
        fragment.internal("images.npz"),
        reconstructions=images,
        stimuli=stimuli,
        training_mean=painted(mean),
    )
    with fragment.file(
        "reconstructions", "Reconstructions of the test stimuli, row k as in the table.",
        Units="RGB, 0 to 255", Shape=list(images.shape), DataType="uint8",
        Generator=generator.name, GeneratorChecksum=generator.checksum,
        LatentNorm=settings.latent_norm, GeneratorNormalises=generator.normalises,
        ShownImages=source,
    ) as path:  # fmt: skip
        np.save(path, images)
    fragment.table("reconstructions_index", pd.DataFrame(index), INDEX_COLUMNS)
    figures.save(
        figures.reconstruction_grid(stimuli, images, index["stim_id"]), fragment.figure("recon")
    )
    if settings.write_images:
        write_pngs(fragment, images, stimuli, index["stim_id"])
    LOG.info(
        "sub-%s: %d images of %d x %d pixels by %s",
        job["entities"]["subject"], *images.shape[:3], generator.name,
    )  # fmt: skip
    return fragment.close()


def shown(
    generator, targets: np.ndarray, index: dict, folder: str, settings
) -> tuple[np.ndarray, str]:
    """Return the images that were shown, uint8, and where they come from.

    They are read where the dataset has them, and else generated from the known latents. An image
    of another size than the generator's is resized to it, so that both can be compared.
    """
    names = [name for name in index["stim_file"] if name not in (None, "n/a")]
    if len(names) < len(index["stim_file"]):
        images = checkpoints.generate_batches(generator, targets, settings.batch_size)
        return images, "generated from the stimuli's latents"
    images = [read_image(Path(folder) / name, generator.image_shape) for name in names]
    return np.stack(images), "stimulus files"


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read an image as uint8 RGB of ``shape``.

    Raises
    ------
    InputError
        If the file is not there, or is no image that can be read.
    """
    from PIL import Image, ImageOps

    with opened(path) as image:
        rgb = ImageOps.exif_transpose(image).convert("RGB")
    if rgb.size != (shape[1], shape[0]):
        rgb = rgb.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.asarray(rgb)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; its pixels are read when they are asked for.

    Raises
    ------
    InputError
        If the file is not there, or is no image that can be read.
    """
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
            f"{path}: not a readable image ({type(error).__name__}). Write it again as PNG."
        ) from None


def check_shown(folder: Path, names: list[str]) -> None:
    """Check that the images of test stimuli are there, and are images, by their first bytes.

    Raises
    ------
    InputError
        With the first that is not.
    """
    for name in names:
        if name != "n/a":
            with opened(folder / name):
                pass


def write_pngs(fragment: Fragment, images, stimuli, names: list[str]) -> None:
    """Write each reconstruction and each shown image as a PNG."""
    from PIL import Image

    for kind, array in (("recon", images), ("shown", stimuli)):
        for row, (image, name) in enumerate(zip(array, names, strict=True)):
            label = "".join(c for c in Path(str(name)).stem if c.isalnum())
            Image.fromarray(image).save(fragment.figure(f"{kind}{row:04d}{label}"))
