"""Kernels inside attention and recurrent layers are rounded in training as the file stores them."""

from itertools import product

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import quantized_layers

X = np.random.default_rng(0).normal(size=(16, 5, 6)).astype(np.float32)
KERASES = [flavors.KERAS_3, flavors.TF_KERAS]
GROUPED = (flavors.KERAS_3, "grouped attention")  # tf_keras has none
PROJECTIONS = ["_query_dense", "_key_dense", "_value_dense", "_output_dense"]


def net(flavor, kind):
    """A layer that is called as a whole, on steps `(5, 6)`, before a dense one."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers, steps = keras.layers, keras.Input((5, 6), name="steps")
    if kind == "attention":
        x = layers.MultiHeadAttention(2, 4, name="inner")(steps, steps)
    elif kind == "grouped attention":
        x = layers.GroupQueryAttention(2, 4, 2, name="inner")(steps, steps)
    elif kind == "both ways":
        x = layers.Bidirectional(layers.GRU(4, name="gru"), name="inner")(steps)
    else:
        x = getattr(layers, kind)(4, name="inner")(steps)
    return keras.Model(steps, layers.Dense(3, name="head")(x), name="net")


def wrapper_of(model):
    return next(one for one in quantized_layers(model) if one.layer.name == "inner")


def kernels(kind):
    paths = ["cell.kernel", "cell.recurrent_kernel"]
    if "attention" in kind:
        return [f"{name}.kernel" for name in PROJECTIONS]
    return [f"{side}_layer.{path}" for side in ("forward", "backward") for path in paths] if " " in kind else paths


def relative(values):
    """Values in order, relative to the largest: the scale of scores may be folded into the kernel of the queries."""
    return np.sort(values.ravel()) / np.abs(values).max()


def kernels_in(model):
    return [weight for weight in model.get_layer("inner").weights if "kernel" in weight.name]


@pytest.mark.parametrize(
    ("flavor", "kind"), [GROUPED, *product(KERASES, ["attention", "LSTM", "GRU", "SimpleRNN", "both ways"])]
)
def test_the_kernels_of_the_file_are_those_that_the_model_computes_with(flavor, kind, tmp_path):
    model = net(flavor, kind)
    aware = ep.quantize_aware(model, calibration=X)
    wrapper = wrapper_of(aware)
    assert list(wrapper.kernel_axes) == kernels(kind)
    expected = model.predict(X, verbose=0)
    assert 0 < np.abs(aware.predict(X, verbose=0) - expected).max() < 0.2 * np.abs(expected).max()
    result = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", X)
    assert result.verification.passed
    tensors = [one.values() for one in ep.read_tflite(result.path).weights if one.dtype == "int8"]
    for name in wrapper.kernel_axes:
        rounded = np.asarray(wrapper.rounded(name), np.float64)
        for part in np.split(rounded, wrapper.parts, axis=-1):
            flat = relative(part)
            alike = [np.abs(relative(one) - flat).max() for one in tensors if one.size == flat.size]
            assert min(alike) <= 1e-4, name


@pytest.mark.parametrize(("flavor", "kind"), [GROUPED, *product(KERASES, ["attention", "LSTM", "SimpleRNN"])])
def test_it_trains_keeps_zeros_saves_and_goes_back_to_floats(flavor, kind, tmp_path):
    model = net(flavor, kind)
    for weight in kernels_in(model):
        weight.assign(np.where(np.random.default_rng(0).random(weight.shape) < 0.4, 0, weight))
    zeros = [np.array(weight) == 0 for weight in kernels_in(model)]
    aware = ep.quantize_aware(model, calibration=X)
    aware.compile("adam", "mse")
    before = [np.array(weight) for weight in aware.trainable_weights]
    aware.fit(X, np.zeros((len(X), *aware.output_shape[1:])), verbose=0)
    moved = [np.any(old != np.array(new)) for old, new in zip(before, aware.trainable_weights, strict=True)]
    assert sum(moved) >= len(moved) - 1  # a softmax does not change by the bias of the keys
    expected = aware.predict(X, verbose=0)
    aware.save(tmp_path / "aware.keras")
    with ep.tfmot.quantization.keras.quantize_scope():
        again = ep.load_model(tmp_path / "aware.keras")
    np.testing.assert_allclose(again.predict(X, verbose=0), expected, atol=1e-6)
    report = ep.quantization_report(aware)
    assert {one.weight for one in report.kernels if one.layer == "inner"} == set(kernels(kind))
    plain = ep.strip_quantization(aware)
    for weight, zero in zip(kernels_in(plain), zeros, strict=True):
        assert (np.array(weight)[zero] == 0).all() and (np.array(weight) != 0).any()
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]


def test_attention_to_other_steps_with_a_mask(flavor):
    keras = flavors.keras_module(flavor)
    a, b = keras.Input((4, 6), name="a"), keras.Input((5, 3), name="b")
    mask = keras.Input((4, 5), dtype="bool", name="mask")
    x = keras.layers.MultiHeadAttention(2, 4, name="inner")(a, b, attention_mask=mask)
    model = keras.Model([a, b, mask], x)
    given = [X[:4, :4], X[:4, :, :3], np.tril(np.ones((4, 4, 5), bool))]
    aware = ep.quantize_aware(model, calibration=dict(zip("a b mask".split(), given, strict=True)))
    np.testing.assert_allclose(aware.predict(given, verbose=0), model.predict(given, verbose=0), atol=0.05)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "LSTM"])
def test_dropout_inside_draws_anew_at_each_step(flavor, kind):
    keras = flavors.keras_module(flavor)
    steps = keras.Input((5, 6))
    if kind == "LSTM":
        x = keras.layers.LSTM(4, dropout=0.5, name="inner")(steps)
    else:
        x = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="inner")(steps, steps)
    aware = ep.quantize_aware(keras.Model(steps, x), calibration=X)
    first, second = (np.array(aware(X, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


PRODUCTS = {
    "last axis": ((5, 6), {"equation": "abc,cd->abd", "output_shape": (5, 4), "bias_axes": "d"}),
    "turned": ((5, 6), {"equation": "abc,dc->abd", "output_shape": (5, 4)}),
    "two new axes": ((5, 6), {"equation": "abc,cde->abde", "output_shape": (5, 2, 3), "bias_axes": "de"}),
    "two summed axes": ((5, 2, 3), {"equation": "abde,dec->abc", "output_shape": (5, 4)}),
}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["attention", *PRODUCTS])
@pytest.mark.above_flavor
def test_four_bits_are_stored_for_what_is_dense_in_the_file(flavor, kind, per_channel, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    shape, arguments = PRODUCTS.get(kind, ((5, 6), {}))
    inputs = keras.Input(shape)
    if kind == "attention":
        layer = keras.layers.MultiHeadAttention(2, 4, name="inner")
        outputs, kernels = layer(inputs, inputs), 4
    else:
        outputs, kernels = keras.layers.EinsumDense(name="inner", **arguments)(inputs), 1
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    scheme = ep.Scheme(4, 8, per_channel_dense=per_channel)
    aware = ep.quantize_aware(keras.Model(inputs, outputs), scheme, calibration=x)
    found = ep.quantization_report(aware).kernels
    assert len(found) == kernels and {one.num_bits for one in found} == {4}
    assert per_channel or {one.num_scales for one in found} == {1}
    result = ep.export_tflite(aware, tmp_path / "m.tflite", scheme, x)
    assert result.verification.passed and result.verification.outputs[0].largest_error < 0.1
    stored = [one for one in ep.read_tflite(result.path).weights if one.dtype == "int4"]
    assert len(stored) == kernels
