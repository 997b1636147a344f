"""Participants decoded together: their mean responses, and each by the others.

What is fitted is given rows of training stimuli. Test responses of a participant are read
when all that is applied to them is fitted, test latents when all is predicted.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hyper_bids import decode, hyperalignment
from hyper_bids.errors import UsageError
from hyper_bids.group.sharing import AVERAGE, Sharing

LOG = logging.getLogger("hyper_bids")

# Parts of the stimuli that ridge leaves out, at least, and rows that each part may have: the time
# of one grows with the third power of its rows.
_FOLDS, _FOLD_ROWS = 10, 300
# Matrices of the shared response model that are kept in memory, in bytes; else in a file.
_IN_MEMORY = 2**28


def predictions(
    sharing: Sharing, settings: hyperalignment.AlignmentSettings, seed: int, scratch: Path
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield whose predicted latents they are, and the latents of that one's test stimuli.

    Parameters
    ----------
    sharing : Sharing
    settings : AlignmentSettings
    seed : int
        Of the parts of stimuli that ridge leaves out.
    scratch : path
        Folder for what does not fit into memory.

    Yields
    ------
    name, predicted : str, float32 array of shape (n_test, n_latents)
        ``average`` and participants, as far as :class:`Sharing` says they can be decoded.

    Raises
    ------
    UsageError, InputError
        If responses cannot be aligned; says whose.
    """
    held, last = sharing.held, [0]

    def load_train(i: int) -> np.ndarray:
        last[0] = i
        return held[i].train.read(held[i].train.responses, sharing.stimuli)

    def load_test(i: int) -> np.ndarray:
        last[0] = i
        return held[i].test.read(held[i].test.responses)

    latents = sharing.latents()
    grams = _grams(sharing, scratch)
    given = (load_train, load_test, len(held), latents, _ridge(seed), settings, grams)
    with _told(sharing, last):
        if sharing.averaged:
            LOG.info("Aligning %d participants, and decoding their mean responses", len(held))
            yield AVERAGE, hyperalignment.averaged_prediction(*given)[0].astype(np.float32)
        if sharing.by_others:
            LOG.info("Decoding each of %d participants by others", len(held))
            for i, predicted in hyperalignment.left_out_predictions(*given):
                yield held[i].participant, predicted.astype(np.float32)


def _ridge(seed: int) -> hyperalignment.decoding.Fit:
    """Return what fits ridge; its penalty is chosen by leaving out stimuli, all rows of each."""

    def fit(betas: np.ndarray, latents: np.ndarray, stimulus: np.ndarray) -> Callable:
        n = int(stimulus.max()) + 1
        rng = np.random.default_rng([seed, zlib.crc32(b"group/align/folds")])
        n_folds = min(n, max(_FOLDS, -(-len(betas) // _FOLD_ROWS)))
        folds = (rng.permutation(n) % n_folds)[stimulus]
        decoder = decode.fit("ridge", betas, latents, rng, {"folds": folds})
        return lambda new: decode.predict(decoder, new)

    return fit


def _grams(sharing: Sharing, scratch: Path) -> np.ndarray | None:
    """Return where the shared response model keeps a matrix of each participant."""
    n = len(sharing.stimuli)
    size = 4 * len(sharing.held) * n * n
    if sharing.method != "srm" or size <= _IN_MEMORY:
        return None
    LOG.info("%.1f GB of matrices are kept in %s", size / 1e9, scratch)
    return np.lib.format.open_memmap(
        scratch / "grams.npy", "w+", np.float32, (len(sharing.held), n, n)
    )


@contextmanager
def _told(sharing: Sharing, last: list[int]) -> Iterator[None]:
    """Say whose responses cannot be aligned, which the arrays do not know."""
    names = [f"sub-{h.participant}" for h in sharing.held]
    try:
        yield
    except ValueError as error:
        text = re.sub(r"participant (\d+)", lambda found: names[int(found[1])], str(error))
        text = text.replace("the participant", names[last[0]])
        raise UsageError(
            f"--align {sharing.method}: {text}. Leave the participant out with "
            f"--participant-label, or leave out --align."
        ) from None
