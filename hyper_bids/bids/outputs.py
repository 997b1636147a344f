"""What comes out: one stage's part of the derivatives, and the publication of all parts.

A stage builds its part in a folder of its own (:class:`Fragment`); :func:`publish` merges the parts
into the output folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hyper_bids.bids.atomic import atomic, json_text, tsv_text, write_if_changed
from hyper_bids.bids.names import METHOD, figure_path, layout, output_path, page_path
from hyper_bids.bids.root import check_output, write_root
from hyper_bids.errors import OutputError

__all__ = [
    "MANIFEST",
    "Fragment",
    "atomic",
    "check_output",
    "figures_of",
    "json_text",
    "output_path",
    "publish",
    "sha256",
    "tsv_text",
    "write_if_changed",
    "write_root",
]

MANIFEST = "manifest.json"
INTERNAL = "internal"

_CHUNK = 1 << 20


class Fragment:
    """One stage's part of the derivative dataset, built in a folder of its own.

    Files lie there as they will in the output folder; what only later stages read lies in
    ``internal/`` and is not published.

    Parameters
    ----------
    folder : path
        The stage's folder; made if absent. What an earlier attempt left there is no part of it.
    entities : dict
        Entities of all names, see :func:`output_path`.
    provenance : dict
        Goes into every JSON sidecar: ``Sources`` (BIDS URIs), ``Settings``, ``RandomSeed``,
        ``Simulated``, ``SoftwareVersion``.
    """

    def __init__(self, folder: str | os.PathLike, entities: dict[str, str], provenance: dict):
        self.folder = Path(folder)
        self._entities = dict(entities)
        self._provenance = dict(provenance)
        self._sidecars: dict[PurePosixPath, dict] = {}
        self._columns: dict[PurePosixPath, dict[str, str]] = {}
        self._written: dict[PurePosixPath, list[Path]] = {}
        self._digests: dict[Path, tuple[tuple, str]] = {}
        self.figures: dict[str, PurePosixPath] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without it, a stage that fails half-way is not taken for a finished one.
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._left = {path: _stamp(path) for path in _files(self.folder)}

    @contextmanager
    def file(self, key: str, description: str, **fields: object) -> Iterator[Path]:
        """Give the path of an output to write; afterwards write its JSON sidecar.

        Parameters
        ----------
        key : str
            Name of the output in ``outputs.json``.
        description : str
            What is in the file, for the sidecar.
        **fields
            More of the sidecar, such as ``Units``.

        Yields
        ------
        Path
            To be written within the block.

        Raises
        ------
        FileNotFoundError
            If the block did not write it.
        """
        name = output_path(key, self._entities)
        path = self._ready(name)
        yield path
        if not path.is_file():
            raise FileNotFoundError(f"output {key!r}: {path} was not written")
        said = {"Description": description, **self._grid(path), **fields}
        self._describe(name, path, said, {})

    def of_run(self, entities: dict[str, str]) -> Fragment:
        """Return a view of this part whose names have more entities: those of one run."""
        view = copy.copy(self)
        view._entities = {**self._entities, **entities}
        return view

    def of_all_methods(self) -> Fragment:
        """Return a view of this part whose names have no method: what methods share."""
        view = copy.copy(self)
        view._entities = {k: v for k, v in self._entities.items() if k != METHOD}
        view._provenance = {k: v for k, v in self._provenance.items() if k != "Method"}
        return view

    def table(self, key: str, frame, columns: dict[str, str], **fields: object) -> None:
        """Write a table as TSV, and its JSON sidecar.

        A table and an array or image of one name share one sidecar.

        Parameters
        ----------
        key : str
            Name of the output in ``outputs.json``.
        frame : DataFrame
            The table.
        columns : dict
            Description of each column.
        **fields
            More of the sidecar.

        Raises
        ------
        ValueError
            If the described columns are not those of the table, or a cell holds a tab.
        """
        if set(frame.columns) != set(columns):
            odd = sorted(set(map(str, frame.columns)) ^ set(columns))
            raise ValueError(f"output {key!r}: columns {odd} are not both in table and description")
        name = output_path(key, self._entities)
        path = self._ready(name)
        path.write_text(tsv_text(frame), encoding="utf-8", newline="\n")
        described = {str(column): columns[column] for column in frame.columns}
        text = layout()["files"][key]["description"]
        self._describe(name, path, {"Description": text, **fields}, described)

    def path_of(self, key: str) -> PurePosixPath:
        """Return where an output stands in this part and in the derivatives."""
        return output_path(key, self._entities)

    def figure(self, name: str) -> Path:
        """Return the path of a PNG figure to write; ``name`` is letters and digits."""
        self.figures[name] = figure_path(name, self._entities)
        return self._ready(self.figures[name])

    def page(self) -> Path:
        """Return the path of the participant's page to write."""
        return self._ready(page_path(self._entities["subject"]))

    def internal(self, name: str) -> Path:
        """Return the path of a file for later stages, which is not published."""
        return self._ready(PurePosixPath(INTERNAL, name))

    def close(self) -> str:
        """Write the manifest: files with their SHA-256, figures; return the SHA-256 of it.

        A stage that gives the same files gives the same digest, so that later stages are reused.
        """
        found = {
            path.relative_to(self.folder).as_posix(): self._digest(path)
            for path in _files(self.folder)
            if self._left.get(path) != _stamp(path)
        }
        drawn = {name: str(path) for name, path in self.figures.items()}
        text = json_text({"files": found, "figures": drawn})
        with atomic(self.folder / MANIFEST) as stream:
            stream.write(text)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def _ready(self, name: PurePosixPath) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._left.pop(path, None)
        return path

    def _grid(self, path: Path) -> dict[str, str]:
        # BIDS wants these of images that are no raw data. The grid is that of the BOLD.
        said = {}
        if path.name.endswith(".nii.gz"):
            images = [s for s in self._provenance.get("Sources", ()) if ".nii" in s]
            said["SpatialReference"] = images[0] if images else "orig"
        if path.name.endswith(".nii.gz") and "res" in self._entities:
            said["Resolution"] = "That of the BOLD data in Sources"
        return said

    def _digest(self, path: Path) -> str:
        # Of a large file once, though it stands in two sidecars and the manifest.
        stamp = _stamp(path)
        if self._digests.get(path, ((), ""))[0] != stamp:
            self._digests[path] = (stamp, sha256(path))
        return self._digests[path][1]

    def _describe(self, name: PurePosixPath, path: Path, fields: dict, columns: dict) -> None:
        stem = name.with_name(name.name.split(".")[0])
        sidecar = self._sidecars.setdefault(stem, {})
        # What is said of an array or image holds; of its table, only what was not said of that.
        self._sidecars[stem] = {**sidecar, **fields} if not columns else {**fields, **sidecar}
        self._columns.setdefault(stem, {}).update(columns)
        files = self._written.setdefault(stem, [])
        files[:] = sorted({*files, path})
        said = {**self._sidecars[stem]}
        content = {
            "Description": said.pop("Description"),
            **self._provenance,
            "SHA256": {file.name: self._digest(file) for file in files},
            **dict(sorted(said.items())),
        }
        for column, text in self._columns[stem].items():
            if column in content:
                raise ValueError(f"column {column!r} has the name of a field of the sidecar")
            content[column] = {"Description": text}
        self._ready(stem.with_name(f"{stem.name}.json")).write_text(
            json_text(content), encoding="utf-8", newline="\n"
        )


