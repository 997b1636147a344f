"""Imports from the command line, and the participant level that starts from them."""

import json
import pickle
import subprocess
import sys

import app
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from hyper_bids import cli
from hyper_bids.bids.imported import find_imported, runs_known, trials_of
from hyper_bids.bids.stimuli import read_stimuli
from hyper_bids.config import InputSettings, Settings, VoxelSettings
from hyper_bids.errors import InputError, UsageError
from hyper_bids.glm.voxelwise import fisher_z
from hyper_bids.import_arguments import parse_import
from hyper_bids.participant.adopted import voxel_scores
from hyper_bids.participant.imports import check_decoder_mask, plan_import

VARIABLES = [
    word for flag, name in (("train", "X"), ("test", "Y")) for word in (f"--{flag}-responses", name)
]
LATENTS = ["--train-latents", "T", "--test-latents", "U"]
IMAGES = ["--train-images", "I", "--test-images", "J"]


def planted(rng, n=(60, 12), n_voxels=40, n_latents=4, noise=0.3):
    """Return responses and latents of both sets; the first half of the voxels carries the code."""
    W = rng.standard_normal((n_latents, n_voxels))
    W[:, n_voxels // 2 :] = 0
    T, U = (rng.standard_normal((k, n_latents)) for k in n)
    X, Y = (a @ W + noise * rng.standard_normal((len(a), n_voxels)) + 3 for a in (T, U))
    return {"X": X, "T": T, "Y": Y, "U": U}


def imported(tmp_path, arrays, *flags, out="data"):
    """Import arrays through the command; return the dataset."""
    path = tmp_path / f"{out}.npz"
    np.savez(path, **arrays)
    argv = ["import-responses", path, tmp_path / out, *VARIABLES, *flags]
    assert cli.main([str(word) for word in argv]) == 0
    return tmp_path / out


# --- the commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["import-hyper", "import-responses"])
def test_help_of_imports_loads_no_heavy_library(command):
    code = (
        "import sys\n"
        "from hyper_bids.cli import main\n"
        f"status = main([{command!r}, '--help'])\n"
        "print('LOADED', [n for n in ('torch', 'numpy', 'h5py', 'pandas') if n in sys.modules], "
        "status)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "LOADED [] 0"


def test_list_prints_name_shape_and_type_of_each_variable_and_writes_nothing(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", betas=np.zeros((3, 4), np.int16), shown=np.zeros(3))
    np.save(tmp_path / "b.npy", np.zeros((2, 5), np.float32))
    before = sorted(tmp_path.iterdir())
    argv = ["import-responses", tmp_path / "a.npz", tmp_path / "b.npy", "--list"]
    assert cli.main([str(word) for word in argv]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["betas", "3", "x", "4", "int16"] in told
    assert ["shown", "3", "float64"] in told
    assert ["b", "2", "x", "5", "float32"] in told
    assert sorted(tmp_path.iterdir()) == before


def test_each_flag_of_the_import_reaches_what_reads(tmp_path, rng):
    """Rows chosen by value, counted from 1, images column by column in -1 to 1, runs, a mask."""
    from hyper_bids import volumes

    X = rng.standard_normal((6, 2, 3, 2))
    images = rng.uniform(-1, 1, (4, 5, 3))  # of 4 stimuli, height 5, width 3
    mask = rng.random((2, 3, 2)) > 0.4
    volumes.write_mask(tmp_path / "mask.nii.gz", mask, np.diag([2.0, 2, 2, 1]))
    np.savez(
        tmp_path / "a.npz", betas=X, kind=np.array([1, 2, 1, 2, 1, 2]),
        rows=np.array([1, 2, 3, 4, 1, 2]), run=np.array([5, 5, 6, 6, 7, 7]),
        pictures=np.stack([image.ravel(order="F") for image in images]),
    )  # fmt: skip
    argv = [
        "import-responses",
        tmp_path / "a.npz",
        tmp_path / "out",
        "--participant-label",
        "sub-7",
    ]
    for name, value in (("train", 1), ("test", 2)):
        argv += [f"--{name}-responses", "betas", f"--{name}-trials", f"kind={value}"]
        argv += [f"--{name}-shown", "rows", f"--{name}-runs", "run", f"--{name}-images", "pictures"]
    argv += ["--count-from", 1, "--image-shape", 5, 3, "--image-columns", "--image-range", -1, 1]
    argv += ["--mask", tmp_path / "mask.nii.gz"]
    assert cli.main([str(word) for word in argv]) == 0
    found = find_imported(tmp_path / "out", "7")
    assert (found.n_trials, found.n_voxels, found.places_known) == (6, int(mask.sum()), True)
    order = [0, 2, 4, 1, 3, 5]
    np.testing.assert_array_equal(np.load(found.responses), X[order][:, mask].astype(np.float32))
    trials = trials_of(found, read_stimuli(tmp_path / "out"), InputSettings()).trials
    assert trials["run"].tolist() == ["5", "6", "7", "5", "6", "7"]
    assert trials["run_index"].tolist() == [0, 1, 2, 0, 1, 2]
    assert trials["split"].tolist() == ["train"] * 3 + ["test"] * 3
    from PIL import Image

    for name, row in zip(trials["stim_file"], [0, 2, 0, 1, 3, 1], strict=True):
        shown = np.asarray(Image.open(tmp_path / "out" / "stimuli" / name))
        wanted = np.round((images[row] + 1) * 127.5)
        assert np.abs(shown[..., 0] - wanted).max() <= 1


def test_order_axes_and_voxels_that_are_dropped_are_as_the_flags_say(tmp_path, rng):
    X, Y = rng.standard_normal((2, 6, 6))
    X[3, 2] = np.nan
    images = rng.integers(0, 256, (12, 5, 4), dtype=np.uint8)
    turned = images.transpose(0, 2, 1)
    T, U = rng.standard_normal((2, 6, 3))
    arrays = {"X": X.T, "Y": Y.T, "T": T, "U": U, "I": turned[:6], "J": turned[6:]}
    flags = ["--order", "trials-last", "--drop-voxels", "--image-axes", "nwh"]
    root = imported(tmp_path, arrays, *LATENTS, *IMAGES, *flags)
    found = find_imported(root, "01")
    kept = np.delete(np.concatenate([X, Y]), 2, axis=1)
    np.testing.assert_array_equal(np.load(found.responses), kept.astype(np.float32))
    from PIL import Image

    names = trials_of(found, read_stimuli(root), InputSettings()).trials["stim_file"]
    for name, image in zip(names, images, strict=True):
        shown = np.asarray(Image.open(root / "stimuli" / name))
        np.testing.assert_array_equal(shown[..., 0], image)


def test_labels_and_overwriting_of_hypers_files_are_as_the_flags_say(tmp_path, rng):
    a, path = planted(rng), tmp_path / "data_1.dat"
    for shift in (0, 1):
        path.write_bytes(pickle.dumps((a["X"] + shift, a["T"], a["Y"], a["U"])))
        argv = ["import-hyper", path, tmp_path / "o", "--participant-label", "sub-7", "--overwrite"]
        assert cli.main([str(word) for word in argv]) == 0
        found = np.load(find_imported(tmp_path / "o", "7").responses)
        np.testing.assert_allclose(found[:60], a["X"] + shift, rtol=1e-5)


def test_flags_take_several_variables_one_after_the_other():
    given = parse_import(
        ["a", "b", "o", "--train-responses", "a:x", "b:x", "--train-responses", "c"]
    )
    assert given.train_responses == ("a:x", "b:x", "c")
    assert given.paths == ["a", "b", "o"]


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["import-responses", "a.npz"], 64, "a.npz: one path"),
        (["import-responses", "a.npz", "o", "--participant-label", "1", "2"], 64, "2"),
        (["import-responses", "a.npz", "o", "--order", "sideways"], 64, "--order"),
        (["import-responses", "a.npz", "o"], 64, "missing: training responses"),
        (["import-responses", "a.npz", "o", *VARIABLES], 65, "a.npz: no such file"),
        (["import-hyper", "o"], 64, "OUT"),
        (["import-hyper", "a.dat", "o"], 65, "a.dat: no such file"),
        (["import-hyper", "a.dat", "b.dat", "o", "--participant-label", "1"], 64, "1 label"),
    ],
)
def test_wrong_imports_are_refused_in_one_line(tmp_path, said, monkeypatch, argv, status, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == status
    assert words in said.messages[-1]
    assert "\n" not in said.messages[-1]
    assert not (tmp_path / "o").exists()


def test_a_model_that_takes_another_number_of_latents_is_refused(tmp_path, rng, said):
    np.savez(tmp_path / "a.npz", **planted(rng))
    argv = ["import-responses", tmp_path / "a.npz", tmp_path / "o", *VARIABLES, *LATENTS]
    assert cli.main([*map(str, argv), "--generator", "demo"]) == 65
    assert "dcgan" in said.messages[-1]
    assert "but the stimuli have 4" in said.messages[-1]
    assert not (tmp_path / "o").exists()


def test_a_model_without_an_encoder_is_refused_where_images_are_to_be_encoded(tmp_path, rng, said):
    np.savez(tmp_path / "a.npz", **planted(rng), I=rng.random((60, 8, 8)), J=rng.random((12, 8, 8)))
    argv = ["import-responses", tmp_path / "a.npz", tmp_path / "o", *VARIABLES, *IMAGES]
    assert cli.main([*map(str, argv), "--generator", "demo"]) == 65
    assert "has no encoder" in said.messages[-1]


def test_a_name_of_a_model_that_is_not_at_hand_is_kept_with_the_latents(tmp_path, rng):
    root = imported(tmp_path, planted(rng), *LATENTS, "--generator", "stylegan")
    about = json.loads((root / "stimuli" / "latents.json").read_text("utf-8"))
    assert about["Generator"] == "stylegan"
    assert "GeneratorChecksum" not in about


class Runs:
    """An object that would make a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.place),)


def test_a_malicious_file_of_hyper_is_refused_and_runs_nothing(tmp_path, rng, said):
    a = planted(rng)
    place = tmp_path / "made"
    content = (a["X"], a["T"], a["Y"], a["U"], Runs(place))
    (tmp_path / "data_1.dat").write_bytes(pickle.dumps(content))
    assert cli.main(["import-hyper", str(tmp_path / "data_1.dat"), str(tmp_path / "o")]) == 65
    assert "mkdir" in said.messages[-1]
    assert not place.exists()
    assert not (tmp_path / "o").exists()


# --- trials --------------------------------------------------------------------------------------


def test_without_run_labels_all_trials_are_one_run(tmp_path, rng):
    root = imported(tmp_path, planted(rng), *LATENTS)
    trials = trials_of(find_imported(root, "01"), read_stimuli(root), InputSettings())
    assert set(trials.trials["run_index"]) == {0}
    assert not runs_known(trials)
    assert trials.trials["onset"].isna().all()


def test_a_stimulus_in_both_sets_is_refused_unless_it_is_allowed(tmp_path, rng):
    arrays = planted(rng)
    arrays["U"][3] = arrays["T"][5]
    root = imported(tmp_path, arrays, *LATENTS)
    found, stimuli = find_imported(root, "01"), read_stimuli(root)
    with pytest.raises(InputError, match="stimulus00006"):
        trials_of(found, stimuli, InputSettings())
    assert trials_of(found, stimuli, InputSettings(allow_shared_stimuli=True)).shared_allowed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda stem: stem.with_suffix(".npy").unlink(), "not there"),
        (lambda stem: stem.with_suffix(".npy").write_bytes(b"\x93NUMPY"), "not a whole array"),
        (lambda stem: np.save(stem.with_suffix(".npy"), np.zeros((72, 3), np.float32)), "3 voxels"),
        (lambda stem: np.save(stem.with_suffix(".npy"), np.zeros((7, 40), np.float32)), "7 trials"),
    ],
)
def test_a_damaged_import_is_refused_with_what_to_do(tmp_path, rng, damage, words):
    root = imported(tmp_path, planted(rng), *LATENTS)
    damage(root / "sub-01/func/sub-01_task-imported_desc-trials_statmap")
    with pytest.raises(InputError, match=words) as caught:
        trials_of(find_imported(root, "01"), read_stimuli(root), InputSettings())
    assert "--overwrite" in str(caught.value)


@pytest.mark.parametrize(
    ("split", "words"), [("train", "1 training trial"), ("test", "show 1 stimulus")]
)
def test_too_few_trials_or_test_stimuli_are_refused(tmp_path, rng, split, words):
    root = imported(tmp_path, planted(rng), *LATENTS)
    (path,) = root.glob("sub-01/func/*_statmap.tsv")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    of_set = table["split"] == split
    if split == "test":
        table.loc[of_set, ["stim_id", "stim_file"]] = ["stimulus00061", "n/a"]
    else:
        table.loc[of_set.to_numpy() & (np.arange(len(table)) > 0), "split"] = "test"
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=words):
        plan_import(root, "01", Settings(), read_stimuli(root))


def test_a_mask_of_the_decoder_on_another_grid_or_without_voxels_is_refused(tmp_path, rng):
    from hyper_bids import volumes

    mask = np.zeros((5, 6, 4), bool)
    mask.ravel()[:40] = True
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("given", "moved", "beside")}
    volumes.write_mask(paths["given"], mask, np.diag([3.0, 3, 3, 1]))
    volumes.write_mask(paths["moved"], mask, np.diag([2.0, 3, 3, 1]))
    volumes.write_mask(paths["beside"], ~mask, np.diag([3.0, 3, 3, 1]))
    found = find_imported(
        imported(tmp_path, planted(rng), *LATENTS, "--mask", paths["given"]), "01"
    )
    check_decoder_mask(found, VoxelSettings(decoder_mask=str(paths["given"])))
    with pytest.raises(InputError, match="another grid"):
        check_decoder_mask(found, VoxelSettings(decoder_mask=str(paths["moved"])))
    with pytest.raises(UsageError, match="none of its voxels"):
        check_decoder_mask(found, VoxelSettings(decoder_mask=str(paths["beside"])))


# --- ranking of voxels ---------------------------------------------------------------------------


def test_a_voxel_that_is_constant_has_no_score(rng):
    betas = rng.standard_normal((20, 3))
    betas[:, 1] = 2
    scores = voxel_scores(betas, rng.standard_normal((20, 2)), np.ones(20, bool), np.zeros(20, int))
    assert np.isfinite(scores).tolist() == [True, False, True]


def test_fisher_z_of_noise_is_about_standard_normal(rng):
    r = [np.corrcoef(rng.standard_normal((2, 30)))[0, 1] for _ in range(4000)]
    z = fisher_z(np.array(r), 30)
    assert abs(z.mean()) < 0.06
    assert abs(z.std() - 1) < 0.05


def test_scores_rank_voxels_that_carry_the_code_first_whatever_the_blocks(rng, monkeypatch):
    from hyper_bids.participant import adopted

    a = planted(rng, noise=1.0)
    responses = np.concatenate([a["X"], a["Y"]]).astype(np.float32)
    train = np.arange(72) < 60
    whole = voxel_scores(responses, a["T"], train, np.zeros(72, int))
    assert whole[:20].min() > whole[20:].max()
    monkeypatch.setattr(adopted, "_BLOCK", 60 * 7)
    in_blocks = voxel_scores(responses, a["T"], train, np.zeros(72, int))
    np.testing.assert_allclose(in_blocks, whole, rtol=1e-4)


# --- the whole app -------------------------------------------------------------------------------


def said_of(out, label="01"):
    return (out / f"sub-{label}.html").read_text("utf-8")


def test_hypers_published_layout_is_decoded_from_pickles_to_the_group_page(tmp_path, rng):
    """1050 and 36 trials of 4096 voxels and 512 latents; a linear code is recovered."""
    out = tmp_path / "out"
    for label, kind in (("1", "lists"), ("2", "arrays")):
        T, U = rng.standard_normal((1050, 512)), rng.standard_normal((36, 512))
        W = rng.standard_normal((512, 4096)).astype(np.float32)
        X, Y = (a @ W + 20 * rng.standard_normal((len(a), 4096)) for a in (T, U))
        X, T, Y, U = (a.astype(np.float32) for a in (X, T, Y, U))
        content = tuple(list(a) for a in (X, T, Y, U)) if kind == "lists" else (X, T, Y, U)
        (tmp_path / f"data_{label}.dat").write_bytes(pickle.dumps(content, protocol=4))
    paths = [str(tmp_path / f"data_{k}.dat") for k in (1, 2)]
    assert cli.main(["import-hyper", *paths, str(tmp_path / "data")]) == 0
    assert app.run(tmp_path / "data", out, "--generator", "none", "--n-permutations", 200) == 0
    for label in ("01", "02"):
        found = app.scores(out, "two_way_identification", "latents", label)
        assert found["score"] > 0.99
        assert found["p"] < 0.01
    assert app.run(tmp_path / "data", out, level="group") == 0
    assert (out / "group.html").is_file()
    page = said_of(out)
    assert "data_1.dat" in page
    assert "Responses to single trials were not estimated here" in page
    assert "mean signal" not in page
    voxels = app.table(out, "_desc-decoder_voxels.tsv")
    assert voxels["voxel"].tolist() == list(range(4096))
    assert not list(out.glob("sub-*/**/*.nii.gz"))
    drawn = app.figures(out)
    assert "null" in drawn
    assert "voxels" not in drawn


def test_images_only_28_by_28_grey_of_100_trials_become_images_and_scores(tmp_path, rng):
    """Eigenfaces of the training images are the latents; participant finds the model itself."""
    basis = rng.standard_normal((6, 28, 28))
    basis = np.stack([np.cumsum(np.cumsum(b, 0), 1) for b in basis])
    basis /= np.abs(basis).max(axis=(1, 2), keepdims=True)
    codes = rng.standard_normal((100, 6))
    images = 128 + 15 * np.tensordot(codes, basis, 1)
    images = np.clip(images, 0, 255).astype(np.uint8)
    betas = codes @ rng.standard_normal((6, 50)) + 0.3 * rng.standard_normal((100, 50))
    arrays = {"X": betas[:90], "Y": betas[90:], "I": images[:90], "J": images[90:]}
    root = imported(tmp_path, arrays, *IMAGES)
    out = tmp_path / "out"
    assert app.run(root, out, "--n-permutations", 200) == 0
    recon = app.load(out, "_desc-recon_images.npy")
    assert recon.shape == (10, 28, 28, 3)
    about = app.sidecar(out, "_desc-recon_images.json")
    own = json.loads((root / "stimuli" / "latents.json").read_text("utf-8"))
    assert about["GeneratorChecksum"] == own["GeneratorChecksum"]
    shown = images[90:].reshape(10, -1).astype(float)
    r = np.corrcoef(recon[..., 0].reshape(10, -1), shown)[:10, 10:]
    assert (r.argmax(axis=1) == np.arange(10)).all()
    assert app.scores(out, "two_way_identification", "latents")["score"] > 0.95
    similarity = app.scores(out, "structural_similarity", "reference")
    assert similarity["score"] > similarity["training_mean"] + 0.1


def test_mat_npz_and_pickle_give_the_same_bits_of_responses_and_predictions(tmp_path, rng):
    arrays = planted(rng)
    np.savez(tmp_path / "a.npz", **arrays)
    savemat(tmp_path / "a.mat", arrays)
    (tmp_path / "a.dat").write_bytes(pickle.dumps(arrays))
    found = []
    for kind in ("npz", "mat", "dat"):
        root, out = tmp_path / kind, tmp_path / f"{kind}-out"
        argv = ["import-responses", tmp_path / f"a.{kind}", root, *VARIABLES, *LATENTS]
        assert cli.main([str(word) for word in argv]) == 0
        assert app.run(root, out, "--n-permutations", 50) == 0
        outputs = [app.find(out, name) for name in ("_desc-predicted_latents.npy", "_decoder.npz")]
        paths = [find_imported(root, "01").responses, *outputs]
        found.append([path.read_bytes() for path in paths])
    assert found[0] == found[1] == found[2]


def test_what_is_fitted_is_the_same_bits_when_test_trials_are_destroyed(tmp_path, rng):
    """Voxels, ranking and decoder see neither responses nor labels of test trials."""
    arrays = planted(rng, noise=1.0)
    runs = {"R": np.repeat(np.arange(6), 10), "S": np.full(12, 6)}
    spoilt = {**arrays, "Y": rng.standard_normal((12, 40)), "U": rng.standard_normal((12, 4))}
    other = {**arrays, "T": rng.permutation(arrays["T"])}
    for known in (False, True):
        found = []
        for name, held in (("whole", arrays), ("spoilt", spoilt), ("other", other)):
            flags = ["--train-runs", "R", "--test-runs", "S"] if known else []
            label = f"{name}{known}"
            root = imported(tmp_path, held | runs, *LATENTS, *flags, out=label)
            out, work = tmp_path / f"{label}-out", tmp_path / f"{label}-work"
            assert app.run(root, out, "--n-voxels", 10, "--n-permutations", 50, work=work) == 0
            (mean_z,) = work.glob("**/internal/mean_z.npy")
            fitted = [app.find(out, name) for name in ("_decoder.npz", "-decoder_voxels.tsv")]
            found.append([path.read_bytes() for path in (mean_z, *fitted)])
            if name == "whole":
                assert set(app.table(out, "_desc-decoder_voxels.tsv")["voxel"]) <= set(range(20))
        assert found[0] == found[1]
        assert found[0] != found[2]


@pytest.mark.parametrize("known", [False, True])
def test_test_trials_are_standardised_without_each_other_unless_their_run_is_known(
    tmp_path, rng, known
):
    """Runs unknown: one test trial's prediction is the same whatever the others are."""
    arrays = planted(rng)
    runs = {"R": np.repeat(np.arange(6), 10), "S": np.full(12, 6)}
    flags = ["--train-runs", "R", "--test-runs", "S"] if known else []
    first = []
    for name in ("a", "b"):
        root = imported(tmp_path, arrays | runs, *LATENTS, *flags, out=name)
        assert app.run(root, tmp_path / f"{name}-out", "--n-permutations", 50) == 0
        first.append(app.load(tmp_path / f"{name}-out", "_desc-predicted_latents.npy")[0])
        arrays["Y"][1:] += 5
    assert np.array_equal(*first) is not known


def test_places_of_voxels_that_are_known_give_maps_and_a_mask_of_the_decoder(tmp_path, rng):
    from hyper_bids import volumes

    mask = rng.random((5, 6, 4)) < 0.5
    mask.ravel()[np.flatnonzero(mask)[40:]] = False
    affine = np.diag([3.0, 3, 3, 1])
    volumes.write_mask(tmp_path / "mask.nii.gz", mask, affine)
    arrays = planted(rng, noise=1.0)
    flags = [*LATENTS, "--mask", tmp_path / "mask.nii.gz"]
    root = imported(tmp_path, arrays, *flags)
    out = tmp_path / "out"
    assert app.run(root, out, "--n-voxels", 15, "--n-permutations", 50) == 0
    used = volumes.read_mask(app.find(out, "_desc-decoder_mask.nii.gz"))
    assert used.sum() == 15
    assert set(np.flatnonzero(used[mask])) <= set(range(20))
    assert "voxels" in app.figures(out)
    assert not list(out.glob("sub-*/**/*_voxels.tsv"))
    half = mask.copy()
    half.ravel()[np.flatnonzero(mask)[5:]] = False
    volumes.write_mask(tmp_path / "roi.nii.gz", half, affine)
    given = app.run(root, tmp_path / "roi-out", "--decoder-mask", tmp_path / "roi.nii.gz")
    assert given == 0
    used = volumes.read_mask(app.find(tmp_path / "roi-out", "_desc-decoder_mask.nii.gz"))
    np.testing.assert_array_equal(used, half)


def test_dry_run_says_what_was_imported_and_computes_nothing(tmp_path, rng, capsys):
    root = imported(tmp_path, planted(rng), *LATENTS)
    assert app.run(root, tmp_path / "out", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "imported responses, 72 trials of 40 voxels, places unknown" in told
    assert "60 training trials, 12 test trials of 12 stimuli" in told
    assert not (tmp_path / "out").exists()


def test_a_second_run_computes_nothing_and_another_import_computes_anew(tmp_path, rng, said):
    arrays = planted(rng)
    root, out = imported(tmp_path, arrays, *LATENTS), tmp_path / "out"
    assert app.run(root, out, "--n-permutations", 50) == 0
    before = app.contents(out, "sub-*/**/*.npz")
    assert app.run(root, out, "--n-permutations", 50) == 0
    assert any("nothing was computed again" in message for message in said.messages)
    arrays["X"] = rng.permutation(arrays["X"])
    imported(tmp_path, arrays, *LATENTS, "--overwrite")
    assert app.run(root, out, "--n-permutations", 50) == 0
    assert app.contents(out, "sub-*/**/*.npz") != before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--betas", "lss", "--hrf", "spm"], "--betas, --hrf"),
        (["--run-id", "1"], "--run-id"),
        (["--decoder-mask", "FILE"], "places of the imported voxels are unknown"),
    ],
)
def test_settings_without_effect_on_imports_are_refused(tmp_path, rng, said, flags, words):
    (tmp_path / "mask.nii.gz").write_bytes(b"")
    flags = [str(tmp_path / "mask.nii.gz") if flag == "FILE" else flag for flag in flags]
    root = imported(tmp_path, planted(rng), *LATENTS)
    assert app.run(root, tmp_path / "out", *flags) == 64
    assert words in said.messages[-1]


def test_an_import_with_the_stimuli_model_gone_is_refused_by_name(tmp_path, rng, said):
    images = rng.integers(0, 255, (72, 8, 8), dtype=np.uint8)
    arrays = planted(rng) | {"I": images[:60], "J": images[60:]}
    root = imported(tmp_path, arrays, *IMAGES)
    (root / "stimuli" / "eigenface.safetensors").unlink()
    assert app.run(root, tmp_path / "out") == 65
    assert "eigenface.safetensors" in said.messages[-1]


def test_what_comes_out_of_an_import_is_valid_bids(tmp_path, rng):
    root, out = imported(tmp_path, planted(rng), *LATENTS), tmp_path / "out"
    assert app.run(root, out, "--n-permutations", 50) == 0
    assert app.bids_errors(root) == []
    assert app.bids_errors(out) == []


def test_repeats_of_a_stimulus_are_left_out_together_where_runs_cannot_be(rng):
    from hyper_bids.participant.fitting import cv_folds

    shown = np.repeat([f"s{k}" for k in range(30)], 3)
    run = np.zeros(90, int)
    folds = cv_folds("auto", run, rng, shown)
    assert len(set(folds)) == 10
    assert all(len(set(folds[shown == name])) == 1 for name in set(shown))
    assert cv_folds("auto", run, rng, np.arange(90).astype(str)) is None
    assert cv_folds("auto", run, rng) is None
    assert cv_folds("loo", run, rng, shown) is None
    runs = np.arange(90) // 30
    np.testing.assert_array_equal(cv_folds("auto", runs, rng, shown), runs)


def test_the_penalty_for_repeated_stimuli_is_that_for_new_ones(tmp_path, rng):
    """Few stimuli, shown often, runs unknown: a larger penalty, and new stimuli gain by it."""
    T, U, W = (rng.standard_normal(s) for s in ((20, 30), (200, 30), (30, 60)))
    shown = np.repeat(np.arange(20), 10)
    X, Y = (a @ W + 16 * rng.standard_normal((len(a), 60)) for a in (T[shown], U))
    arrays = {"X": X, "Y": Y, "T": T, "U": U, "shown": shown}
    flags = ["--train-shown", "shown"]
    root, alphas = imported(tmp_path, arrays, *LATENTS, *flags), {}
    errors = {}
    for cv in ("auto", "loo"):
        out = tmp_path / f"out-{cv}"
        assert app.run(root, out, "--cv", cv, "--n-permutations", 50) == 0
        alphas[cv] = app.sidecar(out, "_decoder.json")["alpha"]
        predicted = app.load(out, "_desc-predicted_latents.npy")
        order = app.table(out, "_desc-predicted_latents.tsv")["stim_id"]
        rows = order.str.removeprefix("stimulus").astype(int) - 21
        errors[cv] = ((predicted - U[rows]) ** 2).mean()
    assert alphas["auto"] > alphas["loo"]
    assert errors["auto"] < errors["loo"]


def test_methods_text_says_that_responses_were_imported_and_from_what():
    from hyper_bids.config import to_dict
    from hyper_bids.report.methods import methods_text

    settings = {"voxels": to_dict(Settings().voxels), "decoder": to_dict(Settings().decoder)}
    facts = {"files": ["a_[abc2022].mat"], "places_known": False, "runs_known": False}
    design = {"imported": facts, "runs": 0, "training_trials": 9, "test_trials": 3}
    text = methods_text(settings, design)
    for words in (
        "imported from `a_[abc2022].mat`",
        "There were 9 training trials",
        "predicted best from the latents",
        "mean and standard deviation of all training trials",
        "described by the latents of an image model",
    ):
        assert words in text
    for words in ("estimated in each run", "highest z", "0 runs", "run by run, with mean"):
        assert words not in text
    known = methods_text(settings, design | {"imported": facts | {"runs_known": True}, "runs": 4})
    assert "run by run, with mean" in known
    assert "The 4 runs had 9 training trials" in known
