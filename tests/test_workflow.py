"""What is computed again and what is not, and what one participant's failure means for others."""

import json
import os
import re
import shutil
from pathlib import Path

import app
import nibabel
import numpy as np
import pytest

from hyper_bids.simulate.dataset import simulate

ALL = ["responses", "decoding", "maps", "scores"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return a simulated dataset of two participants, without images."""
    return simulate(tmp_path_factory.mktemp("workflow") / "ds", app.small(n_participants=2))


@pytest.fixture
def dataset(template, tmp_path):
    """Return a copy of it, to change."""
    return shutil.copytree(template, tmp_path / "ds")


@pytest.fixture
def computed(dataset, tmp_path, said):
    """Return a function that runs a participant, and returns what it computed."""

    def run(*flags):
        said.clear()
        flags = ("--participant-label", "01", *flags)
        assert app.run(dataset, tmp_path / "out", *flags) == 0
        line = next(text for text in said.messages if text.startswith("sub-01: computed"))
        found = re.fullmatch(r"sub-01: computed (.*); reused (.*)", line)
        run.log = said.messages
        return found[1].split(", ")

    return run


def states(folder):
    """Return size and time of each file but the log's."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
        for path in Path(folder).rglob("*")
        if path.is_file() and "logs" not in path.relative_to(folder).parts
    }


def damage(dataset, participant, shift):
    """Shift the signal of one of the participant's runs."""
    for path in dataset.glob(f"sub-{participant}/func/*run-03_bold.nii.gz"):
        image = nibabel.load(path)
        data = (image.get_fdata() + shift).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(data, image.affine, image.header), path)


def test_a_second_run_computes_and_writes_nothing_and_says_so(computed, tmp_path):
    assert computed() == ALL
    before = states(tmp_path / "out")
    assert computed() == ["nothing"]
    assert any("nothing was computed again" in text for text in computed.log)
    assert states(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--decoder", "ols", "--n-voxels", "50"), ["decoding", "maps", "scores"]),
        (("--cv", "4"), ["decoding", "maps", "scores"]),
        (("--n-permutations", "50"), ["scores"]),
        (("--drift-order", "1"), ALL),
        (("--betas", "lss", "--hrf", "spm"), ALL),
        (("--noise-model", "ols", "--noise-components", "0", "--shrinkage", "none"), ALL),
        (("--nprocs", "1", "--device", "cpu", "--mem-mb", "4000"), ["nothing"]),
    ],
)
def test_a_changed_setting_redoes_what_hangs_on_it(computed, flags, expected):
    computed()
    assert computed(*flags) == expected


def test_results_after_changes_are_those_of_a_fresh_run(computed, dataset, tmp_path):
    computed("--decoder", "dense", "--epochs", "2")
    computed("--decoder", "ols", "--n-voxels", "50")
    flags = ("--participant-label", "01", "--decoder", "ols", "--n-voxels", "50")
    assert app.run(dataset, tmp_path / "fresh", *flags) == 0
    kept, fresh = (
        app.contents(tmp_path / name, "sub-01/**/*", "sub-01.html") for name in ("out", "fresh")
    )
    assert {name: kept[name] for name in fresh} == fresh
    # A file of the first run that the second has no place for is not deleted.
    extra = {name for name in kept if name not in fresh}
    assert all("curve" in name for name in extra)
    assert 'id="curve"' not in kept["sub-01.html"].decode("utf-8")


def test_a_page_that_alone_is_made_again_still_has_the_figures_of_stages_that_were_kept(
    computed, tmp_path
):
    computed()
    before = app.figures(tmp_path / "out")
    assert {"voxels", "curve", "encoding", "null", "pairs", "model"} <= set(before)
    assert computed("--n-permutations", "50") == ["scores"]
    after = app.figures(tmp_path / "out")
    assert set(after) == set(before)
    assert {name for name in before if after[name] != before[name]} == {"null"}


