"""What solvers are told: folds, places and repeats; and the app with the decoders that use them."""

import dataclasses

import app
import nibabel
import numpy as np
import pandas as pd
import pytest

from hyper_bids import decode
from hyper_bids.bids.outputs import Fragment
from hyper_bids.config import DecoderSettings, Settings, with_values
from hyper_bids.errors import HyperBidsError
from hyper_bids.participant import fitting
from hyper_bids.simulate.dataset import simulate

N_REPEATS = 3  # test runs of the small dataset show 8 stimuli in 24 trials


def trials_of(train, test, run=None):
    """Return a table of trials from the stimuli of training and test trials."""
    return pd.DataFrame(
        {
            "run_index": run or [0] * len(train) + [1] * len(test),
            "stim_id": [*train, *test],
            "split": ["train"] * len(train) + ["test"] * len(test),
        }
    )


def options(decoder, trials, rng, **settings):
    """Return what the solver is told of two voxels."""
    about = {"rank": np.array([2.0, 1.0]), "places": np.eye(2, 3)}
    job = {"device": "cpu", "progress": None}
    return fitting.solver_options(DecoderSettings(decoder, **settings), trials, about, rng, job)


@pytest.mark.parametrize(
    ("decoder", "told"),
    [
        ("ols", set()),
        ("ridge", {"folds"}),
        ("averaged", {"folds", "rank"}),
        ("bayes", {"places", "n_repeats"}),
        ("best", {"folds", "rank", "places", "n_repeats"}),
    ],
)
def test_each_solver_is_told_what_it_takes(decoder, told, rng):
    found = options(decoder, trials_of("abcd", "xxyzxy"), rng)
    assert set(found) == told
    if "n_repeats" in told:
        assert found["n_repeats"] == 2  # of 6 trials of 3 test stimuli


def test_folds_that_leave_too_few_trials_are_refused_before_any_work():
    uneven = np.array([0, 1, 1, 1, 1])
    fitting.check_fit(DecoderSettings("averaged"), uneven)
    fitting.check_fit(DecoderSettings("best", cv="loo"), uneven)
    with pytest.raises(HyperBidsError, match="--decoder best: without the 4 training trials"):
        fitting.check_fit(DecoderSettings("best"), uneven)
    with pytest.raises(HyperBidsError, match="3 training trials; --decoder best needs at least 4"):
        fitting.check_fit(DecoderSettings("best"), np.zeros(3))
    with pytest.raises(HyperBidsError, match="--cv 6: there are only 5"):
        fitting.check_fit(DecoderSettings("averaged", cv="6"), uneven)
    fitting.check_fit(DecoderSettings("bayes", cv="6"), uneven)


def test_stimuli_are_left_out_together_only_where_enough_trials_stay(rng):
    run = np.zeros(6)
    folds = fitting.cv_folds("auto", run, rng, np.array(list("aabbcc")))
    assert (np.bincount(folds) == 2).all()
    for few in ("aaaaab", "aaaaaa", "abcdef"):
        assert fitting.cv_folds("auto", run, rng, np.array(list(few))) is None


def test_places_are_millimetres_of_the_chosen_voxels_in_the_masks_order(tmp_path, rng):
    fragment = Fragment(tmp_path, {"subject": "01"}, {})
    mask = rng.random((4, 3, 5)) > 0.4
    affine = nibabel.affines.from_matvec(np.diag([2.0, 3.0, 4.0]), [-5, 7, 1])
    np.save(fragment.internal("mask.npy"), mask)
    np.save(fragment.internal("affine.npy"), affine)
    fragment.internal("model.json").write_text("{}", "utf-8")
    chosen = np.array([3, 0, 11])
    found = fitting.places_of(tmp_path, chosen)
    wanted = nibabel.affines.apply_affine(affine, np.argwhere(mask)[chosen])
    np.testing.assert_allclose(found, wanted)
    fragment.internal("model.json").write_text('{"places_known": false}', "utf-8")
    assert fitting.places_of(tmp_path, chosen) is None


def test_the_estimate_of_memory_grows_by_what_the_solver_holds():
    plain, model = (
        fitting.memory_mb(with_values(Settings(), {"decoder": name}), 1050, 10**6, 512)
        for name in ("ridge", "bayes")
    )
    assert model - plain == pytest.approx((40 * 1050 * 4096 + 24 * 4096 * 512) / 2**20, abs=1)
    many, modelled = (
        fitting.memory_mb(with_values(Settings(), {"decoder": name}), 20_000, 100, 5)
        for name in ("averaged", "best")
    )
    assert modelled - many == pytest.approx((40 * 20_000 * 100 + 24 * 20_000**2) / 2**20, rel=0.01)
    few = fitting.memory_mb(with_values(Settings(), {"n_voxels": 9}), 1050, 10**6, 512)
    assert few < plain / 10


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a small noisy dataset."""
    return simulate(
        tmp_path_factory.mktemp("fitting") / "ds",
        dataclasses.replace(app.SMALL, noise=(3.0,), n_train_runs=4),
    )


@pytest.fixture(scope="module", params=["bayes", "averaged", "best"])
def fitted(request, dataset, tmp_path_factory):
    """Return a decoder and what the app made with it."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    assert app.run(dataset, out, "--decoder", request.param, "--n-voxels", "80") == 0
    return request.param, out


