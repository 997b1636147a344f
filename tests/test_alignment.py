"""Raw BOLD, realigned by the app: heads that move, heads that lie still, volumes too thin."""

import app
import nibabel
import numpy as np
import pandas as pd
import pytest

from hyper_bids.motion import framewise_displacement
from hyper_bids.simulate.dataset import simulate

MOVING = app.small(
    shape=(22, 26, 18),
    motion=0.6,
    n_train_runs=2,
    noise=(0.5,),
    spikes_per_run=0,
    n_coding_voxels=300,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a dataset of a head that moves."""
    folder = tmp_path_factory.mktemp("moving") / "ds"
    simulate(folder, MOVING)
    return folder


@pytest.fixture(scope="module")
def out(dataset, tmp_path_factory):
    """Return the derivatives of the dataset, realigned."""
    folder = tmp_path_factory.mktemp("realigned") / "out"
    assert app.run(dataset, folder, realign=True) == 0
    return folder


def truth(dataset):
    return np.load(dataset / "sourcedata" / "simulation" / "sub-01_truth.npz")


def confounds(out):
    return [
        pd.read_csv(path, sep="\t", na_values="n/a")
        for path in sorted(out.glob("sub-01/func/*_desc-confounds_timeseries.tsv"))
    ]


def test_planted_motion_comes_back(dataset, out):
    planted = truth(dataset)["head_positions"]
    found = confounds(out)
    assert len(found) == len(planted) == 3
    for positions, table in zip(planted, found, strict=True):
        moved = framewise_displacement(positions)[1:]
        seen = table["framewise_displacement"].to_numpy()[1:]
        assert np.median(np.abs(moved - seen)) < 0.05
        # Signs and the centre of rotation follow FSL, those of the truth do not.
        for axis, column in enumerate(("trans_x", "trans_y", "trans_z")):
            assert abs(np.corrcoef(positions[:, axis], table[column])[0, 1]) > 0.9


def test_confounds_have_the_columns_of_fmriprep_and_no_value_where_there_is_none(out):
    table = confounds(out)[0]
    for axis in ("trans_x", "rot_z"):
        values = table[axis].to_numpy()
        change = table[f"{axis}_derivative1"].to_numpy()
        assert np.isnan(change[0])
        np.testing.assert_allclose(change[1:], np.diff(values), atol=1e-4)
        np.testing.assert_allclose(table[f"{axis}_power2"], values**2, rtol=1e-3, atol=1e-4)
    assert table[["framewise_displacement", "dvars", "std_dvars"]].iloc[0].isna().all()
    assert table.iloc[1:].notna().all().all()
    # One sidecar for all runs: its name has no run, so that it holds for each (BIDS).
    about = app.sidecar(out, "_desc-confounds_timeseries.json")
    assert set(table.columns) <= set(about)
    assert about["Sources"]
    tables = sorted(out.glob("sub-01/func/*_desc-confounds_timeseries.tsv"))
    assert sorted(about["SHA256"]) == [path.name for path in tables]


def test_realigned_betas_are_closer_to_the_planted_ones(dataset, out, tmp_path):
    assert app.run(dataset, tmp_path / "still") == 0
    assert closeness(dataset, out) > closeness(dataset, tmp_path / "still") + 0.03


def closeness(dataset, out):
    """Return the mean correlation of estimated and planted betas in coding voxels."""
    planted = truth(dataset)
    image = nibabel.load(app.find(out, "task-faces_desc-trials_statmap.nii.gz"))
    betas = np.asarray(image.dataobj)[tuple(planted["coding_voxels"].T)].T
    table = app.table(out, "task-faces_desc-trials_statmap.tsv")
    latents = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t")
    rows = table["stim_id"].map({stim: k for k, stim in enumerate(latents["stim_id"])})
    expected, r = planted["betas"][rows], []
    for _, own in table.groupby("run"):
        for a, b in zip(betas[own.index].T, expected[own.index].T, strict=True):
            if a.any():
                r.append(np.corrcoef(a, b)[0, 1])
    return np.mean(r)


def test_the_reference_and_the_figures_are_there_and_the_page_says_what_was_not_done(out):
    reference = nibabel.load(app.find(out, "_boldref.nii.gz"))
    assert reference.shape == MOVING.shape
    assert {"motion", "boldref"} <= set(app.figures(out))
    page = (out / "sub-01.html").read_text("utf-8")
    assert "realigned the runs to one image" in page
    assert "no distortion correction and no normalisation" in page
    assert "Head motion" in page


def test_motion_parameters_are_in_the_model_by_default(dataset, out):
    """Six more regressors: with none of them the estimates differ."""
    other = out.with_name("none")
    assert app.run(dataset, other, "--confounds", "none", realign=True, work=work_of(out)) == 0
    maps = [app.fit_map(folder, "r_square") for folder in (out, other)]
    assert not np.array_equal(*maps)


def work_of(out):
    return out.with_name(f"{out.name}-work")


def test_other_betas_do_not_realign_again(dataset, out, said):
    assert app.run(dataset, out, "--betas", "lsa", realign=True) == 0
    assert "reused motion" in said.text
    assert app.run(dataset, out, realign=True) == 0


def test_the_derivatives_are_valid_bids(out):
    assert app.bids_errors(out) == []


def test_realigned_runs_take_no_confounds_that_the_app_does_not_make(dataset, tmp_path, said):
    status = app.run(dataset, tmp_path / "out", "--confounds", "acompcor", realign=True)
    assert status == 65
    assert "a_comp_cor" in said.text
    assert not (tmp_path / "out").exists()


def test_thin_volumes_are_left_as_they_are_with_a_warning(tmp_path, said):
    simulate(tmp_path / "ds", app.small(shape=(10, 12, 7)))
    assert app.run(tmp_path / "ds", tmp_path / "out", realign=True) == 0
    assert "too thin to be realigned" in said.text
    assert not list((tmp_path / "out").glob("**/*_timeseries.tsv"))
    assert "too thin to be realigned" in (tmp_path / "out" / "sub-01.html").read_text("utf-8")


def test_aligned_data_can_be_left_alone(tmp_path):
    simulate(tmp_path / "ds", app.small())
    assert app.run(tmp_path / "ds", tmp_path / "out") == 0
    assert not list((tmp_path / "out").glob("**/*_boldref.nii.gz"))
    assert "(--no-realign)" in (tmp_path / "out" / "sub-01.html").read_text("utf-8")
