"""What can go wrong, each kind with the exit status that the command line returns for it.

Every message is one line: what is wrong, where (file, row, column or flag), what was given,
what is accepted, and what to do.
"""

# Messages of ENOSPC and EDQUOT, and of EAGAIN where a process or thread is started.
_FULL = ("No space left on device", "Disk quota exceeded", "requested and")
_NO_MORE = (
    "Resource temporarily unavailable",
    "can't start new thread",
    "pthread_create failed",
    "Cannot fork",
)


class HyperBidsError(Exception):
    """Base of all errors that the app raises on purpose; shown to the user without a traceback."""

    exit_status = 70


class UsageError(HyperBidsError):
    """A flag or a path on the command line (or in the configuration file) is wrong."""

    exit_status = 64


class InputError(HyperBidsError):
    """The dataset, its events, its latents or an image model's weights are wrong."""

    exit_status = 65


class NotFetchedError(InputError):
    """Files of a DataLad or git-annex dataset whose content is not here; ``files`` has them."""

    def __init__(self, message: str, files: tuple = ()):
        super().__init__(message)
        self.files = tuple(files)


class DeviceError(HyperBidsError):
    """A device that was asked for is not there."""

    exit_status = 69


class LimitError(HyperBidsError):
    """The system allows no more processes or threads."""

    exit_status = 71


class OutputError(HyperBidsError):
    """The output or work folder cannot be used."""

    exit_status = 73


class ParticipantError(HyperBidsError):
    """At least one participant failed while it was being computed."""

    exit_status = 1


def told_by_system(text: str) -> HyperBidsError | None:
    """Return the error that a message of the system stands for; None if it is another one.

    Parameters
    ----------
    text : str
        Message of an ``OSError``, of a library or of a crash report that has one.

    Returns
    -------
    OutputError or LimitError or None
    """
    if any(words in text for words in _FULL):
        return OutputError(
            "no space or quota is left where it writes. Free some, or give another place "
            "(output_dir, --work-dir), and run again: finished stages are kept"
        )
    if any(words in text for words in _NO_MORE):
        return LimitError(
            "no more processes or threads may be started. Lower --nprocs or use --use-plugin "
            "linear, or raise the limit (docker --pids-limit, ulimit -u), and run again"
        )
    return None


def listing(items, limit: int = 8) -> str:
    """Join ``items`` for a message, the first ``limit`` of them and how many more there are."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit]) if names else "none"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun: ``1 run``, ``12 runs``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
