"""``group --align``: planted truth, chance, and nothing of the test in what is fitted."""

import json
import re
import shutil

import app
import group_results
import numpy as np
import pandas as pd
import pytest

from hyper_bids import cli, decode, hyperalignment
from hyper_bids.bids.outputs import Fragment, output_path, publish
from hyper_bids.errors import InputError, UsageError
from hyper_bids.group import aligned, sharing
from hyper_bids.group.members import find_scores
from hyper_bids.hyperalignment import METHODS
from hyper_bids.metrics import correlation_similarity, two_way
from hyper_bids.participant.shared_responses import write_shared_responses

N_TRAIN, N_TEST, N_LATENTS = 120, 24, 6
LABELS = ("01", "02", "03", "04")
both = pytest.mark.parametrize("method", METHODS)
TABLES = ("group_metrics", "group_stats")


def names(kind, n):
    return [f"{kind}{k:03d}" for k in range(n)]


def planted(rng, labels=LABELS, noise=4.0, signal=1.0, n_voxels=150):
    """Return responses to all stimuli by participant, and latents; training stimuli come first.

    Each participant has a random code of one response of 8 dimensions, the first 6 of them the
    latents, in 40 random voxels of its own.
    """
    response = rng.standard_normal((N_TRAIN + N_TEST, 8)).astype(np.float32)
    data = {}
    for k, label in enumerate(labels):
        X = noise * rng.standard_normal((len(response), n_voxels + 5 * k))
        where = rng.permutation(X.shape[1])[:40]
        X[:, where] += signal * response @ rng.standard_normal((8, 40))
        data[label] = ((X - X[:N_TRAIN].mean(axis=0)) / X[:N_TRAIN].std(axis=0)).astype(np.float32)
    return data, response[:, :N_LATENTS]


def leave(out, label, data, latents, rng, train=None, test=None):
    """Write what a participant's job leaves; its own decoder is ridge."""
    train = names("face", N_TRAIN) if train is None else train
    test = names("test", N_TEST) if test is None else test
    found = group_results.planted(rng)
    group_results.write_scores(out, label, found, stimuli=names("test", group_results.N_STIMULI))
    order = rng.permutation(len(data))  # the order of presentation is each participant's own
    trials = pd.DataFrame({"stim_id": train + test})
    trials["split"] = ["train"] * len(train) + ["test"] * len(test)
    entities = {"subject": label, "task": "faces"}
    fragment = Fragment(out.parent / "parts" / f"{label}-shared", entities, {"Sources": []})
    shuffled = trials.iloc[order].reset_index(drop=True)
    write_shared_responses(fragment, data[order], latents[order], shuffled)
    n = len(train)
    own = decode.predict(decode.fit_ridge(data[:n], latents[:n], None), data[n:])
    rows = np.argsort(test)
    with fragment.file("predicted_latents", "Predictions.") as path:
        np.save(path, own[rows])
    index = pd.DataFrame({"stim_id": sorted(test)})
    fragment.table("predicted_index", index, {"stim_id": "Key."})
    fragment.close()
    publish([fragment.folder], out)


def leave_group(out, rng, data, latents):
    for label, own in data.items():
        leave(out, label, own, latents, rng)


def file_of(out, label, key):
    return out / output_path(key, {"subject": label, "task": "faces"})


def rows_of(out, label, split):
    """Return which rows of a participant's responses and latents are of a split."""
    said = json.loads(file_of(out, label, "stimulus_responses").with_suffix(".json").read_text())
    return np.array(said["Split"]) == split


def spoil(out, label, key, split, change):
    """Replace the rows of a split in an array by what ``change`` makes of them."""
    path = file_of(out, label, key)
    values = np.load(path)
    rows = rows_of(out, label, split)
    values[rows] = change(values[rows])
    np.save(path, values)


def run(out, *words):
    group_results.run(out, "--n-permutations", "200", *words)


def value(out, participant, metric="two_way_identification", control="n/a", column="value"):
    frame = group_results.read(out, "group_alignment")
    found = frame[
        (frame["participant"] == participant) & (frame["metric"] == metric)
        & frame["variant"].isin(("latents", "n/a")) & (frame["control"] == control)
    ]  # fmt: skip
    assert len(found) == 1
    return float(found[column].iloc[0])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# --- planted truth and chance -----------------------------------------------------------------


