"""What ``group --align`` reads of a participant: mean responses, and the stimuli's latents."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.bids.outputs import Fragment
from hyper_bids.hyperalignment import stimulus_means

if TYPE_CHECKING:
    import pandas as pd


def write_shared_responses(
    fragment: Fragment, data: np.ndarray, latents: np.ndarray, trials: pd.DataFrame
) -> None:
    """Write the mean response to each stimulus, and its latents: training stimuli, then test.

    Parameters
    ----------
    fragment : Fragment
        Of the method whose latents these are; responses are named as what all methods share.
    data : array of shape (n_trials, n_voxels)
        Responses of the decoder's voxels, as the decoder is given them.
    latents : array of shape (n_trials, n_latents)
    trials : DataFrame
        stim_id and split (train, test) of each trial.

    Notes
    -----
    Within a split, stimuli are in the order of their names. A stimulus that trains and tests has a
    row of each. Of 1050 stimuli and 4096 voxels, 17 MB are written.
    """
    names, splits, counts, means, known = [], [], [], [], []
    for split in ("train", "test"):
        rows = np.flatnonzero(trials["split"] == split)
        shown = trials["stim_id"].iloc[rows].tolist()
        own = sorted(set(shown))
        names += own
        splits += [split] * len(own)
        counts += [Counter(shown)[name] for name in own]
        means.append(stimulus_means(data[rows], shown, own))
        known.append(latents[[rows[shown.index(name)] for name in own]].astype(np.float32))
    said = {"Stimuli": names, "Split": splits, "DataType": "float32"}
    shared = fragment.of_all_methods()
    with shared.file(
        "stimulus_responses",
        "Mean response of the decoder's voxels to each stimulus, standardised as Settings say; "
        "column k belongs to row k of the decoder's weights.",
        **said,
        Units="standard deviations, or percent signal change without standardisation",
        Shape=[len(names), data.shape[1]],
        Presentations=counts,
        Latents=fragment.path_of("stimulus_latents").name,
        Predicted=fragment.path_of("predicted_latents").name,
    ) as path:
        np.save(path, np.concatenate(means))
    text = "Latents of each stimulus; rows are those of the mean responses to them."
    shape = [len(names), latents.shape[1]]
    with fragment.file("stimulus_latents", text, **said, Units="latent", Shape=shape) as path:
        np.save(path, np.concatenate(known))
