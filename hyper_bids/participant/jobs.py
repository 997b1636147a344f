"""What each stage of a participant's job is told, as plain JSON: no more than it uses.

A stage runs again when its part here changes, so nothing stands in it that does not matter to it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hyper_bids import __version__, programs
from hyper_bids.bids import events
from hyper_bids.bids.outputs import atomic
from hyper_bids.config import Settings, to_dict
from hyper_bids.participant import comparisons, imports
from hyper_bids.participant.methods import HYPER, Method
from hyper_bids.participant.plan import Plan
from hyper_bids.participant.regions import regions_job
from hyper_bids.participant.responses import TABLE_COLUMNS
from hyper_bids.participant.runs import run_jobs

# Entities of a run that stand in the names of what is written of it.
RUN_ENTITIES = ("session", "task", "acquisition", "direction", "run")

# Kinds of stage of which each method has its own.
OWN = ("targets", "decoding", "images")


def stage_jobs(plan: Plan, settings: Settings, store: Path) -> dict[str, dict]:
    """Return the job of each stage, in an order in which they can run.

    The name of a stage is its kind and, of a method other than HYPER, the method:
    ``decoding_eigenface``. There are ``images`` only where there is an image model. The latents of
    the trials are written once to ``store``, under a name that holds their checksum, so that a job
    changes when they do.
    """
    trials = plan.trials.trials
    latents = events.load_latents(plan.stimuli, plan.trials)
    train = (trials["split"] == "train").to_numpy()
    stored = str(_stored(latents, store))
    jobs = {"motion": _motion_job(plan, settings)} if plan.realign else {}
    jobs["responses"] = {
        **_common(plan, "betas", settings, seed=None),
        "trials": _columns(trials, TABLE_COLUMNS),
        "latents": str(_stored(latents[train], store)),
        **(_import_job(plan) if plan.imported else _estimation_job(plan, settings)),
    }
    for method in plan.methods:
        jobs |= _method_jobs(plan, settings, method, stored)
    if has_maps(plan, settings):
        jobs["maps"] = _maps_job(plan, settings)
    jobs["scores"] = {
        **_common(plan, "scores", settings, settings.random_seed),
        "scores": to_dict(settings.scores),
        "random_seed": settings.random_seed,
        "methods": [[m.name, m.label, m.suffix] for m in plan.methods],
        **comparisons.scores_job(plan, settings),
        "page": _page(plan, settings),
    }
    return jobs


def _estimation_job(plan: Plan, settings: Settings) -> dict:
    return {
        "settings": to_dict(settings.betas),
        "runs": run_jobs(plan.runs, plan.trials.trials, plan.trials.nuisance),
    }


def _import_job(plan: Plan) -> dict:
    return {
        "responses": str(plan.imported.responses),
        "mask": str(plan.imported.mask),
        "places_known": plan.imported.places_known,
        "files": list(plan.imported.files),
        "trials": _columns(plan.trials.trials, ("run_index", *TABLE_COLUMNS)),
    }


def _method_jobs(plan: Plan, settings: Settings, method: Method, latents: str) -> dict[str, dict]:
    """Return the jobs of one method: encoding of stimuli, decoder, images."""
    trials = plan.trials.trials
    of_method = {} if method.name == HYPER else {"method": method.name}
    stimuli = {
        "latents": latents,
        "stimuli_folder": str(plan.stimuli.folder),
        "trials": _columns(trials, ("stim_id", "stim_file", "split")),
    }
    jobs = {}
    if method.encoded:
        jobs["targets"] = {
            **_common(plan, "images", settings, seed=None),
            **stimuli,
            "method": method.name,
            "model": method.model,
            "generator": plan.generator,
            "batch_size": settings.images.batch_size,
        }
        # Nothing of it is published.
        jobs["targets"]["provenance"]["Settings"] = {}
    seed = settings.random_seed
    jobs["decoding"] = {
        **_common(plan, "decoder", settings, seed, "voxels"),
        "voxels": {**to_dict(settings.voxels), "decoder_mask": _mask(settings)},
        "decoder": to_dict(settings.decoder),
        "random_seed": seed,
        "trials": _columns(trials, ("run_index", "stim_id", "stim_file", "split")),
        "latents": None if method.encoded else latents,
        "writes_maps": method == plan.methods[0],
    }
    if method.size:
        jobs["images"] = {
            **_common(plan, "images", settings, seed=None),
            **stimuli,
            "images": {**to_dict(settings.images), "generator": method.model},
            "known_generator": plan.generator,
            "compared_at": list(plan.image_size),
            "random_seed": seed,
        }
    for job in jobs.values():
        job["entities"] = {**job["entities"], **of_method}
        if of_method:
            job["provenance"] = {**job["provenance"], "Method": method.label}
    return {f"{kind}{method.suffix}": job for kind, job in jobs.items()}


def has_maps(plan: Plan, settings: Settings) -> bool:
    """Say whether there are maps of the brain: the places of the voxels must be known."""
    return not settings.maps.no_maps and not (plan.imported and not plan.imported.places_known)


def _maps_job(plan: Plan, settings: Settings) -> dict:
    """Return the job of the maps, which are of the first method."""
    first, seed = plan.methods[0], settings.random_seed
    common = _common(plan, "maps", settings, seed)
    if first.name != HYPER:
        common["entities"] = {**common["entities"], "method": first.name}
    return {
        **common,
        "voxels": {**to_dict(settings.voxels), "decoder_mask": _mask(settings)},
        "random_seed": seed,
        "trials": _columns(plan.trials.trials, ("run_index", "stim_id", "stim_file", "split")),
        **regions_job(settings.maps),
    }


def kind_of(stage: str) -> str:
    """Return the kind of a stage: its name without the method."""
    return stage.partition("_")[0]


def given_to(stage: str, jobs: Iterable[str]) -> dict[str, str]:
    """Return the results that a stage is given: what it calls them, to the stage that wrote them.

    Parameters
    ----------
    stage : str
        Name of the stage.
    jobs : iterable of str
        Names of all stages of the participant.
    """
    kind, _, method = stage.partition("_")
    roles = {
        "responses": ("motion",),
        "decoding": ("responses", "targets"),
        "images": ("decoding", "targets"),
    }.get(kind, ())
    names = {role: f"{role}_{method}" if method and role in OWN else role for role in roles}
    if kind == "maps":
        # The first method's decoder: its stage comes first.
        decoding = next(name for name in jobs if kind_of(name) == "decoding")
        names = {"responses": "responses", "decoding": decoding}
    if kind == "scores":
        names = {name: name for name in jobs if kind_of(name) not in ("targets", "scores")}
    there = set(jobs)
    return {role: name for role, name in names.items() if name in there}


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
    frame = plan.trials.trials
    mask = _mask(settings)
    files = {
        # Where BOLD is realigned, the stages after that read what it wrote.
        "motion": responses,
        "responses": [] if plan.realign else responses,
        **({"responses": _imported_files(plan)} if plan.imported else {}),
        "scores": comparisons.input_files(plan, settings),
    }
    regions = regions_job(settings.maps).values()
    files["maps"] = [file for file in (mask, *regions) if file]
    known = _weights(plan.generator)
    for method in plan.methods:
        own = sorted({*_weights(method.model), *known})
        files[f"targets{method.suffix}"] = own + _pictures(plan, frame)
        files[f"decoding{method.suffix}"] = [mask] if mask else []
        files[f"images{method.suffix}"] = own + _pictures(plan, frame[frame["split"] == "test"])
    return files


def _mask(settings: Settings) -> str | None:
    """Return the decoder mask; absolute, since a stage runs in a folder of its own."""
    mask = settings.voxels.decoder_mask
    return None if mask is None else str(Path(mask).absolute())


def _imported_files(plan: Plan) -> list[str]:
    return [str(plan.imported.responses), str(plan.imported.mask)]


def _weights(model: str | None) -> list[str]:
    if not model or not Path(model).is_file():
        return []
    # What stands beside an exported network says how it is to be used.
    beside = Path(model).with_suffix(".json")
    more = [str(beside)] if beside.is_file() and programs.is_exported(Path(model)) else []
    return [model, *more]


def _pictures(plan: Plan, trials) -> list[str]:
    """Return the images of the trials' stimuli, as far as there are any."""
    names = {name for name in trials["stim_file"] if isinstance(name, str) and name != "n/a"}
    paths = [plan.stimuli.folder / name for name in sorted(names)]
    return [str(path) for path in paths if path.is_file()]


