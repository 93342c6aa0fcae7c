import functools
import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from nets.exported_nets import dense, subclassed, two_in_three_out, two_inputs

from edgeprune import flavor as flavors
from edgeprune import sparsity, strip
from edgeprune.bundle.bundle import export_bundle
from edgeprune.conversion import converter_run
from edgeprune.export import ExportResult, export_tflite
from edgeprune.export.verify import verify_tflite
from edgeprune.tflite.file import read_tflite


def signature(path):
    ((_, names),) = Interpreter(str(path)).get_signature_list().items()
    return names


def run(path, samples):
    """The file's outputs by name, as reals: an oracle that knows only LiteRT's signature runner."""
    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    collected = {name: [] for name in outputs}
    for number in range(len(next(iter(samples.values())))):
        encoded = {}
        for name, detail in inputs.items():
            value, (scale, zero_point) = samples[name][number : number + 1], detail["quantization"]
            if scale:
                limits = np.iinfo(detail["dtype"])
                value = np.clip(np.round(value / scale) + zero_point, limits.min, limits.max)
            encoded[name] = value.astype(detail["dtype"])
        for name, value in runner(**encoded).items():
            scale, zero_point = outputs[name]["quantization"]
            collected[name].append((value.astype(np.float64) - zero_point) * scale if scale else value)
    return {name: np.concatenate(values) for name, values in collected.items()}, outputs


POST_TRAINING = [name for name in converter_run.QUANTIZATIONS if name != "int4"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The model of `two_in_three_out`, its samples and the result of its export, once for each Keras and format."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def once(flavor, quantization):
        model, data = two_in_three_out(flavor), two_inputs(np.random.default_rng(0))
        return model, data, export_tflite(model, folder / f"{flavor}_{quantization}.tflite", quantization, data)

    return once


@pytest.mark.parametrize("quantization", POST_TRAINING)
def test_names_order_and_batch(flavor, quantization, exported):
    _, _, result = exported(flavor, quantization)
    names = signature(result.path)
    assert set(names["inputs"]) == {"zoom", "about"} and set(names["outputs"]) == {"kind", "box", "age"}
    assert result.inputs == ("zoom", "about") and result.outputs == ("kind", "box", "age")
    interpreter = Interpreter(str(result.path))
    assert [tuple(d["shape"]) for d in interpreter.get_input_details()] == [(1, 8, 8, 3), (1, 4)]
    assert [tuple(d["shape"]) for d in interpreter.get_output_details()] == [(1, 5), (1, 2), (1, 1)]
    assert {"SHAPE", "STRIDED_SLICE", "PACK"}.isdisjoint(read_tflite(result.path).operator_counts)


@pytest.mark.parametrize(
    "quantization, tolerance", [(None, 1e-5), ("float16", 5e-3), ("dynamic", 5e-2), ("int16x8", 2e-2)]
)
def test_outputs_are_those_of_the_model(flavor, quantization, tolerance, exported):
    model, data, result = exported(flavor, quantization)
    expected = dict(zip(("kind", "box", "age"), model.predict([data["zoom"], data["about"]], verbose=0), strict=True))
    got, _ = run(result.path, data)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance)


def test_int8_is_within_its_steps_and_agrees_on_the_class(flavor, rng, tmp_path):
    model, data = two_in_three_out(flavor), two_inputs(rng, 100)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    expected = dict(zip(("kind", "box", "age"), model.predict([data["zoom"], data["about"]], verbose=0), strict=True))
    got, details = run(result.path, data)
    for name, detail in details.items():
        scale, _ = detail["quantization"]
        assert detail["dtype"] == np.int8
        assert np.abs(got[name] - expected[name]).mean() < 3 * scale
    assert np.mean(got["kind"].argmax(1) == expected["kind"].argmax(1)) > 0.9
    assert {tensor.dtype for tensor in read_tflite(result.path).weights} <= {"int8", "int32"}
    (kind,) = (row for row in result.verification.outputs if row.name == "kind")
    assert kind.largest_error == pytest.approx(np.abs(got["kind"] - expected["kind"]).max(), abs=0.01)


