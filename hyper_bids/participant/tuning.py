"""The model of the BOLD, chosen by what training trials alone say."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from hyper_bids import voxels
from hyper_bids.config import BetaSettings
from hyper_bids.errors import InputError
from hyper_bids.glm import evidence, noise
from hyper_bids.glm.betas import check_design
from hyper_bids.glm.encoding import Fold, encoding_folds, encoding_score
from hyper_bids.glm.shrinkage import estimate_shrunken
from hyper_bids.participant.model import Chosen, Model, described
from hyper_bids.participant.recording import Recording, responding_and_quiet
from hyper_bids.participant.runs import Regressors

LOG = logging.getLogger("hyper_bids")

# A higher order for each so many seconds of a run (as AFNI's 3dDeconvolve), from 3 up.
_SECONDS_AN_ORDER = 150
_MOST_ORDER = 6
N_COMPONENTS = (0, 1, 2, 3, 4, 5, 6, 8, 10)
# Of the largest gain by components: the smallest number that has it is taken.
_ENOUGH = 0.95
# Of the quiet voxels, one in so many tells the autocorrelation.
_EVERY = 4
# A response function is sought with drift terms of so many orders more: what slow noise is left
# looks like slow responses.
_EXTRA_ORDERS = 2
# Ratio of response to noise that stands for no shrinkage where each voxel has its own function: a
# trial late in a run, of which slow responses show next to nothing, then has the mean response.
_UNSHRUNKEN = 1e3


@dataclass(frozen=True, eq=False)
class _Data:
    """What models are compared on: the training runs' signal in two sets of voxels.

    ``everywhere`` has the designs of all runs: a model must leave room for noise in each.
    """

    everywhere: list[Regressors]
    runs: list[np.ndarray]
    quiet: list[np.ndarray]
    regressors: list[Regressors]
    run_of_trial: np.ndarray
    folds: list[Fold]
    known: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def components(self, model: Model) -> list[np.ndarray]:
        """Return each training run's noise components; those of a drift order are found once."""
        order, most = model.drift_order, max(model.n_components, N_COMPONENTS[-1])
        if not model.n_components:
            return [np.zeros((part.n_volumes, 0)) for part in self.regressors]
        if order not in self.known or self.known[order][0].shape[1] < model.n_components:
            whole = replace(model, n_components=most)
            self.known[order] = [
                noise_components(whole, part, quiet)
                for part, quiet in zip(self.regressors, self.quiet, strict=True)
            ]
        return [courses[:, : model.n_components] for courses in self.known[order]]


def choose_model(
    recording: Recording, regressors: list[Regressors], latents: np.ndarray, t_r: list[float],
    settings: BetaSettings, names: list[str],
) -> Chosen:  # fmt: skip
    """Choose drift, noise model, noise components, response functions and shrinkage, in this order.

    Each step keeps what the steps before it chose, and takes the variant whose betas the stimuli
    predict best in training runs that were left out (:func:`encoding_score`). What the user fixed
    is not varied. Neither the signal of test runs nor the labels of test trials are seen.

    Parameters
    ----------
    recording : Recording
    regressors : list of Regressors
        Of all runs.
    latents : array of shape (n_train, n_latents)
        Of the training trials, run by run.
    t_r : list of float, seconds
    settings : BetaSettings
    names : list of str
        Names of the response functions.

    Returns
    -------
    Chosen

    Raises
    ------
    InputError
        If a run has no volume left to tell the noise by.
    """
    training = [k for k, part in enumerate(regressors) if part.is_train.any()]
    responding, quiet = responding_and_quiet(recording)
    data = _compared_on(recording, regressors, training, (responding, quiet), latents)
    optimised = settings.estimator == "optimised"
    first = Model(
        drift_order=0,
        noise_model="ols",
        n_components=0,
        hrf=names[0],
        shrinkage=optimised and settings.shrinkage == "auto",
    )
    table: list[dict] = []
    longest = max(recording.lengths[k] * t_r[k] for k in training)
    model = _best(
        "drift and noise", _drifts_and_noises(first, data, settings, longest), data, table
    )
    model = _with_components(model, data, settings, table)
    if len(names) > 1:
        model = _best("response function", [model, replace(model, hrf="library")], data, table)
    if model.shrinkage:
        model = _best("shrinkage", [model, replace(model, shrinkage=False)], data, table)
    model = replace(model, rho=_rho(model, data))
    model, components = _components_of_all(model, recording, regressors, quiet)
    _check_room(model, regressors)
    gammas, share = _population(model, data) if optimised else (np.ones(1), np.ones((1, 1)))
    LOG.info("model of the BOLD: %s", described(model))
    return Chosen(model, table, components, gammas, share)


