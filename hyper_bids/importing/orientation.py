"""Which axis of a matrix is the trials: what agrees in size with the other matrices."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass

import numpy as np

from hyper_bids.errors import InputError, UsageError

LOG = logging.getLogger("hyper_bids")

ORDERS = ("auto", "trials-first", "trials-last")


@dataclass(frozen=True, eq=False)
class Given:
    """The variables of one set of trials, as they were read.

    Attributes
    ----------
    responses : array
        Trials x voxels, or transposed; or trials x a grid of voxels, or the grid x trials.
    latents : array, optional
        Stimuli x latents, or transposed.
    images : array, optional
        In a form of :mod:`hyper_bids.importing.pictures`.
    shown : int array of shape (n_trials,), optional
        Row of latents and images that each trial showed, from 0; by default, row k at trial k.
    runs : array of shape (n_trials,), optional
        Run of each trial.
    where : dict
        What each is called in messages: file and variable.
    """

    responses: np.ndarray
    latents: np.ndarray | None = None
    images: np.ndarray | None = None
    shown: np.ndarray | None = None
    runs: np.ndarray | None = None
    where: dict[str, str] | None = None

    def place(self, what: str) -> str:
        """Return what a variable is called in messages."""
        return (self.where or {}).get(what, what)


def oriented(train: Given, test: Given, order: str) -> tuple[list, list]:
    """Return responses (trials x voxels) and latents (stimuli x latents) of both sets.

    All orientations of the four matrices are tried; one alone must agree in numbers of trials,
    voxels and latents.
    """
    if order not in ORDERS:
        raise UsageError(f"order {order!r}; {', '.join(ORDERS)} are accepted.")
    wanted = {"auto": (True, False), "trials-first": (True,), "trials-last": (False,)}[order]
    known = train.latents is not None
    ways = (True, False) if known else (True,)
    fitting = []
    for ways_now in itertools.product(wanted, wanted, ways, ways):
        (n_train, voxels), (n_test, same) = (
            _sizes(given.responses.shape, way)
            for given, way in zip((train, test), ways_now, strict=False)
        )
        fits = voxels == same and _trials_fit(train, n_train) and _trials_fit(test, n_test)
        if fits and known:
            (a, size), (b, other) = (
                _sizes(given.latents.shape, way)
                for given, way in zip((train, test), ways_now[2:], strict=True)
            )
            fits = size == other and _shows(train, n_train, a) and _shows(test, n_test, b)
        if fits:
            fitting.append(ways_now)
    if not fitting:
        raise InputError(_disagreement(train, test, order))
    if len(fitting) > 1:
        raise UsageError(
            f"{_shapes(train, test)}: both axes could be the trials. Say which with --order "
            f"trials-first or trials-last."
            if len({way[:2] for way in fitting}) > 1
            else f"{_shapes(train, test)}: both axes of the latents could be the stimuli. Save "
            f"more stimuli or fewer with them, so that the numbers differ."
        )
    way = fitting[0]
    if not all(way):
        LOG.info("Transposed, as sizes agree that way: %s", _shapes(train, test))
    responses = [_flat(given.responses, w) for given, w in zip((train, test), way, strict=False)]
    if not known:
        return responses, [None, None]
    latents = [_flat(given.latents, w) for given, w in zip((train, test), way[2:], strict=True)]
    return responses, latents


def _trials_fit(given: Given, n: int) -> bool:
    counts = [len(a.ravel()) for a in (given.shown, given.runs) if a is not None]
    # Images have their number on the first axis or the last.
    images = given.images if given.shown is None else None
    return all(count == n for count in counts) and (
        images is None or n in (images.shape[0], images.shape[-1])
    )


def _shows(given: Given, n_trials: int, n_stimuli: int) -> bool:
    return n_stimuli == n_trials if given.shown is None else int(given.shown.max()) < n_stimuli


def _disagreement(train: Given, test: Given, order: str) -> str:
    wanted = "each trial one row of latents and images" if train.shown is None else (
        "a row of latents and images for each row number")  # fmt: skip
    asked = "" if order == "auto" else f" (as asked for with --order {order})"
    return (
        f"the sizes do not go together{asked}: {_shapes(train, test)}. Wanted: training and test "
        f"responses with the same number of voxels, latents of the same length in both sets, and "
        f"{wanted}; each matrix may be transposed."
    )


def _shapes(train: Given, test: Given) -> str:
    told = []
    for name, given in (("training", train), ("test", test)):
        for what in ("responses", "latents", "images", "shown", "runs"):
            array = getattr(given, what)
            if array is not None:
                called = given.place(what)
                label = f"{name} {what}" if called == what else f"{name} {what} ({called})"
                told.append(f"{label} {said(array.shape)}")
    return ", ".join(told)


def _flat(array: np.ndarray, first: bool) -> np.ndarray:
    """Return trials x voxels, without a copy if possible."""
    array = array if first else np.moveaxis(array, -1, 0)
    return array.reshape(len(array), -1)


def _sizes(shape: tuple[int, ...], first: bool) -> tuple[int, int]:
    n = shape[0] if first else shape[-1]
    return n, math.prod(shape) // n


def said(shape: tuple[int, ...]) -> str:
    """Return a shape as messages have it: 1050 x 4096."""
    return " x ".join(map(str, shape))