@both
def test_mean_of_aligned_participants_beats_each_and_others_decode_a_participant(out, rng, method):
    data, latents = planted(rng)
    leave_group(out, rng, data, latents)
    run(out, "--align", method)
    own = [value(out, label, control="own_decoder") for label in LABELS]
    assert 0.6 < np.mean(own) < 0.9
    assert value(out, "average") > max(own) + 0.03
    assert value(out, "average", column="p") == pytest.approx(1 / 201, rel=1e-4)
    assert value(out, "mean") > 0.6
    assert value(out, "mean", column="p") == pytest.approx(1 / 201, rel=1e-4)
    assert value(out, "average", "latent_correlation") > 0.2
    by_others = [value(out, label) for label in LABELS]
    assert value(out, "mean") == pytest.approx(np.mean(by_others), abs=1e-5)
    assert value(out, "mean", control="own_decoder") == pytest.approx(np.mean(own), abs=1e-5)


@both
def test_random_responses_give_chance(tmp_path, rng, method):
    averages, others = [], []
    for k in range(4):
        out = tmp_path / f"out{k}"
        data, latents = planted(rng, signal=0, n_voxels=60)
        leave_group(out, rng, data, latents)
        run(out, "--align", method)
        averages.append(value(out, "average"))
        others.append(value(out, "mean"))
        assert value(out, "average", column="p") > 0.005
    # The standard deviation of one is about 0.06.
    assert abs(np.mean(averages) - 0.5) < 0.1
    assert abs(np.mean(others) - 0.5) < 0.1


def test_scores_and_controls_are_those_of_the_saved_predictions(out, rng):
    data, latents = planted(rng)
    leave_group(out, rng, data, latents)
    run(out, "--align", "srm")
    saved = np.load(out / "group_alignment_latents.npy", allow_pickle=False)
    index = pd.read_csv(out / "group_alignment_latents.tsv", sep="\t", dtype={"participant": str})
    assert list(index["row"]) == list(range(len(saved)))
    truth = latents[N_TRAIN:]
    for who in ("average", *LABELS):
        rows = index["participant"] == who
        assert index.loc[rows, "stim_id"].tolist() == names("test", N_TEST)
        similarity = correlation_similarity(saved[rows], truth)
        assert value(out, who) == pytest.approx(np.diag(two_way(similarity)).mean(), abs=1e-5)
        assert value(out, who, control="training_mean") == 0.5
        assert value(out, who, control="chance") == 0.5
    own = np.load(file_of(out, "03", "predicted_latents"))
    expected = np.diag(two_way(correlation_similarity(own, truth))).mean()
    assert value(out, "03", control="own_decoder") == pytest.approx(expected, abs=1e-5)
    every = np.mean([np.load(file_of(out, s, "predicted_latents")) for s in LABELS], axis=0)
    expected = np.diag(two_way(correlation_similarity(every, truth))).mean()
    assert value(out, "average", control="own_average") == pytest.approx(expected, abs=1e-5)


def test_table_has_the_columns_of_the_group_and_says_how_it_was_made(out, rng):
    data, latents = planted(rng)
    leave_group(out, rng, data, latents)
    run(out, "--align", "ridge-procrustes", "--random-seed", "7")
    frame = group_results.read(out, "group_alignment")
    columns = list(group_results.read(out, "group_metrics").columns)
    columns.remove("p_max")
    assert list(frame.columns) == columns
    assert set(frame["method"]) == {"hyper"}
    said = json.loads((out / "group_alignment.json").read_text())
    assert said["Alignment"]["Method"] == "ridge-procrustes"
    assert said["Alignment"]["SharedTrainingStimuli"] == N_TRAIN
    assert said["RandomSeed"] == 7
    assert len(said["Sources"]) == len(LABELS)
    for source in said["Sources"]:
        assert (out / source.removeprefix("bids::")).name.endswith("desc-stimuli_responses.npy")
        assert (out / source.removeprefix("bids::")).is_file()
    assert all(said[column]["Description"] for column in frame.columns)
    html = re.sub(r"\s+", " ", group_results.page(out))
    assert "Participants decoded together" in html
    assert "By others, mean of 4" in html
    assert (
        "from 120 training stimuli that all of them saw; their mean there was decoded, and" in html
    )
    assert "A generalized solution of the orthogonal Procrustes problem" in html


