"""The latents that a baseline decodes: what its image model makes of the stimuli's images."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hyper_bids.bids.outputs import Fragment
from hyper_bids.device import resolve_device
from hyper_bids.generators import checkpoints
from hyper_bids.generators.batches import encode_images
from hyper_bids.generators.eigenface import fit_eigenface, save_eigenface
from hyper_bids.participant.methods import N_COMPONENTS, SIDE
from hyper_bids.participant.shown import stimulus_images

LOG = logging.getLogger("hyper_bids")

# Files of this stage that later stages read.
LATENTS, MODEL = "latents.npy", "model.safetensors"


def encode_stimuli(job: dict, folder: Path) -> str:
    """Encode the stimuli of all trials; eigenfaces are fitted to those of the training trials.

    Holds the images of all stimuli, 3 bytes a pixel.

    Parameters
    ----------
    job : dict
        ``method``, ``model`` (None: eigenfaces), ``trials`` (stim_id, stim_file, split),
        ``latents`` (file with the known latents of each trial), ``stimuli_folder``,
        ``generator``, ``batch_size``, ``device``, ``entities``, ``provenance``.
    folder : path
        Where this stage writes.

    Returns
    -------
    str
        Digest of what was written: latents of each trial, (n_trials, n_latents) float32, and the
        model, where it was fitted here.
    """
    import pandas as pd

    fragment = Fragment(folder, job["entities"], job["provenance"])
    trials = pd.DataFrame(job["trials"])
    job = {**job, "device": resolve_device(job["device"])}
    model = checkpoints.load(job["model"], job["device"]) if job["model"] else None
    size = model.image_shape[:2] if model else (SIDE, SIDE)
    frame = model.frame if model else 1.0
    names, first = np.unique(trials["stim_id"].to_numpy(str), return_index=True)
    latents = np.load(job["latents"], mmap_mode="r")[first]
    files = trials["stim_file"].iloc[first].tolist()
    images, _ = stimulus_images(files, job, latents, size, frame)
    train = set(trials["stim_id"][trials["split"] == "train"])
    trains = np.array([name in train for name in names])
    if model is None:
        fitted = fit_eigenface(
            images[trains], N_COMPONENTS, name=job["method"], source="training stimuli"
        )
        model = save_eigenface(fragment.internal(MODEL), fitted)
    encoded = np.empty((len(names), model.n_latents), np.float32)
    for here in (trains, ~trains):  # no test image is in a batch of training images
        encoded[here] = encode_images(model, images[here])
    row = {name: k for k, name in enumerate(names)}
    of_trial = [row[str(name)] for name in trials["stim_id"]]
    np.save(fragment.internal(LATENTS), encoded[of_trial])
    LOG.info(
        "sub-%s: %d stimuli as %d latents of %s",
        job["entities"]["subject"], len(names), model.n_latents, model.name,
    )  # fmt: skip
    return fragment.close()