def publish(
    fragment_folders: Iterable[str | os.PathLike], output_dir: str | os.PathLike
) -> tuple[int, int]:
    """Merge finished stages' files into the output folder.

    A file that is there with the same content is not touched; any other is copied beside its place
    and renamed into it. Nothing is deleted. Pages come last, after the figures that they show.

    Parameters
    ----------
    fragment_folders : iterable of path
        Folders of closed fragments; a later one wins where two have the same file.
    output_dir : path
        Root of the derivatives.

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
        for name, digest in _manifest(folder)["files"].items():
            if PurePosixPath(name).parts[0] != INTERNAL:
                files[name] = (folder / name, digest)
    written = 0
    for name in sorted(files, key=lambda name: (name.endswith(".html"), name)):
        source, digest = files[name]
        written += _publish_file(source, digest, Path(output_dir) / name)
    return written, len(files) - written


def figures_of(folder: str | os.PathLike) -> dict[str, PurePosixPath]:
    """Return the figures of a finished stage: name to path from the root of the derivatives."""
    return {name: PurePosixPath(path) for name, path in _manifest(Path(folder))["figures"].items()}


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    manifest = folder / MANIFEST
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _manifest(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder}: not a finished stage (no readable {MANIFEST}: {error}). Run it again."
        ) from None


def _publish_file(source: Path, digest: str, target: Path) -> bool:
    changed = OutputError(
        f"{source}: changed since its stage finished, so it is not published. Remove the "
        f"participant's work folder and run again."
    )
    if not source.is_file():
        raise changed
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
            raise changed
    return True
