"""Decoders made of others, by how well each predicts left-out training trials."""

from __future__ import annotations

import logging

import numpy as np

from hyper_bids.decode.bayes import fit_bayes
from hyper_bids.decode.decoder import Decoder, check_training, predict
from hyper_bids.decode.ridge import checked_folds, decompose, fit_ridge
from hyper_bids.threads import on_one_thread

LOG = logging.getLogger("hyper_bids")

# Fractions of the voxels, those of highest rank, that are tried beside all of them.
FRACTIONS = (0.125, 0.25, 0.5)
# Folds where none are given and a decoder has to be fitted again without each.
N_FOLDS = 5
# Of more folds than that, some are left out together: a fit of the model takes seconds.
MOST_FITS = 10


def fit_averaged(
    betas: np.ndarray,
    latents: np.ndarray,
    rng: np.random.Generator,
    folds: np.ndarray | None = None,
    rank: np.ndarray | None = None,
) -> Decoder:
    """Fit a weighted sum of ridge decoders: of several numbers of voxels, and a penalty a latent.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Not used.
    folds : int array of shape (n_trials,), optional
        As of :func:`fit_ridge`.
    rank : array of shape (n_voxels,), optional
        By what voxels are chosen, higher first: their mean z over training trials. Default: none is
        left out.

    Returns
    -------
    Decoder
        ``report``: ``members`` (name to weight), ``left_out_r2`` of the sum, ``n_trials``.

    Raises
    ------
    ValueError
        As of :func:`fit_ridge`, or if there is not a rank for each voxel.

    Notes
    -----
    Weights are not negative, and the same for all latents: those with the smallest squared error of
    the sum on left-out trials (stacked regressions, Breiman 1996). The left-out predictions are
    those of the penalty that was chosen with the same trials.
    """
    betas, latents = check_training(betas, latents)
    members, guesses = [], []
    for name, used, per_target in _members(betas.shape[1], rank):
        options = {"folds": folds, "per_target": per_target}
        member = fit_ridge(betas[:, used], latents, rng, **options)
        alpha = np.atleast_1d(member.report["alpha"])
        guesses.append(left_out(betas[:, used], latents, alpha, folds))
        members.append((name, used, member))
    mean = latents.mean(axis=0, dtype=np.float64)
    weights = stacked(guesses, latents, mean)
    sum_weights = np.zeros((betas.shape[1], latents.shape[1]), np.float32)
    for weight, (_, used, member) in zip(weights, members, strict=True):
        sum_weights[used] += np.float32(weight) * member.weights
    x_mean = betas.mean(axis=0, dtype=np.float64)
    guess = sum(w * (g - mean) for w, g in zip(weights, guesses, strict=True)) + mean
    report = {
        "members": {name: float(w) for w, (name, *_) in zip(weights, members, strict=True)},
        "left_out_r2": r2(guess, latents),
        "n_trials": len(betas),
    }
    intercept = mean - x_mean @ sum_weights
    return Decoder("averaged", sum_weights, intercept.astype(np.float32), report)


def _members(n_voxels: int, rank: np.ndarray | None) -> list[tuple[str, np.ndarray, bool]]:
    """Return name, voxels and whether each latent has a penalty of its own."""
    every = np.arange(n_voxels)
    members = [("all voxels", every, False), ("all voxels, penalty a latent", every, True)]
    if rank is None:
        return members
    rank = np.asarray(rank)
    if rank.shape != (n_voxels,):
        raise ValueError(f"ranks of shape {rank.shape} for {n_voxels} voxels")
    order = np.argsort(-rank, kind="stable")
    for fraction in FRACTIONS:
        number = round(fraction * n_voxels)
        if number:
            members.append((f"{number} voxels", np.sort(order[:number]), False))
    return members


