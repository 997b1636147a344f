"""Datasets of DataLad and git-annex: what a job would read whose content is not here.

A file without its content is a link into ``.git/annex/objects`` that leads nowhere, or (unlocked,
or where there are no links) a small text file that names such an object.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hyper_bids.bids.dataset import (
    DESCRIPTION,
    derivative_roots,
    is_import,
    participants,
    read_description,
)
from hyper_bids.bids.events import trial_tables
from hyper_bids.bids.index import SUFFIXES, BidsFile, parse_name
from hyper_bids.bids.inputs import Run
from hyper_bids.bids.matching import RunFiles, match_files
from hyper_bids.bids.stimuli import BEP044, LATENTS, NO_ROW, Stimuli, read_stimuli
from hyper_bids.config import InputSettings
from hyper_bids.container import mount_hint
from hyper_bids.errors import InputError, NotFetchedError, UsageError, counted, listing
from hyper_bids.filekinds import is_absent

# Files of one kind up to this number are named one by one in the command.
_NAMED = 3
_NAMED_IN_STIMULI = 40

_SUB = re.compile(r"sub-([0-9A-Za-z+]+)")
_VARIES = re.compile(r"(?<=_)(ses|run)-[0-9A-Za-z+]+(?=_)")
# More than any scan has, so that no onset is past the end of one that cannot be read yet.
_ENDLESS = 1 << 40


def refuse_absent(paths: Iterable[str | os.PathLike]) -> None:
    """Refuse files whose content is not here, all of them at once.

    Raises
    ------
    NotFetchedError
    """
    absent = [Path(path).absolute() for path in paths if is_absent(path)]
    if absent:
        roots = [root for root in map(_repository, absent) if root]
        raise NotFetchedError(told(absent, roots), absent)


def absent_of_dataset(
    bids_dir: Path | str, chosen: Sequence[str], settings: InputSettings, pictures: str | None
) -> list[Path]:
    """Return what the jobs of participants would read and what is not here, by names alone.

    Parameters
    ----------
    bids_dir : path
    chosen : sequence of str
        Labels of the participants.
    settings : InputSettings
    pictures : str or None
        Whose images the jobs read: ``all`` stimuli's that are shown, those of ``test`` trials, or
        nobody's. They are looked at only where something else is not here.

    Returns
    -------
    list of path
        Absolute. Of a participant whose runs cannot be told, nothing: reading them says why.

    Raises
    ------
    UsageError, InputError
        If events that are here are wrong.
    """
    root = Path(bids_dir).absolute()
    folder = root / "stimuli"
    roots = (root, *derivative_roots(settings.derivatives).values())
    absent, runs = [r / DESCRIPTION for r in roots if is_absent(r / DESCRIPTION)], []
    for label in chosen:
        found, of_label = _absent_of_runs(root, label, settings)
        absent += found
        runs.append(of_label)
    names = (LATENTS, BEP044, "latents.json", "stimuli.json")
    unread = [folder / name for name in names if is_absent(folder / name)]
    if unread or not (folder / LATENTS).is_file():
        # Without the table, any latents may be meant.
        return absent + unread + [p for p in sorted(folder.glob("*.npy")) if is_absent(p)]
    stimuli = read_stimuli(root)
    files = sorted(set(stimuli.table["latent_file"][stimuli.table["latent_row"] != NO_ROW]))
    latents = [folder / name for name in files if is_absent(folder / name)]
    if not absent and not latents:
        return []
    shown = [_shown(of_label, stimuli, settings, pictures) for of_label in runs]
    used = {path for paths in shown for path in (latents if paths is None else paths)}
    return absent + sorted(path for path in used if is_absent(path))


def check_subdatasets(bids_dir: Path | str, chosen: Sequence[str], settings: InputSettings) -> None:
    """Refuse folders of a job that DataLad would have to fill: subdatasets not installed.

    Raises
    ------
    InputError
        With the command that installs them.
    """
    root = Path(bids_dir).absolute()
    given = [Path(text.partition("=")[2] or text) for text in settings.derivatives]
    folders = [root / "stimuli", *(root / f"sub-{label}" for label in chosen)]
    empty = [p for p in (*folders, *(p.absolute() for p in given)) if _is_empty_subdataset(p)]
    if empty:
        top = next(p for p in empty[0].parents if (p / ".gitmodules").is_file())
        names = [os.path.relpath(path, top) for path in empty]
        raise InputError(
            f"{top}: {listing(names, 3)} {'is an' if len(names) == 1 else 'are'} empty "
            f"{'folder' if len(names) == 1 else 'folders'}, of subdatasets that are not installed. "
            f"Install them: cd {shlex.quote(str(top))} && datalad get -n {shlex.join(names)}"
        )


def told(absent: Sequence[Path], roots: Sequence[Path]) -> str:
    """Return the line that says which files lack their content, and what fetches all of them.

    Parameters
    ----------
    absent : sequence of path
        Absolute.
    roots : sequence of path
        Datasets from which paths of the command are told; of several that hold a file, the first.
    """
    files = list(dict.fromkeys(absent))
    groups: dict[Path, list[Path]] = {}
    for file in files:
        root = next((r for r in roots if file.is_relative_to(r)), file.parent)
        groups.setdefault(Path(root), []).append(file)
    labels = {m[1] for file in files for part in file.parts if (m := _SUB.fullmatch(part))}
    whose = f" of {counted(len(labels), 'participant')}" if labels else ""
    what = "file is" if len(files) == 1 else "files are"
    shown = f"{len(files):,} {what} here without content (git-annex){whose}: {listing(files, 3)}."
    if not any(_repository(file) for file in files):
        return (
            f"{shown} There is no .git above, so that DataLad cannot fetch it: the dataset was "
            f"copied with its links as links, or is mounted in part. Copy it with rsync -aL, or "
            f"mount all of it.{mount_hint(next(iter(groups)))}"
        )
    commands = [
        f"cd {shlex.quote(str(root))} && datalad get {' '.join(_patterns(root, group))}"
        for root, group in groups.items()
    ]
    command = commands[0] if len(commands) == 1 else " && ".join(f"({c})" for c in commands)
    return f"{shown} Fetch all that is lacking, then run again: {command}"


def _shown(
    runs: list[RunFiles], stimuli: Stimuli, settings: InputSettings, pictures: str | None
) -> set[Path] | None:
    """Return latents and images that the trials of runs need; None where events are not here."""
    if not runs or any(is_absent(run.events.path) for run in runs):
        return None
    endless = [
        Run(
            bold=run.bold.path, events=run.events.path, mask=None, confounds=None, t_r=1.0,
            n_volumes=_ENDLESS, shape=(1, 1, 1), sources=(),
            entities={k: v for k, v in run.bold.entities.items() if k != "subject"},
        )
        for run in runs
    ]  # fmt: skip
    frame = trial_tables(endless, stimuli, settings).trials
    names = set(frame["latent_file"])
    if pictures is not None:
        used = frame if pictures == "all" else frame[frame["split"] == "test"]
        names |= {name for name in used["stim_file"] if name != "n/a"}
    return {stimuli.folder / name for name in names}


def _absent_of_runs(
    root: Path, participant: str, settings: InputSettings
) -> tuple[list[Path], list[RunFiles]]:
    if not is_absent(root / DESCRIPTION) and is_import(read_description(root)):
        own = root / f"sub-{participant}"
        paths = [path for path in _paths(root, participant) if path.is_relative_to(own)]
        return [path for path in paths if is_absent(path)], []
    roots = derivative_roots(settings.derivatives)
    raw = _listed("raw", root, participant)
    files = [f for name, folder in roots.items() for f in _listed(name, folder, participant)]
    try:
        runs = match_files(files if roots else raw, raw, participant, settings)
    except (UsageError, InputError):
        return [], []
    wanted = {file.path for run in runs for file in run.there}
    wanted |= {run.confounds.path.with_suffix(".json") for run in runs if run.confounds}
    # pybids reads all sidecars of BOLD.
    for folder in (root, *roots.values()):
        wanted |= {p for p in _paths(folder, participant) if p.name.endswith("bold.json")}
    return sorted(path for path in wanted if is_absent(path)), runs


def _paths(root: Path, participant: str) -> list[Path]:
    """List what may concern BOLD: the root, the participant's folder, sessions, and func in them.

    Never ``derivatives/`` and the like, nor other participants.
    """
    own = root / f"sub-{participant}"
    folders = [root, own, own / "func"]
    for session in sorted(own.glob("ses-*")):
        folders += [session, session / "func"]
    return [
        Path(entry.path)
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder)
        if not entry.is_dir() and not entry.name.startswith(".")
    ]


def _listed(name: str, root: Path, participant: str) -> list[BidsFile]:
    files = [parse_name(path, root, name) for path in sorted(_paths(root, participant))]
    return [file for file in files if file.suffix in SUFFIXES]


def _repository(path: Path) -> Path | None:
    # Of git, but not of git-annex, is many a folder. A subdataset's .git is a file.
    return next(
        (p for p in Path(path).absolute().parents if _is_annex(p / ".git")),
        None,
    )


def _is_annex(git: Path) -> bool:
    return git.is_file() or (git / "annex").is_dir()


def _is_empty_subdataset(folder: Path) -> bool:
    if not folder.is_dir() or any(os.scandir(folder)):
        return False
    top = next((p for p in folder.parents if (p / ".gitmodules").is_file()), None)
    # Only the root of the job's datasets counts, not some repository far above.
    return top is not None and os.path.relpath(folder, top) in _submodules(top / ".gitmodules")


def _submodules(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return set(re.findall(r"^\s*path\s*=\s*(.+?)\s*$", text, re.MULTILINE))


def _patterns(root: Path, files: Sequence[Path]) -> list[str]:
    """Return arguments of the shell that stand for at least these files, few if they are many."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(files):
        path = file.relative_to(root)
        folder = re.sub(r"(^|/)ses-[^/]+", r"\1ses-*", _SUB.sub("sub-*", path.parent.as_posix()))
        in_stimuli = path.parts[0] == "stimuli"
        name = (
            f"*{path.suffix}" if in_stimuli else _VARIES.sub(r"\1-*", _SUB.sub("sub-*", path.name))
        )
        kinds.setdefault((folder, name), []).append(path)
    words = []
    for (folder, name), group in kinds.items():
        named = _NAMED_IN_STIMULI if folder.startswith("stimuli") else _NAMED
        if len(group) <= named:
            words += [shlex.quote(path.as_posix()) for path in group]
        else:
            words.append(_pattern(root, folder, name, group))
    return words


def _pattern(root: Path, folder: str, name: str, group: list[Path]) -> str:
    if not folder.startswith("sub-*"):
        prefix = "" if folder == "." else f"{shlex.quote(folder)}/"
        return prefix + name
    labels = sorted({m[1] for path in group if (m := _SUB.match(path.parts[0]))})
    if len(labels) == 1:
        who = f"sub-{labels[0]}"
    elif len(labels) == len(participants(root)):
        who = "sub-*"
    else:
        who = f"sub-{{{','.join(labels)}}}"
    for kind in ("ses", "run"):
        found = {m[0] for path in group for m in _VARIES.finditer(path.name) if m[1] == kind}
        if len(found) == 1:
            folder = folder.replace(f"{kind}-*", *found)
            name = name.replace(f"{kind}-*", *found)
    name = name.replace("sub-*", "*", 1)
    return f"{who}{folder.removeprefix('sub-*')}/{name}"
