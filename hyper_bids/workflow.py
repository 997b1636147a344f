"""Settings to a nipype graph, a node a stage and participant; the only place with nipype."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from nipype import config as nipype_config
from nipype.interfaces.base import (
    BaseInterface,
    DynamicTraitedSpec,
    File,
    InputMultiObject,
    TraitedSpec,
    Undefined,
    isdefined,
    traits,
)
from nipype.pipeline import engine
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

from hyper_bids import log
from hyper_bids.bids import outputs
from hyper_bids.clusters import plugins
from hyper_bids.config import Settings
from hyper_bids.errors import told_by_system
from hyper_bids.participant.jobs import given_to, input_files, kind_of, stage_jobs
from hyper_bids.participant.plan import Plan

LOG = logging.getLogger("hyper_bids")

_NAME = "participants"

_ENDED = "out of memory (lower --nprocs or give more), no more processes allowed, or killed"
_NO_THREADS = "RuntimeError: can't start new thread"

# What nipype ends a crash report with, where a stage left no result.
_NO_RESULT = "When creating this crashfile"

# nipype takes an interruption for a failure of one stage, and goes on with the next.
_INTERRUPTED = threading.Event()

# Module and function of each kind of stage.
_ROOMS: dict[str, tuple[str, str]] = {
    "motion": ("alignment", "align"),
    "responses": ("responses", "estimate_responses"),
    "imported": ("adopted", "adopt_responses"),
    "targets": ("targets", "encode_stimuli"),
    "decoding": ("decoding", "fit_decoder"),
    "images": ("images", "reconstruct"),
    "maps": ("mapping", "map_brain"),
    "scores": ("scoring", "score"),
}


class StageInputSpec(DynamicTraitedSpec):
    """What a stage is told; how fast and where it runs is not part of what it is.

    Each result that it is given adds two: the folder, under the stage's name for it, and the
    digest.
    """

    stage = traits.Enum(*_ROOMS, mandatory=True)
    job = traits.Str(mandatory=True)
    files = InputMultiObject(File(exists=True))
    running = traits.Str("{}", nohash=True, usedefault=True)


class StageOutputSpec(TraitedSpec):
    """Where a stage built its part of the derivatives, and the digest of it."""

    folder = traits.Str()
    digest = traits.Str()


class Stage(BaseInterface):
    """One stage of a participant's job."""

    input_spec = StageInputSpec
    output_spec = StageOutputSpec

    def __init__(self, given: tuple[str, ...] = (), **inputs):
        super().__init__(**inputs)
        self._given = tuple(given)
        for name in self._given:
            for trait in (name, f"{name}_digest"):
                self.inputs.add_trait(trait, traits.Str(mandatory=True))
                self.inputs.trait_set(trait_change_notify=False, **{trait: Undefined})

    def _run_interface(self, runtime):
        if _INTERRUPTED.is_set():
            raise KeyboardInterrupt
        try:
            return self._compute(runtime)
        except KeyboardInterrupt:
            _INTERRUPTED.set()
            raise

    def _compute(self, runtime):
        module, function = _ROOMS[self.inputs.stage]
        running = json.loads(self.inputs.running)
        log.start(running["log_level"])  # a worker process starts without
        compute = getattr(import_module(f"hyper_bids.participant.{module}"), function)
        folders = {name: Path(getattr(self.inputs, name)) for name in self._given}
        self._folder = Path(runtime.cwd) / "part"
        self._digest = compute(json.loads(self.inputs.job) | running, self._folder, **folders)
        digests = [getattr(self.inputs, f"{name}_digest") for name in self._given]
        files = self.inputs.files if isdefined(self.inputs.files) else []
        stamp = fingerprint(self.inputs.job, files, digests)
        (self._folder / "fingerprint").write_text(stamp, encoding="ascii")
        return runtime

    def _list_outputs(self):
        return {"folder": str(self._folder), "digest": self._digest}


