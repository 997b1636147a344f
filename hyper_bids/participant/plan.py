"""Before any long work: everything that one participant's job will read, found and checked."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import motion, volumes
from hyper_bids.bids import events, inputs
from hyper_bids.bids.confounds import choose_columns
from hyper_bids.bids.dataset import is_import
from hyper_bids.bids.imported import TASK, Imported, runs_known
from hyper_bids.config import BetaSettings, Settings, VoxelSettings
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.glm import betas as glm
from hyper_bids.participant import alignment, fitting, imports, shown
from hyper_bids.participant.features import note_of
from hyper_bids.participant.methods import Method, choose_methods
from hyper_bids.participant.recording import FIRST_ORDER
from hyper_bids.participant.responses import LIBRARIES_MB
from hyper_bids.participant.runs import Regressors, run_jobs, run_regressors

LOG = logging.getLogger("hyper_bids")


@dataclass(frozen=True, eq=False)
class Plan:
    """One participant's job: runs, trials, latents and image model, all of them checked.

    Of imported responses there are no ``runs``, but the import. ``decoding_mb`` are megabytes.
    """

    participant: str
    entities: dict[str, str]
    runs: list[inputs.Run]
    trials: events.Trials
    stimuli: events.Stimuli
    n_latents: int
    methods: tuple[Method, ...]
    simulated: bool
    realign: bool
    notes: tuple[str, ...]
    imported: Imported | None = None
    decoding_mb: int = 0

    @property
    def generator(self) -> str | None:
        """Image model of the stimuli's known latents, None if there is none."""
        return next((method.model for method in self.methods if not method.encoded), None)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width at which images are compared: those of the first method that has any."""
        return next((method.size for method in self.methods if method.size), None)

    @property
    def memory_mb(self) -> int:
        """Megabytes that the largest stage needs: one run, some blocks, and the libraries."""
        if self.imported:
            return LIBRARIES_MB + 300 + self.decoding_mb
        run = self.largest_run
        responses = int(4 * math.prod(run.shape) * (run.n_volumes + 30) / 2**20)
        return LIBRARIES_MB + 300 + max(responses, self.decoding_mb)

    @property
    def largest_run(self) -> inputs.Run:
        """The run with the most volumes, which sets the memory."""
        return max(self.runs, key=lambda run: run.n_volumes)

    def counts(self) -> dict[str, int]:
        """Numbers of runs, trials and stimuli, for the log and the report."""
        frame = self.trials.trials
        test = frame[frame["split"] == "test"]
        n_runs = len(self.runs)
        if self.imported and runs_known(self.trials):
            n_runs = frame["run_index"].nunique()
        return {
            "runs": n_runs,
            "training_trials": int((frame["split"] == "train").sum()),
            "test_trials": len(test),
            "test_stimuli": int(test["stim_id"].nunique()),
        }


def make_plan(bids_dir: Path, participant: str, settings: Settings) -> Plan:
    """Find and check what ``participant``'s job will read.

    Raises
    ------
    InputError, UsageError
        With the file, row, column or flag at fault.
    """
    description = inputs.read_description(bids_dir)
    if is_import(description):
        return _import_plan(bids_dir, participant, settings)
    runs = inputs.find_runs(bids_dir, participant, settings.inputs)
    stimuli = events.read_stimuli(bids_dir)
    trials = events.trial_tables(runs, stimuli, settings.inputs)
    showing = set(trials.trials["run_index"])
    if len(showing) < len(runs):
        empty = [run.bold.name for index, run in enumerate(runs) if index not in showing]
        LOG.warning("Without trials, and so left out: %s.", listing(empty))
        runs = [run for index, run in enumerate(runs) if index in showing]
        trials = events.trial_tables(runs, stimuli, settings.inputs)
    latents = events.load_latents(stimuli, trials)
    _check_design(runs, trials, settings)
    _check_masks(runs, settings.voxels)
    methods, notes = _methods(settings, stimuli, trials, latents.shape[1])
    realign, raw = check_raw(runs, settings)
    if raw:
        notes.append(raw)
    return Plan(
        participant=participant,
        entities=_output_entities(participant, runs),
        runs=runs,
        trials=trials,
        stimuli=stimuli,
        n_latents=latents.shape[1],
        methods=methods,
        realign=realign,
        simulated=inputs.is_simulated(description),
        notes=tuple(notes),
        decoding_mb=fitting.memory_mb(
            settings, len(trials.trials), math.prod(runs[0].shape), latents.shape[1]
        ),
    )


def _import_plan(bids_dir: Path, participant: str, settings: Settings) -> Plan:
    stimuli = events.read_stimuli(bids_dir)
    imported, trials, told = imports.plan_import(bids_dir, participant, settings, stimuli)
    n_latents = events.load_latents(stimuli, trials).shape[1]
    methods, notes = _methods(settings, stimuli, trials, n_latents)
    return Plan(
        participant=participant,
        entities={"subject": participant, "task": TASK},
        runs=[],
        trials=trials,
        stimuli=stimuli,
        n_latents=n_latents,
        methods=methods,
        realign=False,
        simulated=False,
        notes=(*told, *notes),
        imported=imported,
        decoding_mb=fitting.memory_mb(settings, len(trials.trials), imported.n_voxels, n_latents),
    )


def _methods(
    settings: Settings, stimuli: events.Stimuli, trials: events.Trials, n_latents: int
) -> tuple[tuple[Method, ...], list[str]]:
    """Return the methods with what they need checked, and notes for the report."""
    methods, notes = choose_methods(
        settings.methods, settings.images.generator, imports.own_model(stimuli), n_latents
    )
    _check_pictures(trials, stimuli, methods)
    notes += note_of(settings.scores) if any(method.size for method in methods) else []
    if settings.inputs.allow_shared_stimuli:
        notes.append(
            "Stimuli may stand in both training and test (--allow-shared-stimuli): the scores say "
            "how well known categories are told apart, not how well unseen stimuli are decoded."
        )
    return methods, notes


def check_raw(runs: list[inputs.Run], settings: Settings) -> tuple[bool, str | None]:
    """Say whether the runs are realigned, and what the report has to say of raw BOLD.

    Raises
    ------
    InputError
        If confounds are asked for that realignment does not give.
    """
    if not all(run.sources[0].startswith("bids:raw:") for run in runs):
        return False, None
    nothing = "no distortion correction and no normalisation. Give preprocessed data with "
    if settings.inputs.no_realign:
        return False, (
            "The BOLD data are raw: the app computed a brain mask, used no confounds, and did no "
            f"realignment (--no-realign), {nothing}--derivatives."
        )
    if motion.is_thin(runs[0].shape):
        shape = " x ".join(map(str, runs[0].shape))
        text = (
            f"The BOLD data are raw, and their volumes ({shape}) too thin to be realigned: the app "
            f"left them as they are, computed a brain mask, used no confounds, and did {nothing}"
            f"--derivatives."
        )
        LOG.warning(text)
        return False, text
    choose_columns(runs[0].bold, list(settings.betas.confounds), list(alignment.COLUMNS))
    return True, (
        "The BOLD data are raw: the app realigned the runs to one image (rigid motion), computed a "
        f"brain mask, and did {nothing}--derivatives."
    )


def _check_pictures(trials: events.Trials, stimuli: events.Stimuli, methods) -> None:
    """Check that the pictures which the methods need are there, or can be generated.

    Raises
    ------
    InputError
        With the file that is wrong, or the method that has no pictures to encode.
    """
    frame = trials.trials
    encoded = [method for method in methods if method.encoded]
    used = frame if encoded else frame[frame["split"] == "test"]
    names = list(dict.fromkeys(used["stim_file"]))
    known = next((m.model for m in methods if not m.encoded), None)
    if encoded and "n/a" in names and known is None:
        lacking = frame[frame["stim_file"] == "n/a"]["stim_id"]
        raise InputError(
            f"--methods {encoded[0].name}: it encodes the stimuli's images, but "
            f"{listing(dict.fromkeys(lacking))} have none ({stimuli.path}, column stim_file). Name "
            f"the images there, or give the generator that made them with --methods hyper "
            f"{encoded[0].name} --generator FILE."
        )
    if encoded or known is not None:
        shown.check_files(stimuli.folder, names)


def _check_design(runs: list[inputs.Run], trials: events.Trials, settings: Settings) -> None:
    frame = trials.trials
    jobs = run_jobs(runs, frame, trials.nuisance)
    for index, (run, job) in enumerate(zip(runs, jobs, strict=True)):
        lines = frame[frame["run_index"] == index]["line"].to_list()
        dropped = settings.betas.dummy_scans * run.t_r
        early = [line for line, onset in zip(lines, job["onsets"], strict=True) if onset < dropped]
        if early:
            raise InputError(
                f"{run.events}, line {early[0]}, column onset: the trial starts within the "
                f"{settings.betas.dummy_scans} dropped volumes. Lower --dummy-scans."
            )
        try:
            _check_regressors(run_regressors(job, settings.betas), settings.betas)
        except glm.DesignError as error:
            raise InputError(
                f"{run.events}, lines {listing(lines[trial] for trial in error.trials)}, column "
                f"onset: {error.message}. Mend the onsets, or write split n/a."
            ) from None
        except ValueError as error:
            raise InputError(f"{run.bold.name}: {error}.") from None
    train = frame["split"] == "train"
    fitting.check_fit(settings.decoder, frame["run_index"][train].to_numpy())
    n_test = frame[~train]["stim_id"].nunique()
    if n_test < 2:
        raise InputError(
            f"the test trials show {n_test} stimulus; at least 2 are needed to tell them apart."
        )


def _check_regressors(regressors: Regressors, settings: BetaSettings) -> None:
    """Check that trials can be told apart with the drift order asked for, or the first one."""
    order = FIRST_ORDER if settings.drift_order == "auto" else int(settings.drift_order)
    estimator = "lss" if settings.estimator == "lss" else "lsa"
    nuisance = regressors.nuisance(order)
    glm.check_design(regressors.trials[0], nuisance, estimator)
    asked = 0 if settings.noise_components == "auto" else int(settings.noise_components)
    room = regressors.n_volumes - len(regressors.is_train) - nuisance.shape[1] - 1
    if asked > room:
        raise ValueError(
            f"{asked} noise components are more than the {max(room, 0)} that its volumes have room "
            f"for. Lower --noise-components"
        )


def _check_masks(runs: list[inputs.Run], settings: VoxelSettings) -> None:
    """Check that brain masks and the user's mask share voxels, as far as no BOLD has to be read."""
    masks = [volumes.read_mask(run.mask) for run in runs if run.mask]
    brain = np.logical_and.reduce(masks) if masks else None
    if brain is not None and not brain.any():
        raise InputError(
            f"{runs[0].mask} and the other masks: no voxel lies in all of them. Mend the masks, or "
            f"leave runs out with --run-id."
        )
    path, wanted = settings.decoder_mask, settings.mask_labels
    if path is None:
        return
    mask, bold = volumes.read_header(path), volumes.read_header(runs[0].bold)
    if not volumes.same_grid(mask, bold):
        what = "affine differs" if mask.shape == bold.shape else f"shape {mask.shape} differs"
        raise InputError(
            f"--decoder-mask {path}: its {what} from that of {runs[0].bold.name} {bold.shape}. "
            f"Resample the mask to the BOLD's grid."
        )
    labels = volumes.read_labels(path)
    there = set(np.unique(labels[labels != 0]).tolist())
    absent = [label for label in wanted if label not in there]
    if absent:
        raise UsageError(
            f"--mask-labels {listing(absent)}: not in {path}; it has labels "
            f"{listing(sorted(there))}."
        )
    used = np.isin(labels, wanted) if wanted else labels > 0
    if not (used & brain if brain is not None else used).any():
        raise UsageError(
            f"--decoder-mask {path}: none of its voxels above 0 lies in the brain masks. Give a "
            f"mask of the brain's grid with whole numbers."
        )


