"""A common space of participants, and the linear map of each participant's voxels into it.

Let X = U S V' (n_stimuli x n_voxels) be a participant's centred responses to the shared training
stimuli, C = X'X / n_stimuli, and c the mean of the eigenvalues of C that are not 0. Ridge-whitened
responses are

    Y = X A,  A = ((1 - a) C + a c I)^-1/2.

a = 1 scales all voxels alike; a smaller a brings the participant's strong and weak dimensions
closer to each other (regularised hyperalignment, Xu et al. 2012, IEEE Statistical Signal Processing
Workshop, 229-232: from hyperalignment at a = 1 towards canonical correlation at 0). The map is the
orthogonal Procrustes solution onto the template G (n_stimuli x k): the R with R'R = I that
maximises tr(R'Y'G) (Schoenemann 1966, Psychometrika 31:1-10). The participant's responses in the
common space are Y R = X A R.

``ridge-procrustes``: G is the closed form of what hyperalignment iterates for (Haxby et al. 2011,
Neuron 72:404-416): the best rank-k approximation of all participants' Y, side by side; that is, the
first k eigenvectors of the mean of YY', times the roots of their eigenvalues.

``srm``: the deterministic shared response model (Chen et al. 2015, NIPS 28:460-468), a = 1: from
the same start, G is the mean of all Y R and the R are Procrustes solutions in turn, each step
lowering the sum of |Y - G R'|^2.

All of it works on matrices of stimuli by stimuli, whatever the number of voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hyper_bids.threads import eigh

LOG = logging.getLogger("hyper_bids")

METHODS = ("ridge-procrustes", "srm")

# Shared stimuli; with one of them left out, two still have a direction.
_FEWEST = 3

# Eigenvalues of YY' below this fraction of the largest are rounding of float32 responses.
_RANK = 1e-6


@dataclass(frozen=True)
class AlignmentSettings:
    """How the common space is made.

    Attributes
    ----------
    method : {"ridge-procrustes", "srm"}
    n_components : int
        Dimensions of the common space, at most; 0: half the shared stimuli.
    ridge : float, above 0 to 1
        The a of the module's text, of ``ridge-procrustes``.
    n_iterations : int
        Most steps of ``srm``.
    tolerance : float
        ``srm`` ends where a step lowers the error by less than this fraction of it.
    """

    method: str = "ridge-procrustes"
    n_components: int = 0
    ridge: float = 0.5
    n_iterations: int = 30
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}; {' and '.join(METHODS)} are known")
        if not 0 < self.ridge <= 1:
            raise ValueError(f"ridge {self.ridge}; a number above 0, to 1, is wanted")
        if self.n_components < 0 or self.n_iterations < 1:
            raise ValueError(
                f"{self.n_components} components and {self.n_iterations} iterations; 0 or more "
                f"and 1 or more are wanted"
            )

    @property
    def whitening(self) -> float:
        """The a that is used: the shared response model does not whiten."""
        return self.ridge if self.method == "ridge-procrustes" else 1.0


@dataclass(frozen=True, eq=False)
class Template:
    """What participants have in common: one row a shared stimulus.

    Attributes
    ----------
    values : array of shape (n_stimuli, n_components), float64
    settings : AlignmentSettings
    report : dict
        ``n_participants``; of ``srm`` also ``error``, the sum of |Y - G R'|^2 after each step.
    """

    values: np.ndarray
    settings: AlignmentSettings
    report: dict = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class VoxelMap:
    """A participant's linear map into the common space: ``(betas - mean) @ weights``.

    Attributes
    ----------
    mean : array of shape (n_voxels,), float32
        Mean of the responses that it was fitted to.
    weights : array of shape (n_voxels, n_components), float32
    """

    mean: np.ndarray
    weights: np.ndarray


def fit_template(
    load: Callable[[int], np.ndarray],
    participants: list[int],
    settings: AlignmentSettings,
    scratch: np.ndarray | None = None,
) -> Template:
    """Return the template of some participants.

    Parameters
    ----------
    load : callable
        ``load(i)`` gives participant i's responses to the shared training stimuli, of shape
        (n_stimuli, n_voxels of i), standardised; rows are the same stimuli for all. It is called
        once for each, and one participant is held at a time.
    participants : list of int
        Those that make the template, at least 2.
    settings : AlignmentSettings
    scratch : float32 array of shape (n_participants or more, n_stimuli, n_stimuli), optional
        Where ``srm`` keeps its matrices, such as a memory map; in memory if not given.

    Returns
    -------
    Template

    Raises
    ------
    ValueError
        For fewer than two participants, numbers of stimuli that differ, fewer than three stimuli,
        responses without variance or not finite.

    Notes
    -----
    Memory beside one participant's responses: 40 n_stimuli^2 bytes; ``srm`` without ``scratch``
    also 4 n_participants n_stimuli^2. Time: an eigendecomposition of n_stimuli for each
    participant, and of ``srm`` one of n_components for each participant and step.
    """
    if len(participants) < 2:
        raise ValueError(f"{len(participants)} participants; at least 2 are wanted")
    mean = grams = None
    for place, i in enumerate(participants):
        Y = _whitened(load(i), settings.whitening, f"participant {i}").rows
        if mean is None:
            mean = np.zeros((len(Y), len(Y)))
            if settings.method == "srm":
                shape = (len(participants), *mean.shape)
                grams = np.empty(shape, np.float32) if scratch is None else scratch[: shape[0]]
        if len(Y) != len(mean):
            raise ValueError(
                f"participant {i} has {len(Y)} shared stimuli, participant {participants[0]} has "
                f"{len(mean)}"
            )
        gram = Y @ Y.T
        mean += gram / len(participants)
        if grams is not None:
            grams[place] = gram
    G = _first_components(mean, settings.n_components or len(mean) // 2)
    report = {"n_participants": len(participants)}
    if grams is not None:
        G, report["error"] = _shared_response(grams, G, settings)
    return Template(G, settings, report)


def _first_components(gram: np.ndarray, most: int) -> np.ndarray:
    values, vectors = eigh(gram)
    k = min(most, int((values > _RANK * values[-1]).sum()))
    return vectors[:, ::-1][:, :k] * np.sqrt(values[::-1][:k])


def _shared_response(grams, G: np.ndarray, settings: AlignmentSettings):
    """Alternate between Procrustes solutions and their mean; return it and the errors.

    With K = YY', Y R of the Procrustes solution R = Y'G (G'KG)^-1/2 is K G (G'KG)^-1/2.
    """
    errors = []
    for _ in range(settings.n_iterations):
        new, error = np.zeros_like(G), 0.0
        for K in grams:
            KG = K @ G
            values, vectors = eigh(G.T @ KG)
            kept = values > _RANK * max(values[-1], 0)
            size = np.sqrt(values[kept])
            new += KG @ ((vectors[:, kept] / size) @ vectors[:, kept].T) / len(grams)
            # |Y - G R'|^2 = |Y|^2 + |G|^2 - 2 tr(R'Y'G), and the trace is that of (G'KG)^1/2.
            error += float(np.trace(K) + (G * G).sum() - 2 * size.sum())
        errors.append(error)
        G = new
        if len(errors) > 1 and errors[-2] - error <= settings.tolerance * errors[-2]:
            break
    else:
        LOG.info("The shared response model took all %d iterations.", settings.n_iterations)
    return G, errors


def fit_map(betas: np.ndarray, template: Template, rows: np.ndarray | None = None) -> VoxelMap:
    """Return a participant's map into the common space; it need not be one of the template's.

    Parameters
    ----------
    betas : array of shape (n_stimuli, n_voxels)
        Responses to the shared training stimuli, standardised.
    template : Template
    rows : int array, optional
        Fit to these stimuli only.

    Returns
    -------
    VoxelMap

    Raises
    ------
    ValueError
        If the number of stimuli is not the template's, or responses do not vary or are not finite.
    """
    if len(betas) != len(template.values):
        raise ValueError(f"{len(betas)} stimuli for a template of {len(template.values)}")
    if len(betas) < _FEWEST:
        raise ValueError(f"{len(betas)} shared stimuli; at least {_FEWEST} are wanted")
    rows = np.arange(len(betas)) if rows is None else rows
    G = template.values[rows]
    held = _whitened(betas[rows], template.settings.whitening, "the participant", least=2)
    # In the basis V of the voxels, Y'G is (size U)'G.
    u, values, v = np.linalg.svd(held.rows.T @ (G - G.mean(axis=0)), full_matrices=False)
    kept = values > _RANK * values[0]
    weights = held.basis @ (held.scale[:, None] * (u[:, kept] @ v[kept]))
    return VoxelMap(held.mean.astype(np.float32), weights.astype(np.float32))


def transform(betas: np.ndarray, voxel_map: VoxelMap) -> np.ndarray:
    """Return responses in the common space.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Any trials of the participant, standardised as those that the map was fitted to.
    voxel_map : VoxelMap

    Returns
    -------
    array of shape (n_trials, n_components), float32
    """
    betas = np.asarray(betas, np.float32)
    if betas.ndim != 2 or betas.shape[1] != len(voxel_map.mean):
        raise ValueError(f"betas of shape {betas.shape} for a map of {len(voxel_map.mean)} voxels")
    return (betas - voxel_map.mean) @ voxel_map.weights


def crossfitted(betas: np.ndarray, template: Template, n_folds: int = 5) -> np.ndarray:
    """Return training responses in the common space, each by a map that has not seen its stimulus.

    With more voxels than stimuli a map can bring any noise close to the template. A decoder that
    is trained on that expects less noise than there is in new trials. So the map of a stimulus is
    fitted to the others, onto the same template.

    Parameters
    ----------
    betas : array of shape (n_stimuli, n_voxels)
        Responses to the shared training stimuli, standardised.
    template : Template
    n_folds : int
        Parts of the stimuli, at least 2, and no more than stimuli; stimulus j is in part j modulo
        ``n_folds``.

    Returns
    -------
    array of shape (n_stimuli, n_components), float32
    """
    n_folds = min(n_folds, len(betas))
    part = np.arange(len(betas)) % n_folds
    result = np.empty((len(betas), template.values.shape[1]), np.float32)
    for k in range(n_folds):
        own = fit_map(betas, template, np.flatnonzero(part != k))
        result[part == k] = transform(betas[part == k], own)
    return result


@dataclass(frozen=True, eq=False)
class _Whitened:
    """Y in the basis V of the voxels (rows), and what takes X - mean there: basis * scale."""

    mean: np.ndarray
    rows: np.ndarray
    basis: np.ndarray
    scale: np.ndarray


def _whitened(betas: np.ndarray, a: float, whose: str, least: int = _FEWEST) -> _Whitened:
    betas = np.asarray(betas)
    if betas.ndim != 2 or len(betas) < least or not betas.shape[1]:
        raise ValueError(
            f"{whose}: responses of shape {betas.shape}; (n_stimuli, n_voxels) with at least "
            f"{least} shared stimuli is wanted"
        )
    X = betas.astype(np.float64)
    mean = X.mean(axis=0)
    X -= mean
    if not np.isfinite(mean).all() or not np.ptp(X) > 0:
        raise ValueError(f"{whose}: responses to shared stimuli do not vary, or are not finite")
    if len(X) <= X.shape[1]:
        values, u = eigh(X @ X.T)
        kept = values > _RANK * values[-1]
        values, u = values[kept], u[:, kept]
        basis = X.T @ (u / np.sqrt(values))
    else:
        values, basis = eigh(X.T @ X)
        kept = values > _RANK * values[-1]
        values, basis = values[kept], basis[:, kept]
        u = X @ (basis / np.sqrt(values))
    scale = np.sqrt(len(X) / ((1 - a) * values + a * values.mean()))
    return _Whitened(mean, u * (np.sqrt(values) * scale), basis, scale)
