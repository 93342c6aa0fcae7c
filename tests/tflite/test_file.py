import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.converted import FLAVORS, convert, images, set_zeros, small_cnn

from edgeprune.measure.macs import count_macs_of_file
from edgeprune.tflite.file import read_tflite


@pytest.fixture(scope="module")
def cnn_files(tmp_path_factory):
    """One pruned model of each Keras, converted in each way."""
    folder = tmp_path_factory.mktemp("files")
    files = {}
    for flavor in FLAVORS:
        model = set_zeros(small_cnn(importlib.import_module(flavor)), 0.75)
        for quantization in (None, "float16", "dynamic", "int8"):
            path = folder / f"{flavor}_{quantization}.tflite"
            files[flavor, quantization] = convert(model, path, quantization, images())
    return files


KERNELS = {(8, 3, 3, 3), (1, 3, 3, 8), (12, 1, 1, 8), (5, 3, 3, 12), (10, 405)}


@pytest.mark.parametrize("quantization", [None, "float16", "dynamic", "int8"])
def test_zeros_in_the_buffers_are_the_zeros_set_in_keras(cnn_files, flavor, quantization):
    file = read_tflite(cnn_files[flavor, quantization])
    kernels = [tensor for tensor in file.weights if tensor.shape in KERNELS]
    assert {tensor.shape for tensor in kernels} == KERNELS
    assert len(kernels) == 6  # the two depthwise kernels have one shape
    for tensor in kernels:
        assert tensor.zeros == round(0.75 * tensor.elements), tensor.name
        assert tensor.elements == np.prod(tensor.shape)
        assert tensor.zeros == np.count_nonzero(tensor.values() == 0)


@pytest.mark.parametrize("quantization", [None, "float16", "dynamic", "int8"])
def test_quantization_bytes_and_operators(cnn_files, flavor, quantization):
    file = read_tflite(cnn_files[flavor, quantization])
    assert file.quantization == quantization
    assert file.custom_operators == ()
    assert file.operator_counts["CONV_2D"] == file.operator_counts["DEPTHWISE_CONV_2D"] == 2
    head = next(tensor for tensor in file.weights if tensor.shape == (10, 405))
    width = {None: 4, "float16": 2, "dynamic": 1, "int8": 1}[quantization]
    assert head.bytes == 4050 * width
    assert file.to_dict()["operators"] == file.operator_counts


def test_values_equal_the_interpreters(cnn_files):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = cnn_files["keras", "int8"]
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    compared = 0
    for tensor in read_tflite(path).weights:
        parameters = details[tensor.name]["quantization_parameters"]
        if len(parameters["scales"]) > 1:  # per channel
            raw = interpreter.get_tensor(details[tensor.name]["index"]).astype("float64")
            axis = [1] * raw.ndim
            axis[parameters["quantized_dimension"]] = -1
            expected = raw * parameters["scales"].reshape(axis)
            np.testing.assert_allclose(tensor.values(), expected, rtol=1e-6)
            compared += 1
    assert compared >= 5


def test_custom_operators_are_flagged(tmp_path):
    path = write_model(tmp_path / "m.tflite", [], custom=b"FlexErf")
    file = read_tflite(path)
    assert file.custom_operators == ("FlexErf",)
    assert file.operators[0].flex


# Files built by hand with the schema, for what TensorFlow's converter does not write.


