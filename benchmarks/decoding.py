"""Decoders on simulated responses of the paper's shape, against two planted references.

1,050 training trials, 4,096 voxels, 512 latents, and sets of 36 test stimuli that are each the mean
of 14 repeats. Responses are T W + E: latents T from N(0, 1), weights of voxel v from N(0, s_v^2),
s_v^2 log-normal, and noise of which 55 % is each voxel's own, 35 % is shared with neighbours on a
grid (voxels side by side correlate at 0.21) and 10 % with all others (5 components). Latents make
17, 5 and 1.3 % of the variance of the mean voxel.

The references: what decodes best if weights and noise are known, and if only the variance of the
weights and the covariance of the noise are, and the weights are to be learned from the same
training trials (the posterior mean, with the spread of what is not known of the weights put at its
prior mean). No decoder that learns from these trials can be expected to do better than the second.
At the high level there is a third: the second, given only how the voxels' signal is distributed.

    python benchmarks/decoding.py                              all but dense
    python benchmarks/decoding.py --decoders ridge dense       those; dense takes long
"""

# ruff: noqa: E402
import argparse
import logging
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from hyper_bids import decode, metrics

SIDE = 16
N_TRAIN, N_VOXELS, N_LATENTS, N_TEST, N_REPEATS = 1050, SIDE**3, 512, 36, 14
N_SETS = 10
LEVELS = {"low": 0.5, "middle": 1.0, "high": 2.0}  # noise, in standard deviations
OWN, NEAR, SHARED, N_SHARED = 0.55, 0.35, 0.10, 5
WIDTH = 0.7
SIGNAL = 0.05  # part of the variance of the mean voxel, at the middle level


@dataclass
class Simulated:
    """Standardised responses, latents, and the planted variances in units of the responses."""

    betas: np.ndarray
    latents: np.ndarray
    test: np.ndarray
    test_latents: np.ndarray
    weights: np.ndarray
    variance: np.ndarray
    noise: np.ndarray


def simulate(noise, rng):
    """Draw responses with a noise level, and what is planted in them."""
    x = np.arange(SIDE)
    kernel = np.exp(-0.5 * ((x[:, None] - x) / WIDTH) ** 2)
    one = kernel @ kernel.T
    scale = np.sqrt(np.einsum("i,j,k->ijk", *[np.diag(one)] * 3).ravel())
    shared = rng.standard_normal((N_SHARED, N_VOXELS))
    shared /= np.sqrt((shared**2).sum(axis=0))
    sd = noise * np.sqrt(N_LATENTS * (1 - SIGNAL) / SIGNAL)

    def draw(n):
        near = rng.standard_normal((n, SIDE, SIDE, SIDE))
        for axis in (1, 2, 3):
            near = np.moveaxis(np.tensordot(near, kernel, axes=(axis, 1)), -1, axis)
        own = np.sqrt(OWN) * rng.standard_normal((n, N_VOXELS))
        near = np.sqrt(NEAR) * near.reshape(n, -1) / scale
        return sd * (own + near + np.sqrt(SHARED) * rng.standard_normal((n, N_SHARED)) @ shared)

    variance = rng.lognormal(0, 1, N_VOXELS)
    variance /= variance.mean()
    weights = rng.standard_normal((N_LATENTS, N_VOXELS)) * np.sqrt(variance)
    latents = rng.standard_normal((N_TRAIN, N_LATENTS))
    test_latents = rng.standard_normal((N_SETS * N_TEST, N_LATENTS))
    betas = latents @ weights + draw(N_TRAIN)
    test = test_latents @ weights + draw(len(test_latents)) / np.sqrt(N_REPEATS)
    covariance = NEAR * np.kron(np.kron(one, one), one) / np.outer(scale, scale)
    covariance += SHARED * shared.T @ shared
    covariance[np.diag_indices(N_VOXELS)] += OWN
    mean, unit = betas.mean(axis=0), betas.std(axis=0)
    return Simulated(
        ((betas - mean) / unit).astype(np.float32), latents.astype(np.float32),
        ((test - mean) / unit).astype(np.float32), test_latents, weights / unit,
        variance / unit**2, (sd**2 * covariance / np.outer(unit, unit)).astype(np.float32),
    )  # fmt: skip


def posterior_map(weights, noise):
    """Return the map to the posterior mean of standard normal latents, (n_voxels, n_latents)."""
    factor = cho_factor(noise, check_finite=False)
    inverse = cho_solve(factor, weights.T.astype(np.float32), check_finite=False)
    return inverse @ np.linalg.inv(np.eye(len(weights)) + weights @ inverse)


def known_weights(data):
    """Return the map that knows the weights and the noise."""
    return posterior_map(data.weights, data.noise / N_REPEATS)


def fair_limit(data, n_groups=24):
    """Return the map that knows the variances, and learns the weights from the training trials.

    In axes of the training latents the weights are independent a posteriori; axes of nearly the
    same length (within 5 %) share one decomposition.
    """
    centred = data.latents - data.latents.mean(axis=0, dtype=float)
    rows, size, axes = np.linalg.svd(centred, full_matrices=False)
    seen = rows.T.astype(np.float32) @ data.betas
    mean, doubt = np.empty_like(seen), np.zeros(N_VOXELS)
    for group in np.array_split(np.arange(N_LATENTS), n_groups):
        power = (size[group] ** 2).mean()
        total = data.noise + np.diag(power * data.variance).astype(np.float32)
        factor = cho_factor(total, overwrite_a=True, check_finite=False)
        solved = cho_solve(factor, seen[group].T, check_finite=False)
        mean[group] = size[group, None] * data.variance * solved.T
        # Of each voxel by itself: what noise shared with others adds is small (checked once with
        # the whole covariance: 0.55717 and 0.55723 at the middle level).
        own = np.diag(data.noise)
        doubt += len(group) * data.variance * own / (power * data.variance + own)
    total = data.noise / N_REPEATS + np.diag(doubt).astype(np.float32)
    return posterior_map(axes.T @ mean, total)


