"""How many images a model makes at a time, and images of many latents.

An image depends on its latent and, in its last digits, on how many are made with it: libraries
choose the order of their sums by the size of a batch. (With two threads of one processor, batches
of 1, 2 to 3 and 4 or more differed: by at most 1 level of 255, in 2 of 10,000 values, in float32;
by up to 8 levels, 0.4 on average, in bfloat16. Which other images are in the batch made no
difference.) So the batch is a number that does not depend on how many images are wanted: the last
one is filled up. Free memory can only lower it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.device import free_memory
from hyper_bids.errors import DeviceError
from hyper_bids.generators.pictures import cut
from hyper_bids.generators.protocol import to_uint8

if TYPE_CHECKING:
    from hyper_bids.generators.protocol import ImageGenerator

LOG = logging.getLogger("hyper_bids")

# Images at a time where memory is no matter: as many as PIXELS holds, 4 of 1024 x 1024, and at most
# MOST. Larger batches are no faster on processors.
MOST = 16
PIXELS = {"cpu": 4 * 1024**2, "cuda": 16 * 1024**2}

# What a batch needs, by the PGGAN, the largest network: BASE bytes, and for each pixel of an image
# so many. On processors, where its last layers are computed in bands of rows, each further image of
# 1024 pixels took 23 to 29 bytes a pixel, in either precision. On a GPU all layers are whole: at
# 1024 pixels they have 16 channels, input and output of two of them are held, and as much again is
# left to cuDNN (computed, not measured). Layers of up to WHOLE pixels are whole everywhere and have
# up to 512 channels.
BYTES_PER_PIXEL = {"cpu": 40, "cuda": 320}
WHOLE, BYTES_PER_WHOLE_PIXEL = 128**2, 2048
BASE = 200 * 2**20
# Of the free memory; the rest is for others, and for what the model of need leaves out.
SHARE = 0.5


# Images that are encoded at a time.
_ENCODED = 64


def choose_batch(
    generator: ImageGenerator, batch_size: int | str = "auto", limit_mb: float | None = None
) -> int:
    """Return how many images to make at a time.

    Parameters
    ----------
    generator : ImageGenerator
        Its ``image_shape`` counts, and its ``device`` if it has one.
    batch_size : int or str
        A number is taken as it is; ``auto``: the same on all machines where it fits (see
        :data:`PIXELS`), else as often halved as free memory asks for, which is logged.
    limit_mb : float, optional
        Megabytes that the job may use, if less than what is free.

    Raises
    ------
    ValueError
        If ``batch_size`` is below 1.
    """
    if batch_size != "auto":
        if int(batch_size) < 1:
            raise ValueError(f"batch_size is {batch_size}; 1 or more is wanted")
        return int(batch_size)
    device = getattr(generator, "device", "cpu")
    kind = device.partition(":")[0]
    pixels = generator.image_shape[0] * generator.image_shape[1]
    wanted = min(MOST, _power_of_two(PIXELS[kind] // pixels))
    free = free_memory(device)
    if limit_mb and kind == "cpu":
        free = min(free, int(limit_mb * 2**20))
    room = SHARE * free - BASE
    fits = min(wanted, _power_of_two(int(room // image_bytes(kind, pixels))))
    if fits < wanted:
        LOG.warning(
            "%s: %d images at a time rather than %d, since %d MB of memory are free; images can "
            "differ from those of other machines by rounding.",
            generator.name, fits, wanted, free // 2**20,
        )  # fmt: skip
    return fits


def image_bytes(kind: str, pixels: int) -> int:
    """Return the bytes that an image of a batch needs on a ``cpu`` or on ``cuda``."""
    return max(BYTES_PER_PIXEL[kind] * pixels, BYTES_PER_WHOLE_PIXEL * min(pixels, WHOLE))


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is not above ``number``; 1 for less than that."""
    return 1 << max(0, number.bit_length() - 1) if number > 0 else 1


def generate_batches(
    generator: ImageGenerator,
    latents: np.ndarray,
    batch_size: int | str = "auto",
    progress: bool = False,
) -> np.ndarray:
    """Generate images in batches of one size; a batch that does not fit into memory is halved.

    Parameters
    ----------
    generator : ImageGenerator
    latents : array of shape (n, n_latents)
    batch_size : int or str
        As for :func:`choose_batch`; bounds the memory that is needed beside the result. The last
        batch is filled up with copies of its last latent.
    progress : bool
        Show a progress bar.

    Returns
    -------
    uint8 array of shape (n, height, width, 3)

    Raises
    ------
    DeviceError
        If not even one image fits into memory.
    """
    from tqdm import tqdm

    size = choose_batch(generator, batch_size)
    images = np.empty((len(latents), *generator.image_shape), dtype=np.uint8)
    done = 0
    with tqdm(total=len(latents), desc="images", unit="image", disable=not progress) as bar:
        while done < len(latents):
            part = latents[done : done + size]
            made = _generate(generator, part, size)
            if made is not None:
                images[done : done + len(part)] = made
                bar.update(len(part))
                done += len(part)
                continue
            if size == 1:
                raise DeviceError(
                    f"{generator.name}: not even one image of {generator.image_shape[0]} x "
                    f"{generator.image_shape[1]} fits into memory. Use --device cpu, or give the "
                    f"job more memory."
                )
            size //= 2
            LOG.warning("%s: out of memory, going on with %d at a time", generator.name, size)
    return images


def encode_images(model: ImageGenerator, images: np.ndarray) -> np.ndarray:
    """Return the latents of images of any size, encoded in batches of one size.

    The middle of each image that the model sees is brought to the model's size
    (:func:`hyper_bids.generators.pictures.cut`). The last batch is filled up, so that latents do
    not depend on how many images there are.

    Parameters
    ----------
    model : ImageGenerator
        With an encoder.
    images : uint8 array of shape (n, height, width, 3)

    Returns
    -------
    float32 array of shape (n, n_latents)

    Raises
    ------
    InputError
        If the model has no encoder.
    """
    found = np.empty((len(images), model.n_latents), np.float32)
    batch = np.zeros((_ENCODED, *model.image_shape), np.float32)
    for start in range(0, len(images), _ENCODED):
        part = images[start : start + _ENCODED]
        for row, image in zip(batch, part, strict=False):
            row[:] = cut(image, model.image_shape[:2], model.frame)
        batch[: len(part)] /= 255
        found[start : start + len(part)] = model.encode(batch)[: len(part)]
    return found


def _generate(generator: ImageGenerator, latents: np.ndarray, size: int) -> np.ndarray | None:
    """Return the images of up to ``size`` latents, uint8; None if memory does not suffice."""
    import torch

    filled = np.concatenate([latents, np.repeat(latents[-1:], size - len(latents), axis=0)])
    # Networks round where they compute: a GPU then hands over a quarter of the bytes.
    paint = getattr(generator, "generate_uint8", None)
    try:
        made = paint(filled) if paint else to_uint8(generator.generate(filled))
        return made[: len(latents)]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    # Only here, after the exception has let go of its tensors, can their memory be given back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    # On the CPU, PyTorch has no class of its own for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )
