"""What each participant's job left in the output folder: scores, scores of stimuli, nulls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hyper_bids.bids.names import METHOD, output_path
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.group.mixing import Settings, settings_of

# Method, metric, variant.
Key = tuple[str, str, str]

KEY = ("method", "metric", "variant")
NUMBERS = ("value", "se", "ci_low", "ci_high", "p", "n")

# The method whose outputs have no method in their names.
_UNNAMED = "hyper"


@dataclass(frozen=True, eq=False)
class Nulls:
    """Where a participant's null distributions are; never all of them in memory.

    Attributes
    ----------
    path : Path
        Array of shape (n_scores, n_permutations).
    rows : dict
        Key of a score to its row.
    n_permutations : int
    seed : int or None
        From which the permutations were drawn.
    """

    path: Path
    rows: dict[Key, int]
    n_permutations: int
    seed: int | None

    def of(self, keys: Iterable[Key], n: int | None = None) -> np.ndarray:
        """Return the nulls of some scores, the first ``n`` permutations, as float64."""
        stored = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return np.asarray(stored[[self.rows[key] for key in keys], :n], np.float64)


@dataclass(frozen=True, eq=False)
class PerStimulus:
    """Scores of each test stimulus of one method: keys of stimuli, and column to values."""

    stimuli: tuple[str, ...]
    columns: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Member:
    """One participant's results.

    Attributes
    ----------
    participant : str
    table : DataFrame
        The summary: scores and controls, n/a as text where there is no variant or control.
    stimuli : dict
        Method to the scores of its test stimuli.
    nulls : Nulls
    settings : dict
        See :func:`mixing.settings_of`.
    simulated : bool
    """

    participant: str
    table: object
    stimuli: dict[str, PerStimulus]
    nulls: Nulls
    settings: Settings
    simulated: bool

    @cached_property
    def values(self) -> dict[Key, float]:
        """Scores that have a value, by key; without controls."""
        own = self.table[(self.table["control"] == "n/a") & np.isfinite(self.table["value"])]
        keys = zip(*(own[name] for name in KEY), strict=True)
        return dict(zip(keys, own["value"].tolist(), strict=True))

    @cached_property
    def tested(self) -> list[Key]:
        """Scores that have a value and a null distribution."""
        return [key for key in self.values if key in self.nulls.rows]

    @property
    def shown(self) -> frozenset[str]:
        """Keys of the test stimuli."""
        return frozenset(name for one in self.stimuli.values() for name in one.stimuli)

    def of_stimuli(self, key: Key) -> tuple[tuple[str, ...], np.ndarray] | None:
        """Return keys of the stimuli and a score of each; None if there is no such column."""
        method, metric, variant = key
        held = self.stimuli.get(method)
        name = metric if variant == "n/a" else f"{metric} ({variant})"
        if held is None or name not in held.columns or np.isnan(held.columns[name]).all():
            return None
        return held.stimuli, held.columns[name]


def find_scores(output_dir: Path) -> dict[str, Path]:
    """Return each participant's summary table in the output folder.

    Raises
    ------
    UsageError
        If there is no such folder.
    InputError
        If a participant has two tables.
    """
    if not output_dir.is_dir():
        raise UsageError(f"{output_dir}: no such folder. Run the participant level first.")
    paths = sorted(output_dir.glob(f"sub-*/**/*{_ending('summary_metrics')}"))
    found: dict[str, Path] = {}
    for path in paths:
        label = path.relative_to(output_dir).parts[0].removeprefix("sub-")
        if label in found:
            raise InputError(
                f"sub-{label} has two tables of scores, {found[label].name} and {path.name}: "
                f"results of different tasks, sessions or spaces lie in {output_dir}. Use one "
                f"output folder for each."
            )
        found[label] = path
    return found


def missing_participants(output_dir: Path, present: tuple[str, ...]) -> list[str]:
    """Return participants of the dataset that left no scores, as the jobs recorded them."""
    listed = output_dir / "logs" / "participants.txt"
    known = set(listed.read_text(encoding="utf-8").split()) if listed.is_file() else set()
    known |= {path.name for path in (output_dir / "logs").glob("sub-*")}
    return sorted({name.removeprefix("sub-") for name in known} - set(present))


def read_member(participant: str, path: Path) -> Member:
    """Read one participant's results, nulls aside.

    Raises
    ------
    InputError
        If a table or an array is not what the participant level writes; says which.
    """
    try:
        table = _scores_table(path)
        stimuli = _per_stimulus(beside(path, "perstim_metrics"))
        sidecar = _json(beside(path, "null_metrics"))
        return Member(
            participant,
            table,
            stimuli,
            _nulls(beside(path, "null_metrics"), sidecar),
            settings_of(_sidecars(path, table)),
            bool(sidecar.get("Simulated", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise InputError(
            f"{path}: not a table of scores as the participant level writes it "
            f"({' '.join(str(error).split())}). Run sub-{participant} again."
        ) from None


def beside(path: Path, output: str, method: str = _UNNAMED) -> Path:
    """Return the path of another output of the participant whose summary table is ``path``."""
    stem = path.name.removesuffix(_ending("summary_metrics"))
    return path.with_name(stem + _ending(output, method))


def _ending(output: str, method: str = _UNNAMED) -> str:
    of_method = {} if method == _UNNAMED else {METHOD: method}
    return output_path(output, {"subject": "x", **of_method}).name.removeprefix("sub-x")


def _scores_table(path: Path):
    """Return the table; ValueError says what is wrong with it."""
    table = _tsv(path)
    lacking = [name for name in (*KEY, "control", *NUMBERS) if name not in table.columns]
    if lacking:
        raise ValueError(f"it has no column {listing(lacking)}")
    if not len(table):
        raise ValueError("it has no rows")
    for name in NUMBERS:
        table[name] = table[name].astype(float)
    for name in ("variant", "control"):
        table[name] = table[name].astype(object).fillna("n/a")
    twice = table[table.duplicated([*KEY, "control"])]
    if len(twice):
        raise ValueError(f"{' '.join(map(str, twice.iloc[0][[*KEY, 'control']]))} is there twice")
    return table


def _per_stimulus(path: Path) -> dict[str, PerStimulus]:
    table = _tsv(path, {"stim_id": str})
    lacking = [name for name in ("method", "stim_id") if name not in table.columns]
    if lacking:
        raise ValueError(f"{path.name} has no column {listing(lacking)}")
    scores = [n for n in table.columns if n not in ("method", "stim_id", "n_presentations")]
    found = {}
    for method, block in table.groupby("method", sort=False):
        names = tuple(block["stim_id"])
        if len(set(names)) < len(names):
            raise ValueError(f"{path.name} has a stimulus of {method} twice")
        columns = {name: block[name].to_numpy(float) for name in scores}
        found[method] = PerStimulus(names, columns)
    return found


def _nulls(path: Path, sidecar: dict) -> Nulls:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    keys = [(str(a), str(b), str(c)) for a, b, c in sidecar["Scores"]]
    if stored.ndim != 2 or len(stored) != len(keys) or not stored.size or stored.dtype.kind != "f":
        raise ValueError(
            f"{path.name} has shape {stored.shape} and its JSON {len(keys)} scores; (scores, "
            f"permutations) is wanted"
        )
    rows = {key: row for row, key in enumerate(keys)}
    return Nulls(path, rows, stored.shape[1], sidecar.get("RandomSeed"))


def _sidecars(path: Path, table) -> dict[str, dict]:
    """Return the sidecars that have settings, by output; a file that is gone says nothing."""
    found = {"summary_metrics": _json(path)}
    images = set(table.loc[table["variant"].str.startswith(("images", "reference")), "method"])
    wanted = [("betas", _UNNAMED)]
    for method in dict.fromkeys(table["method"]):
        wanted += [("decoder", method)] + [("reconstructions", method)] * (method in images)
    for output, method in wanted:
        sidecar = beside(path, output, method)
        if _json_path(sidecar).is_file():
            found[output if method == _UNNAMED else f"{output}, {method}"] = _json(sidecar)
    return found


def _json_path(path: Path) -> Path:
    return path.with_name(f"{path.name.split('.')[0]}.json")


def _json(path: Path) -> dict:
    return json.loads(_json_path(path).read_text(encoding="utf-8"))


def _tsv(path: Path, dtype: dict | None = None):
    import pandas as pd

    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False, dtype=dtype)
