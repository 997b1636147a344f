"""What participants left for alignment, and what they share: stimuli, latents, test stimuli."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import hyperalignment
from hyper_bids.errors import InputError, UsageError, counted, listing
from hyper_bids.group.members import beside

# The rows of what is no participant's.
AVERAGE, MEAN = "average", "mean"

# The output that has the responses; its sidecar names the others.
_FILE = "stimulus_responses"

# Shared training stimuli, and participants of each way of decoding.
FEWEST_STIMULI, FEWEST_AVERAGED, FEWEST_OTHERS = 3, 2, 3


@dataclass(frozen=True, eq=False)
class Shown:
    """What a participant left of its training, or of its test, stimuli: rows of two arrays.

    Attributes
    ----------
    rows : dict
        Stimulus to its row; of one split alone, so that no row of the other can be read.
    responses : Path
        Mean responses, (n_stimuli, n_voxels).
    latents : Path
        (n_stimuli, n_latents).
    """

    rows: dict[str, int]
    responses: Path
    latents: Path

    @property
    def stimuli(self) -> tuple[str, ...]:
        """The stimuli, by name."""
        return tuple(self.rows)

    def read(self, file: Path, stimuli: tuple[str, ...] | None = None) -> np.ndarray:
        """Return the rows of all, or of some, stimuli as float32; nothing else is looked at.

        Raises
        ------
        InputError
            If it cannot be read, or a number is missing.
        """
        wanted = [self.rows[name] for name in (self.stimuli if stimuli is None else stimuli)]
        return finite(file, wanted)


@dataclass(frozen=True, eq=False)
class Held:
    """What one participant left.

    Attributes
    ----------
    participant : str
    train, test : Shown
    predicted : Path
        Latents that the participant's own decoder predicted for the test stimuli.
    """

    participant: str
    train: Shown
    test: Shown
    predicted: Path

    def own_prediction(self) -> np.ndarray:
        """Return what the participant's own decoder predicts for its test stimuli.

        Raises
        ------
        InputError
            If the predictions are not of the same stimuli.
        """
        import pandas as pd

        index = self.predicted.with_suffix(".tsv")
        predicted = finite(self.predicted, slice(None))
        try:
            names = pd.read_csv(index, sep="\t", dtype=str, keep_default_na=False)["stim_id"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{index}: cannot be read ({error}). Run sub-{self.participant} again."
            ) from None
        if tuple(names) != self.test.stimuli or len(predicted) != len(names):
            raise InputError(
                f"{index}: its stimuli are not those of {self.test.responses.name}. Run "
                f"sub-{self.participant} again."
            )
        return predicted


@dataclass(frozen=True, eq=False)
class Sharing:
    """Participants who can be aligned.

    Attributes
    ----------
    method : str
        Of alignment.
    held : tuple of Held
    stimuli : tuple of str
        Training stimuli that all of them saw.
    same_test : bool
        Whether all saw the same test stimuli.
    notes : tuple of str
        What cannot be done, and why.
    """

    method: str
    held: tuple[Held, ...]
    stimuli: tuple[str, ...]
    same_test: bool
    notes: tuple[str, ...]

    @property
    def averaged(self) -> bool:
        """Whether their mean responses can be decoded."""
        return self.same_test and len(self.held) >= FEWEST_AVERAGED

    @property
    def by_others(self) -> bool:
        """Whether each can be decoded by the others."""
        return len(self.held) >= FEWEST_OTHERS

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return array_of(self.held[0].train.latents).shape[1]

    def names(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return whose predictions there are, in order, and the test stimuli of each."""
        found = [(AVERAGE, self.held[0].test.stimuli)] if self.averaged else []
        return found + [(h.participant, h.test.stimuli) for h in self.held if self.by_others]

    def latents(self) -> np.ndarray:
        """Return the latents of the shared training stimuli, (n_stimuli, n_latents)."""
        first = self.held[0].train
        return first.read(first.latents, self.stimuli)


