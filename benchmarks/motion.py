"""Time and error of realignment with planted motion: this package, and dipy where it is installed.

python benchmarks/motion.py [volumes]. A head of smooth tissue at 97 x 115 x 97 voxels of 2 mm, with
noise (2 % of its brightness), activity (4 % in every third volume) and motion of up to 2 mm and 2
degrees. It is computed at the moved places, not interpolated, and its coil stays where it is. The
error is the root mean square over a sphere of 80 mm (Jenkinson 1999). Peak memory is that of a
process of its own.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hyper_bids import motion
from hyper_bids.motion.convention import clean, geometry_of, to_volume

SHAPE, WHOLE_RUN = (97, 115, 97), 525
AFFINE = np.diag([-2.0, 2, 2, 1])
AFFINE[:3, 3] = 96, -114, -96


def soft(distance):
    """Return 1 inside and 0 outside of an edge, distances in mm."""
    return 1 / (1 + np.exp(np.clip(distance / 1.2, -30, 30)))


def head(points, active):
    """Return fluid, grey and white matter, ventricles and scalp at places (x, y, z), mm."""
    x, y, z = points
    surface = (np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 62) ** 2) - 1) * 66
    fold = 3.5 * np.sin(x / 5.1) * np.sin(y / 6.3 + 1) * np.cos(z / 5.7) + 2 * np.sin(
        x / 11 - y / 13
    )
    side = np.sqrt(((np.abs(x) - 9) / 6) ** 2 + ((y + 2) / 28) ** 2 + ((z - 8) / 8) ** 2)
    grey, white = soft(surface + 3 + np.maximum(fold, 0)), soft(surface + 8 + fold)
    image = 1250 * soft(surface) * (1 - grey) + 900 * grey * (1 - white) + 700 * white
    image += (1250 - image) * soft(6 * (side - 1)) + 220 * soft(np.abs(surface - 8) - 3)
    return image * (1 + active * grey * (1 - white) * soft((y + 45) / 2))


def planted(index):
    """Return shift (mm) and rotation of a volume; most are small, the first is still."""
    rng = np.random.default_rng(index)
    size = 0.0 if index == 0 else (0.5, 0.5, 0.5, 2.0)[index % 4]
    angles = np.deg2rad(size * rng.uniform(-1, 1, 3))
    return size * rng.uniform(-1, 1, 3), Rotation.from_euler("xyz", angles).as_matrix()


def make_volume(index):
    """Return one volume."""
    rng, (shift, R) = np.random.default_rng(1000 + index), planted(index)
    places = AFFINE[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + AFFINE[:3, 3:]
    image = head(R.T @ (places - shift[:, None]), 0.04 * (index % 3 == 2))
    image *= 1 + 0.12 * np.sin(places[0] / 90) + 0.1 * np.cos(places[1] / 80)
    noise = 18 * rng.standard_normal((2, image.size))
    return np.hypot(image + noise[0], noise[1]).reshape(SHAPE).astype(np.float32)


def error(R, shift, index):
    """Return the error of a motion, mm: R and shift take the reference to the volume."""
    true_shift, true_R = planted(index)
    change = true_R.T @ R - np.eye(3)
    return np.sqrt(80**2 / 5 * (change**2).sum() + ((R.T @ (shift - true_shift)) ** 2).sum())


def own(volumes, reference):
    """Yield R and shift for each volume, having resampled it as well."""
    geometry, mirror = geometry_of(clean(reference), AFFINE), np.diag([-1, 1, 1])
    centre = AFFINE[:3, :3] @ (geometry.centre / geometry.sizes) + AFFINE[:3, 3]
    for parameters, _ in motion.realign(volumes, reference, AFFINE, threads=2):
        R, t = to_volume(parameters, geometry)
        R, t = mirror @ R @ mirror, mirror @ t
        yield R, centre - R @ centre + t


def dipy(volumes, reference):
    """Yield R and shift for each volume: mutual information, from 4 mm to 2 mm, no resampling."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric  # noqa: PLC0415
    from dipy.align.transforms import RigidTransform3D  # noqa: PLC0415

    look = {"level_iters": [50, 20], "sigmas": [2, 1], "factors": [2, 1], "verbosity": 0}
    method = AffineRegistration(metric=MutualInformationMetric(32, None), **look)
    grids = {"static_grid2world": AFFINE, "moving_grid2world": AFFINE}
    for volume in volumes:
        found = method.optimize(reference, volume, RigidTransform3D(), None, **grids).affine
        yield found[:3, :3], found[:3, 3]


ROWS = {"own": (own, "hyper_bids (SimpleITK)"), "dipy": (dipy, "dipy, mutual information")}


def peak_memory(row, n):
    """Return the peak memory, MB, of a process that makes and aligns n volumes one by one."""
    done = subprocess.run([sys.executable, __file__, row, str(n)], capture_output=True, check=True)
    return float(done.stdout.split()[-1]) / 1024


def main(n):
    """Print the table."""
    reference, volumes = make_volume(0), [make_volume(index) for index in range(1, n + 1)]
    print(f"{n} volumes of {SHAPE}, 2 mm, 2 threads")
    print(f"{'what':26}{'s/volume':>9}{f'{WHOLE_RUN}, s':>9}", end="")
    print(f"{'median error mm':>17}{'largest':>9}{'peak MB':>9}")
    for row, (function, name) in ROWS.items():
        if row != "own" and importlib.util.find_spec(row) is None:
            print(f"{name:26} is not installed")
            continue
        some = volumes if row == "own" else volumes[:5]
        start = time.perf_counter()
        found = list(function(some, reference))
        seconds = (time.perf_counter() - start) / len(some)
        errors = [error(*pair, index) for index, pair in enumerate(found, 1)]
        print(
            f"{name:26}{seconds:9.3f}{seconds * WHOLE_RUN:9.0f}{np.median(errors):17.4f}"
            f"{max(errors):9.4f}{peak_memory(row, min(len(some), 10)):9.0f}"
        )
    print(
        f"peak without realignment, making the volumes alone: {peak_memory('nothing', 10):.0f} MB"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        stream = (make_volume(index) for index in range(1, int(sys.argv[2]) + 1))
        function = ROWS.get(sys.argv[1], (lambda volumes, _: volumes,))[0]
        for _ in function(stream, make_volume(0)):
            pass
        # Not getrusage: its maximum includes that of the process that started this one.
        status = Path("/proc/self/status").read_text("ascii").splitlines()
        print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 40)
