"""Scores of predictions against targets, each as a pair matrix.

``M[i, j]`` is the quality of prediction i against target j, higher is better; the score is the mean
of the diagonal, and what is beside it says what mismatched pairs would get. Where a number of
predictions differs from that of targets (one picture against all), the matrix is not square.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Latents are single precision: what varies by less than this fraction of its size is rounding.
_CONSTANT = 1e-6

# Similarities in float64 that differ by less, relative to the largest of the row, are ties.
_TIE = 1e-12

# Side of the window of structural similarity, and its constants (Wang et al. 2004) for 8 bits.
_WINDOW = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# Bytes of window sums held at a time.
_BAND_BYTES = 64 * 2**20


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


def two_way(similarity: np.ndarray) -> np.ndarray:
    """Return for each pair the fraction of other targets that are less similar; a tie counts 1/2.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, 0 to 1
        ``M[i, j]``: fraction of k other than j with S[i, k] < S[i, j]. Its mean diagonal is the
        two-way identification accuracy, chance 0.5. NaN for one stimulus.
    """
    S, slack = _similarity(similarity)
    n = S.shape[1]
    if n < 2:
        return np.full(S.shape, np.nan)
    halves = np.empty(S.shape, np.int64)
    for i, row in enumerate(S):
        ordered = np.sort(row)
        below = np.searchsorted(ordered, row - slack[i], "left")
        up_to = np.searchsorted(ordered, row + slack[i], "right")
        halves[i] = below + up_to - 1
    return halves / (2 * (n - 1))


def one_of_n(similarity: np.ndarray) -> np.ndarray:
    """Return for each pair whether the target is the most similar one; m that tie get 1/m each.

    Parameters
    ----------
    similarity : array of shape (n_predicted, n_stimuli)

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64; rows sum to 1
        Its mean diagonal is the one-of-n identification accuracy, chance 1 / n_stimuli.
    """
    S, slack = _similarity(similarity)
    best = S.max(axis=1, keepdims=True) - S <= slack[:, None]
    return best / best.sum(axis=1, keepdims=True)


def structural_similarity(
    images: np.ndarray, targets: np.ndarray, n_threads: int = 1
) -> np.ndarray:
    """Return the structural similarity of all pairs of images (Wang et al. 2004, eq. 13).

    The reference code's setting, which is scikit-image's default for 8-bit images: uniform window
    of 7 x 7, sample covariance, data range 255, mean over colours and over the image less its
    margin of 3.

    Parameters
    ----------
    images : uint8 array of shape (n_predicted, height, width, n_colours)
    targets : uint8 array of shape (n_stimuli, height, width, n_colours)
    n_threads : int

    Returns
    -------
    array of shape (n_predicted, n_stimuli), float64, -1 to 1

    Raises
    ------
    ValueError
        For images that are not uint8, shapes that disagree, or a side below 7.

    Notes
    -----
    Window sums of 8-bit values are exact whole numbers, and those of one image serve all its pairs:
    equal to scikit-image within 1e-10, at a fraction of the time. Works in bands of rows, which
    hold about 64 MiB.
    """
    images, targets = np.asarray(images), np.asarray(targets)
    if images.dtype != np.uint8 or targets.dtype != np.uint8:
        raise ValueError(f"images of type {images.dtype} and {targets.dtype}; uint8 is wanted")
    if images.ndim != 4 or images.shape[1:] != targets.shape[1:]:
        raise ValueError(f"images of shape {images.shape} and {targets.shape}")
    _, height, width, n_colours = images.shape
    if min(height, width) < _WINDOW:
        raise ValueError(f"images of {height} x {width}; at least {_WINDOW} x {_WINDOW} is wanted")
    margin = _WINDOW - 1
    total = np.zeros((len(images), len(targets)))
    row_bytes = 12 * width * n_colours * (len(images) + len(targets))
    step = max(1, _BAND_BYTES // max(row_bytes, 1))
    with ThreadPoolExecutor(max(1, n_threads)) as pool:
        for top in range(0, height - margin, step):
            rows = slice(top, top + step + margin)
            first = list(pool.map(_window_sums, images[:, rows]))
            second = list(pool.map(_window_sums, targets[:, rows]))
            found = pool.map(lambda a, others=second: [_ssim_sum(a, b) for b in others], first)
            total += np.array(list(found)).reshape(total.shape)
    return total / ((height - margin) * (width - margin) * n_colours)


def _window_sums(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image, its window sums and 49 * 48 times its window variances, as int32."""
    x = image.astype(np.int32)
    sums = _box(x)
    spread = _box(x * x)
    spread *= _WINDOW**2
    spread -= sums * sums
    return x, sums, spread


def _ssim_sum(a: tuple, b: tuple) -> float:
    """Return the sum over windows of the structural similarity of two images."""
    n = _WINDOW**2
    product = a[1] * b[1]
    cross = _box(a[0] * b[0])
    cross *= n
    cross -= product
    # Whole numbers below 2^31 up to here: n^2 times products of means, n (n - 1) times covariances.
    c1, c2 = _C1 * n * n, _C2 * n * (n - 1)
    value = (2 * product + c1) * (2 * cross + c2)
    value /= (a[1] * a[1] + b[1] * b[1] + c1) * (a[2] + b[2] + c2)
    return float(value.sum(dtype=np.float64))


def _box(x: np.ndarray) -> np.ndarray:
    """Return sums over windows of 7 x 7 that lie inside, by doubling: 1, 2, 4, then 8 less 1."""
    for _ in range(2):
        two = x[:-1] + x[1:]
        four = two[:-2] + two[2:]
        x = (four[:-3] + four[3:] - x[3:-3]).swapaxes(0, 1)
    return x


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


def _similarity(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    S = np.asarray(similarity, np.float64)
    if S.ndim != 2 or 0 in S.shape or not np.isfinite(S).all():
        raise ValueError(f"similarity of shape {S.shape}; a finite matrix is wanted")
    return S, _TIE * np.abs(S).max(axis=1)


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
