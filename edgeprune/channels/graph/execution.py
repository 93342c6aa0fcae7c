"""Run a traced model call by call, so that what flows between its layers can be seen or changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step


def run(
    graph: ChannelGraph, inputs: Sequence[Any], call: Callable[[Step, flavor.GraphNode, list[Any]], list[Any]]
) -> list[Any]:
    """Run the steps of a graph in their order.

    Args:
        graph: a traced model.
        inputs: a tensor for each of the model's inputs, in their order.
        call: `call(step, node, taken)` is passed a step's input tensors, and returns its outputs;
            `flavor.call_layer` does what the model does.

    Returns:
        The model's outputs, flat.

    Raises:
        ValueError: a layer does not accept the values.
    """
    steps = iter(graph.steps)  # a trace walks a model in the same order
    with flavor.refusing_values(graph.model):
        return flavor.run_model(graph.walked, inputs, lambda node, taken: call(next(steps), node, taken))
