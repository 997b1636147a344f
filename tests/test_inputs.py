"""Finding the runs of one participant: what is read, what is refused, and in which words."""

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bids_tree import SPACE, make_dataset, make_derivative, stem_of, write_bold, write_json

from hyper_bids.bids import inputs
from hyper_bids.bids.dataset import derivative_roots
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError

PLAIN = InputSettings()


@pytest.fixture
def tree(tmp_path):
    return make_dataset(tmp_path / "ds")


def find(root, settings=PLAIN, **changes):
    return inputs.find_runs(root, "01", replace(settings, **changes))


def refused(kind, root, *words, **changes):
    """Check that the error is of the kind, is one line, and has all the words."""
    with pytest.raises(kind) as caught:
        find(root, **changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# Datasets and participants


def test_a_missing_folder_is_a_usage_error_and_a_folder_without_description_an_input_error(
    tmp_path,
):
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        inputs.read_description(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a BIDS dataset.*dataset_description\.json"):
        inputs.read_description(tmp_path)


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "not valid JSON"), ("[]", "JSON object"), ('{"Name": "x"}', "BIDSVersion")],
)
def test_a_description_must_be_a_json_object_with_name_and_version(tmp_path, text, word):
    (tmp_path / "dataset_description.json").write_text(text)
    with pytest.raises(InputError, match=word):
        inputs.read_description(tmp_path)


def test_the_parent_of_a_dataset_is_refused_with_the_name_of_the_dataset(tree):
    with pytest.raises(InputError, match="There is one in ds"):
        inputs.read_description(tree.parent)


def test_only_a_simulation_is_called_simulated():
    assert inputs.is_simulated({"GeneratedBy": [{"Name": "hyper_bids simulate"}]})
    assert not inputs.is_simulated({"GeneratedBy": [{"Name": "fMRIPrep"}, "text"]})
    assert not inputs.is_simulated({})


def test_participants_are_folders_sorted_and_chosen_with_or_without_prefix(tmp_path):
    root = make_dataset(tmp_path, participants=("10", "1", "A"), runs=("1", "2"))
    (root / "sub-file").write_text("")
    assert inputs.participants(root) == ["1", "10", "A"]
    assert inputs.chosen_participants(root, ()) == ["1", "10", "A"]
    assert inputs.chosen_participants(root, ("sub-A", "1", "A")) == ["A", "1"]


def test_an_unknown_participant_is_refused_with_a_list_of_those_there(tree):
    with pytest.raises(UsageError, match=r"--participant-label 99.*there are 01, 02"):
        inputs.chosen_participants(tree, ("01", "99"))


