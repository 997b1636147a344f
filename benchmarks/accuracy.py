"""Accuracy of single-trial betas on simulated data, and what each part of `optimised` is worth.

Simulates datasets with autocorrelated and shared noise, drift, and response functions that vary
over voxels; estimates with each variant; compares with the betas that were planted:

    python benchmarks/accuracy.py [--quick]

``r``: correlation with planted betas over the trials of a run, mean over coding voxels and runs.
``reliability``: split-half correlation over repeats of the test stimuli, mean over coding voxels.
``two-way``, ``one of 10``: identification of single test trials by the decoder.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from hyper_bids.cli import main as app

NOISE = (0.5, 1.0, 2.0)
HRF_SPREAD = (0.0, 1.0, 2.0)
DATASET = ("--n-participants", "1", "--n-train-runs", "6", "--n-test-runs", "2",
           "--generator", "none", "--shared-noise", "0.5")  # fmt: skip
VARIANTS = {
    "lsa": ("--betas", "lsa"),
    "lss": ("--betas", "lss"),
    "optimised": (),
    "- response functions": ("--hrf", "glover"),
    "- noise components": ("--noise-components", "0"),
    "- shrinkage": ("--shrinkage", "none"),
    "- noise model": ("--noise-model", "ols"),
}


def quietly(arguments):
    """Run the app; stop at what it stops at."""
    if app([*map(str, arguments)]):
        sys.exit(f"failed: {arguments}")


def measured(out, truth, latents):
    """Return r, reliability, two-way and one-of-n identification of one run of the app."""
    func = out / "sub-01" / "func"
    image = nibabel.load(next(func.glob("*_task-faces_desc-trials_statmap.nii.gz")))
    voxels = tuple(truth["coding_voxels"].T)
    betas = np.asarray(image.dataobj)[voxels].T.astype(float)
    there = betas.any(axis=0)  # the brain mask leaves out some voxels at the edge
    betas = betas[:, there]
    table = pd.read_csv(
        next(func.glob("*_task-faces_desc-trials_statmap.tsv")), sep="\t", dtype=str
    )
    row = {stim: k for k, stim in enumerate(latents["stim_id"])}
    planted = truth["betas"][[row[stim] for stim in table["stim_id"]]][:, there]
    centred, r = np.empty_like(betas), []
    for _, own in table.groupby("run"):
        a, b = betas[own.index], planted[own.index]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        centred[own.index] = a
        r.append((a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0)))
    halves = [[], []]
    for _, own in table[table["split"] == "test"].groupby("stim_id"):
        for half, rows in zip(halves, (own.index[::2], own.index[1::2]), strict=True):
            half.append(centred[rows].mean(axis=0))
    one, two = (np.array(h) - np.mean(h, axis=0) for h in halves)
    reliability = (one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    scores = pd.read_csv(next(func.glob("*summary_metrics.tsv")), sep="\t", na_values="n/a")
    single = scores[(scores["variant"] == "latents, single trials") & scores["control"].isna()]
    single = single.set_index("metric")["value"]
    return (
        float(np.mean(r)), float(reliability.mean()),
        single["two_way_identification"], single["one_of_n_identification"],
    )  # fmt: skip


def cell(noise, spread, folder):
    """Return each variant's four figures for one dataset."""
    dataset = folder / "dataset"
    quietly(["simulate", dataset, *DATASET, "--noise", noise, "--hrf-variation", spread])
    truth = np.load(dataset / "sourcedata" / "simulation" / "sub-01_truth.npz")
    latents = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t", dtype=str)
    found = {}
    for number, (name, flags) in enumerate(VARIANTS.items()):
        out = folder / f"out-{number}"
        quietly([dataset, out, "participant", "--no-realign", "--skip-bids-validation", "-q",
                 "-w", folder / "work", *flags])  # fmt: skip
        found[name] = measured(out, truth, latents)
    return found


def main():
    """Print the table."""
    quick = "--quick" in sys.argv[1:]
    cells = [(n, h) for n in NOISE for h in HRF_SPREAD if not quick or (n, h) == (2.0, 2.0)]
    columns = "r", "reliability", "two-way", "one of 10"
    print("simulated data, 6 training runs, 2 test runs of 40 trials; shared noise 0.5 %")
    print(f"{'noise':>6}{'spread':>7}  {'betas':22}" + "".join(f"{c:>12}" for c in columns))
    totals = {}
    for noise, spread in cells:
        with tempfile.TemporaryDirectory() as folder:
            found = cell(noise, spread, Path(folder))
        for name, figures in found.items():
            totals.setdefault(name, []).append(figures)
            print(f"{noise:6.1f}{spread:7.1f}  {name:22}" + "".join(f"{x:12.3f}" for x in figures),
                  flush=True)  # fmt: skip
    for name, figures in totals.items():
        mean = np.mean(figures, axis=0)
        print(f"{'mean':>13}  {name:22}" + "".join(f"{x:12.3f}" for x in mean))


if __name__ == "__main__":
    main()
