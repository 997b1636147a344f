"""Containers, other file systems and limits: what is not mounted, full, forbidden or too old."""

import errno
import logging
import os
import tempfile
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import app
import bids_tree
import numpy as np
import pytest

from hyper_bids import cli, container, device, preflight, resources
from hyper_bids.bids import root as derivatives_root
from hyper_bids.bids.atomic import reserve
from hyper_bids.bids.index import index_participant
from hyper_bids.config import InputSettings, Settings, with_values
from hyper_bids.errors import DeviceError, LimitError, OutputError, told_by_system
from hyper_bids.participant import estimation
from hyper_bids.simulate.dataset import simulate


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch, tmp_path):
    """Let no mark of a container be seen, whatever these tests run in."""
    monkeypatch.setattr(container, "_MARKS", {"docker": (tmp_path / ".dockerenv",)})
    for name in (*container._APPTAINER, container.VARIABLE):
        monkeypatch.delenv(name, raising=False)


def inside(monkeypatch, what, tmp_path):
    """Let this be a container of a kind."""
    if what == "apptainer":
        monkeypatch.setenv("APPTAINER_CONTAINER", "/images/hyper.sif")
    elif what == "own":
        monkeypatch.setenv(container.VARIABLE, "1")
    else:
        (tmp_path / ".dockerenv").touch()


@pytest.fixture
def tree(tmp_path):
    return bids_tree.make_dataset(tmp_path / "ds", ("01", "02"), key="stim_id")


