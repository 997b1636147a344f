"""Events: which are trials, which trials test, what each shows, and what is refused."""

import itertools
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bids_tree import edit_tsv, stem_of, write_latents, write_tsv

from hyper_bids.bids.events import NUISANCE_COLUMNS, TRIAL_COLUMNS, read_events, trial_tables
from hyper_bids.bids.inputs import Run
from hyper_bids.bids.stimuli import read_stimuli
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError, UsageError

NAMES = [f"face{number:02d}" for number in range(1, 13)]
A, B, C, D, E, F = NAMES[:6]
N_VOLUMES, T_R = 50, 2.0
FIRST = "sub-01_task-faces_run-1_events.tsv"
# A stimulus of each set, so that a test can add the event that it is about.
PAIR = ({"stim_id": E, "split": "train"}, {"stim_id": F, "split": "test"})


@pytest.fixture
def root(tmp_path, rng):
    """Return a dataset that has stimuli and latents, but no events yet."""
    write_latents(tmp_path, NAMES, 3, "both", rng)
    return tmp_path


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hyper_bids"), "propagate", True)
    caplog.set_level(logging.INFO, "hyper_bids")
    return caplog


def rows(*events, **cells):
    """Return the rows of a table of events, 8 s apart; a str is the stim_id of one."""
    events = [{"stim_id": event} if isinstance(event, str) else event for event in events]
    timed = [
        {"onset": 2 + 8 * index, "duration": 1.5, **cells, **event}
        for index, event in enumerate(events)
    ]
    columns = dict.fromkeys(name for row in timed for name in row)
    return [{name: row.get(name, "n/a") for name in columns} for row in timed]


def write_run(root, events, label="1", session=None):
    """Write rows (or a text) as the events of a run of 100 s."""
    stem = stem_of(root, "01", session, label)
    path = Path(f"{stem}_events.tsv")
    if isinstance(events, str):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(events.encode())
    else:
        write_tsv(path, events)
    entities = {"session": session, "task": "faces", "run": label}
    return Run(
        bold=Path(f"{stem}_bold.nii.gz"), events=path, mask=None, confounds=None, t_r=T_R,
        n_volumes=N_VOLUMES, shape=(4, 5, 3), sources=(),
        entities={key: value for key, value in entities.items() if value},
    )  # fmt: skip


def sort_events(root, *runs, **changes):
    """Write runs 1, 2, ... and sort their events."""
    written = [write_run(root, events, str(i)) for i, events in enumerate(runs, start=1)]
    return trial_tables(written, read_stimuli(root), InputSettings(**changes))


