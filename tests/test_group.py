"""The group level: means, intervals and tests over planted scores, and who is in it."""

import json
import logging
from pathlib import Path

import app
import numpy as np
import pandas as pd
import pytest
from group_results import (
    KEYS,
    N_NULL,
    make_group,
    page,
    planted,
    read,
    run,
    stat,
    write_scores,
)

from hyper_bids import figures
from hyper_bids.bids.outputs import output_path
from hyper_bids.errors import InputError, UsageError

KEY_COLUMNS = ["method", "metric", "variant", "control"]


def brute_p(values, nulls) -> float:
    """Return (b + 1) / (n + 1) of the mean, shuffling by shuffling."""
    observed = sum(values) / len(values)
    reached = 0
    for k in range(min(map(len, nulls))):
        shuffled = sum(float(null[k]) for null in nulls) / len(nulls)
        reached += shuffled >= observed
    return (reached + 1) / (min(map(len, nulls)) + 1)


def provenance(output_dir, name="group_metrics") -> dict:
    return json.loads((Path(output_dir) / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def logged():
    """Collect what the app logs, whatever other tests did to its logger."""
    messages = []

    class Collect(logging.Handler):
        def emit(self, record):
            messages.append((record.levelno, record.getMessage()))

    handler, logger = Collect(), logging.getLogger("hyper_bids")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


# Means, intervals, p


def test_the_mean_of_scores_and_controls_is_that_of_the_participants_who_have_them(out, rng):
    found = make_group(out, rng, ("01", "02", "03", "04"))
    run(out)
    n_rows = 0
    for key in KEYS:
        controls = found["01"][key]["controls"]
        n_rows += 1 + len(controls)
        for control in ("n/a", *controls):
            values = [
                s[key]["value"] if control == "n/a" else s[key]["controls"][control]
                for s in found.values()
            ]
            line = stat(out, key, control)
            assert line["mean"] == pytest.approx(np.mean(values), rel=1e-5)
            assert line["n_participants"] == 4
    assert len(read(out, "group_stats")) == n_rows


@pytest.mark.parametrize("labels", [("01",), ("01", "02"), ("01", "02", "03", "04", "05")])
def test_p_of_the_mean_is_the_share_of_shuffled_means_that_reach_it(out, rng, labels):
    found = make_group(out, rng, labels)
    run(out)
    told = []
    for key in KEYS:
        values = [scores[key]["value"] for scores in found.values()]
        nulls = [scores[key]["null"] for scores in found.values()]
        told.append(stat(out, key)["p"])
        assert told[-1] == pytest.approx(brute_p(values, nulls), rel=1e-5)
    assert len(set(told)) > 1
    assert 1 / (N_NULL + 1) < max(told) < 1


def test_participants_with_fewer_shufflings_set_their_number(out, rng):
    one, two = planted(rng, n_null=300), planted(rng, n_null=120)
    write_scores(out, "01", one)
    write_scores(out, "02", two)
    run(out)
    for key in KEYS:
        pair = (one[key], two[key])
        expected = brute_p([s["value"] for s in pair], [s["null"] for s in pair])
        assert stat(out, key)["p"] == pytest.approx(expected, rel=1e-5)
        assert (stat(out, key)["p"] * 121) == pytest.approx(round(stat(out, key)["p"] * 121))


def test_p_of_no_effect_is_not_small_and_that_of_a_large_one_is_the_smallest_there_is(out, rng):
    scores = planted(rng)
    scores[KEYS[0]]["value"] = float(scores[KEYS[0]]["null"].min()) - 0.01
    scores[KEYS[1]]["value"] = float(scores[KEYS[1]]["null"].max()) + 0.01
    write_scores(out, "01", scores)
    run(out)
    assert stat(out, KEYS[0])["p"] == 1
    assert stat(out, KEYS[1])["p"] == pytest.approx(1 / (N_NULL + 1), rel=1e-5)


@pytest.mark.parametrize("n_stimuli", [6, 7, 12, 14, 36])
def test_shuffled_scores_that_equal_the_score_count_however_the_table_rounds(out, rng, n_stimuli):
    # Of one participant, the p value of the mean is that of the score, ties included.
    hits = rng.binomial(n_stimuli, 0.2, N_NULL)
    table = {}
    for k in range(1, n_stimuli):
        key = ("one_of_n_identification", f"case {k}")
        table[key] = {"value": k / n_stimuli, "controls": {}, "null": hits / n_stimuli, "p": 0.5}
    write_scores(out, "01", table)
    run(out)
    told = {
        k: stat(out, ("one_of_n_identification", f"case {k}"))["p"] for k in range(1, n_stimuli)
    }
    expected = {k: (np.sum(hits >= k) + 1) / (N_NULL + 1) for k in range(1, n_stimuli)}
    assert told == pytest.approx(expected, rel=1e-5)


def test_controls_have_no_p(out, rng):
    make_group(out, rng)
    run(out)
    frame = read(out, "group_stats")
    controls = frame["control"] != "n/a"
    assert controls.sum() == 7
    for name in ("p", "p_max", "n_significant", "prevalence"):
        assert frame[controls][name].isna().all()
    assert frame[~controls]["p"].notna().all()


def test_the_mean_of_one_participant_is_its_value(out, rng):
    found = make_group(out, rng, ("07",))
    run(out)
    assert set(read(out, "group_stats")["n_participants"]) == {1}
    for key in KEYS:
        assert stat(out, key)["mean"] == pytest.approx(found["07"][key]["value"], rel=1e-5)
    assert "that participant's, and say nothing of others" in page(out).replace("&#39;", "'")


def test_a_score_that_only_some_have_is_of_those_alone(out, rng):
    extra = ("two_way_identification", "images, SSIM")
    found = {"01": planted(rng, (*KEYS, extra)), "02": planted(rng)}
    found["03"] = planted(rng, (*KEYS, extra))
    for label, scores in found.items():
        write_scores(out, label, scores)
    run(out)
    pair = [found["01"][extra], found["03"][extra]]
    line = stat(out, extra)
    values = [s["value"] for s in pair]
    assert line["n_participants"] == 2
    assert line["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert line["p"] == pytest.approx(brute_p(values, [s["null"] for s in pair]), rel=1e-5)
    for key in KEYS:
        assert stat(out, key)["n_participants"] == 3
    assert stat(out, extra, "mismatched")["n_participants"] == 2


def test_a_score_without_a_value_in_one_participant_is_of_the_others_alone(out, rng):
    found = make_group(out, rng)
    lost = KEYS[0]
    found["02"][lost] |= {"value": np.nan, "null": np.full(N_NULL, np.nan)}
    write_scores(out, "02", found["02"])
    run(out)
    pair = [found["01"][lost], found["03"][lost]]
    line = stat(out, lost)
    assert line["n_participants"] == 2
    assert line["mean"] == pytest.approx(np.mean([s["value"] for s in pair]), rel=1e-5)
    expected = brute_p([s["value"] for s in pair], [s["null"] for s in pair])
    assert line["p"] == pytest.approx(expected, rel=1e-5)


def test_a_score_that_nobody_has_stays_without_numbers_and_is_told_on_the_page(out, rng):
    absent = [("feature_similarity", "code"), ("feature_similarity", "printed")]
    for label in ("01", "02"):
        write_scores(out, label, planted(rng), absent=absent)
    run(out)
    for key in absent:
        line = stat(out, key)
        assert line[["mean", "ci_low", "ci_high", "p"]].isna().all()
        assert line["n_participants"] == 0
    assert "Not computed: feature similarity." in page(out)


def test_scores_of_one_form_and_without_controls_make_a_group(out, rng):
    scores = planted(rng, [("latent_correlation", "n/a")])
    scores["latent_correlation", "n/a"]["controls"] = {}
    write_scores(out, "01", scores)
    run(out)
    frame = read(out, "group_stats")
    assert frame[KEY_COLUMNS].to_numpy().tolist() == [["hyper", "latent_correlation", "n/a", "n/a"]]


# Tables and page


def test_the_table_of_the_group_is_the_participants_tables_one_below_the_other(out, rng):
    make_group(out, rng, ("01", "10", "A2"))
    run(out)
    frame = read(out, "group_metrics")
    assert list(dict.fromkeys(frame["participant"])) == ["01", "10", "A2"]
    for label, block in frame.groupby("participant"):
        own = pd.read_csv(
            out / output_path("summary_metrics", {"subject": label, "task": "faces"}),
            sep="\t", na_values="n/a", keep_default_na=False,
        ).fillna({"variant": "n/a", "control": "n/a"})  # fmt: skip
        assert set(own.columns) == set(block.columns) - {"participant"}
        # What is corrected for all participants is another number.
        found = block.drop(columns=["participant", "p_max"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, own[list(found.columns)], check_dtype=False)


@pytest.mark.parametrize("name", ["group_metrics", "group_stats"])
def test_each_column_is_described_and_sources_name_the_tables_that_were_read(out, rng, name):
    make_group(out, rng, ("01", "02"))
    run(out)
    sidecar = provenance(out, name)
    columns = (out / f"{name}.tsv").read_text().splitlines()[0].split("\t")
    for column in columns:
        assert sidecar[column]["Description"]
    assert len(sidecar["Sources"]) == 2
    for source in sidecar["Sources"]:
        assert (out / source.removeprefix("bids::")).is_file()


@pytest.mark.parametrize("simulated", [(False, False), (False, True), (True, True)])
def test_a_group_with_any_simulated_participant_is_called_simulated(out, rng, simulated):
    for label, answer in zip(("01", "02"), simulated, strict=True):
        write_scores(out, label, planted(rng), Simulated=answer)
    run(out)
    assert provenance(out)["Simulated"] == any(simulated)
    assert ("Simulated data." in page(out)) == any(simulated)


def test_figures_have_each_participants_score_beside_that_of_mismatched_pairs(
    out, rng, monkeypatch
):
    found = make_group(out, rng, ("01", "02"))
    drawn = []
    monkeypatch.setattr(figures, "group_scores", lambda table, label: drawn.append(table))
    monkeypatch.setattr(figures, "save", lambda figure, stream: stream.write(b"figure"))
    run(out, draw=True)
    order = ("two_way_identification", "latent_correlation", "structural_similarity")
    for metric, table in zip(order, drawn, strict=True):
        key = next(key for key in KEYS if key[0] == metric)
        for row in table.to_dict("records"):
            scores = found[row["participant"]][key]
            assert row["value"] == pytest.approx(scores["value"], rel=1e-5)
            assert row["control"] == pytest.approx(scores["controls"]["mismatched"], rel=1e-5)


def test_the_page_shows_each_participant_each_mean_and_figures_that_are_there(out, rng):
    make_group(out, rng, ("01", "A2"))
    run(out, draw=True)
    text = page(out)
    for label in ("01", "A2"):
        assert f'<a href="sub-{label}.html">sub-{label}</a>' in text
    for key in KEYS:
        assert f'<td class="value">{stat(out, key)["mean"]:.3f} ± ' in text
    assert len(app.figures(out, "group.html")) == 3


def test_figures_are_files_where_asked_for_and_those_that_are_there_stay_up_to_date(out, rng):
    found = make_group(out, rng, ("01", "02"))

    def files():
        return {path.name.split("_")[1]: path.read_bytes() for path in out.rglob("*.png")}

    run(out, draw=True)
    assert files() == {}
    run(out, "--write-images", draw=True)
    first = files()
    assert set(first) == {
        "desc-twowayidentification", "desc-latentcorrelation", "desc-structuralsimilarity"
    }  # fmt: skip
    assert sorted(first.values()) == sorted(app.figures(out, "group.html").values())
    (out / "figures" / "group_desc-latentcorrelation_scores.png").unlink()
    for scores in found["02"].values():
        scores["value"] = 0.9
    write_scores(out, "02", found["02"])
    run(out, draw=True)
    assert set(files()) == set(first) - {"desc-latentcorrelation"}
    assert set(files().values()) <= set(app.figures(out, "group.html").values())
    assert all(files()[name] != first[name] for name in files())


# Who is in it


def test_the_raw_data_need_not_be_there_and_nothing_is_made_in_their_place(out, rng, tmp_path):
    make_group(out, rng)
    run(out, bids_dir=tmp_path / "gone")
    assert (out / "group_stats.tsv").is_file()
    assert not (tmp_path / "gone").exists()


def test_the_group_may_be_of_some_participants(out, rng):
    found = make_group(out, rng)
    run(out, "--participant-label", "sub-03", "01")
    assert set(read(out, "group_metrics")["participant"]) == {"01", "03"}
    values = [found[label][KEYS[0]]["value"] for label in ("01", "03")]
    assert stat(out, KEYS[0])["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert stat(out, KEYS[0])["n_participants"] == 2


def test_a_participant_named_twice_counts_once(out, rng):
    make_group(out, rng)
    run(out, "--participant-label", "01", "sub-02", "01")
    assert stat(out, KEYS[0])["n_participants"] == 2
    assert len(read(out, "group_metrics")) == 2 * 10


def test_labels_in_a_file_of_settings_may_have_their_prefix_as_at_the_participant_level(
    out, rng, tmp_path
):
    make_group(out, rng)
    (tmp_path / "some.toml").write_text("[inputs]\nparticipant_label = ['sub-01', '03']\n")
    run(out, "--config-file", str(tmp_path / "some.toml"))
    assert set(read(out, "group_metrics")["participant"]) == {"01", "03"}


def test_participants_that_are_listed_but_have_no_scores_are_told_everywhere(out, rng, logged):
    make_group(out, rng, ("01", "03"))
    (out / "logs").mkdir()
    (out / "logs" / "participants.txt").write_text("sub-01\nsub-02\nsub-03\nsub-B\n")
    run(out)
    for name in ("group_metrics", "group_stats"):
        assert provenance(out, name)["Missing"] == ["02", "B"]
    text = page(out)
    assert "sub-02, sub-B" in text
    assert "Participants without scores are not in the means." in text
    warned = [message for level, message in logged if level >= logging.WARNING]
    assert [message for message in warned if "sub-02" in message and "sub-B" in message]
    assert not [message for message in warned if "sub-01" in message]
    assert stat(out, KEYS[0])["n_participants"] == 2


def test_a_participant_that_crashed_is_told_though_no_list_names_it(out, rng, logged):
    make_group(out, rng, ("01", "02"))
    for label in ("01", "04"):
        (out / "logs" / f"sub-{label}" / "20240101-000000_x").mkdir(parents=True)
    run(out)
    assert provenance(out)["Missing"] == ["04"]
    assert "sub-04" in page(out)
    assert [message for level, message in logged if "sub-04" in message]


def test_nobody_is_called_missing_where_all_have_scores(out, rng, logged):
    make_group(out, rng, ("01", "02"))
    (out / "logs" / "sub-01").mkdir(parents=True)
    (out / "logs" / "participants.txt").write_text("sub-01\nsub-02\n")
    run(out)
    assert provenance(out)["Missing"] == []
    assert "ithout scores" not in page(out)
    assert [message for level, message in logged if level >= logging.WARNING] == []


def test_participants_who_were_not_asked_for_are_not_missing(out, rng, logged):
    make_group(out, rng, ("01", "02"))
    (out / "logs").mkdir()
    (out / "logs" / "participants.txt").write_text("sub-01\nsub-02\nsub-03\n")
    run(out, "--participant-label", "01")
    assert provenance(out)["Missing"] == []
    assert "sub-03" not in page(out)


def test_asking_for_an_absent_participant_names_it_and_those_that_are_there(out, rng):
    make_group(out, rng, ("01", "02"))
    with pytest.raises(UsageError) as caught:
        run(out, "--participant-label", "01", "99")
    message = str(caught.value)
    assert "\n" not in message
    assert "no scores of sub-99" in message
    assert "sub-01, sub-02" in message
    assert not (out / "group_stats.tsv").exists()


def test_a_folder_without_any_scores_or_no_folder_is_a_usage_error(out, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        run(out)
    out.mkdir()
    with pytest.raises(UsageError, match="participant level first"):
        run(out)
    with pytest.raises(UsageError, match="sub-05"):
        run(out, "--participant-label", "05")
    assert list(out.iterdir()) == []


def test_scores_of_two_tasks_of_one_participant_are_refused(out, rng):
    make_group(out, rng, ("01",))
    write_scores(out, "01", planted(rng), task="houses")
    with pytest.raises(InputError) as caught:
        run(out)
    for word in ("sub-01", "task-faces", "task-houses"):
        assert word in str(caught.value)
    assert not (out / "group_stats.tsv").exists()


# Damage


def without_column(name):
    def damage(path):
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        frame.drop(columns=name).to_csv(path, sep="\t", index=False)

    return damage


def with_text_as_value(path):
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    frame.loc[0, "value"] = "high"
    frame.to_csv(path, sep="\t", index=False)


def with_a_row_twice(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))


def null_of(path: Path, suffix=".npy") -> Path:
    return path.with_name(path.name.replace("summary_metrics.tsv", f"null_metrics{suffix}"))


def with_sidecar(change):
    def damage(path):
        sidecar = null_of(path, ".json")
        content = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps(change(content)))

    return damage


def stimuli_of(path: Path) -> Path:
    return path.with_name(path.name.replace("summary", "perstim"))


def with_a_stimulus_twice(path):
    lines = stimuli_of(path).read_text().splitlines(keepends=True)
    stimuli_of(path).write_text("".join([*lines, lines[1]]))


DAMAGES = {
    "an empty table": lambda path: path.write_text(""),
    "a table without rows": lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"),
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "rows of unequal length": lambda path: path.write_text("a\tb\n1\t2\n1\t2\t3\n"),
    "no column of variants": without_column("variant"),
    "no column of values": without_column("value"),
    "no column of controls": without_column("control"),
    "a word as a value": with_text_as_value,
    "a score twice": with_a_row_twice,
    "no scores of stimuli": lambda path: stimuli_of(path).unlink(),
    "scores of stimuli without their keys": lambda path: without_column("stim_id")(
        stimuli_of(path)
    ),
    "a stimulus twice": with_a_stimulus_twice,
    "no sidecar of the table": lambda path: path.with_suffix(".json").unlink(),
    "no nulls": lambda path: null_of(path).unlink(),
    "empty nulls": lambda path: null_of(path).write_bytes(b""),
    "nulls cut short": lambda path: null_of(path).write_bytes(null_of(path).read_bytes()[:200]),
    "nulls that are pickled": lambda path: np.save(null_of(path), np.array([{}]), True),
    "too few nulls": lambda path: np.save(null_of(path), np.load(null_of(path))[:1]),
    "nulls without an axis of scores": lambda path: np.save(null_of(path), np.float32(3)),
    "no sidecar": lambda path: null_of(path, ".json").unlink(),
    "a sidecar that is no JSON": lambda path: null_of(path, ".json").write_text("{"),
    "a sidecar of another kind": with_sidecar(lambda content: [content]),
    "a sidecar without names": with_sidecar(lambda content: {"Simulated": False}),
    "a sidecar with one name too few": with_sidecar(
        lambda content: content | {"Scores": content["Scores"][1:]}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_scores_are_an_input_error_that_names_the_file(out, rng, damage):
    make_group(out, rng, ("01", "02"))
    path = out / output_path("summary_metrics", {"subject": "02", "task": "faces"})
    DAMAGES[damage](path)
    with pytest.raises(InputError) as caught:
        run(out)
    message = str(caught.value)
    assert str(path) in message or str(null_of(path)) in message
    assert "sub-01" not in message
    assert "\n" not in message
    assert not (out / "group_stats.tsv").exists()


# Again


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["tables", "page and figures"])
def test_running_twice_writes_nothing_again(out, rng, kind):
    def of_kind():
        found = state(out)
        return {
            name: stamp
            for name, stamp in found.items()
            if (name.endswith((".html", ".png"))) == (kind == "page and figures")
        }

    make_group(out, rng)
    run(out, "--write-images", draw=kind != "tables")
    before = of_kind()
    assert len([name for name in before if "group" in name]) == 4
    run(out, "--write-images", draw=kind != "tables")
    assert of_kind() == before


def test_running_twice_gives_the_same_bytes_and_no_other_files(out, rng):
    make_group(out, rng)
    run(out, draw=True)
    before = {name: (out / name).read_bytes() for name in state(out)}
    run(out, draw=True)
    assert {name: (out / name).read_bytes() for name in state(out)} == before


def test_a_participant_that_is_computed_anew_changes_the_group(out, rng):
    found = make_group(out, rng, ("01", "02"))
    run(out)
    old = stat(out, KEYS[0])["mean"]
    found["02"][KEYS[0]]["value"] = 0.9
    write_scores(out, "02", found["02"])
    run(out)
    expected = (found["01"][KEYS[0]]["value"] + 0.9) / 2
    assert stat(out, KEYS[0])["mean"] == pytest.approx(expected, rel=1e-5) != old
    assert f"{expected:.3f}" in page(out)


def test_what_the_participants_left_is_not_touched(out, rng):
    make_group(out, rng)
    before = state(out)
    run(out)
    after = state(out)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        "group_metrics.tsv", "group_metrics.json", "group_stats.tsv", "group_stats.json",
        "group.html",
    }  # fmt: skip
