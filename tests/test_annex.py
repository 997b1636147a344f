"""Datasets of DataLad and git-annex: what is absent is told at once, with what fetches it.

`annexed` makes of a file what `datalad clone`, `datalad get`, `git annex unlock` and `git annex
drop` make of it (looked up with git-annex 10.20230126 and DataLad 0.18).
"""

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import app
import bids_tree
import pytest

from hyper_bids import cli
from hyper_bids.bids import fetched
from hyper_bids.errors import InputError, NotFetchedError


def annexed(root, path, state, git=".git"):
    """Make of a file a link to its content (`here`), to none (`absent`), or a text (`pointer`)."""
    path, root = Path(path), Path(root)
    content = path.read_bytes()
    suffix = "".join(path.suffixes[-2:])
    key = f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}{suffix}"
    target = root / git / "annex" / "objects" / "G7" / "8j" / key / key
    (root / git / "annex").mkdir(parents=True, exist_ok=True)
    path.unlink()
    if state == "pointer":
        path.write_text(f"/annex/objects/{key}\n")
        return target
    path.symlink_to(os.path.relpath(target, path.parent))
    if state == "here":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o444)
        target.parent.chmod(0o555)
    return target


def fetch_all(root, command, originals):
    """Do what the command of a message would: the shell expands its words, and files are filled."""
    folder, _, words = command.partition(" && datalad get ")
    assert folder == f"cd {shlex.quote(str(root))}"
    listed = subprocess.run(
        ["bash", "-c", f"cd {root} && printf '%s\\n' {words}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in listed:
        path = root / name
        assert path.is_symlink() or path.is_file(), f"the command names {name}, which is not there"
        if name in originals and fetched.is_absent(path):
            path.unlink()
            path.write_bytes(originals[name])
    return listed


@pytest.fixture
def tree(tmp_path):
    return bids_tree.make_dataset(tmp_path / "ds", ("01", "02", "03"), key="stim_id")


@pytest.fixture
def told(said, tmp_path, monkeypatch):
    """Return a function that runs the app and returns its last line; nothing may be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hyper_bids.container.kind", lambda environment=None: None)

    def run(bids_dir, *flags, status=65):
        argv = [str(bids_dir), "out", "participant", "--skip-bids-validation", *map(str, flags)]
        assert cli.main(argv) == status, said.text
        assert "Traceback" not in said.text
        assert not Path("out").exists() or status == 0
        assert not Path("work").exists() or status == 0
        last = said.records[-1].getMessage()
        assert "\n" not in last
        return last.removesuffix(f" (exit status {status})")

    return run


def bold_of(tree, *labels):
    return [p for label in labels for p in sorted(tree.glob(f"sub-{label}/func/*_bold.nii.gz"))]


@pytest.mark.parametrize("state", ["absent", "pointer"])
def test_bold_that_was_not_fetched_is_told_of_all_participants_at_once(tree, told, state):
    paths = [*bold_of(tree, "01", "03"), tree / "stimuli" / "latents.npy"]
    originals = {p.relative_to(tree).as_posix(): p.read_bytes() for p in paths}
    for path in paths:
        annexed(tree, path, state)
    last = told(tree, "--dry-run")
    assert "7 files are here without content (git-annex) of 2 participants" in last
    assert str(paths[0]) in last
    assert "and 4 more" in last
    command = last.partition("then run again: ")[2]
    named = fetch_all(tree, command, originals)
    assert set(named) == set(originals)
    told(tree, "--dry-run", status=0)


def test_links_to_content_that_is_here_are_read_as_files(tree, told, tmp_path):
    for path in (*tree.rglob("*.nii.gz"), *tree.rglob("*.tsv"), *tree.rglob("*.npy")):
        annexed(tree, path, "here")
    for path in tree.glob("*.json"):
        annexed(tree, path, "here")
    told(tree, "--dry-run", status=0)


def test_participants_that_were_not_asked_for_may_be_absent(tree, told):
    for path in bold_of(tree, "02", "03"):
        annexed(tree, path, "absent")
    told(tree, "--dry-run", "--participant-label", "01", status=0)
    last = told(tree, "--dry-run", "--participant-label", "01", "02")
    assert "3 files are here without content (git-annex) of 1 participant" in last
    assert "sub-03" not in last


def test_runs_that_were_not_asked_for_may_be_absent(tree, told):
    paths = bold_of(tree, "01")
    annexed(tree, paths[0], "absent")
    label = ("--participant-label", "01", "--dry-run")
    told(tree, *label, "--run-id", "02", "03", status=0)
    last = told(tree, *label)
    assert last.endswith(f"datalad get sub-01/func/{paths[0].name}")


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/func/sub-01_task-faces_run-02_events.tsv", "task-faces_bold.json",
        "stimuli/latents.tsv", "stimuli/latents.json", "stimuli/latents.npy",
    ],
)  # fmt: skip
@pytest.mark.parametrize("state", ["absent", "pointer"])
def test_each_kind_of_raw_file_is_told_with_its_command(tree, told, name, state):
    annexed(tree, tree / name, state)
    last = told(tree, "--participant-label", "01")
    assert "1 file is here without content" in last
    assert last.endswith(f"cd {tree} && datalad get {name}")


@pytest.mark.parametrize(
    "ending", ["desc-brain_mask.nii.gz", "desc-confounds_timeseries.tsv", "desc-preproc_bold.json"]
)
def test_preprocessed_data_are_told_from_the_root_of_the_derivative(tree, told, ending, tmp_path):
    folder = bids_tree.make_derivative(tree, tmp_path / "fmri prep")
    for path in folder.glob(f"sub-02/func/*{ending}"):
        annexed(folder, path, "absent")
    # The raw BOLD is not needed beside preprocessed data.
    for path in bold_of(tree, "01", "02", "03"):
        annexed(tree, path, "absent")
    last = told(tree, "-d", folder)
    assert "3 files are here without content" in last
    assert "cd '" in last
    assert str(folder) in last
    assert f"{ending}" in last.partition("datalad get")[2]


def test_raw_and_preprocessed_data_are_fetched_by_one_line(tree, told, tmp_path):
    folder = bids_tree.make_derivative(tree, tmp_path / "fmriprep")
    annexed(folder, next(folder.glob("sub-02/func/*run-01*_mask.nii.gz")), "absent")
    annexed(tree, tree / "stimuli" / "latents.npy", "absent")
    last = told(tree, "-d", folder)
    assert f"(cd {folder} && datalad get sub-02/func/" in last
    assert f"(cd {tree} && datalad get stimuli/latents.npy)" in last
    assert ") && (" in last


def with_images(tmp_path):
    return bids_tree.make_dataset(tmp_path / "ds", ("01", "02"), n_latents=100)


def test_images_of_test_stimuli_are_told_together(tmp_path, told):
    tree = with_images(tmp_path)
    test = [tree / "stimuli" / f"face0{k}.png" for k in (13, 14, 15)]
    for path in tree.glob("stimuli/*.png"):
        annexed(tree, path, "absent")
    last = told(tree, "--generator", "demo")
    assert "3 files are here without content" in last
    assert all(f"stimuli/{path.name}" in last for path in test)
    # With BOLD absent, too, one line fetches both; images that only train are not needed.
    annexed(tree, bold_of(tree, "02")[0], "absent")
    last = told(tree, "--generator", "demo")
    assert "4 files are here without content" in last
    assert "face001" not in last
    told(tree, "--generator", "none", "--participant-label", "01", "--dry-run", status=0)


def test_baselines_need_the_images_that_train_as_well(tmp_path, told):
    tree = with_images(tmp_path)
    for path in tree.glob("stimuli/*.png"):
        annexed(tree, path, "absent")
    annexed(tree, tree / "stimuli" / "latents.npy", "absent")
    last = told(tree, "--methods", "hyper", "eigenface")
    assert f"{15 + 1} files" in last


@pytest.mark.parametrize("flag", ["--generator", "--feature-network", "--decoder-mask", "--atlas"])
@pytest.mark.parametrize("state", ["absent", "pointer"])
def test_files_of_flags_are_told_as_not_fetched(tree, told, tmp_path, flag, state):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file.bin").write_bytes(b"x" * 40_000)
    annexed(tmp_path / "models", tmp_path / "models" / "file.bin", state)
    last = told(tree, flag, tmp_path / "models" / "file.bin")
    assert "without content" in last
    assert f"cd {tmp_path / 'models'} && datalad get file.bin" in last


def test_a_description_that_was_not_fetched(tree, told):
    folder = bids_tree.make_derivative(tree)
    for path in (tree / "dataset_description.json", folder / "dataset_description.json"):
        annexed(tree, path, "absent")
    annexed(tree, tree / "stimuli" / "latents.npy", "absent")
    last = told(tree, "-d", folder)
    assert "3 files are here without content" in last
    names = "dataset_description.json derivatives/fmriprep/dataset_description.json"
    assert last.endswith(f"cd {tree} && datalad get {names} stimuli/latents.npy")


def test_a_copy_without_its_repository_is_told_how_to_copy(tree, told):
    path = bold_of(tree, "01")[0]
    annexed(tree, path, "absent", git="gone")
    (tree / "gone" / "annex").rmdir()
    (tree / "gone").rmdir()
    last = told(tree)
    assert "no .git" in last
    assert "rsync -aL" in last
    assert "datalad get" not in last


def test_a_subdataset_that_is_not_installed(tree, told):
    (tree / ".gitmodules").write_text('[submodule "x"]\n\tpath = sub-04\n\turl = ./sub-04\n')
    (tree / "sub-04").mkdir()
    last = told(tree)
    assert f"cd {tree} && datalad get -n sub-04" in last
    told(tree, "--participant-label", "01", "--dry-run", status=0)


def test_a_participant_of_the_table_without_a_folder(tree, told):
    rows = [{"participant_id": f"sub-{k:02d}", "age": 20} for k in range(1, 9)]
    bids_tree.write_tsv(tree / "participants.tsv", rows)
    told(tree, "--dry-run", status=0)
    last = told(tree, "--participant-label", "07", status=64)
    assert "07 stands in participants.tsv: its folder is missing" in last
    assert "participants.tsv" not in told(tree, "--participant-label", "77", status=64)


def test_what_is_absent_is_told_before_the_validator_runs(tree, tmp_path, monkeypatch, said):
    monkeypatch.setattr("hyper_bids.preflight.validate", lambda path: pytest.fail("it ran"))
    annexed(tree, bold_of(tree, "01")[0], "absent")
    assert cli.main([str(tree), str(tmp_path / "out"), "participant"]) == 65


@pytest.mark.parametrize(
    ("content", "absent"),
    [
        (b"/annex/objects/SHA256E-s1--a.nii.gz\n", True),
        (b".git/annex/objects/G7/8j/K/K", True),
        (b"../../.git/annex/objects/G7/8j/K/K", True),
        (b"onset\tduration\n1\t/annex/objects/x\n", False),
        (b"see /annex/objects/ in the manual", False),
        (b"", False),
        (b"/annex/objects/x\n" + b"0" * 32768, False),
    ],
)
def test_pointers_are_told_from_other_small_files(tmp_path, content, absent):
    (tmp_path / "file").write_bytes(content)
    assert fetched.is_absent(tmp_path / "file") is absent


def test_nothing_and_folders_are_no_absent_content(tmp_path):
    assert not fetched.is_absent(tmp_path / "nowhere")
    assert not fetched.is_absent(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not fetched.is_absent(tmp_path / "link")


def test_the_command_is_short_for_many_participants_and_runs(tmp_path):
    root = bids_tree.make_dataset(tmp_path / "ds", ("01", "02", "03", "04"), sessions=("a", "b"))
    (root / ".git" / "annex").mkdir(parents=True)
    paths = sorted(root.glob("sub-*/ses-*/func/*_bold.nii.gz"))
    all_of_them = fetched.told(paths, [root])
    assert "datalad get sub-*/ses-*/func/*_ses-*_task-faces_run-*_bold.nii.gz" in all_of_them
    some = [p for p in paths if p.relative_to(root).parts[0] in ("sub-02", "sub-04")]
    assert "get sub-{02,04}/ses-*/func/*_ses-*_task-faces_run-*_bold" in fetched.told(some, [root])
    one_session = [p for p in paths if "ses-b" in p.name]
    assert "get sub-*/ses-b/func/*_ses-b_task-faces_run-*_bold" in fetched.told(one_session, [root])
    assert len(all_of_them) < 1000


def test_refusing_nothing_says_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    fetched.refuse_absent([tmp_path / "file", tmp_path / "nowhere"])
    annexed(tmp_path, tmp_path / "file", "absent")
    with pytest.raises(NotFetchedError) as caught:
        fetched.refuse_absent([tmp_path / "file"])
    assert caught.value.files == (tmp_path / "file",)
    assert isinstance(caught.value, InputError)


def test_an_annexed_dataset_gives_the_same_results_as_plain_files(tmp_path):
    raw = tmp_path / "raw"
    from hyper_bids.simulate.dataset import simulate

    simulate(raw, app.small())
    assert app.run(raw, tmp_path / "plain") == 0
    for path in (*raw.glob("sub-*/func/*.nii.gz"), *raw.glob("stimuli/*.npy")):
        annexed(raw, path, "here")
    assert app.run(raw, tmp_path / "linked") == 0
    for ending in ("_desc-predicted_latents.npy", "_desc-linear_decoder.npz"):
        one, other = (app.find(tmp_path / o, ending).read_bytes() for o in ("plain", "linked"))
        assert one == other
