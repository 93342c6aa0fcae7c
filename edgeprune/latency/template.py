"""A model's .tflite file as a function of its widths: whole, or one operator alone.

    template = FileTemplate([original, narrower], counts)
    template.resized(counts_of_a_plan)  # the bytes of the file that the plan's model would be converted to

Both files come from the converter, so the operators are those that run on a device: fused, folded, quantized. A resized
file computes nothing of use, as its weights are the original's repeated; it takes the time and the memory of the real
one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.latency.sizes import Size, SizeFinder, UnlikeFilesError
from edgeprune.tflite.graph import OperatorCall, operators, scales, type_name, unpacked
from edgeprune.tflite.tensors import tensor_shape

_MOST_VALUES = 64  # of a constant of whole numbers that may hold sizes: a shape, a beginning, paddings
_WHOLE_NUMBERS: dict[str, np.dtype[Any]] = {"int32": np.dtype("<i4"), "int64": np.dtype("<i8")}


@dataclass(frozen=True, eq=False)
class SizedTensor:
    """A tensor of a file whose sizes follow the widths.

    Attributes:
        tensor: the schema's `TensorT` in the original file.
        dtype: the type of its values.
        shape: its axes.
        data: the bytes of a constant in the original file; None where it is computed.
        values: what a constant of sizes holds; None of other tensors.
    """

    tensor: Any
    dtype: str
    shape: tuple[Size, ...]
    data: np.ndarray | None
    values: tuple[Size, ...] | None

    @property
    def lines(self) -> set[int]:
        """The lines that it depends on."""
        return {line for size in (*self.shape, *(self.values or ())) for line in size.lines}


@dataclass(frozen=True, eq=False)
class SizedOperator:
    """An operator of a file whose sizes follow the widths.

    Attributes:
        name: the builtin's name.
        inputs: the numbers of the tensors it reads; -1 for one left out.
        outputs: the numbers of those it computes.
        lines: the lines it depends on, those of its first input first.
        alone: whether it can run as the only operator of a file: a loop, a resource or a custom operator cannot.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    lines: tuple[int, ...]
    alone: bool


