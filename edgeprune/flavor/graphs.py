"""The graph of a Functional or Sequential model: its calls, its functions, its inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard

from edgeprune.flavor.kinds import (
    built_in_kind,
    check_built,
    is_graph_model,
    is_keras_3,
    is_layer,
    is_model,
    keras_of,
    layers_of,
    nest,
)
from edgeprune.types import AnyTensor, Layer, Model


def has_open_sizes(model: Model) -> bool:
    """Whether the graph of a model, or of one inside it, has tensors of a size that is not fixed beside the batch."""
    inputs, nodes, _ = graph_nodes(model)
    if any(None in tuple(tensor.shape)[1:] for tensor in (*inputs, *(out for node in nodes for out in node.outputs))):
        return True
    inner = (model_inside(node.layer)[0] for node in nodes)
    return any(has_open_sizes(part) for part in inner if part is not None)


def is_nested(layer: Layer) -> TypeGuard[Model]:
    """Whether it is a model whose layers are walked one by one."""
    return is_model(layer) and is_graph_model(layer)


def model_inside(layer: Layer) -> tuple[Any, int]:
    """The model whose graph a call of a layer runs, and how many axes of steps become samples before.

    A nested model runs its own graph; `TimeDistributed` runs that of the model it holds, on each step.

    Args:
        layer: a layer, or in Keras 3 the operation behind `x + y`.

    Returns:
        The Functional or Sequential model, None for any other layer; and the number of axes, 0 for a nested model.
        None, too, for a model that carries states from step to step, as steps are no samples of it.
    """
    axes = 0
    while is_time_distributed(layer):
        layer, axes = layer.layer, axes + 1
    is_graph = is_nested(layer)
    carries = axes and is_graph and any(getattr(part, "stateful", False) for part in layers_of(layer))
    return (layer, axes) if is_graph and not carries else (None, 0)


def is_time_distributed(layer: Layer) -> bool:
    """Whether a layer calls the one that it holds on each step of a sequence, as Keras does it."""
    if not is_layer(layer):
        return False
    kind = keras_of(layer).layers.TimeDistributed
    return isinstance(layer, kind) and type(layer).call is kind.call


def called_on(node: GraphNode) -> list[Any]:
    """The symbolic tensors that are a call's first argument, flat: what it is called on, without masks and states."""
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    own = {id(tensor) for tensor in node.inputs}
    return [tensor for tensor in nest(hasattr(node.node, "operation")).flatten(first) if id(tensor) in own]


def producer_of(tensor: AnyTensor) -> tuple[Any, list[Any]]:
    """The layer that made a symbolic tensor, and the symbolic tensors it was called on."""
    layer, node_index, _ = tensor._keras_history
    _, inputs, _ = node_parts(layer._inbound_nodes[node_index])
    return layer, inputs


def function_name(layer: Layer) -> str | None:
    """The name of the function that a call in the graph stands for, without its module; None for a layer.

    `x + y` is "add" on both Kerases, `keras.ops.relu6` and `tf.nn.relu6` are "relu6".
    """
    symbol = getattr(layer, "symbol", None) if is_layer(layer) else layer.__class__.__name__
    return symbol.rpartition(".")[2].lower().replace("_", "") if isinstance(symbol, str) else None


def is_addition(layer: Layer) -> bool:
    """Whether what is called adds tensors: the layer `Add`, or the function behind `x + y`."""
    name = function_name(layer)
    return built_in_kind(layer) == "Add" if name is None else name in ("add", "addv2")


def graph_of(model: Layer) -> Any:
    """The object that holds the nodes of a model; ValueError where there is none."""
    if not is_graph_model(model):
        raise ValueError(
            f"Model {model.name!r} is subclassed, so its graph of layers is unknown; "
            "a Functional or Sequential model is needed here."
        )
    check_built(model)
    return model._functional if is_keras_3(model) and hasattr(model, "_functional") else model


