"""The first stage of a participant's job: what it reads, chooses, estimates and writes."""

import dataclasses
import json
import tracemalloc

import app
import bids_tree
import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hyper_bids import volumes
from hyper_bids.config import Settings, with_values
from hyper_bids.errors import InputError
from hyper_bids.glm import betas as glm
from hyper_bids.glm.design import polynomial_drift
from hyper_bids.glm.hrf import library
from hyper_bids.participant import jobs, recording, responses, runs, tuning
from hyper_bids.participant.model import Model
from hyper_bids.participant.plan import make_plan
from hyper_bids.participant.runs import Regressors
from hyper_bids.simulate.dataset import simulate
from hyper_bids.voxels import t_to_z

MUCH = 4000  # megabytes
PLAIN = {"estimator": "lsa", "drift_order": "2"}
# Betas are then near those that were planted.
CLEAN = {"noise": (0.2,), "spikes_per_run": 0, "drift": 0.2, "hrf_variation": 0.0}
FIXED = {
    "drift_order": "1",
    "hrf": "glover",
    "noise_components": "2",
    "noise_model": "ar1",
    "shrinkage": "none",
}


def job_of(root, store, **changes):
    """Return the job of the first stage for the only participant."""
    settings = with_values(Settings(bids_dir=str(root), output_dir="out"), changes)
    settings = with_values(settings, {"no_realign": True})
    job = jobs.stage_jobs(make_plan(root, "01", settings), settings, store)["responses"]
    return job | {"memory_mb": MUCH}


