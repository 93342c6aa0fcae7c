"""Float operators between integer ones, in files that TensorFlow's converter wrote."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgeprune.tflite.float_islands import float_islands
from edgeprune.tflite.graph import operators, type_name, unpacked


def cube():
    """A layer that the converter leaves in floats."""
    return keras.layers.Conv3D(2, 2)


def dense():
    return keras.layers.Dense(3)


def converted(made, quantized=True, integer_io=True):
    """A bare conversion of a Sequential model on (4, 4, 4, 2), which shares nothing with edgeprune's."""
    model = keras.Sequential([keras.Input(batch_shape=(1, 4, 4, 4, 2)), *(make() for make in made)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        data = np.random.default_rng(0).normal(size=(8, 1, 4, 4, 4, 2)).astype("float32")
        converter.representative_dataset = lambda: ([sample] for sample in data)
        if integer_io:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.mark.parametrize(
    "made, islands",
    [
        ((cube, keras.layers.Flatten, dense), [("CONV_3D",)]),
        ((cube, cube, keras.layers.Flatten, dense), [("CONV_3D", "CONV_3D")]),
        ((cube, dense, cube), [("CONV_3D",), ("CONV_3D",)]),
        ((keras.layers.Flatten, dense), []),
    ],
)
def test_islands_are_the_float_operators_between_integer_ones(made, islands):
    found = float_islands(converted(made))
    assert [island.operators for island in found] == islands
    assert all(len(island.locations) == len(island.operators) for island in found)


@pytest.mark.parametrize("settings", [{"quantized": False}, {"integer_io": False}])
def test_floats_at_the_ends_are_no_island(settings):
    content = converted((keras.layers.Flatten, dense), **settings)
    assert any(type_name(call.output(0)) == "float32" for call in operators(unpacked(content)))
    assert float_islands(content) == ()


def test_floats_at_the_end_of_a_file_are_no_island():
    content = converted((dense, cube), integer_io=False)
    assert "CONV_3D" in {call.name for call in operators(unpacked(content))}
    assert float_islands(content) == ()
