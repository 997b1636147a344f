"""Attributes of stimuli (gender, age, pose, ...) as directions among the latents.

InterFaceGAN (Shen et al. 2020) separates the latents of images with and without an attribute by a
hyperplane, and publishes its unit normal; the score of a latent is its projection on the normal.
The paper scores true and predicted latents, and correlates the two over stimuli. Where stimuli
have labels, directions are fitted to those of the training stimuli.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import filekinds
from hyper_bids.errors import InputError, listing

_FILE = re.compile(r"(?P<model>[^_]+_[^_]+)_(?P<attribute>.+)_boundary\.npy")
_UNIT = 1e-4
_MISSING = ("", "n/a", "nan", "none", "<na>")
_FEWEST = 3
# Penalties that are tried, in units of the mean square of the latents' singular values.
_PENALTIES = np.logspace(-4, 4, 17)


@dataclass(frozen=True)
class Directions:
    """Directions of attributes.

    Attributes
    ----------
    names : tuple of str
    vectors : array of shape (n_attributes, n_latents)
        Of length 1.
    high : tuple of str
        What a high score stands for.
    fit : tuple of float
        For directions from labels, the fraction of the labels' variance that is predicted when a
        training stimulus is left out; NaN for boundaries.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    high: tuple[str, ...]
    fit: tuple[float, ...]

    def select(self, names: Sequence[str]) -> Directions:
        """Return the directions of some attributes, in the order of the names."""
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise InputError(
                f"attributes {listing(unknown)}: not there. Known: {listing(self.names, 20)}."
            )
        rows = [self.names.index(name) for name in names]
        high, fit = zip(*((self.high[row], self.fit[row]) for row in rows), strict=True)
        return Directions(tuple(names), self.vectors[rows], high, fit)


def is_conditional(name: str) -> bool:
    """Return whether an attribute is free of others: ``age_c_gender`` is age, not gender."""
    return "_c_" in name


def load_boundaries(
    folder: Path, n_latents: int = 512, model: str = "pggan_celebahq"
) -> Directions:
    """Load InterFaceGAN's boundaries of a folder.

    Parameters
    ----------
    folder : path
        Has files under their public names, ``pggan_celebahq_gender_boundary.npy`` or, conditional,
        ``pggan_celebahq_age_c_gender_boundary.npy``; others are left alone.
    n_latents : int
        Length of the stimuli's latents.
    model : str
        The image model that the boundaries were made for, as their names have it.

    Returns
    -------
    Directions
        Unconditional first, then conditional, each by name.

    Raises
    ------
    InputError
        If there is no boundary of the model, or one is of another shape or not of length 1.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*_boundary.npy")) if folder.is_dir() else []
    if not paths:
        raise InputError(
            f"{folder}: no boundaries. Give a folder with {model}_gender_boundary.npy and others "
            f"of InterFaceGAN."
        )
    found = {}
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is not None and match["model"] == model:
            found[match["attribute"]] = _load_boundary(path, n_latents)
    if not found:
        raise InputError(
            f"{folder}: boundaries of another image model only ({listing(p.name for p in paths)}), "
            f"whose latents mean other things. Wanted: {model}_ATTRIBUTE_boundary.npy."
        )
    names = tuple(sorted(found, key=lambda name: (is_conditional(name), name)))
    vectors = np.stack([found[name] for name in names])
    return Directions(names, vectors, names, (math.nan,) * len(names))


def scores(latents: np.ndarray, directions: Directions, normalised: bool = False) -> np.ndarray:
    """Return the scores of latents: their projections on the directions.

    Parameters
    ----------
    latents : array of shape (n_stimuli, n_latents)
    directions : Directions
    normalised : bool
        False, the paper's: latents as they are. True, InterFaceGAN's: latents brought to the length
        sqrt(n_latents) first, which is right for an image model that uses their direction only.

    Returns
    -------
    array of shape (n_stimuli, n_attributes), float64

    Raises
    ------
    ValueError
        If the latents have another shape, or are not finite.
    """
    latents = np.asarray(latents, np.float64)
    n_latents = directions.vectors.shape[1]
    if latents.ndim != 2 or latents.shape[1] != n_latents or not np.isfinite(latents).all():
        raise ValueError(f"latents of shape {latents.shape}; finite (n, {n_latents}) are wanted")
    if normalised:
        length = np.linalg.norm(latents, axis=1, keepdims=True)
        latents = latents * (math.sqrt(n_latents) / np.where(length > 0, length, np.inf))
    return latents @ directions.vectors.T


def score_pairs(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return for each attribute the pair matrix whose mean diagonal is the correlation of scores.

    Parameters
    ----------
    predicted, true : array of shape (n_stimuli, n_attributes)

    Returns
    -------
    array of shape (n_attributes, n_stimuli, n_stimuli), float64
        ``M[a, i, j]``: product of the standardised scores of prediction i and stimulus j. NaN for
        an attribute whose true scores do not vary, 0 where only the predicted ones do not.
    """
    first, second = _standardised(predicted, true)
    first = np.where(np.isnan(first), 0.0, first)
    return first.T[:, :, None] * second.T[:, None, :]


