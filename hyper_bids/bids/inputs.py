"""BIDS in: the runs of one participant, each with its events, mask, confounds and timing."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from hyper_bids import volumes
from hyper_bids.bids.dataset import (
    chosen_participants,
    clean_labels,
    derivative_roots,
    is_simulated,
    participants,
    read_description,
)
from hyper_bids.bids.filters import choose_bold, same_label
from hyper_bids.bids.index import BidsFile, Index, index_participant
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError, listing

__all__ = [
    "Run",
    "chosen_participants",
    "find_runs",
    "is_simulated",
    "participants",
    "read_description",
]

LOG = logging.getLogger("hyper_bids")

# Two images that agree in these are of one run: other entities are versions of its data.
_RUN = ("session", "task", "acquisition", "ceagent", "direction", "run")
# Entities that only some files of a run have.
_VERSION = ("echo", "part", "reconstruction")
_T_R_TOLERANCE = 1e-3  # seconds


@dataclass(frozen=True)
class Run:
    """One run. ``t_r`` is in seconds; ``entities`` has the keys in the BOLD's name, but subject.

    ``sources`` are the BIDS URIs of BOLD, events and, where they are there, mask and confounds.
    """

    bold: Path
    events: Path
    mask: Path | None
    confounds: Path | None
    t_r: float
    n_volumes: int
    shape: tuple[int, int, int]
    entities: dict[str, str]
    sources: tuple[str, ...]


def find_runs(bids_dir: Path | str, participant: str, settings: InputSettings) -> list[Run]:
    """Find the runs of one participant, and check that they can be analysed together.

    BOLD comes from ``settings.derivatives`` where given, with brain mask and confounds, else from
    the dataset itself; events always come from the dataset. Files of other participants are
    neither opened nor listed.

    Parameters
    ----------
    bids_dir : path, root of the raw dataset
    participant : label, with or without ``sub-``
    settings : InputSettings

    Returns
    -------
    list of Run
        Sorted by session, task and run.

    Raises
    ------
    UsageError
        If a flag lets nothing through, or does not say which space or version is meant.
    InputError
        If files are missing, truncated, or do not fit together.
    """
    (participant,) = clean_labels("--participant-label", "sub", [participant])
    raw = index_participant("raw", Path(bids_dir), participant, settings)
    roots = derivative_roots(settings.derivatives)
    preprocessed = [
        index_participant(name, root, participant, settings) for name, root in roots.items()
    ]
    datasets = {index.name: index for index in (raw, *preprocessed)}
    files = [file for index in preprocessed or [raw] for file in index.files]
    bold = choose_bold(files, participant, settings, bool(preprocessed))
    _check_one_version(bold)
    if not any(_is_events(file) for file in raw.files):
        raise InputError(
            f"sub-{participant}: no events found; looked for *_events.tsv in "
            f"{raw.root / f'sub-{participant}'} and for task-*_events.tsv above it."
        )
    bold = sorted(bold, key=_order)
    events = [_events(file, raw) for file in bold]
    runs = [_run(image, table, datasets, files) for image, table in zip(bold, events, strict=True)]
    _check_grid(runs)
    for run in runs:
        volumes.check_complete(run.bold)
        if run.mask is not None:
            volumes.check_complete(run.mask)
        LOG.debug("%s: events %s, mask %s, confounds %s", *_names(run))
    return runs


def _names(run: Run) -> tuple:
    return run.bold, run.events, run.mask or "none", run.confounds or "none"


def _order(file: BidsFile) -> tuple:
    return tuple(
        (value.zfill(12) if value.isdecimal() else value)
        for value in (file.entities.get(key, "") for key in ("session", "task", "run", *_RUN))
    )


def _check_one_version(bold: list[BidsFile]) -> None:
    runs: dict[tuple, list[BidsFile]] = {}
    for file in bold:
        runs.setdefault(tuple(file.entities.get(key) for key in _RUN), []).append(file)
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


def _events(bold: BidsFile, raw: Index) -> BidsFile:
    tables = [file for file in raw.files if _is_events(file)]
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


def _run(
    bold: BidsFile, events: BidsFile, datasets: dict[str, Index], files: list[BidsFile]
) -> Run:
    header = volumes.read_header(bold.path)
    if header.n_volumes < 2:
        raise InputError(f"{bold.path}: one volume is no time series; leave out this run.")
    mask = confounds = None
    if bold.dataset != "raw":
        masks = [f for f in files if _is(f, "brain", ("mask",), (".nii.gz", ".nii"))]
        tables = [f for f in files if _is(f, "confounds", ("timeseries", "regressors"), (".tsv",))]
        mask = _companion(bold, masks, same=("space",))
        confounds = _companion(bold, tables)
        for kind, found in (("brain mask", mask), ("confounds", confounds)):
            if found is None:
                LOG.warning("%s: it has no %s; going on without.", bold.path, kind)
    return Run(
        bold=bold.path,
        events=events.path,
        mask=mask.path if mask else None,
        confounds=confounds.path if confounds else None,
        t_r=_repetition_time(bold, header, datasets),
        n_volumes=header.n_volumes,
        shape=header.shape,
        entities={key: value for key, value in bold.entities.items() if key != "subject"},
        sources=tuple(file.uri for file in (bold, events, mask, confounds) if file),
    )


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


def _repetition_time(bold: BidsFile, header: volumes.Header, datasets: dict[str, Index]) -> float:
    stated, source = _stated_repetition_time(bold, datasets)
    if stated is None:
        if header.t_r is None:
            raise InputError(
                f"{bold.path}: RepetitionTime is in no sidecar, and not in the header of the "
                f"image. Add it to the sidecar, in seconds."
            )
        LOG.warning(
            "%s: no sidecar states RepetitionTime; taking %g s from the header.",
            bold.path, header.t_r,
        )  # fmt: skip
        return header.t_r
    if header.t_r is not None and abs(stated - header.t_r) > _T_R_TOLERANCE:
        raise InputError(
            f"{bold.path}: RepetitionTime is {stated:g} s in the sidecars of {source.name}, but "
            f"{header.t_r:g} s in the header of the image. Mend the one that is wrong."
        )
    return stated


def _stated_repetition_time(
    bold: BidsFile, datasets: dict[str, Index]
) -> tuple[float | None, Path | None]:
    """Return what the sidecars of the image say, else what those of the raw image say."""
    candidates = [bold]
    if bold.dataset != "raw":
        candidates += [f for f in datasets["raw"].files if _is_raw_of(f, bold)][:1]
    for file in candidates:
        metadata = datasets[file.dataset].metadata(file)
        value = metadata.get("RepetitionTime")
        if value is None and "VolumeTiming" in metadata:
            raise InputError(
                f"{file.path}: its sidecar has VolumeTiming, volumes at irregular times, which "
                f"the app cannot model. RepetitionTime is wanted."
            )
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise InputError(
                f"{file.path}: RepetitionTime is {value!r} in its sidecar; a number of seconds "
                f"above 0 is wanted."
            )
        return float(value), file.path
    return None, None


def _is_raw_of(file: BidsFile, bold: BidsFile) -> bool:
    keys = set(file.entities) | set(_RUN)
    return (
        file.suffix == "bold"
        and file.extension in (".nii", ".nii.gz")
        and "desc" not in file.entities
        and all(
            same_label(file.entities.get(key), bold.entities.get(key))
            for key in keys - set(_VERSION)
        )
    )


def _check_grid(runs: list[Run]) -> None:
    first = volumes.read_header(runs[0].bold)
    for path in [run.bold for run in runs[1:]] + [run.mask for run in runs if run.mask]:
        header = volumes.read_header(path)
        if volumes.same_grid(first, header):
            continue
        what = "shape" if header.shape != first.shape else "affine"
        both = f" ({header.shape} and {first.shape})" if what == "shape" else ""
        raise InputError(
            f"{path} and {first.path}: they differ in {what}{both}; all runs and masks of a "
            f"participant must lie on one grid. Choose runs, or give preprocessed data."
        )
