"""The root of the derivative dataset: what it is, where it comes from, and whether it may be there.

All of it is the same, byte for byte, from whichever participant's job it is written.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from hyper_bids import __version__
from hyper_bids.bids.atomic import json_text, write_if_changed
from hyper_bids.bids.dataset import derivative_roots
from hyper_bids.bids.names import layout, of_method
from hyper_bids.container import kind, mount_hint
from hyper_bids.errors import OutputError, UsageError, listing

NAME = "hyper_bids"
BIDS_VERSION = "1.11.1"

_PAPER = (
    "Dado T, Güçlütürk Y, Ambrogioni L, Ras G, Bosch S, van Gerven M, Güçlü U (2022). "
    "Hyperrealistic neural decoding for reconstructing faces from fMRI activations via the GAN "
    "latent space. Scientific Reports 12:141. https://doi.org/10.1038/s41598-021-03938-w"
)

_CITATION = """\
# How to cite

These results were computed with hyper_bids {version}. Please cite the paper whose method it is:

- {paper}

and the dataset that was decoded{dataset}.

Each participant's page (`sub-*.html`) has the methods text of that analysis, with its references.
"""

_README = """\
# {name}

Images that people saw, reconstructed from their brain activity by hyper_bids {version}. The app
estimated one response a trial, fitted a linear map from responses to the latents of an image model
on the training trials, and predicted latents from the test trials, none of which it was fitted on.

| file | what it is |
|---|---|
| `sub-*.html`, `group.html` | pages to read first |
| `sub-*/func/*_desc-trials_statmap.nii.gz`, `.tsv` | responses, one volume and one row a trial |
| `sub-*/func/*_desc-decoder_mask.nii.gz` | voxels that the decoder uses |
| `sub-*/func/*_decoder.npz` | the decoder's weights (`numpy.load`) |
| `sub-*/func/*_desc-predicted_latents.npy`, `.tsv` | predicted latents, one row a test stimulus |
| `sub-*/func/*_desc-stimuli_responses.npy`, `*_latents.npy` | mean responses, for `group --align` |
| `sub-*/func/*_desc-recon_images.npy` | reconstructions, RGB; rows as of the latents |
| `sub-*/func/*_metrics.*` | scores, their controls and null distributions |
| `sub-*/figures` | with `--write-images`: figures of the pages and single images |
| `group_metrics.tsv`, `group_stats.tsv` | all participants' scores, and their means and tests |
| `group_comparisons.tsv` | methods against each other, if there are several |
| `group_alignment.*`, `group_alignment_latents.*` | participants decoded together, with `--align` |
| `logs` | settings of each run, crash reports, how to cite |