@pytest.fixture
def told(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(bids_dir, *flags, status, out="out"):
        argv = [str(bids_dir), str(out), "participant", "--skip-bids-validation", *map(str, flags)]
        assert cli.main(argv) == status, said.text
        assert "Traceback" not in said.text
        last = said.records[-1].getMessage()
        assert "\n" not in last
        return last

    return run


# What is not mounted


@pytest.mark.parametrize(
    ("what", "line"),
    [("docker", "docker -v /path/on/the/host:"), ("own", "docker -v "), ("apptainer", " -B /path")],
)
@pytest.mark.parametrize("made", [True, False])
def test_a_dataset_that_is_not_mounted(told, tmp_path, monkeypatch, what, line, made):
    folder = tmp_path / "data"
    if made:
        folder.mkdir()
    status = 65 if made else 64
    assert "container" not in told(folder, status=status)
    inside(monkeypatch, what, tmp_path)
    last = told(folder, status=status)
    assert line in last
    assert f":{folder}:ro" in last
    assert ("empty" if made else "no such folder") in last


def test_derivatives_that_are_not_mounted(tree, told, tmp_path, monkeypatch):
    inside(monkeypatch, "apptainer", tmp_path)
    last = told(tree, "-d", "/nowhere/fmriprep", status=64)
    assert "apptainer -B /path/on/the/host:/nowhere/fmriprep:ro" in last


@pytest.mark.parametrize("flag", ["--generator", "--feature-network", "--decoder-mask"])
def test_weights_and_masks_that_are_not_mounted(tree, told, tmp_path, monkeypatch, flag):
    inside(monkeypatch, "docker", tmp_path)
    one = ("--participant-label", "01")
    last = told(tree, *one, flag, "/weights/model.bin", status=64)
    assert "docker -v /path/on/the/host:/weights:ro" in last
    # The folder is there: it is the name that is wrong.
    assert "docker" not in told(tree, *one, flag, tmp_path / "model.bin", status=64)


def test_an_image_s_variable_counts_where_there_is_no_other_mark(monkeypatch, tmp_path):
    assert container.kind() is None
    assert container.mount_hint("/data") == ""
    inside(monkeypatch, "own", tmp_path)
    assert container.kind() == "docker"
    assert container.is_own_image()
    inside(monkeypatch, "apptainer", tmp_path)
    assert container.kind() == "apptainer"


def test_output_in_the_container_itself_is_warned_of(tree, told, tmp_path, monkeypatch, said):
    if tmp_path.stat().st_dev != Path("/").stat().st_dev:
        pytest.skip("the folder of the tests is on a file system of its own")
    told(tree, "--dry-run", status=0)
    assert "lies in the container" not in said.text
    inside(monkeypatch, "own", tmp_path)
    told(tree, "--dry-run", status=0)
    assert "lies in the container" in said.text
    assert f"docker -v /path/on/the/host:{tmp_path / 'out'}" in said.text


# Whose folders they are


def test_an_output_folder_of_another_user(tree, told, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(derivatives_root.tempfile, "TemporaryDirectory", refuse)
    own = os.geteuid()
    last = told(tree, status=73)
    assert "Permission denied" in last
    assert "belongs to" not in last
    monkeypatch.setattr(derivatives_root.os, "geteuid", lambda: own + 1234)
    inside(monkeypatch, "docker", tmp_path)
    last = told(tree, status=73)
    assert f"it belongs to user {own}, and this runs as user {own + 1234}: docker -u {own}" in last
    assert f"docker -v /path/on/the/host:{tmp_path / 'out'}" in last
    assert f"{tmp_path / 'out'}:ro" not in last


@pytest.mark.parametrize("closed", ["sub-02", "sub-02/func", "logs"])
def test_a_participant_s_folder_that_cannot_be_written(tree, told, tmp_path, monkeypatch, closed):
    (tmp_path / "out" / closed).mkdir(parents=True)
    real = os.access
    shut = tmp_path / "out" / closed
    monkeypatch.setattr(
        derivatives_root.os, "access", lambda path, mode: Path(path) != shut and real(path, mode)
    )
    monkeypatch.chdir("/")
    last = told(tree, "--dry-run", status=73, out=tmp_path / "out")
    assert f"{shut}: cannot be written" in last
    if closed != "logs":
        told(tree, "--dry-run", "--participant-label", "01", status=0, out=tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may write everywhere")
def test_a_participant_s_folder_without_rights(tree, told, tmp_path):
    (tmp_path / "out" / "sub-01").mkdir(parents=True, mode=0o555)
    assert "sub-01: cannot be written" in told(tree, "--dry-run", status=73)


# Space


def test_too_little_space_is_told_before_the_start(tree, told, tmp_path, monkeypatch):
    monkeypatch.setattr(
        resources.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20)
    )
    last = told(tree, "-w", tmp_path / "w", status=73)
    assert "5 MB are free" in last
    assert "--work-dir" in last
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "w").exists()


def test_space_is_counted_by_file_system(tmp_path, monkeypatch):
    free = {"work": 50, "out": 80}
    monkeypatch.setattr(
        resources.shutil,
        "disk_usage",
        lambda path: SimpleNamespace(free=free[Path(path).name] * 2**20),
    )
    for name in free:
        (tmp_path / name).mkdir()
    work, out = tmp_path / "work", tmp_path / "out"
    # Both folders are on one file system, and share what is free in the first.
    resources.check_space({work: (25, 1), out: (25, 1)})
    with pytest.raises(OutputError, match="at least 51 MB are needed, and 50 MB are free"):
        resources.check_space({work: (25, 1), out: (26, 1)})
    resources.check_space({out / "not" / "there": (80, 1)})


def test_too_few_inodes_are_told(tmp_path, monkeypatch):
    plenty = dict.fromkeys(("f_bavail", "f_bfree", "f_blocks", "f_frsize"), 2**20)
    few = SimpleNamespace(f_files=1000, f_favail=90, **plenty)
    monkeypatch.setattr(resources.os, "statvfs", lambda path: few)
    resources.check_space({tmp_path: (1, 90)})
    with pytest.raises(OutputError, match="inodes"):
        resources.check_space({tmp_path: (1, 91)})
    few.f_files = 0  # btrfs and others
    resources.check_space({tmp_path: (1, 91)})


def test_the_estimate_of_space_is_no_more_than_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_FIGURES_MB", 0)
    # Large enough for whole megabytes.
    settings = app.small(shape=(20, 22, 16), trials_per_run=40, n_train_runs=8, n_coding_voxels=100)
    simulate(tmp_path / "raw", settings)
    asked = []
    monkeypatch.setattr(resources, "check_space", asked.append)
    assert app.run(tmp_path / "raw", tmp_path / "out") == 0
    (needed,) = asked
    (work, (in_work, n_work)), (out, (in_out, n_out)) = needed.items()
    used = {folder: [p for p in folder.rglob("*") if p.is_file()] for folder in (work, out)}
    size = {folder: sum(p.stat().st_size for p in paths) for folder, paths in used.items()}
    assert 0 < in_work * 2**20 <= size[work] * 1.3
    assert 0 < in_out * 2**20 <= size[out]
    assert len(used[out]) <= n_out
    assert len(used[work]) <= n_work
    # What is there already is not asked for again.
    assert app.run(tmp_path / "raw", tmp_path / "out") == 0
    assert [megabytes for megabytes, _ in asked[1].values()] == [0, 0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_ends_in_the_middle_is_one_line_and_leaves_nothing_half(
    tmp_path, monkeypatch, said, code
):
    simulate(tmp_path / "raw", app.small())

    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("hyper_bids.participant.decoding.fit_decoder", full)
    assert app.run(tmp_path / "raw", tmp_path / "out") == 1
    failed = [text for text in said.messages if text.startswith("sub-01 failed")]
    assert len(failed) == 1
    assert "no space or quota is left" in failed[0]
    assert "finished stages are kept" in failed[0]
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not [p for p in left if p.name.endswith(".part")]
    assert not (tmp_path / "out" / "sub-01").exists()
    monkeypatch.undo()
    assert app.run(tmp_path / "raw", tmp_path / "out") == 0


def test_the_space_of_a_memory_map_is_taken_before_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "betas.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (500, 1000)).flush()
    before = path.read_bytes()
    assert path.stat().st_blocks * 512 < 1_000_000
    reserve(path)
    assert path.stat().st_blocks * 512 >= 2_000_000
    assert path.read_bytes() == before

    def refuse(code):
        def allocate(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", allocate, raising=False)

    refuse(errno.EOPNOTSUPP)
    reserve(path)
    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        reserve(path)


def test_responses_take_their_space_first(tmp_path, monkeypatch):
    simulate(tmp_path / "raw", app.small())
    taken = []
    monkeypatch.setattr(estimation, "reserve", taken.append)
    assert app.run(tmp_path / "raw", tmp_path / "out") == 0
    assert [Path(path).name for path in taken] == ["betas.npy"]


def test_a_full_output_is_an_error_of_the_output(tree, told, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preflight, "make_plan", full)
    assert "no space or quota is left" in told(tree, status=73)


# Processes


@pytest.mark.parametrize(
    ("text", "kind", "status"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", OutputError, 73),
        ("OSError: [Errno 122] Disk quota exceeded", OutputError, 73),
        ("OSError: 136224 requested and 25600 written", OutputError, 73),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", LimitError, 71),
        ("RuntimeError: can't start new thread", LimitError, 71),
        ("ValueError: a number", None, None),
    ],
)
def test_messages_of_the_system_are_told_in_other_words(text, kind, status):
    found = told_by_system(text)
    assert (found is None) if kind is None else (type(found) is kind)
    if kind is not None:
        assert found.exit_status == status
        assert "\n" not in str(found)


def groups(monkeypatch, tmp_path, limits, line="0::/job/step\n"):
    """Let control groups be files: folder to limit and number of processes."""
    (tmp_path / "groups").write_text(line)
    for folder, (allowed, now) in limits.items():
        (tmp_path / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / folder / "pids.max").write_text(f"{allowed}\n")
        (tmp_path / "cgroup" / folder / "pids.current").write_text(f"{now}\n")
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resources, "_GROUPS", tmp_path / "cgroup")


def with_processes(nprocs, threads, plugin="auto"):
    values = {"nprocs": nprocs, "omp_nthreads": threads, "use_plugin": plugin}
    return with_values(Settings(), values)


def test_more_processes_than_the_control_group_allows(monkeypatch, tmp_path):
    groups(monkeypatch, tmp_path, {"job/step": (60, 3), "job": (50, 20), ".": ("max", 99)})
    resources.check_processes(with_processes(4, 1), 8)
    with pytest.raises(LimitError) as caught:
        resources.check_processes(with_processes(16, 1), 8)
    assert "--nprocs 16" in str(caught.value)
    assert "has room for 30" in str(caught.value)
    # What is advised is accepted.
    advised = int(str(caught.value).partition("Use --nprocs ")[2].partition(",")[0])
    assert advised > 1
    resources.check_processes(with_processes(advised, 1), 8)
    for settings, n_jobs in ((with_processes(16, 1, "linear"), 8), (with_processes(16, 1), 1)):
        resources.check_processes(settings, n_jobs)


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("0::/\n", "."),
        ("0::/docker/abc\n", "."),  # the path of the host, seen in a container
        ("12:cpu:/x\n8:pids:/job\n0::/\n", "pids/job"),
        ("8:pids:/docker/abc\n", "pids"),
    ],
)
def test_limits_of_both_versions_of_control_groups_are_seen(monkeypatch, tmp_path, line, folder):
    groups(monkeypatch, tmp_path, {folder: (20, 5)}, line)
    with pytest.raises(LimitError, match="room for 15"):
        resources.check_processes(with_processes(16, 1), 8)


