"""``hyper_bids demo OUT``: simulate two participants, decode them, and say where to look."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from hyper_bids.converters import Parser, with_hyphens
from hyper_bids.errors import OutputError
from hyper_bids.simulation_settings import SIMULATION_PRESETS, SimulationSettings

LOG = logging.getLogger("hyper_bids")


def demo(argv: list[str], app: Callable[[list[str]], None]) -> None:
    """Simulate a dataset, run both levels of ``app`` on it, and print where the results are.

    Parameters
    ----------
    argv : list of str
        The folder to write to, and flags that are handed to both levels.
    app : callable
        Runs the BIDS-App command line.
    """
    parser = Parser(
        prog="hyper_bids demo",
        description="Simulate two participants, run the participant and the group level on them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", help="folder for the dataset and the results")
    given, more = parser.parse_known_args(argv)
    if "--dry-run" in with_hyphens(more):
        parser.error("the demo has no --dry-run")
    from hyper_bids.simulate.dataset import simulate

    out = Path(given.out)
    raw, results = out / "bids", out / "derivatives"
    if raw.is_dir():
        LOG.info("%s is there already: its dataset is used again", raw)
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: not empty, and not a demo's folder. Give another folder.")
    else:
        LOG.info("Simulating two participants in %s", raw)
        simulate(raw, SimulationSettings(**SIMULATION_PRESETS["demo"]))
    # Fewer voxels than the small brain has, so that the choice of voxels is seen at work.
    # The heads of simulated participants lie still.
    chosen = ["--n-voxels", "1000", "--no-realign", "--work-dir", str(out / "work")]
    chosen += ["--methods", "hyper", "vaegan", "eigenface"]
    app([str(raw), str(results), "participant", *chosen, *more])
    app([str(raw), str(results), "group", *more])
    for text, path in (
        ("The group's page", results / "group.html"),
        ("A participant's page, with what was shown and reconstructed", results / "sub-01.html"),
    ):
        if path.is_file():
            LOG.info("%s: %s", text, path)
    LOG.info("These data are simulated: they show that the app works, and nothing about brains.")
