"""The first stage of a participant's job: one run in memory at a time, masks that go together."""

import tracemalloc
from dataclasses import asdict

import app
import nibabel
import numpy as np
import pytest

from hyper_bids.config import BetaSettings, Settings
from hyper_bids.participant import jobs, responses
from hyper_bids.participant.plan import make_plan
from hyper_bids.simulate.dataset import simulate


def job_of(root, tmp_path):
    """Return the job of the first stage for the only participant."""
    settings = Settings(bids_dir=str(root))
    return jobs.stage_jobs(make_plan(root, "01", settings), settings, tmp_path / "store")[
        "responses"
    ]


def test_one_run_is_in_memory_at_a_time(tmp_path):
    peaks = []
    for n_runs in (1, 6):
        settings = app.small(n_train_runs=n_runs, shape=(20, 20, 16))
        job = job_of(simulate(tmp_path / f"ds{n_runs}", settings), tmp_path)
        tracemalloc.start()
        responses.estimate_responses(job, tmp_path / f"out{n_runs}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_masks_that_come_with_the_runs_are_intersected(tmp_path):
    root = simulate(tmp_path / "ds", app.small())
    job = job_of(root, tmp_path)
    shape, rng = app.SMALL.shape, np.random.default_rng(1)
    masks = [rng.random(shape) < 0.8 for _ in job["runs"]]
    for index, (run, mask) in enumerate(zip(job["runs"], masks, strict=True)):
        run["mask"] = str(tmp_path / f"mask{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), run["mask"])
    found, _ = responses.common_mask(job["runs"])
    assert (found == np.logical_and.reduce(masks)).all()


def test_runs_without_a_mask_get_one_that_no_test_run_has_a_part_in(tmp_path):
    root = simulate(tmp_path / "ds", app.small())
    job = job_of(root, tmp_path)
    before, _ = responses.common_mask(job["runs"])
    assert [run["trains"] for run in job["runs"]] == [False, True, True, True]
    image = nibabel.load(job["runs"][0]["bold"])
    noise = np.random.default_rng(1).integers(0, 3000, image.shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, image.affine, image.header), job["runs"][0]["bold"])
    after, _ = responses.common_mask(job["runs"])
    assert (after == before).all()


def test_a_test_run_without_a_mask_among_runs_that_have_one_decides_nothing(tmp_path):
    root = simulate(tmp_path / "ds", app.small())
    job = job_of(root, tmp_path)
    mask = np.random.default_rng(1).random(app.SMALL.shape) < 0.8
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    for run in job["runs"]:
        run["mask"] = str(tmp_path / "mask.nii.gz") if run["trains"] else None
    found, _ = responses.common_mask(job["runs"])
    assert (found == mask).all()


@pytest.mark.parametrize("dummy_scans", [0, 3])
def test_dropped_volumes_shift_the_trials_with_them(tmp_path, dummy_scans):
    """What is estimated from a run without its first volumes is that of the shortened run."""
    root = simulate(tmp_path / "ds", app.small())
    run = job_of(root, tmp_path)["runs"][1]
    mask, _ = responses.common_mask([run])
    settings = BetaSettings(**{**asdict(BetaSettings()), "dummy_scans": dummy_scans})
    found = responses.estimate_run(run, mask, settings)
    image = nibabel.load(run["bold"])
    short = tmp_path / "short.nii.gz"
    nibabel.save(image.slicer[..., dummy_scans:], short)
    earlier = {
        **run,
        "bold": str(short),
        "onsets": [onset - dummy_scans * run["t_r"] for onset in run["onsets"]],
        "n_volumes": run["n_volumes"] - dummy_scans,
    }
    expected = responses.estimate_run(earlier, mask, BetaSettings())
    np.testing.assert_allclose(found.betas, expected.betas, atol=1e-4)
