"""The flags of ``hyper_bids simulate``, turned into settings. Imports the standard library only."""

from __future__ import annotations

import argparse
import logging

from hyper_bids.converters import (
    Parser,
    fraction,
    one_or_more,
    positive,
    with_hyphens,
    zero_or_more,
)
from hyper_bids.simulation_settings import SIMULATION_PRESETS, SimulationSettings

LOG = logging.getLogger("hyper_bids")

_NUMBERS = (
    ("n_participants", one_or_more, "participants"),
    ("n_train_runs", one_or_more, "training runs"),
    ("n_test_runs", one_or_more, "test runs"),
    ("trials_per_run", one_or_more, "trials in a run"),
    ("n_test_stimuli", one_or_more, "stimuli of the test set"),
    ("t_r", positive, "repetition time, seconds"),
    ("soa", positive, "from one onset to the next, seconds"),
    ("duration", positive, "of a trial, seconds"),
    ("n_coding_voxels", one_or_more, "voxels that carry the code"),
    ("n_latents", one_or_more, "latent dimensions, where no generator sets them"),
    ("autocorrelation", fraction, "AR(1) coefficient of the noise"),
    ("drift", positive, "slow drift, percent signal change"),
    ("spikes_per_run", zero_or_more, "motion-like spikes"),
    ("hrf_variation", positive, "1 varies the time to peak by about a second over voxels"),
    ("shared_noise", positive, "noise that voxels share, as from breathing, percent signal change"),
    ("motion", positive, "movement of the head in the raw images, mm"),
    ("random_seed", zero_or_more, "seed"),
)


def parse_simulation(argv: list[str], prog: str) -> tuple[str, SimulationSettings]:
    """Return the folder and the settings of ``hyper_bids simulate``."""
    defaults = SimulationSettings()
    parser = Parser(
        prog=prog,
        description="Write a synthetic BIDS dataset: stimuli of a generator, known latents, BOLD "
        "with a planted code, and the truth under sourcedata/.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("out", help="folder for the dataset; must be empty or absent")
    parser.add_argument(
        "--preset",
        choices=tuple(SIMULATION_PRESETS),
        default="small",
        help="shape to start from; hyper is the paper's (default: small)",
    )
    for name, convert, text in _NUMBERS:
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=convert,
            metavar="N",
            help=f"{text} ({getattr(defaults, name)} in the small preset)",
        )
    parser.add_argument(
        "--noise",
        nargs="+",
        type=positive,
        metavar="X",
        help="noise level, one for all or one a participant",
    )
    parser.add_argument(
        "--shape", nargs=3, type=one_or_more, metavar=("X", "Y", "Z"), help="voxels of a volume"
    )
    parser.add_argument(
        "--generator",
        metavar="{demo,none,FILE}",
        help="image model that makes the stimuli: the demo's, none (latents only), or weights",
    )
    parser.add_argument(
        "--with-derivatives",
        action="store_true",
        help="also write a preprocessed derivative, as fMRIPrep would",
    )
    given = vars(parser.parse_args(with_hyphens(argv)))
    out = given.pop("out")
    values = {**SIMULATION_PRESETS[given.pop("preset")], **given}
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return out, SimulationSettings(**values)


def simulate_command(argv: list[str]) -> None:
    """Run ``hyper_bids simulate``: write a synthetic dataset."""
    out, settings = parse_simulation(argv, "hyper_bids simulate")
    from hyper_bids.simulate.dataset import simulate

    simulate(out, settings)
    LOG.info("A simulated dataset of %d participants is in %s", settings.n_participants, out)
