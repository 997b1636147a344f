"""Time refits of ridge to shuffled training pairs against as many separate fits.

1,050 trials x 4,096 voxels x 512 latents, 36 test responses, one thread; penalties are chosen again
in each. The time of 1,000 refits is taken from two numbers of them, that of 1,000 fits from one:
both are straight lines. Rounds alternate, so that both share what else the machine did.
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
ROUNDS, FEW, MANY = 3, 2, 22


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

        rows = shuffled_rows(N_TRIALS, FEW, np.random.default_rng(1))
        difference = np.abs(refits(FEW).scores[0] - fit(rows[0]).ravel()).max()
        one, few, many = [], [], []
        for _ in range(ROUNDS):
            one.append(seconds(fit, rows[0]))
            few.append(seconds(refits, FEW))
            many.append(seconds(refits, MANY))
        one, few, many = (statistics.median(x) for x in (one, few, many))
        each = (many - few) / (MANY - FEW)
        thousand = few + (1000 - FEW) * each
        print(
            f"left out: {name:10} one fit {one:6.2f} s; {FEW} refits {few:6.2f} s, each further "
            f"{each:.4f} s; 1,000: {1000 * one:.0f} s and {thousand:.0f} s, "
            f"{1000 * one / thousand:.0f} times; largest difference {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
