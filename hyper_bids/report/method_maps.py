"""Sentences of the methods text on where in the brain."""

from __future__ import annotations

from pathlib import PurePath

from hyper_bids.report.citations import verbatim


def maps_text(maps: dict, facts: dict) -> str:
    """Say how maps of the brain were made; nothing where there are none.

    Parameters
    ----------
    maps : dict
        Settings of the stage: ``atlas``, ``no_maps``.
    facts : dict
        ``maps``: whether the stage was run; taken as True where it is absent.
    """
    if not maps or maps.get("no_maps") or not facts.get("maps", True):
        return ""
    text = (
        "To see where in the brain responses follow what was shown, the responses of each voxel "
        "were predicted from the latents of the stimuli by ridge regression, in training runs that "
        "were left out (up to ten groups of whole runs; of one run, fifths), each voxel with a "
        "penalty of its own by generalised cross-validation [golub1979]. The map is the mean of "
        "the left-out runs' correlations. p values are from trials shuffled within their runs, and "
        "were corrected for the number of voxels by their false discovery rate [benjamini1995]. "
        "Where test stimuli were repeated, correlations are also given as fractions of the noise "
        "ceiling of single trials, the root of their reliability [shrout1979]. Of the decoder, "
        "the length of each voxel's weights and the variance that its outputs account for through "
        "the voxel's pattern [haufe2014] were mapped."
    )
    if maps.get("atlas"):
        text += (
            f" Voxels were counted and averaged by the regions of "
            f"{verbatim(PurePath(maps['atlas']).name)}. A region's contribution to decoding is "
            f"its voxels' part of the covariance of predictions with the true latents over test "
            f"stimuli."
        )
    return text