def ordered_nodes(graph: Model) -> Iterator[Any]:
    """The calls of layers in a graph, producers first, without its inputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def node_parts(node: Any) -> tuple[Any, list[Any], list[Any]]:  # a `Node` of either Keras, which are not public
    """The layer that a node calls, the tensors it is called on and the tensors it returns, both flat."""
    if hasattr(node, "operation"):
        return node.operation, list(node.input_tensors), list(node.output_tensors)
    return node.layer, list(node.keras_inputs), nest(keras_3=False).flatten(node.outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class GraphNode:
    """One call of a layer in a model's graph, with its arguments; a nested model is one layer.

    Attributes:
        layer: the layer (in Keras 3 also the operation behind `x + y`).
        node: the Keras object that stands for the call; one and the same at every look.
        args: the positional arguments, symbolic tensors where tensors are.
        kwargs: the keyword arguments.
        inputs: the symbolic tensors among the arguments, flat.
        outputs: the symbolic tensors it returns, flat.
    """

    layer: Layer
    node: Any
    args: tuple
    kwargs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]

    def filled(self, tensors: dict[int, Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments with `tensors[id(old)]` in place of each symbolic tensor."""
        if not self.kwargs and len(self.args) == 1:  # a tensor or a list of them: most calls
            (only,) = self.args
            if id(only) in tensors:
                return (tensors[id(only)],), {}
            if type(only) is list and all(id(tensor) in tensors for tensor in only):
                return ([tensors[id(tensor)] for tensor in only],), {}
        new = {id(tensor): tensors[id(tensor)] for tensor in self.inputs}
        # The arguments hold Python values of every kind, so only identity distinguishes the tensors.
        return nest(hasattr(self.node, "operation")).map_structure(
            lambda value: new.get(id(value), value), (tuple(self.args), dict(self.kwargs))
        )


def graph_nodes(model: Layer) -> tuple[list[Any], list[GraphNode], Any]:
    """A model's graph as it is written down: its inputs, its calls (producers first), its outputs.

    Args:
        model: a built Functional or Sequential model of either Keras.

    Returns:
        The symbolic input tensors, flat; the calls; the symbolic outputs in the structure that the model returns.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    graph = graph_of(model)
    nodes = [graph_node(node) for node in ordered_nodes(graph)]
    return list(graph.inputs), nodes, graph._outputs_struct if is_keras_3(model) else graph._nested_outputs


def graph_node(node: Any) -> GraphNode:
    """The call that a node of either Keras stands for."""
    layer, inputs, outputs = node_parts(node)
    if hasattr(node, "operation"):
        args, kwargs = node.arguments.args, node.arguments.kwargs
    else:
        args, kwargs = node.call_args, node.call_kwargs
    return GraphNode(layer, node, tuple(args), kwargs, inputs, outputs)


def needed_calls(
    nodes: Sequence[GraphNode], tensors: Iterable[Any], instead: Mapping[int, int] = MappingProxyType({})
) -> list[GraphNode]:
    """The calls that some tensors of a graph need.

    Args:
        nodes: the calls of a model, producers first.
        tensors: symbolic tensors that these calls return.
        instead: `id` of a call's node to the position of the input that the call returns instead of computing anything.

    Returns:
        The calls, in their order; those of `instead` among them.
    """
    wanted = set(map(id, tensors))
    found = []
    for node in reversed(nodes):
        if wanted.intersection(map(id, node.outputs)):
            found.append(node)
            passed = instead.get(id(node.node))
            wanted.update(map(id, node.inputs if passed is None else [node.inputs[passed]]))
    return found[::-1]


def call_specs(model: Model) -> Any:
    """What a model is called on: its inputs' shapes and dtypes with a batch of one, structured as in its call.

    Args:
        model: a built model of either Keras; a subclassed one must have been called or built once.

    Returns:
        A `tf.TensorSpec`, or a list, tuple or dict of them. Of a subclassed Keras 3 model the dtype is not
        known and assumed to be float32.

    Raises:
        ValueError: the model is not built.
    """
    import tensorflow as tf

    keras_3 = is_keras_3(model)

    def spec(tensor: AnyTensor) -> tf.TensorSpec:
        return tf.TensorSpec((1, *tuple(tensor.shape)[1:]), tensor.dtype, name=tensor.name)

    if is_graph_model(model):
        graph = graph_of(model)
        return nest(keras_3).map_structure(spec, graph._inputs_struct if keras_3 else graph._nested_inputs)
    if not keras_3 and model.save_spec() is not None:
        (inputs, *_), _ = model.save_spec()
        return nest(keras_3).map_structure(spec, inputs)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values()) if keras_3 else []
    if len(shapes) != 1:
        raise ValueError(f"Model {model.name!r} is subclassed and its inputs are unknown: call it once on an example.")
    shape = shapes[0]
    if isinstance(shape, dict):
        return {name: tf.TensorSpec((1, *part[1:])) for name, part in shape.items()}
    if isinstance(shape[0], tuple | list):
        return [tf.TensorSpec((1, *part[1:])) for part in shape]
    return tf.TensorSpec((1, *shape[1:]))


def input_specs(model: Model) -> dict[str, Any]:
    """Input name to a `tf.TensorSpec` with the shape that the input has, None for the batch and for open sizes.

    Args:
        model: a built model of either Keras; a subclassed one must have been called or built once.

    Raises:
        ValueError: the model is not built.
    """
    import tensorflow as tf

    names = input_names(model)
    if names is not None:
        tensors = graph_of(model).inputs
        return {
            name: tf.TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in zip(names, tensors, strict=True)
        }
    specs = nest(is_keras_3(model)).flatten(call_specs(model))
    return {spec.name or f"input_{number}": spec for number, spec in enumerate(specs)}


def input_layer(tensor: AnyTensor) -> Any:
    """The layer behind a model's symbolic input."""
    return tensor._keras_history[0]


