"""A model run call by call for inference, the models inside it too."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgeprune.flavor.functions import call_for_inference, call_function, run_function
from edgeprune.flavor.graphs import (
    GraphNode,
    called_on,
    function_name,
    graph_nodes,
    graph_of,
    input_layer,
    model_inside,
)
from edgeprune.flavor.kernels import with_kernels
from edgeprune.flavor.kinds import flatten, is_model
from edgeprune.types import AnyTensor, Layer, Model

# What makes a call: it is passed the call and a value for each of `node.inputs`, and returns one for each output.
Caller = Callable[[GraphNode, list[Any]], Sequence[Any]]
# What makes a call of a model inside: it is passed the model and the number of axes of steps too, as of `model_inside`.
Enterer = Callable[[GraphNode, Model, int, list[Any]], Sequence[Any]]


def run_model(model: Model, inputs: Sequence[Any], call: Caller, enter: Enterer | None = None) -> list[Any]:
    """Run the calls of a Functional or Sequential model in their order, those in nested models too.

    This is the one walk over a graph in its order: the values that flow may be tensors, or whatever `call` makes.

    Args:
        model: a built model whose graph is known.
        inputs: a value for each of its inputs, in their order.
        call: `call(node, taken)` is passed the values that the call reads, and returns its outputs.
        enter: `enter(node, inner, axes, taken)` does the same for a call of a model inside, with `model_inside` of the
            layer; `first_argument(node, taken)` is what `inner` is called on. Left out, the values are tensors, and the
            calls of `inner` are made, with the steps as samples where it is called on each step.

    Returns:
        The values of the model's outputs, flat.
    """
    symbolic, nodes, outputs = graph_nodes(model)
    values = dict(zip(map(id, symbolic), inputs, strict=True))
    return run_calls(nodes, values, flatten(outputs, model), call, enter)


def run_calls(
    nodes: Sequence[GraphNode],
    values: Mapping[int, Any],
    outputs: Sequence[Any],
    call: Caller,
    enter: Enterer | None = None,
) -> list[Any]:
    """Run some calls of a graph, as `run_model` runs all.

    Args:
        nodes: the calls, producers first.
        values: `id` of a symbolic tensor to its value, for all that the calls need and do not make.
        outputs: symbolic tensors.
        call: as of `run_model`.
        enter: as of `run_model`.

    Returns:
        The values of `outputs`.
    """
    if enter is None:

        def enter(node: GraphNode, inner: Model, axes: int, taken: list[Any]) -> Sequence[Any]:
            return _run_on_each_step(inner, first_argument(node, taken), call, axes)

    values, kept = dict(values), {id(tensor) for tensor in outputs}
    last_use = {id(tensor): number for number, node in enumerate(nodes) for tensor in node.inputs}
    for number, node in enumerate(nodes):
        inner, axes = model_inside(node.layer)
        taken = [values[id(tensor)] for tensor in node.inputs]
        made = call(node, taken) if inner is None else enter(node, inner, axes, taken)
        values.update(zip(map(id, node.outputs), made, strict=True))
        del taken, made
        for key in {id(tensor) for tensor in node.inputs} - kept:
            if last_use[key] == number:  # nobody needs it any more: its memory is freed
                del values[key]
    return [values[id(tensor)] for tensor in outputs]


def first_argument(node: GraphNode, taken: Sequence[Any]) -> list[Any]:
    """Of the values that a call reads, those that it is called on, without masks and states."""
    of_tensor = dict(zip(map(id, node.inputs), taken, strict=True))
    return [of_tensor[id(tensor)] for tensor in called_on(node)]


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer in a model's graph, with nested models unfolded.

    Attributes:
        layer: the layer (in Keras 3 also the operation behind `x + y`).
        producers: positions, in the list of calls, of the calls that feed this one.
        input_shapes: the shape of each tensor it is called on, `None` for a size that is not fixed.
    """

    layer: Layer
    producers: tuple[int, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]


def layer_calls(model: Model) -> tuple[list[LayerCall], tuple[int, ...]]:
    """The graph of a Functional or Sequential model as a flat list of calls: nested models are unfolded.

    Args:
        model: a built Functional or Sequential model of either Keras.

    Returns:
        The calls, producers first, beginning with the model's input layers; and the positions of the calls
        that make the model's outputs.

    Raises:
        ValueError: the model, or one nested in it, is subclassed or not built.
    """
    inputs = graph_nodes(model)[0]
    calls = [LayerCall(input_layer(tensor), (), (tuple(tensor.shape),)) for tensor in inputs]

    def call(node: GraphNode, producers: list[int]) -> list[int]:
        if is_model(node.layer):
            graph_of(node.layer)  # a subclassed one has none
        calls.append(LayerCall(node.layer, tuple(producers), tuple(tuple(tensor.shape) for tensor in node.inputs)))
        return [len(calls) - 1] * len(node.outputs)

    def enter(node: GraphNode, inner: Model, axes: int, producers: list[int]) -> list[int]:
        return call(node, producers) if axes else run_model(inner, first_argument(node, producers), call, enter)

    return calls, tuple(run_model(model, range(len(calls)), call, enter))


def _run_on_each_step(model: Model, inputs: Sequence[Any], call: Caller, axes: int) -> list[Any]:
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

    Raises:
        ValueError: a layer does not accept the values.
    """
    with refusing_values(model):
        return run_model(model, inputs, call_layer)


@contextlib.contextmanager
def refusing_values(model: Model) -> Iterator[None]:
    """While the body calls a model, values that an operation refuses are a `ValueError` that says so.

    An example are indices beyond the rows of an embedding.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        reason = " ".join(re.sub(r"\x1b\[\d+m|\{\{.*?\}\}|\[Op:\w*\]", " ", str(error)).split())
        raise ValueError(f"Model {model.name!r} cannot be called on this data: {reason[:300]}") from error


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

    def run(*inputs: AnyTensor) -> list[Any]:
        shapes.clear()
        return run_model(model, inputs, call)

    tf.function(run, autograph=False).get_concrete_function(*specs)
    return shapes
