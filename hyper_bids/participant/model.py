"""What a model of the BOLD is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Model:
    """A model of the BOLD.

    Attributes
    ----------
    drift_order : int
    noise_model : {"ols", "ar1"}
    n_components : int
        Noise components of each run.
    hrf : str
        ``library``: each voxel its own; else the name of one response function for all.
    shrinkage : bool
        Whether betas are shrunken towards a voxel's mean response.
    rho : float
        Autocorrelation of the noise, for ``ar1``.
    """

    drift_order: int
    noise_model: str
    n_components: int
    hrf: str
    shrinkage: bool
    rho: float = 0.0


@dataclass(frozen=True, eq=False)
class Chosen:
    """The model, what it was chosen from, and what voxels need for their own choices.

    Attributes
    ----------
    model : Model
    table : list of dict
        One row a model that was tried: what was varied, the model, its score, whether it won.
    components : list of arrays of shape (n_volumes, n_components)
        Noise components of every run.
    gammas : array of shape (n_gammas,)
        Shrinkages to choose from.
    share : array of shape (n_functions, n_gammas)
        How often each pair occurs in the voxels that respond.
    """

    model: Model
    table: list[dict]
    components: list[np.ndarray]
    gammas: np.ndarray
    share: np.ndarray


def described(model: Model) -> str:
    """Return the model in words."""
    hrf = "each voxel's own response function" if model.hrf == "library" else model.hrf
    return (
        f"drift of order {model.drift_order}, "
        f"{f'AR(1) noise ({model.rho:.2f})' if model.noise_model == 'ar1' else 'white noise'}, "
        f"{model.n_components} noise components, {hrf}, "
        f"{'shrunken' if model.shrinkage else 'unshrunken'} betas"
    )