class Found:
    """What the stage wrote into a folder."""

    def __init__(self, root, folder, memory_mb=MUCH, **changes):
        self.job = job_of(root, folder.with_name("store"), **changes) | {"memory_mb": memory_mb}
        self.folder = folder
        responses.estimate_responses(self.job, folder)
        self.betas = np.load(folder / "internal" / "betas.npy")
        self.mask = np.load(folder / "internal" / "mask.npy")
        self.model = json.loads((folder / "internal" / "model.json").read_text("utf-8"))

    def map(self, ending):
        """Return a published map in the voxels of the mask; outside it is 0."""
        image = nibabel.load(app.find(self.folder, f"{ending}_statmap.nii.gz")).get_fdata()
        assert not image[~self.mask].any()
        return image[self.mask]

    def fit(self, name):
        """Return a quantity of the model in the voxels of the mask; outside it is 0."""
        image = app.fit_map(self.folder, name)
        assert not image[~self.mask].any()
        return image[self.mask]

    def fit_sidecar(self):
        """Return what is said of these quantities."""
        return app.sidecar(self.folder, "_desc-fit_statmap.json")

    def table(self, ending):
        """Return a published table, None where there is none."""
        found = list(self.folder.glob(f"sub-01/**/*{ending}.tsv"))
        return app.table(self.folder, f"{ending}.tsv") if found else None

    def scores(self):
        """Return the scores of the models that were tried."""
        table = self.table("_desc-model_metrics")
        return [] if table is None else table["score"].tolist()

    def series(self):
        """Return the signal of each run in the voxels of the mask, float64."""
        return [nibabel.load(run["bold"]).get_fdata()[self.mask].T for run in self.job["runs"]]

    def of_run(self):
        """Return the place of each trial's run."""
        return np.repeat(
            np.arange(len(self.job["runs"])), [len(r["onsets"]) for r in self.job["runs"]]
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a simulated dataset; nothing is changed in it."""
    return simulate(tmp_path_factory.mktemp("responses") / "ds", app.SMALL)


@pytest.fixture(scope="module")
def found(root):
    """Return what the stage finds with its defaults."""
    return Found(root, root.parent / "found")


def edit_bold(root, run, change):
    """Replace the BOLD of a run by what ``change(data)`` makes of it, as float32."""
    (path,) = root.glob(f"sub-01/**/*run-{run}_*bold.nii.gz")
    image = nibabel.load(path)
    data = change(image.get_fdata(dtype=np.float32).copy())
    new = nibabel.Nifti1Image(data, image.affine)
    new.header.set_xyzt_units("mm", "sec")
    new.header.set_zooms(image.header.get_zooms())
    nibabel.save(new, path)


# Memory and masks


def test_one_run_is_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_LEAST_VOXELS", 64)
    changes = {"n_train_runs": 3, "shape": (24, 24, 20), "trials_per_run": 12}
    job = job_of(simulate(tmp_path / "ds", app.small(**changes)), tmp_path / "store")
    settings = Settings().betas
    mask, _ = runs.common_mask(job["runs"])
    peaks = []
    for n_runs in (1, 3):
        own = job["runs"][-n_runs:]
        regressors = [runs.run_regressors(run, settings) for run in own]

        def load(index, own=own):
            return volumes.read_masked(own[index]["bold"], mask)

        tracemalloc.start()
        recording.record(load, regressors, int(mask.sum()), settings, tmp_path, 0.001)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_beside_one_run_are_in_memory_blocks_and_the_voxels_that_a_model_is_chosen_by(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "_LEAST_VOXELS", 64)
    monkeypatch.setattr(recording, "N_CANDIDATES", 50)
    monkeypatch.setattr(recording, "N_QUIET", 50)
    peaks = []
    for n_runs in (2, 6):
        changes = {"n_train_runs": n_runs, "shape": (24, 24, 20), "trials_per_run": 12}
        job = job_of(simulate(tmp_path / f"ds{n_runs}", app.small(**changes)), tmp_path / "store")
        job["settings"] |= FIXED
        monkeypatch.setattr(responses, "_block_memory", lambda *_: 0.001)
        tracemalloc.start()
        responses.estimate_responses(job, tmp_path / f"out{n_runs}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_masks_that_come_with_the_runs_are_intersected(root, tmp_path):
    job = job_of(root, tmp_path)
    shape, rng = app.SMALL.shape, np.random.default_rng(1)
    masks = [rng.random(shape) < 0.8 for _ in job["runs"]]
    for index, (run, mask) in enumerate(zip(job["runs"], masks, strict=True)):
        run["mask"] = str(tmp_path / f"mask{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), run["mask"])
    found, _ = runs.common_mask(job["runs"])
    assert (found == np.logical_and.reduce(masks)).all()


def test_runs_without_a_mask_get_one_that_no_test_run_has_a_part_in(tmp_path):
    root = simulate(tmp_path / "ds", app.small())
    job = job_of(root, tmp_path)
    before, _ = runs.common_mask(job["runs"])
    assert [any(run["is_train"]) for run in job["runs"]] == [False, True, True, True]
    edit_bold(root, "01", lambda data: np.random.default_rng(1).permutation(data.ravel())
              .reshape(data.shape))  # fmt: skip
    after, _ = runs.common_mask(job["runs"])
    assert (after == before).all()


def test_a_test_run_without_a_mask_among_runs_that_have_one_decides_nothing(root, tmp_path):
    job = job_of(root, tmp_path)
    mask = np.random.default_rng(1).random(app.SMALL.shape) < 0.8
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    for run in job["runs"]:
        run["mask"] = str(tmp_path / "mask.nii.gz") if any(run["is_train"]) else None
    found, _ = runs.common_mask(job["runs"])
    assert (found == mask).all()


@pytest.mark.parametrize(
    "changes", [{}, PLAIN, {"estimator": "lss"}], ids=["default", "lsa", "lss"]
)
def test_many_small_blocks_of_voxels_give_what_one_large_one_gives(tmp_path, monkeypatch, changes):
    root = simulate(tmp_path / "ds", app.small(shape=(12, 14, 10)))
    large = Found(root, tmp_path / "large", **changes)
    monkeypatch.setattr(recording, "_LEAST_VOXELS", 50)
    monkeypatch.setattr(responses, "_block_memory", lambda *_: 0.001)
    small = Found(root, tmp_path / "small", memory_mb=1, **changes)
    assert large.betas.shape[1] > 250
    assert small.model["described"] == large.model["described"]
    np.testing.assert_allclose(small.betas, large.betas, atol=1e-6 * np.abs(large.betas).max())
    for path in (large.folder / "sub-01" / "func").glob("*_statmap.nii.gz"):
        one, other = (
            nibabel.load(folder / "sub-01" / "func" / path.name).get_fdata()
            for folder in (large.folder, small.folder)
        )
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max(), err_msg=path.name)


def test_the_memory_given_decides_how_many_voxels_a_block_has(root, tmp_path):
    job = job_of(root, tmp_path)
    settings = with_values(Settings(), {}).betas
    regressors = [runs.run_regressors(run, settings) for run in job["runs"]]
    sizes = [recording.block_size(regressors, memory) for memory in (0.01, 50, 100, 1e6)]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    assert sizes[2] == pytest.approx(2 * sizes[1], abs=1)


def test_nothing_of_the_scratch_recording_is_left(found):
    assert not list(found.folder.rglob("*.f32"))
    assert not [path for path in found.folder.iterdir() if path.name.startswith("tmp")]


# Timing of the trials


@pytest.mark.parametrize("changes", [PLAIN, FIXED], ids=["lsa", "optimised"])
def test_dropped_volumes_shift_the_trials_with_them(root, tmp_path, changes):
    """What is estimated from runs without their first volumes is that of shortened runs."""
    late = simulate(tmp_path / "ds", app.small(n_train_runs=2))
    app.edit_events(late, lambda frame, _: frame[frame["onset"].astype(float) >= 4.5])
    whole = Found(late, tmp_path / "whole", dummy_scans=3, **changes)
    t_r = app.SMALL.t_r
    app.edit_events(
        late, lambda frame, _: frame.assign(onset=frame["onset"].astype(float) - 3 * t_r)
    )
    for run in ("01", "02", "03"):
        edit_bold(late, run, lambda data: data[..., 3:])
    short = Found(late, tmp_path / "short", **changes)
    np.testing.assert_allclose(whole.betas, short.betas, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"estimator": "lsa"}], ids=["default", "lsa"])
def test_runs_of_different_tr_and_length_are_each_modelled_by_their_own(tmp_path, changes):
    """Runs 2 and 3 lose every second volume, run 4 its last quarter: the code is found in all."""
    settings = app.small(t_r=1.0, soa=7.0, **CLEAN)
    root = simulate(tmp_path / "ds", settings)
    for run in ("02", "03"):
        thin(root, run, 2)
    n_volumes = nibabel.load(next(root.glob("sub-01/func/*run-04_bold.nii.gz"))).shape[3]
    left = 3 * n_volumes // 4
    edit_bold(root, "04", lambda data: data[..., :left])
    path = next(root.glob("sub-01/func/*run-04_events.tsv"))
    frame = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    frame[frame["onset"].astype(float) < left - 12].to_csv(path, sep="\t", index=False)
    found = Found(root, tmp_path / "out", **changes)
    assert [run["t_r"] for run in found.job["runs"]] == [1, 2, 2, 1]
    assert len({run["n_volumes"] for run in found.job["runs"]}) == 3
    expected, coding = planted(root, found)
    for index in range(4):
        rows = found.of_run() == index
        assert alike(found.betas[rows][:, coding], expected[rows]) > 0.8


def thin(root, run, step):
    """Keep every ``step``-th volume, as if the TR had been so much longer."""
    (path,) = root.glob(f"sub-01/func/*run-{run}_bold.nii.gz")
    image = nibabel.load(path)
    zooms = image.header.get_zooms()
    # The middle of a long volume lies half a short one later.
    data = np.asarray(image.dataobj, np.float32)
    data = (data[..., : data.shape[3] // step * step : step] + data[..., 1::step]) / 2
    new = nibabel.Nifti1Image(data, image.affine)
    new.header.set_xyzt_units("mm", "sec")
    new.header.set_zooms((*zooms[:3], zooms[3] * step))
    nibabel.save(new, path)
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    told = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else {}
    sidecar.write_text(json.dumps(told | {"RepetitionTime": float(zooms[3] * step)}), "utf-8")


def planted(root, found):
    """Return the planted betas of each trial, and the columns of the voxels that have them."""
    truth = np.load(root / "sourcedata" / "simulation" / "sub-01_truth.npz")
    stimuli = pd.read_csv(root / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    rows = stimuli.loc[found.job["trials"]["stim_id"], "latent_row"].to_numpy()
    number = np.cumsum(found.mask).reshape(found.mask.shape) - 1
    place = tuple(truth["coding_voxels"].T)
    inside = found.mask[place]
    return truth["betas"][rows][:, inside], number[place][inside]


def alike(found, expected):
    """Return the correlation of what is left after each voxel's mean is taken off."""
    a, b = found - found.mean(axis=0), expected - expected.mean(axis=0)
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


# What is written


def test_the_responses_and_their_table_have_a_row_for_each_trial_in_one_order(root, found):
    image = nibabel.load(app.find(found.folder, "01_task-faces_desc-trials_statmap.nii.gz"))
    rows = found.table("faces_desc-trials_statmap")
    assert (found.betas == image.get_fdata(dtype=np.float32)[found.mask].T).all()
    assert len(rows) == len(found.betas)
    events = [pd.read_csv(p, sep="\t") for p in sorted(root.glob("sub-01/func/*_events.tsv"))]
    assert rows["stim_id"].tolist() == pd.concat(events)["stim_id"].tolist()


@pytest.mark.parametrize(
    ("ending", "units"),
    [
        ("_desc-trials", "percent signal change"),
        ("_stat-reliability_desc-test", "fraction"),
        ("_desc-fit", ["arbitrary", "ratio", "fraction", "index", "fraction"]),
    ],
)
def test_every_map_has_a_sidecar_with_what_it_is_its_unit_and_its_sources(found, ending, units):
    beside = app.sidecar(found.folder, f"task-faces{ending}_statmap.json")
    maps = beside.get("Volumes", [beside])
    assert [one["Units"] for one in maps] == ([units] if isinstance(units, str) else units)
    assert all(len(one["Description"]) > 20 for one in maps)
    assert beside["Sources"]
    assert beside["Settings"] == {"betas": found.job["settings"]}
    assert beside["Simulated"] is True


def test_the_model_that_was_chosen_stands_beside_responses_and_table(found):
    model = {name: found.model[name] for name in found.model if name != "described"}
    for ending in ("task-faces_desc-trials_statmap.json", "_desc-model_metrics.json"):
        assert app.sidecar(found.folder, ending)["Model"] == model


def test_each_voxel_has_a_response_function_of_the_library_and_the_table_counts_them(found):
    assert found.model["hrf"] == "library"
    index = found.fit("hrf_index")
    table = pd.DataFrame(found.fit_sidecar()["ResponseFunctions"])
    assert table["hrf"].tolist() == list(library())
    assert table["hrf_index"].tolist() == list(range(len(library())))
    assert table["n_voxels"].sum() == found.mask.sum()
    assert (table["n_voxels"] == np.bincount(index.astype(int), minlength=len(table))).all()
    assert (index == index.astype(int)).all()


def test_the_ridge_fraction_is_above_nought_and_one_at_most(found):
    assert found.model["shrinkage"]
    fraction = found.fit("ridge_fraction")
    assert fraction.min() > 0
    assert fraction.max() <= 1
    assert fraction.std() > 0


def test_the_ridge_fraction_is_how_much_shorter_betas_are_than_without_shrinkage(root, tmp_path):
    """Of the training trials, about the mean of each run; with one response function for all."""
    changes = FIXED | {"shrinkage": "auto", "noise_components": "0", "noise_model": "ols"}
    shrunken = Found(root, tmp_path / "shrunken", **changes)
    assert shrunken.model["shrinkage"]
    free = Found(root, tmp_path / "free", **(changes | {"shrinkage": "none"}))
    length = np.zeros((2, shrunken.betas.shape[1]))
    for index in (1, 2, 3):
        for row, part in enumerate((shrunken, free)):
            own = part.betas[part.of_run() == index]
            length[row] += ((own - own.mean(axis=0)) ** 2).sum(axis=0)
    expected = np.sqrt(length[0] / length[1])
    np.testing.assert_allclose(shrunken.fit("ridge_fraction"), expected, rtol=1e-3)


def test_the_reliability_is_that_of_a_direct_analysis_of_variance_of_the_betas(found):
    rows = found.table("faces_desc-trials_statmap")
    test = (rows["split"] == "test").to_numpy()
    betas = found.betas[test].astype(float)
    for run in rows["run"][test].unique():
        own = (rows["run"][test] == run).to_numpy()
        betas[own] -= betas[own].mean(axis=0)
    shown = rows["stim_id"][test]
    groups = [betas[(shown == name).to_numpy()] for name in shown.unique()]
    assert len(groups) == app.SMALL.n_test_stimuli
    ratio = stats.f_oneway(*groups).statistic
    expected = np.clip(1 - 1 / ratio, 0, 1)
    assert expected.max() > 0.5
    assert (expected == 0).any()
    np.testing.assert_allclose(found.map("_stat-reliability_desc-test"), expected, atol=1e-4)


def test_without_repeated_test_stimuli_there_is_no_reliability(tmp_path):
    settings = app.small(n_train_runs=2, trials_per_run=12, n_test_stimuli=12)
    root = simulate(tmp_path / "ds", settings)
    found = Found(root, tmp_path / "out", **PLAIN)
    assert not list(found.folder.rglob("*reliability*"))


def test_the_tsnr_is_mean_over_standard_deviation_of_the_signal_in_runs(found):
    series = found.series()
    variances = [(s / s.mean(axis=0)).var(axis=0) for s in series]
    expected = 1 / np.sqrt(np.average(variances, axis=0, weights=[len(s) for s in series]))
    assert expected.std() > 0
    np.testing.assert_allclose(found.fit("tsnr"), expected, rtol=1e-3)


def test_the_baseline_is_the_mean_signal_of_the_runs(found):
    expected = np.mean([s.mean(axis=0) for s in found.series()], axis=0)
    np.testing.assert_allclose(found.fit("baseline"), expected, rtol=1e-5)


def test_the_mean_z_is_the_z_value_of_the_training_trials_mean_t_averaged_over_runs(root, tmp_path):
    found = Found(root, tmp_path / "out", **PLAIN)
    settings = with_values(Settings(), PLAIN).betas
    total, n = 0, 0
    for run, signal in zip(found.job["runs"], found.series(), strict=True):
        trains = np.array(run["is_train"])
        if not trains.any():
            continue
        part = runs.run_regressors(run, settings)
        fit = glm.estimate_betas(signal, part.trials[0], part.nuisance(2))
        t = fit.betas / fit.residual_sd / np.sqrt(fit.variance_factors[0])[:, None]
        total = total + trains.sum() * t_to_z(t[trains].mean(axis=0), fit.dof)
        n += trains.sum()
    found_z = np.load(found.folder / "internal" / "mean_z.npy")
    np.testing.assert_allclose(found_z, total / n, atol=1e-3)


# The choice of the model


def test_of_each_step_one_variant_is_chosen_that_of_the_highest_score(found):
    table = found.table("_desc-model_metrics")
    steps = list(table["choice"].unique())
    assert steps == ["drift and noise", "noise components", "response function", "shrinkage"]
    for step, rows in table.groupby("choice"):
        (best,) = np.flatnonzero(rows["chosen"])
        scores = rows["score"].to_numpy()
        if step == "noise components":
            # The fewest that have 95 % of the gain that there is.
            enough = scores - scores[0] >= 0.95 * (scores.max() - scores[0]) - 1e-5
            assert best == np.flatnonzero(enough)[0]
        else:
            assert scores[best] == scores.max()
        assert rows["score"].between(-1, 1).all()


def test_each_step_keeps_what_was_chosen_before_it_and_the_last_is_the_model(found):
    table = found.table("_desc-model_metrics")
    columns = ["drift_order", "noise_model", "n_components", "hrf", "shrinkage"]
    varied = {
        "drift and noise": {"drift_order", "noise_model"},
        "noise components": {"n_components"},
        "response function": {"hrf"},
        "shrinkage": {"shrinkage"},
    }
    chosen = dict(zip(columns, [0, "ols", 0, "glover", True], strict=True))
    for step, rows in table.groupby("choice", sort=False):
        for name in set(columns) - varied[step]:
            assert set(rows[name]) == {chosen[name]}
        chosen = rows[rows["chosen"]].iloc[0][columns].to_dict()
    assert chosen == {name: found.model[name] for name in columns}


def test_what_is_fixed_is_not_varied(root, tmp_path):
    found = Found(root, tmp_path / "out", **FIXED)
    assert found.table("_desc-model_metrics") is None
    assert not list(found.folder.rglob("*desc-model*"))
    assert app.fit_map(found.folder, "hrf_index") is None
    assert app.fit_map(found.folder, "ridge_fraction") is None
    assert "ResponseFunctions" not in found.fit_sidecar()
    model = {name: found.model[name] for name in found.model if name not in ("described", "rho")}
    assert model == {
        "drift_order": 1, "noise_model": "ar1", "n_components": 2, "hrf": "glover",
        "shrinkage": False,
    }  # fmt: skip
    assert 0 < found.model["rho"] < 0.9


@pytest.mark.parametrize(
    ("name", "value", "column"),
    [
        ("drift_order", "1", "drift_order"),
        ("noise_model", "ols", "noise_model"),
        ("noise_components", "2", "n_components"),
        ("hrf", "spm", "hrf"),
        ("shrinkage", "none", "shrinkage"),
    ],
)
def test_one_fixed_setting_stays_as_it_is_while_the_others_are_chosen(
    root, tmp_path, name, value, column
):
    found = Found(root, tmp_path / "out", **{name: value})
    table = found.table("_desc-model_metrics")
    wanted = {"none": False}.get(value, int(value) if value.isdigit() else value)
    assert found.model[column] == wanted
    later = table[table["choice"] != "drift and noise"]
    rows = later if name == "noise_components" else table
    if name == "noise_components":
        assert "noise components" not in set(table["choice"])
    if name == "shrinkage":
        assert "shrinkage" not in set(table["choice"])
    assert set(rows[column]) == {wanted}


def test_without_noise_components_ar_or_shrinkage_the_betas_are_those_of_least_squares(
    root, tmp_path
):
    """Two implementations: all trials in one model, and the decomposition by blocks."""
    same = {"drift_order": "2", "hrf": "glover", "noise_model": "ols", "noise_components": "0"}
    one = Found(root, tmp_path / "one", estimator="lsa", **same)
    other = Found(root, tmp_path / "other", shrinkage="none", **same)
    scale = np.abs(one.betas).max()
    np.testing.assert_allclose(other.betas, one.betas, atol=1e-5 * scale)
    for name in ("r_square", "tsnr"):
        np.testing.assert_allclose(other.fit(name), one.fit(name), rtol=1e-3, atol=1e-4)
    z = [np.load(part.folder / "internal" / "mean_z.npy") for part in (one, other)]
    np.testing.assert_allclose(z[1], z[0], atol=1e-3)


@pytest.mark.parametrize("estimator", ["lsa", "lss"])
def test_the_plain_estimators_choose_the_drift_alone(root, tmp_path, estimator):
    found = Found(root, tmp_path / "out", estimator=estimator)
    table = found.table("_desc-model_metrics")
    assert set(table["choice"]) == {"drift and noise"}
    assert set(table["noise_model"]) == {"ols"}
    assert set(table["hrf"]) == {"glover"}
    assert not table["shrinkage"].any()
    assert table["drift_order"].tolist() == [0, 1, 2, 3]
    assert found.model["drift_order"] == table.loc[table["score"].idxmax(), "drift_order"]


def test_confounds_that_model_drift_leave_a_constant_only(tmp_path):
    root = simulate(tmp_path / "ds", app.small(with_derivatives=True))
    folder = root / "derivatives" / "simprep"
    for path in folder.glob("sub-01/func/*_timeseries.tsv"):
        frame = pd.read_csv(path, sep="\t")
        times = (np.arange(len(frame)) + 0.5) / len(frame)
        for k in (1, 2):
            frame[f"cosine{k - 1:02d}"] = np.cos(np.pi * k * times)
        frame.to_csv(path, sep="\t", index=False, na_rep="n/a")
    changes = {"derivatives": (f"prep={folder}",), "confounds": ("motion6", "cosine*")}
    found = Found(root, tmp_path / "out", **changes)
    assert set(found.table("_desc-model_metrics")["drift_order"]) == {0}
    assert found.model["drift_order"] == 0
    # A drift order that the user asks for is no second model of the same.
    fixed = [
        Found(root, tmp_path / f"out{order}", **(changes | PLAIN | {"drift_order": order}))
        for order in ("0", "3")
    ]
    np.testing.assert_allclose(fixed[0].betas, fixed[1].betas, atol=1e-5)


# Unusual datasets


@pytest.mark.parametrize("changes", [{}, {"hrf": "glover"}], ids=["default", "one function"])
def test_the_model_leaves_noise_to_be_estimated_in_every_run_short_ones_that_test_too(
    tmp_path, changes
):
    settings = app.small(shared_noise=3.0, trials_per_run=32, shape=(12, 14, 10))
    root = simulate(tmp_path / "ds", settings)
    edit_bold(root, "01", lambda data: data[..., :18])
    (path,) = root.glob("sub-01/func/*run-01_events.tsv")
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).iloc[:6]
    frame = frame.assign(onset=4.5 * np.arange(6), stim_id=[*frame["stim_id"].unique()[:2]] * 3)
    frame.to_csv(path, sep="\t", index=False)
    found = Found(root, tmp_path / "out", **changes)
    taken = found.model["drift_order"] + 1 + found.model["n_components"]
    for run in found.job["runs"]:
        assert run["n_volumes"] - len(run["onsets"]) - taken > 0
    assert np.isfinite(found.betas).all()


