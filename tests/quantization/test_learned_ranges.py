"""Ranges of activations that are weights: the gradient moves them, a file has them, zero is one of their steps."""

import numpy as np
import pytest
from nets.quantized_nets import branched, chain, images

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import fake_quantizers, layer_classes
from edgeprune.tflite.runtime import Runtime

X = images()
Y = np.arange(len(X)) % 5


def learning(flavor, make=branched):
    """A net whose ranges are half as wide as its values, so that many are outside of them."""
    model = ep.quantize_aware(make(flavor), calibration=X, update_ranges="learned")
    for layer in measured(model):
        low, high = layer.limits
        layer.set_range(low / 2, high / 2)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def measured(model):
    return [layer for layer in fake_quantizers(model) if layer.fixed_range is None]


def limits(model):
    return [layer.limits for layer in measured(model)]


def test_the_gradient_of_a_range_is_that_of_the_values_outside_of_it(flavor):
    import tensorflow as tf

    keras = flavors.keras_module(flavor)
    layer = layer_classes(keras.layers.Dense(1)).FakeQuantize(update_ranges="learned")
    layer.build((None, 6))
    layer.set_range(-1.0, 2.0)
    weights = [getattr(layer, name) for name in ("range_min", "range_max")]
    assert [id(one) for one in layer.trainable_weights] == [id(one) for one in weights]
    upstream = tf.constant([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([-3.0, -1.5, 0.0, 1.0, 2.5, 9.0]), training=True) * upstream)
    found = tape.gradient(loss, [getattr(one, "value", one) if flavor == "keras" else one for one in weights])
    assert [float(one) for one in found] == [1.0 + 2.0, 16.0 + 32.0]


def test_zero_is_a_step_wherever_an_optimizer_puts_the_ends(flavor):
    keras = flavors.keras_module(flavor)
    layer = layer_classes(keras.layers.Dense(1)).FakeQuantize(update_ranges="learned")
    layer.build((None, 2))
    for low, high in ((0.5, 2.0), (-2.0, -0.5), (-0.7, 2.0)):
        layer.range_min.assign(low)
        layer.range_max.assign(high)
        assert layer.limits[0] <= 0 < layer.limits[1]
        assert np.array(layer(np.zeros((1, 2), np.float32)))[0, 0] == 0.0


def test_ranges_are_learned_and_the_file_has_them(flavor, tmp_path):
    model = learning(flavor)
    before = limits(model)
    assert sum("range_m" in weight.name for weight in model.trainable_weights) == 2 * len(before)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    after = limits(model)
    assert sum(old != new for old, new in zip(before, after, strict=True)) >= len(before) - 1
    result = ep.export_tflite(model, tmp_path / "m.tflite", "int8")
    assert result.verification.passed
    ((low, high),) = [layer.limits for layer in measured(model) if layer.name == "image_range"]
    (port,) = Runtime(result.path).inputs.values()
    assert port.scale == pytest.approx((high - low) / 255, rel=1e-5)
    kept = ep.strip_quantization(model)
    assert not any("range" in weight.name for weight in kept.weights)


def test_they_are_saved_and_learned_further(flavor, tmp_path):
    model = learning(flavor, chain)
    model.fit(X, Y, batch_size=32, verbose=0)
    model.save(tmp_path / "aware.keras")
    with ep.tfmot.quantization.keras.quantize_scope():
        again = ep.load_model(tmp_path / "aware.keras")
    saved = limits(model)
    assert limits(again) == saved
    for one in (model, again):
        one.fit(X, Y, batch_size=32, shuffle=False, verbose=0)
    assert limits(again) == limits(model) != saved