@on_one_thread
def left_out(
    betas: np.ndarray, latents: np.ndarray, alpha: np.ndarray, folds: np.ndarray | None
) -> np.ndarray:
    """Return what ridge predicts for each trial when fitted without it, or without its fold.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    alpha : array of shape (n_latents,) or (1,)
        Penalty of each latent, or of all.
    folds : int array of shape (n_trials,), or None to leave out one trial at a time

    Returns
    -------
    array of shape (n_trials, n_latents), float64
    """
    n = len(betas)
    spectrum = decompose(betas, betas.mean(axis=0, dtype=np.float64))
    folds = checked_folds(folds, n)
    folds = np.arange(n) if folds is None else folds
    u, s = spectrum.u, spectrum.s
    Y = latents - latents.mean(axis=0, dtype=np.float64)
    alpha = np.broadcast_to(alpha, Y.shape[1])
    # No matrix of trials by trials: there may be far more of them than voxels.
    inner = u.T @ Y
    rest = 0 if spectrum.complete else Y - u @ inner
    guess = np.array(latents, np.float64)
    for value in np.unique(alpha):
        own = np.flatnonzero(alpha == value)
        shrunk = value / (s + value)
        residual = (u * shrunk) @ inner[:, own]
        if not spectrum.complete:
            residual += rest[:, own]
        for fold in range(int(folds.max()) + 1):
            inside = np.flatnonzero(folds == fold)
            part = u[inside]
            missed = (part * shrunk) @ part.T
            if not spectrum.complete:
                missed += np.eye(len(inside)) - 1 / n - part @ part.T
            guess[np.ix_(inside, own)] -= np.linalg.solve(missed, residual[inside])
    return guess


def stacked(guesses: list[np.ndarray], latents: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the weights, not negative, of the sum of guesses that is nearest to the latents.

    Parameters
    ----------
    guesses : list of arrays of shape (n_trials, n_latents)
    latents : array of shape (n_trials, n_latents)
    mean : array of shape (n_latents,)
        Taken off the guesses and the latents.
    """
    from scipy.optimize import nnls

    flat = np.stack([(g - mean).ravel() for g in guesses])
    gram, product = flat @ flat.T, flat @ (latents - mean).ravel()
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-10 * max(values[-1], np.finfo(float).tiny)
    root, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if not kept.any():
        return np.full(len(guesses), 1 / len(guesses))
    # The same least squares problem in as many equations as there are guesses.
    return nnls(root[:, None] * vectors.T, (vectors.T @ product) / root)[0]


def r2(guess: np.ndarray, latents: np.ndarray) -> float:
    """Return the fraction of the latents' variance that is predicted; 0 if there is none."""
    total = np.square(latents - latents.mean(axis=0, dtype=np.float64)).sum()
    return float(1 - np.square(guess - latents).sum() / total) if total > 0 else 0.0


def fit_best(
    betas: np.ndarray,
    latents: np.ndarray,
    rng: np.random.Generator,
    folds: np.ndarray | None = None,
    rank: np.ndarray | None = None,
    places: np.ndarray | None = None,
    n_repeats: float = 1,
) -> Decoder:
    """Fit ``averaged`` or ``bayes``, whichever predicts left-out training trials better.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Draws five folds to judge both by, if none are given.
    folds, rank
        As of :func:`fit_averaged`.
    places, n_repeats
        As of :func:`fit_bayes`.

    Returns
    -------
    Decoder
        ``report``: what the chosen one reports, ``chosen``, and ``left_out`` (name to the fraction
        of latent variance predicted in left-out trials).

    Raises
    ------
    ValueError
        As of the two.

    Notes
    -----
    Both are judged on the same folds: of more than ten, some are left out together. Left-out trials
    are single responses; what ``bayes`` gains on means of repeats has no say.
    """
    betas, latents = check_training(betas, latents)
    drawn = rng.permutation(len(betas)) % min(N_FOLDS, len(betas)) if folds is None else folds
    labels = checked_folds(drawn, len(betas)) % MOST_FITS
    guess = np.empty(latents.shape)
    for fold in range(int(labels.max()) + 1):
        inside = labels == fold
        if (~inside).sum() < 2:
            raise ValueError(f"fold {fold} leaves {(~inside).sum()} trials; at least 2 are wanted")
        part = fit_bayes(betas[~inside], latents[~inside], rng, places=places)
        guess[inside] = predict(part, betas[inside])
    averaged = fit_averaged(betas, latents, rng, labels, rank)
    scores = {"averaged": averaged.report["left_out_r2"], "bayes": r2(guess, latents)}
    chosen = max(scores, key=scores.get)
    LOG.info("Decoder best: %s predicts left-out training trials best.", chosen)
    if chosen == "bayes":
        found = fit_bayes(betas, latents, rng, n_repeats, places)
    else:
        found = fit_averaged(betas, latents, rng, folds, rank)
    report = {**found.report, "chosen": chosen, "left_out": scores}
    return Decoder("best", found.weights, found.intercept, report, found.averaged)
