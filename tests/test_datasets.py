"""The embedded sample and the full set come through one call, and damaged files are refused."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from edgeprune import datasets, flavor
from edgeprune.datasets import load_fashion_mnist, read_idx


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def folder(tmp_path, rng):
    """A folder laid out as the full set, with 20 training and 10 test images."""
    for part, count in (("train", 20), ("test", 10)):
        write_idx(tmp_path / datasets.IDX_NAMES[f"x_{part}"], rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / datasets.IDX_NAMES[f"y_{part}"], np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_sample_is_balanced_and_typed():
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist()
    assert x_train.shape == (5000, 28, 28) and x_test.shape == (1000, 28, 28)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("uint8")}
    assert np.bincount(y_train).tolist() == [500] * 10
    assert np.bincount(y_test).tolist() == [100] * 10


def test_sample_has_no_image_in_both_parts_and_stays_small():
    (x_train, _), (x_test, _) = load_fashion_mnist()
    train, test = ({hashlib.sha256(image.tobytes()).digest() for image in x} for x in (x_train, x_test))
    assert not train & test
    data = datasets.resources.files("edgeprune") / "data"
    assert len((data / "fashion_mnist_sample.npz").read_bytes()) < 3_000_000
    assert "Copyright (c) 2017 Zalando SE" in (data / "FASHION_MNIST_LICENSE").read_text()


def test_full_set_where_it_is_installed():
    if not datasets.DEBIAN_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist(directory=datasets.DEBIAN_FOLDER)
    assert x_train.shape == (60_000, 28, 28) and x_test.shape == (10_000, 28, 28)
    everything = {(x.tobytes(), int(y)) for x, y in zip(x_test, y_test, strict=True)}
    _, (x_sample, y_sample) = load_fashion_mnist()
    assert all((x.tobytes(), int(y)) in everything for x, y in zip(x_sample, y_sample, strict=True))


def test_folder_by_argument_and_by_variable(folder, monkeypatch):
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist(directory=folder)
    assert x_train.shape == (20, 28, 28) and y_test.tolist() == list(range(10))
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(folder))
    np.testing.assert_array_equal(load_fashion_mnist(full=True)[0][0], x_train)
    assert load_fashion_mnist()[0][0].shape == (5000, 28, 28), "the variable names the full set only"


def test_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte.gz;"):
        load_fashion_mnist(directory=folder)


def test_no_folder_and_no_network(monkeypatch, tmp_path):
    def no_network():
        raise OSError("Name or service not known")

    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(flavor.keras_module("keras").datasets.fashion_mnist, "load_data", no_network)
    with pytest.raises(FileNotFoundError, match="Name or service not known.*dataset-fashion-mnist.*EDGEPRUNE_DATA"):
        load_fashion_mnist(full=True)


def test_keras_download_is_the_last_resort(monkeypatch, tmp_path, rng):
    x, y = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10, dtype=np.uint8)
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(
        flavor.keras_module("keras").datasets.fashion_mnist, "load_data", lambda: ((x, y), (x[:2], y[:2]))
    )
    (x_train, _), (x_test, _) = load_fashion_mnist(full=True)
    np.testing.assert_array_equal(x_train, x)
    assert len(x_test) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "not a complete gzip file"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02ab")[:-6], "not a complete gzip file"),
        (gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd"), "not an IDX file of bytes"),
        (gzip.compress(b"\x00\x00"), "not an IDX file of bytes"),
        (gzip.compress(b"\x00\x00\x08\x03\x00\x00"), "cut short inside its header"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x03ab"), r"should hold \(3,\) bytes and holds 2"),
    ],
    ids=["text", "cut gzip", "floats", "two bytes", "cut header", "cut content"],
)
def test_damaged_idx_files(tmp_path, content, message):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


def test_missing_idx_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent.gz")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x_train", np.zeros((20, 32, 32), np.uint8), "the train part should be uint8 images"),
        ("y_test", np.zeros(9, np.uint8), "the test part should be uint8 images"),
        ("y_test", np.full(10, 10, np.uint8), "the test labels should be 0 to 9"),
    ],
)
def test_wrong_content_is_refused(folder, name, array, message):
    write_idx(folder / datasets.IDX_NAMES[name], array)
    with pytest.raises(ValueError, match=message):
        load_fashion_mnist(directory=folder)
