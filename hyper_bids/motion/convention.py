"""The motion parameters: their convention, and the grid that they belong to.

**Parameters** are six numbers, in the order of fMRIPrep's confounds and in the convention of FSL's
MCFLIRT (Jenkinson et al. 2002, NeuroImage 17:825): ``trans_x, trans_y, trans_z`` in mm, then
``rot_x, rot_y, rot_z`` in radians. They say how a *volume* is moved to meet the *reference*::

    p_reference = R (p_volume - c) + c + t

- Positions p are voxel index times voxel size, mm, along the voxel axes of the image, not of the
  world. If the affine has a positive determinant, x is counted from the last voxel, so that a
  usual axial image (stored from right to left or from left to right) always has x to the left, y
  to the front and z upwards.
- c is the centre of gravity of the reference, its minimum subtracted.
- R = Rx Ry Rz, each turning by the left-hand rule, e.g. Rx = [[1, 0, 0], [0, cos, sin],
  [0, -sin, cos]].

So in a usual axial image, a head that moved 1 mm to the front has trans_y = -1, one that moved 1 mm
to its right has trans_x = +1, upwards trans_z = -1; and one that raised its front (nose up) by 1
degree has rot_x = +0.017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THINNEST = 8  # slices


@dataclass(frozen=True, eq=False)
class Geometry:
    """Grid of the reference: voxel sizes and centre in mm, and whether x runs backwards in FSL."""

    shape: tuple[int, ...]
    sizes: np.ndarray
    centre: np.ndarray
    flipped: bool


def is_thin(shape: tuple[int, ...]) -> bool:
    """Say whether a volume has fewer than 8 voxels along an axis: too few to realign it in 3D."""
    return min(shape[:3]) < THINNEST


def in_view(parameters: np.ndarray, reference: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Say which voxels of the reference's grid a volume had data for: bool array (x, y, z)."""
    geometry = geometry_of(clean(reference), affine)
    R, t = to_volume(parameters, geometry)
    within = np.ones(geometry.shape, bool)
    indices = np.ogrid[tuple(slice(n) for n in geometry.shape)]
    offsets = [
        i * size - c for i, size, c in zip(indices, geometry.sizes, geometry.centre, strict=True)
    ]
    for row, shift, c, size, n in zip(
        R, t, geometry.centre, geometry.sizes, geometry.shape, strict=True
    ):
        place = sum(r * offset for r, offset in zip(row, offsets, strict=True)) + c + shift
        # The volume reaches to the outer faces of its outer voxels.
        within &= (place >= -0.5 * size) & (place < (n - 0.5) * size)
    return within


def clean(volume: np.ndarray) -> np.ndarray:
    """Return a volume as float32, with 0 for what is not finite."""
    return np.nan_to_num(np.asarray(volume, np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def geometry_of(reference: np.ndarray, affine: np.ndarray) -> Geometry:
    """Find voxel sizes, direction and centre of a reference; ValueError if it has no contrast."""
    axes = np.asarray(affine, float)[:3, :3]
    sizes = np.sqrt((axes**2).sum(axis=0))
    weights = reference.astype(np.float64) - reference.min()
    total = weights.sum()
    if not total > 0:
        raise ValueError(f"the reference (shape {reference.shape}) has no contrast")
    centre = []
    for axis, n in enumerate(reference.shape):
        others = tuple(a for a in range(3) if a != axis)
        centre.append(weights.sum(axis=others) @ np.arange(n) / total)
    return Geometry(reference.shape, sizes, centre * sizes, bool(np.linalg.det(axes) > 0))


def to_volume(parameters: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return R and t that take a place in the reference to one in the volume, about the centre."""
    from scipy.spatial.transform import Rotation

    parameters = np.asarray(parameters, float)
    R = Rotation.from_euler("XYZ", -parameters[3:]).as_matrix().T
    t = -R @ parameters[:3]
    mirror = np.array([-1.0 if geometry.flipped else 1.0, 1.0, 1.0])
    return mirror[:, None] * R * mirror, mirror * t


def to_parameters(R: np.ndarray, t: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the parameters of what :func:`to_volume` returns."""
    from scipy.spatial.transform import Rotation

    mirror = np.array([-1.0 if geometry.flipped else 1.0, 1.0, 1.0])
    R, t = mirror[:, None] * R * mirror, mirror * t
    return np.concatenate([-R.T @ t, -Rotation.from_matrix(R.T).as_euler("XYZ")])