def input_names(model: Model) -> list[str] | None:
    """The names of a model's inputs as a converted file has them, in the model's order; None if subclassed."""
    if not is_graph_model(model):
        return None
    graph = graph_of(model)
    return [tensor.name for tensor in graph.inputs] if is_keras_3(model) else list(graph.input_names)


def pack_inputs(model: Model, arrays: Sequence[Any]) -> Any:
    """Arrays in the order of `input_names`, put into the structure (list, dict, ...) that the model accepts."""
    graph, keras_3 = graph_of(model), is_keras_3(model)
    structure = graph._inputs_struct if keras_3 else graph._nested_inputs
    return nest(keras_3).pack_sequence_as(structure, list(arrays))


def packed_as_called(model: Model, flat: Sequence[Any]) -> Any:
    """One value for each input, in the order of `input_specs`, structured as what the model is called on."""
    return nest(is_keras_3(model)).pack_sequence_as(call_specs(model), list(flat))


def named_outputs(model: Model, outputs: object) -> dict[str, Any]:
    """What a model returned, by the names that a file converted from it has for its outputs.

    Args:
        model: a model of either Keras.
        outputs: what its call or `predict` returned: an array, a list, a tuple or a dict, or these inside each other.

    Returns:
        Name to array: the keys of a flat dict; else the names of `output_names(model)`, in the order in which Keras
        flattens the outputs (dicts by their sorted keys).
    """
    if isinstance(outputs, dict) and not any(isinstance(part, dict | list | tuple) for part in outputs.values()):
        return dict(outputs)
    flat = nest(is_keras_3(model)).flatten(outputs)
    return dict(zip(output_names(model, len(flat)), flat, strict=True))


def output_tensors(model: Model) -> dict[str, Any]:
    """The symbolic outputs of a Functional or Sequential model, by the names that `named_outputs` assigns them."""
    return named_outputs(model, graph_nodes(model)[2])


def output_names(model: Model, count: int) -> list[str]:
    """The names of a model's outputs in the order in which Keras flattens them, where they are no keys of a dict.

    Args:
        model: a model of either Keras.
        count: how many outputs it has.

    Returns:
        The names of the layers that make the outputs, numbered where they repeat; `output_0`, `output_1`, ... for a
        subclassed model.
    """
    if not is_graph_model(model):
        return [f"output_{number}" for number in range(count)]
    names: list[str] = []
    for name in graph_of(model).output_names:
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def output_shapes(layer: Layer) -> list[tuple[int | None, ...]]:
    """The different shapes a layer returns in the graphs it stands in; empty where it stands in none."""
    tensors = [tensor for node in getattr(layer, "_inbound_nodes", ()) for tensor in node_parts(node)[2]]
    return list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))


def output_layers(model: Model) -> dict[str, Any]:
    """The layer behind each output of a model, by the name of the output; empty for a subclassed model."""
    if not is_graph_model(model):
        return {}
    graph, keras_3 = graph_of(model), is_keras_3(model)
    outputs = graph._outputs_struct if keras_3 else graph._nested_outputs
    return named_outputs(model, nest(keras_3).map_structure(lambda tensor: tensor._keras_history[0], outputs))


def pack_outputs(model: Model, tensors: Sequence[Any]) -> Any:
    """Flat outputs put into the structure (list, dict, ...) that the model returns."""
    graph, keras_3 = graph_of(model), is_keras_3(model)
    structure = graph._outputs_struct if keras_3 else graph._nested_outputs
    return nest(keras_3).pack_sequence_as(structure, list(tensors))
