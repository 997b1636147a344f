"""Time refits of ridge to shuffled training pairs against as many separate fits.

1,050 trials x 4,096 voxels x 512 latents, 36 test responses, one thread; penalties are chosen again
in each. 1,000 refits are timed in full; of single fits the median of some, before and after.
"""

# ruff: noqa: E402
import logging
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import statistics
import time

import numpy as np
import torch

from hyper_bids import decode
from hyper_bids.decode.permutations import Refit, refit_null, shuffled_rows

N_TRIALS, N_VOXELS, N_LATENTS, N_TEST = 1050, 4096, 512, 36
ROUNDS, N_PERMUTATIONS = 3, 1000


def seconds(function, *args):
    """Return how long a call took."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main():
    """Print the times for trials left out one at a time, and for six runs."""
    logging.getLogger("hyper_bids").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((N_TRIALS, N_VOXELS), np.float32)
    latents = rng.standard_normal((N_TRIALS, N_LATENTS), np.float32)
    test = rng.standard_normal((N_TEST, N_VOXELS), np.float32)
    for name, folds in (("one trial", None), ("runs", np.arange(N_TRIALS) * 6 // N_TRIALS)):

        def fit(order, folds=folds):
            options = {"folds": folds}
            decoder = decode.fit("ridge", betas, latents[order], rng, options)
            return decode.predict(decoder, test)

        def refits(number, folds=folds):
            seed = np.random.default_rng(1)
            refit = Refit(folds=folds)
            return refit_null(betas, latents, test, np.ravel, seed, number, refit)

        rows = shuffled_rows(N_TRIALS, 1, np.random.default_rng(1))
        difference = np.abs(refits(1).scores[0] - fit(rows[0]).ravel()).max()
        one = [seconds(fit, rows[0]) for _ in range(ROUNDS)]
        many = seconds(refits, N_PERMUTATIONS)
        one += [seconds(fit, rows[0]) for _ in range(ROUNDS)]
        fits = N_PERMUTATIONS * statistics.median(one)
        print(
            f"left out: {name:10} one fit {fits / N_PERMUTATIONS:.2f} s ({min(one):.2f} to "
            f"{max(one):.2f}); {N_PERMUTATIONS} fits {fits:.0f} s, refits {many:.0f} s: "
            f"{fits / many:.0f} times as fast; largest difference {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
