"""Scores that are masked keep their range in a file of integers, however the mask is written."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.tflite.file import read_tflite

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 8, 16)).astype("float32")
WORDS = np.array([[*RANDOM.integers(1, 20, length), *[0] * (8 - length)] for length in RANDOM.integers(2, 9, 32)])
CAUSAL = np.tril(np.ones((8, 8), "float32"))[None].repeat(32, 0)
PADDING = (RANDOM.random((32, 8)) > 0.3).astype("float32")
PADDING[:, 0] = 1


def functions(flavor):
    """`where` and `softmax` of a Keras."""
    if flavor == "keras":
        import keras

        return keras.ops.where, keras.ops.softmax
    return tf.where, tf.nn.softmax


def attention(keras, **options):
    """A model of one attention, whose scores are far apart as those of trained models."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 16))
    layer = keras.layers.MultiHeadAttention(2, 8)
    model = keras.Model(x, keras.layers.Dense(4)(layer(x, x, **options)))
    for kernel in (layer._query_dense.kernel, layer._key_dense.kernel):
        kernel.assign(6 * kernel)
    return model


def on_padding(keras, **options):
    """A model of words and an attention, in which the words that are zeros do not count."""
    keras.utils.set_random_seed(0)
    words = keras.Input((8,), dtype="int32")
    embedding = keras.layers.Embedding(20, 16, keras.initializers.RandomNormal(stddev=1), mask_zero=True)
    x, layer = embedding(words), keras.layers.MultiHeadAttention(2, 8)
    model = keras.Model(words, keras.layers.Dense(4)(layer(x, x, **options)))
    for kernel in (layer._query_dense.kernel, layer._key_dense.kernel):
        kernel.assign(6 * kernel)
    return model


def by_hand(keras, mask_shape, masked):
    """A model of an attention made of functions, whose scores and mask are masked by a function."""
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((8, 16)), keras.Input(mask_shape)
    query, key = keras.layers.Dense(16)(x), keras.layers.Dense(16)(x)
    _, softmax = functions(flavors.flavor_of(keras.Model(x, query)))
    weights = softmax(masked(keras.layers.Dot((2, 2))([query, key]), mask))
    return keras.Model([x, mask], keras.layers.Dense(4)(keras.layers.Dot((2, 1))([weights, key])))


