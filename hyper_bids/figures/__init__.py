"""Arrays to matplotlib figures, readable at 900 pixels and by the colour-blind.

Each function returns a figure, which :func:`save` writes as PNG, the same bytes each time.
"""

from hyper_bids.figures.fits import dimension_correlations, loss_curve, penalty_curve
from hyper_bids.figures.pictures import reconstruction_grid, voxel_map
from hyper_bids.figures.scores import group_scores, null_histogram, pair_matrix
from hyper_bids.figures.style import save

__all__ = [
    "dimension_correlations",
    "group_scores",
    "loss_curve",
    "null_histogram",
    "pair_matrix",
    "penalty_curve",
    "reconstruction_grid",
    "save",
    "voxel_map",
]
