"""Image files as arrays of one size, read in batches.

What becomes of a picture, in this order:

- its first frame or page is taken, and turned as its EXIF orientation says;
- palettes, CMYK, YCbCr, Lab and the like become RGB, grey is repeated in all three channels, and
  16-bit grey keeps its depth; colour profiles are not applied;
- what is transparent shows white, the colour of the page that such pictures are made for;
- the largest centred rectangle of the wanted aspect is cut out, in whole pixels: sides are lost
  rather than proportions; of that the middle part, where a ``frame`` below 1 is wanted;
- it is resized with a Lanczos kernel whose support grows as the picture shrinks (antialias). Small
  pictures are enlarged.

What cannot be read is refused by name, so that no picture is left out unseen.
"""

from __future__ import annotations

import itertools
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError, counted, listing

if TYPE_CHECKING:
    from PIL import Image

LOG = logging.getLogger("hyper_bids")

# Names by which a file of a folder is taken for a picture.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What Pillow raises over files that are damaged, beside OSError.
_DAMAGED = (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)
_MODES_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def find_pictures(source: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """List pictures, sorted by path.

    Parameters
    ----------
    source : path, or iterable of paths
        A folder, with its subfolders: files whose names end as in :data:`SUFFIXES`; the log tells
        how many there are, and which others there are. A file or an iterable of files: as given.

    Returns
    -------
    list of path
        At least one.

    Raises
    ------
    InputError
        If there is no such file or folder, or no picture in it, or a file is listed twice.
    """
    if not isinstance(source, str | os.PathLike):
        paths = sorted(Path(path) for path in source)
        if not paths:
            raise InputError("No pictures were given. Give a folder, or image files.")
        twice = sorted({str(a) for a, b in itertools.pairwise(paths) if a == b})
        if twice:
            raise InputError(f"Pictures given twice: {listing(twice)}. Give each once.")
        return paths
    folder = Path(source)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder. Give a folder of image files.")
    # A link whose target is not there (git-annex) is listed, and refused when it is read.
    files = sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [str(p.relative_to(folder)) for p in files if p.suffix.lower() not in SUFFIXES]
    if not paths:
        raise InputError(
            f"{folder}: no pictures ({', '.join(SUFFIXES)}); other files: {listing(others, 4)}."
        )
    left = f"; {counted(len(others), 'other file')} left out: {listing(others, 4)}"
    LOG.info("%s: %s%s", folder, counted(len(paths), "picture"), left if others else "")
    return paths


def read_picture(path: str | os.PathLike, size: tuple[int, int], frame: float = 1.0) -> np.ndarray:
    """Read one picture.

    Parameters
    ----------
    path : path
    size : tuple of int
        Height and width that are wanted, in pixels.
    frame : float
        Part of the sides of the rectangle that is cut out, above 0 to 1; an image model's
        ``frame``.

    Returns
    -------
    float32 array of shape (height, width, 3)
        RGB in [0, 1].

    Raises
    ------
    InputError
        If the file is not there, is no picture or a damaged one, or its values have no known range.
    """
    from PIL import Image

    path = Path(path)
    if min(size) < 1:
        raise ValueError(f"size {size}; height and width of at least 1 are wanted")
    if not 0 < frame <= 1:
        raise ValueError(f"frame {frame}; above 0 to 1 is wanted")
    try:
        with Image.open(path) as image:
            return _convert(path, image, size, frame)
    except FileNotFoundError:
        raise InputError(f"{path}: {filekinds.in_place_of_file(path)}.") from None
    except (OSError, Image.DecompressionBombError, zlib.error, *_DAMAGED) as error:
        raise InputError(
            f"{path}: {what_it_is(path)} ({type(error).__name__}). Write it again as PNG, or take "
            f"it away."
        ) from None


def picture_batches(
    paths: Sequence[str | os.PathLike],
    size: tuple[int, int],
    batch_size: int = 256,
    frame: float = 1.0,
) -> Iterator[np.ndarray]:
    """Read pictures in batches, in the order of ``paths``.

    Parameters
    ----------
    paths : sequence of path
    size : tuple of int
        Height and width that are wanted, in pixels.
    batch_size : int
        Pictures at a time; the last batch may be smaller.
    frame : float
        As for :func:`read_picture`.

    Yields
    ------
    float32 array of shape (n, height, width, 3)
        RGB in [0, 1].

    Raises
    ------
    InputError
        At the first picture that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; 1 or more is wanted")
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        batch = np.empty((len(part), *size, 3), dtype=np.float32)
        for row, path in zip(batch, part, strict=True):
            row[:] = read_picture(path, size, frame)
        yield batch


def cut(image: np.ndarray, size: tuple[int, int], frame: float = 1.0) -> np.ndarray:
    """Return the middle of a uint8 image at another size, as reading it from a file would.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    size : tuple of int
        Height and width that are wanted.
    frame : float
        As for :func:`read_picture`.
    """
    from PIL import Image

    if image.shape[:2] == tuple(size) and frame == 1:
        return image
    return np.asarray(_resized(Image.fromarray(image), size, frame))


def crop_box(width: int, height: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest centred rectangle whose aspect is that of ``size``.

    Parameters
    ----------
    width, height : int
        Of the picture, in pixels.
    size : tuple of int
        Height and width that are wanted.

    Returns
    -------
    tuple of int
        Left, top, right, bottom, in whole pixels.
    """
    wide = min(width, max(1, round(height * size[1] / size[0])))
    high = min(height, max(1, round(width * size[0] / size[1])))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _resized(image: Image.Image, size: tuple[int, int], frame: float) -> Image.Image:
    """Return the middle of a picture at another height and width."""
    from PIL import Image

    left, top, right, bottom = crop_box(*image.size, size)
    across, down = (1 - frame) / 2 * (right - left), (1 - frame) / 2 * (bottom - top)
    box = (left + across, top + down, right - across, bottom - down)
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box)


def _convert(path: Path, image: Image.Image, size: tuple[int, int], frame: float) -> np.ndarray:
    from PIL import Image, ImageOps

    kind = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode in _MODES_16_BIT or (image.mode == "I" and kind in ("PNG", "PPM")):
        grey = Image.fromarray(np.asarray(image).astype(np.float32) / 65535)
        values = np.asarray(_resized(grey, size, frame))
        return np.repeat(np.clip(values, 0, 1)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: 32-bit values ({kind}, mode {image.mode}), whose range is not known. Write "
            f"it again with 8 or 16 bits."
        )
    rgb = _resized(_over_white(image), size, frame)
    return np.asarray(rgb, dtype=np.float32) / np.float32(255)


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def what_it_is(path: Path) -> str:
    """Say what a file is that cannot be read as a picture."""
    try:
        with path.open("rb") as stream:
            start = stream.read(filekinds.N_BYTES)
    except OSError:
        return "cannot be read"
    return filekinds.stand_in(start, "picture") or "not a readable picture"