def test_the_same_seed_gives_the_same_files_to_the_bit(out, rng):
    data, latents = planted(rng, labels=LABELS[:3])
    leave_group(out, rng, data, latents)
    run(out, "--align", "srm")
    first = app.contents(out, "group_alignment*")
    times = {path: path.stat().st_mtime_ns for path in out.glob("group_alignment*")}
    run(out, "--align", "srm")
    assert app.contents(out, "group_alignment*") == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("group_alignment*")} == times
    assert len(first) == 5


# --- leakage ----------------------------------------------------------------------------------


@pytest.fixture
def fitted(monkeypatch):
    """Collect templates, maps, and what decoders are given and give, in order."""
    kept = []

    def keep(module, name, take):
        whole = getattr(module, name)

        def wrapped(*given, **more):
            found = whole(*given, **more)
            kept.append((name, [np.array(a) for a in take(given, found)]))
            return found

        monkeypatch.setattr(module, name, wrapped)

    for module in (hyperalignment.decoding, hyperalignment.space):
        keep(module, "fit_map", lambda given, found: (found.mean, found.weights))
    keep(hyperalignment.decoding, "fit_template", lambda given, found: (found.values,))
    keep(aligned.decode, "fit", lambda given, found: (given[1], found.weights, found.intercept))
    return kept


def assert_same(one, other):
    assert [name for name, _ in one] == [name for name, _ in other]
    for (name, arrays), (_, others) in zip(one, other, strict=True):
        for a, b in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@both
def test_destroyed_test_responses_change_no_bit_of_what_is_fitted(out, rng, method, fitted):
    data, latents = planted(rng, labels=LABELS[:3], n_voxels=60)
    leave_group(out, rng, data, latents)
    run(out, "--align", method)
    before = fitted.copy()
    predicted = np.load(out / "group_alignment_latents.npy")
    fitted.clear()
    for label in data:
        spoil(out, label, "stimulus_responses", "test", lambda v: 1e3 * rng.normal(size=v.shape))
    run(out, "--align", method)
    assert {"fit_map", "fit_template", "fit"} == {name for name, _ in before}
    assert_same(fitted, before)
    assert not np.allclose(np.load(out / "group_alignment_latents.npy"), predicted)


def test_test_responses_of_nan_are_told_and_have_changed_no_bit_before(out, rng, fitted):
    data, latents = planted(rng, labels=LABELS[:2], n_voxels=60)
    leave_group(out, rng, data, latents)
    run(out, "--align", "srm")
    before = fitted.copy()
    fitted.clear()
    for label in data:
        spoil(out, label, "stimulus_responses", "test", lambda v: np.nan * v)
    with pytest.raises(InputError, match=r"sub-01.*desc-stimuli_responses.npy: holds NaN"):
        run(out, "--align", "srm")
    n = len(fitted)
    assert ("fit" in [name for name, _ in fitted]) and n > 4
    assert_same(fitted, before[:n])


@both
def test_destroyed_data_of_a_participant_change_no_bit_of_what_decodes_it(out, rng, method, fitted):
    """Its responses, training and test; template and decoder of the others stay."""
    data, latents = planted(rng, n_voxels=60)
    leave_group(out, rng, data, latents)
    run(out, "--align", method)

    def others_of(kept):
        """Return template and decoder by which 03 is decoded: the fourth, after the average's."""
        made = {kind: [a for name, a in kept if name == kind] for kind in ("fit_template", "fit")}
        assert [len(found) for found in made.values()] == [5, 5]
        return [(kind, found[3]) for kind, found in made.items()]

    before = others_of(fitted)
    fitted.clear()
    for split in ("train", "test"):
        spoil(out, "03", "stimulus_responses", split, lambda v: rng.normal(size=v.shape))
    run(out, "--align", method)
    assert_same(others_of(fitted), before)
    # It does matter to the others.
    changed = [a for name, a in fitted if name == "fit_template"][1][0]
    assert not np.array_equal(changed, before[0][1][0])


@both
def test_latents_that_differ_between_participants_are_refused(out, rng, method):
    """They are read from the first one; all must be equal, or nothing is done."""
    data, latents = planted(rng, n_voxels=60)
    leave_group(out, rng, data, latents)
    spoil(out, "03", "stimulus_latents", "train", lambda v: v[::-1])
    with pytest.raises(UsageError, match="latents of shared stimuli are other ones in sub-03"):
        run(out, "--align", method)


