"""Results of participants with known numbers, as their jobs publish them; and the group of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyper_bids import arguments, figures, group
from hyper_bids.bids.outputs import Fragment, output_path, publish
from hyper_bids.participant.presenting import SUMMARY_COLUMNS

KEYS = (
    ("latent_correlation", "n/a"),
    ("two_way_identification", "latents"),
    ("structural_similarity", "reference"),
)
IDENTIFICATION = KEYS[1]
N_NULL = 200
N_STIMULI = 6


def planted(rng, keys=KEYS, n_null=N_NULL, n_stimuli=N_STIMULI) -> dict[tuple[str, str], dict]:
    """Return random numbers for each score: value, spread over stimuli, controls, null."""
    found = {}
    for key in keys:
        null = rng.normal(0.5, 0.05, n_null)
        spread = rng.normal(0, 0.1, n_stimuli)
        found[key] = {
            "value": float(rng.normal(0.52, 0.03)),
            "spread": spread - spread.mean(),
            "controls": {"training_mean": float(rng.uniform()), "mismatched": float(rng.uniform())},
            "null": null,
            "p": 0.04,
        }
        if key == IDENTIFICATION:
            found[key]["controls"]["chance"] = 0.5
    return found


def names_of(n: int) -> list[str]:
    return [f"face{k:03d}" for k in range(n)]


def write_scores(
    output_dir, label, found, task="faces", absent=(), others=None, stimuli=None, **said
) -> Path:
    """Write a participant's scores as its job publishes them; return the table's path.

    Parameters
    ----------
    found : dict
        What :func:`planted` gives, of ``hyper``; ``others`` is the same of more methods, by name.
    absent : sequence of key
        Scores without a value (n/a), as of a network that was not given.
    stimuli : list of str
        Keys of the test stimuli.
    **said
        More of the sidecars: ``Simulated``, ``SoftwareVersion``, ``Settings``, ``RandomSeed``.
        ``decoder`` is what the decoder's sidecar says.
    """
    decoder = said.pop("decoder", None)
    of_methods = {"hyper": found, **(others or {})}
    entities = {"subject": label, "task": task}
    part = Path(output_dir).parent / "parts" / f"{label}-{task}"
    fragment = Fragment(part, entities, {"Sources": [], "Simulated": False, **said})
    rows = [row for name, scores in of_methods.items() for row in _rows(name, scores)]
    rows += [{"method": "hyper", "metric": m, "variant": v} for m, v in absent]
    table = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    table["n"] = table["n"].astype("Int64")
    fragment.table("summary_metrics", table, SUMMARY_COLUMNS)
    tables = [_of_stimuli(name, scores, stimuli) for name, scores in of_methods.items()]
    table = pd.concat(tables, ignore_index=True)
    fragment.table("perstim_metrics", table, dict.fromkeys(table.columns, "A column."))
    nulls = {
        (method, *key): one["null"]
        for method, scores in of_methods.items()
        for key, one in scores.items()
        if "null" in one
    }
    with fragment.file("null_metrics", "Nulls.", Scores=[list(key) for key in nulls]) as path:
        np.save(path, np.stack(list(nulls.values())).astype(np.float32))
    if decoder is not None:
        decoding = Fragment(part.with_name(f"{part.name}-decoder"), entities, decoder)
        with decoding.file("decoder", "A decoder.") as path:
            np.savez(path, weights=np.zeros(2))
        decoding.close()
        publish([decoding.folder], output_dir)
    fragment.close()
    publish([part], output_dir)
    return Path(output_dir) / output_path("summary_metrics", entities)


def _rows(method: str, found: dict) -> list[dict]:
    rows = []
    for (metric, variant), scores in found.items():
        base = {"method": method, "metric": metric, "variant": variant, "n": 30}
        value = scores["value"]
        rows.append(
            base
            | {"control": None, "value": value, "se": 0.01, "ci_low": value - 0.02}
            | {"ci_high": value + 0.02, "p": scores.get("p")}
        )
        rows += [base | {"control": c, "value": v} for c, v in scores["controls"].items()]
    return rows


def _of_stimuli(method: str, found: dict, stimuli=None) -> pd.DataFrame:
    held = {key: scores for key, scores in found.items() if "spread" in scores}
    n = len(next(iter(held.values()))["spread"]) if held else N_STIMULI
    table = pd.DataFrame({"method": method, "stim_id": stimuli or names_of(n)})
    table["n_presentations"] = 1
    for (metric, variant), scores in held.items():
        name = metric if variant == "n/a" else f"{metric} ({variant})"
        table[name] = scores["value"] + scores["spread"]
    return table


def make_group(output_dir, rng, labels=("01", "02", "03"), **said) -> dict[str, dict]:
    """Write scores of several participants; return what was planted."""
    found = {label: planted(rng) for label in labels}
    for label, scores in found.items():
        write_scores(output_dir, label, scores, **said)
    return found


def run(output_dir, *words: str, bids_dir="no such folder", draw=False) -> None:
    """Run the group level as from the command line, without drawing unless told."""
    settings, _ = arguments.parse([str(bids_dir), str(output_dir), "group", *words])
    with pytest.MonkeyPatch.context() as patched:
        if not draw:
            patched.setattr(figures, "group_scores", lambda table, label: None)
            patched.setattr(figures, "save", lambda figure, stream: stream.write(b"figure"))
        group.group_level(settings)


def read(output_dir, name: str) -> pd.DataFrame:
    frame = pd.read_csv(
        Path(output_dir) / f"{name}.tsv", sep="\t", na_values="n/a", keep_default_na=False,
        dtype={"participant": str},
    )  # fmt: skip
    return frame.fillna({n: "n/a" for n in ("variant", "control") if n in frame})


def stat(output_dir, key, control="n/a") -> pd.Series:
    """Return the one line of the group's statistics that has this score and control."""
    frame = read(output_dir, "group_stats")
    found = frame[
        (frame["metric"] == key[0]) & (frame["variant"] == key[1]) & (frame["control"] == control)
    ]
    assert len(found) == 1
    return found.iloc[0]


def page(output_dir) -> str:
    return (Path(output_dir) / "group.html").read_text(encoding="utf-8")
