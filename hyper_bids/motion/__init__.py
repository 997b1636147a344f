"""Rigid realignment of raw BOLD, and how much a head moved; a few volumes in memory at a time."""

from hyper_bids.motion.convention import in_view, is_thin
from hyper_bids.motion.measures import dvars, framewise_displacement
from hyper_bids.motion.rigid import (
    estimate,
    evenly_spaced,
    motion_reference,
    realign,
    resample,
)

__all__ = [
    "dvars",
    "estimate",
    "evenly_spaced",
    "framewise_displacement",
    "in_view",
    "is_thin",
    "motion_reference",
    "realign",
    "resample",
]