def test_figures_are_files_where_asked_for_and_those_that_are_there_stay_up_to_date(
    computed, tmp_path
):
    def files():
        found = app.contents(tmp_path / "out" / "sub-01" / "figures")
        return {name.split("desc-")[1].removesuffix("_figure.png"): found[name] for name in found}

    computed()
    assert not list((tmp_path / "out").rglob("*.png"))
    # There are no images in this dataset: the stages give what they gave.
    assert computed("--write-images") == ["scores"]
    first = files()
    assert first == app.figures(tmp_path / "out")
    (tmp_path / "out" / "sub-01" / "figures" / "mine.png").write_bytes(b"mine")
    app.find(tmp_path / "out", "desc-pairs_figure.png").unlink()
    computed("--n-permutations", "50")
    (tmp_path / "out" / "sub-01" / "figures" / "mine.png").rename(tmp_path / "mine.png")
    assert set(files()) == set(first) - {"pairs"}
    assert files()["null"] == app.figures(tmp_path / "out")["null"] != first["null"]
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_a_touched_image_is_estimated_again_but_an_equal_result_ends_there(computed, dataset):
    computed()
    bold = next(dataset.glob("sub-01/func/*run-02_bold.nii.gz"))
    os.utime(bold, ns=(bold.stat().st_atime_ns, bold.stat().st_mtime_ns + 10**9))
    assert computed() == ["responses"]


def test_changed_latents_are_seen(computed, dataset, tmp_path):
    computed()
    before = app.load(tmp_path / "out", "_desc-predicted_latents.npy")
    path = dataset / "stimuli" / "latents.npy"
    np.save(path, -np.load(path))
    # The first stage looks at them to choose a model of the BOLD.
    assert computed() == ALL
    np.testing.assert_allclose(
        app.load(tmp_path / "out", "_desc-predicted_latents.npy"), -before, atol=1e-5
    )


