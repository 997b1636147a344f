"""Before any long work: folders, devices, the BIDS validator, and every participant's plan."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from hyper_bids.bids import inputs, outputs
from hyper_bids.config import Settings
from hyper_bids.errors import HyperBidsError, InputError, listing
from hyper_bids.participant.plan import Plan, make_plan

LOG = logging.getLogger("hyper_bids")


def check(settings: Settings) -> list[Plan]:
    """Check all that can be checked at once, and return the plans.

    Raises
    ------
    HyperBidsError
        The first thing that is wrong; of participants, all that are wrong.
    """
    bids_dir, output_dir = Path(settings.bids_dir), Path(settings.output_dir)
    inputs.read_description(bids_dir)
    outputs.check_output(output_dir, bids_dir)
    if settings.resources.device not in ("auto", "cpu"):
        from hyper_bids.generators.checkpoints import resolve_device

        resolve_device(settings.resources.device)
    chosen = inputs.chosen_participants(bids_dir, settings.inputs.participant_label)
    if not settings.inputs.skip_bids_validation and not settings.inputs.participant_label:
        validate(bids_dir)
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
            LOG.error("sub-%s: %s", participant, error)
        raise type(next(iter(wrong.values())))(
            f"{len(wrong)} of {len(chosen)} participants cannot be run: "
            f"{listing('sub-' + p for p in wrong)}. Mend them, or choose others with "
            f"--participant-label."
        )
    return plans


def write_root(settings: Settings) -> None:
    """Write the files at the derivative's root, the same bytes from each participant's job."""
    bids_dir, output_dir = Path(settings.bids_dir), Path(settings.output_dir)
    outputs.write_root(
        output_dir, bids_dir, inputs.read_description(bids_dir), settings.inputs.derivatives
    )
    listed = "".join(f"sub-{label}\n" for label in inputs.participants(bids_dir))
    path = output_dir / "logs" / "participants.txt"
    if not path.is_file() or path.read_text(encoding="utf-8") != listed:
        path.parent.mkdir(parents=True, exist_ok=True)
        with outputs.atomic(path) as stream:
            stream.write(listed)


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
        found = [f"{e.get('code')} at {e.get('location', '?')}" for e in errors]
        raise InputError(
            f"{bids_dir}: the BIDS validator finds {len(errors)} errors: {listing(found, 3)}. "
            f"Mend them (bids-validator-deno {bids_dir}), or use --skip-bids-validation."
        )
    LOG.info("The BIDS validator finds no errors.")
