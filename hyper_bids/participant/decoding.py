"""Stage 2: responses to latents. What is fitted sees training trials only."""

from __future__ import annotations

import json
import logging
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import decode, figures, volumes, voxels
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import from_dict
from hyper_bids.errors import UsageError
from hyper_bids.participant.controls import response_ceilings
from hyper_bids.participant.fitting import places_of, solver_options
from hyper_bids.participant.refit import FILE, write_refit
from hyper_bids.participant.shared_responses import write_shared_responses
from hyper_bids.participant.targets import LATENTS

if TYPE_CHECKING:
    import pandas as pd

LOG = logging.getLogger("hyper_bids")

MEAN_Z = "z value of the training trials' mean t, averaged over runs."
IMPORTED_Z = (
    "Fisher z of the correlation of training responses with what latents predict in left-out "
    "training trials; for ranking, no test."
)
INDEX_COLUMNS = {
    "row": "Row of the array of the same name",
    "stim_id": "Key of the stimulus in stimuli/latents.tsv",
    "stim_file": "Image of the stimulus, relative to stimuli/",
    "n_presentations": "Presentations that were averaged",
}


def fit_decoder(job: dict, folder: Path, responses: Path, targets: Path | None = None) -> str:
    """Choose voxels, fit the decoder on training trials, predict the test trials' latents.

    Parameters
    ----------
    job : dict
        ``trials`` (run_index, stim_id, stim_file, split), ``latents`` (file with the known latents
        of each trial), ``voxels``, ``decoder``, ``writes_maps`` (of the voxels; one method does),
        ``random_seed``, ``device``, ``entities``, ``provenance``.
    folder, responses, targets : path
        Where this stage writes, where the responses are and, of a method that decodes encoded
        stimuli, where their latents are.

    Returns
    -------
    str
        Digest of what was written.
    """
    import pandas as pd

    fragment = Fragment(folder, job["entities"], job["provenance"])
    trials = pd.DataFrame(job["trials"])
    file = job["latents"] if targets is None else targets / "internal" / LATENTS
    latents = np.load(file).astype(np.float32)
    chosen, z = choose_voxels(responses, from_dict("voxels", job["voxels"]))
    data = standardised(responses, trials, chosen, job["voxels"]["standardise"])
    train, test = ((trials["split"] == name).to_numpy() for name in ("train", "test"))
    settings = from_dict("decoder", job["decoder"])
    rng = generator_for(job["random_seed"], job["entities"]["subject"], "decoder")
    about = {"rank": z[chosen], "places": places_of(responses, chosen)}
    options = solver_options(settings, trials, about, rng, job)
    decoder = decode.fit(settings.decoder, data[train], latents[train], rng, options)
    report = {**decoder.report, "n_voxels": len(chosen), "n_training_trials": int(train.sum())}
    means, index, single = averaged_stimuli(data[test], trials[test])
    true = latents[test][[int(np.argmax(single == k)) for k in range(len(index))]]
    result = {
        "predicted": decode.predict(decoder, means, index["n_presentations"].to_numpy()),
        "targets": true,
        "training_latents": latents[train],
        "single_predicted": decode.predict(decoder, data[test]),
        "single_stimulus": single,
    }
    np.savez(fragment.internal("prediction.npz"), **result)
    told = {"n": settings.refit_permutations, "seed": job["random_seed"], "device": job["device"]}
    fitted = (data[train], latents[train], means)
    write_refit(fragment.internal(FILE), fitted, true, trials[train], told | options)
    if job["writes_maps"]:
        write_shared_responses(fragment, data, latents, trials)
        _write_maps(fragment.of_all_methods(), responses, chosen, z)
        # Of the responses, which all methods share.
        rng = generator_for(job["random_seed"], job["entities"]["subject"], "ceilings")
        report["ceilings"] = response_ceilings(data[test], single, rng)
    _write_decoder(fragment, decoder)
    _write_prediction(fragment, result["predicted"], index)
    fragment.internal("decoder.json").write_text(json.dumps(report), encoding="utf-8")
    LOG.info(
        "sub-%s: %s decoder of %d latents from %d voxels and %d training trials",
        job["entities"]["subject"], decoder.name, latents.shape[1], len(chosen), train.sum(),
    )  # fmt: skip
    return fragment.close()


def averaged_stimuli(data: np.ndarray, trials) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Return the test stimuli's mean responses, their table, and the stimulus of each trial.

    Stimuli stand in the order of their names, since each participant saw them in another.

    Parameters
    ----------
    data : array of shape (n_trials, n_voxels)
        Responses of the test trials.
    trials : DataFrame
        Of the same trials: stim_id, stim_file.
    """
    import pandas as pd

    means, stimuli, counts = voxels.average_repeats(data, trials["stim_id"].tolist())
    order = sorted(range(len(stimuli)), key=lambda k: stimuli[k])
    names = [stimuli[k] for k in order]
    of_trial = np.array([names.index(s) for s in trials["stim_id"]])
    first = [int(np.argmax(of_trial == k)) for k in range(len(names))]
    index = pd.DataFrame(
        {
            "row": range(len(names)),
            "stim_id": names,
            "stim_file": trials["stim_file"].to_numpy()[first],
            "n_presentations": counts[order],
        }
    )
    return means[order], index, of_trial


def choose_voxels(responses: Path, settings) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the decoder's voxels, and the training trials' mean z map.

    The paper's rule: the voxels with the highest z map averaged over the training trials
    (Dado et al. 2022, Methods). With a decoder mask: all of its voxels that have responses.
    """
    mask = np.load(responses / "internal" / "mask.npy")
    z = np.load(responses / "internal" / "mean_z.npy")
    if settings.decoder_mask is None:
        return voxels.select(z, settings.n_voxels), z
    labels = volumes.read_labels(settings.decoder_mask)[mask]
    wanted = np.isin(labels, settings.mask_labels) if settings.mask_labels else labels > 0
    chosen = np.flatnonzero(wanted)
    if not len(chosen):
        raise UsageError(
            f"--decoder-mask {settings.decoder_mask}: none of its voxels "
            f"{'with the labels given ' if settings.mask_labels else ''}lies in the brain mask."
        )
    return chosen, z