def test_an_interrupted_publication_is_made_up_for(computed, tmp_path):
    computed()
    path = app.find(tmp_path / "out", "_desc-summary_metrics.tsv")
    content = path.read_bytes()
    path.unlink()
    assert computed() == ["nothing"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("plugin", ["linear", "multiproc"])
def test_a_failure_leaves_other_participants_alone(dataset, tmp_path, said, plugin):
    # Signal around zero has no percent: only the estimation sees that.
    damage(dataset, "01", -5000)
    out = tmp_path / "out"
    assert app.run(dataset, out, "--use-plugin", plugin, "--nprocs", "2") == 1
    assert "1 of 2 participants failed: sub-01" in said.messages[-1]
    assert said.messages[-1].endswith("(exit status 1)")
    reason = next(text for text in said.messages if text.startswith("sub-01 failed: "))
    assert "run-03_bold" in reason
    assert "percent signal change is undefined" in reason
    assert "\n" not in reason
    (crash,) = out.glob("logs/sub-01/*/crash-*.txt")
    assert str(crash) in reason
    assert (out / "sub-02.html").is_file()
    assert not list(out.glob("sub-01*"))
    assert app.run(dataset, out, level="group") == 0
    assert json.loads((out / "group_metrics.json").read_text("utf-8"))["Missing"] == ["01"]


def test_a_failure_does_not_pass_an_old_result_for_a_new_one(dataset, tmp_path):
    out = tmp_path / "out"
    assert app.run(dataset, out, "--participant-label", "01") == 0
    before = states(out)
    damage(dataset, "01", -5000)
    assert app.run(dataset, out, "--participant-label", "01") == 1
    assert states(out) == before
    assert app.run(dataset, out, "--participant-label", "01") == 1


def test_a_job_of_one_participant_writes_nothing_of_another(dataset, tmp_path):
    out = tmp_path / "out"
    assert app.run(dataset, out, "--participant-label", "02") == 0
    names = {path.relative_to(out).parts[0] for path in out.rglob("*")}
    root = {"dataset_description.json", "README.md", "descriptions.tsv", "descriptions.json"}
    assert names == {"sub-02", "sub-02.html", "logs", ".bidsignore"} | root
    before = states(out)
    assert app.run(dataset, out, "--participant-label", "01") == 0
    after = states(out)
    assert {path: after[path] for path in before} == before


def test_the_run_s_record_is_a_configuration_that_runs_the_same(dataset, tmp_path):
    out = tmp_path / "out"
    flags = ("--participant-label", "01", "--n-voxels", "33", "--cv", "5", "--random-seed", "7")
    assert app.run(dataset, out, *flags) == 0
    (record,) = out.glob("logs/sub-01/*/hyper_bids.toml")
    assert app.run(dataset, tmp_path / "again", "--config-file", record) == 0
    pattern = "sub-01/func/*"
    assert app.contents(tmp_path / "again", pattern) == app.contents(out, pattern)


def test_a_run_without_trials_is_left_out_and_told(dataset, tmp_path, said):
    out = tmp_path / "out"
    flags = ("--participant-label", "01")
    for name in ("bold.nii.gz", "events.tsv"):
        there = dataset / "sub-01" / "func" / f"sub-01_task-faces_run-04_{name}"
        shutil.copy(there, str(there).replace("run-04", "run-05"))
    path = dataset / "sub-01" / "func" / "sub-01_task-faces_run-05_events.tsv"
    path.write_text(path.read_text("utf-8").replace("\ttrain", "\tn/a"), "utf-8")
    assert app.run(dataset, out, *flags) == 0
    assert any("run-05_bold.nii.gz" in text and "left out" in text for text in said.messages)
    assert app.run(dataset, tmp_path / "four", *flags, "--run-id", "1", "2", "3", "4") == 0
    pattern = "sub-01/func/*_latents.npy"
    assert app.contents(out, pattern) == app.contents(tmp_path / "four", pattern)


@pytest.mark.parametrize(("flags", "n_done"), [((), 1), (("--stop-on-first-crash",), 0)])
def test_after_a_failure_others_go_on_unless_told_to_stop(dataset, tmp_path, flags, n_done):
    damage(dataset, "01", -5000)
    assert app.run(dataset, tmp_path / "out", "--use-plugin", "linear", *flags) == 1
    assert len(list((tmp_path / "out").glob("sub-*.html"))) == n_done


@pytest.mark.parametrize("left", [0.0, 1.0])
def test_signal_without_its_baseline_is_refused(dataset, tmp_path, said, left):
    for path in dataset.glob("sub-01/func/*run-03_bold.nii.gz"):
        image = nibabel.load(path)
        data = image.get_fdata()
        data += left - data.mean(axis=-1, keepdims=True)
        header = image.header
        nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), image.affine, header), path)
    assert app.run(dataset, tmp_path / "out", "--participant-label", "01") == 1
    assert any("cleaned or demeaned data" in text for text in said.messages)


def test_an_interruption_ends_the_run_at_once_with_130(dataset, tmp_path, said, monkeypatch):
    from hyper_bids.participant import responses

    calls = []

    def interrupted(job, folder, motion=None):
        calls.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(responses, "estimate_responses", interrupted)
    assert app.run(dataset, tmp_path / "out", "--use-plugin", "linear") == 130
    assert len(calls) == 1
    assert "Interrupted" in said.messages[-1]
    monkeypatch.undo()
    assert app.run(dataset, tmp_path / "out", "--participant-label", "01") == 0


def test_a_dry_run_of_the_group_writes_nothing_and_names_the_tables(dataset, tmp_path, said):
    out = tmp_path / "out"
    assert app.run(dataset, out, "--participant-label", "01") == 0
    before = states(out)
    assert app.run(dataset, out, "--dry-run", level="group") == 0
    assert states(out) == before
    assert any("_desc-summary_metrics.tsv" in text for text in said.messages)
