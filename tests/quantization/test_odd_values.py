"""Activations that are constant, NaN or infinite, and schemes that a trained model does not fit."""

import numpy as np
import pytest
from nets.quantized_nets import chain, images

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import fake_quantizers, layer_classes

X = np.random.default_rng(0).uniform(0, 0.1, (16, 4)).astype(np.float32)


def dead(flavor):
    """A net whose hidden units are always zero."""
    keras = flavors.keras_module(flavor)
    hidden = keras.layers.Dense(3, activation="relu", bias_initializer=keras.initializers.Constant(-5.0), name="hidden")
    return keras.Sequential([keras.Input((4,), name="x"), hidden, keras.layers.Dense(2, name="head")])


def ends(layer):
    return [float(np.asarray(end)) for end in layer.range]


@pytest.mark.above_flavor
def test_activations_that_are_always_zero_have_a_range_that_a_file_can_have(flavor, tmp_path):
    aware = ep.quantize_aware(dead(flavor), calibration=X)
    found = {layer.name: ends(layer) for layer in fake_quantizers(aware)}
    assert found["hidden_range"] == [0, 1] == found["head"]
    assert ep.export_tflite(aware, tmp_path / "m.tflite", "int8", X).verification.passed


def test_in_training_zeros_leave_a_range_and_give_way_to_other_values(flavor):
    layer = layer_classes(dead(flavor)).FakeQuantize(name="range")
    layer.build((None, 4))
    zeros, values = np.zeros((2, 4), np.float32), np.float32([[0, 1, 2, 4]])
    layer(zeros, training=True)
    assert ends(layer) == [0, 1] and layer.is_known
    layer(values, training=True)
    np.testing.assert_allclose(ends(layer), [0, 4], atol=1e-4)
    layer(zeros, training=True)
    np.testing.assert_allclose(ends(layer), [0, 4], atol=1e-4)
    layer(values * np.nan, training=True)
    np.testing.assert_allclose(ends(layer), [0, 4], atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_no_number_is_refused(flavor, value):
    x = images(8)
    x[3, 2, 1, 0] = value
    with pytest.raises(ValueError, match="'image_range' rounds are NaN or infinite on the calibration data"):
        ep.quantize_aware(chain(flavor), calibration=x)


def test_a_training_without_a_finite_value_leaves_no_range(flavor, tmp_path):
    aware = ep.quantize_aware(dead(flavor))
    aware.compile("sgd", "mse")
    aware.fit(X * np.nan, np.zeros((16, 2)), verbose=0)
    with pytest.raises(ValueError, match="'x_range'.* are not known"):
        ep.export_tflite(aware, tmp_path / "m.tflite", "int8")


@pytest.mark.above_flavor
def test_ranges_of_8_bits_are_not_those_of_16(flavor, tmp_path):
    aware = ep.quantize_aware(dead(flavor), calibration=X)
    with pytest.raises(ValueError, match=r"its ranges are for those: pass quantization='int8', or train"):
        ep.export_tflite(aware, tmp_path / "m.tflite", "int16x8", X)
    with pytest.raises(ValueError, match="needs representative_data"):
        ep.export_tflite(ep.quantize_aware(dead(flavor), "int16x8"), tmp_path / "m.tflite", "int16x8")
    with pytest.raises(ValueError, match="The calibration data is empty"):
        ep.quantize_aware(dead(flavor), calibration=X[:0])
    with pytest.raises(TypeError, match="got str"):
        ep.quantize_aware(dead(flavor), calibration="data.npz")


def test_indices_beyond_an_embedding_are_refused(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((5,), dtype="int32", name="tokens")
    y = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 4)(x))
    model = keras.Model(x, keras.layers.Dense(3)(y), name="words")
    tokens = np.full((16, 5), 20, np.int32)
    for call in (
        lambda: ep.quantize_aware(model, calibration=tokens),
        lambda: ep.plan_quantization(model, tokens),
        lambda: ep.equalize(model, tokens),
        lambda: ep.round_weights(model, tokens),
        lambda: ep.export_tflite(model, tmp_path / "m.tflite", "int8", tokens),
    ):
        with pytest.raises(ValueError, match=r"'words\w*' cannot be called on this data: .*= 20 is not in \[0, 20\)"):
            call()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_division_whose_divisor_is_the_integer_0(flavor, seed, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(seed)
    x = keras.Input((8,))
    y = keras.layers.Dense(8, activation="softplus")(x)
    data = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    aware = ep.quantize_aware(keras.Model(x, y / (1.0 + y * y)), calibration=data)
    made = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.passed
