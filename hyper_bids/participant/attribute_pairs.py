"""Scores of attributes (gender, age, ...): directions among the latents, and what is compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hyper_bids import attributes
from hyper_bids.attributes import Directions
from hyper_bids.participant.pairs import Columns, Pairs

LOG = logging.getLogger("hyper_bids")

METRIC = "attribute_correlation"

# The image model of InterFaceGAN's boundaries, as their names have it: that of the paper.
MODEL = "pggan_celebahq"

# Labelled training stimuli that a direction needs; with fewer, leaving one out says little.
FEWEST = 10

# Labels of n stimuli are told if more than this over n of their variance is predicted when a
# stimulus is left out, a correlation of three standard errors. As the best of several penalties is
# taken, labels drawn by chance get there about one time in a hundred.
_TOLD = 9

# Columns with such names tell one stimulus from another.
_KEYS = ("_id", "_file", "_row", "_index", "_url")
_MISSING = ("", "n/a", "nan", "none", "<na>")


@dataclass(frozen=True, eq=False)
class AttributeScores:
    """Attribute scores of test stimuli.

    Attributes
    ----------
    names : tuple of str
    predicted, true : array of shape (n_stimuli, n_attributes)
        Projections of the predicted and the true latents on the directions.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    true: np.ndarray


# A group of participants has one set of boundaries; they are read once.
@lru_cache(maxsize=8)
def boundaries(folder: str, n_latents: int) -> Directions:
    """Return InterFaceGAN's boundaries of a folder, as :func:`attributes.load_boundaries`."""
    return attributes.load_boundaries(Path(folder), n_latents, MODEL)


def boundary_file(folder: str, name: str) -> Path:
    """Return the file of a boundary that :func:`boundaries` read."""
    return Path(folder) / f"{MODEL}_{name}_boundary.npy"


def label_columns(labels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the columns that are labels: what varies, and can be put in numbers.

    Parameters
    ----------
    labels : mapping of str to sequence of str
        Columns of the table of stimuli, an entry a training stimulus; n/a where there is none.

    Returns
    -------
    dict
        Columns with numbers, or with two values of text, in at least 10 stimuli. Left out are
        others, and keys (``..._id``, ``..._file``, ``..._row``, ``..._index``, ``..._url``).
    """
    return {
        name: list(column)
        for name, column in labels.items()
        if not name.lower().endswith(_KEYS) and name.lower() != "id" and _is_label(column)
    }


def label_directions(
    latents_train: np.ndarray, stimuli: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> Directions:
    """Return directions fitted to the labels of training stimuli.

    Parameters
    ----------
    latents_train : array of shape (n_trials, n_latents)
    stimuli : sequence of str
        Stimulus of each training trial. Each enters once, however often it was shown.
    labels : mapping of str to sequence of str
        An entry a training trial.

    Returns
    -------
    Directions
        Of :func:`label_columns`. Those whose labels are predicted no better than chance would have
        it when a stimulus is left out are no directions of anything: they are left out, and the
        log says so.
    """
    first = np.unique(np.asarray(stimuli, dtype=str), return_index=True)[1]
    chosen = label_columns({k: [column[i] for i in first] for k, column in labels.items()})
    found = attributes.from_labels(np.asarray(latents_train)[first], chosen)
    kept = [
        name
        for name, fit in zip(found.names, found.fit, strict=True)
        if fit * len(_there(chosen[name])) > _TOLD
    ]
    lost = [name for name in found.names if name not in kept]
    if lost:
        LOG.warning("Labels that the latents do not tell, and so not scored: %s.", ", ".join(lost))
    return found.select(kept) if kept else attributes.from_labels(np.asarray(latents_train), {})


def attribute_scores(
    data: dict, directions: Directions, normalised: bool = False
) -> AttributeScores:
    """Return the attribute scores of predicted and true latents.

    Parameters
    ----------
    data : dict
        ``predicted`` and ``targets``, arrays of shape (n_stimuli, n_latents).
    directions : Directions
    normalised : bool
        As for :func:`attributes.scores`.
    """
    predicted, true = (
        attributes.scores(data[name], directions, normalised) for name in ("predicted", "targets")
    )
    return AttributeScores(directions.names, predicted, true)


def attribute_pairs(found: AttributeScores) -> Pairs:
    """Return the pair matrix of each attribute, and that of a constant prediction.

    The mean diagonal is Pearson's r of true and predicted scores over stimuli, 0 for a prediction
    that does not vary; it is NaN if the true scores do not vary.
    """
    matrices = attributes.score_pairs(found.predicted, found.true)
    constant = attributes.score_pairs(np.zeros_like(found.predicted), found.true)
    return {
        (METRIC, name): (matrix, nothing)
        for name, matrix, nothing in zip(found.names, matrices, constant, strict=True)
    }


def attribute_columns(found: AttributeScores) -> Columns:
    """Return the scores of each attribute, predicted and true, for the bootstrap."""
    columns = zip(found.names, found.predicted.T, found.true.T, strict=True)
    return {(METRIC, name): (first[:, None], second[:, None]) for name, first, second in columns}


def described(directions: Directions) -> list[dict[str, object]]:
    """Return the directions for a sidecar: name, what is high, and the fit of those from labels."""
    rows = zip(directions.names, directions.high, directions.fit, strict=True)
    return [
        {"Name": name, "High": high} | ({} if np.isnan(fit) else {"FitRSquare": round(fit, 4)})
        for name, high, fit in rows
    ]


def _there(column: Sequence[str]) -> list[str]:
    values = [str(value).strip() for value in column]
    return [value for value in values if value.lower() not in _MISSING]


def _is_label(column: Sequence[str]) -> bool:
    there = _there(column)
    distinct = set(there)
    if len(there) < FEWEST or len(distinct) < 2:
        return False
    if len(distinct) == 2:
        return True
    try:
        numbers = [float({"True": "1", "False": "0"}.get(value, value)) for value in there]
    except ValueError:
        return False
    return bool(np.isfinite(numbers).all())