def _compared_on(
    recording: Recording, regressors: list[Regressors], training: list[int],
    chosen: tuple[np.ndarray, np.ndarray], latents: np.ndarray,
) -> _Data:  # fmt: skip
    own = [regressors[k] for k in training]
    of_trial = np.concatenate([np.full(int(p.is_train.sum()), k) for k, p in enumerate(own)])
    runs, quiet = ([recording.columns(k, some) for k in training] for some in chosen)
    folds = encoding_folds(np.asarray(latents, float), of_trial)
    return _Data(regressors, runs, quiet, own, of_trial, folds)


def _components_of_all(
    model: Model, recording: Recording, regressors: list[Regressors], quiet: np.ndarray
) -> tuple[Model, list[np.ndarray]]:
    """Return every run's noise components, as many as each run has, and the model with them."""
    components = [
        noise_components(model, part, recording.columns(k, quiet))
        for k, part in enumerate(regressors)
    ]
    model = replace(model, n_components=min(courses.shape[1] for courses in components))
    return model, [courses[:, : model.n_components] for courses in components]


def _check_room(model: Model, regressors: list[Regressors]) -> None:
    """Refuse a model that leaves a run, perhaps a short one that only tests, no noise."""
    for part in regressors:
        n_nuisance = part.nuisance(model.drift_order).shape[1] + model.n_components
        if part.n_volumes <= len(part.is_train) + n_nuisance:
            raise InputError(
                f"{part.label}: {len(part.is_train)} trials and {n_nuisance} nuisance regressors "
                f"need more than its {part.n_volumes} volumes. Use fewer confounds or noise "
                f"components, or leave the run out."
            )


def _drifts_and_noises(
    first: Model, data: _Data, settings: BetaSettings, seconds: float
) -> list[Model]:
    if any(part.models_drift for part in data.everywhere):
        orders = [0]
    elif settings.drift_order != "auto":
        orders = [int(settings.drift_order)]
    else:
        most = min(max(3, 1 + int(seconds / _SECONDS_AN_ORDER)), _MOST_ORDER)
        orders = [n for n in range(most + 1) if _estimable(data, n)] or [0]
    kinds = (settings.noise_model,)
    if settings.noise_model == "auto":
        kinds = ("ols", "ar1") if settings.estimator == "optimised" else ("ols",)
    return [
        replace(first, drift_order=order, noise_model=kind) for kind in kinds for order in orders
    ]


def _estimable(data: _Data, order: int) -> bool:
    try:
        for part in data.everywhere:
            check_design(part.trials[0], part.nuisance(order))
    except ValueError:
        return False
    return True


