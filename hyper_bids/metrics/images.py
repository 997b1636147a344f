"""Correlations of pixels between images, as pair matrices."""

from __future__ import annotations

import numpy as np

# Weights of red, green and blue in luminance (ITU-R BT.709): those of scikit-image's rgb2gray, the
# library of the reference code, and of MindEye2. The paper names none.
LUMINANCE = (0.2125, 0.7154, 0.0721)

# Side of the paper's images, and of MindEye2's.
PAPER_SIDE, MINDEYE_SIDE = 224, 425

# What varies by less than this fraction of its size is rounding.
_CONSTANT = 1e-6
# Pixels of all images that are held in float64 at a time (32 MiB).
_BLOCK = 2**22
# Bytes of resized images that are held at a time, of each of the two sets.
_HELD_BYTES = 512 * 2**20


def resized(images: np.ndarray, side: int | None = None) -> np.ndarray:
    """Return images in 0 to 1, their shorter side brought to ``side``.

    Bilinear, and smoothed first where it shrinks, as torchvision's and Pillow's; where it enlarges,
    as MindEye2 does, there is nothing to smooth.

    Parameters
    ----------
    images : uint8 array of shape (n_images, height, width, 3)
    side : int, optional
        None, or the shorter side as it is: no resizing.

    Returns
    -------
    array of shape (n_images, new_height, new_width, 3), float32, 0 to 1

    Raises
    ------
    ValueError
        If the images are not uint8 of three colours, or the side is below 1.
    """
    images = _checked(images)
    height, width = images.shape[1:3]
    if side is not None and side < 1:
        raise ValueError(f"side of {side}; at least 1 is wanted")
    shorter = min(height, width)
    if side in (None, shorter):
        return np.divide(images, 255, dtype=np.float32)
    import torch
    from torch.nn.functional import interpolate

    size = [side * n // shorter for n in (height, width)]
    found = np.empty((len(images), *size, 3), np.float32)
    for image, out in zip(images, found, strict=True):
        x = torch.from_numpy(np.divide(image, 255, dtype=np.float32)).permute(2, 0, 1)[None]
        out[:] = interpolate(x, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return found


def grey(images: np.ndarray, side: int | None = None) -> np.ndarray:
    """Return the luminance of images, resized in colour first.

    Parameters
    ----------
    images : uint8 array of shape (n_images, height, width, 3)
    side : int, optional
        See :func:`resized`.

    Returns
    -------
    array of shape (n_images, new_height, new_width), float32, 0 to 1
    """
    weights = np.array(LUMINANCE, np.float32)
    return np.stack([resized(image[None], side)[0] @ weights for image in _checked(images)])


def luminance_correlation(
    images: np.ndarray, targets: np.ndarray, side: int | None = PAPER_SIDE
) -> np.ndarray:
    """Return Pearson's r over pixels of luminance: the third score of the paper's table.

    Parameters
    ----------
    images : uint8 array of shape (n_predicted, height, width, 3)
    targets : uint8 array of shape (n_stimuli, height, width, 3)
    side : int, optional
        The paper's images are 224 x 224. It also took their backgrounds out, without saying how;
        here they count.

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, -1 to 1
        0 where an image has one luminance.
    """
    images, targets = _agree(images, targets)
    return _correlation(_flat(grey(images, side)), _flat(grey(targets, side)))


def pixel_correlation(
    images: np.ndarray, targets: np.ndarray, side: int | None = None
) -> np.ndarray:
    """Return Pearson's r over all pixels and colours: PixCorr of MindEye2 (Scotti et al. 2024).

    Parameters
    ----------
    images : uint8 array of shape (n_predicted, height, width, 3)
    targets : uint8 array of shape (n_stimuli, height, width, 3)
    side : int, optional
        425 for MindEye2's number; None: images as they are.

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, -1 to 1
        0 where an image has one value in all pixels and colours.
    """
    images, targets = _agree(images, targets)
    if side is None:
        return _correlation(_flat(images), _flat(targets))
    # Small images grow many times over: those of 1000 stimuli would take gigabytes.
    size = resized(images[:1], side).nbytes
    step = max(1, _HELD_BYTES // size)
    found = np.empty((len(images), len(targets)))
    for top in range(0, len(images), step):
        first = _flat(resized(images[top : top + step], side))
        for left in range(0, len(targets), step):
            second = _flat(resized(targets[left : left + step], side))
            found[top : top + step, left : left + step] = _correlation(first, second)
    return found


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Pearson's r of all rows of two arrays of one width, in blocks of columns."""
    n_columns = first.shape[1]
    step = max(1, _BLOCK // (len(first) + len(second)))
    means = [rows.mean(axis=1, dtype=np.float64, keepdims=True) for rows in (first, second)]
    products = np.zeros((len(first), len(second)))
    squares = [np.zeros(len(rows)) for rows in (first, second)]
    for start in range(0, n_columns, step):
        columns = slice(start, start + step)
        a, b = (rows[:, columns] - m for rows, m in zip((first, second), means, strict=True))
        products += a @ b.T
        squares[0] += np.einsum("ij,ij->i", a, a)
        squares[1] += np.einsum("ij,ij->i", b, b)
    # A row of one value is divided by infinity: correlation 0.
    length = [
        np.where(_varies(rows), np.sqrt(s), np.inf)
        for rows, s in zip((first, second), squares, strict=True)
    ]
    return products / length[0][:, None] / length[1]


def _varies(rows: np.ndarray) -> np.ndarray:
    low, high = (f(rows, axis=1).astype(np.float64) for f in (np.min, np.max))
    return high - low > _CONSTANT * np.maximum(np.abs(low), np.abs(high))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(
            f"images of type {images.dtype} and shape {images.shape}; "
            "uint8 of (n_images, height, width, 3) is wanted"
        )
    return images


def _agree(images: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, targets = _checked(images), _checked(targets)
    if images.shape[1:] != targets.shape[1:]:
        raise ValueError(f"images of shape {images.shape} and {targets.shape}")
    return images, targets
