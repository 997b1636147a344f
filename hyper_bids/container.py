"""Whether the app runs in a container, and how a folder of the host is seen from inside of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# Set, to anything, by the app's own images: a runtime may leave no mark of its own.
VARIABLE = "HYPER_BIDS_CONTAINER"

_APPTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "APPTAINER_NAME", "SINGULARITY_NAME")
_MARKS = {"docker": (Path("/.dockerenv"),), "podman": (Path("/run/.containerenv"),)}


def kind(environment: Mapping[str, str] | None = None) -> str | None:
    """Return what the app runs in: ``apptainer``, ``docker``, ``podman``, or None of them.

    Parameters
    ----------
    environment : mapping of str to str, optional
        That of this process by default.
    """
    environment = os.environ if environment is None else environment
    # A SIF made of a Docker image still has the marks of both.
    if any(environment.get(name) for name in _APPTAINER):
        return "apptainer"
    found = [name for name, marks in _MARKS.items() if any(mark.exists() for mark in marks)]
    return found[0] if found else "docker" if environment.get(VARIABLE) else None


def is_own_image() -> bool:
    """Say whether the app runs in an image of its own, and not in someone's workplace."""
    return bool(os.environ.get(VARIABLE))


def mount_hint(path: str | os.PathLike, writable: bool = False) -> str:
    """Return how to make a folder of the host visible at ``path``; nothing outside containers.

    Parameters
    ----------
    path : path
        Where the app looks for it.
    writable : bool
        Whether the app has to write there.

    Returns
    -------
    str
        A sentence that begins with a space, to be put at the end of a message.
    """
    found = kind()
    if found is None:
        return ""
    flag = "apptainer -B" if found == "apptainer" else f"{found} -v"
    mode = "" if writable else ":ro"
    return (
        f" This is a container, which sees folders of the host only where they are mounted: "
        f"{flag} /path/on/the/host:{Path(path).absolute()}{mode}"
    )


def file_hint(path: str | os.PathLike) -> str:
    """Return :func:`mount_hint` of a file's folder, if that is not there either."""
    folder = Path(path).absolute().parent
    return "" if folder.is_dir() else mount_hint(folder)
