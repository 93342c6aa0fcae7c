"""From a graph of channels and a mask to a smaller plain model."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.channels.graph.trace import garbage_collection_off
from edgeprune.types import AnyTensor, DataLike, Layer, Model, Variable


def rebuild(graph: ChannelGraph, kept_mask: np.ndarray) -> Any:
    """Build the model that remains when channels are dropped.

    Args:
        graph: the channels of a model; the model is not changed.
        kept_mask: bool array (graph.class_count,), True for the kept classes.

    Returns:
        A new model of the same Keras: the same names, nested and shared layers, trainable flags, dtype policies,
        initializers, regularizers and constraints, with weights cut from the old ones. It is compiled as the old
        one was, with a fresh optimizer. It needs nothing of this package. What was Sequential or Functional
        remains so; a subclassed model becomes Functional.

    Raises:
        ValueError: the mask does not fit the graph, drops what is frozen, or leaves a weight without channels; or the
            rule of a custom layer does not say which of its arguments follow the channels.
    """
    kept_mask = checked_mask(graph, kept_mask)
    builder = Builder(graph, kept_mask)
    with garbage_collection_off():
        model = builder.build(graph.walked)
        builder.fill()
        flavor.copy_compile_state(graph.model, model)
    return model


def checked_mask(graph: ChannelGraph, kept_mask: np.ndarray) -> np.ndarray:
    """The mask as a bool array, if the graph's channels can be dropped so."""
    kept_mask = np.asarray(kept_mask, bool)
    if kept_mask.shape != (graph.class_count,):
        raise ValueError(f"kept_mask must have the shape ({graph.class_count},), got {kept_mask.shape}.")
    for number in np.flatnonzero(~kept_mask).tolist():
        if number in graph.frozen_reason:
            raise ValueError(f"Class {number} cannot be dropped: {graph.frozen_reason[number]}.")
    for slot in graph.slots:
        if len(slot.classes) and not kept_mask[slot.classes].any():
            name = graph.names.get(id(slot.layer), slot.layer.name)
            raise ValueError(f"The mask drops every channel of {name!r} ({slot.name}, axis {slot.axis}): keep one.")
    for group in graph.groups:
        group.kept(kept_mask)
    for run in graph.runs:
        if not kept_mask[run].any():
            raise ValueError("The mask drops every channel of a part that is cut out of a tensor: keep at least one.")
    return kept_mask


