"""Feature networks and attributes in a whole run: planted labels, and what cannot be compared."""

from pathlib import Path

import app
import numpy as np
import pandas as pd
import pytest

from hyper_bids import attributes, perceptual
from hyper_bids.participant import features
from hyper_bids.simulate.dataset import simulate

PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "interfacegan"
needs_public = pytest.mark.skipif(
    not PUBLIC.is_dir(), reason="InterFaceGAN's boundaries lie beside the checkout, and are absent"
)
needs_network = pytest.mark.skipif(not perceptual.available(), reason="no network is installed")

METRIC = "attribute_correlation"
PLANTED = ["age", "gaze", "hair", "pose", "smile"]
FLAGS = ("--betas", "lsa", "--drift-order", "2", "--n-voxels", 120, "--n-permutations", 999)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return one participant who saw faces, with labels: a planted one, a die, a name and a key."""
    settings = app.small(
        trials_per_run=40, n_train_runs=4, n_test_stimuli=40, n_coding_voxels=150,
        shape=(12, 14, 10), noise=(0.3,), generator="demo", n_latents=100,
    )  # fmt: skip
    folder = simulate(tmp_path_factory.mktemp("comparisons") / "ds", settings)
    label(folder, np.random.default_rng(1))
    return folder


def label(folder, rng):
    """Write labels beside the latents: a planted one is the sum of twenty latents and noise."""
    path = folder / "stimuli" / "latents.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    latents = np.load(folder / "stimuli" / "latents.npy")[table["latent_row"].astype(int)]
    for k, name in enumerate(PLANTED):
        value = latents[:, 20 * k : 20 * k + 20].sum(axis=1) / 20**0.5
        table[name] = np.round(40 + 10 * (value + 0.2 * rng.standard_normal(len(value))), 2)
    table["old"] = np.where(table["age"].astype(float) > 40, "yes", "no")
    table["dice"] = rng.integers(1, 7, len(table))
    table["remark"] = [f"face number {k}" for k in range(len(table))]
    table["photo_id"] = range(len(table))
    table.to_csv(path, sep="\t", index=False)


def relabel(folder, rows, rng):
    """Put the labels of some stimuli into another order."""
    path = folder / "stimuli" / "latents.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    where = np.flatnonzero(table["stim_id"].isin(rows))
    names = [*PLANTED, "old"]
    table.loc[where, names] = table.loc[rng.permutation(where), names].to_numpy()
    table.to_csv(path, sep="\t", index=False)


def shown(folder, split):
    events = [pd.read_csv(path, sep="\t") for path in folder.glob("sub-01/**/*_events.tsv")]
    events = pd.concat(events)
    return sorted(events["stim_id"][events["split"] == split].unique())


@pytest.fixture(scope="module")
def out(dataset):
    """Return the derivatives of HYPER and eigenfaces, with the networks that are installed."""
    folder = dataset.parent / "out"
    assert app.run(dataset, folder, *FLAGS, "--methods", "hyper", "eigenface") == 0
    return folder


@pytest.fixture
def copy(dataset, tmp_path):
    """Return a copy of the dataset to change, its large files linked."""
    import shutil

    shutil.copytree(dataset, tmp_path / "ds", copy_function=lambda a, b: Path(b).symlink_to(a))
    path = tmp_path / "ds" / "stimuli" / "latents.tsv"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return tmp_path / "ds"


def rows_of(out, metric, method="hyper"):
    table = app.table(out, "_desc-summary_metrics.tsv")
    return table[(table["metric"] == metric) & (table["method"] == method)]


# Attributes from labels


def test_planted_labels_are_predicted_as_well_as_latents_are_and_the_mean_knows_none(out):
    rows = rows_of(out, METRIC)
    main = rows[rows["control"].isna()].set_index("variant")
    assert set(main.index) == {*PLANTED, "old"}
    # Each is a direction of its own, and as hard to predict as a latent.
    known = app.scores(out, "latent_correlation")["score"]
    assert main.loc[PLANTED, "value"].mean() == pytest.approx(known, abs=0.2)
    best = main.loc[main["value"].idxmax()]
    assert best["p"] <= 0.01
    assert 0 < best["ci_low"] < best["value"] < best["ci_high"] < 1
    assert (main["se"] > 0).all()
    constant = rows[rows["control"] == "training_mean"]
    assert len(constant) == len(main)
    assert (constant["value"] == 0).all()


def test_a_baselines_directions_are_those_of_its_own_latents(out):
    said = app.sidecar(out, "_desc-summary_metrics.json")["AttributeDirections"]
    names = {m: [r["Name"] for r in said if r["Method"] == m] for m in ("hyper", "eigenface")}
    found = rows_of(out, METRIC, "eigenface")
    assert sorted(found["variant"].unique()) == sorted(names["eigenface"])
    assert set(names["eigenface"]) < set(names["hyper"])


def test_the_score_is_that_of_directions_fitted_to_training_stimuli_by_hand(dataset, out):
    table = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    latents = np.load(dataset / "stimuli" / "latents.npy")
    names = shown(dataset, "train")
    train = table.loc[names]
    found = attributes.from_labels(latents[train["latent_row"]], {"age": train["age"].tolist()})
    index = app.table(out, "_desc-predicted_latents.tsv")
    true = latents[table.loc[index["stim_id"], "latent_row"]] @ found.vectors[0]
    predicted = app.load(out, "_desc-predicted_latents.npy") @ found.vectors[0]
    r = np.corrcoef(true, predicted)[0, 1]
    assert app.scores(out, METRIC, "age")["score"] == pytest.approx(r, abs=1e-4)
    said = app.sidecar(out, "_desc-summary_metrics.json")["AttributeDirections"]
    (age,) = [row for row in said if row["Method"] == "hyper" and row["Name"] == "age"]
    assert age["Column"] == "age"
    assert age["FitRSquare"] == pytest.approx(found.fit[0], abs=1e-4)


def test_no_label_of_a_test_stimulus_reaches_any_number(dataset, out, copy):
    relabel(copy, shown(dataset, "test"), np.random.default_rng(2))
    again = copy.parent / "out"
    assert app.run(copy, again, *FLAGS, "--methods", "hyper", "eigenface") == 0
    for ending in ("_desc-summary_metrics.tsv", "_desc-null_metrics.npy"):
        assert app.find(again, ending).read_bytes() == app.find(out, ending).read_bytes()


def test_labels_of_training_stimuli_matter_and_shuffled_ones_are_not_scored_as_age(
    dataset, out, copy
):
    relabel(copy, shown(dataset, "train"), np.random.default_rng(3))
    again = copy.parent / "out"
    assert app.run(copy, again, *FLAGS, "--generator", "none") == 0
    fit = {
        folder: {
            row["Name"]: row["FitRSquare"]
            for row in app.sidecar(folder, "_desc-summary_metrics.json").get(
                "AttributeDirections", []
            )
            if row["Method"] == "hyper"
        }
        for folder in (out, again)
    }
    for name in PLANTED:
        assert fit[out][name] > 0.8
        assert fit[again].get(name, 0) < 0.2


def test_the_page_draws_and_explains_attributes(out):
    page = (out / "sub-01.html").read_text("utf-8")
    assert "Attribute correlation (age)" in page
    assert "fitted to labels of the training stimuli" in page
    assert len(app.figures(out)["attributes"]) > 1000


# Networks


@needs_network
def test_each_network_knows_reconstructions_of_hyper_and_the_mean_gets_ties(out):
    for source in perceptual.available():
        network = perceptual.load(source)
        short = features.short_name(network)
        found = app.scores(out, "two_way_identification", f"features, {short}")
        assert found["score"] > 0.65
        assert found["p"] <= 0.002
        assert found["training_mean"] == found["chance"] == 0.5
        for metric, variant in (
            ("feature_similarity", f"code, {short}"),
            ("feature_similarity", f"printed, {short}"),
            ("feature_correlation", short),
            ("brain_retrieval", f"features, {short}"),
            ("top_5_identification", f"features, {short}"),
        ):
            found = app.scores(out, metric, variant)
            assert found["score"] > found["mismatched"]
            assert found["p"] <= 0.01
    assert {"code", "printed"}.isdisjoint(rows_of(out, "feature_similarity")["variant"])


def test_an_exported_network_fills_the_row_of_mindeye_and_the_page_names_the_rest(
    dataset, tmp_path
):
    torch = pytest.importorskip("torch")

    class Means(torch.nn.Module):
        """Means of parts of the picture."""

        def forward(self, x):
            return torch.nn.functional.avg_pool2d(x, 8).flatten(1)

    path = tmp_path / "swav.pt"
    torch.jit.save(torch.jit.trace(Means().eval(), torch.zeros(2, 3, 32, 32)), path)
    path.with_suffix(".json").write_text('{"name": "SwAV", "side": 32, "mean": [0.4, 0.4, 0.4]}')
    flags = (*FLAGS, "--feature-network", path, "--prior-images", 2)
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    r = app.scores(tmp_path / "out", "feature_correlation", "SwAV")
    distance = app.scores(tmp_path / "out", "correlation_distance", "SwAV")
    assert distance["score"] == pytest.approx(1 - r["score"], abs=1e-5)
    assert distance["score"] < distance["mismatched"]
    assert distance["p"] == r["p"] <= 0.01
    assert np.isnan(
        app.scores(tmp_path / "out", "correlation_distance", "EfficientNet-B1")["score"]
    )
    page = (tmp_path / "out" / "sub-01.html").read_text("utf-8")
    assert (
        "MindEye2&#39;s scores by AlexNet 2, AlexNet 5, Inception v3, CLIP, EfficientNet-B1 (give"
        in page
    )
    assert "here, lower is better" in page
    # What the file beside it says is part of the network: scores are computed again.
    path.with_suffix(".json").write_text('{"name": "SwAV", "side": 32, "mean": [0.9, 0.1, 0.4]}')
    assert app.run(dataset, tmp_path / "out", *flags) == 0
    again = app.scores(tmp_path / "out", "feature_correlation", "SwAV")
    assert again["score"] != r["score"]


@needs_network
def test_a_network_that_stands_in_is_named_as_such_on_page_and_sidecar(out):
    said = app.sidecar(out, "_desc-summary_metrics.json")["FeatureNetworks"]
    page = (out / "sub-01.html").read_text("utf-8")
    assert len(said) == len(perceptual.available())
    for network in said:
        assert len(network["SHA256"]) == 64
        assert "stand-in" in network["Label"]
        assert "VGGFace" not in network["Name"]
        assert f"by {network['Name']}" in page or network["Name"] in page
    table = app.table(out, "_desc-summary_metrics.tsv")
    assert not table["variant"].str.contains("VGGFace", na=False).any()


def test_without_a_network_the_page_says_what_to_install(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "available", list)
    features._chosen.cache_clear()
    assert app.run(dataset, tmp_path / "out", *FLAGS) == 0
    features._chosen.cache_clear()
    assert "pip install &#39;hyper_bids[faces]&#39;" in (tmp_path / "out/sub-01.html").read_text()
    rows = rows_of(tmp_path / "out", "feature_similarity")
    assert sorted(rows["variant"]) == ["code", "printed"]
    assert rows["value"].isna().all()


def test_none_leaves_networks_out_without_a_note_and_no_other_number_changes(
    dataset, out, tmp_path
):
    assert app.run(dataset, tmp_path / "out", *FLAGS, "--feature-network", "none") == 0
    assert "pip install" not in (tmp_path / "out" / "sub-01.html").read_text("utf-8")
    assert rows_of(tmp_path / "out", "feature_similarity")["value"].isna().all()
    found = app.table(tmp_path / "out", "_desc-summary_metrics.tsv")
    before = app.table(out, "_desc-summary_metrics.tsv")
    before = before[before["method"] == "hyper"]
    found, before = (
        table[
            ~table["metric"].str.startswith(("feature", "correlation_distance"))
            & ~table["variant"].str.startswith("features", na=False)
        ].reset_index(drop=True)
        for table in (found, before)
    )
    # Corrected for fewer scores, p is smaller or the same.
    both = found["p_max"].notna()
    assert (found["p_max"][both] <= before["p_max"][both]).all()
    found, before = (table.drop(columns="p_max") for table in (found, before))
    pd.testing.assert_frame_equal(found, before, check_dtype=False)


# Boundaries


@pytest.fixture(scope="module")
def pggan_latents(tmp_path_factory):
    """Return a dataset of 512 latents and no images."""
    settings = app.small(n_latents=512, n_test_stimuli=12, trials_per_run=36)
    return simulate(tmp_path_factory.mktemp("boundaries") / "ds", settings)


@needs_public
def test_public_boundaries_are_scored_by_hand_the_same(pggan_latents, tmp_path, monkeypatch):
    monkeypatch.chdir(PUBLIC.parent)
    flags = ("--attribute-boundaries", PUBLIC.name, "--n-permutations", 99)
    assert app.run(pggan_latents, tmp_path / "out", *flags) == 0
    rows = rows_of(tmp_path / "out", METRIC)
    assert rows[rows["control"].isna()]["variant"].nunique() == 15
    index = app.table(tmp_path / "out", "_desc-predicted_latents.tsv")
    table = pd.read_csv(pggan_latents / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    latents = np.load(pggan_latents / "stimuli" / "latents.npy")
    gender = np.load(PUBLIC / "pggan_celebahq_gender_boundary.npy")[0]
    true = latents[table.loc[index["stim_id"], "latent_row"]] @ gender
    predicted = app.load(tmp_path / "out", "_desc-predicted_latents.npy") @ gender
    score = app.scores(tmp_path / "out", METRIC, "gender")
    assert score["score"] == pytest.approx(np.corrcoef(true, predicted)[0, 1], abs=1e-4)
    said = app.sidecar(tmp_path / "out", "_desc-summary_metrics.json")["AttributeDirections"]
    files = {row["Name"]: row["File"] for row in said}
    assert files["age_c_gender"] == "pggan_celebahq_age_c_gender_boundary.npy"
    assert len({row["SHA256"] for row in said}) == 15


@needs_public
def test_boundaries_of_other_latents_or_of_no_method_are_refused_before_any_work(
    dataset, pggan_latents, tmp_path, said
):
    flags = ("--attribute-boundaries", PUBLIC)
    assert app.run(dataset, tmp_path / "out", *flags) == 65
    assert "the stimuli's latents want (1, 100)" in said.text
    assert app.run(dataset, tmp_path / "out", *flags, "--methods", "eigenface") == 64
    assert "Add hyper to --methods" in said.text
    assert not list((tmp_path / "out").glob("sub-*"))


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--feature-network", "nowhere.pth"), 64),
        (("--feature-network", "none", "auto"), 64),
        (("--feature-layer", "fc6"), 64),
        (("--attribute-boundaries", "nowhere"), 65),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(dataset, tmp_path, words, status):
    assert app.run(dataset, tmp_path / "out", *words) == status
    assert not list((tmp_path / "out").glob("sub-*"))
