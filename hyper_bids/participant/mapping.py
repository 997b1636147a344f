"""Stage 3: where in the brain. Maps of encoding and decoder, and their numbers by region.

Encoding and the decoder's maps see training trials only. Definitions and sources: ``docs/maps.md``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import decode, figures, maps, stats, volumes, voxels
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.glm.encoding import encoding_folds
from hyper_bids.glm.voxelwise import GROUPS, encoding_map, encoding_null
from hyper_bids.participant.decoding import (
    averaged_stimuli,
    choose_voxels,
    generator_for,
    standardised,
)
from hyper_bids.participant.regions import read_regions

LOG = logging.getLogger("hyper_bids")

# Values of responses that are held at a time.
_BLOCK = 1 << 24
# Voxels that chance is drawn from.
_SAMPLED = 2000
# Draws of chance: so many a voxel of the brain that one voxel alone can come to a rate of 0.05.
_DRAWS_A_VOXEL = 20
_LEAST_DRAWS, _MOST_DRAWS = 10_000, 100_000
# False discovery rate of the figure, and of the shares of voxels in the table.
RATE = 0.05

COLUMNS = {
    **maps.regions.COLUMNS,
    "encoding_r": "Mean over the region of the encoding map's correlation",
    "encoding_r_normalised": "Mean over the region of the correlation as a fraction of its noise "
    "ceiling, where that is told from 0",
    "encoding_share": f"Fraction of the region's voxels with a q of the encoding up to {RATE}",
    "contribution": "Part of the covariance of predictions with the true latents of test stimuli "
    "that comes from the region's voxels; parts add up to 1, below 0 they take away",
    "weight_share": "Part of the decoder's squared weights in the region's voxels",
}


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the encoding map has of each voxel of the brain, arrays of shape (n_voxels,).

    Attributes
    ----------
    r : array, -1 to 1
        Cross-validated correlation; NaN of a voxel that does not vary.
    q : array, 0 to 1
        False discovery rate; NaN where r is.
    n_draws : int
        Of chance.
    normalised : array or None
        r as a fraction of its noise ceiling, NaN where that is not told from 0; None where no two
        test stimuli are repeated.
    """

    r: np.ndarray
    q: np.ndarray
    n_draws: int
    normalised: np.ndarray | None


def map_brain(job: dict, folder: Path, responses: Path, decoding: Path) -> str:
    """Map how well voxels follow what was shown, and what the first method's decoder uses.

    Parameters
    ----------
    job : dict
        ``trials`` (run_index, stim_id, split), ``voxels`` (settings), ``atlas``, ``atlas_names``
        (paths or None), ``random_seed``, ``entities``, ``provenance``.
    folder, responses, decoding : path
        Where this stage writes, and where responses and the first method's decoder are.

    Returns
    -------
    str
        Digest of what was written.
    """
    import pandas as pd

    own = Fragment(folder, job["entities"], job["provenance"])
    decoder = decode.load(decoding / own.path_of("decoder"))
    fragment = own.of_all_methods()
    trials = pd.DataFrame(job["trials"])
    mask = np.load(responses / "internal" / "mask.npy")
    affine = np.load(responses / "internal" / "affine.npy")
    prediction = dict(np.load(decoding / "internal" / "prediction.npz"))
    rng = generator_for(job["random_seed"], job["entities"]["subject"], "maps")
    found = encode(responses, trials, prediction["training_latents"], rng)
    counts = repetitions(trials)
    if (counts > 1).sum() > 1:
        # Where stimuli are repeated, the responses came with this map.
        file = responses / fragment.path_of("reliability")
        reliable = volumes.read_masked(file, mask)[0]
        normalised = maps.normalised(found.r, reliable, counts)
        found = Encoding(found.r, found.q, found.n_draws, normalised)
    _write_encoding(fragment, found, responses, mask, affine)
    chosen, _ = choose_voxels(responses, from_dict("voxels", job["voxels"]))
    data = standardised(responses, trials, chosen, job["voxels"]["standardise"])
    train = (trials["split"] == "train").to_numpy()
    _write_decoder(fragment, data[train], decoder.weights, chosen, mask, affine)
    if job["atlas"] is not None:
        means, index, _ = averaged_stimuli(data[~train], trials[~train])
        used = decode.weights_for(decoder, float(index["n_presentations"].mean()))
        parts = maps.contribution(means, used, prediction["targets"])
        labels, names, said = read_regions(job, mask, affine)
        _write_regions(fragment, by_region(labels, names, chosen, found, decoder, parts), said)
    LOG.info(
        "sub-%s: responses of %d of %d voxels follow what was shown (q up to %g)",
        job["entities"]["subject"], (found.q <= RATE).sum(), len(found.q), RATE,
    )  # fmt: skip
    return own.close()


def repetitions(trials) -> np.ndarray:
    """Return how often each test stimulus was shown."""
    shown = trials["stim_id"][trials["split"] == "test"].astype(str)
    return np.unique(shown, return_counts=True)[1]


