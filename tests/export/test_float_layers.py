"""Layers that a scheme leaves in floats: their operators are float32 in the file, and what int8 breaks is whole."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import fake_quantizers
from edgeprune.tflite.float_islands import float_islands
from edgeprune.tflite.graph import operators, type_name, unpacked
from edgeprune.tflite.runtime import Runtime

X = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype(np.float32)
WILD = 500.0


def net(flavor):
    """Convolutions of which one has a channel with values so large that the others are lost in 256 steps."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(3)
    layers, image = keras.layers, keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(8, 3, padding="same", name="wild")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", name="tame")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="add")([x, x]))
    model = keras.Model(image, layers.Dense(4, name="head")(x), name="net")
    wild, tame = model.get_layer("wild"), model.get_layer("tame")
    wild.kernel.assign(np.array(wild.kernel) * np.r_[WILD, np.ones(7)].astype(np.float32))
    tame.kernel.assign(np.array(tame.kernel) / np.r_[WILD, np.ones(7)].astype(np.float32)[:, None])
    return model


def outputs(path):
    return next(iter(Runtime(path).run_all({"image": X}, "Running").values()))


def noise(path, model):
    """The mean squared error of a file's outputs over their variance."""
    made, wanted = outputs(path), model.predict(X, verbose=0)
    return float(np.square(made - wanted).mean() / wanted.var())


def in_floats(path):
    content = path.read_bytes()
    return [call.name for call in operators(unpacked(content)) if type_name(call.output(0)) == "float32"]


def export(model, path, scheme):
    return ep.export_tflite(model, path, scheme, X, calibration="min-max", overwrite=True)


def test_layers_with_a_wild_range_between_them_are_whole_again_in_floats(flavor, tmp_path):
    model, path = net(flavor), tmp_path / "m.tflite"
    export(model, path, "int8")
    lost = noise(path, model)
    result = export(model, path, ep.Scheme(8, 8, layers={"wild": 32, "tame": 32}))
    assert result.verification.passed and result.quantization == "int8"
    assert noise(path, model) < lost / 20 and lost > 0.02
    assert in_floats(path) == ["DEQUANTIZE", "CONV_2D", "CONV_2D"]
    (island,) = float_islands(path.read_bytes())
    assert island.operators == ("CONV_2D", "CONV_2D")
    kernel = np.moveaxis(np.array(model.get_layer("tame").kernel), -1, 0)
    stored = [one.values() for one in ep.read_tflite(path).weights if one.dtype == "float32"]
    assert any(one.shape == kernel.shape and np.allclose(one, kernel, atol=0) for one in stored)
    assert [note for note in result.notes if "as the scheme says" in note] and "island" not in " ".join(result.notes)


def test_a_model_trained_with_layers_in_floats_agrees_with_its_file(flavor, tmp_path):
    scheme = ep.Scheme(8, 8, layers={"tame": 32})
    aware = ep.quantize_aware(net(flavor), scheme, calibration=X)
    assert [one.name for one in fake_quantizers(aware) if not one.in_file] == ["tame_range"]
    aware.save(tmp_path / "aware.keras")
    with ep.tfmot.quantization.keras.quantize_scope():
        aware = ep.load_model(tmp_path / "aware.keras")
    report = ep.quantization_report(aware)
    assert {one.layer for one in report.kernels} == {"stem", "wild", "head"} and "by the scheme" in report.left["tame"]
    path = tmp_path / "m.tflite"
    assert export(aware, path, scheme).verification.passed
    assert in_floats(path) == ["DEQUANTIZE", "CONV_2D"]
    step = next(iter(ep.read_tflite(path).output_steps.values()))
    for model in (aware, ep.quantized_evaluation(aware)):
        assert np.abs(outputs(path) - model.predict(X, verbose=0)).max() <= 1.01 * step


def test_no_values_are_rounded_between_layers_in_floats(flavor):
    layers = {"wild": 32, "tame": 32, "add": 32}
    ranges = {
        one.name: one.in_file for one in fake_quantizers(ep.quantize_aware(net(flavor), ep.Scheme(8, 8, layers=layers)))
    }
    assert "relu_range" not in ranges and "tame_range" not in ranges
    assert not ranges["add_range"] and ranges["stem_range"] and ranges["head"]


def test_four_bits_beside_floats(flavor, tmp_path):
    scheme = ep.Scheme(4, 8, layers={"tame": 32, "head": 8})
    result = export(net(flavor), tmp_path / "m.tflite", scheme)
    dtypes = {one.shape: one.dtype for one in ep.read_tflite(result.path).weights}
    assert dtypes[(8, 3, 3, 3)] == "int4" and dtypes[(4, 8)] == "int8" and in_floats(result.path)[1:] == ["CONV_2D"]


def test_single_layers_of_four_bits_in_a_file_of_eight(flavor, tmp_path):
    for made in (lambda model, scheme: model, ep.quantize_aware):
        scheme = ep.Scheme(8, 8, layers={"stem": 4})
        result = export(made(net(flavor), scheme), tmp_path / "m.tflite", scheme)
        dtypes = {one.shape: one.dtype for one in ep.read_tflite(result.path).weights}
        assert dtypes[(8, 3, 3, 3)] == "int4" and dtypes[(4, 8)] == "int8"


def test_what_cannot_be_in_floats_is_refused(tmp_path):
    model, path = net("keras"), tmp_path / "m.tflite"
    scheme = ep.Scheme(8, 8, layers={"tame": 32})
    with pytest.raises(ValueError, match="named after the layer 'norm'.*Name that one too"):
        export(model, path, ep.Scheme(8, 8, layers={"norm": 32}))
    with pytest.raises(ValueError, match="layers in floats needs representative_data"):
        ep.export_tflite(ep.quantize_aware(model, scheme, calibration=X), path, scheme)
    with pytest.raises(ValueError, match="layers in floats cannot be sparse"):
        ep.export_tflite(model, path, scheme, X, sparse=True)
    with pytest.raises(ValueError, match="'ethos-u55-128' computes no floats"):
        ep.export_bundle(model, tmp_path / "bundle", "ethos-u55-128", quantization=scheme, representative_data=X)
