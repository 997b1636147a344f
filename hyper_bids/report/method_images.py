"""Sentences of the methods text on image models, and on the methods that decode encoded images."""

from __future__ import annotations

from pathlib import PurePath

from hyper_bids.report.citations import verbatim

# Single precision, the usual, goes without saying.
_PRECISION = {
    "bf16": " The convolutions of a PGGAN were computed in bfloat16.",
    "auto": " The convolutions of a PGGAN were computed in bfloat16 where the machine computes in "
    "it itself, else in single precision; `Precision` beside the reconstructions tells which.",
}


def images_text(images: dict, facts: dict) -> str:
    """Say how latents became images, by which models."""
    if not images:
        return ""
    others = _baselines(facts.get("baselines") or ())
    if not facts.get("known", True):
        return others.strip()
    name = facts["generator"] if "generator" in facts else images.get("generator")
    if name in (None, "none"):
        return f"No image model was used for the known latents.{others}"
    name = PurePath(str(name)).stem if str(name).endswith(".safetensors") else str(name)
    which = "the image model" if name == "auto" else f"the image model {verbatim(name)}"
    if "pggan" in name.lower():
        which += ", a progressively grown GAN [karras2018]"
    elif name == "demo" or "dcgan" in name.lower():
        which += ", a deep convolutional GAN [radford2016]"
    text = f"The predicted latents were turned into images by {which}."
    if images.get("latent_norm") == "prior":
        text += (
            " Regression shrinks its predictions, and images of short latents are dull; so each "
            "prediction was rescaled to the mean length of the training latents before its image "
            "was made, unless the model itself uses the direction only, or its latents are encoded "
            "images. Scores of latents are of the predictions as they were."
        )
    return text + _PRECISION.get(images.get("precision"), "") + others


def _baselines(baselines: list) -> str:
    """Describe the methods that decode encoded stimuli; begins with a space."""
    told = []
    for label, model in baselines:
        if model is None:
            told.append(
                f"{label}, scores of up to 512 principal components of the training stimuli's "
                f"images at 64 x 64 pixels [sirovich1987, cowen2014]"
            )
            continue
        name = verbatim(PurePath(str(model)).stem)
        cited = " [vanrullen2019, larsen2016]" if "vae" in f"{label}{name}".lower() else ""
        told.append(f"{label}, the encoding by the image model {name}{cited}")
    if not told:
        return ""
    return (
        f" For comparison, encodings of the stimuli's images were decoded in their place, from the "
        f"same voxels and by the same decoder: {'; '.join(told)}. Their predictions were turned "
        f"into images as they were, and compared with the stimuli at the same size as all others."
    )
