"""The flags of ``import-hyper`` and ``import-responses``. Imports the standard library only."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids.converters import Extend, Parser, labels, name_or_path, one_or_more, with_hyphens
from hyper_bids.errors import UsageError

if TYPE_CHECKING:
    from hyper_bids.importing.commands import Import
    from hyper_bids.importing.encode import ModelEncoder
    from hyper_bids.importing.write import Grid

LOG = logging.getLogger("hyper_bids")

# Prefix of the flags to the name of the set.
_SETS = {"train": "training", "test": "test"}
_ROLES = {
    "responses": "single-trial responses, trials x voxels or volumes",
    "trials": "which of the responses are this set's: row numbers, truth values, or NAME=VALUE",
    "latents": "latents of the stimuli",
    "images": "images of the stimuli",
    "shown": "row of latents and images that each trial showed, if it has no row of its own",
    "runs": "run of each trial, numbered over both sets",
}


def import_hyper_command(argv: list[str]) -> None:
    """Run ``hyper_bids import-hyper``: HYPER's published files into a dataset.

    Parameters
    ----------
    argv : list of str
        The files, the folder, and flags.

    Raises
    ------
    UsageError, InputError, OutputError
        Before anything is written.
    """
    parser = _parser(
        "import-hyper",
        "hyper_bids import-hyper FILE [FILE ...] OUT [flags]",
        "Import HYPER's published files (pickles of X_tr, T_tr, X_te, T_te), each of one "
        "participant, into a dataset that the participant level decodes. Nothing in a file is run.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="such as data_1.dat data_2.dat")
    parser.add_argument("out", metavar="OUT", help="the dataset to make, or of earlier imports")
    _add_participant(parser, "labels, one a file (01, 02, ...)", nargs="+")
    given = parser.parse_args(with_hyphens(argv))
    from hyper_bids.importing.commands import import_hyper

    paths = [Path(file) for file in given.files]
    import_hyper(given.out, paths, list(given.participant_label) or None, given.overwrite)
    _say_next(given.out)


def import_responses_command(argv: list[str]) -> None:
    """Run ``hyper_bids import-responses``: anybody's responses of one participant.

    Parameters
    ----------
    argv : list of str
        The files, the folder (none with ``--list``), and flags.

    Raises
    ------
    UsageError, InputError, OutputError
        Before anything is written.
    """
    given = parse_import(argv)
    from hyper_bids.importing import files

    if given.list:
        for path in given.paths:
            print(files.listed(path))  # noqa: T201  what the user asked to see
        return
    if len(given.paths) < 2:
        raise UsageError(
            f"{given.paths[0]}: one path; the files and then the folder OUT are wanted. --list "
            f"says what a file holds."
        )
    from hyper_bids.importing.commands import import_responses

    *_, out = given.paths
    wanted, encode = _wanted(given)
    import_responses(out, wanted, encode, _grid(given.mask))
    _say_next(out)


def parse_import(argv: list[str]) -> argparse.Namespace:
    """Return the flags of ``hyper_bids import-responses``.

    Raises
    ------
    UsageError
        If a flag is unknown or has no value that it accepts.
    """
    parser = _parser(
        "import-responses",
        "hyper_bids import-responses FILE [FILE ...] OUT [flags]",
        "Import responses to single trials that were estimated elsewhere (.mat, .npz, .npy, .h5, "
        "pickles of arrays) into a dataset that the participant level decodes.",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="the files, then the folder OUT")
    parser.add_argument("--list", action="store_true", help="print what the files hold, and stop")
    _add_participant(parser, "label of the participant (01)")
    group = parser.add_argument_group(
        "what is what", "NAME of a variable, FILE:NAME, or FILE where it holds one; of several, "
        "one after the other",
    )  # fmt: skip
    for flag, name in _SETS.items():
        for role, text in _ROLES.items():
            group.add_argument(
                f"--{flag}-{role}", nargs="+", action=Extend, type=name_or_path, default=(),
                metavar="NAME", help=f"{name} set: {text}",
            )  # fmt: skip
    _add_forms(parser)
    given = parser.parse_args(with_hyphens(argv))
    if len(given.participant_label) > 1:
        raise UsageError(
            f"--participant-label {' '.join(given.participant_label)}: one label is wanted; import "
            f"each participant by itself, into the same folder."
        )
    return given


def _add_forms(parser: Parser) -> None:
    group = parser.add_argument_group("how it is read")
    group.add_argument(
        "--order",
        choices=("auto", "trials-first", "trials-last"),
        default="auto",
        help="axis of the responses on which trials are (auto: as sizes agree)",
    )
    group.add_argument(
        "--drop-voxels",
        action="store_true",
        help="leave out voxels with a value that is not finite",
    )
    group.add_argument(
        "--mask", metavar="FILE", help="NIfTI image of where the voxels are, above 0 (unknown)"
    )
    group.add_argument(
        "--count-from",
        type=int,
        choices=(0, 1),
        default=0,
        help="number of the first row in row numbers; 1 in MATLAB (0)",
    )
    group.add_argument(
        "--image-shape", nargs=2, type=one_or_more, metavar=("H", "W"),
        help="height and width of images that are rows of numbers (found)",
    )  # fmt: skip
    group.add_argument(
        "--image-axes", metavar="AXES", help="letters of the axes, such as nhwc or nchw (found)"
    )
    group.add_argument(
        "--image-range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="values of black and of full intensity (found)",
    )  # fmt: skip
    group.add_argument(
        "--image-columns", action="store_true", help="a row has its image column by column (MATLAB)"
    )
    group.add_argument(
        "--generator",
        metavar="MODEL",
        help="image model of the latents, a file or a name; without latents, it encodes the images "
        "(eigenfaces of the training images)",
    )


def _wanted(given: argparse.Namespace) -> tuple[Import, ModelEncoder | None]:
    """Return what is to be imported, and what encodes images, if it was chosen."""
    from hyper_bids.importing.commands import Import
    from hyper_bids.importing.encode import ModelEncoder, load_encoder
    from hyper_bids.importing.pictures import Pictures

    flags = vars(given)
    variables = {
        f"{name} {role}": flags[f"{flag}_{role}"]
        for flag, name in _SETS.items()
        for role in _ROLES
        if flags[f"{flag}_{role}"]
    }
    low, high = given.image_range or (None, None)
    shape = tuple(given.image_shape) if given.image_shape else None
    pictures = Pictures(shape, given.image_axes, given.image_columns, low, high)
    encode, model = None, {}
    if given.generator and any(role.endswith("latents") for role in variables):
        model = _model_of_latents(given.generator)
    elif given.generator:
        encode = ModelEncoder(load_encoder(given.generator))
    wanted = Import(
        paths=tuple(Path(path) for path in given.paths[:-1]),
        variables=variables,
        participant=given.participant_label[0] if given.participant_label else "01",
        pictures=pictures,
        order=given.order,
        first=given.count_from,
        drop_voxels=given.drop_voxels,
        overwrite=given.overwrite,
        **model,
    )
    return wanted, encode


def _model_of_latents(name: str) -> dict[str, object]:
    """Return name, checksum and number of latents of the model that latents are of.

    A model whose weights are not at hand can be named; a path, and a name that the app knows, is
    loaded.
    """
    from hyper_bids.generators import checkpoints

    path = Path(name)
    if name not in checkpoints.KNOWN and not path.suffix and path.name == name:
        return {"generator": name}
    model = checkpoints.load(name)
    known = {"generator": model.name, "n_latents": model.n_latents}
    return known | ({"generator_checksum": model.checksum} if model.checksum else {})


def _grid(path: str | None) -> Grid | None:
    if path is None:
        return None
    from hyper_bids import volumes
    from hyper_bids.importing.write import Grid

    return Grid(volumes.read_mask(path), volumes.read_header(path).affine)


def _parser(name: str, usage: str, text: str) -> Parser:
    return Parser(
        prog=f"hyper_bids {name}",
        usage=usage,
        description=text,
        epilog="docs/importing.md has commands to copy.",
        allow_abbrev=False,
    )


def _add_participant(parser: Parser, text: str, **more: object) -> None:
    parser.add_argument(
        "--participant-label", action=Extend, type=labels("sub", "label"), default=(),
        metavar="LABEL", help=text, **more,
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace participants that are there"
    )


def _say_next(out: str) -> None:
    LOG.info("Next: hyper_bids %s RESULTS participant", out)
