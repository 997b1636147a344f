"""Participants onto each other: a space that their responses to the same stimuli share.

What is fitted is given responses to shared training stimuli and nothing else; test trials are
asked for when all that is fitted is there.
"""

from hyper_bids.hyperalignment.decoding import averaged_prediction, left_out_predictions
from hyper_bids.hyperalignment.shared import shared_stimuli, stimulus_means
from hyper_bids.hyperalignment.space import (
    METHODS,
    AlignmentSettings,
    Template,
    VoxelMap,
    crossfitted,
    fit_map,
    fit_template,
    transform,
)

__all__ = [
    "METHODS",
    "AlignmentSettings",
    "Template",
    "VoxelMap",
    "averaged_prediction",
    "crossfitted",
    "fit_map",
    "fit_template",
    "left_out_predictions",
    "shared_stimuli",
    "stimulus_means",
    "transform",
]
