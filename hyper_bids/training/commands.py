"""The two commands: train a VAE-GAN, or fit eigenfaces, on a folder of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import filekinds
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, OutputError, UsageError, counted
from hyper_bids.generators import eigenface, pictures, saving
from hyper_bids.generators.protocol import to_uint8
from hyper_bids.training import resume
from hyper_bids.training.settings import VaeGanTraining
from hyper_bids.training.vaegan import Training

LOG = logging.getLogger("hyper_bids")

# Images that are read at a time.
_BATCH = 256


@dataclass(frozen=True)
class Target:
    """The file to write, and what it says of itself.

    Attributes
    ----------
    path : path
        Ends in ``.safetensors``.
    name, licence : str, optional
        Of the model; its file's name, and that of the images, if not given.
    overwrite : bool
        Whether a file that is there is replaced.
    """

    path: Path
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False

    def check(self) -> None:
        """Check that the file can be written.

        Raises
        ------
        UsageError, OutputError
        """
        if self.path.suffix != ".safetensors":
            raise UsageError(
                f"{self.path}: the file to write is a .safetensors file; give it that ending."
            )
        if self.path.exists() and not self.overwrite:
            raise OutputError(
                f"{self.path}: there already. Give another name, or --overwrite to replace it."
            )
        if not self.path.parent.is_dir():
            raise OutputError(f"{self.path.parent}: no such folder. Make it first.")

    def told(self) -> dict[str, str]:
        """Return name and licence."""
        licence = self.licence or "not stated; that of the images holds"
        return {"name": self.name or self.path.stem, "licence": licence}


def train_vaegan(
    source: Path,
    target: Target,
    settings: VaeGanTraining,
    device: str = "auto",
    restart: bool = False,
    progress: bool = True,
) -> None:
    """Train a VAE-GAN on a folder of images, and write it.

    After each epoch, all that is needed to go on is written beside the target (``.partial``); it is
    deleted when the model is written. A training that goes on gives the same bits as one without a
    break, on the same machine.

    Parameters
    ----------
    source : path
        Folder, with its subfolders. Its images are held in memory, 12 kB each at 64 pixels.
    target : Target
    settings : VaeGanTraining
    device : str
        As for :func:`resolve_device`.
    restart : bool
        Begin anew where there is a training that was broken off.
    progress : bool
        Show progress bars.

    Raises
    ------
    UsageError, InputError, OutputError, DeviceError
    """
    target.check()
    device = resolve_device(device)
    images = read_images(source, (settings.resolution, settings.resolution), progress)
    partial = resume.partial_path(target.path)
    if restart:
        partial.unlink(missing_ok=True)
    training = train(images, settings, device, partial, progress)
    about = f"trained on {counted(len(images), 'image')} of {Path(source).name}"
    told = {"source": about, "display": "clip", **target.told()}
    saving.save_network(target.path, "vaegan", training.weights(), **told)
    partial.unlink(missing_ok=True)
    _say_written(target)


def train(
    images: np.ndarray,
    settings: VaeGanTraining,
    device: str = "cpu",
    partial: Path | None = None,
    progress: bool = False,
) -> Training:
    """Train a VAE-GAN, from where a file has it if there is one.

    Parameters
    ----------
    images : uint8 array of shape (n, resolution, resolution, 3)
    settings : VaeGanTraining
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    partial : path, optional
        File to go on from, and to write after each epoch.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Training
        With all epochs done.

    Raises
    ------
    UsageError, InputError
        If there are fewer than two images, the file is of another training, or weights are no
        longer finite.
    """
    from tqdm import tqdm

    if len(images) < 2:
        raise InputError(f"{counted(len(images), 'image')} to train on; give 2 at least.")
    training = Training(settings, device)
    checksum = resume.checksum_of(images)
    if partial is not None and partial.is_file():
        resume.load_progress(partial, training, checksum)
        LOG.info("%s: going on after epoch %d of %d", partial, training.epoch, settings.epochs)
    size = min(settings.batch_size, len(images))
    a_pass = len(images) // size * size
    with tqdm(
        total=settings.epochs * a_pass,
        initial=training.epoch * a_pass,
        unit="image",
        disable=not progress,
    ) as bar:

        def step_done(n: int, losses: dict[str, float]) -> None:
            bar.set_postfix({key: f"{value:.3g}" for key, value in losses.items()}, refresh=False)
            bar.update(n)

        while training.epoch < settings.epochs:
            bar.set_description(f"epoch {training.epoch + 1} of {settings.epochs}")
            losses = training.run_epoch(images, step_done)
            LOG.debug("epoch %d: %s", training.epoch, losses)
            if partial is not None:
                resume.save_progress(partial, training, checksum)
    return training


def fit_eigenface(
    source: Path, target: Target, n_components: int = 512, size: int = 64, progress: bool = True
) -> None:
    """Fit eigenfaces to a folder of images, and write them.

    Parameters
    ----------
    source : path
        Folder, with its subfolders. At most 2,048 images are in memory at a time, or one more than
        components.
    target : Target
    n_components : int
        At most; fewer where the images carry fewer.
    size : int
        Height and width of the images in pixels.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UsageError, InputError, OutputError
    """
    target.check()
    paths = pictures.find_pictures(source)
    model = eigenface.fit_eigenface(
        _batches(paths, (size, size), progress),
        n_components,
        source=f"{counted(len(paths), 'image')} of {Path(source).name}",
        **target.told(),
    )
    eigenface.save_eigenface(target.path, model)
    LOG.info(
        "%s with %.1f %% of the variance of %s", counted(model.n_latents, "component"),
        100 * model.explained, counted(model.n_images, "image"),
    )  # fmt: skip
    _say_written(target)


def read_images(source: Path, size: tuple[int, int], progress: bool = False) -> np.ndarray:
    """Read all images of a folder into one uint8 array of shape (n, height, width, 3)."""
    paths = pictures.find_pictures(source)
    images = np.empty((len(paths), *size, 3), dtype=np.uint8)
    done = 0
    for batch in _batches(paths, size, progress):
        images[done : done + len(batch)] = to_uint8(batch)
        done += len(batch)
    return images


def _batches(paths: list[Path], size: tuple[int, int], progress: bool) -> Iterator[np.ndarray]:
    from tqdm import tqdm

    with tqdm(total=len(paths), desc="reading", unit="image", disable=not progress) as bar:
        for batch in pictures.picture_batches(paths, size, _BATCH):
            yield batch
            bar.update(len(batch))


def _say_written(target: Target) -> None:
    LOG.info("Written to %s (SHA-256 %s)", target.path, filekinds.sha256(target.path))