@pytest.mark.parametrize("quantization, integer", [("int8", np.int8), ("int16x8", np.int16)])
def test_integer_or_float_inputs_and_outputs(quantization, integer, rng, tmp_path):
    for integer_io, dtype in ((True, integer), (False, np.float32)):
        path = tmp_path / f"{integer_io}.tflite"
        export_tflite(dense("keras"), path, quantization, rng.random((20, 4)), integer_io=integer_io)
        interpreter = Interpreter(str(path))
        assert interpreter.get_input_details()[0]["dtype"] == interpreter.get_output_details()[0]["dtype"] == dtype


@pytest.mark.parametrize("integer_io, dtype", [("int8", np.int8), ("uint8", np.uint8)])
@pytest.mark.above_flavor
def test_the_integers_of_inputs_and_outputs_can_be_chosen(flavor, integer_io, dtype, rng, tmp_path):
    """In the model's order, and as near to the model as the int8 file is."""
    model, data = two_in_three_out(flavor), two_inputs(rng)
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data, integer_io=integer_io)
    assert result.verification.passed and result.verification.quantization == "int8"
    interpreter = Interpreter(str(result.path))
    assert [tuple(d["shape"]) for d in interpreter.get_input_details()] == [(1, 8, 8, 3), (1, 4)]
    assert [tuple(d["shape"]) for d in interpreter.get_output_details()] == [(1, 5), (1, 2), (1, 1)]
    expected = dict(zip(("kind", "box", "age"), model.predict([data["zoom"], data["about"]], verbose=0), strict=True))
    got, details = run(result.path, data)
    for detail in (*interpreter.get_input_details(), *details.values()):
        assert detail["dtype"] == dtype
    for name, detail in details.items():
        assert np.abs(got[name] - expected[name]).mean() < 3 * detail["quantization"][0]


@pytest.mark.above_flavor
def test_uint8_leaves_inputs_of_whole_numbers_alone(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    tokens, other = keras.Input((6,), dtype="int32", name="tokens"), keras.Input((4,), name="other")
    words = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(tokens))
    model = keras.Model([tokens, other], keras.layers.Dense(2)(keras.layers.Concatenate()([words, other])))
    data = {"tokens": rng.integers(0, 20, (30, 6)), "other": rng.normal(size=(30, 4))}
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data, integer_io="uint8")
    assert [d["dtype"] for d in Interpreter(str(result.path)).get_input_details()] == [np.int32, np.uint8]
    assert result.verification.passed


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
@pytest.mark.parametrize("per_channel, scales", [(True, 300), (False, 1)])
@pytest.mark.above_flavor
def test_one_scale_or_many_for_a_dense_layer(flavor, quantization, per_channel, scales, rng, tmp_path):
    model, data = dense(flavor, 300), rng.random((20, 4))
    result = export_tflite(model, tmp_path / "m.tflite", quantization, data, per_channel_dense=per_channel)
    assert result.verification.passed
    details = Interpreter(str(result.path)).get_tensor_details()
    kernels = [d for d in details if list(d["shape"]) == [300, 4]]
    assert [len(d["quantization_parameters"]["scales"]) for d in kernels] == [scales]


