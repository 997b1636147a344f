"""Scores of MindEye2's evaluation whose networks were not given, in one line."""

from __future__ import annotations

from collections.abc import Iterable

from hyper_bids.perceptual import MINDEYE_IDENTIFIES, MINDEYE_MEASURES

_KNOWN = {
    "two_way_identification": MINDEYE_IDENTIFIES,
    "feature_correlation": MINDEYE_MEASURES,
    "correlation_distance": MINDEYE_MEASURES,
}


def network_of(metric: str, variant: str) -> str | None:
    """Return the network that MindEye2's evaluation takes for a score; None for any other score."""
    network = variant.removeprefix("features, ")
    return network if network in _KNOWN.get(metric, ()) else None


def absent(networks: Iterable[str]) -> str:
    """Say that what these networks would give was not computed, and how to have it."""
    names = ", ".join(dict.fromkeys(networks))
    return f"MindEye2's scores by {names} (give the networks' files by --feature-network)"
