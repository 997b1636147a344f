"""Reading confounds: which columns are taken, and what is refused."""

import numpy as np
import pytest
from bids_tree import MOTION, write_tsv

from hyper_bids.bids.confounds import SETS, read_confounds
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


@pytest.mark.parametrize("text", ["n/a", "inf", "NaN", "x", ""])
def test_a_later_cell_without_a_number_is_named_by_line_and_column(tmp_path, text):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": "n/a"}, {"a": 1}, {"a": text}, {"a": 2}])
    with pytest.raises(InputError, match="line 4, column a" if text else "c.tsv"):
        read_confounds(path, ("a",), 4)


def test_a_column_of_nothing_but_missing_values_is_refused(tmp_path):
    path = tmp_path / "c.tsv"
    write_tsv(path, [{"a": "n/a"}] * 3)
    with pytest.raises(InputError, match="column a: all rows are n/a"):
        read_confounds(path, ("a",), 3)
