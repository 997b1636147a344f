"""TensorFlow checkpoints, written byte by byte here, read back; and files that are wrong."""

import re

import numpy as np
import pytest

from hyper_bids.errors import InputError
from hyper_bids.generators.formats import crc32c, tf_bundle

NUMBERS = {"f4": 1, "f8": 2, "i4": 3, "u1": 4, "i2": 5, "i1": 6, "i8": 9, "b1": 10, "f2": 19}
NAMES = {  # sorted, with long common starts
    "encoder/layer1/conv2d/W": "f4",
    "encoder/layer1/conv2d/b": "f2",
    "encoder/layer10/bn/beta": "f8",
    "generator/fc/W": "f4",
    "generator/fc/b": "i4",
    "global_step": "i8",
    "mask": "b1",
    "octets": "u1",
    "short": "i2",
    "tiny": "i1",
}


# A writer that shares nothing with the reader


def slow_crc(data):
    """Return the CRC-32C of bytes, bit by bit."""
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data):
    crc = slow_crc(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def varint(value):
    value %= 2**64
    octets = []
    while True:
        value, low = divmod(value, 128)
        octets.append(low + 128 * (value > 0))
        if not value:
            return bytes(octets)


def message(*fields):
    """Encode (number, value): whole numbers as varint, bytes with their length."""
    parts = []
    for number, value in fields:
        if isinstance(value, bytes):
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
        else:
            parts.append(varint(number << 3) + varint(value))
    return b"".join(parts)


def fixed32(number, value):
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def shape_message(shape):
    return message(*((2, message((1, size))) for size in shape))


def block(items, interval=3):
    """Encode a block; every third key is written whole."""
    out, restarts, last = b"", [], b""
    for k, (key, value) in enumerate(items):
        shared = 0
        if k % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        rest = key[shared:]
        out += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        last = key
    restarts = restarts or [0]
    return out + b"".join(r.to_bytes(4, "little") for r in (*restarts, len(restarts)))


def snappy(data):
    """Compress with literals and copies of all three kinds, taken in turn."""
    out, k, turn = varint(len(data)), 0, 0

    def literal(part):
        size = len(part) - 1
        if size < 60:
            return bytes([size << 2]) + part
        return bytes([61 << 2]) + size.to_bytes(2, "little") + part

    pending = b""
    while k < len(data):
        start = data.rfind(data[k : k + 4], 0, k + 3) if k else -1
        if start < 0 or len(data) - k < 4 or k - start > 2047:
            pending += data[k : k + 1]
            k += 1
            continue
        length = 4
        while k + length < len(data) and length < 11 and data[start + length] == data[k + length]:
            length += 1
        out += literal(pending) if pending else b""
        pending, distance = b"", k - start
        if turn % 3 == 0:
            out += bytes([(distance >> 8) << 5 | (length - 4) << 2 | 1, distance & 255])
        else:
            width = (2, 4)[turn % 3 - 1]
            out += bytes([length - 1 << 2 | turn % 3 + 1]) + distance.to_bytes(width, "little")
        turn, k = turn + 1, k + length
    return out + (literal(pending) if pending else b"")


def table(items, per_block=4, compressed=False, kind=None):
    """Encode a table of several blocks, with an empty meta index."""
    out = b""

    def add(content):
        nonlocal out
        content = snappy(content) if compressed else content
        content += bytes([int(compressed) if kind is None else kind])
        handle = varint(len(out)) + varint(len(content) - 1)
        out += content + masked(content).to_bytes(4, "little")
        return handle

    parts = [items[k : k + per_block] for k in range(0, len(items), per_block)]
    index = [(part[-1][0] + b"~", add(block(part))) for part in parts]
    footer = add(block([])) + add(block(index))
    return out + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write_bundle(prefix, arrays, n_shards=1, extra=(), header=(), **layout):
    shards = [b"" for _ in range(n_shards)]
    items = [(b"", message((1, n_shards), *header, (3, message((1, 1)))))]
    items += [(key, value) for key, value in extra if key < b"a"]
    for k, (name, array) in enumerate(arrays.items()):
        shard, data = k % n_shards, array.tobytes()
        fields = [(1, NUMBERS[array.dtype.str[1:]]), (2, shape_message(array.shape))]
        fields += [(3, shard)] if shard else []
        fields += [(4, len(shards[shard])), (5, len(data))]
        shards[shard] += data
        items.append((name.encode(), message(*fields) + fixed32(6, masked(data))))
    items += [(key, value) for key, value in extra if key > b"a"]
    for k, data in enumerate(shards):
        prefix.with_name(f"{prefix.name}.data-{k:05d}-of-{n_shards:05d}").write_bytes(data)
    prefix.with_name(prefix.name + ".index").write_bytes(table(items, **layout))
    return prefix


def write_v1(path, arrays, slices=None, **layout):
    metas, items = [], []
    for k, (name, array) in enumerate(arrays.items()):
        # A dimension that is whole is an extent with nothing in it.
        part = message(*((1, b"") for _ in array.shape)) if slices is None else slices
        shape, number = shape_message(array.shape), NUMBERS[array.dtype.str[1:]]
        metas.append(message((1, name.encode()), (2, shape), (3, number), (4, part)))
        kind = array.dtype.str[1:]
        field = {"f4": 5, "f8": 6, "i8": 10, "b1": 11, "f2": 13}.get(kind, 7)
        if field in (5, 6):
            data = array.tobytes()
        else:
            whole = array.view(np.uint16) if kind == "f2" else array
            data = b"".join(varint(int(value)) for value in whole.ravel())
        tensor = message((1, number), (field, data))
        saved = message((1, name.encode()), (2, part), (3, tensor))
        items.append((b"\0" + bytes([k + 1]) + name.encode(), message((2, saved))))
    header = message((1, message(*((1, meta) for meta in metas), (2, message((1, 21))))))
    path.write_bytes(table([(b"", header), *items], **layout))
    return path


@pytest.fixture
def arrays(rng):
    shapes = [(3, 3, 2, 5), (5,), (), (4, 7), (7,), (), (2, 2), (9,), (0, 3), (6,)]
    values = {}
    for (name, kind), shape in zip(NAMES.items(), shapes, strict=True):
        drawn = rng.standard_normal(shape) * 100
        values[name] = np.asarray(drawn > 0 if kind == "b1" else drawn).astype(f"<{kind}")
    return values


def assert_same(read, arrays):
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype, name
        assert read[name].shape == array.shape, name
        np.testing.assert_array_equal(read[name], array)


# Reading


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("per_block", [1, 4, 100])
def test_every_variable_of_a_bundle_is_read_as_it_was_written(
    n_shards, compressed, per_block, arrays, tmp_path
):
    prefix = tmp_path / "model.ckpt-500"
    write_bundle(prefix, arrays, n_shards, per_block=per_block, compressed=compressed)
    assert_same(tf_bundle.read_bundle(prefix), arrays)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("per_block", [1, 100])
def test_every_variable_of_a_checkpoint_in_one_file_is_read_as_it_was_written(
    compressed, per_block, arrays, tmp_path
):
    path = write_v1(tmp_path / "model.ckpt", arrays, per_block=per_block, compressed=compressed)
    assert_same(tf_bundle.read_bundle(path), arrays)
    found = tf_bundle.contents(path)
    assert {name: variable.shape for name, variable in found.items()} == {
        name: array.shape for name, array in arrays.items()
    }


def test_any_file_of_a_bundle_stands_for_it(arrays, tmp_path):
    write_bundle(tmp_path / "m", arrays, 2)
    for name in ("m.index", "m.data-00000-of-00002", "m.data-00001-of-00002"):
        assert_same(tf_bundle.read_bundle(str(tmp_path / name)), arrays)


def test_contents_are_told_without_the_values(arrays, tmp_path):
    write_bundle(tmp_path / "m", arrays)
    (tmp_path / "m.data-00000-of-00001").unlink()
    found = tf_bundle.contents(tmp_path / "m")
    assert {name: (v.dtype, v.shape) for name, v in found.items()} == {
        name: (array.dtype.name, array.shape) for name, array in arrays.items()
    }


def test_only_what_is_wanted_is_read(arrays, tmp_path):
    prefix = write_bundle(tmp_path / "m", arrays, 2)
    # Every second variable is in the second file.
    (tmp_path / "m.data-00001-of-00002").unlink()
    wanted = list(arrays)[::2]
    read = tf_bundle.read_bundle(prefix, lambda name: name in wanted)
    assert_same(read, {name: arrays[name] for name in wanted})


def test_strings_are_left_out_and_refused_where_they_are_wanted(arrays, tmp_path):
    graph = (b"zz_graph", message((1, 7), (2, b""), (5, 3)) + fixed32(6, 1))
    prefix = write_bundle(tmp_path / "m", arrays, extra=[graph])
    assert_same(tf_bundle.read_bundle(prefix), arrays)
    assert "zz_graph" in tf_bundle.contents(prefix)
    with pytest.raises(InputError, match="zz_graph is of TensorFlow's type 7"):
        tf_bundle.read_bundle(prefix, lambda name: True)


def test_a_variable_in_slices_is_refused_by_name(arrays, tmp_path):
    extent = message((1, message((2, 2))))
    entry = message((1, 1), (2, shape_message((4,))), (7, extent), (7, extent))
    part = (b"\0\1zz_cut\0\1", message((1, 1), (2, shape_message((2,)))) + fixed32(6, 1))
    prefix = write_bundle(tmp_path / "m", arrays, extra=[part, (b"zz_cut", entry)])
    assert list(tf_bundle.contents(prefix)) == [*arrays, "zz_cut"]
    with pytest.raises(InputError, match="zz_cut is saved in slices"):
        tf_bundle.read_bundle(prefix)
    path = write_v1(tmp_path / "one", {"a": np.zeros(4, "f4")}, slices=extent)
    with pytest.raises(InputError, match="a is saved in slices"):
        tf_bundle.read_bundle(path)


def test_crc_of_known_messages_and_of_any_length(rng):
    # RFC 3720, B.4.
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c.crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c.crc32c(b"123456789") == 0xE3069283
    data = rng.bytes(300)
    for length in (*range(20), 31, 32, 33, 127, 300):
        assert crc32c.crc32c(data[:length]) == slow_crc(data[:length])


def test_crc_of_data_in_several_pieces(monkeypatch, rng):
    data = rng.bytes(1000)
    monkeypatch.setattr(crc32c, "_PIECE", 64)
    for length in (63, 64, 65, 66, 129, 1000):
        assert crc32c.crc32c(memoryview(data)[:length]) == slow_crc(data[:length])


def test_a_table_is_told_from_other_files_by_its_end(arrays, tmp_path):
    write_bundle(tmp_path / "m", arrays)
    assert tf_bundle.is_table(write_v1(tmp_path / "one", arrays))
    assert tf_bundle.is_table(tmp_path / "m.index")
    assert not tf_bundle.is_table(tmp_path / "m.data-00000-of-00001")
    (tmp_path / "short").write_bytes(b"W")
    assert not tf_bundle.is_table(tmp_path / "short")


# Files that are wrong


def test_a_missing_or_shortened_file_of_values_is_named(arrays, tmp_path):
    prefix = write_bundle(tmp_path / "m", arrays, 2)
    shard = tmp_path / "m.data-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=re.escape(f"{shard}: truncated, {len(whole) - 1} bytes")):
        tf_bundle.read_bundle(prefix)
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    with pytest.raises(InputError, match=re.escape(f"{shard}: a Git LFS pointer")):
        tf_bundle.read_bundle(prefix)
    shard.unlink()
    with pytest.raises(InputError, match=re.escape(f"{shard}: missing")):
        tf_bundle.read_bundle(prefix)
    (tmp_path / "m.index").unlink()
    with pytest.raises(InputError, match="no TensorFlow checkpoint, there is neither"):
        tf_bundle.read_bundle(prefix)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "HTML page"),
        (b"<?xml version='1.0'?><Error/>", "XML page"),
        (b"", "empty"),
        (b"\x80\x02}q\x01.", "no LevelDB table"),
        (bytes(200), "no LevelDB table"),
    ],
)
@pytest.mark.parametrize("name", ["m.index", "m"])
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(content, told, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    for ask in (tf_bundle.contents, tf_bundle.read_bundle):
        with pytest.raises(InputError, match=told) as caught:
            ask(tmp_path / "m")
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "m.index").write_bytes(table([(b"key", b"value")]))
    with pytest.raises(InputError, match="not a TensorFlow checkpoint"):
        tf_bundle.contents(tmp_path / "m")


