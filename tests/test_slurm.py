"""The scripts of ``hyper_bids slurm`` on a real Slurm of two nodes, with failures of all kinds."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import app
import numpy as np
import pandas as pd
import pytest

from hyper_bids.simulate.dataset import simulate

CLUSTER = Path(__file__).with_name("slurm_cluster.sh")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "flock", "runuser", "setsid", "ps", "pgrep")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
LACKING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.skipif(
        bool(LACKING),
        reason=f"{', '.join(LACKING)}: not installed (Debian: slurmctld slurmd slurm-client "
        f"slurm-wlm-basic-plugins munge procps)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons need root"),
]

# Of every wait; a quiet machine needs a tenth.
PATIENCE = 300


class Cluster:
    """A running Slurm, and the environment in which its commands are used."""

    def __init__(self, folder):
        self.folder = folder
        drop = ("SLURM_", "SBATCH_", "SQUEUE_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
        self.env = clean | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": PATH}
        # A task that is killed with its node leaves its temporary files.
        (folder / "tmp").mkdir()
        self.env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}

    def do(self, *command, status=0):
        """Run a command, and return what it prints."""
        result = subprocess.run(
            list(map(str, command)), env=self.env, timeout=PATIENCE, check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert result.returncode == status, (command, result.stdout, result.stderr)
        return result.stdout

    def hyper_bids(self, *flags):
        """Run the app, and return its log."""
        result = subprocess.run(
            [sys.executable, "-m", "hyper_bids", *map(str, flags)], env=self.env, timeout=PATIENCE,
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stderr

    def queue(self):
        """Return the tasks in the queue: job, task, state, reason, node."""
        text = self.do("squeue", "--noheader", "--array", "--format=%F|%K|%t|%r|%N")
        return [tuple(line.split("|")) for line in text.splitlines()]

    def wait(self, until, what):
        """Wait until something is true of the cluster."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = until()
            if found:
                return found
            time.sleep(0.5)
        logs = "\n".join(p.read_text("utf-8")[-2000:] for p in (self.folder / "log").glob("*ctld"))
        raise AssertionError(f"waited in vain for {what}; {self.queue()}\n{logs}")

    def wait_for_arrays(self):
        """Wait until no task of an array is in the queue."""
        self.wait(lambda: all(task[1] == "N/A" for task in self.queue()), "the arrays")

    def wait_for_all(self):
        """Wait until the queue is empty."""
        self.wait(lambda: not self.queue(), "an empty queue")


def free_ports(n):
    """Return the first of n ports in a row that nothing listens on."""
    rng = np.random.default_rng()
    for first in rng.integers(20000, 30000, size=100).tolist():
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + n):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def cluster():
    # Not below pytest's folders: another user (munge) has to come in.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    found = Cluster(folder)
    try:
        found.do("bash", CLUSTER, "start", folder, free_ports(4))
        yield found
    finally:
        subprocess.run(["bash", CLUSTER, "stop", folder], check=False, timeout=60)
        left = subprocess.run(
            ["pgrep", "-af", str(folder)], check=False, capture_output=True, text=True
        )
        shutil.rmtree(folder, ignore_errors=True)
    assert not left.stdout, f"daemons are left: {left.stdout}"


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six small participants in a folder whose name needs quotes; the third's events are bad."""
    place = tmp_path_factory.mktemp("a study's data 100%")
    simulate(place / "bids", app.small(n_participants=6))
    events = next((place / "bids" / "sub-03" / "func").glob("*_run-01_events.tsv"))
    good = events.read_text("utf-8")
    events.write_text(good.replace("\n6.000\t", "\nsix\t", 1), "utf-8")
    assert events.read_text("utf-8") != good
    return place, lambda: events.write_text(good, "utf-8")


def exit_codes(folder):
    """Return the table, of text."""
    return pd.read_csv(folder / "exit_codes.tsv", sep="\t", dtype=str, keep_default_na=False)


def logs(folder, pattern="*"):
    """Return the text of all logs."""
    return "\n".join(p.read_text("utf-8") for p in sorted((folder / "logs").glob(pattern)))


FLAGS = ("--cpus", 1, "--mem", "1G", "--time", 30, "--submit")
APP = ("--", "--no-realign", "--n-permutations", 200)


