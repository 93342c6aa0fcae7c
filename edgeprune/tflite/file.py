"""Read what a .tflite file holds: its constant tensors, their zeros, and its operators.

The file's own bytes are read with the LiteRT schema, not through an interpreter, so the figures are those of
the file and not of what a runtime makes of it. The layout is that of `tensorflow/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.graph import OperatorCall, operators, tensors, type_name, unpacked
from edgeprune.tflite.tensors import ConstantTensor, buffer_bytes, constant_tensor, quantization_of, tensor_shape

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


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
        """How the file computes: `"int8"`, `"int16x8"`, `"int4"`, `"dynamic"`, `"float16"`, or `None` for float32.

        `"dynamic"` has integer weights and float activations; the integer recipes have both as integers.
        """
        activations = {dtype for operator in self.operators for dtype in operator.output_dtypes}
        weights = {tensor.dtype for tensor in self.weights}
        if weights & {"int8", "uint8", "int4", "int2"}:
            if "int16" in activations:
                return "int16x8"
            integer = "int4" if "int4" in weights else "int8"
            return integer if activations & {"int8", "uint8"} else "dynamic"
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
    model = unpacked(content)
    found = list(operators(model))
    constants, stateful = [], any(call.name == "VAR_HANDLE" and not call.custom for call in found)
    for tensor in tensors(model):
        data = buffer_bytes(model.buffers[tensor.buffer], content)
        stateful = stateful or bool(tensor.isVariable)
        shape = tensor_shape(tensor)
        type_name(tensor)  # an unknown type is an error in any tensor
        if len(data) and not tensor.isVariable:
            constants.append(constant_tensor(tensor, shape, data))
    steps = _output_steps(model.subgraphs[0], found) if model.subgraphs else {}
    inputs, outputs = (_ports(model, kind) for kind in ("inputs", "outputs"))
    return TfliteFile(path, tuple(constants), tuple(map(_operator, found)), steps, stateful, inputs, outputs)


def _operator(call: OperatorCall) -> Operator:
    tensors = call.graph.tensors or ()
    inputs, outputs = (_at(numbers, tensors) for numbers in (call.operator.inputs, call.operator.outputs))
    return Operator(
        call.name,
        call.custom,
        tuple(None if tensor is None else tensor_shape(tensor) for tensor in inputs),
        tuple(None if tensor is None else tensor_shape(tensor) for tensor in outputs),
        tuple(None if tensor is None else type_name(tensor) for tensor in outputs),
        call.operator.builtinOptions,
        call.subgraph,
    )


def _ports(model: schema.ModelT, kind: str) -> tuple[PortTensor, ...]:
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
        shape = tensor_shape(tensor) if open_shape is None else tuple(int(size) for size in open_shape)
        scale, zero_point = quantization_of(tensor, shape)
        one_scale = None if scale is None else float(np.max(scale))
        name = (names.get(number) or tensor.name or b"").decode(errors="replace")
        ports.append(PortTensor(name, shape, type_name(tensor), one_scale, int(np.max(zero_point))))
    return tuple(ports)


def _output_steps(graph: schema.SubGraphT, calls: list[OperatorCall]) -> dict[int, float]:
    """The scale of each quantized output; where floats are asked for, of the integers they are made from."""
    made_from = {
        int(call.operator.outputs[0]): int(call.operator.inputs[0])
        for call in calls
        if call.subgraph == 0 and call.name == "DEQUANTIZE"
    }
    steps = {}
    for output in graph.outputs if graph.outputs is not None else ():
        tensor = graph.tensors[made_from.get(int(output), output)]
        scale, _ = quantization_of(tensor, tensor_shape(tensor))
        if scale is not None:
            steps[int(output)] = float(np.max(scale))
    return steps


def _at(indices: Iterable[int] | None, facts: Sequence[Any]) -> tuple[Any, ...]:
    """What is known of an operator's inputs or outputs; -1 marks one left out."""
    return tuple(None if index == -1 else facts[index] for index in (() if indices is None else indices))
