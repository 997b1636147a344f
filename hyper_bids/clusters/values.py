"""The texts of flags of ``hyper_bids slurm`` to their values, or what would be accepted."""

from __future__ import annotations

import argparse
import re
import shlex


def word(text: str) -> str:
    """Convert a name as Slurm has them."""
    if not re.fullmatch(r"[\w.,@+-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name; letters, digits and _.,@+- are")
    return text


def time(text: str) -> str:
    """Convert a time limit as Slurm takes it."""
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of MINUTES, MM:SS, HH:MM:SS, DAYS-HH, DAYS-HH:MM and DAYS-HH:MM:SS"
        )
    return text


def place_on_node(text: str) -> str:
    """Convert a folder on the nodes, which need not be here."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no absolute path; SLURM_TMPDIR and TMPDIR are taken by themselves"
        )
    return text


def gpus(text: str) -> str:
    """Convert a number of GPUs, with or without their type."""
    if not re.fullmatch(r"([\w.-]+:)?[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor TYPE:NUMBER, as a100:1")
    return text


def command(text: str) -> tuple[str, ...]:
    """Convert a command to its words."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no command ({error})") from None
    if not words:
        raise argparse.ArgumentTypeError("it is empty; leave out the flag for this installation")
    return words
