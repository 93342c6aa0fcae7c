"""Where a quantization-aware model rounds: which kernels, and which activations with which ranges.

Rounding stands where the operators of a file return integers: behind a convolution with the batch normalization and the
ReLU that are folded into it, not between them. Values that only move keep the steps they have. The table is that of
TensorFlow's converter; a range that is missing leaves operators in floats without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprune import flavor
from edgeprune.conversion.masked_scores import is_far, room_below
from edgeprune.quantization.kinds import (
    CallKind,
    ends_mask,
    fixed_range,
    inner_kernel_axes,
    kernel_axes,
    kind_of,
    own_activation,
    splits_activation,
)
from edgeprune.types import AnyTensor, Layer, Model

# Functions that have no settings.
_ACTIVATIONS = {"relu", "relu6", "selu", "silu", "swish", "softplus", "softsign", "mish", "hardswish", "hardsigmoid"}


@dataclass(frozen=True, eq=False)
class Range:
    """One range of activations.

    Attributes:
        name: of what makes the values, without the path.
        fixed: the range itself, where it follows from the function that makes them; None where it is measured.
        in_file: whether a file has it. Behind a layer in floats it has not: between two ranges the converter would make
            integers of the layer.
        room_below: how far it goes below the least value, so that masks can put a score there.
    """

    name: str
    fixed: tuple[float, float] | None = None
    in_file: bool = True
    room_below: float = 0.0


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a model rounds.

    Attributes:
        ranges: `id` of a symbolic tensor of the model, or of a model inside it, to the range that its values are
            rounded in. Tensors that must have the same steps have the same one.
        kernels: `id` of a layer to its kernels: name to the axes with a scale for each entry.
    """

    ranges: dict[int, Range] = field(default_factory=dict)
    kernels: dict[int, dict[str, tuple[int, ...]]] = field(default_factory=dict)


def place(
    model: Model,
    chosen: Collection[int],
    *,
    floats: Collection[int] = (),
    activations: bool = True,
    per_channel_dense: bool = True,
) -> Placement:
    """Find where a model rounds.

    Args:
        model: a built Functional or Sequential model of either Keras, composite layers unfolded.
        chosen: `id` of the layers whose kernels and values are rounded, and what these kernels are multiplied with;
            inputs and functions in the graph always are.
        floats: `id` of the layers that a file computes in floats, none of them among the chosen: what integer
            operators read of their values is rounded.
        activations: whether activations are rounded too.
        per_channel_dense: whether each unit of a dense layer has a scale of its own.

    Returns:
        The ranges and the kernels.
    """
    graph = _Graph(model, floats)
    placement = Placement()
    for layer in (_inner(node.layer) for _, node in graph.calls() if flavor.function_name(node.layer) is None):
        axes = kernel_axes(layer, per_channel_dense) or inner_kernel_axes(layer, per_channel_dense)
        if id(layer) in chosen and axes:
            placement.kernels[id(layer)] = axes
    if activations:
        _place_ranges(graph, chosen, placement.ranges)
    return placement


def _place_ranges(graph: _Graph, chosen: Collection[int], ranges: dict[int, Range]) -> None:
    for part, tensor in graph.inputs():
        if part is graph.model and holds_real_numbers(tensor):
            ranges[id(tensor)] = Range(flavor.input_layer(tensor).name)
    made: dict[tuple[Any, ...], int] = {}  # what is computed to the `id` of the first tensor that it makes
    for part, node in graph.calls():
        layer = node.layer
        if flavor.is_nested(layer):
            continue
        left_out = flavor.function_name(layer) is None and id(_inner(layer)) not in chosen
        for tensor in filter(holds_real_numbers, node.outputs):
            if graph.is_in_floats(node):
                found = _range_behind_floats(graph, node, tensor)
            elif left_out:
                found = _range_for_kernel(graph, part, node, tensor, chosen, ranges)
            else:
                found = _range_of(graph, part, node, tensor, ranges)
            if found is not None:
                ranges[id(tensor)] = _of_same_call(graph, part, node, found, tensor, made, ranges)


