"""The brain in a mean image."""

from __future__ import annotations

import numpy as np

_OPENING = 2  # erosions; compute_epi_mask's own default


def brain_mask(mean_volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain in a mean EPI image, also where it reaches the edge of the field of view.

    The threshold is nilearn's ``compute_epi_mask`` (T. Nichols: the least dense point of the
    histogram); its clean-up too (erosion, largest component, closing), but with the image continued
    beyond its edges. Otherwise the erosion takes the outer slices of a slab, and all of one slice.

    Parameters
    ----------
    mean_volume : array of shape (x, y, z)
    affine : array of shape (4, 4), mm

    Returns
    -------
    bool array of shape (x, y, z), never empty; ValueError if the image has no contrast
    """
    from nibabel import Nifti1Image
    from nilearn.masking import compute_epi_mask
    from scipy.ndimage import gaussian_filter

    mean = np.nan_to_num(np.asarray(mean_volume, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if mean.size < 8 or not np.ptp(mean) > 0:
        raise ValueError(
            f"no brain mask from a mean image of shape {mean.shape} with values from "
            f"{mean.min():g} to {mean.max():g}: it needs contrast; give a mask with the data."
        )
    # A full width of 1 voxel at half height: what compute_epi_mask does where it opens.
    image = Nifti1Image(gaussian_filter(mean, 1 / np.sqrt(8 * np.log(2))), affine)
    above = compute_epi_mask(image, opening=False, connected=False).get_fdata() > 0
    opened = _opened(above)
    # In a very small field of view nothing survives the erosion.
    return opened if opened.sum() >= above.sum() / 2 else _largest_component(above)


def _largest_component(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    labels, n_components = ndimage.label(mask)
    if n_components < 2:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def _opened(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    margin = 2 * _OPENING
    wide = ndimage.binary_erosion(np.pad(mask, margin, mode="edge"), iterations=_OPENING)
    wide = _largest_component(wide)
    wide = ndimage.binary_dilation(wide, iterations=2 * _OPENING)
    wide = ndimage.binary_erosion(wide, iterations=_OPENING, border_value=1)
    return wide[(slice(margin, -margin),) * 3]
