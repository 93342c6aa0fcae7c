"""Channels-first models where TensorFlow has no kernels for them, and what XLA compiles in their place."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from edgeprune import flavor as flavors
from edgeprune.fit import fine_tune
from edgeprune.flavor import kernels


@pytest.mark.slow
def test_all_that_runs_a_model_runs_without_onednn(tmp_path):
    """oneDNN is off on CPUs without AVX-512. What is computed is compared with the same net on channels-last data."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    program = [sys.executable, str(Path(__file__).with_name("channels_first_program.py")), str(tmp_path)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "_has_channels_first_kernels", lambda: False)


def test_what_is_compiled(flavor, no_kernels):
    """A layer on channels-first data, alone, in another layer, in a nested model, or as a function."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    first = {"data_format": "channels_first"}

    def compiled(part, **arguments):
        call = lambda x: x  # noqa: E731
        return flavors.with_kernels(call, part, arguments) is not call

    assert compiled(layers.Conv2D(2, 3, **first)) and not compiled(layers.Conv2D(2, 3))
    assert compiled(layers.TimeDistributed(layers.Conv2D(2, 3, **first)))
    assert not compiled(layers.TimeDistributed(layers.Conv2D(2, 3))) and not compiled(layers.Dense(2))
    inner = keras.Sequential([keras.Input((3, 8, 8)), layers.Conv2D(2, 3, **first)])
    outer = keras.Sequential([keras.Input((3, 8, 8)), inner, layers.Flatten()])
    assert compiled(inner) and compiled(outer)
    i = keras.Input((3, 8, 8))
    weights = np.ones((3, 3, 3, 2), np.float32)
    if flavor == flavors.KERAS_3:
        h = keras.ops.conv(i, weights, data_format="channels_first")
    else:
        h = tf.nn.conv2d(i, weights, 1, "VALID", data_format="NCHW")
    assert compiled(keras.Model(i, h))


def test_training_is_compiled_too(flavor, no_kernels, rng):
    keras = flavors.keras_module(flavor)
    pooling = keras.layers.GlobalAveragePooling2D(data_format="channels_first")
    model = keras.Sequential([keras.Input((3, 4, 4)), pooling, keras.layers.Dense(2, activation="softmax")])
    x = rng.normal(size=(8, 3, 4, 4)).astype("float32")
    before = np.array(model.layers[-1].kernel)
    fine_tune(model, x, np.arange(8) % 2, epochs=1)
    assert model.jit_compile and (np.asarray(model.layers[-1].kernel) != before).any()


def test_kernels_are_looked_for_in_a_graph_too():
    found = []
    kernels._has_channels_first_kernels.cache_clear()
    tf.function(lambda: found.append(kernels._has_channels_first_kernels()))()
    kernels._has_channels_first_kernels.cache_clear()
    assert found == [kernels._has_channels_first_kernels()]


def test_what_is_compiled_has_gradients_and_the_same_values(flavor, no_kernels, rng):
    keras = flavors.keras_module(flavor)
    first = {"data_format": "channels_first"}
    model = keras.Sequential([keras.Input((3, 6, 6)), keras.layers.Conv2D(4, 3, groups=1, **first)])
    twin = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3)])
    twin.set_weights(model.get_weights())
    x = rng.normal(size=(2, 3, 6, 6)).astype("float32")
    call = flavors.with_kernels(lambda x: model(x, training=False), model)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(out**2) for out in (call(tf.constant(x)), twin(np.moveaxis(x, 1, -1)))]
    gradients = [
        tape.gradient(loss, flavors.tf_variable(net.weights[0]))
        for loss, net in zip(losses, (model, twin), strict=True)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-4)