def test_a_subclassed_model_has_the_keys_of_its_dicts(flavor, rng, tmp_path):
    model = subclassed(flavor)
    data = {"a": rng.random((20, 3), np.float32), "b": rng.random((20, 4), np.float32)}
    expected = model(data)
    result = export_tflite(model, tmp_path / "m.tflite", None, data)
    assert result.inputs == ("a", "b") and result.outputs == ("right", "left")
    got, _ = run(result.path, data)
    for name in ("left", "right"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_a_functional_model_with_dicts(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((2,), name="right")}
    outputs = {"z": keras.layers.Dense(2)(inputs["left"]), "y": keras.layers.Dense(1)(inputs["right"])}
    model = keras.Model(inputs, outputs)
    data = {"left": rng.random((5, 3)), "right": rng.random((5, 2))}
    result = export_tflite(model, tmp_path / "m.tflite", None, data)
    assert set(result.inputs) == {"left", "right"} and set(result.outputs) == {"z", "y"}
    assert result.verification.passed


def test_an_output_given_twice_and_an_input_given_out(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    x, layer = keras.Input((4,)), keras.layers.Dense(4, name="shared")
    model = keras.Model(x, [layer(x), layer(layer(x)), x])
    result = export_tflite(model, tmp_path / "m.tflite", None, rng.random((5, 4)))
    assert result.outputs[:2] == ("shared", "shared_1") and len(set(result.outputs)) == 3
    assert result.verification.passed


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_one_tensor_given_out_under_two_names(flavor, quantization, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((4,))
    hidden = keras.layers.Dense(4, "relu")(x)
    out = keras.layers.Dense(2, name="out")(hidden)
    model = keras.Model(x, {"b": out, "hidden": hidden, "a": out})
    result = export_tflite(model, tmp_path / "m.tflite", quantization, rng.random((30, 4)))
    assert set(result.outputs) == {"a", "b", "hidden"} and result.verification.passed
    assert {row.name for row in result.verification.outputs} == {"a", "b", "hidden"}


def test_a_nested_model(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((4,)), dense(flavor), dense_of(keras, 3), keras.layers.Softmax(name="end")])
    result = export_tflite(model, tmp_path / "m.tflite", "int8", rng.random((30, 4)))
    assert result.outputs == ("end",) and result.verification.passed


def dense_of(keras, size):
    return keras.Sequential([keras.Input((size,)), keras.layers.Dense(5, "relu")], name="inner")


def test_integer_inputs_stay_integers(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Dense(2)(layers.Flatten()(layers.Embedding(20, 4)(tokens))))
    result = export_tflite(model, tmp_path / "m.tflite", "int8", rng.integers(0, 20, (50, 6)))
    assert Interpreter(str(result.path)).get_input_details()[0]["dtype"] == np.int32
    assert result.verification.passed


def test_strings_are_looked_up_in_the_file(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    city = keras.Input((1,), dtype="string", name="city")
    numbers = layers.StringLookup(vocabulary=["rome", "oslo"], name="cities")(city)
    model = keras.Model(city, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(numbers))))
    result = export_tflite(model, tmp_path / "m.tflite")
    assert result.verification.passed and "random input" in result.notes[0]
    assert verify_tflite(result.path, model, np.array([["rome"], [b"bonn"]], object)).passed
    with pytest.raises(ValueError, match="'city': expected strings, got float among"):
        verify_tflite(result.path, model, np.array([["rome"], [1.5]], object))
    back = keras.Model(
        count := keras.Input((2,), dtype="int64"), layers.StringLookup(vocabulary=["a", "ü"], invert=True)(count)
    )
    assert export_tflite(back, tmp_path / "back.tflite").verification.passed
    other = keras.Model(
        count := keras.Input((2,), dtype="int64"), layers.StringLookup(vocabulary=["ü", "a"], invert=True)(count)
    )
    assert "of its strings differ" in verify_tflite(tmp_path / "back.tflite", other).problems[0]
    with pytest.raises(ValueError, match="inputs of strings, 'city'.*dynamic"):
        export_tflite(model, tmp_path / "m8.tflite", "int8", np.array([["rome"]]))
    for word in ("rome", "oslo", "bonn"):
        interpreter = Interpreter(str(result.path))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([[word]], object))
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(got, model(tf.constant([[word]])), atol=1e-6)
    with pytest.raises(ValueError, match="inputs of strings, 'city'.*without_preprocessing"):
        export_bundle(model, tmp_path / "bundle", target="phone")


