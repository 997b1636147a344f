"""``hyper_bids slurm``: the folder of scripts that it writes and submits."""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from hyper_bids import arguments
from hyper_bids.cluster_arguments import build_parser
from hyper_bids.clusters.plugins import NAMES
from hyper_bids.clusters.settings import Job, Places, Spread
from hyper_bids.config import Settings, with_values
from hyper_bids.converters import with_hyphens
from hyper_bids.errors import HyperBidsError, OutputError, UsageError, counted, listing

LOG = logging.getLogger("hyper_bids")

# Participants whose files are looked at for the estimate: reading those of thousands takes long.
_LOOKED_AT = 12


def slurm_command(argv: list[str]) -> None:
    """Run ``hyper_bids slurm``: write the scripts of a Slurm array, and submit them if wished.

    Raises
    ------
    UsageError, InputError, OutputError
    """
    mark = argv.index("--") if "--" in argv else len(argv)
    given = build_parser().parse_args(with_hyphens(argv[:mark]))
    settings, call = arguments.parse(
        [given.bids_dir, given.output_dir, "participant", *argv[mark + 1 :]]
    )
    _refuse(given, settings, call)
    from hyper_bids.bids.dataset import chosen_participants, read_description
    from hyper_bids.bids.outputs import check_output
    from hyper_bids.clusters import paths, scripts

    read_description(settings.bids_dir)
    check_output(settings.output_dir, settings.bids_dir)
    chosen = chosen_participants(
        settings.bids_dir, given.participant_label or settings.inputs.participant_label
    )
    settings = with_values(paths.with_absolute_paths(settings), {"participant_label": ()})
    for path in paths.read_paths(settings):
        if not Path(path).is_dir():
            raise UsageError(f"{path}: no such folder, which a flag after the -- names.")
    given.folder = str(Path(given.folder).expanduser().absolute())
    scripts.check_folder(given.folder, settings)
    job = _job(given, settings, chosen)
    index = settings.inputs.bids_database_dir
    places, settings = _places(given, settings)
    spread = Spread(given.max_array, given.throttle, given.group)
    verbosity = "-q" if call["quiet"] else f"-{'v' * int(call['verbose'])}".rstrip("-")
    scripts.write_folder(settings, chosen, job, spread, places, verbosity)
    if index:  # a container can be shown only what is there
        Path(index).mkdir(parents=True, exist_ok=True)
    LOG.info("%s, one a task; scripts in %s", counted(len(chosen), "participant"), places.folder)
    if given.submit:
        _submit(Path(places.folder))
    else:
        LOG.info("Submit them with %s", shlex.quote(f"{places.folder}/submit.sh"))


def _refuse(given: argparse.Namespace, settings: Settings, call: dict) -> None:
    """Refuse flags of the app that each job sets for itself."""
    if call["dry_run"]:
        raise UsageError("--dry-run: leave out --submit instead, and look at the scripts.")
    for name, flag in (("work_dir", "-w"), ("nprocs", "--cpus"), ("mem_mb", "--mem")):
        if getattr(settings.resources, name) is not None:
            raise UsageError(
                f"{name} of the app: each job is told its own. Give {flag} to hyper_bids slurm, "
                f"before the --."
            )
    if settings.resources.use_plugin in NAMES:
        raise UsageError(
            f"--use-plugin {settings.resources.use_plugin}: each task would submit jobs of its "
            f"own. Leave it out."
        )
    if settings.inputs.participant_label and given.participant_label:
        raise UsageError("--participant-label: given before and after the --; give it once.")
    if settings.resources.device.startswith("cuda") and not given.gpus:
        raise UsageError(
            f"--device {settings.resources.device}: the jobs ask for no GPU. Add --gpus 1 before "
            f"the --."
        )
    _refuse_together(given)


