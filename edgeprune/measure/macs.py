"""How many multiplications with addition (MACs) one inference needs, of a Keras model and of a .tflite file.

Products of two tensors are counted: dense layers, convolutions, attention, recurrent cells. Additions,
activations, normalisations and pooling are not, as is usual in the field. The model is traced once on a
batch of one and the operations of the trace are counted, so nested, shared, subclassed and custom layers
need no rules of their own. The count of a file reads the file's operators and shares nothing with it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import flavor
from edgeprune.text_table import text_table
from edgeprune.tflite.file import Operator, read_tflite
from edgeprune.types import AnyTensor, Array, Arrays, Layer, Model

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class MacCount:
    """The MACs of one inference on one sample.

    Attributes:
        total: their number.
        per_layer: layer name to MACs, only layers that have any; for a file, operator name to MACs.
        uncounted: what may multiply and could not be counted (a loop of unknown length, a custom operator);
            empty when `total` is complete.
    """

    total: int
    per_layer: dict[str, int]
    uncounted: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A table of the layers with their MACs and share."""
        rows = [(name, f"{macs:,}", f"{macs / self.total:.1%}") for name, macs in self.per_layer.items()]
        table = text_table(("layer", "MACs", "share"), [*rows, ("total", f"{self.total:,}", "")])
        return f"{table}\nnot counted: {', '.join(self.uncounted)}" if self.uncounted else table

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return {"total": self.total, "per_layer": dict(self.per_layer), "uncounted": list(self.uncounted)}


def count_macs(model: Model, inputs: Arrays | None = None) -> MacCount:
    """Count the multiply-accumulates of a Keras model for one sample.

    A layer that is called twice counts twice. A transposed convolution counts the products it makes of each
    input value. Grouped convolutions count only their own group's channels.

    Args:
        model: a built model of `keras` 3 or `tf_keras`.
        inputs: an example of what the model is called on, with a leading batch axis, or its `tf.TensorSpec`; needed
            only where the model does not define it (a subclassed one that was never called, a side of unknown length).

    Returns:
        The total, and the MACs of each layer under its name; `"block/conv"` is the layer `conv` of a nested
        model `block`. What a model does outside its layers stands under the model's own name.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not built, an input has a side of unknown length, or the model cannot be called on
            `inputs`.

    Example:
        >>> import keras
        >>> count_macs(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])).per_layer
        {'head': 12}
    """
    flavor.check_model(model)
    layers = list(flavor.layers_of(model))
    calls = _Calls(layers, flavor.layer_names(model), model)
    with calls.marked():
        graph = _trace(model, inputs)
    macs: Counter[str] = Counter()
    uncounted: dict[str, None] = {}
    _count_graph(graph, calls, None, 1, macs, uncounted)
    order = {name: position for position, name in enumerate(calls.names.values())}
    per_layer = {name: macs[name] for name in sorted(macs, key=lambda name: order.get(name, -1)) if macs[name]}
    return MacCount(sum(per_layer.values()), per_layer, tuple(uncounted))


def count_macs_of_file(path: str | Path) -> MacCount:
    """Count the multiply-accumulates of a .tflite file from its operators and their shapes.

    Args:
        path: the .tflite file.

    Returns:
        The total for the batch the file was made for, and the MACs of each kind of operator.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.
        ValueError: the file is no readable .tflite file.

    Example:
        >>> count_macs_of_file("model.tflite").total  # 6*6*8 * 3*3*1 + 4*4*16 * 3*3*8 + 10 * 16
        21184
    """
    macs: Counter[str] = Counter()
    uncounted: dict[str, None] = {}
    for operator in read_tflite(path).operators:
        if operator.name in _FILE_MACS and operator.subgraph == 0:
            try:
                macs[operator.name] += _FILE_MACS[operator.name](operator)
            except (IndexError, TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"{path} is damaged: {operator.name} lacks an input, output or option.") from error
        elif operator.custom or operator.name in _MAY_MULTIPLY:
            uncounted[operator.name] = None
    return MacCount(sum(macs.values()), dict(macs), tuple(uncounted))


_MARK = "edgeprune-layer-"


