"""The file of a quantization-aware model: its integers, its ranges, its outputs."""

import numpy as np
import pytest
from nets.quantized_nets import branched, chain, half, images, nested, shared

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import quantized_layers


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def trained(request):
    """A model after a few steps of training, and samples."""
    model, x = branched(request.param), images()
    model = ep.quantize_aware(model, calibration=x)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(len(x)) % 5, batch_size=16, verbose=0)
    return model, x


@pytest.fixture(scope="module", params=[False, True])
def exported(request, trained, tmp_path_factory):
    """The model with its file, written with representative data or without."""
    model, x = trained
    path = tmp_path_factory.mktemp("aware") / "model.tflite"
    result = ep.export_tflite(model, path, "int8", x if request.param else None)
    return model, x, result


def test_every_operator_computes_in_integers_and_none_changes_a_scale(exported):
    file = ep.read_tflite(exported[2].path)
    assert {dtype for operator in file.operators for dtype in operator.output_dtypes} == {"int8"}
    assert "QUANTIZE" not in file.operator_counts and "DEQUANTIZE" not in file.operator_counts
    assert file.operator_counts["CONV_2D"] == 4 and file.operator_counts["FULLY_CONNECTED"] == 2


def test_its_outputs_are_those_of_the_model_that_was_trained(exported):
    model, x, result = exported
    verification = ep.verify_tflite(result.path, model, x)
    assert verification.passed and not [note for note in result.notes if "floats" in note]
    assert verification.outputs[0].mean_error < 1 / 256


def folded_scale(model, name):
    """What batch normalization multiplies the channels of a kernel by."""
    if name not in ("stem", "depth", "point"):
        return 1.0
    layer = model.get_layer(f"{name}_bn")
    gamma, variance = (np.asarray(one, np.float64) for one in (layer.gamma, layer.moving_variance))
    return gamma / np.sqrt(variance + layer.epsilon)


def test_the_kernels_of_the_file_are_those_that_the_model_computes_with(exported):
    model, _, result = exported
    tensors = [tensor for tensor in ep.read_tflite(result.path).tensors if tensor.is_weight and tensor.dtype == "int8"]
    for wrapper in quantized_layers(model):
        (kernel,) = wrapper.kernel_axes
        rounded = np.asarray(wrapper.rounded(kernel), np.float64)
        if rounded.ndim == 4 and wrapper.layer.name == "depth":
            rounded = rounded.transpose(3, 0, 1, 2) * folded_scale(model, "depth")
        else:
            rounded = np.moveaxis(rounded * folded_scale(model, wrapper.layer.name), -1, 0)
        (stored,) = [one for one in tensors if one.shape == rounded.shape]
        step = np.abs(stored.values()).max() / 127
        np.testing.assert_allclose(stored.values(), rounded, atol=1e-4 * step)


def test_a_float_file_holds_the_float_model(trained, tmp_path):
    model, x = trained
    result = ep.export_tflite(model, tmp_path / "float.tflite", None, x)
    assert ep.read_tflite(result.path).quantization is None and result.verification.passed
    assert any("pass quantization='int8'" in note for note in result.notes)
    assert ep.verify_tflite(result.path, ep.strip_quantization(model), x).passed


def test_a_model_that_never_saw_data_is_refused(flavor, tmp_path):
    with pytest.raises(ValueError, match="ranges of 'image_range', .* are not known: train"):
        ep.export_tflite(ep.quantize_aware(chain(flavor)), tmp_path / "m.tflite", "int8")