def find_sharing(paths: Mapping[str, Path], method: str) -> Sharing:
    """Return what participants share, checked; nothing of responses is read.

    Parameters
    ----------
    paths : dict
        Participant to the summary table of the scores.
    method : str
        ``ridge-procrustes`` or ``srm``.

    Raises
    ------
    UsageError
        If there are too few participants or shared stimuli, or results of an earlier version.
    InputError
        If a file is not what the participant level writes.
    """
    said = f"--align {method}"
    odd = sorted({AVERAGE, MEAN} & set(paths))
    if odd:
        raise UsageError(
            f"{said}: sub-{odd[0]} is named as a row of the table is. Choose the others with "
            f"--participant-label."
        )
    if len(paths) < FEWEST_AVERAGED:
        raise UsageError(
            f"{said}: {counted(len(paths), 'participant')}; at least {FEWEST_AVERAGED} are needed. "
            f"Run the participant level for others, or leave out --align."
        )
    absent = [p for p, path in paths.items() if not beside(path, _FILE).is_file()]
    if absent:
        raise UsageError(
            f"{said}: no responses to align of {listing('sub-' + p for p in absent)} "
            f"({beside(paths[absent[0]], _FILE).name}). Run the participant level "
            f"again, with this version of the app."
        )
    held = tuple(_read_held(participant, path) for participant, path in paths.items())
    stimuli = tuple(hyperalignment.shared_stimuli([h.train.stimuli for h in held]))
    everyone = listing(f"sub-{h.participant}" for h in held)
    if len(stimuli) < FEWEST_STIMULI:
        raise UsageError(
            f"{said}: {everyone} share {len(stimuli)} training stimuli; at least {FEWEST_STIMULI} "
            f"are needed. Choose participants who saw the same with --participant-label, or leave "
            f"out --align."
        )
    _check_latents(held, stimuli, said)
    same_test = len({h.test.stimuli for h in held}) == 1
    notes = []
    if not same_test:
        notes.append(
            "Responses were not averaged over participants, who saw different test stimuli."
        )
    if len(held) < FEWEST_OTHERS:
        notes.append(
            f"Nobody was decoded by others: that needs {FEWEST_OTHERS} participants, and there are "
            f"{len(held)}."
        )
    if len(notes) > 1:
        raise UsageError(f"{said}: {' '.join(notes)} Leave out --align.")
    return Sharing(method, held, stimuli, same_test, tuple(notes))


def _read_held(participant: str, path: Path) -> Held:
    """Return what a participant left; shapes of arrays must be those that the sidecar says."""
    file = beside(path, _FILE)
    try:
        said = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        latents = file.with_name(Path(said["Latents"]).name)
        predicted = file.with_name(Path(said["Predicted"]).name)
        names, splits = said["Stimuli"], said["Split"]
        shapes = array_of(file).shape, array_of(latents).shape
        if [len(shape) for shape in shapes] != [2, 2]:
            raise ValueError(f"shapes {shapes[0]} and, of latents, {shapes[1]}")
        if {shapes[0][0], shapes[1][0], len(splits)} != {len(names)}:
            raise ValueError(
                f"{shapes[0][0]} rows, {shapes[1][0]} of latents, and {len(names)} stimuli in its "
                f"JSON"
            )
        train, test = (
            Shown({str(names[k]): k for k, of in enumerate(splits) if of == split}, file, latents)
            for split in ("train", "test")
        )
        if len(train.rows) + len(test.rows) != len(names) or not train.rows or not test.rows:
            raise ValueError("stimuli of its JSON are there twice, or of neither train nor test")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(
            f"{file}: not responses as the participant level writes them "
            f"({' '.join(str(error).split())}). Run sub-{participant} again."
        ) from None
    return Held(participant, train, test, predicted)


def _check_latents(held: tuple[Held, ...], stimuli: tuple[str, ...], said: str) -> None:
    """Refuse stimuli whose latents differ between participants, as fitted eigenfaces do."""
    first = held[0].train.read(held[0].train.latents, stimuli)
    for one in held[1:]:
        latents = one.train.read(one.train.latents, stimuli)
        if latents.shape != first.shape or not np.allclose(latents, first, rtol=1e-4, atol=1e-4):
            raise UsageError(
                f"{said}: the latents of shared stimuli are other ones in sub-{one.participant} "
                f"than in sub-{held[0].participant} ({one.train.latents.name}), so that nobody can "
                f"learn from the others. Decode the same latents in all: --methods hyper first."
            )


def array_of(path: Path) -> np.ndarray:
    """Return a memory map of an array."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def finite(file: Path, rows) -> np.ndarray:
    """Return rows of an array as float32.

    Raises
    ------
    InputError
        If it cannot be read, or a number of these rows is missing.
    """
    try:
        values = np.asarray(array_of(file)[rows], np.float32)
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise InputError(f"{file}: cannot be read ({error}). Run the participant again.") from None
    if not np.isfinite(values).all():
        raise InputError(f"{file}: holds NaN or infinity. Run the participant again.")
    return values
