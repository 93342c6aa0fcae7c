"""What the kernels compute, against a model of them in exact integers: where they agree, and where LiteRT rounds alone.

`scaled_twice` is the arithmetic that microcontrollers' kernels share (gemmlowp's fixed point): a sum times a multiplier
of 31 bits, halved away by rounding twice. Python's integers have no width, so nothing here can overflow.
"""

import math

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.export.convert import export_tflite
from edgeprune.measure import tflm
from edgeprune.measure.integer_reference import with_integer_dense
from edgeprune.models import autoencoder, ds_cnn, mobilenet_v1, resnet8
from edgeprune.tflite.runtime import Runtime

needs_micro = pytest.mark.skipif(
    tflm.importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed"
)


def multiplier_and_shift(scale):
    """A scale as an integer of 31 bits and a power of two."""
    fraction, shift = math.frexp(scale)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    return (multiplier // 2, shift + 1) if multiplier == 2**31 else (multiplier, shift)


def scaled_twice(total, scale):
    """`total * scale` with two roundings: to the high half of a product, then by a shift, halves away from zero."""
    multiplier, shift = multiplier_and_shift(scale)
    product = (total << max(shift, 0)) * multiplier
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    right = max(-shift, 0)
    remainder = high & (2**right - 1)
    return (high >> right) + (remainder > (2**right - 1) // 2 + (high < 0))


def scaled_in_15_bits(total, scale):
    """The same for sums of 64 bits, as int16 activations have them: a multiplier of 15 bits and one rounding."""
    multiplier, shift = multiplier_and_shift(scale)
    reduced = (multiplier + 2**15) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
    return (total * reduced + 2 ** (14 - shift)) >> (15 - shift)


def dense_in_integers(path, encoded):
    """A file's only dense layer on stored values `(samples, depth)`: int64 `(samples, units)`."""
    model, graph, operator = _operator(path, "FULLY_CONNECTED")
    x, w, *b = (graph.tensors[number] for number in operator.inputs if number >= 0)
    y = graph.tensors[operator.outputs[0]]
    weights = _values(model, w, np.int8).reshape(w.shape)
    low, high = {schema.TensorType.INT8: (-128, 127), schema.TensorType.INT16: (-32768, 32767)}[y.type]
    wide = y.type == schema.TensorType.INT16
    bias = _values(model, b[0], np.int64 if wide else np.int32) if b else np.zeros(len(weights), np.int64)
    sums = (encoded.astype(np.int64) - x.quantization.zeroPoint[0]) @ weights.T.astype(np.int64) + bias
    scales = np.broadcast_to(w.quantization.scale, len(weights))
    scales = [float(x.quantization.scale[0]) * float(s) / float(y.quantization.scale[0]) for s in scales]
    scaled = scaled_in_15_bits if wide else scaled_twice
    made = [[scaled(int(total), scale) for total, scale in zip(row, scales, strict=True)] for row in sums]
    zero = y.quantization.zeroPoint[0]
    if operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU:
        low = max(low, zero)
    return np.clip(np.array(made) + zero, low, high)


def _operator(path, name):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    wanted = getattr(schema.BuiltinOperator, name)
    found = [o for o in model.subgraphs[0].operators if model.operatorCodes[o.opcodeIndex].builtinCode == wanted]
    return model, model.subgraphs[0], found[0]


def _values(model, tensor, dtype):
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype)


def _write(model, path):
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _dense(path, quantization="int8", **arguments):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(24, bias_initializer="normal", **arguments)])
    samples = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    export_tflite(net, path, quantization, samples, verify=False, verbose=False)
    return path


def _run(runtime, inputs):
    return np.concatenate([runtime.run([row[None]])[0] for row in inputs]).astype(int)


def _in_integers(path):
    rewritten = path.with_name("in_integers.tflite")
    rewritten.write_bytes(with_integer_dense(path.read_bytes()))
    return rewritten