def test_a_dataset_without_participants_is_refused(tmp_path):
    write_json(tmp_path / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.11.1"})
    with pytest.raises(InputError, match="no participants"):
        inputs.chosen_participants(tmp_path, ())


@pytest.mark.parametrize("label", ["–01", "—participant-label", "−1", "‑01"])
def test_a_label_that_begins_with_a_dash_of_a_word_processor_is_refused(tree, label):
    with pytest.raises(UsageError, match="dash that is not ASCII"):
        inputs.chosen_participants(tree, (label,))
    refused(UsageError, tree, "--run-id", "dash", run_id=(label,))


def test_a_participant_without_a_folder_is_a_usage_error_that_lists_the_others(tree):
    with pytest.raises(UsageError, match=r"no folder sub-03.*01, 02"):
        inputs.find_runs(tree, "03", PLAIN)


# What a run is


def test_runs_have_the_files_shape_and_timing_of_the_dataset_in_order(tmp_path):
    root = make_dataset(
        tmp_path, sessions=("b", "a"), runs=("2", "10"), t_r=1.25, n_volumes=50, shape=(3, 4, 2)
    )
    runs = find(root)
    assert [(r.entities["session"], r.entities["run"]) for r in runs] == [
        ("a", "2"), ("a", "10"), ("b", "2"), ("b", "10"),
    ]  # fmt: skip
    first = runs[0]
    assert first.bold == Path(f"{stem_of(root, '01', 'a', '2')}_bold.nii.gz")
    assert first.events == Path(f"{stem_of(root, '01', 'a', '2')}_events.tsv")
    bold = "bids:raw:sub-01/ses-a/func/sub-01_ses-a_task-faces_run-2_bold.nii.gz"
    assert first.sources == (bold, bold.replace("bold.nii.gz", "events.tsv"))
    assert (first.mask, first.confounds) == (None, None)
    assert (first.shape, first.n_volumes, first.t_r) == ((3, 4, 2), 50, 1.25)
    assert first.entities == {"session": "a", "task": "faces", "run": "2"}


def test_labels_choose_runs_with_or_without_prefix_and_zeros(tree):
    assert [r.entities["run"] for r in find(tree, run_id=("run-1", "03"))] == ["01", "03"]
    assert len(find(tree, task_id=("task-faces",))) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"session_label": ("x",)}, ("--session-label x", "session is none")),
        ({"task_id": ("rest",)}, ("--task-id rest", "task is faces")),
        ({"run_id": ("7",)}, ("--run-id 7", "run is 01, 02, 03")),
        ({"space": "T1w"}, ("--space T1w", "--derivatives")),
    ],
)
def test_a_filter_that_leaves_nothing_is_named_with_the_labels_that_are_there(tree, changes, words):
    refused(UsageError, tree, *words, **changes)


def test_a_label_that_matches_nothing_beside_one_that_does_is_told(tree, caplog):
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        assert len(find(tree, run_id=("01", "9"))) == 1
    assert "--run-id 01 9: sub-01 has no BOLD with run 9" in caplog.text


def test_events_of_a_task_may_stand_above_the_runs(tmp_path):
    root = make_dataset(tmp_path, runs=("01", "02"))
    shared = root / "task-faces_events.tsv"
    shutil.copy(f"{stem_of(root, '01')}_events.tsv", shared)
    Path(f"{stem_of(root, '01', None, '02')}_events.tsv").unlink()
    assert [run.events.name for run in find(root)] == [
        "sub-01_task-faces_run-01_events.tsv",
        "task-faces_events.tsv",
    ]


def test_no_events_at_all_and_no_events_of_one_run_are_told_apart(tree):
    Path(f"{stem_of(tree, '01', None, '02')}_events.tsv").unlink()
    refused(InputError, tree, "run-02_bold.nii.gz", "no events of this run", "run-01_events.tsv")
    for path in (tree / "sub-01" / "func").glob("*_events.tsv"):
        path.unlink()
    refused(InputError, tree, "sub-01: no events found")


def test_no_bold_is_an_input_error(tree):
    for path in (tree / "sub-01" / "func").glob("*_bold.nii.gz"):
        path.unlink()
    refused(InputError, tree, "sub-01: no BOLD in the dataset")


def test_several_echoes_or_parts_are_refused_until_the_filter_file_chooses(tree, tmp_path):
    bold = Path(f"{stem_of(tree, '01')}_bold.nii.gz")
    for echo in "12":
        shutil.copy(bold, bold.with_name(bold.name.replace("_bold", f"_echo-{echo}_bold")))
    refused(UsageError, tree, "echo-1_bold", "differing in echo", "--bids-filter-file")
    chosen = tmp_path / "filter.json"
    for value, name in ((2, "_echo-2_bold"), (None, "run-01_bold")):
        write_json(chosen, {"bold": {"echo": value, "run": 1}})
        (run,) = find(tree, bids_filter_file=str(chosen))
        assert name in run.bold.name
        assert run.events.name == "sub-01_task-faces_run-01_events.tsv"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"t1w": {}}, "unknown query 't1w'"),
        ({"bold": {"ecko": 1}}, "unknown entity 'ecko'"),
        ({"bold": {"echo": {"a": 1}}}, "echo ="),
        ({"bold": ["echo"]}, "must be an object"),
        ({"bold": {"run": ["5", "6"]}}, "run is 01, 02, 03"),
    ],
)
def test_a_wrong_filter_file_is_refused_with_its_name(tree, tmp_path, content, word):
    write_json(tmp_path / "filter.json", content)
    refused(
        UsageError, tree, "--bids-filter-file", word, bids_filter_file=str(tmp_path / "filter.json")
    )