def _of_same_call(
    graph: _Graph,
    part: Model,
    node: flavor.GraphNode,
    found: Range,
    tensor: AnyTensor,
    made: dict[tuple[Any, ...], int],
    ranges: dict[int, Range],
) -> Range:
    """The range of a call, or that of another one which computes the same: the converter makes one operator of both.

    Two ranges, which training moves apart by their last bits, would leave that operator in floats.
    """
    activation = _activation_of(node)
    if activation is None or found.fixed is not None:
        return found
    first = made.setdefault((id(part), activation, id(graph.unchanged(node.inputs[0]))), id(tensor))
    same = ranges.get(first, found)
    return same if same.in_file == found.in_file else found


def _range_behind_floats(graph: _Graph, node: flavor.GraphNode, tensor: AnyTensor) -> Range | None:
    """The range of the output of a layer in floats, where an integer operator reads it, or the file returns it."""
    kind = kind_of(node)
    moved = kind in (CallKind.NOTHING, CallKind.MOVEMENT)
    if moved or _is_fused(graph, node, kind, tensor) or not graph.is_read_as_integers(tensor):
        return None
    return Range(node.layer.name, fixed_range(_inner(node.layer)), in_file=False)


def _range_for_kernel(
    graph: _Graph,
    part: Model,
    node: flavor.GraphNode,
    tensor: AnyTensor,
    chosen: Collection[int],
    ranges: dict[int, Range],
) -> Range | None:
    """The range of the output of a layer that is left out, where a rounded kernel is multiplied with it."""
    followers = [one for one in graph.followers(tensor) if one is not None and id(_inner(one.layer)) in chosen]
    is_needed = any(kind_of(one) is CallKind.WEIGHTED for one in followers)
    if not is_needed or kind_of(node) is CallKind.RECURRENT:
        return None
    shared = _shared_range(graph, part, tensor, ranges)
    return Range(node.layer.name, fixed_range(_inner(node.layer))) if shared is None else None


def _inner(layer: Layer) -> Any:
    while flavor.is_time_distributed(layer):
        layer = layer.layer
    return layer


def _range_of(
    graph: _Graph, part: Model, node: flavor.GraphNode, tensor: AnyTensor, ranges: dict[int, Range]
) -> Range | None:
    """The range in which a call's output is rounded; None where it is not, or is on steps already."""
    kind = kind_of(node)
    if kind in (CallKind.NOTHING, CallKind.MOVEMENT, CallKind.RECURRENT) or _is_fused(graph, node, kind, tensor):
        return None
    if kind is CallKind.AVERAGE and (shared := _shared_range(graph, part, node.inputs[0], ranges)) is not None:
        return shared
    if kind is CallKind.JOIN and not graph.puts_mask(node) and _join(graph, part, node, ranges):
        return None
    if graph.is_masking_term(node, tensor):
        return None
    name = flavor.own_weight_name(node.layer) if flavor.is_own_weight(node.layer) else node.layer.name
    room = room_below(tensor.shape[-1]) if graph.is_masked(node, tensor) else 0.0
    return Range(name, fixed_range(_inner(node.layer)), room_below=room)


def _activation_of(node: flavor.GraphNode) -> str | None:
    """The name of the activation that a call is, alone and without settings; None for other calls."""
    layer = node.layer
    name = flavor.function_name(layer)
    if name is not None:
        return name if len(node.inputs) == 1 and name in _ACTIVATIONS else None
    kind = flavor.built_in_kind(layer)
    if kind == "ReLU" and kind_of(node) is CallKind.RELU:
        return "relu" if layer.max_value is None else "relu6"
    return own_activation(layer).replace("_", "") if kind == "Activation" else None


def _is_fused(graph: _Graph, node: flavor.GraphNode, kind: CallKind, tensor: AnyTensor) -> bool:
    """Whether the only call that reads some values is done by the operator that makes them."""
    followers = graph.followers(tensor)
    if len(followers) != 1 or followers[0] is None:
        return False
    following = kind_of(followers[0])
    if kind is CallKind.WEIGHTED:
        plain = not splits_activation(_inner(node.layer)) and _has_no_activation(node.layer)
        return plain and following in (CallKind.NORMALIZATION, CallKind.RELU)
    return kind in (CallKind.NORMALIZATION, CallKind.ARITHMETIC) and following is CallKind.RELU


def _has_no_activation(layer: Layer) -> bool:
    activation = getattr(_inner(layer), "activation", None)
    return activation is None or getattr(activation, "__name__", "") == "linear"