@given(st.integers(-(2**31), 2**31 - 1), st.floats(1e-8, 0.999))
def test_two_roundings_are_within_a_step_of_one(total, scale):
    assert abs(scaled_twice(total, scale) - total * scale) <= 1 + abs(total) * scale * 2**-30


@needs_micro
@pytest.mark.parametrize(
    ("quantization", "arguments"),
    [
        ("int8", {}),
        ("int8", {"activation": "relu"}),
        ("int8", {"use_bias": False}),
        ("int16x8", {}),
        ("int16x8", {"use_bias": False}),
    ],
)
def test_dense_layers_are_what_the_model_in_integers_says(tmp_path, quantization, arguments):
    path = _dense(tmp_path / "m.tflite", quantization, **arguments)
    dtype = np.int8 if quantization == "int8" else np.int16
    limits = np.iinfo(dtype)
    inputs = np.random.default_rng(2).integers(limits.min, limits.max, (300, 64)).astype(dtype)
    expected = dense_in_integers(path, inputs)
    assert len(np.unique(expected)) > 100, "not all clipped"
    np.testing.assert_array_equal(_run(tflm.MicroRuntime(path), inputs), expected)
    np.testing.assert_array_equal(_run(Runtime(_in_integers(path), reference=True), inputs), expected)
    difference = np.abs(_run(Runtime(path, reference=True), inputs) - expected)
    assert difference.max() == 1 and difference.mean() < 0.3, "LiteRT's own kernel for dense layers rounds otherwise"


@needs_micro
def test_one_scale_for_all_units(tmp_path):
    path = _dense(tmp_path / "m.tflite")
    model, graph, operator = _operator(path, "FULLY_CONNECTED")
    weights, bias = (graph.tensors[number] for number in operator.inputs[1:])
    for tensor in (weights, bias):
        tensor.quantization.scale, tensor.quantization.zeroPoint = tensor.quantization.scale[:1], [0]
    weights.quantization.scale = [bias.quantization.scale[0] / graph.tensors[operator.inputs[0]].quantization.scale[0]]
    _write(model, path)
    inputs = np.random.default_rng(2).integers(-128, 127, (100, 64)).astype(np.int8)
    expected = dense_in_integers(path, inputs)
    np.testing.assert_array_equal(_run(tflm.MicroRuntime(path), inputs), expected)
    np.testing.assert_array_equal(_run(Runtime(_in_integers(path), reference=True), inputs), expected)


@needs_micro
@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("layer", ["Dense", "Conv2D", "DepthwiseConv2D"])
def test_halves_tell_which_kernel_rounds_how(tmp_path, layer, scale):
    """With a scale of a power of two every kernel meets halves, and no two ways to round them agree."""
    layers = keras.layers
    shape, made, name = {
        "Dense": ((8,), layers.Dense(4, bias_initializer="normal"), "FULLY_CONNECTED"),
        "Conv2D": ((1, 1, 8), layers.Conv2D(4, 1, bias_initializer="normal"), "CONV_2D"),
        "DepthwiseConv2D": ((1, 1, 8), layers.DepthwiseConv2D(1, bias_initializer="normal"), "DEPTHWISE_CONV_2D"),
    }[layer]
    path = tmp_path / "m.tflite"
    samples = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    export_tflite(keras.Sequential([keras.Input(shape), made]), path, "int8", samples, verify=False, verbose=False)
    model, graph, operator = _operator(path, name)
    x, w, b = (graph.tensors[number] for number in operator.inputs)
    for tensor, step in ((x, 1.0), (w, scale), (b, scale), (graph.tensors[operator.outputs[0]], 1.0)):
        tensor.quantization.scale = [step] * len(tensor.quantization.scale)
        tensor.quantization.zeroPoint = [0] * len(tensor.quantization.scale)
    ones = np.zeros(w.shape, np.int8)
    ones.reshape(w.shape[0], -1)[:, 0] = 1  # the first output is the first input, scaled
    model.buffers[w.buffer].data = ones.ravel().view(np.uint8)
    model.buffers[b.buffer].data = np.zeros(b.shape, np.int32).view(np.uint8)
    _write(model, path)

    totals = np.arange(-128, 128)
    inputs = np.zeros((256, *shape), np.int8)
    inputs.reshape(256, -1)[:, 0] = totals
    twice = [scaled_twice(int(total), scale) for total in totals]
    away_from_zero = np.sign(totals) * np.floor(np.abs(totals) * scale + 0.5)
    to_even = np.rint(totals * scale)

    def first(runtime):
        return _run(runtime, inputs).reshape(256, -1)[:, 0]

    np.testing.assert_array_equal(first(tflm.MicroRuntime(path)), twice)
    np.testing.assert_array_equal(first(Runtime(_in_integers(path), reference=True)), twice)
    own = first(Runtime(path, reference=True))
    np.testing.assert_array_equal(own, away_from_zero if layer == "Dense" else twice)
    np.testing.assert_array_equal(first(Runtime(path)), to_even, "XNNPACK")


