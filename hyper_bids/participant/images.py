"""Stage 3: predicted latents to images, beside the images that were shown."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from hyper_bids import figures
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.device import resolve_device
from hyper_bids.generators import batches, checkpoints, protocol
from hyper_bids.generators.pictures import cut
from hyper_bids.participant.controls import draw_prior
from hyper_bids.participant.decoding import generator_for
from hyper_bids.participant.shown import stimulus_images
from hyper_bids.participant.targets import MODEL

# Pixels up to which images cost little.
_SMALL = 256

LOG = logging.getLogger("hyper_bids")


def reconstruct(job: dict, folder: Path, decoding: Path, targets: Path | None = None) -> str:
    """Generate the reconstructions of the test stimuli and write them with a figure.

    Parameters
    ----------
    job : dict
        ``images`` (settings, the image model resolved; None: the one that ``targets`` fitted),
        ``compared_at`` (height and width at which images are compared), ``latents`` (file with the
        known latents of each trial), ``known_generator``, ``stimuli_folder``, ``trials``
        (stim_id), ``random_seed``, ``device``, ``memory_mb``, ``entities``, ``provenance``.
    folder, decoding, targets : path
        Where this stage writes, where the decoder's stage wrote and, of a method that decodes
        encoded stimuli, where they were encoded.

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    settings = from_dict("images", job["images"])
    model = settings.generator or targets / "internal" / MODEL
    generator = checkpoints.load(model, job["device"], settings.precision)
    at_once = batches.choose_batch(generator, settings.batch_size, job.get("memory_mb"))
    data = np.load(decoding / "internal" / "prediction.npz")
    index = json.loads((decoding / "internal" / "test_stimuli.json").read_text(encoding="utf-8"))
    training = data["training_latents"]
    # Only latents that were drawn have a prior's shell.
    norm = settings.latent_norm if generator.latent_space == "z" else "none"
    latents = {
        "reconstructions": data["predicted"], "training_mean": training.mean(0, keepdims=True),
        "model_ceiling": data["targets"], "prior": _random(job, training),
    }  # fmt: skip
    if norm == "prior" and not generator.normalises:
        for name in ("reconstructions", "training_mean"):
            latents[name] = protocol.on_prior_shell(latents[name], training)
    made = {
        name: checkpoints.generate_batches(generator, rows, at_once, job["progress"])
        for name, rows in latents.items()
    }
    size = tuple(job["compared_at"])
    stimuli, source = _shown(job, index, size, generator.frame)
    compared = {name: _resized(images, size) for name, images in made.items()}
    np.savez(fragment.internal("images.npz"), stimuli=stimuli, **compared)
    images = made["reconstructions"]
    about = {"LatentNorm": norm, "ShownImages": source, "BatchSize": at_once}
    about["Stimuli"] = index["stim_id"]
    _write_images(fragment, images, generator, about)
    grid = figures.reconstruction_grid(stimuli, compared["reconstructions"], index["stim_id"])
    figures.save(grid, fragment.figure("recon"))
    if settings.write_images:
        write_pngs(fragment, images, stimuli, index["stim_id"])
    LOG.info(
        "sub-%s: %d images of %d x %d pixels by %s",
        job["entities"]["subject"], *images.shape[:3], generator.name,
    )  # fmt: skip
    return fragment.close()


def _write_images(fragment: Fragment, images: np.ndarray, generator, about: dict) -> None:
    """Write the reconstructions with what made them and, under BIDS names, ``about``."""
    with fragment.file(
        "reconstructions", "Reconstructions of the test stimuli, row k as in Stimuli and in the "
        "table of the predicted latents.",
        Units="RGB, 0 to 255", Shape=list(images.shape), DataType="uint8",
        Generator=generator.name, GeneratorChecksum=generator.checksum,
        GeneratorNormalises=generator.normalises, LatentSpace=generator.latent_space,
        Precision=getattr(generator, "precision", "float32"), **about,
    ) as path:  # fmt: skip
        np.save(path, images)


def _shown(job: dict, index: dict, size: tuple[int, int], frame: float) -> tuple[np.ndarray, str]:
    """Return the test stimuli's images in the order of ``index``, and where they come from."""
    trials = np.array(job["trials"]["stim_id"], str)
    first = [int(np.argmax(trials == str(name))) for name in index["stim_id"]]
    latents = np.load(job["latents"], mmap_mode="r")[first]
    told = {
        "stimuli_folder": job["stimuli_folder"], "generator": job["known_generator"],
        "batch_size": job["images"]["batch_size"], "device": resolve_device(job["device"]),
    }  # fmt: skip
    return stimulus_images(index["stim_file"], told, latents, size, frame)


def _random(job: dict, training: np.ndarray) -> np.ndarray:
    """Draw the latents of the paper's permutation test whose images are made."""
    asked = job["images"]["prior_images"]
    small = max(job["compared_at"]) <= _SMALL
    n = int(asked) if asked != "auto" else 100 if small else 20
    rng = generator_for(job["random_seed"], job["entities"]["subject"], "images/prior")
    return draw_prior(training, n, rng)


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array([cut(image, size) for image in images], np.uint8).reshape(-1, *size, 3)


def write_pngs(fragment: Fragment, images, stimuli, names: list[str]) -> None:
    """Write each reconstruction and each shown image as a PNG."""
    from PIL import Image

    for kind, array in (("recon", images), ("shown", stimuli)):
        for row, (image, name) in enumerate(zip(array, names, strict=True)):
            label = "".join(c for c in Path(str(name)).stem if c.isalnum())
            Image.fromarray(image).save(fragment.picture(f"{kind}{row:04d}{label}"))
