"""Read what a .tflite file holds: its constant tensors, their zeros, and its operators.

The file's own bytes are read with the LiteRT schema, not through an interpreter, so the figures are those of
the file and not of what a runtime makes of it. The layout is that of `tensorflow/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import functools
import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.types import Model

# How the bytes of a tensor are laid out, by the schema's type name. Several values share a byte below 8 bits,
# the first in the low bits.
_NUMPY: dict[str, Any] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
}
_PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}
_FLOATS = {"float16", "float32", "float64", "bfloat16"}


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor whose values are stored in the file.

    Attributes:
        name: the tensor's name in the file.
        shape: its dense shape.
        dtype: `"float32"`, `"int8"`, `"int4"`, ... as the file stores it.
        elements: number of values of the dense shape.
        zeros: how many of them mean zero: 0 for floats, the zero point for quantized values. A value that a
            sparse encoding leaves out counts as the 0 it is read as.
        bytes: bytes in the file, a sparse encoding's index included.
        sparse: whether only some of the values are stored, with their places.
        is_weight: whether the values are a model's parameters, rather than shapes, axes and the like.
        buffer: number of the buffer; two tensors of one buffer share their bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    zeros: int
    bytes: int
    sparse: bool
    is_weight: bool
    buffer: int
    _stored: np.ndarray = field(repr=False, compare=False)
    _raw: Any = field(repr=False, compare=False)

    @property
    def sparsity(self) -> float:
        """The share of zeros, 0 to 1."""
        return self.zeros / self.elements if self.elements else 0.0

    def values(self) -> np.ndarray:
        """The dense values as float32, dequantized: shape `self.shape`."""
        stored = _expand_sparse(self._stored, self._raw.sparsity, self.shape) if self.sparse else self._stored
        values = stored.reshape(self.shape)
        if self.dtype == "bfloat16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        scale, zero_point = _quantization(self._raw, self.shape)
        if scale is None:
            return values.astype(np.float32)
        return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "elements": self.elements,
            "zeros": self.zeros,
            "bytes": self.bytes,
            "sparse": self.sparse,
        }


@dataclass(frozen=True)
class PortTensor:
    """An input or an output, as the file describes it.

    Attributes:
        name: its name in the file's signature, or the tensor's own where the file has none.
        shape: the batch included; -1 for a side that may change.
        dtype: the type of its values.
        scale: real value of one step; None where it is not quantized.
        zero_point: the stored value that means 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int


@dataclass(frozen=True)
class Operator:
    """One operator of a .tflite file.

    Attributes:
        name: the builtin's name (`"CONV_2D"`), or the custom operator's own.
        custom: whether it is no builtin; Flex operators are custom.
        input_shapes: shape of each input, `None` for an input left out.
        output_shapes: shape of each output.
        output_dtypes: type of each output.
        options: the schema's options object of a builtin, or `None`.
        subgraph: number of the subgraph that holds it; 0 is the one that runs.
    """

    name: str
    custom: bool
    input_shapes: tuple[tuple[int, ...] | None, ...]
    output_shapes: tuple[tuple[int, ...] | None, ...]
    output_dtypes: tuple[str | None, ...]
    options: Any = field(repr=False, compare=False)
    subgraph: int = 0

    @property
    def flex(self) -> bool:
        """Whether it needs TensorFlow's own kernels (the Flex delegate) to run."""
        return self.custom and self.name.startswith("Flex")


