"""Lookups of numbers and encodings of categories in a file: the same values as those of the Keras layers."""

import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.tflite.runtime import Runtime


def layers_under_test(layers):
    """By input, the layers that read it."""
    numbers = {"vocabulary": [5, -3, 7]}
    words = {"vocabulary": ["rome", "oslo"]}
    bins = {"bin_boundaries": [-1.0, 0.5]}
    return {
        "number": [
            layers.IntegerLookup(**numbers, name="int"),
            layers.IntegerLookup(**numbers, num_oov_indices=2, mask_token=0, name="masked"),
            layers.IntegerLookup(**numbers, output_mode="multi_hot", mask_token=0, name="multi_hot"),
            layers.IntegerLookup(**numbers, output_mode="count", name="count"),
            layers.IntegerLookup(**numbers, output_mode="tf_idf", idf_weights=[0.5, 2.0, 1.0], name="tf_idf"),
            layers.IntegerLookup(vocabulary=[0, 5, -3, 7, 9, 2**40], num_oov_indices=0, name="no_oov"),
        ],
        "one": [layers.IntegerLookup(**numbers, output_mode="one_hot", name="one_hot")],
        "place": [
            layers.IntegerLookup(**numbers, invert=True, name="inverted"),
            layers.CategoryEncoding(4, output_mode="multi_hot", name="categories"),
            layers.CategoryEncoding(4, output_mode="count", name="category_counts"),
        ],
        "word": [
            layers.StringLookup(**words, output_mode="multi_hot", mask_token="", name="words"),
            layers.StringLookup(**words, output_mode="count", name="word_counts"),
        ],
        "value": [
            layers.Discretization(**bins, output_mode="multi_hot", name="bins"),
            layers.Discretization(**bins, output_mode="count", name="bin_counts"),
        ],
        "bin": [layers.Discretization(**bins, output_mode="one_hot", name="one_bin")],
    }


DATA = {
    "number": np.array([[5, 5, -3], [0, 9, 7], [2**40, -3, 0]]),
    "one": np.array([[7], [0], [5]]),
    "place": np.array([[0, 3, 3], [2, 2, 1], [1, 0, 2]]),
    "word": np.array([["rome", "", "rome"], ["x", "oslo", "y"], ["oslo", "rome", "oslo"]], object),
    "value": np.array([[-2, 0, 0], [0.5, -1, 3], [1, 1, 1]], "float32"),
    "bin": np.array([[-1], [0.25], [9]], "float32"),
}


def test_each_layer_gives_the_same_in_the_file(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    inputs = {name: keras.Input(x.shape[1:], dtype=tf.as_dtype(x.dtype).name, name=name) for name, x in DATA.items()}
    read_by = layers_under_test(keras.layers)
    model = keras.Model(inputs, {one.name: one(inputs[name]) for name, several in read_by.items() for one in several})
    result = ep.export_tflite(model, tmp_path / "m.tflite", None, DATA, verbose=False)
    assert result.verification.passed and len(result.outputs) == 15
    expected = model({name: tf.constant(x) for name, x in DATA.items()})
    for name, values in Runtime(tmp_path / "m.tflite").run_all(DATA, "samples").items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)
    # Counted by hand: 5 twice, -3 once, nothing unknown; the mask counts nothing.
    np.testing.assert_array_equal(np.asarray(expected["count"])[0], [0, 2, 1, 0])
    np.testing.assert_array_equal(np.asarray(expected["multi_hot"])[1], [1, 0, 0, 1])


def test_tensorflow_counts_as_before_afterwards_and_after_a_failure(flavor, tmp_path):
    own = tf.math.bincount, tf.compat.v2.math.bincount
    keras = flavors.keras_module(flavor)
    number = keras.Input((1,), dtype="int64")
    hashed = keras.layers.Hashing(3, output_mode="multi_hot", name="hashed")(number)
    with pytest.raises(ValueError, match=r"in layer 'hashed' .*without_preprocessing=True"):
        ep.export_tflite(keras.Model(number, keras.layers.Dense(1)(hashed)), tmp_path / "m.tflite", verbose=False)
    assert (tf.math.bincount, tf.compat.v2.math.bincount) == own
    assert not list(tmp_path.iterdir())
