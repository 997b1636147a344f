"""Maps and masks out, as NIfTI images whose bytes depend on their values alone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np


def to_volume(values: np.ndarray, mask: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Put the values (n_voxels,) of a mask's voxels into a volume (x, y, z), ``fill`` elsewhere.

    The values keep their type, but a fractional or NaN fill makes whole numbers float32.
    """
    values = np.asarray(values)
    if values.shape != (np.count_nonzero(mask),):
        raise ValueError(
            f"values of shape {values.shape} for a mask of {np.count_nonzero(mask)} voxels"
        )
    keeps = values.dtype.kind == "f" or float(fill).is_integer()
    volume = np.full(mask.shape, fill, values.dtype if keeps else np.float32)
    volume[mask] = values
    return volume


def write_map(path: Path | str, values: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> None:
    """Write one value a voxel (n_voxels,) as a 3D float32 image, 0 outside the mask."""
    _write(path, mask.shape, np.dtype("<f4"), affine, iter([to_volume(values, mask)]))


def write_maps(path: Path | str, rows: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> None:
    """Write rows (n_rows, n_voxels) as the volumes of a 4D float32 image, 0 outside the mask.

    The rows may be a memory map; one of them is in memory at a time. Equal rows give equal bytes.
    """
    volumes = (to_volume(row, mask) for row in rows)
    _write(path, (*mask.shape, len(rows)), np.dtype("<f4"), affine, volumes)


def write_series(
    path: Path | str, volumes: Iterable[np.ndarray], shape: tuple, affine: np.ndarray
) -> None:
    """Write volumes (x, y, z), one in memory at a time, as a 4D float32 image of ``shape``."""
    _write(path, shape, np.dtype("<f4"), affine, iter(volumes))


def write_mask(path: Path | str, mask: np.ndarray, affine: np.ndarray) -> None:
    """Write a mask (x, y, z) as a uint8 image of 0 and 1."""
    _write(path, mask.shape, np.dtype("u1"), affine, iter([np.asarray(mask, bool)]))


def _write(path: Path | str, shape: tuple, dtype: np.dtype, affine: np.ndarray, volumes) -> None:
    from isal import igzip
    from nibabel import Nifti1Header

    header = Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="aligned")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    with ExitStack() as stack:
        file = stack.enter_context(Path(path).open("wb"))
        if Path(path).suffix == ".gz":
            # No name and no time in the gzip header.
            file = stack.enter_context(igzip.IGzipFile("", "wb", 2, fileobj=file, mtime=0))
        file.write(header.binaryblock + bytes(4))
        for volume in volumes:
            file.write(volume.astype(dtype).tobytes(order="F"))
