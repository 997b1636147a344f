"""What a linear decoder says about voxels: its weights, its patterns, and its output's parts.

A weight says how a decoder uses a voxel. It can be large where a voxel holds noise only, which the
decoder takes off other voxels. A pattern says how a voxel's response changes with what the decoder
gives out (Haufe et al. 2014, NeuroImage 87:96-110).
"""

from __future__ import annotations

import numpy as np

from hyper_bids.threads import eigh

# Singular values of the outputs below this fraction of the largest are rounding of float32.
_RANK = 1e-6

# Values of responses that are copied to float64 at a time (32 MiB).
_BLOCK = 1 << 22


def haufe_patterns(betas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the patterns of a linear decoder, A = cov(X) W cov(XW)^-1.

    Haufe et al. 2014, eq. 6. Computed as the least-squares regression of the responses X on the
    decoder's outputs XW, which is the same and has no matrix of voxels by voxels. Of outputs that
    depend on each other, the solution of smallest norm.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Standardised responses that the decoder was trained on.
    weights : array of shape (n_voxels, n_latents)

    Returns
    -------
    array of shape (n_voxels, n_latents), float32
        Change of a voxel's response with one latent of the output, all others held.

    Raises
    ------
    ValueError
        For shapes that disagree, fewer than two trials, or values that are not finite.
    """
    inverse, _ = _outputs(betas, weights)
    patterns = np.empty(np.shape(weights), np.float32)
    for part, X in _blocks(betas):
        patterns[part] = X.T @ inverse
    return patterns


def explained(betas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the fraction of each voxel's variance that the decoder's outputs account for.

    a' cov(XW) a / var(x) with the voxel's pattern a: the squared multiple correlation. It is the
    same for any axes and scales of the latents, and directions in which outputs hardly vary hardly
    count, while the plain norm of a pattern is mostly the noise of these.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Standardised responses that the decoder was trained on.
    weights : array of shape (n_voxels, n_latents)

    Returns
    -------
    array of shape (n_voxels,), float32
        At most 1: 1 - (1 - R2) (n_trials - 1) / (n_trials - 1 - rank of the outputs), which takes
        off what as many arbitrary regressors explain, so that voxels without signal are about 0 or
        below (but for what the decoder was fitted to of their noise). NaN where a voxel does not
        vary, and where the outputs' rank leaves nothing.
    """
    _, u = _outputs(betas, weights)
    n, rank = u.shape
    left = np.empty(len(weights))
    for part, X in _blocks(betas):
        power = np.einsum("ij,ij->j", X, X)
        U = u.T @ X
        rest = power - np.einsum("ij,ij->j", U, U)
        left[part] = np.divide(rest, power, out=np.full_like(power, np.nan), where=power > 0)
    if n - 1 - rank < 1:
        return np.full(len(weights), np.nan, np.float32)
    return (1 - left * (n - 1) / (n - 1 - rank)).astype(np.float32)


def norms(weights: np.ndarray) -> np.ndarray:
    """Return the length of each voxel's row, over latents.

    It does not depend on the axes of a latent space whose prior is the same in all directions, as
    a standard normal one is.

    Parameters
    ----------
    weights : array of shape (n_voxels, n_latents)
        Weights, or patterns.

    Returns
    -------
    array of shape (n_voxels,), float32
    """
    return np.sqrt(np.einsum("ij,ij->i", weights, weights, dtype=np.float64)).astype(np.float32)


def contribution(betas: np.ndarray, weights: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return each voxel's part of the covariance of the decoder's outputs with true latents.

    The outputs are a sum over voxels, so their covariance with the latents, summed over latents,
    is one too: parts add up to 1, in any grouping. A part below 0 is of a voxel that takes away
    from the decoding of these trials, or would but for others that make up for it.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Standardised responses; of test trials, for a decoder has learnt training trials by heart.
    weights : array of shape (n_voxels, n_latents)
    latents : array of shape (n_trials, n_latents)
        What was shown.

    Returns
    -------
    array of shape (n_voxels,), float64, sum 1
        All NaN where the covariance is not above 0: nothing was decoded that could be shared out.
    """
    _checked(betas, weights)
    latents = np.asarray(latents, np.float64)
    if latents.shape != (len(betas), np.shape(weights)[1]):
        raise ValueError(
            f"latents of shape {latents.shape} for betas of shape {np.shape(betas)} and weights of "
            f"shape {np.shape(weights)}"
        )
    latents = latents - latents.mean(axis=0)
    parts = np.empty(len(weights))
    for part, X in _blocks(betas):
        parts[part] = np.einsum("ij,ij->i", X.T @ latents, weights[part])
    total = parts.sum()
    # Against rounding: outputs that are constant have sums of about 0.
    return parts / total if total > 1e-9 * np.abs(parts).sum() else np.full_like(parts, np.nan)


def _outputs(betas: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pseudo-inverse (n_trials, n_latents) and left vectors of the centred outputs."""
    betas, weights = _checked(betas, weights)
    S = np.zeros((len(betas), weights.shape[1]))
    for part, X in _blocks(betas):
        S += X @ weights[part]
    squared, v = eigh(S.T @ S)
    kept = squared > _RANK**2 * squared[-1]
    size, v = np.sqrt(squared[kept]), v[:, kept]
    u = S @ (v / size)
    return u @ (v / size).T, u


def _blocks(betas: np.ndarray):
    step = max(1, _BLOCK // len(betas))
    for start in range(0, betas.shape[1], step):
        part = slice(start, start + step)
        X = np.asarray(betas[:, part], np.float64)
        yield part, X - X.mean(axis=0)


def _checked(betas: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    betas, weights = np.asarray(betas), np.asarray(weights)
    if betas.ndim != 2 or weights.ndim != 2 or betas.shape[1] != len(weights) or len(betas) < 2:
        raise ValueError(
            f"betas of shape {betas.shape} and weights of shape {weights.shape}; (n_trials, "
            f"n_voxels) with at least 2 trials and (n_voxels, n_latents) are wanted"
        )
    if not (np.isfinite(betas).all() and np.isfinite(weights).all()):
        raise ValueError(f"betas or weights of {len(weights)} voxels hold NaN or infinity")
    return betas, weights
