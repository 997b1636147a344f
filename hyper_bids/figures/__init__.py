"""Arrays to matplotlib figures, readable at 900 pixels and by the colour-blind.

Each function returns a figure, which :func:`save` writes as PNG, the same bytes each time.
"""

from hyper_bids.figures.attributes import attribute_scatter
from hyper_bids.figures.choices import model_choice
from hyper_bids.figures.fits import dimension_correlations, loss_curve, penalty_curve
from hyper_bids.figures.motion import motion_traces, reference_outline
from hyper_bids.figures.pictures import method_grid, reconstruction_grid, voxel_map
from hyper_bids.figures.regions import region_bars
from hyper_bids.figures.scores import group_scores, null_histogram, pair_matrix
from hyper_bids.figures.style import save

__all__ = [
    "attribute_scatter",
    "dimension_correlations",
    "group_scores",
    "loss_curve",
    "method_grid",
    "model_choice",
    "motion_traces",
    "null_histogram",
    "pair_matrix",
    "penalty_curve",
    "reconstruction_grid",
    "reference_outline",
    "region_bars",
    "save",
    "voxel_map",
]
