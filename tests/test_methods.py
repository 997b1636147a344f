"""Several methods in one run: each is what it would be alone, from its own encoded stimuli."""

import shutil

import app
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hyper_bids.errors import InputError, UsageError
from hyper_bids.generators import checkpoints
from hyper_bids.generators.eigenface import fit_eigenface, save_eigenface
from hyper_bids.participant.methods import choose_methods
from hyper_bids.simulate.dataset import simulate

META = {"Generator": "demo"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a small dataset with images: 72 training and 8 test faces."""
    return simulate(
        tmp_path_factory.mktemp("methods") / "ds", app.small(generator="demo", n_latents=100)
    )


@pytest.fixture(scope="module")
def out(dataset):
    """Return the results of HYPER and eigenface."""
    folder = dataset.with_name("both")
    assert app.run(dataset, folder, "--methods", "hyper", "eigenface") == 0
    return folder


def picture(path):
    """Return an image file as numbers in [0, 1]."""
    return np.asarray(Image.open(path).convert("RGB"), float) / 255


def of_method(out, method, metric, variant="n/a"):
    """Return the rows of a score of a method, control to row."""
    frame = app.table(out, "_desc-summary_metrics.tsv").fillna({"variant": "n/a"})
    frame = frame[(frame["method"] == method) & (frame["metric"] == metric)]
    frame = frame[frame["variant"] == variant]
    return frame.assign(control=frame["control"].fillna("score")).set_index("control")


def test_what_hyper_finds_does_not_depend_on_other_methods(dataset, out, tmp_path):
    assert app.run(dataset, tmp_path / "alone", work=dataset.with_name("both-work")) == 0
    alone = app.contents(tmp_path / "alone", "sub-01/func/*")
    both = app.contents(out, "sub-01/func/*")
    summaries = [name for name in alone if any(s in name for s in ("summary", "perstim", "null"))]
    assert {name: both[name] for name in alone if name not in summaries} == {
        name: content for name, content in alone.items() if name not in summaries
    }
    one, two = (
        app.table(folder, "_desc-summary_metrics.tsv") for folder in (tmp_path / "alone", out)
    )
    # Corrected for more scores, p is another.
    corrected = two[two["method"] == "hyper"]["p_max"]
    assert (corrected.dropna() >= one["p_max"].dropna()).all()
    hyper = two[two["method"] == "hyper"].drop(columns="p_max")
    pd.testing.assert_frame_equal(one.drop(columns="p_max"), hyper)


def test_eigenface_targets_are_the_training_stimuli_s_principal_components(dataset, out):
    """Decoder, targets and images against scikit-learn, from the published responses."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    responses = app.load(out, "_desc-eigenfacePredicted_latents.npy")
    trials = app.table(out, "faces_desc-trials_statmap.tsv")
    names = {split: sorted(set(trials["stim_file"][trials["split"] == split]))
             for split in ("train", "test")}  # fmt: skip
    faces = {split: np.stack([picture(dataset / "stimuli" / n).ravel() for n in names[split]])
             for split in names}  # fmt: skip
    pca = PCA(svd_solver="full").fit(faces["train"])
    # The last component of centred data carries nothing.
    components = pca.components_[: len(names["train"]) - 1]
    assert responses.shape == (8, len(components))
    # The decoder's own weights, applied to its own betas, by scikit-learn's ridge.
    saved = np.load(app.find(out, "_desc-eigenfaceLinear_decoder.npz"))
    alpha = app.sidecar(out, "_desc-eigenfaceLinear_decoder.json")["alpha"]
    work = dataset.with_name("both-work")
    betas = np.load(next(work.rglob("sub_01_responses/part/internal/betas.npy")))
    mask = np.load(next(work.rglob("sub_01_responses/part/internal/mask.npy")))
    assert betas.shape[1] == mask.sum()
    decoder_mask = nibabel.load(app.find(out, "_desc-decoder_mask.nii.gz"))
    chosen = np.asarray(decoder_mask.dataobj)[mask] > 0
    X = betas[:, chosen].astype(float)
    run = trials["run"].to_numpy()
    for label in set(run):
        here = run == label
        X[here] = (X[here] - X[here].mean(0)) / X[here].std(0)
    train = (trials["split"] == "train").to_numpy()
    row = {name: k for k, name in enumerate(names["train"])}
    scores = (faces["train"] - pca.mean_) @ components.T
    scale = np.sqrt((scores**2).sum() / (len(scores) - 1) / len(components))
    T = scores[[row[n] for n in trials["stim_file"][train]]] / scale
    fitted = Ridge(alpha=alpha).fit(X[train], T)
    ours, theirs = saved["weights"], fitted.coef_.T
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=2e-3 * np.abs(theirs).max())
    means = np.stack(
        [X[(trials["stim_file"] == n).to_numpy() & ~train].mean(0) for n in names["test"]]
    )
    predicted = fitted.predict(means) * scale @ components + pca.mean_
    shown = app.load(out, "_desc-eigenfaceRecon_images.npy").astype(float) / 255
    expected = np.clip(predicted, 0, 1).reshape(shown.shape)
    assert np.abs(shown - expected).mean() < 0.004


