"""Noise ceilings from repeats of the test stimuli: of responses, or of predicted latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Reliability:
    """How well responses to the stimuli repeat.

    Attributes
    ----------
    halves : array of shape (n_columns,), float64
        Mean correlation over stimuli between two halves of the repeats; NaN for less than three
        stimuli with two repeats, and where a column does not vary.
    reliability : array of shape (n_columns,), float64
        The same of the mean over all repeats, by Spearman and Brown's formula. It is the square of
        the highest correlation that a perfect prediction can have with that mean.
    n_stimuli : int
        With two repeats or more; others are left out.
    """

    halves: np.ndarray
    reliability: np.ndarray
    n_stimuli: int

    @property
    def ceiling(self) -> np.ndarray:
        """Highest correlation with the mean over repeats; 0 where repeats do not agree at all."""
        return np.sqrt(np.maximum(self.reliability, 0))


def half_means(
    values: np.ndarray, stimulus: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return each stimulus' means over two halves of its trials, drawn at random.

    Any score of one half against the other is a ceiling of that score: a decoder's predictions, for
    one, against its own of other trials of the same stimuli.

    Parameters
    ----------
    values : array of shape (n_trials, n_columns)
        Responses, or latents predicted from single trials.
    stimulus : int array of shape (n_trials,)
    rng : numpy.random.Generator

    Returns
    -------
    first, second : array of shape (n_stimuli, n_columns), float64
        Of stimuli with two trials or more, by number. Of an odd number of trials one, at random, is
        in neither half.

    Raises
    ------
    ValueError
        If the numbers of trials disagree, or there is none.
    """
    values, inverse, counts = _repeats(values, stimulus)
    order = np.lexsort((rng.random(len(values)), inverse))
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    half = (counts // 2)[inverse]
    kept = counts >= 2
    means = []
    for inside in (place < half, (place >= half) & (place < 2 * half)):
        weights = np.zeros((len(counts), len(values)))
        weights[inverse[inside], np.flatnonzero(inside)] = 1 / half[inside]
        means.append(weights[kept] @ values)
    return means[0], means[1]


def split_half(
    values: np.ndarray, stimulus: np.ndarray, rng: np.random.Generator, n_splits: int = 100
) -> Reliability:
    """Return the reliability of each column over random halves of the repeats.

    Parameters
    ----------
    values : array of shape (n_trials, n_columns)
        Responses of voxels, or latents predicted from single trials.
    stimulus : int array of shape (n_trials,)
    rng : numpy.random.Generator
    n_splits : int

    Returns
    -------
    Reliability
        With k times as many trials in the whole as in a half (harmonic means over stimuli; 2 for an
        even number of repeats), the mean correlation r of the halves gives k r / (1 + (k - 1) r)
        (Spearman 1910, Brown 1910). A negative r, which that formula is not made for, is left.

    Raises
    ------
    ValueError
        If the numbers of trials disagree, there is none, or less than one split.
    """
    values, _, counts = _repeats(values, stimulus)
    if n_splits < 1:
        raise ValueError(f"{n_splits} splits; at least 1 is wanted")
    kept = counts[counts >= 2]
    if len(kept) < 3:
        undefined = np.full(values.shape[1], np.nan)
        return Reliability(undefined, undefined.copy(), len(kept))
    r = np.zeros(values.shape[1])
    for _ in range(n_splits):
        r += _column_correlation(*half_means(values, stimulus, rng))
    r /= n_splits
    # Noise of a mean over repeats goes by the mean of 1 / repeats.
    k = (1 / (kept // 2)).mean() / (1 / kept).mean()
    whole = np.where(r > 0, k * r / (1 + (k - 1) * np.maximum(r, 0)), r)
    return Reliability(r, whole, len(kept))


def leave_one_repeat_out(values: np.ndarray, stimulus: np.ndarray) -> np.ndarray:
    """Return each column's correlation over stimuli of one repeat with the mean of the others.

    The ceiling of single trials: how well the other repeats foretell one.

    Parameters
    ----------
    values : array of shape (n_trials, n_columns)
    stimulus : int array of shape (n_trials,)
        In order of presentation; the first trial of each stimulus is left out together, then the
        second, as often as every stimulus has one.

    Returns
    -------
    array of shape (n_columns,), float64
        Mean over the repeats. Stimuli with one trial are left out; NaN for less than three others.

    Raises
    ------
    ValueError
        If the numbers of trials disagree, or there is none.
    """
    values, inverse, counts = _repeats(values, stimulus)
    kept = counts >= 2
    if kept.sum() < 3:
        return np.full(values.shape[1], np.nan)
    order = np.argsort(inverse, kind="stable")
    first = (np.cumsum(counts) - counts)[kept]
    weights = np.zeros((len(counts), len(values)))
    weights[inverse, np.arange(len(values))] = 1
    totals, n = weights[kept] @ values, counts[kept][:, None]
    r = np.zeros(values.shape[1])
    n_repeats = counts[kept].min()
    for repeat in range(n_repeats):
        single = values[order[first + repeat]]
        r += _column_correlation(single, (totals - single) / (n - 1))
    return r / n_repeats


def _repeats(values: np.ndarray, stimulus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, each trial's stimulus as 0, 1, 2 ..., and the number of trials of each."""
    values, stimulus = np.asarray(values, np.float64), np.asarray(stimulus)
    if values.ndim != 2 or stimulus.shape != values.shape[:1] or not values.size:
        raise ValueError(f"values of shape {values.shape} with stimuli of shape {stimulus.shape}")
    _, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    return values, inverse, counts


def _column_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Pearson's r over rows of each column; NaN where one does not vary."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    length = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    size = np.abs(first).max(axis=0) * np.abs(second).max(axis=0) * len(first)
    varies = length > 1e-12 * size
    return np.where(varies, (a * b).sum(axis=0) / np.where(varies, length, 1.0), np.nan)