class _Calls:
    """Marks in a trace which layer made which operation, by a name scope around each layer's call."""

    def __init__(self, layers: list[Layer], names: dict[int, str], model: Model) -> None:
        self.layers = layers
        self.names = names
        self.model = model
        self.steps: dict[int, int | None] = {}

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        # In the instance's own dictionary: both Kerases' __setattr__ would track or refuse it.
        # Function layers of tf_keras have their call there too.
        own_calls = [(layer, vars(layer)["call"]) for layer in self.layers if "call" in vars(layer)]
        try:
            for number, layer in enumerate(self.layers):
                vars(layer)["call"] = self._marking(layer.call, number)
            yield
        finally:
            for layer in self.layers:
                vars(layer).pop("call", None)
            for layer, call in own_calls:
                vars(layer)["call"] = call

    def _marking(self, call: Callable, number: int) -> Callable:
        import tensorflow as tf

        @functools.wraps(call)
        def marked_call(*args: object, **kwargs: object) -> Any:
            first = tf.nest.flatten((args, kwargs))[:1]
            shape: Any = getattr(first[0], "shape", ()) if first else ()
            self.steps[number] = shape[1] if len(shape) > 1 else None
            with tf.name_scope(f"{_MARK}{number}"):
                return call(*args, **kwargs)

        return marked_call

    def owner(self, operation_name: str) -> int | None:
        """The number of the innermost layer whose call made the operation."""
        marks = re.findall(rf"{_MARK}(\d+)(?:_\d+)?/", operation_name)
        return int(marks[-1]) if marks else None

    def name(self, owner: int | None) -> str:
        return self.model.name if owner is None else self.names[id(self.layers[owner])]

    def loop_length(self, owner: int | None) -> int | None:
        """How often a loop in this layer's call runs: once for each time step in a recurrent layer."""
        if owner is None:
            return None
        kinds = flavor.keras_of(self.model).layers
        recurrent = isinstance(self.layers[owner], kinds.RNN | kinds.TimeDistributed)
        return self.steps.get(owner) if recurrent else None


def _trace(model: Model, inputs: Arrays | None) -> Any:
    """The graph of the model's call on one sample."""
    import tensorflow as tf

    if inputs is None:
        specs = flavor.call_specs(model)
    else:
        specs = tf.nest.map_structure(_sample_spec, inputs)
    for spec in tf.nest.flatten(specs):
        if not spec.shape.is_fully_defined():
            raise ValueError(
                f"Input {spec.name!r} of model {model.name!r} has a side of unknown length "
                f"{tuple(spec.shape)}: pass an example of the input as inputs=."
            )

    @tf.function
    def call(inputs: AnyTensor) -> Any:
        return model(inputs, training=False)

    try:
        return call.get_concrete_function(specs).graph
    except Exception as error:  # a model raises what it likes at inputs that are not its own
        if inputs is None:
            raise
        given = ", ".join(f"{spec.dtype.name} {tuple(spec.shape)}" for spec in tf.nest.flatten(specs))
        raise ValueError(f"Model {model.name!r} cannot be called on inputs= of {given}.") from error


def _sample_spec(array: Array) -> Any:
    import tensorflow as tf

    if isinstance(array, tf.TensorSpec):
        return array
    try:
        tensor = tf.convert_to_tensor(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"inputs= must hold arrays, got {type(array).__name__}: {str(array)[:80]}") from error
    return tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)


def _count_graph(
    graph: tf.Graph,
    calls: _Calls,
    caller: int | None,
    times: int,
    macs: Counter[str],
    uncounted: dict[str, None],
) -> None:
    """Add the MACs of a graph that runs `times` times in the layer `caller` to `macs`."""
    for operation in _reachable(graph):
        owner = calls.owner(operation.name)
        owner = caller if owner is None else owner
        kind = operation.type
        if kind in _GRAPH_MACS:
            count = _GRAPH_MACS[kind](operation)
            if count is None:
                uncounted[f"{calls.name(owner)} ({kind} of unknown size)"] = None
            else:
                macs[calls.name(owner)] += count * times
        elif kind in ("While", "StatelessWhile"):
            length = calls.loop_length(owner)
            if length is None:
                uncounted[f"{calls.name(owner)} (a loop of unknown length)"] = None
            else:
                body = _function(graph, operation, "body")
                _count_graph(body, calls, owner, times * length, macs, uncounted)
        elif kind in ("PartitionedCall", "StatefulPartitionedCall"):
            _count_graph(_function(graph, operation, "f"), calls, owner, times, macs, uncounted)
        elif kind in ("If", "StatelessIf", "Case", "StatelessCase") or kind.startswith("CudnnRNN"):
            uncounted[f"{calls.name(owner)} ({kind})"] = None


def _reachable(graph: tf.Graph) -> list[Any]:
    """The operations that the outputs need, in the graph's order.

    A trace holds others: a recurrent layer calls its cell once beside the loop, only to learn a shape.
    """
    needed = {tensor.op for tensor in graph.outputs}
    pending = list(needed)
    while pending:
        parents = {tensor.op for tensor in pending.pop().inputs} - needed
        needed |= parents
        pending.extend(parents)
    return [operation for operation in graph.get_operations() if operation in needed]


