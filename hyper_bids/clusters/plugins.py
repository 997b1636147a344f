"""nipype's own plugins, which submit each stage as a job and wait for it."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable

from hyper_bids.errors import UsageError

# Flag of the submitting command: nipype's name of it, and what memory and processors are called.
# Those that submit the whole graph do not wait for it, so that nothing could be published.
_ARGUMENTS = {
    "SLURM": ("sbatch_args", "--mem={mem_mb}M --cpus-per-task={threads} --export=ALL"),
    "SGE": ("qsub_args", "-V"),
    "PBS": ("qsub_args", "-V"),
    "LSF": ("bsub_args", ""),
    "OAR": ("oarsub_args", ""),
}
NAMES = tuple(_ARGUMENTS)

# Seconds between two looks at the queue.
POLL = "5"


def plugin_arguments(name: str, folders: Iterable[str], mem_mb: int, threads: int) -> dict:
    """Return what nipype's plugin ``name`` is told for each stage.

    Parameters
    ----------
    name : one of ``NAMES``
    folders : iterable of str
        The work folder and the output folder.
    mem_mb, threads : int
        What a stage needs.

    Raises
    ------
    UsageError
        If nipype cannot hand the path of a folder to the submitting command or its own settings.
    """
    for folder in folders:
        if not re.fullmatch(r"[\w./@:,+=-]+", folder):
            raise UsageError(
                f"--use-plugin {name}: {folder} has a space, quote or percent sign in its path, "
                f"which nipype does not take. Give another OUT and --work-dir, or hyper_bids slurm."
            )
    key, text = _ARGUMENTS[name]
    # nipype names its jobs by it, and fails where it is not set.
    os.environ.setdefault("LOGNAME", getpass.getuser())
    return {key: text.format(mem_mb=mem_mb, threads=threads)}
