"""Negations and squares compute in integers, and have the values of the floats that they are."""

import inspect
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.conversion import integer_forms
from edgeprune.export import export_tflite
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.runtime import Runtime

DATA = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("f4")


def functions(flavor):
    """Functions that the converter leaves in floats, and numpy's for the same."""
    keras = flavors.keras_module(flavor)
    square = keras.ops.square if flavor == "keras" else (lambda x: x**2)
    return {
        "negation": (lambda x: -x, np.negative),
        "square": (square, np.square),
        "power": (lambda x: x**2, np.square),
        "both": (lambda x: -square(-x), lambda x: -np.square(x)),
    }


@pytest.mark.parametrize("name", list(functions("keras")))
@settings(max_examples=6, deadline=None)
@given(low=st.floats(-8, 0), high=st.floats(0.1, 8))
def test_the_values_are_those_of_floats_to_a_step(name, low, high, tmp_path_factory):
    folder, keras = tmp_path_factory.mktemp("products"), flavors.keras_module("keras")
    function, expected = functions("keras")[name]
    x = keras.Input((16, 16, 1))
    model = keras.Model(x, keras.layers.MaxPooling2D(1)(function(x)))
    values = np.linspace(low, high, 256, dtype="f4").reshape(1, 16, 16, 1)
    made = export_tflite(model, folder / "m.tflite", "int8", values, calibration="min-max", verbose=False)
    assert made.verification.passed and not made.notes
    assert set(read_tflite(made.path).operator_counts) == {"MUL", "MAX_POOL_2D"}
    runtime = Runtime(made.path)
    (port,) = runtime.outputs.values()
    (found,) = runtime.run_all({next(iter(runtime.inputs)): values}, "Running").values()
    step_in = next(iter(runtime.inputs.values())).scale
    steepest = 1 if name == "negation" else 2 * np.abs(values).max()
    most = 1.01 * (1.5 * port.scale + steepest * step_in)
    assert np.abs(np.asarray(found) - expected(values)).max() <= most


def nets(flavor):
    """Nets with negations and squares, and with what is made of them."""
    keras = flavors.keras_module(flavor)
    layers, square = keras.layers, functions(flavor)["square"][0]
    join = layers.Concatenate()
    return {
        "square, negated": lambda z: layers.Conv2D(2, 1)(-square(z)),
        "negation, the output": lambda z: -z,
        "halves that change places": lambda z: layers.Conv2D(2, 1)(join([-z[..., 2:], z[..., :2]])),
        "LayerNormalization": lambda z: layers.Conv2D(2, 1)(layers.LayerNormalization()(z)),
        "GroupNormalization": lambda z: layers.Conv2D(2, 1)(layers.GroupNormalization(2)(z)),
    }


@pytest.mark.parametrize("name", list(nets("keras")))
@pytest.mark.parametrize("is_aware", [False, True])
def test_all_operators_are_of_integers(flavor, name, is_aware, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), name="x")
    model = keras.Model(x, nets(flavor)[name](keras.layers.Conv2D(4, 3)(x)))
    if is_aware:
        made = export_tflite(ep.quantize_aware(model, "int8", calibration=DATA), tmp_path / "m.tflite", "int8", DATA)
    else:
        made = export_tflite(model, tmp_path / "m.tflite", "int8", DATA, calibration="mse")
    assert made.verification.passed
    assert not [one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes]
    assert ep.measure.measure_arena(made.path).bytes > 0  # TFLM has them all


def test_without_it_they_are_in_floats(tmp_path, monkeypatch):
    monkeypatch.setattr(integer_forms, "write_for_integers", lambda graph: None)
    keras = flavors.keras_module("keras")
    x = keras.Input((8, 8, 4), name="x")
    model = keras.Model(x, keras.layers.Conv2D(2, 1)(-keras.ops.square(keras.layers.Conv2D(4, 3)(x))))
    made = export_tflite(model, tmp_path / "m.tflite", "int8", DATA, verbose=False)
    floats = [one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes]
    assert {"SQUARE", "NEG"} <= set(floats)


def layers_of(flavor):
    """Everything in a Keras that is made of several operations: its activations, and layers of no weights or few."""
    keras = flavors.keras_module(flavor)
    other = {"get", "serialize", "deserialize", "glu", "sparsemax", "threshold"}
    names = [name for name in dir(keras.activations) if not name.startswith("_") and name not in other]
    functions = {name: getattr(keras.activations, name) for name in names}
    made = {name: keras.layers.Activation(one) for name, one in functions.items() if inspect.isfunction(one)}
    for name in ("PReLU", "LeakyReLU", "ELU", "UnitNormalization", "LayerNormalization", "BatchNormalization"):
        made[name] = getattr(keras.layers, name)()
    made["GroupNormalization"] = keras.layers.GroupNormalization(2)
    if flavor == "keras":
        made["RMSNormalization"] = keras.layers.RMSNormalization()
        for name in ("var", "std", "normalize", "norm", "logsumexp"):
            function = getattr(keras.ops, name)
            made[name] = lambda z, function=function: function(z, axis=-1)
    return made


def operators_of(model, path):
    """The operators of an int8 file, but for those that turn values into floats and back; products under one name."""
    made = export_tflite(model, path, "int8", DATA, calibration="min-max", verify=False, overwrite=True, verbose=False)
    names = [one.name for one in read_tflite(made.path).operators]
    return Counter("MUL" if name in ("NEG", "SQUARE") else name for name in names if "QUANTIZE" not in name)


def test_what_the_converter_makes_one_operator_of_it_still_does(flavor, tmp_path, monkeypatch):
    keras, path = flavors.keras_module(flavor), tmp_path / "m.tflite"
    for name, layer in layers_of(flavor).items():
        x = keras.Input((8, 8, 4))
        z = keras.layers.Flatten()(layer(keras.layers.Conv2D(4, 1)(x)))
        model = keras.Model(x, keras.layers.Dense(2)(z))
        with monkeypatch.context() as patch:
            patch.setattr(integer_forms, "write_for_integers", lambda graph: None)
            expected = operators_of(model, path)
        assert operators_of(model, path) <= expected, name  # a negation behind a convolution is part of it


MOVES = {
    "reshaped": lambda keras, z: keras.layers.Reshape((4, 16, 4))(z),
    "in another order": lambda keras, z: keras.layers.Permute((3, 1, 2))(z),
    "in part": lambda keras, z: z[:, 1:, :, :2],
    "padded": lambda keras, z: keras.layers.ZeroPadding2D(1)(z),
}


@pytest.mark.parametrize("move", list(MOVES))
@pytest.mark.parametrize("name", ["negation", "square", "power"])
def test_behind_what_moves_values_in_a_quantization_aware_model(flavor, move, name, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), name="x")
    z = MOVES[move](keras, keras.layers.Conv2D(4, 1)(x))
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True)(functions(flavor)[name][0](z))
    model = keras.Model(x, keras.layers.Conv2D(2, 1)(keras.layers.Multiply()([mean, z])))
    aware = ep.quantize_aware(model, "int8", calibration=DATA)
    made = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", DATA, verbose=False)
    assert made.verification.passed
    assert not [one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes]
