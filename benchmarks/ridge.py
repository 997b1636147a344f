"""Time ridge with a penalty a latent: this package, scikit-learn, and the bare matrix products.

1,050 trials x 4,096 voxels x 512 latents, trials left out one at a time, as
python benchmarks/ridge.py prints it. Rounds alternate, so that all share what else the machine did.
"""

# ruff: noqa: E402
import logging
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import resource
import statistics
import time

import numpy as np
from sklearn.linear_model import RidgeCV

from hyper_bids import decode

N_TRIALS, N_VOXELS, N_LATENTS = 1050, 4096, 512
ROUNDS = 5


def make_data(rng):
    """Return responses that carry a tenth of the latents' variance, and the latents."""
    betas = rng.standard_normal((N_TRIALS, N_VOXELS), np.float32)
    weights = rng.standard_normal((N_VOXELS, N_LATENTS), np.float32) / N_VOXELS**0.5
    noise = rng.standard_normal((N_TRIALS, N_LATENTS), np.float32)
    return betas, betas @ weights + 3 * noise


def own(betas, latents, alphas):
    """Fit with this package."""
    options = {"alphas": alphas, "per_target": True}
    return decode.fit("ridge", betas, latents, np.random.default_rng(0), options)


def own_shared(betas, latents, alphas):
    """Fit with this package, one penalty for all latents: the app's default."""
    return decode.fit("ridge", betas, latents, np.random.default_rng(0), {"alphas": alphas})


def own_folds(betas, latents, alphas):
    """Fit with this package, five folds, one penalty for all latents."""
    options = {"alphas": alphas, "folds": np.arange(N_TRIALS) % 5}
    return decode.fit("ridge", betas, latents, np.random.default_rng(0), options)


def scikit_learn(betas, latents, alphas):
    """Fit with scikit-learn, on the same arrays; it computes in float64 and casts the result."""
    return RidgeCV(alphas=alphas, alpha_per_target=True).fit(betas, latents)


def bare_products(betas, latents, alphas):
    """Do the matrix products in float32, nothing else: no decomposition, no errors."""
    gram = betas @ betas.T
    projected = gram @ latents
    for _ in alphas:
        gram @ projected
    return betas.T @ (gram @ projected)


ROWS = {
    "bare products": bare_products,
    "hyper_bids, penalty a latent": own,
    "hyper_bids, one penalty": own_shared,
    "hyper_bids, one penalty, 5 folds": own_folds,
    "scikit-learn RidgeCV, a latent": scikit_learn,
}


def timed(data, alphas):
    """Return each row's seconds over the rounds."""
    seconds = {name: [] for name in ROWS}
    for number in range(ROUNDS + 1):
        for name, function in ROWS.items():
            start = time.perf_counter()
            function(*data, alphas)
            # The first round warms up.
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    """Print the table for 10 penalties and for the default grid."""
    logging.getLogger("hyper_bids").setLevel(logging.ERROR)
    data = make_data(np.random.default_rng(0))
    grid = np.array(decode.fit("ridge", *data, np.random.default_rng(0), {}).report["alphas"])
    print(f"{N_TRIALS} trials x {N_VOXELS} voxels x {N_LATENTS} latents, 2 threads")
    for alphas in (grid[8:18], grid):
        seconds = timed(data, alphas)
        floor = statistics.median(seconds["bare products"])
        print(f"\n{f'{len(alphas)} penalties':34}{'median s':>9}{'min':>8}{'max':>8}{'to bare':>9}")
        for name, values in seconds.items():
            median = statistics.median(values)
            print(
                f"{name:34}{median:9.3f}{min(values):8.3f}{max(values):8.3f}{median / floor:9.1f}"
            )
        theirs = statistics.median(seconds["scikit-learn RidgeCV, a latent"])
        ratio = theirs / statistics.median(seconds["hyper_bids, penalty a latent"])
        print(f"hyper_bids is {ratio:.1f} times as fast as scikit-learn")
        mine, model = own(*data, alphas), scikit_learn(*data, alphas)
        both = np.array(mine.report["alpha"]) == model.alpha_
        difference = np.abs(mine.weights - model.coef_.T)[:, both].max() / model.coef_.std()
        print(
            f"same penalty: {both.mean():.1%}; largest difference of weights: {difference:.1e} sd "
            f"(both computed in float64, then rounded to float32)"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of all of it together: {peak:.0f} MB")


if __name__ == "__main__":
    main()