@both
def test_destroyed_test_latents_change_no_bit_of_the_predictions(out, rng, method):
    data, latents = planted(rng, labels=LABELS[:3], n_voxels=60)
    leave_group(out, rng, data, latents)
    run(out, "--align", method)
    before = (out / "group_alignment_latents.npy").read_bytes()
    known = value(out, "average")
    for label in data:
        spoil(out, label, "stimulus_latents", "test", lambda v: 1e3 * rng.normal(size=v.shape))
    run(out, "--align", method)
    assert (out / "group_alignment_latents.npy").read_bytes() == before
    assert value(out, "average") != known


# --- who takes part ---------------------------------------------------------------------------


def test_only_shared_training_stimuli_are_used_in_each_ones_own_order(out, rng, fitted):
    """Stimuli that one participant alone saw, or that test another, have no part."""
    data, latents = planted(rng, labels=LABELS[:3], n_voxels=60)
    kept = range(N_TRAIN - 20)
    rows = {"01": [*kept, *range(N_TRAIN, N_TRAIN + N_TEST)]}
    train = names("face", N_TRAIN)
    for label, own in data.items():
        chosen = rows.get(label, range(len(own)))
        shown = [train[k] for k in kept] if label in rows else train
        leave(out, label, own[chosen], latents[chosen], rng, train=shown)
    run(out, "--align", "ridge-procrustes")
    whole = next(a for name, a in fitted if name == "fit_template")[0]
    fitted.clear()
    cut = out.with_name("cut")
    chosen = [*kept, *range(N_TRAIN, N_TRAIN + N_TEST)]
    for label, own in data.items():
        leave(cut, label, own[chosen], latents[chosen], rng, train=[train[k] for k in kept])
    run(cut, "--align", "ridge-procrustes")
    assert len(whole) == len(kept)
    again = next(a for name, a in fitted if name == "fit_template")[0]
    np.testing.assert_array_equal(again, whole)


