"""Flags: how and where it runs."""

from __future__ import annotations

from hyper_bids import __version__
from hyper_bids.converters import (
    Parser,
    device,
    megabytes,
    one_or_more,
)


def add_running(parser: Parser) -> None:
    """Add the flags that say how and where it runs."""
    group = parser.add_argument_group("how it runs")
    group.add_argument("-w", "--work-dir", metavar="DIR", help="intermediate files (./work)")
    group.add_argument(
        "--nprocs",
        "--nthreads",
        "--n-cpus",
        dest="nprocs",
        type=one_or_more,
        metavar="N",
        help="processors to use (all that the job may use)",
    )
    group.add_argument(
        "--omp-nthreads", type=one_or_more, metavar="N", help="threads of one process"
    )
    memory = group.add_mutually_exclusive_group()
    memory.add_argument(
        "--mem-mb", type=one_or_more, metavar="MB", help="memory to use, in megabytes"
    )
    memory.add_argument(
        "--mem-gb",
        dest="mem_mb",
        metavar="GB",
        help="in gigabytes",
        type=lambda text: one_or_more(text) * 1024,
    )
    memory.add_argument(
        "--mem", dest="mem_mb", type=megabytes, metavar="SIZE", help="with a unit, 16G or 16000M"
    )
    group.add_argument(
        "--device",
        type=device,
        metavar="{auto,cpu,cuda,cuda:N}",
        help="where images are made and dense decoders trained (auto)",
    )
    group.add_argument(
        "--use-plugin",
        choices=("auto", "linear", "multiproc", "SLURM", "SGE", "PBS", "LSF", "OAR"),
        help="nipype's way to run the participants (auto); those in capitals submit each stage",
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="stop at the first failure"
    )
    group.add_argument("--config-file", metavar="FILE", help="TOML; flags on the command line win")
    group.add_argument(
        "--dry-run", action="store_true", help="check all inputs, print the plan, stop"
    )
    group.add_argument(
        "--notrack", action="store_true", help="accepted; the app sends nothing anyway"
    )
    group.add_argument("-v", "--verbose", action="count", help="say more; -vv for debugging")
    group.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    group.add_argument("--version", action="version", version=f"hyper_bids {__version__}")