def test_a_filter_file_that_is_no_json_or_not_there_is_refused(tree, tmp_path):
    (tmp_path / "filter.json").write_text("{bold}")
    for name in ("filter.json", "none.json"):
        refused(UsageError, tree, "--bids-filter-file", name, bids_filter_file=str(tmp_path / name))


def test_long_and_short_names_of_an_entity_do_the_same(tree, tmp_path):
    for name in ("acquisition", "acq"):
        write_json(tmp_path / "filter.json", {"bold": {name: None, "suffix": "bold"}})
        assert len(find(tree, bids_filter_file=str(tmp_path / "filter.json"))) == 3


# Repetition time


@pytest.mark.parametrize("level", ["", "sub-01/sub-01_", "sub-01/ses-a/sub-01_ses-a_"])
def test_repetition_time_is_inherited_from_each_level(tmp_path, level):
    root = make_dataset(tmp_path, participants=("01",), sessions=("a",), runs=("1", "2"), t_r=2.5)
    for bold in root.glob("sub-01/**/*_bold.nii.gz"):
        write_bold(bold, t_r=None)
    (root / "task-faces_bold.json").unlink()
    write_json(root / f"{level}task-faces_bold.json", {"RepetitionTime": 2.5})
    assert [run.t_r for run in find(root)] == [2.5, 2.5]


def test_a_sidecar_nearer_to_the_image_wins(tree):
    (tree / "task-faces_bold.json").unlink()
    write_json(tree / "task-faces_bold.json", {"RepetitionTime": 9.0})
    write_json(tree / "sub-01" / "sub-01_task-faces_bold.json", {"RepetitionTime": 8.0})
    for run in ("01", "02", "03"):
        write_json(f"{stem_of(tree, '01', None, run)}_bold.json", {"RepetitionTime": 2.0})
    assert {run.t_r for run in find(tree)} == {2.0}


def test_without_a_sidecar_the_header_is_taken_with_a_warning(tree, caplog):
    (tree / "task-faces_bold.json").unlink()
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        assert {run.t_r for run in find(tree)} == {2.0}
    assert "run-01_bold.nii.gz: no sidecar states RepetitionTime" in caplog.text


def test_a_repetition_time_that_is_nowhere_is_an_input_error(tree):
    (tree / "task-faces_bold.json").unlink()
    write_bold(f"{stem_of(tree, '01', None, '01')}_bold.nii.gz", t_r=None)
    refused(InputError, tree, "run-01_bold.nii.gz", "RepetitionTime")


def test_sidecar_and_header_may_differ_by_a_millisecond_at_most(tree):
    write_json(tree / "task-faces_bold.json", {"RepetitionTime": 2.0009})
    assert find(tree)[0].t_r == 2.0009
    write_json(tree / "task-faces_bold.json", {"RepetitionTime": 2.0011})
    refused(InputError, tree, "run-01_bold.nii.gz", "2.0011 s", "2 s in the header")


@pytest.mark.parametrize("value", [0, -1, "2", True, [2]])
def test_a_repetition_time_must_be_a_number_above_zero(tree, value):
    write_json(tree / "task-faces_bold.json", {"RepetitionTime": value})
    refused(InputError, tree, "RepetitionTime", "above 0")


