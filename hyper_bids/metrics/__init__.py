"""Scores of predictions against targets, each as a pair matrix.

``M[i, j]`` is the quality of prediction i against target j, higher is better; the score is the mean
of the diagonal, and what is beside it says what mismatched pairs would get. Where a number of
predictions differs from that of targets (one picture against all), the matrix is not square.
"""

from hyper_bids.metrics.identification import (
    CANDIDATES,
    Retrieval,
    one_of_n,
    retrieval,
    retrieval_expected,
    top_k,
    two_way,
)
from hyper_bids.metrics.images import (
    MINDEYE_SIDE,
    grey,
    luminance_correlation,
    pixel_correlation,
    resized,
)
from hyper_bids.metrics.latents import (
    correlation_distance,
    correlation_similarity,
    feature_similarity,
    latent_correlation,
    latent_cosine,
    latent_similarity,
    per_dimension_correlation,
)
from hyper_bids.metrics.structure import (
    structural_similarity,
    structural_similarity_gaussian,
    structural_similarity_paired,
)

__all__ = [
    "CANDIDATES",
    "MINDEYE_SIDE",
    "Retrieval",
    "correlation_distance",
    "correlation_similarity",
    "feature_similarity",
    "grey",
    "latent_correlation",
    "latent_cosine",
    "latent_similarity",
    "luminance_correlation",
    "one_of_n",
    "per_dimension_correlation",
    "pixel_correlation",
    "resized",
    "retrieval",
    "retrieval_expected",
    "structural_similarity",
    "structural_similarity_gaussian",
    "structural_similarity_paired",
    "top_k",
    "two_way",
]