def _output_entities(participant: str, runs: list[inputs.Run]) -> dict[str, str]:
    entities = {"subject": participant}
    for name in ("session", "task", "space", "res"):
        found = sorted({run.entities[name] for run in runs if name in run.entities})
        if len(found) == 1:
            entities[name] = found[0]
        elif name == "task" and found:
            entities[name] = "+".join(found)
    return entities


def _described(methods: tuple[Method, ...]) -> str:
    """Return the methods and their image models in a line."""
    none = {False: "latents only", True: "of the training stimuli"}
    return ", ".join(f"{m.name} ({m.model or none[m.encoded]})" for m in methods)


def describe(plan: Plan) -> str:
    """Return what ``--dry-run`` prints for one participant."""
    counts = plan.counts()
    lines = [
        f"sub-{plan.participant}: {counts['runs']} runs, {counts['training_trials']} training "
        f"trials, {counts['test_trials']} test trials of {counts['test_stimuli']} stimuli "
        f"(by {plan.trials.split_source}), {plan.n_latents} latents, "
        f"methods {_described(plan.methods)}, about {plan.memory_mb} MB of memory"
    ]
    if plan.imported:
        lines.append(imports.described(plan.imported))
    motion_of = "motion, by realignment" if plan.realign else "none"
    for index, run in enumerate(plan.runs):
        frame = plan.trials.trials[plan.trials.trials["run_index"] == index]
        lines.append(
            f"  {run.bold}: {run.n_volumes} volumes of {' x '.join(map(str, run.shape))} "
            f"voxels, "
            f"TR {run.t_r:g} s, {(frame['split'] == 'train').sum()} train, "
            f"{(frame['split'] == 'test').sum()} test, "
            f"mask {run.mask.name if run.mask else 'computed'}, "
            f"confounds {run.confounds.name if run.confounds else motion_of}"
        )
    lines += [f"  note: {note}" for note in plan.notes]
    return "\n".join(lines)