@dataclass(frozen=True)
class TfliteFile:
    """What a .tflite file holds.

    Attributes:
        path: the file.
        tensors: its constant tensors, in the file's order.
        operators: its operators, in the order they run.
        output_steps: for each output that is computed in integers, the number of its tensor and the real value
            of one step; outputs that are turned into floats at the end included.
        stateful: whether it keeps values from one run to the next, as a recurrent operator does: an interpreter has to
            be reset before each new sequence.
        inputs: its inputs, in the file's order.
        outputs: its outputs.
    """

    path: Path
    tensors: tuple[ConstantTensor, ...]
    operators: tuple[Operator, ...]
    output_steps: dict[int, float]
    stateful: bool
    inputs: tuple[PortTensor, ...]
    outputs: tuple[PortTensor, ...]

    @property
    def weights(self) -> tuple[ConstantTensor, ...]:
        """The tensors that hold parameters, each buffer once."""
        return tuple({t.buffer: t for t in reversed(self.tensors) if t.is_weight}.values())[::-1]

    @property
    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(operator.name for operator in self.operators).most_common())

    @property
    def custom_operators(self) -> tuple[str, ...]:
        """The names of operators that are no builtins, sorted."""
        return tuple(sorted({operator.name for operator in self.operators if operator.custom}))

    @property
    def quantization(self) -> str | None:
        """How the file computes: `"int8"`, `"int16x8"`, `"dynamic"`, `"float16"`, or `None` for float32.

        `"dynamic"` has integer weights and float activations; the integer recipes have both as integers.
        """
        activations = {dtype for operator in self.operators for dtype in operator.output_dtypes}
        weights = {tensor.dtype for tensor in self.weights}
        if weights & {"int8", "uint8", "int4", "int2"}:
            return "int16x8" if "int16" in activations else "int8" if activations & {"int8", "uint8"} else "dynamic"
        return "float16" if "float16" in weights else None

    def to_dict(self) -> dict[str, Any]:
        """The contents as plain values, for JSON."""
        return {
            "file": str(self.path),
            "operators": self.operator_counts,
            "custom_operators": list(self.custom_operators),
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }


def read_tflite(path: str | Path) -> TfliteFile:
    """Read the constant tensors and the operators of a .tflite file.

    Args:
        path: the file. It is treated as untrusted: whatever it holds, the result is right or an error comes.

    Returns:
        The file's tensors with their zeros and bytes, and its operators.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.
        ValueError: the file is no .tflite file, is cut short, or contradicts itself.

    Example:
        >>> read_tflite("model.tflite").operator_counts
        {'CONV_2D': 2, 'MEAN': 1, 'FULLY_CONNECTED': 1, 'SOFTMAX': 1}
    """
    path = Path(path)
    content = tflite_bytes(path)
    # flatbuffers checks nothing itself: an offset out of range shows as one of these.
    broken = (struct.error, IndexError, KeyError, TypeError, AttributeError, OverflowError, ValueError)
    try:
        return _parse(path, content)
    except (*broken, MemoryError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error


def tflite_bytes(path: str | Path) -> bytes:
    """The bytes of a file that begins as a .tflite file does.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.
        ValueError: the file is no .tflite file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No .tflite file at {path}")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"{path} is not a .tflite file: it lacks the mark TFL3 at byte 4.")
    return content


def _parse(path: Path, content: bytes) -> TfliteFile:
    from ai_edge_litert.schema_py_generated import ModelT

    model = ModelT.InitFromPackedBuf(content)
    names = [_operator_name(code) for code in model.operatorCodes or ()]
    tensors, operators, stateful = [], [], ("VAR_HANDLE", False) in names
    for number, graph in enumerate(model.subgraphs or ()):
        graph_tensors = list(graph.tensors or ())
        shapes = [_shape(tensor) for tensor in graph_tensors]
        dtypes = [_dtype(tensor) for tensor in graph_tensors]
        for tensor, shape in zip(graph_tensors, shapes, strict=True):
            data = _buffer_bytes(model.buffers[tensor.buffer], content)
            stateful = stateful or bool(tensor.isVariable)
            if len(data) and not tensor.isVariable:
                tensors.append(_constant(tensor, shape, data))
        for operator in graph.operators or ():
            name, custom = names[operator.opcodeIndex]
            inputs, outputs = _at(operator.inputs, shapes), _at(operator.outputs, shapes)
            types = _at(operator.outputs, dtypes)
            operators.append(Operator(name, custom, inputs, outputs, types, operator.builtinOptions, number))
    steps = _output_steps(model.subgraphs[0], [name for name, _ in names]) if model.subgraphs else {}
    inputs, outputs = (_ports(model, kind) for kind in ("inputs", "outputs"))
    return TfliteFile(path, tuple(tensors), tuple(operators), steps, stateful, inputs, outputs)


def _ports(model: Model, kind: str) -> tuple[PortTensor, ...]:
    """The inputs or the outputs of the graph that runs."""
    if not model.subgraphs:
        return ()
    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    numbers = getattr(graph, kind)
    signature = getattr(signatures[0], kind) or () if len(signatures) == 1 else ()
    names = {entry.tensorIndex: entry.name for entry in signature}
    ports = []
    for number in () if numbers is None else numbers:
        tensor = graph.tensors[number]
        open_shape = tensor.shapeSignature
        shape = _shape(tensor) if open_shape is None else tuple(int(size) for size in open_shape)
        scale, zero_point = _quantization(tensor, shape)
        one_scale = None if scale is None else float(np.max(scale))
        name = (names.get(number) or tensor.name or b"").decode(errors="replace")
        ports.append(PortTensor(name, shape, _dtype(tensor), one_scale, int(np.max(zero_point))))
    return tuple(ports)


def _output_steps(graph: Any, operator_names: list[str]) -> dict[int, float]:
    """The scale of each quantized output; where floats are asked for, of the integers they are made from."""
    made_from = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators or ()
        if operator_names[operator.opcodeIndex] == "DEQUANTIZE"
    }
    steps = {}
    for output in graph.outputs if graph.outputs is not None else ():
        tensor = graph.tensors[made_from.get(int(output), output)]
        scale, _ = _quantization(tensor, _shape(tensor))
        if scale is not None:
            steps[int(output)] = float(np.max(scale))
    return steps


@functools.cache
def _schema_names(enumeration: str) -> dict[int, str]:
    """Number to name, for one of the schema's enumerations."""
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, enumeration)).items()
    return {number: name for name, number in members if isinstance(number, int)}


