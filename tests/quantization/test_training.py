"""A quantization-aware model trains, is saved, and gives back the float model."""

import subprocess
import sys

import numpy as np
import pytest
from nets.quantized_nets import branched, chain, images

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.export.diagnosis import ConversionError
from edgeprune.quantization.fake_quantize import fake_quantizers, quantized_layers, rounded_to_grid


def names(model):
    return [layer.name for layer in model.layers]


def trained(model, epochs=1):
    x = images()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(len(x)) % 5, epochs=epochs, batch_size=16, verbose=0)
    return model


def test_rounding_stands_where_the_operators_of_a_file_give_integers(flavor):
    model = ep.quantize_aware(branched(flavor))
    assert [layer.name for layer in fake_quantizers(model) if layer.name != "before_activation"] == [
        *("image_range", "stem_relu_range", "depth_relu_range", "point_bn_range", "sum_relu_range"),
        *("left_range", "hidden_range", "head"),  # `right` and `pool` have the steps of `left`
    ]
    assert [wrapper.layer.name for wrapper in quantized_layers(model) if wrapper.before_activation is not None] == [
        *("right", "head"),
    ]
    assert [wrapper.layer.name for wrapper in quantized_layers(model)] == [
        *("stem", "depth", "point", "left", "right", "hidden", "head"),
    ]


@pytest.mark.parametrize("make", [branched, chain])
def test_the_float_model_comes_back(flavor, make):
    model = make(flavor)
    model.compile("adam", "sparse_categorical_crossentropy")
    aware = ep.quantize_aware(model, calibration=images())
    assert type(aware) is type(model) or make is branched
    assert flavors.output_names(aware, 1) == flavors.output_names(model, 1)
    back = ep.strip_quantization(aware)
    assert names(back) == names(model) and type(back) is type(model)
    assert type(back.optimizer).__name__ == "Adam"
    np.testing.assert_array_equal(back.predict(images(), verbose=0), model.predict(images(), verbose=0))
    assert ep.strip_quantization(model) is model


def test_it_computes_with_rounded_kernels(flavor):
    model = ep.quantize_aware(chain(flavor), "int8", calibration=images())
    expected = chain(flavor)
    for name in ("stem", "head"):
        kernel = expected.get_layer(name).kernel
        kernel.assign(rounded_to_grid(kernel, (-1,), 8))
    given, float_outputs = (one.predict(images(), verbose=0) for one in (model, expected))
    assert 0 < np.abs(given - float_outputs).max() < 0.03  # activations are rounded besides
    assert np.abs(given * 256 - np.round(given * 256)).max() < 1e-4  # softmax in steps of 1/256


def test_training_changes_weights_and_ranges(flavor):
    model = ep.quantize_aware(chain(flavor), calibration=images())
    before = {variable.name: np.array(variable) for variable in model.get_layer("quantized_stem").weights}
    low = float(np.asarray(model.get_layer("relu_range").range_max))
    trained(model)
    stem = model.get_layer("quantized_stem")
    assert all(np.abs(np.array(one) - before[one.name]).max() > 0 for one in stem.weights)
    assert float(np.asarray(model.get_layer("relu_range").range_max)) != low
    frozen = ep.quantize_aware(chain(flavor), calibration=images(), update_ranges=False)
    low = float(np.asarray(frozen.get_layer("relu_range").range_max))
    trained(frozen)
    assert float(np.asarray(frozen.get_layer("relu_range").range_max)) == low


def test_calibration_measures_the_float_model(flavor):
    model, x = chain(flavor), images()
    keras = flavors.keras_module(flavor)
    aware = ep.quantize_aware(model, calibration=x)
    values = keras.Model(model.inputs, model.get_layer("relu").output).predict(x, verbose=0)
    assert float(np.asarray(aware.get_layer("relu_range").range_max)) == pytest.approx(values.max(), rel=1e-5)
    assert float(np.asarray(aware.get_layer("image_range").range_min)) == x.min()


@pytest.mark.parametrize("make", [branched, chain])
def test_it_is_saved_and_goes_on(flavor, make, tmp_path):
    model = trained(ep.quantize_aware(make(flavor), calibration=images()))
    model.save(tmp_path / "aware.keras")
    again = ep.load_model(tmp_path / "aware.keras")
    x = images()
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    if make is chain:  # dropout draws at random
        for one in (model, again):
            one.fit(x, np.arange(len(x)) % 5, batch_size=16, shuffle=False, verbose=0)
        np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    assert names(ep.strip_quantization(again)) == names(make(flavor))


LOADS = """
import sys
import edgeprune as ep
for path in sys.argv[1:]:
    model = ep.load_model(path)
    print({kernel.num_bits for kernel in ep.quantization_report(model).kernels})
"""