class FileTemplate:
    """A .tflite file as a function of its widths.

    Args:
        contents: files of one model at several widths, the original first, two or more.
        counts: int array (files, lines), the count of each line in each file.

    Attributes:
        counts: the original's counts.
        tensors: the tensors of the graph that runs.
        operators: its operators, in the order they run.
        inputs: the numbers of the tensors that the file takes.
        outputs: the numbers of those that it gives.
        files: the counts of each file, and its bytes.

    Raises:
        UnlikeFilesError: the files differ by more than sizes that the lines explain.
    """

    def __init__(self, contents: Sequence[bytes], counts: np.ndarray) -> None:
        self.counts = np.asarray(counts, np.int64)[0]
        sizes = SizeFinder(counts)
        models = [unpacked(content) for content in contents]
        self._model = models[0]
        calls = [[call for call in operators(model) if call.subgraph == 0] for model in models]
        if len({tuple(call.name for call in of_one) for of_one in calls}) != 1:
            raise UnlikeFilesError("the converter makes other operators at other widths")
        graphs = [model.subgraphs[0] for model in models]
        places = _same_tensors(graphs, calls)
        self.tensors: dict[int, SizedTensor] = {
            together[0]: _sized(models, [graph.tensors[n] for graph, n in zip(graphs, together, strict=True)], sizes)
            for together in places
        }
        self.inputs = _numbers(graphs[0].inputs)
        self.outputs = _numbers(graphs[0].outputs)
        self.files = [(row, len(content)) for row, content in zip(np.asarray(counts, np.int64), contents, strict=True)]
        self.operators = [self._operator(call) for call in calls[0]]
        self._kinds = [call.operator for call in calls[0]]

    def _operator(self, call: OperatorCall) -> SizedOperator:
        inputs, outputs = _numbers(call.operator.inputs), _numbers(call.operator.outputs)
        lines: dict[int, None] = {}
        for number in (*inputs, *outputs):
            if number >= 0:
                lines.update(dict.fromkeys(sorted(self.tensors[number].lines)))
        computed = [n for n in inputs if n >= 0 and self.tensors[n].data is None]
        used = [self.tensors[number] for number in (*inputs, *outputs) if number >= 0]
        held = any(tensor.dtype in ("resource", "variant", "string") or tensor.tensor.isVariable for tensor in used)
        alone = bool(computed) and not (call.custom or held or call.name in _OF_SUBGRAPHS)
        return SizedOperator(call.name, inputs, outputs, tuple(lines), alone)

    def shape(self, number: int, counts: np.ndarray) -> tuple[int, ...]:
        """A tensor's shape at these counts, int array `(lines,)`."""
        return tuple(size.at(counts) for size in self.tensors[number].shape)

    def key(self, place: int, counts: np.ndarray) -> str:
        """What an operator's time depends on: its name, shapes, types and options, as one line of text."""
        operator = self.operators[place]
        parts = [operator.name]
        for number in operator.inputs:
            parts.append("-" if number < 0 else self._described(number, counts))
        parts.append("->")
        parts += [self._described(number, counts) for number in operator.outputs]
        options = vars(self._kinds[place].builtinOptions or object.__new__(_NoOptions))
        plain = {name: value for name, value in options.items() if isinstance(value, int | float) and value}
        parts += [f"{name}={float(value):g}" for name, value in sorted(plain.items())]
        return " ".join(parts)

    def _described(self, number: int, counts: np.ndarray) -> str:
        tensor = self.tensors[number]
        text = "x".join(map(str, self.shape(number, counts))) + f":{tensor.dtype}"
        if tensor.data is None:
            return text
        if tensor.values is not None:
            return f"{text}={'/'.join(str(size.at(counts)) for size in tensor.values)}"
        of_one = scales(tensor.tensor)
        return f"{text}*" + (f"{'per-axis' if len(of_one) > 1 else 'one-scale'}" if of_one is not None else "")

    def alone(self, place: int, counts: np.ndarray) -> bytes:
        """A file of one operator at these counts."""
        return self._packed([place], counts)

    def resized(self, counts: np.ndarray) -> bytes:
        """The whole file at these counts."""
        return self._packed(range(len(self.operators)), counts)

    def _packed(self, places: Sequence[int], counts: np.ndarray) -> bytes:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        whole = len(places) == len(self.operators)
        chosen = [self.operators[place] for place in places]
        numbers = sorted({n for operator in chosen for n in (*operator.inputs, *operator.outputs) if n >= 0})
        new_number = {number: place for place, number in enumerate(numbers)} | {-1: -1}
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.description = 3, b"sizes of a plan"
        empty = schema.BufferT()
        model.buffers, graph.tensors, graph.operators, model.operatorCodes = [empty], [], [], []
        for number in numbers:
            graph.tensors.append(self._tensor(number, counts, model.buffers))
        codes: dict[int, int] = {}
        for place, operator in zip(places, chosen, strict=True):
            made = copy.copy(self._kinds[place])
            index = codes.setdefault(made.opcodeIndex, len(codes))
            if index == len(model.operatorCodes):
                model.operatorCodes.append(self._model.operatorCodes[made.opcodeIndex])
            made.opcodeIndex = index
            made.inputs = np.array([new_number[n] for n in operator.inputs], np.int32)
            made.outputs = np.array([new_number[n] for n in operator.outputs], np.int32)
            _fit_options(made, [self.shape(n, counts) for n in operator.outputs])
            graph.operators.append(made)
        if whole:
            inputs, outputs = self.inputs, self.outputs
        else:
            inputs = tuple(n for n in dict.fromkeys(chosen[0].inputs) if n >= 0 and self.tensors[n].data is None)
            outputs = chosen[0].outputs
        graph.inputs = np.array([new_number[n] for n in inputs], np.int32)
        graph.outputs = np.array([new_number[n] for n in outputs], np.int32)
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, number: int, counts: np.ndarray, buffers: list[Any]) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        sized = self.tensors[number]
        shape = self.shape(number, counts)
        made = copy.copy(sized.tensor)
        made.shape, made.shapeSignature = np.array(shape, np.int32), None
        made.quantization = _fitted_quantization(sized.tensor, shape)
        made.buffer = 0
        if sized.data is not None:
            buffer = schema.BufferT()
            buffer.data = _fitted_data(sized, shape, counts)
            made.buffer = len(buffers)
            buffers.append(buffer)
        return made


class _NoOptions:
    """Stands for the options of an operator that has none."""