def _with_components(model: Model, data: _Data, settings: BetaSettings, table: list) -> Model:
    if settings.noise_components != "auto":
        return replace(model, n_components=int(settings.noise_components))
    if settings.estimator != "optimised":
        return model
    room = min(
        part.n_volumes - len(part.is_train) - part.nuisance(model.drift_order).shape[1]
        for part in data.everywhere
    )
    most = max(0, min(room // 4, data.quiet[0].shape[1] // 10))
    tried = [replace(model, n_components=n) for n in N_COMPONENTS if n <= most]
    scores = [_score(variant, data) for variant in tried]
    gain = max(scores) - scores[0]
    found = next(k for k, s in enumerate(scores) if s - scores[0] >= _ENOUGH * gain)
    _note(table, "noise components", tried, scores, found)
    return tried[found]


def _best(what: str, tried: list[Model], data: _Data, table: list[dict]) -> Model:
    """Return the variant of the highest score, the first of equal ones."""
    if len(tried) == 1:
        return tried[0]
    scores = [_score(variant, data) for variant in tried]
    found = int(np.argmax(scores))
    _note(table, what, tried, scores, found)
    return tried[found]


def _note(table: list[dict], what: str, tried: list[Model], scores: list, found: int) -> None:
    for k, (variant, score) in enumerate(zip(tried, scores, strict=True)):
        row = asdict(variant)
        del row["rho"]
        table.append({"choice": what, **row, "score": score, "chosen": k == found})


def _rho(model: Model, data: _Data) -> float:
    if model.noise_model != "ar1" or not data.quiet[0].shape[1]:
        return 0.0
    fixed = [
        evidence.orthonormal(part.nuisance(model.drift_order, courses))
        for part, courses in zip(data.regressors, data.components(model), strict=True)
    ]
    some = [quiet[:, ::_EVERY] for quiet in data.quiet]
    return noise.pooled_autocorrelation(some, fixed)


def noise_components(model: Model, part: Regressors, quiet: np.ndarray) -> np.ndarray:
    """Return the noise components of one run (n_volumes, n_components), from its quiet voxels."""
    if not model.n_components:
        return np.zeros((part.n_volumes, 0))
    fixed = evidence.orthonormal(part.nuisance(model.drift_order))
    return noise.components(quiet, fixed, model.n_components)


def evidence_models(
    model: Model, regressors: list[Regressors], components: list[np.ndarray]
) -> list[evidence.RunModel]:
    """Return the training runs' designs for the choice of response functions and shrinkage.

    They have more drift terms than the model that betas are estimated with.
    """
    return training_models(model, regressors, components, _EXTRA_ORDERS)


def training_models(
    model: Model, regressors: list[Regressors], components: list[np.ndarray], extra: int = 0
) -> list[evidence.RunModel]:
    """Return the training runs' designs; test trials of the same run are nuisance in them.

    Parameters
    ----------
    model : Model
    regressors : list of Regressors
    components : list of arrays of shape (n_volumes, n_components)
    extra : int
        Orders of drift beyond the model's.

    Returns
    -------
    list of RunModel
    """
    found = []
    for part, courses in zip(regressors, components, strict=True):
        functions = part.trials if model.hrf == "library" else part.trials[:1]
        order = min(model.drift_order + extra, part.n_volumes // 4)
        found.append(
            evidence.run_model(
                [trials[:, part.is_train] for trials in functions],
                part.nuisance(order, courses),
                model.rho,
                [trials[:, ~part.is_train] for trials in functions],
            )
        )
    return found


def _population(model: Model, data: _Data) -> tuple[np.ndarray, np.ndarray]:
    components = data.components(model)
    models = evidence_models(model, data.regressors, components)
    gammas = evidence.ratios_to_gammas(models)
    white = [noise.whitened(series, model.rho) for series in data.runs]
    found, null = evidence.left_out_evidence(white, models, gammas)
    return gammas, evidence.shares(found, null)


def unshrunken(model: Model, gammas: np.ndarray, n_voxels: int) -> np.ndarray:
    """Return the g (n_voxels,) of a model without shrinkage."""
    if model.hrf != "library":
        return np.full(n_voxels, np.inf)
    return np.full(n_voxels, gammas[0] * _UNSHRUNKEN / evidence.SIGNAL_RATIOS[0])


def _score(model: Model, data: _Data) -> float:
    """Return how well the betas of a model follow what was shown, in left-out training runs."""
    model = replace(model, rho=_rho(model, data))
    components = data.components(model)
    models = training_models(model, data.regressors, components)
    white = [noise.whitened(series, model.rho) for series in data.runs]
    functions = np.zeros(white[0].shape[1], int)
    gammas = np.full(white[0].shape[1], np.inf)
    if model.shrinkage or model.hrf == "library":
        slow = evidence_models(model, data.regressors, components)
        grid = evidence.ratios_to_gammas(slow)
        found, null = evidence.left_out_evidence(white, slow, grid)
        functions, places = evidence.most_likely(found, evidence.shares(found, null))
        gammas = grid[places] if model.shrinkage else unshrunken(model, grid, len(places))
    betas = np.concatenate(
        [
            estimate_shrunken(series, fit, functions, gammas).betas
            for series, fit in zip(white, models, strict=True)
        ]
    )
    trains = np.ones(len(betas), bool)
    return encoding_score(voxels.standardise(betas, data.run_of_trial, trains, "run"), data.folds)
