"""Flags of ``hyper_bids slurm``."""

from __future__ import annotations

import argparse

from hyper_bids.clusters import values
from hyper_bids.converters import Extend, Parser, labels, megabytes, one_or_more

_FOLDER = "hyper_slurm"

_EPILOG = """\
Flags of the app stand after --, as in
  hyper_bids slurm DATASET OUT --image hyper.sif --throttle 50 -- -d /data/fmriprep --n-voxels 2000
"""


def build_parser() -> Parser:
    """Return the parser of the command; what stands after ``--`` is the app's."""
    parser = Parser(
        prog="hyper_bids slurm",
        usage="hyper_bids slurm bids_dir output_dir [flags] [-- flags of the app]",
        description="Write the scripts that run the app on a Slurm cluster, one participant a task "
        "of an array and the group level after them; with --submit, submit them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", help="root folder of a valid BIDS dataset")
    parser.add_argument("output_dir", help="where the derivatives go")
    parser.add_argument(
        "--participant-label",
        nargs="+",
        action=Extend,
        default=(),
        metavar="LABEL",
        type=labels("sub", "--participant-label"),
        help="participants (all)",
    )
    _add_program(parser)
    _add_job(parser)
    group = parser.add_argument_group("arrays")
    group.add_argument(
        "--max-array",
        type=one_or_more,
        metavar="N",
        help="tasks of one array at most (the cluster's MaxArraySize, else 1001)",
    )
    group.add_argument(
        "--throttle", type=one_or_more, metavar="K", help="tasks at a time at most (no limit)"
    )
    group.add_argument(
        "--group",
        choices=("afterok", "afterany", "none"),
        default="afterok",
        help="group level: when all participants are finished (default), when all have ended, with "
        "a report of those that failed, or not at all",
    )
    group.add_argument("--submit", action="store_true", help="submit what was written")
    _add_places(parser)
    return parser


def _add_program(parser: Parser) -> None:
    group = parser.add_argument_group("what is run")
    program = group.add_mutually_exclusive_group()
    program.add_argument(
        "--image", metavar="FILE", help="container image, run by Apptainer or Singularity"
    )
    program.add_argument(
        "--command",
        type=values.command,
        metavar="WORDS",
        help="command instead of an image (this installation of hyper_bids)",
    )
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SOURCE[:TARGET[:ro]]",
        help="also show this path to the container; may be given several times",
    )
    group.add_argument(
        "--setup",
        action="append",
        default=[],
        metavar="LINE",
        help="line of shell before the app, such as 'module load apptainer'; several times",
    )


def _add_job(parser: Parser) -> None:
    group = parser.add_argument_group("what each task asks for")
    group.add_argument(
        "--partition", type=values.word, metavar="NAME", help="(the cluster's default)"
    )
    group.add_argument("--account", type=values.word, metavar="NAME", help="(your default)")
    group.add_argument(
        "--time",
        type=values.time,
        metavar="TIME",
        help="as Slurm takes it, such as 2:00:00 (estimated)",
    )
    group.add_argument(
        "--mem", type=megabytes, metavar="SIZE", help="with a unit, 16G or 16000M (estimated)"
    )
    group.add_argument("--cpus", type=one_or_more, default=4, metavar="N", help="processors (4)")
    group.add_argument("--gpus", type=values.gpus, metavar="[TYPE:]N", help="GPUs (none)")
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="another option of sbatch, such as --sbatch=--qos=long; may be given several times",
    )


def _add_places(parser: Parser) -> None:
    group = parser.add_argument_group("places")
    group.add_argument(
        "--folder",
        default=_FOLDER,
        metavar="DIR",
        help=f"new folder for the scripts, on storage that all nodes see (./{_FOLDER})",
    )
    work = group.add_mutually_exclusive_group()
    work.add_argument(
        "-w",
        "--work-dir",
        metavar="DIR",
        help="intermediate results, on storage that all nodes see (work in the folder of scripts)",
    )
    work.add_argument(
        "--node-local",
        action="store_true",
        help="intermediate results on each task's node; a task that starts again begins anew",
    )
    group.add_argument(
        "--keep-work", action="store_true", help="keep those of participants that are finished"
    )
    group.add_argument(
        "--scratch",
        type=values.place_on_node,
        metavar="DIR",
        help="temporary files on the node (SLURM_TMPDIR, else TMPDIR, else /tmp)",
    )
