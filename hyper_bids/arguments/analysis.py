"""Flags: decoder, methods, image models, maps and scores."""

from __future__ import annotations

from hyper_bids.converters import (
    Extend,
    Parser,
    above_zero,
    auto_or_more,
    auto_or_number,
    cross_validation,
    method,
    name_or_path,
    one_or_more,
    positive,
    zero_or_more,
)


def add_decoding(group) -> None:
    """Add the flags of decoder and image models."""
    group.add_argument(
        "--decoder",
        choices=("ridge", "dense", "ols", "bayes", "averaged", "best"),
        help="voxels to latents (ridge)",
    )
    group.add_argument(
        "--cv",
        type=cross_validation,
        metavar="{auto,loo,runs,K}",
        help="training trials that ridge, averaged and best leave out to choose by: a run (auto, "
        "with several), one trial, or one of K parts",
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
    group.add_argument(
        "--write-images",
        action="store_true",
        help="also write each image, and the figures of the pages (group: too), as PNG files",
    )
    group.add_argument(
        "--random-seed", type=zero_or_more, metavar="N", help="of all that is drawn (1412)"
    )


def add_maps(parser: Parser) -> None:
    """Add the group of flags that say where in the brain."""
    group = parser.add_argument_group("where in the brain")
    group.add_argument(
        "--atlas",
        metavar="FILE",
        help="label image in the space of the BOLD: voxels and what they give, by its regions",
    )
    group.add_argument(
        "--atlas-names",
        metavar="FILE",
        help="names of its regions, .tsv (index, name) or a FreeSurfer look-up table (the one "
        "beside the image)",
    )
    group.add_argument("--no-maps", action="store_true", help="no encoding map, no maps of weights")


def add_scores(parser: Parser) -> None:
    """Add the flags of scores and tests."""
    group = parser.add_argument_group("how it is scored")
    group.add_argument(
        "--feature-network",
        dest="feature_networks",
        nargs="+",
        type=name_or_path,
        action=Extend,
        metavar="{auto,none,NAME,FILE}",
        help="networks that compare images by features: all that are installed (auto), none, "
        "dlib-face, efficientnet-lite0, weights of VGGFace2 ResNet50, VGG16 or AlexNet, or a "
        "network that PyTorch exported, with its JSON file",
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
        "--refit-permutations",
        type=zero_or_more,
        metavar="N",
        help="also shuffle training pairs and refit the ridge decoder so often (0)",
    )
    group.add_argument(
        "--prior-samples",
        type=one_or_more,
        metavar="N",
        help="random latents of the paper's permutation test (1000)",
    )
    group.add_argument(
        "--prior-images",
        type=auto_or_number,
        metavar="{auto,N}",
        help="how many of them get images (auto: 100, or 20 of large images)",
    )
    group.add_argument(
        "--n-permutations", type=one_or_more, metavar="N", help="of each test (10000)"
    )
    _add_group(group)


def _add_group(group) -> None:
    """Add the flags of the group level."""
    group.add_argument(
        "--allow-mixed",
        action="store_true",
        help="group: average results of different settings or versions of the app",
    )
    group.add_argument(
        "--align",
        choices=("none", "ridge-procrustes", "srm"),
        help="group: align participants on training stimuli that all of them saw, and decode their "
        "mean responses, and each by the others' (none)",
    )
