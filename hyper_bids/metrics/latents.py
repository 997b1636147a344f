"""Scores of latents, and of features of images, as pair matrices."""

from __future__ import annotations

import numpy as np

# Latents are single precision: what varies by less than this fraction of its size is rounding.
_CONSTANT = 1e-6


def latent_similarity(
    predicted: np.ndarray, latents: np.ndarray, variant: str = "code"
) -> np.ndarray:
    """Return the paper's similarity of latents, in one of its two forms.

    Parameters
    ----------
    predicted : array of shape (n_predicted, n_latents)
    latents : array of shape (n_stimuli, n_latents)
    variant : {"code", "printed"}
        ``code``: 1 / (1 + mean squared difference), as the reference code has it and the paper's
        table needs it. ``printed``: 1 / (1 + Euclidean distance), the paper's equation.

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, above 0 up to 1

    Raises
    ------
    ValueError
        For an unknown variant, shapes that disagree, or values that are not finite.
    """
    from scipy.spatial.distance import cdist

    if variant not in ("code", "printed"):
        raise ValueError(f"variant {variant!r}; 'code' and 'printed' are known")
    predicted, latents = _checked(predicted, latents)
    squared = cdist(predicted, latents, "sqeuclidean")
    return 1 / (1 + (squared / latents.shape[1] if variant == "code" else np.sqrt(squared)))


def feature_similarity(
    features: np.ndarray, target_features: np.ndarray, variant: str = "code"
) -> np.ndarray:
    """Return the same two forms as :func:`latent_similarity`, on features of images.

    Parameters
    ----------
    features : array of shape (n_predicted, n_features)
    target_features : array of shape (n_stimuli, n_features)
    variant : {"code", "printed"}

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, above 0 up to 1
    """
    return latent_similarity(features, target_features, variant)


def latent_cosine(predicted: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between latents; 0 where one of them is zero.

    Parameters
    ----------
    predicted : array of shape (n_predicted, n_latents)
    latents : array of shape (n_stimuli, n_latents)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, -1 to 1
    """
    predicted, latents = _checked(predicted, latents)
    return _unit(predicted) @ _unit(latents).T


def latent_correlation(predicted: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return the matrix whose mean diagonal is the mean correlation over stimuli of a dimension.

    Parameters
    ----------
    predicted, latents : array of shape (n_stimuli, n_latents)

    Returns
    -------
    array of shape (n_stimuli, n_stimuli), float64
        Products of columns standardised over stimuli, averaged over the dimensions whose targets
        vary; a dimension whose prediction is constant counts as 0. NaN if no target varies. With
        the columns of the matrix reordered, it is the matrix of the reordered targets.
    """
    predicted, latents = _checked(predicted, latents, paired=True)
    varies = ~_is_constant(latents, axis=0)
    if not varies.any():
        return np.full((len(latents), len(latents)), np.nan)
    standard = [_standard(values[:, varies]) for values in (predicted, latents)]
    return standard[0] @ standard[1].T / varies.sum()


def per_dimension_correlation(predicted: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return Pearson's r over stimuli of each latent dimension.

    Parameters
    ----------
    predicted, latents : array of shape (n_stimuli, n_latents)

    Returns
    -------
    array of shape (n_latents,), float64
        NaN where prediction or target does not vary.
    """
    predicted, latents = _checked(predicted, latents, paired=True)
    r = (_standard(predicted) * _standard(latents)).mean(axis=0)
    r[_is_constant(predicted, axis=0) | _is_constant(latents, axis=0)] = np.nan
    return r


def correlation_similarity(predicted: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return Pearson's r over latent dimensions between patterns; what identification goes by.

    Parameters
    ----------
    predicted : array of shape (n_predicted, n_latents)
    latents : array of shape (n_stimuli, n_latents)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, -1 to 1
        0 where a pattern has one value in all dimensions.
    """
    predicted, latents = _checked(predicted, latents)
    return _standard(predicted.T).T @ _standard(latents.T) / latents.shape[1]


def correlation_distance(features: np.ndarray, target_features: np.ndarray) -> np.ndarray:
    """Return 1 - Pearson's r between features of images; lower is better, unlike all else here.

    The rows EfficientNet-B1 (average pooling, images of 255) and SwAV ResNet-50 (average pooling,
    images of 224) of MindEye2's table (Scotti et al. 2024) are its mean diagonal. scipy's
    ``correlation`` distance, which that evaluation calls.

    Parameters
    ----------
    features : array of shape (n_predicted, n_features)
    target_features : array of shape (n_stimuli, n_features)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, 0 to 2
        1 where an image has one value in all features.
    """
    return 1 - correlation_similarity(features, target_features)


def _checked(
    predicted: np.ndarray, latents: np.ndarray, paired: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    predicted, latents = np.asarray(predicted, np.float64), np.asarray(latents, np.float64)
    shapes = predicted.shape, latents.shape
    agree = predicted.ndim == latents.ndim == 2 and shapes[0][1] == shapes[1][1]
    if not agree or 0 in shapes[0] + shapes[1] or (paired and shapes[0] != shapes[1]):
        raise ValueError(f"predictions of shape {shapes[0]} against targets of shape {shapes[1]}")
    if not (np.isfinite(predicted).all() and np.isfinite(latents).all()):
        raise ValueError(f"predictions or targets of shape {shapes[1]} hold NaN or infinity")
    return predicted, latents


def _is_constant(values: np.ndarray, axis: int) -> np.ndarray:
    return np.ptp(values, axis=axis) <= _CONSTANT * np.abs(values).max(axis=axis)


def _standard(values: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and standard deviation 1 (n in the denominator); constant ones 0."""
    constant = _is_constant(values, axis=0)
    centred = values - values.mean(axis=0)
    sd = np.sqrt(np.square(centred).mean(axis=0))
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, sd))


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1.0)
