"""Which stimuli participants share, and each participant's responses to them in one order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def shared_stimuli(stimuli: Sequence[Sequence[Hashable]]) -> list:
    """Return the stimuli that all participants saw, sorted by name.

    Parameters
    ----------
    stimuli : for each participant, the stimulus of each trial

    Returns
    -------
    list
        Empty if no stimulus was seen by all.
    """
    if not len(stimuli):
        return []
    return sorted(set(stimuli[0]).intersection(*stimuli[1:]), key=str)


def stimulus_means(
    betas: np.ndarray, stimulus: Sequence[Hashable], wanted: Sequence[Hashable]
) -> np.ndarray:
    """Return the mean response to each wanted stimulus over its trials.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    stimulus : n_trials hashable values
    wanted : n_stimuli hashable values

    Returns
    -------
    array of shape (n_stimuli, n_voxels), float32

    Raises
    ------
    ValueError
        If a stimulus was not shown, or the number of trials is not that of ``betas``.
    """
    if len(betas) != len(stimulus):
        raise ValueError(f"{len(betas)} trials with {len(stimulus)} stimuli")
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(stimulus):
        rows.setdefault(key, []).append(row)
    missing = [key for key in wanted if key not in rows]
    if missing:
        raise ValueError(f"stimulus {missing[0]!r} was not shown to this participant")
    means = np.empty((len(wanted), betas.shape[1]), np.float32)
    for k, key in enumerate(wanted):
        means[k] = betas[rows[key]].mean(axis=0, dtype=np.float64)
    return means
