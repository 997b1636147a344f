"""Whether results may be averaged: of one version of the app and one choice of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

from hyper_bids.errors import InputError, listing
from hyper_bids.generators.eigenface import MODEL

# What it is called in a message, to a value as text.
Settings = dict[str, str]

# They change no number, or are told by checksums, or by the names of the scores.
_IGNORED = {
    "batch_size",
    "write_images",
    "generator",
    "feature_networks",
    "attribute_boundaries",
}


def settings_of(sidecars: Mapping[str, dict]) -> Settings:
    """Return what the sidecars of a participant's results say of version and settings.

    Parameters
    ----------
    sidecars : dict
        Output (``summary_metrics``, ``decoder``, ``betas``, ``reconstructions``; with a comma and
        the method, if it is not HYPER) to the content of its JSON.

    Returns
    -------
    dict
        Name of a setting, and of what it is, to its value as text. Image models, networks and
        directions go by their checksums, whatever their files are called. A mask of the decoder may
        be each participant's own: only whether there was one counts.
    """
    found: Settings = {}
    versions = {str(s["SoftwareVersion"]) for s in sidecars.values() if "SoftwareVersion" in s}
    if versions:
        found["version of the app"] = " and ".join(sorted(versions))
    for output, content in sidecars.items():
        for stage, chosen in content.get("Settings", {}).items():
            for name, value in chosen.items():
                if name not in _IGNORED:
                    found.setdefault(f"{name} ({stage})", _text(name, value))
        if "RandomSeed" in content:
            found.setdefault("random_seed", str(content["RandomSeed"]))
        found |= _by_checksum(output, content)
    if "betas" in sidecars:
        estimated = "betas" in sidecars["betas"].get("Settings", {})
        found["responses"] = "estimated" if estimated else "imported"
    return found


def _by_checksum(output: str, content: dict) -> Settings:
    found: Settings = {}
    # Eigenfaces that were fitted to training stimuli are each participant's own.
    if content.get("GeneratorChecksum") and content.get("Generator") != MODEL:
        _, _, method = output.partition(", ")
        name = PurePath(str(content.get("Generator", ""))).name
        of = f" of {method}" if method else ""
        found[f"image model{of}"] = f"{name} {str(content['GeneratorChecksum'])[:8]}"
    for field, what in (("FeatureNetworks", "network"), ("AttributeDirections", "direction")):
        for entry in content.get(field, ()):
            # Directions that were fitted to labels are each participant's own.
            if "SHA256" in entry:
                found[f"{what} {entry['Name']}"] = str(entry["SHA256"])[:8]
    return found


def _text(name: str, value: object) -> str:
    if name == "decoder_mask":
        return "none" if value is None else "a file"
    return value if isinstance(value, str) else json.dumps(value)


def differences(settings: Mapping[str, Settings]) -> list[str]:
    """Return in what participants' results differ.

    Parameters
    ----------
    settings : dict
        Participant to what :func:`settings_of` gave.

    Returns
    -------
    list of str
        Each setting that differs, its values and whose they are: ``n_voxels (voxels): 4096 (sub-01,
        sub-02), 100 (sub-03)``. What a participant's files do not tell is no difference.
    """
    said = []
    for name in dict.fromkeys(name for own in settings.values() for name in own):
        whose: dict[str, list[str]] = {}
        for participant, own in settings.items():
            if name in own:
                whose.setdefault(own[name], []).append(f"sub-{participant}")
        if len(whose) > 1:
            values = [f"{value} ({listing(people, 3)})" for value, people in whose.items()]
            said.append(f"{name}: {listing(values, 4)}")
    return said


def check(output_dir: Path, found: list[str], allowed: bool) -> None:
    """Refuse to average results that differ in version or settings, unless that is allowed.

    Raises
    ------
    InputError
        Names what differs, and whose it is.
    """
    if found and not allowed:
        raise InputError(
            f"{output_dir}: results of different settings are not averaged. "
            f"{'; '.join(found[:6])}{f'; and {len(found) - 6} more' if len(found) > 6 else ''}. "
            f"Run the participants again with the same settings, use one output folder for each "
            f"choice, choose participants with --participant-label, or give --allow-mixed."
        )