def standardised(responses: Path, trials, chosen: np.ndarray, how: str) -> np.ndarray:
    """Return the chosen voxels' responses of all trials, z-scored as asked."""
    betas = np.load(responses / "internal" / "betas.npy", mmap_mode="r")
    # By blocks of rows: the whole map of all trials need not fit into memory.
    block = 64
    data = np.concatenate(
        [np.asarray(betas[k : k + block])[:, chosen] for k in range(0, len(betas), block)]
    )
    train = (trials["split"] == "train").to_numpy()
    return voxels.standardise(data, trials["run_index"].to_numpy(), train, how)


def generator_for(seed: int, participant: str, stage: str) -> np.random.Generator:
    """Return a random generator that depends on seed, participant and stage, and on no order."""
    return np.random.default_rng([seed, zlib.crc32(f"{participant}/{stage}".encode())])


def _write_maps(fragment: Fragment, responses: Path, chosen: np.ndarray, z: np.ndarray) -> None:
    """Write which voxels are used, and by what they were chosen."""
    model = json.loads((responses / "internal" / "model.json").read_text(encoding="utf-8"))
    if not model.get("places_known", True):
        _write_list(fragment, chosen, z)
        return
    text, short = MEAN_Z, "mean z of training trials"
    if model.get("imported"):
        text, short = IMPORTED_Z, "z of encoding, training trials"
    mask = np.load(responses / "internal" / "mask.npy")
    affine = np.load(responses / "internal" / "affine.npy")
    background = np.load(responses / "internal" / "background.npy")
    with fragment.file("mean_z", text, Units="z") as path:
        volumes.write_map(path, z, mask, affine)
    used = np.zeros(int(mask.sum()), bool)
    used[chosen] = True
    with fragment.file("decoder_mask", "Voxels that the decoder uses.", Type="ROI") as path:
        volumes.write_mask(path, volumes.to_volume(used, mask, False), affine)
    overlay = np.full(mask.shape, np.nan)
    overlay[mask] = np.where(used, z, np.nan)
    figures.save(
        figures.voxel_map(background, overlay, short),
        fragment.figure("voxels"),
    )


def _write_list(fragment: Fragment, chosen: np.ndarray, z: np.ndarray) -> None:
    """Write which voxels are used, where no image can say it."""
    import pandas as pd

    columns = {"voxel": "Column of the imported responses, counted from 0", "z": IMPORTED_Z}
    fragment.table("decoder_voxels", pd.DataFrame({"voxel": chosen, "z": z[chosen]}), columns)


def _write_decoder(fragment: Fragment, decoder: decode.Decoder) -> None:
    """Write the decoder's weights, and the course of its fit."""
    report = decoder.report
    text = (
        "Linear map from standardised responses to latents: latents = responses @ weights + "
        "intercept; row k of the weights is voxel k of the decoder mask in C order, or row k of "
        "the table of the decoder's voxels."
    )
    if decoder.averaged is not None:
        text += (
            " averaged_weights and averaged_intercept are the map for means of so many repeats as "
            "averaged_repeats says; it is used for means of more repeats than that number's root."
        )
    curve, figure = _course(report)
    told = {k: v for k, v in report.items() if np.isscalar(v) or isinstance(v, dict)}
    with fragment.file("decoder", text, **told, **({"Course": curve} if curve else {})) as path:
        decode.save(path, decoder)
    if figure is not None:
        figures.save(figure, fragment.figure("curve"))


def _course(report: dict) -> tuple[dict, object]:
    """Return the course of a fit, what it says, and its figure; nothing where there is none."""
    if "loss" in report:
        said = "Mean training loss (half the squared error) in each pass over the training trials."
        curve = {"Description": said, "loss": list(report["loss"])}
        return curve, figures.loss_curve(report["loss"])
    if "cv_r2" not in report:
        return {}, None
    said = "Fraction of latent variance predicted in left-out training trials, by ridge penalty."
    penalties, found = list(report["alphas"]), list(report["cv_r2"])
    curve = {"Description": said, "penalty": penalties, "cv_r2": found}
    return curve, figures.penalty_curve(penalties, found, report["alpha"])


def _write_prediction(fragment: Fragment, predicted: np.ndarray, index) -> None:
    with fragment.file(
        "predicted_latents", "Latents predicted for the test stimuli, as the decoder gave them.",
        Units="latent", Shape=list(predicted.shape), DataType="float32",
    ) as path:  # fmt: skip
        np.save(path, predicted)
    fragment.table("predicted_index", index, INDEX_COLUMNS)
    text = json.dumps(index.to_dict("list"))
    fragment.internal("test_stimuli.json").write_text(text, encoding="utf-8")
