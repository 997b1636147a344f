"""Scores of participants decoded together, beside those of their own decoders."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyper_bids import stats
from hyper_bids.bids.outputs import atomic, json_text, sha256, tsv_text, write_if_changed
from hyper_bids.group.aligned import predictions
from hyper_bids.group.sharing import AVERAGE, MEAN, Held, Sharing
from hyper_bids.group.tables import METRIC_COLUMNS
from hyper_bids.hyperalignment import AlignmentSettings
from hyper_bids.metrics.predictions import Pairs, chance, counts_hits, predicted_pairs

LOG = logging.getLogger("hyper_bids")

TABLE, LATENTS = "group_alignment", "group_alignment_latents"

OWN_DECODER, OWN_AVERAGE = "own_decoder", "own_average"
COLUMNS = {
    **{name: text for name, text in METRIC_COLUMNS.items() if name != "p_max"},
    "participant": "average: the participants' mean responses in the common space. A label: that "
    "participant, by template and decoder of the others. mean: the mean over these participants",
    "control": "n/a: the score itself. own_decoder: the participant's own decoder, on all of its "
    "training trials. own_average: the mean of what own decoders predict. training_mean: "
    "the mean latent of the shared training stimuli. mismatched, chance: as in the participants' "
    "tables",
    "p": "Permutation p, (b + 1) / (n + 1): test stimuli shuffled; not corrected for the number of "
    "scores",
}
INDEX_COLUMNS = {
    "row": "Row of the array of the same name",
    "participant": "average, or the label of the participant that was decoded by others",
    "stim_id": "Key of the test stimulus in stimuli/latents.tsv",
}

# Participants whose main scores stand on the page one by one; of more, the table says it.
_ON_PAGE = 12


@dataclass(frozen=True)
class Tests:
    """Number of random pairings, and the seed of all that is drawn."""

    n_permutations: int
    seed: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """What came of decoding participants together.

    Attributes
    ----------
    sharing : Sharing or None
        None: nothing was asked for.
    table : DataFrame
        Of :data:`COLUMNS`.
    latents : Path or None
        Array of the predictions, (rows of ``index``, n_latents).
    index : DataFrame
        Of :data:`INDEX_COLUMNS`.
    said : dict
        For the sidecars.
    """

    table: object
    index: object
    latents: Path | None = None
    sharing: Sharing | None = None
    said: dict = field(default_factory=dict)


def nothing() -> Decoded:
    """Return what there is where nobody is aligned: tables without rows."""
    import pandas as pd

    return Decoded(pd.DataFrame(columns=list(COLUMNS)), pd.DataFrame(columns=list(INDEX_COLUMNS)))


def decode_together(sharing: Sharing, method: str, tests: Tests, scratch: Path) -> Decoded:
    """Decode participants together, and score what is predicted.

    Parameters
    ----------
    sharing : Sharing
    method : str
        Whose latents are decoded, for the table.
    tests : Tests
    scratch : path
        Folder for the predictions, and for what does not fit into memory.

    Raises
    ------
    UsageError, InputError
        As :func:`aligned.predictions`.
    """
    import pandas as pd

    settings = AlignmentSettings(sharing.method)
    names = sharing.names()
    shape = (sum(len(stimuli) for _, stimuli in names), sharing.n_latents)
    path = scratch / "latents.npy"
    stored = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    starts = np.cumsum([0, *(len(stimuli) for _, stimuli in names)])
    place = {name: start for (name, _), start in zip(names, starts, strict=False)}
    for name, predicted in predictions(sharing, settings, tests.seed, scratch):
        stored[place[name] : place[name] + len(predicted)] = predicted
    stored.flush()
    rows = list(_all_rows(sharing, stored, place, tests))
    table = pd.DataFrame([{"method": method, **row} for row in rows], columns=list(COLUMNS))
    table["n"] = table["n"].astype("Int64")
    index = [(name, stimulus) for name, stimuli in names for stimulus in stimuli]
    frame = pd.DataFrame(index, columns=["participant", "stim_id"])
    frame.insert(0, "row", range(len(frame)))
    said = {
        "Alignment": {
            "Method": sharing.method,
            "Components": len(sharing.stimuli) // 2,
            "Whitening": settings.whitening,
            "SharedTrainingStimuli": len(sharing.stimuli),
            "Participants": [h.participant for h in sharing.held],
            "Permutations": tests.n_permutations,
            "Notes": list(sharing.notes),
        }
    }
    return Decoded(table, frame, path, sharing, said)


def _all_rows(sharing: Sharing, stored: np.ndarray, place: dict, tests: Tests) -> Iterator[dict]:
    mean = sharing.latents().mean(axis=0, dtype=float)
    if sharing.averaged:
        own = 0
        for held in sharing.held:
            own = own + held.own_prediction().astype(float) / len(sharing.held)
        predicted = stored[place[AVERAGE] :][: len(own)], own
        pairs, targets = _pairs(sharing.held[0], predicted, mean)
        yield from _beside((AVERAGE, OWN_AVERAGE), pairs, tests, predicted, targets)
    if not sharing.by_others:
        return
    sums: list[Pairs] = []
    for held in sharing.held:
        own = held.own_prediction()
        predicted = stored[place[held.participant] :][: len(own)], own
        pairs, targets = _pairs(held, predicted, mean)
        yield from _beside((held.participant, OWN_DECODER), pairs, tests, predicted, targets)
        if sharing.same_test:
            sums = _added(sums, pairs)
    if sharing.same_test:
        means = [
            {key: tuple(m / len(sharing.held) for m in both) for key, both in pairs.items()}
            for pairs in sums
        ]
        yield from _beside((MEAN, OWN_DECODER), means, tests)


def _pairs(
    held: Held, predicted: tuple[np.ndarray, np.ndarray], mean: np.ndarray
) -> tuple[list[Pairs], np.ndarray]:
    """Return the pair matrices of both predictions of a participant's test stimuli, and these."""
    targets = held.test.read(held.test.latents).astype(float)
    return [predicted_pairs(np.asarray(p, float), targets, mean) for p in predicted], targets


