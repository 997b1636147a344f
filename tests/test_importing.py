"""Imports: files of each kind, what is refused, sizes and forms, the dataset that is written."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyper_bids.bids.dataset import is_import, read_description
from hyper_bids.bids.stimuli import read_stimuli
from hyper_bids.errors import HyperBidsError, InputError, OutputError, UsageError
from hyper_bids.importing import files
from hyper_bids.importing.checks import check_sets
from hyper_bids.importing.commands import Import, import_hyper, import_responses
from hyper_bids.importing.encode import ModelEncoder
from hyper_bids.importing.gather import row_numbers
from hyper_bids.importing.orientation import Given
from hyper_bids.importing.pictures import Pictures, to_pictures
from hyper_bids.importing.write import unknown_grid
from hyper_bids.volumes import read_mask


def sets(rng, n=(12, 5), n_voxels=7, n_latents=3):
    """Return training and test responses and latents, as four arrays."""
    return [rng.standard_normal((k, size)) for k in n for size in (n_voxels, n_latents)]


def given(responses, latents=None, **more):
    return Given(responses, latents, **more)


def said_by(kind, call, *words):
    """Check that an error of one line has these words."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "mat", "mat7.3", "h5", "pickle"])
def test_each_kind_of_file_gives_back_what_was_written(tmp_path, rng, kind):
    arrays = {"betas": rng.standard_normal((6, 4)), "shown": rng.integers(0, 9, (2, 3, 5))}
    path = write(tmp_path, kind, arrays)
    found = {variable.name: variable for variable in files.contents(path)}
    assert {name: found[name].shape for name in arrays} == {n: a.shape for n, a in arrays.items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(files.read(path, name), array)
        rows = np.array([1, 0, 1])
        np.testing.assert_array_equal(files.read(path, name, rows), array[rows])
        assert name in files.listed(path)
    said_by(UsageError, lambda: files.read(path), "betas, shown", "say which")
    said_by(UsageError, lambda: files.read(path, "beta"), str(path), "'beta'", "betas 6 x 4")
    rows = np.array([0, 6])
    said_by(InputError, lambda: files.read(path, "betas", rows), "betas", "0 to 6", "6 x 4")


def write(folder, kind, arrays):
    path = folder / f"data.{kind.removesuffix('7.3').replace('pickle', 'dat')}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "mat":
        from scipy.io import savemat

        savemat(path, arrays)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(arrays))
    else:
        h5py = pytest.importorskip("h5py")
        matlab = kind == "mat7.3"
        # MATLAB's own files have 512 bytes of text before the HDF5.
        with h5py.File(path, "w", userblock_size=512 if matlab else 0) as file:
            for name, array in arrays.items():
                item = file.create_dataset(name, data=array.T if matlab else array)
                if matlab:
                    item.attrs["MATLAB_class"] = np.bytes_("double")
        if matlab:
            with path.open("r+b") as stream:
                stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def test_truth_values_of_matlab_are_truth_values_in_both_of_its_formats(tmp_path):
    h5py = pytest.importorskip("h5py")
    from scipy.io import savemat

    flags = np.array([[True, False, True, True]])
    savemat(tmp_path / "v5.mat", {"flags": flags})
    with h5py.File(tmp_path / "v73.mat", "w") as file:
        item = file.create_dataset("flags", data=flags.T.astype(np.uint8))
        item.attrs["MATLAB_class"] = np.bytes_("logical")
    for name in ("v5.mat", "v73.mat"):
        found = files.read(tmp_path / name, "flags")
        assert found.dtype == bool
        np.testing.assert_array_equal(found, flags)
        assert files.contents(tmp_path / name)[0].dtype == "bool"


def test_a_file_of_one_array_needs_no_name(tmp_path, rng):
    array = rng.standard_normal((3, 2))
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(files.read(tmp_path / "x.npy"), array)
    assert files.find([tmp_path / "x.npy"], "x.npy") == (tmp_path / "x.npy", "x")


def test_a_variable_of_several_files_is_told_apart(tmp_path):
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        np.savez(path, betas=np.ones((2, 2)))
    said_by(UsageError, lambda: files.find(paths, "betas"), "a.npz", "b.npz", "a.npz:betas")
    assert files.find(paths, "b.npz:betas") == (paths[1], "betas")
    said_by(UsageError, lambda: files.find(paths, "X"), "variable X", "a.npz:betas", "b.npz:betas")


