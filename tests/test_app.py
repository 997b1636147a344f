"""The whole app on simulated data: the planted truth, and an independent analysis of the same."""

import json

import app
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hyper_bids import decode
from hyper_bids.generators.checkpoints import load
from hyper_bids.generators.protocol import to_uint8
from hyper_bids.simulate.dataset import simulate

N_VOXELS = 120
PLAIN = ("--betas", "lsa", "--drift-order", "2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return two simulated participants who saw faces of the embedded generator."""
    settings = app.small(
        n_participants=2,
        trials_per_run=40,
        n_train_runs=4,
        n_test_stimuli=10,
        n_coding_voxels=150,
        shape=(12, 14, 10),
        noise=(0.5,),
        generator="demo",
        n_latents=100,
        with_derivatives=True,
    )
    return simulate(tmp_path_factory.mktemp("app") / "ds", settings)


@pytest.fixture(scope="module")
def before(dataset):
    """Return the dataset's bytes before anything ran on it."""
    return app.contents(dataset)


@pytest.fixture(scope="module")
def out(dataset, before):
    """Return the derivatives of both participants and of the group."""
    folder = dataset.parent / "out"
    flags = ["--n-voxels", N_VOXELS, "--write-images", "--nprocs", "2", "--n-permutations", "999"]
    assert app.run(dataset, folder, *flags) == 0
    assert app.run(dataset, folder, level="group") == 0
    return folder


@pytest.fixture(scope="module")
def plain(dataset):
    """Return the derivatives of one participant with betas of ordinary least squares."""
    folder = dataset.parent / "plain"
    flags = ["--participant-label", "01", "--n-voxels", N_VOXELS, "--generator", "none", *PLAIN]
    assert app.run(dataset, folder, *flags) == 0
    return folder


def truth(dataset, participant="01"):
    return np.load(dataset / "sourcedata" / "simulation" / f"sub-{participant}_truth.npz")


def test_the_dataset_is_left_as_it_was(dataset, before, out):
    assert app.contents(dataset) == before


def test_the_voxels_that_are_chosen_are_those_that_code(dataset, out):
    for participant in ("01", "02"):
        mask = nibabel.load(app.find(out, "_desc-decoder_mask.nii.gz", participant)).get_fdata() > 0
        coding = truth(dataset, participant)["coding_voxels"]
        assert mask.sum() == N_VOXELS
        assert mask[tuple(coding.T)].sum() > 0.95 * N_VOXELS


def test_betas_are_those_that_were_planted_with_the_error_that_was_planted(tmp_path):
    settings = app.small(noise=(0.5,), drift=0.0, spikes_per_run=0, hrf_variation=0.0)
    dataset = simulate(tmp_path / "ds", settings)
    assert app.run(dataset, tmp_path / "out", *PLAIN) == 0
    for a, b in found_and_planted(dataset, tmp_path / "out"):
        # Noise level 0.5: the error of a beta has half the sd of the code, which is 0.5 %.
        assert (a - b).std() == pytest.approx(0.25, rel=0.1)
        slope = (a * b).sum(axis=0) / (b * b).sum(axis=0)
        assert slope.mean() == pytest.approx(1, abs=0.05)


def found_and_planted(dataset, out):
    """Return each run's betas in coding voxels, and those that were planted, without their mean."""
    planted = truth(dataset)
    betas = nibabel.load(app.find(out, "01_task-faces_desc-trials_statmap.nii.gz"))
    brain = nibabel.load(app.find(out, "_desc-brain_mask.nii.gz")).get_fdata() > 0
    rows = app.table(out, "faces_desc-trials_statmap.tsv")
    assert len(rows) == betas.shape[3]
    stimuli = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    seen = brain[tuple(planted["coding_voxels"].T)]
    found = betas.get_fdata()[tuple(planted["coding_voxels"][seen].T)].T
    true = planted["betas"][stimuli.loc[rows["stim_id"], "latent_row"]][:, seen]
    runs = [(rows["run"] == run).to_numpy() for run in rows["run"].unique()]
    return [tuple(x[part] - x[part].mean(axis=0) for x in (found, true)) for part in runs]


def test_betas_of_a_chosen_model_are_nearer_to_the_planted_ones_than_those_of_a_fixed_one(
    dataset, out, plain
):
    for optimised, fixed in zip(
        found_and_planted(dataset, out), found_and_planted(dataset, plain), strict=True
    ):
        close = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in (optimised, fixed)]
        assert close[0] > close[1] + 0.03
    metric = ("one_of_n_identification", "latents, single trials")
    assert app.scores(out, *metric)["score"] >= app.scores(plain, *metric)["score"]


