"""A model split at its lookup layers: both parts together are the whole, and the rest is a file in int8."""

import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor as flavors


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


def test_a_file_without_preprocessing_lies_beside_its_vocabulary(flavor, tmp_path):
    model = model_of_text(flavors.keras_module(flavor))
    with pytest.raises(ValueError, match=r"in layer 'words' .*pass without_preprocessing=True"):
        ep.export_tflite(model, tmp_path / "m.tflite", verbose=False)
    texts, numbers = np.array([["good film"], ["bad bad"]], object), np.array([[5], [9]])
    data = {"text": texts, "real": np.ones((2, 2), "float32"), "number": numbers}
    result = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, without_preprocessing=True, verbose=False)
    assert result.verification.passed and set(result.inputs) == {"words", "real", "number"}
    words = (tmp_path / "vocabulary.txt").read_text().splitlines()
    assert words == ["", "[UNK]", "film", "good", "bad"]
    # The application's part, as the metadata state it: lines of the file for lowercase words, up to four.
    told = ep.read_metadata(tmp_path / "m.tflite").description
    assert "vocabulary.txt" in told and "standardize='lower_and_strip_punctuation'" in told and "several" not in told
    numbers_of = [[words.index(word) for word in text.split()] for (text,) in texts]
    expected = ep.split_preprocessing(model, only_strings=True).preprocess(data)["words"]
    np.testing.assert_array_equal([line + [0] * (4 - len(line)) for line in numbers_of], expected)
    with pytest.raises(FileExistsError, match=r"vocabulary\.txt exists"):
        ep.export_tflite(model, tmp_path / "other.tflite", without_preprocessing=True, overwrite=False, verbose=False)
    assert not (tmp_path / "other.tflite").exists()


def test_a_bundle_holds_the_vocabulary(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    text = keras.Input((1,), dtype="string", name="text")
    words = keras.layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=2, name="words")(text)
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Embedding(4, 2)(words)))
    model = keras.Model(text, outputs)
    model.compile(loss="mse", metrics=["mae"])
    x = np.array([["good"], ["bad good"]], object)
    options = {"quantization": None, "validation_data": (x, np.zeros((2, 2)))}
    with pytest.raises(ValueError, match="Pass without_preprocessing=True"):
        ep.export_bundle(model, tmp_path / "bundle", "phone", x, **options)
    bundle = ep.export_bundle(model, tmp_path / "bundle", "phone", x, without_preprocessing=True, **options)
    assert (tmp_path / "bundle/vocabulary.txt").read_text() == "\n[UNK]\ngood\nbad\n"
    assert (
        "vocabulary.txt" in bundle.files
        and "vocabulary.txt" in ep.read_metadata(tmp_path / "bundle/model.tflite").description
    )
    assert bundle.verification.score_stages


def test_lookup_layers_of_a_nested_model_that_is_called_twice(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    one = keras.Input((1,), dtype="string")
    words = layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=2, name="words")(one)
    encoder = keras.Model(
        one, layers.Dense(3, name="out")(layers.Flatten()(layers.Embedding(4, 2)(words))), name="encoder"
    )
    question, answer = (keras.Input((1,), dtype="string", name=name) for name in ("question", "answer"))
    together = layers.Concatenate()([encoder(question), encoder(answer)])
    model = keras.Model([question, answer], layers.Dense(1, name="out")(together))
    split = ep.split_preprocessing(model)
    assert split.vocabularies == {"encoder_words": ["", "[UNK]", "good", "bad"]}
    assert split.rest.count_params() == model.count_params()
    x = {"question": np.array([["good"], ["bad bad"]], object), "answer": np.array([["x good"], [""]], object)}
    assert set(split.given) == set(split.preprocess(x)) == {"encoder_words", "encoder_words_1"}
    np.testing.assert_allclose(
        split.rest(split.preprocess(x)), model([tf.constant(value) for value in x.values()]), atol=1e-6
    )


def test_entries_that_are_no_line_of_a_file_are_refused(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    text = keras.Input((1,), dtype="string")
    number = keras.layers.StringLookup(vocabulary=["a\nb"], name="lines")(text)
    model = keras.Model(text, keras.layers.Embedding(2, 2)(number))
    with pytest.raises(ValueError, match=r"Layer 'lines' has 'a\\nb' in its vocabulary"):
        ep.export_tflite(model, tmp_path / "m.tflite", without_preprocessing=True, verbose=False)


@pytest.mark.parametrize("kind", ["nested", "encoded"])
def test_models_with_lookup_layers_are_pruned_and_lose_channels(flavor, kind):
    """Words in a nested model, and categories that are encoded rather than embedded."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    x = keras.Input((1,), dtype="string" if kind == "nested" else "int64", name="x")
    if kind == "nested":
        inner = keras.Input((1,), dtype="string")
        table = layers.Embedding(3, 8)(layers.StringLookup(vocabulary=["a", "b"])(inner))
        encoded = keras.Model(inner, layers.Flatten()(table), name="encoder")(x)
        values = tf.constant([["a"], ["c"]])
    else:
        encoded = layers.IntegerLookup(vocabulary=[5, 7], output_mode="multi_hot")(x)
        encoded, values = layers.Rescaling(1.0)(encoded), tf.constant([[5], [9]], tf.int64)
    model = keras.Model(x, layers.Dense(2)(layers.Dense(8, "relu", name="hidden")(encoded)))
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    assert smaller.get_layer("hidden").units < 8 and smaller(values).shape == (2, 2)
    pruned = ep.prune_low_magnitude(model, pruning_schedule=ep.ConstantSparsity(0.5, 0, frequency=1))
    pruned.compile("sgd", "mse")
    pruned.fit(values, np.zeros((2, 2)), epochs=2, verbose=0, callbacks=[ep.UpdatePruningStep()])
    kernel = ep.strip_pruning(pruned).get_layer("hidden").get_weights()[0]
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.05)


def test_what_cannot_be_split_is_refused(flavor):
    keras = flavors.keras_module(flavor)
    number = keras.Input((1,), dtype="int64")
    with pytest.raises(ValueError, match="no lookup layer"):
        ep.split_preprocessing(keras.Model(number, keras.layers.Embedding(2, 2)(number)))
    with pytest.raises(ValueError, match="no numeric part"):
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
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    assert smaller.get_layer("cities").get_vocabulary() == model.get_layer("cities").get_vocabulary()
    assert smaller.get_layer("hidden").units < 8 and smaller.get_layer("table").output_dim < 8
