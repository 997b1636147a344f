"""Scores of images by feature networks: which networks, and how alike two images look to them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hyper_bids import metrics, perceptual
from hyper_bids.config import ScoreSettings
from hyper_bids.errors import UsageError, listing
from hyper_bids.metrics.predictions import told_apart
from hyper_bids.participant.pairs import Pairs, identified
from hyper_bids.perceptual import MINDEYE_IDENTIFIES, MINDEYE_MEASURES, FeatureNetwork
from hyper_bids.perceptual.vgg16 import LAYERS

# What the paper calls its network. No other network is called so in scores.
PAPERS = "VGGFace"

INSTALL = "pip install 'hyper_bids[faces]'"

# Bytes of images in single precision that are handed to a network at a time.
_BLOCK = 2**28


@dataclass(frozen=True)
class Network:
    """What has to be known of a feature network before it is used.

    Attributes
    ----------
    source : str
        Name or weight file that it is loaded by.
    layer : str or None
        Layer that was asked for.
    short : str
        Name in the tables of scores.
    label : str
        Full name, and what it is to the paper's network.
    checksum : str
        SHA-256 of its weights.
    """

    source: str
    layer: str | None
    short: str
    label: str
    checksum: str

    def load(self, device: str) -> FeatureNetwork:
        """Return the network on a device, such as ``cpu`` or ``cuda:0``."""
        return perceptual.load(self.source, device, self.layer)


def choose_networks(settings: ScoreSettings) -> tuple[Network, ...]:
    """Return the networks that are asked for, each of them loaded once to see that it can be.

    Parameters
    ----------
    settings : ScoreSettings
        ``feature_networks``: ``auto`` (each embedded network that is installed), ``none``, names,
        weight files. ``feature_layer``: of a VGG16 file.

    Returns
    -------
    tuple of Network
        In the order given, embedded ones by name; none twice.

    Raises
    ------
    UsageError, InputError
        If a network is unknown, is not installed or cannot be read, or has no such layer.
    """
    return _chosen(settings.feature_networks, settings.feature_layer)


def note_of(settings: ScoreSettings) -> list[str]:
    """Return what the page has to say where ``auto`` finds no network that is installed."""
    if "auto" not in settings.feature_networks or choose_networks(settings):
        return []
    return [f"Images were not compared by features: no feature network is installed ({INSTALL})."]


# A group of participants has one set of networks; they are read once.
@lru_cache(maxsize=8)
def _chosen(wanted: tuple[str, ...], layer: str | None) -> tuple[Network, ...]:
    if "none" in wanted and len(wanted) > 1:
        raise UsageError(
            f"--feature-network {' '.join(wanted)}: none stands alone. Leave out none, or the rest."
        )
    sources: list[str] = []
    for name in wanted:
        sources += perceptual.available() if name == "auto" else [name] if name != "none" else []
    # A stage runs in a folder of its own.
    sources = [
        str(Path(s).absolute()) if s not in perceptual.NETWORKS and Path(s).is_file() else s
        for s in sources
    ]
    sources = list(dict.fromkeys(sources))
    files = [source for source in sources if source not in perceptual.NETWORKS]
    if layer is not None and not files:
        raise UsageError(
            f"--feature-layer {layer}: only a VGG16 has layers to choose from. Give its weights as "
            f"--feature-network FILE."
        )
    found = [
        network
        for source in sources
        for network in _described(source, layer if source in files else None)
    ]
    known = [(network.checksum, network.layer) for network in found]
    twice = [n.source for n, key in zip(found, known, strict=True) if known.count(key) > 1]
    if twice:
        raise UsageError(f"--feature-network {listing(twice)}: the same weights. Name one of them.")
    return tuple(_told_apart(found))


def _described(source: str, layer: str | None) -> list[Network]:
    """Return the networks of a source: one, or one a layer."""
    network = perceptual.load(source, "cpu", layer)
    layers = perceptual.SEVERAL_LAYERS.get(network.name) if layer is None else None
    if layers is None:
        return [Network(source, layer, short_name(network), network.label, network.checksum)]
    return [described for name in layers for described in _described(source, name)]


def _told_apart(networks: list[Network]) -> list[Network]:
    """Return the networks with the start of their checksum where two have one short name."""
    names = [network.short for network in networks]
    return [
        Network(n.source, n.layer, f"{n.short} {n.checksum[:6]}", n.label, n.checksum)
        if names.count(n.short) > 1
        else n
        for n in networks
    ]


def short_name(network: FeatureNetwork) -> str:
    """Return the name of a network for tables: the paper's is VGGFace, and no other."""
    if network.is_papers:
        return PAPERS
    plain = re.sub(r" \([^)]*\)", "", network.name.replace("VGGFace2 ", ""))
    first, _, layer = plain.partition(", ")
    return f"{first} {layer}" if layer in LAYERS else first