def refused(kind, root, *runs, words, **changes):
    """Check that the error is of the kind, is one line, and has all the words."""
    with pytest.raises(kind) as caught:
        sort_events(root, *runs, **changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def sets(found):
    """Return the stimuli of the test trials and those of the training trials."""
    split = found.trials["split"]
    return tuple(set(found.trials["stim_id"][split == name]) for name in ("test", "train"))


# Which trials test: each way would choose other ones.

WAYS = ("split column", "trial_type", "--test-run-id", "--test-repeated")
CHOSEN = {
    "split column": {B},
    "trial_type": {C},
    "--test-run-id": {D, E},
    "--test-repeated": {A},
}
SOURCE = {"--test-run-id": "--test-run-id 3"}


def with_ways(root, ways):
    """Sort the events of three runs, in which ``ways`` say which trials test."""
    runs = []
    for names in ((A, B), (A, C), (D, E)):
        events = rows(*names, trial_type="face")
        for row in events:
            if "split column" in ways:
                row["split"] = "test" if row["stim_id"] == B else "train"
            if "trial_type" in ways:
                row["trial_type"] = "test" if row["stim_id"] == C else "train"
        runs.append(events)
    run_id = ("3",) if "--test-run-id" in ways else ()
    return sort_events(root, *runs, test_run_id=run_id, test_repeated="--test-repeated" in ways)


SUBSETS = [ways for n in range(1, 5) for ways in itertools.combinations(WAYS, n)]


@pytest.mark.parametrize("ways", SUBSETS, ids=" + ".join)
def test_of_the_ways_that_apply_the_first_decides_alone(root, ways):
    found = with_ways(root, ways)
    assert sets(found) == (CHOSEN[ways[0]], {A, B, C, D, E} - CHOSEN[ways[0]])
    assert found.split_source == SOURCE.get(ways[0], ways[0])
    assert len(found.trials) == 6


@pytest.mark.parametrize("ways", SUBSETS, ids=" + ".join)
def test_each_flag_that_is_not_used_is_named_in_a_warning_and_no_other_is(root, log, ways):
    with_ways(root, ways)
    warnings = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    unused = [flag for flag in ways[1:] if flag.startswith("--")]
    assert all("not used" in text and ways[0] in text for text in warnings)
    for flag in unused:
        assert any(flag in text.split("not used")[0] for text in warnings), warnings
    if not unused:
        assert warnings == []


def test_if_nothing_says_which_trials_test_the_error_names_the_four_ways(root):
    words = ["column split", "trial_type", "--test-run-id", "--test-repeated"]
    refused(UsageError, root, rows(A, B), rows(A, C), words=words)


def test_a_split_column_without_train_and_test_leaves_the_decision_to_the_next_way(root):
    found = sort_events(root, rows(A, B, split="n/a"), rows(C, split=""), test_run_id=("2",))
    assert sets(found) == ({C}, {A, B})


def test_a_trial_type_of_train_or_test_decides_only_if_its_events_show_a_stimulus(root):
    rest = rows({"stim_id": "n/a", "trial_type": "test"}, {"stim_id": B, "trial_type": "face"})
    found = sort_events(root, rows(A, trial_type="face"), rest, test_run_id=("2",))
    assert sets(found) == ({B}, {A})
    assert found.nuisance["trial_type"].tolist() == ["test"]


@pytest.mark.parametrize("label", ["2", "02", "run-2", "run-002"])
def test_a_test_run_is_named_with_or_without_prefix_and_zeros(root, label):
    assert sets(sort_events(root, rows(A, B), rows(C), test_run_id=(label,))) == ({C}, {A, B})


def test_a_test_run_that_is_not_there_is_refused_with_the_runs_that_are(root):
    words = ["--test-run-id 7", "no such run", "there are runs 1, 2"]
    refused(UsageError, root, rows(A, B), rows(C), words=words, test_run_id=("2", "7"))


def test_a_test_run_is_that_run_of_every_session(root):
    runs = [
        write_run(root, rows(names), label, session)
        for names, session, label in ((A, "x", "1"), (B, "x", "2"), (C, "y", "1"), (D, "y", "2"))
    ]
    found = trial_tables(runs, read_stimuli(root), InputSettings(test_run_id=("2",)))
    assert sets(found) == ({B, D}, {A, C})


def test_a_stimulus_shown_twice_in_one_run_only_is_not_repeated(root):
    found = sort_events(root, rows(A, A, B), rows(B, C), test_repeated=True)
    assert sets(found) == ({B}, {A, C})


def test_a_stimulus_is_repeated_whether_its_id_or_its_file_names_it(root):
    by_file = rows({"stim_id": "n/a", "stim_file": f"{A}.png"}, {"stim_id": C})
    assert sets(sort_events(root, rows(A, B), by_file, test_repeated=True)) == ({A}, {B, C})


@pytest.mark.parametrize(("only", "missing"), [("train", "test"), ("test", "train")])
@pytest.mark.parametrize("column", ["split", "trial_type"])
def test_a_set_without_trials_is_named_with_what_decided(root, only, missing, column):
    source = "split column" if column == "split" else column
    words = [f"no {missing} trials", f"all 3 trials {only}", source]
    refused(InputError, root, rows(A, B, **{column: only}), rows(C, **{column: only}), words=words)


def test_flags_that_leave_one_set_empty_are_named(root):
    words = ["no train trials", "--test-run-id 1 2"]
    refused(InputError, root, rows(A, B), rows(C), words=words, test_run_id=("1", "run-2"))
    words = ["no test trials", "--test-repeated"]
    refused(InputError, root, rows(A, B), rows(C), words=words, test_repeated=True)
    words = ["no train trials", "--test-repeated"]
    refused(InputError, root, rows(A, B), rows(A, B), words=words, test_repeated=True)


@pytest.mark.parametrize("text", ["Train", "TEST", "training", "tset", "train,test", "N/A", "1"])
def test_a_typing_error_in_a_split_is_named_by_file_line_and_column(root, text):
    wrong = rows(*PAIR, {"stim_id": "n/a", "split": text})
    words = [FIRST, "line 4", "column split", repr(text), "train, test and n/a"]
    refused(InputError, root, wrong, words=words)
    refused(InputError, root, wrong, words=words, test_repeated=True)


@pytest.mark.parametrize("column", ["split", "trial_type"])
@pytest.mark.parametrize("name", ["train", "test"])
def test_an_event_that_trains_or_tests_must_show_a_stimulus(root, column, name):
    events = [{"stim_id": E, column: "train"}, {"stim_id": F, column: "test"}]
    words = [FIRST, "line 4", f"column {column}: {name}", "no stimulus"]
    refused(InputError, root, rows(*events, {"stim_id": "n/a", column: name}), words=words)


def test_runs_without_the_split_column_are_named_unless_they_show_no_stimulus(root):
    words = ["run-2_events.tsv", "run-3_events.tsv", "no column split"]
    message = refused(InputError, root, rows(*PAIR), rows(A), rows(B), words=words)
    assert "run-1" not in message
    found = sort_events(root, rows(*PAIR), rows("n/a", "n/a", trial_type="rest"))
    assert len(found.trials) == 2
    assert found.nuisance["trial_type"].tolist() == ["rest", "rest"]


def test_events_that_name_no_stimulus_at_all_are_refused_with_the_way_to_the_latents(root):
    words = [FIRST, "no event names a stimulus", "stim_id", "latents.tsv"]
    refused(InputError, root, rows("n/a", "n/a"), rows("n/a"), words=words, test_run_id=("2",))
    plain = [{"onset": 1, "duration": 1}]
    refused(InputError, root, plain, plain, words=words, test_repeated=True)


def test_tables_of_nothing_but_headers_are_refused_and_one_among_others_is_not(root):
    header = "onset\tduration\tstim_id\tsplit\n"
    refused(InputError, root, header, header, words=[FIRST, "no events"])
    found = sort_events(root, header, rows(*PAIR))
    assert found.trials["run_index"].tolist() == [1, 1]


# No event is lost


KEY = {"split column": "split", "trial_type": "trial_type"}


def random_runs(way, rng):
    """Return random events of four runs, one of them without any, and both sets in the others."""
    key = KEY.get(way, "answer")
    runs = []
    for name in NAMES[9:]:
        events = [{"stim_id": A, key: "test"}, {"stim_id": name, key: "train"}]
        for _ in range(rng.integers(30)):
            event = {"stim_id": str(rng.choice(NAMES[:9])), key: "n/a"}
            event[key] = str(rng.choice(["train", "test", "n/a"]))
            events.append(event if rng.random() < 0.6 else {"stim_id": "n/a"})
        for event in events:
            event["onset"], event["duration"] = rng.uniform(0, 9, 2).round(2).tolist()
        runs.append(rows(*(events[i] for i in rng.permutation(len(events)))))
    return [*runs[:2], [], runs[2]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("way", WAYS)
def test_each_event_is_a_trial_or_a_nuisance_event_exactly_once(root, way, seed):
    runs = random_runs(way, np.random.default_rng(seed))
    flags = {"--test-run-id": {"test_run_id": ("1",)}, "--test-repeated": {"test_repeated": True}}
    tables = [events or "onset\tduration\n" for events in runs]
    found = sort_events(root, *tables, **flags.get(way, {}), allow_shared_stimuli=True)
    key = KEY.get(way)
    trials, nuisance = [], []
    for index, events in enumerate(runs):
        for row in events:
            is_trial = row[key] in ("train", "test") if key else row["stim_id"] != "n/a"
            place = (index, row["onset"], row["duration"], row.get("trial_type", "n/a"))
            (trials if is_trial else nuisance).append(place)
    for table, written in ((found.trials, trials), (found.nuisance, nuisance)):
        places = list(table[list(NUISANCE_COLUMNS)].itertuples(index=False, name=None))
        assert Counter(places) == Counter(written)
        assert [place[:2] for place in places] == sorted(place[:2] for place in places)
    for trial in found.trials.itertuples():
        row = runs[trial.run_index][trial.line - 2]
        assert (row["onset"], row["stim_id"]) == (trial.onset, trial.stim_id)
        assert key is None or row[key] == trial.split


def test_stimuli_shown_without_a_set_become_nuisance_events_and_are_counted_in_the_log(root, log):
    found = sort_events(root, rows(*PAIR, {"stim_id": A, "split": "n/a"}, {"stim_id": B}))
    assert sets(found) == ({F}, {E})
    assert found.nuisance["onset"].tolist() == [18, 26]
    assert "2 events show a stimulus, but neither train nor test" in log.text


# A stimulus in both sets


def test_a_stimulus_in_both_sets_is_refused_with_both_places(root):
    runs = rows(A, B, C, split="train"), rows(D, A, split="test")
    words = [A, f"train: {root}", f"{FIRST}, line 2", "run-2_events.tsv, line 3", "1 stimulus,"]
    message = refused(InputError, root, *runs, words=[*words, "--allow-shared-stimuli"])
    assert B not in message


def test_a_stimulus_named_by_id_in_training_and_by_file_in_test_is_refused(root):
    by_file = rows({"stim_id": "n/a", "stim_file": f"{A}.png", "split": "test"})
    refused(InputError, root, rows(A, B, split="train"), by_file, words=[A, "both training"])


@pytest.mark.parametrize("column", ["latent_row", "stim_file"])
def test_two_stimuli_of_one_latent_row_or_one_image_are_refused_in_different_sets(root, column):
    def share(table):
        table[1][column] = table[0][column]

    edit_tsv(root / "stimuli" / "latents.tsv", share)
    runs = rows(A, C, split="train"), rows(D, B, split="test")
    words = [A, B, "line 2", "line 3", "both training and test"]
    assert C not in refused(InputError, root, *runs, words=words)
    # In one set they do no harm.
    assert len(sort_events(root, rows(A, B, split="train"), rows(D, split="test")).trials) == 3


def test_stimuli_without_an_image_are_not_taken_for_one(root):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda t: [r.update(stim_file="n/a") for r in t])
    found = sort_events(root, rows(*PAIR))
    assert found.trials["stim_file"].tolist() == ["n/a", "n/a"]


def test_shared_stimuli_are_let_through_only_when_they_are_allowed(root):
    runs = rows(A, B, split="train"), rows(A, B, split="test")
    found = sort_events(root, *runs, allow_shared_stimuli=True)
    assert sets(found) == ({A, B}, {A, B})
    assert found.shared_allowed
    assert not sort_events(root, rows(*PAIR)).shared_allowed


# Which stimulus


def test_trials_have_the_stimulus_latents_and_run_that_the_tables_give(root):
    runs = [
        write_run(root, rows(A, C, split="train"), "1", "x"),
        write_run(root, rows("n/a", D, split="test")[1:], None),
    ]
    found = trial_tables(runs, read_stimuli(root), InputSettings())
    assert found.trials.columns.tolist() == list(TRIAL_COLUMNS)
    assert found.trials.to_dict("records")[1] == {
        "run_index": 0, "session": "x", "task": "faces", "run": "1", "line": 3, "onset": 10.0,
        "duration": 1.5, "trial_type": "n/a", "stim_id": C, "stim_file": f"{C}.png",
        "latent_file": "latents.npy", "latent_row": 2, "split": "train",
    }  # fmt: skip
    last = found.trials.iloc[2]
    assert (last["run_index"], last["session"], last["run"]) == (1, "n/a", "n/a")
    assert (last["stim_id"], last["latent_row"]) == (D, 3)


def test_runs_are_counted_in_the_order_given(root):
    first = write_run(root, rows(A, split="train"))
    second = write_run(root, rows(B, split="test"), "2")
    found = trial_tables([second, first], read_stimuli(root), InputSettings())
    assert found.trials["run_index"].tolist() == [0, 1]
    assert found.trials["stim_id"].tolist() == [B, A]


def test_the_stim_id_wins_over_the_stim_file(root):
    both = rows({"stim_id": A, "stim_file": f"{B}.png", "split": "train"}, PAIR[1])
    trial = sort_events(root, both).trials.iloc[0]
    assert (trial["stim_id"], trial["stim_file"], trial["latent_row"]) == (A, f"{A}.png", 0)


def test_the_stim_file_alone_is_enough(root):
    events = [
        {"onset": i, "duration": 1, "stim_file": f"{name}.png", "split": split}
        for i, (name, split) in enumerate([(C, "train"), (B, "test")])
    ]
    found = sort_events(root, events).trials
    assert found["stim_id"].tolist() == [C, B]
    assert found["latent_row"].tolist() == [2, 1]
    # Without any stim_id, the file is the name, whatever the events call the stimulus.
    edit_tsv(root / "stimuli" / "latents.tsv", lambda t: [r.update(stim_id="n/a") for r in t])
    found = sort_events(root, [{**row, "stim_id": "shown"} for row in events]).trials
    assert found["stim_id"].tolist() == [f"{C}.png", f"{B}.png"]
    assert found["latent_row"].tolist() == [2, 1]


@pytest.mark.parametrize("missing", ["n/a", ""])
def test_an_empty_cell_and_na_both_say_that_there_is_nothing(root, missing):
    nothing = {"stim_id": missing, "stim_file": missing, "split": missing, "trial_type": missing}
    by_file = {**nothing, "stim_file": f"{A}.png", "split": "train"}
    found = sort_events(root, rows(*PAIR, nothing, by_file))
    assert found.trials["stim_id"].tolist() == [E, F, A]
    assert found.nuisance["trial_type"].tolist() == ["n/a"]


def test_names_are_text_even_where_they_look_like_numbers_or_missing_values(root):
    odd = ["007", "7", "7.0", "nan", "NA", "None", "null", "True", "1e3"]

    def rename(table):
        for row, name in zip(table, odd, strict=False):
            row["stim_id"] = name

    edit_tsv(root / "stimuli" / "latents.tsv", rename)
    events = [{"stim_id": name, "split": "train"} for name in odd]
    found = sort_events(root, rows(*events, {"stim_id": NAMES[-1], "split": "test"})).trials
    assert found["stim_id"].tolist() == [*odd, NAMES[-1]]
    assert found["latent_row"].tolist() == [*range(9), 11]


def test_an_unknown_stim_id_is_named_by_file_line_and_column_with_a_close_one(root):
    wrong = rows(*PAIR, {"stim_id": "fase03", "split": "train"})
    words = [FIRST, "line 4", "column stim_id", "'fase03'", "latents.tsv", "close to it: ", C]
    refused(InputError, root, wrong, words=words)
    # It does no harm where the event neither trains nor tests.
    wrong[-1]["split"] = "n/a"
    assert len(sort_events(root, wrong).trials) == 2


@pytest.mark.parametrize("prefix", ["", "stimuli/"])
def test_an_unknown_stim_file_gets_a_hint_only_if_it_begins_with_the_folder(root, prefix):
    name = f"{prefix}{A if prefix else 'fase03'}.png"
    wrong = rows(*PAIR, {"stim_id": "n/a", "stim_file": name, "split": "train"})
    words = [FIRST, "line 4", "column stim_file", repr(name), "latents.tsv", "close to it"]
    message = refused(InputError, root, wrong, words=words)
    assert ("Leave out stimuli/" in message) is bool(prefix)


def test_a_stim_file_of_two_stimuli_is_refused_until_the_stim_id_chooses(root):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda t: t[3].update(stim_file=t[1]["stim_file"]))
    event = {"stim_id": "n/a", "stim_file": f"{B}.png", "split": "train"}
    words = [FIRST, "line 4", "column stim_file", f"{B}.png", "lines 3 and 5", "stim_id"]
    refused(InputError, root, rows(*PAIR, event), words=words)
    assert sort_events(root, rows(*PAIR, {**event, "stim_id": D})).trials["latent_row"][2] == 3


