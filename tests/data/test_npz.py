"""Arrays from .npz files: what NumPy reads is read the same, and anything else is one error that names the file."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeprune.data import load_data, npz
from edgeprune.data.npz import read_arrays

NUMBERS = st.sampled_from(["?", "<i1", ">i2", "<i4", ">i8", "<u2", ">f2", "<f4", ">f4", "<f8"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_what_numpy_reads_is_read_the_same(tmp_path_factory, data, compressed, fortran):
    array = data.draw(arrays.arrays(data.draw(NUMBERS), data.draw(SHAPES)))
    array = np.asfortranarray(array) if fortran else array
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=array, other=np.array([{}], object))
    (name,) = (read := read_arrays(path, ("x", "y")))
    assert name == "x" and read["x"].dtype == array.dtype.newbyteorder("=") and read["x"].dtype.isnative
    np.testing.assert_array_equal(read["x"], array)


def header(text, version=(1, 0)):
    text = text.encode()
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text


def declares(descr="'<f4'", shape="(2,)", order="False"):
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n")


def zipped(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


def content(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "cannot be read"),
        (b"no array", "magic string"),
        (declares(), "declares 8 bytes, and 0 are there"),
        (declares() + bytes(7), "declares 8 bytes, and 7 are there"),
        (declares() + bytes(9), "declares 8 bytes, and 9 are there"),
        (declares(shape="(30000000000,)"), "declares 120,000,000,000 bytes"),
        (declares(shape="(-2,)") + bytes(8), r"its shape is \(-2,\)"),
        (declares(shape=f"({10**30},)") + bytes(8), "cannot be read"),
        (declares(shape="(0, " + "9" * 400 + ")"), "cannot be read"),
        (declares(shape=str((1,) * 99)) + bytes(4), "cannot be read"),
        (declares(shape="2") + bytes(8), "cannot be read"),
        (declares(shape="(" * 90) + bytes(8), "cannot be read"),
        (declares(descr="'nonsense'"), "cannot be read"),
        (declares(descr="(" * 90), "cannot be read"),
        (declares(descr="[('a', '<f4')]") + bytes(8), "holds values of type"),
        (declares(order="'x'") + bytes(8), "cannot be read"),
        (header("{", (2, 0)), "cannot be read"),
        (header("{}", (3, 0)), r"version \(3, 0\)"),
        (header("{}", (9, 9)), "cannot be read"),
        (header("x" * 20000), "cannot be read"),
        (content(np.array([1 + 2j])), "holds complex numbers"),
        (content(np.array(["a"])), "holds text"),
        (content(np.array([b"a"])), "holds bytes"),
        (content(np.array([{}], object)), "holds Python objects"),
        (content(np.array(["2026-01-01"], "M8[D]")), "holds dates"),
        (content(np.array([1], "m8[s]")), "holds durations"),
        (declares(descr="'<f16'") + bytes(32), "cannot be read"),
        (content(np.zeros(2, "V3")), "holds values of type"),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x"])
def test_members_that_hold_no_numbers(tmp_path, member, message, name):
    zipped(tmp_path / "d.npz", (name, member))
    with pytest.raises(ValueError, match=rf"d.npz: '{name}' cannot be read: .*") as caught:
        read_arrays(tmp_path / "d.npz", ("x",))
    assert message.replace("\\", "") in str(caught.value) and "\n" not in str(caught.value)


def marked(path, offset, value, size=1):
    """Change a field in both headers of the only member: that before it, and that in the directory 2 bytes later."""
    changed = bytearray(path.read_bytes())
    directory = changed.find(b"PK\x01\x02")
    for place in (offset, directory + offset + 2):
        changed[place : place + size] = value.to_bytes(size, "little")
    path.write_bytes(bytes(changed))


@pytest.mark.parametrize(
    ("offset", "value", "size", "message"),
    [
        (6, 1, 1, "it is encrypted"),
        (8, 99, 1, "a method that NumPy does not use"),
        (8, zipfile.ZIP_BZIP2, 1, "a method that NumPy does not use"),
        (8, zipfile.ZIP_DEFLATED, 1, "cannot be read"),
        (14, 12345, 4, "Bad CRC-32"),
        (22, 10**9, 4, "more than the file can hold"),
        (18, 10**9, 4, "more than the file can hold"),
        (22, 100, 4, "cannot be read"),
        (4, 255, 1, "cannot be read"),
    ],
)
def test_fields_of_the_archive_that_lie(tmp_path, offset, value, size, message):
    path = tmp_path / "d.npz"
    zipped(path, ("x.npy", content(np.arange(64.0))))
    marked(path, offset, value, size)
    with pytest.raises(ValueError, match=message):
        read_arrays(path, ("x",))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    zipped(path, ("x.npy", declares(shape="(50000000,)") + bytes(200_000_000)), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(npz, "memory", lambda: 100_000_000)
    with pytest.raises(ValueError, match="200,000,0.. bytes, more than this machine's memory"):
        read_arrays(path, ("x",))


def test_an_array_that_is_there_twice(tmp_path):
    for names in (("x.npy", "x.npy"), ("x", "x.npy")):
        with pytest.warns(UserWarning) if len(set(names)) == 1 else pytest.MonkeyPatch.context():
            zipped(tmp_path / "d.npz", *((name, content(np.zeros(2))) for name in names))
        with pytest.raises(ValueError, match="it is there twice"):
            read_arrays(tmp_path / "d.npz", ("x",))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    data = {"x": np.arange(24.0).reshape(6, 4), "y": np.arange(6)}
    np.savez(folder / "plain.npz", **data)
    np.savez_compressed(folder / "packed.npz", **data)
    return folder, data


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(["plain.npz", "packed.npz"]))
def test_damaged_bytes_give_the_arrays_or_one_error(whole, data, name):
    """Whatever is changed or cut off: no other exception, and no array of other values."""
    folder, expected = whole
    damaged = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.npz"
    path.write_bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))])
    try:
        read = read_arrays(path, ("x", "y"))
    except ValueError as error:
        assert str(path) in str(error)
        return
    for key, array in read.items():
        assert array.size <= expected[key].size


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([1, np.nan]), "y": np.zeros(2)}, "1 of 2 values of x are NaN or infinite"),
        ({"x": np.zeros(2), "y": np.array([np.inf, np.nan])}, "2 of 2 values of y are NaN or infinite"),
        ({"x": np.zeros(2), "x_train": np.zeros(2)}, "has both x and x_train"),
        ({"x": np.zeros(2), "y": np.zeros(2), "y_train": np.zeros(2)}, "has both y and y_train"),
        ({"x_train": np.zeros(2), "y_test": np.zeros(2)}, "has y_test without x_test"),
        ({"x_test": np.zeros(2), "y_train": np.zeros(2)}, "has y_train without x_train"),
        ({"X": np.zeros(2)}, "has no array named x, x_train or x_test"),
        ({"x": np.float32(1)}, "the train inputs are empty"),
        ({"x": np.zeros((4, 0))}, "the train inputs are empty"),
    ],
)
def test_data_that_would_be_used_wrongly(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "d.npz")
