"""Divisors that are small beside others do not become zero in a file of integers."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.conversion import divisors
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.runtime import Runtime

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 6, 8)).astype("float32")
X[:, :2] *= 2.0**-12  # as an embedding that is next to zero


def model_of(flavor, divided):
    keras = flavors.keras_module(flavor)
    ops = keras_3.ops if flavor == "keras" else tf.math
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8), name="x")
    return keras.Model(x, keras.layers.Dense(4)(divided(ops, x)), name="net")


def mean_square(ops, x):
    mean = ops.mean if hasattr(ops, "mean") else ops.reduce_mean
    return mean(ops.square(x), -1, True) + 1e-6


DIVIDED = {
    "by a root": lambda ops, x: x / ops.sqrt(mean_square(ops, x)),
    "by a mean square": lambda ops, x: x / (mean_square(ops, x) + 1e-3),
    "times a reciprocal": lambda ops, x: x * ops.reciprocal(mean_square(ops, x) + 1e-3),
}


@pytest.mark.parametrize("name", list(DIVIDED))
@pytest.mark.parametrize("is_aware", [False, True])
def test_small_divisors_do_not_stop_a_file(flavor, name, is_aware, tmp_path):
    model = model_of(flavor, DIVIDED[name])
    if is_aware:
        model = ep.quantize_aware(model, "int8", calibration=X)
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", X, verify=False, verbose=False)
    runtime = Runtime(made.path)
    (values,) = runtime.run_all({"x": X}, "Running").values()
    expected = np.asarray(model(X))[:, 2:]
    error = np.asarray(values)[:, 2:] - expected
    if not (is_aware and name == "times a reciprocal"):  # which docs/limits.md names
        assert np.mean(error**2) < 0.05 * np.var(expected)
    assert not [one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes]


@pytest.mark.parametrize("is_aware", [False, True])
def test_a_reciprocal_root_is_one_operator(flavor, is_aware, tmp_path):
    model = model_of(flavor, lambda ops, x: x * ops.reciprocal(ops.sqrt(mean_square(ops, x) + 0.1)))
    data = RANDOM.normal(size=(64, 6, 8)).astype("float32")
    if is_aware:
        model = ep.quantize_aware(model, "int8", calibration=data)
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, verbose=False)
    counts = read_tflite(made.path).operator_counts
    assert made.verification.passed and counts["RSQRT"] == 1 and not {"DIV", "SQRT"} & set(counts)


@pytest.mark.parametrize("least, is_kept", [(0.0, True), (0.01, True), (0.5, False), (-0.01, False)])
def test_a_divisor_is_kept_apart_from_zero_where_it_is_never_negative_and_was_near(least, is_kept):
    @tf.function(input_signature=[tf.TensorSpec((4,)), tf.TensorSpec((4,))])
    def model(x, divisor):
        result = x / (divisor + 0.0)
        graph = tf.compat.v1.get_default_graph()
        assert divisors.has_divisions(graph)
        divisors.keep_from_zero(graph, [least, -5.1])
        return result

    graph = model.get_concrete_function().graph
    (division,) = (one for one in graph.get_operations() if one.type == "RealDiv")
    assert (division.inputs[1].op.type == "Maximum") == is_kept
    x, given = tf.ones(4), tf.constant([0.0, 0.01, 1.0, 5.1])
    expected = 1 / np.maximum(given, 5.1 / 255) if is_kept else 1 / np.asarray(given)
    np.testing.assert_allclose(model(x, given), expected, rtol=1e-6)


def test_what_the_user_wants_in_floats_is_divided_as_it_is(flavor, tmp_path):
    keras = flavors.keras_module(flavor)

    class Division(keras.layers.Layer):
        def call(self, x):
            return x / (mean_square(keras_3.ops if flavor == "keras" else tf.math, x) + 1e-3)

        def compute_output_shape(self, shape):
            return shape

    x = keras.Input((6, 8), name="x")
    model = keras.Model(x, keras.layers.Dense(4, name="head")(Division(name="divided")(x)))
    for layers, expected in (({}, 1), ({"divided": 32}, 0)):
        scheme = ep.Scheme(8, 8, layers=layers)
        made = ep.export_tflite(model, tmp_path / "m.tflite", scheme, X, verify=False, overwrite=True, verbose=False)
        assert read_tflite(made.path).operator_counts.get("MAXIMUM", 0) == expected