@pytest.mark.parametrize("estimator", ["optimised", "lsa"])
def test_two_sessions_are_runs_as_any_others(tmp_path, estimator):
    root = bids_tree.make_dataset(
        tmp_path / "ds", ("01",), runs=("01", "02"), sessions=("a", "b"), key="stim_id",
        n_volumes=40, trials_per_run=8,
    )  # fmt: skip
    found = Found(root, tmp_path / "out", estimator=estimator)
    rows = found.table("faces_desc-trials_statmap")
    assert rows.groupby(["session", "run"]).size().tolist() == [8, 8, 8, 8]
    assert found.betas.shape == (32, found.mask.sum())
    assert np.isfinite(found.betas).all()


@pytest.mark.parametrize(
    "changes", [{}, {"estimator": "lsa"}, FIXED], ids=["default", "lsa", "fixed"]
)
def test_one_training_run_is_enough(tmp_path, changes):
    root = simulate(tmp_path / "ds", app.small(n_train_runs=1, **CLEAN))
    found = Found(root, tmp_path / "out", **changes)
    expected, coding = planted(root, found)
    for index in range(2):
        rows = found.of_run() == index
        assert alike(found.betas[rows][:, coding], expected[rows]) > 0.9


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 9, 3)])
@pytest.mark.parametrize("estimator", ["optimised", "lsa"])
def test_a_few_voxels_are_enough(tmp_path, shape, estimator):
    root = bids_tree.make_dataset(
        tmp_path / "ds", ("01",), runs=("01", "02", "03"), shape=shape, key="stim_id", n_volumes=40
    )
    masked(root, shape)
    changes = {"derivatives": (str(root / "derivatives" / "fmriprep"),), "estimator": estimator}
    found = Found(root, tmp_path / "out", **changes)
    assert found.betas.shape[1] == np.prod(shape)
    assert np.isfinite(found.betas).all()
    assert found.betas.any(axis=0).all()
    assert np.isfinite(np.load(found.folder / "internal" / "mean_z.npy")).all()