def test_other_byte_orders_and_compressions_are_refused_by_name(arrays, tmp_path):
    with pytest.raises(InputError, match="big-endian"):
        tf_bundle.contents(write_bundle(tmp_path / "b", arrays, header=[(2, 1)]))
    with pytest.raises(InputError, match="type 2; none and Snappy are"):
        tf_bundle.contents(write_bundle(tmp_path / "c", arrays, kind=2))


def few(arrays):
    return {name: arrays[name] for name in list(arrays)[1:5]}


@pytest.mark.parametrize("write", [write_bundle, write_v1])
def test_a_checkpoint_cut_off_anywhere_is_refused(write, arrays, tmp_path):
    path = write(tmp_path / "m", few(arrays))
    path = path if write is write_v1 else tmp_path / "m.index"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"truncated|empty"):
            tf_bundle.read_bundle(path)
    path.write_bytes(whole[:10] + whole[20:])
    with pytest.raises(InputError, match=r"truncated|damaged"):
        tf_bundle.read_bundle(path)


@pytest.mark.parametrize("write", [write_bundle, write_v1])
def test_no_changed_byte_changes_a_value_unnoticed(write, arrays, tmp_path, rng):
    arrays = few(arrays)
    write(tmp_path / "m", arrays, compressed=True)
    for path in tmp_path.iterdir():
        whole, accepted = path.read_bytes(), 0
        for k in range(len(whole)):
            changed = bytearray(whole)
            changed[k] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            try:
                read = tf_bundle.read_bundle(tmp_path / "m")
            except InputError:
                continue
            # The meta index, which is empty, and the padding of the footer are not looked at.
            assert_same(read, arrays)
            accepted += 1
        assert accepted < 60
        path.write_bytes(whole)


def test_blocks_that_are_not_what_they_say_are_refused_although_their_crc_is_right(
    arrays, tmp_path, rng, monkeypatch
):
    """Nothing but an InputError comes of any byte, with the CRCs switched off."""
    arrays = few(arrays)
    for write, compressed in ((write_bundle, False), (write_bundle, True), (write_v1, True)):
        path = write(tmp_path / "m", arrays, compressed=compressed)
        path = path if write is write_v1 else tmp_path / "m.index"
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(crc32c, "masked", AnyCrc)
            for k in range(len(whole)):
                changed = bytearray(whole)
                changed[k] = int(rng.integers(256))
                path.write_bytes(changed)
                try:
                    tf_bundle.read_bundle(path)
                except InputError as error:
                    assert "\n" not in str(error)
        path.unlink()


class AnyCrc:
    """Equal to any other CRC."""

    def __init__(self, data):
        pass

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = None
