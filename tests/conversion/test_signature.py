"""Names that TensorFlow takes for none, with spaces, quotes and letters beyond ASCII, reach the file as they are."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.bundle.bundle import export_bundle
from edgeprune.conversion.signature import names_to_trace, traceable_names
from edgeprune.export.convert import export_tflite
from edgeprune.tflite.runtime import Runtime

ODD = ["sensor 1", 'a "b"', "größe", "日本", "class", "self", "a:b", "'", "a" * 70]


def _two_inputs(flavor):
    keras_module = flavors.keras_module(flavor)
    layers = keras_module.layers
    inputs = [keras_module.Input((size,), name=name) for size, name in ((3, "größe in m"), (4, 'a "b"'))]
    x = layers.Concatenate(name="both")(inputs)
    outputs = {"out put": layers.Dense(2, name="first")(x), "日本": layers.Dense(5, name="second")(x)}
    return keras_module.Model(inputs, outputs, name="double")


@pytest.mark.parametrize("name", ODD)
def test_an_input_keeps_its_name(flavor, name, tmp_path, rng):
    keras_module = flavors.keras_module(flavor)
    inputs = keras_module.Input((4,), name=name)
    net = keras_module.Model(inputs, keras_module.layers.Dense(2, name="out")(inputs))
    made = export_tflite(net, tmp_path / "m.tflite", None, rng.normal(size=(4, 4)).astype(np.float32), verbose=False)
    assert made.inputs == (name,) == tuple(Runtime(made.path).inputs)
    assert made.verification.passed


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_several_inputs_are_not_mixed_up(flavor, quantization, tmp_path, rng):
    net = _two_inputs(flavor)
    samples = {"größe in m": rng.normal(size=(20, 3)), 'a "b"': 5 + rng.normal(size=(20, 4))}
    made = export_tflite(net, tmp_path / "m.tflite", quantization, samples, verbose=False)
    runtime = Runtime(made.path)
    assert {name: port.shape for name, port in runtime.inputs.items()} == {"größe in m": (1, 3), 'a "b"': (1, 4)}
    assert {name: port.shape for name, port in runtime.outputs.items()} == {"out put": (1, 2), "日本": (1, 5)}
    assert made.verification.passed and {row.name for row in made.verification.outputs} == {"out put", "日本"}


def _functional(name):
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2, name=name)(inputs), name=name)


def _sequential(name):
    return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="out")], name=name)


def _nested(name):
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(_sequential(name)(inputs)), name="outer")


@pytest.mark.parametrize("make", [_functional, _sequential, _nested])
def test_models_and_layers_of_keras_3_may_have_any_name(make, tmp_path, rng):
    name = 'Größe "A" 2'
    net = make(name)
    paths = [variable.path for variable in net.variables]
    handles = [variable.name for variable in flavors.tf_variables(net)]
    made = export_tflite(net, tmp_path / "m.tflite", "int8", rng.normal(size=(8, 4)).astype(np.float32), verbose=False)
    assert made.verification.passed
    assert made.outputs == ((name,) if make is _functional else ("out",))
    assert [variable.path for variable in net.variables] == paths, "the model itself stays as it is"
    assert [variable.name for variable in flavors.tf_variables(net)] == handles
    assert make is _nested or net.name == name


def test_names_come_back_after_an_error():
    net = _functional("a b")
    with pytest.raises(KeyError), traceable_names(net):
        assert net.name == net.layers[-1].name == "xa_b"
        raise KeyError
    assert net.name == net.layers[-1].name == "a b"


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=12))
def test_stand_ins_are_as_long_and_all_different(names):
    traced = names_to_trace(names)
    assert list(traced) == names and len(set(traced.values())) == len(names)
    assert all(len(made) == len(name.encode()) and made.isascii() for name, made in traced.items())


def test_inputs_that_differ_in_punctuation_alone(flavor, tmp_path):
    layers = flavors.keras_module(flavor).layers
    names = ["a_0", "a-0", "日"]
    inputs = [flavors.keras_module(flavor).Input((size,), name=name) for size, name in enumerate(names, 2)]
    net = flavors.keras_module(flavor).Model(inputs, layers.Dense(2, name="out")(layers.Concatenate()(inputs)))
    result = export_tflite(net, tmp_path / "m.tflite")
    assert list(Runtime(result.path).inputs) == names
    assert [port.shape for port in Runtime(result.path).inputs.values()] == [(1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize("target", ["phone", "cortex-m", "ethos-u55-128"])
def test_a_bundle_has_the_names(target, tmp_path, rng):
    needed = {"cortex-m": "tflite_micro", "ethos-u55-128": "ethosu"}.get(target)
    if needed:
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    inputs = keras.Input((8, 8, 2), name="Größe in m")
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3, name="out put")(x), name='my "model"')
    made = export_bundle(net, tmp_path / "b", target, rng.normal(size=(8, 8, 8, 2)).astype(np.float32))
    assert list(Runtime(made.directory / "model.tflite").inputs) == ["Größe in m"]
    card = (made.directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Größe in m" in card and 'my "model"' in card and "out put" in card
