"""A model evaluated in whole numbers returns what its file returns, on each set of kernels."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nets.quantized_nets import branched, chain, images, nested, shared

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.measure.integer_reference import integer_reference
from edgeprune.quantization.fake_quantize import fake_quantizers, quantized_layers, rounded_to_grid
from edgeprune.quantization.integer_arithmetic import Steps, fixed_point, rescaled
from edgeprune.quantization.integer_operators import integer_weights
from edgeprune.schemes import Scheme
from edgeprune.tflite.runtime import Runtime

layers = keras.layers


def export(model, folder, scheme="int8"):
    path = folder / f"{model.name}.tflite"
    ep.export_tflite(model, path, scheme, verify=False, verbose=False, overwrite=True)
    return path


def steps_apart(model, path, x, kernels):
    """Steps between each output of the evaluation and the file's."""
    if kernels == "xnnpack":
        runtime = Runtime(path)
        expected = runtime.run_all(dict(zip(runtime.inputs, x, strict=True)), "Running")
    else:
        with integer_reference(path) as runtime:
            expected = runtime.run_all(dict(zip(runtime.inputs, x, strict=True)), "Running")
    outputs = ep.quantized_evaluation(model, kernels).predict(x if len(x) > 1 else x[0], verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [
        np.rint((given - expected[name]) / port.scale)
        for (name, port), given in zip(runtime.outputs.items(), outputs, strict=True)
    ]


@pytest.mark.parametrize("make", [branched, nested, shared])
@pytest.mark.above_flavor
def test_int8_is_the_file_on_both_sets_of_kernels(flavor, make, tmp_path):
    model = make(flavor)
    x = [images(), images(seed=1)][: len(model.inputs)]
    calibration = x if len(x) > 1 else x[0]
    model = ep.quantize_aware(model, calibration=calibration)
    path = export(model, tmp_path)
    for kernels in ("xnnpack", "reference"):
        for apart in steps_apart(model, path, x, kernels):
            assert np.abs(apart).max() <= 1 and np.mean(apart != 0) < 2e-3, kernels


@pytest.mark.parametrize("scheme", ["int4", Scheme(weight_bits=4, activation_bits=8, per_channel_dense=False)])
def test_weights_of_4_bits_are_the_file_on_xnnpack(scheme, tmp_path):
    model = ep.quantize_aware(branched("keras"), scheme, calibration=images())
    (apart,) = steps_apart(model, export(model, tmp_path, scheme), [images()], "xnnpack")
    assert np.abs(apart).max() <= 1 and np.mean(apart != 0) < 2e-3


@pytest.mark.above_flavor
def test_it_has_the_names_and_the_compilation_of_the_model(flavor):
    model = chain(flavor)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    aware = ep.quantize_aware(model, calibration=images())
    before = [np.array(weight) for weight in aware.weights]
    exact = ep.quantized_evaluation(aware)
    assert flavors.output_names(exact, 1) == flavors.output_names(aware, 1) == ["head"]
    x, y = images(), np.arange(64) % 5
    accuracy = float(np.mean(exact.predict(x, verbose=0).argmax(1) == y))
    assert exact.evaluate(x, y, verbose=0)[1] == pytest.approx(accuracy)
    assert not exact.trainable_weights
    for weight, value in zip(aware.weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), value)


def head(layers, x):
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


WITHOUT_RULES = {
    "separable": ((8, 8, 3), lambda layers, x: head(layers, layers.SeparableConv2D(4, 3, activation="tanh")(x))),
    "attention": ((8, 4), lambda layers, x: layers.MultiHeadAttention(2, 4)(x, x)),
    "recurrent": ((8, 4), lambda layers, x: layers.GRU(3)(x)),
    "einsum": ((8, 4), lambda layers, x: layers.EinsumDense("abc,cde->abde", (8, 2, 3), bias_axes="de")(x)),
    "product": ((8, 4), lambda layers, x: layers.EinsumDense("abc,cd->abd", (8, 6), activation="relu")(x)),
    "any size": ((None, None, 3), lambda layers, x: head(layers, layers.Conv2D(4, 3, activation="relu")(x))),
}


@pytest.mark.parametrize("kind", WITHOUT_RULES)
def test_what_has_no_rule_is_computed_in_floats_and_rounded(flavor, kind):
    module = flavors.keras_module(flavor)
    module.utils.set_random_seed(0)
    shape, call = WITHOUT_RULES[kind]
    inputs = module.Input(shape)
    x = np.random.default_rng(0).normal(size=(32, *(side or 8 for side in shape))).astype(np.float32)
    aware = ep.quantize_aware(module.Model(inputs, call(module.layers, inputs)), calibration=x)
    steps = Steps.of_range(*fake_quantizers(aware)[-1].limits)
    expected = aware.predict(x, verbose=0)
    apart = np.rint((ep.quantized_evaluation(aware).predict(x, verbose=0) - expected) / steps.scale)
    assert np.abs(apart).max() <= 1 and np.mean(apart != 0) < 2e-3


