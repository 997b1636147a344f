"""Events in: trials with their stimuli, and the other events, which are modelled as nuisance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids.bids import split
from hyper_bids.bids.stimuli import NO_ROW, Stimuli, load_latents, read_stimuli
from hyper_bids.bids.tables import LINE, MISSING, close, number, read_table
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from hyper_bids.bids.inputs import Run

LOG = logging.getLogger("hyper_bids")

__all__ = ["Stimuli", "Trials", "load_latents", "read_events", "read_stimuli", "trial_tables"]

TRIAL_COLUMNS = (
    "run_index", "session", "task", "run", "line", "onset", "duration", "trial_type", "stim_id",
    "stim_file", "latent_file", "latent_row", "split",
)  # fmt: skip
NUISANCE_COLUMNS = ("run_index", "onset", "duration", "trial_type")


@dataclass(frozen=True, eq=False)
class Trials:
    """All events of a participant.

    ``trials`` has the columns ``TRIAL_COLUMNS``, a row a trial, by run and then onset;
    ``run_index`` counts the runs from 0, times are in seconds, n/a stands for what is not there.
    ``nuisance`` has ``NUISANCE_COLUMNS``. ``split_source`` says what decided the split, and
    ``shared_allowed`` whether a stimulus may be in both sets.
    """

    trials: pd.DataFrame
    nuisance: pd.DataFrame
    split_source: str
    shared_allowed: bool = False


def read_events(path: Path | str) -> pd.DataFrame:
    """Read an events file, sorted by onset.

    Returns
    -------
    DataFrame
        ``onset`` and ``duration`` (float, seconds; a duration of n/a is 0, an impulse), ``line``
        (in the file, the header being 1), and all other columns as text.

    Raises
    ------
    InputError
        If a column is missing, or a time is no finite number, or a duration is negative; with file,
        line and column.
    """
    path = Path(path)
    table = read_table(path, required=("onset", "duration"))
    unknown = table["duration"] == "n/a"
    if unknown.any():
        LOG.warning(
            "%s, line %d, column duration: n/a is taken as 0 s, an impulse (%d times).",
            path, table.loc[unknown, LINE].iloc[0], unknown.sum(),
        )  # fmt: skip
        table.loc[unknown, "duration"] = "0"
    for column in ("onset", "duration"):
        table[column] = [
            number(path, line, column, text)
            for line, text in zip(table[LINE], table[column], strict=True)
        ]
        table[column] = table[column].astype("float64")
    negative = table[table["duration"] < 0]
    if len(negative):
        raise InputError(
            f"{path}, line {negative[LINE].iloc[0]}, column duration: "
            f"{negative['duration'].iloc[0]:g} s; a duration is 0 or more."
        )
    return table.sort_values("onset", kind="stable", ignore_index=True)


def trial_tables(runs: Sequence[Run], stimuli: Stimuli, settings: InputSettings) -> Trials:
    """Sort the events of all runs into training trials, test trials and other events.

    The split comes from the column ``split``, else from ``trial_type`` being train or test, else
    from ``--test-run-id``, else from ``--test-repeated``. Events that name no stimulus, and those
    whose split is n/a, are nuisance events.

    Parameters
    ----------
    runs : sequence of Run
    stimuli : Stimuli
    settings : InputSettings

    Raises
    ------
    InputError
        If an event is outside its scan, names an unknown stimulus or one without latents, a set is
        empty, or training and test share a stimulus without ``allow_shared_stimuli``.
    UsageError
        If nothing says which trials test, or ``--test-run-id`` names no run.
    """
    import pandas as pd

    tables = [_rows(index, run) for index, run in enumerate(runs)]
    rows = pd.concat(tables, ignore_index=True).astype({"names_stimulus": bool})
    if rows.empty:
        raise InputError(f"{runs[0].events} and the other runs: no events found, only headers.")
    rule = split.choose_rule(rows, settings)
    is_trial = split.candidates(rows, rule)
    n_left = int((rows["names_stimulus"] & ~is_trial).sum())
    if n_left:
        LOG.info("%d events show a stimulus, but neither train nor test: nuisance.", n_left)
    trials = with_stimuli(rows[is_trial].reset_index(drop=True), stimuli)
    _check_start(trials)
    if trials.empty:
        raise InputError(
            f"{runs[0].events} and the other runs: no event names a stimulus. Add a column stim_id "
            f"(or stim_file) that leads to {stimuli.path}."
        )
    trials["split"], source = split.assign(trials, rule, runs, settings)
    if not settings.allow_shared_stimuli:
        split.check_not_shared(trials)
    return Trials(
        trials=trials[list(TRIAL_COLUMNS)],
        nuisance=rows.loc[~is_trial, list(NUISANCE_COLUMNS)].reset_index(drop=True),
        split_source=source,
        shared_allowed=settings.allow_shared_stimuli,
    )


def _rows(index: int, run: Run) -> pd.DataFrame:
    table = read_events(run.events)
    end = run.n_volumes * run.t_r
    late = table[table["onset"] >= end]
    if len(late):
        raise InputError(
            f"{run.events}, line {late[LINE].iloc[0]}, column onset: {late['onset'].iloc[0]:g} s "
            f"is past the end of the scan ({run.n_volumes} volumes of {run.t_r:g} s = {end:g} s in "
            f"{run.bold.name}). Onsets are seconds from the first volume; mend them."
        )
    for column in ("trial_type", "stim_id", "stim_file"):
        table[column] = table[column].replace("", "n/a") if column in table else "n/a"
    table["given_split"] = table.get("split", None)
    table["given_split"] = table["given_split"].astype(object)
    table["names_stimulus"] = (table["stim_id"] != "n/a") | (table["stim_file"] != "n/a")
    table["run_index"] = index
    table["path"] = str(run.events)
    for entity in ("session", "task", "run"):
        table[entity] = run.entities.get(entity, "n/a")
    kept = {*TRIAL_COLUMNS, "given_split", "names_stimulus", "path"}
    return table[[column for column in table.columns if column in kept - {"split"}]]


def _check_start(trials: pd.DataFrame) -> None:
    early = trials[trials["onset"] < 0]
    if len(early):
        row = early.iloc[0]
        raise InputError(
            f"{row['path']}, line {row['line']}, column onset: the trial starts at "
            f"{row['onset']:g} s, before the first volume. Mend it, or write split n/a."
        )


def with_stimuli(trials: pd.DataFrame, stimuli: Stimuli) -> pd.DataFrame:
    """Add what the table of stimuli says: stim_id wins over stim_file."""
    table = stimuli.table
    by_id = {name: i for i, name in enumerate(table["stim_id"]) if name != "n/a"}
    by_file: dict[str, list[int]] = {}
    for i, name in enumerate(table["stim_file"]):
        if name != "n/a":
            by_file.setdefault(name, []).append(i)
    found = [
        _look_up(path, line, stim_id, stim_file, stimuli, by_id, by_file)
        for path, line, stim_id, stim_file in trials[
            ["path", "line", "stim_id", "stim_file"]
        ].itertuples(index=False)
    ]
    shown = table.iloc[found].reset_index(drop=True)
    known = shown["stim_id"] != "n/a"
    trials["stim_file"] = shown["stim_file"].where(shown["stim_file"] != "n/a", trials["stim_file"])
    trials["stim_id"] = shown["stim_id"].where(known, trials["stim_file"])
    trials["latent_file"] = shown["latent_file"]
    trials["latent_row"] = shown["latent_row"].astype("int64")
    return trials


def _look_up(
    path: str,
    line: int,
    stim_id: str,
    stim_file: str,
    stimuli: Stimuli,
    by_id: dict[str, int],
    by_file: dict[str, list[int]],
) -> int:
    place = f"{path}, line {line}"
    if stim_id not in MISSING and (by_id or stim_file in MISSING):
        if stim_id not in by_id:
            raise InputError(
                f"{place}, column stim_id: {stim_id!r} is not in {stimuli.path}; "
                f"{close(stim_id, by_id)}. Add it there, or write n/a where no stimulus is shown."
            )
        index, column, name = by_id[stim_id], "stim_id", stim_id
    else:
        rows = by_file.get(stim_file, [])
        if not rows:
            prefixed = " Leave out stimuli/ in front." if stim_file.startswith("stimuli/") else ""
            raise InputError(
                f"{place}, column stim_file: {stim_file!r} is not in {stimuli.path}; "
                f"{close(stim_file, by_file)}.{prefixed}"
            )
        if len(rows) > 1:
            lines = " and ".join(str(stimuli.table[LINE].iloc[i]) for i in rows[:2])
            raise InputError(
                f"{place}, column stim_file: {stim_file!r} is in lines {lines} of {stimuli.path}; "
                f"name the stimulus by its stim_id."
            )
        index, column, name = rows[0], "stim_file", stim_file
    if stimuli.table["latent_row"].iloc[index] == NO_ROW:
        raise InputError(
            f"{place}, column {column}: the latents of {name!r} are unknown (latent_row is n/a in "
            f"line {stimuli.table[LINE].iloc[index]} of {stimuli.path}). Add them, or write split "
            f"n/a for its events."
        )
    return index
