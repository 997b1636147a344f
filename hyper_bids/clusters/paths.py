"""Which paths a container must see, and settings with absolute paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hyper_bids.config import Settings, with_values
from hyper_bids.errors import UsageError

# Below it is all that a container is given: /data or /work may be names that --bind needs.
ROOT = "/hyper_bids"

# Settings that are one path, and those that are several of which some may be names.
_FILES = ("bids_filter_file", "decoder_mask", "atlas", "atlas_names")
_FOLDERS = ("attribute_boundaries",)


def with_absolute_paths(settings: Settings) -> Settings:
    """Return ``settings`` with every path absolute: jobs run in a folder of their own."""
    return _with_paths(settings, _absolute)


def read_paths(settings: Settings) -> list[str]:
    """Return the folders that the app reads, besides the dataset, of absolute ``settings``.

    Of a file it is the folder around it, since some have others beside them: names of regions, the
    second file of a checkpoint.
    """
    files = [_setting(settings, name) for name in _FILES]
    files += [settings.images.generator, *settings.scores.feature_networks]
    files += [method.partition("=")[2] for method in settings.methods]
    folders = [_setting(settings, name) for name in _FOLDERS]
    folders += [_path_of(text) for text in settings.inputs.derivatives]
    found = [str(Path(file).parent) for file in files if file and Path(file).is_absolute()]
    return list(dict.fromkeys([*found, *(folder for folder in folders if folder)]))


def container_view(
    settings: Settings, folder: str, more: tuple[str, ...] = ()
) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings as a container sees them, and what it is given of the file system.

    Names inside are fixed: below its own ``/tmp`` and home, a container has no place for the names
    outside.

    Parameters
    ----------
    settings : Settings
        With absolute paths.
    folder : str
        Of the scripts, from which the settings are read.
    more : tuple of str
        ``SOURCE[:TARGET[:ro]]`` that the user asks for; relative sources are made absolute.

    Returns
    -------
    settings : Settings
        With paths as they are inside.
    binds : tuple of str
        As Apptainer's ``-B`` takes them. What is read cannot be written; OUT and the index can.

    Raises
    ------
    UsageError
        If a path holds a colon or a comma, which ``-B`` takes for marks of its own.
    """
    inside = {settings.bids_dir: f"{ROOT}/data", settings.output_dir: f"{ROOT}/out"}
    written = [settings.output_dir]
    if settings.inputs.bids_database_dir:
        written.append(settings.inputs.bids_database_dir)
        inside[settings.inputs.bids_database_dir] = f"{ROOT}/index"
    for path in read_paths(settings):
        if not any(Path(path).is_relative_to(outer) for outer in inside):
            inside[path] = f"{ROOT}/inputs/{len(inside)}"
    binds = [f"{folder}:{ROOT}/settings:ro"]
    for path, name in inside.items():
        binds.append(f"{path}:{name}" + ("" if path in written else ":ro"))
    for path in (folder, *inside):
        check_container_path(path)

    def rename(path: str) -> str:
        outer = [place for place in inside if Path(path).is_relative_to(place)]
        if not path.startswith("/") or not outer:
            return path
        nearest = max(outer, key=len)
        return str(Path(inside[nearest], Path(path).relative_to(nearest)))

    return _with_paths(settings, rename), (*binds, *map(_bind, more))


def check_container_path(path: str) -> None:
    """Refuse a path that cannot be given to a container.

    Raises
    ------
    UsageError
        If it holds a colon or a comma.
    """
    if re.search("[:,]", path):
        raise UsageError(
            f"{path}: holds a colon or a comma, which containers do not take in paths. Rename it, "
            f"or give a link without them."
        )


def _bind(text: str) -> str:
    source, *rest = text.split(":")
    if len(rest) > 2 or "," in text or not source:
        raise UsageError(f"--bind {text!r}: SOURCE[:TARGET[:ro]] is accepted.")
    source = _absolute(source)
    return ":".join([source, *(rest or [source])])


def _absolute(path: str) -> str:
    place = Path(path).expanduser().absolute()
    # With "..", a path seems to lie in a folder that it leaves.
    return str(place.resolve() if ".." in place.parts else place)


def _with_paths(settings: Settings, change: Callable[[str], str]) -> Settings:
    """Return ``settings`` with every path changed; names of models and networks stay."""

    def if_path(text: str) -> str:
        return change(text) if text.startswith("/") or Path(text).is_file() else text

    def named(text: str) -> str:
        name, mark, path = text.partition("=")
        return f"{name}={if_path(path)}" if mark else text

    def derivative(text: str) -> str:
        if "=" not in text or text.startswith("/") or Path(text).is_dir():
            return change(text)
        name, _, path = text.partition("=")
        return f"{name}={change(path)}"

    values: dict[str, object] = {
        "bids_dir": change(settings.bids_dir),
        "output_dir": change(settings.output_dir),
        "derivatives": tuple(map(derivative, settings.inputs.derivatives)),
        "methods": tuple(map(named, settings.methods)),
        "feature_networks": tuple(map(if_path, settings.scores.feature_networks)),
        "generator": if_path(settings.images.generator),
    }
    for name in (*_FILES, *_FOLDERS, "bids_database_dir"):
        given = _setting(settings, name)
        values[name] = None if given is None else change(given)
    return with_values(settings, values)


def _path_of(derivative: str) -> str:
    return derivative if derivative.startswith("/") else derivative.partition("=")[2]


def _setting(settings: Settings, name: str) -> str | None:
    stages = (settings.inputs, settings.voxels, settings.maps, settings.scores)
    return next(getattr(stage, name) for stage in stages if hasattr(stage, name))