def test_irregular_volumes_are_refused(tree):
    write_json(tree / "task-faces_bold.json", {"VolumeTiming": [0, 1, 3]})
    refused(InputError, tree, "VolumeTiming")


def test_a_sidecar_that_is_no_json_is_named(tree):
    (tree / "task-faces_bold.json").write_text("{RepetitionTime: 2}")
    refused(InputError, tree, "task-faces_bold.json")


# Images


def test_a_truncated_image_is_refused_by_name(tree):
    bold = Path(f"{stem_of(tree, '01', None, '02')}_bold.nii.gz")
    bold.write_bytes(bold.read_bytes()[:-2000])
    refused(InputError, tree, "run-02_bold.nii.gz", "truncated")


@pytest.mark.parametrize("what", ["shape", "affine"])
def test_runs_on_different_grids_are_refused_with_both_names(tree, what):
    bold = f"{stem_of(tree, '01', None, '03')}_bold.nii.gz"
    if what == "shape":
        write_bold(bold, shape=(4, 5, 4))
    else:
        write_bold(bold, affine=np.diag([2.0, 2, 2.01, 1]))
    refused(InputError, tree, "run-03_bold.nii.gz", "run-01_bold.nii.gz", f"differ in {what}")


def test_a_single_volume_is_no_run(tree):
    write_bold(f"{stem_of(tree, '01')}_bold.nii.gz", n_volumes=1)
    refused(InputError, tree, "run-01_bold.nii.gz", "no time series")


# Derivatives


@pytest.mark.parametrize(("given", "name"), [("{}", "preproc"), ("fmriprep={}", "fmriprep")])
def test_preprocessed_bold_comes_with_mask_and_confounds_and_events_of_the_raw_data(
    tree, given, name
):
    folder = make_derivative(tree)
    runs = find(tree, derivatives=(given.format(folder),))
    stem = f"sub-01/func/sub-01_task-faces_run-02_space-{SPACE}"
    assert len(runs) == 3
    run = runs[1]
    assert run.bold == folder / f"{stem}_desc-preproc_bold.nii.gz"
    assert run.mask == folder / f"{stem}_desc-brain_mask.nii.gz"
    assert run.confounds.name == "sub-01_task-faces_run-02_desc-confounds_timeseries.tsv"
    assert run.events == Path(f"{stem_of(tree, '01', None, '02')}_events.tsv")
    plain = "sub-01/func/sub-01_task-faces_run-02"
    assert run.sources == (
        f"bids:{name}:{stem}_desc-preproc_bold.nii.gz",
        f"bids:raw:{plain}_events.tsv",
        f"bids:{name}:{stem}_desc-brain_mask.nii.gz",
        f"bids:{name}:{plain}_desc-confounds_timeseries.tsv",
    )
    assert run.entities["space"] == SPACE


def test_derivatives_are_named_as_links_and_a_path_may_hold_an_equals_sign(tree, tmp_path):
    a = make_derivative(tree, tmp_path / "x=a")
    b = make_derivative(tree, tmp_path / "b")
    assert derivative_roots((str(a), f"other={b}")) == {"preproc": a, "other": b}
    assert list(derivative_roots((str(a), str(b)))) == ["preproc", "preproc2"]
    with pytest.raises(UsageError, match="the name x is taken"):
        derivative_roots((f"x={a}", f"x={b}"))


def test_a_derivative_that_is_not_there_or_no_dataset_is_refused(tree):
    refused(UsageError, tree, "--derivatives", "no such folder", derivatives=("nowhere",))
    make_derivative(tree)
    folder = str(tree / "derivatives")
    refused(InputError, tree, "not a BIDS dataset", "fmriprep", derivatives=(folder,))


def test_a_derivative_without_the_participant_is_refused(tree):
    folder = make_derivative(tree)
    shutil.rmtree(folder / "sub-01")
    refused(InputError, tree, "--derivatives", "sub-01", "02", derivatives=(str(folder),))


