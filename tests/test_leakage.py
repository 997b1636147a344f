"""What is fitted sees training trials only: whatever happens to test data, no bit of it changes."""

import shutil

import app
import nibabel
import numpy as np
import pytest

from hyper_bids.simulate.dataset import simulate

# Everything that is fitted or chosen, as published.
FITTED = (
    "sub-01/func/*_decoder.npz",
    "sub-01/func/*_desc-decoder_mask.nii.gz",
    "sub-01/func/*_desc-brain_mask.nii.gz",
    "sub-01/func/*_stat-z_desc-train_statmap.nii.gz",
    "sub-01/func/*_desc-training_metrics.tsv",
    "sub-01/figures/*curve*.png",
)
DECODERS = {
    "ridge": ("--decoder", "ridge", "--n-voxels", "80"),
    "ridge, 3 folds": ("--decoder", "ridge", "--cv", "3", "--standardise", "train"),
    "ols": ("--decoder", "ols", "--n-voxels", "40"),
    "dense": ("--decoder", "dense", "--epochs", "3"),
}


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


@pytest.fixture(scope="module", params=DECODERS)
def fitted(request, dataset, tmp_path_factory):
    """Return the flags of a decoder, and what it fits to the dataset as it is."""
    out = tmp_path_factory.mktemp("as-it-is") / "out"
    assert app.run(dataset, out, *DECODERS[request.param]) == 0
    return DECODERS[request.param], app.contents(out, *FITTED)


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
    assert app.contents(tmp_path / "out", *FITTED) == before


def test_destroyed_training_labels_do_change_it(spoilt, fitted, tmp_path):
    path = spoilt / "stimuli" / "latents.npy"
    latents = np.load(path)
    test = rows_of_test_stimuli(spoilt)
    train = np.setdiff1d(np.arange(len(latents)), test)
    latents[train] = np.random.default_rng(1).permutation(latents[train])
    np.save(path, latents)
    flags, before = fitted
    assert app.run(spoilt, tmp_path / "out", *flags) == 0
    after = app.contents(tmp_path / "out", *FITTED)
    changed = {name.rsplit("_", 1)[-1] for name in before if after[name] != before[name]}
    assert "decoder.npz" in changed
    # The choice of voxels knows no labels at all.
    assert not {name for name in before if "mask" in name and after[name] != before[name]}


@pytest.mark.parametrize("flags", DECODERS.values(), ids=DECODERS)
def test_destroyed_bold_of_test_runs_changes_no_bit_of_what_is_fitted(tmp_path, flags):
    root = simulate(tmp_path / "ds", app.SMALL)
    assert app.run(root, tmp_path / "before", *flags) == 0
    rng = np.random.default_rng(2)
    for path in root.glob("sub-01/func/*run-01_bold.nii.gz"):
        image = nibabel.load(path)
        noise = rng.integers(500, 1500, image.shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(noise, image.affine, image.header), path)
    assert app.run(root, tmp_path / "after", *flags) == 0
    before, after = (app.contents(tmp_path / name, *FITTED) for name in ("before", "after"))
    assert len(before) >= 4
    assert after == before
    single = app.scores(tmp_path / "after", "two_way_identification", "latents, single trials")
    assert 0.3 < single["score"] < 0.7


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
    import pandas as pd

    table = pd.read_csv(root / "stimuli" / "latents.tsv", sep="\t")
    events = pd.concat(pd.read_csv(p, sep="\t") for p in root.glob("sub-01/func/*_events.tsv"))
    shown = events.loc[events["split"] == "test", "stim_id"].unique()
    return table.set_index("stim_id").loc[shown, "latent_row"].to_numpy()