class Builder:
    """Makes the new layers, each once, and remembers which old one each stands for."""

    def __init__(self, graph: ChannelGraph, kept_mask: np.ndarray) -> None:
        self.graph = graph
        self.kept_mask = kept_mask
        self.layers: dict[int, tuple[Any, Any]] = {}
        self.holders: dict[int, Any] = {}  # `id` of a weight that a composite layer uses itself to its layer
        self.filled: set[int] = set()
        self.changes = changed_arguments(graph, kept_mask)
        self.renamed = graph.renamed

    def build(self, model: Model, name: str | None = None) -> Any:
        """A new model on new inputs."""
        name = name or model.name
        inputs, nodes, outputs = flavor.graph_nodes(model)
        if flavor.is_sequential(model):
            # Masks of steps are functions in the graph that Keras makes by itself.
            own = [node for node in nodes if flavor.function_name(node.layer) is None]
            layers = [self.layer(node.layer) for node in own if self.instead(node) is None]
            kind = flavor.sequential_class(model)
            return kind([*map(self.input_layer, inputs), *layers], name=name)
        tensors = {id(tensor): self.input_layer(tensor).output for tensor in inputs}
        for node in self.needed(nodes, flavor.flatten(outputs, model)):
            instead = self.instead(node)
            if instead is not None:
                tensors[id(node.outputs[0])] = tensors[id(instead)]
                continue
            args, kwargs = node.filled(tensors)
            if flavor.is_own_weight(node.layer):
                given = self.own_weight(node.layer, *args)
            elif flavor.function_name(node.layer) is not None:
                given = flavor.call_function(node.layer, args, kwargs, self.changes.get(id(node.node), {}))
            else:
                given = self.call(node.layer, args, kwargs)
            tensors.update(zip(map(id, node.outputs), flavor.flatten(given, model), strict=True))
        outputs = flavor.map_structure(lambda old: tensors[id(old)], outputs, model)
        return flavor.functional_model(model, [tensors[id(tensor)] for tensor in inputs], outputs, name)

    def needed(self, nodes: list[flavor.GraphNode], outputs: list[Any]) -> list[flavor.GraphNode]:
        """The calls of a model to make again: all."""
        return nodes

    def instead(self, node: flavor.GraphNode) -> Any:
        """The symbolic tensor that takes the place of a call's output; None where the call is made."""
        return None

    def input_layer(self, tensor: AnyTensor) -> Any:
        """A new layer for a model's input, for as many channels as come in."""
        layer = flavor.input_layer(tensor)
        changes = self.changes.get(id(layer), {})
        return flavor.clone_input(layer, changes.get("batch_shape"))

    def layer(self, old: Any) -> Any:
        """The new layer that stands for an old one."""
        if id(old) not in self.layers:
            name = {"name": self.renamed[id(old)]} if id(old) in self.renamed else {}
            if is_nested(old):
                new = self.build(old, **name)
            elif flavor.is_time_distributed(old):
                new = flavor.clone_wrapper(old, self.layer(old.layer), **name)
            else:
                new = flavor.clone_layer(old, self.changes, **name, **self.changes.get(id(old), {}))
            self.layers[id(old)] = (old, new)
        return self.layers[id(old)][1]

    def call(self, old: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call the new layer that stands for an old one; at its first call its weights are made as they shall be."""
        new, names = self.layer(old), flavor.names_of_plain_weights(old)
        if new.built or not names:
            return new(*args, **kwargs)
        values = dict(zip(names, map(self.cut, old.weights), strict=True))
        with flavor.initialize_with(values):
            given = new(*args, **kwargs)
        if not values:
            self.filled.add(id(old))
        return given

    def own_weight(self, old: Any, x: DataLike) -> Any:
        """What holds a weight that a composite layer uses itself."""
        variable = old.variable
        if id(variable) in self.holders:
            return flavor.broadcast_own_weight(old, self.holders[id(variable)], x)
        values = self.cut(variable)
        name = first = f"{self.renamed.get(id(old.owner), old.owner.name)}_{own_name(variable)}"
        taken, number = set(self.graph.rebuilt_names.values()) | {one.name for one in self.holders.values()}, 0
        while name in taken:
            number += 1
            name = f"{first}_{number}"
        holder = self.holders[id(variable)] = flavor.own_weight_holder(old, values.shape, name)
        given = flavor.broadcast_own_weight(old, holder, x)
        holder.kernel.assign(values[None])
        return given

    def fill(self) -> None:
        """Cut the new weights from the old ones, and copy what else a layer has."""
        # Of a nested model the own flag alone: its class may hold layers beside its graph, and the new one has none
        # of those. Outer models come last; their flag sets those of the models and layers inside.
        for old, new in reversed(self.layers.values()):
            if holds_layers(old) and new.trainable != old.trainable:
                new.trainable = old.trainable
        self.fill_weights()
        for old, new in self.layers.values():
            if not holds_layers(old):
                flavor.copy_trainable(old, new)

    def fill_weights(self) -> None:
        """Give the new layers the weights that they were not made with."""
        for number, (old, new) in self.layers.items():
            if number not in self.filled and not holds_layers(old):
                values = [self.cut(weight) for weight in flavor.variables_to_copy(old)]
                check_shapes(old, new, values)
                flavor.copy_layer_state(old, new, values)

    def cut(self, weight: Variable) -> np.ndarray:
        """What remains of a weight."""
        values = cut(weight, self.graph.kept_indices(weight, self.kept_mask))
        for rescale in self.graph.rescales:
            if rescale.weight is weight:
                values = (values * rescale.factor(self.kept_mask)).astype(values.dtype)
        return values


def counterparts(graph: ChannelGraph, rebuilt: Model) -> dict[int, Any]:
    """`id` of a layer of the old model to the rebuilt model's layer of the same path name."""
    names = flavor.layer_names(rebuilt)
    by_name = {names[id(layer)]: layer for layer in flavor.layers_of(rebuilt)}
    return {key: by_name.get(name) for key, name in graph.rebuilt_names.items()}


def own_name(weight: Any) -> str:
    """What a layer calls its weight; names of tf_keras hold those of layers and a number too."""
    return weight.name.rpartition("/")[2].partition(":")[0]


def check_shapes(old: Any, new: Any, values: list[np.ndarray]) -> None:
    """Check that a layer asked for weights of the shapes that are left of the old ones.

    Raises:
        ValueError: it did not, so its rule has left an argument out.
    """
    for weight, value in zip(flavor.variables_to_copy(new), values, strict=True):
        if tuple(weight.shape) != value.shape:
            raise ValueError(
                f"{old.name}: what is left of {weight.name!r} has the shape {value.shape}, and the rebuilt layer "
                f"expects {tuple(weight.shape)}. The rule of {type(old).__name__} must declare which arguments "
                "follow the channels: call.resize(...)."
            )


def is_nested(layer: Layer) -> TypeGuard[Model]:
    """Whether it is a model whose layers are walked one by one."""
    return flavor.is_model(layer) and flavor.is_graph_model(layer)


def holds_layers(layer: Layer) -> bool:
    """Whether the layers inside stand for themselves in a rebuilt model."""
    return is_nested(layer) or flavor.is_time_distributed(layer)


def cut(weight: Variable, kept: dict[int, np.ndarray]) -> np.ndarray:
    """The values of a weight at the kept indices of each axis."""
    values = flavor.array_of(weight)
    for axis, indices in sorted(kept.items(), reverse=True):  # inside heads before the heads
        if indices.ndim == 2:
            indices = indices.reshape(*indices.shape, *(1 for _ in values.shape[axis + 1 :]))
            values = np.take_along_axis(
                values, indices.reshape((1,) * (values.ndim - indices.ndim) + indices.shape), axis
            )
        else:
            values = np.take(values, indices, axis=axis)
    return values if kept else values.copy()


def changed_arguments(graph: ChannelGraph, kept_mask: np.ndarray) -> dict[int, dict[str, Any]]:
    """`id` of a layer or of a function's node to the arguments that change, with their new values."""
    changes: dict[int, dict[str, Any]] = {}
    for resize in graph.resizes:
        if not all(kept_mask[classes].all() for classes in resize.vectors):
            changes.setdefault(id(resize.owner), {})[resize.key] = resize.new_value(kept_mask)
    return changes
