"""A model run call by call for inference, the models inside it too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeprune.flavor.functions import call_for_inference, call_function, run_function
from edgeprune.flavor.graphs import GraphNode, called_on, function_name, graph_nodes, model_inside
from edgeprune.flavor.kernels import with_kernels
from edgeprune.flavor.kinds import flatten
from edgeprune.types import Layer, Model


def run_model(model: Model, inputs: Sequence[Any], call: Callable[[GraphNode, list[Any]], list[Any]]) -> list[Any]:
    """Run the calls of a Functional or Sequential model in their order, those in nested models too.

    Args:
        model: a built model whose graph is known.
        inputs: a tensor for each of its inputs, in their order.
        call: `call(node, taken)` is passed the input tensors of the call, and returns its output tensors.

    Returns:
        The model's outputs, flat.
    """
    symbolic, nodes, outputs = graph_nodes(model)
    outputs = [id(tensor) for tensor in flatten(outputs, model)]
    tensors = dict(zip(map(id, symbolic), inputs, strict=True))
    last_use = {id(tensor): number for number, node in enumerate(nodes) for tensor in node.inputs}
    for number, node in enumerate(nodes):
        inner, time_axes = model_inside(node.layer)
        if inner is None:
            given = call(node, [tensors[id(tensor)] for tensor in node.inputs])
        else:
            taken = [tensors[id(tensor)] for tensor in called_on(node)]
            given = _run_on_each_step(inner, taken, call, time_axes)
        tensors.update(zip(map(id, node.outputs), given, strict=True))
        for key in {id(tensor) for tensor in node.inputs} - set(outputs):
            if last_use[key] == number:  # nobody needs it any more: its memory is freed
                del tensors[key]
    return [tensors[key] for key in outputs]


def _run_on_each_step(model: Model, inputs: Sequence[Any], call: Callable[..., list[Any]], axes: int) -> list[Any]:
    """Run a model inside another, whose samples are the steps along so many axes of its inputs."""
    import tensorflow as tf

    if not axes:
        return run_model(model, inputs, call)
    sizes = tf.shape(inputs[0])[:2]
    folded = [tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)) for x in inputs]
    given = []
    for tensor in _run_on_each_step(model, folded, call, axes - 1):
        given.append(tf.reshape(tensor, tf.concat([sizes, tf.shape(tensor)[1:]], 0)))
        if (mask := getattr(inputs[0], "_keras_mask", None)) is not None:
            given[-1]._keras_mask = mask
    return given


def call_layer(
    node: GraphNode, taken: Sequence[Any], layer: Layer | None = None, changes: Mapping[str, Any] | None = None
) -> list[Any]:
    """Make a call of a model's graph for inference, on every machine.

    Args:
        node: the call.
        taken: a tensor for each of `node.inputs`.
        layer: the layer that is called in place of the node's; left out, the node's.
        changes: of a function in the graph, the arguments that change.

    Returns:
        The tensors that it returns, flat.
    """
    layer = node.layer if layer is None else layer

    def call(taken: Sequence[Any]) -> list[Any]:
        args, kwargs = node.filled(dict(zip(map(id, node.inputs), taken, strict=True)))
        if function_name(layer) is None:
            given = call_for_inference(layer, args, kwargs)
        elif changes:
            given = call_function(layer, args, kwargs, dict(changes))
        else:
            given = run_function(layer, args, kwargs)
        return flatten(given, node.layer)

    return with_kernels(call, layer, node.kwargs)(taken)


def call_model(model: Model, inputs: Sequence[Any]) -> list[Any]:
    """Call a Functional or Sequential model for inference, on every machine.

    Args:
        model: a built model whose graph is known.
        inputs: a tensor for each of its inputs, in their order.

    Returns:
        Its outputs, flat.
    """
    return run_model(model, inputs, call_layer)


def shapes_of_calls(model: Model, specs: Sequence[Any]) -> list[list[tuple[int | None, ...]]]:
    """The shapes of what each call of a model returns, in the order of `run_model`, for inputs of some shapes.

    Args:
        model: a built model whose graph is known.
        specs: a `tf.TensorSpec` for each of its inputs, in their order.

    Returns:
        For each call the shapes of the tensors it returns, flat; None where a size depends on the values.

    Raises:
        Exception: whatever a layer raises that accepts no input of such a shape.
    """
    import tensorflow as tf

    shapes = []

    def call(node: GraphNode, taken: list[Any]) -> list[Any]:
        given = call_layer(node, taken)
        # A layer may declare a tensor and return None.
        shapes.append(
            [tuple((old if new is None else new).shape) for old, new in zip(node.outputs, given, strict=True)]
        )
        return given

    def run(*inputs: Any) -> list[Any]:
        shapes.clear()
        return run_model(model, inputs, call)

    tf.function(run, autograph=False).get_concrete_function(*specs)
    return shapes
