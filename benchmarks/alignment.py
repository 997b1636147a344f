"""What aligning participants is worth on planted data, and what it takes: docs/alignment.md.

    python benchmarks/alignment.py [--time]

Participants are random rotations of one response of 12 dimensions, 8 of them the latents, into 300
and more voxels, with noise. Printed is two-way identification of test stimuli (chance 0.5), a mean
of draws: of participants' own decoders, of the mean of what these predict, of voxels averaged
without alignment, of all voxels side by side, of the average in a common space, and of participants
by decoders of the others. ``--time``: seconds at 1050 stimuli, 4096 voxels.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import sys
import time

import numpy as np

from hyper_bids import decode, metrics
from hyper_bids.hyperalignment import (
    METHODS,
    AlignmentSettings,
    averaged_prediction,
    crossfitted,
    fit_map,
    fit_template,
    left_out_predictions,
)

N_TRAIN, N_TEST, N_VOXELS, N_PARTICIPANTS, DRAWS = 120, 60, 300, 5, 4


def planted(seed: int, noise: float):
    """Return responses of both sets by participant, and latents of all stimuli."""
    rng = np.random.default_rng(seed)
    response = rng.standard_normal((N_TRAIN + N_TEST, 12)) * np.geomspace(1.5, 0.7, 12)
    data = []
    for i in range(N_PARTICIPANTS):
        rotation = np.linalg.qr(rng.standard_normal((N_VOXELS + 7 * i, 12)))[0].T
        X = 4 * response @ rotation + noise * rng.standard_normal((len(response), len(rotation.T)))
        data.append((X - X[:N_TRAIN].mean(axis=0)) / X[:N_TRAIN].std(axis=0))
    return [X[:N_TRAIN] for X in data], [X[N_TRAIN:] for X in data], response[:, :8]


def ridge(train, latents, stimulus):
    """Return the prediction of ridge regression, its penalty chosen by leaving out stimuli."""
    fitted = decode.fit_ridge(train, latents, None, folds=stimulus % 10)
    return lambda betas: decode.predict(fitted, betas)


def accuracies(seed: int, noise: float) -> dict[str, float]:
    """Return the accuracy of each way of decoding in one draw."""
    train, test, latents = planted(seed, noise)
    known, truth, stimulus = latents[:N_TRAIN], latents[N_TRAIN:], np.arange(N_TRAIN)

    def accuracy(predicted) -> float:
        return np.diag(metrics.two_way(metrics.correlation_similarity(predicted, truth))).mean()

    def plain(X, Y) -> float:
        return accuracy(ridge(X, known, stimulus)(Y))

    own = [ridge(X, known, stimulus)(Y) for X, Y in zip(train, test, strict=True)]
    found = {"own": np.mean([accuracy(predicted) for predicted in own])}
    found["own, predictions averaged"] = accuracy(np.mean(own, axis=0))
    means = [np.mean([X[:, :N_VOXELS] for X in data], axis=0) for data in (train, test)]
    found["not aligned"] = plain(*means)
    found["side by side"] = plain(*(np.concatenate(data, axis=1) for data in (train, test)))
    for method in METHODS:
        given = (train.__getitem__, test.__getitem__, N_PARTICIPANTS, known, ridge,
                 AlignmentSettings(method, n_components=20))  # fmt: skip
        found[f"averaged {method}"] = accuracy(averaged_prediction(*given)[0])
        found[f"others {method}"] = np.mean([accuracy(p) for _, p in left_out_predictions(*given)])
    return found


def timed() -> None:
    """Print seconds of each step at the paper's number of stimuli and voxels."""
    shared = np.random.default_rng(99).standard_normal((1050, 64))

    def load(i: int) -> np.ndarray:
        rng = np.random.default_rng(i)
        X = shared @ rng.standard_normal((64, 4096)) / 8 + rng.standard_normal((1050, 4096))
        return X.astype(np.float32)

    data = [load(i) for i in range(3)]
    for method in METHODS:
        start = time.perf_counter()
        template = fit_template(data.__getitem__, [0, 1, 2], AlignmentSettings(method))
        print(f"{method}: template, a participant {(time.perf_counter() - start) / 3:.1f} s")
        for what, step in (("map", fit_map), ("cross-fitted", crossfitted)):
            start = time.perf_counter()
            step(data[0], template)
            print(f"{method}: {what} {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Print the table, or the times."""
    if "--time" in sys.argv:
        timed()
        return
    for noise in (3, 5):
        rows = [accuracies(seed, noise) for seed in range(DRAWS)]
        for name in rows[0]:
            print(f"noise {noise}: {name:28} {np.mean([row[name] for row in rows]):.3f}")


if __name__ == "__main__":
    main()
