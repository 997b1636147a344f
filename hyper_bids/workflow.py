"""Settings to a nipype graph of four coarse nodes a participant; the only place with nipype."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import time
import uuid
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.pipeline import engine

from hyper_bids import __version__
from hyper_bids.bids import outputs
from hyper_bids.config import Settings, to_toml
from hyper_bids.participant.jobs import STAGES, input_files, stage_jobs
from hyper_bids.participant.plan import Plan

LOG = logging.getLogger("hyper_bids")

# Module and function of each stage, and the stages whose results it reads.
_ROOMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "responses": ("responses", "estimate_responses", ()),
    "decoding": ("decoding", "fit_decoder", ("responses",)),
    "images": ("images", "reconstruct", ("decoding",)),
    "scores": ("scoring", "score", ("decoding", "images")),
}


class StageInputSpec(BaseInterfaceInputSpec):
    """What a stage is told; how fast and where it runs is not part of what it is."""

    stage = traits.Enum(*STAGES, mandatory=True)
    job = traits.Str(mandatory=True)
    files = InputMultiObject(File(exists=True))
    responses = traits.Str()
    responses_digest = traits.Str()
    decoding = traits.Str()
    decoding_digest = traits.Str()
    images = traits.Str()
    images_digest = traits.Str()
    running = traits.Str("{}", nohash=True, usedefault=True)


class StageOutputSpec(TraitedSpec):
    """Where a stage built its part of the derivatives, and the digest of it."""

    folder = traits.Str()
    digest = traits.Str()


class Stage(BaseInterface):
    """One stage of a participant's job."""

    input_spec = StageInputSpec
    output_spec = StageOutputSpec

    def _run_interface(self, runtime):
        module, function, upstream = _ROOMS[self.inputs.stage]
        if not logging.getLogger().handlers:  # a worker process starts without any
            logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
            LOG.setLevel(json.loads(self.inputs.running).get("log_level", logging.INFO))
        compute = getattr(import_module(f"hyper_bids.participant.{module}"), function)
        job = json.loads(self.inputs.job) | json.loads(self.inputs.running)
        folders = [
            Path(folder) if isdefined(folder := getattr(self.inputs, name)) else None
            for name in upstream
        ]
        self._folder = Path(runtime.cwd) / "part"
        self._digest = compute(job, self._folder, *folders)
        return runtime

    def _list_outputs(self):
        return {"folder": str(self._folder), "digest": self._digest}


@dataclass(frozen=True)
class Outcome:
    """What became of each participant."""

    done: tuple[str, ...]
    failed: dict[str, str]
    computed: int
    written: int
    unchanged: int


def run_participants(plans: list[Plan], settings: Settings, running: dict) -> Outcome:
    """Compute the participants of ``plans``, and publish what was computed.

    Parameters
    ----------
    plans : list of Plan
        Checked plans, one a participant.
    settings : Settings
        Settings of the run; ``resources.nprocs`` and ``omp_nthreads`` are set.
    running : dict
        ``work_dir``, ``plugin``, ``memory_gb``, ``device``, ``verbose``, ``log_level``.

    Returns
    -------
    Outcome
        Who is done and who failed, with the crash file.
    """
    work = Path(running["work_dir"])
    started = time.time()
    configure(work, running["verbose"])
    run_id = f"{datetime.datetime.now():%Y%m%d-%H%M%S}_{uuid.uuid4()}"
    output_dir = Path(settings.output_dir)
    workflow = engine.Workflow("participants", base_dir=str(work))
    jobs, logs = {}, {}
    for plan in plans:
        label = plan.participant
        logs[label] = output_dir / "logs" / f"sub-{label}" / run_id
        logs[label].mkdir(parents=True)
        record = {"version": __version__, "run_id": run_id, "participant": label}
        with outputs.atomic(logs[label] / "hyper_bids.toml") as stream:
            stream.write(to_toml(settings, record))
        jobs[label] = stage_jobs(plan, settings, work / "latents")
        files = input_files(plan, settings)
        _add_participant(workflow, plan, jobs[label], files, settings, running)
        for node in workflow._get_all_nodes():
            if node.name.startswith(_node_name(label)):
                node.config = {"execution": {"crashdump_dir": str(logs[label])}}
    problem = _run(workflow, settings, running)
    return _publish(workflow, jobs, logs, output_dir, (started, problem))


def configure(work: Path, verbose: int) -> None:
    """Set nipype up: quick polling, crash files as text, its own log no louder than ours."""
    nipype_config.update_config(
        {
            "execution": {
                "poll_sleep_duration": 0.05,
                "crashfile_format": "txt",
                "stop_on_first_crash": False,
                "check_version": False,
                "hash_method": "timestamp",
                "remove_unnecessary_outputs": False,
                "crashdump_dir": str(work),
            },
            "logging": {"log_to_file": False},
        }
    )
    nipype_logging.update_logging(nipype_config)
    level = {0: logging.CRITICAL, 1: logging.INFO}.get(verbose, logging.DEBUG)
    for name in ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(level)