@pytest.mark.parametrize("key", ["stim_id", "stim_file"])
def test_unknown_latents_matter_only_for_stimuli_that_train_or_test(root, key):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda t: t[1].update(latent_row="n/a"))
    name = B if key == "stim_id" else f"{B}.png"
    event = {"stim_id": "n/a", key: name, "split": "n/a"}
    assert len(sort_events(root, rows(*PAIR, event)).nuisance) == 1
    words = [FIRST, "line 4", f"column {key}", repr(name), "latents", "unknown", "line 3", "split"]
    refused(InputError, root, rows(*PAIR, {**event, "split": "test"}), words=words)


# Times


@pytest.mark.parametrize("column", ["onset", "duration"])
@pytest.mark.parametrize("text", ["NaN", "inf", "-inf", "1e999", "", "soon", "1,5", "1_0", "2 s"])
def test_a_time_that_is_no_finite_number_is_named_by_file_line_and_column(root, column, text):
    wrong = rows(*PAIR, {"stim_id": "n/a", column: text}, {"stim_id": "n/a"})
    refused(InputError, root, wrong, words=[FIRST, "line 4", f"column {column}", repr(text)])


def test_an_onset_of_na_and_a_negative_duration_are_refused(root):
    wrong = rows(*PAIR, {"stim_id": "n/a", "onset": "n/a"})
    refused(InputError, root, wrong, words=[FIRST, "line 4", "column onset", "'n/a'"])
    wrong = rows(*PAIR, {"stim_id": "n/a", "duration": -0.25})
    refused(InputError, root, wrong, words=[FIRST, "line 4", "column duration", "-0.25 s"])
    assert sort_events(root, rows(*PAIR, duration=0)).trials["duration"].tolist() == [0, 0]


