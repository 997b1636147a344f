"""What a run may use: processors, threads, memory, the work folder, and nipype's settings."""

import configparser
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hyper_bids import resources
from hyper_bids.config import Settings, with_values
from hyper_bids.errors import OutputError, UsageError

LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
GIB = 2**30


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, tmp_path):
    """Make this a machine of 16 processors and 64 GiB without limits, and no thread variables."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    monkeypatch.setattr(resources, "_CPU_LIMIT", tmp_path / "absent" / "cpu.max")
    monkeypatch.setattr(resources, "MEMORY_LIMITS", (tmp_path / "absent" / "memory.max",))
    for name in (*LIBRARIES, "NIPYPE_CONFIG_DIR", "NIPYPE_NO_ET", "NO_ET"):
        # Set first, so that what a test leaves in the environment is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def filled(n_jobs=1, **values) -> tuple[int, int]:
    """Return processors and threads of the run and of one process."""
    given = with_values(Settings(), values)
    settings = resources.with_resources(given, n_jobs)
    assert with_values(settings, {"nprocs": None, "omp_nthreads": None}) == with_values(
        given, {"nprocs": None, "omp_nthreads": None}
    )
    return settings.resources.nprocs, settings.resources.omp_nthreads


def limit(monkeypatch, tmp_path, text: str) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    monkeypatch.setattr(resources, "_CPU_LIMIT", path)


# Processors and threads


@pytest.mark.parametrize(
    ("n_jobs", "threads"), [(0, 16), (1, 16), (2, 8), (3, 5), (8, 2), (16, 1), (100, 1)]
)
def test_left_open_all_processors_are_used_and_shared_among_the_participants(n_jobs, threads):
    assert filled(n_jobs) == (16, threads)
    n_side_by_side = min(max(n_jobs, 1), 16)
    assert n_side_by_side * threads <= 16


@pytest.mark.parametrize(
    ("given", "n_jobs", "expected"),
    [
        ({"nprocs": 4}, 1, (4, 4)),
        ({"nprocs": 4}, 2, (4, 2)),
        ({"nprocs": 64}, 1, (64, 64)),
        ({"omp_nthreads": 3}, 8, (16, 3)),
        ({"omp_nthreads": 16}, 8, (16, 16)),
        ({"nprocs": 6, "omp_nthreads": 5}, 2, (6, 5)),
        ({"nprocs": 1, "omp_nthreads": 1}, 9, (1, 1)),
    ],
)
def test_what_the_user_says_holds(given, n_jobs, expected):
    assert filled(n_jobs, **given) == expected


@pytest.mark.parametrize("given", [{"nprocs": 2, "omp_nthreads": 3}, {"omp_nthreads": 17}])
def test_one_process_cannot_have_more_threads_than_all_may_use(given):
    with pytest.raises(UsageError) as caught:
        filled(**given)
    for word in (
        f"--omp-nthreads {given['omp_nthreads']}",
        f"--nprocs {given.get('nprocs', 16)}",
    ):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("3", (16, 3)), ("16", (16, 16)), ("40", (16, 16)),
        ("0", (16, 8)), ("", (16, 8)), ("-2", (16, 8)), ("many", (16, 8)), ("4,2", (16, 8)),
    ],
)  # fmt: skip
def test_threads_left_open_are_those_of_the_environment_where_it_says_a_number(
    monkeypatch, stated, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert filled(2) == expected


def test_the_flag_wins_over_the_environment_and_nprocs_bounds_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert filled(1, omp_nthreads=2) == (16, 2)
    assert filled(1, nprocs=4) == (4, 4)


def test_every_numerical_library_is_told_the_number_of_threads():
    resources.limit_threads(3)
    assert {os.environ[name] for name in LIBRARIES} == {"3"}


# Limits of a container


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("800000 50000\n", 16),
        ("3200000 100000\n", 16),
        ("max 100000\n", 16),
        ("", 16),
        ("broken\n", 16),
    ],
)
def test_processors_are_those_that_the_container_allows(monkeypatch, tmp_path, text, expected):
    limit(monkeypatch, tmp_path, text)
    assert resources.available_processors() == expected
    assert filled() == (expected, expected)


def test_the_container_does_not_bound_what_the_user_says(monkeypatch, tmp_path):
    limit(monkeypatch, tmp_path, "200000 100000\n")
    assert filled(1, nprocs=8) == (8, 8)


def test_processors_are_those_that_the_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9}, raising=False)
    assert resources.available_processors() == 3
    limit(monkeypatch, tmp_path, "200000 100000\n")
    assert resources.available_processors() == 2


def test_without_affinity_processors_are_counted_and_at_least_one(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    for counted, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert resources.available_processors() == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), 0.9 * 64),
        (("max\n",), 0.9 * 64),
        ((f"{8 * GIB}\n",), 0.9 * 8),
        ((f"{128 * GIB}\n",), 0.9 * 64),
        (("max\n", f"{4 * GIB}\n"), 0.9 * 4),
        ((f"{4 * GIB}\n", f"{2 * GIB}\n"), 0.9 * 2),
        (("9223372036854771712\n",), 0.9 * 64),  # what the first version says for "no limit"
    ],
)
def test_memory_is_what_is_free_or_what_the_container_allows(
    monkeypatch, tmp_path, texts, expected
):
    paths = []
    for k, text in enumerate(texts):
        paths.append(tmp_path / f"memory{k}")
        paths[-1].write_text(text)
    monkeypatch.setattr(resources, "MEMORY_LIMITS", (*paths, tmp_path / "absent"))
    assert resources.available_memory_gb(None) == pytest.approx(expected, rel=1e-12)


def test_memory_that_the_user_says_holds(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    monkeypatch.setattr(resources, "MEMORY_LIMITS", (tmp_path / "memory.max",))
    assert resources.available_memory_gb(3072) == 3.0
    assert resources.available_memory_gb(500) == pytest.approx(500 / 1024)


# The work folder


def folder_of(bids_dir, output_dir, work_dir) -> Path:
    values = {"bids_dir": str(bids_dir), "output_dir": str(output_dir)}
    if work_dir is not None:
        values["work_dir"] = str(work_dir)
    return resources.work_folder(with_values(Settings(), values))


def test_each_dataset_and_output_has_a_work_folder_of_its_own(tmp_path):
    places = [
        (tmp_path / bids, tmp_path / out)
        for bids in ("raw", "raw2", "out")
        for out in ("out", "out2", "raw")
    ]
    found = [folder_of(*place, tmp_path / "work") for place in places]
    assert len(set(found)) == len(places)
    assert all(path.is_dir() and path.parent == tmp_path / "work" for path in found)


def test_the_work_folder_does_not_depend_on_how_the_paths_are_spelt(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "link").symlink_to("raw")
    monkeypatch.chdir(tmp_path)
    expected = folder_of(tmp_path / "raw", tmp_path / "out", tmp_path / "work")
    for bids, out, work in (
        ("raw", "out", "work"),
        ("./raw/", "raw/../out", "./work"),
        ("link", f"{tmp_path}/out/", f"{tmp_path}/raw/../work"),
    ):
        assert folder_of(bids, out, work) == expected
    monkeypatch.chdir(tmp_path / "raw")
    assert folder_of(".", "../out", "../work") == expected


def test_the_work_folder_depends_on_nothing_else(tmp_path):
    places = {"bids_dir": str(tmp_path / "raw"), "output_dir": str(tmp_path / "out")}
    places["work_dir"] = str(tmp_path / "work")
    other = {"n_voxels": 3, "random_seed": 5, "participant_label": ("02",), "nprocs": 2}
    one = resources.work_folder(with_values(Settings(), places))
    assert resources.work_folder(with_values(Settings(), places | other)) == one


def test_left_open_it_is_in_the_folder_work_of_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = folder_of("raw", "out", None)
    assert found.is_absolute()
    assert found.parent == tmp_path / "work"


def test_what_is_in_the_work_folder_stays(tmp_path):
    kept = folder_of("raw", "out", tmp_path) / "kept"
    kept.write_text("x")
    again = folder_of("raw", "out", tmp_path)
    assert [path.name for path in again.iterdir()] == ["kept"]
    assert kept.read_text() == "x"


@pytest.mark.parametrize("below", ["", "work", "deep/er"])
def test_a_work_folder_that_cannot_be_made_is_an_output_error(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OutputError) as caught:
        folder_of("raw", "out", file / below)
    assert caught.value.exit_status == 73
    assert str(file / below) in str(caught.value)
    assert "--work-dir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_text() == "mine"


def test_a_work_folder_that_cannot_be_written_is_an_output_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(resources.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        folder_of("raw", "out", tmp_path / "work")


def test_the_folder_work_that_nobody_chose_is_told_apart_from_a_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").write_text("a file")
    with pytest.raises(OutputError, match=r"^work folder .*Give another with --work-dir"):
        folder_of("raw", "out", None)


# nipype


def read_config(folder: Path, verbose=0) -> configparser.ConfigParser:
    """Configure nipype, and read its settings, folders as they stand there, as it does."""
    folder.mkdir(parents=True, exist_ok=True)
    resources.configure_nipype(folder, verbose)
    parser = configparser.ConfigParser(interpolation=None)
    assert parser.read(Path(os.environ["NIPYPE_CONFIG_DIR"]) / "nipype.cfg")
    return parser


def test_nipype_is_told_where_its_settings_are_and_to_send_nothing(tmp_path):
    read_config(tmp_path / "work")
    place = Path(os.environ["NIPYPE_CONFIG_DIR"])
    assert place.is_relative_to(tmp_path / "work")
    assert os.environ["NIPYPE_NO_ET"] == "1"
    assert os.environ["NO_ET"] == "1"


def test_settings_of_nipype_are_what_the_app_needs(tmp_path):
    found = read_config(tmp_path / "work")
    assert found.sections() == ["logging", "execution"]
    execution = found["execution"]
    assert execution["crashdump_dir"] == str(tmp_path / "work")
    assert execution["crashfile_format"] == "txt"
    assert execution.getfloat("poll_sleep_duration") < 1
    for name in ("check_version", "remove_unnecessary_outputs", "create_report"):
        assert execution.getboolean(name) is False
    assert found["logging"].getboolean("log_to_file") is False


@pytest.mark.parametrize(
    ("verbose", "level"), [(0, "CRITICAL"), (1, "INFO"), (2, "DEBUG"), (5, "DEBUG")]
)
def test_nipype_says_as_much_as_the_user_wants_to_hear(tmp_path, verbose, level):
    found = read_config(tmp_path, verbose)["logging"]
    levels = {name: found[name] for name in found if name.endswith("_level")}
    assert levels == {f"{p}_level": level for p in ("workflow", "utils", "interface")}


@pytest.mark.parametrize("name", ["with space", "100%", "%(here)s", "a=b;c#d", "ä"])
def test_the_settings_are_read_back_whatever_the_folder_is_called(tmp_path, name):
    found = read_config(tmp_path / name)
    assert found["execution"]["crashdump_dir"] == str(tmp_path / name)


def test_processes_of_equal_settings_share_a_file_that_none_writes_again(tmp_path):
    states = []
    for verbose in (0, 0, 2):
        resources.configure_nipype(tmp_path, verbose)
        path = Path(os.environ["NIPYPE_CONFIG_DIR"]) / "nipype.cfg"
        states.append((path, path.stat().st_mtime_ns, path.stat().st_ino))
    assert states[0] == states[1]
    assert states[2][0] != states[0][0]
    assert len(list((tmp_path / "nipype").rglob("*.cfg"))) == 2


def test_a_fresh_process_with_nipype_has_these_settings_and_not_the_users_own(tmp_path):
    home = tmp_path / "home"
    (home / ".nipype").mkdir(parents=True)
    (home / ".nipype" / "nipype.cfg").write_text(
        "[execution]\npoll_sleep_duration = 9\ncrashfile_format = pklz\n"
        "[logging]\nworkflow_level = DEBUG\n"
    )
    found = read_config(tmp_path / "work")
    code = (
        "import json, logging\n"
        "from nipype import config\n"
        "print(json.dumps([dict(config._config['execution']), dict(config._config['logging']),\n"
        "    logging.getLogger('nipype.workflow').level]))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    execution, logs, level = json.loads(told.stdout.splitlines()[-1])
    for name, value in found["execution"].items():
        assert execution[name] == value
    for name, value in found["logging"].items():
        assert logs[name] == value
    assert level == 50
    assert math.isclose(float(execution["poll_sleep_duration"]), 0.05)
