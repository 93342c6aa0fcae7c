"""What a quantization-aware model rounds is listed, and what it does not, with the reason."""

from __future__ import annotations

import numpy as np
import pytest

import edgeprune as ep
from edgeprune.flavor import keras_module


@pytest.fixture
def model(flavor):
    keras = keras_module(flavor)
    layers = keras.layers
    image = keras.Input((6, 6, 2), name="image")
    z = layers.Conv2D(4, 3, use_bias=False, name="stem")(image)
    z = layers.BatchNormalization(name="norm")(z)
    z = layers.ReLU(name="relu")(z)
    z = layers.LayerNormalization(name="layer_norm")(z)
    z = layers.GlobalAveragePooling2D(name="pool")(z)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="hidden")], name="inner")
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(inner(z)), name="net")


def test_kernels_ranges_and_what_is_left(model):
    kernel = model.get_layer("stem").kernel
    values = np.array(kernel)
    values[0, 0, 0, :2] = 0
    kernel.assign(values)
    aware = ep.quantize_aware(model, "int4", ignore="head")
    report = ep.quantization_report(aware)
    assert [(one.layer, one.weight, one.shape, one.num_bits, one.num_scales) for one in report.kernels] == [
        ("stem", "kernel", (3, 3, 2, 4), 4, 4),
        ("inner/hidden", "kernel", (4, 5), 4, 5),
    ]
    assert [one.kept_zeros for one in report.kernels] == [2, 0]
    assert set(report.left) == {"layer_norm", "head"}
    assert "several operators" in report.left["layer_norm"] and "ignore" in report.left["head"]
    assert all(one.range is None for one in report.activations if not one.fixed), "no data has been seen"
    assert "no data yet" in str(report) and "not rounded: head" in str(report)


def test_ranges_are_those_of_the_data(model):
    x = np.random.default_rng(0).uniform(-2, 3, (32, 6, 6, 2)).astype("float32")
    report = ep.quantization_report(ep.quantize_aware(model, "int8", calibration=x))
    found = {one.name: one for one in report.activations}
    assert found["image_range"].range == (pytest.approx(x.min()), pytest.approx(x.max()))
    assert found["head"].fixed and found["head"].range == (0.0, 255 / 256)
    assert all(one.range is not None and one.num_bits == 8 for one in report.activations)


def test_a_float_model_is_refused(model):
    with pytest.raises(ValueError, match="not quantization-aware"):
        ep.quantization_report(model)