def _shared_range(graph: _Graph, part: Model, tensor: AnyTensor, ranges: dict[int, Range]) -> Range | None:
    """The range that some values have already, where the same part of the model gave it to them."""
    source = graph.source(part, tensor, ranges)
    found = ranges.get(id(source))
    return found if found is not None and found.in_file and graph.part_of(source) is part else None


def _join(graph: _Graph, part: Model, node: flavor.GraphNode, ranges: dict[int, Range]) -> bool:
    """Set one range for the tensors that are put side by side; whether that could be done."""
    found = [_shared_range(graph, part, tensor, ranges) for tensor in node.inputs if holds_real_numbers(tensor)]
    shared = [one for one in found if one is not None and one.fixed is None]
    if not shared or len(shared) < len(found):
        return False
    members = {id(one) for one in shared}
    ranges.update({key: shared[0] for key, one in ranges.items() if id(one) in members})
    return True


def _is_product(node: flavor.GraphNode) -> bool:
    name = flavor.function_name(node.layer) or flavor.built_in_kind(node.layer)
    return "mul" in name.lower()


def holds_real_numbers(tensor: AnyTensor) -> bool:
    """Whether a symbolic tensor holds real numbers, and not none at all, as an input of no masks does."""
    dtype = tensor.dtype
    return "float" in str(getattr(dtype, "name", dtype)) and 0 not in tuple(tensor.shape)