def test_files_are_loaded_in_a_process_that_has_made_none(tmp_path):
    paths = []
    for flavor in ("keras", "tf_keras"):
        aware = ep.quantize_aware(chain(flavor), "int4", calibration=images())
        pruned = ep.prune_low_magnitude(ep.quantize_aware(chain(flavor), "int4"), ep.ConstantSparsity(0.5, 0))
        for model, name in ((aware, "aware.keras"), (aware, "aware.h5"), (pruned, "pruned.keras")):
            paths.append(tmp_path / f"{flavor}_{name}")
            model.save(paths[-1])
    done = subprocess.run([sys.executable, "-c", LOADS, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["{4}"] * 6


def test_zeros_stay_zero(flavor):
    model = chain(flavor)
    kernel = model.get_layer("head").kernel
    mask = np.random.default_rng(0).random(kernel.shape) < 0.5
    kernel.assign(np.where(mask, 0, kernel))
    back = ep.strip_quantization(trained(ep.quantize_aware(model, calibration=images()), epochs=2))
    np.testing.assert_array_equal(np.array(back.get_layer("head").kernel) == 0, mask)
    free = ep.strip_quantization(trained(ep.quantize_aware(model, calibration=images(), keep_zeros=False)))
    assert (np.array(free.get_layer("head").kernel) == 0).mean() < 0.1


def test_a_kernel_that_is_all_zero_is_trained(flavor):
    keras = flavors.keras_module(flavor)
    dense = keras.layers.Dense(2, kernel_initializer="zeros", name="d")
    model = ep.quantize_aware(keras.Sequential([keras.Input((3,)), dense]), calibration=np.ones((4, 3)))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert np.array(ep.strip_quantization(model).get_layer("d").kernel).all()


@pytest.mark.above_flavor
def test_chosen_layers_alone_are_rounded(flavor):
    aware = ep.quantize_aware(branched(flavor), layers=["stem*", "head"], ignore="stem_relu")
    assert [wrapper.layer.name for wrapper in quantized_layers(aware)] == ["stem", "head"]
    assert [layer.name for layer in fake_quantizers(aware)] == [
        "image_range",
        "hidden_range",
        "before_activation",
        "head",
    ]


def unbuilt(flavor):
    keras = flavors.keras_module(flavor)
    return keras.Sequential([keras.layers.Dense(1)])


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (chain, {"scheme": "int7"}, "quantization must be one of"),
        (chain, {"scheme": "float16"}, "needs no training: pass it to export_tflite"),
        (chain, {"update_ranges": False}, "pass calibration=data"),
        (chain, {"update_ranges": "learned"}, "update_ranges='learned' begins with the ranges as calibrated"),
        (chain, {"update_ranges": "median"}, "must be True, False or 'learned'; got 'median'"),
        (chain, {"calibration": images() * np.inf}, "NaN or infinite on the calibration data"),
        (chain, {"calibration": np.zeros((4, 5))}, "expects samples of shape"),
        (chain, {"layers": "bn"}, "no kernel to quantize among the chosen layers"),
        (chain, {"ignore": "steam"}, "ignore='steam' matches no layer"),
        (unbuilt, {}, "is not built"),
        (lambda flavor: ep.quantize_aware(chain(flavor)), {}, "is quantization-aware already"),
        (lambda flavor: ep.prune_low_magnitude(chain(flavor)), {}, "is under pruning"),
    ],
)
@pytest.mark.above_flavor
def test_bad_input_is_refused(flavor, make, arguments, message):
    with pytest.raises(ValueError, match=message):
        ep.quantize_aware(make(flavor), **arguments)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_model_that_keras_quantized_is_refused(mode, tmp_path):
    model = chain(flavors.KERAS_3)
    model.quantize(mode)
    for call in (
        lambda: ep.quantize_aware(model),
        lambda: ep.plan_quantization(model, images(8)),
        lambda: ep.round_weights(model, images(8)),
        lambda: ep.equalize(model, images(8)),
        lambda: ep.export_tflite(model, tmp_path / "m.tflite", "int8", images(8)),
        lambda: ep.quantization_error(model, "int8", images(8)),
    ):
        with pytest.raises(ValueError, match=r"Layer 'head' is quantized already, by Keras's own quantize\(\)"):
            call()
    if mode != "int4":  # whose weights are unpacked before they are multiplied
        with pytest.raises(ConversionError, match=r"'head' was quantized by Keras's own quantize\(\), to"):
            ep.export_tflite(model, tmp_path / "m.tflite")


def test_a_kernel_with_lora_is_not_rounded_and_its_sum_is_exported(tmp_path):
    model = chain(flavors.KERAS_3)
    head = model.get_layer("head")
    head.enable_lora(2)
    head.lora_kernel_b.assign(np.ones(head.lora_kernel_b.shape))
    for call in (ep.quantize_aware, ep.equalize, lambda model: ep.round_weights(model, images(8))):
        with pytest.raises(ValueError, match="Layer 'head' has LoRA: its kernel is a sum"):
            call(model)
    result = ep.export_tflite(model, tmp_path / "m.tflite", "int8", images(8))
    assert result.verification.passed
    stored = {one.shape: one.values() for one in ep.read_tflite(result.path).weights}
    kernel = np.array(head.kernel).T
    np.testing.assert_allclose(stored[kernel.shape], kernel, atol=np.abs(kernel).max() / 127)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="Expected a Keras model"):
        ep.quantize_aware("model.keras")
