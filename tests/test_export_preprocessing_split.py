"""A model split at its lookup layers: both parts together are the whole, and the rest is a file in int8."""

import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors


@pytest.fixture(params=["keras", "tf_keras"])
def flavor(request):
    return request.param


def model_of_text(keras):
    layers = keras.layers
    text = keras.Input((1,), dtype="string", name="text")
    real = keras.Input((2,), name="real")
    number = keras.Input((1,), dtype="int64", name="number")
    words = layers.TextVectorization(vocabulary=["film", "good", "bad"], output_sequence_length=4, name="words")(text)
    several = layers.IntegerLookup(vocabulary=[5, 7], output_mode="multi_hot", name="several")(number)
    together = layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 3)(words)), real, several])
    return keras.Model([text, real, number], layers.Dense(2, name="out")(together))


def test_both_parts_are_the_whole_and_the_rest_converts_to_int8(flavor, rng, tmp_path):
    model = model_of_text(flavors.keras_module(flavor))
    layers = [layer.name for layer in model.layers]
    split = ep.split_preprocessing(model)
    assert [layer.name for layer in model.layers] == layers
    assert split.vocabularies == {"words": ["", "[UNK]", "film", "good", "bad"], "several": [-1, 5, 7]}
    texts = tf.constant([["good film"], [""], ["bad Ünknown"], ["film film film film film"]] * 5)
    numbers, real = tf.constant([[5], [7], [9], [-1]] * 5, tf.int64), tf.constant(rng.normal(size=(20, 2)), "float32")
    found = dict(zip(["words", "several"], split.preprocessing([texts, numbers]), strict=True))
    given = {**found, "real": real}
    names = flavors.input_names(split.rest)
    assert set(names) == set(given)
    rest = split.rest([given[name] for name in names])
    np.testing.assert_allclose(rest, model([texts, real, numbers]), atol=1e-6)
    data = {name: np.asarray(values) for name, values in given.items()}
    assert ep.export_tflite(split.rest, tmp_path / "m.tflite", "int8", data).verification.passed


def test_the_refusal_names_the_split(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    with pytest.raises(ValueError, match=r"in layer 'words' .*split_preprocessing\(model\)\.rest"):
        ep.export_tflite(model_of_text(keras), tmp_path / "m.tflite")


def test_what_cannot_be_split_is_refused(flavor):
    keras = flavors.keras_module(flavor)
    number = keras.Input((1,), dtype="int64")
    with pytest.raises(ValueError, match="no lookup layer"):
        ep.split_preprocessing(keras.Model(number, keras.layers.Embedding(2, 2)(number)))
    with pytest.raises(ValueError, match="no numeric rest"):
        ep.split_preprocessing(keras.Model(number, keras.layers.IntegerLookup(vocabulary=[5])(number)))
    with pytest.raises(TypeError, match="got str"):
        ep.split_preprocessing("model.keras")


def test_channels_behind_a_lookup_are_removed_and_its_words_stay(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    city = keras.Input((1,), dtype="string", name="city")
    numbers = layers.StringLookup(vocabulary=["rome", "oslo"], name="cities")(city)
    hidden = layers.Dense(8, "relu", name="hidden")(layers.Flatten()(layers.Embedding(3, 8, name="table")(numbers)))
    model = keras.Model(city, layers.Dense(2)(hidden))
    smaller = ep.prune_channels(model, ratio=0.5)
    assert smaller.get_layer("cities").get_vocabulary() == model.get_layer("cities").get_vocabulary()
    assert smaller.get_layer("hidden").units < 8 and smaller.get_layer("table").output_dim < 8