def test_a_duration_of_na_is_an_impulse_and_is_told(root, caplog):
    events = rows(*PAIR, {"stim_id": "n/a", "duration": "n/a"})
    assert sort_events(root, events).nuisance["duration"].tolist() == [0]
    assert "line 4, column duration: n/a" in caplog.text


@pytest.mark.parametrize("split", ["train", "n/a"])
def test_no_event_may_start_at_or_past_the_end_of_its_scan(root, split):
    late = rows(*PAIR, {"stim_id": A, "split": split, "onset": N_VOLUMES * T_R})
    words = [FIRST, "line 4", "column onset", "100 s", "50 volumes of 2 s", "run-1_bold.nii.gz"]
    refused(InputError, root, late, words=words)
    late[-1]["onset"] = 99.999
    assert len(sort_events(root, late).trials) + (split == "n/a") == 3


def test_a_trial_may_not_start_before_the_scan_but_a_nuisance_event_may(root):
    early = rows(*PAIR, {"stim_id": A, "split": "train", "onset": -0.5})
    words = [FIRST, "line 4", "column onset", "-0.5 s", "before the first volume"]
    refused(InputError, root, early, words=words)
    early[-1]["split"] = "n/a"
    assert sort_events(root, early).nuisance["onset"].tolist() == [-0.5]
    early[-1].update(split="train", onset=0)
    assert sort_events(root, early).trials["onset"].tolist() == [0, 2, 10]