def _function(graph: tf.Graph, operation: tf.Operation, attribute: str) -> Any:
    """The graph of a function that an operation calls."""
    name = operation.get_attr(attribute).name
    return graph._get_function(name).graph


def _sizes(tensor: tf.Tensor) -> tuple[int | None, ...]:
    """A tensor's shape; the batch, where a function inside the trace forgot it, is one."""
    if tensor.shape.rank is None:
        return (None,)
    shape = tuple(tensor.shape)
    return (1, *shape[1:]) if shape and shape[0] is None else shape


def _product(*sizes: int | None) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _convolution_output(operation: tf.Operation) -> tuple[int | None, ...]:
    """The shape that a convolution makes."""
    output = operation.outputs[0]
    # A dilated one may run between SpaceToBatch and BatchToSpace, on padding that is cut off again.
    for consumer in output.consumers():
        if consumer.type == "BatchToSpaceND":
            output = consumer.outputs[0]
    return _sizes(output)


def _matmul(operation: tf.Operation) -> int | None:
    a = _sizes(operation.inputs[0])
    flag = "transpose_a" if operation.type == "MatMul" else "adj_x"
    return _product(*_sizes(operation.outputs[0]), a[-2] if operation.get_attr(flag) else a[-1])


def _convolution(operation: tf.Operation) -> int | None:
    return _product(*_convolution_output(operation), *_sizes(operation.inputs[1])[:-1])


def _depthwise(operation: tf.Operation) -> int | None:
    return _product(*_convolution_output(operation), *_sizes(operation.inputs[1])[:2])


def _transposed(operation: tf.Operation) -> int | None:
    return _product(*_sizes(operation.inputs[2]), *_sizes(operation.inputs[1])[:-1])


def _einsum(operation: tf.Operation) -> int | None:
    """One product for each combination of the indices that the two factors have."""
    if len(operation.inputs) < 2:
        return 0
    sizes: dict[str, int | None] = {}
    factors = operation.get_attr("equation").decode().partition("->")[0].split(",")
    for labels, tensor in zip(factors, operation.inputs, strict=True):
        shape = _sizes(tensor)
        spread = len(shape) - len(labels.replace("...", ""))
        for name, size in zip(_index_names(labels, spread), shape, strict=True):
            sizes[name] = size if sizes.get(name) in (None, 1) else sizes[name]
    return _product(*sizes.values())


def _index_names(labels: str, spread: int) -> list[str]:
    """A factor's indices; the `spread` axes under an ellipsis are numbered from the right."""
    before, _, after = labels.partition("...")
    return [*before, *(f"...{axis}" for axis in reversed(range(spread))), *after]


_GRAPH_MACS: dict[str, Callable[[tf.Operation], int | None]] = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
    "Einsum": _einsum,
}


def _file_batch_matmul(operator: Operator) -> int:
    a, made = operator.input_shapes[0], operator.output_shapes[0]
    assert a is not None and made is not None, "neither can be left out"
    return math.prod(made) * (a[-2] if operator.options.adjX else a[-1])


def _file_sequence(weights: slice) -> Callable[[Operator], int]:
    """A recurrent operator multiplies all its weights at each time step."""

    def count(operator: Operator) -> int:
        steps = math.prod((operator.input_shapes[0] or ())[:2])
        return steps * sum(math.prod(shape) for shape in operator.input_shapes[weights] if shape is not None)

    return count


# Weights lie as OHWI for CONV_2D and TRANSPOSE_CONV, as 1HWO for depthwise, as DHWIO for 3D.
_FILE_MACS: dict[str, Callable[[Any], int]] = {
    "CONV_2D": lambda op: math.prod(op.output_shapes[0]) * math.prod(op.input_shapes[1][1:]),
    "CONV_3D": lambda op: math.prod(op.output_shapes[0]) * math.prod(op.input_shapes[1][:-1]),
    "DEPTHWISE_CONV_2D": lambda op: math.prod(op.output_shapes[0]) * math.prod(op.input_shapes[1][1:3]),
    "FULLY_CONNECTED": lambda op: math.prod(op.output_shapes[0]) * op.input_shapes[1][-1],
    "BATCH_MATMUL": _file_batch_matmul,
    "TRANSPOSE_CONV": lambda op: math.prod(op.input_shapes[2]) * math.prod(op.input_shapes[1][:3]),
    "CONV_3D_TRANSPOSE": lambda op: math.prod(op.input_shapes[2]) * math.prod(op.input_shapes[1][:4]),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _file_sequence(slice(1, 9)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _file_sequence(slice(1, 3)),
}
_MAY_MULTIPLY = {
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CALL",
    "IF",
    "LSTM",
    "RNN",
    "STABLEHLO_COMPOSITE",
    "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL",
    "SVDF",
    "WHILE",
}
