"""What a Slurm run is told: jobs' sizes, the image or command, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """What each participant's job asks Slurm for; None leaves it to the cluster.

    ``mem_mb`` in megabytes, ``time`` as Slurm writes it.
    """

    mem_mb: int
    time: str
    cpus: int = 4
    gpus: str | None = None
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """How the jobs are put into arrays, and when the group level runs."""

    max_array: int | None = None
    throttle: int | None = None
    group: str = "afterok"


@dataclass(frozen=True)
class Places:
    """Where things lie, absolute paths all. ``work_dir`` None: on each job's node.

    ``image`` None: ``command`` is run as it is.
    """

    folder: str
    output_dir: str
    image: str | None = None
    command: tuple[str, ...] = ()
    work_dir: str | None = None
    keep_work: bool = False
    scratch: str | None = None
    binds: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