def score_correlation(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return Pearson's r over stimuli of true and predicted scores.

    Parameters
    ----------
    predicted, true : array of shape (n_stimuli, n_attributes)

    Returns
    -------
    array of shape (n_attributes,), float64
        NaN where true or predicted scores do not vary.
    """
    first, second = _standardised(predicted, true)
    return (first * second).mean(axis=0)


def from_labels(latents_train: np.ndarray, labels_train: Mapping[str, Sequence]) -> Directions:
    """Fit directions to labels of the training stimuli, by linear regression on their latents.

    The penalty on the squared weights is the one with the smallest squared error when a training
    stimulus is left out; ordinary least squares is among those if there are more stimuli than
    latents.

    Parameters
    ----------
    latents_train : array of shape (n_train, n_latents)
    labels_train : mapping of str to sequence of length n_train
        One column for each attribute: numbers, or two values of text of which the later in the
        alphabet counts as high. Stimuli without a label (n/a) are left out of that attribute.

    Returns
    -------
    Directions
        The weights, brought to length 1.

    Raises
    ------
    InputError
        If a column has text of more than two values, or does not vary, or fewer than 3 labels.
    ValueError
        If the numbers of latents and labels disagree.
    """
    latents_train = np.asarray(latents_train, np.float64)
    if latents_train.ndim != 2 or not np.isfinite(latents_train).all():
        raise ValueError(f"latents of shape {latents_train.shape}; finite (n, n_latents) wanted")
    vectors, high, fit = [], [], []
    for name, column in labels_train.items():
        if len(column) != len(latents_train):
            raise ValueError(f"{len(column)} labels of {name} for {len(latents_train)} stimuli")
        values, meaning = _numbers(name, column)
        known = np.isfinite(values)
        if known.sum() < _FEWEST or np.ptp(values[known]) == 0:
            raise InputError(
                f"attribute {name}: {known.sum()} labels of training stimuli, with "
                f"{len(np.unique(values[known]))} different values; at least {_FEWEST} labels and "
                f"2 values are wanted."
            )
        weights, explained = _regress(latents_train[known], values[known])
        vectors.append(weights / np.linalg.norm(weights))
        high.append(meaning)
        fit.append(explained)
    shape = (len(vectors), latents_train.shape[1])
    return Directions(
        tuple(labels_train), np.array(vectors).reshape(shape), tuple(high), tuple(fit)
    )


def _regress(latents: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights, and the fraction of variance predicted with each stimulus left out."""
    n = len(values)
    y = values - values.mean()
    U, s, Vt = np.linalg.svd(latents - latents.mean(axis=0), full_matrices=False)
    keep = s > 1e-10 * s.max(initial=0)
    if not keep.any():
        raise InputError("the latents of the training stimuli do not vary.")
    U, s, Vt = U[:, keep], s[keep], Vt[keep]
    projected = U.T @ y
    candidates = list(np.mean(s**2) * _PENALTIES)
    if len(s) < n - 1:  # else ordinary least squares fits any labels
        candidates.insert(0, 0.0)
    total = np.sum((y * n / (n - 1)) ** 2)
    best, explained = candidates[0], -math.inf
    for candidate in candidates:
        shrunk = s**2 / (s**2 + candidate)
        # Residuals with the stimulus left out, from those with it (Allen 1974).
        left = 1 - 1 / n - (U**2) @ shrunk
        residual = y - U @ (shrunk * projected)
        found = 1 - np.sum((residual / np.maximum(left, 1e-12)) ** 2) / total
        if found > explained:
            best, explained = candidate, float(found)
    return Vt.T @ (s / (s**2 + best) * projected), explained


def _numbers(name: str, column: Sequence) -> tuple[np.ndarray, str]:
    """Return the labels as numbers, NaN where there is none, and what the high ones stand for."""
    texts = [{"True": "1", "False": "0"}.get(str(x).strip(), str(x).strip()) for x in column]
    there = sorted({text for text in texts if text.lower() not in _MISSING})
    try:
        numbers = {text: float(text) for text in there}
        meaning = f"high {name}"
    except ValueError:
        if len(there) != 2:
            raise InputError(
                f"attribute {name}: text of {len(there)} values ({listing(there, 5)}). Numbers, or "
                f"two values of text, are wanted."
            ) from None
        numbers = {there[0]: 0.0, there[1]: 1.0}
        meaning = there[1]
    values = np.array([numbers.get(text, np.nan) for text in texts])
    if np.isinf(values).any():
        raise InputError(f"attribute {name}: an infinite label. Finite numbers are wanted.")
    return values, meaning


def _load_boundary(path: Path, n_latents: int) -> np.ndarray:
    try:
        boundary = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        with path.open("rb") as stream:
            start = stream.read(filekinds.N_BYTES)
        what = filekinds.stand_in(start, "boundary") or error
        raise InputError(f"{path}: no NumPy array ({what}). Get the boundary again.") from None
    if boundary.shape != (1, n_latents) or boundary.dtype.kind != "f":
        raise InputError(
            f"{path}: an array of shape {boundary.shape} and type {boundary.dtype}, but the "
            f"stimuli's latents want (1, {n_latents}) of floating point."
        )
    vector = boundary[0].astype(np.float64)
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) <= _UNIT:
        raise InputError(f"{path}: a vector of length {length:.6g}; a boundary has length 1.")
    return vector


def _standardised(predicted: np.ndarray, true: np.ndarray) -> list[np.ndarray]:
    """Return both with columns of mean 0 and deviation 1; NaN for those that do not vary."""
    both = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if both[0].shape != both[1].shape or both[1].ndim != 2:
        raise ValueError(f"scores of shape {both[0].shape} against {both[1].shape}")
    standard = []
    for values in both:
        varies = np.ptp(values, axis=0) > 1e-6 * np.abs(values).max(axis=0)
        sd = np.where(varies, values.std(axis=0), np.nan)
        standard.append((values - values.mean(axis=0)) / sd)
    return standard
