"""Rounding is that of a file: compared with its arithmetic in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import layer_classes, rounded_to_grid

WEIGHTS = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=4), elements=st.floats(-8, 8, width=32))


def on_grid(weight, axes, num_bits):
    """Each channel in steps of its largest magnitude over the largest integer, in double precision."""
    other = tuple(axis for axis in range(weight.ndim) if axis - weight.ndim not in axes)
    largest = np.abs(weight.astype(np.float64)).max(other, keepdims=True)
    step = np.where(largest, largest, 1) / (2 ** (num_bits - 1) - 1)
    return weight / step, step


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.sampled_from([(), (-1,), (-2,), (-2, -1)]), st.sampled_from([4, 8]))
def test_a_kernel_lies_on_the_grid_of_the_file(weight, axes, num_bits):
    weight[np.abs(weight) < 1e-30] = 0  # subnormal numbers have no scale
    rounded = rounded_to_grid(weight, axes, num_bits).numpy()
    exact, step = on_grid(weight, axes, num_bits)
    integers = rounded / step
    assert np.abs(integers - np.round(integers)).max() < 1e-3
    assert np.abs(integers - exact).max() <= 0.5 + 1e-3
    assert (rounded[weight == 0] == 0).all()


def test_gradients_pass_as_if_nothing_was_rounded(rng):
    weight = tf.constant(rng.normal(size=(3, 3, 2, 4)).astype(np.float32))
    factor = rng.normal(size=weight.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(weight)
        loss = tf.reduce_sum(rounded_to_grid(weight, (-1,), 8) * factor)
    np.testing.assert_array_equal(tape.gradient(loss, weight), factor)


def test_training_moves_a_range_and_evaluation_does_not(flavor):
    layer = layer_classes(flavors.keras_module(flavor).layers.Dense(1)).FakeQuantize(momentum=0.5)
    layer(np.float32([[1.0, -2.0]]), training=True)
    assert [float(end) for end in layer.range] == [-2.0, 1.0]  # the first batch is taken whole
    layer(np.float32([[3.0, 0.0]]), training=True)
    assert [float(end) for end in layer.range] == [-1.0, 2.0]
    layer(np.float32([[9.0, -9.0]]), training=False)
    layer(np.float32([[np.inf, 0.0]]), training=True)
    assert [float(end) for end in layer.range] == [-1.0, 2.0]


def test_activations_are_rounded_to_the_steps_of_their_range(flavor, rng):
    layer = layer_classes(flavors.keras_module(flavor).layers.Dense(1)).FakeQuantize()
    layer.build()
    layer.set_range(0.5, 2.0)  # zero is put in
    x = rng.uniform(-1, 3, (4, 50)).astype(np.float32)
    step = 2.0 / 255
    np.testing.assert_allclose(layer(x), np.clip(np.round(x / step), 0, 255) * step, atol=1e-6)


@pytest.mark.parametrize("settings", [{"fixed_range": (0.0, 1.0)}, {"num_bits": 4, "update_ranges": False}])
def test_a_layer_is_made_from_its_configuration(flavor, settings):
    kind = layer_classes(flavors.keras_module(flavor).layers.Dense(1)).FakeQuantize
    again = kind.from_config(kind(**settings, name="r").get_config())
    assert {name: getattr(again, name) for name in settings} == settings and again.name == "r"
