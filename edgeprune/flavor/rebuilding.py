"""A model built once more from its calls: all of them or some, with other layers, weights or names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune.flavor.copies import (
    clone_input,
    clone_layer,
    clone_wrapper,
    copy_layer_state,
    copy_trainable,
    functional_model,
    initialize_with,
    names_of_plain_weights,
    sequential_class,
    variables_to_copy,
)
from edgeprune.flavor.functions import call_function
from edgeprune.flavor.graphs import (
    GraphNode,
    function_name,
    graph_nodes,
    input_layer,
    is_nested,
    is_time_distributed,
    needed_calls,
)
from edgeprune.flavor.kinds import array_of, flatten, is_sequential, map_structure
from edgeprune.flavor.own_weights import broadcast_own_weight, is_own_weight, own_weight_holder, own_weight_name
from edgeprune.types import AnyTensor, Layer, Model, Variable


def rebuild_graph(
    model: Model,
    call: Callable[[GraphNode, tuple, dict[str, Any]], Any],
    *,
    instead: Mapping[int, int] = MappingProxyType({}),
    new_input: Callable[[AnyTensor], Any] | None = None,
    behind: Callable[[AnyTensor, Any], Any] | None = None,
    name: str | None = None,
) -> Any:
    """Build a Functional model from the calls of another.

    Args:
        model: a built Functional or Sequential model of either Keras; it is not touched.
        call: `call(node, args, kwargs)` is passed a call with its arguments, the new graph's tensors in place of the
            old ones, and returns the new graph's outputs. Nested models are one layer.
        instead: `id` of a call's node to the position of the input in place of its output.
        new_input: makes the input layer that stands for a symbolic input; left out, a copy.
        behind: `behind(old, new)` is passed each tensor of the old graph, inputs too, with the one of the new graph in
            its place, and returns what is used instead of this; left out, the new one.
        name: of the new model; left out, the old one's.

    Returns:
        A Functional model with the same structure of inputs and outputs.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    inputs, nodes, outputs = graph_nodes(model)
    new_inputs = [clone_input(input_layer(old)) if new_input is None else new_input(old) for old in inputs]
    tensors = {}

    def put(old: AnyTensor, new: Layer) -> None:
        tensors[id(old)] = new if behind is None else behind(old, new)

    for old, layer in zip(inputs, new_inputs, strict=True):
        put(old, layer.output)
    # Layers of tf_keras that add losses lead to no output and are made all the same.
    for node in needed_calls(nodes, flatten(outputs, model), instead) if instead else nodes:
        if (position := instead.get(id(node.node))) is not None:
            tensors[id(node.outputs[0])] = tensors[id(node.inputs[position])]
        else:
            made = call(node, *node.filled(tensors))
            for old, new in zip(node.outputs, flatten(made, model), strict=True):
                put(old, new)
    new_outputs = map_structure(lambda old: tensors[id(old)], outputs, model)
    return functional_model(model, [layer.output for layer in new_inputs], new_outputs, name or model.name)


