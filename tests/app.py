"""Helpers of the tests that run the whole app on small simulated datasets."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from hyper_bids import cli
from hyper_bids.simulation_settings import SimulationSettings

# Latents only, few voxels: a participant takes two seconds.
SMALL = SimulationSettings(
    n_participants=1,
    n_train_runs=3,
    n_test_runs=1,
    trials_per_run=24,
    n_test_stimuli=8,
    shape=(10, 12, 8),
    n_coding_voxels=60,
    n_latents=4,
    noise=(1.0,),
    generator="none",
)


def small(**changes):
    """Return the small settings with some replaced."""
    return dataclasses.replace(SMALL, **changes)


def run(bids_dir, out, *flags, level="participant", work=None, realign=False):
    """Run the app in this process, and return its exit status.

    The heads of simulated participants lie still, so that realignment is left out unless wanted.
    """
    argv = [str(bids_dir), str(out), level, "--skip-bids-validation", *map(str, flags)]
    if level == "participant":
        argv += ["-w", str(work or Path(out).with_name(f"{Path(out).name}-work"))]
        argv += [] if realign else ["--no-realign"]
    return cli.main(argv)


def find(out, ending, participant="01"):
    """Return the one output of a participant whose name ends so."""
    found = sorted(Path(out).glob(f"sub-{participant}/**/*{ending}"))
    assert len(found) == 1, (ending, found)
    return found[0]


def load(out, ending, participant="01"):
    """Return the array in an output."""
    return np.load(find(out, ending, participant), allow_pickle=False)


def table(out, ending, participant="01"):
    """Return the table in an output, n/a as NaN."""
    return pd.read_csv(find(out, ending, participant), sep="\t", na_values="n/a")


def fit_map(out, name, participant="01"):
    """Return a quantity of the model of the BOLD, x by y by z, None if it is not among them."""
    ending = "_desc-fit_statmap"
    names = [volume["Name"] for volume in sidecar(out, f"{ending}.json", participant)["Volumes"]]
    if name not in names:
        return None
    image = nibabel.load(find(out, f"{ending}.nii.gz", participant))
    assert image.shape[3] == len(names)
    return image.get_fdata()[..., names.index(name)]


def sidecar(out, ending, participant="01"):
    """Return the JSON object in an output."""
    return json.loads(find(out, ending, participant).read_text("utf-8"))


def figures(out, page="sub-01.html"):
    """Return the figures that a page holds, section to PNG."""
    sections = (Path(out) / page).read_text("utf-8").split("<section id=")[1:]
    found = {}
    for section in sections:
        for content in re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="[^"]', section):
            key = re.match(r'"(\w+)">', section)[1]
            found[key] = base64.b64decode(content, validate=True)
            assert found[key].startswith(b"\x89PNG")
    return found


def scores(out, metric, variant="n/a", participant="01"):
    """Return value and p of a score (under "score"), and the values of its controls."""
    frame = table(out, "_desc-summary_metrics.tsv", participant).fillna({"variant": "n/a"})
    frame = frame[(frame["metric"] == metric) & (frame["variant"] == variant)]
    main = frame[frame["control"].isna()].iloc[0]
    controls = frame.dropna(subset=["control"]).set_index("control")["value"].to_dict()
    return {"score": main["value"], "p": main["p"], **controls}


def contents(folder, *patterns):
    """Return the bytes of the files that match, by name."""
    found = {}
    for pattern in patterns or ("**/*",):
        for path in sorted(Path(folder).glob(pattern)):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def edit_events(bids_dir, change):
    """Replace each events table by what ``change(frame, rng)`` makes of it."""
    rng = np.random.default_rng(5)
    for path in sorted(Path(bids_dir).glob("sub-*/**/*_events.tsv")):
        frame = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
        change(frame, rng).to_csv(path, sep="\t", index=False)


def bids_errors(folder):
    """Return what the BIDS validator calls errors; skip the test where it is not installed."""
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    result = subprocess.run(
        [program, "--no-color", "--format", "json", "--max-rows=-1", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(result.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]
