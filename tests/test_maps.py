"""Maps of voxels: against definitions, scikit-learn, and planted signal, noise and regions."""

import nibabel
import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.linear_model import LinearRegression, Ridge

from hyper_bids import decode, figures, maps, stats, volumes
from hyper_bids.bids import regions
from hyper_bids.errors import InputError, UsageError
from hyper_bids.glm import voxelwise
from hyper_bids.glm.encoding import PENALTIES, encoding_folds
from hyper_bids.glm.voxelwise import encoding_correlation, encoding_map, encoding_null
from hyper_bids.maps.regions import OUTSIDE
from hyper_bids.participant.responses import reliability


def standardised(betas, run):
    result = np.array(betas, float)
    for label in np.unique(run):
        own = result[run == label]
        result[run == label] = (own - own.mean(axis=0)) / own.std(axis=0)
    return result


# --- patterns ------------------------------------------------------------------------------------


def test_patterns_are_those_of_the_definition(rng):
    X, W = rng.standard_normal((60, 20)) @ rng.standard_normal((20, 20)), rng.normal(size=(20, 5))
    cov = np.cov(X, rowvar=False)
    A = cov @ W @ np.linalg.inv(W.T @ cov @ W)
    np.testing.assert_allclose(maps.haufe_patterns(X, W), A, rtol=1e-5, atol=1e-6)


def test_patterns_are_the_forward_model_where_the_decoder_is_perfect(rng):
    """Without noise, responses are latents @ A', whatever voxels the decoder weights."""
    A = rng.standard_normal((30, 4))
    latents = rng.standard_normal((80, 4))
    W = np.zeros((30, 4))
    W[:4] = np.linalg.inv(A[:4].T)
    np.testing.assert_allclose(maps.haufe_patterns(latents @ A.T, W), A, rtol=1e-4, atol=1e-5)


def test_a_voxel_of_shared_noise_has_a_weight_and_no_pattern(rng):
    """Haufe et al. 2014, section 2.1.1: x1 = s + d, x2 = d; the decoder x1 - x2 needs the noise."""
    signal, noise = rng.standard_normal((2, 4000))
    X = np.stack([signal + noise, noise], axis=1)
    decoder = decode.fit("ols", X, signal[:, None], rng)
    assert maps.norms(decoder.weights) == pytest.approx([1, 1], abs=1e-3)
    assert maps.norms(maps.haufe_patterns(X, decoder.weights)) == pytest.approx([1, 0], abs=0.05)
    assert maps.explained(X, decoder.weights) == pytest.approx([0.5, 0], abs=0.05)


def test_summaries_do_not_depend_on_the_axes_of_the_latents(rng):
    X, W = rng.standard_normal((50, 30)), rng.standard_normal((30, 6))
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    np.testing.assert_allclose(maps.norms(W @ Q), maps.norms(W), rtol=1e-5)
    patterns, turned = (maps.haufe_patterns(X, V) for V in (W, W @ Q))
    np.testing.assert_allclose(maps.norms(turned), maps.norms(patterns), rtol=1e-4)
    skewed = W @ rng.standard_normal((6, 6))
    np.testing.assert_allclose(maps.explained(X, skewed), maps.explained(X, W), atol=1e-4)


def test_explained_variance_is_the_adjusted_r2_of_scikit_learn(rng):
    X, W = rng.standard_normal((50, 12)), rng.standard_normal((12, 6))
    X[:, 0] += 3 * X[:, 1]
    r2 = [LinearRegression().fit(X @ W, x).score(X @ W, x) for x in X.T]
    expected = 1 - (1 - np.array(r2)) * 49 / (49 - 6)
    np.testing.assert_allclose(maps.explained(X, W), expected, rtol=1e-4, atol=1e-5)


def test_a_voxel_that_the_decoder_has_nothing_to_do_with_explains_nothing(rng):
    X = rng.standard_normal((100, 400))
    W = np.zeros((400, 40))
    W[:100] = rng.standard_normal((100, 40))
    found = maps.explained(X, W)
    assert abs(found[100:].mean()) < 0.03
    assert found[:100].mean() > 0.1


