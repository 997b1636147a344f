"""The scripts of ``hyper_bids slurm``: what they run, what they keep, and what they refuse.

Slurm's commands and the container's are stand-ins here; tests/test_slurm.py has the real Slurm.
"""

import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import app
import pytest
import yaml

from hyper_bids import arguments, cli
from hyper_bids.cluster_arguments import build_parser
from hyper_bids.clusters.estimate import estimate, seconds
from hyper_bids.clusters.paths import container_view, with_absolute_paths
from hyper_bids.clusters.plugins import NAMES, plugin_arguments
from hyper_bids.config import Settings, with_values
from hyper_bids.errors import UsageError
from hyper_bids.simulate.dataset import simulate

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the scripts are for nodes with Linux: flock, and bash 4"
)

DOCS = Path(__file__).parents[1] / "docs"

# Writes its words, one a line, to the file RAN, and does as STATUS and SLEEP say.
STAND_IN = """#!/bin/bash
printf '%s\\n' "$@" >>"$RAN"
[ -z "${SLEEP:-}" ] || exec sleep "$SLEEP"
exit "${STATUS:-0}"
"""
NAME = 'the $USER folder\'s "name" 5%A'
FIXED = ("--mem", "2G", "--time", "10")


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Twelve participants: only one has data, as the others are not looked at."""
    raw = tmp_path_factory.mktemp("six") / 'it\'s a "study" $HOME; 100%'
    simulate(raw, app.small())
    for number in range(2, 13):
        (raw / f"sub-{number:02d}").mkdir()
    return raw


@pytest.fixture
def place(tmp_path):
    """Stand-ins for the cluster's commands, first on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apptainer", "hyper"):
        _program(programs / name, STAND_IN)
    return tmp_path


def _program(path, text):
    path.write_text(text, "utf-8")
    path.chmod(0o755)


def write(raw, place, *flags, fixed=FIXED, name=NAME):
    """Write a run's folder, and return it."""
    folder = place / name
    argv = ["slurm", raw, place / "out", "--folder", folder, *fixed, *flags]
    assert cli.main(list(map(str, argv))) == 0
    return folder


