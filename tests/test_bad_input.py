"""Wrong input ends before any long work, with one line that says what is wrong and where."""

import json
import os
import shutil
import sys
from pathlib import Path

import bids_tree
import nibabel
import numpy as np
import pytest

from hyper_bids import cli

EVENTS = "sub-01_task-faces_run-01_events.tsv"


@pytest.fixture
def tree(tmp_path):
    """Return a dataset of one participant with four latents and no images."""
    return bids_tree.make_dataset(tmp_path / "ds", participants=("01",), key="stim_id")


@pytest.fixture
def refused(said, monkeypatch, tmp_path):
    """Return a function that runs the app, and checks how it refuses.

    It must end with ``status``, say so in its last line, which has all ``words``, leave the dataset
    as it was and write nothing.
    """
    monkeypatch.chdir(tmp_path)

    def check(bids_dir, *flags, status, words, out="out", level="participant"):
        before = snapshot(tmp_path)
        argv = [str(bids_dir), str(out), level, "--skip-bids-validation", *flags]
        assert cli.main(argv) == status, said.text
        last = said.records[-1].getMessage()
        for word in words:
            assert word in last, last
        assert "\n" not in last
        assert last.endswith(f"(exit status {status})")
        assert "Traceback" not in said.text
        assert snapshot(tmp_path) == before

    return check


