"""Folders of images become samples and classes, in the size of the model."""

from __future__ import annotations

import numpy as np
import pytest
from data.forms import images

import edgeprune as ep
from edgeprune.data.ports import Ports


def takes(*shape, **settings):
    return Ports("model 'm'", {"image": shape}, ("classes",), **settings)


def read_folder(path, ports):
    from edgeprune.data.images import open_folder

    return open_folder(path)(ports)


def test_images_of_classes_sorted_by_name(folder):
    images(folder, {"b/one.png": 200, "a/two.png": 10, "a/deep/three.png": 20, ".hidden/four.png": 30})
    (folder / "a" / "notes.txt").write_text("no image")
    data = read_folder(folder, takes(4, 5, 3))
    assert data.class_names == ("a", "b") and data.y_train.tolist() == [0, 0, 1]
    assert data.x_train.dtype == np.float32 and data.x_train.shape == (3, 4, 5, 3)
    assert sorted(data.x_train[:2, 0, 0, 0].tolist()) == [10, 20] and (data.x_train[2] == 200).all()


@pytest.mark.parametrize(
    ("ports", "shape"),
    [
        (takes(8, 6, 1), (8, 6, 1)),
        (takes(2, 2, 4), (2, 2, 4)),
        (takes(3, 7, 6, channels_first=True), (3, 7, 6)),
        (takes(None, None, 3), (256, 256, 3)),
        (None, (256, 256, 3)),
    ],
    ids=["grey", "alpha", "channels first", "open", "no model"],
)
def test_images_in_the_size_of_the_model(folder, ports, shape):
    images(folder, {"a/one.png": 100, "b/two.png": 50})
    data = read_folder(folder, ports)
    assert data.x_train.shape[1:] == shape
    assert (np.delete(data.x_train[0], 3, -1) if shape[-1] == 4 else data.x_train[0]) == pytest.approx(100)


def test_classes_as_the_loss_takes_them(folder, keras):
    images(folder, {"a/one.png": 100, "b/two.png": 50})
    model = keras.Sequential([keras.Input((4, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert ep.load_data(folder, model).y_train.tolist() == [0, 1]
    for loss, labels in (
        (keras.losses.CategoricalCrossentropy(), [[1, 0], [0, 1]]),
        ("categorical_crossentropy", [[1, 0], [0, 1]]),
        (keras.losses.SparseCategoricalCrossentropy(), [0, 1]),
        ("binary_crossentropy", [0, 1]),
    ):
        model.compile(loss=loss)
        assert ep.load_data(folder, model).y_train.tolist() == labels


def test_train_and_test_folders_and_images_without_classes(folder):
    values = {"train/a/1.png": 1, "train/b/2.png": 2, "test/a/3.png": 3, "test/b/4.png": 4, "val/a/5.png": 5}
    images(folder / "parts", values)
    data = read_folder(folder / "parts", takes(1, 1, 1))
    assert data.held_out and data.x_train.ravel().tolist() == [1, 2] and data.x_test.ravel().tolist() == [3, 4]
    plain = read_folder(folder / "parts" / "train" / "a", takes(1, 1, 1))
    assert plain.y_train is None and plain.class_names is None and plain.x_train.ravel().tolist() == [1]


@pytest.mark.parametrize(
    ("values", "ports", "message"),
    [
        ({}, takes(4, 5, 3), "holds no images"),
        ({"a/1.png": 1}, takes(4, 5, 3), "one folder, a, and one class cannot be classified"),
        (dict.fromkeys(("train/a/1.png", "train/b/1.png", "test/a/1.png"), 1), takes(4, 5, 3), "test has the classes"),
        ({"a/1.png": 1, "b/1.png": 1}, takes(4), r"has inputs of shape \[\(4,\)\]: no images"),
        ({"a/1.png": 1, "b/1.png": 1}, takes(4, 5, 7), "expects images of 7 channels"),
    ],
    ids=["none", "one class", "other classes", "no image", "channels"],
)
def test_folders_that_do_not_fit(folder, values, ports, message):
    images(folder, values)
    with pytest.raises(ValueError, match=message):
        read_folder(folder, ports)


def test_class_without_images(folder):
    images(folder, {"a/1.png": 1, "b/1.png": 1})
    (folder / "c").mkdir()
    with pytest.raises(ValueError, match="c holds no images, and would count as a class"):
        read_folder(folder, takes(4, 5, 3))


def test_unreadable_image_is_named(folder):
    images(folder, {"a/1.png": 1, "b/1.png": 1})
    (folder / "b" / "2.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b/2\.jpg cannot be read as an image"):
        read_folder(folder, takes(4, 5, 3))


def test_more_images_than_memory(folder, monkeypatch):
    images(folder, {"a/1.png": 1, "b/1.png": 1})
    monkeypatch.setattr("edgeprune.data.images.memory", lambda: 100)
    with pytest.raises(ValueError, match="2 images of 4 x 5 x 3 are 480 bytes, more than this machine's memory"):
        read_folder(folder, takes(4, 5, 3))