def test_only_quantized_dense_layers_are_rewritten(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential([keras.Input((6, 8), name="x"), layers.Dense(5, activation="relu"), layers.Flatten()])
    net.add(layers.Dense(3, name="out"))
    samples = np.random.default_rng(0).normal(size=(8, 6, 8)).astype(np.float32)
    export_tflite(net, tmp_path / "float.tflite", verify=False, verbose=False)
    content = (tmp_path / "float.tflite").read_bytes()
    assert with_integer_dense(content) == content
    export_tflite(net, tmp_path / "m.tflite", "int8", samples, verify=False, verbose=False)
    before, after = Runtime(tmp_path / "m.tflite"), Runtime(_in_integers(tmp_path / "m.tflite"))
    assert before.inputs.keys() == after.inputs.keys() == {"x"}
    assert before.outputs.keys() == after.outputs.keys() == {"out"}
    values = before.run_all({"x": samples}, "")["out"]
    assert np.abs(values - after.run_all({"x": samples}, "")["out"]).max() <= 2 * before.outputs["out"].scale


SHAPES = {"resnet8": resnet8, "ds_cnn": ds_cnn, "mobilenet_v1": mobilenet_v1, "autoencoder": autoencoder}
SMALL = {
    "resnet8": lambda: resnet8((16, 16, 3)),
    "ds_cnn": lambda: ds_cnn((25, 10, 1)),
    "mobilenet_v1": lambda: mobilenet_v1((32, 32, 3)),
    "autoencoder": lambda: autoencoder(64, 32),
}


def _parity(make, tmp_path, count):
    keras.utils.set_random_seed(0)
    model, generator = make(), np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # as if it had been trained
            size = layer.gamma.shape
            values = [generator.uniform(0.5, 1.5, size), *generator.normal(0, 0.2, (2, *size))]
            layer.set_weights([*values, generator.uniform(0.5, 2, size)])
    samples = generator.normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    export_tflite(model, tmp_path / "m.tflite", "int8", samples[:50], verify=False, verbose=False)
    name = next(iter(Runtime(tmp_path / "m.tflite").inputs))
    return tflm.compare_with_reference(tmp_path / "m.tflite", {name: samples}), model.output_shape[-1]


@needs_micro
@pytest.mark.parametrize("name", SMALL)
def test_small_shapes_of_mlperf_tiny_are_exact(name, tmp_path):
    parity, outputs = _parity(SMALL[name], tmp_path, 60)
    assert parity.exact and parity.largest == 0 and parity.values == 60 * outputs
    if name == "autoencoder":
        assert parity.litert_mismatches > 0, "a deep stack of dense layers, which XNNPACK rounds otherwise"


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_of_mlperf_tiny_are_exact(name, tmp_path):
    parity, outputs = _parity(SHAPES[name], tmp_path, 300)
    assert parity.exact and parity.largest == 0 and parity.values == 300 * outputs