def snapshot(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def stem(tree, run="01"):
    return bids_tree.stem_of(tree, "01", run=run)


def events(tree, run="01"):
    return f"{stem(tree, run)}_events.tsv"


def test_the_dataset_of_these_tests_is_accepted_as_it_is(tree, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(tree), "out", "participant", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "sub-01: 3 runs, 12 training trials, 6 test trials of 3 stimuli" in printed
    assert not Path("out").exists()
    assert not Path("work").exists()


def test_a_folder_that_is_no_dataset(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    refused("empty", status=65, words=["empty", "dataset_description.json"])


def test_a_participant_that_is_not_there(tree, refused):
    refused(tree, "--participant-label", "77", status=64, words=["77", "there are 01"])


def test_no_events(tree, refused):
    for path in tree.glob("sub-01/func/*_events.tsv"):
        path.unlink()
    refused(tree, status=65, words=["sub-01", "no events"])


def test_an_unknown_stimulus(tree, refused):
    bids_tree.edit_tsv(events(tree), lambda rows: rows[2].update(stim_id="face999"))
    refused(tree, status=65, words=[EVENTS, "line 4", "column stim_id", "'face999'"])


def test_a_latent_row_out_of_range(tree, refused):
    table = tree / "stimuli" / "latents.tsv"
    bids_tree.edit_tsv(table, lambda rows: rows[0].update(latent_row=400))
    refused(tree, status=65, words=["latents.tsv", "line 2", "latent_row", "400", "0 to 14"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_not_finite(tree, refused, value):
    path = tree / "stimuli" / "latents.npy"
    latents = np.load(path)
    latents[3, 2] = value
    np.save(path, latents)
    refused(tree, status=65, words=["latents.npy", "row 3", "column 2", str(value)])


def test_latents_of_another_size_than_the_generator_takes(tree, refused):
    refused(tree, "--generator", "demo", status=64, words=["--generator demo", "100", "4"])


def test_a_generator_that_is_not_there(tree, refused):
    refused(tree, "--generator", "no.safetensors", status=64, words=["--generator", "no.safeten"])


@pytest.mark.parametrize("missing", ["train", "test"])
def test_no_trials_of_one_set(tree, refused, missing):
    other = {"train": "test", "test": "train"}[missing]
    for run in ("01", "02", "03"):
        bids_tree.edit_tsv(
            events(tree, run), lambda rows: [row.update(split=other) for row in rows]
        )
    refused(tree, status=65, words=[f"no {missing} trials", "split column"])


def test_a_stimulus_in_both_sets(tree, refused):
    bids_tree.edit_tsv(events(tree, "03"), lambda rows: rows[0].update(stim_id="face001"))
    words = ["face001", EVENTS, "line 2", "run-03_events.tsv", "--allow-shared-stimuli"]
    refused(tree, status=65, words=words)


def test_nothing_that_says_which_trials_test(tmp_path, refused):
    tree = bids_tree.make_dataset(tmp_path / "ds", ("01",), key="stim_id", split=None)
    words = ["split", "trial_type", "--test-run-id", "--test-repeated"]
    refused(tree, status=64, words=words)


def test_a_repetition_time_that_is_nowhere(tree, refused):
    (tree / "task-faces_bold.json").write_text("{}", "utf-8")
    bids_tree.write_bold(f"{stem(tree)}_bold.nii.gz", t_r=None)
    refused(tree, status=65, words=["run-01_bold.nii.gz", "RepetitionTime"])


def test_repetition_times_that_disagree(tree, refused):
    bids_tree.write_json(f"{stem(tree)}_bold.json", {"RepetitionTime": 1.0})
    refused(tree, status=65, words=["run-01_bold.nii.gz", "1 s in the sidecars", "2 s"])


def test_an_event_past_the_end_of_the_scan(tree, refused):
    bids_tree.edit_tsv(events(tree), lambda rows: rows[5].update(onset=900))
    refused(tree, status=65, words=[EVENTS, "line 7", "column onset", "900", "60 s"])


@pytest.mark.parametrize("what", ["shape", "affine"])
def test_a_mask_on_another_grid(tree, refused, what):
    folder = bids_tree.make_derivative(tree)
    path = next(folder.glob("sub-01/func/*run-02*_mask.nii.gz"))
    shape = (4, 5, 4) if what == "shape" else (4, 5, 3)
    affine = np.diag([2.0, 2, 2, 1]) if what == "shape" else np.diag([2.0, 2, 3, 1])
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), path)
    refused(tree, "-d", str(folder), status=65, words=[path.name, what])


def test_a_decoder_mask_on_another_grid(tree, refused, tmp_path):
    image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "roi.nii.gz")
    refused(tree, "--decoder-mask", "roi.nii.gz", status=65, words=["--decoder-mask roi.nii.gz"])


def test_a_truncated_image(tree, refused):
    path = Path(f"{stem(tree, '02')}_bold.nii.gz")
    path.write_bytes(path.read_bytes()[:-3000])
    refused(tree, status=65, words=[path.name, "truncated"])


def test_an_output_folder_inside_the_dataset(tree, refused):
    refused(tree, status=64, out=tree / "results", words=["output_dir", "derivatives"])
    refused(tree, status=64, out=tree, words=["output_dir", "bids_dir itself"])
    refused(tree, status=64, out=tree / "sub-01" / "out", words=["output_dir", "sub-01/out"])


def test_an_output_folder_that_cannot_be_written(tree, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(tree, status=73, out=tmp_path / "file" / "out", words=["output_dir", "file"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may write everywhere")
def test_an_output_folder_without_rights(tree, refused, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    refused(tree, status=73, out=tmp_path / "closed" / "out", words=["output_dir", "closed"])


def test_another_program_s_derivatives(tree, refused, tmp_path):
    description = {"Name": "x", "BIDSVersion": "1.11.1", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    bids_tree.write_json(tmp_path / "out" / "dataset_description.json", description)
    refused(tree, status=73, words=["out", "fMRIPrep"])


def test_a_gpu_that_is_not_there(tree, refused):
    torch = pytest.importorskip("torch")
    index = torch.cuda.device_count()
    flag = f"cuda:{index}"
    refused(tree, "--device", flag, status=69, words=[f"--device {flag}", "Use auto or cpu"])


def test_more_regressors_than_volumes(tree, refused):
    refused(tree, "--drift-order", "25", status=65, words=["run-01_bold", "6 trials", "30"])


@pytest.mark.parametrize("flags", [(), ("--betas", "lsa"), ("--drift-order", "4")])
def test_more_noise_components_than_volumes_have_room_for(tree, refused, flags):
    words = ["run-01_bold", "22 noise components", "Lower --noise-components"]
    refused(tree, "--noise-components", "22", *flags, status=65, words=words)


def test_trials_that_cannot_be_told_apart(tree, refused):
    bids_tree.edit_tsv(events(tree), lambda rows: rows[3].update(onset=rows[2]["onset"]))
    for flags in ((), ("--betas", "lss")):
        words = [EVENTS, "lines 4, 5", "column onset", "cannot be told"]
        refused(tree, *flags, status=65, words=words)


def test_a_trial_within_the_dropped_volumes(tree, refused):
    refused(tree, "--dummy-scans", "2", status=65, words=[EVENTS, "line 2", "--dummy-scans"])


@pytest.mark.parametrize(("cv", "status"), [("13", 64), ("runs", 65)])
def test_folds_that_the_training_trials_do_not_fill(tmp_path, refused, cv, status):
    tree = bids_tree.make_dataset(
        tmp_path / "ds", ("01",), runs=("01", "02"), trials_per_run=10, n_volumes=50, key="stim_id"
    )
    refused(tree, "--cv", cv, status=status, words=[f"--cv {cv}", "training trials"])


def test_one_test_stimulus_only(tree, refused):
    bids_tree.edit_tsv(
        events(tree, "03"),
        lambda rows: [row.update(split="n/a") for row in rows if row["stim_id"] != "face013"],
    )
    refused(tree, status=65, words=["1 stimulus", "at least 2"])


def test_images_that_are_named_but_not_there(tmp_path, refused):
    tree = bids_tree.make_dataset(tmp_path / "ds", ("01",), n_latents=100)
    for image in (tree / "stimuli").glob("face01[3-5].png"):
        image.unlink()
    refused(tree, "--generator", "demo", status=65, words=["face013.png", "not there"])


def test_images_that_are_none(tmp_path, refused):
    tree = bids_tree.make_dataset(tmp_path / "ds", ("01",), n_latents=100)
    words = ["face013.png", "not a readable picture"]
    refused(tree, "--generator", "demo", status=65, words=words)
    for content, word in (
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"/annex/objects/MD5E-s9--0.png\n", "git-annex"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
    ):
        (tree / "stimuli" / "face013.png").write_bytes(content)
        refused(tree, "--generator", "demo", status=65, words=["face013.png", word])


def test_all_that_is_wrong_with_several_participants_is_listed(tmp_path, refused, said):
    tree = bids_tree.make_dataset(tmp_path / "ds", ("01", "02", "03"), key="stim_id")
    for label in ("01", "03"):
        Path(f"{bids_tree.stem_of(tree, label, run='02')}_events.tsv").unlink()
    refused(tree, status=65, words=["2 of 3 participants", "sub-01", "sub-03"])
    assert sum("there are no events of this run" in text for text in said.messages) == 2
    refused(tree, "--participant-label", "sub-03", status=65, words=["run-02"])


def test_a_label_image_without_the_labels_that_were_asked_for(tree, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    bold = nibabel.load(f"{stem(tree)}_bold.nii.gz")
    labels = nibabel.Nifti1Image(np.full(bold.shape[:3], 3, np.uint8), bold.affine)
    nibabel.save(labels, "atlas.nii.gz")
    flags = ["--decoder-mask", "atlas.nii.gz", "--mask-labels", "7"]
    assert cli.main([str(tree), "out", "participant", *flags]) == 64
    assert "--mask-labels 7" in said.messages[-1]
    assert "labels 3" in said.messages[-1]


def test_bids_errors_are_told_by_the_validator_unless_it_is_skipped(tree, tmp_path, said):
    if shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("bids-validator-deno is not installed")
    sidecar = json.loads((tree / "task-faces_bold.json").read_text("utf-8"))
    (tree / "task-faces_bold.json").write_text(json.dumps({**sidecar, "RepetitionTime": "2"}))
    assert cli.main([str(tree), str(tmp_path / "out"), "participant", "--dry-run"]) == 65
    assert "BIDS validator" in said.messages[-1]
    assert "--skip-bids-validation" in said.messages[-1]