class _Graph:
    """The calls of a model and of those inside it, and who reads what."""

    def __init__(self, model: Model, floats: Collection[int]) -> None:
        self.model = model
        self._floats = floats
        self._parts: dict[int, Any] = {}
        self._nodes: dict[int, list[flavor.GraphNode]] = {}
        self._inputs: dict[int, list[Any]] = {}
        self._outputs: dict[int, list[Any]] = {}
        self._takers: dict[int, list[flavor.GraphNode]] = {}
        self._maker: dict[int, tuple[Any, flavor.GraphNode | None]] = {}
        self._calls_of: dict[int, list[flavor.GraphNode]] = {}
        self._read(model)

    def _read(self, part: Model) -> None:
        if id(part) in self._parts:
            return
        self._parts[id(part)] = part
        inputs, nodes, outputs = flavor.graph_nodes(part)
        self._inputs[id(part)], self._nodes[id(part)] = inputs, nodes
        self._outputs[id(part)] = flavor.flatten(outputs, part)
        self._maker.update({id(tensor): (part, None) for tensor in inputs})
        for node in nodes:
            for tensor in {id(tensor): tensor for tensor in node.inputs}.values():
                self._takers.setdefault(id(tensor), []).append(node)
            self._maker.update({id(tensor): (part, node) for tensor in node.outputs})
            inner = flavor.model_inside(node.layer)[0]
            if inner is not None:
                self._calls_of.setdefault(id(inner), []).append(node)
                self._read(inner)

    def inputs(self) -> Iterator[tuple[Any, Any]]:
        """The symbolic inputs, each with the part of the model that has it."""
        for key, part in self._parts.items():
            yield from ((part, tensor) for tensor in self._inputs[key])

    def calls(self) -> Iterator[tuple[Any, flavor.GraphNode]]:
        """The calls, each with the part of the model that makes it; those inside come behind their model's."""
        for key, part in self._parts.items():
            yield from ((part, node) for node in self._nodes[key])

    def part_of(self, tensor: AnyTensor) -> Any:
        """The part of the model that a symbolic tensor belongs to."""
        return self._maker[id(tensor)][0]

    def is_in_floats(self, node: flavor.GraphNode) -> bool:
        """Whether a file computes a call in floats: its layer is, or the operator before it, which does both."""
        if flavor.function_name(node.layer) is None and id(_inner(node.layer)) in self._floats:
            return True
        maker = self._maker[id(node.inputs[0])][1] if node.inputs else None
        if maker is None or flavor.is_nested(maker.layer):
            return False
        return _is_fused(self, maker, kind_of(maker), node.inputs[0]) and self.is_in_floats(maker)

    def is_read_as_integers(self, tensor: AnyTensor) -> bool:
        """Whether an operator of integers reads some values, moved or not, or the model returns them."""
        return any(
            one is None
            or (
                any(map(self.is_read_as_integers, one.outputs))
                if kind_of(one) is CallKind.MOVEMENT
                else not self.is_in_floats(one)
            )
            for one in self.followers(tensor)
        )

    def followers(self, tensor: AnyTensor) -> list[flavor.GraphNode | None]:
        """The calls that work on some values, None for the outputs; calls that do nothing are passed over."""
        part = self.part_of(tensor)
        found: list[flavor.GraphNode | None] = []
        for node in self._takers.get(id(tensor), []):
            if flavor.is_nested(node.layer):
                for outer, inner in zip(
                    flavor.first_argument(node, node.inputs), self._inputs[id(node.layer)], strict=True
                ):
                    found += self.followers(inner) if outer is tensor else []
            elif kind_of(node) is CallKind.NOTHING:
                found += self.followers(node.outputs[0])
            else:
                found.append(node)
        for number, given in enumerate(self._outputs[id(part)]):
            if given is tensor:
                found += self._followers_outside(part, number)
        return found

    def _followers_outside(self, part: Model, number: int) -> list[flavor.GraphNode | None]:
        calls = self._calls_of.get(id(part), [])
        if part is self.model or not all(flavor.is_nested(node.layer) for node in calls):
            return [None]
        return [follower for node in calls for follower in self.followers(node.outputs[number])]

    def is_masked(self, node: flavor.GraphNode, tensor: AnyTensor) -> bool:
        """Whether what a call makes are scores that softmax masks, or that are masked for it or for the largest."""
        readers = [one for one in self._readers(tensor) if ends_mask(_inner(one.layer))]
        return any(len(one.inputs) > 1 for one in readers) or (bool(readers) and self.puts_mask(node))

    def is_masking_term(self, node: flavor.GraphNode, tensor: AnyTensor) -> bool:
        """Whether a call makes `where(mask, bias, -1e9)` or `bias + mask * -1e9`, to be added to scores.

        A range with that number in it would leave nothing of the bias. The file masks the sum.
        """
        if _is_product(node) or not self.puts_mask(node):
            return False
        readers = list(self._readers(tensor))
        return bool(readers) and all(kind_of(one) is CallKind.ARITHMETIC for one in readers)

    def _readers(self, tensor: AnyTensor) -> Iterator[flavor.GraphNode]:
        """The calls that work on some values, moved or not."""
        for one in self.followers(tensor):
            if one is not None and kind_of(one) is CallKind.MOVEMENT and not ends_mask(_inner(one.layer)):
                yield from self._readers(one.outputs[0])
            elif one is not None:
                yield one

    def puts_mask(self, node: flavor.GraphNode, depth: int = 4) -> bool:
        """Whether a call masks scores in a way that `conversion.masked_scores` knows: by a choice, product or sum."""
        is_choice = "where" in (flavor.function_name(node.layer) or "")
        if not is_choice and kind_of(node) is not CallKind.ARITHMETIC:
            return kind_of(node) is CallKind.MOVEMENT and self._reads_mask(node, depth)
        if any(is_far(one) for one in flavor.flatten((node.args, node.kwargs), node.layer)):
            return True
        return not _is_product(node) and self._reads_mask(node, depth)

    def _reads_mask(self, node: flavor.GraphNode, depth: int) -> bool:
        makers = (self._maker[id(tensor)][1] for tensor in node.inputs)
        return depth > 0 and any(self.puts_mask(one, depth - 1) for one in makers if one is not None)

    def unchanged(self, tensor: AnyTensor) -> Any:
        """The symbolic tensor before the calls that do nothing."""
        node = self._maker[id(tensor)][1]
        if node is None or flavor.is_nested(node.layer) or kind_of(node) is not CallKind.NOTHING:
            return tensor
        return self.unchanged(node.inputs[0])

    def source(self, part: Model, tensor: AnyTensor, ranges: Mapping[int, Range]) -> Any:
        """The symbolic tensor whose steps some values have: before them are only calls that move or join values."""
        node = self._maker[id(tensor)][1]
        moved = (CallKind.NOTHING, CallKind.MOVEMENT, CallKind.JOIN)
        if id(tensor) in ranges or node is None or flavor.is_nested(node.layer) or kind_of(node) not in moved:
            return tensor
        moved_or_first = next(filter(holds_real_numbers, node.inputs), None)
        return tensor if moved_or_first is None else self.source(part, moved_or_first, ranges)
