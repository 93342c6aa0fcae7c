"""What every test may use: quiet TensorFlow, seeded randomness, both Kerases, images."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests state what the CPU computes

import numpy as np
import pytest

from edgeprune import flavor as flavors


@pytest.fixture(params=[flavors.KERAS_3, flavors.TF_KERAS])
def flavor(request) -> str:
    """The name of one Keras; a test that takes it runs once for each."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of random numbers that starts the same in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def sample():
    """The embedded sample as a model takes it: `(x_train, y_train), (x_test, y_test)`, float32 in 0..1."""
    from edgeprune.datasets import load_fashion_mnist

    return tuple((x[..., None].astype(np.float32) / 255, y) for x, y in load_fashion_mnist())


@pytest.fixture
def two_replicas():
    """A strategy over two logical CPUs. Its collectives would clash with those of another model in this process."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())


def pytest_configure(config):
    """Two logical CPUs, which MirroredStrategy needs; only possible before TensorFlow starts."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
