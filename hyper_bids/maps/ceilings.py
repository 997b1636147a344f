"""How high a correlation can get: the noise ceiling of what it is taken with."""

from __future__ import annotations

import numpy as np


def single_trial_reliability(reliability: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the reliability of one trial from that of the mean over repetitions.

    The Spearman-Brown formula, solved for the single measure: rho_1 = rho_k / (k - (k - 1) rho_k).
    Of a one-way analysis of variance it is ICC(1, 1) from ICC(1, k) (Shrout and Fleiss 1979,
    Psychological Bulletin 86:420-428).

    Parameters
    ----------
    reliability : array of shape (n_voxels,), 0 to 1
        Reliability of the mean response to a stimulus over its repetitions.
    counts : int array of shape (n_stimuli,)
        Repetitions of each stimulus that it is based on. Where they differ, k is the effective
        number (N - sum k_i^2 / N) / (n - 1) (Donner 1986, International Statistical Review
        54:67-82).

    Returns
    -------
    array of shape (n_voxels,), 0 to 1
    """
    k = _effective(counts)
    reliability = np.asarray(reliability, np.float64)
    return reliability / (k - (k - 1) * reliability)


def normalised(r: np.ndarray, reliability: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return correlations with single trials as fractions of their noise ceiling.

    A perfect prediction of what the stimulus evokes correlates with responses by the root of their
    reliability (Nunnally 1970; Schoppe et al. 2016, Front Comput Neurosci 10:10): here of a trial,
    which is far below that of the mean over many repetitions.

    Parameters
    ----------
    r : array of shape (n_voxels,)
        Correlation of predictions with responses in single trials.
    reliability : array of shape (n_voxels,), 0 to 1
        Reliability of the mean response to a stimulus over its repetitions.
    counts : int array of shape (n_stimuli,)
        Repetitions of each stimulus that ``reliability`` is based on.

    Returns
    -------
    array of shape (n_voxels,), float32
        Not cut at 1, which estimates can exceed. NaN where the ceiling is not told from 0 (F test
        of the stimuli, p above 0.05): a quotient of two chances.

    Raises
    ------
    ValueError
        For shapes that disagree, or fewer than two stimuli shown twice.
    """
    from scipy.special import fdtri

    r, reliability = np.asarray(r, np.float64), np.asarray(reliability, np.float64)
    if r.shape != reliability.shape:
        raise ValueError(f"r of shape {r.shape} and reliability of shape {reliability.shape}")
    counts = _repeated(counts)
    # F = between / within = 1 / (1 - rho_k).
    least = fdtri(len(counts) - 1, counts.sum() - len(counts), 0.95)
    told = reliability > 1 - 1 / least
    ceiling = single_trial_reliability(reliability, counts)
    result = np.full(r.shape, np.nan)
    result[told] = r[told] / np.sqrt(ceiling[told])
    return result.astype(np.float32)


def _effective(counts: np.ndarray) -> float:
    counts = _repeated(counts)
    total = counts.sum()
    return float((total - (counts**2).sum() / total) / (len(counts) - 1))


def _repeated(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    counts = counts[counts > 1]
    if len(counts) < 2:
        raise ValueError(f"{len(counts)} stimuli were shown twice; at least 2 are wanted")
    return counts
