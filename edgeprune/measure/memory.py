"""How much memory a Keras model needs on a device at once, before anything is converted: activations and arena.

    print(activation_memory(model))

A tensor is alive from the call that makes it to the last one that reads it. What the converter fuses into one
operator (batch normalisation and ReLU behind a convolution) needs no memory of its own.

What the interpreter for microcontrollers needs beside the activations is estimated in `edgeprune.measure.arena`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from edgeprune import flavor
from edgeprune.measure.arena import arena_bytes, layer_operators
from edgeprune.text_table import text_table
from edgeprune.types import AnyTensor, Layer, Model

ITEM_BYTES = {"int8": 1, "int16": 2, "float16": 2, "float32": 4}
_ALIGNMENT = 16
# By the names of the classes, which both Kerases share, and of functions in the graph.
_TAKE_NORMALISATION = {"Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense"}
_TAKE_NORMALISATION |= {"SeparableConv1D", "SeparableConv2D"}
_TAKE_RELU = _TAKE_NORMALISATION | {"Add", "add", "Subtract", "subtract", "Multiply", "multiply", "AveragePooling2D"}
_NOTHING_AT_INFERENCE = {
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout1D",
    "SpatialDropout2D",
}
# Computed as layers of two dimensions, so a tensor that others made or read is reshaped.
_ONE_DIMENSION = {"Conv1D", "Conv1DTranspose", "DepthwiseConv1D", "SeparableConv1D", "MaxPooling1D", "AveragePooling1D"}
_RESHAPES = {"Flatten", "Reshape"}
_FUSED_ACTIVATIONS = {"linear", "relu", "relu6"}
_ACTIVATIONS_OF_TWO_OPERATORS = {"silu", "swish", "softsign", "mish"}


@dataclass(frozen=True)
class LayerMemory:
    """The activations that are alive while one layer runs.

    Attributes:
        layer: the layer's name; `"block/conv"` is the layer `conv` of a nested model `block`.
        kind: its class.
        bytes: all that is alive, the layer's own inputs and outputs included.
        output_bytes: what of it the layer returns.
        kept: an estimate of what the interpreter for microcontrollers allocates for its operators as well.
    """

    layer: str
    kind: str
    bytes: int
    output_bytes: int
    kept: int


@dataclass(frozen=True)
class ActivationMemory:
    """The memory of one inference.

    Attributes:
        peak: the largest number of bytes alive at once, which no runtime can do with less than.
        planned: what the interpreter for microcontrollers needs for them: each tensor has a fixed place, the
            largest first, and the gaps that are left may be too small for the others.
        layer: the layer that runs at the peak.
        dtype: the type the activations were counted in.
        layers: each layer in the order they run; those fused into another are left out.
        kept: an estimate of what that interpreter allocates besides the activations, on a machine with 64 bits: its
            structures, and 8 bytes for each channel or unit with a scale of its own. On a device with 32 bits the
            structures need about half.
        arena: an estimate of the whole arena, the memory that is reserved for that interpreter. Kernels made for the
            device (CMSIS-NN) may need scratch buffers besides; a bundle measures it on the file.
    """

    peak: int
    planned: int
    layer: str
    dtype: str
    layers: tuple[LayerMemory, ...]
    kept: int
    arena: int

    @property
    def arena_layer(self) -> str:
        """The layer that sets the arena: the one at the peak, or one that most of a larger `kept` is kept for."""
        most = max(self.layers, key=lambda row: row.kept)
        return most.layer if most.kept > max(self.planned, self.kept / 2) else self.layer

    def __str__(self) -> str:
        """A table of the layers, with the peak marked, and the totals."""
        marks = {self.layer: "<- peak"}
        rows = [(row.layer, row.kind, f"{row.bytes:,}", marks.get(row.layer, "")) for row in self.layers]
        rows += [(word, self.dtype, f"{getattr(self, word):,}", "") for word in ("peak", "planned", "kept", "arena")]
        return text_table(("layer", "kind", "bytes", ""), rows, left=(0, 1, 3))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return asdict(self)


def activation_memory(model: Model, dtype: str = "int8", *, per_channel_dense: bool = True) -> ActivationMemory:
    """The peak of a model's activations by liveness over its graph, the layer that sets it, and the arena to expect.

    Args:
        model: a built model of `keras` 3 or `tf_keras`, also a subclassed one.
        dtype: what an activation is stored as: `"int8"`, `"int16"`, `"float16"` or `"float32"`.
        per_channel_dense: whether each unit of a dense layer has a scale of its own, as in `export_tflite`.

    Returns:
        Bytes for a batch of one.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the dtype is unknown, the model is not built, it is a subclassed one without a graph, or
            a side of a tensor is not fixed.

    Example:
        >>> import keras
        >>> net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="stem")])
        >>> activation_memory(net).peak  # 8 * 8 * 3 + 6 * 6 * 16
        768
    """
    flavor.check_model(model)
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype must be one of {', '.join(ITEM_BYTES)}; got {dtype!r}.")
    flavor.check_built(model)
    graph = model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)
    trace = _reshaped(_fused(_traced(graph, ITEM_BYTES[dtype])))
    names = flavor.layer_names(graph)
    tensors, times = _lifetimes(trace)
    operators = [
        layer_operators(
            call.layer,
            _kind(call.layer),
            _activation(call.layer),
            len(running),
            call.channels,
            dtype,
            per_channel_dense,
        )
        for call, running in zip(trace.calls, times, strict=True)
    ]
    layers = _by_layer(
        LayerMemory(
            layer=names.get(id(call.layer), call.layer.name),
            kind=_kind(call.layer),
            bytes=max(sum(tensor.bytes for tensor in tensors if tensor.alive(time)) for time in running),
            output_bytes=sum(trace.sizes[value] for value in call.outputs),
            kept=made.kept * call.times,
        )
        for call, running, made in zip(trace.calls, times, operators, strict=True)
    )
    if not layers:
        raise ValueError(f"Model {model.name!r} computes nothing.")
    peak = max(layers, key=lambda row: row.bytes)
    planned = planned_bytes(tensors)
    of_all = [made for call, made in zip(trace.calls, operators, strict=True) for _ in range(call.times)]
    kept, arena = arena_bytes(of_all, planned, len(trace.inputs), len(trace.outputs))
    return ActivationMemory(peak.bytes, planned, peak.layer, dtype, layers, kept, aligned(arena))


def _by_layer(rows: Iterable[LayerMemory]) -> tuple[LayerMemory, ...]:
    """One row for each layer: that of the call with most alive, with what is kept for all of its calls."""
    merged: dict[str, LayerMemory] = {}
    for row in rows:
        known = merged.get(row.layer, replace(row, kept=0))
        merged[row.layer] = replace(max(known, row, key=lambda one: one.bytes), kept=known.kept + row.kept)
    return tuple(merged.values())


@dataclass(frozen=True)
class _Call:
    """What one layer runs: the numbers of the values it reads and makes, and the bytes of those only it sees.

    `channels` is the last size of what it makes; `times` is how many equal calls it stands for.
    """

    layer: Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    inside: tuple[int, ...] = ()
    channels: int = 0
    times: int = 1


@dataclass(frozen=True)
class _Trace:
    """A model's calls in the order they run; `sizes[value]` is a value's bytes."""

    sizes: tuple[int, ...]
    calls: tuple[_Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _traced(model: Model, item_bytes: int) -> _Trace:
    """The graph with nested models unfolded, those inside `TimeDistributed` too."""
    walk = _Walk(model, item_bytes)
    inputs = tuple(map(walk.value, flavor.graph_nodes(model)[0]))
    outputs = walk.unfold(model, inputs)
    return _Trace(tuple(map(aligned, walk.sizes)), tuple(walk.calls), inputs, outputs)


class _Walk:
    """Collects the calls of a model; `sizes[value]` is a value's bytes, not aligned."""

    def __init__(self, model: Model, item_bytes: int) -> None:
        self.model = model
        self.item_bytes = item_bytes
        self.sizes: list[int] = []
        self.calls: list[_Call] = []
        self._samples = 1  # in the batch
        self._times = 1

    def value(self, tensor: AnyTensor) -> int:
        """The number of the value that a symbolic tensor stands for."""
        shape = tuple(tensor.shape)[1:]
        if None in shape:
            raise ValueError(f"Model {self.model.name!r} has a tensor of shape {shape}: fix every size of its inputs.")
        return self._sized(math.prod(shape) * self.item_bytes * self._samples)

    def unfold(self, graph: Model, feeds: Sequence[int]) -> tuple[int, ...]:
        """The calls of a model; returns the values of its outputs."""
        return tuple(flavor.run_model(graph, feeds, self._call, self._enter))

    def _call(self, node: flavor.GraphNode, given: list[int]) -> tuple[int, ...]:
        made = tuple(map(self.value, node.outputs))
        output_bytes = sum(aligned(self.sizes[number]) for number in made)
        channels = (tuple(node.outputs[0].shape) or (0,))[-1]
        inside = _inside(node, output_bytes, self.item_bytes * self._samples)
        self.calls.append(_Call(node.layer, tuple(given), made, inside, channels, self._times))
        return made

    def _enter(self, node: flavor.GraphNode, inner: Model, axes: int, given: list[int]) -> tuple[int, ...]:
        steps = tuple(flavor.called_on(node)[0].shape)[1 : 1 + axes]
        return self._at_each_step(node.layer, tuple(flavor.first_argument(node, given)), steps)

    def _at_each_step(self, layer: Layer, given: tuple[int, ...], steps: Sequence[int | None]) -> tuple[int, ...]:
        """A nested model; `TimeDistributed` runs it on one step after the other, in tf_keras on all as one batch."""
        if not steps:
            return self.unfold(cast("Model", layer), given)
        count, *others = steps
        if count is None:
            raise ValueError(f"Layer {layer.name!r} of model {self.model.name!r} is called on steps of open number.")
        if not flavor.is_keras_3(layer):
            folded = self._rearranged(layer, given, [self.sizes[value] for value in given])
            self._samples *= count
            made = self._at_each_step(layer.layer, folded, others)
            self._samples //= count
            return self._rearranged(layer, made, [self.sizes[value] for value in made])
        # The last step and the one before it are looked at; what those before have made is one value.
        before_all = self._times
        earlier = self._sized(0)
        together, made = [earlier], ()
        for times in (count - 1, 1) if count > 1 else (1,):
            self._times = before_all * times
            beside = () if made else (earlier,)
            parts = self._rearranged(layer, given, [self.sizes[value] // count for value in given], beside)
            made = self._at_each_step(layer.layer, parts, others)
            together += made
        self._times = before_all
        self.sizes[earlier] = max(count - 2, 0) * sum(aligned(self.sizes[value]) for value in made)
        return self._rearranged(layer, together, [self.sizes[value] * count for value in made])

    def _rearranged(
        self, layer: Layer, given: Sequence[int], sizes: Sequence[int], beside: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """A call that only puts values into another order; those `beside` are alive from then on."""
        made = tuple(map(self._sized, sizes))
        self.calls.append(_Call(layer, tuple(given), (*made, *beside), times=self._times))
        return made

    def _sized(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1


def _fused(trace: _Trace) -> _Trace:
    """The trace without the calls that become part of the operator before them."""
    readers = Counter(trace.outputs) + Counter(value for call in trace.calls for value in call.inputs)
    stands_for = dict(enumerate(range(len(trace.sizes))))
    maker: dict[int, Any] = {}
    calls = []
    for call in trace.calls:
        given = tuple(stands_for[value] for value in call.inputs)
        only_reader = len(given) == 1 and readers[call.inputs[0]] == 1
        if len(given) == len(call.outputs) == 1 and _is_fused(call.layer, maker.get(given[0]), only_reader):
            stands_for[call.outputs[0]] = given[0]
            continue
        maker.update(dict.fromkeys(call.outputs, call.layer))
        calls.append(replace(call, inputs=given))
    outputs = tuple(stands_for[value] for value in trace.outputs)
    return replace(trace, calls=tuple(calls), outputs=outputs)


def _reshaped(trace: _Trace) -> _Trace:
    """The trace with the reshapes around layers of one dimension."""
    maker = {value: _kind(call.layer) for call in trace.calls for value in call.outputs}
    readers: dict[int, set[str]] = {value: {"output"} for value in trace.outputs}
    for call in trace.calls:
        for value in call.inputs:
            readers.setdefault(value, set()).add(_kind(call.layer))
    calls = []
    for call in trace.calls:
        inside = call.inside
        if _kind(call.layer) in _ONE_DIMENSION:
            if maker.get(call.inputs[0]) not in _ONE_DIMENSION:
                inside = (trace.sizes[call.inputs[0]], *inside)
            if not readers[call.outputs[0]] <= _ONE_DIMENSION | _RESHAPES:
                inside = (*inside, trace.sizes[call.outputs[0]])
        calls.append(replace(call, inside=inside))
    return replace(trace, calls=tuple(calls))


def _is_fused(layer: Layer, maker: Layer | None, only_reader: bool) -> bool:
    kind = _kind(layer)
    if kind in _NOTHING_AT_INFERENCE or (kind == "Activation" and _activation(layer) == "linear"):
        return True
    if maker is None or not only_reader or _activation(maker) not in (None, "linear"):
        return False
    if kind == "BatchNormalization":
        return _kind(maker) in _TAKE_NORMALISATION
    if kind == "ReLU":
        plain = not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6, 6.0)
        return plain and _kind(maker) in _TAKE_RELU
    return (kind == "Activation" and _activation(layer) in _FUSED_ACTIVATIONS) and _kind(maker) in _TAKE_RELU


def _inside(node: flavor.GraphNode, output_bytes: int, item_bytes: int) -> tuple[int, ...]:
    """The bytes of the tensors between the operators that one layer becomes."""
    layer, sizes = node.layer, []
    if _kind(layer) in ("SeparableConv1D", "SeparableConv2D"):
        channels = node.inputs[0].shape[-1] * layer.depth_multiplier
        sizes.append(aligned(math.prod(tuple(node.outputs[0].shape)[1:-1]) * channels * item_bytes))
    activation = _activation(layer)
    if activation not in (None, *_FUSED_ACTIVATIONS) and _kind(layer) != "Activation":
        sizes.append(output_bytes)
    if activation in _ACTIVATIONS_OF_TWO_OPERATORS:
        sizes.append(output_bytes)
    return tuple(sizes)


@dataclass(frozen=True)
class Lifetime:
    """When a tensor is alive.

    Attributes:
        bytes: its size.
        first: the number of the first operator that makes or reads it.
        last: the number of the last.
    """

    bytes: int
    first: int
    last: int

    def alive(self, time: int) -> bool:
        """Whether it is alive while the operator of this number runs."""
        return self.first <= time <= self.last


def _lifetimes(trace: _Trace) -> tuple[list[Lifetime], list[range]]:
    """When each tensor is alive, in the order they are made, and for each call when its operators run."""
    first, last = dict.fromkeys(trace.inputs, 0), dict.fromkeys(trace.inputs, 0)
    between: list[Lifetime] = []
    times: list[range] = []
    for call in trace.calls:
        start = times[-1].stop if times else 0
        times.append(range(start, start + len(call.inside) + 1))
        # The inputs are read by the first operator inside, the output is made by the last; what is multiplied by a
        # function of itself is read by the operator after the next one too.
        longer = 1 if _activation(call.layer) in _ACTIVATIONS_OF_TWO_OPERATORS else 0
        end = times[-1][-1]
        last |= dict.fromkeys(call.inputs, min(start + longer, end))
        between += [
            Lifetime(size, time, min(time + 1 + longer, end)) for time, size in enumerate(call.inside, start=start)
        ]
        first |= dict.fromkeys(call.outputs, end)
        last |= dict.fromkeys(call.outputs, end)
    last |= dict.fromkeys(trace.outputs, times[-1][-1] if times else 0)
    values = [Lifetime(trace.sizes[value], first[value], last[value]) for value in first]
    return sorted([*values, *between], key=lambda tensor: tensor.first), times


def planned_bytes(tensors: Sequence[Lifetime]) -> int:
    """The end of the last tensor, as the greedy planner of TensorFlow Lite for Microcontrollers places them.

    The largest comes first, of equal ones the last made, each into the lowest gap between those alive with it.

    Source: https://github.com/tensorflow/tflite-micro, `GreedyMemoryPlanner`.
    """
    places: list[tuple[int, Lifetime]] = []
    for tensor in sorted(reversed(tensors), key=lambda tensor: -tensor.bytes):
        offset = 0
        for start, other in sorted(places, key=lambda place: place[0]):
            together = tensor.first <= other.last and other.first <= tensor.last
            if together and start - offset >= tensor.bytes:
                break
            if together:
                offset = max(offset, start + other.bytes)
        places.append((offset, tensor))
    return max((offset + tensor.bytes for offset, tensor in places), default=0)


def _kind(layer: Layer) -> str:
    return flavor.function_name(layer) or type(layer).__name__


def _activation(layer: Layer) -> str | None:
    return getattr(getattr(layer, "activation", None), "__name__", None)


def aligned(size: int) -> int:
    """The bytes that a tensor of this size takes up in an arena."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