def test_mixed_precision_becomes_float32_and_the_model_keeps_its_policy(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    mixed = keras.mixed_precision.Policy("mixed_float16") if flavor == "tf_keras" else "mixed_float16"
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, dtype=mixed),
            layers.BatchNormalization(dtype=mixed),
            layers.ReLU(dtype=mixed),
            layers.Flatten(dtype=mixed),
            layers.Dense(3, dtype="float32"),
        ]
    )
    result = export_tflite(model, tmp_path / "m.tflite", None, rng.random((10, 8, 8, 3)))
    assert result.verification.passed
    assert {tensor.dtype for tensor in read_tflite(result.path).weights} == {"float32"}
    assert [layer.compute_dtype for layer in model.layers] == ["float16"] * 4 + ["float32"]


def odd_layers(flavor):
    keras = flavors.keras_module(flavor)

    class Inverse(keras.layers.Layer):
        def call(self, x):
            return x + tf.linalg.inv(tf.matmul(x, x, transpose_a=True))[:1]

    class Arc(keras.layers.Layer):
        def call(self, x):
            return tf.math.acos(x)

    inner = keras.Sequential([keras.Input((3,)), Inverse(name="invert"), keras.layers.Dense(3)], name="inner")
    layers = [keras.layers.Dense(3, name="d"), keras.layers.Dense(3, name="d_1"), inner]
    return keras.Sequential([keras.Input((4,)), *layers]), keras.Sequential([keras.Input((4,)), Arc(name="arc")])


def test_the_layer_that_needs_a_missing_operator_is_named(flavor, tmp_path):
    flex, custom = odd_layers(flavor)
    with pytest.raises(ValueError, match=r"MatrixInverse in layer 'inner/invert' \(Inverse\).*allow_flex=True"):
        export_tflite(flex, tmp_path / "m.tflite")
    with pytest.raises(ValueError, match=r"Acos in layer 'arc' \(Arc\).*allow_custom=True"):
        export_tflite(custom, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.above_flavor
def test_a_missing_operator_let_in_is_in_the_file_and_said(flavor, tmp_path):
    flex, custom = odd_layers(flavor)
    result = export_tflite(flex, tmp_path / "flex.tflite", allow_flex=True)
    assert read_tflite(result.path).custom_operators == ("FlexMatrixInverse",)
    assert result.verification is None and "FlexMatrixInverse" in result.notes[0]
    result = export_tflite(custom, tmp_path / "custom.tflite", allow_custom=True)
    assert read_tflite(result.path).custom_operators == ("Acos",)


@pytest.mark.above_flavor
def test_a_function_marked_as_one_operator_does_not_slip_in(flavor, tmp_path):
    keras = flavors.keras_module(flavor)

    class Marked(keras.layers.Layer):
        def call(self, x):
            @tf.function(experimental_implements='name: "MyOp" attr { key: "tfl_fusable_op" value { b: true } }')
            def one_operator(x):
                return 2 * x + 1

            return one_operator(x)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Marked(name="marked")])
    with pytest.raises(ValueError, match=r"MyOp in layer 'marked' \(Marked\).*allow_custom=True"):
        export_tflite(model, tmp_path / "m.tflite", allow_flex=True)
    assert list(tmp_path.iterdir()) == []
    result = export_tflite(model, tmp_path / "m.tflite", allow_custom=True)
    assert read_tflite(result.path).custom_operators == ("MyOp",)


def test_a_function_in_the_graph_is_named_too(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((3,))
    y = tf.math.erf(x) if flavor == "tf_keras" else keras.ops.erf(x)
    with pytest.raises(ValueError, match="Erf in (layer 'tf.math.erf'|model 'm' outside its layers)"):
        export_tflite(keras.Model(x, y, name="m"), tmp_path / "m.tflite")


def test_what_computes_in_floats_in_an_int8_file_is_said(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((4, 4, 4, 2)), keras.layers.Conv3D(3, 2, name="cube")])
    data = rng.normal(size=(20, 4, 4, 4, 2))
    result = export_tflite(model, tmp_path / "m.tflite", "int8", data)
    assert any(
        "A float island between integer operators: CONV_3D in layer 'cube' (Conv3D)" in note for note in result.notes
    )
    with pytest.raises(ValueError, match="int16x8: the operator CONV_3D"):
        export_tflite(model, tmp_path / "wide.tflite", "int16x8", data)


