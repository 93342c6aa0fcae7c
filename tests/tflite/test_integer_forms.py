"""Operators that are rewritten for integers: the values are those of the float operator, rounded to the same steps."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.export import convert, export_tflite
from edgeprune.schemes import Scheme
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import operators, scales, unpacked
from edgeprune.tflite.integer_forms import in_integers
from edgeprune.tflite.runtime import Runtime

NAMES = ("NEG", "SQUARE", "ELU")


def model_of(name):
    """The operator in front of another one of integers, which moves values."""
    keras = flavors.keras_module("keras")
    functions = {"NEG": lambda x: -x, "SQUARE": keras.ops.square, "ELU": keras.ops.elu}
    x = keras.Input((16, 16, 1))
    return keras.Model(x, keras.layers.MaxPooling2D(1)(functions[name](x)))


def values_of(path, x):
    runtime = Runtime(path)
    (values,) = runtime.run_all({next(iter(runtime.inputs)): x}, "Running").values()
    return np.asarray(values)


def step_of(content, name):
    """The step of what the last of these operators returns."""
    *_, last = operators(unpacked(content), name)
    return float(scales(last.output(0))[0])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6, deadline=None)
@given(low=st.floats(-8, 0), high=st.floats(0.1, 8))
def test_the_values_are_those_of_floats_to_a_step(name, low, high, tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("forms"), model_of(name)
    x = np.linspace(low, high, 256, dtype="f4").reshape(1, 16, 16, 1)
    made = export_tflite(model, folder / "m.tflite", "int8", x, calibration="min-max", verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "in_integers", lambda content: content)
        before = export_tflite(model, folder / "f.tflite", "int8", x, calibration="min-max", verbose=False)
    assert made.verification.passed and any(name in note for note in before.notes) and not made.notes
    content = made.path.read_bytes()
    assert read_tflite(before.path).operator_counts[name] == 1
    form = "ELU" if name == "ELU" else "MUL"
    assert read_tflite(made.path).operator_counts == {form: 1, "MAX_POOL_2D": 1}
    step = step_of(content, "MAX_POOL_2D")
    assert np.abs(values_of(made.path, x) - values_of(before.path, x)).max() <= 1.01 * step
    assert in_integers(content) == content


def test_what_does_not_stand_alone_stays(tmp_path):
    """An operator that another one in floats reads, and the wish of the user."""
    keras = flavors.keras_module("keras")
    x = keras.Input((6,), name="x")
    z = keras.ops.sin(-keras.layers.Dense(4, name="dense")(x))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype("f4")
    model = keras.Model(x, keras.layers.Dense(2, name="head")(z))
    made = export_tflite(model, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.passed and read_tflite(made.path).operator_counts["NEG"] == 1
    z = keras.layers.ELU(name="elu")(keras.layers.Dense(4, name="dense")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(z))
    wish = Scheme(8, 8, layers={"dense": 32, "elu": 32})
    made = export_tflite(model, tmp_path / "w.tflite", wish, data, verbose=False)
    floats = Counter(one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes)
    assert floats["ELU"] == 1


@pytest.mark.parametrize("layer", ["LayerNormalization", "GroupNormalization", "ELU"])
def test_microcontrollers_and_npus_compute_it(layer, flavor, tmp_path):
    import edgeprune as ep

    keras = flavors.keras_module(flavor)
    settings = {"groups": 2} if layer == "GroupNormalization" else {}
    x = keras.Input((8, 8, 4), name="x")
    z = getattr(keras.layers, layer)(name="norm", **settings)(keras.layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(z)))
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("f4")
    made = export_tflite(model, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.passed
    assert not [one.name for one in read_tflite(made.path).operators if one.name in ("NEG", "SQUARE")]
    assert ep.measure.measure_arena(made.path).bytes > 0