def test_outputs_that_depend_on_each_other_and_constant_voxels_are_no_error(rng):
    X, W = rng.standard_normal((30, 8)), rng.standard_normal((8, 3))
    X[:, 7] = 5
    doubled = np.concatenate([W, W], axis=1)
    found = maps.haufe_patterns(X, doubled)
    np.testing.assert_allclose(2 * found[:, :3], maps.haufe_patterns(X, W), rtol=1e-4, atol=1e-6)
    assert np.isnan(maps.explained(X, doubled)[7])
    np.testing.assert_allclose(
        maps.explained(X, doubled)[:7], maps.explained(X, W)[:7], rtol=1e-4, atol=1e-6
    )
    assert np.isnan(maps.explained(X[:3], W)).all()  # two dimensions of trials for two outputs


def test_contributions_add_up_and_are_those_of_the_outputs_parts(rng):
    X, W, latents = (rng.standard_normal(shape) for shape in ((40, 9), (9, 3), (40, 3)))
    latents += 0.5 * X @ W
    found = maps.contribution(X, W, latents)
    assert found.sum() == pytest.approx(1)
    parts = [np.outer(X[:, v], W[v]) for v in range(9)]
    covs = [sum(np.cov(p[:, j], latents[:, j])[0, 1] for j in range(3)) for p in parts]
    np.testing.assert_allclose(found, np.array(covs) / sum(covs), rtol=1e-6)


def test_a_decoder_that_predicts_nothing_has_no_contributions(rng):
    X, latents = rng.standard_normal((40, 9)), rng.standard_normal((40, 3))
    assert np.isnan(maps.contribution(X, np.zeros((9, 3)), latents)).all()
    assert np.isnan(maps.contribution(X, -X.T @ latents, latents)).all()


def test_shapes_that_disagree_are_refused_with_both_shapes(rng):
    X, W = rng.standard_normal((40, 9)), rng.standard_normal((8, 3))
    for function in (maps.haufe_patterns, maps.explained):
        with pytest.raises(ValueError, match=r"\(40, 9\).*\(8, 3\)"):
            function(X, W)
    with pytest.raises(ValueError, match=r"latents of shape \(40, 2\)"):
        maps.contribution(X, np.ones((9, 3)), np.ones((40, 2)))
    with pytest.raises(ValueError, match="NaN"):
        maps.haufe_patterns(np.full((40, 9), np.nan), np.ones((9, 3)))


