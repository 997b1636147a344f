"""Single-trial betas of one run with AR(1) noise, each voxel with an autocorrelation of its own.

With D the nuisance and the trials, the inverse covariance of AR(1) noise is, but for a factor,
I + rho^2 (I - ends) - rho (S + S'), S the shift by one volume. So D'V^-1 D and D'V^-1 Y of every
rho are sums of three matrices that are computed once, and nothing is ever whitened.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from hyper_bids.glm.noise import expected_lag_one
from hyper_bids.threads import on_one_thread

# Steps of the autocorrelations that voxels are given, and the largest that is taken for noise.
STEP = 0.02
LIMITS = (-0.3, 0.9)


class Prewhitened:
    """The design of a run, ready for blocks of voxels.

    Parameters
    ----------
    fixed : array of shape (n_volumes, k)
        Orthonormal nuisance and constant.
    trials : array of shape (n_volumes, n_trials)
    solve : callable
        From R with R'R = X'MX to the small matrix C of an estimator, betas = C Q'MY (see
        :mod:`hyper_bids.glm.betas`).
    """

    def __init__(self, fixed: np.ndarray, trials: np.ndarray, solve: Callable):
        self.n_fixed = fixed.shape[1]
        self._design = design = np.hstack([fixed, trials])
        neighbours = np.zeros_like(design)
        neighbours[1:] += design[:-1]
        neighbours[:-1] += design[1:]
        ends = design[[0, -1]]
        self._products = design.T @ design, design.T @ neighbours, ends.T @ ends
        self._rows = np.hstack([design, neighbours]).T.astype(np.float32)
        self._ends = ends.T.astype(np.float32)
        basis = np.linalg.qr(design)[0]
        self._fixed = fixed.astype(np.float32)
        self._own = basis[:, self.n_fixed :].astype(np.float32)
        self.grid = np.arange(LIMITS[0], LIMITS[1] + STEP / 2, STEP)
        self._expected = expected_lag_one(basis, self.grid)
        self._solve = solve
        self._solutions: dict[int, tuple] = {}

    def models(self, Y: np.ndarray) -> np.ndarray:
        """Return each voxel's place on the grid, from the residuals of ordinary least squares.

        The nuisance is taken off ``Y`` in place: sums of squares would drown in strong drift.
        """
        for _ in range(2):
            Y -= self._fixed @ (self._fixed.T @ Y)
        left = Y - self._own @ (self._own.T @ Y)
        power = np.einsum("ij,ij->j", left, left)
        lagged = np.einsum("ij,ij->j", left[1:], left[:-1])
        seen = np.divide(lagged, power, out=np.zeros_like(power), where=power > 0)
        rho = np.interp(seen, self._expected, self.grid)
        return np.rint((rho - self.grid[0]) / STEP).astype(int)

    def estimate(self, Y: np.ndarray, models: np.ndarray) -> tuple[np.ndarray, ...]:
        """Estimate the responses of a block of voxels by generalised least squares.

        Parameters
        ----------
        Y : array of shape (n_volumes, n_voxels), float32
        models : int array of shape (n_voxels,)
            Of each voxel's autocorrelation on ``grid``.

        Returns
        -------
        betas : array of shape (n_trials, n_voxels)
        total, left : arrays of shape (n_voxels,)
            Sums of squares of the whitened signal less nuisance, and less the trials too.
        """
        # Voxels of one autocorrelation side by side: each step then takes a view, no copy.
        order = np.argsort(models, kind="stable")
        Y, models = Y[:, order], models[order]
        rho = self.grid[models].astype(np.float32)
        both = self._rows @ Y
        n, k = both.shape[0] // 2, self.n_fixed
        plain, shifted = both[:n], both[n:]
        first_last = Y[[0, -1]]
        Z = rho * (rho * (plain - self._ends @ first_last) - shifted) + plain
        squares = np.einsum("ij,ij->j", Y, Y)
        neighbours = 2 * np.einsum("ij,ij->j", Y[1:], Y[:-1])
        ends = np.einsum("ij,ij->j", first_last, first_last)
        power = squares + rho * (rho * (squares - ends) - neighbours)
        betas = np.empty((n - k, Y.shape[1]), np.float32)
        total, left = np.empty((2, Y.shape[1]), np.float32)
        bounds = [*np.flatnonzero(np.diff(models, prepend=-1)), len(models)]
        for start, stop in pairwise(bounds):
            own = slice(start, stop)
            fixed_half, across, both_halves, _ = self.solution(int(models[start]))
            nuisance = fixed_half @ Z[:k, own]
            found = both_halves @ (Z[k:, own] - across @ nuisance)
            betas[:, order[own]] = found[: n - k]
            total[order[own]] = power[own] - np.einsum("ij,ij->j", nuisance, nuisance)
            explained = np.einsum("ij,ij->j", found[n - k :], found[n - k :])
            left[order[own]] = total[order[own]] - explained
        return betas, total, left

    def variance_factors(self, model: int) -> np.ndarray:
        """Return the variance of each trial's beta for a noise variance of 1."""
        return self.solution(model)[-1]

    @on_one_thread
    def solution(self, place: int) -> tuple[np.ndarray, ...]:
        """Return the small matrices for one autocorrelation, and the betas' variance factors."""
        if place not in self._solutions:
            rho, k = self.grid[place], self.n_fixed
            plain, shifted, ends = self._products
            A = plain + rho**2 * (plain - ends) - rho * shifted
            fixed_half = np.linalg.inv(np.linalg.cholesky(A[:k, :k]))
            across = A[k:, :k] @ fixed_half.T
            G = A[k:, k:] - across @ across.T
            triangle = np.linalg.cholesky(G).T
            half = np.linalg.inv(triangle).T
            C = self._solve(triangle) @ half
            factors = np.einsum("ij,ij->i", C @ G, C)
            stacked = np.vstack([C, half])
            parts = (part.astype(np.float32) for part in (fixed_half, across, stacked))
            self._solutions[place] = (*parts, factors)
        return self._solutions[place]
