"""The runs of one participant: what a stage is told of them, their voxels, their regressors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids.confounds import models_drift, read_confounds
from hyper_bids.config import BetaSettings
from hyper_bids.errors import InputError
from hyper_bids.glm import design
from hyper_bids.glm.hrf import HRFS, library

if TYPE_CHECKING:
    from hyper_bids.bids.inputs import Run


@dataclass(frozen=True, eq=False)
class Regressors:
    """The design of one run, but for drift and what is found in the data.

    Attributes
    ----------
    label : str
        What the run is called in messages.
    trials : list of arrays of shape (n_volumes, n_trials)
        One a response function; the canonical one is the first.
    extras : array of shape (n_volumes, k)
        Confounds and other events.
    is_train : bool array of shape (n_trials,)
    models_drift : bool
        Whether the confounds hold drift terms of their own.
    """

    label: str
    trials: list[np.ndarray]
    extras: np.ndarray
    is_train: np.ndarray
    models_drift: bool

    @property
    def n_volumes(self) -> int:
        """Volumes of the run, without those that ``dummy_scans`` drops."""
        return len(self.extras)

    def nuisance(self, drift_order: int, components: np.ndarray | None = None) -> np.ndarray:
        """Return drift, confounds, other events and noise components."""
        order = 0 if self.models_drift else drift_order
        parts = [design.polynomial_drift(self.n_volumes, order), self.extras]
        return np.hstack(parts if components is None else [*parts, components])


def response_functions(settings: BetaSettings) -> dict:
    """Return the response functions to choose from, by name; the canonical one first."""
    if settings.hrf != "auto":
        return {settings.hrf: HRFS[settings.hrf]}
    functions = library()
    if settings.estimator == "optimised":
        return functions
    return {"glover": functions["glover"]}


def common_mask(runs: list[dict], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that all runs have, and the affine.

    Masks that come with the data are intersected. Where runs that train have none, a brain mask is
    computed from their mean image; runs that only test have no part in it.
    """
    affine = volumes.read_header(runs[0]["bold"]).affine
    masks = [volumes.read_mask(run["mask"]) for run in runs if run["mask"]]
    bare = [run for run in runs if any(run["is_train"]) and not run["mask"]]
    if bare:
        mean = sum(volumes.mean_volume(run["bold"], first) / len(bare) for run in bare)
        # Voxels that were blanked are no brain, although a mask may close over them.
        masks.append(volumes.brain_mask(mean, affine) & (mean != 0))
    mask = np.logical_and.reduce(masks)
    if not mask.any():
        raise InputError(
            f"{Path(runs[0]['bold']).name} and the other runs: no voxel lies in all brain masks. "
            f"Check the masks, or leave runs out with --run-id."
        )
    return mask, affine


def run_jobs(runs: list[Run], trials, nuisance) -> list[dict]:
    """Return what the stage is told of each run, as plain JSON.

    Parameters
    ----------
    runs : list of Run
    trials, nuisance : DataFrame
        Of :class:`hyper_bids.bids.events.Trials`.
    """
    found = []
    for index, run in enumerate(runs):
        own = trials[trials["run_index"] == index]
        other = nuisance[nuisance["run_index"] == index]
        found.append(
            {
                "label": run.bold.name.removesuffix(".gz").removesuffix(".nii"),
                "bold": str(run.bold),
                "mask": str(run.mask) if run.mask else None,
                "confounds": str(run.confounds) if run.confounds else None,
                "t_r": run.t_r,
                "n_volumes": run.n_volumes,
                "is_train": (own["split"] == "train").tolist(),
                "onsets": own["onset"].tolist(),
                "durations": own["duration"].tolist(),
                "nuisance": {
                    "onsets": other["onset"].tolist(),
                    "durations": other["duration"].tolist(),
                    "kinds": other["trial_type"].tolist(),
                },
            }
        )
    return found


def run_regressors(run: dict, settings: BetaSettings) -> Regressors:
    """Return the regressors of one run, as :func:`run_jobs` describes it."""
    first = settings.dummy_scans
    n_volumes = run["n_volumes"] - first
    functions = list(response_functions(settings).values())
    timing = {
        "n_volumes": n_volumes,
        "t_r": run["t_r"],
        "slice_time_ref": settings.slice_time_ref,
    }
    shift = first * run["t_r"]
    onsets, durations = np.array(run["onsets"]) - shift, np.array(run["durations"])
    trials = [design.trial_regressors(onsets, durations, hrf=hrf, **timing) for hrf in functions]
    confounds, columns, other = None, [], None
    if run["confounds"]:
        values, columns = read_confounds(run["confounds"], settings.confounds, run["n_volumes"])
        confounds = values[first:]
    events = run["nuisance"]
    if events["onsets"]:
        other, _ = design.event_regressors(
            np.array(events["onsets"]) - shift, np.array(events["durations"]), events["kinds"],
            hrf=functions[0], **timing,
        )  # fmt: skip
    # Order 0 is the constant alone, which the drift brings.
    extras = design.nuisance_design(n_volumes, 0, confounds, other)[:, 1:]
    is_train = np.array(run["is_train"], bool)
    return Regressors(run["label"], trials, extras, is_train, models_drift(columns))