def feature_pairs(
    networks: Sequence[tuple[str, FeatureNetwork]],
    pictures: dict[str, np.ndarray],
    known: dict[tuple[str, str], np.ndarray] | None = None,
) -> Pairs:
    """Return the pair matrices of the scores by features of images.

    Parameters
    ----------
    networks : sequence of (short name, network)
    pictures : dict
        ``reconstructions`` and ``stimuli``, uint8 arrays of shape (n, height, width, 3), and
        ``training_mean`` of shape (1, height, width, 3).
    known : dict, optional
        Features of stimuli that were computed before; those that are computed here are added, so
        that several methods with the same stimuli need them once.

    Returns
    -------
    dict
        For each network feature similarity in its two forms, the correlation of features, and
        identification by that; each with the matrix of a prediction that is the mean training
        latent. That prediction has nothing to tell stimuli apart, so that its identification is
        ties.
    """
    known = {} if known is None else known
    stimuli = pictures["stimuli"]
    digest = hashlib.sha256(np.ascontiguousarray(stimuli)).hexdigest()
    pairs: Pairs = {}
    for short, network in networks:
        key = (f"{short} {network.checksum}", f"{stimuli.shape} {digest}")
        if key not in known:
            known[key] = features_of(network, stimuli)
        target = known[key]
        found = features_of(network, pictures["reconstructions"])
        mean = features_of(network, pictures["training_mean"])
        for form in ("code", "printed"):
            row = metrics.feature_similarity(mean, target, form)
            pairs["feature_similarity", f"{form}, {short}"] = (
                metrics.feature_similarity(found, target, form),
                np.repeat(row, len(target), axis=0),
            )
        row = metrics.correlation_similarity(mean, target)
        alike = metrics.correlation_similarity(found, target)
        pairs["feature_correlation", short] = (
            alike,
            np.repeat(row, len(target), axis=0),
        )
        alike = told_apart(found, alike)
        pairs |= identified(f"features, {short}", alike, np.zeros_like(alike))
    return pairs


def absent_rows(pairs: Pairs) -> list[dict]:
    """Return rows without a value, of the scores whose network was not given.

    Parameters
    ----------
    pairs : Pairs
        What :func:`feature_pairs` gave.

    Returns
    -------
    list of dict
        The paper's similarity, where there was no network at all, and each score of MindEye2's
        evaluation that asks for a network.
    """
    keys = [("feature_similarity", form) for form in ("code", "printed") if not pairs]
    keys += [("two_way_identification", f"features, {name}") for name in MINDEYE_IDENTIFIES]
    keys = [key for key in keys if key not in pairs]
    keys += [
        (metric, name)
        for metric in ("feature_correlation", "correlation_distance")
        for name in MINDEYE_MEASURES
        if ("feature_correlation", name) not in pairs
    ]
    return [{"metric": metric, "variant": form, "control": None} for metric, form in keys]


def distance_rows(rows: list[dict]) -> list[dict]:
    """Return MindEye2's correlation distance, 1 - r, beside the correlation of features.

    Lower is better, unlike all else, so that it is derived and has no null of its own: its p is
    that of the correlation.

    Parameters
    ----------
    rows : list of dict
        Scores and controls; of the networks of :data:`MINDEYE_MEASURES`, each row of the
        correlation gives one.
    """
    turned = []
    for row in rows:
        if row["metric"] == "feature_correlation" and row["variant"] in MINDEYE_MEASURES:
            other = row | {"metric": "correlation_distance", "value": 1 - row["value"]}
            if "ci_low" in row:
                other |= {"ci_low": 1 - row["ci_high"], "ci_high": 1 - row["ci_low"]}
            turned.append(other)
    return turned


def features_of(network: FeatureNetwork, images: np.ndarray) -> np.ndarray:
    """Return the features of uint8 images, a block of them in single precision at a time."""
    step = max(1, _BLOCK // (4 * int(np.prod(images.shape[1:]))))
    with _one_thread():
        return np.concatenate(
            [
                network.extract(images[start : start + step].astype(np.float32) / 255)
                for start in range(0, len(images), step)
            ]
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one processor: sums of several threads differ in their last bits by their number.

    Depthwise convolutions of few pixels are no slower so, and faster beside other processes.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