def masked(root, shape):
    """Add a derivative whose masks hold all voxels."""
    folder = bids_tree.make_derivative(root)
    for path in folder.glob("sub-01/func/*_mask.nii.gz"):
        affine = nibabel.load(path).affine
        nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), path)
    return folder


DEAD = {
    "zero": 0.0,
    "constant": 817.0,
    "of a mean below zero": -20.0,
    "not a number": np.nan,
    "infinite": np.inf,
}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        *(pytest.param({}, kind, id=f"default, {kind}") for kind in DEAD),
        pytest.param(PLAIN, "constant", id="lsa, constant"),
        pytest.param({"estimator": "lss"}, "not a number", id="lss, not a number"),
    ],
)
@pytest.mark.parametrize("run", ["01", "03"], ids=["test run", "training run"])
def test_a_voxel_without_signal_in_one_run_has_responses_of_nought_there_alone(
    tmp_path, changes, kind, run
):
    """In two training runs: what one of them lacks, the other alone must tell."""
    settings = app.small(n_train_runs=2, trials_per_run=16, noise=(0.3,), with_derivatives=True)
    root = simulate(tmp_path / "ds", settings)
    folder = root / "derivatives" / "simprep"
    # The voxel that responds most, and one that does not code.
    truth = np.load(root / "sourcedata" / "simulation" / "sub-01_truth.npz")
    coding = [tuple(place) for place in truth["coding_voxels"]]
    strong = coding[np.abs(truth["betas"]).mean(axis=0).argmax()]
    quiet = next(p for p in map(tuple, np.argwhere(truth["brain"])) if p not in coding)

    def kill(data):
        noise = np.random.default_rng(1).standard_normal(data.shape[3])
        for place in (strong, quiet):
            data[place] = DEAD[kind] + (noise if "below" in kind else 0)
        return data

    edit_bold(folder, run, kill)
    found = Found(root, tmp_path / "out", derivatives=(f"prep={folder}",), **changes)
    number = np.cumsum(found.mask).reshape(found.mask.shape) - 1
    dead = found.of_run() == ["01", "02", "03"].index(run)
    assert np.isfinite(found.betas).all()
    for place in (strong, quiet):
        assert found.mask[place]
        assert (found.betas[dead][:, number[place]] == 0).all()
        assert (found.betas[~dead][:, number[place]] != 0).all()
    for path in found.folder.glob("sub-01/func/*_statmap.nii.gz"):
        assert np.isfinite(nibabel.load(path).get_fdata()).all(), path.name
    assert np.isfinite(np.load(found.folder / "internal" / "mean_z.npy")).all()
    assert np.isfinite(tuple(found.scores())).all()
    # The others have their code all the same.
    expected, own = planted(root, found)
    others = own != number[strong]
    assert alike(found.betas[dead][:, own[others]], expected[dead][:, others]) > 0.7


def test_a_run_that_the_model_leaves_no_noise_is_named():
    """A short run that only tests, too: its betas would have no error to be known by."""
    drift = polynomial_drift(12, 0)[:, 1:]
    short = Regressors("short run", [np.zeros((12, 6))], drift, np.zeros(6, bool), False)
    model = Model(2, "ols", 2, "glover", False)
    tuning._check_room(model, [short])  # 6 trials, 3 of drift, 2 components, 1 of noise
    with pytest.raises(InputError, match=r"short run: 6 trials and 6 nuisance regressors"):
        tuning._check_room(dataclasses.replace(model, n_components=3), [short])
