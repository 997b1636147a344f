"""Before any long work: everything that one participant's job will read, found and checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyper_bids import volumes
from hyper_bids.bids import confounds, events, inputs
from hyper_bids.config import Settings, VoxelSettings
from hyper_bids.errors import InputError, UsageError, listing
from hyper_bids.participant import images
from hyper_bids.participant.decoding import cv_folds

LOG = logging.getLogger("hyper_bids")


@dataclass(frozen=True, eq=False)
class Plan:
    """One participant's job: runs, trials, latents and image model, all of them checked."""

    participant: str
    entities: dict[str, str]
    runs: list[inputs.Run]
    trials: events.Trials
    stimuli: events.Stimuli
    n_latents: int
    generator: str | None
    simulated: bool
    notes: tuple[str, ...]

    @property
    def memory_mb(self) -> int:
        """Megabytes that the largest stage needs: one run, its estimates, and the libraries."""
        run = self.largest_run
        voxels = run.shape[0] * run.shape[1] * run.shape[2]
        trials = self.trials.trials["run_index"].value_counts().max()
        return int(700 + 4 * voxels * (run.n_volumes + 2 * trials + 30) / 2**20)

    @property
    def largest_run(self) -> inputs.Run:
        """The run with the most volumes, which sets the memory."""
        return max(self.runs, key=lambda run: run.n_volumes)

    def counts(self) -> dict[str, int]:
        """Numbers of runs, trials and stimuli, for the log and the report."""
        frame = self.trials.trials
        test = frame[frame["split"] == "test"]
        return {
            "runs": len(self.runs),
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
    _check_decoder_mask(runs[0], settings.voxels)
    generator, note = choose_generator(settings.images.generator, stimuli.meta, latents.shape[1])
    if generator is not None:
        test = trials.trials[trials.trials["split"] == "test"]
        images.check_shown(stimuli.folder, list(dict.fromkeys(test["stim_file"])))
    notes = [note] if note else []
    if all(run.uri.startswith("bids:raw:") for run in runs):
        notes.append(
            "The BOLD data are raw: the app computed a brain mask, and did no motion correction, "
            "distortion correction or normalisation. Give preprocessed data with --derivatives."
        )
    if settings.inputs.allow_shared_stimuli:
        notes.append(
            "Stimuli may stand in both training and test (--allow-shared-stimuli): the scores say "
            "how well known categories are told apart, not how well unseen stimuli are decoded."
        )
    return Plan(
        participant=participant,
        entities=_output_entities(participant, runs),
        runs=runs,
        trials=trials,
        stimuli=stimuli,
        n_latents=latents.shape[1],
        generator=generator,
        simulated=inputs.is_simulated(inputs.read_description(bids_dir)),
        notes=tuple(notes),
    )


def choose_generator(wanted: str, meta: dict, n_latents: int) -> tuple[str | None, str | None]:
    """Return what to load as the image model (None: latents only), and a note for the report."""
    from hyper_bids.generators import checkpoints

    named = str(meta.get("Generator") or "n/a")
    if wanted == "none":
        return None, "Latents only: no images were asked for (--generator none)."
    if wanted == "auto":
        if named not in checkpoints.KNOWN:
            reason = (
                "the dataset names no generator (stimuli/latents.json)"
                if named == "n/a"
                else f"the weights of {named} (stimuli/latents.json) do not come with the app"
            )
            return None, f"Latents only: {reason}. Give weights with --generator FILE for images."
        wanted = named
    generator = checkpoints.load(wanted)
    if generator.n_latents != n_latents:
        raise UsageError(
            f"--generator {wanted}: the model takes {generator.n_latents} latents, but "
            f"the dataset has {n_latents} (stimuli/latents.json). Give the generator that made "
            f"the stimuli, or --generator none."
        )
    checksum = meta.get("GeneratorChecksum") or meta.get("Checksum")
    if checksum and generator.checksum not in str(checksum):
        note = (
            f"The weights of {generator.name} are not the ones that made the stimuli: their "
            f"checksum differs from the one in stimuli/latents.json."
        )
        LOG.warning(note)
        return wanted, note
    return wanted, None


def _check_design(runs: list[inputs.Run], trials: events.Trials, settings: Settings) -> None:
    betas = settings.betas
    for index, run in enumerate(runs):
        n_volumes = run.n_volumes - betas.dummy_scans
        n_trials = int((trials.trials["run_index"] == index).sum())
        n_confounds = 0
        if run.confounds is not None:
            n_confounds = confounds.read_confounds(run.confounds, betas.confounds, run.n_volumes)[
                0
            ].shape[1]
        kinds = trials.nuisance[trials.nuisance["run_index"] == index]["trial_type"].nunique()
        n_regressors = n_trials + betas.drift_order + 1 + n_confounds + kinds
        if n_volumes <= n_regressors:
            raise InputError(
                f"{run.bold.name}: {n_volumes} volumes cannot carry {n_regressors} regressors "
                f"({n_trials} trials, {betas.drift_order + 1} drift terms, {n_confounds} "
                f"confounds, {kinds} kinds of other events). Take fewer confounds, or leave out "
                f"the run."
            )
        early = trials.trials[
            (trials.trials["run_index"] == index)
            & (trials.trials["onset"] < betas.dummy_scans * run.t_r)
        ]
        if len(early):
            raise InputError(
                f"{run.events.name}, line {early['line'].iloc[0]}, column onset: the trial starts "
                f"within the {betas.dummy_scans} dropped volumes. Lower --dummy-scans."
            )
    if settings.decoder.decoder == "ridge":
        train = trials.trials["split"] == "train"
        cv_folds(settings.decoder.cv, trials.trials["run_index"][train], np.random.default_rng(0))
    test = trials.trials[trials.trials["split"] == "test"]["stim_id"].nunique()
    if test < 2:
        raise InputError(
            f"the test trials show {test} stimulus; at least 2 are needed to tell them apart."
        )


def _check_decoder_mask(run: inputs.Run, settings: VoxelSettings) -> None:
    path, wanted = settings.decoder_mask, settings.mask_labels
    if path is None:
        return
    mask, bold = volumes.read_header(path), volumes.read_header(run.bold)
    if not volumes.same_grid(mask, bold):
        raise InputError(
            f"--decoder-mask {path}: shape {mask.shape} and affine differ from those of "
            f"{run.bold.name} {bold.shape}. Resample the mask to the BOLD's grid."
        )
    labels = set(np.unique(volumes.read_labels(path)).tolist()) if wanted else set()
    absent = [label for label in wanted if label not in labels]
    if absent:
        raise UsageError(
            f"--mask-labels {listing(absent)}: not in {path}; it has labels "
            f"{listing(sorted(labels - {0}))}."
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


def describe(plan: Plan) -> str:
    """Return what ``--dry-run`` prints for one participant."""
    counts = plan.counts()
    lines = [
        f"sub-{plan.participant}: {counts['runs']} runs, {counts['training_trials']} training "
        f"trials, {counts['test_trials']} test trials of {counts['test_stimuli']} stimuli "
        f"(split by {plan.trials.split_source}), {plan.n_latents} latents, "
        f"image model {plan.generator or 'none'}, about {plan.memory_mb} MB of memory"
    ]
    for index, run in enumerate(plan.runs):
        frame = plan.trials.trials[plan.trials.trials["run_index"] == index]
        lines.append(
            f"  {run.bold}: {run.n_volumes} volumes of {listing(run.shape)} voxels, "
            f"TR {run.t_r:g} s, {(frame['split'] == 'train').sum()} train, "
            f"{(frame['split'] == 'test').sum()} test, "
            f"mask {run.mask.name if run.mask else 'computed'}, "
            f"confounds {run.confounds.name if run.confounds else 'none'}"
        )
    lines += [f"  note: {note}" for note in plan.notes]
    return "\n".join(lines)
