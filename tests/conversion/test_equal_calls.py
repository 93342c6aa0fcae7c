"""Layers of Keras that are computed with operators which microcontrollers have, and are equal."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.export import export_tflite
from edgeprune.targets import MICRO_OPERATORS
from edgeprune.tflite.file import read_tflite


def images(size, channels=3):
    return (size, size + 1, channels)


LAYERS = {
    "2 x 3": (lambda L: L.UpSampling2D((2, 3)), images(4)),
    "channels first": (lambda L: L.UpSampling2D(2, data_format="channels_first"), (2, 3, 4)),
    "bilinear": (lambda L: L.UpSampling2D(2, interpolation="bilinear"), images(4)),
    "sequence": (lambda L: L.UpSampling1D(3), (5, 2)),
    "volume": (lambda L: L.UpSampling3D((2, 1, 3), data_format="channels_first"), (2, 3, 2, 4)),
    "vector": (lambda L: L.RepeatVector(7), (5,)),
}


@pytest.mark.parametrize("layer, shape", LAYERS.values(), ids=LAYERS)
def test_enlarging_layers(flavor, layer, shape, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input(shape), layer(keras.layers)])
    result = export_tflite(model, tmp_path / "m.tflite", None, rng.random((8, *shape)))
    (output,) = result.verification.outputs
    assert output.largest_error <= 1e-6
    assert set(read_tflite(result.path).operator_counts) <= MICRO_OPERATORS


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.7])
def test_elu_of_any_alpha(flavor, alpha, rng, tmp_path):
    """Exact in floats; in int8 all of it is in integers, trained for that or not."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 2), name="x")
    z = keras.layers.ELU(alpha, name="elu")(keras.layers.Conv2D(8, 3, name="conv")(x))
    model = keras.Model(x, keras.layers.Dense(4, name="head")(keras.layers.Flatten()(z)))
    data = rng.normal(size=(64, 8, 8, 2)).astype("f4")
    (output,) = export_tflite(model, tmp_path / "f.tflite", None, data).verification.outputs
    assert output.largest_error < 1e-5
    for one in (model, ep.quantize_aware(model, calibration=data)):
        result = export_tflite(one, tmp_path / "i.tflite", "int8", data, overwrite=True)
        (output,) = result.verification.outputs
        assert output.relative_error < 0.025
        found = read_tflite(result.path)
        assert not [call.name for call in found.operators if "float32" in call.output_dtypes]
        assert found.operator_counts["ELU"] == 1 and set(found.operator_counts) <= MICRO_OPERATORS


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_an_embedding_is_one_gather(flavor, quantization, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((6,), dtype="int32"), keras.layers.Embedding(20, 4, name="words")])
    result = export_tflite(model, tmp_path / "m.tflite", quantization, rng.integers(0, 20, (30, 6)))
    assert result.verification.passed
    operators = set(read_tflite(result.path).operator_counts)
    assert "GATHER" in operators and operators <= {"GATHER", "QUANTIZE"}


def test_indices_that_are_floats(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Embedding(20, 4), keras.layers.Flatten()])
    result = export_tflite(model, tmp_path / "m.tflite", None, rng.integers(0, 20, (30, 6)).astype("float32"))
    assert result.verification.passed and {"CAST", "GATHER"} <= set(read_tflite(result.path).operator_counts)


def test_a_subclass_with_a_call_of_its_own_computes_its_own(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)

    class Doubled(keras.layers.UpSampling2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((3, 3, 2)), Doubled()])
    data = rng.random((5, 3, 3, 2)).astype("float32")
    (output,) = export_tflite(model, tmp_path / "m.tflite", None, data).verification.outputs
    assert output.largest_error < 1e-6
    np.testing.assert_allclose(model.predict(data, verbose=0)[:, ::2, ::2], 2 * data, rtol=1e-6)
