"""What is fitted sees training trials only: whatever happens to test data, no bit of it changes."""

import shutil

import app
import nibabel
import numpy as np
import pandas as pd
import pytest

from hyper_bids.config import Settings
from hyper_bids.participant import jobs
from hyper_bids.participant.plan import make_plan
from hyper_bids.simulate.dataset import simulate

# Everything that is fitted or chosen, as published. Maps of baseline, tSNR, explained variance and
# reliability are not among it: they describe all runs.
FITTED = (
    "sub-01/func/*_decoder.npz",
    "sub-01/func/*_desc-decoder_mask.nii.gz",
    "sub-01/func/*_desc-brain_mask.nii.gz",
    "sub-01/func/*_stat-z_desc-train_statmap.nii.gz",
    "sub-01/func/*_stat-r_desc-encoding_statmap.nii.gz",
    "sub-01/func/*_stat-q_desc-encoding_statmap.nii.gz",
    "sub-01/func/*_desc-decoder_statmap.nii.gz",
    "sub-01/func/*_desc-model_metrics.tsv",
)
# Each decoder, each way of estimating betas.
ANALYSES = {
    "default": ("--n-voxels", "80"),
    "lsa": ("--betas", "lsa", "--drift-order", "2", "--cv", "3", "--standardise", "train"),
    "lss, ols": ("--betas", "lss", "--decoder", "ols", "--n-voxels", "40"),
    "bayes": ("--decoder", "bayes", "--n-voxels", "60"),
    "best": ("--decoder", "best", "--n-voxels", "60"),
    "averaged": ("--decoder", "averaged", "--cv", "5"),
    "dense": ("--noise-components", "3", "--decoder", "dense", "--epochs", "3"),
}


def fitted_in(out):
    """Return all that is fitted: bytes of files, the training trials' betas, and the model."""
    found = app.contents(out, *FITTED)
    ending = "task-faces_desc-trials_statmap"
    betas = nibabel.load(app.find(out, f"{ending}.nii.gz")).dataobj
    train = (app.table(out, f"{ending}.tsv")["split"] == "train").to_numpy()
    found["betas of training trials"] = np.asarray(betas)[..., train].tobytes()
    found["model"] = app.sidecar(out, f"{ending}.json")["Model"]
    drawn = app.figures(out)
    assert "voxels" in drawn
    found |= {f"figure {name}": drawn.get(name) for name in ("curve", "model")}
    found["course of the fit"] = app.sidecar(out, "_decoder.json").get("Course")
    # The other quantities of the file, such as the baseline, describe all runs.
    for name in ("hrf_index", "ridge_fraction"):
        chosen = app.fit_map(out, name)
        found[name] = None if chosen is None else chosen.tobytes()
    about = app.sidecar(out, "_desc-fit_statmap.json")
    found["response functions"] = about.get("ResponseFunctions")
    return found


def mixed(frame, rng):
    """Make half of the trials of every run test, each stimulus in one set only."""
    # In a test run each stimulus is shown several times.
    test = {name for index, name in enumerate(sorted(set(frame["stim_id"]))) if index % 2}
    return frame.assign(split=["test" if s in test else "train" for s in frame["stim_id"]])


@pytest.fixture(scope="module", params=["runs of one set", "runs of both sets"])
def dataset(request, tmp_path_factory):
    """Return a dataset whose test trials have runs of their own, or share those of training."""
    root = simulate(tmp_path_factory.mktemp("leakage") / "ds", app.SMALL)
    if request.param == "runs of both sets":
        app.edit_events(root, mixed)
    return root


@pytest.fixture(scope="module", params=ANALYSES)
def fitted(request, dataset, tmp_path_factory):
    """Return the flags of an analysis, and what it fits to the dataset as it is."""
    out = tmp_path_factory.mktemp("as-it-is") / "out"
    assert app.run(dataset, out, *ANALYSES[request.param]) == 0
    return ANALYSES[request.param], fitted_in(out)


@pytest.fixture
def spoilt(dataset, tmp_path):
    """Return a copy of the dataset, to spoil."""
    return shutil.copytree(dataset, tmp_path / "ds")


def test_destroyed_test_labels_change_no_bit_of_what_is_fitted(spoilt, fitted, tmp_path):
    def shuffle(frame, rng):
        frame = frame.copy()
        test = (frame["split"] == "test").to_numpy()
        frame.loc[test, "stim_id"] = rng.permutation(frame.loc[test, "stim_id"].to_list())
        return frame

    shown = rows_of_test_stimuli(spoilt)
    app.edit_events(spoilt, shuffle)
    path = spoilt / "stimuli" / "latents.npy"
    latents = np.load(path)
    latents[shown] = 1e3 * np.random.default_rng(1).standard_normal((len(shown), 4))
    np.save(path, latents)
    flags, before = fitted
    assert app.run(spoilt, tmp_path / "out", *flags) == 0
    assert_same(fitted_in(tmp_path / "out"), before)


