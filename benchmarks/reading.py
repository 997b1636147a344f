"""Time the masked reading of a compressed run: this package, inflating alone, and nilearn's masker.

300 volumes of 97 x 115 x 97 voxels, float32, in a file that is made once in a temporary folder, as
python benchmarks/reading.py prints it. Rounds alternate, so that all share what else the machine
did. Peak memory is that of a process of its own for each row.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from nilearn.maskers import NiftiMasker

from hyper_bids import volumes

SHAPE, N_VOLUMES = (97, 115, 97), 300
ROUNDS = 3


def make_run(folder):
    """Write a brain-like run, noise around 1000 in an ellipsoid, and its mask."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    mask = sum(axis**2 for axis in axes) < 0.7
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), folder / "mask.nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*SHAPE, N_VOLUMES))
    header.set_sform(np.eye(4), code="aligned")
    header["vox_offset"] = 352
    header.set_slope_inter(1, 0)
    with igzip.open(folder / "bold.nii.gz", "wb", compresslevel=2) as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(N_VOLUMES):
            volume = mask * (1000 + 20 * rng.standard_normal(SHAPE, np.float32))
            stream.write(volume.astype("<f4").tobytes(order="F"))


def inflate_isal(folder):
    """Inflate the file, and drop the bytes."""
    buffer = bytearray(1 << 22)
    with igzip.open(folder / "bold.nii.gz", "rb") as stream:
        while stream.readinto(buffer):
            pass


def own(folder):
    """Read the voxels of the mask with this package."""
    return volumes.read_masked(folder / "bold.nii.gz", volumes.read_mask(folder / "mask.nii.gz"))


def nilearn_masker(folder):
    """Read the voxels of the mask with nilearn."""
    warnings.simplefilter("ignore")
    masker = NiftiMasker(folder / "mask.nii.gz", standardize=False, dtype="float32")
    return masker.fit_transform(folder / "bold.nii.gz")


ROWS = {"inflate": inflate_isal, "own": own, "nilearn": nilearn_masker}
NAMES = {
    "inflate": "isal, inflating alone",
    "own": "hyper_bids read_masked",
    "nilearn": "nilearn NiftiMasker",
}


def peak_memory(row, folder):
    """Return the peak memory, MB, of a process that runs one row, and of one that only imports."""
    peaks = []
    for name in (row, "nothing"):
        command = [sys.executable, __file__, name, str(folder)]
        done = subprocess.run(command, capture_output=True, check=True)
        peaks.append(float(done.stdout) / 1024)
    return peaks


def main():
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_run(folder)
        seconds = {row: [] for row in ROWS}
        for _ in range(ROUNDS):
            for row, function in ROWS.items():
                start = time.perf_counter()
                result = function(folder)
                seconds[row].append(time.perf_counter() - start)
                if row == "own":
                    kept = result
                if row == "nilearn":
                    same = np.array_equal(kept, result)
        floor = statistics.median(seconds["inflate"])
        size = (folder / "bold.nii.gz").stat().st_size / 1e6
        print(f"{N_VOLUMES} volumes of {SHAPE}, float32, {size:.0f} MB, 2 threads")
        print(f"{'what':26}{'median s':>9}{'min':>7}{'max':>7}{'to inflating':>14}{'peak MB':>9}")
        for row, values in seconds.items():
            median = statistics.median(values)
            peak, idle = peak_memory(row, folder)
            print(
                f"{NAMES[row]:26}{median:9.2f}{min(values):7.2f}{max(values):7.2f}"
                f"{median / floor:14.1f}{peak:9.0f}"
            )
        ratio = statistics.median(seconds["nilearn"]) / statistics.median(seconds["own"])
        print(f"hyper_bids is {ratio:.1f} times as fast as NiftiMasker; equal to the bit: {same}")
        print(f"the masked array has {kept.nbytes / 2**20:.0f} MB; imports alone {idle:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        ROWS.get(sys.argv[1], lambda folder: None)(Path(sys.argv[2]))
        # Not getrusage: its maximum includes that of the process that started this one.
        status = Path("/proc/self/status").read_text("ascii").splitlines()
        print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
    else:
        main()
