"""Which files make up a run: BOLD with its events, mask and confounds, by their names alone."""

from __future__ import annotations

from dataclasses import dataclass

from hyper_bids.bids.filters import choose_bold, same_label
from hyper_bids.bids.index import BidsFile
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError, listing

# Two images that agree in these are of one run: other entities are versions of its data.
RUN = ("session", "task", "acquisition", "ceagent", "direction", "run")
# Entities that only some files of a run have.
VERSION = ("echo", "part", "reconstruction")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run, by their names alone."""

    bold: BidsFile
    events: BidsFile
    mask: BidsFile | None
    confounds: BidsFile | None

    @property
    def there(self) -> tuple[BidsFile, ...]:
        """Those that the run has."""
        return tuple(f for f in (self.bold, self.events, self.mask, self.confounds) if f)


def match_files(
    files: list[BidsFile], raw_files: list[BidsFile], participant: str, settings: InputSettings
) -> list[RunFiles]:
    """Choose the BOLD of a participant, and find what goes with each, by names alone.

    Parameters
    ----------
    files : list of BidsFile
        Of the derivatives, or of the raw dataset where there are none.
    raw_files : list of BidsFile
        Of the raw dataset, which has the events.
    participant : str
        Label, for messages.
    settings : InputSettings

    Returns
    -------
    list of RunFiles
        Sorted by session, task and run.

    Raises
    ------
    UsageError, InputError
        As :func:`find_runs`.
    """
    bold = choose_bold(files, participant, settings, bool(settings.derivatives))
    _check_one_version(bold)
    tables = [file for file in raw_files if _is_events(file)]
    if not tables:
        raise InputError(
            f"sub-{participant}: no events found; looked for *_events.tsv in its folder of the "
            f"raw dataset and for task-*_events.tsv above it."
        )
    bold = sorted(bold, key=_order)
    return [RunFiles(file, _events(file, tables), *_companions(file, files)) for file in bold]


def _companions(bold: BidsFile, files: list[BidsFile]) -> tuple[BidsFile | None, BidsFile | None]:
    if bold.dataset == "raw":
        return None, None
    masks = [f for f in files if _is(f, "brain", ("mask",), (".nii.gz", ".nii"))]
    tables = [f for f in files if _is(f, "confounds", ("timeseries", "regressors"), (".tsv",))]
    return _companion(bold, masks, same=("space",)), _companion(bold, tables)


def _order(file: BidsFile) -> tuple:
    return tuple(
        (value.zfill(12) if value.isdecimal() else value)
        for value in (file.entities.get(key, "") for key in ("session", "task", "run", *RUN))
    )


def _check_one_version(bold: list[BidsFile]) -> None:
    runs: dict[tuple, list[BidsFile]] = {}
    for file in bold:
        runs.setdefault(tuple(file.entities.get(key) for key in RUN), []).append(file)
    several = next((files for files in runs.values() if len(files) > 1), None)
    if several is None:
        return
    names = listing(sorted(file.path.name for file in several))
    datasets = sorted({file.dataset for file in several})
    if len(datasets) > 1:
        raise UsageError(
            f"--derivatives: {listing(datasets)} all have the same run ({names}); give one of them."
        )
    keys = {key for file in several for key in file.entities}
    differing = sorted(k for k in keys if len({f.entities.get(k) for f in several}) > 1)
    raise UsageError(
        f"{names}: several versions of one run, differing in {listing(differing) or 'extension'}. "
        f'Choose with --bids-filter-file, such as {{"bold": {{"{(differing or ["echo"])[0]}": '
        f"VALUE}}}} (null: not in the name)."
    )


def _is_events(file: BidsFile) -> bool:
    return file.suffix == "events" and file.extension == ".tsv"


def _events(bold: BidsFile, tables: list[BidsFile]) -> BidsFile:
    found = _closest(bold, tables)
    if found is None:
        raise InputError(
            f"{bold.path}: there are no events of this run; there are "
            f"{listing(file.path.name for file in tables)}. Add its events to the raw dataset, or "
            f"choose other runs (--task-id, --run-id)."
        )
    return found


def _closest(bold: BidsFile, files: list[BidsFile], same: tuple[str, ...] = ()) -> BidsFile | None:
    """Return the file that goes with ``bold`` by inheritance: no entity of its name contradicts.

    Of several, the one with the most entities in the folder nearest to the image is meant.
    ``same`` are entities that both must have.
    """
    fitting = [
        file
        for file in files
        if all(
            same_label(value, bold.entities.get(key))
            for key, value in file.entities.items()
            if key != "desc"
        )
        and all(file.entities.get(key) == bold.entities.get(key) for key in same)
    ]
    ranks = [(len(file.path.parts), len(file.entities)) for file in fitting]
    best = [file for file, rank in zip(fitting, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        raise InputError(
            f"{bold.path}: {listing(file.path for file in best)} both go with it; keep one."
        )
    return best[0] if best else None


def _is(file: BidsFile, desc: str, suffixes: tuple, extensions: tuple) -> bool:
    return (
        file.entities.get("desc") == desc
        and file.suffix in suffixes
        and file.extension in extensions
        # A mask of the anatomy has no task, and would seem to go with any run.
        and file.path.parent.name != "anat"
    )


def _companion(
    bold: BidsFile, files: list[BidsFile], same: tuple[str, ...] = ()
) -> BidsFile | None:
    """Return what goes with ``bold`` in its own derivative, else what another has."""
    own = [file for file in files if file.dataset == bold.dataset]
    return _closest(bold, own, same) or _closest(bold, files, same)
