"""The files of one participant, as pybids finds them; other participants are never looked into."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyper_bids.bids.dataset import participants
from hyper_bids.errors import InputError, UsageError, listing

if TYPE_CHECKING:
    from bids import BIDSLayout

    from hyper_bids.config import InputSettings

# Names of pybids for the keys in file names; other keys are called as in the file names.
ENTITIES = {
    "sub": "subject",
    "ses": "session",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
}
SUFFIXES = ("bold", "mask", "events", "timeseries", "regressors")

_OTHER_DATA = "anat|beh|dwi|eeg|fmap|ieeg|meg|micr|motion|mrs|nirs|perf|pet|figures|logs?"
_DATABASE_STATE = "hyper_bids_state.txt"


@dataclass(frozen=True)
class BidsFile:
    """A file, the entities in its name (values as written) and where it stands."""

    path: Path
    entities: dict[str, str]
    suffix: str
    extension: str
    uri: str

    @property
    def dataset(self) -> str:
        """Name of the dataset that holds the file: raw, or a derivative's."""
        return self.uri.split(":")[1]


@dataclass(frozen=True, eq=False)
class Index:
    """One participant's files in one dataset."""

    name: str
    root: Path
    files: list[BidsFile]
    layout: BIDSLayout

    def metadata(self, file: BidsFile) -> dict:
        """Return what the sidecars say of a BOLD file, by inheritance."""
        return dict(self.layout.get_metadata(str(file.path)))


def index_participant(name: str, root: Path, participant: str, settings: InputSettings) -> Index:
    """Index the functional files of one participant, and what the root folder holds.

    Parameters
    ----------
    name : name of the dataset in BIDS URIs, such as raw
    root : root folder of the dataset
    participant : label
    settings : InputSettings, for ``bids_database_dir`` and ``bids_database_wipe``

    Raises
    ------
    InputError
        If a sidecar is no JSON; if a derivative does not hold the participant.
    UsageError
        If the dataset does not hold the participant, or the database folder cannot be used.
    """
    root = Path(root).absolute()
    if not (root / f"sub-{participant}").is_dir():
        kind, flag = (UsageError, "") if name == "raw" else (InputError, "--derivatives ")
        raise kind(
            f"{flag}{root}: there is no folder sub-{participant} in it; there are participants "
            f"{listing(participants(root))}."
        )
    layout = _layout(root, participant, settings)
    paths = layout.get(suffix=list(SUFFIXES), return_type="filename")
    return Index(name, root, [parse_name(Path(p), root, name) for p in sorted(paths)], layout)


def parse_name(path: Path, root: Path, name: str) -> BidsFile:
    """Take the entities from a file's name: ``key-value`` pairs, a suffix and an extension."""
    stem, _, extension = path.name.partition(".")
    *pairs, suffix = stem.split("_")
    entities = {}
    for pair in pairs:
        key, separator, value = pair.partition("-")
        if separator:
            entities[ENTITIES.get(key, key)] = value
    uri = f"bids:{name}:{path.relative_to(root).as_posix()}"
    return BidsFile(path, entities, suffix, f".{extension}", uri)


def _layout(root: Path, participant: str, settings: InputSettings) -> BIDSLayout:
    from bids import BIDSLayout
    from bids.exceptions import BIDSConflictingValuesError
    from bids.layout import BIDSLayoutIndexer

    # pybids matches these against the path below the root; given some, it drops its own.
    ignored = (
        rf"^/sub-(?!{re.escape(participant)}(?:/|$))",
        r"^/(?:code|stimuli|sourcedata|derivatives|models|logs?)(?:/|$)",
        rf"^/sub-[^/]+/(?:ses-[^/]+/)?(?:{_OTHER_DATA})(?:/|$)",
        r"/\.",
    )
    indexer = BIDSLayoutIndexer(
        ignore=[re.compile(pattern) for pattern in ignored],
        suffix="bold",
        extension=[".nii", ".nii.gz", ".json"],
    )
    folder, reset = None, False
    if settings.bids_database_dir is not None:
        folder, reset = _database(root, participant, settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layout = BIDSLayout(
                root,
                validate=False,
                config=["bids", "derivatives"],
                indexer=indexer,
                database_path=folder,
                reset_database=reset,
            )
    except (OSError, ValueError, BIDSConflictingValuesError) as error:
        raise InputError(
            f"{root}: the files of sub-{participant} cannot be indexed: "
            f"{' '.join(str(error).split())}"
        ) from None
    except Exception as error:
        # SQLAlchemy has its own errors for a folder that it cannot write to.
        if folder is None or not type(error).__module__.startswith("sqlalchemy"):
            raise
        raise UsageError(
            f"--bids-database-dir {settings.bids_database_dir}: pybids cannot keep its index "
            f"there ({type(error).__name__}); give a folder that can be written to."
        ) from None
    if reset:
        (folder / _DATABASE_STATE).write_text(_state(root, participant), encoding="utf-8")
    return layout


def _database(root: Path, participant: str, settings: InputSettings) -> tuple[Path, bool]:
    """Return the folder of this participant's database, and whether it must be built anew."""
    key = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    folder = Path(settings.bids_database_dir).absolute() / f"sub-{participant}_{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / _DATABASE_STATE
        state = written.read_text(encoding="utf-8") if written.is_file() else None
        fresh = not settings.bids_database_wipe and state == _state(root, participant)
        if not fresh:
            # Written again when the index is complete, so that an interrupted one is not used.
            written.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"--bids-database-dir {settings.bids_database_dir}: cannot be used ({error.strerror})."
        ) from None
    return folder, not fresh


def _state(root: Path, participant: str) -> str:
    """Return a digest of the names of the participant's files, and of the sidecars' times."""
    import bids

    entries = [f"pybids {bids.__version__}", str(root)]
    # Pages of participants (sub-*.html) come and go in a derivative's root.
    top = [e for e in os.scandir(root) if e.is_file() and not e.name.startswith("sub-")]
    below = [
        Path(folder) / name
        for folder, _, names in os.walk(root / f"sub-{participant}", followlinks=True)
        for name in names
    ]
    for path in sorted([*map(Path, top), *below]):
        entry = str(path.relative_to(root))
        if path.suffix == ".json" and path.exists():
            status = path.stat()
            entry += f" {status.st_size} {status.st_mtime_ns}"
        entries.append(entry)
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()
