"""Ridge refitted to shuffled training pairs: what scores are worth without a relation to learn.

Shuffling gives the latents Y to other trials and leaves the responses alone, so that everything
that depends on the responses is computed once. Left-out trials are missed by M_a Y, with a matrix
M_a for each penalty a (see :mod:`hyper_bids.decode.ridge`), and their squared errors, summed over
trials and latents, are

    |M_a Y[rows]|^2 = sum over i, j of (M_a'M_a)_ij (YY')_rows(i),rows(j)

which needs no product with the latents. Test responses are predicted by S_a Y[rows], S_a a matrix
with a row for each test response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hyper_bids.decode.decoder import check_training
from hyper_bids.decode.ridge import Spectrum, checked_alphas, checked_folds, decompose

# Bytes that are held of matrices of n_trials x n_trials, for penalties and for permutations each.
_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Refit:
    """How ridge is fitted to shuffled pairs, and what is shuffled.

    Attributes
    ----------
    alphas, folds
        As of :func:`hyper_bids.decode.ridge.fit_ridge`.
    within : array of shape (n_trials,), optional
        Groups of trials (runs) that keep their latents among themselves. Valid if the order of
        stimuli within each run was random. Default: all trials are one group, which also needs that
        stimuli were given to runs at random.
    stimulus : array of shape (n_trials,), optional
        Stimulus of each trial. Given, the stimuli exchange latents, and trials of one stimulus keep
        equal ones: what is wanted where training stimuli are repeated and folds are made of whole
        stimuli. Not together with ``within``.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    """

    alphas: np.ndarray | None = None
    folds: np.ndarray | None = None
    within: np.ndarray | None = None
    stimulus: np.ndarray | None = None
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class RefitNull:
    """What :func:`refit_null` returns.

    Attributes
    ----------
    scores : array of shape (n_permutations, n_scores), float64
    alpha : array of shape (n_permutations,), float64
        The penalty that was chosen in each permutation.
    """

    scores: np.ndarray
    alpha: np.ndarray


def shuffled_rows(
    n_trials: int,
    n_permutations: int,
    rng: np.random.Generator,
    within: np.ndarray | None = None,
    stimulus: np.ndarray | None = None,
) -> np.ndarray:
    """Return which trial's latents each trial gets.

    Parameters
    ----------
    n_trials, n_permutations : int
    rng : numpy.random.Generator
    within, stimulus : arrays of shape (n_trials,), optional
        As of :class:`Refit`.

    Returns
    -------
    array of shape (n_permutations, n_trials), int
        Uniform over all such shuffles; the identity may be among them.

    Raises
    ------
    ValueError
        For less than one permutation, labels of another length, or both kinds of labels.
    """
    if n_permutations < 1:
        raise ValueError(f"{n_permutations} permutations; at least 1 is wanted")
    if within is not None and stimulus is not None:
        raise ValueError("both groups and stimuli are given; shuffle within groups or by stimulus")
    given = within if stimulus is None else stimulus
    labels = np.zeros(n_trials, int) if given is None else np.asarray(given)
    if labels.shape != (n_trials,):
        raise ValueError(f"labels of shape {labels.shape} for {n_trials} trials")
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    if stimulus is not None:
        order = np.tile(np.arange(len(first)), (n_permutations, 1))
        return first[rng.permuted(order, axis=1)][:, index]
    rows = np.tile(np.arange(n_trials), (n_permutations, 1))
    for label in range(len(first)):
        group = index == label
        rows[:, group] = rng.permuted(rows[:, group], axis=1)
    return rows


def refit_null(
    betas: np.ndarray,
    latents: np.ndarray,
    test: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    n_permutations: int = 1000,
    refit: Refit | None = None,
) -> RefitNull:
    """Return scores of ridge fitted to shuffled training pairs, each with a penalty of its own.

    Every permutation has the predictions that ``fit_ridge`` of the shuffled latents has: the
    penalty is chosen again, by the same folds. One penalty for all latents.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Of training trials.
    latents : array of shape (n_trials, n_latents)
    test : array of shape (n_test, n_voxels)
        Responses to predict from; as they are, for they are not shuffled.
    statistic : callable
        From predictions (n_test, n_latents), float32, to n_scores numbers. Of the true predictions
        it gives what the null is compared with: p = (b + 1) / (n + 1)
        (:func:`hyper_bids.stats.p_value`).
    rng : numpy.random.Generator
    n_permutations : int
    refit : Refit, optional

    Returns
    -------
    RefitNull

    Raises
    ------
    ValueError
        For what ``fit_ridge`` and :func:`shuffled_rows` refuse, or test responses of another number
        of voxels.

    Notes
    -----
    If responses tell nothing of the latents, trials are exchangeable: the true pairing is one of
    the shuffled ones, and p is at most a with probability a (Phipson and Smyth 2010). Predictions
    are held for one permutation at a time. In float64; about 64 n_trials^2 + 8 n_alphas n_test
    n_trials bytes and up to 512 MiB beside the data.
    """
    refit = refit or Refit()
    betas, latents = check_training(betas, latents)
    test = np.asarray(test)
    if test.ndim != 2 or test.shape[1] != betas.shape[1]:
        raise ValueError(f"test responses of shape {test.shape} for {betas.shape[1]} voxels")
    folds = checked_folds(refit.folds, len(betas))
    rows = shuffled_rows(len(betas), n_permutations, rng, refit.within, refit.stimulus)
    mean = betas.mean(axis=0, dtype=np.float64)
    spectrum = decompose(betas, mean)
    alphas = checked_alphas(refit.alphas, spectrum.mean_eigenvalue)
    smoothers = _smoothers(spectrum, betas, mean, test, alphas)
    chosen, predictions = _refitted(spectrum, smoothers, latents, rows, alphas, folds, refit.device)
    scores = [np.atleast_1d(statistic(predicted)) for predicted in predictions]
    return RefitNull(np.array(scores, np.float64), alphas[chosen])


def _refitted(
    spectrum: Spectrum, smoothers: np.ndarray, latents: np.ndarray, rows: np.ndarray,
    alphas: np.ndarray, folds: np.ndarray | None, device: str,
) -> tuple[np.ndarray, Iterator[np.ndarray]]:  # fmt: skip
    """Return the place of each permutation's penalty, and its predictions one after the other."""
    import torch

    rows, Y, u, s, smoothers = (
        torch.as_tensor(a, device=device)
        for a in (rows, latents.astype(np.float64), spectrum.u, spectrum.s, smoothers)
    )
    # The mean is taken off for the sake of digits: it is no part of the errors.
    Y_mean = Y.mean(dim=0)
    Y -= Y_mean
    chosen = _errors(u, s, spectrum.complete, alphas, folds, rows, Y).argmin(dim=0)
    predictions = (
        (smoothers[k] @ Y[order] + Y_mean).cpu().numpy().astype(np.float32)
        for k, order in zip(chosen.tolist(), rows, strict=True)
    )
    return chosen.cpu().numpy(), predictions


