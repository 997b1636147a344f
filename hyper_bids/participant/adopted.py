"""Stage 1 of imported responses: they are taken as they are, and voxels are ranked.

There is no BOLD, so there are no t values to rank voxels by. They are ranked by how well latents
predict their responses in training trials that are left out; test trials have no part in it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from hyper_bids import volumes, voxels
from hyper_bids.bids.atomic import reserve
from hyper_bids.bids.outputs import Fragment
from hyper_bids.errors import InputError
from hyper_bids.glm.encoding import encoding_folds
from hyper_bids.glm.voxelwise import GROUPS, encoding_map, fisher_z
from hyper_bids.participant.responses import TABLE_COLUMNS, reliability

LOG = logging.getLogger("hyper_bids")

# Values of responses that are held at a time.
_BLOCK = 1 << 24


def adopt_responses(job: dict, folder: Path, motion: Path | None = None) -> str:
    """Copy imported responses, rank their voxels, and leave what later stages read.

    Parameters
    ----------
    job : dict
        ``responses`` (array of trials x voxels), ``mask`` (image), ``places_known``, ``files``
        (names of the files they were imported from), ``trials`` (the table, and ``run_index``),
        ``latents`` (file with those of the training trials), ``entities``, ``provenance``.
    folder : path
        Where this stage's part of the derivatives is built.
    motion : path, optional
        Not used: nothing was realigned.

    Returns
    -------
    str
        Digest of what was written.

    Raises
    ------
    InputError
        If no voxel varies over the training trials.
    """
    import pandas as pd

    fragment = Fragment(folder, job["entities"], job["provenance"])
    frame = pd.DataFrame(job["trials"])
    train = (frame["split"] == "train").to_numpy()
    betas = _copied(np.load(job["responses"], mmap_mode="r"), fragment.internal("betas.npy"))
    score = voxel_scores(betas, np.load(job["latents"]), train, frame["run_index"].to_numpy())
    if not np.isfinite(score).any():
        raise InputError(
            f"{job['responses']}: no voxel's response varies over the training trials, so that "
            f"nothing can be decoded. Mend the responses, and import them again."
        )
    mask, affine = volumes.read_mask(job["mask"]), volumes.read_header(job["mask"]).affine
    np.save(fragment.internal("mean_z.npy"), score)
    np.save(fragment.internal("mask.npy"), mask)
    np.save(fragment.internal("affine.npy"), affine)
    np.save(fragment.internal("background.npy"), mask.astype(np.float32))
    table = frame[list(TABLE_COLUMNS)]
    text = "Trials of imported responses; row k of the table is row k of the array in Responses."
    source = job["provenance"]["Sources"][0]
    fragment.table("betas_table", table, TABLE_COLUMNS, Description=text, Responses=source)
    if job["places_known"]:
        _write_maps(fragment, betas, table, train, mask, affine)
    model = {
        "described": f"none: responses were imported from {', '.join(job['files'])}",
        "imported": True,
        "places_known": job["places_known"],
    }
    fragment.internal("model.json").write_text(json.dumps(model), encoding="utf-8")
    LOG.info("sub-%s: %d imported responses of %d voxels", job["entities"]["subject"], *betas.shape)
    return fragment.close()


def voxel_scores(
    betas: np.ndarray, latents: np.ndarray, train: np.ndarray, run: np.ndarray
) -> np.ndarray:
    """Return how well each voxel's training responses are predicted from latents.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        May be a memory map; read in blocks of voxels.
    latents : array of shape (n_training_trials, n_latents)
    train : bool array of shape (n_trials,)
    run : int array of shape (n_trials,)
        Responses are standardised in each run, and whole runs are left out.

    Returns
    -------
    float32 array of shape (n_voxels,)
        Fisher z of the correlation of :func:`encoding_map`; NaN where a voxel is constant.
    """
    rows = np.flatnonzero(train)
    own = run[rows]
    folds = encoding_folds(np.asarray(latents, float), own, GROUPS)
    every = np.ones(len(rows), bool)

    def read(part: slice) -> np.ndarray:
        return voxels.standardise(betas[rows, part], own, every, "run")

    r = encoding_map(read, betas.shape[1], folds, max(1, _BLOCK // len(rows)))
    return fisher_z(r, len(rows))


def _copied(given: np.ndarray, path: Path) -> np.ndarray:
    """Return a memory map of a copy, which stays as it is if the dataset is imported again."""
    betas = np.lib.format.open_memmap(path, "w+", np.float32, given.shape)
    reserve(path)
    step = max(1, _BLOCK // given.shape[1])
    for start in range(0, len(given), step):
        betas[start : start + step] = given[start : start + step]
    betas.flush()
    return betas


def _write_maps(fragment: Fragment, betas, table, train, mask, affine) -> None:
    with fragment.file("brain_mask", "Voxels with a response.", Type="Brain") as path:
        volumes.write_mask(path, mask, affine)
    reliable = reliability(betas, table, train)
    if reliable is not None:
        with fragment.file(
            "reliability", "Reliability of the mean response to a test stimulus over its "
            "repetitions: 1 - within / between mean square, responses centred in each run.",
            Units="fraction",
        ) as path:  # fmt: skip
            volumes.write_map(path, reliable, mask, affine)
