"""Null distributions of many participants, one participant's in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyper_bids.group.members import Key, Member

# The values come from tables of six digits.
TOLERANCE = 1e-5


def mean_nulls(members: Sequence[Member], keys: Sequence[Key]) -> np.ndarray:
    """Return the null distribution of each score's mean over participants.

    Permutation k of all participants is averaged into value k: participants who saw the same
    stimuli share permutations, so that one shuffling renames the stimuli for everybody at once. If
    predictions know nothing of the stimuli, the scores of all participants are as likely after that
    as before, however much participants have in common.

    Parameters
    ----------
    members : sequence of Member
    keys : sequence of key
        Scores; a participant without a value has no part in a mean.

    Returns
    -------
    array of shape (n_keys, n_permutations), float64
        Of as many permutations as the participant with the fewest has. NaN for a score without a
        value, and where a participant has a value but no null.
    """
    total = np.zeros((len(keys), min(m.nulls.n_permutations for m in members)))
    counts = np.zeros(len(keys), int)
    untested = np.zeros(len(keys), bool)
    for member in members:
        tested = set(member.tested)
        untested |= [key in member.values and key not in tested for key in keys]
        rows = [k for k, key in enumerate(keys) if key in tested]
        if rows:
            total[rows] += member.nulls.of([keys[k] for k in rows], total.shape[1])
            counts[rows] += 1
    total[untested | (counts == 0)] = np.nan
    return total / np.maximum(counts, 1)[:, None]


def family(members: Sequence[Member]) -> list[Member]:
    """Return the participants who share permutations, the largest such set.

    Permutations follow from the seed, the number of test stimuli and the number of permutations.
    Of equally large sets, the first participant's is taken.
    """
    sets: dict[tuple, list[Member]] = {}
    for member in members:
        shared = (member.nulls.seed, len(member.shown), member.nulls.n_permutations)
        sets.setdefault(shared, []).append(member)
    return max(sets.values(), key=len)
