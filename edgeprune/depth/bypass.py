"""A rebuilt model in which some calls return one of their inputs instead of computing anything.

By `id` of a call's node, `instead` holds the position of the input that the call returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.rebuild.slicing import Builder, garbage_collection_off, is_nested
from edgeprune.types import Model, Variable


def walkable(model: Model) -> Any:
    """The model, or a Functional one with the layers of a subclassed one."""
    if not flavor.is_model(model):
        raise TypeError(f"Expected a Keras model, got {type(model).__name__}: {str(model)[:80]}")
    return model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)


def graphs(model: Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A model and the models nested in it, each once, with the path before the names of its layers."""
    seen: set[int] = set()

    def visit(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        yield prefix, part
        for node in flavor.graph_nodes(part)[1]:
            if is_nested(node.layer) and id(node.layer) not in seen:
                seen.add(id(node.layer))
                yield from visit(node.layer, f"{prefix}{node.layer.name}/")

    yield from visit(model, prefix)


def same_kind(a: Any, b: Any) -> bool:
    """Whether two symbolic tensors have the same shape and type."""
    return tuple(a.shape) == tuple(b.shape) and a.dtype == b.dtype


def needed(
    nodes: Sequence[flavor.GraphNode], outputs: Sequence[Any], instead: Mapping[int, int]
) -> list[flavor.GraphNode]:
    """The calls that outputs need, where some calls return one of their inputs instead."""
    wanted = set(map(id, outputs))
    found = []
    for node in reversed(nodes):
        if wanted.intersection(map(id, node.outputs)):
            found.append(node)
            passed = instead.get(id(node.node))
            wanted.update(map(id, node.inputs if passed is None else [node.inputs[passed]]))
    return found[::-1]


def called(model: Model, instead: Mapping[int, int], prefix: str = "") -> Iterator[tuple[str, flavor.GraphNode]]:
    """The calls that a model makes, those in nested models too, with their path names."""
    _, nodes, outputs = flavor.graph_nodes(model)
    for node in needed(nodes, flavor.flatten(outputs, model), instead):
        if id(node.node) not in instead:
            yield prefix + node.layer.name, node
            if is_nested(node.layer):
                yield from called(node.layer, instead, f"{prefix}{node.layer.name}/")


class WithoutCalls(Builder):
    """Builds a model in which some calls return one of their inputs instead of computing anything."""

    def __init__(self, instead: Mapping[int, int]) -> None:
        self._instead = instead
        self.layers = {}
        self.filled = set()
        self.changes = {}
        self.renamed = {}

    def needed(self, nodes: list[flavor.GraphNode], outputs: list[Any]) -> list[flavor.GraphNode]:
        """The calls that the outputs need."""
        return needed(nodes, outputs, self._instead)

    def instead(self, node: flavor.GraphNode) -> Any:
        """The input that a call returns instead."""
        position = self._instead.get(id(node.node))
        return None if position is None else node.inputs[position]

    def cut(self, weight: Variable) -> np.ndarray:
        """All of a weight."""
        return np.asarray(weight)


def rebuilt_without(graph_model: Any, model: Model, instead: Mapping[int, int]) -> Any:
    """A plain model without some calls, compiled as `model` is; `graph_model` is what `walkable(model)` returned."""
    builder = WithoutCalls(instead)
    with garbage_collection_off():
        built = builder.build(graph_model)
        builder.fill()
        flavor.copy_compile_state(model, built)
    return built
