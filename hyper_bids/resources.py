"""What a run may use: processors, threads, memory and the work folder. Never part of a result."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from pathlib import Path

from hyper_bids.config import Settings, with_values
from hyper_bids.device import MEMORY_LIMITS
from hyper_bids.errors import OutputError, UsageError

# Numerical libraries read these once, when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


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


def work_folder(settings: Settings) -> Path:
    """Return the folder for this dataset's and output's intermediate files, made if absent.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    chosen = settings.resources.work_dir
    top = Path(chosen) if chosen else Path.cwd() / "work"
    key = f"{Path(settings.bids_dir).resolve()}|{Path(settings.output_dir).resolve()}"
    folder = top / f"hyper_bids-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{'--work-dir ' if chosen else 'work folder '}{top}: cannot be written "
            f"({error.strerror}). Give another with --work-dir."
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
