"""Speed and memory of the maps, and which summary of patterns finds the code: docs/maps.md.

    python benchmarks/maps.py [--voxels 57500]

Encoding of random voxels from a file, 1050 trials in 10 runs and 512 latents, with its null; then
Haufe patterns of 4096 voxels. Last, the area under the ROC curve by which summaries tell voxels
that carry the code (500 of 2000; 256 latents, shared noise) at three levels of signal.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from hyper_bids import decode, maps, stats, voxels
from hyper_bids.glm.encoding import encoding_folds
from hyper_bids.glm.voxelwise import GROUPS, encoding_map, encoding_null

N, N_LATENTS, N_NULL = 1050, 512, 100_000


def speed(n_voxels: int, folder: str) -> None:
    """Print seconds and the peak of memory."""
    rng = np.random.default_rng(1)
    run, every = np.repeat(np.arange(10), N // 10), np.ones(N, bool)
    path = Path(folder) / "betas.npy"
    betas = np.lib.format.open_memmap(path, "w+", np.float32, (N, n_voxels))
    for row in betas:
        row[:] = rng.standard_normal(n_voxels, dtype=np.float32)

    def read(part) -> np.ndarray:
        return voxels.standardise(betas[:, part], run, every, "run")

    def told(what: str, start: float) -> None:
        print(f"{what}: {time.perf_counter() - start:.1f} s")

    start = time.perf_counter()
    folds = encoding_folds(rng.standard_normal((N, N_LATENTS)), run, GROUPS)
    r = encoding_map(read, n_voxels, folds, (1 << 24) // N)
    told(f"encoding of {n_voxels} voxels", start)
    start = time.perf_counter()
    sample = read(np.sort(rng.choice(n_voxels, 2000, replace=False)))
    p = maps.p_values(r, encoding_null(sample, folds, run, N_NULL, rng))
    told(f"null of {N_NULL}", start)
    q = stats.false_discovery(p)
    print(f"p below 0.05: {(p < 0.05).mean():.4f}, q below 0.05: {(q < 0.05).sum()}")
    X, W = read(slice(0, 4096)), rng.standard_normal((4096, N_LATENTS)).astype(np.float32)
    for function in (maps.haufe_patterns, maps.explained):
        start = time.perf_counter()
        function(X, W)
        told(function.__name__, start)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def summaries(signal: float) -> dict[str, float]:
    """Return the area under the ROC curve of each summary."""
    rng = np.random.default_rng(0)
    latents, B = rng.standard_normal((N, 256)), np.zeros((256, 2000))
    B[:, :500] = rng.standard_normal((256, 500)) * np.sqrt(signal / 256)
    shared = rng.standard_normal((N, 20)) @ rng.standard_normal((20, 2000)) / np.sqrt(20)
    X = latents @ B + shared + rng.standard_normal((N, 2000))
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    W = decode.fit("ridge", X, latents, rng).weights
    found = {
        "weights": maps.norms(W),
        "patterns": maps.norms(maps.haufe_patterns(X, W)),
        "explained": maps.explained(X, W),
    }
    return {name: float((rankdata(v)[:500].mean() - 250.5) / 1500) for name, v in found.items()}


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--voxels", type=int, default=57_500)
    with tempfile.TemporaryDirectory() as folder:
        speed(parser.parse_args().voxels, folder)
    for signal in (0.05, 0.3, 1.0):
        told = ", ".join(f"{name} {area:.2f}" for name, area in summaries(signal).items())
        print(f"signal {signal}: {told}")


if __name__ == "__main__":
    main()
