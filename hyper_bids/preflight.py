"""Before any long work: folders, devices, the BIDS validator, and every participant's plan."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from hyper_bids import __version__, container, resources, volumes
from hyper_bids.bids import fetched, inputs, outputs
from hyper_bids.bids.dataset import derivative_roots
from hyper_bids.bids.root import check_participants
from hyper_bids.config import Settings, to_toml
from hyper_bids.device import resolve_device
from hyper_bids.errors import HyperBidsError, InputError, NotFetchedError, counted, listing
from hyper_bids.participant.comparisons import check_boundaries, check_networks
from hyper_bids.participant.methods import baselines
from hyper_bids.participant.plan import Plan, describe, make_plan
from hyper_bids.participant.regions import check_regions

__all__ = ["check", "describe", "validate", "write_root"]

LOG = logging.getLogger("hyper_bids")

# Files of one participant: docs/scaling.md.
_WORK_FILES, _OUT_FILES = 150, 85
# Megabytes of figures and tables.
_FIGURES_MB = 3
# Voxels of the field of view to voxels of the brain, where no mask says: 4 to 5 are usual.
_FIELD_TO_BRAIN = 6


def check(settings: Settings, chosen: list[str]) -> list[Plan]:
    """Check all that can be checked at once, and return the plans of the participants ``chosen``.

    Raises
    ------
    HyperBidsError
        The first thing that is wrong; of participants, all that are wrong.
    """
    bids_dir, output_dir = Path(settings.bids_dir), Path(settings.output_dir)
    outputs.check_output(output_dir, bids_dir)
    check_participants(output_dir, chosen)
    _warn_of_container(output_dir)
    fetched.check_subdatasets(bids_dir, chosen, settings.inputs)
    _check_fetched(settings, _absent(settings, chosen))
    resources.check_processes(settings, len(chosen))
    if settings.resources.device not in ("auto", "cpu"):
        resolve_device(settings.resources.device)
    if not settings.inputs.skip_bids_validation and not settings.inputs.participant_label:
        validate(bids_dir)
    check_networks(settings.scores)
    plans, wrong = [], {}
    for participant in chosen:
        try:
            plans.append(make_plan(bids_dir, participant, settings))
        except HyperBidsError as error:
            wrong[participant] = error
    lacking = [e.files for e in wrong.values() if isinstance(e, NotFetchedError)]
    if lacking and len(lacking) == len(wrong):
        _check_fetched(settings, [file for files in lacking for file in files])
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        for participant, error in wrong.items():
            LOG.error("sub-%s: %s", participant, str(error).removeprefix(f"sub-{participant}: "))
        raise type(next(iter(wrong.values())))(
            f"{len(wrong)} of {len(chosen)} participants cannot be run: "
            f"{listing('sub-' + p for p in wrong)}. Mend them, or choose others with "
            f"--participant-label."
        )
    check_boundaries(settings.scores, plans)
    check_regions(settings.maps, plans)
    _check_space(settings, plans)
    return plans


def _warn_of_container(output_dir: Path) -> None:
    """Say that results will be lost, if they go into the container itself."""
    place = resources.nearest(output_dir)
    if container.is_own_image() and place.stat().st_dev == Path("/").stat().st_dev:
        LOG.warning(
            "output_dir %s: lies in the container, and what is written there goes with it.%s",
            output_dir, container.mount_hint(output_dir, writable=True),
        )  # fmt: skip


def _check_space(settings: Settings, plans: list[Plan]) -> None:
    work, out = resources.work_path(settings), Path(settings.output_dir)
    # What an earlier run left there is not written again, or in its place.
    started = [
        work / "participants" / f"sub_{p.participant.replace('+', 'plus')}_responses" for p in plans
    ]
    sizes = [
        disk_mb(p)
        for p, folder in zip(plans, started, strict=True)
        if not resources.is_folder(folder)
    ]
    largest = max((run for _, _, run in sizes), default=0)
    in_work, in_out = sum(kept for kept, _, _ in sizes) + largest, sum(out for _, out, _ in sizes)
    LOG.info("At least %d MB go into the work folder, %d MB into %s", in_work, in_out, out)
    resources.check_space(
        {work: (in_work, _WORK_FILES * len(sizes)), out: (in_out, _OUT_FILES * len(sizes))}
    )


def disk_mb(plan: Plan) -> tuple[int, int, int]:
    """Return the megabytes that a participant takes at least, by what grows with the data.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    kept : int
        In the work folder: responses as an array and, of BOLD, as an image; realigned BOLD.
    published : int
        In the output folder: responses that were estimated, as an image.
    passing : int
        In the work folder, while responses are estimated: the signal of all runs.
    """
    if plan.imported:  # a copy for later steps, and nothing of the size is published
        kept, published, signal = 4 * plan.imported.n_trials * plan.imported.n_voxels, 0, 0
    else:
        run = plan.largest_run
        n_voxels = run.shape[0] * run.shape[1] * run.shape[2]
        brain = int(volumes.read_mask(run.mask).sum()) if run.mask else n_voxels // _FIELD_TO_BRAIN
        signal = 4 * brain * sum(r.n_volumes for r in plan.runs)
        # Single precision hardly compresses.
        published = 4 * len(plan.trials.trials) * brain
        kept = 2 * published + (signal if plan.realign else 0)
    return (kept >> 20) + _FIGURES_MB, (published >> 20) + _FIGURES_MB, signal >> 20


def _check_fetched(settings: Settings, absent: list[Path]) -> None:
    """Refuse files of DataLad and git-annex whose content is not here, all of them at once."""
    if absent:
        roots = derivative_roots(settings.inputs.derivatives).values()
        told = fetched.told(absent, [Path(settings.bids_dir).absolute(), *roots])
        raise NotFetchedError(told, absent)


def _absent(settings: Settings, chosen: list[str]) -> list[Path]:
    """Return the files without content that any participant's job would read."""
    scores, images = settings.scores, settings.images
    folder = scores.attribute_boundaries
    given = [
        settings.voxels.decoder_mask, settings.maps.atlas, settings.maps.atlas_names,
        images.generator, *scores.feature_networks,
        *(method.partition("=")[2] for method in settings.methods),
        *(sorted(Path(folder).glob("*.npy")) if folder else ()),
    ]  # fmt: skip
    pictures = "all" if baselines(settings.methods) else "test"
    if pictures == "test" and images.generator == "none":
        pictures = None
    absent = fetched.absent_of_dataset(settings.bids_dir, chosen, settings.inputs, pictures)
    return absent + [Path(p).absolute() for p in given if p and fetched.is_absent(p)]


