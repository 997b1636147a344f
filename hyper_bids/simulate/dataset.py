"""Write a synthetic BIDS dataset whose latents, code and noise are known."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids import __version__
from hyper_bids.errors import OutputError, UsageError
from hyper_bids.simulate.brain import brain_mask, coding_mask
from hyper_bids.simulate.design import check, n_stimuli, n_train_stimuli
from hyper_bids.simulate.recording import (
    DERIVATIVES,
    LATENTS,
    TASK,
    TRUTH,
    Stimuli,
    noise_level,
    participant_label,
    random,
    write_json,
    write_participant,
    write_tsv,
)
from hyper_bids.simulation_settings import SimulationSettings

if TYPE_CHECKING:
    from hyper_bids.generators.protocol import ImageGenerator

NAME = "hyper_bids simulate"  # of the program, in GeneratedBy: how the app knows a simulation
BIDS_VERSION = "1.11.1"
IMAGE_BATCH = 64

_README = """\
# A simulated dataset

Nobody was measured. hyper_bids simulate wrote this dataset: the BOLD signal is computed from
random latents, a planted linear code and noise, to try out and to test hyper_bids. Nothing can be
learned from it about brains.

- `sub-*/func`: BOLD and events of {n_participants} simulated participants, {n_runs} runs each.
  Runs 1 to {n_test_runs} test, the others train (column `split` of the events).
- `stimuli`: {n_stimuli} stimuli. {images}
- `{truth}`: what was planted in each participant: coding voxels, weights, betas, response
  functions, noise and all settings. An analysis must not read it.{derivatives}