class Workers(MultiProcPlugin):
    """Worker processes; one that dies fails its stage, where nipype would wait for ever."""

    def _async_callback(self, args):
        if args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid):
        future = self._task_obj[taskid]
        manager = getattr(self.pool, "_executor_manager_thread", None)
        if not future.done() and manager is not None and not manager.is_alive():
            # The thread that hands out work could not start another: nobody will hear the workers.
            for process in list((self.pool._processes or {}).values()):
                process.terminate()
            return self._failed(taskid, _NO_THREADS)
        error = future.exception() if future.done() else None
        if error is None:
            return super()._get_result(taskid)
        return self._failed(taskid, f"a worker process ended ({type(error).__name__}); {_ENDED}")

    @staticmethod
    def _failed(taskid, reason):
        return {"taskid": taskid, "result": None, "traceback": [reason]}


@dataclass(frozen=True)
class Outcome:
    """What became of the participants: label to reason of those that failed."""

    done: tuple[str, ...]
    failed: dict[str, str]
    computed: int
    written: int
    unchanged: int


@dataclass(frozen=True)
class Member:
    """One participant in the graph: each stage's job as JSON, its input files, its folder."""

    jobs: dict[str, str]
    files: dict[str, list[str]]
    parts: dict[str, Path]
    logs: Path


def run_participants(
    plans: list[Plan], settings: Settings, running: dict, logs: dict[str, Path]
) -> Outcome:
    """Compute the participants of ``plans``, and publish what was computed.

    Parameters
    ----------
    plans : list of Plan
        Checked plans, one a participant.
    settings : Settings
        Settings of the run; ``resources.nprocs`` and ``omp_nthreads`` are set.
    running : dict
        ``work_dir``, ``plugin`` (linear or multiproc), ``memory_gb``, ``device``, ``log_level``,
        ``progress``.
    logs : dict
        Participant to the folder for its crash reports.

    Returns
    -------
    Outcome
        Who is done, and who failed with the reason.
    """
    work = Path(running["work_dir"])
    _INTERRUPTED.clear()
    # A graph keeps the configuration that it is made with.
    stop = str(settings.resources.stop_on_first_crash).lower()
    nipype_config.set("execution", "stop_on_first_crash", stop)
    if running["plugin"] in plugins.NAMES:
        nipype_config.set("execution", "poll_sleep_duration", plugins.POLL)
    workflow = engine.Workflow(_NAME, base_dir=str(work))
    members = {}
    for plan in plans:
        jobs = stage_jobs(plan, settings, work / "latents")
        members[plan.participant] = Member(
            {name: json.dumps(job, sort_keys=True) for name, job in jobs.items()},
            input_files(plan, settings),
            {name: work / _NAME / _node_name(plan.participant, name) / "part" for name in jobs},
            logs[plan.participant],
        )
        _add_participant(workflow, plan, members[plan.participant], settings, running)
    before = {part: _stamp(part) for member in members.values() for part in member.parts.values()}
    needed = max((plan.memory_mb for plan in plans), default=0)
    problem = _run(workflow, settings, running | {"mem_mb": needed})
    return _publish(members, before, settings, problem)