def test_two_spaces_are_refused_until_one_is_chosen(tree):
    folder = make_derivative(tree, spaces=(SPACE, "T1w", "T1w_res-2", None))
    given = {"derivatives": (str(folder),)}
    refused(UsageError, tree, "T1w, T1w:res-2, func", SPACE, "--space", **given)
    refused(UsageError, tree, "T1w, T1w:res-2", "--space", **given, space="T1w")
    refused(UsageError, tree, "--space fsaverage", "T1w", **given, space="fsaverage")
    for space, part in (
        (SPACE, f"_space-{SPACE}_desc"), ("func", "run-01_desc"), ("T1w:res-2", "_res-2_desc"),
    ):  # fmt: skip
        run = find(tree, **given, space=space)[0]
        assert part in run.bold.name
        assert part in run.mask.name
        assert run.mask.name == run.bold.name.replace("preproc_bold", "brain_mask")
    assert find(tree, **given, space="T1w:res-2")[0].entities["res"] == "2"


def test_another_desc_is_chosen_and_a_missing_one_is_told(tree):
    folder = make_derivative(tree)
    given = {"derivatives": (str(folder),)}
    refused(
        UsageError, tree, "--desc-label smooth", "desc is preproc", **given, desc_label="smooth"
    )
    for bold in folder.glob("sub-01/func/*_bold.nii.gz"):
        shutil.copy(bold, str(bold).replace("preproc", "smooth"))
    assert "desc-smooth" in find(tree, **given, desc_label="smooth")[0].bold.name


def test_one_run_in_two_derivatives_is_refused_by_their_names(tree, tmp_path):
    a = make_derivative(tree)
    b = make_derivative(tree, tmp_path / "b")
    refused(UsageError, tree, "a, b", derivatives=(f"a={a}", f"b={b}"))


def test_a_second_derivative_may_hold_the_confounds(tree, tmp_path):
    a = make_derivative(tree)
    b = make_derivative(tree, tmp_path / "b")
    for path in [*a.glob("sub-*/func/*_timeseries.tsv"), *b.glob("sub-*/func/*_bold.*")]:
        path.unlink()
    run = find(tree, derivatives=(str(a), str(b)))[0]
    assert run.confounds.is_relative_to(b)
    assert run.mask.is_relative_to(a)


def test_without_mask_or_confounds_the_run_is_taken_with_a_warning(tree, caplog):
    folder = make_derivative(tree)
    for path in folder.glob("sub-*/func/*_desc-[bc]*"):
        path.unlink()
    with caplog.at_level(logging.WARNING, "hyper_bids"):
        run = find(tree, derivatives=(str(folder),))[0]
    assert (run.mask, run.confounds) == (None, None)
    assert "it has no brain mask" in caplog.text
    assert "it has no confounds" in caplog.text


def test_a_mask_of_the_anatomy_is_not_taken_for_one_of_the_runs(tree):
    folder = make_derivative(tree)
    anat = folder / "sub-01" / "anat"
    anat.mkdir()
    for mask in folder.glob("sub-01/func/*_mask.nii.gz"):
        shutil.move(mask, anat / f"sub-01_space-{SPACE}_desc-brain_mask.nii.gz")
    assert find(tree, derivatives=(str(folder),))[0].mask is None


@pytest.mark.parametrize("what", ["shape", "affine"])
def test_a_mask_on_another_grid_is_refused_with_both_names(tree, what):
    folder = make_derivative(tree)
    mask = next(folder.glob("sub-01/func/*run-02*_mask.nii.gz"))
    shape, affine = (4, 5, 3), np.diag([2.0, 2, 2, 1])
    if what == "shape":
        shape = (5, 5, 3)
    else:
        affine[0, 3] = 1
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), mask)
    words = (mask.name, "_bold.nii.gz", f"differ in {what}")
    refused(InputError, tree, *words, derivatives=(str(folder),))