def test_destroyed_training_labels_do_change_it(spoilt, fitted, tmp_path):
    path = spoilt / "stimuli" / "latents.npy"
    latents = np.load(path)
    test = rows_of_test_stimuli(spoilt)
    train = np.setdiff1d(np.arange(len(latents)), test)
    latents[train] = np.random.default_rng(1).permutation(latents[train])
    np.save(path, latents)
    flags, before = fitted
    assert app.run(spoilt, tmp_path / "out", *flags) == 0
    after = fitted_in(tmp_path / "out")
    changed = {name.rsplit("_", 1)[-1] for name in before if after.get(name) != before[name]}
    assert "decoder.npz" in changed
    # The brain is found without labels. So are betas and voxels, unless a model is chosen.
    masks = ("brain_mask", "decoder_mask", "betas of") if "2" in flags else ("brain_mask",)
    for name in before:
        assert after.get(name) == before[name] or not any(part in name for part in masks), name


def assert_same(after, before):
    """Assert equality, and name what differs."""
    assert len(before) >= 6
    assert [name for name in before if after.get(name) != before[name]] == []
    assert set(after) == set(before)


def destroyed(shape, rng):
    """Return noise with a mean and a scale of each voxel's own, a quarter of them dead."""
    mean, scale = rng.uniform(-50, 2000, shape[:3]), rng.uniform(1, 100, shape[:3])
    noise = mean[..., None] + scale[..., None] * rng.standard_normal(shape)
    noise[rng.random(shape[:3]) < 0.25] = 0
    return noise.astype(np.int16)


@pytest.mark.parametrize("flags", ANALYSES.values(), ids=ANALYSES)
def test_destroyed_bold_of_test_runs_changes_no_bit_of_what_is_fitted(tmp_path, flags):
    root = simulate(tmp_path / "ds", app.SMALL)
    assert app.run(root, tmp_path / "before", *flags) == 0
    rng = np.random.default_rng(2)
    for path in root.glob("sub-01/func/*run-01_bold.nii.gz"):
        image = nibabel.load(path)
        noise = destroyed(image.shape, rng)
        nibabel.save(nibabel.Nifti1Image(noise, image.affine, image.header), path)
    assert app.run(root, tmp_path / "after", *flags) == 0
    assert_same(fitted_in(tmp_path / "after"), fitted_in(tmp_path / "before"))
    single = app.scores(tmp_path / "after", "two_way_identification", "latents, single trials")
    assert 0.3 < single["score"] < 0.7


def test_a_head_that_moved_in_test_runs_changes_no_bit_of_what_is_fitted(tmp_path):
    """Raw BOLD is realigned: what test runs lose from view is not taken from the others."""
    root = simulate(tmp_path / "ds", app.small(n_train_runs=2, trials_per_run=12))
    flags = ("--n-voxels", "80", "--betas", "lsa", "--drift-order", "2")
    assert app.run(root, tmp_path / "before", *flags, realign=True) == 0
    for path in root.glob("sub-01/func/*run-01_bold.nii.gz"):
        image = nibabel.load(path)
        moved = np.zeros(image.shape, np.int16)
        moved[..., 3:, :] = np.asanyarray(image.dataobj)[..., :-3, :]
        nibabel.save(nibabel.Nifti1Image(moved, image.affine, image.header), path)
    assert app.run(root, tmp_path / "after", *flags, realign=True) == 0
    assert_same(fitted_in(tmp_path / "after"), fitted_in(tmp_path / "before"))


def test_the_first_stage_is_told_latents_of_training_trials_only(dataset, tmp_path):
    settings = Settings(bids_dir=str(dataset), output_dir=str(tmp_path / "out"))
    told = jobs.stage_jobs(make_plan(dataset, "01", settings), settings, tmp_path)["responses"]
    table = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    trials = pd.DataFrame(told["trials"])
    shown = trials.loc[trials["split"] == "train", "stim_id"]
    expected = np.load(dataset / "stimuli" / "latents.npy")[table.loc[shown, "latent_row"]]
    assert (np.load(told["latents"]) == expected).all()


def test_shuffled_training_labels_leave_scores_at_chance(tmp_path):
    settings = app.small(noise=(0.3,), n_test_stimuli=24, n_latents=8)
    root = simulate(tmp_path / "ds", settings)
    assert app.run(root, tmp_path / "true") == 0
    path = root / "stimuli" / "latents.npy"
    latents = np.load(path)
    n_train = settings.n_train_runs * settings.trials_per_run
    latents[:n_train] = np.random.default_rng(3).permutation(latents[:n_train])
    np.save(path, latents)
    assert app.run(root, tmp_path / "shuffled") == 0
    true = app.scores(tmp_path / "true", "two_way_identification", "latents")
    shuffled = app.scores(tmp_path / "shuffled", "two_way_identification", "latents")
    assert true["score"] > 0.9
    assert true["p"] < 0.001
    assert abs(shuffled["score"] - 0.5) < 0.2
    assert shuffled["p"] > 0.01


def rows_of_test_stimuli(root):
    """Return the rows of the latents of the test stimuli."""
    table = pd.read_csv(root / "stimuli" / "latents.tsv", sep="\t")
    events = pd.concat(pd.read_csv(p, sep="\t") for p in root.glob("sub-01/func/*_events.tsv"))
    shown = events.loc[events["split"] == "test", "stim_id"].unique()
    return table.set_index("stim_id").loc[shown, "latent_row"].to_numpy()
