"""Identification on real data with each estimator, over four splits of the runs.

    python benchmarks/haxby.py DATASET [flags of the app]

DATASET is one participant of Haxby et al. (2001) in BIDS, with 12 runs of 8 categories as stimuli.
Runs 1-3, 4-6, 7-9 and 10-12 test in turn, single blocks, so that no choice is tuned to one split.
Given flags replace the list of estimators.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from hyper_bids.cli import main as app

SPLITS = (("1", "2", "3"), ("4", "5", "6"), ("7", "8", "9"), ("10", "11", "12"))
METRICS = "two_way_identification", "one_of_n_identification"
ESTIMATORS = (
    (),
    ("--betas", "lsa"),
    ("--betas", "lss"),
    ("--betas", "lsa", "--drift-order", "2"),
    ("--hrf", "glover"),
    ("--noise-components", "0"),
    ("--shrinkage", "none"),
)


def without_split(source, folder):
    """Copy a dataset without the column that fixes which runs test."""
    dataset = folder / "dataset"
    shutil.copytree(source, dataset)
    for path in dataset.glob("sub-*/func/*_events.tsv"):
        events = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        events.drop(columns="split").to_csv(path, sep="\t", index=False)
    return dataset


def scored(dataset, folder, test, flags):
    """Return both scores of single blocks, and the model that was chosen."""
    out = folder / "out"
    argv = [dataset, out, "participant", "--allow-shared-stimuli", "--skip-bids-validation", "-q",
            "-w", folder / "work", "--test-run-id", *test, *flags]  # fmt: skip
    if app([*map(str, argv)]):
        sys.exit(f"failed: {argv}")
    table = pd.read_csv(
        next(out.glob("sub-*/func/*summary_metrics.tsv")), sep="\t", na_values="n/a"
    )
    single = table[(table["variant"] == "latents, single trials") & table["control"].isna()]
    shutil.rmtree(out)
    return single.set_index("metric")["value"][list(METRICS)].to_numpy()


def main():
    """Print the table."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    variants = [tuple(sys.argv[2:])] if sys.argv[2:] else ESTIMATORS
    print(f"{'flags':36}" + "".join(f"{'runs ' + '-'.join(s[::2]):>16}" for s in SPLITS)
          + f"{'mean':>16}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = without_split(sys.argv[1], folder)
        for flags in variants:
            found = np.array([scored(dataset, folder, split, flags) for split in SPLITS])
            cells = [f"{two:8.3f} {one:7.3f}" for two, one in [*found, found.mean(axis=0)]]
            print(f"{' '.join(flags) or '(default)':36}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
