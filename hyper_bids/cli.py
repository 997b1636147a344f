"""The entry point: flags to settings, logging, and one outcome for log, report and exit status."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from hyper_bids import __version__, arguments
from hyper_bids.config import Settings, with_values
from hyper_bids.errors import HyperBidsError, ParticipantError, UsageError, listing

LOG = logging.getLogger("hyper_bids")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run() -> None:
    """Run the console command and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run the app on ``argv``; return the exit status.

    The last line of the log and the exit status come from the same place, so that they agree.
    """
    start_logging(logging.INFO)
    try:
        _dispatch(argv)
        status, message = 0, "All done."
    except HyperBidsError as error:
        status, message = error.exit_status, str(error)
    except KeyboardInterrupt:
        status, message = 130, "Interrupted. Finished stages are kept in the work folder."
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except Exception as error:
        LOG.debug("traceback", exc_info=True)
        status = HyperBidsError.exit_status
        message = (
            f"an error inside the app, {type(error).__name__}: {error}. Run with -vv for more."
        )
    level = logging.INFO if status == 0 else logging.ERROR
    LOG.log(level, "%s (exit status %d)", message, status)
    return status


def start_logging(level: int) -> None:
    """Log to the standard error, one line a message; called again, only the level changes."""
    if not LOG.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
        )
        LOG.addHandler(handler)
        LOG.propagate = False
    LOG.setLevel(level)


def _dispatch(argv: list[str]) -> None:
    if argv[:1] == ["simulate"]:
        simulate(argv[1:])
    elif argv[:1] == ["demo"]:
        from hyper_bids.demo import demo

        demo(argv[1:], bids_app)
    else:
        bids_app(argv)


def simulate(argv: list[str]) -> None:
    """Write a synthetic dataset."""
    out, settings = arguments.parse_simulation(argv, "hyper_bids simulate")
    from hyper_bids.simulate.dataset import simulate as write

    write(out, settings)
    LOG.info("A simulated dataset of %d participants is in %s", settings.n_participants, out)


def bids_app(argv: list[str]) -> None:
    """Run one analysis level.

    Raises
    ------
    HyperBidsError
        Of the kind that says what was wrong, with its exit status.
    """
    settings, call = arguments.parse(argv)
    verbosity = int(call["verbose"])
    level = logging.WARNING if call["quiet"] else logging.DEBUG if verbosity > 1 else logging.INFO
    start_logging(level)
    LOG.info("hyper_bids %s, %s level", __version__, settings.analysis_level)
    settings = with_resources(settings)
    # Numerical libraries read these once, when they are loaded.
    for name in _THREADS:
        os.environ.setdefault(name, str(settings.resources.omp_nthreads))
    if settings.analysis_level == "group":
        from hyper_bids.group import group_level

        group_level(settings)
    else:
        from hyper_bids import preflight

        participant_level(settings, call, preflight.check(settings), level)


def with_resources(settings: Settings) -> Settings:
    """Fill in processors and threads where the user left them open."""
    from hyper_bids.bids.inputs import chosen_participants

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    nprocs = settings.resources.nprocs or available or 1
    threads = settings.resources.omp_nthreads
    if threads is None:
        jobs = 1
        if settings.analysis_level == "participant" and Path(settings.bids_dir).is_dir():
            labels = settings.inputs.participant_label
            jobs = len(chosen_participants(Path(settings.bids_dir), labels))
        threads = max(1, nprocs // min(jobs or 1, nprocs))
    if threads > nprocs:
        raise UsageError(
            f"--omp-nthreads {threads} is more than --nprocs {nprocs}; one process cannot use "
            f"more threads than all may."
        )
    return with_values(settings, {"nprocs": nprocs, "omp_nthreads": threads})


def participant_level(settings: Settings, call: dict, plans: list, level: int) -> None:
    """Compute the planned participants; raise if one of them failed."""
    from hyper_bids.participant.plan import describe

    if call["dry_run"]:
        for plan in plans:
            print(describe(plan))  # noqa: T201  what the user asked to see
        LOG.info("Dry run: nothing was computed or written.")
        return
    from hyper_bids import preflight, workflow

    work = workflow.work_folder(settings)
    LOG.info("%d participants, work folder %s", len(plans), work)
    preflight.write_root(settings)
    plugin = settings.resources.use_plugin
    if plugin == "auto":
        plugin = "multiproc" if len(plans) > 1 and settings.resources.nprocs > 1 else "linear"
    running = {
        "work_dir": str(work),
        "plugin": plugin,
        "memory_gb": workflow.available_memory_gb(settings.resources.mem_mb),
        "device": settings.resources.device,
        "verbose": int(call["verbose"]),
        "log_level": level,
        "progress": plugin == "linear" and sys.stderr.isatty(),
    }
    outcome = workflow.run_participants(plans, settings, running)
    for label, reason in outcome.failed.items():
        LOG.error("sub-%s failed: %s", label, reason)
    if outcome.computed == 0 and not outcome.failed:
        LOG.info("Nothing has changed since the last run: nothing was computed again.")
    LOG.info("%d files written, %d unchanged", outcome.written, outcome.unchanged)
    for label in outcome.done:
        LOG.info("See %s", Path(settings.output_dir) / f"sub-{label}.html")
    if outcome.failed:
        raise ParticipantError(
            f"{len(outcome.failed)} of {len(plans)} participants failed: "
            f"{listing('sub-' + label for label in outcome.failed)}."
        )
