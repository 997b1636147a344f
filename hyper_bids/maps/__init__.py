"""Where in the brain: numbers by voxel of a decoder and of an encoding model, and by region."""

from hyper_bids.maps.ceilings import normalised, single_trial_reliability
from hyper_bids.maps.patterns import contribution, explained, haufe_patterns, norms
from hyper_bids.maps.regions import region_table
from hyper_bids.maps.significance import p_values

__all__ = [
    "contribution",
    "explained",
    "haufe_patterns",
    "normalised",
    "norms",
    "p_values",
    "region_table",
    "single_trial_reliability",
]
