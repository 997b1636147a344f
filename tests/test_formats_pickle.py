"""Pickles are read as data: what a pickle asks to be run is refused, and does not run."""

import builtins
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from test_formats_references import (
    GROWTH,
    genforce_tensors,
    karras_variables,
    network,
    network_class,
    stand_in,
    write_torch,
)

from hyper_bids import unpickling
from hyper_bids.errors import InputError
from hyper_bids.generators import formats


class Asks:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def evil(tmp_path):
    """Return the proof that something ran, and calls that would leave it."""
    proof = tmp_path / "ran"
    code = f"open({str(proof)!r}, 'w').close()"
    return proof, {
        "posix.system": Asks(os.system, f"touch {proof}"),
        "builtins.eval": Asks(builtins.eval, code),
        "builtins.exec": Asks(builtins.exec, code),
        "builtins.getattr": Asks(getattr, os, "system"),
        "torch.load": None,
    }


def refuse(path, name):
    with pytest.raises(InputError) as error:
        formats.read_pggan(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_asks_for_a_call_is_refused_and_nothing_runs(protocol, evil, tmp_path):
    proof, calls = evil
    path = tmp_path / "model.pkl"
    for name in ("posix.system", "builtins.eval", "builtins.exec"):
        # Python 3 writes the names of Python 2 up to protocol 2.
        shown = name.replace("builtins.", "") if protocol == 2 else name
        for what in (calls[name], (1, 2, calls[name]), {"a": [calls[name]]}):
            path.write_bytes(pickle.dumps(what, protocol))
            refuse(path, shown)
    assert not proof.exists()


def test_a_call_among_good_networks_or_inside_of_one_is_refused(rng, monkeypatch, evil, tmp_path):
    proof, calls = evil
    made = network_class(monkeypatch)
    good = karras_variables(rng)
    path = tmp_path / "model.pkl"
    bad = (
        (calls["posix.system"], network(made, {}), network(made, good)),
        (
            network(made, {}),
            network(made, {}),
            network(made, {**good, GROWTH: calls["builtins.eval"]}),
        ),
        (
            network(made, {}),
            network(made, {}),
            network(made, good, label_size=calls["builtins.exec"]),
        ),
    )
    for networks, name in zip(bad, ("system", "eval", "exec"), strict=True):
        path.write_bytes(pickle.dumps(networks, 4))
        refuse(path, name)
    assert not proof.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_in_a_pytorch_checkpoint_is_refused_and_nothing_runs(zipped, rng, evil, tmp_path):
    proof, calls = evil
    path = tmp_path / "model.pth"
    for name in ("posix.system", "builtins.eval"):
        write_torch(
            path,
            genforce_tensors(rng),
            wrap=lambda tensors, call=calls[name]: {"config": call, "generator_smooth": tensors},
            zipped=zipped,
        )
        refuse(path, name.rpartition(".")[2])
    assert not proof.exists()


def test_nested_names_and_names_of_this_package_are_refused(tmp_path):
    path = tmp_path / "model.pkl"
    for module, name in (
        ("numpy", "core.multiarray.sys.modules"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("hyper_bids.generators.checkpoints", "load"),
        ("tfutil", "run"),
        ("collections", "namedtuple"),
        ("torch.storage", "_load_from_bytes"),
    ):
        text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
        path.write_bytes(b"\x80\x04" + b"".join(text) + b"\x93.")
        refuse(path, f"{module}.{name}")


def test_a_pickle_that_asks_for_more_memory_than_there_is_is_refused_at_once(tmp_path):
    path = tmp_path / "model.pkl"
    for asked in (
        b"Nr\xff\xff\xff\xff.",  # a note at place 2^32 - 1 of its memory
        b"\x8e" + (2**62).to_bytes(8, "little") + b"x.",  # bytes
        b"\x96" + (2**62).to_bytes(8, "little") + b"x.",  # bytes that can be changed
        b"\x95" + (2**62).to_bytes(8, "little") + b"N.",  # a frame
        b"\x82\x01.",  # an object of a registry
    ):
        path.write_bytes(b"\x80\x05" + asked)
        refuse(path, "pickle")


def test_what_is_allowed_becomes_a_record_that_does_nothing(monkeypatch, tmp_path):
    done = []
    made = stand_in(monkeypatch, "tfutil", "Network")
    made.__setstate__ = lambda self, state: done.append(state)
    made.__reduce__ = lambda self: (made, (), {"version": 2})
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(made(), 4))
    with path.open("rb") as stream:
        record = unpickling.load(stream, path, lambda *name: name == ("tfutil", "Network"))
    assert (record.origin, record.state, done) == ("tfutil.Network", {"version": 2}, [])
    assert not hasattr(unpickling.Record, "version")


def test_the_source_code_in_a_network_is_not_run(rng, monkeypatch, tmp_path):
    made = network_class(monkeypatch)
    three = (network(made, {}), network(made, {}), network(made, karras_variables(rng)))
    (tmp_path / "a").write_bytes(pickle.dumps(three, 4))
    assert b"SystemExit" in (tmp_path / "a").read_bytes()
    assert formats.read_pggan(tmp_path / "a")[1]["format"] == "karras"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_out_as_numpy_pickled_them(protocol, rng, tmp_path):
    path = tmp_path / "arrays"
    arrays = [
        rng.standard_normal((3, 4, 2)).astype(np.float32),
        np.asfortranarray(rng.standard_normal((3, 5))),
        rng.standard_normal((4, 6))[::2, ::3],
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array([True, False]),
        np.array(2.5, np.float16),
        np.float32(1.5),
        np.int64(-7),
    ]
    for old in (False, True):
        raw = pickle.dumps(arrays, protocol)
        if old and protocol < 4:  # lengths stand before names in later protocols
            raw = raw.replace(b"numpy._core.", b"numpy.core.")
        path.write_bytes(raw)
        with path.open("rb") as stream:
            records = unpickling.load(stream, path, lambda *name: False)
        for record, array in zip(records, arrays, strict=True):
            again = unpickling.array_of(record)
            np.testing.assert_array_equal(again, array)
            assert again.shape == np.shape(array)


def test_arrays_of_objects_or_with_bytes_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "arrays"
    right = pickle.dumps(np.zeros((2, 3), np.float32), 3)
    for raw in (
        pickle.dumps(np.array([{}, []], dtype=object), 4),
        pickle.dumps(np.array(["a"]), 4),
        right.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"),
        right.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86"),
        pickle.dumps(OrderedDict(), 4),
    ):
        assert raw != right
        path.write_bytes(raw)
        with path.open("rb") as stream:
            record = unpickling.load(stream, path, lambda *name: False)
        with pytest.raises(ValueError, match=r"."):
            unpickling.array_of(record)


def test_a_zip_of_another_kind_and_a_compressed_checkpoint_are_refused(rng, tmp_path):
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"not a PyTorch checkpoint.*readme\.txt"):
        formats.read_pggan(tmp_path / "other")
    write_torch(tmp_path / "plain", genforce_tensors(rng))
    with (
        zipfile.ZipFile(tmp_path / "plain") as plain,
        zipfile.ZipFile(tmp_path / "small", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(InputError, match="is compressed"):
        formats.read_pggan(tmp_path / "small")
