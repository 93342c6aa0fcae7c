"""ELU that is rewritten for integers: the values are those of the float operator, rounded to the same steps."""

from collections import Counter

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.export import convert, export_tflite
from edgeprune.schemes import Scheme
from edgeprune.tflite.edit import new_operator
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import operators, scales, type_name, unpacked
from edgeprune.tflite.integer_elu import in_integers
from edgeprune.tflite.runtime import Runtime


def model_of_elu():
    """ELU in front of another operator of integers, which moves values."""
    keras = flavors.keras_module("keras")
    x = keras.Input((16, 16, 1))
    return keras.Model(x, keras.layers.MaxPooling2D(1)(keras.ops.elu(x)))


def values_of(path, x):
    runtime = Runtime(path)
    (values,) = runtime.run_all({next(iter(runtime.inputs)): x}, "Running").values()
    return np.asarray(values)


def step_of(content, name):
    """The step of what the last of these operators returns."""
    *_, last = operators(unpacked(content), name)
    return float(scales(last.output(0))[0])


@settings(max_examples=6, deadline=None)
@given(low=st.floats(-8, 0), high=st.floats(0.1, 8))
def test_the_values_are_those_of_floats_to_a_step(low, high, tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("forms"), model_of_elu()
    x = np.linspace(low, high, 256, dtype="f4").reshape(1, 16, 16, 1)
    made = export_tflite(model, folder / "m.tflite", "int8", x, calibration="min-max", verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "in_integers", lambda content: content)
        before = export_tflite(model, folder / "f.tflite", "int8", x, calibration="min-max", verbose=False)
    assert made.verification.passed and any("ELU" in note for note in before.notes) and not made.notes
    content = made.path.read_bytes()
    assert type_name(elu_of(before.path).output(0)) == "float32"
    assert read_tflite(made.path).operator_counts == {"ELU": 1, "MAX_POOL_2D": 1}
    step = step_of(content, "MAX_POOL_2D")
    assert np.abs(values_of(made.path, x) - values_of(before.path, x)).max() <= 1.01 * step
    assert in_integers(content) == content


def elu_of(path):
    return next(operators(unpacked(path.read_bytes()), "ELU"))


def test_what_does_not_stand_alone_stays(tmp_path):
    """An operator that another one in floats reads, and the wish of the user."""
    keras = flavors.keras_module("keras")
    x = keras.Input((6,), name="x")
    z = keras.ops.sin(keras.ops.elu(keras.layers.Dense(4, name="dense")(x)))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype("f4")
    model = keras.Model(x, keras.layers.Dense(2, name="head")(z))
    made = export_tflite(model, tmp_path / "m.tflite", "int8", data, calibration="min-max", verbose=False)
    assert made.verification.passed and type_name(elu_of(made.path).output(0)) == "float32"
    z = keras.layers.ELU(name="elu")(keras.layers.Dense(4, name="dense")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(z))
    wish = Scheme(8, 8, layers={"dense": 32, "elu": 32})
    made = export_tflite(model, tmp_path / "w.tflite", wish, data, verbose=False)
    floats = Counter(one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes)
    assert floats["ELU"] == 1


def test_microcontrollers_and_npus_compute_it(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((8, 8, 4), name="x")
    z = keras.layers.ELU()(keras.layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(z)))
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("f4")
    made = export_tflite(model, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.passed and ep.measure.measure_arena(made.path).bytes > 0


def chains(flavor):
    """Nets in which the operators follow one another, or something moves their values before they are quantized."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    square = keras.ops.square if flavor == "keras" else (lambda x: x**2)
    return {
        "ELU, made_of_it": lambda z: layers.Conv2D(2, 1)(-layers.ELU()(z)),
        "ELU of a made_of_it square": lambda z: layers.Conv2D(2, 1)(layers.ELU()(-square(z))),
        "ELU, flattened": lambda z: layers.Dense(2)(layers.Flatten()(layers.ELU()(z))),
        "ELU, in another order": lambda z: layers.Conv2D(2, 1)(layers.Permute((3, 1, 2))(layers.ELU()(z))),
    }


@pytest.mark.parametrize("name", list(chains("keras")))
@pytest.mark.parametrize("calibration, integer_io", [("mse", True), ("min-max", "uint8")])
def test_chains_and_what_moves_their_values_are_in_integers(flavor, name, calibration, integer_io, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 2), name="x")
    model = keras.Model(x, chains(flavor)[name](keras.layers.Conv2D(4, 3)(x)))
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("f4")
    settings = {"calibration": calibration, "integer_io": integer_io, "verbose": False}
    made = export_tflite(model, tmp_path / "m.tflite", "int8", data, **settings)
    assert made.verification.passed
    assert not [one.name for one in read_tflite(made.path).operators if "float32" in one.output_dtypes]


VALUES = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 4, 16)
PARTS = {"first half": (0, 8), "second half": (8, 16), "all": (0, 16)}


class FloatsBetweenIntegers:
    """A file in which operators compute in floats what is dequantized and quantized again, built by hand."""

    def __init__(self, scales, zero):
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.model, self.graph = schema, schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators, self.graph.outputs = [], [], []
        self.graph.inputs = [self.tensor("INT8", VALUES.shape, scales, zero)]
        self.start = self.operator("DEQUANTIZE", [0], VALUES.shape, 2)

    def tensor(self, kind, shape, scales=(), zero=0, data=None):
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape = f"t{len(self.graph.tensors)}".encode(), np.array(shape, np.int32)
        tensor.type, tensor.buffer = getattr(self.schema.TensorType, kind), 0
        if scales:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.array(scales, np.float32)
            tensor.quantization.zeroPoint = np.full(len(scales), zero, np.int64)
            tensor.quantization.quantizedDimension = 3 if len(scales) > 1 else 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.array(data, np.int32).view(np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name, inputs, shape, version=1, kind="FLOAT32", **quantization):
        result = self.tensor(kind, shape, **quantization)
        self.graph.operators.append(new_operator(self.model, name, inputs, [result], version))
        return result

    def part(self, source, which):
        """Half of a tensor's channels, or all of them in another order."""
        if which == "all":
            order = self.tensor("INT32", (4,), data=[0, 2, 1, 3])
            return self.operator("TRANSPOSE", [source, order], VALUES.shape)
        (begin, end), ones = PARTS[which], self.tensor("INT32", (4,), data=[1, 1, 1, 1])
        places = [self.tensor("INT32", (4,), data=[*start, at]) for start, at in (((0, 0, 0), begin), ((1, 4, 4), end))]
        made = self.operator("STRIDED_SLICE", [source, *places, ones], (1, 4, 4, end - begin))
        self.graph.operators[-1].builtinOptionsType = self.schema.BuiltinOptions.StridedSliceOptions
        self.graph.operators[-1].builtinOptions = self.schema.StridedSliceOptionsT()
        return made

    def quantized(self, source, kind, values):
        """Quantize a tensor into an output, by steps that hold these values."""
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        scale = max(high - low, 1e-3) / 255
        zero = round(-low / scale) - (128 if kind == "INT8" else 0)
        shape = self.graph.tensors[source].shape
        self.graph.outputs.append(self.operator("QUANTIZE", [source], shape, 1, kind, scales=[scale], zero=zero))
        return scale

    def content(self):
        builder = flatbuffers.Builder()
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def outputs_of(content):
    """The real values of each output, for all integers as the input."""
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], VALUES)
    interpreter.invoke()
    found = [(interpreter.get_tensor(one["index"]), *one["quantization"]) for one in interpreter.get_output_details()]
    return [(values.astype("f8") - zero) * scale for values, scale, zero in found]


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(0.002, 0.03),
    zero=st.integers(-128, 127),
    count=st.integers(1, 3),
    ends=st.lists(st.tuples(st.sampled_from(list(PARTS)), st.sampled_from(["INT8", "UINT8"])), min_size=1, max_size=3),
)
def test_any_chain_has_the_values_of_floats_to_the_steps_between(scale, zero, count, ends):
    file = FloatsBetweenIntegers([scale], zero)
    at, values, error = file.start, (VALUES.astype("f8") - zero) * scale, 0.0
    for _ in range(count):
        at = file.operator("ELU", [at], VALUES.shape)
        values = np.where(values > 0, values, np.expm1(values))
        error += 1.5 * (max(values.max(), 0) - min(values.min(), 0)) / 255
    steps = []
    for which, kind in ends:
        begin, end = PARTS[which]
        steps.append(file.quantized(file.part(at, which), kind, values[..., begin:end]))
    made = in_integers(file.content())
    floats = [call.name for call in operators(unpacked(made)) if type_name(call.output(0)) == "float32"]
    assert not floats
    for found, expected, step in zip(outputs_of(made), outputs_of(file.content()), steps, strict=True):
        assert np.abs(found - expected).max() <= error + 2 * step


def test_a_scale_for_each_channel_stays_in_floats():
    file = FloatsBetweenIntegers([0.01] * 16, 0)
    file.quantized(file.operator("ELU", [file.start], VALUES.shape), "INT8", np.array([-1.28, 1.28]))
    assert in_integers(file.content()) == file.content()


def test_what_a_file_returns_in_floats_as_well_stays():
    file = FloatsBetweenIntegers([0.01], 0)
    made_of_it = file.operator("ELU", [file.start], VALUES.shape)
    file.graph.outputs.append(made_of_it)
    file.quantized(made_of_it, "INT8", np.array([-1.28, 1.28]))
    assert in_integers(file.content()) == file.content()
