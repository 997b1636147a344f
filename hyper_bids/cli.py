"""The entry point: flags to settings, logging, and one outcome for log, report and exit status."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path

from hyper_bids import __version__, arguments, log
from hyper_bids.config import Settings
from hyper_bids.errors import (
    HyperBidsError,
    ParticipantError,
    counted,
    listing,
    told_by_system,
)

LOG = log.LOG

# Other commands than the BIDS App's: module and function, which is given the rest of the line.
COMMANDS = {
    "simulate": ("hyper_bids.simulation_arguments", "simulate_command"),
    "demo": ("hyper_bids.demo", "demo"),
    "convert-weights": ("hyper_bids.conversion", "convert_weights"),
    "train-vaegan": ("hyper_bids.training_arguments", "train_vaegan_command"),
    "fit-eigenface": ("hyper_bids.training_arguments", "fit_eigenface_command"),
    "import-hyper": ("hyper_bids.import_arguments", "import_hyper_command"),
    "import-responses": ("hyper_bids.import_arguments", "import_responses_command"),
    "slurm": ("hyper_bids.cluster_command", "slurm_command"),
}


def run() -> None:
    """Run the console command and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run the app on ``argv``; return the exit status.

    The last line of the log and the exit status come from the same place, so that they agree.
    """
    log.start(logging.INFO)
    try:
        _dispatch(argv)
        status, message = 0, "All done."
    except HyperBidsError as error:
        status, message = error.exit_status, str(error)
    except KeyboardInterrupt:
        status, message = 130, "Interrupted. Finished stages are kept in the work folder."
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except BrokenPipeError:  # as in `hyper_bids ... --dry-run | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status, message = 0, "What was printed is cut short: its reader went away."
    except Exception as error:
        LOG.debug("traceback", exc_info=True)
        told = told_by_system(str(error))
        status = told.exit_status if told else HyperBidsError.exit_status
        message = (
            f"{told}."
            if told
            else f"an error inside the app, {type(error).__name__}: {error}. Run with -vv for more."
        )
    level = logging.INFO if status == 0 else logging.ERROR
    LOG.log(level, "%s (exit status %d)", message, status)
    return status


def _dispatch(argv: list[str]) -> None:
    name, rest = (argv[0], argv[1:]) if argv[:1] and argv[0] in COMMANDS else (None, argv)
    if name is None:
        bids_app(argv)
    elif name == "demo":
        from hyper_bids.demo import demo

        demo(rest, bids_app)
    else:
        module, function = COMMANDS[name]
        getattr(import_module(module), function)(rest)


def bids_app(argv: list[str]) -> None:
    """Run one analysis level.

    Raises
    ------
    HyperBidsError
        Of the kind that says what was wrong, with its exit status.
    """
    settings, call = arguments.parse(argv)
    from hyper_bids import resources

    verbose = int(call["verbose"])
    log.start(logging.WARNING if call["quiet"] else logging.DEBUG if verbose > 1 else logging.INFO)
    LOG.info("hyper_bids %s, %s level", __version__, settings.analysis_level)
    if settings.analysis_level == "group":
        resources.limit_threads(settings.resources.omp_nthreads or 1)
        from hyper_bids.group import group_level

        aligns = settings.group.align != "none" and not call["dry_run"]
        work = resources.work_folder(settings) if aligns else None
        group_level(settings, dry_run=bool(call["dry_run"]), work=work)
    else:
        participant_level(settings, call)


def participant_level(settings: Settings, call: dict) -> None:
    """Check and compute the participants that were chosen.

    Raises
    ------
    HyperBidsError
        If an input is wrong; ParticipantError if a participant failed while it was computed.
    """
    from hyper_bids import resources
    from hyper_bids.bids.dataset import DESCRIPTION, chosen_participants, read_description
    from hyper_bids.filekinds import is_absent

    # What was not fetched is told by preflight, with all other such files.
    if not is_absent(Path(settings.bids_dir) / DESCRIPTION):
        read_description(settings.bids_dir)
    chosen = chosen_participants(settings.bids_dir, settings.inputs.participant_label)
    settings = resources.with_resources(settings, len(chosen))
    # Before a numerical library is loaded.
    resources.limit_threads(settings.resources.omp_nthreads)
    from hyper_bids import preflight

    plans = preflight.check(settings, chosen)
    if call["dry_run"]:
        for plan in plans:
            print(preflight.describe(plan))  # noqa: T201  what the user asked to see
        LOG.info("Dry run: nothing was computed or written.")
        return
    outcome = _compute(plans, settings, int(call["verbose"]))
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


def _compute(plans: list, settings: Settings, verbose: int):
    from hyper_bids import preflight, resources

    work = resources.work_folder(settings)
    resources.configure_nipype(work, verbose)
    # nipype reads its settings when it is imported.
    from hyper_bids import workflow

    LOG.info("%s; work folder %s", counted(len(plans), "participant"), work)
    logs = preflight.write_root(settings, plans)
    plugin = settings.resources.use_plugin
    if plugin == "auto":
        plugin = "multiproc" if len(plans) > 1 and settings.resources.nprocs > 1 else "linear"
    running = {
        "work_dir": str(work),
        "plugin": plugin,
        "memory_gb": resources.available_memory_gb(settings.resources.mem_mb),
        "device": settings.resources.device,
        "log_level": LOG.level,
        "progress": plugin == "linear" and sys.stderr.isatty(),
    }
    return workflow.run_participants(plans, settings, running, logs)
