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

from hyper_bids import __version__
from hyper_bids.bids import inputs, outputs
from hyper_bids.config import Settings, to_toml
from hyper_bids.device import resolve_device
from hyper_bids.errors import HyperBidsError, InputError, counted, listing
from hyper_bids.participant.comparisons import check_boundaries, check_networks
from hyper_bids.participant.methods import baselines
from hyper_bids.participant.plan import Plan, describe, make_plan
from hyper_bids.participant.regions import check_regions

__all__ = ["check", "describe", "validate", "write_root"]

LOG = logging.getLogger("hyper_bids")


def check(settings: Settings, chosen: list[str]) -> list[Plan]:
    """Check all that can be checked at once, and return the plans of the participants ``chosen``.

    Raises
    ------
    HyperBidsError
        The first thing that is wrong; of participants, all that are wrong.
    """
    bids_dir, output_dir = Path(settings.bids_dir), Path(settings.output_dir)
    outputs.check_output(output_dir, bids_dir)
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
    return plans


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