def test_predictions_are_the_solvers_on_the_published_responses(fitted, dataset):
    name, out = fitted
    used = nibabel.load(app.find(out, "_desc-decoder_mask.nii.gz")).get_fdata() > 0
    image = nibabel.load(app.find(out, "01_task-faces_desc-trials_statmap.nii.gz"))
    rows = app.table(out, "faces_desc-trials_statmap.tsv")
    betas, run = image.get_fdata()[used].T, rows["run"].to_numpy()
    z = np.empty_like(betas)
    for one in np.unique(run):
        part = betas[run == one]
        z[run == one] = (part - part.mean(axis=0)) / part.std(axis=0)
    known = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t", dtype=str)
    row = {name: k for k, name in enumerate(known["stim_id"])}
    latents = np.load(dataset / "stimuli" / "latents.npy")[[row[s] for s in rows["stim_id"]]]
    train = (rows["split"] == "train").to_numpy()
    places = nibabel.affines.apply_affine(image.affine, np.argwhere(used))
    rank = nibabel.load(app.find(out, "_stat-z_desc-train_statmap.nii.gz")).get_fdata()[used]
    folds = np.unique(run[train], return_inverse=True)[1]
    told = {
        "bayes": {"places": places, "n_repeats": N_REPEATS},
        "averaged": {"folds": folds, "rank": rank},
    }
    told["best"] = {**told["bayes"], **told["averaged"]}
    fit = decode.SOLVERS[name](z[train], latents[train], np.random.default_rng(0), **told[name])
    index = app.table(out, "_desc-predicted_latents.tsv")
    assert (index["n_presentations"] == N_REPEATS).all()
    shown = rows.loc[~train, "stim_id"].to_numpy()
    means = np.stack([z[~train][shown == stimulus].mean(axis=0) for stimulus in index["stim_id"]])
    predicted = decode.predict(fit, means, N_REPEATS)
    np.testing.assert_allclose(app.load(out, "_desc-predicted_latents.npy"), predicted, atol=2e-3)
    if fit.averaged is not None:
        # The other map is another one, so that the app cannot have used it.
        assert np.abs(decode.predict(fit, means) - predicted).max() > 0.02
    assert app.scores(out, "latent_correlation")["score"] > 0.3


def test_the_sidecar_tells_what_was_chosen(fitted):
    name, out = fitted
    said = app.sidecar(out, "_decoder.npz".replace(".npz", ".json"))
    if name in ("averaged", "bayes"):
        assert {"averaged": "members", "bayes": "n_pairs"}[name] in said
    else:
        assert set(said["left_out"]) == {"averaged", "bayes"}
        assert said["chosen"] in said["left_out"]


def test_contributions_are_those_of_the_map_that_predicted(dataset, tmp_path):
    labels = np.zeros(app.SMALL.shape, np.int16)
    labels[:5], labels[5:] = 1, 2
    image = nibabel.load(next(dataset.glob("sub-01/func/*_bold.nii.gz")))
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), tmp_path / "atlas.nii.gz")
    out = tmp_path / "out"
    flags = ("--decoder", "bayes", "--n-voxels", "80", "--atlas", tmp_path / "atlas.nii.gz")
    assert app.run(dataset, out, *flags) == 0
    table = app.table(out, "_desc-regions_metrics.tsv").set_index("index")
    decoder = decode.load(app.find(out, "_decoder.npz"))
    index = app.table(out, "_desc-predicted_latents.tsv")
    known = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t", dtype=str)
    row = {name: k for k, name in enumerate(known["stim_id"])}
    true = np.load(dataset / "stimuli" / "latents.npy")[[row[s] for s in index["stim_id"]]]
    true = true - true.mean(axis=0)
    predicted = app.load(out, "_desc-predicted_latents.npy").astype(float)
    whole = ((predicted - predicted.mean(axis=0)) * true).sum()
    rows = app.table(out, "faces_desc-trials_statmap.tsv")
    used = nibabel.load(app.find(out, "_desc-decoder_mask.nii.gz")).get_fdata() > 0
    betas = nibabel.load(app.find(out, "01_task-faces_desc-trials_statmap.nii.gz")).get_fdata()
    z = betas[used].T[(rows["split"] == "test").to_numpy()]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    shown = rows.loc[rows["split"] == "test", "stim_id"].to_numpy()
    means = np.stack([z[shown == stimulus].mean(axis=0) for stimulus in index["stim_id"]])
    front = labels[used] == 1
    part = means[:, front] @ decoder.averaged.weights[front]
    share = ((part - part.mean(axis=0)) * true).sum() / whole
    assert table.loc[1, "contribution"] == pytest.approx(share, abs=2e-3)
    assert table["contribution"].sum() == pytest.approx(1, abs=1e-6)
