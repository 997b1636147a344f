"""How common an effect is among people, from tests of the few who took part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyper_bids.stats.pairing import p_value


@dataclass(frozen=True)
class Prevalence:
    """Bayesian estimate of the fraction of people who have an effect.

    Attributes
    ----------
    k, n : int
        Participants with p up to alpha, and all.
    value : float
        Most probable fraction.
    low, high : float
        Interval of highest posterior density.
    """

    k: int
    n: int
    value: float
    low: float
    high: float


def prevalence(p: np.ndarray, alpha: float = 0.05, level: float = 0.95) -> Prevalence:
    """Estimate the fraction of people in whom the effect would be found (Ince et al. 2021).

    If a fraction g of people have the effect, and the test always finds it in them, a participant
    is significant with probability alpha + (1 - alpha) g. The prior of g is uniform, and the
    posterior a beta distribution cut off at alpha. Where the test is less sure, g is that of people
    in whom it would be found.

    Parameters
    ----------
    p : array of shape (n_participants,)
        Of one test in each; NaN counts as not significant.
    alpha : float, between 0 and 1
        The level the participants' tests are held against.
    level : float, between 0 and 1
        Posterior probability of the interval.

    Returns
    -------
    Prevalence

    Raises
    ------
    ValueError
        If there is no participant, or alpha or level lies outside 0 to 1.
    """
    from scipy.special import betainc, betaincinv

    p = np.asarray(p, np.float64)
    if p.ndim != 1 or not len(p) or not (0 < alpha < 1 and 0 < level < 1):
        raise ValueError(
            f"p of shape {p.shape}, alpha {alpha}, level {level}; (n_participants,) and numbers "
            "between 0 and 1 are wanted"
        )
    n, k = len(p), int(np.count_nonzero(p <= alpha))
    a, b = k + 1, n - k + 1
    cut = betainc(a, b, alpha)
    # The density has one peak: of all intervals of this probability, the shortest is the highest.
    below = np.linspace(0, 1 - level, 2001)
    ends = betaincinv(a, b, cut + (1 - cut) * np.stack([below, below + level]))
    low, high = (ends[:, np.argmin(ends[1] - ends[0])] - alpha) / (1 - alpha)
    value = max(0.0, (k / n - alpha) / (1 - alpha))
    return Prevalence(k, n, value, max(0.0, float(low)), min(1.0, float(high)))


@dataclass(frozen=True)
class InformationPrevalence:
    """Tests by the smallest score among participants.

    Attributes
    ----------
    p_global : float
        Of the null that no participant has the effect.
    p_majority : float
        Of the null that no more than half of all people have it.
    bound : float
        Largest fraction of people that is rejected at alpha: more than this fraction have the
        effect. NaN if not even 0 is rejected.
    """

    p_global: float
    p_majority: float
    bound: float


def information_prevalence(
    observed: np.ndarray, nulls: Sequence[np.ndarray], alpha: float = 0.05
) -> InformationPrevalence:
    """Test how many people have the effect by the smallest score (Allefeld et al. 2016).

    If a fraction g of people have the effect, every participant's score reaches m by chance with
    probability of at most the product over participants of (1 - g) p_k + g, p_k being how often
    participant k's null reaches m. All combinations of the participants' permutations are so
    counted without drawing any, and nulls may differ. Of n participants, the bound never exceeds
    alpha^(1/n): 0.22 for 2.

    Parameters
    ----------
    observed : array of shape (n_participants,)
        One score, on one scale in all.
    nulls : sequence of n_participants arrays of shape (n_permutations,)
        Of permutations drawn for each participant.
    alpha : float, between 0 and 1

    Returns
    -------
    InformationPrevalence
        All NaN if a number is NaN.

    Raises
    ------
    ValueError
        If there is no participant, or their numbers differ.
    """
    observed = np.asarray(observed, np.float64)
    if observed.ndim != 1 or not len(observed) or len(observed) != len(nulls):
        raise ValueError(f"{len(nulls)} nulls for scores of shape {observed.shape}")
    smallest = float(observed.min())
    p = np.array([p_value(smallest, null) for null in nulls])
    if np.isnan(p).any():
        return InformationPrevalence(np.nan, np.nan, np.nan)

    def reached(fraction: float) -> float:
        return float(np.prod((1 - fraction) * p + fraction))

    bound = np.nan
    if reached(0) <= alpha:
        from scipy.optimize import brentq

        bound = float(brentq(lambda fraction: reached(fraction) - alpha, 0, 1))
    return InformationPrevalence(reached(0), reached(0.5), bound)
