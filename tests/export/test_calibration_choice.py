"""The ranges of int8 files: each way is in the file's own scales, and the one that is kept has the smallest error."""

from __future__ import annotations

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune import schemes
from edgeprune.conversion.converter_run import ConverterSettings
from edgeprune.export import calibration_choice
from edgeprune.export.convert import write_tflite
from edgeprune.export.prepared import prepare
from edgeprune.quantization.ranges import range_method
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.runtime import Runtime


def net(flavor, unbalanced=False):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2), name="image"),
            layers.Conv2D(6, 3, activation="relu", name="stem"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="head"),
        ]
    )
    if unbalanced:
        factors = np.exp2([-5, 4, 0, 3, -4, 2])
        stem, depthwise = model.get_layer("stem"), model.get_layer("depthwise")
        kernel = depthwise.kernel if hasattr(depthwise, "kernel") else depthwise.depthwise_kernel
        stem.kernel.assign(np.asarray(stem.kernel) * factors)
        kernel.assign(np.asarray(kernel) / factors[:, None])
    return model


def images(rng, count=40):
    return rng.normal(size=(count, 8, 8, 2)).astype(np.float32)


def exported(model, x, path, calibration=None):
    given = {} if calibration is None else {"calibration": calibration}
    return ep.export_tflite(model, path, "int8", x, verify=True, verbose=False, **given)


def file_error(path, model, x):
    (made,) = Runtime(path).run_all({"image": x}, "").values()
    return float(np.square(made - np.asarray(model(x))).mean())


@pytest.mark.parametrize(("flavor", "calibration"), [("keras", "percentile"), ("tf_keras", "mse")])
def test_ranges_are_in_the_file(flavor, calibration, rng, tmp_path):
    model, x = net(flavor), images(rng)
    x[0, 0, 0, :] = 12.0, -9.0  # values far out
    result = exported(model, x, tmp_path / "m.tflite", calibration)
    plain = exported(model, x, tmp_path / "plain.tflite", "min-max")
    scales = [read_tflite(one.path).inputs[0].scale for one in (result, plain)]
    assert scales[1] == pytest.approx(21 / 255, rel=0.01)
    chooser = range_method(calibration)()
    chooser.update(x)
    low, high = chooser.range()
    assert scales[0] == pytest.approx((high - low) / 255, rel=1e-3) and scales[0] < 0.99 * scales[1]
    assert result.verification.outputs and result.inputs == plain.inputs == ("image",)
    assert read_tflite(result.path).operator_counts == read_tflite(plain.path).operator_counts


@pytest.mark.above_flavor
def test_by_default_what_measures_better_is_kept(flavor, rng, tmp_path):
    model, x = net(flavor, unbalanced=True), images(rng)
    auto = exported(model, x, tmp_path / "auto.tflite")
    assert auto.path.read_bytes() == exported(model, x, tmp_path / "again.tflite", "auto").path.read_bytes()
    exported(model, x, tmp_path / "plain.tflite", "min-max")
    assert any(note.startswith("Calibration: equalized") for note in auto.notes), auto.notes
    fresh = images(np.random.default_rng(5))
    assert file_error(auto.path, model, fresh) < file_error(tmp_path / "plain.tflite", model, fresh) / 2
    assert auto.verification.passed


def test_a_bundle_is_calibrated_as_a_file_is(rng, tmp_path):
    model, x = net(flavors.KERAS_3, unbalanced=True), images(rng)
    bundle = ep.export_bundle(model, tmp_path / "bundle", "phone", x, quantization="int8")
    assert any(note.startswith("Calibration: equalized") for note in bundle.notes) and bundle.verification.passed
    single = exported(model, x, tmp_path / "m.tflite")
    assert single.verification.outputs[0].mean_error == bundle.verification.outputs[0].mean_error


def test_auto_tries_nothing_where_little_is_lost(rng, tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(2, 1, name="mix")])
    (note,) = exported(model, images(rng), tmp_path / "m.tflite", "auto").notes
    assert note.startswith("Calibration: min-max. Error on samples that were held out") and "equalized" not in note


