"""What a solver is told beside the training trials: folds, places of voxels, number of repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hyper_bids import volumes
from hyper_bids.config import DecoderSettings, Settings
from hyper_bids.device import resolve_device
from hyper_bids.errors import InputError, UsageError

# Groups of stimuli that are left out where runs cannot be.
STIMULUS_GROUPS = 10

# Solvers that leave out training trials to choose something.
VALIDATED = ("ridge", "averaged", "best")
# Those with a model of the responses, which knows the places of voxels and of repeats.
MODELLED = ("bayes", "best")

# Arrays of the size of the chosen responses that are held at a time, in float32.
_COPIES = 2


def check_fit(settings: DecoderSettings, train_run: np.ndarray) -> None:
    """Check before any long work that the training trials are enough for the solver.

    Parameters
    ----------
    settings : DecoderSettings
    train_run : array of shape (n_trials,)
        Run of each training trial.

    Raises
    ------
    InputError
        If there are too few trials, or runs.
    UsageError
        If there are more folds than trials.
    """
    n = len(train_run)
    wanted = 4 if settings.decoder == "best" else 2
    if n < wanted:
        raise InputError(
            f"{n} training trial{'s' * (n != 1)}; --decoder {settings.decoder} needs at least "
            f"{wanted}."
        )
    if settings.decoder not in VALIDATED:
        return
    folds = cv_folds(settings.cv, train_run, np.random.default_rng(0))
    if settings.decoder == "best" and folds is not None:
        largest = int(np.unique(folds, return_counts=True)[1].max())
        if n - largest < 2:
            raise InputError(
                f"--decoder best: without the {largest} training trials of one fold, {n - largest} "
                f"is left; at least 2 are needed. Use --decoder bayes, or --cv loo."
            )


def solver_options(
    settings: DecoderSettings,
    trials,
    voxels: dict[str, np.ndarray | None],
    rng: np.random.Generator,
    job: dict,
) -> dict:
    """Translate the settings into the options of the chosen solver.

    Parameters
    ----------
    settings : DecoderSettings
    trials : DataFrame
        run_index, stim_id, split. Of test trials, only how often stimuli are repeated is used,
        which the design says.
    voxels : dict
        ``rank`` (n_voxels,), by what they were chosen; ``places`` (n_voxels, 3) in mm, or None.
    rng : numpy.random.Generator
    job : dict
        ``device`` and ``progress``.

    Returns
    -------
    dict
        Keyword arguments for :func:`hyper_bids.decode.fit`.
    """
    name = settings.decoder
    if name == "dense":
        return {
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "batch_size": settings.decoder_batch,
            "device": resolve_device(job["device"]),
            "progress": job["progress"],
        }
    train = (trials["split"] == "train").to_numpy()
    runs, shown = (trials[column].to_numpy() for column in ("run_index", "stim_id"))
    options = {}
    if name in VALIDATED:
        is_new = not set(shown[train]) & set(shown[~train])
        options["folds"] = cv_folds(settings.cv, runs[train], rng, shown[train] if is_new else None)
    if name in ("averaged", "best"):
        options["rank"] = voxels["rank"]
    if name in MODELLED:
        options["places"] = voxels["places"]
        options["n_repeats"] = float((~train).sum() / len(set(shown[~train])))
    return options


def places_of(responses: Path, chosen: np.ndarray) -> np.ndarray | None:
    """Return where the chosen voxels are (n_voxels, 3), in mm; None if that is unknown.

    Parameters
    ----------
    responses : path
        Folder of the stage of responses.
    chosen : int array of shape (n_voxels,)
        Among the voxels of the mask.
    """
    internal = responses / "internal"
    model = json.loads((internal / "model.json").read_text(encoding="utf-8"))
    if not model.get("places_known", True):
        return None
    indices = np.argwhere(np.load(internal / "mask.npy"))[chosen]
    affine = np.load(internal / "affine.npy")
    return indices @ affine[:3, :3].T + affine[:3, 3]


def cv_folds(
    cv: str, train_run: np.ndarray, rng: np.random.Generator, shown: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the fold of each training trial; None to leave out one trial at a time.

    Trials of one run share drift and its standardisation: what is left of a run gives away much
    of a trial that is left out (all of it, where each run shows the same stimuli). So whole runs
    are left out where there are several. Where there is one, or runs are unknown, all trials of a
    stimulus are left out together, in ten groups of stimuli: else the penalty would be that of
    telling known stimuli apart.

    Parameters
    ----------
    cv : {"auto", "loo", "runs"}, or a number of folds
    train_run : array of shape (n_trials,)
    rng : numpy.random.Generator
    shown : array of shape (n_trials,), optional
        Stimulus of each trial; None where the test shows stimuli that train.
    """
    n_runs = len(np.unique(train_run))
    if cv == "runs" and n_runs < 2:
        raise InputError("--cv runs needs training trials in at least 2 runs. Use --cv loo.")
    if cv == "runs" or (cv == "auto" and n_runs > 1):
        return train_run
    if cv == "auto" and shown is not None:
        return _folds_of_stimuli(shown, rng)
    if cv in ("auto", "loo"):
        return None
    n_folds = int(cv)
    if n_folds > len(train_run):
        raise UsageError(f"--cv {n_folds}: there are only {len(train_run)} training trials.")
    return rng.permutation(len(train_run)) % n_folds


def _folds_of_stimuli(shown: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    names, index = np.unique(shown.astype(str), return_inverse=True)
    others = len(index) - int(np.bincount(index).max())
    # None is repeated, or without one of them too few trials are left.
    if len(names) == len(index) or others < 2:
        return None
    return rng.permutation(len(names))[index] % min(STIMULUS_GROUPS, len(names))


def memory_mb(settings: Settings, n_trials: int, n_voxels: int, n_latents: int) -> int:
    """Return the megabytes that a fit takes, beside the libraries; as the solvers' notes say.

    Parameters
    ----------
    settings : Settings
    n_trials, n_latents : int
        Trials, all of which are held, and latents.
    n_voxels : int
        Voxels that there are; of a mask of the user's, all its voxels may be among them.
    """
    most, mask = settings.voxels.n_voxels, settings.voxels.decoder_mask
    if mask is not None:
        labels, wanted = volumes.read_labels(mask), settings.voxels.mask_labels
        most = int((np.isin(labels, wanted) if wanted else labels > 0).sum())
    n_voxels = min(most, n_voxels)
    smaller = min(n_trials, n_voxels)
    taken = 4 * _COPIES * n_trials * n_voxels + 24 * smaller**2 + 20 * n_trials * smaller
    taken += 8 * n_voxels * n_latents
    if settings.decoder.decoder in MODELLED:
        taken += 40 * n_trials * n_voxels + 24 * n_voxels * n_latents
        # The model decomposes matrices of trials by trials.
        taken += 24 * (n_trials**2 - smaller**2)
    return int(taken / 2**20)