def write_model(path, tensors, custom=None, builtin="ADD"):
    """A .tflite file with these `TensorT`s (their `buffer` attribute holding the bytes), and one operator."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    for tensor in tensors:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(tensor.buffer, np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, builtin)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = custom
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [-1], []
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [], []
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def tensor_of(dtype, shape, content, scale=None, zero_point=None, axis=0):
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = b"w", np.array(shape, np.int32), content
    tensor.type = getattr(schema.TensorType, dtype)
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.array(scale, np.float32)
        tensor.quantization.zeroPoint = np.array(zero_point, np.int64)
        tensor.quantization.quantizedDimension = axis
    return tensor


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=31))
@settings(max_examples=30, deadline=None)
def test_int4_values_are_unpacked(tmp_path_factory, values):
    packed = bytearray((len(values) + 1) // 2)
    for place, value in enumerate(values):
        packed[place // 2] |= (value & 15) << (4 * (place % 2))
    path = tmp_path_factory.mktemp("int4") / "m.tflite"
    tensor = read_tflite(write_model(path, [tensor_of("INT4", [len(values)], bytes(packed), [0.5], [0])])).tensors[0]
    assert tensor.dtype == "int4"
    assert tensor.zeros == values.count(0)
    assert tensor.bytes == len(packed)
    np.testing.assert_array_equal(tensor.values(), np.array(values) * 0.5)


def test_zeros_are_counted_at_each_channels_zero_point(tmp_path):
    raw = np.array([[3, 0, 3], [0, 0, 5]], np.int8)
    tensor = tensor_of("INT8", raw.shape, raw.tobytes(), [1.0, 2.0], [3, 0], axis=0)
    read = read_tflite(write_model(tmp_path / "m.tflite", [tensor])).tensors[0]
    assert read.zeros == 4
    np.testing.assert_array_equal(read.values(), [[0, -3, 0], [0, 0, 10]])


def test_bfloat16_zeros_have_either_sign(tmp_path):
    raw = np.array([0x0000, 0x8000, 0x3F80], np.uint16)
    read = read_tflite(write_model(tmp_path / "m.tflite", [tensor_of("BFLOAT16", [3], raw.tobytes())])).tensors[0]
    assert read.zeros == 2
    np.testing.assert_array_equal(read.values(), [0, 0, 1])


def test_shape_constants_are_no_weights(tmp_path):
    axes = tensor_of("INT32", [2], np.array([0, 1], np.int32).tobytes())
    file = read_tflite(write_model(tmp_path / "m.tflite", [axes]))
    assert len(file.tensors) == 1
    assert file.weights == ()


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_sparse_encoding_gives_the_dense_values(tmp_path, kind):
    """Dense layers are encoded in blocks, convolutions value by value."""
    import keras

    layers = keras.layers
    if kind == "dense":
        shape, body = (64,), [layers.Dense(32, name="w")]
    else:
        shape, body = (6, 6, 8), [layers.Conv2D(16, 1, name="w")]
    model = keras.Sequential([keras.Input(batch_shape=(1, *shape)), *body])
    kernel = model.get_layer("w").kernel.numpy()
    rows = kernel.reshape(-1, kernel.shape[-1])
    keep = np.arange(len(rows)) // 4 % 5 == 0  # whole blocks of 4 along the input
    rows[~keep] = 0
    rows[0, :3] = 0  # zeros inside a block that is stored
    model.get_layer("w").kernel.assign(kernel)
    path = convert(model, tmp_path / "m.tflite", sparse=True)
    tensor = next(tensor for tensor in read_tflite(path).weights if tensor.elements == kernel.size)
    assert tensor.sparse
    assert tensor.bytes < 4 * kernel.size
    assert tensor.zeros == np.count_nonzero(kernel == 0)
    np.testing.assert_array_equal(tensor.values().reshape(kernel.shape[-1], -1), rows.T)


# Hostile input.


@pytest.fixture(scope="module")
def good_bytes(cnn_files):
    return cnn_files["keras", "int8"].read_bytes()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        read_tflite(tmp_path / "nothing.tflite")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "junk.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="junk.tflite is not a .tflite file"):
        read_tflite(path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_truncated_file_is_refused(tmp_path, good_bytes, share):
    path = tmp_path / "cut.tflite"
    path.write_bytes(good_bytes[: int(share * len(good_bytes))])
    with pytest.raises(ValueError, match="cut.tflite is damaged or cut short"):
        read_tflite(path)


@pytest.mark.parametrize("builtin", ["CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"])
def test_operator_without_its_inputs_has_no_macs(tmp_path, builtin):
    path = write_model(tmp_path / "m.tflite", [], builtin=builtin)
    assert read_tflite(path).operator_counts == {builtin: 1}
    with pytest.raises(ValueError, match=f"m.tflite is damaged: {builtin}"):
        count_macs_of_file(path)


def test_wrong_number_of_values_is_refused(tmp_path):
    path = write_model(tmp_path / "m.tflite", [tensor_of("FLOAT32", [3], bytes(8))])
    with pytest.raises(ValueError, match="m.tflite is damaged.*8 bytes, which is not 3 x float32"):
        read_tflite(path)


def test_negative_shape_is_refused(tmp_path):
    path = write_model(tmp_path / "m.tflite", [tensor_of("FLOAT32", [-1, -2], bytes(8))])
    with pytest.raises(ValueError, match=r"m.tflite is damaged.*\(-1, -2\)"):
        read_tflite(path)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_give_a_result_or_one_error(tmp_path_factory, good_bytes, flips):
    content = bytearray(good_bytes)
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path_factory.mktemp("flipped") / "m.tflite"
    path.write_bytes(content)
    try:
        file = read_tflite(path)
    except ValueError as error:
        assert "m.tflite" in str(error)
    else:
        assert all(0 <= tensor.zeros <= tensor.elements for tensor in file.tensors)


@pytest.mark.parametrize("recurrent", [True, False])
def test_a_file_is_stateful_where_a_second_run_on_the_same_input_gives_something_else(tmp_path, recurrent):
    import tf_keras
    from ai_edge_litert.interpreter import Interpreter

    layers = tf_keras.layers
    middle = layers.LSTM(4) if recurrent else layers.Flatten()
    net = tf_keras.Sequential([tf_keras.Input((3, 2), batch_size=1), middle, layers.Dense(2)])
    path = convert(net, tmp_path / "m.tflite")
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    outputs = []
    for _ in range(2):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 3, 2), np.float32))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert read_tflite(path).stateful is recurrent
    assert np.array_equal(*outputs) is not recurrent
