"""Headers, masks, labels and masked signals in; one volume in memory at a time.

Voxels of a mask are always in C order: ``values == image[mask]`` (as nilearn and nibabel do it),
although a NIfTI file holds them in Fortran order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.errors import InputError

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

# NIfTI-1 standard, field xyzt_units: the time axis in seconds.
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_SPOILED = (EOFError, OSError, zlib.error)


@dataclass(frozen=True, eq=False)
class Header:
    """What the header of an image says: ``t_r`` is in seconds, None where it is not stated."""

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    n_volumes: int
    t_r: float | None


def read_header(path: Path | str) -> Header:
    """Read grid, number of volumes and repetition time of a 3D or 4D NIfTI image.

    Raises
    ------
    InputError
        If the file is missing or no NIfTI image (``.nii``, ``.nii.gz``) of 3D or 4D real numbers.
    """
    return _load(Path(path))[0]


def check_complete(path: Path | str) -> None:
    """Check that an image file holds all its volumes, reading as little of it as possible.

    A compressed file ends with its uncompressed size modulo 2**32 (RFC 1952, ISIZE); only where
    that disagrees with the header (several members, or cut off) is the file read through.

    Raises
    ------
    InputError
        If the file is truncated or damaged.
    """
    header, data = _load(Path(path))
    path, wanted = header.path, data.offset + int(np.prod(data.shape)) * data.dtype.itemsize
    if path.suffix != ".gz":
        found = path.stat().st_size
    else:
        with path.open("rb") as file:
            file.seek(-4, 2)
            stated = int.from_bytes(file.read(4), "little")
        found = wanted if stated == wanted % 2**32 else _uncompressed_size(path)
    if found < wanted:
        raise _truncated(path, f"its header promises {wanted} bytes, {found} are there")


def same_grid(a: Header, b: Header) -> bool:
    """Say whether two images have the same shape, and affines equal within 0.001."""
    return a.shape == b.shape and bool(np.allclose(a.affine, b.affine, rtol=0, atol=1e-3))


def read_mask(path: Path | str) -> np.ndarray:
    """Read a mask as bool (x, y, z); True where the value is above 0.5."""
    return _read_single(path) > 0.5


def read_labels(path: Path | str) -> np.ndarray:
    """Read a label image as int64 (x, y, z); 0 where the image is not a finite number.

    Raises
    ------
    InputError
        If a value is no whole number.
    """
    values = np.nan_to_num(_read_single(path), nan=0.0, posinf=0.0, neginf=0.0)
    labels = np.rint(values)
    # A scale factor in the header can leave a label off by a rounding error.
    off = np.abs(values - labels) > 1e-3
    if off.any():
        raise InputError(
            f"{path}: a label image must hold whole numbers; it holds {values[off][0]:g}."
        )
    return labels.astype(np.int64)


def read_masked(path: Path | str, mask: np.ndarray, first: int = 0) -> np.ndarray:
    """Read the voxels of a mask, volume by volume.

    Parameters
    ----------
    path : path of a 4D image (a 3D image is one volume)
    mask : bool array of shape (x, y, z)
    first : int, number of volumes to leave out at the start

    Returns
    -------
    array of shape (n_volumes - first, n_voxels), float32
        ``image[mask]`` of each volume.

    Raises
    ------
    InputError
        If mask and image differ in shape, no volume is left, or the file is truncated.
    """
    header, data = _load(Path(path))
    if mask.shape != header.shape:
        raise InputError(
            f"{header.path}: its volumes have shape {header.shape}, the mask has {mask.shape}; "
            f"both must lie on one grid."
        )
    # Positions in the file's Fortran order, listed in the mask's C order. A volume is gone through
    # once from its start to its end, and only what is kept of it is put in order.
    positions = np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")
    rising = np.argsort(positions)
    place = np.empty_like(rising)
    place[rising] = np.arange(rising.size)
    positions = positions[rising]
    bold = np.empty((_n_left(header, first), positions.size), np.float32)
    for row, raw in zip(bold, _raw_volumes(header, data, first), strict=True):
        row[:] = _scaled(raw[positions].take(place), data)
    return bold


def iterate(path: Path | str) -> Iterator[np.ndarray]:
    """Yield each volume of an image as float32 (x, y, z), Fortran order."""
    header, data = _load(Path(path))
    for raw in _raw_volumes(header, data, 0):
        yield _scaled(raw, data).astype(np.float32).reshape(header.shape, order="F")


def mean_volume(path: Path | str, first: int = 0) -> np.ndarray:
    """Return the mean over volumes, float32 (x, y, z), without the ``first`` volumes."""
    header, data = _load(Path(path))
    n_left, total = _n_left(header, first), np.zeros(int(np.prod(header.shape)))
    with np.errstate(invalid="ignore"):  # inf - inf where the scanner or a tool wrote inf
        for raw in _raw_volumes(header, data, first):
            total += raw
        mean = _scaled(total / n_left, data)
    return np.ascontiguousarray(mean.reshape(header.shape, order="F"), np.float32)


def _truncated(path: Path, found: str) -> InputError:
    return InputError(f"{path}: the file is truncated or damaged ({found}); get it again.")


def _load(path: Path) -> tuple[Header, ArrayProxy]:
    """Return the header, and nibabel's handle on the voxels (offset, type and scale factors)."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not path.is_file():
        linked = "a link to content that is not here; get it (datalad get)"
        raise InputError(f"{path}: {linked if path.is_symlink() else 'no such file'}.")
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, ValueError, *_SPOILED) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: cannot be read as a NIfTI image: {reason}.") from None
    if not isinstance(image, nibabel.Nifti1Image):  # NIfTI-2 is a subclass
        raise InputError(f"{path}: not a single-file NIfTI image (.nii or .nii.gz).")
    data, shape = image.dataobj, image.shape
    if len(shape) not in (3, 4) or min(shape) < 1 or data.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: a 3D or 4D image of real numbers is wanted; it is {shape} of {data.dtype}."
        )
    n_volumes = int(shape[3]) if len(shape) == 4 else 1
    affine = np.asarray(image.affine, np.float64)
    return Header(path, tuple(map(int, shape[:3])), affine, n_volumes, _t_r(image)), data


