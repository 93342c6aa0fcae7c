"""Conversions that fail: the old file stays, nothing is left, and one error names what is wrong."""

import os

import numpy as np
import pytest
from nets.exported_nets import dense, subclassed

from edgeprune import flavor as flavors
from edgeprune.conversion import converter_run
from edgeprune.export import convert as module
from edgeprune.export import export_tflite


@pytest.fixture
def existing(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the old file")
    return path


@pytest.mark.parametrize("step", ["run_converter", "in_order", "verify_tflite"])
def test_a_failure_half_way_keeps_the_old_file_and_leaves_nothing(step, existing, monkeypatch, capfd):
    def fail(*args, **kwargs):
        os.write(2, b"noise")
        raise RuntimeError("half way")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises((RuntimeError, ValueError), match="half way"):
        export_tflite(dense("keras"), existing, overwrite=True)
    assert existing.read_bytes() == b"the old file"
    assert list(existing.parent.iterdir()) == [existing]
    os.write(1, b"still connected")
    assert capfd.readouterr().out == "still connected"


def test_a_failure_in_the_middle_of_calibration_keeps_the_old_file(flavor, existing, monkeypatch, rng):
    def two_then_fail(samples, say):
        for number in range(2):
            yield {name: array[number : number + 1] for name, array in samples.items()}
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(converter_run, "_calibration", two_then_fail)
    with pytest.raises(ValueError, match="Model 'small' could not be converted.*the disk is gone"):
        export_tflite(dense(flavor), existing, "int8", rng.random((10, 4)), overwrite=True)
    assert existing.read_bytes() == b"the old file" and list(existing.parent.iterdir()) == [existing]


def test_a_file_that_does_not_load_is_not_left(existing, monkeypatch):
    monkeypatch.setattr(module, "compact", lambda content, *_: content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"m\.tflite"):
        export_tflite(dense("keras"), existing, overwrite=True)
    assert existing.read_bytes() == b"the old file"


def test_data_that_do_not_fit_are_refused_before_the_conversion(flavor, existing, monkeypatch):
    monkeypatch.setattr(module, "write_saved_model", lambda *_: pytest.fail("the conversion has begun"))
    with pytest.raises(ValueError, match=r"Input 'x' expects samples of shape \(4,\)"):
        export_tflite(dense(flavor), existing, "int8", np.zeros((10, 5)), overwrite=True)


def test_an_existing_file_is_kept_unless_overwrite_is_set(existing):
    with pytest.raises(FileExistsError, match="m.tflite"):
        export_tflite(dense("keras"), existing)
    assert existing.read_bytes() == b"the old file"
    export_tflite(dense("keras"), existing, overwrite=True)
    assert existing.read_bytes()[4:8] == b"TFL3"


def unbuilt(flavor):
    keras = flavors.keras_module(flavor)
    return keras.Sequential([keras.layers.Dense(2)])


def without_size(flavor):
    keras = flavors.keras_module(flavor)
    x = keras.Input((None, None, 3), name="picture")
    return keras.Model(x, keras.layers.Conv2D(2, 3)(x))


@pytest.mark.parametrize(
    "model, message",
    [
        (unbuilt, "is not built: call it on an example"),
        (subclassed, "is not built: call it on an example"),
        (without_size, r"Input 'picture' .* no fixed shape: \(None, None, 3\).*keras.Input\(\(96, 96, 3\)\)"),
    ],
)
def test_models_that_cannot_be_converted(flavor, model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tflite(model(flavor), tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("keras", "float64"), ("tf_keras", "float64"), ("tf_keras", "float16"), ("tf_keras", "bfloat16")],
)
def test_weights_that_are_not_cast_to_float32_are_named(name, dtype, tmp_path):
    keras = flavors.keras_module(name)
    x = keras.Input((4,), dtype=dtype)
    model = keras.Model(x, keras.layers.Dense(2, activation="relu", name="head", dtype=dtype)(x))
    with pytest.raises(
        ValueError, match=f"weights of layer 'head' are of type {dtype}, and LiteRT computes in float32"
    ):
        export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("model", [3, "model.keras", None])
def test_no_model(model, tmp_path):
    with pytest.raises(TypeError, match=f"Expected a Keras model, got {type(model).__name__}"):
        export_tflite(model, tmp_path / "m.tflite")


def test_a_layer_is_no_model(flavor, tmp_path):
    with pytest.raises(TypeError, match="Expected a Keras model, got Dense"):
        export_tflite(flavors.keras_module(flavor).layers.Dense(3), tmp_path / "m.tflite")


def test_unknown_quantization(tmp_path):
    with pytest.raises(
        ValueError, match="one of None, 'dynamic', 'float16', 'int8', 'int16x8', 'int4', or a Scheme; got 'int2'"
    ):
        export_tflite(dense("keras"), tmp_path / "m.tflite", "int2")


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"quantization": ["int8"]}, ValueError, "quantization must be one of"),
        ({"integer_io": "int16"}, ValueError, "integer_io must be True, False, 'int8' or 'uint8'; got 'int16'"),
        ({"integer_io": 2}, ValueError, "integer_io must be"),
        ({"integer_io": "uint8"}, ValueError, "integer_io='uint8' needs quantization='int8', got None"),
        ({"integer_io": "uint8", "quantization": "int16x8"}, ValueError, "needs quantization='int8', got 'int16x8'"),
        (
            {"per_channel_dense": False},
            ValueError,
            "per_channel_dense=False needs 'int8', 'int16x8' or 'int4'",
        ),
        ({"per_channel_dense": None, "quantization": "int8"}, TypeError, "per_channel_dense must be True or False"),
        ({"sparse": "no"}, TypeError, "sparse must be True or False, got 'no'"),
        ({"overwrite": 0}, TypeError, "overwrite must be True or False, got 0"),
        ({"verbose": 2}, TypeError, "verbose must be True or False, got 2"),
        ({"verify": "all"}, TypeError, "verify must be"),
        ({"num_samples": 0}, ValueError, "num_samples must be 1 or more, got 0"),
        ({"num_samples": -3}, ValueError, "num_samples must be 1 or more, got -3"),
        ({"num_samples": 2.5}, TypeError, "num_samples must be a whole number, got 2.5"),
        ({"num_samples": True}, TypeError, "num_samples must be a whole number, got True"),
        ({"path": None}, TypeError, "path must be a string or a path, got NoneType"),
        ({"representative_data": np.ones((3, 4), complex)}, ValueError, "Input 'x' .* got values of type complex128"),
        ({"representative_data": [["a"] * 4]}, ValueError, "Input 'x' .* got values of type <U1"),
        ({"representative_data": 7}, TypeError, "representative_data must be arrays x, .* got int"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, error, message, tmp_path):
    arguments = {"path": tmp_path / "m.tflite", **arguments}
    with pytest.raises(error, match=message):
        export_tflite(dense("keras"), **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_missing_representative_data(quantization, tmp_path):
    with pytest.raises(ValueError, match=f"'{quantization}' needs representative_data: .* tf.data.Dataset"):
        export_tflite(dense("keras"), tmp_path / "m.tflite", quantization)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder"):
        export_tflite(dense("keras"), tmp_path)


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        export_tflite(dense("keras"), tmp_path / "file" / "m.tflite")


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(flavor, quantization, value, rng, tmp_path):
    model = dense(flavor)
    bias = model.get_layer("out").weights[1]
    bias.assign([0.0, value, 0.0])
    with pytest.raises(ValueError, match="Weight 'bias' of layer 'out' holds NaN or infinity in 1 of 3 values"):
        export_tflite(model, tmp_path / "m.tflite", quantization, rng.random((4, 4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_an_output_that_overflows_in_calibration_is_named(flavor, quantization, rng, tmp_path):
    """The converter would end the whole process."""
    keras = flavors.keras_module(flavor)
    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(3, name="large")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="out")(y), name="small")
    model.get_layer("large").weights[0].assign(np.full((4, 3), 3e38))
    data = rng.random((4, 4)) * [[0], [0], [9], [0]]
    with pytest.raises(ValueError, match="Output 'out' of model 'small' is NaN or infinite for sample 2"):
        export_tflite(model, tmp_path / "m.tflite", quantization, data)


def test_a_layer_that_overflows_in_calibration_is_named_though_no_output_does(flavor, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((4,), name="x")
    y = keras.layers.Activation("sigmoid", name="squeezed")(keras.layers.Dense(3, name="large")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="out")(y), name="small")
    model.get_layer("large").weights[0].assign(np.full((4, 3), 3e38))
    with pytest.raises(ValueError, match=r"layer 'large' \(Dense\) in model 'small' are too large"):
        export_tflite(model, tmp_path / "m.tflite", "int8", 1 + rng.random((4, 4)), verify=False)


def test_a_model_of_a_strategy_is_converted_outside_its_scope(two_replicas, tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")], name="mirrored")
        with pytest.raises(ValueError, match="'mirrored' is passed inside the scope .* end the with block first"):
            export_tflite(model, tmp_path / "model.tflite", verbose=False)
    assert export_tflite(model, tmp_path / "model.tflite", verbose=False).verification.passed
