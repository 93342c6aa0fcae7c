"""Masks pass through a quantization-aware model as through the float one."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.export import calibration_choice
from edgeprune.quantization.fake_quantize import layer_classes

RANDOM = np.random.default_rng(0)
# Words before padding of zeros, which the first layer makes a mask of.
WORDS = np.array([[*RANDOM.integers(1, 20, length), *[0] * (6 - length)] for length in RANDOM.integers(2, 7, 32)])
Y = RANDOM.integers(0, 5, len(WORDS))
KINDS = {
    "lstm": lambda layers, x: layers.LSTM(4)(layers.LSTM(4, return_sequences=True)(x)),
    "both ways": lambda layers, x: layers.Bidirectional(layers.GRU(4))(x),
    "dense": lambda layers, x: layers.GlobalAveragePooling1D()(layers.Dense(4, activation="tanh")(x)),
    "conv": lambda layers, x: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3)(x)),
    "attention": lambda layers, x: layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(x, x)),
}


def net(flavor, kind):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    words = keras.Input((6,), dtype="int32")
    x = KINDS[kind](keras.layers, keras.layers.Embedding(20, 8, "normal", mask_zero=True)(words))
    model = keras.Model(words, keras.layers.Dense(5, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_a_mask_is_calibrated_and_trained(flavor, kind):
    model = net(flavor, kind)
    aware = ep.quantize_aware(model, calibration=WORDS)
    expected = model.predict(WORDS, verbose=0)
    assert np.abs(aware.predict(WORDS, verbose=0) - expected).max() < 0.02
    aware.fit(WORDS, Y, verbose=0)
    np.testing.assert_allclose(
        ep.strip_quantization(aware).evaluate(WORDS, Y, verbose=0), aware.evaluate(WORDS, Y, verbose=0), rtol=0.02
    )


def test_a_layer_that_is_marked_passes_its_mask_on(flavor):
    keras = flavors.keras_module(flavor)
    layers, annotated = keras.layers, layer_classes(keras.Sequential()).AnnotatedLayer
    masked = layers.Embedding(20, 8, mask_zero=True)(keras.Input((6,), dtype="int32"))
    assert getattr(annotated(layers.Dense(4))(masked), "_keras_mask", None) is not None
    for inner in (layers.Conv1D(4, 3), layers.LSTM(4)):
        assert getattr(annotated(inner)(masked), "_keras_mask", None) is None


def test_what_could_not_be_tried_is_one_line(flavor, tmp_path, monkeypatch):
    keras = flavors.keras_module(flavor)
    # `tf_keras` puts a traceback into the message of a call on a symbolic tensor.
    x = keras.Input((3,)) if flavor == flavors.TF_KERAS else np.zeros((1, 3))

    class Own(keras.layers.Layer):
        def call(self, x):
            raise RuntimeError("No such step.")

    def fails(*_):
        Own()(x)

    monkeypatch.setattr(calibration_choice, "SimulatedFile", fails)
    result = ep.export_tflite(net(flavor, "dense"), tmp_path / "m.tflite", "int8", WORDS)
    assert "Calibration: min-max. Not tried: min-max: No such step." in result.notes
