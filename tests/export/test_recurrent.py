"""Recurrent layers in files: equal to the Keras model's, on LiteRT and on TensorFlow Lite Micro."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeprune import flavor as flavors
from edgeprune.conversion import equal_calls
from edgeprune.export import diagnosis, export_tflite
from edgeprune.tflite.file import read_tflite

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def net(flavor, *layers, shape=(6, 4), **options):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    made = [layer(keras.layers) for layer in layers]
    return keras.Sequential([keras.Input(shape, **options), *made], name="net")


def on_litert(path, samples, reset=True):
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for sample in samples:
        if reset:
            interpreter.reset_all_variables()
        interpreter.set_tensor(given["index"], encoded(sample[None], given["quantization"], given["dtype"]))
        interpreter.invoke()
        results.append(decoded(interpreter.get_tensor(made["index"]), made["quantization"]))
    return np.concatenate(results)


def on_micro(path, samples):
    runtime = pytest.importorskip("tflite_micro").runtime
    interpreter = runtime.Interpreter.from_bytes(path.read_bytes(), arena_size=200_000)

    def quantization(details):
        values = details["quantization_parameters"]
        return (values["scales"][0], values["zero_points"][0]) if len(values["scales"]) else (0, 0)

    given, made = interpreter.get_input_details(0), interpreter.get_output_details(0)
    results = []
    for sample in samples:
        interpreter.reset()
        interpreter.set_input(encoded(sample[None], quantization(given), given["dtype"]), 0)
        interpreter.invoke()
        results.append(decoded(interpreter.get_output(0), quantization(made)))
    return np.concatenate(results)


def encoded(values, quantization, dtype):
    scale, zero_point = quantization
    if scale:
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    return values.astype(dtype)


def decoded(values, quantization):
    scale, zero_point = quantization
    return (values.astype(np.float64) - zero_point) * scale if scale else values


def relative_error(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def test_lstm_in_int8_is_the_fused_operator(flavor, rng, tmp_path):
    """Its outputs joined and reversed, which are far off where their scales are not those of the operator."""
    model = net(
        flavor,
        lambda L: L.Bidirectional(L.LSTM(5, return_sequences=True, dropout=0.3)),
        lambda L: L.Dense(3),
    )
    data = rng.normal(size=(30, 6, 4)).astype(np.float32)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    operators = read_tflite(result.path).operator_counts
    assert FUSED in operators and "WHILE" not in operators
    expected = model.predict(data, verbose=0)
    assert relative_error(on_litert(result.path, data), expected) < 0.1
    assert relative_error(on_micro(result.path, data), expected) < 0.1


def test_lstms_one_after_the_other_with_small_cells(flavor, rng, tmp_path):
    """A cell below 0.5 gets a step for which the kernels have no tanh, unless it is mended."""
    model = net(flavor, lambda L: L.LSTM(8, return_sequences=True), lambda L: L.LSTM(5))
    data = 0.3 * rng.normal(size=(30, 6, 4)).astype(np.float32)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert relative_error(on_litert(result.path, data), model.predict(data, verbose=0)) < 0.1
    steps = [
        detail["quantization"][0]
        for detail in Interpreter(str(result.path)).get_tensor_details()
        if detail["dtype"] == np.int16 and detail["quantization"][0]
    ]
    assert len(steps) == 2 and min(steps) == 2.0**-15


@pytest.mark.above_flavor
def test_in_floats_a_file_begins_each_run_afresh(flavor, rng, tmp_path):
    model = net(flavor, lambda L: L.LSTM(8), lambda L: L.Dense(2))
    data = rng.normal(size=(8, 6, 4)).astype(np.float32)
    result = export_tflite(model, tmp_path / "m.tflite", None, data)
    expected = model.predict(data, verbose=0)
    assert relative_error(on_litert(result.path, data, reset=False), expected) < 1e-5
    assert not any("state" in note for note in result.notes)


@pytest.mark.above_flavor
def test_a_file_that_keeps_a_state_says_so_and_the_model_stays_as_it_is(flavor, rng, tmp_path):
    model = net(flavor, lambda L: L.LSTM(8), lambda L: L.Dense(2))
    layer, data = model.layers[0], rng.normal(size=(8, 6, 4)).astype(np.float32)
    before, attributes = model.predict(data, verbose=0), set(vars(layer))
    with pytest.raises(RuntimeError, match="in the middle"), equal_calls.replaced(model, "int8"):
        assert "call" in vars(layer)
        raise RuntimeError("in the middle")
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert set(vars(layer)) == attributes and not layer.unroll
    np.testing.assert_array_equal(model.predict(data, verbose=0), before)
    (note,) = (note for note in result.notes if "carries a state" in note)
    assert all(name in note for name in ("reset_all_variables()", "resetVariableTensors()", "Reset()"))
    with_reset, without = (on_litert(result.path, data, reset=reset) for reset in (True, False))
    assert np.abs(with_reset - without).max() > 0.01  # as the note says


UNROLLED = {
    "another activation": [lambda L: L.LSTM(5, activation="relu", use_bias=False)],
    "cells, then both ways": [
        lambda L: L.RNN([L.LSTMCell(3), L.GRUCell(3)], return_sequences=True),
        lambda L: L.Bidirectional(L.SimpleRNN(3, return_sequences=True)),
    ],
}


@pytest.mark.parametrize("layers", UNROLLED.values(), ids=UNROLLED)
def test_what_is_no_plain_lstm_is_unrolled_in_int8(flavor, layers, rng, tmp_path):
    model = net(flavor, *layers, shape=(3, 4))
    data = rng.normal(size=(20, 3, 4)).astype(np.float32)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    operators = read_tflite(result.path).operator_counts
    assert FUSED not in operators and "WHILE" not in operators
    assert relative_error(on_litert(result.path, data), model.predict(data, verbose=0)) < 0.15
    assert any("unrolled" in note and "into 3 steps" in note for note in result.notes)


@pytest.mark.above_flavor
def test_int16x8_has_no_fused_operator(flavor, rng, tmp_path):
    model = net(flavor, lambda L: L.LSTM(8, name="memory"), shape=(3, 4))
    data = rng.normal(size=(20, 3, 4)).astype(np.float32)
    result = export_tflite(model, tmp_path / "m.tflite", "int16x8", data)
    assert relative_error(on_litert(result.path, data), model.predict(data, verbose=0)) < 0.02
    assert any("'memory' into 3 steps" in note for note in result.notes)


def test_states_and_masks_are_those_of_the_model(flavor, rng, tmp_path):
    """Where an LSTM is given a state or a mask it is not the fused operator, which begins at zero and reads all."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = keras.Input((5, 3))
    _, *states = layers.LSTM(4, return_state=True)(layers.Masking()(x))
    model = keras.Model(x, layers.LSTM(4)(layers.RepeatVector(2)(states[0]), initial_state=states))
    data = 2 * rng.normal(size=(30, 5, 3)).astype(np.float32)
    data[::2, 3:] = 0
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert FUSED not in read_tflite(result.path).operator_counts
    assert relative_error(on_litert(result.path, data), model.predict(data, verbose=0)) < 0.25


