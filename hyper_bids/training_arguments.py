"""``hyper_bids train-vaegan`` and ``fit-eigenface``: their flags, turned into settings."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from hyper_bids.converters import (
    Parser,
    above_zero,
    device,
    one_or_more,
    with_hyphens,
    zero_or_more,
)
from hyper_bids.training.settings import VaeGanTraining

# Flag, field, converter, and what it is.
_TRAINING = (
    ("--latents", "n_latents", one_or_more, "length of a latent vector"),
    ("--resolution", "resolution", one_or_more, "pixels of height and width, a multiple of 32"),
    ("--width", "width", one_or_more, "a third of the first layer's channels; the original has 64"),
    ("--epochs", "epochs", one_or_more, "passes over the images"),
    ("--batch-size", "batch_size", one_or_more, "images a step"),
    ("--learning-rate", "learning_rate", above_zero, "of Adam"),
    ("--random-seed", "random_seed", zero_or_more, "of all that is drawn"),
)


def train_vaegan_command(argv: list[str]) -> None:
    """Run ``hyper_bids train-vaegan``: train a VAE-GAN on a folder of images.

    Raises
    ------
    UsageError, InputError, OutputError, DeviceError
    """
    defaults = VaeGanTraining()
    parser = _parser(
        "train-vaegan",
        "Train a VAE-GAN on a folder of images. A training that was broken off goes on where its "
        "last full epoch ended; until the model is written, it is kept in OUT.partial.",
    )
    for flag, dest, convert, text in _TRAINING:
        default = getattr(defaults, dest)
        parser.add_argument(
            flag, dest=dest, type=convert, default=default, metavar="N", help=f"{text} ({default})"
        )
    parser.add_argument("--vae-only", action="store_true", help="leave out the discriminator")
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        help="what to compute on (auto)",
    )
    parser.add_argument("--restart", action="store_true", help="begin anew, not where it broke off")
    given = parser.parse_args(with_hyphens(argv))
    if given.resolution % 32:
        parser.error(f"--resolution {given.resolution}: a multiple of 32 is wanted")
    fields = [field.name for field in dataclasses.fields(VaeGanTraining)]
    settings = VaeGanTraining(**{name: getattr(given, name) for name in fields})
    from hyper_bids.training import commands

    commands.train_vaegan(
        given.source, _target(given), settings, given.device, given.restart, sys.stderr.isatty()
    )


def fit_eigenface_command(argv: list[str]) -> None:
    """Run ``hyper_bids fit-eigenface``: principal components of a folder of images.

    Raises
    ------
    UsageError, InputError, OutputError
    """
    parser = _parser("fit-eigenface", "Fit principal components to a folder of images.")
    parser.add_argument(
        "--components", type=one_or_more, default=512, metavar="N", help="at most (512)"
    )
    parser.add_argument(
        "--size", type=one_or_more, default=64, metavar="N", help="pixels of height and width (64)"
    )
    given = parser.parse_args(with_hyphens(argv))
    from hyper_bids.training import commands

    commands.fit_eigenface(
        given.source, _target(given), given.components, given.size, sys.stderr.isatty()
    )


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"hyper_bids {name}", description=description, allow_abbrev=False)
    parser.add_argument("source", metavar="IMAGES", type=Path, help="folder of image files")
    parser.add_argument("out", metavar="OUT", type=Path, help="the .safetensors file to write")
    parser.add_argument("--name", help="name of the model (the file's name)")
    parser.add_argument("--licence", help="licence of the model")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    return parser


def _target(given: argparse.Namespace):
    from hyper_bids.training.commands import Target

    return Target(given.out, given.name, given.licence, given.overwrite)
