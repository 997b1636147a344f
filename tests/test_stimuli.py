"""Stimuli and their latents, and the reading of tables: what is read, and what is refused."""

import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from bids_tree import edit_tsv, write_json, write_latents, write_tsv

from hyper_bids.bids.events import TRIAL_COLUMNS, Trials, read_events, trial_tables
from hyper_bids.bids.inputs import Run
from hyper_bids.bids.stimuli import labels_of, load_latents, read_stimuli
from hyper_bids.bids.tables import read_table
from hyper_bids.config import InputSettings
from hyper_bids.errors import InputError

NAMES = ["a", "b", "c", "d", "e"]
N_LATENTS = 3


@pytest.fixture
def root(tmp_path, rng):
    """Return a dataset of five stimuli."""
    write_latents(tmp_path, NAMES, N_LATENTS, "both", rng)
    return tmp_path


def trials(*shown, shared=False):
    """Return trials as events give them: each is (stim_id, latent_row, split[, latent_file])."""
    frame = pd.DataFrame([dict.fromkeys(TRIAL_COLUMNS, "n/a") for _ in shown])
    filled = [(*trial, "latents.npy")[:4] for trial in shown]
    for column, values in zip(
        ("stim_id", "latent_row", "split", "latent_file"), zip(*filled, strict=True), strict=True
    ):
        frame[column] = values
    return Trials(frame, frame[:0], "split column", shared)


PLAIN = trials(("a", 0, "train"), ("c", 2, "test"))


