"""The command line: what it loads, how it ends, and what it says last."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import bids_tree
import pytest

from hyper_bids import __version__, cli
from hyper_bids.arguments import build_parser
from hyper_bids.cli import COMMANDS
from hyper_bids.errors import HyperBidsError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "nilearn", "nipype", "pandas", "matplotlib", "numpy", "nibabel", "bids", "scipy")


@pytest.mark.parametrize(
    "argv", [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]
)
def test_help_and_version_load_no_heavy_library(argv):
    code = (
        "import sys\n"
        "from hyper_bids.cli import main\n"
        f"status = main({argv!r})\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], status)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "LOADED [] 0"


def test_threads_are_limited_before_a_numerical_library_is_loaded(tmp_path):
    root = bids_tree.make_dataset(tmp_path / "ds", participants=("01",), key="stim_id")
    argv = [str(root), "out", "participant", "--dry-run", "--nprocs", "2", "--omp-nthreads", "1"]
    code = (
        "import json\n"
        "from threadpoolctl import threadpool_info\n"
        "from hyper_bids.cli import main\n"
        f"status = main({argv!r})\n"
        "print(json.dumps([pool['num_threads'] for pool in threadpool_info()]), status)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    pools, status = result.stdout.splitlines()[-1].rsplit(" ", 1)
    assert status == "0"
    assert set(json.loads(pools)) == {1}


def test_version_is_that_of_the_file_and_of_the_installed_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"hyper_bids {__version__}"
    assert (ROOT / "version").read_text("ascii").strip() == __version__
    assert metadata.version("hyper_bids") == __version__


def test_run_py_is_the_same_command():
    result = subprocess.run(
        [sys.executable, ROOT / "run.py", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"hyper_bids {__version__}"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "bids_dir"),
        (["/nowhere", "/out", "session"], "analysis_level"),
        (["/nowhere", "/out", "participant", "--no-such-flag"], "--no-such-flag"),
        (["/nowhere", "/out", "participant", "--nprocs", "0"], "--nprocs"),
        (["/nowhere", "/out", "participant", "--device", "gpu"], "--device"),
        (["/nowhere", "/out", "participant", "--mem", "16"], "--mem"),
        (["/nowhere", "/out", "participant", "--participant-label", "\u2013v"], "plain hyphens"),
        (["/nowhere", "/out", "participant"], "/nowhere"),
        (["/nowhere", "/nowhere-either", "group"], "/nowhere-either"),
        (["simulate"], "out"),
    ],
)
def test_wrong_usage_ends_with_64_and_names_what_was_wrong(said, argv, named):
    assert cli.main(argv) == 64
    assert named in said.messages[-1]
    assert said.messages[-1].endswith("(exit status 64)")


def test_an_unforeseen_error_ends_with_70_in_one_line(said, monkeypatch):
    def broken(argv):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert cli.main([]) == 70
    assert re.fullmatch(
        r".*ZeroDivisionError: division by zero.*\(exit status 70\)", said.messages[-1]
    )
    assert "\n" not in said.messages[-1]


def test_an_interruption_ends_with_130(said, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    assert cli.main([]) == 130
    assert said.messages[-1].endswith("(exit status 130)")


def test_every_exit_status_is_documented_in_the_help(capsys):
    def kinds(error):
        return {error.exit_status}.union(*map(kinds, error.__subclasses__()))

    cli.main(["--help"])
    text = capsys.readouterr().out.split("exit status:")[1]
    for status in kinds(HyperBidsError) | {0, 130}:
        assert re.search(rf"\b{status} [a-z]", text), status


def test_each_flag_is_explained_and_the_conventional_ones_are_there():
    actions = {flag: a for a in build_parser()._actions for flag in a.option_strings}
    assert all(action.help for action in actions.values())
    conventional = (
        "--participant-label --session-label --session-id -t --task-id --run-id --space -d "
        "--derivatives --bids-filter-file --bids-database-dir --bids-database-wipe "
        "--skip-bids-validation -w --work-dir --nprocs --nthreads --n-cpus --omp-nthreads --mem-mb "
        "--mem-gb --device --random-seed --config-file --dry-run -v --version --desc-label "
        "--stop-on-first-crash --notrack"
    )
    assert set(conventional.split()) <= set(actions)
