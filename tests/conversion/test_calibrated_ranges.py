"""The ranges of activations in a calibrated file are those of the values, as Keras computes them."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.tflite.graph import operators, scales, unpacked

X = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")


def branches(flavor, joined):
    """Two convolutions, whose results are far apart in size, and what joins them; their names by what they compute."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), name="x")
    normal = keras.initializers.RandomNormal
    small = keras.layers.Conv2D(4, 1, name="small", kernel_initializer=normal(stddev=0.01))(x)
    large = keras.layers.Conv2D(4, 1, name="large", kernel_initializer=normal(stddev=5))(x)
    model = keras.Model(x, keras.layers.Conv2D(2, 3, name="head")(joined(keras, small, large)), name="net")
    return model, keras.Model(x, [small, large])


JOINED = {
    "sum": lambda keras, a, b: keras.layers.Add()([a, b]),
    "sum, the other way round": lambda keras, a, b: keras.layers.Add()([b, a]),
    "product": lambda keras, a, b: keras.layers.Multiply()([a, b]),
    "difference": lambda keras, a, b: a - b,
    "quotient": lambda keras, a, b: b / (a * a + 1e-2),
}


@pytest.mark.parametrize("name", list(JOINED))
def test_what_is_joined_has_its_own_range(flavor, name, tmp_path):
    model, parts = branches(flavor, JOINED[name])
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", X, calibration="min-max", verify=False, verbose=False)
    steps = {}
    for call in operators(unpacked(made.path.read_bytes()), "CONV_2D"):
        for layer in ("small", "large"):
            if layer in call.location:
                steps[layer] = float(scales(call.output(0))[0])
    for layer, values in zip(("small", "large"), parts(X), strict=True):
        low, high = float(np.min(values)), float(np.max(values))
        assert steps[layer] == pytest.approx((high - low) / 255, rel=0.02)