@st.composite
def nets(draw):
    """A model of one or two convolutions of any kind, and what follows."""
    x = inputs = keras.Input((draw(st.integers(5, 9)), draw(st.integers(5, 9)), draw(st.integers(1, 4))))
    for _ in range(draw(st.integers(1, 2))):
        size, strides = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        kind, padding = draw(st.sampled_from(["conv", "depthwise", "sum"])), draw(st.sampled_from(["same", "valid"]))
        use_bias = draw(st.booleans())
        settings = {"padding": padding, "use_bias": use_bias, "bias_initializer": "random_normal"}
        if kind == "sum":
            x = layers.Add()([layers.Conv2D(x.shape[-1], size, padding="same")(x), x])
        elif kind == "conv":
            x = layers.Conv2D(draw(st.integers(2, 6)), size, strides, **settings)(x)
        else:
            x = layers.DepthwiseConv2D(size, strides, depth_multiplier=draw(st.integers(1, 2)), **settings)(x)
        if draw(st.booleans()):
            x = layers.BatchNormalization(
                gamma_initializer=keras.initializers.RandomUniform(-2, 2), beta_initializer="random_normal"
            )(x)
        if (largest := draw(st.sampled_from([0, None, 6.0]))) != 0:
            x = layers.ReLU(largest)(x)
    if draw(st.booleans()):
        x = layers.Dense(5, bias_initializer="random_normal")(layers.GlobalAveragePooling2D()(x))
    elif draw(st.booleans()):
        x = layers.AveragePooling2D(2, padding="same")(x)
    return keras.Model(inputs, x)


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nets(), st.integers(0, 99))
def test_random_nets_have_the_weights_and_the_outputs_of_their_file(tmp_path, net, seed):
    x = np.random.default_rng(seed).normal(size=(32, *net.input_shape[1:])).astype(np.float32)
    model = ep.quantize_aware(net, calibration=x)
    path = export(model, tmp_path)
    for kernels in ("xnnpack", "reference"):
        (apart,) = steps_apart(model, path, [x], kernels)
        assert np.abs(apart).max() <= 1 and np.mean(apart != 0) < 2e-3, kernels
    # A kernel in the file lies on the model's grid, up to the factors of a batch normalization that is folded into it.
    stored = [tensor for tensor in ep.measure.read_tflite(path).tensors if tensor.is_weight and tensor.dtype == "int8"]
    found = [np.abs(tensor._stored).ravel() for tensor in stored]
    for wrapper in quantized_layers(model):
        kernel, _, _ = integer_weights(wrapper, None, 1.0)
        turned = kernel if wrapper.layer.__class__.__name__ == "DepthwiseConv2D" else np.moveaxis(kernel, -1, 0)
        assert any(np.array_equal(np.abs(turned).ravel(), values) for values in found), wrapper.layer.name


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=40), st.sampled_from([4, 8]))
@example([0.0, 0.0, 0.0, 2.0**-126], 4)
@settings(max_examples=40, deadline=None)
def test_fake_quantized_weights_lie_on_the_grid(values, bits):
    kernel = np.float32(values[: len(values) // 2 * 2]).reshape(-1, 2)
    rounded = np.asarray(rounded_to_grid(kernel, (-1,), bits), np.float64)
    scale = np.abs(kernel).max(axis=0) / (2 ** (bits - 1) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.where(scale > 1e-30, rounded / scale, 0)
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-4)
    assert np.abs(numbers).max() <= 2 ** (bits - 1) - 1 + 1e-4
    assert (rounded[kernel == 0] == 0).all()


def rounded_twice(total, multiplier, shift):
    """TensorFlow Lite's `MultiplyByQuantizedMultiplier`, on Python's integers."""
    product = total * (1 << max(shift, 0)) * multiplier
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    high = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
    mask = (1 << max(-shift, 0)) - 1
    return (high >> max(-shift, 0)) + ((high & mask) > (mask >> 1) + (high < 0))


@given(st.integers(-(2**26), 2**26), st.floats(2**-20, 2.0))
def test_the_reference_rounding_is_that_of_its_source(total, factor):
    multiplier, shift = (int(number) for number in fixed_point(factor))
    assert float(rescaled(np.float64(total), factor, "reference")) == rounded_twice(total, multiplier, shift)


def test_the_steps_of_a_model_are_those_of_its_file(tmp_path):
    model = ep.quantize_aware(chain("keras"), calibration=images())
    file = ep.measure.read_tflite(export(model, tmp_path))
    assert Steps.of_range(*fake_quantizers(model)[0].limits).scale == pytest.approx(file.inputs[0].scale, rel=1e-6)
    assert Steps.of_range(*fake_quantizers(model)[0].limits).zero_point == file.inputs[0].zero_point


def test_what_cannot_be_evaluated_is_named():
    model = chain("keras")
    with pytest.raises(ValueError, match="does not round its activations"):
        ep.quantized_evaluation(model)
    with pytest.raises(ValueError, match="does not round its activations"):
        ep.quantized_evaluation(ep.quantize_aware(model, "int16x8"))
    with pytest.raises(ValueError, match="are not known"):
        ep.quantized_evaluation(ep.quantize_aware(model))
    with pytest.raises(ValueError, match="kernels must be one of 'xnnpack', 'reference'; got 'cmsis'"):
        ep.quantized_evaluation(ep.quantize_aware(model, calibration=images()), "cmsis")