# --- encoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 6), (30, 50)])
def test_encoding_is_ridge_of_scikit_learn_with_a_penalty_by_gcv_of_the_other_runs(rng, shape):
    n, d = shape
    features, betas = rng.standard_normal((n, d)), rng.standard_normal((n, 6))
    betas[:, :3] += features[:, :3] * [0.3, 1, 9]
    run = np.repeat(np.arange(5), n // 5)
    betas = standardised(betas, run)
    X = features - features.mean(axis=0)
    X /= np.sqrt((X**2).sum() / n)
    expected = np.zeros(6)
    for left in range(5):
        train, test = run != left, run == left
        errors, predicted = [], []
        for penalty in PENALTIES:
            model = Ridge(alpha=penalty, fit_intercept=False, solver="svd")
            model.fit(X[train], betas[train])
            hat = X[train] @ np.linalg.solve(
                X[train].T @ X[train] + penalty * np.eye(d), X[train].T
            )
            # The means of the four runs are no longer in the betas.
            free = max(train.sum() - 4, np.linalg.matrix_rank(X[train])) - np.trace(hat)
            residual = ((betas[train] - model.predict(X[train])) ** 2).sum(axis=0)
            errors.append(residual / free**2)
            predicted.append(model.predict(X[test]))
        best = np.argmin(errors, axis=0)
        for v in range(6):
            p, y = predicted[best[v]][:, v], betas[test, v]
            expected[v] += p @ y / np.sqrt((p @ p) * (y @ y)) / 5
    found = encoding_correlation(betas, encoding_folds(features, run))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_neighbouring_trials_of_one_run_are_left_out_together_and_many_runs_in_ten_groups(rng):
    features = rng.standard_normal((50, 3))
    one = encoding_folds(features, np.zeros(50, int), 10)
    assert [fold.test.tolist() for fold in one] == np.arange(50).reshape(5, 10).tolist()
    many = encoding_folds(features, np.arange(50) // 2, 10)
    assert len(many) == 10
    runs = [set(fold.test // 2) for fold in many]
    assert sorted(r for group in runs for r in group) == list(range(25))


@pytest.fixture(scope="module")
def encoded():
    """Return runs, latents, folds, and a function that makes standardised voxels."""
    rng = np.random.default_rng(5)
    run = np.repeat(np.arange(8), 30)
    latents = rng.standard_normal((240, 20))
    folds = encoding_folds(latents, run)

    def voxels_of(share, n_voxels):
        signal = latents @ rng.standard_normal((20, n_voxels)) / np.sqrt(20)
        noise = rng.standard_normal((240, n_voxels))
        return standardised(np.sqrt(share) * signal + np.sqrt(1 - share) * noise, run)

    return run, latents, folds, voxels_of


def test_encoding_of_voxels_without_signal_has_mean_zero(encoded):
    """One correlation over all folds together would be at -1.1 / sqrt(n)."""
    _, _, folds, voxels_of = encoded
    r = encoding_correlation(voxels_of(0, 3000), folds)
    assert abs(r.mean()) * np.sqrt(240) < 0.12  # 4.5 standard errors of the mean


@pytest.mark.parametrize("noise", ["white", "autocorrelated", "heavy tails"])
def test_p_values_of_the_encoding_are_uniform_where_there_is_no_signal(encoded, rng, noise):
    run, _, folds, _ = encoded
    white = rng.standard_normal((241, 500))
    betas = {
        "white": white[1:],
        "autocorrelated": white[1:] + 0.8 * white[:-1],
        "heavy tails": rng.standard_t(3, (240, 500)),
    }[noise]
    betas = standardised(betas, run)
    null = encoding_null(betas[:, :200], folds, run, 5000, rng)
    p = maps.p_values(encoding_correlation(betas, folds), null)
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs((p < 0.05).mean() - 0.05) < 0.03


def test_chance_is_of_voxels_whose_trials_were_shuffled_within_their_runs(rng, monkeypatch):
    run = np.repeat([0, 1, 2], [4, 5, 6])
    betas = rng.standard_normal((15, 3)).astype(np.float32)
    drawn = []
    monkeypatch.setattr(
        voxelwise, "encoding_correlation", lambda b, folds: drawn.append(b) or np.ones(b.shape[1])
    )
    encoding_null(betas, [], run, 50, rng)
    own, others = ([np.sort(a[run == k], axis=0).T.tolist() for k in range(3)]
                   for a in (betas, drawn[0]))  # fmt: skip
    for column in zip(*others, strict=True):
        assert column in list(zip(*own, strict=True))
    assert len(np.unique(drawn[0], axis=1).T) > 40


def test_a_t_test_of_the_encoding_would_not_be_calibrated(encoded):
    """Why chance is drawn: the deviation of r is about root 2 of 1 / sqrt(n)."""
    _, _, folds, voxels_of = encoded
    r = encoding_correlation(voxels_of(0, 3000), folds)
    assert r.std() * np.sqrt(240) > 1.25


def test_planted_voxels_are_found_and_the_false_discovery_rate_is_kept(encoded, rng):
    run, _, folds, voxels_of = encoded
    betas = np.concatenate([voxels_of(0.3, 600), voxels_of(0, 5400)], axis=1)
    r = encoding_map(lambda part: betas[:, part], 6000, folds, 2000)
    null = encoding_null(betas[:, ::4], folds, run, 20000, rng)
    found = stats.false_discovery(maps.p_values(r, null)) < 0.05
    assert found[:600].mean() > 0.9
    # Expected: 0.05 x 0.9; of 600 discoveries, its standard error is 0.009.
    assert found[600:].sum() / found.sum() < 0.075


def test_blocks_of_voxels_change_nothing_and_a_constant_voxel_has_no_number(encoded):
    _, _, folds, voxels_of = encoded
    betas = voxels_of(0.2, 50)
    betas[:, 7] = 0
    whole = encoding_map(lambda part: betas[:, part], 50, folds, 50)
    blocks = encoding_map(lambda part: betas[:, part], 50, folds, 7)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)
    assert np.flatnonzero(np.isnan(whole)).tolist() == [7]


def test_responses_of_a_left_out_run_have_no_part_in_their_prediction(encoded, rng):
    """Neither in the weights nor in the penalty: r is of that run and the others' prediction."""
    _, _, folds, voxels_of = encoded
    fold, betas = folds[0], voxels_of(0.3, 4)
    spoilt = betas.copy()
    spoilt[fold.test] = -betas[fold.test]
    found = [encoding_correlation(own, [fold]) for own in (betas, spoilt)]
    np.testing.assert_array_equal(found[1], -found[0])


def test_chance_cannot_be_drawn_from_voxels_that_do_not_vary(encoded, rng):
    run, _, folds, _ = encoded
    with pytest.raises(ValueError, match="none of 3 voxels varies"):
        encoding_null(np.zeros((240, 3)), folds, run, 10, rng)


# --- ceilings, p values --------------------------------------------------------------------------


def test_the_true_signal_is_at_its_ceiling_of_single_trials(rng):
    """Perfect predictions have normalised correlations of 1."""
    import pandas as pd

    n_stimuli, k, n_voxels = 60, 8, 400
    signal = rng.standard_normal((n_stimuli, n_voxels)) * np.repeat([0.7, 2.0], n_voxels // 2)
    trials = np.concatenate([signal + rng.standard_normal(signal.shape) for _ in range(k)])
    table = pd.DataFrame({"session": "1", "task": "t", "run": np.repeat(np.arange(k), n_stimuli),
                          "stim_id": np.tile(np.arange(n_stimuli), k)})  # fmt: skip
    reliable = reliability(trials, table, np.zeros(len(trials), bool))
    counts = np.full(n_stimuli, k)
    fresh = signal + rng.standard_normal(signal.shape)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(signal.T, fresh.T, strict=True)])
    found = maps.normalised(r, reliable, counts)
    assert np.nanmean(found[: n_voxels // 2]) == pytest.approx(1, abs=0.05)
    assert np.nanmean(found[n_voxels // 2 :]) == pytest.approx(1, abs=0.02)
    assert r[: n_voxels // 2].mean() < 0.95


def test_single_trial_reliability_is_the_icc_of_single_measures(rng):
    """Shrout and Fleiss 1979: ICC(1, 1) = (B - W) / (B + (k - 1) W), ICC(1, k) = (B - W) / B."""
    between, within, k = rng.uniform(2, 9, 20), rng.uniform(0.5, 2, 20), 5
    found = maps.single_trial_reliability(1 - within / between, np.full(30, k))
    np.testing.assert_allclose(found, (between - within) / (between + (k - 1) * within))


def test_voxels_whose_ceiling_is_chance_are_not_normalised(rng):
    """F test of the stimuli: of voxels without signal, one in twenty passes."""
    from scipy.stats import f

    reliable = np.clip(1 - 1 / f.rvs(35, 36 * 11, size=4000, random_state=1), 0, 1)
    found = maps.normalised(np.full(4000, 0.1), reliable, np.full(36, 12))
    assert np.isfinite(found).mean() == pytest.approx(0.05, abs=0.012)


def test_too_few_repeated_stimuli_give_no_ceiling():
    with pytest.raises(ValueError, match="1 stimuli were shown twice"):
        maps.normalised(np.zeros(3), np.ones(3), np.array([4, 1, 1]))


def test_p_values_count_draws_and_are_never_zero():
    null = np.array([0.1, 0.2, 0.3, 0.3])
    p = maps.p_values(np.array([0.5, 0.3, 0.15, -1, np.nan]), null)
    np.testing.assert_allclose(p, [1 / 5, 3 / 5, 4 / 5, 1, np.nan])


# --- regions -------------------------------------------------------------------------------------


def test_region_table_counts_voxels_averages_and_adds_up():
    labels = np.array([0, 5, 5, 2, 2, 2, 0, 9])
    chosen = np.array([1, 3, 4, 6])
    r = np.array([0.0, 0.2, 0.4, 0.1, np.nan, 0.3, 0.6, np.nan])
    table = maps.region_table(
        labels, {2: "V1", 5: "FFA"}, chosen, {"r": r}, {"share": np.array([0.5, 0.2, 0.2, 0.1])}
    )
    assert table["name"].tolist() == ["V1", "FFA", "region 9", OUTSIDE]
    assert table["n_voxels"].tolist() == [3, 2, 1, 2]
    assert table["n_decoder"].tolist() == [2, 1, 0, 1]
    np.testing.assert_allclose(table["decoder_share"], [0.5, 0.25, 0, 0.25])
    np.testing.assert_allclose(table["r"], [0.2, 0.3, np.nan, 0.3])
    np.testing.assert_allclose(table["share"], [0.4, 0.5, 0, 0.1])


def test_region_table_refuses_columns_of_other_voxels():
    with pytest.raises(ValueError, match=r"share: shape \(3,\) for \(2,\) voxels"):
        maps.region_table(np.ones(9, int), {}, np.array([1, 2]), shares={"share": np.ones(3)})


def atlas_image(path, labels, affine):
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), path)
    return path


def test_labels_on_the_same_grid_are_taken_as_they_are(tmp_path, rng):
    affine = np.diag([2.0, 2, 3, 1])
    labels, mask = rng.integers(0, 6, (6, 7, 8)), rng.random((6, 7, 8)) < 0.5
    path = atlas_image(tmp_path / "atlas.nii.gz", labels, affine)
    found, resampled = volumes.read_labels_onto(path, mask, affine)
    np.testing.assert_array_equal(found, labels[mask])
    assert not resampled


def test_labels_on_another_grid_are_those_of_nilearns_nearest_neighbour(tmp_path, rng):
    from nilearn.image import resample_to_img

    fine, coarse = np.diag([1.0, 1, 1, 1]), np.diag([-2.3, 2.1, 2.7, 1])
    fine[:3, 3], coarse[:3, 3] = (-9, -8.5, -10), (8.3, -7.2, -8.1)
    coarse[0, 1] = 0.3
    # A margin of zeros: nilearn leaves out the outer half of the outermost voxels.
    labels = np.pad(np.kron(rng.integers(0, 6, (4, 4, 4)), np.ones((4, 4, 4), int)), 2)
    path = atlas_image(tmp_path / "atlas.nii.gz", labels, fine)
    shape = (9, 8, 7)
    mask = rng.random(shape) < 0.7
    found, resampled = volumes.read_labels_onto(path, mask, coarse)
    target = nibabel.Nifti1Image(np.zeros(shape, np.int16), coarse)
    other = resample_to_img(
        path, target, "nearest", force_resample=True, copy_header=True
    ).get_fdata()
    np.testing.assert_array_equal(found, other[mask])
    assert resampled
    assert (found == 0).any()  # some voxels lie outside the atlas


def test_regions_that_do_not_meet_the_brain_are_an_error(tmp_path):
    away = np.eye(4)
    away[:3, 3] = 100
    mask = np.ones((4, 4, 4), bool)
    path = atlas_image(tmp_path / "away.nii", np.ones((4, 4, 4)), away)
    with pytest.raises(InputError, match="none of its regions lies in the brain mask"):
        volumes.read_labels_onto(path, mask, np.eye(4))
    path = atlas_image(tmp_path / "none.nii", np.zeros((4, 4, 4)), away)
    with pytest.raises(InputError, match="all labels are 0"):
        volumes.read_labels_onto(path, mask, np.eye(4))


def test_names_are_read_from_bids_tables_and_freesurfers(tmp_path):
    table = tmp_path / "a_dseg.tsv"
    table.write_text("index\tname\tcolor\n1\tV1\t#ff0000\n12\tLateral FFA\t#00ff00\n")
    lut = tmp_path / "lut.txt"
    lut.write_text("# No. Label R G B A\n\n1   V1   255 0 0 0\n12  Lateral FFA  0 255 0 0\n")
    plain = tmp_path / "plain.txt"
    plain.write_text("1 V1\n12 Lateral FFA\n")
    for path in (table, lut, plain):
        assert regions.read_names(path) == {1: "V1", 12: "Lateral FFA"}
    labelled = tmp_path / "b.tsv"
    labelled.write_text("label\tindex\nArea 3a\t3\n")
    assert regions.read_names(labelled) == {3: "Area 3a"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "name\nV1\n", "no column index"),
        ("a.tsv", "index\tcolor\n1\tred\n", "no column name; its columns are index, color"),
        ("a.tsv", "index\tname\nx\tV1\n", "line 2, column index: 'x' is no whole number"),
        ("a.tsv", "index\tname\n1\tV1\n1\tV2\n", "line 3: the index 1 is 'V2' and, above, 'V1'"),
        ("a.tsv", "index\tname\n", "no region is named"),
        ("a.txt", "1 V1\nV2\n", "line 2: 'V2' is not an index and a name"),
    ],
)
def test_tables_of_names_that_cannot_be_used_say_where_and_why(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        regions.read_names(path)


@pytest.mark.parametrize(
    ("image", "table"),
    [
        ("sub-01_dseg.nii.gz", "sub-01_dseg.tsv"),
        ("tpl-MNI_res-01_atlas-X_dseg.nii.gz", "tpl-MNI_atlas-X_dseg.tsv"),
        ("space-MNI_res-2_atlas-X_dseg.nii", "atlas-X_dseg.tsv"),
        ("aparc.nii.gz", "aparc.txt"),
    ],
)
def test_the_table_of_names_is_found_beside_the_image(tmp_path, image, table):
    assert regions.names_beside(tmp_path / image) is None
    (tmp_path / table).write_text("index\tname\n1\tV1\n")
    assert regions.names_beside(tmp_path / image) == tmp_path / table


def test_an_atlas_whose_name_says_another_space_is_refused():
    regions.check_space("tpl-MNI_atlas-X_dseg.nii.gz", "MNI")
    regions.check_space("atlas-X_dseg.nii.gz", "MNI")
    regions.check_space("tpl-MNI_atlas-X_dseg.nii.gz", None)
    with pytest.raises(UsageError, match="in the space MNI, the BOLD in T1w"):
        regions.check_space("sub-01_space-MNI_dseg.nii.gz", "T1w")


def test_bars_of_regions_show_their_numbers_in_order_and_the_rest_last():
    names = ["V1", "FFA", "V4", OUTSIDE]
    figure = figures.region_bars(
        names, {"voxels": [3, 9, 5, 100], "r": [0.1, 0.3, np.nan, 0]}, by="voxels"
    )
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [9, 5, 3, 100]
    assert [label.get_text() for label in left.get_yticklabels()] == ["FFA", "V4", "V1", OUTSIDE]
    widths = [bar.get_width() for bar in right.patches]
    np.testing.assert_allclose(widths, [0.3, np.nan, 0.1, 0])


def test_bars_of_too_many_regions_say_so():
    n = 60
    figure = figures.region_bars(
        [f"r{k}" for k in range(n)], {"voxels": np.arange(n)}, "voxels", last_is_rest=False
    )
    assert len(figure.axes[0].patches) == 40
    assert "40 of 60" in figure.axes[0].get_title(loc="left")
