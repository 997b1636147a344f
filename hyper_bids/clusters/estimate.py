"""How much memory and time a participant's job should ask for, from the plans of the dry run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Seconds of one core, as measured stage by stage (docs/betas.md, maps.md, decoding.md,
# image-models.md): of a million voxels x volumes of raw BOLD that is realigned, and of BOLD as it
# is read and modelled; of a billion voxels x trials x latents of the maps; of one image; of a
# refit of the paper's size; and of loading, decoding, scores and the page.
_REALIGNMENT = 0.4
_MODEL = 0.2
_MAPS = 1.0
_IMAGE, _PIXELS_OF_SECOND = 0.3, 200_000
_REFIT = 0.07
_ELSE = 60.0
# Random latents that get images, of small and of large images, beside the test stimuli twice.
_PRIOR_IMAGES = {False: 100, True: 20}
_LARGE = 256

# A job that is stopped costs more than one that asks for too much, and nodes differ.
_TIME_MARGIN = 4.0
_MEMORY_MARGIN = 1.5
_LEAST_MB = 4096


@dataclass(frozen=True)
class Estimate:
    """What a job should ask for, and the participant that sets it.

    Attributes
    ----------
    mem_mb : int
        Megabytes.
    minutes : int
    dry_run_mb : int
        What ``--dry-run`` says of the participant ``largest``.
    seconds : int
        What the participant ``longest`` takes one core by the measurements.
    largest, longest : str
    """

    mem_mb: int
    minutes: int
    dry_run_mb: int
    seconds: int
    largest: str
    longest: str

    @property
    def time(self) -> str:
        """The minutes as Slurm takes them, HH:MM:SS."""
        return f"{self.minutes // 60:02d}:{self.minutes % 60:02d}:00"


def estimate(plans: Iterable, refits: int = 0) -> Estimate:
    """Return what the most demanding of ``plans`` needs, with a margin.

    Parameters
    ----------
    plans : plans of participants
        See :class:`participant.plan.Plan`; at least one. ``memory_mb`` is what ``--dry-run`` says.
    refits : int
        ``--refit-permutations``.

    Returns
    -------
    Estimate
        Memory in steps of 1024 MB, 1.5 times what the dry run says and at least 4096. Time in steps
        of 30 minutes, four times what the measurements give.

    Raises
    ------
    ValueError
        If there is no plan.
    """
    plans = list(plans)
    if not plans:
        raise ValueError("no plan to estimate from")
    largest = max(plans, key=lambda plan: plan.memory_mb)
    longest = max(plans, key=seconds)
    taken = seconds(longest, refits)
    wanted = max(_LEAST_MB, _MEMORY_MARGIN * largest.memory_mb)
    return Estimate(
        mem_mb=1024 * math.ceil(wanted / 1024),
        minutes=30 * math.ceil(_TIME_MARGIN * taken / 60 / 30),
        dry_run_mb=largest.memory_mb,
        seconds=round(taken),
        largest=largest.participant,
        longest=longest.participant,
    )


def seconds(plan, refits: int = 0) -> float:
    """Return about how many seconds one core computes on the participant of ``plan``."""
    counts = plan.counts()
    voxels = max((math.prod(run.shape[:3]) for run in plan.runs), default=0)
    volume = sum(math.prod(run.shape[:3]) * run.n_volumes for run in plan.runs) / 1e6
    trials = counts["training_trials"] + counts["test_trials"]
    taken = volume * (_MODEL + (_REALIGNMENT if plan.realign else 0.0))
    taken += voxels * trials * plan.n_latents / 1e9 * _MAPS
    for method in plan.methods:
        taken += refits * _REFIT
        if method.size:
            n = 2 * counts["test_stimuli"] + _PRIOR_IMAGES[max(method.size) > _LARGE]
            taken += n * (_IMAGE + math.prod(method.size) / _PIXELS_OF_SECOND)
    return _ELSE + taken