Each file has a JSON sidecar with its sources, settings, seed and checksum.
`descriptions.tsv` explains the `desc-` labels.
"""


def write_root(
    output_dir: str | os.PathLike,
    bids_dir: str | os.PathLike,
    description_raw: dict,
    derivatives: tuple[str, ...] | list[str] = (),
    baselines: tuple[str, ...] = (),
) -> int:
    """Write what stands at the root of the derivatives, each file only if its bytes differ.

    Parameters
    ----------
    output_dir, bids_dir : path
        Root of the derivatives and of the raw dataset.
    description_raw : dict
        ``dataset_description.json`` of the raw dataset.
    derivatives : sequence of str
        ``PATH`` or ``NAME=PATH`` of the preprocessed data that were read.
    baselines : sequence of str
        Methods whose outputs have the method's name in ``desc``.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    OutputError
        If the folder holds another program's dataset, or cannot be written.
    """
    output_dir = Path(output_dir)
    _refuse_foreign(output_dir)
    description = dataset_description(output_dir, bids_dir, description_raw, derivatives)
    names = layout()
    described = dict(names["descriptions"])
    for method in baselines:
        for label in names["by_method"]:
            text = f"{names['descriptions'][label]}; method {method}"
            described[of_method(method, label)] = text
    table = "".join(f"desc-{label}\t{text}\n" for label, text in described.items())
    sidecar = {
        "desc_id": {"Description": "Label of the desc entity in file names"},
        "description": {"Description": "What files with this label hold"},
    }
    doi = description_raw.get("DatasetDOI")
    citation = _CITATION.format(
        version=__version__, paper=_PAPER, dataset=f" ({doi})" if doi else ""
    )
    files = {
        "dataset_description.json": json_text(description),
        "README.md": _README.format(name=description["Name"], version=__version__),
        "descriptions.tsv": "desc_id\tdescription\n" + table,
        "descriptions.json": json_text(sidecar),
        ".bidsignore": "".join(f"{pattern}\n" for pattern in names["bidsignore"]),
        "logs/CITATION.md": citation,
    }
    return sum(write_if_changed(output_dir / name, text) for name, text in files.items())


def dataset_description(
    output_dir: str | os.PathLike,
    bids_dir: str | os.PathLike,
    description_raw: dict,
    derivatives: tuple[str, ...] | list[str] = (),
) -> dict:
    """Return the ``dataset_description.json`` of the derivatives."""
    links = dataset_links(output_dir, bids_dir, derivatives)
    program = {
        "Name": NAME,
        "Version": __version__,
        "Description": "Reconstructs what people saw from their brain activity",
    }
    tag = os.environ.get("HYPER_BIDS_DOCKER_TAG")
    if tag:
        program["Container"] = {"Type": "docker", "Tag": tag}
    raw = {"URL": links["raw"]}
    if description_raw.get("DatasetDOI"):
        raw["DOI"] = description_raw["DatasetDOI"]
    described = {
        "Name": f"{NAME} of {description_raw.get('Name') or 'a dataset without a name'}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
    }
    if description_raw.get("License"):
        described["License"] = description_raw["License"]
    return described | {
        "HowToAcknowledge": f"Please cite {_PAPER}",
        "GeneratedBy": [program],
        "SourceDatasets": [raw, *({"URL": url} for name, url in links.items() if name != "raw")],
        "DatasetLinks": links,
    }


def dataset_links(
    output_dir: str | os.PathLike,
    bids_dir: str | os.PathLike,
    derivatives: tuple[str, ...] | list[str] = (),
) -> dict[str, str]:
    """Return what ``bids:<name>:`` stands for in ``Sources``.

    ``raw`` is the raw dataset; preprocessed data have the names of
    :func:`hyper_bids.bids.dataset.derivative_roots`.

    Returns
    -------
    dict
        Name to a path relative to the output folder where both lie in one tree, so that the tree
        can be moved; else to a ``file://`` URI.
    """
    named = {"raw": Path(bids_dir)} | derivative_roots(derivatives)
    return {name: _link(Path(output_dir), path) for name, path in named.items()}


def check_output(output_dir: str | os.PathLike, bids_dir: str | os.PathLike) -> None:
    """Refuse an output folder that would harm a dataset or cannot be written; write nothing.

    Raises
    ------
    UsageError
        If it is the dataset itself, or in it other than below ``derivatives/``.
    OutputError
        If it holds a dataset that another program made, or cannot be written.
    """
    output, raw = Path(output_dir).resolve(), Path(bids_dir).resolve()
    advice = f"Give a folder outside of it, or {raw / 'derivatives' / NAME}."
    if output == raw:
        raise UsageError(f"output_dir {output_dir}: is bids_dir itself. {advice}")
    if output.is_relative_to(raw):
        inside = output.relative_to(raw).parts
        if inside[0] != "derivatives" or len(inside) == 1:
            raise UsageError(
                f"output_dir {output_dir}: lies inside bids_dir as {'/'.join(inside)}, which is "
                f"kept for raw data and other pipelines. {advice}"
            )
    _refuse_foreign(output)
    _probe(output, output_dir)


def _refuse_foreign(output_dir: Path) -> None:
    path = output_dir / "dataset_description.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: cannot be read ({error}). Give another output_dir.") from None
    try:
        programs = [program["Name"] for program in json.loads(text)["GeneratedBy"]]
    except (ValueError, KeyError, TypeError):
        programs = []
    if NAME not in programs:
        maker = listing(programs) if programs else "an unknown program"
        raise OutputError(
            f"{path}: describes a dataset made by {maker}, not by {NAME}, and is never "
            f"overwritten. Give another output_dir."
        )


def _probe(output: Path, given: str | os.PathLike) -> None:
    """Try to write in the folder, or in the nearest one above it that is there."""
    nearest = next(path for path in (output, *output.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".hyper_bids-"):
            pass
    except OSError as error:
        raise OutputError(
            f"output_dir {given}: nothing can be written in {nearest} "
            f"({error.strerror or error}{_owner(nearest)}). Give another folder, or mend its "
            f"rights.{mount_hint(output, writable=True)}"
        ) from None


def _owner(folder: Path) -> str:
    """Say whose a folder is, where it is not of who runs this."""
    owner, own = folder.stat().st_uid, os.geteuid()
    if owner == own:
        return ""
    mounted = folder != Path(folder.anchor)
    advice = f": docker -u {owner}" if mounted and kind() in ("docker", "podman") else ""
    return f"; it belongs to user {owner}, and this runs as user {own}{advice}"


def check_participants(output_dir: str | os.PathLike, labels: Sequence[str]) -> None:
    """Refuse folders of participants that are there and cannot be written.

    Raises
    ------
    OutputError
    """
    root = Path(output_dir)
    own = [root / f"sub-{label}" for label in labels]
    folders = [root / "logs", *own, *(f / name for f in own for name in ("func", "figures"))]
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"{folder}: cannot be written{_owner(folder)}. Mend its rights, or give another "
                f"output_dir."
            )


def _link(output_dir: Path, path: Path) -> str:
    output, target = output_dir.resolve(), path.resolve()
    common = os.path.commonpath([output, target])
    if common == output.anchor:
        return target.as_uri()
    return urllib.parse.quote(Path(os.path.relpath(target, output)).as_posix())