def _beside(
    names: tuple[str, str],
    pairs: list[Pairs],
    tests: Tests,
    predicted: tuple[np.ndarray, np.ndarray] | None = None,
    targets: np.ndarray | None = None,
) -> list[dict]:
    """Return the rows of a prediction, and of the one that stands beside it as a control."""
    columns = [None, None] if predicted is None else [(p, targets) for p in predicted]
    return [
        *score_rows(names[0], pairs[0], tests, columns=columns[0]),
        *score_rows(names[0], pairs[1], tests, names[1], columns[1]),
    ]


def _added(sums: list[Pairs], more: list[Pairs]) -> list[Pairs]:
    if not sums:
        return more
    return [
        {key: tuple(a + b for a, b in zip(one[key], other[key], strict=True)) for key in one}
        for one, other in zip(sums, more, strict=True)
    ]


def score_rows(
    name: str,
    pairs: Pairs,
    tests: Tests,
    control: str | None = None,
    columns: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[dict]:
    """Return rows of the table: value, interval and p of each score, and its controls.

    Parameters
    ----------
    name : str
        Whose prediction it is.
    pairs : Pairs
    tests : Tests
        Pairings are those of the participant level with the same seed and number of stimuli.
    control : str, optional
        As what it stands beside another prediction; then without controls of its own.
    columns : (predicted, targets), optional
        Of one prediction. None: the matrices are means of several participants'.
    """
    n = len(next(iter(pairs.values()))[0])
    rng = np.random.default_rng([tests.seed, n])
    matrices = [matrix for matrix, _ in pairs.values()]
    nulls = stats.pairing_nulls(matrices, tests.n_permutations, rng)
    rows = []
    for ((metric, variant), (matrix, constant)), null in zip(pairs.items(), nulls, strict=True):
        text = f"group/align/{name}/{control}/{metric}/{variant}"
        rng = np.random.default_rng([tests.seed, zlib.crc32(text.encode())])
        found = stats.score(matrix)
        p = stats.p_value(found["value"], null)
        base = {"participant": name, "metric": metric, "variant": variant, "n": found["n"]}
        interval = _interval((metric, variant), matrix, columns, rng)
        rows.append(base | {"control": control, "p": p} | found | interval)
        if control is None:
            mean, other = stats.score(constant)["value"], stats.mismatched(matrix)
            rows.append(base | {"control": "training_mean", "value": mean})
            rows.append(base | {"control": "mismatched", "value": other})
            guessed = chance(metric, n)
            if guessed is not None:
                rows.append(base | {"control": "chance", "value": guessed})
    return rows


def _interval(
    key: tuple[str, str],
    matrix: np.ndarray,
    columns: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
) -> dict:
    """Return the interval of a score as the participants' tables have it; of a mean, a bootstrap's.

    The correlation over stimuli is no mean over them; that of several participants has none.
    """
    if key[0] == "latent_correlation":
        if columns is None:
            return {"se": np.nan}
        se, low, high = stats.bootstrap_correlation(*columns, rng)
        return {"se": se, "ci_low": low, "ci_high": high, "interval": "bootstrap"}
    if columns is not None and counts_hits(*key, len(matrix)):
        low, high = stats.hits_interval(np.diag(matrix))
        return {"ci_low": low, "ci_high": high, "interval": "binomial"}
    _, low, high = stats.bootstrap_interval(np.diag(matrix), rng)
    return {"ci_low": low, "ci_high": high, "interval": "bootstrap"}


def write_decoded(output_dir: Path, decoded: Decoded, provenance: dict) -> None:
    """Write the table and the predicted latents; what is there is replaced only by other content.

    Where nobody was aligned, files of an earlier run are left without rows: they must not stand
    beside the tables of this one.
    """
    array = output_dir / f"{LATENTS}.npy"
    if decoded.sharing is None and not (output_dir / f"{TABLE}.tsv").is_file():
        return
    said = {**provenance, **decoded.said}
    if decoded.sharing is not None:
        files = [h.train.responses.relative_to(output_dir) for h in decoded.sharing.held]
        said["Sources"] = [f"bids::{file.as_posix()}" for file in files]
    _write_table(output_dir / TABLE, decoded.table, COLUMNS, said)
    if decoded.latents is None:
        with atomic(array, "wb") as stream:
            np.save(stream, np.zeros((0, 0), np.float32))
    elif not array.is_file() or sha256(array) != sha256(decoded.latents):
        with decoded.latents.open("rb") as source, atomic(array, "wb") as stream:
            while block := source.read(1 << 20):
                stream.write(block)
    text = "Latents predicted for test stimuli by participants' aligned responses."
    shape = [len(decoded.index), decoded.sharing.n_latents if decoded.sharing else 0]
    facts = {"Description": text, "Units": "latent", "Shape": shape, "DataType": "float32"}
    _write_table(output_dir / LATENTS, decoded.index, INDEX_COLUMNS, facts | said)


def _write_table(stem: Path, frame, columns: dict[str, str], said: dict) -> None:
    write_if_changed(stem.with_name(f"{stem.name}.tsv"), tsv_text(frame))
    described = {column: {"Description": text} for column, text in columns.items()}
    write_if_changed(stem.with_name(f"{stem.name}.json"), json_text({**said, **described}))


def on_page(decoded: Decoded):
    """Return the table as the page shows it: who is decoded how, in place of methods.

    Returns
    -------
    DataFrame or None
        Of participants by others the first twelve, with their main scores.
    """
    if decoded.sharing is None:
        return None
    table = decoded.table.copy()
    labels = [h.participant for h in decoded.sharing.held]
    names = {AVERAGE: "Mean responses", MEAN: f"By others, mean of {len(labels)}"}
    names |= {label: f"sub-{label} by others" for label in labels}
    main = [("two_way_identification", "latents"), ("latent_correlation", "n/a")]
    own = table["control"].isin((OWN_DECODER, OWN_AVERAGE))
    table.loc[own, "control"] = "own decoders"
    keys = list(zip(table["metric"], table["variant"], strict=True))
    shown = [
        name not in labels or (key in main and name in labels[:_ON_PAGE])
        for name, key in zip(table["participant"], keys, strict=True)
    ]
    table["method"] = table["participant"].map(names)
    order = {name: k for k, name in enumerate((AVERAGE, MEAN, *labels))}
    table = table[shown].sort_values("participant", key=lambda s: s.map(order), kind="stable")
    return table.drop(columns="participant")