def refused(call, *arguments, words):
    """Check that the call ends with an InputError of one line that has all the words."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def load(root, shown=PLAIN):
    return load_latents(read_stimuli(root), shown)


def save(root, array, name="latents.npy"):
    np.save(root / "stimuli" / name, array)
    return array


def spoil(root, change, name="latents.npy"):
    """Change the bytes of a file of stimuli."""
    path = root / "stimuli" / name
    path.write_bytes(change(path.read_bytes()))


# Tables


def test_a_byte_order_mark_line_ends_and_blank_lines_change_nothing_but_line_numbers(tmp_path):
    lines = ["x\ty", "1\tn/a", "2\t", "é\tz z"]
    plain, other = tmp_path / "plain.tsv", tmp_path / "other.tsv"
    plain.write_bytes("\n".join(lines).encode())
    for line_end in ("\n", "\r\n", "\r"):
        blank = line_end * 2 + "  \t" + line_end
        text = lines[0] + line_end + blank.join(lines[1:]) + line_end * 3
        other.write_bytes(b"\xef\xbb\xbf" + text.encode())
        found, expected = read_table(other), read_table(plain)
        assert found[["x", "y"]].equals(expected[["x", "y"]])
        assert expected["line"].tolist() == [2, 3, 4]
        assert found["line"].tolist() == [2, 5, 8]


def test_spaces_around_cells_do_not_count_and_those_within_do(tmp_path):
    (tmp_path / "x.tsv").write_text(" x\ty \n a b \t  c\n", "utf-8")
    table = read_table(tmp_path / "x.tsv", required=("x", "y"))
    assert table[["x", "y"]].to_numpy().tolist() == [["a b", "c"]]


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", '"', "'", ","])
def test_no_character_but_tab_and_line_end_separates_cells_or_rows(tmp_path, mark):
    (tmp_path / "x.tsv").write_bytes(f"x\ty\na{mark}b\tc\n{mark}d\te\n".encode())
    table = read_table(tmp_path / "x.tsv")
    assert table["x"].tolist() == [f"a{mark}b", f"{mark}d".strip()]
    assert table["line"].tolist() == [2, 3]


def test_cells_are_text_whatever_they_look_like(tmp_path):
    cells = ["007", "1.50", "nan", "NA", "None", "True", "1e5", "n/a", ""]
    (tmp_path / "x.tsv").write_text("".join(f"{c}\t-\n" for c in ["x", *cells]), "utf-8")
    assert read_table(tmp_path / "x.tsv")["x"].tolist() == cells


@pytest.mark.parametrize("mark", [",", ";", " "])
def test_columns_that_no_tab_separates_get_a_hint(tmp_path, mark):
    path = tmp_path / "events.tsv"
    path.write_text(f"onset{mark}duration\n1{mark}2\n", "utf-8")
    refused(read_events, path, words=["events.tsv", "no column onset", "Separate", "tabs"])
    path.write_text("time\tduration\n1\t2\n", "utf-8")
    words = ["events.tsv", "no column onset", "its columns are time, duration", "Add the column"]
    assert "Separate" not in refused(read_events, path, words=words)


def test_two_columns_of_one_name_or_of_none_are_refused(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\tonset\n1\t2\t3\n", "utf-8")
    refused(read_table, path, words=["events.tsv, line 1", "onset", "twice"])
    path.write_text("onset\tduration\t\n1\t2\t3\n", "utf-8")
    refused(read_table, path, words=["events.tsv, line 1", "no name"])


@pytest.mark.parametrize(("row", "n_cells"), [("1\t2", 2), ("1", 1), ("1\t2\t3\t4", 4)])
def test_a_row_of_too_few_or_too_many_cells_is_refused_with_its_line(tmp_path, row, n_cells):
    path = tmp_path / "events.tsv"
    path.write_text(f"onset\tduration\tx\n1\t2\t3\n\n{row}\n", "utf-8")
    words = ["events.tsv, line 4", f"{n_cells} cells", "3 columns"]
    refused(read_table, path, words=words)


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_lacks_the_columns(tmp_path, content):
    (tmp_path / "events.tsv").write_bytes(content)
    refused(read_events, tmp_path / "events.tsv", words=["events.tsv", "no column onset", "none"])


def test_a_file_that_is_missing_a_folder_or_no_text_is_refused_by_name(tmp_path):
    path = tmp_path / "events.tsv"
    refused(read_table, path, words=["events.tsv: no such file"])
    path.write_bytes("onset\tduration\n1\t2\n".encode("utf-16"))
    refused(read_table, path, words=["events.tsv", "UTF-8"])
    path.unlink()
    path.mkdir()
    refused(read_table, path, words=["events.tsv: cannot be read"])


@pytest.mark.parametrize("name", ["latents.tsv", "latents.npy", "latents.json"])
def test_a_link_to_content_that_was_not_fetched_gets_a_hint(root, name):
    path = root / "stimuli" / name
    path.unlink()
    path.symlink_to(root / ".git" / "annex" / "objects" / "key")
    refused(load, root, words=[str(path), "datalad get"])


def test_events_that_were_not_fetched_get_a_hint(tmp_path):
    path = tmp_path / "events.tsv"
    path.symlink_to(tmp_path / "nowhere")
    refused(read_events, path, words=[str(path), "datalad get"])


# The table of stimuli


def test_stimuli_have_the_rows_of_the_table_and_the_content_of_its_json(root):
    def spoil(table):
        table[1].update(stim_file="n/a", latent_row="n/a")
        table[2].update(stim_id="", latent_row="")

    edit_tsv(root / "stimuli" / "latents.tsv", spoil)
    stimuli = read_stimuli(root)
    assert stimuli.table["stim_id"].tolist() == ["a", "b", "n/a", "d", "e"]
    assert stimuli.table["stim_file"].tolist() == ["a.png", "n/a", "c.png", "d.png", "e.png"]
    assert stimuli.table["latent_row"].tolist() == [0, -1, -1, 3, 4]
    assert stimuli.table["line"].tolist() == [2, 3, 4, 5, 6]
    assert stimuli.meta == {"LatentSpace": "gaussian", "LatentDimension": N_LATENTS}
    assert stimuli.path == root / "stimuli" / "latents.tsv"


def test_further_columns_are_labels_of_the_stimuli_that_trials_show(root):
    def label(table):
        for k, row in enumerate(table):
            row.update(age=str(20 + k), gender="n/a" if k == 3 else "female")
        table[2].update(stim_id="n/a", gender="")

    edit_tsv(root / "stimuli" / "latents.tsv", label)
    stimuli = read_stimuli(root)
    assert list(stimuli.labels) == ["age", "gender"]
    assert labels_of(stimuli, ["e", "c.png", "d", "e"]) == {
        "age": ["24", "22", "23", "24"],
        "gender": ["female", "n/a", "n/a", "female"],
    }


def test_without_further_columns_there_are_no_labels(root):
    assert labels_of(read_stimuli(root), ["a", "b"]) == {}


@pytest.mark.parametrize("key", ["stim_id", "stim_file"])
def test_one_key_is_enough_and_the_latent_file_is_latents_npy_if_not_named(root, key):
    rows = [{key: name, "latent_row": index} for index, name in enumerate(NAMES)]
    write_tsv(root / "stimuli" / "latents.tsv", rows)
    (root / "stimuli" / "latents.json").unlink()
    (root / "stimuli" / "stim-a_image.png").write_bytes(b"0")  # a name of BEP044 only
    stimuli = read_stimuli(root)
    other = "stim_file" if key == "stim_id" else "stim_id"
    assert stimuli.table[key].tolist() == NAMES
    assert set(stimuli.table[other]) == {"n/a"}
    assert set(stimuli.table["latent_file"]) == {"latents.npy"}
    assert stimuli.meta == {}


def test_a_table_without_a_key_or_without_rows_of_latents_is_refused(root):
    path = root / "stimuli" / "latents.tsv"
    write_tsv(path, [{"name": "a", "latent_row": 0}])
    refused(read_stimuli, root, words=["latents.tsv", "stim_id", "stim_file"])
    write_tsv(path, [{"stim_id": "a", "row": 0}])
    refused(read_stimuli, root, words=["latents.tsv", "no column latent_row"])


def test_a_stim_id_stands_in_one_row_only(root):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda table: table[3].update(stim_id="b"))
    refused(read_stimuli, root, words=["latents.tsv, lines 3, 5", "column stim_id", "'b'"])


@pytest.mark.parametrize("text", ["-1", "1.0", "1e2", "x", "NaN", "+1", "1_0", "٣"])
def test_a_row_number_is_a_whole_number_from_0(root, text):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda table: table[2].update(latent_row=text))
    refused(read_stimuli, root, words=["latents.tsv, line 4", "column latent_row", repr(text)])


@pytest.mark.parametrize(
    "file", ["../latents.npy", "x/../../latents.npy", "/latents.npy", "latents.txt", "n/a", ""]
)
def test_a_latent_file_is_a_npy_file_below_stimuli(root, file):
    table = root / "stimuli" / "latents.tsv"
    edit_tsv(table, lambda rows: rows[2].update(latent_file=file))
    refused(read_stimuli, root, words=["latents.tsv, line 4", "column latent_file", repr(file)])
    # Without a row, no file is read.
    edit_tsv(table, lambda rows: rows[2].update(latent_row="n/a"))
    assert len(read_stimuli(root).table) == len(NAMES)


def test_a_dataset_without_a_table_of_stimuli_is_refused_with_both_names(root):
    (root / "stimuli" / "latents.tsv").unlink()
    refused(read_stimuli, root, words=["latents.tsv", "stimuli.tsv", "latent_row"])


def test_the_table_of_bep044_is_read_only_where_latents_tsv_is_absent(root):
    folder = root / "stimuli"
    write_tsv(folder / "stimuli.tsv", [{"stim_id": "stim-z", "latent_row": 1}])
    write_json(folder / "stimuli.json", {"LatentSpace": "other"})
    assert read_stimuli(root).source == "latents.tsv"
    assert read_stimuli(root).table["stim_id"].tolist() == NAMES
    (folder / "latents.tsv").unlink()
    (folder / "latents.json").unlink()
    stimuli = read_stimuli(root)
    assert stimuli.path == folder / "stimuli.tsv"
    assert stimuli.table["stim_id"].tolist() == ["stim-z"]
    assert stimuli.meta == {"LatentSpace": "other"}
    expected = np.load(folder / "latents.npy")[[1]]
    np.testing.assert_array_equal(load_latents(stimuli, trials(("stim-z", 1, "test"))), expected)


def test_images_of_bep044_are_found_by_the_label_of_the_stimulus(root):
    folder = root / "stimuli"
    (folder / "latents.tsv").unlink()
    files = ["stim-1_image.png", "stim-10_image.png", "stim-b.JPG", "stim-b_audio.wav", "c.png"]
    for file in files:
        (folder / file).write_bytes(b"0")
    names = ["stim-1", "10", "stim-b", "stim-c"]
    rows = [{"stim_id": name, "latent_row": index} for index, name in enumerate(names)]
    write_tsv(folder / "stimuli.tsv", rows)
    assert read_stimuli(root).table["stim_file"].tolist() == [*files[:3], "n/a"]
    # A column stim_file is taken as it is.
    write_tsv(folder / "stimuli.tsv", [{**row, "stim_file": "c.png"} for row in rows])
    assert set(read_stimuli(root).table["stim_file"]) == {"c.png"}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_sidecar_that_is_no_json_object_is_refused_by_name(root, text):
    (root / "stimuli" / "latents.json").write_text(text, "utf-8")
    refused(read_stimuli, root, words=["latents.json", "JSON"])


# Latents


def test_each_trial_gets_its_row_of_its_file_in_float32(root, rng):
    files = {"latents.npy": 5, "more.npy": 9, "below/third.npy": 4}
    (root / "stimuli" / "below").mkdir()
    arrays = {name: save(root, rng.random((n, 3), np.float32), name) for name, n in files.items()}
    places = [(str(name), rng.integers(files[name])) for name in rng.choice(list(files), 40)]
    split = {place: str(rng.choice(["train", "test"])) for place in places}
    shown = [(f"{file}{row}", row, split[file, row], file) for file, row in places]
    latents = load(root, trials(*shown))
    assert (latents.dtype, latents.shape) == (np.float32, (40, 3))
    np.testing.assert_array_equal(latents, [arrays[file][row] for file, row in places])


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i1", "u2", "i8"])
def test_real_numbers_of_any_type_and_order_are_read_as_float32(root, rng, dtype):
    array = (100 * rng.random((5, 3))).astype(dtype)
    for order in "CF":
        save(root, np.asarray(array, order=order))
        latents = load(root)
        assert latents.dtype == np.float32
        np.testing.assert_array_equal(latents, array[[0, 2]].astype(np.float32))


def test_only_the_rows_of_trials_are_read_from_the_disk(root):
    shape = (500_000, 128)  # 256 MB, without taking that space on most disks
    path = root / "stimuli" / "latents.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    array[499_999] = np.arange(128)
    del array
    write_json(root / "stimuli" / "latents.json", {"LatentDimension": 128})
    stimuli = read_stimuli(root)
    tracemalloc.start()
    try:
        latents = load_latents(stimuli, trials(("a", 0, "train"), ("c", 499_999, "test")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(latents, [np.zeros(128), np.arange(128)])
    assert peak < 10e6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_number_that_float32_cannot_hold_is_refused_where_used_and_only_there(root, rng, value):
    array = rng.standard_normal((5, 3))
    array[1:, 1] = [value, 0, value, value]
    save(root, array)
    np.testing.assert_array_equal(load(root), array[[0, 2]].astype(np.float32))
    shown = trials(("a", 0, "train"), ("d", 3, "train"), ("c", 2, "test"))
    refused(load, root, shown, words=["latents.npy, row 3, column 1", str(value)])


# The last ones do not fit into 64 bits, signed and unsigned.
@pytest.mark.parametrize("row", ["5", "4000000000", "10000000000000000000", "9" * 30, "9" * 5000])
def test_a_row_past_the_end_is_refused_with_its_line_and_the_rows_there_are(root, row):
    edit_tsv(root / "stimuli" / "latents.tsv", lambda table: table[2].update(latent_row=row))
    path = root / "events.tsv"
    shown = (("a", "train"), ("c", "test"))
    write_tsv(path, [{"onset": 1, "duration": 1, "stim_id": n, "split": s} for n, s in shown])
    run = Run(path, path, None, None, 2.0, 9, (1, 1, 1), {}, ())

    def read():
        stimuli = read_stimuli(root)
        return load_latents(stimuli, trial_tables([run], stimuli, InputSettings()))

    refused(read, words=["latents.tsv, line 4", "column latent_row", row[:20]])


@pytest.mark.parametrize("row", [-1, 5])
def test_no_trial_gets_a_row_that_is_not_there(root, row):
    shown = trials(("a", 0, "train"), ("c", row, "test"))
    refused(load, root, shown, words=["latent_row", str(row), "5 rows", "0 to 4"])


def archive(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


SPOILT = {
    "truncated": lambda content: content[:-1],
    "cut in the header": lambda content: content[:50],
    "empty": lambda content: b"",
    "text": lambda content: b"0.1 0.2 0.3\n",
    "a pickle": lambda content: b"\x80\x04K\x01.",
    "an archive": lambda content: archive(np.zeros((5, 3))),
    "a truncated archive": lambda content: archive(np.zeros((5, 3)))[:-100],
    "a spoilt header": lambda content: content.replace(b"}", b" "),
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_no_whole_npy_array_is_refused_by_name(root, change):
    spoil(root, change)
    refused(load, root, words=[str(root / "stimuli" / "latents.npy")])


def test_a_latent_file_that_is_missing_or_a_folder_is_refused_by_name(root):
    path = root / "stimuli" / "latents.npy"
    path.unlink()
    refused(load, root, words=[f"{path}: no such file"])
    path.mkdir()
    refused(load, root, words=[f"{path}: cannot be read"])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5),
        np.zeros((5, 3, 1)),
        np.zeros(()),
        np.zeros((0, 3)),
        np.zeros((5, 0)),
        np.zeros((5, 3), complex),
        np.zeros((5, 3), bool),
        np.full((5, 3), "a"),
        np.full((5, 3), None),
        np.zeros((5, 3), [("x", "f4")]),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_latents_are_a_matrix_of_real_numbers(root, array):
    np.save(root / "stimuli" / "latents.npy", array, allow_pickle=True)
    refused(load, root, words=[str(root / "stimuli" / "latents.npy")])


def test_latents_have_the_dimension_that_the_json_states(root):
    write_json(root / "stimuli" / "latents.json", {"LatentDimension": 4})
    words = ["latents.npy", "3 latents", "LatentDimension is 4", "latents.tsv"]
    refused(load, root, words=words)
    for meta in ({"LatentDimension": 3}, {}):
        write_json(root / "stimuli" / "latents.json", meta)
        assert load(root).shape == (2, 3)


def test_latent_files_that_are_used_together_have_one_size(root, rng):
    save(root, rng.random((5, 4)), "more.npy")
    write_json(root / "stimuli" / "latents.json", {})
    shown = trials(("a", 0, "train"), ("b", 1, "train", "more.npy"), ("c", 2, "test"))
    refused(load, root, shown, words=["disagree", "latents.npy has 3", "more.npy has 4"])
    assert load(root).shape == (2, 3)  # more.npy is not used


# One vector under two names


def twins(dtype=np.float64):
    """Return latents in which rows 0 and 2 are the same."""
    array = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    array[2] = array[0]
    return array


def test_two_stimuli_of_the_same_latents_are_refused_in_different_sets(root):
    save(root, twins())
    words = ["latents.tsv", "a (training)", "c (test)", "same latents", "--allow-shared-stimuli"]
    refused(load, root, words=words)
    one_set = trials(("a", 0, "train"), ("c", 2, "train"), ("d", 3, "test"))
    assert load(root, one_set).shape == (3, 3)
    allowed = trials(("a", 0, "train"), ("c", 2, "test"), shared=True)
    latents = load(root, allowed)
    np.testing.assert_array_equal(latents[0], latents[1])


def test_the_same_latents_in_two_files_are_seen(root):
    save(root, twins()[2:], "more.npy")
    save(root, twins())
    shown = trials(("a", 0, "train"), ("c", 0, "test", "more.npy"))
    refused(load, root, shown, words=["a (training)", "c (test)"])


def test_latents_that_differ_in_the_sign_of_zero_or_beyond_float32_are_the_same(root):
    array = twins()
    array[0, 0], array[2, 0] = 0.0, -0.0
    array[2, 1] *= 1 + 1e-12
    save(root, array)
    refused(load, root, words=["same latents"])
    array[2, 1] *= 1 + 1e-5
    save(root, array)
    assert load(root).shape == (2, 3)