def environment(place, **more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    clean |= {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "RAN": str(place / "ran")}
    clean |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n5"}
    return clean | {"TMPDIR": str(place)} | {key: str(value) for key, value in more.items()}


def task(folder, place, labels="labels.txt", offset=0, **more):
    """Run one task of the array as Slurm would, and return its exit status."""
    command = ["bash", folder / "array.sh", labels, str(offset)]
    return subprocess.run(
        command, env=environment(place, **more), timeout=60, check=False, capture_output=True
    ).returncode


def rows(folder):
    """Return the table of exit codes without its header, and without the time."""
    lines = (folder / "exit_codes.tsv").read_text("utf-8").splitlines()
    return [line.split("\t")[1:] for line in lines[1:]]


def words(place):
    return (place / "ran").read_text("utf-8").splitlines()


def own(place):
    """Return the flags that run the stand-in for the app."""
    return "--command", f"'{place / 'bin' / 'hyper'}'"


# ---- what is written


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--node-local", "--scratch", "/scratch dir", "--group", "none", "--throttle", "3"),
        ("--keep-work", "--max-array", "5", "--setup", "module load x", "--sbatch=--qos=a b"),
        ("--image", "IMAGE", "--gpus", "a100:2", "--partition", "gpu", "--account", "lab"),
    ],
)
def test_scripts_are_clean(six, place, flags):
    (place / "hyper.sif").touch()
    flags = [str(place / "hyper.sif") if flag == "IMAGE" else flag for flag in flags]
    folder = write(six, place, *flags)
    files = sorted(folder.glob("*.sh"))
    assert len(files) == 5 and all(os.access(file, os.X_OK) for file in files)
    for file in files:
        assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run(["shellcheck", *files], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    cluster_script = Path(__file__).with_name("slurm_cluster.sh")
    assert subprocess.run(["shellcheck", cluster_script], check=False).returncode == 0


def test_jobs_ask_for_what_was_said(six, place):
    (place / "hyper.sif").touch()
    flags = ("--gpus", "2", "--cpus", "3", "--partition", "big", "--account", "lab")
    folder = write(six, place, "--image", place / "hyper.sif", *flags)
    text = (folder / "array.sh").read_text("utf-8")
    asked = re.findall("^#SBATCH (.*)$", text, re.MULTILINE)
    expected = {
        "--partition=big", "--account=lab", "--cpus-per-task=3", "--mem=2048M", "--time=10",
        "--gres=gpu:2", "--requeue", "--nodes=1", "--ntasks=1",
    }  # fmt: skip
    assert expected <= set(asked)
    group = (folder / "group.sh").read_text("utf-8")
    assert "gpu" not in group and "--partition=big" in group


def test_labels_are_all_or_those_chosen(six, place):
    folder = write(six, place)
    assert (folder / "labels.txt").read_text("utf-8").split() == [
        f"sub-{n:02d}" for n in range(1, 13)
    ]
    chosen = write(six, place, "--participant-label", "sub-03,05", name="b")
    assert (chosen / "labels.txt").read_text("utf-8") == "sub-03\nsub-05\n"


def test_the_app_is_given_the_settings_with_absolute_paths(six, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "derived").mkdir()
    for name in ("mask.nii.gz", "model.safetensors", "vae.safetensors"):
        (place / name).touch()
    flags = ("-d", "prep=derived", "--decoder-mask", "mask.nii.gz", "--generator")
    flags += (
        "model.safetensors",
        "--methods",
        "hyper",
        "vaegan=vae.safetensors",
        "--n-voxels",
        "77",
    )
    folder = write(six, place, "--", *flags)
    stated = tomllib.loads((folder / "hyper_bids.toml").read_text("utf-8"))
    assert stated["voxels"] == {
        "n_voxels": 77, "decoder_mask": f"{place}/mask.nii.gz", "mask_labels": [],
        "standardise": "run",
    }  # fmt: skip
    assert stated["inputs"]["derivatives"] == [f"prep={place}/derived"]
    assert stated["images"]["generator"] == f"{place}/model.safetensors"
    assert stated["methods"] == ["hyper", f"vaegan={place}/vae.safetensors"]
    # What the folder says gives the settings back, as the app reads them.
    toml = str(folder / "hyper_bids.toml")
    read = arguments.parse([str(six), "out", "participant", "--config-file", toml])[0]
    said = arguments.parse([str(six), "out", "participant", *flags])[0]
    assert read.decoder == said.decoder and read.voxels.n_voxels == 77


# ---- what a task does


def test_a_task_runs_one_participant_whatever_the_names_hold(six, place):
    folder = write(six, place, *own(place), "--cpus", "3", "--", "-vv")
    assert task(folder, place, offset=2) == 0
    work = str(Path(folder) / "work" / "sub-04")
    assert words(place) == [
        str(six), f"{place}/out", "participant", "--config-file", f"{folder}/hyper_bids.toml",
        "--participant-label", "sub-04", "--work-dir", work, "--nprocs", "3", "--mem-mb", "1843",
        "-vv",
    ]  # fmt: skip
    assert rows(folder) == [["7", "1", "sub-04", "0", "n5", "1"]]


def test_a_container_sees_what_it_needs_and_no_more(six, place):
    image, files = place / "hyper.sif", place / "some files"
    files.mkdir()
    image.touch()
    (files / "mask.nii.gz").touch()
    (place / "extra").mkdir()
    flags = ("--image", image, "--gpus", "1", "--bind", f"{place}/extra:/extra:ro", "--")
    folder = write(six, place, *flags, "--decoder-mask", files / "mask.nii.gz", name="run")
    assert task(folder, place, CUDA_VISIBLE_DEVICES="5") == 0
    told = words(place)
    before, after = told[: told.index(str(image))], told[told.index(str(image)) + 1 :]
    assert before[:4] == ["run", "--cleanenv", "--containall", "--workdir"] and "--nv" in before
    scratch = before[4]
    binds = [before[index + 1] for index, word in enumerate(before) if word == "-B"]
    assert set(binds) == {
        f"{six}:/hyper_bids/data:ro", f"{folder}:/hyper_bids/settings:ro",
        f"{files}:/hyper_bids/inputs/2:ro", f"{place}/out:/hyper_bids/out",
        f"{folder}/work:/hyper_bids/work", f"{scratch}/work:/hyper_bids/scratch",
        f"{place}/extra:/extra:ro",
    }  # fmt: skip
    assert before[before.index("--env") + 1] == "CUDA_VISIBLE_DEVICES=5"
    assert after[:9] == [
        "/hyper_bids/data", "/hyper_bids/out", "participant",
        "--config-file", "/hyper_bids/settings/hyper_bids.toml",
        "--participant-label", "sub-02", "--work-dir", "/hyper_bids/work/sub-02",
    ]  # fmt: skip
    assert (place / "out").is_dir()
    stated = tomllib.loads((folder / "hyper_bids.toml").read_text("utf-8"))
    assert stated["voxels"]["decoder_mask"] == "/hyper_bids/inputs/2/mask.nii.gz"
    local = write(six, place, "--image", image, "--node-local", name="local")
    assert task(local, place) == 0 and words(place)[-5] == "/hyper_bids/scratch"
    assert f"{local}/work:/hyper_bids/work" not in words(place)


def test_temporary_files_go_and_work_stays_only_after_a_failure(six, place):
    folder = write(six, place, *own(place))
    there = set(place.iterdir())
    assert task(folder, place, STATUS=65) == 65
    assert (folder / "work" / "sub-02").is_dir()
    assert task(folder, place, SLURM_RESTART_COUNT=1) == 0
    assert not (folder / "work" / "sub-02").exists()
    assert set(place.iterdir()) - there == {place / "ran", place / "out"}
    assert rows(folder) == [
        ["7", "1", "sub-02", "65", "n5", "1"],
        ["7", "1", "sub-02", "0", "n5", "2"],
    ]
    kept = write(six, place, *own(place), "--keep-work", name="kept")
    assert task(kept, place) == 0 and (kept / "work" / "sub-02").is_dir()
    local = write(six, place, *own(place), "--node-local", name="local")
    assert task(local, place) == 0 and not (local / "work").exists()
    assert Path(words(place)[-5]).parent.parent == place  # the folder for temporary files


def test_two_starts_of_a_participant_never_share_a_work_folder(six, place):
    folder = write(six, place, *own(place))
    lock = folder / "work" / "locks" / "sub-02"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert task(folder, place, HYPER_BIDS_LOCK_WAIT=1) == 0
    assert f"{folder}/work/sub-02" not in words(place)
    assert task(folder, place, HYPER_BIDS_LOCK_WAIT=1) == 0
    assert f"{folder}/work/sub-02" in words(place)


def test_storage_without_locks_keeps_what_is_finished_all_the_same(six, place):
    folder = write(six, place, *own(place))
    _program(place / "bin" / "flock", "#!/bin/bash\nexit 71\n")
    assert task(folder, place) == 0
    assert f"{folder}/work/sub-02" in words(place)
    assert rows(folder) == [["7", "1", "sub-02", "0", "n5", "1"]]


def test_a_start_that_waited_for_one_which_finished_computes_nothing(six, place):
    folder = write(six, place, *own(place))
    assert task(folder, place) == 0
    told = len(words(place))
    assert task(folder, place, SLURM_RESTART_COUNT=1) == 0
    assert len(words(place)) == told and len(rows(folder)) == 1
    assert task(folder, place, SLURM_RESTART_COUNT=1, SLURM_ARRAY_JOB_ID=8) == 0
    assert len(words(place)) == 2 * told


def test_a_time_limit_stops_the_app_and_is_reported(six, place):
    folder = write(six, place, *own(place))
    command = ["bash", folder / "array.sh", "labels.txt", "0"]
    process = subprocess.Popen(
        command, env=environment(place, SLEEP=600), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while not (place / "ran").exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)  # to the script alone, as Slurm does
        said, _ = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143 and "stopped by Slurm" in said
    assert rows(folder) == [["7", "1", "sub-02", "143", "n5", "1"]]


def test_lines_of_the_table_never_mix(six, place):
    folder = write(six, place, *own(place))
    running = [
        subprocess.Popen(
            ["bash", folder / "array.sh", "labels.txt", "0"], env=environment(place) |
            {"SLURM_ARRAY_TASK_ID": str(index)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index in range(12)
    ]  # fmt: skip
    assert [process.wait(timeout=60) for process in running] == [0] * 12
    assert sorted(row[2] for row in rows(folder)) == [f"sub-{n:02d}" for n in range(1, 13)]
    assert all(len(row) == 6 for row in rows(folder))


# ---- submission


def cluster(place, limit=1001, queue="", sbatch_fails_at=99):
    """Put stand-ins for sbatch, squeue and scontrol in place, which write what they are told."""
    programs = place / "bin"
    _program(
        programs / "sbatch",
        f"""#!/bin/bash
echo "$*" >>"{place}/sbatch"
n=$(wc -l <"{place}/sbatch")
[ "$n" -lt {sbatch_fails_at} ] || {{ echo "too many jobs" >&2; exit 1; }}
echo $((100 + n))
""",
    )
    (place / "queue").write_text(queue, "utf-8")
    _program(programs / "squeue", f'#!/bin/bash\ncat "{place}/queue"\n')
    _program(
        programs / "scontrol",
        f"""#!/bin/bash
if [ "$1" = show ]; then echo "MaxArraySize            = {limit}"
else echo "$*" >>"{place}/scontrol"; fi
""",
    )


def submitted(place):
    """Return what sbatch was told: options of interest, and the script's words."""
    path = place / "sbatch"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    keep = re.compile(
        r"--array=\S+|--dependency=\S+|--kill\S+|--qos=\S+|(?<=array\.sh ).*|group\.sh"
    )
    return [keep.findall(line) for line in lines]


def script(folder, place, name, *flags, status=0):
    done = subprocess.run(
        ["bash", folder / name, *flags], env=environment(place), timeout=60, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_arrays_are_as_long_as_the_cluster_or_the_flag_allows(six, place):
    cluster(place, limit=5)
    folder = write(six, place, "--sbatch=--qos=long")
    script(folder, place, "submit.sh")
    assert submitted(place) == [
        ["--qos=long", "--array=0-4", "labels.txt 0"],
        ["--qos=long", "--array=0-4", "labels.txt 5"],
        ["--qos=long", "--array=0-1", "labels.txt 10"],
        ["--qos=long", "--dependency=afterok:101:102:103", "--kill-on-invalid-dep=no", "group.sh"],
    ]
    assert "use resubmit" in script(folder, place, "submit.sh", status=73).lower()
    assert submitted(place) == []
    cluster(place)
    eight = write(six, place, "--max-array", "8", "--group", "afterany", name="eight")
    script(eight, place, "submit.sh")
    assert submitted(place) == [
        ["--array=0-7", "labels.txt 0"],
        ["--array=0-3", "labels.txt 8"],
        ["--dependency=afterany:101:102", "--kill-on-invalid-dep=no", "group.sh"],
    ]
    # The cluster's limit wins, and the throttle holds over all arrays.
    cluster(place, limit=10)
    more = write(six, place, "--max-array", "50", "--group", "none", "--throttle", "4", name="more")
    script(more, place, "submit.sh")
    assert submitted(place) == [
        ["--array=0-9%4", "labels.txt 0"],
        ["--array=0-1%4", "--dependency=afterany:101", "labels.txt 10"],
    ]


def test_only_failed_and_lost_participants_are_submitted_again(six, place):
    cluster(place, limit=6)
    folder = write(six, place)
    assert "use submit" in script(folder, place, "resubmit.sh", status=73).lower()
    script(folder, place, "submit.sh")
    submitted(place)
    states = {1: "0", 2: "65", 3: "1 0", 4: "0 137", 5: "", 6: "0", 7: "0", 8: "", 9: "65"}
    with (folder / "exit_codes.tsv").open("a") as table:
        for number, codes in states.items():
            for code in codes.split():
                table.write(f"t\t101\t{number - 1}\tsub-{number:02d}\t{code}\tn1\t1\n")
    # In the queue: 8 (second array), 9 again, and 10 to 12; the group level waits.
    queue = "".join(f"102 {index} {state}\n" for index, state in enumerate("RRPPP", start=1))
    (place / "queue").write_text(f"{queue}103 N/A PD\n999 4 R\n", "utf-8")
    said = script(folder, place, "resubmit.sh", "-n")
    assert "to submit: sub-02 sub-04 sub-05 \n" in said and "queue: 5 participants" in said
    assert submitted(place) == [] and not (folder / "labels-2.txt").exists()
    script(folder, place, "resubmit.sh")
    assert (folder / "labels-2.txt").read_text("utf-8") == "sub-02\nsub-04\nsub-05\n"
    assert submitted(place) == [["--array=0-2", "labels-2.txt 0"]]
    updated = (place / "scontrol").read_text("utf-8")
    assert updated == "update JobId=103 Dependency=afterok:101,afterany:102\n"
    # A group level that is gone from the queue is submitted anew.
    (place / "queue").write_text("", "utf-8")
    script(folder, place, "resubmit.sh")
    found = submitted(place)
    assert found[0] == ["--array=0-5", "labels-3.txt 0"]
    assert found[-1][-1] == "group.sh"
    assert len((folder / "labels-3.txt").read_text("utf-8").split()) == 8


def test_nothing_is_submitted_when_all_is_finished(six, place):
    cluster(place)
    folder = write(six, place, "--participant-label", "01")
    script(folder, place, "submit.sh")
    submitted(place)
    with (folder / "exit_codes.tsv").open("a") as table:
        table.write("t\t101\t0\tsub-01\t0\tn1\t1\n")
    script(folder, place, "resubmit.sh")
    assert submitted(place)[0][-1] == "group.sh", "the group level has not run"
    with (folder / "exit_codes.tsv").open("a") as table:
        # Of a former group job: the newest one left no line.
        table.write("t\t99\tn/a\tgroup\t0\tn1\t1\n")
    script(folder, place, "resubmit.sh")
    assert submitted(place)[0][-1] == "group.sh", "the newest group job ended without a word"
    with (folder / "exit_codes.tsv").open("a") as table:
        table.write("t\t101\tn/a\tgroup\t0\tn1\t1\n")
    script(folder, place, "resubmit.sh")
    assert submitted(place) == []
    for name in ("resubmit.sh", "submit.sh"):
        script(folder, place, name, "--help", status=64)
    assert submitted(place) == []


def test_participants_that_sbatch_did_not_take_are_submitted_later(six, place):
    cluster(place, limit=5, sbatch_fails_at=2)
    folder = write(six, place)
    assert "Only 5 of 12" in script(folder, place, "submit.sh", status=1)
    submitted(place)
    cluster(place)
    (place / "queue").write_text("".join(f"101 {n} PD\n" for n in range(5)), "utf-8")
    script(folder, place, "resubmit.sh")
    assert (folder / "labels-2.txt").read_text("utf-8").split()[0] == "sub-06"
    assert submitted(place)[-1][0].startswith("--dependency=afterok:101,afterany:101")
    refused = write(six, place, name="refused")
    cluster(place, sbatch_fails_at=1)
    assert "Nothing was submitted" in script(refused, place, "submit.sh", status=1)
    cluster(place)
    script(refused, place, "submit.sh")


def test_a_path_that_leaves_a_folder_does_not_lie_in_it(tmp_path, monkeypatch):
    for name in ("raw", "prep"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "raw")
    given = Settings(bids_dir=".", output_dir="../out")
    given = with_values(given, {"derivatives": ("../prep",)})
    seen, binds = container_view(with_absolute_paths(given), "/f")
    assert seen.inputs.derivatives == ("/hyper_bids/inputs/2",)
    assert f"{tmp_path / 'prep'}:/hyper_bids/inputs/2:ro" in binds
    assert f"{tmp_path / 'out'}:/hyper_bids/out" in binds


def test_paths_inside_are_those_of_the_nearest_folder():
    given = Settings(
        bids_dir="/a/raw", output_dir="/a/raw/derivatives/hyper", methods=("hyper", "own=/w/m.onnx")
    )
    given = with_values(
        given,
        {
            "derivatives": ("/a/raw/derivatives/prep", "fs=/b/fs"), "generator": "/w/g.safetensors",
            "bids_database_dir": "/a/index", "atlas": "/a/raw/derivatives/hyper/atlas.nii.gz",
            "feature_networks": ("auto", "/w/deep/n.h5"),
        },
    )  # fmt: skip
    seen, binds = container_view(given, "/f")
    assert (seen.bids_dir, seen.output_dir) == ("/hyper_bids/data", "/hyper_bids/out")
    assert seen.inputs.derivatives == (
        "/hyper_bids/data/derivatives/prep",
        "fs=/hyper_bids/inputs/4",
    )
    assert seen.inputs.bids_database_dir == "/hyper_bids/index"
    assert seen.maps.atlas == "/hyper_bids/out/atlas.nii.gz"
    assert (seen.images.generator, seen.methods[1]) == (
        "/hyper_bids/inputs/3/g.safetensors",
        "own=/hyper_bids/inputs/3/m.onnx",
    )
    assert seen.scores.feature_networks == ("auto", "/hyper_bids/inputs/3/deep/n.h5")
    assert binds == (
        "/f:/hyper_bids/settings:ro", "/a/raw:/hyper_bids/data:ro",
        "/a/raw/derivatives/hyper:/hyper_bids/out", "/a/index:/hyper_bids/index",
        "/w:/hyper_bids/inputs/3:ro", "/b/fs:/hyper_bids/inputs/4:ro",
    )  # fmt: skip


@pytest.mark.parametrize("when", ["afterok", "afterany"])
def test_the_group_level_waits_or_reports(six, place, when):
    folder = write(six, place, *own(place), "--group", when, "--participant-label", "01", "02")
    assert task(folder, place, SLURM_ARRAY_TASK_ID=0) == 0
    (place / "ran").unlink()
    said = script(folder, place, "group.sh", status=1 if when == "afterok" else 0)
    assert "sub-02\tn/a" in said and "sub-01" not in said
    assert (place / "ran").exists() == (when == "afterany")
    assert rows(folder)[-1][2:4] == ["group", "1" if when == "afterok" else "0"]
    assert task(folder, place, SLURM_ARRAY_TASK_ID=1) == 0
    script(folder, place, "group.sh")
    *said, work = words(place)
    assert said[-6:] == [
        str(six), f"{place}/out", "group", "--config-file", f"{folder}/hyper_bids.toml",
        "--work-dir",
    ]  # fmt: skip
    # Of the task alone, and gone with it.
    assert work.endswith("/work")
    assert not Path(work).parent.exists()


def test_submit_submits_and_says_why_it_cannot(six, place, said, monkeypatch):
    cluster(place)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    write(six, place, "--submit")
    assert "array job 101: 12 of 12 participants" in said.text
    cluster(place, sbatch_fails_at=1)
    argv = ["slurm", six, place / "out", "--folder", place / "b", *FIXED, "--submit"]
    assert cli.main(list(map(str, argv))) == 73
    assert "too many jobs" in said.text
    monkeypatch.setenv("PATH", "/nowhere")
    argv[4] = place / "c"
    assert cli.main(list(map(str, argv))) == 73
    assert "there is no sbatch here" in said.text and (place / "c" / "submit.sh").is_file()


# ---- estimates


def plan(label="01", shape=(80, 90, 70), volumes=500, memory_mb=2000, **more):
    run = SimpleNamespace(shape=shape, n_volumes=volumes)
    counts = {"training_trials": 800, "test_trials": 200, "test_stimuli": 36}
    method = SimpleNamespace(size=(64, 64))
    values = {
        "participant": label, "runs": [run] * 9, "memory_mb": memory_mb, "realign": True,
        "n_latents": 512, "methods": [method], "counts": lambda: counts,
    }  # fmt: skip
    return SimpleNamespace(**(values | more))


def test_estimates_are_of_the_largest_and_grow_with_the_data():
    small, large = plan("01"), plan("02", volumes=1000, memory_mb=9000)
    found = estimate([small, large])
    assert (found.largest, found.longest, found.dry_run_mb) == ("02", "02", 9000)
    assert found.mem_mb == 14 * 1024  # 13,500 MB, in whole gigabytes
    assert estimate([small]).mem_mb == 4096
    short = plan("03", volumes=50, memory_mb=20000)
    found_both = estimate([small, large, short])
    assert (found_both.largest, found_both.longest) == ("03", "02")
    assert seconds(large) > 1.7 * seconds(small) > seconds(plan(realign=False))
    assert found.minutes * 60 >= 4 * seconds(large) > (found.minutes - 30) * 60
    assert estimate([small], refits=1000).seconds == estimate([small]).seconds + 70
    huge = plan(methods=[SimpleNamespace(size=(1024, 1024))])
    assert seconds(huge) - seconds(plan(methods=[])) == pytest.approx(92 * (0.3 + 5.24), rel=0.01)
    assert dataclasses.replace(found, minutes=1530).time == "25:30:00"


def test_what_is_not_said_is_estimated_and_the_log_says_from_what(six, place, said):
    only = ("--participant-label", "01")
    folder = write(six, place, *only, fixed=())
    text = (folder / "array.sh").read_text("utf-8")
    assert "--mem=4096M" in text and "--time=00:30:00" in text
    assert "that --dry-run says of sub-01" in said.text and "would take one core" in said.text
    said.clear()
    write(six, place, *only, fixed=("--mem", "3G"), name="b")
    assert "--mem" not in said.text and "--time 00:30:00" in said.text
    # A participant whose data are wrong is told, and does not stop the others.
    said.clear()
    write(six, place, "--participant-label", "01", "02", fixed=(), name="c")
    assert "sub-02: its task will fail as it is" in said.text
    argv = ["slurm", six, place / "out", "--folder", place / "d", "--participant-label", "02"]
    assert cli.main(list(map(str, argv))) == 65 and not (place / "d").exists()


# ---- what is refused


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (("--participant-label", "99"), 64, "--participant-label 99: no such participant"),
        (("--time", "2h"), 64, "'2h' is none of MINUTES"),
        (("--mem", "16"), 64, "has no unit"),
        (("--gpus", "all"), 64, "'all' is neither a number nor TYPE:NUMBER"),
        (("--partition", "a b"), 64, "'a b' is not a name"),
        (("--throttle", "0"), 64, "'0' is not a whole number"),
        (("--image", "no.sif"), 64, "--image no.sif: no such file"),
        (("--sbatch", "qos"), 64, "--sbatch 'qos': an option is wanted"),
        (("--scratch", "$NODE_TMP"), 64, "'$NODE_TMP' is no absolute path"),
        (("--", "--use-plugin", "SLURM"), 64, "each task would submit jobs of its own"),
        (("--setup", "a\nb"), 64, "holds a line break"),
        (("--bind", "/data"), 64, "only a container needs it"),
        (("--node-local", "--keep-work"), 64, "there is nothing to keep"),
        (("--command", "'"), 64, "is no command"),
        (("--", "-w", "work"), 64, "work_dir of the app: each job is told its own. Give -w"),
        (("--", "--mem", "4G"), 64, "Give --mem to hyper_bids slurm"),
        (("--", "--nprocs", "4"), 64, "Give --cpus to hyper_bids slurm"),
        (("--", "--dry-run"), 64, "--dry-run: leave out --submit"),
        (("--", "--device", "cuda"), 64, "the jobs ask for no GPU. Add --gpus 1"),
        (("--", "--atlas", "/nowhere/a.nii.gz"), 64, "/nowhere: no such folder, which a flag"),
        (("--", "-d", "/nowhere"), 64, "/nowhere: no such folder, which a flag"),
        (("--", "--n-voxels", "no"), 64, "'no' is not a whole number"),
        (("--unknown",), 64, "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_flags_are_told(six, place, said, flags, status, says):
    argv = ["slurm", str(six), str(place / "out"), "--folder", str(place / "f"), *FIXED, *flags]
    assert cli.main(argv) == status
    assert says in said.text and "Traceback" not in said.text
    assert not (place / "f").exists()


def test_folders_with_something_in_them_and_datasets_are_left_alone(six, place, said):
    write(six, place, name="f")
    before = app.contents(place / "f")
    argv = ["slurm", str(six), str(place / "out"), "--folder", str(place / "f"), *FIXED]
    assert cli.main(argv) == 73
    assert "not empty. There is a run in it" in said.text and app.contents(place / "f") == before
    for inside in (six / "code", place / "out" / "slurm"):
        assert cli.main([*argv[:4], str(inside), *FIXED]) == 64
        assert "which is kept for data" in said.text and not inside.exists()
    assert cli.main([*argv[:4], str(place / "g"), *FIXED, "-w", str(six / "work")]) == 64


def test_paths_that_a_container_cannot_take_are_refused(six, place, said):
    (place / "a:b.sif").touch()
    (place / "hyper.sif").touch()
    argv = ["slurm", str(six), str(place / "o,ut"), "--image", str(place / "hyper.sif"), *FIXED]
    assert cli.main([*argv, "--folder", str(place / "f")]) == 64
    assert "holds a colon or a comma" in said.text
    argv[2] = str(place / "out")
    assert cli.main([*argv, "--folder", str(place / "f:1")]) == 64


@pytest.mark.parametrize(
    ("folder", "plain"), [("/work/a-b_1", True), ("/a b", False), ("/5%", False)]
)
def test_nipypes_plugins_are_told_what_a_stage_needs(folder, plain, monkeypatch):
    monkeypatch.delenv("LOGNAME", raising=False)
    if plain:
        told = plugin_arguments("SLURM", [folder], 900, 2)
        assert told == {"sbatch_args": "--mem=900M --cpus-per-task=2 --export=ALL"}
        assert os.environ["LOGNAME"]
    else:
        with pytest.raises(UsageError, match="Give another OUT and --work-dir"):
            plugin_arguments("SLURM", ["/plain", folder], 900, 2)
    flag = arguments.parse(["a", "b", "participant", "--use-plugin", "SLURM"])[0]
    assert flag.resources.use_plugin == "SLURM"
    action = next(a for a in arguments.build_parser()._actions if a.dest == "use_plugin")
    assert set(NAMES) == set(action.choices) - {"auto", "linear", "multiproc"}


# ---- documents


def test_the_flags_in_the_documentation_are_those_of_the_command():
    text = (DOCS / "clusters.md").read_text("utf-8")
    table = text.partition("## Flags")[2].partition("\n## ")[0]
    cells = " ".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE))
    told = set(re.findall(r"`(--[a-z-]+)", cells))
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert told == {option for option in known if option.startswith("--")} - {"--help"}


def test_the_configuration_for_babs_has_flags_that_the_app_takes():
    config = yaml.safe_load((DOCS / "babs.yaml").read_text("utf-8"))
    assert set(config) == {
        "bids_app_args", "singularity_args", "all_results_in_one_zip", "zip_foldernames",
        "cluster_resources", "script_preamble", "job_compute_space", "input_datasets",
    }  # fmt: skip
    given = dict(config["bids_app_args"])
    label = given.pop("$SUBJECT_SELECTION_FLAG")
    argv = [label, "sub-01"]
    for flag, value in given.items():
        assert value is None or isinstance(value, str)
        argv += [flag, *(value or "").split()]
    settings, _ = arguments.parse(["bids", "out", "participant", *argv])
    assert settings.inputs.participant_label == ("01",)
    asked = config["cluster_resources"]["customized_text"]
    assert f"--cpus-per-task={settings.resources.nprocs}" in asked
    memory = int(re.search(r"--mem=(\d+)G", asked)[1])
    assert settings.resources.mem_mb < 1024 * memory
    assert config["zip_foldernames"]["hyper_bids"]


def test_python_of_the_documentation_is_python():
    text = (DOCS / "clusters.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "clusters.md", "exec")
