"""Sentences of the methods text on scores that not every analysis has."""

from __future__ import annotations

# Start of a network's label -> its reference.
_NETWORKS = {
    "VGGFace2": "cao2018",
    "VGG16": "simonyan2015",
    "AlexNet": "krizhevsky2014",
    "EfficientNet": "tan2019",
    "dlib": "king2009",
}

_ATTRIBUTES = {
    "boundaries": "Attributes of predicted and true latents were scored as their projections on "
    "the boundaries of InterFaceGAN [shen2020]",
    "labels": "Attributes of predicted and true latents were scored as their projections on "
    "directions that ridge regression fitted to labels of the training stimuli; its penalties were "
    "chosen by leaving out a stimulus, and labels that were then predicted no better than chance "
    "would have it were left out. The scores were",
}
_LATENTS = {
    "raw": "of the latents as they were",
    "normalised": "of latents brought to the length of the root of their number",
}


def networks_text(labels: list[str]) -> str:
    """Say which networks compared images by features; nothing where there was none.

    Parameters
    ----------
    labels : list of str
        Full names of the networks, each with what it is to the paper's.
    """
    if not labels:
        return ""
    named = []
    for label in labels:
        key = next((key for name, key in _NETWORKS.items() if label.startswith(name)), None)
        named.append(label + (f" [{key}]" if key else ""))
    what = "these networks" if len(labels) > 1 else "a network"
    return (
        f"They were also compared by the features of {what}: {'; '.join(named)}. Feature "
        f"similarity is the paper's similarity, computed on features; identification went by their "
        f"correlation. "
    )


def attributes_text(source: str | None, scores: str) -> str:
    """Say how attributes were scored; nothing where they were not.

    Parameters
    ----------
    source : {None, "boundaries", "labels"}
        Where their directions came from.
    scores : {"raw", "normalised"}
    """
    if source is None:
        return ""
    return f"{_ATTRIBUTES[source]} {_LATENTS[scores]}; they were correlated over test stimuli. "
