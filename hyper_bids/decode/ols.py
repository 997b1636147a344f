"""Ordinary least squares with an intercept."""

from __future__ import annotations

import numpy as np

from hyper_bids.decode.decoder import Decoder, check_training


def fit_ols(betas: np.ndarray, latents: np.ndarray, rng: np.random.Generator) -> Decoder:
    """Fit least squares; with fewer trials than voxels, the solution of smallest weights.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Not used.

    Returns
    -------
    Decoder
        ``report`` has the ``rank`` of the centred responses. The intercept is not part of the
        weights' norm.

    Raises
    ------
    ValueError
        For shapes that disagree, fewer than two trials, or values that are not finite.

    Notes
    -----
    In float64 by singular values (LAPACK gelsd); holds about three copies of ``betas`` in float64.
    """
    betas, latents = check_training(betas, latents)
    X, Y = betas.astype(np.float64), latents.astype(np.float64)
    x_mean, y_mean = X.mean(axis=0), Y.mean(axis=0)
    X -= x_mean
    Y -= y_mean
    # Responses are single precision: singular values below its rounding are none. Trials that were
    # centred run by run have one such a run, and what it holds is noise of enormous weights.
    rcond = np.finfo(np.float32).eps * max(X.shape)
    weights, _, rank, _ = np.linalg.lstsq(X, Y, rcond=rcond)
    report = {"rank": int(rank), "n_trials": len(X)}
    intercept = y_mean - x_mean @ weights
    return Decoder("ols", weights.astype(np.float32), intercept.astype(np.float32), report)
