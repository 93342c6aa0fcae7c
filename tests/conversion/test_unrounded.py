"""Learned queries, of which parts of a model are made before any input is seen, and `one_hot`, in integers."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.conversion import unrounded
from edgeprune.tflite.file import read_tflite

X = np.random.default_rng(0).normal(size=(32, 6, 16)).astype("float32")


def pooled_by_attention(flavor):
    """A model that pools a sequence with an attention whose queries are weights of their own."""
    keras = flavors.keras_module(flavor)
    repeat = keras_3.ops.repeat if flavor == "keras" else tf.repeat

    @keras.saving.register_keras_serializable("test")
    class Pooling(keras.layers.Layer):
        def build(self, shape):
            self.queries = self.add_weight(shape=(1, 3, 16), initializer="random_normal", name="queries")
            self.attention = keras.layers.MultiHeadAttention(2, 8, name="attention")
            if flavor == "keras":
                self.attention.build((1, 3, 16), shape)

        def call(self, inputs):
            batch = tf.shape(inputs)[0] if flavor == "tf_keras" else keras_3.ops.shape(inputs)[0]
            return self.attention(repeat(self.queries, batch, axis=0), inputs)

        def compute_output_shape(self, shape):
            return (shape[0], 3, 16)

    keras.utils.set_random_seed(0)
    x = keras.Input((6, 16))
    pooled = Pooling(name="pooling")(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.Flatten()(pooled)))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_queries_that_are_weights(flavor, scheme, tmp_path):
    aware = ep.quantize_aware(pooled_by_attention(flavor), scheme, calibration=X)
    made = ep.export_tflite(aware, tmp_path / "m.tflite", scheme, X, verbose=False)
    assert made.verification is not None and made.verification.passed
    operators = read_tflite(made.path).operators
    assert not [one.name for one in operators if "float32" in one.output_dtypes and one.name != "DEQUANTIZE"]


def test_only_what_is_constant_is_left_in_floats():
    kernel, query = tf.ones((4, 4)), tf.ones((1, 4))

    def rounded(x):
        return tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0)

    @tf.function(input_signature=[tf.TensorSpec((1, 4))])
    def model(x):
        constant = tf.reshape(rounded(query), (1, 4)) @ kernel
        result = rounded(x) @ rounded(kernel) + rounded(constant)
        unrounded.take_rounding_off(tf.compat.v1.get_default_graph(), [x])
        return result

    graph = model.get_concrete_function().graph
    one, other = (op for op in graph.get_operations() if op.type == "MatMul")
    constant, varying = (one, other) if one.inputs[0].op.type == "Reshape" else (other, one)
    assert constant.inputs[0].op.inputs[0].op.type == "Const"
    assert [tensor.op.type for tensor in varying.inputs] == ["FakeQuantWithMinMaxVars"] * 2
    assert sum(op.type == "AddV2" and op.inputs[1].op.type.startswith("Fake") for op in graph.get_operations()) == 1


def model_of_words(flavor):
    """A model that sums up what it finds for each of eight words."""
    keras = flavors.keras_module(flavor)
    one_hot = keras_3.ops.one_hot if flavor == "keras" else tf.one_hot
    keras.utils.set_random_seed(0)
    x, words = keras.Input((6, 16), name="x"), keras.Input((6,), dtype="int32", name="words")
    summed = keras.layers.Dot((1, 1))([one_hot(words, 8) / 4.0, keras.layers.Dense(8)(x)])
    return keras.Model([x, words], keras.layers.Dense(4)(summed))


@pytest.mark.parametrize("is_aware", [False, True])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_one_hot(flavor, is_aware, quantization, tmp_path):
    data = {"x": X, "words": np.random.default_rng(0).integers(0, 8, (32, 6)).astype("int32")}
    model = model_of_words(flavor)
    if is_aware:
        model = ep.quantize_aware(model, quantization, calibration=data)
    made = ep.export_tflite(model, tmp_path / "m.tflite", quantization, data, verbose=False)
    assert made.verification is not None and made.verification.passed


def test_what_is_made_of_constants_is_rounded_once():
    first, second = tf.ones((1, 4)), tf.ones((1, 4))

    def rounded(x, num_bits=8):
        return tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0, num_bits)

    @tf.function(input_signature=[tf.TensorSpec((1, 8))])
    def model(x):
        joined = tf.concat([rounded(tf.sin(rounded(first))), rounded(second, 4)], -1)
        result = x + tf.reshape(rounded(joined), (1, 8))
        unrounded.take_rounding_off(tf.compat.v1.get_default_graph(), [x])
        return result

    operations = model.get_concrete_function().graph.get_operations()
    (joined,) = (op for op in operations if op.type == "ConcatV2")
    (sine,) = (op for op in operations if op.type == "Sin")
    (added,) = (op for op in operations if op.type == "AddV2")
    assert [tensor.op.type for tensor in joined.inputs[:2]] == ["Sin", "FakeQuantWithMinMaxVars"]  # kernels have 4 bits
    assert sine.inputs[0].op.type == "Const"
    assert added.inputs[1].op.inputs[0].op.type == "FakeQuantWithMinMaxVars"
