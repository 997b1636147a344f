"""What a run may use: processors, threads, memory and the work folder. Never part of a result."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path

from hyper_bids.config import Settings, with_values
from hyper_bids.container import mount_hint
from hyper_bids.device import MEMORY_LIMITS
from hyper_bids.errors import LimitError, OutputError, UsageError

LOG = logging.getLogger("hyper_bids")

# Numerical libraries read these once, when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
# This process's control groups of either version, and where they stand.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
# Of the main process, and of a worker beside its threads of linear algebra: 11 were counted of two
# workers with one thread each.
_MAIN_PIDS, _WORKER_PIDS = 5, 3


def with_resources(settings: Settings, n_jobs: int) -> Settings:
    """Fill in processors and threads where the user left them open.

    Parameters
    ----------
    settings : Settings
    n_jobs : int
        Participants that can be computed side by side.

    Raises
    ------
    UsageError
        If one process would have more threads than all may use.
    """
    nprocs = settings.resources.nprocs or available_processors()
    threads = settings.resources.omp_nthreads
    if threads is None:
        stated = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(stated) if stated.isdecimal() and int(stated) else None
        if settings.resources.use_plugin == "linear":
            n_jobs = 1
        threads = min(threads or max(1, nprocs // max(n_jobs, 1)), nprocs)
    if threads > nprocs:
        raise UsageError(
            f"--omp-nthreads {threads} is more than --nprocs {nprocs}; one process cannot use "
            f"more threads than all may."
        )
    if nprocs > available_processors():
        LOG.warning(
            "--nprocs %d: only %d processors may be used; more processes than that take more "
            "memory and no less time.",
            nprocs, available_processors(),
        )  # fmt: skip
    return with_values(settings, {"nprocs": nprocs, "omp_nthreads": threads})


def limit_threads(n_threads: int) -> None:
    """Tell numerical libraries, and those of child processes, how many threads to use."""
    for name in _THREADS:
        os.environ[name] = str(n_threads)


def available_processors() -> int:
    """Return how many processors this process may use, a container's limit included."""
    affinity = getattr(os, "sched_getaffinity", None)
    n = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _CPU_LIMIT.read_text(encoding="ascii").split()
        n = min(n, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control group of the second version, or no limit ("max")
    return n


def check_processes(settings: Settings, n_jobs: int) -> None:
    """Check that the processes and threads of a run are no more than its control group allows.

    Parameters
    ----------
    settings : Settings
        With ``nprocs`` and ``omp_nthreads``.
    n_jobs : int
        Participants.

    Raises
    ------
    LimitError
        With the number of processes that would do.
    """
    held = settings.resources
    allowed = _pids_left()
    # A participant's methods can run side by side, too. Batch systems start nothing here.
    side_by_side = min(held.nprocs // held.omp_nthreads, n_jobs * len(settings.methods))
    if held.use_plugin not in ("auto", "multiproc") or (held.use_plugin == "auto" and n_jobs < 2):
        side_by_side = 1
    each = _WORKER_PIDS + held.omp_nthreads
    needed = _MAIN_PIDS + each * side_by_side
    if allowed is None or needed <= allowed or side_by_side == 1:
        return
    fitting = max(1, (allowed - _MAIN_PIDS) // each) * held.omp_nthreads
    raise LimitError(
        f"--nprocs {held.nprocs} with --omp-nthreads {held.omp_nthreads}: about {needed} processes "
        f"and threads are needed, and the control group (the container or job) has room for "
        f"{allowed}. Use --nprocs {fitting}, or raise its limit (docker --pids-limit)."
    )


def _pids_left() -> int | None:
    """Return how many more processes and threads may be started; None where there is no limit."""
    left = []
    for folder in _pids_groups():
        try:
            allowed = int((folder / "pids.max").read_text(encoding="ascii"))
            left.append(allowed - int((folder / "pids.current").read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # the root, or no limit ("max")
    return min(left, default=None)


def _pids_groups() -> list[Path]:
    """Return the control groups that count this process, its own and those around it."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            top = _GROUPS / controllers
            own = top / path.lstrip("/")
            # In a container, its own group is mounted as if it were the root.
            folders += [f for f in (own, *own.parents) if f.is_relative_to(top)]
    return folders


def check_space(needed: dict[Path, tuple[int, int]]) -> None:
    """Check that there is space for what a run writes at least.

    Parameters
    ----------
    needed : dict
        Folder, which need not be there yet, to megabytes and number of files.

    Raises
    ------
    OutputError
        If a file system has less. Quotas are not seen.
    """
    per_device: dict[int, list] = {}
    for folder, (megabytes, files) in needed.items():
        place = nearest(folder)
        entry = per_device.setdefault(place.stat().st_dev, [place, [], 0, 0])
        entry[1].append(str(folder))
        entry[2] += megabytes
        entry[3] += files
    for place, folders, megabytes, files in per_device.values():
        free = shutil.disk_usage(place).free // 2**20
        room = os.statvfs(place)
        where = " and ".join(folders)
        # Some file systems in user space state no numbers at all.
        if room.f_blocks and megabytes > free:
            raise OutputError(
                f"{where}: at least {megabytes:,} MB are needed, and {free:,} MB are free there. "
                f"Free some, choose other places (output_dir, --work-dir), or run fewer "
                f"participants at a time (--participant-label)."
            )
        # File systems without a fixed number of files state none.
        if room.f_files and files > room.f_favail:
            raise OutputError(
                f"{where}: about {files:,} files are written, and {room.f_favail:,} more can be "
                f"made there (inodes). Remove some, or choose other places."
            )


def nearest(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if is_folder(folder))


def is_folder(path: Path) -> bool:
    """Say whether a folder is there and can be seen: one above it may not be readable."""
    try:
        return path.is_dir()
    except OSError:
        return False


def available_memory_gb(limit_mb: int | None) -> float:
    """Return gigabytes that the run may use: the limit given, the container's, or what is free."""
    import psutil

    if limit_mb:
        return limit_mb / 1024
    free = psutil.virtual_memory().available
    for path in MEMORY_LIMITS:
        try:
            free = min(free, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return 0.9 * free / 2**30


def work_path(settings: Settings) -> Path:
    """Return where this dataset's and output's intermediate files go; nothing is made."""
    chosen = settings.resources.work_dir
    top = Path(chosen) if chosen else Path.cwd() / "work"
    key = f"{Path(settings.bids_dir).resolve()}|{Path(settings.output_dir).resolve()}"
    return top / f"hyper_bids-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


def work_folder(settings: Settings) -> Path:
    """Return the folder for this dataset's and output's intermediate files, made if absent.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    chosen, folder = settings.resources.work_dir, work_path(settings)
    top = folder.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{'--work-dir ' if chosen else 'work folder '}{top}: cannot be written "
            f"({error.strerror}). Give another with --work-dir.{mount_hint(top, writable=True)}"
        ) from None
    return folder.resolve()


def configure_nipype(folder: Path, verbose: int) -> None:
    """Set nipype up for this process and its workers, whatever the user's own settings are.

    nipype reads its settings when it is imported; in worker processes nothing else reaches it.
    """
    # It loads numpy, which must not happen before threads are limited.
    from hyper_bids.bids.atomic import write_if_changed

    level = {0: "CRITICAL", 1: "INFO"}.get(verbose, "DEBUG")
    settings = {
        "logging": {f"{part}_level": level for part in ("workflow", "utils", "interface")}
        | {"log_to_file": "false"},
        "execution": {
            # Its default looks every 2 s whether a stage is done.
            "poll_sleep_duration": "0.05",
            "crashfile_format": "txt",
            "crashdump_dir": str(folder),
            "check_version": "false",
            "hash_method": "timestamp",
            "remove_unnecessary_outputs": "false",
            # Jobs of several participants would write one file.
            "create_report": "false",
        },
    }
    lines = []
    for section, values in settings.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in values.items())]
    text = "\n".join(lines) + "\n"
    # Jobs with the same settings share a file, which has the same bytes from each of them.
    place = folder / "nipype" / hashlib.sha256(text.encode()).hexdigest()[:10]
    write_if_changed(place / "nipype.cfg", text)
    os.environ |= {"NIPYPE_CONFIG_DIR": str(place), "NIPYPE_NO_ET": "1", "NO_ET": "1"}
