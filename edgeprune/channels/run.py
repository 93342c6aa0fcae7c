"""Run a traced model call by call, so that what flows between its layers can be seen or changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeprune import flavor
from edgeprune.channels.graph import ChannelGraph, Step


def run(
    graph: ChannelGraph, inputs: Sequence[Any], call: Callable[[Step, flavor.GraphNode, list[Any]], list[Any]]
) -> list[Any]:
    """Run the steps of a graph in their order.

    Args:
        graph: a traced model.
        inputs: a tensor for each of the model's inputs, in their order.
        call: `call(step, node, taken)` is given the tensors that the step takes, and returns those it gives;
            `call_layer` does what the model does.

    Returns:
        The model's outputs, flat.
    """
    nodes = {id(node.node): node for node in _nodes(graph.walked)}
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    last_use = {place: number for number, step in enumerate(graph.steps) for place in step.inputs}
    for number, step in enumerate(graph.steps):
        given = call(step, nodes[id(step.node)], [tensors[place] for place in step.inputs])
        tensors.update(zip(step.outputs, given, strict=True))
        for place in set(step.inputs) - set(graph.outputs):
            if last_use[place] == number:  # nobody needs it any more: its memory is freed
                del tensors[place]
    return [tensors[place] for place in graph.outputs]


def call_layer(node: flavor.GraphNode, taken: Sequence[Any]) -> list[Any]:
    """The layer's call on these tensors, as the model makes it."""
    args, kwargs = node.filled(dict(zip(map(id, node.inputs), taken, strict=True)))
    if flavor.function_name(node.layer) is None:
        given = node.layer(*args, **kwargs)
    else:
        given = flavor.run_function(node.layer, args, kwargs)
    return flavor.flatten(given, node.layer)


def _nodes(model: Any) -> list[flavor.GraphNode]:
    """All calls in a model, those in nested models too."""
    nodes = []
    for node in flavor.graph_nodes(model)[1]:
        nodes.append(node)
        if flavor.is_model(node.layer) and flavor.is_graph_model(node.layer):
            nodes += _nodes(node.layer)
    return nodes