def test_without_a_limit_nothing_is_refused(monkeypatch, tmp_path):
    groups(monkeypatch, tmp_path, {"job": ("max", 5)})
    resources.check_processes(with_processes(500, 1), 8)
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "absent")
    resources.check_processes(with_processes(500, 1), 8)


def test_too_many_processes_end_with_a_status_of_their_own(tree, told, monkeypatch, tmp_path):
    groups(monkeypatch, tmp_path, {"job": (12, 5)})
    last = told(tree, "--nprocs", "16", "--omp-nthreads", "1", status=71)
    assert "docker --pids-limit" in last


def test_more_processors_than_there_are_is_warned_of(monkeypatch, said):
    monkeypatch.setattr(resources, "available_processors", lambda: 2)
    resources.with_resources(with_processes(2, 1), 1)
    assert "--nprocs" not in said.text
    resources.with_resources(with_processes(16, 1), 1)
    assert "--nprocs 16: only 2 processors may be used" in said.text


def die():
    import os  # nipype takes the function's source alone

    os._exit(9)


def test_a_worker_that_dies_fails_its_stage_and_the_run_ends(tmp_path, monkeypatch):
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    from hyper_bids.workflow import Workers

    graph = engine.Workflow("graph", base_dir=str(tmp_path))
    graph.config["execution"] = {"crashdump_dir": str(tmp_path), "crashfile_format": "txt"}
    graph.add_nodes([engine.Node(Function(function=die), name="one")])
    workers = Workers(plugin_args={"n_procs": 1, "mp_context": "spawn"})
    ended = []

    def run():
        try:
            graph.run(plugin=workers)
        except RuntimeError as error:
            ended.append(str(error))

    # nipype's own plugin waits for ever.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(300)
    assert len(ended) == 1
    assert "a worker process ended" in ended[0]


