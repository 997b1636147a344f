"""Linear maps from responses to latents: a dict of solvers, and what they return.

A solver sees training trials only: it is given no others.
"""

from __future__ import annotations

import numpy as np

from hyper_bids.decode.bayes import fit_bayes
from hyper_bids.decode.combined import fit_averaged, fit_best
from hyper_bids.decode.decoder import Averaged, Decoder, load, predict, save, weights_for
from hyper_bids.decode.dense import fit_dense
from hyper_bids.decode.ols import fit_ols
from hyper_bids.decode.ridge import fit_ridge
from hyper_bids.errors import UsageError

__all__ = ["SOLVERS", "Averaged", "Decoder", "fit", "fit_averaged", "fit_bayes", "fit_best"]
__all__ += ["fit_dense", "fit_ols", "fit_ridge", "load", "predict", "save", "weights_for"]

SOLVERS = {"ridge": fit_ridge, "ols": fit_ols, "dense": fit_dense, "bayes": fit_bayes}
SOLVERS |= {"averaged": fit_averaged, "best": fit_best}


def fit(
    name: str,
    betas: np.ndarray,
    latents: np.ndarray,
    rng: np.random.Generator,
    options: dict | None = None,
) -> Decoder:
    """Fit the decoder called ``name`` to training trials.

    Parameters
    ----------
    name : str
        A key of :data:`SOLVERS`.
    betas : array of shape (n_trials, n_voxels)
        Responses of the training trials.
    latents : array of shape (n_trials, n_latents)
        Latents of the stimuli that were shown in them.
    rng : numpy.random.Generator
        Used by solvers that start or shuffle at random.
    options : dict, optional
        Keyword arguments of the solver.

    Returns
    -------
    Decoder

    Raises
    ------
    UsageError
        If there is no decoder of that name.
    ValueError
        For shapes that disagree, fewer than two trials, or values that are not finite.
    """
    if name not in SOLVERS:
        raise UsageError(f"--decoder {name}: no such decoder. Accepted: {', '.join(SOLVERS)}.")
    return SOLVERS[name](betas, latents, rng, **(options or {}))