def _refuse_together(given: argparse.Namespace) -> None:
    """Refuse flags that do not go together, and options of sbatch that are none."""
    for option in given.sbatch:
        if not option.startswith("-"):
            raise UsageError(
                f"--sbatch {option!r}: an option is wanted, such as --sbatch=--qos=long."
            )
    if given.node_local and given.keep_work:
        raise UsageError("--keep-work: with --node-local there is nothing to keep. Leave one out.")
    if given.bind and not given.image:
        raise UsageError("--bind: only a container needs it. Give --image, or leave it out.")


def _places(given: argparse.Namespace, settings: Settings) -> tuple[Places, Settings]:
    """Return where things lie, and the settings as the jobs see them."""
    from hyper_bids.clusters import paths

    folder = given.folder
    work = None if given.node_local else given.work_dir or f"{folder}/work"
    work = work and str(Path(work).expanduser().absolute())
    if work and Path(work).resolve().is_relative_to(Path(settings.bids_dir).resolve()):
        raise UsageError(f"--work-dir {work}: lies in the dataset. Give a folder outside of it.")
    image, binds, seen = given.image, (), settings
    if image:
        image = _image(image)
        seen, binds = paths.container_view(settings, folder, tuple(given.bind))
        paths.check_container_path(work or "")
    places = Places(
        folder=folder,
        output_dir=settings.output_dir,
        image=image,
        command=given.command or (sys.executable, "-m", "hyper_bids"),
        work_dir=work,
        keep_work=given.keep_work,
        scratch=given.scratch,
        binds=binds,
        setup=tuple(given.setup),
    )
    return places, seen


def _image(text: str) -> str:
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise UsageError(f"--image {text}: no such file. Give the .sif that Apptainer built.")
    return str(path)


def _job(given: argparse.Namespace, settings: Settings, chosen: list[str]) -> Job:
    """Return what each job asks for; what was not said is estimated, and the log says from what."""
    mem_mb, time = given.mem, given.time
    if mem_mb is None or time is None:
        found = _estimate(settings, chosen)
        if mem_mb is None:
            mem_mb = found.mem_mb
            LOG.info(
                "--mem %dM: 1.5 times the %d MB that --dry-run says of sub-%s, at least 4096",
                mem_mb, found.dry_run_mb, found.largest,
            )  # fmt: skip
        if time is None:
            time = found.time
            LOG.info(
                "--time %s: 4 times the %d s that sub-%s would take one core by what was measured",
                time, found.seconds, found.longest,
            )  # fmt: skip
    return Job(
        mem_mb=mem_mb,
        time=time,
        cpus=given.cpus,
        gpus=given.gpus,
        partition=given.partition,
        account=given.account,
        options=tuple(given.sbatch),
    )


def _estimate(settings: Settings, chosen: list[str]):
    from hyper_bids.clusters.estimate import estimate
    from hyper_bids.participant.plan import make_plan

    step = max(1, len(chosen) / _LOOKED_AT)
    seen = [chosen[int(index * step)] for index in range(min(len(chosen), _LOOKED_AT))]
    plans, wrong = [], {}
    for label in seen:
        try:
            plans.append(make_plan(Path(settings.bids_dir), label, settings))
        except HyperBidsError as error:
            wrong[label] = error
    if not plans:
        raise next(iter(wrong.values()))
    for label, error in wrong.items():
        LOG.warning("sub-%s: its task will fail as it is: %s", label, error)
    if len(seen) < len(chosen):
        LOG.info(
            "estimated from %d of %d participants: %s", len(seen), len(chosen), listing(seen, 3)
        )
    return estimate(plans, settings.decoder.refit_permutations)


def _submit(folder: Path) -> None:
    if shutil.which("sbatch") is None:
        raise OutputError(
            f"--submit: there is no sbatch here. On a login node, run {folder / 'submit.sh'}."
        )
    result = subprocess.run(
        ["bash", str(folder / "submit.sh")], check=False, capture_output=True, text=True
    )
    for line in result.stdout.splitlines():
        LOG.info("%s", line)
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit status {result.returncode}"
        raise OutputError(f"{folder / 'submit.sh'}: {reason}")
