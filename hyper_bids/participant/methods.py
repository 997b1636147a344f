"""The methods that are compared: which latents are decoded, and what makes images of them.

HYPER decodes the latents that the stimuli were made from. The baselines decode what an image model
with an encoder makes of the stimuli's images (Dado et al. 2022, Methods). All use the same
responses, voxels and decoder, so that a method is one entry of a table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hyper_bids.errors import InputError, UsageError, listing

LOG = logging.getLogger("hyper_bids")

HYPER = "hyper"

# Eigenfaces of the training stimuli: the paper's number of components and size in pixels.
N_COMPONENTS = 512
SIDE = 64

# Name to label, and the image model where none is given (None: eigenfaces of training stimuli).
KNOWN: dict[str, tuple[str, str | None]] = {
    HYPER: ("HYPER", None),
    "vaegan": ("VAE-GAN", "vaegan-digiface1m"),
    "eigenface": ("Eigenface", None),
}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes
    ----------
    name : str
        Letters and digits; stands in the tables and in the names of files.
    label : str
        The name as people read it.
    model : str or None
        What :func:`checkpoints.load` takes. None: no images, or, if ``encoded``, eigenfaces that
        are fitted to the participant's training stimuli.
    encoded : bool
        Whether it decodes encoded images of the stimuli; else their known latents.
    size : tuple of int or None
        Height and width of its images; None if there are none.
    frame : float
        Part of the middle square of a picture that its image model sees.
    """

    name: str
    label: str
    model: str | None
    encoded: bool
    size: tuple[int, int] | None
    frame: float = 1.0

    @property
    def suffix(self) -> str:
        """What follows a stage's name in the name of the method's own stage."""
        return "" if self.name == HYPER else f"_{self.name}"


@dataclass(frozen=True)
class Facts:
    """What has to be known of an image model before it is used."""

    name: str
    n_latents: int
    size: tuple[int, int]
    checksum: str
    frame: float
    encodes: bool


def baselines(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the methods that decode encoded stimuli, in order."""
    return tuple(name for name, _ in map(_parts, wanted) if name != HYPER)


def choose_methods(
    wanted: tuple[str, ...], generator: str, meta: dict, n_latents: int
) -> tuple[tuple[Method, ...], list[str]]:
    """Return the methods that were asked for, checked, and notes for the report.

    Parameters
    ----------
    wanted : tuple of str
        ``NAME`` of :data:`KNOWN`, or ``NAME=FILE`` with an image model that has an encoder.
    generator : str
        The setting ``--generator``, of HYPER.
    meta : dict
        ``stimuli/latents.json``; its ``GeneratorFile``, where there is one, as a path.
    n_latents : int
        Length of the stimuli's known latents.

    Raises
    ------
    UsageError, InputError
        If a name is unknown or there twice, or a model cannot be used.
    """
    names = [name for name, _ in map(_parts, wanted)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"--methods {listing(twice)}: named more than once.")
    methods, notes = [], []
    for name, file in map(_parts, wanted):
        label, default = KNOWN.get(name, (name, None))
        if name == HYPER:
            if file is not None:
                raise UsageError(f"--methods {name}={file}: give its image model as --generator.")
            model, note = choose_generator(generator, meta, n_latents)
            size = facts_of(model).size if model else None
            methods.append(Method(name, label, _absolute(model), encoded=False, size=size))
        elif file is None and name not in KNOWN:
            raise UsageError(
                f"--methods {name}: unknown. Known: {', '.join(KNOWN)}; or NAME=FILE with an image "
                f"model that has an encoder."
            )
        else:
            methods.append(_encoded(name, label, file or default))
            note = _note(label, file, default)
        notes += [note] if note else []
    return tuple(methods), notes


def _encoded(name: str, label: str, model: str | None) -> Method:
    if model is None:
        return Method(name, label, None, encoded=True, size=(SIDE, SIDE))
    try:
        facts = facts_of(model)
    except UsageError as error:
        text = str(error).removeprefix(f"--generator {model}: ")
        raise UsageError(f"--methods {name}={model}: {text}") from None
    if not facts.encodes:
        raise InputError(
            f"--methods {name}={model}: {facts.name} has no encoder, so that stimuli cannot be "
            f"turned into its latents. Give a VAE-GAN or eigenfaces (docs/image-models.md)."
        )
    model = _absolute(model)
    return Method(name, label, model, encoded=True, size=facts.size, frame=facts.frame)


def _absolute(model: str | None) -> str | None:
    """Return a file by its absolute path, since a stage runs in a folder of its own."""
    return str(Path(model).absolute()) if model and Path(model).is_file() else model


def _note(label: str, file: str | None, default: str | None) -> str | None:
    if file is not None or default is None:
        return None
    return (
        f"{label} is {default}, a small one that comes with the app, and not the paper's; give the "
        f"paper's with --methods vaegan=FILE."
    )


def choose_generator(wanted: str, meta: dict, n_latents: int) -> tuple[str | None, str | None]:
    """Return what to load as HYPER's image model (None: latents only), and a note."""
    from hyper_bids.generators import checkpoints

    named = str(meta.get("Generator") or "n/a")
    if wanted == "none":
        return None, "Latents only: no images were asked for (--generator none)."
    own = meta.get("GeneratorFile")
    if wanted == "auto" and own is not None:
        wanted = str(own)
    elif wanted == "auto":
        if named not in checkpoints.KNOWN:
            reason = (
                "the dataset names no generator (stimuli/latents.json)"
                if named == "n/a"
                else f"the weights of {named} (stimuli/latents.json) do not come with the app"
            )
            return None, f"Latents only: {reason}. Give weights with --generator FILE for images."
        wanted = named
    facts = facts_of(wanted)
    if facts.n_latents != n_latents:
        raise UsageError(
            f"--generator {wanted}: the model takes {facts.n_latents} latents, but "
            f"the dataset has {n_latents} (stimuli/latents.json). Give the generator that made "
            f"the stimuli, or --generator none."
        )
    checksum = meta.get("GeneratorChecksum") or meta.get("Checksum")
    if checksum and facts.checksum not in str(checksum):
        note = (
            f"The weights of {facts.name} are not the ones that made the stimuli: their "
            f"checksum differs from the one in stimuli/latents.json."
        )
        LOG.warning(note)
        return wanted, note
    return wanted, None


# A group of participants has one set of models; they are read once.
@lru_cache(maxsize=8)
def facts_of(model: str) -> Facts:
    """Load an image model, and return what has to be known of it.

    Raises
    ------
    UsageError, InputError
        As :func:`checkpoints.load`.
    """
    from hyper_bids.generators import checkpoints

    loaded = checkpoints.load(model)
    height, width = loaded.image_shape[:2]
    try:
        loaded.encode(np.zeros((0, *loaded.image_shape), np.float32))
        encodes = True
    except InputError:
        encodes = False
    return Facts(
        loaded.name, loaded.n_latents, (height, width), loaded.checksum, loaded.frame, encodes
    )


def _parts(text: str) -> tuple[str, str | None]:
    name, _, file = text.partition("=")
    return name, file or None
