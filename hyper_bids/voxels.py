"""Ranking, selecting and standardising voxels; what is fitted sees training trials only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

# A run's own mean and standard deviation are used from this many trials on.
MIN_TRIALS = 8


def t_to_z(t: np.ndarray, dof: float) -> np.ndarray:
    """Return the standard normal values with the same tail probabilities as ``t``.

    Parameters
    ----------
    t : array
    dof : float
        Degrees of freedom, above 0 (tried up to 100,000).

    Returns
    -------
    array of the shape of ``t``, float64
        Through the logarithm of the smaller tail, so that large values of either sign stay finite.
    """
    from scipy.special import ndtri_exp, stdtr

    t = np.asarray(t, np.float64)
    size = np.abs(t)
    tail = stdtr(dof, -size)
    with np.errstate(divide="ignore"):
        log_tail = np.asarray(np.log(tail))
    # Where the tail is too small for a number, its logarithm is not.
    tiny = np.isfinite(size) & (tail < 1e-290)
    if tiny.any():
        log_tail[tiny] = _log_tail(size[tiny], dof)
    return np.copysign(ndtri_exp(log_tail), t)


def _log_tail(t: np.ndarray, dof: float) -> np.ndarray:
    """Return log P(T > t) for large t (Abramowitz and Stegun 26.5.23 with 26.7.1)."""
    from scipy.special import betaln, hyp2f1

    a = dof / 2
    x = dof / (dof + t * t)
    series = np.log(hyp2f1(a + 0.5, 1.0, a + 1.0, x))
    return np.log(0.5) + a * np.log(x) + 0.5 * np.log1p(-x) - np.log(a) - betaln(a, 0.5) + series


def select(score: np.ndarray, n_voxels: int) -> np.ndarray:
    """Return the ``n_voxels`` voxels of highest score.

    Parameters
    ----------
    score : array of shape (n_voxels,)
        Values that are not finite are never selected.
    n_voxels : int

    Returns
    -------
    array of int64, ascending indices
        Of equal scores the lower index; all finite ones if there are fewer.
    """
    if n_voxels < 1:
        raise ValueError(f"{n_voxels} voxels to select; at least 1 is wanted")
    score = np.asarray(score, np.float64)
    candidates = np.flatnonzero(np.isfinite(score))
    order = np.argsort(-score[candidates], kind="stable")
    return np.sort(candidates[order[:n_voxels]]).astype(np.int64)


def standardise(
    betas: np.ndarray, run: np.ndarray, is_train: np.ndarray, how: str = "run"
) -> np.ndarray:
    """Return z-scored responses, each voxel by itself; labels and latents are not seen.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    run : array of shape (n_trials,)
        Which run a trial belongs to.
    is_train : bool array of shape (n_trials,)
    how : {"run", "train", "none"}
        ``train``: by mean and standard deviation over all training trials. ``run``: each run by its
        own training trials; a run of test trials only by its own trials, which takes off what
        differs between runs. With less than ``MIN_TRIALS`` of them, as ``train``. ``none``: as is.

    Returns
    -------
    array of shape (n_trials, n_voxels), float32
        0 where the standard deviation (n in the denominator) is 0. Training trials do not depend
        on test trials.

    Raises
    ------
    ValueError
        For an unknown ``how``, shapes that disagree, or no training trial.
    """
    betas, run = np.asarray(betas), np.asarray(run)
    is_train = np.asarray(is_train, bool)
    if not len(betas) == len(run) == len(is_train):
        raise ValueError(f"{len(betas)} trials, {len(run)} runs and {len(is_train)} training flags")
    if how not in ("run", "train", "none"):
        raise ValueError(f"standardise by {how!r}; 'run', 'train' and 'none' are known")
    if how == "none":
        return betas.astype(np.float32)
    if not is_train.any():
        raise ValueError("no training trial to standardise by")
    general = _moments(betas[is_train])
    if how == "train":
        return _z_scored(betas, *general)
    result = np.empty(betas.shape, np.float32)
    for label in np.unique(run):
        rows = run == label
        own = rows & is_train if (rows & is_train).any() else rows
        moments = _moments(betas[own]) if own.sum() >= MIN_TRIALS else general
        result[rows] = _z_scored(betas[rows], *moments)
    return result


def _moments(betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # float64: the deviations of equal single-precision values are then exactly 0.
    return betas.mean(axis=0, dtype=np.float64), betas.std(axis=0, dtype=np.float64)


def _z_scored(betas: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    precision = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    return ((betas - mean) * precision).astype(np.float32)


def average_repeats(
    betas: np.ndarray, stimulus: Sequence[Hashable]
) -> tuple[np.ndarray, list, np.ndarray]:
    """Average the trials of each stimulus.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    stimulus : n_trials hashable values

    Returns
    -------
    means : array of shape (n_stimuli, n_voxels), float32
    stimuli : list of n_stimuli, in order of first appearance
    counts : array of shape (n_stimuli,), int64
        Number of trials of each.
    """
    if len(betas) != len(stimulus):
        raise ValueError(f"{len(betas)} trials with {len(stimulus)} stimuli")
    stimuli = list(dict.fromkeys(stimulus))
    place = {key: k for k, key in enumerate(stimuli)}
    which = np.array([place[key] for key in stimulus], np.int64)
    counts = np.bincount(which, minlength=len(stimuli))
    means = np.empty((len(stimuli), betas.shape[1]), np.float32)
    for k in range(len(stimuli)):
        means[k] = betas[which == k].mean(axis=0, dtype=np.float64)
    return means, stimuli, counts