def test_columns_of_the_layout_of_bdpy(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    data = rng.standard_normal((5, 6))
    nan = np.nan
    values = [[1, 1, 1, 1, nan, nan], [1, nan, 1, nan, nan, nan], [nan, nan, nan, nan, 1, nan],
              [0.5, 2, 3, 4, nan, nan]]  # fmt: skip
    for matrix, metadata in (("dataset", "metadata"), ("dataSet", "metaData")):
        path = tmp_path / f"{matrix}.h5"
        with h5py.File(path, "w") as file:
            file[matrix] = data
            file[f"{metadata}/key"] = ["VoxelData", "ROI_V1", "stimulus_id", "voxel_x"]
            file[f"{metadata}/description"] = ["a", "b", "c", "d"]
            file[f"{metadata}/value"] = np.array(values)
        shapes = {variable.name: variable.shape for variable in files.contents(path)}
        assert shapes[f"{matrix}[VoxelData]"] == (5, 4)
        assert f"{matrix}[voxel_x]" not in shapes
        read = files.read(path, f"{matrix}[ROI_V1]", np.array([4, 0]))
        np.testing.assert_array_equal(read, data[[4, 0]][:, [0, 2]])
        np.testing.assert_array_equal(files.read(path, f"{matrix}[stimulus_id]"), data[:, 4:5])
        name = f"{matrix}[ROI_V9]"
        said_by(InputError, lambda p=path, n=name: files.read(p, n), "ROI_V9", "ROI_V1")


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.mat").write_bytes(b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(64))
    monkeypatch.setitem(sys.modules, "h5py", None)
    said_by(UsageError, lambda: files.contents(tmp_path / "x.mat"), "x.mat", "pip install h5py")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.mat", "x.h5", "x.dat", "x.txt"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"PK\x03\x04...", b"\x80\x04", b"abc",
                                     b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\nabc"])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    said_by(HyperBidsError, lambda: files.contents(path), str(path))


def test_an_absent_file(tmp_path):
    said_by(InputError, lambda: files.contents(tmp_path / "no.npy"), "no.npy", "no such file")


def test_object_arrays_and_cell_arrays_are_not_read(tmp_path):
    from scipy.io import savemat

    np.save(tmp_path / "x.npy", np.array([{}, None], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([{}, None], object))
    savemat(tmp_path / "x.mat", {"a": np.array([np.ones(2), "b"], object)})
    said_by(InputError, lambda: files.read(tmp_path / "x.npy"), "x.npy", "object array")
    said_by(InputError, lambda: files.read(tmp_path / "x.npz", "a"), "x.npz", "object array")
    said_by(InputError, lambda: files.read(tmp_path / "x.mat", "a"), "x.mat", "variable a")


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_agree_with_scipy(tmp_path, rng, compressed):
    from scipy.io import loadmat, savemat

    kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    arrays = {kind: rng.integers(0, 100, (3, 4, 2)).astype(kind) for kind in kinds}
    arrays |= {"a_name_longer_than_four": np.eye(3), "flags": rng.random((2, 3)) > 0.5, "one": 2.5}
    others = {"text": "abc", "cells": np.array([1, "a"], object), "struct": {"x": np.ones(2)},
              "complex": np.ones(2) * 1j}  # fmt: skip
    path = tmp_path / "x.mat"
    savemat(path, arrays | others, do_compression=compressed)
    for name in arrays:
        wanted = loadmat(path, variable_names=[name])[name]
        found = files.read(path, name)
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype.kind == arrays[name].dtype.kind if name in kinds else True
    for name in others:
        said_by(InputError, lambda n=name: files.read(path, n), str(path), f"variable {name}")
    shown = files.listed(path)
    assert "struct" in shown
    assert "3 x 4 x 2" in shown


@pytest.mark.parametrize("kind", ["npz", "mat", "h5", "pickle"])
def test_bytes_that_are_changed_do_not_get_past_the_errors_of_the_app(tmp_path, rng, kind):
    path = write(tmp_path, kind, {"a": np.ones((4, 3)), "b": np.arange(5.0)[None]})
    whole = path.read_bytes()
    for trial in range(100):
        content = bytearray(whole[: rng.integers(len(whole))] if trial % 5 == 0 else whole)
        for place in rng.integers(0, max(len(content), 1), 3 if content else 0):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        try:
            for variable in files.contents(path):
                files.read(path, variable.name)
        except HyperBidsError as error:
            assert "\n" not in str(error)


# --- pickles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_arrays_lists_and_numbers_in_each_protocol(tmp_path, rng, protocol):
    big_endian = rng.standard_normal((4, 3)).astype(">f4")
    value = {
        "a": rng.standard_normal((4, 3)), "f": np.asfortranarray(rng.standard_normal((4, 3))),
        "rows": list(big_endian), "numbers": [[1, 2], [3.5, 4]], "one": np.float32(2.5),
        "whole": np.arange(6, dtype=np.int16).reshape(2, 3),
        "deep": (np.ones(2), [np.zeros((2, 2))]),
        "flags": np.array([True, False]), "objects": np.array([np.ones(3), np.zeros(3)], object),
    }  # fmt: skip
    path = tmp_path / "x.dat"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    for name in ("a", "f", "rows", "numbers", "one", "whole", "flags"):
        np.testing.assert_array_equal(files.read(path, name), np.array(value[name]))
    assert files.read(path, "a").dtype == np.float64
    np.testing.assert_array_equal(files.read(path, "deep/0"), np.ones(2))
    assert files.read(path, "deep/1").shape == (1, 2, 2)
    assert files.read(path, "objects").shape == (2, 3)


class Runs:
    """An object that would make a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, protocol):
    path, place = tmp_path / "x.dat", tmp_path / "made"
    path.write_bytes(pickle.dumps([np.ones(3), Runs(place)], protocol=protocol))
    said_by(InputError, lambda: files.contents(path), str(path), "posix.mkdir", "numpy.savez")
    assert not place.exists()


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (b"cbuiltins\neval\n(V1\ntR.", "builtins.eval"),
        (b"cos\nsystem\n(Vtrue\ntR.", "os.system"),
        (b"cnumpy\nload\n(Vx\ntR.", "numpy.load"),
        (b"cnumpy.f2py\ncrackfortran\n.", "numpy.f2py"),
        (b"cnumpy\ndtype.__class__\n(Vf8\ntR.", "dtype.__class__"),
        # What is allowed has no state that could be set, and cannot be its own argument.
        (b"cnumpy\ndtype\n(N(dVmake\ncnumpy\nndarray\nstb.", "damaged"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.", "numpy.dtype"),
        (b"cnumpy\ndtype\n(VV8\ntR.", "numpy.dtype"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "_codecs.encode"),
        (b"cnumpy\ndtype\n(Vf8\ntR(I3\nVx\ntb.", "numpy.dtype"),
        (b"Vmodule\n\x80\x02Q.", "damaged"),
    ],
)  # fmt: skip
def test_small_programs_are_refused_by_name(tmp_path, program, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(program)
    said_by(InputError, lambda: files.contents(path), str(path), name)


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path):
    whole = pickle.dumps(np.arange(6, dtype=np.int8), protocol=2)
    path = tmp_path / "x.pkl"
    path.write_bytes(whole.replace(b"K\x06\x85", b"K\x66\x85"))
    said_by(InputError, lambda: files.contents(path), "102", "no whole array")
    holds_itself = []
    holds_itself.append(holds_itself)
    path.write_bytes(pickle.dumps(holds_itself))
    said_by(InputError, lambda: files.contents(path), "deep")


# --- sizes and orientation -----------------------------------------------------------------------


@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1, 2, 3), (2, 3)])
def test_transposed_matrices_are_turned_by_the_sizes(rng, turned):
    arrays = sets(rng)
    asked = [a.T if k in turned else a for k, a in enumerate(arrays)]
    train, test = check_sets(given(*asked[:2]), given(*asked[2:]))
    for found, array in zip(
        (train.responses, train.latents, test.responses, test.latents), arrays, strict=True
    ):
        np.testing.assert_array_equal(found, array.astype(np.float32))
    assert train.stimulus.tolist() == list(range(12))


def test_sizes_that_disagree_are_all_told(rng):
    X, T, Y, U = sets(rng)
    say = said_by(
        InputError,
        lambda: check_sets(given(X[:-1], T, where={"responses": "a.mat: betas"}), given(Y, U)),
        "training responses (a.mat: betas) 11 x 7", "training latents 12 x 3",
        "test responses 5 x 7", "may be transposed",
    )  # fmt: skip
    assert "order" not in say
    said_by(InputError, lambda: check_sets(given(X, T), given(Y[:, :-1], U)), "5 x 6", "12 x 7")
    said_by(InputError, lambda: check_sets(given(X, T), given(Y, U[:, :-1])), "5 x 2", "12 x 3")


def test_square_responses_need_to_be_told(rng):
    X, T, Y, U = sets(rng, (6, 6), 6, 3)
    call = lambda order: check_sets(given(X, T), given(Y, U), order=order)  # noqa: E731
    said_by(UsageError, lambda: call("auto"), "6 x 6", "--order trials-first")
    np.testing.assert_allclose(call("trials-first")[0].responses, X, rtol=1e-6)
    np.testing.assert_allclose(call("trials-last")[1].responses, Y.T, rtol=1e-6)


def test_values_that_are_not_finite(rng):
    X, T, Y, U = sets(rng)
    Y[2, 3] = np.nan
    said_by(InputError, lambda: check_sets(given(X, T), given(Y, U)), "trial 2, voxel 3",
            "1 voxel of 7", "--drop-voxels")  # fmt: skip
    train, test = check_sets(given(X, T), given(Y, U), drop_voxels=True)
    assert train.responses.shape == (12, 6)
    np.testing.assert_allclose(test.responses, np.delete(Y, 3, axis=1), rtol=1e-6)
    X, T, Y, U = sets(rng)
    U[1, 0] = np.inf
    said_by(InputError, lambda: check_sets(given(X, T), given(Y, U)), "row 1, column 0", "inf")


def test_trials_that_name_what_they_show(rng):
    X, T, Y, U = sets(rng, (12, 6))
    shown = row_numbers(np.array([[1.0, 3, 1, 3, 1, 3]]), "x", 1)
    _, test = check_sets(given(X, T), given(Y, U[:4], shown=shown))
    # Stimuli that no trial shows are left out.
    np.testing.assert_allclose(test.latents, U[[0, 2]], rtol=1e-6)
    assert test.stimulus.tolist() == [0, 1] * 3
    said_by(InputError, lambda: check_sets(given(X, T), given(Y, U[:2], shown=shown)), "6")
    first, second = rng.integers(0, 256, (12, 4, 4)), rng.integers(0, 256, (5, 4, 4))
    said_by(
        InputError,
        lambda: check_sets(given(X, T, images=first), given(Y, U, images=second, shown=shown)),
        "5 images for 6 rows of test latents",
    )
    said_by(InputError, lambda: row_numbers(np.array([0, 1]), "s.mat: s", 1), "s.mat: s", "from 1")
    said_by(InputError, lambda: row_numbers(np.array([0.5, 1]), "s.mat: s", 0), "whole numbers")


def test_runs_keep_their_labels_whatever_their_size_and_are_of_both_sets(rng):
    X, T, Y, U = sets(rng)
    runs = np.repeat([20230101, 20230102, 7], 4)
    call = lambda a, b: check_sets(given(X, T, runs=a), given(Y, U, runs=b))  # noqa: E731
    for array in (runs, runs.astype(float)):
        train, test = call(array, np.full(5, 7.5))
        assert train.runs == [str(run) for run in runs]
        assert test.runs == ["7.5"] * 5
    said_by(UsageError, lambda: call(runs, None), "runs", "test trials", "both")
    said_by(InputError, lambda: call(runs, np.full(5, np.nan)), "runs", "not finite")


def test_equal_test_stimuli_are_one_stimulus_shown_again(rng):
    X, T, Y, U = sets(rng, (12, 6))
    U[0, 0] = 0.0
    again = U[:3] * np.array([-1.0, 1, 1]) ** (U[:3] == 0)  # minus zero is zero
    _, test = check_sets(given(X, T), given(Y, np.concatenate([U[:3], again])))
    assert test.stimulus.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(test.latents) == 3
    same = np.tile(U[:1], (6, 1))
    said_by(InputError, lambda: check_sets(given(X, T), given(Y, same)), "1 stimulus", "at least 2")


def test_a_grid_of_voxels_is_a_row_of_them(rng):
    X, T, Y, U = sets(rng, n_voxels=24)
    train, _ = check_sets(given(X.reshape(12, 2, 3, 4), T), given(Y.reshape(5, 2, 3, 4), U))
    np.testing.assert_allclose(train.responses, X, rtol=1e-6)
    last = [np.moveaxis(a.reshape(-1, 2, 3, 4), 0, -1) for a in (X, Y)]
    _, test = check_sets(given(last[0], T), given(last[1], U))
    np.testing.assert_allclose(test.responses, Y, rtol=1e-6)


def test_neither_latents_nor_images(rng):
    X, T, Y, _ = sets(rng)
    said_by(UsageError, lambda: check_sets(given(X), given(Y)), "neither latents nor images")
    said_by(UsageError, lambda: check_sets(given(X, T), given(Y)), "latents", "test trials")


# --- images --------------------------------------------------------------------------------------

FORMS = {
    "n h w c": (lambda a: a, {}),
    "n c h w": (lambda a: a.transpose(0, 3, 1, 2), {}),
    "h w c n": (lambda a: a.transpose(1, 2, 3, 0), {}),
    "rows, hwc": (lambda a: a.reshape(len(a), -1), {"shape": (8, 6)}),
    "rows, chw": (lambda a: a.transpose(0, 3, 1, 2).reshape(len(a), -1), {"shape": (8, 6)}),
    "columns": (lambda a: a.reshape(len(a), -1).T, {"shape": (8, 6)}),
    "MATLAB's rows": (
        lambda a: np.stack([image.ravel(order="F") for image in a]),
        {"shape": (8, 6), "by_columns": True},
    ),
    "alpha": (lambda a: np.concatenate([a, a[..., :1] * 0 + 9], axis=3), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_of_each_form_become_the_same_pictures(rng, form):
    change, told = FORMS[form]
    ramp = np.arange(8)[:, None, None] * 9 + np.arange(6)[:, None] * 5 + np.array([0, 60, 130])
    images = (ramp + rng.integers(0, 40, (11, 1, 1, 1))).astype(np.uint8)
    found = to_pictures({"x": change(images)}, {"x": 11}, Pictures(**told))["x"]
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("form", ["n h w", "h w n", "rows", "columns", "by columns", "n h w 1"])
def test_28_x_28_grey(rng, form):
    images = rng.integers(0, 256, (9, 28, 28)).astype(np.uint8)
    array, told = {
        "n h w": (images, {}),
        "h w n": (images.transpose(1, 2, 0), {}),
        "rows": (images.reshape(9, 784), {}),
        "columns": (images.reshape(9, 784).T, {}),
        "by columns": (images.transpose(0, 2, 1).reshape(9, 784), {"by_columns": True}),
        "n h w 1": (images[..., None], {}),
    }[form]
    found = to_pictures({"x": array}, {"x": 9}, Pictures(**told))["x"]
    np.testing.assert_array_equal(found, np.repeat(images[..., None], 3, axis=3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a / 255, {}),
        (lambda a: (a / 127.5 - 1).astype(np.float32), {}),
        (lambda a: a.astype(float), {}),
        (lambda a: a.astype(np.int32) * 4 - 100, {"low": -100, "high": 920}),
    ],
)
def test_ranges_are_found_or_told_for_both_sets_alike(rng, change, told):
    images = rng.integers(0, 256, (9, 5, 4)).astype(np.uint8)
    images[0, 0, :2] = 0, 255
    # The test images alone would seem to be of another range.
    bright = rng.integers(140, 250, (4, 5, 4)).astype(np.uint8)
    arrays = {"training": change(images), "test": change(bright)}
    found = to_pictures(arrays, {"training": 9, "test": 4}, Pictures(**told))
    np.testing.assert_array_equal(found["training"][..., 0], images)
    np.testing.assert_array_equal(found["test"][..., 2], bright)


@pytest.mark.parametrize(
    ("array", "told", "kind", "words"),
    [
        (np.zeros((9, 783)), {}, UsageError, ["783", "--image-shape"]),
        (np.zeros((9, 784)), {"shape": (28, 27)}, InputError, ["784", "28 x 27"]),
        (np.zeros((8, 28, 28)), {}, InputError, ["8 x 28 x 28", "9 images"]),
        (np.zeros((9, 5, 6, 7)), {}, InputError, ["9 x 5 x 6 x 7", "channels"]),
        (np.zeros((9, 5, 6)) + 300, {}, UsageError, ["300", "--image-range"]),
        (np.full((9, 5, 6), np.nan), {}, InputError, ["not finite"]),
        (np.zeros((9, 5, 6)), {"axes": "nhwc"}, UsageError, ["'nhwc'", "9 x 5 x 6"]),
        (np.zeros((9, 5, 6)), {"low": 2, "high": 1}, UsageError, ["2 to 1"]),
        (np.zeros(9), {}, InputError, ["1 axes"]),
    ],
)
def test_images_that_cannot_be_understood(array, told, kind, words):
    call = lambda: to_pictures({"x.mat: im": array}, {"x.mat: im": 9}, Pictures(**told))  # noqa: E731
    text = said_by(kind, call, *words)
    assert "x.mat: im" in text or "range" in text


# --- datasets ------------------------------------------------------------------------------------


def hyper_file(path, rng, kind, share=None):
    """Write a file of HYPER's shapes; return its arrays."""
    X, Y = rng.standard_normal((1050, 4096)), rng.standard_normal((36, 4096))
    T, U = share or (rng.standard_normal((1050, 512)), rng.standard_normal((36, 512)))
    arrays = [X, T, Y, U]
    as_written = tuple(list(a) if kind == "lists" else a for a in arrays)
    path.write_bytes(pickle.dumps(as_written, protocol=2 if kind == "lists" else 4))
    return arrays


def read_back(root, label):
    """Return responses, table and latents of each trial of an imported participant."""
    stem = root / f"sub-{label}/func/sub-{label}_task-imported_desc-trials_statmap"
    table = pd.read_csv(f"{stem}.tsv", sep="\t", keep_default_na=False)
    stimuli = read_stimuli(root)
    rows = stimuli.table.set_index("stim_id")["latent_row"][table["stim_id"]]
    latents = np.load(root / "stimuli" / "latents.npy")[rows.to_numpy()]
    return np.load(f"{stem}.npy"), table, latents


def test_hyper_files_become_two_participants_of_one_dataset(tmp_path, rng):
    out = tmp_path / "out"
    first = hyper_file(tmp_path / "data_1.dat", rng, "lists")
    order = rng.permutation(1050)
    # The second saw the same stimuli in another order.
    again = hyper_file(tmp_path / "data_2.dat", rng, "arrays", (first[1][order], first[3]))
    import_hyper(out, [tmp_path / "data_1.dat", tmp_path / "data_2.dat"])
    for label, arrays in (("01", first), ("02", again)):
        responses, table, latents = read_back(out, label)
        X, T, Y, U = (a.astype(np.float32) for a in arrays)
        np.testing.assert_array_equal(responses, np.concatenate([X, Y]))
        np.testing.assert_array_equal(latents, np.concatenate([T, U]))
        assert table["split"].tolist() == ["train"] * 1050 + ["test"] * 36
        mask = out / f"sub-{label}/func/sub-{label}_task-imported_desc-brain_mask.nii.gz"
        assert read_mask(mask).shape == (1, 1, 4096)
        assert read_mask(mask).all()
    assert len(read_stimuli(out).table) == 1086
    assert is_import(read_description(out))
    about = json.loads((out / "stimuli/latents.json").read_text())
    assert (about["LatentDimension"], about["Generator"]) == (512, "pggan-celebahq-1024")
    assert (out / "participants.tsv").read_text() == "participant_id\nsub-01\nsub-02\n"


def test_a_hyper_file_of_another_form(tmp_path, rng):
    path = tmp_path / "data_1.dat"
    path.write_bytes(pickle.dumps(sets(rng)[:3]))
    said_by(
        InputError, lambda: import_hyper(tmp_path / "out", [path]), "data_1.dat", "X_tr", "12 x 7"
    )
    X, T, Y, U = sets(rng)
    path.write_bytes(pickle.dumps((Y, T, X, U)))
    said_by(InputError, lambda: import_hyper(tmp_path / "out", [path]), "T_tr")
    assert not (tmp_path / "out").exists()


VARIABLES = {
    "training responses": "X", "training latents": "T", "test responses": "Y", "test latents": "U",
}  # fmt: skip


@pytest.mark.parametrize("n", [(80, 20), (9000, 1000)])
def test_100_trials_and_10_000_with_images(tmp_path, rng, n):
    X, T, Y, U = sets(rng, n)
    images = [rng.integers(0, 256, (k, 28, 28), dtype=np.uint8) for k in n]
    np.savez(tmp_path / "r.npz", X=X, T=T.T, Y=Y, U=U, I=images[0].reshape(n[0], -1), J=images[1])
    wanted = VARIABLES | {"training images": "I", "test images": "J"}
    if n[0] > 1000:  # 10,000 files of images take time, and tell nothing new
        wanted = VARIABLES
    import_responses(tmp_path / "out", Import((tmp_path / "r.npz",), wanted, "a1"))
    responses, table, latents = read_back(tmp_path / "out", "a1")
    np.testing.assert_array_equal(responses, np.concatenate([X, Y]).astype(np.float32))
    np.testing.assert_array_equal(latents, np.concatenate([T, U]).astype(np.float32))
    assert table["stim_id"].is_unique
    if "test images" in wanted:
        from PIL import Image

        for k, image in ((3, images[0][3]), (80, images[1][0])):
            shown = np.asarray(Image.open(tmp_path / "out/stimuli" / table["stim_file"][k]))
            np.testing.assert_array_equal(shown, np.repeat(image[..., None], 3, axis=2))


def test_latents_are_encoded_from_images_where_none_are_given(tmp_path, rng):
    X, _, Y, _ = sets(rng)
    images = rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "r.npz", X=X, Y=Y, images=images, a=np.arange(12) + 1, b=[18, 19, 18, 20, 20]
    )
    wanted = {
        "training responses": "X", "test responses": "Y", "training images": "images",
        "test images": "images", "training shown": "a", "test shown": "b",
    }  # fmt: skip
    sizes = []

    def encode(train, test):
        sizes.extend([len(train), len(test)])
        return train[:, 0, 0], test[:, 0, 0]

    setting = Import((tmp_path / "r.npz",), wanted, first=1, generator="eigen")
    import_responses(tmp_path / "out", setting, encode)
    _, _, latents = read_back(tmp_path / "out", "01")
    rows = [*range(12), 17, 18, 17, 19, 19]
    np.testing.assert_array_equal(latents, images[rows, 0, 0].astype(np.float32))
    assert sizes == [12, 3]
    del wanted["training images"], wanted["test images"]
    said_by(UsageError, lambda: import_responses(tmp_path / "other", setting), "neither latents")


@pytest.mark.parametrize("n", [(70, 5), (40, 3)])
def test_an_image_in_both_sets_is_one_stimulus_whatever_batch_encoded_it(tmp_path, rng, n):
    images = rng.integers(0, 256, (n[0], 8, 8), dtype=np.uint8)
    new = rng.integers(0, 256, (n[1] - 2, 8, 8), dtype=np.uint8)
    X, Y = (rng.standard_normal((k, 7)) for k in n)
    np.savez(tmp_path / "r.npz", X=X, Y=Y, I=images, J=np.concatenate([images[:2], new]))
    wanted = {"training responses": "X", "test responses": "Y", "training images": "I",
              "test images": "J"}  # fmt: skip
    import_responses(tmp_path / "out", Import((tmp_path / "r.npz",), wanted))
    _, table, _ = read_back(tmp_path / "out", "01")
    assert table["stim_id"][n[0] : n[0] + 2].tolist() == table["stim_id"][:2].tolist()
    assert len(read_stimuli(tmp_path / "out").table) == sum(n) - 2


def test_test_images_that_an_earlier_imports_eigenfaces_were_fitted_to_are_refused(tmp_path, rng):
    images = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    wanted = {"training responses": "X", "test responses": "Y", "training images": "I",
              "test images": "J"}  # fmt: skip

    def load(label, train, test, **more):
        path = tmp_path / f"{label}.npz"
        X, Y = (rng.standard_normal((len(rows), 7)) for rows in (train, test))
        np.savez(path, X=X, Y=Y, I=images[train], J=images[test])
        import_responses(tmp_path / "out", Import((path,), wanted, label, **more))

    rows = np.arange(40)
    load("01", rows[:20], rows[20:30])
    # What was in neither set, or in the test set, of the first.
    load("02", rows[:20], rows[25:])
    # Stimuli of one participant in both sets are the participant level's to refuse.
    load("04", rows[:20], rows[10:20])
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for label in ("03", "01"):
        said_by(
            InputError, lambda k=label: load(k, rows[20:], rows[15:20], overwrite=True),
            "fitted to test stimuli", "stimulus00016", "another folder",
        )  # fmt: skip
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    # As an import leaves it that is interrupted: eigenfaces are fitted anew.
    about = tmp_path / "out/stimuli/latents.json"
    first = json.loads(about.read_text())
    about.with_name("latents.tsv").unlink()
    load("01", rows[20:], rows[15:20], overwrite=True)
    again = json.loads(about.read_text())
    assert again["GeneratorFile"] == first["GeneratorFile"]
    assert again["GeneratorChecksum"] != first["GeneratorChecksum"]


def test_nothing_is_overwritten_unless_asked(tmp_path, rng):
    X, T, Y, U = sets(rng)
    path, out = tmp_path / "r.npz", tmp_path / "out"
    np.savez(path, X=X, T=T, Y=Y, U=U)
    import_responses(out, Import((path,), VARIABLES))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    again = Import((path,), VARIABLES)
    said_by(OutputError, lambda: import_responses(out, again), "sub-01", "--overwrite")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    np.savez(path, X=X + 1, T=T, Y=Y, U=U)
    import_responses(out, Import((path,), VARIABLES, overwrite=True))
    np.testing.assert_allclose(read_back(out, "01")[0][:12], X + 1, rtol=1e-6)
    assert len(read_stimuli(out).table) == 17
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    said_by(OutputError, lambda: import_responses(tmp_path / "mine", again), "mine", "not empty")


def test_another_participant_with_latents_of_another_length(tmp_path, rng):
    for name, n_latents in (("a", 3), ("b", 4)):
        X, T, Y, U = sets(rng, n_latents=n_latents)
        np.savez(tmp_path / f"{name}.npz", X=X, T=T, Y=Y, U=U)
    import_responses(tmp_path / "out", Import((tmp_path / "a.npz",), VARIABLES, "01"))
    wanted = Import((tmp_path / "b.npz",), VARIABLES, "02")
    said_by(
        InputError, lambda: import_responses(tmp_path / "out", wanted), "LatentDimension 3", "4"
    )
    model = Import((tmp_path / "a.npz",), VARIABLES, "02", generator="other")
    said_by(
        InputError, lambda: import_responses(tmp_path / "out", model), "Generator unknown", "other"
    )
    assert not (tmp_path / "out" / "sub-02").exists()


def test_latents_that_an_interrupted_import_left_without_rows_are_written_over(tmp_path, rng):
    found = {}
    for label in ("01", "02"):
        X, T, Y, U = sets(rng)
        np.savez(tmp_path / "r.npz", X=X, T=T, Y=Y, U=U)
        import_responses(tmp_path / "out", Import((tmp_path / "r.npz",), VARIABLES, label))
        found[label] = np.concatenate([T, U]).astype(np.float32)
        path = tmp_path / "out" / "stimuli" / "latents.npy"
        np.save(path, np.concatenate([np.load(path), np.ones((4, 3), np.float32)]))
    for label, latents in found.items():
        np.testing.assert_array_equal(read_back(tmp_path / "out", label)[2], latents)


def test_more_voxels_than_an_axis_of_nifti_has():
    grid = unknown_grid(70_000)
    assert max(grid.mask.shape) <= 32767
    assert grid.mask.sum() == 70_000
    assert grid.mask.ravel()[:70_000].all()


def test_the_dataset_is_valid_bids(tmp_path, rng):
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the BIDS validator is not installed")
    X, T, Y, U = sets(rng)
    I, J = (rng.integers(0, 256, (k, 28, 28), dtype=np.uint8) for k in (12, 5))  # noqa: E741
    np.savez(tmp_path / "r.npz", X=X, T=T, Y=Y, U=U, I=I, J=J)
    wanted = VARIABLES | {"training images": "I", "test images": "J"}
    import_responses(tmp_path / "out", Import((tmp_path / "r.npz",), wanted))
    result = subprocess.run(
        [program, "--no-color", "--format", "json", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []


def test_eigenfaces_of_the_training_images_are_the_default_and_stay(tmp_path, rng):
    pytest.importorskip("hyper_bids.generators.eigenface")
    wanted = {role: name for role, name in VARIABLES.items() if "latents" not in role}
    wanted |= {"training images": "I", "test images": "J"}
    found = []
    for label in ("01", "02"):
        X, _, Y, _ = sets(rng, (30, 5))
        I, J = (rng.integers(0, 256, (k, 784), dtype=np.uint8) for k in (30, 5))  # noqa: E741
        np.savez(tmp_path / f"{label}.npz", X=X, Y=Y, I=I, J=J)
        import_responses(tmp_path / "out", Import((tmp_path / f"{label}.npz",), wanted, label))
        found.append((read_back(tmp_path / "out", label)[2], np.concatenate([I, J])))
    from hyper_bids.generators.eigenface import load_eigenface

    about = json.loads((tmp_path / "out/stimuli/latents.json").read_text())
    model = load_eigenface(tmp_path / "out/stimuli" / about["GeneratorFile"])
    assert about["Generator"] == "eigenface"
    assert about["GeneratorChecksum"] == model.checksum
    assert model.image_shape == (28, 28, 3)
    # The second participant's images are encoded by the first one's model.
    for latents, images in found:
        pictures = np.repeat(images.reshape(-1, 28, 28, 1), 3, axis=3)
        np.testing.assert_allclose(latents, model.encode(pictures), atol=1e-5)


def test_an_image_that_is_shown_again_counts_once_in_the_eigenfaces(rng):
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    models = []
    for train in (images, np.concatenate([images, images[:5]])):
        encode = ModelEncoder()
        encode(train, images[:2])
        models.append(encode.model)
    np.testing.assert_array_equal(models[0].mean, models[1].mean)
    np.testing.assert_array_equal(models[0].components, models[1].components)


def test_eigenfaces_of_large_images_are_of_smaller_ones(rng):
    encode = ModelEncoder()
    encode(*(rng.integers(0, 256, (n, 256, 128, 3), dtype=np.uint8) for n in (4, 2)))
    assert encode.model.image_shape == (128, 64, 3)


def test_images_reach_the_model_as_they_would_from_files(tmp_path, rng):
    from PIL import Image

    from hyper_bids.generators.pictures import read_picture

    class Middle:
        image_shape, frame, n_latents = (8, 6, 3), 0.7, 144

        def encode(self, images):
            return images.reshape(len(images), -1)

    images = rng.integers(0, 256, (3, 31, 20, 3), dtype=np.uint8)
    found, _ = ModelEncoder(Middle())(images, images[:1])
    for row, image in zip(found, images, strict=True):
        Image.fromarray(image).save(tmp_path / "x.png")
        read = read_picture(tmp_path / "x.png", (8, 6), 0.7)
        np.testing.assert_allclose(row, read.ravel(), atol=1e-6)


# --- parts of files ------------------------------------------------------------------------------


def test_sessions_with_volumes_a_mask_and_one_stack_of_images(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    from hyper_bids.importing.write import Grid

    shape = (4, 5, 6)
    volumes = rng.integers(-900, 900, (20, *shape)).astype(np.int16)
    mask = rng.random(shape) < 0.4
    for k in range(2):
        # As the Natural Scenes Dataset has them: trials first, the axes of a volume in reverse.
        with h5py.File(tmp_path / f"betas_session0{k + 1}.hdf5", "w") as file:
            file["betas"] = volumes[10 * k : 10 * k + 10].transpose(0, 3, 2, 1)
    images = rng.integers(0, 256, (50, 6, 7, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "stimuli.hdf5", "w") as file:
        file["imgBrick"] = images
    shown = rng.permutation(50)[:20]
    np.savez(tmp_path / "design.npz", shown=shown + 1, shared=np.arange(20) % 4 == 1)
    betas = ("betas_session01.hdf5:betas", "betas_session02.hdf5:betas")
    wanted = {
        "training responses": betas, "test responses": betas, "training trials": "shared=0",
        "test trials": "shared=1", "training shown": "shown", "test shown": "shown",
        "training images": "imgBrick", "test images": "imgBrick",
    }  # fmt: skip
    paths = tuple(sorted(tmp_path.iterdir()))
    grid = Grid(mask, np.diag([1.8, 1.8, 1.8, 1]))
    encode = lambda train, test: (train[:, 0, 0], test[:, 0, 0])  # noqa: E731
    import_responses(tmp_path / "out", Import(paths, wanted, first=1), encode, grid)
    responses, table, latents = read_back(tmp_path / "out", "01")
    order = np.argsort(np.arange(20) % 4 == 1, kind="stable")
    np.testing.assert_array_equal(responses, volumes[order][:, mask])
    np.testing.assert_array_equal(latents, images[shown[order], 0, 0])
    assert table["split"].tolist() == ["train"] * 15 + ["test"] * 5
    stored = tmp_path / "out/sub-01/func/sub-01_task-imported_desc-brain_mask.nii.gz"
    np.testing.assert_array_equal(read_mask(stored), mask)
    said_by(
        InputError,
        lambda: import_responses(
            tmp_path / "b", Import(paths, wanted, first=1), encode, Grid(mask[1:], np.eye(4))
        ),
        "betas_session01.hdf5: betas", "6 x 5 x 4", "3 x 5 x 6",
    )  # fmt: skip


def test_trials_of_the_layout_of_bdpy_are_chosen_by_a_column(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    kinds, shown = np.repeat([1, 2], (12, 6)), np.r_[np.arange(12), np.tile([12, 13], 3)]
    data = np.column_stack([rng.standard_normal((18, 5)), kinds, shown, np.arange(18) // 6])
    names = ["VoxelData", "DataType", "image_index", "Run"]
    values = np.full((4, 8), np.nan)
    values[0, :5] = values[1, 5] = values[2, 6] = values[3, 7] = 1
    with h5py.File(tmp_path / "s1.h5", "w") as file:
        file["dataset"], file["metadata/key"], file["metadata/value"] = data, names, values
    latents = rng.standard_normal((14, 3))
    np.save(tmp_path / "features.npy", latents)
    wanted = {}
    for name, kind in (("training", 1), ("test", 2)):
        wanted |= {
            f"{name} responses": "dataset[VoxelData]", f"{name} latents": "features.npy",
            f"{name} trials": f"dataset[DataType]={kind}", f"{name} runs": "dataset[Run]",
            f"{name} shown": "dataset[image_index]",
        }  # fmt: skip
    paths = (tmp_path / "s1.h5", tmp_path / "features.npy")
    import_responses(tmp_path / "out", Import(paths, wanted))
    responses, table, found = read_back(tmp_path / "out", "01")
    np.testing.assert_allclose(responses, data[:, :5], rtol=1e-6)
    np.testing.assert_allclose(found, latents[shown], rtol=1e-6)
    assert table["run"].tolist() == [k // 6 for k in range(18)]
    wanted["test trials"] = "dataset[DataType]=3"
    said_by(
        InputError, lambda: import_responses(tmp_path / "b", Import(paths, wanted)),
        "dataset[DataType]", "3", "there are 1, 2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["all trials in both training and test"]),
        ({"test trials": "late=1"}, ["8 trials (the first is 4, from 0) in both"]),
        (
            {"training trials": "late=0", "test trials": "odd=1"},
            ["2 trials (the first is 1, from 0) in both"],
        ),
        ({"training trials": "late=0", "test responses": ("a.npz:X", "b.npz:X")}, ["in both"]),
        (
            {"training trials": "late", "test trials": "late=1"},
            ["row number 1", "8 times", "NAME=1"],
        ),
        ({"test trials": ("late=1", "odd=0"), "test responses": ("a.npz:X", "b.npz:X")}, ["one v"]),
    ],
)
def test_a_trial_is_in_one_set_and_there_once(tmp_path, rng, changes, words):
    np.savez(tmp_path / "a.npz", X=rng.standard_normal((12, 5)), L=rng.standard_normal((12, 3)),
             late=(np.arange(12) >= 4).astype(int), odd=np.arange(12) % 2)  # fmt: skip
    np.savez(tmp_path / "b.npz", X=rng.standard_normal((12, 5)))
    wanted = {
        "training responses": "a.npz:X", "test responses": "a.npz:X", "training latents": "L",
        "test latents": "L",
    }  # fmt: skip
    setting = Import((tmp_path / "a.npz", tmp_path / "b.npz"), wanted | changes)
    said_by(HyperBidsError, lambda: import_responses(tmp_path / "out", setting), *words)
    assert not (tmp_path / "out").exists()