class Rebuilder:
    """Makes the layers of a new model, each once, and remembers which old one each stands for.

    Args:
        cut: what remains of a weight, in memory of its own; left out, all of it.
        changes: `id` of a layer, or of a function's node, to the arguments that change, with their new values.
        renamed: `id` of a layer to its new name.
        instead: `id` of a call's node to the position of the input that it returns instead of computing anything.
        taken_names: names that a layer of the new model must not be given besides.
        wrappers: `id` of a layer to what makes the layer that is called in place of the new one, around it.
        unwrapped: `id` of a layer that holds another to the one inside, which takes its place.
        behind: `id` of a symbolic tensor to the new layer that is called on what takes its place.
    """

    def __init__(
        self,
        *,
        cut: Callable[[Variable], np.ndarray] | None = None,
        changes: Mapping[int, dict[str, Any]] = MappingProxyType({}),
        renamed: Mapping[int, str] = MappingProxyType({}),
        instead: Mapping[int, int] = MappingProxyType({}),
        taken_names: Iterable[str] = (),
        wrappers: Mapping[int, Callable[[Any], Any]] = MappingProxyType({}),
        unwrapped: Mapping[int, Layer] = MappingProxyType({}),
        behind: Mapping[int, Any] = MappingProxyType({}),
    ) -> None:
        self._cut = _whole if cut is None else cut
        self._changes = changes
        self._renamed = renamed
        self._instead = instead
        self._taken_names = set(taken_names)
        self._wrappers = wrappers
        self._unwrapped = unwrapped
        self._behind = behind
        self._layers: dict[int, tuple[Any, Any]] = {}
        self._called: dict[int, Any] = {}  # the same layers, in their wrappers
        self._holders: dict[int, Any] = {}  # `id` of a weight that a composite layer uses itself to its layer
        self._filled: set[int] = set()

    def build(self, model: Model) -> Any:
        """A new model on new inputs, with the weights that remain and the trainable flags of the old one."""
        built = self._built(model, model.name)
        self.fill()
        return built

    def counterparts(self) -> dict[int, Any]:
        """`id` of an old layer, at any depth, to the new layer that stands for it."""
        found = {}
        for old, new in self._layers.values():
            parts = [(old, new)] if _holds_layers(old) else zip(*(x._flatten_layers() for x in (old, new)), strict=True)
            found.update({id(part): made for part, made in parts})
        return found

    def _built(self, model: Model, name: str) -> Any:
        if not is_sequential(model) or self._repeats(model):
            return rebuild_graph(
                model,
                self.call,
                instead=self._instead,
                new_input=self._input_layer,
                behind=self._call_behind if self._behind else None,
                name=name,
            )
        inputs, nodes, _ = graph_nodes(model)
        # Masks of steps are functions in the graph that Keras makes by itself.
        own = [node for node in nodes if function_name(node.layer) is None and id(node.node) not in self._instead]
        layers: list[Any] = []
        for tensor in inputs:
            layers += [self._input_layer(tensor), *self._layers_behind([tensor])]
        for node in own:
            layers += [self._layer(node.layer), *self._layers_behind(node.outputs)]
        return sequential_class(model)(layers, name=name)

    def _layers_behind(self, tensors: Iterable[AnyTensor]) -> list[Any]:
        return [self._behind[id(tensor)] for tensor in tensors if id(tensor) in self._behind]

    def _repeats(self, model: Model) -> bool:
        """Whether a layer stands behind several tensors of a model, which no Sequential model can say."""
        inputs, nodes, _ = graph_nodes(model)
        layers = self._layers_behind([*inputs, *(tensor for node in nodes for tensor in node.outputs)])
        return len(set(map(id, layers))) < len(layers)

    def _call_behind(self, old: AnyTensor, new: AnyTensor) -> Any:
        """A tensor of the new graph, with the layer called on it that stands behind the old one."""
        layer = self._behind.get(id(old))
        return new if layer is None else layer(new)

    def _input_layer(self, tensor: AnyTensor) -> Any:
        """A new layer for a model's input, for as many channels as come in."""
        layer = input_layer(tensor)
        return clone_input(layer, self._changes.get(id(layer), {}).get("batch_shape"))

    def _layer(self, old: Layer) -> Any:
        """The new layer that stands for an old one, in its wrapper."""
        old = self._unwrapped.get(id(old), old)
        if id(old) not in self._layers:
            name = self._renamed.get(id(old), old.name)
            if is_nested(old):
                new = self._built(old, name)
            elif is_time_distributed(old):
                new = clone_wrapper(old, self._layer(old.layer), name=name)
            else:
                changes: dict[str, Any] = {**self._changes.get(id(old), {})}
                if id(old) in self._renamed:
                    changes["name"] = name
                new = clone_layer(old, self._changes, **changes)
            self._layers[id(old)] = (old, new)
            self._called[id(old)] = self._wrappers[id(old)](new) if id(old) in self._wrappers else new
        return self._called[id(old)]

    def call(self, node: GraphNode, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Make a call of the old graph with the new layer that stands for the old one."""
        if is_own_weight(node.layer):
            return self._own_weight(node.layer, *args)
        if function_name(node.layer) is not None:
            return call_function(node.layer, args, kwargs, self._changes.get(id(node.node), {}))
        return self._call_layer(node.layer, args, kwargs)

    def _call_layer(self, old: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call the new layer that stands for an old one; at its first call its weights are made as they shall be."""
        old = self._unwrapped.get(id(old), old)
        args, kwargs = _first_by_place(old, args, kwargs)
        new, names = self._layer(old), names_of_plain_weights(old)
        if new.built or not names:
            return new(*args, **kwargs)
        values = dict(zip(names, map(self._cut, old.weights), strict=True))
        with initialize_with(values):
            given = new(*args, **kwargs)
        if not values:
            self._filled.add(id(old))
        return given

    def _own_weight(self, old: Layer, x: AnyTensor) -> Any:
        """What holds a weight that a composite layer uses itself."""
        variable = old.variable
        if id(variable) in self._holders:
            return broadcast_own_weight(old, self._holders[id(variable)], x)
        values = self._cut(variable)
        name = first = own_weight_name(old, self._renamed.get(id(old.owner)))
        taken, number = self._taken_names | {one.name for one in self._holders.values()}, 0
        while name in taken:
            number += 1
            name = f"{first}_{number}"
        holder = self._holders[id(variable)] = own_weight_holder(old, values.shape, name)
        given = broadcast_own_weight(old, holder, x)
        holder.kernel.assign(values[None])
        return given

    def fill(self) -> None:
        """Cut the new weights from the old ones, and copy what else a layer has."""
        # Of a nested model the own flag alone: its class may hold layers beside its graph, and the new one has none
        # of those. Outer models come last; their flag sets those of the models and layers inside.
        for old, new in reversed(self._layers.values()):
            if _holds_layers(old) and new.trainable != old.trainable:
                new.trainable = old.trainable
        for number, (old, new) in self._layers.items():
            if number not in self._filled and not _holds_layers(old):
                values = [self._cut(weight) for weight in variables_to_copy(old)]
                _check_shapes(old, new, values)
                copy_layer_state(old, new, values)
        for old, new in self._layers.values():
            if not _holds_layers(old):
                copy_trainable(old, new)


def _whole(weight: Variable) -> np.ndarray:
    return array_of(weight).copy()  # TensorFlow may use the memory of an array as that of a variable


def _holds_layers(layer: Layer) -> bool:
    """Whether the layers inside stand for themselves in a rebuilt model."""
    return is_nested(layer) or is_time_distributed(layer)


def _check_shapes(old: Layer, new: Layer, values: list[np.ndarray]) -> None:
    """Check that a layer asked for weights of the shapes that are left of the old ones.

    Raises:
        ValueError: it did not, so its rule has left an argument out.
    """
    for weight, value in zip(variables_to_copy(new), values, strict=True):
        if tuple(weight.shape) != value.shape:
            raise ValueError(
                f"{old.name}: what is left of {weight.name!r} has the shape {value.shape}, and the rebuilt layer "
                f"expects {tuple(weight.shape)}. The rule of {type(old).__name__} must declare which arguments "
                "follow the channels: call.resize(...)."
            )


def _first_by_place(layer: Layer, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call of a layer with the first by its place: what stands for the layer has another name."""
    if args:
        return args, kwargs
    first = next(iter(inspect.signature(layer.call).parameters.values()), None)
    if first is None or first.kind is not first.POSITIONAL_OR_KEYWORD or first.name not in kwargs:
        return args, kwargs
    return (kwargs[first.name],), {name: value for name, value in kwargs.items() if name != first.name}