def write_root(settings: Settings, plans: list[Plan]) -> dict[str, Path]:
    """Write what stands at the derivative's root, and each participant's record of this run.

    The files at the root have the same bytes from each participant's job.

    Returns
    -------
    dict
        Participant to the folder of the record, where crash reports go, too.
    """
    bids_dir, output_dir = Path(settings.bids_dir), Path(settings.output_dir)
    outputs.write_root(
        output_dir, bids_dir, inputs.read_description(bids_dir), settings.inputs.derivatives,
        baselines(settings.methods),
    )  # fmt: skip
    listed = "".join(f"sub-{label}\n" for label in inputs.participants(bids_dir))
    outputs.write_if_changed(output_dir / "logs" / "participants.txt", listed)
    run_id = f"{datetime.datetime.now():%Y%m%d-%H%M%S}_{uuid.uuid4()}"
    logs = {}
    for label in (plan.participant for plan in plans):
        logs[label] = output_dir / "logs" / f"sub-{label}" / run_id
        record = {"version": __version__, "run_id": run_id, "participant": label}
        with outputs.atomic(logs[label] / "hyper_bids.toml") as stream:
            stream.write(to_toml(settings, record))
    return logs


def validate(bids_dir: Path) -> None:
    """Run the BIDS validator over the whole dataset, where one is installed.

    It is not run when participants were chosen: a job of one participant does not read the others.
    """
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    program = program or shutil.which("bids-validator-deno")
    if program is None:
        LOG.debug("No BIDS validator is installed; only what is read is checked.")
        return
    result = subprocess.run(
        [program, "--no-color", "--format", "json", "--max-rows=-1", str(bids_dir)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        issues = json.loads(result.stdout)["issues"]["issues"]
    except (ValueError, KeyError):
        LOG.warning("The BIDS validator could not run; its check is left out.")
        return
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        keys = ("code", "subCode", "location")
        found = dict.fromkeys(" ".join(str(e[k]) for k in keys if e.get(k)) for e in errors)
        raise InputError(
            f"{bids_dir}: the BIDS validator finds {counted(len(errors), 'error')}: "
            f"{listing(found, 3)}. See bids-validator-deno {bids_dir} and mend them, or use "
            f"--skip-bids-validation."
        )
    LOG.info("The BIDS validator finds no errors.")
