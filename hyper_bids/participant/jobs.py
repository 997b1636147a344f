"""What each stage of a participant's job is told, as plain JSON: no more than it uses.

A stage runs again when its part here changes, so nothing stands in it that does not matter to it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from hyper_bids import __version__
from hyper_bids.bids import events
from hyper_bids.bids.outputs import atomic
from hyper_bids.config import Settings, to_dict
from hyper_bids.participant.plan import Plan
from hyper_bids.participant.responses import TABLE_COLUMNS
from hyper_bids.participant.runs import run_jobs

# Entities of a run that stand in the names of what is written of it.
RUN_ENTITIES = ("session", "task", "acquisition", "direction", "run")

STAGES = ("motion", "responses", "decoding", "images", "scores")


def stage_jobs(plan: Plan, settings: Settings, store: Path) -> dict[str, dict]:
    """Return the job of each stage; ``images`` only where there is an image model.

    The latents of the trials are written once to ``store``, under a name that holds their
    checksum, so that a job changes when they do.
    """
    trials = plan.trials.trials
    seed = settings.random_seed
    latents = events.load_latents(plan.stimuli, plan.trials)
    train = (trials["split"] == "train").to_numpy()
    jobs = {}
    if plan.realign:
        jobs["motion"] = _motion_job(plan, settings)
    jobs |= {
        "responses": {
            **_common(plan, "betas", settings, seed=None),
            "settings": to_dict(settings.betas),
            "runs": run_jobs(plan.runs, trials, plan.trials.nuisance),
            "trials": _columns(trials, TABLE_COLUMNS),
            "latents": str(_stored(latents[train], store)),
        },
        "decoding": {
            **_common(plan, "decoder", settings, seed, "voxels"),
            "voxels": to_dict(settings.voxels),
            "decoder": to_dict(settings.decoder),
            "random_seed": seed,
            "trials": _columns(trials, ("run_index", "stim_id", "stim_file", "split")),
            "latents": str(_stored(latents, store)),
        },
    }
    if plan.generator is not None:
        jobs["images"] = {
            **_common(plan, "images", settings, seed=None),
            "images": {**to_dict(settings.images), "generator": plan.generator},
            "stimuli_folder": str(plan.stimuli.folder),
        }
    jobs["scores"] = {
        **_common(plan, "scores", settings, seed),
        "scores": to_dict(settings.scores),
        "random_seed": seed,
        "page": _page(plan, settings),
    }
    return jobs


def _motion_job(plan: Plan, settings: Settings) -> dict:
    told = run_jobs(plan.runs, plan.trials.trials, plan.trials.nuisance)
    names = [n for n in RUN_ENTITIES if len({run.entities.get(n) for run in plan.runs}) > 1]
    runs = []
    for run, job in zip(plan.runs, told, strict=True):
        own = {n: run.entities[n] for n in RUN_ENTITIES if n in run.entities}
        short = " ".join(run.entities[n] for n in names if n in run.entities) or "run"
        runs.append(
            {
                **{key: job[key] for key in ("label", "bold", "n_volumes")},
                "trains": any(job["is_train"]),
                "entities": own,
                "short": short,
            }
        )
    common = _common(plan, "betas", settings, seed=None)
    common["provenance"]["Settings"] = {}
    return {**common, "runs": runs, "dummy_scans": settings.betas.dummy_scans}


def input_files(plan: Plan, settings: Settings) -> dict[str, list[str]]:
    """Return the files that each stage reads, whose change makes it run again."""
    responses = [
        str(path)
        for run in plan.runs
        for path in (run.bold, run.mask, run.confounds, _sidecar(run.confounds))
        if path is not None
    ]
    mask = settings.voxels.decoder_mask
    generator = plan.generator
    weights = [generator] if generator and Path(generator).is_file() else []
    shown = {
        str(plan.stimuli.folder / name)
        for name in plan.trials.trials.query("split == 'test'")["stim_file"]
        if isinstance(name, str) and name != "n/a" and (plan.stimuli.folder / name).is_file()
    }
    return {
        # Where BOLD is realigned, the stages after that read what it wrote.
        "motion": responses,
        "responses": [] if plan.realign else responses,
        "decoding": [mask] if mask else [],
        "images": [*weights, *sorted(shown)],
        "scores": [],
    }


def _common(plan: Plan, stage: str, settings: Settings, seed: int | None, *more: str) -> dict:
    chosen = {name: to_dict(getattr(settings, name)) for name in (stage, *more)}
    sources = [source for run in plan.runs for source in run.sources]
    if stage != "betas":
        sources.append(f"bids:raw:stimuli/{plan.stimuli.source}")
    provenance = {
        "Sources": sources,
        "Settings": chosen,
        "Simulated": plan.simulated,
        "SoftwareVersion": __version__,
    }
    if seed is not None:
        provenance["RandomSeed"] = seed
    return {"entities": plan.entities, "provenance": provenance}


def _sidecar(table: Path | None) -> Path | None:
    """Return the JSON beside a confounds table, which says what its components are."""
    beside = table.with_suffix(".json") if table else None
    return beside if beside is not None and beside.is_file() else None


def _columns(frame, names) -> dict[str, list]:
    return {name: frame[name].tolist() for name in names}


def _stored(latents: np.ndarray, store: Path) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, latents)
    content = buffer.getvalue()
    path = store / f"latents-{hashlib.sha256(content).hexdigest()[:16]}.npy"
    if not path.is_file():
        with atomic(path, "wb") as stream:
            stream.write(content)
    return path


def _page(plan: Plan, settings: Settings) -> dict:
    counts = plan.counts()
    run = plan.runs[0]
    facts = [
        ("Runs", str(counts["runs"])),
        ("Training trials", str(counts["training_trials"])),
        ("Test trials", f"{counts['test_trials']} of {counts['test_stimuli']} stimuli"),
        ("Split", plan.trials.split_source),
        ("Repetition time", f"{run.t_r:g} s"),
        ("Space", plan.entities.get("space", "as scanned")),
        ("Latents", str(plan.n_latents)),
        ("Image model", plan.generator or "none (latents only)"),
        ("Decoder", settings.decoder.decoder),
        ("Seed", str(settings.random_seed)),
    ]
    return {
        "title": f"sub-{plan.participant}",
        "facts": facts,
        "notes": list(plan.notes),
        "simulated": plan.simulated,
        "settings": {
            name: to_dict(getattr(settings, name))
            for name in ("betas", "voxels", "decoder", "images", "scores")
        },
        "design": {
            **counts,
            "n_latents": plan.n_latents,
            "generator": plan.generator,
            "t_r": run.t_r,
            "shared_stimuli": plan.trials.shared_allowed,
        },
    }
