"""What a quantization-aware model rounds is listed, and what it does not, with the reason."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

import edgeprune as ep
from edgeprune.flavor import keras_module
from edgeprune.tflite.runtime import Runtime


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


def _whole(flavor, call):
    """A net with a layer of two dense layers and a weight of its own, whose call is the one passed."""
    keras = keras_module(flavor)

    class Block(keras.layers.Layer):
        def __init__(self, name=None, trainable=True, dtype=None):
            super().__init__(name=name, trainable=trainable, dtype=dtype)
            self.first, self.last = keras.layers.Dense(4, name="first"), keras.layers.Dense(4, name="last")

        def build(self, shape):
            self.first.build(shape)
            self.last.build((None, 4))
            self.gain = self.add_weight(shape=(4,), name="gain")
            super().build(shape)

        def call(self, x):
            return call(self, x)

    x = keras.Input((4,), name="x")
    z = Block(name="block")(keras.layers.Dense(4, name="stem")(x))
    return keras.Model(x, keras.layers.Dense(2, name="head")(z), name="net")


def test_the_line_that_keeps_a_layer_whole_is_named(flavor):
    import tensorflow as tf

    def call(self, x):
        z = self.first(x)
        z = tf.map_fn(lambda row: row * 2.0, z)
        return self.last(z) * self.gain

    aware = ep.quantize_aware(_whole(flavor, call))
    left = ep.quantization_report(aware).left
    assert set(left) == {"block", "block/first", "block/last"}
    line = '"z = tf.map_fn(lambda row: row * 2.0, z)", line '
    assert left["block"].startswith("its call cannot be followed (") and line in left["block"]
    assert left["block/first"].startswith("inside 'block', whose call cannot be followed (")
    assert line in left["block/last"] and "of test_report.py): quantized when the file is written" in left["block/last"]


def test_a_weight_of_another_layer_is_named(flavor):
    keras = keras_module(flavor)

    def call(self, x):
        if flavor == "keras":
            return self.last(keras.ops.matmul(x, self.first.kernel))
        import tensorflow as tf

        return self.last(tf.matmul(x, tf.convert_to_tensor(self.first.kernel)))

    left = ep.quantization_report(ep.quantize_aware(_whole(flavor, call))).left
    assert "weights outside of the layers that hold them: " in left["block"]
    assert "kernel" in left["block"]


def test_a_layer_that_adds_a_loss_in_training_stays_whole_and_adds_it(flavor):
    keras = keras_module(flavor)

    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = keras.layers.Dense(4, name="inner")

        def build(self, shape):
            self.inner.build(shape)
            super().build(shape)

        def call(self, x, training=False):
            z = self.inner(x)
            if training:
                self.add_loss(0.0 * z[0, 0] + 3.0)
            return z

    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="head")(Block(name="block")(x)), name="net")
    aware = ep.quantize_aware(model)
    aware(np.zeros((2, 4), np.float32), training=True)
    assert [float(loss) for loss in aware.losses] == [3.0]
    left = ep.quantization_report(aware).left
    assert set(left) == {"block/inner"}
    assert left["block/inner"].startswith("inside 'block', whose call cannot be followed (it adds a loss of its own")
    alone = keras.Model(x, Block(name="block")(x), name="alone")
    with pytest.raises(ValueError, match=r"no kernel .*; these stay whole: 'block' \(it adds a loss .*export_tflite"):
        ep.quantize_aware(alone)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_weight_that_a_layer_uses_itself_is_rounded_with_activations_or_listed(flavor, scheme):
    aware = ep.quantize_aware(_whole(flavor, lambda self, x: self.last(self.first(x) * self.gain)), scheme)
    report = ep.quantization_report(aware)
    if scheme == "int8":
        assert report.left == {} and "block_gain_range" in {one.name for one in report.activations}
    else:
        assert list(report.left) == ["block_gain"] and not report.activations
        assert report.left["block_gain"].startswith("a weight that its layer uses itself: quantized when the file")


def _functions(flavor):
    """Functions that a file computes in floats, by the operator they become."""
    import tensorflow as tf

    ops = keras_module("keras").ops if flavor == "keras" else tf.math
    return {
        "CUMSUM": lambda x: ops.cumsum(x, 1),
        **{"SIN": ops.sin, "COS": ops.cos, "FLOOR": ops.floor, "CEIL": ops.ceil, "ROUND": ops.round},
        **{"SIGN": ops.sign, "FLOOR_MOD": lambda x: x % 2.0, "FLOOR_DIV": lambda x: x // 2.0},
    }


def _float_operators(path):
    """How often each operator of a file that computes in floats occurs; those that move values are passed over."""
    found = (one.name for one in ep.read_tflite(path).operators if "float32" in one.output_dtypes)
    return Counter(name for name in found if name not in ("DEQUANTIZE", "RESHAPE"))


def _operators(left):
    """The operators that are named in the reasons of a report."""
    return Counter(
        match[1] for reason in left.values() if (match := re.search(r"(?:operator|for) ([A-Z0-9_]+)", reason))
    )


def test_functions_that_a_file_computes_in_floats_are_listed(flavor, tmp_path):
    keras = keras_module(flavor)
    x = keras.Input((6,), name="x")
    branches = [
        function(keras.layers.Dense(3, name=f"dense_{name.lower()}")(x))
        for name, function in _functions(flavor).items()
    ]
    model = keras.Model(x, keras.layers.Dense(2, name="head")(keras.layers.Concatenate()(branches)), name="net")
    data = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    aware = ep.quantize_aware(model, calibration=data)
    left = ep.quantization_report(aware).left
    ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verify=False, verbose=False)
    assert _operators(left) == _float_operators(tmp_path / "m.tflite") == Counter(_functions(flavor).keys())
    assert all(reason.startswith("computed in floats in the file too: its operator ") for reason in left.values())


def test_layers_that_a_file_computes_in_floats_are_not_rounded(flavor, tmp_path):
    keras = keras_module(flavor)
    layers = keras.layers
    x = keras.Input((4, 4, 4, 2), name="x")
    z = layers.Conv3D(3, 2, name="cube")(x)
    z = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(z))
    z = layers.Conv3DTranspose(2, 2, name="back")(z)
    z = layers.Flatten()(z)
    z = layers.Dense(4, activation="elu", name="dense")(z)
    z = layers.ELU(name="elu")(layers.Dense(4, name="plain")(z))
    model = keras.Model(x, layers.Dense(2, name="head")(z), name="net")
    data = np.random.default_rng(0).normal(size=(32, 4, 4, 4, 2)).astype(np.float32)
    aware = ep.quantize_aware(model, calibration=data)
    report = ep.quantization_report(aware)
    assert [one.layer for one in report.kernels] == ["dense", "plain", "head"]
    assert set(report.left) == {"cube", "back"}
    assert report.left["cube"] == "computed in floats in the file too: its operator CONV_3D has no version in integers"
    assert {"cube_range", "relu_range"} <= {one.name for one in report.activations}, "a product of integers is between"
    result = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert _operators(report.left) == _float_operators(tmp_path / "m.tflite")
    assert result.verification.passed
    runtime = Runtime(tmp_path / "m.tflite")
    (given,) = runtime.run_all({name: data for name in runtime.inputs}, "Running").values()
    (port,) = runtime.outputs.values()
    expected = ep.quantized_evaluation(aware).predict(data, verbose=0)
    assert np.abs(given - expected).max() < 1.01 * port.scale


def test_the_function_elu_is_listed_where_its_alpha_is_not_1(tmp_path):
    keras = keras_module("keras")
    x = keras.Input((6,), name="x")
    branches = [keras.ops.elu(keras.layers.Dense(3)(x), alpha) for alpha in (1.0, 0.5)]
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Concatenate()(branches)), name="net")
    data = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    aware = ep.quantize_aware(model, calibration=data)
    ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verify=False, verbose=False)
    assert _operators(ep.quantization_report(aware).left) == {"ELU": 1}
    assert _float_operators(tmp_path / "m.tflite")["ELU"] == 1


def test_all_of_a_normalization_is_in_integers(flavor, tmp_path):
    keras = keras_module(flavor)
    layers = keras.layers
    kinds = {"LayerNormalization": {}, "GroupNormalization": {"groups": 2}, "UnitNormalization": {}}
    kinds |= {"RMSNormalization": {}} if flavor == "keras" else {}
    x = keras.Input((5, 6), name="x")
    branches = [getattr(layers, kind)(**settings)(layers.Dense(4)(x)) for kind, settings in kinds.items()]
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Concatenate()(branches)), name="net")
    data = np.random.default_rng(0).normal(size=(32, 5, 6)).astype(np.float32)
    aware = ep.quantize_aware(model, calibration=data)
    ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verify=False, verbose=False)
    assert not _float_operators(tmp_path / "m.tflite") and not _operators(ep.quantization_report(aware).left)