def _t_r(image) -> float | None:
    unit = image.header.get_xyzt_units()[1]
    if len(image.shape) < 4 or unit not in _SECONDS:
        return None
    t_r = float(image.header.get_zooms()[3]) * _SECONDS[unit]
    # The header holds single precision: 0.8 comes back as 0.800000011920929.
    return round(t_r, 6) if np.isfinite(t_r) and t_r > 0 else None


def _n_left(header: Header, first: int) -> int:
    if not 0 <= first < header.n_volumes:
        raise InputError(
            f"{header.path}: it has {header.n_volumes} volumes, so the first {first} cannot be "
            f"left out; 0 to {header.n_volumes - 1} can."
        )
    return header.n_volumes - first


def _uncompressed_size(path: Path) -> int:
    from isal import igzip, isal_zlib

    size = 0
    try:
        with igzip.open(path, "rb") as file:
            while block := file.read(1 << 22):
                size += len(block)
    except (*_SPOILED, isal_zlib.error) as error:
        raise _truncated(path, f"{error}, after {size} bytes of content") from None
    return size


def _raw_volumes(header: Header, data: ArrayProxy, first: int) -> Iterator[np.ndarray]:
    """Yield each volume as stored, flat in Fortran order; it holds until the next is asked for."""
    from isal import igzip, isal_zlib

    path, n_volumes, n_voxels = header.path, header.n_volumes, int(np.prod(header.shape))
    if path.suffix != ".gz":
        check_complete(path)
        kind = {"dtype": data.dtype, "mode": "r", "offset": data.offset}
        yield from np.memmap(path, shape=(n_volumes, n_voxels), **kind)[first:]
        return
    # While one volume is used, the next is inflated by another thread.
    buffers = [bytearray(n_voxels * data.dtype.itemsize) for _ in range(2)]
    with ExitStack() as stack:
        file = stack.enter_context(igzip.open(path, "rb"))
        pool = stack.enter_context(ThreadPoolExecutor(1))

        def fill(index: int) -> None:
            buffer = buffers[index % 2]
            try:
                if index == first:
                    file.seek(data.offset + first * len(buffer))
                filled = file.readinto(buffer)
                if index == n_volumes - 1:
                    file.read(1)  # the checksum stands at the end of a compressed file
            except (*_SPOILED, isal_zlib.error) as error:
                raise _truncated(path, f"{error}, in volume {index}") from None
            if filled < len(buffer):
                raise _truncated(path, f"it ends in volume {index} of {n_volumes}")

        coming = pool.submit(fill, first)
        for index in range(first, n_volumes):
            coming.result()
            if index + 1 < n_volumes:
                coming = pool.submit(fill, index + 1)
            yield np.frombuffer(buffers[index % 2], data.dtype)


def _scaled(raw: np.ndarray, data: ArrayProxy) -> np.ndarray:
    if data.slope == 1 and data.inter == 0:
        return raw
    # float64 as in nibabel: large integers must not be rounded before they are scaled.
    return raw.astype(np.float64) * float(data.slope) + float(data.inter)


def _read_single(path: Path | str) -> np.ndarray:
    header, data = _load(Path(path))
    if header.n_volumes != 1:
        raise InputError(f"{path}: one volume is wanted; it has {header.n_volumes}.")
    values = _scaled(next(_raw_volumes(header, data, 0)).astype(np.float64), data)
    return values.reshape(header.shape, order="F")