def _node_name(participant: str) -> str:
    return "sub_" + participant.replace("+", "plus") + "_"


def _add_participant(workflow, plan: Plan, jobs, files, settings: Settings, running) -> None:
    nodes = {}
    for name, job in jobs.items():
        node = engine.Node(
            Stage(stage=name, job=json.dumps(job, sort_keys=True)),
            name=_node_name(plan.participant) + name,
            n_procs=settings.resources.omp_nthreads,
            mem_gb=plan.memory_mb / 1024,
        )
        if files[name]:
            node.inputs.files = files[name]
        node.inputs.running = json.dumps(
            {
                "device": running["device"],
                "progress": running["progress"],
                "n_threads": settings.resources.omp_nthreads,
                "log_level": running["log_level"],
            }
        )
        nodes[name] = node
    workflow.add_nodes(list(nodes.values()))
    for name, node in nodes.items():
        for source in _ROOMS[name][2]:
            if source in nodes:
                links = [("folder", source), ("digest", f"{source}_digest")]
                workflow.connect([(nodes[source], node, links)])


def _run(workflow, settings: Settings, running: dict) -> str | None:
    plugin = {"linear": "Linear", "multiproc": "MultiProc"}[running["plugin"]]
    arguments = {}
    if plugin == "MultiProc":
        arguments = {
            "n_procs": settings.resources.nprocs,
            "memory_gb": running["memory_gb"],
            "raise_insufficient": False,
            # A forked process must not use threads or CUDA after its parent did.
            "mp_context": "spawn",
        }
    nipype_config.set(
        "execution", "stop_on_first_crash", str(settings.resources.stop_on_first_crash).lower()
    )
    try:
        workflow.run(plugin=plugin, plugin_args=arguments)
    except KeyboardInterrupt:
        raise
    # nipype raises whatever a node raised, or a RuntimeError of its own: a participant that did
    # not finish is found by what it left, below.
    except Exception as error:
        LOG.debug("nipype: %s", error)
        return f"{type(error).__name__}: {error}"
    return None


def _publish(workflow, jobs, logs, output_dir: Path, run: tuple) -> Outcome:
    started, problem = run
    failed, done, parts_done = {}, [], []
    computed = written = unchanged = 0
    folders = {node.name: Path(node.output_dir()) / "part" for node in workflow._get_all_nodes()}
    for label, stages in jobs.items():
        parts = {name: folders[_node_name(label) + name] for name in stages}
        crashes = sorted(logs[label].glob("crash-*"))
        stamp = parts["scores"].parent / "stages.sha256"
        fresh = [
            name
            for name, part in parts.items()
            if (part / "manifest.json").is_file()
            and (part / "manifest.json").stat().st_mtime >= started - 1
        ]
        wanted = _fingerprint(stages)
        complete = all((part / "manifest.json").is_file() for part in parts.values())
        if complete and not crashes and problem is None:
            stamp.write_text(wanted, encoding="ascii")
        elif crashes or not complete or not stamp.is_file() or stamp.read_text() != wanted:
            failed[label] = _reason(crashes, problem)
            continue
        computed += len(fresh)
        new, same = outputs.publish(list(parts.values()), output_dir)
        written, unchanged = written + new, unchanged + same
        done.append(label)
        parts_done.append(
            (label, [n for n in stages if n in fresh], [n for n in stages if n not in fresh])
        )
    for label, ran, reused in parts_done:
        LOG.info(
            "sub-%s: computed %s; reused %s",
            label, ", ".join(ran) or "nothing", ", ".join(reused) or "nothing",
        )  # fmt: skip
    return Outcome(tuple(done), failed, computed, written, unchanged)


def _fingerprint(stages: dict) -> str:
    return hashlib.sha256(json.dumps(stages, sort_keys=True).encode()).hexdigest()


def _reason(crashes: list[Path], problem: str | None) -> str:
    if not crashes:
        return (problem or "did not finish") + "; a process that is killed is often out of memory"
    text = crashes[0].read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = [line for line in text if line.strip()][-1].strip()
    last = last.removeprefix("hyper_bids.errors.")
    return f"{last} (details: {crashes[0]})"


def available_memory_gb(limit_mb: int | None) -> float:
    """Return gigabytes that the run may use: the limit given, the cgroup's, or what is free."""
    import psutil

    if limit_mb:
        return limit_mb / 1024
    free = psutil.virtual_memory().available
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            free = min(free, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return 0.9 * free / 2**30


def work_folder(settings: Settings) -> Path:
    """Return this dataset's and output's folder within the work directory, made if absent."""
    from hyper_bids.errors import OutputError

    chosen = settings.resources.work_dir
    top = Path(chosen) if chosen else Path.cwd() / "work"
    key = f"{Path(settings.bids_dir).resolve()}|{Path(settings.output_dir).resolve()}"
    folder = top / f"hyper_bids-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{'--work-dir ' if chosen else 'work folder '}{top}: cannot be written "
            f"({error.strerror}). Give another with --work-dir."
        ) from None
    return folder.resolve()
