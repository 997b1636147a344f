"""Stage 0, for raw BOLD only: all runs aligned to one image, and how the head moved."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyper_bids import figures, motion, volumes
from hyper_bids.bids.outputs import Fragment
from hyper_bids.errors import InputError

LOG = logging.getLogger("hyper_bids")

_BASIC = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_UNIT = {"trans": "mm", "rot": "rad"}
_WORDS = {
    "": "Rigid motion of the volume",
    "_derivative1": "Its change from the volume before",
    "_power2": "Its square",
    "_derivative1_power2": "The square of that change",
}
COLUMNS = {
    **{f"{name}{more}": f"{text}, {_UNIT[name.split('_')[0]]}" + ("" if "2" not in more else "^2")
       for name in _BASIC for more, text in _WORDS.items()},
    "framewise_displacement": "Sum of the absolute changes of the six parameters, rotations on a "
    "sphere of 50 mm (Power et al. 2012), mm",
    "dvars": "Root mean square over brain voxels of the change from the volume before, units of "
    "the BOLD (Power et al. 2012)",
    "std_dvars": "The same over what noise alone would give (Nichols 2013)",
}  # fmt: skip


def align(job: dict, folder: Path) -> str:
    """Align the volumes of all runs to one reference, and write what the head did.

    No distortion correction and no normalisation is done.

    Parameters
    ----------
    job : dict
        ``runs`` (``bold``, ``label``, ``entities``, ``n_volumes``, ``trains``), ``dummy_scans``,
        ``n_threads``, ``entities``, ``provenance``.
    folder : path
        Where this stage's part of the derivatives is built.

    Returns
    -------
    str
        Digest of what was written.
    """
    fragment = Fragment(folder, job["entities"], job["provenance"])
    runs, threads = job["runs"], job["n_threads"]
    # A run that trains: what is computed from the data should not hang on test runs.
    first = next((run for run in runs if run["trains"]), runs[0])
    affine = volumes.read_header(first["bold"]).affine
    reference = _reference(first, affine, job["dummy_scans"], threads)
    brain = volumes.brain_mask(reference, affine)
    found, tables, kept = [], [], brain.copy()
    for index, run in enumerate(runs):
        name = f"run-{index}_bold.nii.gz"
        path = fragment.internal(name)
        parameters, seen = _realign_run(run, reference, affine, brain, path, threads)
        # Of a run that only tests, voxels out of view have no signal in that run.
        kept &= seen if run["trains"] else True
        volumes.write_mask(fragment.internal(f"run-{index}_seen.nii.gz"), seen, affine)
        displacement = motion.framewise_displacement(parameters)
        changes, standardised = motion.dvars(volumes.read_masked(path, brain))
        tables.append((run["entities"], _table(parameters, displacement, changes, standardised)))
        LOG.info(
            "%s: realigned; mean framewise displacement %.2f mm, largest %.2f mm",
            run["label"], np.nanmean(displacement), np.nanmax(displacement),
        )  # fmt: skip
        confounds = fragment.of_run(run["entities"]).path_of("motion_confounds")
        found.append((name, confounds, parameters, displacement, standardised))
    _write_confounds(fragment, tables)
    if not kept.any():
        raise InputError(
            f"{Path(first['bold']).name} and the other runs: no voxel of the brain is in view in "
            f"all volumes of the runs that train. Leave out the runs that moved away (--run-id), "
            f"or use --no-realign."
        )
    volumes.write_mask(fragment.internal("mask.nii.gz"), kept, affine)
    _write(fragment, reference, kept, affine, found, runs)
    return fragment.close()


def _reference(run: dict, affine: np.ndarray, dummy_scans: int, threads: int) -> np.ndarray:
    steady = run["n_volumes"] - dummy_scans
    wanted = set((dummy_scans + motion.evenly_spaced(steady)).tolist())
    some = [v.copy() for k, v in enumerate(volumes.iterate(run["bold"])) if k in wanted]
    try:
        return motion.motion_reference(some, affine, threads)
    except ValueError as error:
        raise InputError(f"{Path(run['bold']).name}: {error}. Use --no-realign.") from None


def _realign_run(
    run: dict, reference: np.ndarray, affine: np.ndarray, brain: np.ndarray, path: Path,
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Write a run's realigned volumes, 0 outside the brain; return motion and what was in view."""
    parameters, seen = [], brain.copy()

    def moved() -> Iterator[np.ndarray]:
        steps = motion.realign(volumes.iterate(run["bold"]), reference, affine, brain, threads)
        for found, volume in steps:
            parameters.append(found)
            np.logical_and(seen, motion.in_view(found, reference, affine), out=seen)
            yield np.where(brain, volume, 0)

    try:
        volumes.write_series(path, moved(), (*brain.shape, run["n_volumes"]), affine)
    except ValueError as error:
        raise InputError(
            f"{Path(run['bold']).name}, volume {len(parameters)} (counted from 0): {error}. Leave "
            f"out the run (--run-id), or use --no-realign."
        ) from None
    return np.array(parameters), seen


def _table(parameters: np.ndarray, displacement, changes, standardised):
    import pandas as pd

    frame = {}
    for name, values in zip(_BASIC, parameters.T, strict=True):
        change = np.concatenate([[np.nan], np.diff(values)])
        frame |= {name: values, f"{name}_derivative1": change, f"{name}_power2": values**2}
        frame[f"{name}_derivative1_power2"] = change**2
    frame |= {
        "framewise_displacement": displacement,
        "dvars": changes,
        "std_dvars": standardised,
    }
    return pd.DataFrame(frame)[list(COLUMNS)]


def _write_confounds(fragment: Fragment, tables: list[tuple[dict, object]]) -> None:
    """Write each run's table, with one sidecar for the runs of a session."""
    of_session: dict[str | None, list] = {}
    for entities, frame in tables:
        of_session.setdefault(entities.get("session"), []).append((entities, frame))
    for parts in of_session.values():
        fragment.tables("motion_confounds", parts, COLUMNS)


def _write(fragment: Fragment, reference, kept, affine, found: list[tuple], runs: list) -> None:
    with fragment.file(
        "reference", "Image that all volumes of all runs were aligned to: the median of some "
        "volumes of one run, aligned to each other.", Units="arbitrary",
    ) as path:  # fmt: skip
        everywhere = np.ones(reference.shape, bool)
        volumes.write_map(path, reference[everywhere], everywhere, affine)
    names, confounds, parameters, displacement, standardised = zip(*found, strict=True)
    labels = [run["short"] for run in runs]
    figures.save(
        figures.motion_traces(parameters, displacement, standardised, labels),
        fragment.figure("motion"),
    )
    figures.save(figures.reference_outline(reference, kept), fragment.figure("boldref"))
    fragment.internal("motion.json").write_text(
        json.dumps({"bold": names, "confounds": [str(path) for path in confounds]}),
        encoding="utf-8",
    )


def aligned(runs: list[dict], folder: Path) -> list[dict]:
    """Return the runs with the BOLD, mask and confounds that :func:`align` wrote to ``folder``."""
    written = json.loads((folder / "internal" / "motion.json").read_text(encoding="utf-8"))
    mask = str(folder / "internal" / "mask.nii.gz")
    return [
        {
            **run,
            "bold": str(folder / "internal" / bold),
            "confounds": str(folder / confounds),
            "mask": mask,
            "seen": str(folder / "internal" / bold.replace("_bold", "_seen")),
        }
        for run, bold, confounds in zip(runs, written["bold"], written["confounds"], strict=True)
    ]
