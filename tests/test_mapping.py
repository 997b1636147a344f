"""Where in the brain: the stage's maps and regions against what was planted and the library."""

import shutil
from types import SimpleNamespace

import app
import nibabel
import numpy as np
import pandas as pd
import pytest
from test_imported import LATENTS, imported, planted

from hyper_bids import maps
from hyper_bids.bids.regions import read_names
from hyper_bids.config import MapSettings
from hyper_bids.decode import load
from hyper_bids.errors import InputError, UsageError
from hyper_bids.glm.encoding import encoding_folds
from hyper_bids.glm.voxelwise import GROUPS, encoding_map
from hyper_bids.participant.jobs import given_to
from hyper_bids.participant.mapping import encode, repetitions
from hyper_bids.participant.regions import check_regions
from hyper_bids.simulate.dataset import simulate

N_VOXELS = 80
FLAGS = ("--n-voxels", N_VOXELS, "--betas", "lsa", "--drift-order", "2", "--n-permutations", "50")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a simulated dataset, whose coding voxels are known."""
    return simulate(tmp_path_factory.mktemp("mapping") / "ds", app.small(noise=(0.5,)))


@pytest.fixture(scope="module")
def coding(dataset):
    """Return where the code was planted, bool (x, y, z)."""
    with np.load(dataset / "sourcedata" / "simulation" / "sub-01_truth.npz") as truth:
        there = np.zeros(app.SMALL.shape, bool)
        there[tuple(truth["coding_voxels"].T)] = True
    return there


@pytest.fixture(scope="module")
def affine(dataset):
    return nibabel.load(next(dataset.glob("sub-01/func/*_bold.nii.gz"))).affine


@pytest.fixture(scope="module")
def atlas(dataset, coding, affine):
    """Return an image of two regions: 3 where the code is, 7 in the rest of the lower half."""
    labels = np.where(coding, 3, 0)
    labels[:, :, :4][labels[:, :, :4] == 0] = 7
    path = dataset.with_name("areas.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), path)
    path.with_name("areas.tsv").write_text("index\tname\n3\tcoding area\n7\tlower rest\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def out(dataset, atlas):
    """Return the derivatives of the dataset, with regions."""
    folder = dataset.with_name("out")
    assert app.run(dataset, folder, *FLAGS, "--atlas", atlas) == 0
    return folder


def volume(out, ending):
    """Return the values of an image."""
    return np.asarray(nibabel.load(app.find(out, f"{ending}.nii.gz")).dataobj)


def responses(out):
    """Return published responses, trials x brain voxels, their table, and the brain mask."""
    brain = volume(out, "_desc-brain_mask") > 0
    betas = volume(out, "_task-faces_desc-trials_statmap")[brain].T
    return betas, app.table(out, "_task-faces_desc-trials_statmap.tsv"), brain


def standardised(betas, table):
    """Return responses z-scored run by run; runs of this dataset train or test."""
    z = np.zeros_like(betas)
    for rows in table.groupby("run").indices.values():
        own = betas[rows].astype(float)
        z[rows] = (own - own.mean(axis=0)) / own.std(axis=0)
    return z


def known_latents(dataset, table):
    rows = pd.read_csv(dataset / "stimuli" / "latents.tsv", sep="\t").set_index("stim_id")
    return np.load(dataset / "stimuli" / "latents.npy")[rows.loc[table["stim_id"], "latent_row"]]


# Encoding


def test_planted_voxels_are_encoded_and_others_are_at_chance(out, coding):
    brain = volume(out, "_desc-brain_mask") > 0
    r, q = (
        volume(out, "_stat-r_desc-encoding_statmap"),
        volume(out, "_stat-q_desc-encoding_statmap"),
    )
    planted_ones, others = coding & brain, brain & ~coding
    assert np.median(r[planted_ones]) > 0.5
    assert (q[planted_ones] <= 0.05).mean() > 0.95
    assert abs(r[others].mean()) < 3 / np.sqrt(72 * others.sum() / 4)
    false = ((q <= 0.05) & others).sum()
    assert false <= 0.15 * (q <= 0.05).sum()
    assert (r[~brain] == 0).all()
    # Thresholded from below, nothing around the brain may pass.
    assert (q[~brain] == 1).all()


def test_the_encoding_map_is_that_of_published_responses_of_training_trials(out, dataset):
    betas, table, brain = responses(out)
    train = (table["split"] == "train").to_numpy()
    z, run = standardised(betas, table)[train], table["run"].to_numpy()[train]
    folds = encoding_folds(known_latents(dataset, table)[train].astype(float), run, GROUPS)
    r = encoding_map(lambda part: z[:, part], z.shape[1], folds, 1000)
    np.testing.assert_allclose(volume(out, "_stat-r_desc-encoding_statmap")[brain], r, atol=1e-5)


def test_the_normalised_map_is_by_the_published_reliability_of_single_trials(out):
    _, table, brain = responses(out)
    counts = table[table["split"] == "test"]["stim_id"].value_counts().to_numpy()
    reliable = volume(out, "_stat-reliability_desc-test_statmap")[brain]
    r = volume(out, "_stat-r_desc-encoding_statmap")[brain]
    found = volume(out, "_stat-rNormalised_desc-encoding_statmap")[brain]
    np.testing.assert_allclose(found, maps.normalised(r, reliable, counts), rtol=1e-5)
    assert np.isfinite(found).any()


def test_repetitions_of_training_stimuli_have_no_part_in_the_ceiling():
    shown = {"stim_id": ["a", "b", "a", "x", "y", "x", "x"], "split": 3 * ["train"] + 4 * ["test"]}
    assert repetitions(pd.DataFrame(shown)).tolist() == [3, 1]


def test_without_repeated_test_stimuli_there_is_no_normalised_map(tmp_path):
    changes = {"n_train_runs": 2, "n_test_stimuli": 12, "trials_per_run": 12}
    root = simulate(tmp_path / "ds", app.small(**changes))
    assert app.run(root, tmp_path / "out", *FLAGS) == 0
    assert list((tmp_path / "out").glob("sub-01/func/*_stat-r_desc-encoding_statmap.nii.gz"))
    assert not list((tmp_path / "out").glob("sub-01/func/*rNormalised*"))


@pytest.fixture
def estimated(tmp_path, rng):
    """Return responses whose first 20 of 60 voxels carry latents, their trials and latents."""
    latents = rng.standard_normal((90, 3))
    betas = rng.standard_normal((90, 60))
    betas[:, :20] += latents @ rng.standard_normal((3, 20)) * 1.5
    betas[:, 59] = 2.0
    (tmp_path / "internal").mkdir()
    np.save(tmp_path / "internal" / "betas.npy", betas.astype(np.float32))
    split = np.where(np.arange(90) < 60, "train", "test")
    trials = pd.DataFrame({"run_index": np.arange(90) // 15, "split": split})
    return tmp_path, trials, latents[:60]


def test_a_voxel_that_does_not_vary_has_no_number_and_planted_ones_a_small_q(estimated, rng):
    found = encode(*estimated, rng)
    assert np.isfinite(found.r).tolist() == [True] * 59 + [False]
    assert np.isfinite(found.q).tolist() == [True] * 59 + [False]
    assert (found.q[:20] <= 0.05).mean() > 0.8
    assert (found.q[20:59] <= 0.05).mean() < 0.1
    assert found.n_draws == 10_000


def test_test_trials_have_no_part_in_the_encoding(estimated):
    folder, trials, latents = estimated
    before = encode(folder, trials, latents, np.random.default_rng(1))
    path = folder / "internal" / "betas.npy"
    betas = np.load(path)
    betas[60:] = 1e4
    np.save(path, betas)
    after = encode(folder, trials, latents, np.random.default_rng(1))
    np.testing.assert_array_equal(after.r, before.r)
    np.testing.assert_array_equal(after.q, before.q)
    shuffled = encode(folder, trials, latents[::-1], np.random.default_rng(1))
    assert np.nanmean(shuffled.r[:20]) < 0.3 * before.r[:20].mean()


def test_latents_that_do_not_vary_predict_nothing_and_are_no_error(estimated, rng):
    folder, trials, latents = estimated
    found = encode(folder, trials, np.ones_like(latents), rng)
    assert np.isnan(found.r).all()
    assert np.isnan(found.q).all()
    assert found.n_draws == 0


# The decoder


def test_maps_of_the_decoder_are_those_of_the_published_weights_and_responses(out):
    betas, table, brain = responses(out)
    used = volume(out, "_desc-decoder_mask") > 0
    weights = load(app.find(out, "_decoder.npz")).weights
    z = standardised(betas, table)[:, used[brain]]
    train = (table["split"] == "train").to_numpy()
    length = volume(out, "_stat-weight_desc-decoder_statmap")
    np.testing.assert_allclose(length[used], np.linalg.norm(weights, axis=1), rtol=1e-5)
    explained = volume(out, "_stat-explained_desc-decoder_statmap")
    np.testing.assert_allclose(explained[used], maps.explained(z[train], weights), atol=1e-5)
    assert (length[~used] == 0).all()
    assert (explained[~used] == 0).all()


# Regions


def test_the_table_counts_voxels_of_brain_and_decoder_in_each_region(out, atlas):
    labels = np.asarray(nibabel.load(atlas).dataobj)
    brain, used = volume(out, "_desc-brain_mask") > 0, volume(out, "_desc-decoder_mask") > 0
    table = app.table(out, "_desc-regions_metrics.tsv")
    assert table["index"].tolist() == [3, 7, 0]
    assert table["name"].tolist() == ["coding area", "lower rest", maps.regions.OUTSIDE]
    assert table["n_voxels"].tolist() == [(brain & (labels == k)).sum() for k in (3, 7, 0)]
    assert table["n_decoder"].tolist() == [(used & (labels == k)).sum() for k in (3, 7, 0)]
    assert table["n_decoder"].sum() == N_VOXELS
    for name in ("decoder_share", "contribution", "weight_share"):
        assert table[name].sum() == pytest.approx(1, abs=1e-6)


def test_the_table_averages_the_maps_over_regions(out, atlas):
    labels = np.asarray(nibabel.load(atlas).dataobj)
    brain = volume(out, "_desc-brain_mask") > 0
    r, q = (
        volume(out, "_stat-r_desc-encoding_statmap"),
        volume(out, "_stat-q_desc-encoding_statmap"),
    )
    share = volume(out, "_stat-rNormalised_desc-encoding_statmap")
    table = app.table(out, "_desc-regions_metrics.tsv").set_index("index")
    for label in (3, 7, 0):
        own, row = brain & (labels == label), table.loc[label]
        assert row["encoding_r"] == pytest.approx(r[own].mean(), abs=1e-5)
        assert row["encoding_share"] == pytest.approx((q[own] <= 0.05).mean(), abs=1e-5)
        # The voxels of a region may all have no ceiling that is told from 0.
        mean = pd.Series(share[own]).mean()
        assert row["encoding_r_normalised"] == pytest.approx(mean, abs=1e-5, nan_ok=True)
    assert table.loc[3, "encoding_r_normalised"] > 0.5


def test_what_is_decoded_comes_from_the_region_that_carries_the_code(out, dataset, atlas):
    betas, table, brain = responses(out)
    used = volume(out, "_desc-decoder_mask") > 0
    weights = load(app.find(out, "_decoder.npz")).weights.astype(float)
    test = (table["split"] == "test").to_numpy()
    z, stimuli = standardised(betas, table)[test][:, used[brain]], table["stim_id"][test]
    shown = sorted(set(stimuli))
    means = np.stack([z[(stimuli == name).to_numpy()].mean(axis=0) for name in shown])
    latents = known_latents(dataset, pd.DataFrame({"stim_id": shown})).astype(float)
    latents -= latents.mean(axis=0)
    of_region = np.asarray(nibabel.load(atlas).dataobj)[used]
    parts = {k: ((means * (of_region == k)) @ weights * latents).sum() for k in (3, 7, 0)}
    found = app.table(out, "_desc-regions_metrics.tsv").set_index("index")["contribution"]
    for label, part in parts.items():
        assert found[label] == pytest.approx(part / sum(parts.values()), abs=1e-4)
    assert found[3] > 0.9


def test_an_atlas_of_another_resolution_gives_the_same_table(out, dataset, atlas, tmp_path, said):
    image = nibabel.load(atlas)
    fine = np.asarray(image.dataobj)
    for axis in range(3):
        fine = fine.repeat(3, axis)
    affine = image.affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    affine[:3, 3] = image.affine[:3, 3] - image.affine[:3, :3] @ np.full(3, 1 / 3)
    path = tmp_path / "fine.nii.gz"
    nibabel.save(nibabel.Nifti1Image(fine, affine), path)
    again = tmp_path / "out"
    names = ("--atlas-names", atlas.with_name("areas.tsv"))
    assert app.run(dataset, again, *FLAGS, "--atlas", path, *names) == 0
    assert any("another grid" in text for text in said.messages)
    ending = "_desc-regions_metrics.tsv"
    assert app.find(again, ending).read_bytes() == app.find(out, ending).read_bytes()
    assert app.sidecar(again, "_desc-regions_metrics.json")["Atlas"]["Resampled"] is True
    assert app.sidecar(out, "_desc-regions_metrics.json")["Atlas"]["Resampled"] is False


def test_the_page_shows_both_figures_and_tells_the_methods(out):
    page = (out / "sub-01.html").read_text("utf-8")
    assert {"encoding", "regions"} <= set(app.figures(out))
    assert "Voxels were counted and averaged by the regions of areas.nii.gz" in page
    assert app.bids_errors(out) == []


# What is computed when


def computed(said):
    line = next(text for text in said.messages if text.startswith("sub-01: computed"))
    said.clear()
    return line.removeprefix("sub-01: computed ").split("; ")[0]


def test_a_changed_setting_of_the_maps_redoes_them_and_the_page_alone(
    dataset, atlas, tmp_path, said
):
    other = shutil.copy(atlas, tmp_path / "copy.nii.gz")
    assert app.run(dataset, tmp_path / "out", *FLAGS) == 0
    assert computed(said) == "responses, decoding, maps, scores"
    before = app.contents(tmp_path / "out", "sub-01/func/*_statmap.nii.gz", "sub-01/func/*.np?")
    assert app.run(dataset, tmp_path / "out", *FLAGS, "--atlas", other) == 0
    assert computed(said) == "maps, scores"
    assert app.contents(tmp_path / "out", "sub-01/func/*_statmap.nii.gz", "sub-01/func/*.np?") \
        == before  # fmt: skip
    # No names were found: regions have numbers.
    assert app.table(tmp_path / "out", "_desc-regions_metrics.tsv")["name"][0] == "region 3"
    shutil.copy(atlas.with_name("areas.tsv"), tmp_path / "copy.tsv")
    assert app.run(dataset, tmp_path / "out", *FLAGS, "--atlas", other) == 0
    assert computed(said) == "maps, scores"
    assert app.table(tmp_path / "out", "_desc-regions_metrics.tsv")["name"][0] == "coding area"
    assert app.run(dataset, tmp_path / "out", *FLAGS, "--no-maps") == 0
    assert computed(said) == "scores"
    page = (tmp_path / "out" / "sub-01.html").read_text("utf-8")
    assert "Encoding map" not in page
    assert "generalised cross-validation" not in page


def test_maps_are_of_the_first_method():
    names = ["responses", "targets_eigenface", "decoding_eigenface", "decoding", "maps", "scores"]
    expected = {"responses": "responses", "decoding": "decoding_eigenface"}
    assert given_to("maps", names) == expected
    assert given_to("maps", ["responses", "decoding", "maps"])["decoding"] == "decoding"
    assert given_to("scores", names)["maps"] == "maps"
    assert "maps" not in given_to("decoding", names)


def test_maps_of_a_baseline_have_its_decoder_and_no_method_in_their_names(tmp_path):
    small = app.small(
        generator="demo", n_latents=100, n_train_runs=2, trials_per_run=12, n_test_stimuli=4
    )
    root = simulate(tmp_path / "ds", small)
    out = tmp_path / "out"
    assert app.run(root, out, *FLAGS, "--methods", "eigenface", "hyper") == 0
    weights = load(app.find(out, "_desc-eigenfaceLinear_decoder.npz")).weights
    found = volume(out, "_task-faces_stat-weight_desc-decoder_statmap")
    used = volume(out, "_desc-decoder_mask") > 0
    np.testing.assert_allclose(found[used], np.linalg.norm(weights, axis=1), rtol=1e-5)


def test_imports_without_places_have_no_maps_and_no_regions(tmp_path, rng, atlas, said):
    root = imported(tmp_path, planted(rng), *LATENTS)
    out = tmp_path / "out"
    assert app.run(root, out, "--n-voxels", 20, "--n-permutations", 50) == 0
    assert computed(said) == "responses, decoding, scores"
    assert not list(out.glob("sub-*/**/*.nii.gz"))
    assert "generalised cross-validation" not in (out / "sub-01.html").read_text("utf-8")
    assert app.run(root, out, "--atlas", atlas) == 64
    assert "places of the imported voxels are unknown" in said.messages[-1]


def test_imports_with_places_have_maps_where_the_code_was_planted(tmp_path, rng):
    mask = np.zeros((5, 4, 3), bool)
    mask.ravel()[rng.permutation(60)[:40]] = True
    path = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.eye(4)), path)
    root = imported(tmp_path, planted(rng), *LATENTS, "--mask", str(path))
    out = tmp_path / "out"
    assert app.run(root, out, "--n-voxels", 20, "--n-permutations", 50, "--atlas", path) == 0
    q = volume(out, "_stat-q_desc-encoding_statmap")[mask]
    assert (q[:20] <= 0.05).all()
    assert (q[20:] <= 0.05).mean() < 0.2
    table = app.table(out, "_desc-regions_metrics.tsv")
    assert table["name"].tolist() == ["region 1"]
    assert table["n_voxels"].tolist() == [40]


# Bad input


def plan_of(bold=None, mask=None, space=None):
    """Return as much of a plan as the check of regions looks at."""
    entities = {"space": space} if space else {}
    return SimpleNamespace(
        imported=None, entities=entities, runs=[SimpleNamespace(bold=bold, mask=mask)]
    )


def test_flags_without_effect_and_files_that_are_not_there_are_refused(atlas, tmp_path):
    for settings, told in (
        (MapSettings(atlas_names="x.tsv"), "--atlas-names x.tsv: without effect"),
        (MapSettings(atlas=str(atlas), no_maps=True), "beside --no-maps"),
        (MapSettings(atlas="absent.nii"), "--atlas absent.nii: no such file"),
        (MapSettings(atlas=str(atlas), atlas_names="absent.tsv"), "--atlas-names absent.tsv: no"),
    ):
        with pytest.raises(UsageError, match=told):
            check_regions(settings, [])
    check_regions(MapSettings(no_maps=True), [])


def test_regions_in_another_space_or_beside_the_brain_are_refused_before_any_work(
    dataset, atlas, coding, affine, tmp_path
):
    bold = next(dataset.glob("sub-01/func/*_bold.nii.gz"))
    other = shutil.copy(atlas, tmp_path / "space-T1w_dseg.nii.gz")
    with pytest.raises(UsageError, match="in the space T1w, the BOLD in MNI"):
        check_regions(MapSettings(atlas=str(other)), [plan_of(bold, space="MNI")])
    check_regions(MapSettings(atlas=str(other)), [plan_of(bold)])
    brain = tmp_path / "mask.nii.gz"
    labels = np.asarray(nibabel.load(atlas).dataobj)
    nibabel.save(nibabel.Nifti1Image((labels == 0).astype(np.uint8), affine), brain)
    far = tmp_path / "far.nii.gz"
    away = affine.copy()
    away[:3, 3] += 1000
    nibabel.save(nibabel.Nifti1Image(labels, away), far)
    for path, plan in ((atlas, plan_of(bold, brain)), (far, plan_of(bold))):
        with pytest.raises(InputError, match="none of its regions lies in the brain"):
            check_regions(MapSettings(atlas=str(path)), [plan])


def test_an_atlas_without_labels_or_with_broken_names_is_refused_and_one_without_names_told(
    atlas, affine, tmp_path, said
):
    empty = tmp_path / "empty.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), affine), empty)
    with pytest.raises(InputError, match="all labels are 0"):
        check_regions(MapSettings(atlas=str(empty)), [])
    alone = shutil.copy(atlas, tmp_path / "alone.nii.gz")
    check_regions(MapSettings(atlas=str(alone)), [])
    assert "no table of names" in said.messages[-1]
    (tmp_path / "alone.tsv").write_text("index\tname\nx\tV1\n", "utf-8")
    with pytest.raises(InputError, match="column index: 'x' is no whole number"):
        check_regions(MapSettings(atlas=str(alone)), [])
    assert read_names(atlas.with_name("areas.tsv")) == {3: "coding area", 7: "lower rest"}