def test_two_participants_are_averaged_and_nobody_is_decoded_by_others(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    run(out, "--align", "srm")
    assert set(group_results.read(out, "group_alignment")["participant"]) == {"average"}
    assert "Nobody was decoded by others: that needs 3 participants" in group_results.page(out)
    assert "with space and decoder of the others" not in group_results.page(out)


def test_participants_with_other_test_stimuli_are_decoded_by_others_and_not_averaged(out, rng):
    data, latents = planted(rng, labels=LABELS[:3])
    for label, own in data.items():
        test = names("other" if label == "02" else "test", N_TEST)
        leave(out, label, own, latents, rng, test=test)
    run(out, "--align", "ridge-procrustes")
    assert set(group_results.read(out, "group_alignment")["participant"]) == {"01", "02", "03"}
    assert "saw different test stimuli" in group_results.page(out)
    assert "sub-02 by others" in group_results.page(out)


def test_two_participants_with_other_test_stimuli_are_refused_with_both_reasons(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    for label, own in data.items():
        leave(out, label, own, latents, rng, test=names(f"t{label}", N_TEST))
    with pytest.raises(UsageError, match=r"different test stimuli.*that needs 3 participants"):
        run(out, "--align", "srm")


@pytest.mark.parametrize("n_shared", [0, 2])
def test_too_few_shared_stimuli_are_refused_with_their_number(out, rng, n_shared):
    data, latents = planted(rng, labels=LABELS[:3])
    for label, own in data.items():
        shown = names("face", n_shared) + names(f"own{label}x", N_TRAIN - n_shared)
        leave(out, label, own, latents, rng, train=shown)
    with pytest.raises(UsageError) as caught:
        run(out, "--align", "srm")
    assert f"sub-01, sub-02, sub-03 share {n_shared} training stimuli; at least 3" in str(
        caught.value
    )
    assert "--participant-label" in str(caught.value)
    assert not (out / "group_metrics.tsv").exists()


@both
def test_three_shared_stimuli_are_enough_to_run(out, rng, method):
    data, latents = planted(rng, labels=LABELS[:3])
    chosen = [0, 1, 2, *range(N_TRAIN, N_TRAIN + N_TEST)]
    for label, own in data.items():
        leave(out, label, own[chosen], latents[chosen], rng, train=names("face", 3))
    run(out, "--align", method)
    assert np.isfinite(value(out, "average"))


def test_one_participant_is_refused(out, rng):
    data, latents = planted(rng, labels=LABELS[:1])
    leave_group(out, rng, data, latents)
    with pytest.raises(UsageError, match="1 participant; at least 2 are needed"):
        run(out, "--align", "srm")


def test_a_participant_without_responses_is_named(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    group_results.write_scores(out, "09", group_results.planted(rng))
    with pytest.raises(UsageError, match=r"no responses to align of sub-09.*participant level"):
        run(out, "--align", "srm")
    run(out, "--align", "srm", "--participant-label", "01", "02")


def test_a_participant_whose_responses_do_not_vary_is_named(out, rng):
    data, latents = planted(rng, labels=LABELS[:3])
    leave_group(out, rng, data, latents)
    spoil(out, "02", "stimulus_responses", "train", np.ones_like)
    with pytest.raises(UsageError, match="sub-02: responses to shared stimuli do not vary"):
        run(out, "--align", "srm")


@pytest.mark.parametrize("damage", ["rows", "text", "sidecar", "latents"])
def test_damaged_files_are_named(out, rng, damage):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    path = file_of(out, "02", "stimulus_responses")
    if damage == "rows":
        np.save(path, np.load(path)[:-1])
    elif damage == "text":
        path.write_text("not an array")
    elif damage == "sidecar":
        path.with_suffix(".json").write_text("[]")
    else:
        file_of(out, "02", "stimulus_latents").unlink()
    with pytest.raises(InputError, match=r"02_task-faces_desc-stimuli_responses.npy: .*Run sub-02"):
        run(out, "--align", "srm")


def test_mixed_settings_are_refused_as_without_alignment(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    found = group_results.planted(rng)
    group_results.write_scores(out, "01", found, SoftwareVersion="0.0.1")
    group_results.write_scores(out, "02", found, SoftwareVersion="0.0.2")
    with pytest.raises(InputError, match="results of different settings"):
        run(out, "--align", "srm")
    run(out, "--align", "srm", "--allow-mixed")


# --- files ------------------------------------------------------------------------------------


def test_without_the_flag_nothing_of_it_is_written_and_the_tables_are_the_same(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    run(out)
    tables = app.contents(out, "group_*.tsv")
    assert not list(out.glob("group_alignment*"))
    assert "Participants decoded together" not in group_results.page(out)
    run(out, "--align", "none")
    assert not list(out.glob("group_alignment*"))
    run(out, "--align", "srm")
    again = app.contents(out, "group_*.tsv")
    assert {name: again[name] for name in tables} == tables


def test_aligned_results_of_an_earlier_run_do_not_stand_beside_the_tables_of_a_new_one(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    run(out, "--align", "srm")
    run(out)
    assert not len(group_results.read(out, "group_alignment"))
    assert not len(np.load(out / "group_alignment_latents.npy"))
    assert "Alignment" not in json.loads((out / "group_alignment.json").read_text())
    assert "Participants decoded together" not in group_results.page(out)


def test_what_a_participant_leaves_is_the_mean_response_to_each_stimulus(tmp_path, rng):
    trials = pd.DataFrame(
        {
            "stim_id": ["b", "a", "t2", "b", "t1", "t2"],
            "split": ["train", "train", "test", "train", "test", "test"],
        }
    )
    data = rng.standard_normal((6, 5)).astype(np.float32)
    known = {name: rng.standard_normal(3) for name in ("a", "b", "t1", "t2")}
    latents = np.stack([known[name] for name in trials["stim_id"]]).astype(np.float32)
    fragment = Fragment(tmp_path, {"subject": "01", "method": "vaegan"}, {"Method": "VAE-GAN"})
    write_shared_responses(fragment, data, latents, trials)
    func = tmp_path / "sub-01" / "func"
    found = np.load(func / "sub-01_desc-stimuli_responses.npy", mmap_mode="r", allow_pickle=False)
    expected = [data[1], (data[0] + data[3]) / 2, data[4], (data[2] + data[5]) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    saved = np.load(func / "sub-01_desc-vaeganStimuli_latents.npy")
    np.testing.assert_array_equal(saved, np.float32([known[n] for n in ("a", "b", "t1", "t2")]))
    said = json.loads((func / "sub-01_desc-stimuli_responses.json").read_text())
    assert (said["Stimuli"], said["Presentations"]) == (["a", "b", "t1", "t2"], [1, 2, 1, 2])
    assert (said["Split"], said["Shape"]) == (["train"] * 2 + ["test"] * 2, [4, 5])
    assert said["Latents"] == "sub-01_desc-vaeganStimuli_latents.npy"


def test_large_matrices_are_kept_in_a_file_and_give_the_same(tmp_path, rng, monkeypatch):
    found = []
    for k, limit in enumerate((2**28, 0)):
        monkeypatch.setattr(aligned, "_IN_MEMORY", limit)
        out = tmp_path / f"out{k}"
        own = np.random.default_rng(3)
        data, latents = planted(own, labels=LABELS[:3], n_voxels=60)
        leave_group(out, own, data, latents)
        run(out, "--align", "srm")
        found.append((out / "group_alignment_latents.npy").read_bytes())
    assert found[0] == found[1]


def test_folds_of_ridge_never_split_a_stimulus(rng, monkeypatch):
    given = {}

    def fit(name, betas, latents, rng, options):
        given.update(options)
        return decode.Decoder("ridge", np.zeros((2, 1)), np.zeros(1), {})

    monkeypatch.setattr(aligned.decode, "fit", fit)
    stimulus = np.tile(np.arange(50), 20)
    aligned._ridge(1)(rng.standard_normal((1000, 2)), np.zeros((1000, 1)), stimulus)
    folds = given["folds"]
    assert len(np.unique(folds)) == 10
    assert all(len(set(folds[stimulus == s])) == 1 for s in range(50))


# --- the whole app ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the derivatives of three simulated participants with the same stimuli."""
    from hyper_bids.simulate.dataset import simulate

    folder = tmp_path_factory.mktemp("aligned")
    settings = app.small(n_participants=3, noise=(1.0,), n_test_stimuli=12)
    root = simulate(folder / "ds", settings)
    assert app.run(root, folder / "out", "--n-voxels", "80") == 0
    return folder


def test_the_app_aligns_what_its_participants_left(finished, tmp_path):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    flags = ("--align", "ridge-procrustes", "-w", tmp_path / "work")
    assert app.run(finished / "ds", out, *flags, level="group") == 0
    frame = group_results.read(out, "group_alignment")
    assert set(frame["participant"]) == {"average", "01", "02", "03", "mean"}
    # Own decoders have the scores, and p, that their participants' tables have.
    for label in ("01", "02", "03"):
        known = app.scores(out, "two_way_identification", "latents", participant=label)
        assert value(out, label, control="own_decoder") == pytest.approx(known["score"], abs=1e-5)
        p = value(out, label, control="own_decoder", column="p")
        assert p == pytest.approx(known["p"], rel=1e-4)
    assert not list((tmp_path / "work").glob("*/align-*"))
    assert app.bids_errors(out) == []


def test_a_dry_run_says_how_many_stimuli_are_shared_and_writes_nothing(finished, tmp_path, said):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    before = app.contents(out)
    assert app.run(finished / "ds", out, "--align", "srm", "--dry-run", level="group") == 0
    assert "--align srm: 72 shared training stimuli" in said.text
    assert app.contents(out) == before


def test_the_flag_is_of_the_group_and_changes_nothing_of_participants(finished, tmp_path, said):
    out = finished / "out"
    before = app.contents(out, "sub-*/**/*")
    assert app.run(finished / "ds", out, "--n-voxels", "80", "--align", "srm") == 0
    assert "nothing was computed again" in said.text
    assert app.contents(out, "sub-*/**/*") == before
    assert len(list(out.glob("sub-01/**/*.*"))) < 60


def test_an_unknown_way_is_refused(tmp_path):
    assert cli.main(["ds", str(tmp_path), "group", "--align", "procrustes"]) == 64


def test_files_that_are_read_are_found_by_the_table_of_scores(out, rng):
    data, latents = planted(rng, labels=LABELS[:2])
    leave_group(out, rng, data, latents)
    found = sharing.find_sharing(find_scores(out), "srm")
    assert [h.participant for h in found.held] == ["01", "02"]
    assert len(found.stimuli) == N_TRAIN
