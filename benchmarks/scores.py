"""Time structural similarity against scikit-image, and permutations of the pairing.

36 pairs of images of 1024 x 1024, the paper's number and size, one by one and all against all, and
10,000 pairings of a 36 x 36 matrix, as python benchmarks/scores.py prints it. Rounds alternate, so
that all share what else the machine did; the shortest of each is told. One thread unless
--threads says more; scikit-image then works on as many images at a time.
"""

# ruff: noqa: E402
import argparse
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from skimage.metrics import structural_similarity

from hyper_bids import metrics, stats

N_STIMULI, SIDE = 36, 1024
N_PERMUTATIONS = 10_000


def make_images(rng):
    """Return smooth stimuli, and pictures that look somewhat like them."""
    shown = np.empty((2, N_STIMULI, SIDE, SIDE, 3), np.uint8)
    for pair in shown.swapaxes(0, 1):
        coarse = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
        image = coarse.repeat(SIDE // 16, axis=0).repeat(SIDE // 16, axis=1)
        for one in pair:
            one[:] = np.clip(image + 25 * rng.standard_normal(image.shape, np.float32), 0, 255)
    return shown


def scikit_image(images, stimuli, n_threads):
    """Return the reference code's score of each pair."""
    score = partial(structural_similarity, channel_axis=-1)
    with ThreadPoolExecutor(n_threads) as pool:
        return np.array(list(pool.map(score, images, stimuli)))


def pairings(function, n_matrices):
    """Return a function without arguments that draws the null of as many matrices."""
    rng = np.random.default_rng(1)
    matrices = rng.standard_normal((n_matrices, N_STIMULI, N_STIMULI))
    return lambda: function(matrices, N_PERMUTATIONS, rng)


def permuted_rows(matrices, n_permutations, rng):
    """Draw the null of the first matrix with numpy's own shuffle of rows."""
    order = rng.permuted(np.tile(np.arange(N_STIMULI), (n_permutations, 1)), axis=1)
    return matrices[0].ravel().take(order + N_STIMULI * np.arange(N_STIMULI)).mean(axis=1)


def timed(rows, n_rounds):
    """Return each row's shortest wall and processor seconds, and its last result."""
    seconds = {name: [np.inf, np.inf] for name in rows}
    results = {}
    for _ in range(n_rounds):
        for name, function in rows.items():
            start = time.perf_counter(), time.process_time()
            results[name] = function()
            taken = time.perf_counter() - start[0], time.process_time() - start[1]
            seconds[name] = np.minimum(seconds[name], taken)
    return seconds, results


def main():
    """Print times, ratios and the largest difference from scikit-image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    n = arguments.threads

    images, stimuli = make_images(np.random.default_rng(0))
    rows = {
        "scikit-image, 36 pairs": partial(scikit_image, images, stimuli, n),
        "hyper_bids, 36 pairs": partial(metrics.structural_similarity_paired, images, stimuli, n),
    }
    seconds, results = timed(rows, arguments.rounds)
    all_pairs, all_results = timed(
        {"hyper_bids, all 1296 pairs": partial(metrics.structural_similarity, images, stimuli, n)},
        1,
    )
    wall, processor = seconds["scikit-image, 36 pairs"]
    print(f"structural similarity, {SIDE} x {SIDE} RGB, threads: {n}")
    for name, (own_wall, own_processor) in (seconds | all_pairs).items():
        share = 36 if "all" in name else 1
        print(
            f"  {name:27} {own_wall:7.2f} s wall, {own_processor:7.2f} s processor; a pair "
            f"{share * wall / own_wall:5.1f} and {share * processor / own_processor:5.1f} times "
            "as fast as scikit-image"
        )
    expected = results["scikit-image, 36 pairs"]
    paired = results["hyper_bids, 36 pairs"]
    whole = np.diag(all_results["hyper_bids, all 1296 pairs"])
    print(
        f"  largest difference from scikit-image {abs(paired - expected).max():.1e}, of all pairs "
        f"{abs(whole - expected).max():.1e}"
    )

    rows = {
        "numpy's permuted rows, 1 matrix": pairings(permuted_rows, 1),
        "hyper_bids, 1 matrix": pairings(stats.pairing_nulls, 1),
        "hyper_bids, 6 matrices": pairings(stats.pairing_nulls, 6),
    }
    print(f"{N_PERMUTATIONS} pairings of {N_STIMULI} x {N_STIMULI}, one thread")
    for name, (own_wall, own_processor) in timed(rows, 50)[0].items():
        print(f"  {name:32} {1e3 * own_wall:6.1f} ms wall, {1e3 * own_processor:6.1f} processor")


if __name__ == "__main__":
    main()
