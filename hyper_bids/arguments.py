"""The flags: what the user may type, turned into settings. Imports the standard library only."""

from __future__ import annotations

import argparse
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.config import Settings, from_toml, with_values
from hyper_bids.converters import (
    Extend,
    Parser,
    above_zero,
    auto_or_more,
    auto_or_number,
    cross_validation,
    device,
    fraction,
    labels,
    megabytes,
    method,
    name_or_path,
    one_or_more,
    positive,
    whole_numbers,
    with_hyphens,
    words,
    zero_or_more,
)
from hyper_bids.errors import UsageError

EPILOG = """\
exit status:
  0 all well; 1 a participant failed while it was computed; 64 wrong usage; 65 wrong input data;
  69 a device that was asked for is not there; 70 an error inside the app; 73 the output or work
  folder cannot be used; 130 interrupted. The last line of the log says the same.

other commands:
  hyper_bids simulate OUT   write a synthetic BIDS dataset with known latents
  hyper_bids demo OUT       simulate two participants, decode them, and say where to look
  hyper_bids convert-weights IN OUT   a public PGGAN or VAE-GAN to the app's .safetensors
  hyper_bids train-vaegan IMAGES OUT   a VAE-GAN of a folder of images
  hyper_bids fit-eigenface IMAGES OUT   eigenfaces of a folder of images
  hyper_bids import-hyper FILES OUT   HYPER's published responses to a dataset for this app
  hyper_bids import-responses FILES OUT   anybody's responses and latents or images, likewise
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
    _add_selection(parser)
    group = parser.add_argument_group("how it is decoded")
    _add_responses(group)
    _add_voxels(group)
    _add_decoding(group)
    _add_scores(parser)
    _add_running(parser)
    return parser


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group("what is read")
    for flag, alias, prefix, dest in (
        ("--participant-label", (), "sub", "participant_label"),
        ("--session-label", ("--session-id",), "ses", "session_label"),
        ("--task-id", ("-t",), "task", "task_id"),
        ("--run-id", (), "run", "run_id"),
        ("--test-run-id", (), "run", "test_run_id"),
    ):
        text = (
            "runs whose trials test (where the events do not say)"
            if dest == "test_run_id"
            else f"labels, with or without {prefix}-"
        )
        group.add_argument(
            flag,
            *alias,
            dest=dest,
            nargs="+",
            action=Extend,
            metavar="LABEL",
            type=labels(prefix, flag),
            help=text,
        )
    group.add_argument(
        "--test-repeated",
        action="store_true",
        help="stimuli shown in more than one run are the test set",
    )
    group.add_argument(
        "--allow-shared-stimuli",
        action="store_true",
        help="let one stimulus stand in training and test (categories; not for identities)",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        action="extend",
        metavar="[NAME=]PATH",
        help="preprocessed BOLD, masks and confounds (fMRIPrep or alike); else raw BOLD",
    )
    group.add_argument(
        "--no-realign",
        action="store_true",
        help="raw BOLD is aligned already: leave it as it is",
    )
    group.add_argument("--space", metavar="SPACE", help="space of the preprocessed BOLD")
    group.add_argument(
        "--desc-label", metavar="DESC", help="desc- of the preprocessed BOLD (preproc)"
    )
    group.add_argument("--bids-filter-file", metavar="FILE", help='JSON: {"bold": {entity: value}}')
    group.add_argument("--bids-database-dir", metavar="DIR", help="keep pybids' index here")
    group.add_argument("--bids-database-wipe", action="store_true", help="build that index anew")
    group.add_argument(
        "--skip-bids-validation",
        "--skip-bids-validator",
        dest="skip_bids_validation",
        action="store_true",
        help="do not run the BIDS validator, where one is installed",
    )


def _add_responses(group) -> None:
    group.add_argument(
        "--betas",
        dest="estimator",
        choices=("lsa", "lss", "optimised"),
        help="all trials in one model, a model a trial, or all trials with a response shape, noise "
        "components and shrinkage that training trials choose (optimised)",
    )
    group.add_argument(
        "--hrf",
        choices=("auto", "glover", "spm"),
        help="response shape (auto: optimised, each voxel its own; else glover)",
    )
    group.add_argument(
        "--drift-order",
        type=auto_or_number,
        metavar="{auto,N}",
        help="polynomial drift order (auto: the one that training runs choose)",
    )
    group.add_argument(
        "--noise-model",
        choices=("auto", "ols", "ar1"),
        help="white noise, or autocorrelated (auto: optimised, what training runs choose; else "
        "ols)",
    )
    group.add_argument(
        "--noise-components",
        type=auto_or_number,
        metavar="{auto,N}",
        help="principal components of voxels that do not respond (auto: optimised, as many as "
        "training runs choose; else 0)",
    )
    group.add_argument(
        "--shrinkage",
        choices=("auto", "none"),
        help="optimised: draw betas towards a voxel's mean response (auto: if it helps)",
    )
    group.add_argument(
        "--confounds",
        nargs="+",
        type=words,
        action=Extend,
        metavar="NAME",
        help="none, motion6 (default), motion24, acompcor, spikes, or columns of the file",
    )
    group.add_argument(
        "--dummy-scans", type=zero_or_more, metavar="N", help="volumes to drop first (0)"
    )
    group.add_argument(
        "--slice-time-ref",
        type=fraction,
        metavar="X",
        help="moment within the TR that a volume stands for, 0 to 1 (0.5)",
    )


def _add_voxels(group) -> None:
    group.add_argument(
        "--n-voxels",
        type=one_or_more,
        metavar="N",
        help="voxels with the highest training-set mean z (4096)",
    )
    group.add_argument(
        "--decoder-mask", metavar="FILE", help="use all voxels of this image instead"
    )
    group.add_argument(
        "--mask-labels",
        nargs="+",
        type=whole_numbers,
        action=Extend,
        metavar="LABEL",
        help="labels to use of a label image given as --decoder-mask",
    )
    group.add_argument(
        "--standardise",
        choices=("run", "train", "none"),
        help="z-score responses within runs (default), by training trials, or not",
    )


def _add_decoding(group) -> None:
    group.add_argument(
        "--decoder", choices=("ridge", "dense", "ols"), help="voxels to latents (ridge)"
    )
    group.add_argument(
        "--cv",
        type=cross_validation,
        metavar="{auto,loo,runs,K}",
        help="training trials that ridge leaves out to choose its penalty: a run (auto, with "
        "several), one trial, or one of K parts",
    )
    for flag, convert, text in (
        ("--epochs", one_or_more, "passes over the training trials (1500)"),
        ("--learning-rate", above_zero, "of Adam (1e-5)"),
        ("--weight-decay", positive, "of Adam, added to the gradient (0.01)"),
        ("--decoder-batch", one_or_more, "trials a step (30)"),
    ):
        group.add_argument(flag, type=convert, metavar="N", help=f"dense decoder: {text}")
    group.add_argument(
        "--methods",
        nargs="+",
        type=method,
        action=Extend,
        metavar="NAME[=FILE]",
        help="hyper (the stimuli's known latents; default), vaegan, eigenface, or any name with an "
        "image model that has an encoder; several are compared",
    )
    group.add_argument(
        "--generator",
        metavar="{auto,none,demo,FILE}",
        help="image model: the one that the dataset names, none, the demo's, or weights",
    )
    group.add_argument(
        "--latent-norm",
        choices=("prior", "none"),
        help="put predictions back on the prior's shell before generating (prior)",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16"),
        help="of PGGAN's convolutions (float32); auto: bf16 where the device computes in it itself",
    )
    group.add_argument(
        "--batch-size",
        type=auto_or_more,
        metavar="{auto,N}",
        help="images at a time; auto: as many as are of use and fit into memory",
    )
    group.add_argument("--write-images", action="store_true", help="also write each image as PNG")
    group.add_argument(
        "--random-seed", type=zero_or_more, metavar="N", help="of all that is drawn (1412)"
    )


def _add_scores(parser: Parser) -> None:
    group = parser.add_argument_group("how it is scored")
    group.add_argument(
        "--feature-network",
        dest="feature_networks",
        nargs="+",
        type=name_or_path,
        action=Extend,
        metavar="{auto,none,NAME,FILE}",
        help="networks that compare images by features: all that are installed (auto), none, "
        "dlib-face, efficientnet-lite0, or weights of VGGFace2 ResNet50 or VGG16",
    )
    group.add_argument(
        "--feature-layer",
        choices=("fc7", "fc6", "pool5"),
        help="layer of VGG16, where its weights are given (fc7)",
    )
    group.add_argument(
        "--attribute-boundaries",
        metavar="DIR",
        help="InterFaceGAN's boundaries of PGGAN: how well gender, age, ... are predicted",
    )
    group.add_argument(
        "--attribute-scores",
        choices=("raw", "normalised"),
        help="project latents as they are, as the paper does (raw), or at the prior's length, as "
        "InterFaceGAN does",
    )
    group.add_argument(
        "--n-permutations", type=one_or_more, metavar="N", help="of each test (10000)"
    )


def _add_running(parser: Parser) -> None:
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
        choices=("auto", "linear", "multiproc"),
        help="nipype's way to run the participants (auto)",
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
    mask = settings.voxels.decoder_mask
    if mask is not None and not Path(mask).is_file():
        raise UsageError(f"--decoder-mask {mask}: no such file.")
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