_OF_SUBGRAPHS = {"WHILE", "IF", "CALL", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def _numbers(values: Any) -> tuple[int, ...]:
    return () if values is None or np.isscalar(values) else tuple(int(value) for value in values)


def _same_tensors(graphs: Sequence[Any], calls: Sequence[Sequence[OperatorCall]]) -> list[tuple[int, ...]]:
    """The numbers of tensors that stand at the same place of the same operator in each file."""
    found: dict[int, tuple[int, ...]] = {}
    ports = [(*_numbers(graph.inputs), *_numbers(graph.outputs)) for graph in graphs]
    rows = [ports]
    for same in zip(*calls, strict=True):
        rows.append([(*_numbers(call.operator.inputs), *_numbers(call.operator.outputs)) for call in same])
    for row in rows:
        if len({len(numbers) for numbers in row}) != 1:
            raise UnlikeFilesError("an operator has more inputs at other widths")
        for together in zip(*row, strict=True):
            if (together[0] < 0) != (min(together) < 0):
                raise UnlikeFilesError("an operator has other inputs at other widths")
            if together[0] >= 0:
                found.setdefault(together[0], together)
    return list(found.values())


def _sized(models: Sequence[Any], same: Sequence[Any], sizes: SizeFinder) -> SizedTensor:
    shapes = [tensor_shape(tensor) for tensor in same]
    if len({len(shape) for shape in shapes}) != 1 or len({tensor.type for tensor in same}) != 1:
        raise UnlikeFilesError("a tensor has another rank or type at other widths")
    shape = tuple(sizes.explaining(axis) for axis in zip(*shapes, strict=True))
    stored = [model.buffers[tensor.buffer].data for model, tensor in zip(models, same, strict=True)]
    dtype = type_name(same[0])
    if stored[0] is None or np.isscalar(stored[0]) or not len(stored[0]):
        return SizedTensor(same[0], dtype, shape, None, None)
    values = None
    layout = _WHOLE_NUMBERS.get(dtype)
    if layout is not None and math.prod(shapes[0]) <= _MOST_VALUES and scales(same[0]) is None:
        numbers = [np.frombuffer(np.asarray(data).tobytes(), layout).tolist() for data in stored]
        if len({len(row) for row in numbers}) == 1:
            values = tuple(sizes.explaining(row) for row in zip(*numbers, strict=True))
    return SizedTensor(same[0], dtype, shape, np.asarray(stored[0]), values)


def _fitted_data(sized: SizedTensor, shape: tuple[int, ...], counts: np.ndarray) -> np.ndarray:
    """The bytes of a constant at its new shape: the original's values, repeated or cut along each axis."""
    assert sized.data is not None
    if sized.values is not None:
        return np.array([size.at(counts) for size in sized.values], _WHOLE_NUMBERS[sized.dtype]).view(np.uint8)
    old = tensor_shape(sized.tensor)
    if old == shape:
        return sized.data
    if len(sized.data) % max(math.prod(old), 1):  # several values share a byte
        return np.resize(sized.data, -(-len(sized.data) * math.prod(shape) // math.prod(old)))
    item = len(sized.data) // math.prod(old)
    values = np.asarray(sized.data).reshape(*old, item)
    for axis, size in enumerate(shape):
        if size != old[axis]:
            values = np.take(values, np.arange(size) % old[axis], axis=axis)
    return np.ascontiguousarray(values).ravel()


def _fitted_quantization(tensor: Any, shape: tuple[int, ...]) -> Any:
    """The scales along an axis for its new size."""
    of_axis = scales(tensor)
    if of_axis is None or len(of_axis) == 1:
        return tensor.quantization
    made = copy.copy(tensor.quantization)
    index = np.arange(shape[made.quantizedDimension]) % len(of_axis)
    for name in ("scale", "zeroPoint", "min", "max"):
        values = getattr(made, name)
        if values is not None and not np.isscalar(values) and len(values) == len(of_axis):
            setattr(made, name, np.asarray(values)[index])
    return made


def _fit_options(operator: Any, outputs: Sequence[tuple[int, ...]]) -> None:
    """Shapes among an operator's options."""
    options: Any = operator.builtinOptions
    if options is not None and getattr(options, "newShape", None) is not None and not np.isscalar(options.newShape):
        operator.builtinOptions = copy.copy(options)
        operator.builtinOptions.newShape = np.array(outputs[0], np.int32)