def test_layers_inside_other_models(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    inner = net(flavor, lambda L: L.LSTM(4, name="memory"))

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.head = inner, keras.layers.Dense(2)

        def call(self, inputs):
            return self.head(self.inner(inputs))

    model, data = Outer(), rng.normal(size=(20, 6, 4)).astype(np.float32)
    expected = np.asarray(model(data))
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert FUSED in read_tflite(result.path).operator_counts
    assert relative_error(on_litert(result.path, data), expected) < 0.1


def long_sequence(flavor):
    return net(flavor, lambda L: L.GRU(2, name="memory"), shape=(equal_calls.LONGEST_UNROLLED + 1, 1))


@pytest.mark.above_flavor
def test_a_loop_that_stays_is_refused_with_formats_that_work(flavor, rng, tmp_path):
    """An int8 conversion of a loop would end the process."""
    model = long_sequence(flavor)
    data = rng.normal(size=(2, *model.input_shape[1:]))
    advice = r"'int8' is not possible .*'memory' \(GRU\).*at most 500 steps.*=None, 'dynamic' or 'float16'\."
    with pytest.raises(diagnosis.LoopError, match=advice) as caught:
        export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert str(caught.value.among(("int8", None, "int16x8"))).endswith("or use quantization=None.")
    assert str(caught.value.among(("int8", "int16x8"))).endswith("steps: shorten it.")


def test_a_stateful_layer_is_refused(flavor, tmp_path):
    model = net(flavor, lambda L: L.GRU(2, stateful=True, name="memory"), shape=None, batch_shape=(1, 6, 4))
    with pytest.raises(ValueError, match=r"stateful=True, 'memory'.*stateful=False.*return_state=True"):
        export_tflite(model, tmp_path / "m.tflite")
