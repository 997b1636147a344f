"""The test that refits: ridge fitted to shuffled training pairs, penalty chosen again each time."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from hyper_bids import metrics, stats
from hyper_bids.decode.permutations import Refit, refit_null
from hyper_bids.device import resolve_device
from hyper_bids.participant.pairs import LATENT_FORMS, similarity

FILE = "refit.json"

# Scores of latents that are tested; each takes milliseconds.
FORMS = {
    **LATENT_FORMS,
    ("latent_correlation", "n/a"): metrics.latent_correlation,
    ("two_way_identification", "latents"): lambda p, t: metrics.two_way(similarity(p, t)),
}


def write_refit(
    path: Path,
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
    targets: np.ndarray,
    trials,
    options: dict,
) -> None:
    """Refit ridge to shuffled pairs, and keep the scores' nulls in a file of the stage.

    Parameters
    ----------
    path : path
        The file; with no permutations, what stood there is removed.
    data : (n_train, n_voxels), (n_train, n_latents), (n_stimuli, n_voxels) arrays
        Training responses, their latents, and the test stimuli's mean responses.
    targets : array of shape (n_stimuli, n_latents)
        Latents of the test stimuli: for scores alone.
    trials : DataFrame
        The training trials: run_index, stim_id.
    options : dict
        ``n`` (permutations), ``seed``, ``folds``, ``device``.
    """
    path.unlink(missing_ok=True)
    if not options["n"]:
        return
    betas, latents, means = data
    targets = targets.astype(float)
    shown = trials["stim_id"].to_numpy(str)
    # Trials of a run exchange their latents; of stimuli that are repeated, the stimuli do.
    _, stimulus = np.unique(shown, return_inverse=True)
    repeated = len(np.unique(stimulus)) < len(stimulus)
    kinds = {"stimulus": stimulus} if repeated else {"within": trials["run_index"].to_numpy()}
    refit = Refit(folds=options["folds"], device=resolve_device(options["device"]), **kinds)

    def scores(predicted: np.ndarray) -> np.ndarray:
        found = predicted.astype(float)
        return np.array([np.diagonal(f(found, targets)).mean() for f in FORMS.values()])

    rng = np.random.default_rng([options["seed"], zlib.crc32(b"refit")])
    null = refit_null(betas, latents, means, scores, rng, options["n"], refit)
    said = {"scores": [list(key) for key in FORMS], "null": null.scores.T.tolist()}
    path.write_text(json.dumps(said), encoding="utf-8")


def refit_rows(folder: Path, rows: list[dict]) -> list[dict]:
    """Return a row of control ``refit`` for each score that was tested so; none without the file.

    Parameters
    ----------
    folder : path
        Internal files of the decoder's stage.
    rows : list of dict
        The scores' rows.

    Returns
    -------
    list of dict
        ``value`` is the mean of the null; ``p`` that of the score, (b + 1) / (n + 1).
    """
    path = folder / FILE
    if not path.is_file():
        return []
    said = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for (metric, variant), values in zip(said["scores"], said["null"], strict=True):
        key = (metric, variant, None)
        row = next(r for r in rows if (r["metric"], r["variant"], r["control"]) == key)
        null = np.array(values)
        p = stats.p_value(row["value"], null)
        control = {"control": "refit", "value": float(null.mean()), "p": p, "n": row["n"]}
        found.append({"metric": metric, "variant": variant, **control})
    return found
