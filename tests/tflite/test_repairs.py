"""What is put right in files that the converter wrote."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edgeprune import flavor as flavors
from edgeprune.export import export_tflite
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.repairs import repaired


def own(flavor, function, *inputs):
    """A layer that computes a function of TensorFlow."""
    keras = flavors.keras_module(flavor)

    class Own(keras.layers.Layer):
        def call(self, x):
            return function(x)

    return Own()(*inputs)


@pytest.mark.parametrize("integer_io", [True, False])
def test_what_is_reversed_keeps_its_scale(flavor, integer_io, rng, tmp_path):
    """A reversed tensor, joined with one of another range."""
    keras = flavors.keras_module(flavor)
    x = keras.Input((6, 3))
    backwards = own(flavor, lambda x: tf.reverse(x, (1,)), x)
    model = keras.Model(x, keras.layers.Concatenate()([backwards, keras.layers.Rescaling(5.0)(x)]))
    data = rng.normal(size=(30, 6, 3))
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data, integer_io=integer_io)
    (output,) = result.verification.outputs
    assert output.relative_error < 0.03
    (scale,) = {
        detail["quantization"]
        for detail in Interpreter(str(result.path)).get_tensor_details()
        if "reversed" in detail["name"]
    }
    assert scale[0] == pytest.approx(np.ptp(data) / 255, rel=0.01)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_select_becomes_the_one_that_microcontrollers_have(flavor, quantization, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((6, 3))
    model = keras.Model(x, own(flavor, lambda x: tf.where(x > 0, x, 0.5 * x - 1), x))
    result = export_tflite(model, tmp_path / "m.tflite", quantization, rng.normal(size=(30, 6, 3)))
    operators = read_tflite(result.path).operator_counts
    assert "SELECT" not in operators and operators["SELECT_V2"] == 1
    assert result.verification.passed


def test_a_file_in_which_nothing_is_wrong_stays_as_it_is(tmp_path):
    keras = flavors.keras_module("keras")
    result = export_tflite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), tmp_path / "m.tflite")
    assert repaired(result.path.read_bytes()) == result.path.read_bytes()


def test_an_unrolled_sequence_takes_no_more_room_for_names_than_its_length(rng, tmp_path):
    keras = flavors.keras_module("keras")
    sizes = []
    for steps in (25, 75):
        model = keras.Sequential([keras.Input((steps, 2)), keras.layers.SimpleRNN(2)])
        data = rng.normal(size=(2, steps, 2))
        sizes.append(export_tflite(model, tmp_path / f"{steps}.tflite", "int8", data).bytes)
    assert sizes[1] < 3.5 * sizes[0]