def test_the_model_is_left_as_it_was(trained, tmp_path):
    model, x = trained
    before = model.predict(x, verbose=0)
    kernels = [np.asarray(layer.layer.weights[0]).copy() for layer in quantized_layers(model)]
    ep.export_tflite(model, tmp_path / "m.tflite", "int8", verify=False)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    for layer, kernel in zip(quantized_layers(model), kernels, strict=True):
        np.testing.assert_array_equal(np.asarray(layer.layer.weights[0]), kernel)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A model with weights of 4 bits, half of the head's and stem's zero, with its files in int4 and in int8."""
    model, x = branched("keras"), images()
    for name in ("stem", "head"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.random.default_rng(3).random(kernel.shape) < 0.5, 0, kernel))
    model = ep.quantize_aware(model, "int4", calibration=x)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(len(x)) % 5, batch_size=16, verbose=0)
    folder = tmp_path_factory.mktemp("narrow")
    return model, x, {name: ep.export_tflite(model, folder / f"{name}.tflite", name, x) for name in ("int4", "int8")}


def test_weights_of_four_bits_are_those_that_the_model_computes_with(narrow):
    model, x, results = narrow
    file = ep.read_tflite(results["int4"].path)
    assert file.quantization == "int4"
    tensors = [tensor for tensor in file.weights if tensor.dtype == "int4"]
    assert len(tensors) == len(quantized_layers(model)) == 7
    for wrapper in quantized_layers(model):
        (kernel,) = wrapper.kernel_axes
        rounded = np.asarray(wrapper.rounded(kernel), np.float64) * (
            folded_scale(model, wrapper.layer.name)[:, None]
            if wrapper.layer.name == "depth"
            else folded_scale(model, wrapper.layer.name)
        )
        rounded = rounded.transpose(3, 0, 1, 2) if wrapper.layer.name == "depth" else np.moveaxis(rounded, -1, 0)
        (stored,) = [one for one in tensors if one.shape == rounded.shape]
        np.testing.assert_allclose(stored.values(), rounded, rtol=1e-5, atol=1e-7)
        assert stored.zeros == (rounded == 0).sum()
        if wrapper.layer.name in ("stem", "head"):  # zeros of pruning, position by position
            mask = np.random.default_rng(3).random(wrapper.layer.kernel.shape) < 0.5
            assert (stored.values()[np.moveaxis(mask, -1, 0)] == 0).all() and mask.any()


def test_the_file_in_four_bits_computes_as_the_model(narrow):
    model, x, results = narrow
    for result in results.values():
        verification = ep.verify_tflite(result.path, model, x)
        assert verification.passed and verification.outputs[0].mean_error < 1 / 128
    assert results["int4"].bytes < results["int8"].bytes
    assert ep.verify_tflite(results["int4"].path, model, x, use_xnnpack=False).problems == ()


def test_a_model_trained_for_eight_bits_is_not_stored_in_four(trained, tmp_path):
    model, x = trained
    with pytest.raises(ValueError, match="is on a grid of 4 bits that an operator reads"):
        ep.export_tflite(model, tmp_path / "m.tflite", "int4", x)
    assert not list(tmp_path.iterdir())


def test_a_float_model_gets_solved_weights_of_four_bits(tmp_path):
    model, x = branched("keras"), images()
    kernel = model.get_layer("left").kernel
    kernel.assign(np.where(np.random.default_rng(3).random(kernel.shape) < 0.5, 0, kernel))
    scheme = ep.Scheme(4, 8, layers={"head": 8})
    result = ep.export_tflite(model, tmp_path / "m.tflite", scheme, x, calibration="min-max")
    assert result.quantization == "int4" and result.verification.passed
    assert any(note.startswith("Weights: solved on 64 samples") for note in result.notes)
    expected = ep.round_weights(model, x, scheme).model
    stored = {tensor.shape: tensor for tensor in ep.read_tflite(result.path).weights}
    assert stored[(5, 12)].dtype == "int8"
    left = np.moveaxis(np.asarray(expected.get_layer("left").kernel), -1, 0)
    assert stored[left.shape].dtype == "int4"
    np.testing.assert_allclose(stored[left.shape].values(), left, rtol=1e-5, atol=1e-7)
    assert (stored[left.shape].values()[np.moveaxis(np.asarray(kernel), -1, 0) == 0] == 0).all()


@pytest.mark.parametrize(("flavor", "scheme"), [("keras", "int4"), ("tf_keras", "int8")])
def test_pruned_while_trained_for_quantization(flavor, scheme, tmp_path):
    x = images()
    model = ep.prune_low_magnitude(
        ep.quantize_aware(chain(flavor), scheme, calibration=x), ep.ConstantSparsity(0.5, 0, frequency=1)
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(len(x)) % 5, batch_size=16, verbose=0, callbacks=[ep.UpdatePruningStep()])
    result = ep.export_tflite(ep.strip_pruning(model), tmp_path / "m.tflite", scheme, x)
    assert result.verification.passed and result.verification.zeros_kept == 1.0
    assert all(row.keras_zeros / row.elements == 0.5 for row in result.verification.weights)


@pytest.mark.parametrize("make", [nested, shared, half])
def test_models_of_every_wiring_become_integers(flavor, make, tmp_path):
    x = {"a": images(), "b": images()[::-1]} if make is shared else images()
    model = ep.quantize_aware(make(flavor), calibration=x)
    result = ep.export_tflite(model, tmp_path / "m.tflite", "int8", x)
    operators = ep.read_tflite(result.path).operators
    assert {dtype for operator in operators for dtype in operator.output_dtypes} == {"int8"}
    assert result.verification.passed and all(output.mean_error < 0.01 for output in result.verification.outputs)
    assert "QUANTIZE" not in result.verification.operators


def test_weights_that_are_too_large_for_a_range_are_named(tmp_path):
    model = ep.quantize_aware(chain("keras"), calibration=images(), update_ranges=False)
    stem = model.get_layer("quantized_stem").layer
    stem.kernel.assign(np.asarray(stem.kernel) * 1e6)
    with pytest.raises(ValueError, match=r"weights of layer .*stem.* are far too large for the range"):
        ep.export_tflite(model, tmp_path / "model.tflite", "int8", verbose=False)


def test_a_layer_that_returns_zeros_alone_is_named(tmp_path):
    keras = flavors.keras_module("keras")
    dead = keras.layers.Dense(3, "relu", name="dead", bias_initializer=keras.initializers.Constant(-100))
    model = keras.Sequential([keras.Input((6,)), dead, keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("f4")
    with pytest.raises(ValueError, match=r"Layer 'dead' .*returns nothing but zeros for the representative data"):
        ep.export_tflite(model, tmp_path / "model.tflite", "int8", x, verbose=False)


@pytest.mark.parametrize("move", ["flatten", "transpose"])
@pytest.mark.parametrize("operator", ["SIN", "ELU"])
def test_values_of_an_operator_without_a_rule_are_moved(flavor, operator, move, tmp_path):
    """The one stays in floats, the other is rewritten for integers."""
    import tensorflow as tf

    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    function = {"SIN": keras.ops.sin if flavor == "keras" else tf.math.sin, "ELU": layers.ELU()}[operator]
    moved = {"flatten": layers.Flatten(), "transpose": layers.Permute((2, 1, 3))}[move]
    image = keras.Input((6, 6, 2))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(moved(function(layers.Conv2D(4, 3)(image))))))
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 2)).astype("f4")
    aware = ep.quantize_aware(model, calibration=x)
    for one, calibration in ((aware, "auto"), (model, "mse")):
        result = ep.export_tflite(one, tmp_path / "m.tflite", "int8", x, calibration=calibration, overwrite=True)
        assert result.verification.passed and result.verification.operators[operator] == 1
        assert ("A float island" in str(result)) == (operator == "SIN")
