"""The command line of the BIDS App, turned into settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from hyper_bids.arguments.analysis import add_decoding, add_maps, add_scores
from hyper_bids.arguments.inputs import add_selection
from hyper_bids.arguments.responses import add_responses, add_voxels
from hyper_bids.arguments.running import add_running
from hyper_bids.config import Settings, from_toml, with_values
from hyper_bids.container import file_hint
from hyper_bids.converters import (
    Parser,
    with_hyphens,
)
from hyper_bids.errors import UsageError

EPILOG = """\
exit status:
  0 all well; 1 a participant failed while it was computed; 64 wrong usage; 65 wrong input data;
  69 a device that was asked for is not there; 70 an error inside the app; 71 the system allows no
  more processes; 73 the output or work folder cannot be used; 130 interrupted. The last line of the
  log says the same.

other commands:
  hyper_bids simulate OUT   write a synthetic BIDS dataset with known latents
  hyper_bids demo OUT       simulate two participants, decode them, and say where to look
  hyper_bids convert-weights IN OUT   a public PGGAN or VAE-GAN to the app's .safetensors
  hyper_bids train-vaegan IMAGES OUT   a VAE-GAN of a folder of images
  hyper_bids fit-eigenface IMAGES OUT   eigenfaces of a folder of images
  hyper_bids import-hyper FILES OUT   HYPER's published responses to a dataset for this app
  hyper_bids import-responses FILES OUT   anybody's responses and latents or images, likewise
  hyper_bids slurm BIDS_DIR OUTPUT_DIR   scripts for a Slurm cluster, one participant a task
"""


def build_parser(prog: str = "hyper_bids") -> Parser:
    """Return the parser of the BIDS-App command line."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} bids_dir output_dir {{participant,group}} [flags]",
        description="Reconstruct what people saw from their brain activity (HYPER). A BIDS App.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("bids_dir", help="root folder of a valid BIDS dataset")
    parser.add_argument("output_dir", help="where the derivatives go")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: decode each participant; group: tables and tests over participants",
    )
    add_selection(parser)
    group = parser.add_argument_group("how it is decoded")
    add_responses(group)
    add_voxels(group)
    add_decoding(group)
    add_maps(parser)
    add_scores(parser)
    add_running(parser)
    return parser


def parse(argv: list[str], prog: str = "hyper_bids") -> tuple[Settings, dict[str, object]]:
    """Return the settings, and what concerns this call alone (dry_run, verbose, quiet)."""
    parser = build_parser(prog)
    given = vars(parser.parse_args(with_hyphens(argv)))
    call = {key: given.pop(key, False) for key in ("dry_run", "verbose", "quiet", "notrack")}
    if "derivatives" in given:
        given["derivatives"] = tuple(given["derivatives"])
    config_file = given.pop("config_file", None)
    stated = from_toml(config_file) if config_file else {}
    stated = {name: _as_flag(parser, config_file, name, value) for name, value in stated.items()}
    settings = with_values(with_values(Settings(), stated), given)
    if settings.voxels.mask_labels and settings.voxels.decoder_mask is None:
        raise UsageError("--mask-labels needs a label image: give it as --decoder-mask FILE.")
    if settings.decoder.refit_permutations and settings.decoder.decoder != "ridge":
        raise UsageError(
            f"--refit-permutations: shares what refits of ridge have in common; --decoder "
            f"{settings.decoder.decoder} has no such test. Use --decoder ridge, or leave it out."
        )
    mask = settings.voxels.decoder_mask
    # A link to content that was not fetched is refused later, with all others.
    if mask is not None and not (Path(mask).is_file() or Path(mask).is_symlink()):
        raise UsageError(f"--decoder-mask {mask}: no such file.{file_hint(mask)}")
    return settings, call


def _as_flag(parser: Parser, config_file: str, name: str, value: object) -> object:
    """Return a setting of a file as the flag of its name would convert it."""
    action = next(action for action in parser._actions if action.dest == name)
    entries = value if isinstance(value, tuple) else (value,)
    found = []
    for entry in entries:
        try:
            if action.choices is not None and entry not in action.choices:
                accepted = ", ".join(action.choices)
                raise argparse.ArgumentTypeError(f"{entry!r} is none of {accepted}")
            converted = action.type(str(entry)) if action.type else entry
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"--config-file {config_file}: {name}: {error}.") from None
        found += converted if isinstance(converted, tuple) else (converted,)
    return tuple(found) if isinstance(value, tuple) else found[0]
