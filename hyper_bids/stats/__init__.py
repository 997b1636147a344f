"""Tests, intervals, corrections and controls of scores.

A pair matrix ``M[i, j]`` holds the quality of prediction i against target j, higher is better; a
score is the mean of its diagonal. What each number means stands in ``docs/statistics.md``.
"""

from hyper_bids.stats.ceilings import (
    Reliability,
    half_means,
    leave_one_repeat_out,
    split_half,
)
from hyper_bids.stats.collapse import (
    Nearest,
    Spread,
    nearest_training,
    participation_ratio,
    spread,
)
from hyper_bids.stats.comparison import Comparison, paired_comparison, sign_flip_null
from hyper_bids.stats.corrections import (
    false_discovery,
    max_statistic,
    max_statistic_of_parts,
)
from hyper_bids.stats.correlation import bootstrap_correlation
from hyper_bids.stats.intervals import (
    MIN_PARTICIPANTS,
    GroupMean,
    binomial_interval,
    bootstrap_interval,
    group_interval,
    hits_interval,
    mean_interval,
)
from hyper_bids.stats.pairing import (
    mismatched,
    p_value,
    pairing_null,
    pairing_nulls,
    prior_null,
    score,
)
from hyper_bids.stats.prevalence import (
    InformationPrevalence,
    Prevalence,
    information_prevalence,
    prevalence,
)

__all__ = [
    "MIN_PARTICIPANTS",
    "Comparison",
    "GroupMean",
    "InformationPrevalence",
    "Nearest",
    "Prevalence",
    "Reliability",
    "Spread",
    "binomial_interval",
    "bootstrap_correlation",
    "bootstrap_interval",
    "false_discovery",
    "group_interval",
    "half_means",
    "hits_interval",
    "information_prevalence",
    "leave_one_repeat_out",
    "max_statistic",
    "max_statistic_of_parts",
    "mean_interval",
    "mismatched",
    "nearest_training",
    "p_value",
    "paired_comparison",
    "pairing_null",
    "pairing_nulls",
    "participation_ratio",
    "prevalence",
    "prior_null",
    "score",
    "sign_flip_null",
    "split_half",
    "spread",
]