def _operator_name(code: Any) -> tuple[str, bool]:
    # Files older than TensorFlow 2.4 know only the first field; newer ones write both.
    builtin = _schema_names("BuiltinOperator")[max(code.deprecatedBuiltinCode, code.builtinCode)]
    if builtin == "CUSTOM":
        return (code.customCode or b"CUSTOM").decode(), True
    return builtin, False


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _dtype(tensor: Any) -> str:
    return _schema_names("TensorType")[tensor.type].lower()


def _at(indices: Any, facts: list[Any]) -> tuple[Any, ...]:
    """What is known of an operator's inputs or outputs; -1 marks one left out."""
    return tuple(None if index == -1 else facts[index] for index in (() if indices is None else indices))


def _buffer_bytes(buffer: Any, content: bytes) -> np.ndarray:
    """A buffer's bytes: inside the flatbuffer, or behind it where the model passes 2 GB."""
    if buffer.offset > 1:
        if buffer.offset + buffer.size > len(content):
            raise ValueError("a buffer reaches past the end of the file")
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    # The generated reader returns 0 for an empty vector.
    return np.zeros(0, np.uint8) if buffer.data is None or np.isscalar(buffer.data) else buffer.data


def _constant(tensor: Any, shape: tuple[int, ...], data: np.ndarray) -> ConstantTensor:
    name = (tensor.name or b"").decode(errors="replace")
    dtype = _dtype(tensor)
    if any(size < 0 for size in shape):
        raise ValueError(f"constant tensor {name!r} has the shape {shape}")
    elements = math.prod(shape)
    sparse = tensor.sparsity is not None
    stored = _stored_values(name, dtype, data, None if sparse else elements)
    quantized = _quantization(tensor, shape)[0] is not None
    return ConstantTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        elements=elements,
        zeros=_count_zeros(stored, dtype, tensor, shape),
        bytes=len(data) + (_index_bytes(tensor.sparsity) if sparse else 0),
        sparse=sparse,
        is_weight=dtype in _FLOATS or quantized,
        buffer=tensor.buffer,
        _stored=stored,
        _raw=tensor,
    )