def fingerprint(job: str, files: list[str], digests: list[str]) -> str:
    """Return what a stage's result hangs on: its job, its files and the results it was given."""
    states = [(file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([job, states, digests]).encode()).hexdigest()


def _node_name(participant: str, stage: str) -> str:
    return f"sub_{participant.replace('+', 'plus')}_{stage}"


def _add_participant(
    workflow, plan: Plan, member: Member, settings: Settings, running: dict
) -> None:
    told = {key: running[key] for key in ("device", "progress", "log_level")}
    told["n_threads"] = settings.resources.omp_nthreads
    told["memory_mb"] = _memory_mb(plan, settings, running)
    nodes, given = {}, {name: given_to(name, member.jobs) for name in member.jobs}
    for name, job in member.jobs.items():
        node = engine.Node(
            Stage(tuple(given[name]), stage=_room(plan, name), job=job, running=json.dumps(told)),
            name=_node_name(plan.participant, name),
            n_procs=settings.resources.omp_nthreads,
            mem_gb=plan.memory_mb / 1024,
        )
        node.config = {"execution": {"crashdump_dir": str(member.logs)}}
        if member.files[name]:
            node.inputs.files = member.files[name]
        nodes[name] = node
    workflow.add_nodes(list(nodes.values()))
    for name, node in nodes.items():
        for role, source in given[name].items():
            links = [("folder", role), ("digest", f"{role}_digest")]
            workflow.connect([(nodes[source], node, links)])


def _room(plan: Plan, name: str) -> str:
    return "imported" if plan.imported and name == "responses" else kind_of(name)


def _memory_mb(plan: Plan, settings: Settings, running: dict) -> int:
    """Return the megabytes that one stage may take: its share of all, at least what it needs."""
    side_by_side = 1
    if running["plugin"] == "multiproc":
        side_by_side = max(1, settings.resources.nprocs // settings.resources.omp_nthreads)
    return max(plan.memory_mb, int(1024 * running["memory_gb"] / side_by_side))


def _run(workflow, settings: Settings, running: dict) -> str | None:
    """Run the graph; return what nipype complains of, None if of nothing."""
    plugin, arguments = "Linear", {}
    if running["plugin"] == "multiproc":
        arguments = {
            "n_procs": settings.resources.nprocs,
            "memory_gb": running["memory_gb"],
            "raise_insufficient": False,
            # A forked process must not use threads or CUDA after its parent did.
            "mp_context": "spawn",
        }
        plugin = Workers(plugin_args=arguments)
    elif running["plugin"] in plugins.NAMES:
        plugin = running["plugin"]
        threads = settings.resources.omp_nthreads
        folders = (running["work_dir"], settings.output_dir)
        arguments = plugins.plugin_arguments(plugin, folders, running["mem_mb"], threads)
    try:
        workflow.run(plugin=plugin, plugin_args=arguments)
    # nipype raises whatever a node raised, or a RuntimeError of its own: a participant that did
    # not finish is found by what it left.
    except Exception as error:
        LOG.debug("nipype: %s", error)
        return f"{type(error).__name__}: {error}"
    finally:
        if _INTERRUPTED.is_set():
            raise KeyboardInterrupt
    return None


def _publish(members: dict, before: dict, settings: Settings, problem: str | None) -> Outcome:
    output_dir, figures = Path(settings.output_dir), settings.images.write_images
    failed, done = {}, []
    computed = written = unchanged = 0
    for label, member in members.items():
        if not finished(member):
            failed[label] = _reason(member, problem)
            continue
        ran = [name for name, part in member.parts.items() if _stamp(part) != before[part]]
        kept = [name for name in member.parts if name not in ran]
        LOG.info("sub-%s: computed %s; reused %s", label, _names(ran), _names(kept))
        new, same = outputs.publish(list(member.parts.values()), output_dir, figures)
        computed, written, unchanged = computed + len(ran), written + new, unchanged + same
        done.append(label)
    return Outcome(tuple(done), failed, computed, written, unchanged)


def finished(member: Member) -> bool:
    """Say whether every stage's result is there and hangs on nothing else than it should."""
    digests: dict[str, str] = {}
    for name, part in member.parts.items():
        manifest, stamp = part / outputs.MANIFEST, part / "fingerprint"
        if not manifest.is_file() or not stamp.is_file():
            return False
        upstream = [digests[source] for source in given_to(name, member.jobs).values()]
        if stamp.read_text("ascii") != fingerprint(member.jobs[name], member.files[name], upstream):
            return False
        digests[name] = outputs.sha256(manifest)
    return True


def _stamp(part: Path) -> int | None:
    manifest = part / outputs.MANIFEST
    return manifest.stat().st_mtime_ns if manifest.is_file() else None


def _names(stages: list[str]) -> str:
    return ", ".join(stages) or "nothing"


def _reason(member: Member, problem: str | None) -> str:
    crashes = sorted(member.logs.glob("crash-*"))
    if not crashes:
        told = told_by_system(problem or "")
        return str(told) if told else problem or "it did not finish"
    text = crashes[0].read_text(encoding="utf-8", errors="replace").partition(_NO_RESULT)[0]
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    told = told_by_system(last)
    last = str(told) if told else last.removeprefix("hyper_bids.errors.")
    return f"{last} (details: {crashes[0]})"