def _common(plan: Plan, stage: str, settings: Settings, seed: int | None, *more: str) -> dict:
    chosen = {name: to_dict(getattr(settings, name)) for name in (stage, *more)}
    sources = [source for run in plan.runs for source in run.sources]
    if plan.imported:
        sources = list(plan.imported.sources)
        chosen.pop("betas", None)
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
    stages = ("betas", "voxels", "decoder", "images", "maps", "scores")
    facts = [
        ("Runs", str(counts["runs"] or "unknown")),
        ("Training trials", str(counts["training_trials"])),
        ("Test trials", f"{counts['test_trials']} of {counts['test_stimuli']} stimuli"),
        ("Split", plan.trials.split_source),
        *_scans(plan),
        ("Latents", str(plan.n_latents)),
        *_image_models(plan),
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
            for name in (stages[1:] if plan.imported else stages)
        },
        "design": {
            **counts,
            "n_latents": plan.n_latents,
            "generator": plan.generator,
            "baselines": [[m.label, m.model] for m in plan.methods if m.encoded],
            "known": any(not m.encoded for m in plan.methods),
            "t_r": None if plan.imported else plan.runs[0].t_r,
            "imported": imports.facts_of(plan.imported, plan.trials) if plan.imported else None,
            "shared_stimuli": plan.trials.shared_allowed,
            "maps": has_maps(plan, settings),
        },
    }


def _scans(plan: Plan) -> list[tuple[str, str]]:
    if plan.imported:  # nothing is known of the BOLD
        return []
    return [
        ("Repetition time", f"{plan.runs[0].t_r:g} s"),
        ("Space", plan.entities.get("space", "as scanned")),
    ]


def _image_models(plan: Plan) -> list[tuple[str, str]]:
    none = {False: "none (latents only)", True: "eigenfaces of the training stimuli"}
    several = len(plan.methods) > 1
    return [
        (f"Image model, {m.label}" if several else "Image model", m.model or none[m.encoded])
        for m in plan.methods
    ]