def test_images_of_all_methods_are_compared_with_the_stimuli_at_one_size(out):
    from skimage.metrics import structural_similarity

    images = app.load(out, "_desc-eigenfaceRecon_images.npy")
    work = out.with_name("both-work")
    shown = np.load(next(work.rglob("sub_01_images_eigenface/part/internal/images.npz")))
    hyper = np.load(next(work.rglob("sub_01_images/part/internal/images.npz")))
    assert (shown["stimuli"] == hyper["stimuli"]).all()
    values = [
        structural_similarity(a, b, channel_axis=2, data_range=255)
        for a, b in zip(images, hyper["stimuli"], strict=True)
    ]
    found = of_method(out, "eigenface", "structural_similarity", "reference")
    assert found.loc["score", "value"] == pytest.approx(np.mean(values), abs=1e-4)


def test_a_constant_prediction_is_no_information_in_every_method(out):
    for method in ("hyper", "eigenface"):
        found = of_method(out, method, "two_way_identification", "latents")
        assert found.loc["training_mean", "value"] == 0.5
        found = of_method(out, method, "latent_correlation")
        assert found.loc["training_mean", "value"] == 0


def test_test_images_and_labels_have_no_part_in_a_baseline_s_fit(dataset, out, tmp_path):
    changed = shutil.copytree(dataset, tmp_path / "ds")
    trials = app.table(out, "faces_desc-trials_statmap.tsv")
    rng = np.random.default_rng(3)
    for name in set(trials["stim_file"][trials["split"] == "test"]):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(changed / "stimuli" / name)
    assert app.run(changed, tmp_path / "out", "--methods", "hyper", "eigenface") == 0
    fitted = ("sub-01/func/*_decoder.npz", "sub-01/func/*raining_metrics.tsv")
    assert app.contents(tmp_path / "out", *fitted) == app.contents(out, *fitted)
    models = [
        next(folder.rglob("sub_01_targets_eigenface/part/internal/model.safetensors")).read_bytes()
        for folder in (tmp_path / "out-work", out.with_name("both-work"))
    ]
    assert models[0] == models[1]
    assert (app.load(tmp_path / "out", "_desc-eigenfacePredicted_latents.npy")
            == app.load(out, "_desc-eigenfacePredicted_latents.npy")).all()  # fmt: skip


def test_a_changed_training_image_is_seen_and_nothing_else_computed(dataset, tmp_path, said):
    changed = shutil.copytree(dataset, tmp_path / "ds")
    flags = ("--methods", "hyper", "eigenface")
    assert app.run(changed, tmp_path / "out", *flags) == 0
    before = app.load(tmp_path / "out", "_desc-eigenfacePredicted_latents.npy")
    trials = app.table(tmp_path / "out", "faces_desc-trials_statmap.tsv")
    name = trials["stim_file"][trials["split"] == "train"].iloc[0]
    Image.new("RGB", (64, 64), "green").save(changed / "stimuli" / name)
    said.clear()
    assert app.run(changed, tmp_path / "out", *flags) == 0
    assert any(
        text.startswith("sub-01: computed targets_eigenface, decoding_eigenface, images_eigenface, "
                        "scores;") for text in said.messages
    )  # fmt: skip
    after = app.load(tmp_path / "out", "_desc-eigenfacePredicted_latents.npy")
    assert not np.array_equal(before, after)


