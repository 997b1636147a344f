"""Time single-trial betas: lsa, lss, optimised, nilearn, and bare matrix products.

python benchmarks/betas.py             4 runs x 300 volumes x 60 trials x 20,384 voxels
python benchmarks/betas.py --memory    9 runs x 525 volumes x 175 trials x 230,000 voxels,
                                       optimised only: time and peak memory
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nilearn.glm.first_level import FirstLevelModel, run_glm

from hyper_bids.config import BetaSettings
from hyper_bids.glm.betas import estimate_betas
from hyper_bids.glm.design import nuisance_design, trial_regressors
from hyper_bids.participant.estimation import estimate_blocks
from hyper_bids.participant.recording import record
from hyper_bids.participant.runs import Regressors, response_functions
from hyper_bids.participant.tuning import choose_model

N_RUNS, N_VOLUMES, N_TRIALS, N_VOXELS = 4, 300, 60, 20_384
T_R, SOA = 1.5, 7.0
N_STIMULI = 30  # each is shown twice a run, as GLMsingle needs it
ROUNDS = 7
# Seconds and megabytes of GLMsingle 1.2 on the same work, and of nilearn's OLS beside it
# (measured once, on a 2-core machine).
GLMSINGLE_S, GLMSINGLE_MB, NILEARN_OLS_S = 123.8, 1548, 0.93
BUDGET_MB = 3500


def make_runs(rng):
    """Return BOLD (baseline, trials' responses in a tenth of the voxels, AR(1) noise), designs."""
    onsets = 4.0 + SOA * np.arange(N_TRIALS)
    trials = trial_regressors(onsets, np.full(N_TRIALS, 1.5), N_VOLUMES, T_R, "glover")
    n_active = N_VOXELS // 10
    code = rng.standard_normal((N_STIMULI, n_active)) + 1
    runs, shown = [], []
    for _ in range(N_RUNS):
        bold = rng.standard_normal((N_VOLUMES, N_VOXELS), np.float32)
        for volume in range(1, N_VOLUMES):
            bold[volume] += np.float32(0.3) * bold[volume - 1]
        order = rng.permutation(np.repeat(np.arange(N_STIMULI), N_TRIALS // N_STIMULI))
        bold[:, :n_active] += (trials @ code[order]).astype(np.float32)
        bold = bold * np.float32(10) + np.float32(1000)
        nuisance = nuisance_design(N_VOLUMES, 2, rng.standard_normal((N_VOLUMES, 6)))
        runs.append((bold, trials, nuisance))
        shown.append(order)
    return runs, np.eye(N_STIMULI)[np.concatenate(shown)]


def own(estimator, noise_model="ols"):
    """Return a function that estimates with this package: betas, noise, R^2, variance factors."""
    return lambda runs: [estimate_betas(*run, estimator, noise_model) for run in runs]


def optimised(load, regressors, latents, n_voxels, memory_mb, t_r):
    """Do all that the app does from the masked signal to the betas."""
    settings = BetaSettings()
    with tempfile.TemporaryDirectory() as folder:
        recording = record(load, regressors, n_voxels, settings, Path(folder), memory_mb)
        chosen = choose_model(
            recording, regressors, latents, [t_r] * len(regressors), settings,
            list(response_functions(settings)),
        )  # fmt: skip
        betas = Path(folder) / "betas.npy"
        estimate_blocks(recording, regressors, chosen, settings, betas)
    return chosen.model


def library_designs(onsets, duration, n_volumes, t_r, n_runs, extras):
    """Return the regressors of runs with one timing, all of whose trials train."""
    functions = response_functions(BetaSettings()).values()
    trials = [
        trial_regressors(onsets, np.full(len(onsets), duration), n_volumes, t_r, hrf)
        for hrf in functions
    ]
    train = np.ones(len(onsets), bool)
    return [Regressors(f"run {k}", trials, extras[k], train, False) for k in range(n_runs)]


def nilearn_glm(noise_model):
    """Return a function that estimates with nilearn from the same arrays."""
    return lambda runs: [
        run_glm(bold, np.hstack([trials, nuisance]), noise_model=noise_model)
        for bold, trials, nuisance in runs
    ]


def first_level(runs):
    """Estimate with nilearn's FirstLevelModel from images, and take a contrast for each trial."""
    side = round(N_VOXELS ** (1 / 3)) + 1
    mask = np.zeros(side**3, np.uint8)
    mask[:N_VOXELS] = 1
    mask = mask.reshape((side,) * 3)
    mask_image = nibabel.Nifti1Image(mask, np.eye(4))
    for bold, trials, nuisance in runs:
        data = np.zeros((*mask.shape, N_VOLUMES), np.float32)
        data[mask > 0] = bold.T
        names = [f"t{k}" for k in range(N_TRIALS)] + [f"n{k}" for k in range(nuisance.shape[1])]
        design = pd.DataFrame(np.hstack([trials, nuisance]), columns=names)
        model = FirstLevelModel(
            t_r=T_R,
            mask_img=mask_image,
            noise_model="ols",
            signal_scaling=False,
            minimize_memory=True,
        )
        model.fit(nibabel.Nifti1Image(data, np.eye(4)), design_matrices=design)
        for k in range(N_TRIALS):
            model.compute_contrast(f"t{k}", output_type="effect_size")


def bare_products(runs):
    """Do the matrix products of a full fit (all regressors, trials from them), nothing else."""
    for bold, trials, nuisance in runs:
        basis, triangle = np.linalg.qr(np.hstack([nuisance, trials]))
        parts = basis.T.astype(np.float32) @ bold
        np.linalg.inv(triangle)[-N_TRIALS:, -N_TRIALS:].astype(np.float32) @ parts[-N_TRIALS:]


def timed(function, runs, rounds):
    """Return the median, fastest and slowest of the rounds, in seconds."""
    if rounds > 1:
        function(runs)
    seconds = []
    for _ in range(rounds):
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


def peak_mb():
    """Return the largest memory that this process has had, megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed():
    """Print the table of times."""
    runs, latents = make_runs(np.random.default_rng(0))
    onsets = 4.0 + SOA * np.arange(N_TRIALS)
    extras = [nuisance[:, 3:] for _, _, nuisance in runs]  # without the drift

    def everything(_):
        designs = library_designs(onsets, 1.5, N_VOLUMES, T_R, N_RUNS, extras)
        return optimised(lambda k: runs[k][0], designs, latents, N_VOXELS, 500, T_R)

    before = peak_mb()
    everything(runs)
    taken = peak_mb()
    rows = {
        "bare products of the full fit": (bare_products, ROUNDS),
        "hyper_bids, lsa": (own("lsa"), ROUNDS),
        "hyper_bids, lss": (own("lss"), ROUNDS),
        "hyper_bids, lsa, AR(1)": (own("lsa", "ar1"), ROUNDS),
        "hyper_bids, lss, AR(1)": (own("lss", "ar1"), ROUNDS),
        "hyper_bids, optimised": (everything, 3),
        "nilearn run_glm, ols": (nilearn_glm("ols"), ROUNDS),
        "nilearn run_glm, ar1": (nilearn_glm("ar1"), 1),
        "nilearn FirstLevelModel, ols": (first_level, 1),
    }
    times = {name: timed(function, runs, n) for name, (function, n) in rows.items()}
    floor = times["bare products of the full fit"][0]
    print(f"{N_RUNS} runs x {N_VOLUMES} volumes x {N_TRIALS} trials x {N_VOXELS} voxels, 2 threads")
    print(f"{'what':34}{'median s':>9}{'min':>8}{'max':>8}{'ratio to bare products':>24}")
    for name, (median, low, high) in times.items():
        print(f"{name:34}{median:9.3f}{low:8.3f}{high:8.3f}{median / floor:24.1f}")
    ols = times["nilearn run_glm, ols"][0]
    print(
        f"nilearn run_glm, ols takes {ols / times['hyper_bids, lsa'][0]:.1f} times as long as lsa"
    )
    for name in ("lsa", "lss"):
        ratio = times[f"hyper_bids, {name}, AR(1)"][0] / times[f"hyper_bids, {name}"][0]
        print(f"AR(1) takes {ratio:.1f} times as long as OLS, {name}")
    scaled = GLMSINGLE_S * ols / NILEARN_OLS_S
    ratio = scaled / times["hyper_bids, optimised"][0]
    print(
        f"GLMsingle's {GLMSINGLE_S} s, scaled by nilearn's OLS here and there: {scaled:.1f} s, "
        f"{ratio:.1f} times optimised"
    )
    print(
        f"peak memory after optimised: {taken:.0f} MB, {before:.0f} MB of them before it "
        f"(GLMsingle: {GLMSINGLE_MB} MB)"
    )
    print(f"largest difference of lsa from nilearn: {agreement(runs):.1e} of the betas' sd")


def memory():
    """Print time and peak memory of `optimised` on a whole brain of the paper's shape."""
    n_runs, n_volumes, n_trials, n_voxels, t_r = 9, 525, 175, 230_000, 1.5
    onsets = 6.0 + 4.4 * np.arange(n_trials)
    rng = np.random.default_rng(0)
    extras = [rng.standard_normal((n_volumes, 6)) for _ in range(n_runs)]
    designs = library_designs(onsets, 1.5, n_volumes, t_r, n_runs, extras)
    latents = rng.standard_normal((n_runs * n_trials, 512))
    code = rng.standard_normal((512, 4096)).astype(np.float32) / 22

    def load(run):
        # A run is made when it is read, and forgotten after: as from a file.
        noise = np.random.default_rng(run + 1)
        bold = noise.standard_normal((n_volumes, n_voxels), np.float32)
        own_trials = latents[run * n_trials : (run + 1) * n_trials].astype(np.float32)
        # Response functions vary over voxels, so that each is given its own.
        for k, function in enumerate((1, 7, 14, 20)):
            regressors = designs[run].trials[function].astype(np.float32)
            bold[:, k:4096:4] += regressors @ (own_trials @ code[:, k::4] + 1)
        bold *= np.float32(10)
        bold += np.float32(1000)
        return bold

    before, start = peak_mb(), time.perf_counter()
    model = optimised(load, designs, latents, n_voxels, BUDGET_MB - 1000, t_r)
    print(f"{n_runs} runs x {n_volumes} volumes x {n_trials} trials x {n_voxels} voxels, 2 threads")
    print(f"--mem-mb {BUDGET_MB}: {time.perf_counter() - start:.0f} s, peak memory "
          f"{peak_mb():.0f} MB ({before:.0f} MB before)")  # fmt: skip
    print(model)


if __name__ == "__main__":
    memory() if "--memory" in sys.argv[1:] else speed()