def _errors(u, s, complete: bool, alphas: np.ndarray, folds, rows, Y):
    """Return squared errors on left-out trials, of shape (n_alphas, n_permutations)."""
    import torch

    n = len(u)
    gram = Y @ Y.T
    at_once = max(1, _BYTES // (8 * n * n))
    errors = torch.empty((len(alphas), len(rows)), dtype=torch.float64, device=u.device)
    for start in range(0, len(alphas), at_once):
        part = slice(start, start + at_once)
        forms = torch.stack([_form(u, s, complete, a, folds) for a in alphas[part]])
        forms = forms.reshape(len(forms), n * n)
        for first in range(0, len(rows), min(at_once, 8)):
            order = rows[first : first + min(at_once, 8)]
            shuffled = gram[order[:, :, None], order[:, None, :]].reshape(len(order), n * n)
            errors[part, first : first + len(order)] = forms @ shuffled.T
    return errors


def _form(u, s, complete: bool, alpha: float, folds):
    """Return M'M, of shape (n_trials, n_trials): M Y is how much left-out trials are missed by."""
    import torch

    n = len(u)
    missed = (u * (alpha / (s + alpha))) @ u.T
    if not complete:
        missed += torch.eye(n, dtype=u.dtype, device=u.device) - 1 / n - u @ u.T
    if folds is None:
        missed /= missed.diagonal().clone()[:, None]
    else:
        for fold in range(int(folds.max()) + 1):
            inside = torch.as_tensor(np.flatnonzero(folds == fold), device=u.device)
            own = missed[inside]
            missed[inside] = torch.linalg.solve(own[:, inside], own)
    return missed.T @ missed


def _smoothers(
    spectrum: Spectrum, betas: np.ndarray, mean: np.ndarray, test: np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """Return, for each penalty, what predictions take of each trial's latents.

    Returns
    -------
    array of shape (n_alphas, n_test, n_trials), float64
        The mean of the latents is part of it.
    """
    n = len(betas)
    identity = np.eye(spectrum.u.shape[1])
    loadings = (test - mean) @ spectrum.weights(betas, mean, identity)
    return np.stack([(loadings / (spectrum.s + a)) @ spectrum.u.T + 1 / n for a in alphas])
