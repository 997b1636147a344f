"""Label images onto another grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError
from hyper_bids.volumes.reading import read_header, read_labels


def read_labels_onto(
    path: Path | str, mask: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Read the labels of a mask's voxels from an image that may lie on another grid.

    Where grids differ, each voxel has the label at its centre, the nearest voxel of the label
    image in millimetres. That is right for another resolution of the same space, and nothing else.

    Parameters
    ----------
    path : path of a 3D label image
    mask : bool array of shape (x, y, z)
    affine : array of shape (4, 4), mm
        Of the mask.

    Returns
    -------
    labels : int64 array of shape (n_voxels,)
        In the order of ``image[mask]``; 0 outside the field of view of the label image.
    resampled : bool
        Whether the grids differ.

    Raises
    ------
    InputError
        If the file is no label image, has no label but 0, or none of its labels lies in the mask.
    """
    own, labels = read_header(path), read_labels(path)
    resampled = own.shape != mask.shape or not np.allclose(own.affine, affine, rtol=0, atol=1e-3)
    if not resampled:
        values = labels[mask]
    else:
        to_own = np.linalg.inv(own.affine) @ affine
        places = np.argwhere(mask) @ to_own[:3, :3].T + to_own[:3, 3]
        # A half goes up in all axes, whatever the sign of the rounding error in the affines.
        places = np.floor(places + 0.5 + 1e-6).astype(np.int64)
        inside = ((places >= 0) & (places < own.shape)).all(axis=1)
        values = np.zeros(len(places), np.int64)
        values[inside] = labels[tuple(places[inside].T)]
    if not values.any():
        if not labels.any():
            raise InputError(f"{path}: all labels are 0; an image of regions is wanted.")
        raise InputError(
            f"{path}: none of its regions lies in the brain mask of the BOLD. Give regions in the "
            f"space of the BOLD."
        )
    return values, resampled