def distribution_known(data):
    """Return the fair limit's map, but with each voxel's signal as the training trials tell it.

    The noise's covariance and how the signal is distributed over voxels are known. For a signal
    that is small against the noise: neighbours' signals are not told from their noise.
    """
    own = np.diag(data.noise)
    inverse = np.linalg.inv(data.noise / np.sqrt(np.outer(own, own)))
    left = 1 / np.diag(inverse)
    centred = data.latents - data.latents.mean(axis=0, dtype=float)
    # Rows that are orthogonal to each other and to the constant, which is lifted to be the last.
    power, rows = np.linalg.eigh(centred @ centred.T + 10 * N_LATENTS)
    power = np.maximum(power[:-1], 0)
    seen = (rows[:, :-1].T.astype(np.float32) @ data.betas) / np.sqrt(own) @ inverse * left
    grid = np.quantile(data.variance / own, np.linspace(0.005, 0.995, 100))
    log_density = np.empty((len(grid), N_VOXELS))
    for row, ratio in zip(log_density, grid, strict=True):
        variance = power[:, None] * ratio + left
        row[:] = -0.5 * (np.log(variance) + seen**2 / variance).sum(axis=0)
    density = np.exp(log_density - log_density.max(axis=0))
    expected = grid @ density / density.sum(axis=0)
    return fair_limit(replace(data, variance=expected * own))


def runs():
    """Return the six training runs: what is left out."""
    return np.arange(N_TRAIN) * 6 // N_TRAIN


def fitted(name, data):
    """Fit a decoder and return predictions of the test stimuli."""
    places = np.stack(np.unravel_index(np.arange(N_VOXELS), (SIDE,) * 3), axis=1)
    # The rank stands for the mean z of the app: the planted size with an error as large.
    rng = np.random.default_rng(1)
    rank = np.log(data.variance) + rng.standard_normal(N_VOXELS)
    options = {
        "ridge": {"folds": runs()},
        "ridge a latent": {"folds": runs(), "per_target": True},
        "averaged": {"folds": runs(), "rank": rank},
        "bayes": {"places": places, "n_repeats": N_REPEATS},
        "bayes, one repeat": {"places": places},
        "bayes, no places": {"n_repeats": N_REPEATS},
        "best": {"folds": runs(), "rank": rank, "places": places, "n_repeats": N_REPEATS},
        "dense": {},
        # The minimum of dense's loss, but for the bias, which it shrinks too: weight decay, times
        # latents and trials, by which it divides the squared error.
        "dense, converged": {"alphas": [0.01 * N_LATENTS * N_TRAIN]},
    }
    solver = "ridge" if name == "dense, converged" else name.split()[0].rstrip(",")
    decoder = decode.fit(solver, data.betas, data.latents, rng, options[name])
    return decode.predict(decoder, data.test, N_REPEATS), decoder.report


def score(predicted, data):
    """Return latent correlation and two-way identification, means over sets of test stimuli."""
    found = []
    for start in range(0, len(predicted), N_TEST):
        part = slice(start, start + N_TEST)
        guess, truth = predicted[part], data.test_latents[part]
        similarity = metrics.correlation_similarity(guess, truth)
        found.append(
            (
                np.nanmean(metrics.per_dimension_correlation(guess, truth)),
                np.diag(metrics.two_way(similarity)).mean(),
            )
        )
    return np.mean(found, axis=0)


NAMES = ["ridge", "ridge a latent", "averaged", "bayes, one repeat", "bayes, no places"]
NAMES += ["bayes", "best", "dense, converged"]


def main():
    """Print a table for each level of noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoders", nargs="+", default=NAMES, choices=[*NAMES, "dense"])
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    chosen = parser.parse_args()
    logging.getLogger("hyper_bids").setLevel(logging.ERROR)
    for level in chosen.levels:
        data = simulate(LEVELS[level], np.random.default_rng(0))
        limit = score(data.test @ fair_limit(data), data)
        known = score(data.test @ known_weights(data), data)

        def row(name, found, more="", limit=limit[0], known=known[0]):
            r, two_way = found
            print(
                f"{name:22}{r:8.4f}{r / limit:10.1%}{r / known:10.1%}{two_way:10.4f}{more}",
                flush=True,
            )

        print(f"\n{level} noise{'r':>20}{'of limit':>10}{'of known':>10}{'two-way':>10}{'s':>8}")
        row("weights known", known)
        row("fair limit", limit)
        if level == "high":
            row("distribution known", score(data.test @ distribution_known(data), data))
        for name in chosen.decoders:
            start = time.perf_counter()
            predicted, report = fitted(name, data)
            seconds = time.perf_counter() - start
            detail = report.get("chosen", report.get("members", ""))
            row(name, score(predicted, data), f"{seconds:8.1f}  {detail}")


if __name__ == "__main__":
    main()