# Devices


NO_DRIVER = (
    "CUDA initialization: Found no NVIDIA driver on your system. Please check that you have an "
    "NVIDIA GPU and installed a driver from http://www.nvidia.com/Download/index.aspx (Triggered "
    "internally at /pytorch/c10/cuda/CUDAFunctions.cpp:109.)"
)
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version from the URL: "
    "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org"
)
UNKNOWN = (
    "CUDA initialization: CUDA unknown error - this may be due to an "
    "incorrectly\nset up environment"
)


@pytest.fixture
def cuda(monkeypatch):
    """Return a function that lets PyTorch be a build for CUDA that warns so, and sees no GPU."""
    torch = pytest.importorskip("torch")

    def warn(text):
        def available():
            if text:
                warnings.warn(text, UserWarning, stacklevel=2)
            return False

        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(torch.cuda, "is_available", available)

    return warn


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NO_DRIVER, "no NVIDIA driver is seen from here, and PyTorch"),
        (OLD_DRIVER, "the NVIDIA driver is too old: it goes up to CUDA 11.4, and PyTorch"),
        (UNKNOWN, "CUDA unknown error - this may be due to an incorrectly set up"),
        ("", "GPUs that PyTorch sees: none"),
    ],
)
def test_cuda_without_a_driver_that_works(cuda, text, words):
    cuda(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeviceError) as caught:
            device.resolve_device("cuda")
    assert words in str(caught.value)
    assert ("built for CUDA 12.8" in str(caught.value)) == (text in (NO_DRIVER, OLD_DRIVER))
    assert "docker --gpus all, apptainer --nv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "nvidia.com" not in str(caught.value)


