"""What can go wrong, each kind with the exit status that the command line returns for it.

Every message is one line: what is wrong, where (file, row, column or flag), what was given,
what is accepted, and what to do.
"""


class HyperBidsError(Exception):
    """Base of all errors that the app raises on purpose; shown to the user without a traceback."""

    exit_status = 70


class UsageError(HyperBidsError):
    """A flag or a path on the command line (or in the configuration file) is wrong."""

    exit_status = 64


class InputError(HyperBidsError):
    """The dataset, its events, its latents or an image model's weights are wrong."""

    exit_status = 65


class DeviceError(HyperBidsError):
    """A device that was asked for is not there."""

    exit_status = 69


class OutputError(HyperBidsError):
    """The output or work folder cannot be used."""

    exit_status = 73


class ParticipantError(HyperBidsError):
    """At least one participant failed while it was being computed."""

    exit_status = 1


def listing(items, limit: int = 8) -> str:
    """Join ``items`` for a message, the first ``limit`` of them and how many more there are."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit]) if names else "none"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun: ``1 run``, ``12 runs``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