def test_few_samples_or_channels_that_cannot_be_equalized(rng, tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    layers = [keras.layers.Dense(6, activation="swish"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8,), name="x"), *layers])
    x = rng.normal(size=(16, 8)) * [50.0, *[1.0] * 7]
    (note,) = exported(model, x[:7], tmp_path / "few.tflite").notes
    assert note == "Calibration: min-max, as 8 samples or more are needed to measure other ways."
    (note,) = exported(model, x, tmp_path / "m.tflite").notes
    assert note.startswith("Calibration: ") and note.endswith("Not tried: equalized: no channel can be scaled.")


def test_a_model_that_cannot_be_simulated_has_a_plain_file(rng, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("a layer of the user's own")

    monkeypatch.setattr(calibration_choice, "SimulatedFile", fails)
    result = exported(net(flavors.KERAS_3), images(rng), tmp_path / "m.tflite")
    assert result.notes == ("Calibration: min-max. Not tried: min-max: a layer of the user's own.",)


def test_other_files_and_models_with_ranges_are_left_alone(rng, tmp_path):
    model, x = net(flavors.KERAS_3), images(rng)
    assert not ep.export_tflite(model, tmp_path / "16.tflite", "int16x8", x, verbose=False).notes
    aware = ep.quantize_aware(model, calibration=x)
    assert not exported(aware, x, tmp_path / "own.tflite").notes


def test_bad_input(rng, tmp_path):
    model, x, path = net(flavors.KERAS_3), images(rng, 4), tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="calibration must be one of 'min-max', 'percentile', 'mse', 'auto'"):
        ep.export_tflite(model, path, "int8", x, calibration="guess")
    with pytest.raises(ValueError, match="calibration='mse' is for quantization='int8' or 'int4', got None"):
        ep.export_tflite(model, path, calibration="mse")
    aware = ep.quantize_aware(model, calibration=x)
    with pytest.raises(ValueError, match="quantization-aware and has its ranges"):
        ep.export_tflite(aware, path, "int8", x, calibration="mse")


@pytest.mark.parametrize("way", ["min-max", "percentile"])
def test_inputs_without_a_name_of_the_users_own_are_found(flavor, way, rng, tmp_path):
    keras = flavors.keras_module(flavor)
    inputs = [keras.Input((5,)), keras.Input((3,))]
    x = keras.layers.Concatenate()([keras.layers.Dense(4, activation="relu")(one) for one in inputs])
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    arrays = [rng.normal(size=(16, width)).astype(np.float32) for width in (5, 3)]
    scheme = schemes.scheme_of("int8")
    prepared = prepare(model, arrays, lambda *_: None)
    made = calibration_choice._made(prepared, calibration_choice._Way(way, equalized=True), scheme)
    found = write_tflite(made, tmp_path / "m.tflite", ConverterSettings("int8"), verbose=False)
    assert found.verification.passed and list(found.inputs) == list(prepared.specs)


def test_outputs_of_functions_and_layers_are_told_apart(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((8, 8, 2), name="x")
    z = keras.layers.Conv2D(4, 3, name="conv")(x)
    model = keras.Model(x, [-z, keras.layers.Flatten(name="flat")(z)])
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("f4")
    made = ep.export_tflite(model, tmp_path / "m.tflite", "int8", data, calibration="mse", verbose=False)
    assert made.verification.passed and len(made.verification.outputs) == 2


@pytest.mark.parametrize("calibration", ["auto", "min-max"])
def test_a_subclassed_model_has_weights_of_4_bits(flavor, calibration, tmp_path):
    keras = flavors.keras_module(flavor)

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(24, activation="relu", name="hidden")
            self.end = keras.layers.Dense(3, activation="softmax", name="end")

        def call(self, x):
            return self.end(self.hidden(x))

    keras.utils.set_random_seed(0)
    model, x = Subclassed(), np.random.default_rng(0).normal(size=(40, 12)).astype("f4")
    model(x)
    scheme = ep.plan_quantization(model, x, max_size=0.97).scheme
    assert scheme.layer_bits == {"end": 8}
    for quantization, of_end in (("int4", "int4"), (scheme, "int8")):
        result = ep.export_tflite(
            model, tmp_path / "m.tflite", quantization, x, calibration=calibration, overwrite=True
        )
        stored = {one.shape: one.dtype for one in ep.read_tflite(result.path).weights}
        assert result.verification.passed and stored[(24, 12)] == "int4"
        assert stored[(3, 24)] == of_end or calibration == "auto"  # which may have layers of 8 bits of its own