def test_a_build_for_the_cpu_is_told(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "hip"):
        monkeypatch.setattr(torch.version, name, None)
    with pytest.raises(DeviceError, match="built for the CPU alone"):
        device.resolve_device("cuda:0")


@pytest.mark.parametrize(("text", "warned"), [(NO_DRIVER, 0), (OLD_DRIVER, 1), ("", 0)])
def test_auto_goes_on_on_the_cpu_and_tells_of_a_driver_that_is_too_old(cuda, said, text, warned):
    cuda(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert device.resolve_device("auto") == "cpu"
    told = [r for r in said.records if r.levelno >= logging.WARNING]
    assert len(told) == warned
    if warned:
        assert "goes up to CUDA 11.4" in told[0].getMessage()


# Datasets that are read only, beside other folders and on other file systems


def test_derivatives_beside_the_data_are_never_listed(tree, monkeypatch, told):
    folder = bids_tree.make_derivative(tree)
    for part in ("derivatives/other/sub-01/func", "sourcedata/sub-01", "code/deep"):
        (tree / part).mkdir(parents=True)
        (tree / part / "sub-01_task-faces_run-01_bold.nii.gz").touch()
    (folder / "sub-01" / "figures").mkdir()
    listed = []
    real = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path=".": (listed.append(Path(str(path))), real(path))[1]
    )
    index_participant("raw", tree, "01", InputSettings())
    told(tree, "--dry-run", status=0)
    assert tree / "sub-01" / "func" in listed
    assert not [p for p in listed if p.is_relative_to(tree / "derivatives")]
    assert not [p for p in listed if p.is_relative_to(tree / "sourcedata")]
    listed.clear()
    told(tree, "--dry-run", "-d", folder, status=0)
    assert folder / "sub-01" / "func" in listed
    below = {p.relative_to(tree).parts[1] for p in listed if p.is_relative_to(tree / "derivatives")}
    assert below <= {"fmriprep"}
    assert folder / "sub-01" / "figures" not in listed


def test_nothing_is_written_beside_the_data_and_places_may_be_links(tmp_path):
    raw = tmp_path / "raw"
    simulate(raw, app.small())
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (raw, *raw.rglob("*"))}
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    # Another file system for the work folder, where there is one.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        assert app.run(raw, tmp_path / "link", work=work) == 0
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (raw, *raw.rglob("*"))} == before
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "sub-01.html").is_file()
    assert not list((tmp_path / "real").rglob("*.part"))


def test_an_output_that_links_to_a_folder_of_the_dataset_is_refused(tree, told, tmp_path):
    (tmp_path / "out").symlink_to(tree / "sub-01")
    assert "lies inside bids_dir" in told(tree, status=64)
