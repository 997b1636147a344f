"""Rigid alignment of volumes to a reference with SimpleITK, and resampling onto its grid.

What is made small is the mean squared difference of smoothed images over the head, as in AFNI's
3dvolreg (Cox and Jesmanowicz 1999, MRM 42:1014) and SPM (Friston et al. 1995, Human Brain Mapping
3:165), after each volume's own mean intensity has been divided out. The optimiser is ITK's gradient
descent with the diagonal of the reference's Gauss-Newton matrix as scales, so that its steps are
near Newton steps. There is no random sampling, and the work is split in a fixed number of
parts: equal volumes give equal bits, also with another number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.motion.convention import (
    THINNEST,
    Geometry,
    clean,
    geometry_of,
    is_thin,
    to_parameters,
    to_volume,
)

if TYPE_CHECKING:
    import SimpleITK as sitk

# Full widths of the smoothing at half height, and the distance of the points compared; mm. The wide
# level catches jumps of a centimetre, the narrow one sets the precision.
_LEVELS = ((12.0, 8.0), (5.0, 4.0))
_STEPS = 30
_PARTS = 8  # sums are made part by part: this number, not that of threads, decides the last bit
_FWHM = np.sqrt(8 * np.log(2))


def evenly_spaced(n_volumes: int, n: int = 20) -> np.ndarray:
    """Return the indices of at most ``n`` volumes, evenly spaced, for :func:`motion_reference`."""
    return np.unique(np.linspace(0, n_volumes - 1, min(n, n_volumes)).round().astype(int))


def motion_reference(
    volumes: Iterable[np.ndarray], affine: np.ndarray, threads: int = 1
) -> np.ndarray:
    """Return the median of some volumes that have been aligned to the most typical of them.

    Parameters
    ----------
    volumes : iterable of arrays of shape (x, y, z)
        About 20, e.g. those of :func:`evenly_spaced`; all of them are held in memory.
    affine : array of shape (4, 4), mm
    threads : int

    Returns
    -------
    array of shape (x, y, z), float32
        A spoilt volume among them has no weight. 0 where fewer than half were in view.

    Raises
    ------
    ValueError
        If there is no volume, or none that :func:`estimate` accepts as reference.
    """
    some = [clean(volume) for volume in volumes]
    if not some:
        raise ValueError("a reference needs at least one volume")
    blurred = np.median(some, axis=0)
    typical = some[np.argmin([np.mean((volume - blurred) ** 2) for volume in some])]
    aligned = [moved for _, moved in realign(some, typical, affine, threads=threads)]
    return np.median(aligned, axis=0).astype(np.float32)


def estimate(
    volume: np.ndarray,
    reference: np.ndarray,
    affine: np.ndarray,
    start: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Estimate the rigid motion that brings one volume onto a reference.

    Parameters
    ----------
    volume, reference : array of shape (x, y, z)
        On one grid; NaN and infinities count as 0.
    affine : array of shape (4, 4), mm
    start : array of shape (6,), optional
        Parameters to start from; none is no motion.
    mask : bool array of shape (x, y, z), optional
        The brain in the reference; 4 mm are added to it, so that its edge counts. Without it, what
        is brighter than a quarter of the bright voxels.
    threads : int

    Returns
    -------
    array of shape (6,)
        trans_x, trans_y, trans_z in mm and rot_x, rot_y, rot_z in radians, axes and signs as in
        :mod:`hyper_bids.motion.convention`. A volume that holds nothing returns ``start``.

    Raises
    ------
    ValueError
        If shapes differ, a dimension is thin, the reference has no contrast, or volume and
        reference do not overlap.
    """
    target = _target(reference, affine, mask)
    return _estimate(clean(volume), target, _start(start), threads)