"""

_EVENTS = {
    "onset": {"Description": "Start of the stimulus", "Units": "s"},
    "duration": {"Description": "Duration of the stimulus", "Units": "s"},
    "trial_type": {"LongName": "Kind of trial", "Levels": {"face": "A stimulus is shown"}},
    "stim_id": {"Description": "The stimulus: its row in stimuli/latents.tsv"},
    "stim_file": {"Description": "Image of the stimulus, relative to stimuli/"},
    "split": {
        "Description": "Whether the trial trains or tests a decoder",
        "Levels": {
            "train": "Its stimulus is shown once, and never in a test trial",
            "test": "Its stimulus is shown in other test trials too",
        },
    },
}


def simulate(
    out: str | os.PathLike,
    settings: SimulationSettings,
    generator: ImageGenerator | None = None,
) -> Path:
    """Write a valid BIDS dataset with known latents, and the truth that was planted in it.

    The same settings give the same bytes. The model is in ``docs/simulation.md``.

    Parameters
    ----------
    out : path
        Folder of the dataset; it is made, or it is there and empty.
    settings : SimulationSettings
        ``settings.generator`` names the image model that makes the stimuli from the latents:
        "demo" for the embedded one, "none" for latents without images, else a weight file. The
        model decides how many latents there are.
    generator : ImageGenerator, optional
        Used instead of the image model that the settings name.

    Returns
    -------
    Path
        Root of the dataset.

    Raises
    ------
    UsageError
        If a setting is out of range, or settings contradict each other; nothing is written.
    OutputError
        If ``out`` is not an empty folder, or cannot be made.
    """
    from tqdm import tqdm

    check(settings)
    coding_mask(brain_mask(settings.shape), settings.n_coding_voxels)
    generator, settings = _image_model(settings, generator)
    out = _empty_folder(out)
    stimuli = _write_stimuli(out / "stimuli", settings, generator)
    n_runs = settings.n_test_runs + settings.n_train_runs
    # disable=None: shown at a terminal only.
    with tqdm(
        total=n_runs * settings.n_participants, desc="simulate", unit="run", disable=None
    ) as bar:
        for index in range(settings.n_participants):
            write_participant(out, settings, index, stimuli, bar.update)
    _write_root(out, settings, generator)
    return out


def _image_model(
    settings: SimulationSettings, generator: ImageGenerator | None
) -> tuple[ImageGenerator | None, SimulationSettings]:
    """Return the image model, and the settings with its number of latents."""
    if generator is not None:
        settings = dataclasses.replace(settings, generator=generator.name)
    elif settings.generator != "none":
        from hyper_bids.generators import checkpoints

        generator = checkpoints.load(settings.generator)
    if generator is None:
        return None, settings
    # The model decides; only another number than the default was asked for.
    if settings.n_latents not in (generator.n_latents, SimulationSettings.n_latents):
        raise UsageError(
            f"simulation setting n_latents = {settings.n_latents}: the image model "
            f"{generator.name} takes {generator.n_latents}; give that, or generator = none."
        )
    return generator, dataclasses.replace(settings, n_latents=generator.n_latents)


def _empty_folder(out: str | os.PathLike) -> Path:
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        filled = any(out.iterdir())
    except OSError as error:
        raise OutputError(f"{out}: cannot be used as output folder ({error.strerror}).") from None
    if filled:
        raise OutputError(
            f"{out}: the folder is not empty; a simulation is written into a new or empty one."
        )
    return out


def _write_stimuli(
    folder: Path, settings: SimulationSettings, generator: ImageGenerator | None
) -> Stimuli:
    import pandas as pd

    rng = random(settings, LATENTS)
    n = n_stimuli(settings)
    latents = rng.standard_normal((n, settings.n_latents)).astype(np.float32)
    width = len(str(n))
    names = pd.Series([f"face{row + 1:0{width}d}" for row in range(n)])
    table = pd.DataFrame(
        {
            "stim_id": names,
            "stim_file": "n/a" if generator is None else names + ".png",
            "latent_row": range(n),
            "latent_file": "latents.npy",
        }
    )
    folder.mkdir()
    np.save(folder / "latents.npy", latents)
    write_tsv(folder / "latents.tsv", table)
    write_json(folder / "latents.json", _latents_sidecar(settings, generator))
    if generator is not None:
        _write_images(folder, generator, latents, table["stim_file"])
    return Stimuli(latents, table)


def _latents_sidecar(settings: SimulationSettings, generator: ImageGenerator | None) -> dict:
    n_train = n_train_stimuli(settings)
    model = {}
    if generator is not None:
        model = {"Generator": generator.name, "GeneratorChecksum": generator.checksum}
    return {
        "Description": "Latents of the stimuli of a simulation, drawn from a standard normal "
        f"distribution. The first {n_train} stimuli train, the others test.",
        **model,
        "LatentSpace": "gaussian",
        "LatentDimension": settings.n_latents,
        "stim_id": {"Description": "The stimulus, as in the events"},
        "stim_file": {"Description": "Image of the stimulus, relative to stimuli/"},
        "latent_row": {"Description": "Row of its latents in latent_file, counted from 0"},
        "latent_file": {"Description": "File with the latents, relative to stimuli/"},
    }


def _write_images(folder: Path, generator: ImageGenerator, latents, files) -> None:
    from PIL import Image

    from hyper_bids.generators.checkpoints import generate_batches

    # In parts, so that large images of many stimuli do not have to fit into memory at once.
    for first in range(0, len(latents), IMAGE_BATCH):
        part = slice(first, first + IMAGE_BATCH)
        images = generate_batches(generator, latents[part], IMAGE_BATCH)
        for image, file in zip(images, files[part], strict=True):
            Image.fromarray(image).save(folder / file)


def _write_root(out: Path, settings: SimulationSettings, generator: ImageGenerator | None) -> None:
    import pandas as pd

    write_json(
        out / f"task-{TASK}_bold.json",
        {"RepetitionTime": settings.t_r, "TaskName": TASK, "Instructions": "None: simulated"},
    )
    write_json(out / f"task-{TASK}_events.json", _EVENTS)
    people = range(settings.n_participants)
    table = {
        "participant_id": [f"sub-{participant_label(index)}" for index in people],
        "noise_level": [noise_level(settings, index) for index in people],
    }
    write_tsv(out / "participants.tsv", pd.DataFrame(table))
    write_json(
        out / "participants.json",
        {
            "noise_level": {
                "Description": "Simulated noise: standard deviation of the error of a single "
                "trial's beta, relative to that of the planted code"
            }
        },
    )
    (out / "README").write_text(_readme(settings, generator), encoding="utf-8")
    if settings.with_derivatives:
        _write_derivative_root(out / DERIVATIVES, settings)
    # Last: what was interrupted is not taken for a dataset.
    write_json(out / "dataset_description.json", _description("Simulated faces", "raw"))


def _readme(settings: SimulationSettings, generator: ImageGenerator | None) -> str:
    images = "They have latents only, no images."
    if generator is not None:
        images = f"The image model {generator.name} made each image from its latents."
    derivatives = ""
    if settings.with_derivatives:
        bold = "the BOLD before the head moved" if settings.motion else "the same BOLD"
        derivatives = f"\n- `{DERIVATIVES}`: {bold} under the names that fMRIPrep gives."
    return _README.format(
        n_participants=settings.n_participants,
        n_runs=settings.n_test_runs + settings.n_train_runs,
        n_test_runs=settings.n_test_runs,
        n_stimuli=n_stimuli(settings),
        images=images,
        truth=TRUTH,
        derivatives=derivatives,
    )


def _write_derivative_root(root: Path, settings: SimulationSettings) -> None:
    description = _description("Simulated faces, preprocessed", "derivative")
    links = {"SourceDatasets": [{"URL": "../.."}], "DatasetLinks": {"raw": "../.."}}
    write_json(root / "dataset_description.json", description | links)
    moves = ""
    if settings.motion:
        moves = "The head moves in the raw dataset and not here.\n"
    (root / "README").write_text(
        "# Simulated derivatives\n\nThe simulated BOLD of the raw dataset under the names that "
        "fMRIPrep gives, with brain\nmasks and motion parameters. Nothing was preprocessed.\n"
        + moves,
        encoding="utf-8",
    )
    (root / ".bidsignore").write_text("*_timeseries.*\n", encoding="utf-8")


def _description(name: str, kind: str) -> dict:
    return {
        "Name": f"{name} (simulated, not measured)",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": kind,
        "Authors": ["hyper_bids simulate"],
        "GeneratedBy": [
            {
                "Name": NAME,
                "Version": __version__,
                "Description": "A synthetic dataset with a planted linear code",
            }
        ],
    }
