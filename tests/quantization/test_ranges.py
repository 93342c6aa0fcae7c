"""Ranges of activations: against NumPy's own percentiles, and against every range that could have been chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.quantization.calibration import calibrate
from edgeprune.quantization.fake_quantize import fake_quantizers
from edgeprune.quantization.ranges import RANGE_METHODS, range_method
from edgeprune.quantization.training import quantize_aware


def chosen(name, values, parts=7):
    chooser = range_method(name)()
    for part in np.array_split(values, parts):
        chooser.update(part)
    return chooser.range()


def error(values, low, high):
    """TensorFlow's own rounding."""
    import tensorflow as tf

    rounded = tf.quantization.fake_quant_with_min_max_vars(tf.constant(values, tf.float32), low, high)
    return float(np.square(rounded.numpy() - values).mean())


@given(seed=st.integers(0, 1000), shift=st.sampled_from([-3.0, 0.0, 2.0]), relu=st.booleans())
@settings(max_examples=10, deadline=None)
def test_each_method_chooses_what_it_says(seed, shift, relu):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, 5000) + shift
    values = np.maximum(values, 0) if relu else values
    assert chosen("min-max", values) == (values.min(), values.max())
    low, high = chosen("percentile", values)
    outside = ((values < low) | (values > high)).mean()
    assert outside == pytest.approx(1e-3, abs=6e-4)
    assert not relu or low == 0
    low, high = chosen("mse", values)
    best = error(values, low, high)
    for share in (0.25, 0.5, 0.75, 1.0):
        assert best <= error(values, min(values.min(), 0) * share, max(values.max(), 0) * share) * 1.05 + 1e-9


def test_more_values_than_are_held_are_drawn_alike():
    rng = np.random.default_rng(0)
    first, last = rng.random(300_000), 1 + rng.random(300_000)
    low, high = chosen("percentile", np.concatenate([first, last]), parts=30)
    assert low == np.concatenate([first, last]).min() and high == pytest.approx(2 - 2e-3, abs=1e-3)
    chooser = range_method("mse")()
    chooser.update(np.zeros(10))
    assert chooser.range() == (0, 0)


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_a_model_is_calibrated_by_a_method(flavor, method, rng):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu", name="a")])
    x = rng.normal(size=(200, 4)).astype(np.float32)
    rounding = quantize_aware(model)
    calibrate(rounding, x, 200, method)
    values = [x, np.asarray(model(x))]
    for layer, own in zip(fake_quantizers(rounding), values, strict=True):
        low, high = (float(end) for end in layer.range)
        assert (low, high) == pytest.approx(chosen(method, own.ravel()), rel=0.1, abs=0.05)


def test_an_unknown_method_is_an_error(rng):
    with pytest.raises(ValueError, match="'min-max', 'percentile', 'mse'; got 'guess'"):
        range_method("guess")
