"""Decoding in the common space: of participants' mean responses, and of a participant by others.

Decoders come as a callable that is given training responses and returns a function of responses.
A participant's test responses are asked for when what is applied to them is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hyper_bids.hyperalignment.space import (
    AlignmentSettings,
    Template,
    crossfitted,
    fit_map,
    fit_template,
    transform,
)

# Given responses (n_rows, n_components), latents (n_rows, n_latents) and the stimulus of each row
# (rows of one stimulus must not be split between the parts of a cross-validation), returns a
# function from responses to latents.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
Load = Callable[[int], np.ndarray]

# Participants that are left out together, if there are more than so many.
_GROUPS = 10
# Others whose single responses train the decoder of a participant.
_TEACHERS = 20


def averaged_prediction(
    load_train: Load,
    load_test: Load,
    n_participants: int,
    latents: np.ndarray,
    fit: Fit,
    settings: AlignmentSettings,
    scratch: np.ndarray | None = None,
) -> tuple[np.ndarray, Template]:
    """Decode the mean over participants of responses in their common space.

    Parameters
    ----------
    load_train : callable
        ``load_train(i)``: participant i's responses to the shared training stimuli, of shape
        (n_stimuli, n_voxels of i), standardised.
    load_test : callable
        ``load_test(i)``: those to the test stimuli, of shape (n_test, n_voxels of i), rows the same
        for all. Called when template and decoder are there.
    n_participants : int
        At least 2.
    latents : array of shape (n_stimuli, n_latents)
        Of the shared training stimuli.
    fit : callable
        The decoder, see :data:`Fit`.
    settings : AlignmentSettings
    scratch : array, optional
        See :func:`~hyper_bids.hyperalignment.fit_template`.

    Returns
    -------
    predicted : array of shape (n_test, n_latents)
    template : Template

    Notes
    -----
    One participant is held at a time: each is loaded three times, and its map fitted again when
    test responses are transformed, so that memory does not grow with participants.
    """
    everyone = list(range(n_participants))
    template = fit_template(load_train, everyone, settings, scratch)
    train = np.zeros(template.values.shape)
    for i in everyone:
        train += crossfitted(load_train(i), template) / n_participants
    decode = fit(train.astype(np.float32), latents, np.arange(len(latents)))
    test = None
    for i in everyone:
        own_map = fit_map(load_train(i), template)
        own = transform(load_test(i), own_map)
        if test is None:
            test = np.zeros(own.shape)
        if own.shape != test.shape:
            raise ValueError(
                f"participant {i} has {len(own)} test stimuli, participant 0 has {len(test)}"
            )
        test += own / n_participants
    return decode(test.astype(np.float32)), template


def left_out_predictions(
    load_train: Load,
    load_test: Load,
    n_participants: int,
    latents: np.ndarray,
    fit: Fit,
    settings: AlignmentSettings,
    scratch: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode each participant's test trials with a decoder of other participants.

    Template and decoder are made of others only. The participant's own shared training responses
    give its map onto their template; its latents are not needed. Of more than ten participants,
    tenths are left out together.

    Parameters
    ----------
    load_train, load_test, latents, fit, settings, scratch
        As for :func:`averaged_prediction`; here, test stimuli may differ between participants.
    n_participants : int
        At least 3, so that there are two others.

    Yields
    ------
    i, predicted : int, array of shape (n_test of i, n_latents)

    Raises
    ------
    ValueError
        For fewer than three participants.

    Notes
    -----
    The decoder is trained on single participants' responses, of at most 20 others evenly through
    their list, since it is applied to a single one: their mean has less noise than it will meet.
    It holds (n_stimuli x 20) rows of the common space.
    """
    if n_participants < 3:
        raise ValueError(f"{n_participants} participants; at least 3 are wanted to leave one out")
    n_groups = min(n_participants, _GROUPS)
    for group in range(n_groups):
        left = [i for i in range(n_participants) if i % n_groups == group]
        others = [i for i in range(n_participants) if i % n_groups != group]
        template = fit_template(load_train, others, settings, scratch)
        maps = {i: fit_map(load_train(i), template) for i in left}
        decode = _taught(load_train, others, template, latents, fit)
        for i, own in maps.items():
            yield i, decode(transform(load_test(i), own))


def _taught(load_train: Load, others: list[int], template: Template, latents, fit: Fit):
    chosen = np.linspace(0, len(others) - 1, min(len(others), _TEACHERS)).round().astype(int)
    rows = [crossfitted(load_train(others[k]), template) for k in chosen]
    stimulus = np.tile(np.arange(len(latents)), len(rows))
    return fit(np.concatenate(rows), np.tile(latents, (len(rows), 1)), stimulus)