def _stored_values(name: str, dtype: str, data: np.ndarray, elements: int | None) -> np.ndarray:
    """The values as the file stores them; `elements` is their number, `None` where the encoding is sparse."""
    if dtype in _PACKED_BITS:
        values = _unpack_bits(data, dtype)[:elements]
    elif dtype in _NUMPY:
        values = np.frombuffer(data.tobytes(), _NUMPY[dtype])
    else:  # strings and the rare types: no numbers to count
        return data
    if elements is not None and len(values) != elements:
        raise ValueError(f"tensor {name!r} has {len(data)} bytes, which is not {elements} x {dtype}")
    return values


def _unpack_bits(data: np.ndarray, dtype: str) -> np.ndarray:
    """Spread values of 2 or 4 bits out to one byte each."""
    bits = _PACKED_BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((data[:, None] >> shifts) & (2**bits - 1)).ravel().astype(np.int8)
    return values if dtype.startswith("u") else np.where(values >= 2 ** (bits - 1), values - 2**bits, values)


def _quantization(tensor: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Scale and zero point, shaped to broadcast against the tensor; `(None, 0)` if it is not quantized."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or np.isscalar(parameters.scale):
        return None, 0
    scale = np.asarray(parameters.scale, np.float64)
    zero_point = parameters.zeroPoint
    zero_point = np.zeros(1) if zero_point is None or np.isscalar(zero_point) else np.asarray(zero_point, np.int64)
    axis = [1] * len(shape)
    if scale.size > 1:
        axis[parameters.quantizedDimension] = -1
    scales, zero_points = (x.reshape(axis) if x.size > 1 else x[0] for x in (scale, zero_point))
    return scales, zero_points


def _count_zeros(stored: np.ndarray, dtype: str, tensor: Any, shape: tuple[int, ...]) -> int:
    if dtype not in _NUMPY and dtype not in _PACKED_BITS:
        return 0
    zero_point = _quantization(tensor, shape)[1]
    if dtype == "bfloat16":  # its sign bit is no value
        stored = stored & np.uint16(0x7FFF)
    if tensor.sparsity is None:
        return int(np.count_nonzero(stored.reshape(shape) == zero_point))
    if np.any(zero_point):
        raise ValueError("a sparse tensor has a zero point other than 0")
    return math.prod(shape) - int(np.count_nonzero(stored))


def _index_bytes(sparsity: Any) -> int:
    vectors = [x for d in sparsity.dimMetadata for x in (d.arraySegments, d.arrayIndices) if x is not None]
    return sum(np.asarray(vector.values).nbytes for vector in vectors)


def _expand_sparse(stored: np.ndarray, sparsity: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Put the stored values of a sparse tensor at their places in a dense one.

    The format is a tree with one level per entry of `traversalOrder`: a dense level holds every index, a CSR
    level those its segments name. Entries from `len(shape)` on are blocks inside the dimension that
    `blockMap` names (`SparsityParameters` in schema.fbs).
    """
    block_size = np.ones(len(shape), np.int64)
    for order, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        if order >= len(shape):
            block_size[sparsity.blockMap[order - len(shape)]] = level.denseSize
    index = np.zeros((1, len(shape)), np.int64)
    for order, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        parent, position = _descend(level, len(index))
        if len(parent) > max(len(stored), math.prod(shape)):
            raise ValueError("the index of a sparse tensor names more values than the tensor has")
        index = index[parent]
        if order < len(shape):
            index[:, order] += position * block_size[order]
        else:
            index[:, sparsity.blockMap[order - len(shape)]] += position
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(index.T)] = stored
    return dense


def _descend(level: Any, parents: int) -> tuple[np.ndarray, np.ndarray]:
    """The children of one level of the tree: for each, its parent's number and its own position."""
    from ai_edge_litert.schema_py_generated import DimensionType

    if level.format == DimensionType.DENSE:
        return np.repeat(np.arange(parents), level.denseSize), np.tile(np.arange(level.denseSize), parents)
    segments = np.asarray(level.arraySegments.values, np.int64)
    return np.repeat(np.arange(parents), np.diff(segments)), np.asarray(level.arrayIndices.values, np.int64)
