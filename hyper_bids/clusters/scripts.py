"""The folder of a Slurm run: scripts, labels, settings and the table of exit codes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.bids.atomic import atomic
from hyper_bids.clusters.paths import ROOT
from hyper_bids.clusters.settings import Job, Places, Spread
from hyper_bids.config import Settings, to_toml
from hyper_bids.errors import OutputError, UsageError

COLUMNS = ("time", "job", "task", "label", "exit_code", "node", "attempt")
SCRIPTS = ("common.sh", "array.sh", "group.sh", "submit.sh", "resubmit.sh")

# What the app may fill of a job's memory; the rest is the container's and the system's.
_SHARE = 0.9
# Participants whose results the group level reads in a minute, at least.
_GROUP_RATE = 30


def check_folder(folder: str, settings: Settings) -> None:
    """Refuse a folder that would harm a dataset or another run; write nothing.

    Raises
    ------
    UsageError
        If it lies in the dataset or the output folder, or its name has a line break.
    OutputError
        If there is something in it.
    """
    place = Path(folder).resolve()
    for what, other in (("bids_dir", settings.bids_dir), ("output_dir", settings.output_dir)):
        if place.is_relative_to(Path(other).resolve()):
            raise UsageError(
                f"--folder {folder}: lies in {what} {other}, which is kept for data. Give a folder "
                f"outside of it."
            )
    if not place.exists():
        return
    if not place.is_dir() or any(place.iterdir()):
        hint = ""
        if (place / "submit.sh").is_file():
            hint = (
                f" There is a run in it: {place / 'submit.sh'} submits it, resubmit.sh what failed."
            )
        raise OutputError(f"--folder {folder}: not empty.{hint} For a new run, give a new folder.")


def write_folder(
    settings: Settings,
    labels: Iterable[str],
    job: Job,
    spread: Spread,
    places: Places,
    verbosity: str = "",
) -> list[str]:
    """Write the folder of a run.

    Parameters
    ----------
    settings : Settings
        Of the app, with paths as the jobs see them and without what each job says itself.
    labels : iterable of str
        Participants, without ``sub-``.
    job, spread, places
        See :mod:`clusters.settings`.
    verbosity : str
        Flags of the log for each job, such as ``-v``.

    Returns
    -------
    list of str
        Names of the files, in the order in which they are told to the user.

    Raises
    ------
    UsageError
        If a text has a line break.
    OutputError
        If the folder cannot be written. See :func:`check_folder` for what should hold before.
    """
    labels = list(labels)
    texts = {
        "labels.txt": "".join(f"sub-{label}\n" for label in labels),
        "hyper_bids.toml": to_toml(settings),
        "exit_codes.tsv": "\t".join(COLUMNS) + "\n",
    }
    words = _words(settings, len(labels), job, spread, places)
    words["verbosity"] = f" {verbosity}" if verbosity else ""
    environment = _environment()
    for name in SCRIPTS:
        texts[name] = environment.get_template(f"{name}.j2").render(words)
    folder = Path(places.folder)
    for name, text in texts.items():
        with atomic(folder / name) as stream:
            stream.write(text)
        if name in SCRIPTS:
            (folder / name).chmod(0o755)
    (folder / "logs").mkdir(exist_ok=True)
    return list(texts)


def _words(settings: Settings, n: int, job: Job, spread: Spread, places: Places) -> dict:
    group_minutes = 30 * math.ceil((30 + n / _GROUP_RATE) / 30)
    words = {
        "version": __version__,
        "seen": settings,
        "root": ROOT,
        "sbatch_options": job.options,
        "app_mb": int(_SHARE * job.mem_mb),
        "group_mb": max(4096, job.mem_mb),
        "group_time": f"{group_minutes // 60:02d}:{group_minutes % 60:02d}:00",
    }
    for part in (job, spread, places):
        words |= vars(part)
    for text in _texts(words):
        if any(mark in text for mark in "\n\r\0"):
            raise UsageError(f"{text!r}: holds a line break, which a script cannot take.")
    return words


def _texts(words: dict) -> Iterable[str]:
    for value in words.values():
        yield from (value,) if isinstance(value, str) else ()
        yield from value if isinstance(value, tuple) else ()
        yield from (value.bids_dir, value.output_dir) if isinstance(value, Settings) else ()


def _environment():
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("hyper_bids").joinpath("data/slurm")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        # Scripts, no pages; every text of the user's goes through the shell's quotes.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        # Jinja's own mark is how the shell writes the length of an array.
        comment_start_string="{##",
        comment_end_string="##}",
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["q"] = shlex.quote
    return environment
