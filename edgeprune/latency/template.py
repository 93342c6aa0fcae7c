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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.latency.sizes import Size, SizeFinder, UnlikeFilesError
from edgeprune.tflite.graph import OperatorCall, operators, scales, type_name, unpacked
from edgeprune.tflite.tensors import tensor_shape

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

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
        inputs: the numbers of the tensors of the file's inputs.
        outputs: the numbers of its outputs.
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
        found = self._kinds[place].builtinOptions
        options: dict[str, Any] = {} if found is None else vars(found)
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
        return self.beside([(place, counts)])

    def beside(self, wanted: Sequence[tuple[int, np.ndarray]]) -> bytes:
        """A file of operators that do not know of each other, each with inputs and outputs of its own.

        Args:
            wanted: the number of each operator, and its counts. Its outputs are named `op0`, `op1`, ... in this order.
        """
        file = _NewFile(self._model)
        inputs: list[int] = []
        outputs: list[int] = []
        for number, (place, counts) in enumerate(wanted):
            operator = self.operators[place]
            given = [n for n in dict.fromkeys(operator.inputs) if n >= 0 and self.tensors[n].data is None]
            new = {
                n: file.add(*self._tensor(n, counts))
                for n in dict.fromkeys((*operator.inputs, *operator.outputs))
                if n >= 0
            }
            file.rename([new[n] for n in operator.outputs], f"op{number}")
            self._run(file, place, counts, new)
            inputs += [new[n] for n in given]
            outputs += [new[n] for n in operator.outputs]
        return file.packed(inputs, outputs)

    def resized(self, counts: np.ndarray) -> bytes:
        """The whole file at these counts."""
        file = _NewFile(self._model)
        new = {number: file.add(*self._tensor(number, counts)) for number in self.tensors}
        for place in range(len(self.operators)):
            self._run(file, place, counts, new)
        return file.packed([new[n] for n in self.inputs], [new[n] for n in self.outputs])

    def _run(self, file: _NewFile, place: int, counts: np.ndarray, new: Mapping[int, int]) -> None:
        """Add an operator to a file; `new` has the file's numbers of its tensors."""
        operator, made = self.operators[place], copy.copy(self._kinds[place])
        made.inputs = np.array([new.get(n, -1) for n in operator.inputs], np.int32)
        made.outputs = np.array([new[n] for n in operator.outputs], np.int32)
        _fit_options(made, [self.shape(n, counts) for n in operator.outputs])
        file.run(made)

    def _tensor(self, number: int, counts: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """The schema's tensor at these counts, and the bytes of a constant."""
        sized = self.tensors[number]
        shape = self.shape(number, counts)
        made = copy.copy(sized.tensor)
        made.shape, made.shapeSignature = np.array(shape, np.int32), None
        made.quantization = _fitted_quantization(sized.tensor, shape)
        return made, None if sized.data is None else _fitted_data(sized, shape, counts)


class _NewFile:
    """A .tflite file that is written: tensors, then the operators that use them."""

    def __init__(self, source: schema.ModelT) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._codes = source.operatorCodes
        self._code_of: dict[int, int] = {}
        self._model, self._graph = schema.ModelT(), schema.SubGraphT()
        self._model.version, self._model.buffers, self._model.operatorCodes = 3, [schema.BufferT()], []
        self._graph.tensors, self._graph.operators = [], []

    def add(self, tensor: schema.TensorT, data: np.ndarray | None) -> int:
        """Add a tensor, of a constant with its bytes; its number."""
        from ai_edge_litert import schema_py_generated as schema

        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def rename(self, numbers: Sequence[int], name: str) -> None:
        """Name tensors."""
        for number in numbers:
            self._graph.tensors[number].name = name.encode()

    def run(self, operator: schema.OperatorT) -> None:
        """Add an operator whose code is that of the file it is from."""
        old = operator.opcodeIndex
        if old not in self._code_of:
            self._code_of[old] = len(self._code_of)
            self._model.operatorCodes.append(self._codes[old])
        operator.opcodeIndex = self._code_of[old]
        self._graph.operators.append(operator)

    def packed(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The content of the file."""
        import flatbuffers

        self._graph.inputs, self._graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self._model.subgraphs = [self._graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def smallest_file() -> bytes:
    """A file that adds a number to itself: what its run takes, every run of a file takes."""
    from ai_edge_litert import schema_py_generated as schema

    source, tensor, operator = schema.ModelT(), schema.TensorT(), schema.OperatorT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version, source.operatorCodes = 1, [code]
    tensor.shape, tensor.type = np.array([1], np.int32), schema.TensorType.FLOAT32
    operator.opcodeIndex, operator.builtinOptionsType = 0, schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    file = _NewFile(source)
    first, second = file.add(copy.copy(tensor), None), file.add(copy.copy(tensor), None)
    operator.inputs, operator.outputs = np.array([first, first], np.int32), np.array([second], np.int32)
    file.run(operator)
    return file.packed([first], [second])


_OF_SUBGRAPHS = {"WHILE", "IF", "CALL", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def _numbers(values: Iterable[int] | None) -> tuple[int, ...]:
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


def _fitted_quantization(tensor: schema.TensorT, shape: tuple[int, ...]) -> Any:
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


def _fit_options(operator: schema.OperatorT, outputs: Sequence[tuple[int, ...]]) -> None:
    """Shapes among an operator's options."""
    options: Any = operator.builtinOptions
    if options is not None and getattr(options, "newShape", None) is not None and not np.isscalar(options.newShape):
        operator.builtinOptions = copy.copy(options)
        operator.builtinOptions.newShape = np.array(outputs[0], np.int32)
