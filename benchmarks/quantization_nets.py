"""The nets and the data of `quantization.py`: Fashion-MNIST, and a smartwatch's motion from the package seglearn."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from post_training import inverted_residuals

import edgeprune as ep
from edgeprune import flavor
from edgeprune.fit import fit
from edgeprune.models import BATCH_NORM_MOMENTUM, ds_cnn, resnet8

BATCH_SIZE = 128
WINDOW, HOP = 128, 32  # samples of motion, at 50 Hz
TEST_SUBJECTS = (3, 6, 9)


@dataclass(frozen=True)
class Data:
    """Samples of float32, and labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def first(self, train: int | None, test: int | None) -> Data:
        """The first of the samples."""
        return Data(self.x_train[:train], self.y_train[:train], self.x_test[:test], self.y_test[:test])


@dataclass(frozen=True)
class Net:
    """A net of the benchmark.

    Attributes:
        build: makes it, untrained, of the Keras whose name is passed.
        data: loads what it is trained and tested on.
    """

    build: Callable[[str], Any]
    data: Callable[[], Data]


@functools.cache
def fashion(full: bool = True) -> Data:
    """Fashion-MNIST: images (n, 28, 28, 1) from 0 to 1."""
    (x_train, y_train), (x_test, y_test) = ep.load_fashion_mnist(full=full)
    x_train, x_test = (images[..., None].astype(np.float32) / 255 for images in (x_train, x_test))
    return Data(x_train, y_train, x_test, y_test)


@functools.cache
def watch() -> Data:
    """Seven exercises of the shoulder as a smartwatch feels them: windows (n, 128, 6), three of ten persons to test.

    Source: https://github.com/dmbee/seglearn (BSD), https://arxiv.org/abs/1802.01489

    Raises:
        FileNotFoundError: seglearn is not installed.
    """
    package = importlib.util.find_spec("seglearn")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("the motion data are part of seglearn: pip install seglearn")
    path = Path(package.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    read = np.load(path, allow_pickle=True).item()
    windows: dict[bool, list[np.ndarray]] = {False: [], True: []}
    labels: dict[bool, list[int]] = {False: [], True: []}
    for motion, label, subject in zip(read["X"], read["y"], read["subject"], strict=True):
        for start in range(0, len(motion) - WINDOW + 1, HOP):
            windows[subject in TEST_SUBJECTS].append(motion[start : start + WINDOW])
            labels[subject in TEST_SUBJECTS].append(int(label))
    x_train, x_test = (np.stack(windows[tested]).astype(np.float32) for tested in (False, True))
    order = np.random.default_rng(0).permutation(len(x_train))
    return Data(x_train[order], np.array(labels[False])[order], x_test, np.array(labels[True]))


def conv1d(flavor_name: str = flavor.KERAS_3) -> Any:
    """Three one-dimensional convolutions with batch normalization; 15,335 parameters."""
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    inputs = x = keras.Input((WINDOW, 6), name="motion")
    for filters in (32, 48, 48):
        x = layers.Conv1D(filters, 5, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))
    x = layers.GlobalAveragePooling1D()(layers.Dropout(0.3)(x))
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(x), name="conv1d")


NETS = {
    "resnet8": Net(lambda flavor_name: resnet8(flavor=flavor_name), fashion),
    "ds_cnn": Net(lambda flavor_name: ds_cnn((28, 28, 1), 10, flavor=flavor_name), fashion),
    "inverted": Net(inverted_residuals, fashion),
    "conv1d": Net(conv1d, watch),
}


def train(
    model: Any,
    data: Data,
    epochs: int,
    learning_rate: float,
    seed: int,
    description: str,
    callbacks: tuple[Any, ...] = (),
) -> None:
    """Train with a learning rate that falls to zero on a cosine."""
    keras = flavor.keras_of(model)
    steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    keras.utils.set_random_seed(seed + 1)
    fit(
        model,
        data.x_train,
        data.y_train,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        callbacks=callbacks,
        description=description,
    )