def dot_product(keras):
    """Keras's `Attention`."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 16))
    query, key = keras.layers.Dense(16)(x), keras.layers.Dense(16)(x)
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.Attention()([query, key], use_causal_mask=True)))


MODELS = {
    "causal": lambda keras, where: (attention(keras, use_causal_mask=True), X),
    "padding": lambda keras, where: (on_padding(keras), WORDS),
    "padding, causal": lambda keras, where: (on_padding(keras, use_causal_mask=True), WORDS),
    "dot product": lambda keras, where: (dot_product(keras), X),
    "where": lambda keras, where: (
        by_hand(keras, (8, 8), lambda scores, mask: where(mask > 0.5, scores, -1e9)),
        [X, CAUSAL],
    ),
    "where not": lambda keras, where: (
        by_hand(keras, (8, 8), lambda scores, mask: where(mask < 0.5, -1e9, scores)),
        [X, CAUSAL],
    ),
    "sum": lambda keras, where: (
        by_hand(keras, (8, 8), lambda scores, mask: scores + (1.0 - mask) * -1e9),
        [X, CAUSAL],
    ),
    "difference": lambda keras, where: (
        by_hand(keras, (8, 8), lambda scores, mask: scores - 65504.0 * (1.0 - mask)),
        [X, CAUSAL],
    ),
    "sum in other places": lambda keras, where: (
        by_hand(keras, (8,), lambda scores, mask: scores + ((1.0 - mask) * -1e4)[:, None, :]),
        [X, PADDING],
    ),
    "bias": lambda keras, where: (
        by_hand(keras, (8,), lambda scores, mask: scores + where(mask[:, None, :] > 0.5, 0.25 * scores, -1e9)),
        [X, PADDING],
    ),
}


def relative_error(found, expected):
    return float(np.sqrt(np.square(found - expected).mean() / expected.var()))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_computes_what_the_model_does(flavor, name, tmp_path):
    model, data = MODELS[name](flavors.keras_module(flavor), functions(flavor)[0])
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, calibration="min-max", verbose=False)
    (output,) = made.verification.outputs
    assert output.relative_error < 0.1  # 0.7 and more, where all scores are equal
    assert not [note for note in made.notes if "floats" in note]


@pytest.mark.parametrize("name", MODELS)
def test_a_quantization_aware_model_too(flavor, name, tmp_path):
    model, data = MODELS[name](flavors.keras_module(flavor), functions(flavor)[0])
    aware = ep.quantize_aware(model, "int8", calibration=data)
    expected = np.asarray(model(data, training=False))
    assert relative_error(np.asarray(aware(data, training=False)), expected) < 0.1
    assert relative_error(np.asarray(ep.quantized_evaluation(aware)(data, training=False)), expected) < 0.1
    made = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verbose=False)
    (output,) = made.verification.outputs
    assert output.relative_error < 0.1
    assert not [note for note in made.notes if "floats" in note]


def test_training_leaves_room_for_the_mask(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    model, data = MODELS["where"](keras, functions(flavor)[0])
    aware = ep.quantize_aware(model, "int8", calibration=data)
    aware.compile(keras.optimizers.SGD(1e-3), "mse")
    aware.fit(data, np.zeros((32, 8, 4)), epochs=2, verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = flavors.load_model(tmp_path / "aware.keras")
    (scores,) = (layer for layer in loaded.layers if getattr(layer, "room_below", 0))
    low, high = scores.limits
    assert -100 < low < -scores.room_below and high < 100
    assert ep.export_tflite(loaded, tmp_path / "m.tflite", "int8", data, verbose=False).verification.passed


@settings(max_examples=12, deadline=None)
@given(
    number=st.sampled_from([-1e4, -3e4, -65504.0, -1e9, -3.4e38, -np.inf]),
    size=st.floats(0.1, 3.0),
    seed=st.integers(0, 100),
)
def test_any_number_and_any_mask(number, size, seed, tmp_path_factory):
    import keras

    random = np.random.default_rng(seed)
    mask = (random.random((32, 8, 8)) > 0.4).astype("float32")
    mask[:, np.arange(8), np.arange(8)] = 1
    model = by_hand(keras, (8, 8), lambda scores, mask: keras.ops.where(mask > 0.5, size * scores, number))
    path = tmp_path_factory.mktemp("files") / "m.tflite"
    made = ep.export_tflite(model, path, "int8", [X, mask], calibration="min-max", verbose=False)
    assert made.verification.outputs[0].relative_error < 0.1


LARGEST = {
    "function": lambda keras, x: keras.ops.max(x, 1) if hasattr(keras, "ops") else tf.reduce_max(x, 1),
    "layer": lambda keras, x: keras.layers.GlobalMaxPooling1D()(x),
}


@pytest.mark.parametrize("largest", LARGEST)
@pytest.mark.parametrize("trained", [False, True])
def test_the_largest_of_what_is_not_masked(flavor, largest, trained, tmp_path):
    keras = flavors.keras_module(flavor)
    where, _ = functions(flavor)
    x, mask = keras.Input((8, 16)), keras.Input((8, 1))
    model = keras.Model([x, mask], LARGEST[largest](keras, where(mask > 0.5, keras.layers.Dense(4)(x), -1e9)))
    data = [X, PADDING[..., None]]
    expected = np.asarray(model(data, training=False))
    if trained:
        model = ep.quantize_aware(model, "int8", calibration=data)
        assert relative_error(np.asarray(model(data, training=False)), expected) < 0.05
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.outputs[0].relative_error < 0.05


def test_a_far_number_that_is_a_result_stays(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    where, _ = functions(flavor)
    x, mask = keras.Input((8, 16)), keras.Input((8, 1))
    model = keras.Model([x, mask], where(mask > 0.5, keras.layers.Dense(4)(x), -1e6))
    data = [X, PADDING[..., None]]
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, calibration="min-max", verbose=False)
    assert read_tflite(made.path).outputs[0].scale > 1e3


def test_files_in_floats_have_the_numbers_of_the_model(flavor, tmp_path):
    model = attention(flavors.keras_module(flavor), use_causal_mask=True)
    made = ep.export_tflite(model, tmp_path / "m.tflite", representative_data=X, verbose=False)
    assert made.verification.outputs[0].largest_error < 1e-4