def resample(
    volume: np.ndarray,
    parameters: np.ndarray,
    reference: np.ndarray,
    affine: np.ndarray,
    threads: int = 1,
) -> np.ndarray:
    """Bring a volume onto the reference's grid, by one interpolation with cubic B-splines.

    Parameters
    ----------
    volume, reference : array of shape (x, y, z)
    parameters : array of shape (6,), from :func:`estimate`
    affine : array of shape (4, 4), mm
    threads : int

    Returns
    -------
    array of shape (x, y, z), float32
        Exactly 0 where the volume had no data; :func:`in_view` tells them from dark voxels.
    """
    return _resample(clean(volume), geometry_of(clean(reference), affine), parameters, threads)


def realign(
    volumes: Iterable[np.ndarray],
    reference: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Align volumes one by one, each starting from the motion of the one before.

    Parameters
    ----------
    volumes : iterable of arrays of shape (x, y, z)
    reference, affine, mask, threads
        As for :func:`estimate`.

    Yields
    ------
    parameters : array of shape (6,), as from :func:`estimate`
    volume : array of shape (x, y, z), float32, as from :func:`resample`

    Raises
    ------
    ValueError
        As for :func:`estimate`.
    """
    target, parameters = _target(reference, affine, mask), np.zeros(6)
    for volume in volumes:
        whole = clean(volume)
        parameters = _estimate(whole, target, parameters, threads)
        yield parameters, _resample(whole, target.geometry, parameters, threads)


@dataclass(frozen=True, eq=False)
class _Level:
    fwhm: float
    fixed: sitk.Image
    mask: sitk.Image
    scales: np.ndarray
    rate: float


@dataclass(frozen=True, eq=False)
class _Target:
    geometry: Geometry
    levels: tuple[_Level, ...]


def _start(parameters: np.ndarray | None) -> np.ndarray:
    return np.zeros(6) if parameters is None else np.asarray(parameters, float)


def _target(reference: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> _Target:
    from scipy.ndimage import distance_transform_edt

    reference = clean(reference)
    if reference.ndim != 3 or is_thin(reference.shape):
        raise ValueError(
            f"a volume of shape {reference.shape} cannot be realigned: at least {THINNEST} voxels "
            f"are wanted along each of three axes"
        )
    geometry = geometry_of(reference, affine)
    if mask is None:
        wide = _smooth(reference, geometry, 8.0)
        inside = wide > _quarter(wide)
    elif mask.shape == reference.shape and mask.any():
        inside = distance_transform_edt(~np.asarray(mask, bool), sampling=geometry.sizes) <= 4.0
    else:
        raise ValueError(f"a mask of {mask.shape} for a reference of {reference.shape}, or empty")
    levels = (_level(reference, geometry, inside, *level) for level in _LEVELS)
    return _Target(geometry, tuple(levels))


def _level(
    reference: np.ndarray, geometry: Geometry, inside: np.ndarray, fwhm: float, apart: float
) -> _Level:
    """Prepare the points that are compared, and the length of a step along each parameter."""
    smooth = _scaled(_smooth(reference, geometry, fwhm))
    steps = [
        max(1, min(round(apart / size), n // THINNEST))
        for size, n in zip(geometry.sizes, geometry.shape, strict=True)
    ]
    grid = tuple(slice(None, None, step) for step in steps)
    if not inside[grid].any():
        grid, steps = (slice(None),) * 3, [1, 1, 1]
    kept = np.nonzero(inside[grid])
    gradient = np.gradient(smooth, *geometry.sizes)
    gx, gy, gz = (g[grid][kept].astype(float) for g in gradient)
    sizes = geometry.sizes * steps
    x, y, z = (i * size - c for i, size, c in zip(kept, sizes, geometry.centre, strict=True))
    # How the image changes with small rotations (radians) and shifts (mm): Friston et al. 1995.
    changes = np.stack([gz * y - gy * z, gx * z - gz * x, gy * x - gx * y, gx, gy, gz])
    curvature = 2 * changes @ changes.T / len(x)
    scales = np.diag(curvature).copy()
    if not scales.min() > 0:
        raise ValueError(f"the reference (shape {reference.shape}) has no contrast")
    bent = np.linalg.eigvalsh(curvature / np.sqrt(np.outer(scales, scales)))
    fixed, mask = _image(smooth[grid], sizes), _image(inside[grid].astype(np.uint8), sizes)
    # A little below the fastest step, which is exact only where images differ by small motion.
    return _Level(fwhm, fixed, mask, scales, float(0.9 * 2 / (bent[0] + bent[-1])))


def _smooth(volume: np.ndarray, geometry: Geometry, fwhm: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(volume, fwhm / _FWHM / geometry.sizes, mode="nearest", truncate=3)


def _quarter(smooth: np.ndarray) -> float:
    """Return a quarter of what a bright voxel has: more than that is head."""
    return 0.25 * float(np.percentile(smooth[::2, ::2, ::2], 98))


def _scaled(smooth: np.ndarray) -> np.ndarray:
    """Divide by the mean of the head: the first volumes of a run are brighter than the others."""
    head = smooth > max(_quarter(smooth), 0.0)
    mean = float(smooth[head].mean(dtype=np.float64)) if head.any() else 0.0
    return smooth / np.float32(mean) if mean > 0 else np.zeros_like(smooth)


def _image(array: np.ndarray, sizes: np.ndarray) -> sitk.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(np.asarray(sizes, float).tolist())
    return image


def _transform(parameters: np.ndarray, geometry: Geometry) -> sitk.Euler3DTransform:
    import SimpleITK as sitk

    R, t = to_volume(parameters, geometry)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(geometry.centre.tolist())
    transform.SetMatrix(R.ravel().tolist())
    transform.SetTranslation(t.tolist())
    return transform


def _estimate(volume: np.ndarray, target: _Target, start: np.ndarray, threads: int) -> np.ndarray:
    import SimpleITK as sitk

    geometry = target.geometry
    _check_shape(volume, geometry)
    transform = _transform(start, geometry)
    for level in target.levels:
        moving = _scaled(_smooth(volume, geometry, level.fwhm))
        if not moving.any():
            return start
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(threads)
        method.SetNumberOfWorkUnits(_PARTS)
        method.SetMetricAsMeanSquares()
        method.SetMetricFixedMask(level.mask)
        # ITK would smooth once more for gradients, which then do not belong to the images.
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetInterpolator(sitk.sitkBSpline)
        method.SetOptimizerAsGradientDescent(level.rate, _STEPS, 1e-8, 3, method.Never)
        method.SetOptimizerScales(level.scales.tolist())
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(level.fixed, _image(moving, geometry.sizes))
        except RuntimeError:
            raise ValueError("a volume does not overlap the reference: no motion found") from None
    R = np.reshape(transform.GetMatrix(), (3, 3))
    return to_parameters(R, np.array(transform.GetTranslation()), geometry)


def _resample(
    volume: np.ndarray, geometry: Geometry, parameters: np.ndarray, threads: int
) -> np.ndarray:
    import SimpleITK as sitk

    _check_shape(volume, geometry)
    image = _image(volume, geometry.sizes)
    method = sitk.ResampleImageFilter()
    method.SetNumberOfThreads(threads)
    method.SetNumberOfWorkUnits(_PARTS)
    method.SetReferenceImage(image)
    method.SetTransform(_transform(parameters, geometry))
    method.SetInterpolator(sitk.sitkBSpline)
    method.SetDefaultPixelValue(0.0)
    method.SetOutputPixelType(sitk.sitkFloat32)
    moved = method.Execute(image)  # by name: the view does not keep it alive
    return np.ascontiguousarray(sitk.GetArrayViewFromImage(moved).T)


def _check_shape(volume: np.ndarray, geometry: Geometry) -> None:
    if volume.shape != geometry.shape:
        raise ValueError(f"a volume of {volume.shape} for a reference of {geometry.shape}")