def test_a_baseline_alone_needs_no_generator_and_two_participants_run_side_by_side(tmp_path):
    root = simulate(tmp_path / "ds", app.small(generator="demo", n_latents=100, n_participants=2))
    flags = ("--methods", "eigenface", "--generator", "none")
    assert app.run(root, tmp_path / "out", *flags, "--use-plugin", "multiproc") == 0
    assert app.run(root, tmp_path / "out", level="group") == 0
    table = pd.read_csv(tmp_path / "out" / "group_stats.tsv", sep="\t", na_values="n/a")
    assert set(table["method"]) == {"eigenface"}
    main = table[(table["metric"] == "structural_similarity") & table["control"].isna()]
    assert not list((tmp_path / "out").rglob("*_desc-predicted_latents.npy"))
    assert len(list((tmp_path / "out").rglob("*_desc-decoder_mask.nii.gz"))) == 2
    assert main["n_participants"].tolist() == [2, 2]
    assert main[["mean", "p", "p_max"]].notna().all(axis=None)


def test_stimuli_without_files_are_made_by_the_generator_and_encoded(dataset, out, tmp_path):
    """Their latents are those of the files, up to the files' 8 bits."""
    changed = shutil.copytree(dataset, tmp_path / "ds")
    path = changed / "stimuli" / "latents.tsv"
    pd.read_csv(path, sep="\t").assign(stim_file="n/a").to_csv(path, sep="\t", index=False)
    for events in changed.rglob("*_events.tsv"):
        frame = pd.read_csv(events, sep="\t", keep_default_na=False)
        frame.drop(columns="stim_file", errors="ignore").to_csv(events, sep="\t", index=False)
    assert app.run(changed, tmp_path / "out", "--methods", "hyper", "eigenface") == 0
    np.testing.assert_allclose(
        app.load(tmp_path / "out", "_desc-eigenfacePredicted_latents.npy"),
        app.load(out, "_desc-eigenfacePredicted_latents.npy"), atol=1e-3,
    )  # fmt: skip
    assert app.run(
        changed, tmp_path / "none", "--methods", "hyper", "eigenface", "--generator", "none"
    ) == InputError.exit_status  # fmt: skip


def test_eigenfaces_of_a_folder_are_used_as_they_are(dataset, out, tmp_path):
    faces = np.random.default_rng(5).random((30, 32, 32, 3)).astype(np.float32)
    model = save_eigenface(tmp_path / "own.safetensors", fit_eigenface(faces, 12, name="own faces"))
    flags = ("--methods", f"mine={tmp_path / 'own.safetensors'}")
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    about = app.sidecar(tmp_path / "out", "_desc-mineRecon_images.json")
    assert (about["Generator"], about["GeneratorChecksum"]) == ("own faces", model.checksum)
    assert (about["LatentNorm"], about["LatentSpace"]) == ("none", "encoded")
    assert app.load(tmp_path / "out", "_desc-mineRecon_images.npy").shape == (8, 32, 32, 3)
    assert app.load(tmp_path / "out", "_desc-minePredicted_latents.npy").shape == (8, 12)
    labels = (tmp_path / "out" / "descriptions.tsv").read_text("utf-8")
    assert "desc-mineRecon\t" in labels


def test_files_are_found_from_where_the_command_is_typed(dataset, tmp_path, monkeypatch):
    """Stages run in folders of their own."""
    shutil.copy(checkpoints.KNOWN["demo"], tmp_path / "own.safetensors")
    mask = next(dataset.rglob("*_bold.nii.gz"))
    image = nibabel.load(mask)
    inside = np.ones(image.shape[:3], np.uint8)
    nibabel.save(nibabel.Nifti1Image(inside, image.affine), tmp_path / "mask.nii.gz")
    monkeypatch.chdir(tmp_path)
    flags = ("--generator", "own.safetensors", "--decoder-mask", "mask.nii.gz")
    assert app.run(dataset, "out", *flags, work="work") == 0
    assert app.load(tmp_path / "out", "_desc-recon_images.npy").shape == (8, 64, 64, 3)


@pytest.mark.parametrize(
    ("wanted", "error", "told"),
    [
        (("hyper", "eigenfaces"), UsageError, "--methods eigenfaces: unknown"),
        (("eigenface", "hyper", "eigenface"), UsageError, "more than once"),
        (("hyper=demo",), UsageError, "--generator"),
        (("own=demo",), InputError, "has no encoder"),
        (("own=/no/such.safetensors",), UsageError, "--methods own=/no/such.safetensors: no such"),
    ],
)
def test_methods_that_cannot_be_used_are_refused(wanted, error, told):
    with pytest.raises(error, match=told.replace("(", r"\(")):
        choose_methods(wanted, "auto", META, 100)


def test_the_shipped_model_is_named_as_what_it_is():
    methods, notes = choose_methods(("hyper", "vaegan"), "auto", META, 100)
    assert [m.encoded for m in methods] == [False, True]
    assert any("not the paper's" in note for note in notes)
