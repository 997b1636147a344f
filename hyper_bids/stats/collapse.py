"""Signs that predictions say little: small spread, few dimensions, training latents said again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Spread of predictions over stimuli, beside that of the targets.

    Attributes
    ----------
    variance, target_variance : float
        Mean over dimensions of the variance over stimuli (n - 1).
    dimension, target_dimension : float
        Participation ratio, see :func:`participation_ratio`.
    """

    variance: float
    target_variance: float
    dimension: float
    target_dimension: float


def participation_ratio(values: np.ndarray) -> float:
    """Return how many dimensions carry the variance over stimuli.

    (sum of variances)^2 / sum of their squares, of the principal components: 1 if all stimuli lie
    on a line, d if they spread evenly over d dimensions (Gao et al. 2017). Never above
    n_stimuli - 1, so that only sets of as many stimuli compare.

    Parameters
    ----------
    values : array of shape (n_stimuli, n_dimensions)

    Returns
    -------
    float
        0 if nothing varies.

    Raises
    ------
    ValueError
        If values are no matrix, empty, or not finite.
    """
    values = _matrix(values)
    centred = values - values.mean(axis=0)
    # The smaller of the two products has the same eigenvalues.
    small = centred.T if centred.shape[0] > centred.shape[1] else centred
    gram = small @ small.T
    total, squares = float(np.trace(gram)), float(np.square(gram).sum())
    rounding = 1e-12 * float(np.square(values).sum())
    return total**2 / squares if total > rounding else 0.0


def spread(predicted: np.ndarray, targets: np.ndarray) -> Spread:
    """Compare the spread of predictions with that of their targets.

    A decoder of noisy responses rightly predicts less variance than there is; one whose predictions
    spread over far fewer dimensions than the targets gives much the same answer to all stimuli: the
    collapse that Shirakawa et al. (2024) warn of.

    Parameters
    ----------
    predicted, targets : array of shape (n_stimuli, n_dimensions)

    Returns
    -------
    Spread
        Variances are NaN for one stimulus.

    Raises
    ------
    ValueError
        If shapes disagree, or numbers are not finite.
    """
    predicted, targets = _matrix(predicted), _matrix(targets)
    if predicted.shape != targets.shape:
        raise ValueError(f"predictions of shape {predicted.shape}, targets of {targets.shape}")
    if len(targets) < 2:
        return Spread(np.nan, np.nan, 0.0, 0.0)
    variances = (float(x.var(axis=0, ddof=1).mean()) for x in (predicted, targets))
    return Spread(*variances, participation_ratio(predicted), participation_ratio(targets))


@dataclass(frozen=True, eq=False)
class Nearest:
    """Each prediction's nearest training latent.

    Attributes
    ----------
    index : int array of shape (n_stimuli,)
        Which one it is; the first of those that tie.
    similarity, own : array of shape (n_stimuli,), float64
        Of the prediction with it, and with its own target.
    nearer : float, 0 to 1
        Fraction of predictions that are nearer to a training latent than to their own target.
    n_distinct : int
        Different training latents among the nearest.
    """

    index: np.ndarray
    similarity: np.ndarray
    own: np.ndarray
    nearer: float
    n_distinct: int


def nearest_training(to_training: np.ndarray, to_targets: np.ndarray) -> Nearest:
    """Find out whether predictions are training latents said again (Shirakawa et al. 2024).

    The nearest of many training latents is similar by chance alone: compare with what
    ``to_training`` of the targets, or of other predictions, gives.

    Parameters
    ----------
    to_training : array of shape (n_stimuli, n_training)
        Similarity of predictions with training latents, higher being nearer.
    to_targets : array of shape (n_stimuli, n_stimuli)
        With the test stimuli's, by the same measure.

    Returns
    -------
    Nearest

    Raises
    ------
    ValueError
        If shapes disagree, or numbers are not finite.
    """
    to_training, to_targets = _matrix(to_training), _matrix(to_targets)
    n = len(to_training)
    if to_targets.shape != (n, n):
        raise ValueError(
            f"similarities of shape {to_training.shape} with training and {to_targets.shape} with "
            "targets; (n_stimuli, n_training) and (n_stimuli, n_stimuli) are wanted"
        )
    index = to_training.argmax(axis=1)
    similarity, own = to_training[np.arange(n), index], np.diagonal(to_targets).copy()
    nearer = float(np.mean(similarity > own))
    return Nearest(index, similarity, own, nearer, len(np.unique(index)))


def _matrix(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"array of shape {values.shape}; a finite matrix is wanted")
    return values
