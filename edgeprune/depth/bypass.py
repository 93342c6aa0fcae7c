"""A rebuilt model in which some calls return one of their inputs instead of computing anything.

By `id` of a call's node, `instead` holds the position of the input that the call returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune import flavor
from edgeprune.channels.graph.trace import garbage_collection_off
from edgeprune.types import AnyTensor, Model


def walkable(model: Model) -> Any:
    """The model, or a Functional one with the layers of a subclassed one."""
    flavor.check_model(model)
    return model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)


def graphs(model: Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A model and the models nested in it, each once, with the path before the names of its layers."""
    seen: set[int] = set()

    def visit(part: Model, prefix: str) -> Iterator[tuple[str, Any]]:
        yield prefix, part
        for node in flavor.graph_nodes(part)[1]:
            if flavor.is_nested(node.layer) and id(node.layer) not in seen:
                seen.add(id(node.layer))
                yield from visit(node.layer, f"{prefix}{node.layer.name}/")

    yield from visit(model, prefix)


def same_kind(a: AnyTensor, b: AnyTensor) -> bool:
    """Whether two symbolic tensors have the same shape and type."""
    return tuple(a.shape) == tuple(b.shape) and a.dtype == b.dtype


def called(model: Model, instead: Mapping[int, int], prefix: str = "") -> Iterator[tuple[str, flavor.GraphNode]]:
    """The calls that a model makes, those in nested models too, with their path names."""
    _, nodes, outputs = flavor.graph_nodes(model)
    for node in flavor.needed_calls(nodes, flavor.flatten(outputs, model), instead):
        if id(node.node) not in instead:
            yield prefix + node.layer.name, node
            if flavor.is_nested(node.layer):
                yield from called(node.layer, instead, f"{prefix}{node.layer.name}/")


def rebuilt_without(graph_model: Model, model: Model, instead: Mapping[int, int]) -> Any:
    """A plain model without some calls, compiled as `model` is; `graph_model` is what `walkable(model)` returned."""
    with garbage_collection_off():
        built = flavor.Rebuilder(instead=instead).build(graph_model)
        flavor.copy_compile_state(model, built)
    return built