# Reading a file


def test_unsorted_events_come_out_by_onset_with_the_lines_of_the_file(tmp_path, rng):
    onsets = rng.permutation(200) / 4
    path = tmp_path / "events.tsv"
    write_tsv(path, [{"onset": f"{onset:.2f}", "duration": 1, "code": onset} for onset in onsets])
    table = read_events(path)
    np.testing.assert_array_equal(table["onset"], np.sort(onsets))
    np.testing.assert_array_equal(table["line"], np.argsort(onsets) + 2)
    np.testing.assert_array_equal(table["code"].astype(float), table["onset"])


def test_events_of_one_onset_stay_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "events.tsv"
    write_tsv(path, [{"onset": text, "duration": 0} for text in ("3", "1", "3.0", "1.00") * 50])
    assert read_events(path)["line"].tolist() == [*range(3, 202, 2), *range(2, 202, 2)]


def test_an_error_names_the_line_of_the_file_though_events_are_sorted_and_lines_are_blank(root):
    text = f"onset\tduration\tstim_id\tsplit\n\n40\t1\t{A}\ttrain\n\n\n9\t1\t{B}\ttset\n"
    refused(InputError, root, text, words=[FIRST, "line 6", "column split", "'tset'"])
    text = text.replace("tset", "test").replace(B, "nobody")
    refused(InputError, root, text, words=[FIRST, "line 6", "column stim_id", "'nobody'"])


def test_columns_that_the_app_uses_within_are_harmless_in_a_file(root):
    own = {"line": "x", "path": "y", "run_index": "7", "latent_row": "9", "latent_file": "z.npy"}
    own |= {"names_stimulus": "False", "given_split": "test", "session": "s", "task": "t"}
    plain = sort_events(root, rows(*PAIR, "n/a"))
    found = sort_events(root, rows(*PAIR, "n/a", **own))
    assert found.trials.equals(plain.trials)
    assert found.nuisance.equals(plain.nuisance)


@pytest.mark.parametrize("column", ["onset", "duration"])
def test_events_without_a_time_column_are_refused(root, column):
    wrong = [{k: v for k, v in row.items() if k != column} for row in rows(*PAIR)]
    refused(InputError, root, wrong, words=[FIRST, f"no column {column}", "stim_id"])