def test_failures_are_told_mended_and_run_again_alone_and_arrays_do_not_hurt_each_other(
    cluster, six, tmp_path
):
    place, mend = six
    raw, out = place / "bids", place / "out"
    first, second = place / "first run", place / "second"
    # Two arrays with four participants in common, on one output folder and one work folder.
    shared = ("--work-dir", place / "work", "--keep-work", "--folder")
    cluster.hyper_bids("slurm", raw, out, *FLAGS, *shared, first, *APP)
    four = ("--participant-label", "03", "04", "05", "06", "--group", "afterany")
    cluster.hyper_bids("slurm", raw, out, *FLAGS, *shared, second, *four, *APP)
    jobs = (first / "jobs.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t")[1:] for line in jobs] == [
        ["labels.txt", "0", "4"], ["labels.txt", "4", "2"], ["group", "n/a", "1"]
    ]  # fmt: skip
    group = jobs[-1].split("\t")[0]
    cluster.wait_for_arrays()

    # The tables show the failure, and all else finished.
    for folder, labels in ((first, "123456"), (second, "3456")):
        table = exit_codes(folder).query("label != 'group'")
        expected = {f"sub-0{label}": "65" if label == "3" else "0" for label in labels}
        assert dict(zip(table["label"], table["exit_code"], strict=True)) == expected
        assert set(table["node"]) <= {"n1", "n2"} and set(table["attempt"]) == {"1"}
    assert "line 2, column onset: 'six'" in logs(first)

    # By choice, the group level waits, or reports and goes on.
    cluster.wait(lambda: [t[0] for t in cluster.queue()] == [group], "the second group level")
    assert cluster.queue()[0][2:4] == ("PD", "DependencyNeverSatisfied")
    assert "sub-03\t65" in logs(second, "group*")
    assert exit_codes(second).iloc[-1][["label", "exit_code"]].tolist() == ["group", "0"]
    assert (out / "group.html").is_file()
    assert "group" not in set(exit_codes(first)["label"])

    # Whoever came second to a participant found all of it done, and harmed nothing.
    told = logs(first) + logs(second)
    assert told.count("Nothing has changed since the last run") == 3
    assert not list(out.rglob("*.part"))

    # Only the one that failed runs again, and then the group level that waited.
    mend()
    said = cluster.do(first / "resubmit.sh")
    assert "to submit: sub-03 \n" in said and f"group job {group}: waits for afterok:" in said
    assert "no participant is to be submitted" in cluster.do(first / "resubmit.sh")
    cluster.wait_for_all()
    table = exit_codes(first)
    assert table["label"].tolist()[6:] == ["sub-03", "group"]
    assert table["exit_code"].tolist()[6:] == ["0", "0"]
    assert "Group of 6" in logs(first, "group*")
    before = (first / "jobs.tsv").read_text("utf-8")
    assert "no participant is to be submitted" in cluster.do(first / "resubmit.sh")
    assert (first / "jobs.tsv").read_text("utf-8") == before

    # The results are those of a run without a cluster.
    work = ("--work-dir", tmp_path / "work", "--nprocs", 1)
    only = ("--participant-label", "04", *work)
    cluster.hyper_bids(raw, tmp_path / "out", "participant", *only, *APP[1:])
    patterns = ("sub-04/**/*.npy", "sub-04/**/*.tsv", "sub-04/**/*.npz")
    alone = app.contents(tmp_path / "out", *patterns)
    assert alone and app.contents(out, *patterns) == alone


def test_what_ran_on_a_node_that_dies_goes_on_from_finished_stages_on_another(cluster, six):
    place, _ = six
    raw, out, folder = place / "bids", place / "out2", place / "third"
    flags = ("--participant-label", "01", "--folder", folder, "--group", "none")
    cluster.hyper_bids("slurm", raw, out, *FLAGS, *flags, "--", "--n-permutations", 200)
    stages = "work/sub-01/hyper_bids-*/participants/sub_01_{}/part/fingerprint"
    cluster.wait(lambda: list(folder.glob(stages.format("motion"))), "the first stage")
    node = cluster.queue()[0][4]
    cluster.do("bash", CLUSTER, "kill", cluster.folder, node)
    assert not list(folder.glob(stages.format("scores"))), "it was over before the node died"
    assert not list(out.glob("sub-01*")) and not len(exit_codes(folder))

    cluster.wait_for_all()
    table = exit_codes(folder)
    assert table[["label", "exit_code", "attempt"]].to_numpy().tolist() == [["sub-01", "0", "2"]]
    assert table["node"][0] != node
    text = logs(folder)
    assert f"sub-01: start 1 on {node}" in text and "sub-01: start 2 on" in text
    reused = text.partition("; reused ")[2].splitlines()[0]
    assert "motion" in reused, text
    assert (out / "sub-01.html").is_file()
    # Nothing of a finished participant is kept but its results.
    assert not (folder / "work" / "sub-01").exists()
    cluster.do("bash", CLUSTER, "node", cluster.folder, node)


def test_stages_can_be_jobs_of_nipypes_own_plugin(cluster, six, tmp_path):
    place, _ = six
    work = tmp_path / "work"
    flags = ("--participant-label", "02", "--use-plugin", "SLURM", "--work-dir", work)
    log = cluster.hyper_bids(place / "bids", tmp_path / "out", "participant", *flags, *APP[1:])
    assert "sub-02: computed responses, decoding, maps, scores; reused nothing" in log
    assert len(list(work.glob("hyper_bids-*/participants/batch/slurm-*.out"))) == 4
    assert (tmp_path / "out" / "sub-02.html").is_file()
