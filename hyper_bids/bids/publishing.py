"""Stages' parts of the derivatives, merged into the output folder, and the figures in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hyper_bids.bids.atomic import atomic
from hyper_bids.errors import OutputError
from hyper_bids.filekinds import sha256

# In a stage's folder: what it wrote, and the folder of what only later stages read.
MANIFEST = "manifest.json"
INTERNAL = "internal"

_CHUNK = 1 << 20


def publish(
    fragment_folders: Iterable[str | os.PathLike],
    output_dir: str | os.PathLike,
    with_figures: bool = False,
) -> tuple[int, int]:
    """Merge finished stages' files into the output folder.

    A file that is there with the same content is not touched; any other is copied beside its place
    and renamed into it. Nothing is deleted. Pages come last, after what they tell of.

    Parameters
    ----------
    fragment_folders : iterable of path
        Folders of closed fragments; a later one wins where two have the same file.
    output_dir : path
        Root of the derivatives.
    with_figures : bool
        Write the figures of the pages as files, too. One that lies there already is brought up to
        date in any case.

    Returns
    -------
    written, unchanged : int
        Numbers of files.

    Raises
    ------
    OutputError
        If a file cannot be written, or a stage's file is not what it was when it was finished.
    """
    files: dict[str, tuple[Path, str]] = {}
    for folder in map(Path, fragment_folders):
        manifest = _manifest(folder)
        drawn = set(manifest["figures"].values())
        for name, digest in manifest["files"].items():
            # A figure of an earlier run must not stand beside results of this one.
            wanted = name not in drawn or with_figures or (Path(output_dir) / name).is_file()
            if wanted and PurePosixPath(name).parts[0] != INTERNAL:
                files[name] = (folder / name, digest)
    written = 0
    for name in sorted(files, key=lambda name: (name.endswith(".html"), name)):
        source, digest = files[name]
        written += _publish_file(source, digest, Path(output_dir) / name)
    return written, len(files) - written


def figures_of(folder: str | os.PathLike) -> dict[str, bytes]:
    """Return the figures of a finished stage: name to the content of the PNG.

    Raises
    ------
    OutputError
        If the stage is not finished, or a figure is not what it was when it was.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    found = {}
    for name, path in manifest["figures"].items():
        source = folder / path
        content = source.read_bytes() if source.is_file() else b""
        if hashlib.sha256(content).hexdigest() != manifest["files"][path]:
            raise _changed(source)
        found[name] = content
    return found


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder}: not a finished stage (no readable {MANIFEST}: {error}). Run it again."
        ) from None


def _changed(source: Path) -> OutputError:
    return OutputError(
        f"{source}: changed since its stage finished, so it is not published. Remove the "
        f"participant's work folder and run again."
    )


def _publish_file(source: Path, digest: str, target: Path) -> bool:
    if not source.is_file():
        raise _changed(source)
    same_size = target.is_file() and target.stat().st_size == source.stat().st_size
    if same_size and sha256(target) == digest:
        return False
    # A copy, not a hard link: what later happens to the stage's file must not reach the result.
    found = hashlib.sha256()
    with source.open("rb") as stream, atomic(target, "wb") as output:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
            output.write(chunk)
        if found.hexdigest() != digest:
            raise _changed(source)
    return True