def encode(responses: Path, trials, latents: np.ndarray, rng: np.random.Generator) -> Encoding:
    """Return the encoding map of all voxels of the brain; test trials have no part in it.

    Parameters
    ----------
    responses : path
        Folder of the stage of responses.
    trials : DataFrame with run_index and split
    latents : array of shape (n_training_trials, n_latents)
    rng : numpy.random.Generator

    Returns
    -------
    Encoding
        Not normalised.
    """
    betas = np.load(responses / "internal" / "betas.npy", mmap_mode="r")
    rows = np.flatnonzero(trials["split"] == "train")
    run = trials["run_index"].to_numpy()[rows]
    folds = encoding_folds(np.asarray(latents, float), run, GROUPS)
    every = np.ones(len(rows), bool)

    def read(part: slice | np.ndarray) -> np.ndarray:
        return voxels.standardise(betas[:, part][rows], run, every, "run")

    n_voxels = betas.shape[1]
    r = encoding_map(read, n_voxels, folds, max(1, _BLOCK // len(rows)))
    told = np.flatnonzero(np.isfinite(r))
    if not len(told):
        return Encoding(r, np.full(n_voxels, np.nan), 0, None)
    sampled = np.sort(rng.choice(told, min(_SAMPLED, len(told)), replace=False))
    n = min(max(_DRAWS_A_VOXEL * n_voxels, _LEAST_DRAWS), _MOST_DRAWS)
    null = encoding_null(read(sampled), folds, run, n, rng)
    return Encoding(r, stats.false_discovery(maps.p_values(r, null)), n, None)


def by_region(
    labels: np.ndarray, names: dict, chosen: np.ndarray, found: Encoding, decoder, parts: np.ndarray
):
    """Return the table of regions.

    Parameters
    ----------
    labels : int array of shape (n_voxels,)
    names : dict of int to str
    chosen : int array of shape (n_decoder,)
        Voxels of the decoder among those of the brain.
    found : Encoding
    decoder : Decoder
    parts : array of shape (n_decoder,)
        Contributions of the decoder's voxels.

    Returns
    -------
    DataFrame with the columns :data:`COLUMNS`, of which ``encoding_r_normalised`` may be absent.
    """
    means = {"encoding_r": found.r}
    if found.normalised is not None:
        means["encoding_r_normalised"] = found.normalised
    means["encoding_share"] = np.where(np.isfinite(found.q), found.q <= RATE, np.nan)
    squares = maps.norms(decoder.weights).astype(float) ** 2
    total = squares.sum()
    shares = {
        "contribution": parts,
        "weight_share": squares / total if total > 0 else np.full_like(squares, np.nan),
    }
    return maps.region_table(labels, names, chosen, means, shares)


def _write_encoding(
    fragment: Fragment, found: Encoding, responses: Path, mask: np.ndarray, affine: np.ndarray
) -> None:
    with fragment.file(
        "encoding_r", "Correlation of single-trial responses with what latents of the stimuli "
        "predict, in training runs that were left out: mean over groups of runs. 0 where a voxel "
        "does not vary.", Units="correlation",
    ) as path:  # fmt: skip
        volumes.write_map(path, np.nan_to_num(found.r), mask, affine)
    with fragment.file(
        "encoding_q", "False discovery rate at which a voxel is taken to follow what was shown "
        "(Benjamini and Hochberg, over the voxels of the brain), from p values by trials shuffled "
        "within runs. 1 outside the brain, and where a voxel does not vary.",
        Units="fraction", Draws=found.n_draws,
    ) as path:  # fmt: skip
        # 0 around the brain would be the best of all values.
        whole = np.ones(mask.shape, bool)
        q = volumes.to_volume(np.nan_to_num(found.q, nan=1.0).astype(np.float32), mask, 1.0)
        volumes.write_map(path, q[whole], whole, affine)
    if found.normalised is not None:
        with fragment.file(
            "encoding_normalised", "Correlation of the encoding map as a fraction of the noise "
            "ceiling of single trials, the root of their reliability, which the repetitions of "
            "test stimuli tell. Not cut at 1. NaN where the ceiling is not told from 0.",
            Units="fraction",
        ) as path:  # fmt: skip
            volumes.write_map(path, found.normalised, mask, affine)
    background = np.load(responses / "internal" / "background.npy")
    overlay = volumes.to_volume(np.where(found.q <= RATE, found.r, np.nan), mask, np.nan)
    figures.save(
        figures.voxel_map(background, overlay, "correlation, left-out training runs"),
        fragment.figure("encoding"),
    )


def _write_decoder(
    fragment: Fragment, betas: np.ndarray, weights: np.ndarray, chosen: np.ndarray,
    mask: np.ndarray, affine: np.ndarray,
) -> None:  # fmt: skip
    described = {
        "decoder_weight": (
            maps.norms(weights),
            "Length of a voxel's row of weights over latents: how the decoder uses it. Voxels of "
            "noise that it takes off others have weights, too. 0 outside the decoder's voxels.",
            "latent per standard deviation of the response",
        ),
        "decoder_explained": (
            maps.explained(betas, weights),
            "Fraction of a voxel's variance over training trials that the decoder's outputs "
            "account for, through the voxel's pattern (Haufe et al. 2014), adjusted for their "
            "number: about 0 or below without signal. 0 outside the decoder's voxels, NaN where "
            "there are as many independent outputs as trials.",
            "fraction",
        ),
    }
    for key, (values, text, units) in described.items():
        of_brain = np.zeros(int(mask.sum()), np.float32)
        of_brain[chosen] = values
        with fragment.file(key, text, Units=units) as path:
            volumes.write_map(path, of_brain, mask, affine)


def _write_regions(fragment: Fragment, table, said: dict) -> None:
    columns = {name: COLUMNS[name] for name in table}
    fragment.table("regions", table, columns, Atlas=said)
    bars = {
        "share of the decoder's voxels": table["decoder_share"].to_numpy(),
        "contribution to decoding": table["contribution"].to_numpy(),
        "encoding, correlation": table["encoding_r"].to_numpy(),
    }
    rest = bool(table["index"].iloc[-1] == 0)
    figures.save(
        figures.region_bars(table["name"].tolist(), bars, next(iter(bars)), rest),
        fragment.figure("regions"),
    )
