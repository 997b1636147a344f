"""Correlations of the noise between voxels: shared components, and pairs that stand out.

With more voxels than trials the sample's correlations are mostly error. Two parts of them can be
known: components that many voxels share (principal components, freed of the bias of many voxels and
few trials), and pairs of neighbours, where it is known which voxels are near each other; else the
pairs whose remaining correlation is far above its standard error. The rest is taken as 0 (principal
orthogonal complement thresholding, Fan, Liao and Mincheva 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.threads import eigh

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Where places are not known: standard errors above which a pair of voxels is taken as correlated.
# What is above is shrunk by t (t / |r|): little where r is large (adaptive lasso).
THRESHOLD = 3.0

# Where they are: distance up to which noise may correlate, in voxels.
REACH = 3.0

MAX_COMPONENTS = 50
_MIN_EIGENVALUE = 0.1
_MIN_OWN = 0.05
_BLOCK = 4 * 2**20
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 300


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """Correlations R = loadings loadings' + pairs, with ones on the diagonal.

    Attributes
    ----------
    loadings : array of shape (n_voxels, n_components), float32
    pairs : sparse array of shape (n_voxels, n_voxels), float32, positive definite
    """

    loadings: np.ndarray
    pairs: csr_array

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        """Return R ``x``, x of shape (n_voxels, n)."""
        product = self.pairs @ x
        product += self.loadings @ (self.loadings.T @ x)
        return product

    def solve(self, diagonal: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        """Solve (R + diag(``diagonal``)) x = ``rhs`` by conjugate gradients, all columns at once.

        Parameters
        ----------
        diagonal : array of shape (n_voxels, n) or (n_voxels, 1), not negative
            Of each right side, or of all.
        rhs : array of shape (n_voxels, n)

        Returns
        -------
        array of shape (n_voxels, n), float32
            Residuals are below 1e-4 of the right side's length.
        """
        diagonal = np.asarray(diagonal, np.float32)
        scale = 1 / (1 + diagonal)
        residual = np.array(rhs, np.float32)
        x = np.zeros_like(residual)
        z = scale * residual
        direction = z.copy()
        wanted = _TOLERANCE**2 * _dots(residual, residual)
        old = _dots(residual, z)
        for _ in range(_MAX_ITERATIONS):
            if (_dots(residual, residual) <= wanted).all():
                break
            image = self @ direction
            image += diagonal * direction
            step = _ratio(old, _dots(direction, image))
            x += step * direction
            residual -= step * image
            np.multiply(scale, residual, out=z)
            new = _dots(residual, z)
            direction *= _ratio(new, old)
            direction += z
            old = new
        return x


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", a, b)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b; 0 where b is 0, which is where a column is solved."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def estimate(
    noise: np.ndarray, size: np.ndarray, places: np.ndarray | None = None
) -> NoiseCorrelation:
    """Estimate the correlations from rows of noise whose shares of the variance are known.

    Parameters
    ----------
    noise : array of shape (n_rows, n_voxels), float32
        Rows that are independent and have unit variance.
    size : array of shape (n_rows, n_voxels), float32, above 0 up to 1
        Standard deviation of the part of ``noise`` that is correlated between voxels.
    places : array of shape (n_voxels, n_axes), optional
        Where each voxel is, in any unit. Default: not known.

    Returns
    -------
    NoiseCorrelation

    Notes
    -----
    Holds 8 n_rows^2 bytes, blocks of 16 MiB, and 24 bytes for each pair that is kept.
    """
    from scipy import sparse

    loadings = _components(noise, size)
    own = 1 - np.einsum("ij,ij->i", loadings, loadings)
    if places is None:
        pairs = _standing_out(noise, size, loadings)
    else:
        pairs = _neighbours(noise, size, loadings, places)
    rows, columns, values = pairs
    pairs = sparse.csr_array((values, (rows, columns)), shape=(noise.shape[1],) * 2)
    return NoiseCorrelation(loadings, _positive(pairs, own))


def _standing_out(noise, size, loadings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and correlations of pairs far above their standard error."""
    n, n_voxels = noise.shape
    step = max(1, _BLOCK // n_voxels)
    found = []
    for start in range(0, n_voxels, step):
        part = slice(start, min(start + step, n_voxels))
        weight = size[:, part].T @ size
        r = noise[:, part].T @ noise
        r /= weight
        r -= loadings[part] @ loadings.T
        # The standard error of an estimate that divides by `weight` rather than by n.
        limit = THRESHOLD * np.float32(np.sqrt(n)) / weight
        row, column = np.nonzero(np.abs(r) > limit)
        away = row + start != column
        row, column = row[away], column[away]
        value, bound = r[row, column], limit[row, column]
        found.append((row + start, column, value * (1 - np.square(bound / value))))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _neighbours(noise, size, loadings, places) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and correlations of pairs that are near each other.

    Pairs at one distance are taken to have correlations about one mean; how much they differ beyond
    their standard errors says how far each is shrunk towards it.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(places)
    spacing = np.median(tree.query(places, k=2)[0][:, 1])
    first, second = tree.query_pairs(REACH * spacing * 1.001, output_type="ndarray").T
    n = len(noise)
    columns, sizes = np.ascontiguousarray(noise.T), np.ascontiguousarray(size.T)
    r, weight = np.empty(len(first), np.float32), np.empty(len(first), np.float32)
    step = max(1, _BLOCK // (4 * n))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        i, j = first[part], second[part]
        weight[part] = np.einsum("ij,ij->i", sizes[i], sizes[j])
        r[part] = np.einsum("ij,ij->i", columns[i], columns[j]) / weight[part]
        r[part] -= np.einsum("ij,ij->i", loadings[i], loadings[j])
    distance = np.linalg.norm(places[first] - places[second], axis=1)
    bins = np.round(4 * distance / spacing).astype(int)
    count = np.maximum(np.bincount(bins), 1)
    mean = np.bincount(bins, r) / count
    error = n / np.square(weight)
    spread = np.bincount(bins, np.square(r - mean[bins])) / count
    real = np.maximum(spread - np.bincount(bins, error) / count, 0)
    r = mean[bins] + (r - mean[bins]) * real[bins] / (real[bins] + error)
    both = np.r_[first, second], np.r_[second, first]
    return *both, np.r_[r, r].astype(np.float32)


def _components(noise: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the loadings of components that stand out of what independent voxels give.

    Eigenvalues and vectors of a sample of n rows of p voxels are off by an amount that depends on
    p / n alone (Paul 2007, theorems 1 and 4), which is taken back.
    """
    n, n_voxels = noise.shape
    gamma = n_voxels / n
    eigenvalues, u = eigh((noise @ noise.T).astype(np.float64) / n)
    eigenvalues, u = eigenvalues[::-1], u[:, ::-1]
    # As many as come before the largest relative step (Ahn and Horenstein 2013).
    candidates = min(MAX_COMPONENTS, n // 2, np.count_nonzero(eigenvalues > _edge(gamma)))
    if not candidates:
        return np.zeros((n_voxels, 0), np.float32)
    number = 1 + int(np.argmax(eigenvalues[:candidates] / eigenvalues[1 : candidates + 1]))
    eigenvalues, u = eigenvalues[:number], u[:, :number]
    middle = eigenvalues + 1 - gamma
    true = (middle + np.sqrt(np.maximum(middle**2 - 4 * eigenvalues, 0))) / 2 - 1
    true = np.maximum(true, np.sqrt(gamma))
    cosine = (1 - gamma / true**2) / (1 + gamma / true)
    vectors = noise.T @ (u / np.sqrt(n * eigenvalues)).astype(np.float32)
    loadings = vectors * np.sqrt(true * np.maximum(cosine, 0)).astype(np.float32)
    loadings /= np.sqrt((size * size).mean(axis=0))[:, None]
    # No voxel is taken to have next to no noise of its own.
    length = np.einsum("ij,ij->i", loadings, loadings)
    loadings *= np.sqrt(np.minimum(1, (1 - _MIN_OWN) / np.maximum(length, 1e-30)))[:, None]
    return loadings[:, cosine > 0].astype(np.float32)


def _edge(gamma: float) -> float:
    """Return the largest eigenvalue of independent voxels (Marchenko and Pastur 1967)."""
    return (1 + np.sqrt(gamma)) ** 2


def _positive(pairs: csr_array, own: np.ndarray) -> csr_array:
    """Return ``pairs`` with ``own`` on the diagonal, shrunk until it is positive definite."""
    from scipy import sparse
    from scipy.sparse.linalg import eigsh

    root = np.sqrt(own)
    if not pairs.nnz:
        return sparse.diags_array(own.astype(np.float32)).tocsr()
    scaled = sparse.diags_array(1 / root) @ pairs @ sparse.diags_array(1 / root)
    start = np.ones(len(own)) / np.sqrt(len(own))
    start[::2] *= -1
    if len(own) > 2:
        lowest = eigsh(
            scaled.astype(np.float64), k=1, which="SA", v0=start, tol=1e-2,
            return_eigenvectors=False,
        )[0]  # fmt: skip
    else:
        lowest = np.linalg.eigvalsh(scaled.toarray())[0]
    factor = min(1.0, (_MIN_EIGENVALUE - 1) / lowest) if lowest < 0 else 1.0
    return (pairs * np.float32(factor) + sparse.diags_array(own.astype(np.float32))).tocsr()