def test_response_functions_that_are_chosen_peak_when_the_planted_ones_do(dataset, out):
    planted = truth(dataset)
    index = app.fit_map(out, "hrf_index")
    functions = app.sidecar(out, "_desc-fit_statmap.json")["ResponseFunctions"]
    names = pd.DataFrame(functions).set_index("hrf_index")["hrf"]
    peaks = names.replace("glover", "peak-5.1").str.split("-").str[1].astype(float)
    found = peaks[index[tuple(planted["coding_voxels"].T)].astype(int)].to_numpy()
    assert np.corrcoef(found, planted["time_to_peak"])[0, 1] > 0.7


def test_the_page_tells_the_model_that_was_chosen(out):
    model = app.sidecar(out, "faces_desc-trials_statmap.json")["Model"]
    page = (out / "sub-01.html").read_text("utf-8")
    assert f"polynomial drifts up to order {model['drift_order']}" in page
    assert "one of 22 response functions" in page
    assert f"drift of order {model['drift_order']}" in page
    assert "model" in app.figures(out)


def test_predictions_are_those_of_an_independent_analysis(dataset, plain):
    """Design by nilearn, least squares by numpy and ridge by scikit-learn, on the same files."""
    betas, runs, shown, mask = reference_betas(dataset, plain)
    stimuli = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    latents = np.load(dataset / "stimuli" / "latents.npy")
    test = runs == 0
    chosen = nibabel.load(app.find(plain, "_desc-decoder_mask.nii.gz")).get_fdata()[mask] > 0
    assert chosen.sum() == N_VOXELS
    z = np.empty((len(betas), N_VOXELS))
    for run in np.unique(runs):
        part = betas[runs == run][:, chosen]
        z[runs == run] = (part - part.mean(axis=0)) / part.std(axis=0)
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

    alphas = app.sidecar(plain, "_decoder.json")["Course"]["penalty"]
    search = GridSearchCV(
        Ridge(), {"alpha": alphas}, scoring="neg_mean_squared_error", cv=LeaveOneGroupOut()
    )
    rows = stimuli.loc[shown, "latent_row"].to_numpy()
    search.fit(z[~test], latents[rows[~test]], groups=runs[~test])
    index = app.table(plain, "_desc-predicted_latents.tsv")
    means = np.stack([z[test][shown[test] == name].mean(axis=0) for name in index["stim_id"]])
    expected = search.predict(means)
    found = app.load(plain, "_desc-predicted_latents.npy")
    alpha = app.sidecar(plain, "_desc-linear_decoder.json")["alpha"]
    assert alpha == pytest.approx(search.best_params_["alpha"], rel=1e-5)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def reference_betas(dataset, out):
    """Return betas (n_trials, n_voxels), runs, stimuli and the mask, by nilearn's design."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    mask = nibabel.load(app.find(out, "_desc-brain_mask.nii.gz")).get_fdata() > 0
    betas, runs, shown = [], [], []
    for index, path in enumerate(sorted(dataset.glob("sub-01/func/*_bold.nii.gz"))):
        image = nibabel.load(path)
        bold = image.get_fdata()[mask].T
        t_r = float(image.header.get_zooms()[3])
        events = pd.read_csv(str(path).replace("_bold.nii.gz", "_events.tsv"), sep="\t")
        names = [f"trial{k:03d}" for k in range(len(events))]
        design = make_first_level_design_matrix(
            (np.arange(len(bold)) + 0.5) * t_r,
            events[["onset", "duration"]].assign(trial_type=names),
            hrf_model="glover",
            drift_model="polynomial",
            drift_order=2,
            oversampling=100,
        )
        estimate = np.linalg.lstsq(design.to_numpy(), bold, rcond=None)[0]
        betas.append(100 * estimate[: len(events)] / bold.mean(axis=0))
        runs += [index] * len(events)
        shown += events["stim_id"].tolist()
    return np.concatenate(betas), np.array(runs), np.array(shown), mask


def test_scores_stand_far_above_their_controls(out):
    for participant in ("01", "02"):
        for metric, variant in (
            ("two_way_identification", "latents"),
            ("two_way_identification", "images, SSIM"),
            ("latent_correlation", "n/a"),
            ("structural_similarity", "reference"),
        ):
            found = app.scores(out, metric, variant, participant)
            assert found["p"] == 0.001
            margin = 0.02 if metric == "structural_similarity" else 0.2
            assert found["score"] > found["mismatched"] + margin
            assert found["score"] > found["training_mean"] + margin


def test_value_error_and_interval_of_a_score_go_together(out):
    rows = app.table(out, "_desc-summary_metrics.tsv")
    rows = rows[rows["control"].isna() & (rows["se"] > 0)]
    assert len(rows) >= 6
    for row in rows.itertuples():
        assert row.ci_low <= row.value <= row.ci_high
        # A normal distribution's interval has a width of 3.9 standard errors.
        assert 2.5 < (row.ci_high - row.ci_low) / row.se < 5


def test_a_prediction_of_the_training_mean_looks_like_no_information(out):
    two_way = app.scores(out, "two_way_identification", "latents")
    assert two_way["training_mean"] == two_way["chance"] == 0.5
    assert app.scores(out, "one_of_n_identification", "latents")["training_mean"] == 0.1
    assert app.scores(out, "latent_correlation")["training_mean"] == 0


def test_without_images_the_row_of_feature_similarity_has_no_number(plain):
    rows = app.table(plain, "_desc-summary_metrics.tsv")
    rows = rows[rows["metric"] == "feature_similarity"]
    assert sorted(rows["variant"]) == ["code", "printed"]
    assert rows[["value", "se", "p", "n"]].isna().all(axis=None)


def test_the_saved_decoder_makes_the_saved_predictions_from_the_saved_betas(out):
    decoder = decode.load(app.find(out, "_decoder.npz"))
    used = nibabel.load(app.find(out, "_desc-decoder_mask.nii.gz")).get_fdata() > 0
    betas = nibabel.load(app.find(out, "01_task-faces_desc-trials_statmap.nii.gz")).get_fdata()
    rows = app.table(out, "faces_desc-trials_statmap.tsv")
    test = (rows["split"] == "test").to_numpy()
    z = betas[used].T[test]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    index = app.table(out, "_desc-predicted_latents.tsv")
    means = [z[rows.loc[test, "stim_id"] == name].mean(axis=0) for name in index["stim_id"]]
    predicted = decode.predict(decoder, np.stack(means))
    np.testing.assert_allclose(predicted, app.load(out, "_desc-predicted_latents.npy"), atol=1e-4)


def test_images_are_the_generator_s_of_predictions_on_the_prior_s_shell(dataset, out):
    predicted = app.load(out, "_desc-predicted_latents.npy").astype(float)
    latents = np.load(dataset / "stimuli" / "latents.npy")[:160]
    length = np.linalg.norm(latents, axis=1).mean()
    shell = length * predicted / np.linalg.norm(predicted, axis=1, keepdims=True)
    assert np.linalg.norm(predicted, axis=1).mean() < 0.95 * length
    expected = to_uint8(load("demo").generate(shell.astype(np.float32)))
    images = app.load(out, "_images.npy")
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int) - expected).max() <= 1


def test_pngs_are_the_rows_of_the_array(out):
    images = app.load(out, "_images.npy")
    names = app.sidecar(out, "_desc-recon_images.json")["Stimuli"]
    assert names == app.table(out, "_desc-predicted_latents.tsv")["stim_id"].tolist()
    for row, name in enumerate(names):
        path = app.find(out, f"_desc-recon{row:04d}{name}_figure.png")
        assert (np.asarray(Image.open(path)) == images[row]).all()


def test_participants_have_the_stimuli_in_one_order(out):
    tables = [app.table(out, "_desc-predicted_latents.tsv", label) for label in ("01", "02")]
    assert tables[0]["stim_id"].tolist() == tables[1]["stim_id"].tolist()
    assert tables[0]["stim_id"].is_monotonic_increasing


def test_each_array_has_a_sidecar_with_its_checksum_and_no_pickle(out):
    import hashlib

    arrays = [p for p in out.rglob("*") if p.name.endswith((".npy", ".npz", ".nii.gz"))]
    assert len(arrays) == 2 * 17
    for path in arrays:
        beside = json.loads((path.parent / f"{path.name.split('.')[0]}.json").read_text("utf-8"))
        assert beside["SHA256"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert beside["Sources"]
        assert beside["Simulated"] is True
        if path.suffix in (".npy", ".npz"):
            np.load(path, allow_pickle=False)


@pytest.mark.parametrize("part", ["raw", "derivatives"])
def test_the_bids_validator_finds_no_errors(dataset, out, part):
    assert app.bids_errors({"raw": dataset, "derivatives": out}[part]) == []


def test_a_participant_is_the_same_alone_and_beside_others(dataset, out, tmp_path):
    flags = ["--n-voxels", N_VOXELS, "--write-images", "--n-permutations", "999"]
    assert app.run(dataset, tmp_path / "out", "--participant-label", "sub-02", *flags) == 0
    assert not list((tmp_path / "out").glob("sub-01*"))
    patterns = ("sub-02/**/*", "sub-02.html")
    alone = app.contents(tmp_path / "out", *patterns)
    assert len(alone) > 40
    together = app.contents(out, *patterns)
    for name, content in alone.items():
        # The links of the dataset are relative, so nothing names the folder.
        assert together[name] == content, name


def test_preprocessed_data_with_masks_and_confounds_decode_too(dataset, tmp_path):
    derivatives = dataset / "derivatives" / "simprep"
    flags = ["--participant-label", "01", "-d", f"prep={derivatives}", "--generator", "none"]
    assert app.run(dataset, tmp_path / "out", *flags, "--n-voxels", N_VOXELS) == 0
    sidecar = app.sidecar(tmp_path / "out", "_space-MNI152NLin2009cAsym_desc-trials_statmap.json")
    kinds = {source.split(":")[1] + ":" + source.split("_")[-1] for source in sidecar["Sources"]}
    assert kinds == {
        "prep:bold.nii.gz", "raw:events.tsv", "prep:mask.nii.gz", "prep:timeseries.tsv",
    }  # fmt: skip
    assert app.find(tmp_path / "out", "_space-MNI152NLin2009cAsym_desc-summary_metrics.tsv")
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text("utf-8"))
    assert set(description["DatasetLinks"]) == {"raw", "prep"}
    assert app.scores(tmp_path / "out", "latent_correlation")["score"] > 0.5
    brain = nibabel.load(app.find(tmp_path / "out", "_desc-brain_mask.nii.gz")).get_fdata() > 0
    assert (brain == truth(dataset)["brain"]).all()


def test_without_an_image_model_there_is_everything_but_images(dataset, tmp_path):
    flags = ["--participant-label", "01", "--generator", "none", "--n-voxels", N_VOXELS]
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    assert not list((tmp_path / "out").rglob("*_images.*"))
    rows = app.table(tmp_path / "out", "_desc-summary_metrics.tsv")
    assert not rows["metric"].str.contains("structural").any()
    assert "Latents only" in (tmp_path / "out" / "sub-01.html").read_text("utf-8")


def test_the_length_of_a_prediction_is_put_back_for_images_only(dataset, out, tmp_path):
    flags = ["--participant-label", "01", "--latent-norm", "none", "--n-voxels", N_VOXELS]
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    predicted = app.load(tmp_path / "out", "_desc-predicted_latents.npy")
    assert (predicted == app.load(out, "_desc-predicted_latents.npy")).all()
    images = app.load(tmp_path / "out", "_images.npy")
    expected = to_uint8(load("demo").generate(predicted))
    assert np.abs(images.astype(int) - expected).max() <= 1
    metric = ("two_way_identification", "latents")
    assert app.scores(tmp_path / "out", *metric)["score"] == app.scores(out, *metric)["score"]


def test_a_mask_of_the_user_decides_over_the_ranking(dataset, tmp_path):
    coding = truth(dataset)["coding_voxels"]
    bold = nibabel.load(next(dataset.glob("sub-01/func/*_bold.nii.gz")))
    labels = np.zeros(bold.shape[:3], np.int16)
    labels[tuple(coding[:90].T)] = 7
    labels[tuple(coding[90:].T)] = 9
    nibabel.save(nibabel.Nifti1Image(labels, bold.affine), tmp_path / "atlas.nii.gz")
    flags = ["--participant-label", "01", "--generator", "none"]
    flags += ["--decoder-mask", tmp_path / "atlas.nii.gz", "--mask-labels", "7"]
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    used = nibabel.load(app.find(tmp_path / "out", "_desc-decoder_mask.nii.gz")).get_fdata() > 0
    brain = nibabel.load(app.find(tmp_path / "out", "_desc-brain_mask.nii.gz")).get_fdata() > 0
    assert (used == (labels == 7) & brain).all()
