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
from hyper_bids.bids.filters import same_label
from hyper_bids.bids.index import BidsFile, Index, index_participant
from hyper_bids.bids.matching import RUN, VERSION, RunFiles, match_files
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError

__all__ = [
    "Run",
    "chosen_participants",
    "find_runs",
    "is_simulated",
    "participants",
    "read_description",
]

LOG = logging.getLogger("hyper_bids")

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
    matched = match_files(files, raw.files, participant, settings)
    runs = [_run(of_run, datasets) for of_run in matched]
    _check_grid(runs)
    for run in runs:
        volumes.check_complete(run.bold)
        if run.mask is not None:
            volumes.check_complete(run.mask)
        LOG.debug("%s: events %s, mask %s, confounds %s", *_names(run))
    return runs


def _names(run: Run) -> tuple:
    return run.bold, run.events, run.mask or "none", run.confounds or "none"


def _run(of_run: RunFiles, datasets: dict[str, Index]) -> Run:
    bold, mask, confounds = of_run.bold, of_run.mask, of_run.confounds
    header = volumes.read_header(bold.path)
    if header.n_volumes < 2:
        raise InputError(f"{bold.path}: one volume is no time series; leave out this run.")
    if bold.dataset != "raw":
        for kind, found in (("brain mask", mask), ("confounds", confounds)):
            if found is None:
                LOG.warning("%s: it has no %s; going on without.", bold.path, kind)
    return Run(
        bold=bold.path,
        events=of_run.events.path,
        mask=mask.path if mask else None,
        confounds=confounds.path if confounds else None,
        t_r=_repetition_time(bold, header, datasets),
        n_volumes=header.n_volumes,
        shape=header.shape,
        entities={key: value for key, value in bold.entities.items() if key != "subject"},
        sources=tuple(file.uri for file in of_run.there),
    )


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
    keys = set(file.entities) | set(RUN)
    return (
        file.suffix == "bold"
        and file.extension in (".nii", ".nii.gz")
        and "desc" not in file.entities
        and all(
            same_label(file.entities.get(key), bold.entities.get(key))
            for key in keys - set(VERSION)
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
