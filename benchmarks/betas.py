"""Time single-trial betas: this package (lsa, lss), nilearn's OLS, and bare matrix products.

4 runs x 300 volumes x 60 trials x 20,384 voxels, as python benchmarks/betas.py prints it.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import resource
import statistics
import time

import numpy as np
from nilearn.glm.first_level import run_glm

from hyper_bids.glm.betas import estimate_betas
from hyper_bids.glm.design import nuisance_design, trial_regressors

N_RUNS, N_VOLUMES, N_TRIALS, N_VOXELS = 4, 300, 60, 20_384
T_R, SOA = 1.5, 7.0
ROUNDS = 7


def make_runs(rng):
    """Return BOLD (baseline, noise) and the design of each run."""
    onsets = 4.0 + SOA * np.arange(N_TRIALS)
    trials = trial_regressors(onsets, np.full(N_TRIALS, 1.5), N_VOLUMES, T_R, "glover")
    runs = []
    for _ in range(N_RUNS):
        bold = rng.standard_normal((N_VOLUMES, N_VOXELS), np.float32)
        bold = bold * np.float32(10) + np.float32(1000)
        nuisance = nuisance_design(N_VOLUMES, 2, rng.standard_normal((N_VOLUMES, 6)))
        runs.append((bold, trials, nuisance))
    return runs


def own(runs):
    """Estimate with this package: betas, noise, R^2 and variance factors."""
    return [estimate_betas(*run) for run in runs]


def own_lss(runs):
    """Estimate with this package, a model a trial."""
    return [estimate_betas(*run, "lss") for run in runs]


def nilearn_ols(runs):
    """Estimate with nilearn from the same arrays (its betas lie in each cluster of results)."""
    return [
        run_glm(bold, np.hstack([trials, nuisance]), noise_model="ols")
        for bold, trials, nuisance in runs
    ]


def one_product(runs):
    """Multiply once by a precomputed pseudo-inverse: betas only, no noise."""
    inverse = np.linalg.pinv(np.hstack(runs[0][1:]))[:N_TRIALS].astype(np.float32)
    return [inverse @ bold for bold, _, _ in runs]


def bare_products(runs):
    """Do the matrix products of a full fit (all regressors, trials from them), nothing else."""
    for bold, trials, nuisance in runs:
        basis, triangle = np.linalg.qr(np.hstack([nuisance, trials]))
        parts = basis.T.astype(np.float32) @ bold
        np.linalg.inv(triangle)[-N_TRIALS:, -N_TRIALS:].astype(np.float32) @ parts[-N_TRIALS:]


def timed(function, runs):
    """Return the median, fastest and slowest of the rounds, in seconds."""
    function(runs)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function(runs)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), min(seconds), max(seconds)


def agreement(runs):
    """Return the largest difference of the betas from nilearn's, relative to their size."""
    bold, trials, nuisance = runs[0]
    mine = estimate_betas(bold, trials, nuisance).betas
    labels, results = run_glm(bold, np.hstack([trials, nuisance]), noise_model="ols")
    theirs = np.empty((N_TRIALS, N_VOXELS))
    for label, result in results.items():
        theirs[:, labels == label] = result.theta[:N_TRIALS]
    theirs *= 100 / bold.mean(axis=0, dtype=float)
    return np.abs(mine - theirs).max() / theirs.std()


def main():
    """Print the table."""
    runs = make_runs(np.random.default_rng(0))
    rows = {
        "one product a run (betas only)": one_product,
        "bare products of the full fit": bare_products,
        "hyper_bids, lsa": own,
        "hyper_bids, lss": own_lss,
        "nilearn run_glm, ols": nilearn_ols,
    }
    times = {name: timed(function, runs) for name, function in rows.items()}
    floor = times["bare products of the full fit"][0]
    print(f"{N_RUNS} runs x {N_VOLUMES} volumes x {N_TRIALS} trials x {N_VOXELS} voxels, 2 threads")
    print(f"{'what':34}{'median s':>9}{'min':>8}{'max':>8}{'ratio to bare products':>24}")
    for name, (median, low, high) in times.items():
        print(f"{name:34}{median:9.3f}{low:8.3f}{high:8.3f}{median / floor:24.1f}")
    ratio = times["nilearn run_glm, ols"][0] / times["hyper_bids, lsa"][0]
    print(f"hyper_bids is {ratio:.1f} times as fast as nilearn run_glm")
    print(f"largest difference of betas: {agreement(runs):.1e} of their standard deviation")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of all of it together: {peak:.0f} MB")


if __name__ == "__main__":
    main()
