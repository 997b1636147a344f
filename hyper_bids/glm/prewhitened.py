"""Single-trial betas of one run with AR(1) noise, each voxel with an autocorrelation of its own.

With D the nuisance and the trials, the inverse covariance of AR(1) noise is, but for a factor,
I + rho^2 (I - ends) - rho (S + S'), S the shift by one volume. So D'V^-1 D and D'V^-1 Y of every
rho are sums of three matrices that are computed once, and nothing is ever whitened.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hyper_bids.glm.noise import expected_lag_one
from hyper_bids.glm.threads import on_one_thread

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
        self._basis = basis.astype(np.float32)
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
        left = Y - self._basis @ (self._basis.T @ Y)
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
        both = self._rows @ Y
        n = both.shape[0] // 2
        plain, shifted = both[:n], both[n:]
        first_last = Y[[0, -1]]
        inner = plain - self._ends @ first_last
        squares = np.einsum("ij,ij->j", Y, Y)
        neighbours = 2 * np.einsum("ij,ij->j", Y[1:], Y[:-1])
        ends = np.einsum("ij,ij->j", first_last, first_last)
        betas = np.empty((n - self.n_fixed, Y.shape[1]), np.float32)
        total, left = np.empty((2, Y.shape[1]), np.float32)
        order = np.argsort(models, kind="stable")
        starts = np.flatnonzero(np.diff(models[order], prepend=-1))
        for own in np.split(order, starts[1:]):
            rho = np.float32(self.grid[models[own[0]]])
            C, fixed_half, across, trial_half, _ = self.solution(int(models[own[0]]))
            Z = plain[:, own] + rho * (rho * inner[:, own] - shifted[:, own])
            nuisance = fixed_half @ Z[: self.n_fixed]
            g = Z[self.n_fixed :] - across @ nuisance
            betas[:, own] = C @ g
            power = squares[own] + rho * (rho * (squares[own] - ends[own]) - neighbours[own])
            total[own] = power - np.einsum("ij,ij->j", nuisance, nuisance)
            explained = trial_half @ g
            left[own] = total[own] - np.einsum("ij,ij->j", explained, explained)
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
            parts = (part.astype(np.float32) for part in (C, fixed_half, across, half))
            self._solutions[place] = (*parts, factors)
        return self._solutions[place]
