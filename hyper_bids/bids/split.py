"""Which trials train the decoder and which test it: four rules, the first that applies decides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hyper_bids.bids.dataset import clean_labels
from hyper_bids.bids.filters import same_label
from hyper_bids.bids.tables import MISSING
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError, counted, listing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from hyper_bids.bids.inputs import Run

LOG = logging.getLogger("hyper_bids")

SETS = ("train", "test")
COLUMN = "split column"
TRIAL_TYPE = "trial_type"
RUNS = "--test-run-id"
REPEATED = "--test-repeated"


def choose_rule(rows: pd.DataFrame, settings: InputSettings) -> str:
    """Return the rule that decides, in order of precedence.

    Parameters
    ----------
    rows : DataFrame
        One row an event: ``path``, ``line``, ``trial_type``, ``given_split`` (None where the file
        has no such column), and ``names_stimulus``.
    settings : InputSettings

    Raises
    ------
    InputError
        If a split is neither train, test nor n/a, or only some runs have the column.
    UsageError
        If no rule applies.
    """
    flags = [
        flag
        for flag, given in ((RUNS, settings.test_run_id), (REPEATED, settings.test_repeated))
        if given
    ]
    _check_values(rows)
    if rows["given_split"].isin(SETS).any():
        _check_all_runs_have_it(rows)
        rule = COLUMN
    elif (rows["trial_type"].isin(SETS) & rows["names_stimulus"]).any():
        rule = TRIAL_TYPE
    elif flags:
        return _first(flags)
    else:
        raise UsageError(
            "nothing says which trials test. Four ways: a column split in the events (train, test "
            "or n/a), events whose trial_type is train or test, --test-run-id LABEL, or "
            "--test-repeated (stimuli shown in more than one run test)."
        )
    for flag in flags:
        LOG.warning("%s is not used: the events say which trials test (%s).", flag, rule)
    return rule


def candidates(rows: pd.DataFrame, rule: str) -> np.ndarray:
    """Return a bool array (n_rows,): the events that can be trials under ``rule``.

    Raises
    ------
    InputError
        If an event is to train or test, but names no stimulus.
    """
    if rule in (RUNS, REPEATED):
        return rows["names_stimulus"].to_numpy(bool)
    column = "given_split" if rule == COLUMN else "trial_type"
    chosen = rows[column].isin(SETS)
    nameless = rows[chosen & ~rows["names_stimulus"]]
    if len(nameless):
        row = nameless.iloc[0]
        name = "split" if rule == COLUMN else column
        raise InputError(
            f"{row['path']}, line {row['line']}, column {name}: {row[column]}, but the event names "
            f"no stimulus. Write its stim_id, or {name} n/a."
        )
    return chosen.to_numpy(bool)


def assign(
    trials: pd.DataFrame, rule: str, runs: Sequence[Run], settings: InputSettings
) -> tuple[list[str], str]:
    """Return train or test for each trial, and what decided it.

    Parameters
    ----------
    trials : DataFrame, one row a trial, with ``run_index`` and ``stim_id`` as well
    rule : what :func:`choose_rule` gave
    runs : the runs
    settings : InputSettings

    Raises
    ------
    UsageError
        If ``--test-run-id`` names no run.
    InputError
        If no trial trains, or none tests.
    """
    source = rule
    if rule == COLUMN:
        split = trials["given_split"].tolist()
    elif rule == TRIAL_TYPE:
        split = trials["trial_type"].tolist()
    elif rule == RUNS:
        labels = clean_labels(RUNS, "run", settings.test_run_id)
        source = f"{RUNS} {' '.join(labels)}"
        test_runs = _test_runs(labels, runs)
        split = ["test" if index in test_runs else "train" for index in trials["run_index"]]
    else:
        n_runs = trials.groupby("stim_id")["run_index"].nunique()
        split = ["test" if n_runs[name] > 1 else "train" for name in trials["stim_id"]]
    for wanted, other in (SETS, SETS[::-1]):
        if wanted not in split:
            raise InputError(
                f"no {wanted} trials: all {len(split)} trials {other} (by {source}). Both sets "
                f"are needed; mend the split, or choose more runs."
            )
    return split, source


def check_not_shared(trials: pd.DataFrame) -> None:
    """Refuse a stimulus, its latents or its image in both training and test.

    Raises
    ------
    InputError
        With the stimuli, and where the first of them stands in each set.
    """
    latents = trials["latent_file"] + ":" + trials["latent_row"].astype(str)
    for key, shows in ((trials["stim_id"], True), (latents, True), (trials["stim_file"], False)):
        named = key if shows else key[key != "n/a"]
        in_both = named[named.map(trials["split"].groupby(key).nunique()) > 1]
        if not len(in_both):
            continue
        rows = trials[key == in_both.iloc[0]]
        places = [rows[rows["split"] == name].iloc[0] for name in SETS]
        where = " and ".join(f"{r['split']}: {r['path']}, line {r['line']}" for r in places)
        names = sorted(set(trials.loc[in_both.index, "stim_id"]))
        raise InputError(
            f"in both training and test, so that the test would not be of unseen stimuli: "
            f"{counted(len(names), 'stimulus', 'stimuli')}, {listing(names)} ({where}). Mend the "
            f"split, or, if latents are categories, give --allow-shared-stimuli."
        )


def _check_values(rows: pd.DataFrame) -> None:
    given = rows["given_split"]
    wrong = rows[given.notna() & ~given.isin([*SETS, *MISSING])]
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"{row['path']}, line {row['line']}, column split: {row['given_split']!r}; train, test "
            f"and n/a are accepted."
        )


def _check_all_runs_have_it(rows: pd.DataFrame) -> None:
    without = rows[rows["given_split"].isna() & rows["names_stimulus"]]["path"]
    if len(without):
        raise InputError(
            f"{listing(dict.fromkeys(without))}: no column split, but other runs have it. Add it "
            f"(train, test or n/a) to all events, or leave out these runs."
        )


def _first(flags: list[str]) -> str:
    if len(flags) > 1:
        LOG.warning("%s is not used: %s decides which trials test.", flags[1], flags[0])
    return flags[0]


def _test_runs(labels: tuple[str, ...], runs: Sequence[Run]) -> set[int]:
    there = [run.entities.get("run") for run in runs]
    absent = [label for label in labels if not any(same_label(label, run) for run in there)]
    if absent:
        raise UsageError(
            f"{RUNS} {listing(absent)}: no such run; there are runs "
            f"{listing(dict.fromkeys(label for label in there if label))}."
        )
    return {i for i, run in enumerate(there) if any(same_label(label, run) for label in labels)}
