"""Reading confounds: which columns are taken, and what is refused."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bids_tree import MOTION, write_json, write_tsv

from hyper_bids.bids.confounds import SETS, models_drift, read_confounds
from hyper_bids.errors import InputError, UsageError


@pytest.fixture
def table(tmp_path, rng):
    """Write a table as fMRIPrep does: derivatives without a value in the first row."""
    path = tmp_path / "sub-01_desc-confounds_timeseries.tsv"
    values = rng.standard_normal((8, 6)).round(5)
    rows = []
    for i, row in enumerate(values):
        cells = {"global_signal": 100 + i, "framewise_displacement": 0.1 if i else "n/a"}
        for name, value, before in zip(MOTION, row, values[i - 1], strict=True):
            slope = round(value - before, 5) if i else "n/a"
            cells |= {name: value, f"{name}_derivative1": slope, f"{name}_power2": value**2}
            cells[f"{name}_derivative1_power2"] = slope**2 if i else "n/a"
        cells |= {f"a_comp_cor_{k:02d}": k + i for k in range(3)}
        cells["non_steady_state_outlier00"] = int(i == 0)
        rows.append(cells)
    write_tsv(path, rows)
    return path, values


def test_motion6_is_the_six_parameters_and_outliers_always_come_along(table):
    path, motion = table
    values, names = read_confounds(path, ("motion6",), 8)
    assert names == [*MOTION, "non_steady_state_outlier00"]
    np.testing.assert_array_equal(values[:, :6], motion)
    np.testing.assert_array_equal(values[:, 6], [1, 0, 0, 0, 0, 0, 0, 0])


def test_motion24_adds_derivatives_and_squares_with_zero_in_the_first_row(table):
    path, motion = table
    values, names = read_confounds(path, ("motion24",), 8)
    assert len(names) == 25
    assert len(set(names)) == 25
    found = dict(zip(names, values.T, strict=True))
    slope = np.vstack([np.zeros(6), np.diff(motion, axis=0)])
    for i, name in enumerate(MOTION):
        np.testing.assert_allclose(found[name], motion[:, i])
        np.testing.assert_allclose(found[f"{name}_power2"], motion[:, i] ** 2)
        np.testing.assert_allclose(found[f"{name}_derivative1"], slope[:, i], atol=1e-5)
        np.testing.assert_allclose(found[f"{name}_derivative1_power2"], slope[:, i] ** 2, atol=1e-4)
    assert len(SETS["motion24"]) == 24


def test_none_takes_the_outliers_only(table):
    assert read_confounds(table[0], ("none",), 8)[1] == ["non_steady_state_outlier00"]
    with pytest.raises(UsageError, match="--confounds none motion6"):
        read_confounds(table[0], ("none", "motion6"), 8)


def test_names_and_wildcards_are_taken_once_in_the_order_given(table):
    names = read_confounds(table[0], ("a_comp_cor_0*", "global_signal", "a_comp_cor_01"), 8)[1]
    assert names[:4] == ["a_comp_cor_00", "a_comp_cor_01", "a_comp_cor_02", "global_signal"]


@pytest.mark.parametrize("name", ["global_signl", "csf*", "trans_[xy]"])
def test_a_column_that_is_not_there_is_named_with_what_resembles_it(table, name):
    with pytest.raises(InputError) as caught:
        read_confounds(table[0], (name,), 8)
    assert name in str(caught.value)
    assert "desc-confounds_timeseries.tsv" in str(caught.value)
    if name == "global_signl":
        assert "close to it: global_signal" in str(caught.value)


def test_rows_must_be_as_many_as_volumes(table):
    with pytest.raises(InputError, match=r"timeseries\.tsv: 8 rows, but the run has 9 volumes"):
        read_confounds(table[0], ("motion6",), 9)


def components(path, masks, sidecar=True, more=()):
    """Write a table of components, last one first, the k-th holding k, and a sidecar of masks."""
    names = [f"a_comp_cor_{k:02d}" for k in range(len(masks))]
    cells = {name: k for k, name in enumerate(names)}
    write_tsv(path, [{**dict.fromkeys(more, 7), **dict(reversed(cells.items()))}] * 2)
    if sidecar:
        pairs = zip(names, masks, strict=True)
        known = {name: {"Mask": mask, "Retained": True} for name, mask in pairs}
        known["dropped_0"] = {"Mask": "combined", "Retained": False}
        write_json(path.with_suffix(".json"), known)


def taken(path, *names):
    """Return what the first row of the columns holds that are taken."""
    return read_confounds(path, names, 2)[0][0].tolist()


@pytest.mark.parametrize(
    ("masks", "numbers"),
    [
        (["combined"] * 8, [0, 1, 2, 3, 4]),
        (["CSF"] * 3 + ["WM"] * 4 + ["combined"] * 6, [7, 8, 9, 10, 11]),
        (["combined"] * 2 + ["CSF"] * 6, [0, 1]),
        (["WM"] * 97 + ["combined"] * 5, [97, 98, 99, 100, 101]),
    ],
    ids=["21.0 and later", "20.2: one series", "fewer than five", "three digits"],
)
def test_acompcor_is_the_first_five_components_of_the_combined_mask(tmp_path, masks, numbers):
    path = tmp_path / "c.tsv"
    components(path, masks)
    values, columns = read_confounds(path, ("acompcor",), 2)
    assert columns == [f"a_comp_cor_{k:02d}" for k in numbers]
    assert values[0].tolist() == numbers


@pytest.mark.parametrize(
    "name", ["test_desc-confounds_regressors", "test-v21_desc-confounds_timeseries"]
)
def test_acompcor_is_what_nilearn_takes_of_tables_that_fmriprep_wrote(tmp_path, name):
    from nilearn.interfaces import fmriprep

    for end in (".tsv", ".json"):
        source = Path(fmriprep.__file__).parent / "data" / f"{name}{end}"
        if not source.is_file():
            pytest.skip("this nilearn comes without the tables that it is tested with")
        place = tmp_path / f"sub-01_{name.removeprefix('test_').removeprefix('test-v21_')}{end}"
        shutil.copy(source, place)
    path = place.with_suffix(".tsv")
    bold = tmp_path / "sub-01_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 30), np.float32), np.eye(4)), bold)
    theirs, _ = fmriprep.load_confounds(
        str(bold), ("high_pass", "compcor"), compcor="anat_combined", n_compcor=5, demean=False
    )
    theirs = theirs.filter(like="comp_cor")
    values, columns = read_confounds(path, ("acompcor",), len(theirs))
    assert columns[:5] == list(theirs)
    np.testing.assert_allclose(values[:, :5], theirs.to_numpy(), atol=1e-12)
    assert all(column.startswith("non_steady_state_outlier") for column in columns[5:])


def test_acompcor_leaves_out_what_the_sidecar_does_not_retain_or_know(tmp_path):
    path = tmp_path / "c.tsv"
    components(path, ["combined"] * 4)
    about = {"Mask": "combined"}
    known = {"a_comp_cor_00": {**about, "Retained": False}, "a_comp_cor_02": about}
    write_json(path.with_suffix(".json"), known)
    assert taken(path, "acompcor") == [2]


@pytest.mark.parametrize(
    ("n", "more", "is_guess"),
    [(6, (), False), (7, (), True), (7, ("c_comp_cor_00", "w_comp_cor_00"), False)],
    ids=["before 1.4", "1.4 to 20.2", "21.0 and later"],
)
@pytest.mark.parametrize("sidecar", [None, {}, {"a_comp_cor_00": {"Method": "aCompCor"}}])
def test_without_masks_acompcor_is_the_first_five_by_number(
    tmp_path, caplog, n, more, is_guess, sidecar
):
    path = tmp_path / "c.tsv"
    components(path, [None] * n, sidecar=False, more=more)
    if sidecar is not None:
        write_json(path.with_suffix(".json"), sidecar)
    assert taken(path, "acompcor") == [0, 1, 2, 3, 4]
    assert ("c.tsv: no Mask in c.json" in caplog.text) == is_guess


def test_acompcor_without_a_component_of_the_combined_mask_is_refused(tmp_path):
    path = tmp_path / "c.tsv"
    components(path, ["CSF", "WM"])
    what = r"c\.tsv: there is no column a_comp_cor_\* of the combined mask \(for acompcor\)"
    with pytest.raises(InputError, match=what):
        read_confounds(path, ("acompcor",), 2)
    write_tsv(path, [{"t_comp_cor_00": 1, "w_comp_cor_00": 2}] * 2)
    with pytest.raises(InputError, match=r"no column a_comp_cor_\* \(for acompcor\); close to it"):
        read_confounds(path, ("acompcor",), 2)


def test_a_sidecar_that_cannot_be_read_is_no_reason_to_guess(tmp_path):
    path = tmp_path / "c.tsv"
    components(path, ["combined"] * 2, sidecar=False)
    path.with_suffix(".json").symlink_to("annex")
    with pytest.raises(InputError, match=r"c\.json: a link to content"):
        read_confounds(path, ("acompcor",), 2)
    assert taken(path, "a_comp_cor_01") == [1]


def test_sets_combine_and_none_does_not(table):
    path = table[0]
    names = read_confounds(path, ("acompcor", "motion6", "a_comp_cor_*"), 8)[1]
    acompcor = [f"a_comp_cor_{k:02d}" for k in range(3)]
    assert names == [*acompcor, *MOTION, "non_steady_state_outlier00"]
    with pytest.raises(UsageError, match="none cannot stand beside"):
        read_confounds(path, ("acompcor", "none"), 8)


def test_spikes_come_by_their_name_only_and_a_run_may_have_none(table, tmp_path):
    assert read_confounds(table[0], ("spikes",), 8)[1] == ["non_steady_state_outlier00"]
    path = tmp_path / "c.tsv"
    cells = {**dict.fromkeys(SETS["motion24"], 0.5), "a_comp_cor_00": 1}
    spikes = [{"motion_outlier00": int(k == 1), "motion_outlier01": int(k == 3)} for k in range(4)]
    write_tsv(path, [{**cells, **row} for row in spikes])
    for name in ("motion6", "motion24", "acompcor"):
        assert not any("outlier" in c for c in read_confounds(path, (name,), 4)[1])
    values, names = read_confounds(path, ("acompcor", "spikes"), 4)
    assert names == ["a_comp_cor_00", "motion_outlier00", "motion_outlier01"]
    np.testing.assert_array_equal(values[:, 1:].T, [[0, 1, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("columns", "drifts"),
    [
        (["trans_x", "cosine00"], True),
        (["cosine_03"], True),
        (["cosine112"], True),
        ([*SETS["motion24"], "a_comp_cor_00", "motion_outlier00"], False),
        (["cosine", "cosine00_power2", "my_cosine00", "Cosine00"], False),
        ([], False),
    ],
)
def test_cosines_model_drift_and_nothing_else_does(columns, drifts):
    assert models_drift(columns) == drifts
    assert models_drift(iter(columns)) == drifts


@pytest.mark.parametrize("text", ["n/a", "NaN", "nan", ""])
def test_a_first_row_without_a_value_is_0_however_that_is_written(tmp_path, text):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": text, "b": 5}, {"a": text, "b": 6}, {"a": 1.5, "b": 7}])
    np.testing.assert_array_equal(
        read_confounds(path, ("a", "b"), 3)[0], [[0, 5], [0, 6], [1.5, 7]]
    )


@pytest.mark.parametrize(
    "text", ["n/a", "inf", "-Inf", "infinity", "NaN", "nan", "N/A", "NA", "1_0", "1,5", "x", ""]
)
def test_a_later_cell_without_a_number_is_named_by_file_line_and_column(tmp_path, text):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"b": 1, "a": "n/a"}, {"b": 1, "a": 1}, {"b": 1, "a": text}, {"b": 1, "a": 2}])
    with pytest.raises(InputError, match=rf"c\.tsv, line 4, column a: '{text}'") as caught:
        read_confounds(path, ("a",), 4)
    is_missing = text in ("n/a", "NaN", "nan", "")
    assert ("only the first rows of a column may lack a value" in str(caught.value)) == is_missing
    assert read_confounds(path, ("b",), 4)[1] == ["b"]


def test_an_empty_row_in_a_table_of_one_column_is_a_row_too_few(tmp_path):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": 1}, {"a": ""}, {"a": 2}])
    with pytest.raises(InputError, match=r"c\.tsv: 2 rows, but the run has 3 volumes"):
        read_confounds(path, ("a",), 3)


@pytest.mark.parametrize("text", ["inf", "-inf", "NA", "x"])
def test_a_first_cell_that_is_neither_number_nor_missing_is_refused(tmp_path, text):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": text}, {"a": 1}])
    with pytest.raises(InputError, match=f"line 2, column a: '{text}'"):
        read_confounds(path, ("a",), 2)


@pytest.mark.parametrize("text", ["n/a", "NaN", ""])
def test_a_column_of_nothing_but_missing_values_is_refused(tmp_path, text):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": text, "b": 1}] * 3)
    with pytest.raises(InputError, match="column a: all rows are n/a"):
        read_confounds(path, ("a",), 3)