def test_int8_operators_that_some_runtimes_compute_wrong_are_said(rng, tmp_path):
    keras = flavors.keras_module("keras")
    keras.utils.set_random_seed(0)  # with some weights the divisor has the integer 0, which LiteRT refuses to divide by
    x = keras.Input((4, 6))
    y = keras.layers.MultiHeadAttention(1, 3, name="attention")(x, x)
    data = rng.normal(size=(10, 4, 6))
    result = export_tflite(keras.Model(x, y), tmp_path / "m.tflite", "int8", data)
    (note,) = (note for note in result.notes if "XNNPACK" in note)
    assert note.startswith("BATCH_MATMUL (layer 'attention' (MultiHeadAttention)): in int8, LiteRT 2.0.2 to 2.1.2")
    result = export_tflite(keras.Model(x, y / (1 + y * y)), tmp_path / "div.tflite", "int8", data)
    assert any(note.startswith("DIV (") for note in result.notes)
    assert not any("XNNPACK" in note for note in export_tflite(keras.Model(x, y), tmp_path / "float.tflite").notes)


def test_dynamic_that_changes_nothing_is_said(tmp_path):
    assert any(
        "No weight is stored as int8" in n for n in export_tflite(dense("keras"), tmp_path / "a", "dynamic").notes
    )
    result = export_tflite(dense("keras", 300), tmp_path / "b.tflite", "dynamic")
    assert "int8" in {tensor.dtype for tensor in read_tflite(result.path).weights}
    assert not any("No weight is stored" in note for note in result.notes)


def test_pruning_is_ended_in_the_file_and_goes_on_in_the_model(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, name="pruned"), keras.layers.Dense(4)])
    model = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.75, 0, frequency=1))
    model.compile("sgd", "mse")
    x = rng.random((32, 16))
    model.fit(x, rng.random((32, 4)), verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    result = export_tflite(model, tmp_path / "m.tflite", None, x)
    assert "pruning" in result.notes[0]
    assert result.verification.passed
    assert {t.sparsity for t in read_tflite(result.path).weights if len(t.shape) == 2} == {0.75}
    assert strip.is_pruned(model)
    model.fit(x, rng.random((32, 4)), verbose=0, callbacks=[sparsity.UpdatePruningStep()])


@pytest.mark.above_flavor
def test_nothing_is_printed(flavor, capfd, rng, tmp_path):
    export_tflite(dense(flavor), tmp_path / "m.tflite", "int8", rng.random((10, 4)))
    os.write(2, b"still connected")
    print("both")
    assert capfd.readouterr() == ("both\n", "still connected")


def test_the_result_prints_and_goes_to_json(rng, tmp_path):
    result = export_tflite(dense("keras"), tmp_path / "m.tflite", "int8", rng.random((10, 4)))
    assert isinstance(result, ExportResult)
    assert result.bytes == result.path.stat().st_size == result.verification.size.bytes
    assert result.verification.path == result.path
    text = str(result)
    assert f"{result.bytes:,} bytes" in text and "int8" in text and "'out'" in text
    assert json.loads(json.dumps(result.to_dict()))["outputs"] == ["out"]


def test_without_data_it_is_verified_on_made_up_samples(tmp_path):
    result = export_tflite(dense("keras"), tmp_path / "m.tflite")
    assert result.verification.samples > 1 and "random input" in result.notes[0]
    assert export_tflite(dense("keras"), tmp_path / "m.tflite", verify=False, overwrite=True).verification is None


def test_a_log_handler_made_meanwhile_goes_on_working(capsys):
    import logging

    from edgeprune.output_capture import captured_output

    with captured_output() as captured:
        handler = logging.StreamHandler(sys.stderr)
        print("caught")
    handler.emit(logging.makeLogRecord({"msg": "later"}))
    handler.flush()
    assert captured.text == "caught\n"
    assert capsys.readouterr().err == "later\n"