def test_repetition_time_comes_from_the_raw_sidecar_where_the_derivative_has_none(tree):
    folder = make_derivative(tree, sidecar_t_r=False)
    for bold in folder.glob("sub-01/func/*_bold.nii.gz"):
        write_bold(bold, t_r=None)
    assert {run.t_r for run in find(tree, derivatives=(str(folder),))} == {2.0}
    for bold in folder.glob("sub-01/func/*_bold.nii.gz"):
        write_bold(bold, t_r=1.0)
    message = refused(InputError, tree, "2 s", "1 s", derivatives=(str(folder),))
    assert "run-01_bold.nii.gz" in message


# Other participants, and the index kept on disk

OPENED = []
WATCHED = []


def _watch(event, arguments):
    if WATCHED and event in ("open", "os.listdir", "os.scandir") and arguments:
        OPENED.append(str(arguments[0]))


@pytest.mark.parametrize("preprocessed", [False, True])
def test_no_file_or_folder_of_another_participant_is_opened_or_listed(tmp_path, preprocessed):
    labels = tuple(f"{i:02d}" for i in range(1, 31))
    # One label begins with another one's: sub-011 is not sub-01.
    root = make_dataset(tmp_path, (*labels, "011"), runs=("1", "2"), shape=(2, 2, 2))
    settings = PLAIN
    if preprocessed:
        settings = replace(PLAIN, derivatives=(str(make_derivative(root)),))
    sys.addaudithook(_watch)  # it cannot be removed, only silenced
    WATCHED.append(True)
    try:
        runs = inputs.find_runs(root, "01", settings)
    finally:
        WATCHED.clear()
        opened = OPENED.copy()
        OPENED.clear()
    assert len(runs) == 2
    assert any("sub-01_" in path for path in opened)
    others = [f"sub-{label}" for label in (*labels[1:], "011")]
    assert not [path for path in opened if any(name in path for name in others)]


def test_the_index_on_disk_is_used_again_and_built_anew_when_files_change(tree, tmp_path):
    folder = tmp_path / "index"
    kept = {"bids_database_dir": str(folder)}
    assert len(find(tree, **kept)) == 3
    (database,) = folder.glob("sub-01_*/*.sqlite")
    written = database.stat().st_mtime_ns
    assert [run.t_r for run in find(tree, **kept)] == [2.0] * 3
    assert database.stat().st_mtime_ns == written
    for name in ("_bold.nii.gz", "_events.tsv"):
        shutil.copy(f"{stem_of(tree, '01')}{name}", f"{stem_of(tree, '01', None, '04')}{name}")
    assert len(find(tree, **kept)) == 4
    written = database.stat().st_mtime_ns
    assert len(find(tree, **kept, bids_database_wipe=True)) == 4
    assert database.stat().st_mtime_ns > written


def test_a_changed_sidecar_is_seen_in_spite_of_the_index_on_disk(tree, tmp_path):
    kept = {"bids_database_dir": str(tmp_path / "index")}
    find(tree, **kept)
    write_json(tree / "task-faces_bold.json", {"RepetitionTime": 3.5})
    refused(InputError, tree, "3.5 s", **kept)


def test_an_index_folder_that_is_a_file_is_a_usage_error(tree, tmp_path):
    (tmp_path / "index").write_text("")
    refused(UsageError, tree, "--bids-database-dir", bids_database_dir=str(tmp_path / "index"))


def test_an_unreadable_sidecar_of_other_data_does_no_harm(tree):
    folder = tree / "sub-01" / "anat"
    folder.mkdir()
    (folder / "sub-01_T1w.json").write_text("{")
    assert len(find(tree)) == 3


def test_a_relative_path_finds_the_same_runs(tree, monkeypatch):
    runs = find(tree)
    monkeypatch.chdir(tree.parent)
    assert find(Path("ds")) == runs
    assert json.dumps([run.entities for run in runs])
