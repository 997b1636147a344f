"""``hyper_bids convert-weights IN OUT``: a public checkpoint into the project's weight file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from hyper_bids import filekinds
from hyper_bids.converters import Parser, with_hyphens
from hyper_bids.errors import OutputError, UsageError

LOG = logging.getLogger("hyper_bids")


def convert_weights(argv: list[str]) -> None:
    """Read the weights of a PGGAN or a VAE-GAN in any known format, and write them as safetensors.

    Parameters
    ----------
    argv : list of str
        The two files, and flags.

    Raises
    ------
    InputError
        If the file is damaged, of no known format, or not the weights of either.
    OutputError
        If the file to write is there already, or cannot be written.
    """
    parser = Parser(
        prog="hyper_bids convert-weights",
        description="Convert the weights of a PGGAN (TensorFlow pickle, InterFaceGAN, genforce, "
        "Hugging Face, PyTorch GAN zoo, MXNet) or a VAE-GAN (TensorFlow checkpoint: the .index "
        "file) into the app's .safetensors layout. No code from the file is run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", help="the checkpoint")
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--name", help="name of the weights (the checkpoint's name)")
    parser.add_argument("--licence", help="licence of the weights, where it is not the usual one")
    given = parser.parse_args(with_hyphens(argv))
    source, target = Path(given.source), Path(given.target)
    if target.suffix != ".safetensors":
        raise UsageError(
            f"{target}: the file to write is a .safetensors file; give it that ending."
        )
    if target.exists():
        raise OutputError(f"{target}: there already, and not overwritten. Give another name.")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent}: no such folder. Make it first.")
    if not source.is_file():
        raise UsageError(f"{source}: {filekinds.in_place_of_file(source)}.")
    from hyper_bids.generators import checkpoints, saving

    model, state, about = checkpoints.read_public(source)
    licence = given.licence or about["licence"]
    more = {"frame": about["frame"]} if "frame" in about else {}
    name = given.name or source.stem
    saving.save_network(target, model, state, name, licence, about["format"], **more)
    LOG.info("%s: %s, %d pixels", source.name, about["source"], about["resolution"])
    if about["format"] == "gan-zoo":
        LOG.info("Its latents are not those of the paper's PGGAN; boundaries do not carry over.")
    LOG.info("Licence: %s", licence)
    LOG.info("Written to %s (SHA-256 %s)", target, filekinds.sha256(target))
