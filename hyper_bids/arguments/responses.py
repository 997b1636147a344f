"""Flags: responses to single trials, and which voxels are used."""

from __future__ import annotations

from hyper_bids.converters import (
    Extend,
    auto_or_number,
    fraction,
    one_or_more,
    whole_numbers,
    words,
    zero_or_more,
)


def add_responses(group) -> None:
    """Add the flags of the responses to single trials."""
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


def add_voxels(group) -> None:
    """Add the flags of the choice of voxels."""
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
