"""What comes out: names, sidecars, atomic publication, the root, and BIDS validity."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyper_bids.bids import outputs
from hyper_bids.bids.atomic import json_text, tsv_text
from hyper_bids.bids.names import layout
from hyper_bids.bids.root import dataset_links
from hyper_bids.errors import OutputError, UsageError

ENTITIES = {"subject": "01", "task": "faces", "space": "T1w"}
PROVENANCE = {
    "Sources": ["bids:raw:sub-01/func/sub-01_task-faces_run-1_bold.nii.gz"],
    "Settings": {"betas": {"hrf": "glover"}},
    "Simulated": True,
    "SoftwareVersion": "0.1.0",
}
FIGURE = "sub-01/figures/sub-01_task-faces_space-T1w_desc-recon_figure.png"
RAW = {"Name": "Faces", "License": "CC0", "BIDSVersion": "1.11.1", "DatasetDOI": "doi:10.1/x"}


def make_fragment(folder: Path, rng, entities=ENTITIES, n_trials=3) -> outputs.Fragment:
    """Write one of each kind of output: images, mask, tables, arrays, figure, picture, page."""
    import nibabel as nib

    shape = (4, 5, 3)
    fragment = outputs.Fragment(folder, entities, PROVENANCE)
    betas = nib.Nifti1Image(rng.normal(size=(*shape, n_trials)).astype(np.float32), np.eye(4))
    betas.header.set_xyzt_units("mm", "sec")
    mask = nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4))
    with fragment.file("betas", "Responses.", Units="percent signal change") as path:
        nib.save(betas, path)
    frame = pd.DataFrame({"onset": np.arange(n_trials) * 4.5, "stim_id": ["a", None, "c"]})
    fragment.table("betas_table", frame, {"onset": "Onset, seconds", "stim_id": "Stimulus"})
    for key, kind in (("brain_mask", "Brain"), ("decoder_mask", "ROI")):
        with fragment.file(key, "Voxels.", Type=kind) as path:
            nib.save(mask, path)
    maps = ("fit", "mean_z", "reliability")
    for key in maps:
        with fragment.file(key, "A map.", Units="1") as path:
            nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), path)
    with fragment.file("decoder", "Weights.", alpha=np.float64(0.1)) as path:
        np.savez(path, weights=np.ones((2, 2), np.float32))
    for array in ("predicted_latents", "reconstructions"):
        with fragment.file(array, "Rows.", Shape=[2, 2]) as path:
            np.save(path, np.zeros((2, 2), np.float32))
    fragment.table("predicted_index", pd.DataFrame({"row": [0, 1]}), {"row": "Row"})
    for key in ("perstim_metrics", "summary_metrics", "model_table"):
        fragment.table(key, pd.DataFrame({"value": [0.5, np.nan]}), {"value": "Score"})
    with fragment.file("null_metrics", "Nulls.", Scores=[["a", "b"]]) as path:
        np.save(path, np.zeros((1, 5), np.float32))
    fragment.figure("recon").write_bytes(b"\x89PNG")
    fragment.picture("recon0000a").write_bytes(b"\x89PNG of a")
    fragment.page().write_text("<!doctype html>", encoding="utf-8")
    np.save(fragment.internal("z.npy"), np.zeros(3))
    return fragment


def make_derivative(folder: Path) -> Path:
    folder.mkdir(parents=True)
    description = {"Name": "Preprocessed", "BIDSVersion": "1.11.1", "DatasetType": "derivative"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize(
    ("key", "entities", "expected"),
    [
        (
            "betas",
            ENTITIES,
            "sub-01/func/sub-01_task-faces_space-T1w_desc-trials_statmap.nii.gz",
        ),
        ("betas", {"subject": "A1"}, "sub-A1/func/sub-A1_desc-trials_statmap.nii.gz"),
        (
            "reliability",
            ENTITIES | {"session": "2", "res": "2"},
            "sub-01/ses-2/func/sub-01_ses-2_task-faces_space-T1w_res-2"
            "_stat-reliability_desc-test_statmap.nii.gz",
        ),
        (
            "betas_table",
            ENTITIES,
            "sub-01/func/sub-01_task-faces_space-T1w_desc-trials_statmap.tsv",
        ),
        (
            "reliability",
            {"subject": "01"},
            "sub-01/func/sub-01_stat-reliability_desc-test_statmap.nii.gz",
        ),
        ("model_table", {"subject": "01"}, "sub-01/func/sub-01_desc-model_metrics.tsv"),
        ("decoder", {"subject": "01"}, "sub-01/func/sub-01_desc-linear_decoder.npz"),
        (
            "decoder",
            {"subject": "01", "desc": "ridge"},
            "sub-01/func/sub-01_desc-ridge_decoder.npz",
        ),
        (
            "summary_metrics",
            ENTITIES,
            "sub-01/func/sub-01_task-faces_space-T1w_desc-summary_metrics.tsv",
        ),
        ("null_metrics", ENTITIES, "sub-01/func/sub-01_task-faces_space-T1w_desc-null_metrics.npy"),
    ],
)
def test_names_are_those_of_the_layout(key, entities, expected):
    assert outputs.output_path(key, entities).as_posix() == expected


def test_no_two_outputs_share_a_name_and_none_is_a_bold_or_events_file():
    names = [str(outputs.output_path(key, ENTITIES)) for key in layout()["files"]]
    assert len(set(names)) == len(names)
    assert not [n for n in names if n.endswith(("_bold.nii.gz", "_events.tsv"))]


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ({"task": "faces"}, "subject"),
        ({"subject": "01", "echo": "1"}, "echo"),
        ({"subject": "../01"}, "label"),
        ({"subject": "01", "task": "two_parts"}, "label"),
    ],
)
def test_a_name_is_refused_when_an_entity_is_missing_unknown_or_no_label(entities, message):
    with pytest.raises(ValueError, match=message):
        outputs.output_path("betas", entities)


def test_each_desc_label_of_the_names_is_explained():
    names = [str(outputs.output_path(key, {"subject": "1"})) for key in layout()["files"]]
    used = {name.split("_desc-")[1].split("_")[0] for name in names if "_desc-" in name}
    assert used == set(layout()["descriptions"])


def test_table_and_image_of_one_name_share_a_sidecar_whichever_is_written_first(tmp_path):
    frame = pd.DataFrame({"row": [0]})

    def write(folder, order):
        fragment = outputs.Fragment(folder, ENTITIES, PROVENANCE)
        for step in order:
            if step == "array":
                with fragment.file("predicted_latents", "Latents.", Units="latent") as path:
                    np.save(path, np.zeros(3, np.float32))
            else:
                fragment.table("predicted_index", frame, {"row": "Row of the array"})
        fragment.close()
        return next(folder.rglob("*_latents.json")).read_bytes()

    text = write(tmp_path / "a", ("array", "table"))
    assert text == write(tmp_path / "b", ("table", "array"))
    sidecar = json.loads(text)
    assert sidecar["Description"] == "Latents."
    assert sidecar["Units"] == "latent"
    assert sidecar["row"] == {"Description": "Row of the array"}
    assert sidecar["Sources"] == PROVENANCE["Sources"]
    folder = tmp_path / "a" / "sub-01" / "func"
    assert sidecar["SHA256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix != ".json"
    }
    assert len(sidecar["SHA256"]) == 2


def test_tables_of_runs_share_a_sidecar_whose_name_has_what_they_share(tmp_path):
    fragment = outputs.Fragment(tmp_path, {"subject": "01"}, PROVENANCE)
    frame = pd.DataFrame({"dvars": [1.0, 2.0]})
    parts = [({"task": "faces", "run": run}, frame * k) for k, run in enumerate(("1", "2"))]
    fragment.tables("motion_confounds", parts, {"dvars": "Change"})
    digests = (
        json.loads((tmp_path / outputs.MANIFEST).read_text())["files"] if fragment.close() else {}
    )
    stem, ending = "sub-01/func/sub-01_task-faces", "desc-confounds_timeseries"
    tables = [f"{stem}_run-{run}_{ending}.tsv" for run in ("1", "2")]
    assert sorted(digests) == sorted([f"{stem}_{ending}.json", *tables])
    about = json.loads((tmp_path / f"{stem}_{ending}.json").read_text())
    assert about["dvars"] == {"Description": "Change"}
    assert about["SHA256"] == {name.rsplit("/", 1)[1]: digests[name] for name in tables}


def test_a_sidecar_of_runs_of_several_tasks_is_named_without_a_task(tmp_path):
    fragment = outputs.Fragment(tmp_path, {"subject": "01", "task": "a+b"}, PROVENANCE)
    frame = pd.DataFrame({"dvars": [1.0, 2.0]})
    parts = [({"task": task, "run": "1"}, frame) for task in ("a", "b")]
    fragment.tables("motion_confounds", parts, {"dvars": "Change"})
    found = sorted(path.name for path in tmp_path.rglob("*_timeseries.*"))
    assert found == [
        "sub-01_run-1_desc-confounds_timeseries.json",
        "sub-01_task-a_run-1_desc-confounds_timeseries.tsv",
        "sub-01_task-b_run-1_desc-confounds_timeseries.tsv",
    ]


def test_table_cells_follow_bids():
    frame = pd.DataFrame(
        {
            "a": [1, 2, 3],
            "b": [0.123456789, np.nan, 1e-9],
            "c": ["x", None, ""],
            "d": pd.array([1, None, 3], dtype="Int64"),
            "e": [1234.5674, 12345.0, -787512.5],
            "f": [True, False, True],
        }
    )
    assert tsv_text(frame).splitlines() == [
        "a\tb\tc\td\te\tf",
        "1\t0.123457\tx\t1\t1234.567\ttrue",
        "2\tn/a\tn/a\tn/a\t12345\tfalse",
        "3\t1e-09\tn/a\t3\t-787512.5\ttrue",
    ]
    read = pd.read_csv(pd.io.common.StringIO(tsv_text(frame)), sep="\t", na_values="n/a")
    np.testing.assert_allclose(read["b"], frame["b"], rtol=1e-5)
    with pytest.raises(ValueError, match="tabs"):
        tsv_text(pd.DataFrame({"a": ["x\ty"]}))


def test_sidecars_are_valid_json_whatever_number_they_hold():
    text = json_text({"a": np.float32(0.5), "b": [np.nan, np.int64(3)], "c": Path("x"), "d": (1,)})
    assert json.loads(text) == {"a": 0.5, "b": ["n/a", 3], "c": "x", "d": [1]}


def test_table_with_an_undescribed_column_is_refused(tmp_path):
    fragment = outputs.Fragment(tmp_path, ENTITIES, PROVENANCE)
    frame = pd.DataFrame({"value": [1], "se": [2]})
    with pytest.raises(ValueError, match="se"):
        fragment.table("summary_metrics", frame, {"value": "Score"})
    with pytest.raises(ValueError, match="Sources"):
        fragment.table("summary_metrics", pd.DataFrame({"Sources": [1]}), {"Sources": "x"})


def test_output_that_was_not_written_is_an_error(tmp_path):
    fragment = outputs.Fragment(tmp_path, ENTITIES, PROVENANCE)
    with pytest.raises(FileNotFoundError, match="brain_mask"), fragment.file("brain_mask", "Mask."):
        pass


def test_manifest_holds_the_checksum_of_every_file_and_its_digest_depends_on_them_alone(tmp_path):
    digests = [
        make_fragment(tmp_path / name, np.random.default_rng(seed)).close()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    files = {n for n in listing(tmp_path / "a") if n != "manifest.json"}
    assert set(manifest["files"]) == files
    assert "internal/z.npy" in files
    assert manifest["figures"] == {"recon": FIGURE}
    assert FIGURE in files
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest


def test_what_an_earlier_attempt_left_is_neither_listed_nor_taken_for_finished(tmp_path, rng):
    make_fragment(tmp_path, rng).close()
    fragment = outputs.Fragment(tmp_path, ENTITIES, PROVENANCE)
    with pytest.raises(OutputError, match="not a finished stage"):
        outputs.publish([tmp_path], tmp_path / "out")
    fragment.table("summary_metrics", pd.DataFrame({"value": [1]}), {"value": "Score"})
    fragment.close()
    assert outputs.publish([tmp_path], tmp_path / "out") == (2, 0)


def test_publishing_merges_and_leaves_unchanged_files_untouched(tmp_path, rng):
    out = tmp_path / "out"
    fragment = make_fragment(tmp_path / "a", rng)
    fragment.close()
    n_files = len([n for n in listing(tmp_path / "a") if n.startswith("sub-01") and n != FIGURE])
    (out / "sub-01").mkdir(parents=True)
    (out / "sub-01" / "notes.txt").write_text("mine")
    assert outputs.publish([tmp_path / "a"], out) == (n_files, 0)
    before = listing(out)
    assert not [n for n in before if "internal" in n or "manifest" in n or n.endswith(".part")]
    assert outputs.publish([tmp_path / "a"], out) == (0, n_files)
    assert listing(out) == before

    second = outputs.Fragment(tmp_path / "b", ENTITIES, PROVENANCE)
    second.table("summary_metrics", pd.DataFrame({"value": [0.9]}), {"value": "Score"})
    second.close()
    assert outputs.publish([tmp_path / "a", tmp_path / "b"], out) == (2, n_files - 2)
    after = listing(out)
    assert set(after) == set(before)
    changed = {n for n in after if after[n] != before[n]}
    assert changed == {
        f"sub-01/func/sub-01_task-faces_space-T1w_desc-summary_metrics.{e}" for e in ("tsv", "json")
    }
    assert (out / "sub-01" / "notes.txt").read_text() == "mine"


def test_a_figure_of_the_page_is_published_if_asked_for_or_if_an_older_one_is_there(tmp_path, rng):
    make_fragment(tmp_path / "a", rng).close()
    picture = FIGURE.replace("recon", "recon0000a")
    pages = {}
    for name, asked, old in (("none", False, None), ("all", True, None), ("old", False, b"old")):
        pages[name] = out = tmp_path / name
        if old:
            (out / FIGURE).parent.mkdir(parents=True)
            (out / FIGURE).write_bytes(old)
        outputs.publish([tmp_path / "a"], out, asked)
        assert (out / picture).read_bytes() == b"\x89PNG of a"
    assert not (pages["none"] / FIGURE).exists()
    for name in ("all", "old"):
        assert (pages[name] / FIGURE).read_bytes() == b"\x89PNG"


def test_figures_of_a_stage_are_those_that_it_drew_and_damaged_ones_are_refused(tmp_path, rng):
    fragment = make_fragment(tmp_path, rng)
    with pytest.raises(OutputError, match="not a finished stage"):
        outputs.figures_of(tmp_path)
    fragment.close()
    assert outputs.figures_of(tmp_path) == {"recon": b"\x89PNG"}
    for spoil in (lambda path: path.write_bytes(b"\x89GNP"), Path.unlink):
        spoil(tmp_path / FIGURE)
        with pytest.raises(OutputError, match=r"recon_figure\.png: changed since its stage"):
            outputs.figures_of(tmp_path)


def test_published_files_are_copies_with_ordinary_rights(tmp_path, rng):
    make_fragment(tmp_path / "a", rng).close()
    outputs.publish([tmp_path / "a"], tmp_path / "out")
    umask = os.umask(0)
    os.umask(umask)
    for name in listing(tmp_path / "out"):
        published = (tmp_path / "out" / name).stat()
        assert published.st_ino != (tmp_path / "a" / name).stat().st_ino
        assert published.st_mode & 0o777 == 0o666 & ~umask


def test_failing_copy_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    name = "sub-01/func/sub-01_task-faces_space-T1w_desc-summary_metrics.tsv"
    for folder, value in (("old", 1), ("new", 2)):
        fragment = outputs.Fragment(tmp_path / folder, ENTITIES, PROVENANCE)
        fragment.table("summary_metrics", pd.DataFrame({"value": [value]}), {"value": "Score"})
        fragment.close()
    outputs.publish([tmp_path / "old"], tmp_path / "out")
    before = {n: (tmp_path / "out" / n).read_bytes() for n in listing(tmp_path / "out")}

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            outputs.publish([tmp_path / "new"], tmp_path / "out")
    (tmp_path / "new" / name).write_text("value\n3\n")  # same size, other content
    with pytest.raises(OutputError, match="changed since its stage finished"):
        outputs.publish([tmp_path / "new"], tmp_path / "out")
    found = {n: (tmp_path / "out" / n).read_bytes() for n in listing(tmp_path / "out")}
    assert found[name] == before[name]
    assert set(found) == set(before)


def test_atomic_shows_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with outputs.atomic(path) as stream:
        stream.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(RuntimeError), outputs.atomic(path) as stream:
        stream.write("other")
        raise RuntimeError
    assert path.read_bytes() == "ä\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_root_files_have_the_same_bytes_from_two_jobs_and_are_written_once(tmp_path):
    prep = [f"fmriprep={make_derivative(tmp_path / 'prep')}"]
    for name in ("one", "two"):
        assert outputs.write_root(tmp_path / name, tmp_path / "raw", RAW, prep) == 6
    names = set(listing(tmp_path / "one"))
    assert names == {
        "dataset_description.json", "README.md", "descriptions.tsv", "descriptions.json",
        ".bidsignore", "logs/CITATION.md",
    }  # fmt: skip
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    before = listing(tmp_path / "one")
    assert outputs.write_root(tmp_path / "one", tmp_path / "raw", RAW, prep) == 0
    assert listing(tmp_path / "one") == before


def test_description_says_what_was_decoded_by_what_under_which_licence(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPER_BIDS_DOCKER_TAG", "hyper_bids:0.1.0")
    first = make_derivative(tmp_path / "raw" / "derivatives" / "fmriprep")
    second = make_derivative(tmp_path / "other")
    given = [str(first), f"other={second}"]
    outputs.write_root(tmp_path / "out", tmp_path / "raw", RAW, given)
    found = json.loads((tmp_path / "out" / "dataset_description.json").read_text("utf-8"))
    assert found["DatasetType"] == "derivative"
    assert found["License"] == "CC0"
    assert found["DatasetLinks"] == {
        "raw": "../raw", "preproc": "../raw/derivatives/fmriprep", "other": "../other",
    }  # fmt: skip
    assert found["SourceDatasets"][0] == {"URL": "../raw", "DOI": "doi:10.1/x"}
    container = {"Type": "docker", "Tag": "hyper_bids:0.1.0"}
    assert found["GeneratedBy"][0]["Container"] == container


def test_links_are_relative_in_one_tree_and_uris_across_trees(tmp_path):
    raw = tmp_path / "a b" / "raw"
    assert dataset_links(raw / "derivatives" / "x", raw) == {"raw": "../.."}
    assert dataset_links(tmp_path / "out", raw) == {"raw": "../a%20b/raw"}
    assert dataset_links("/out", raw)["raw"] == raw.as_uri()


@pytest.mark.parametrize("inside", ["", "sub-01", "derivatives", "results", "sourcedata/x"])
def test_output_in_the_dataset_is_refused(tmp_path, inside):
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(UsageError, match="bids_dir"):
        outputs.check_output(raw / inside, raw)
    link = tmp_path / "link"
    link.symlink_to(raw)
    with pytest.raises(UsageError, match="bids_dir"):
        outputs.check_output(link / inside, raw)


def test_output_beside_the_dataset_or_below_derivatives_is_accepted_and_not_made(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for output in (raw / "derivatives" / "hyper_bids", tmp_path / "out", tmp_path):
        outputs.check_output(output, raw)
    assert list(tmp_path.iterdir()) == [raw]
    assert list(raw.iterdir()) == []


def test_output_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/hyper_bids")):
        with pytest.raises(OutputError, match="output_dir"):
            outputs.check_output(output, tmp_path / "raw")


@pytest.mark.parametrize(
    ("text", "maker"),
    [
        (json.dumps({"GeneratedBy": [{"Name": "fMRIPrep"}]}), "fMRIPrep"),
        (json.dumps({"Name": "raw data"}), "unknown"),
        (json.dumps({"GeneratedBy": [{"Name": "hyper_bids simulate"}]}), "simulate"),
        ("{broken", "unknown"),
    ],
)
def test_another_programs_dataset_is_never_overwritten(tmp_path, text, maker):
    out, raw = tmp_path / "out", tmp_path / "raw"
    out.mkdir()
    (out / "dataset_description.json").write_text(text)
    for attempt in (
        lambda: outputs.check_output(out, raw),
        lambda: outputs.write_root(out, raw, RAW, []),
    ):
        with pytest.raises(OutputError, match=maker):
            attempt()
    assert (out / "dataset_description.json").read_text() == text
    assert len(list(out.iterdir())) == 1


def test_own_results_are_accepted_again(tmp_path):
    outputs.write_root(tmp_path / "out", tmp_path / "raw", RAW, [])
    outputs.check_output(tmp_path / "out", tmp_path / "raw")


@pytest.mark.parametrize(
    "entities",
    [
        {"subject": "01", "task": "faces"},
        {"subject": "01", "task": "faces", "space": "T1w"},
        {"subject": "01", "session": "2", "task": "a", "space": "MNI152NLin2009cAsym", "res": "2"},
        {"subject": "01", "task": "faces+houses", "space": "custom"},
    ],
)
def test_what_is_published_is_valid_bids(tmp_path, rng, entities):
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    program = program or shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    out = tmp_path / "out"
    make_fragment(tmp_path / "part", rng, entities).close()
    outputs.write_root(out, tmp_path / "raw", RAW, [str(make_derivative(tmp_path / "prep"))])
    outputs.publish([tmp_path / "part"], out)
    for name in ("group_metrics.tsv", "group_metrics.json", "group.html"):
        (out / name).write_text("{}" if name.endswith("json") else "value\n1\n")
    (out / "figures").mkdir()
    (out / "figures" / "group_desc-scores_figure.png").write_bytes(b"\x89PNG")
    # What a job that is killed leaves behind.
    (out / "sub-01" / f".sub-01.html.{'0' * 12}.part").touch()
    (out / "logs" / "sub-01").mkdir()
    result = subprocess.run(
        [program, "--no-color", "--format", "json", "--max-rows=-1", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []
    assert result.returncode == 0
