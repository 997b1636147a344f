"""What comes out: one stage's part of the derivatives, built in a folder of its own.

:func:`publish` merges the parts into the output folder.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hyper_bids.bids.atomic import atomic, json_text, tsv_text, write_if_changed
from hyper_bids.bids.names import METHOD, figure_path, layout, output_path, page_path
from hyper_bids.bids.publishing import INTERNAL, MANIFEST, figures_of, publish
from hyper_bids.bids.root import check_output, write_root
from hyper_bids.filekinds import sha256

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

    def tables(self, key: str, parts: list[tuple[dict, object]], columns: dict[str, str]) -> None:
        """Write tables of several runs as TSV, and one JSON sidecar that holds for all of them.

        Its name has the entities that they share, and so, by the inheritance principle of BIDS,
        goes for each.

        Parameters
        ----------
        key : str
            Name of the output in ``outputs.json``.
        parts : list of (dict, DataFrame)
            Entities of a run beside those of this part, and its table.
        columns : dict
            Description of each column; the same for all.
        """
        text = layout()["files"][key]["description"]
        shared = dict(
            set(parts[0][0].items()).intersection(*(entities.items() for entities, _ in parts))
        )
        # What runs differ in has no place in the name, such as tasks that this part has joined.
        varies = {name for entities, _ in parts for name in entities} - set(shared)
        own = {name: value for name, value in self._entities.items() if name not in varies}
        sidecar = output_path(key, {**own, **shared})
        for entities, frame in parts:
            path = self._ready(output_path(key, {**self._entities, **entities}))
            path.write_text(tsv_text(frame), encoding="utf-8", newline="\n")
            self._describe(sidecar, path, {"Description": text}, columns)

    def path_of(self, key: str) -> PurePosixPath:
        """Return where an output stands in this part and in the derivatives."""
        return output_path(key, self._entities)

    def figure(self, name: str) -> Path:
        """Return the path of a PNG figure of the page to write; ``name`` is letters and digits.

        The page holds it. It is a file of the derivatives, too, only if :func:`publish` is told so.
        """
        self.figures[name] = figure_path(name, self._entities)
        return self._ready(self.figures[name])

    def picture(self, name: str) -> Path:
        """Return the path of a PNG image to write, which is published and not on the page."""
        return self._ready(figure_path(name, self._entities))

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


def _files(folder: Path) -> list[Path]:
    manifest = folder / MANIFEST
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
