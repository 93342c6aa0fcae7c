"""The residual blocks of a model, and what it computes without some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune import flavor
from edgeprune.depth.bypass import called, graphs, same_kind, walkable
from edgeprune.measure.macs import count_macs
from edgeprune.types import Model


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block: an addition, one input of which the others are computed from.

    Attributes:
        name: the path name of the addition.
        layers: the path names of the layers that are removed with the block.
        macs: their multiply-accumulates for one sample.
        node: the addition in the model's graph.
        shortcut: which of its inputs is kept.
    """

    name: str
    layers: tuple[str, ...]
    macs: int
    node: Any
    shortcut: int


def find_blocks(model: Model) -> tuple[Block, ...]:
    """Find the residual blocks of a model, those in nested models too.

    Args:
        model: a built Functional or Sequential model of either Keras, or a subclassed one of Keras 3 whose call can
            be made on symbolic inputs.

    Returns:
        The blocks, in the order of the graph. A block inside the branch of another is one of its own.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, or it is subclassed and its call cannot be followed.
    """
    walked = walkable(model)
    return blocks_of(walked, MacsWithout(model, walked))


def blocks_of(model: Model, macs: MacsWithout) -> tuple[Block, ...]:
    """The residual blocks of a model whose graph is known, with what their removal saves."""
    found = []
    for prefix, part in graphs(model):
        for node, shortcut in _returning(part):
            block = Block(prefix + node.layer.name, (), 0, node, shortcut)
            gone = tuple(macs.removed_layers([block]))
            found.append(dataclasses.replace(block, layers=gone, macs=macs.total - macs.without([block])))
    return tuple(found)


def _returning(model: Model) -> Iterator[tuple[flavor.GraphNode, int]]:
    """The additions of a graph all of whose inputs come from one of them, with the position of that one."""
    inputs, nodes, _ = flavor.graph_nodes(model)
    ancestors: dict[int, int] = {}  # by tensor: a bit for each tensor it is computed from
    bits = {id(tensor): 1 << number for number, tensor in enumerate(inputs)}
    ancestors.update(bits)
    for node in nodes:
        before = 0
        for tensor in node.inputs:
            before |= ancestors[id(tensor)]
        for tensor in node.outputs:
            bits[id(tensor)] = 1 << len(bits)
            ancestors[id(tensor)] = before | bits[id(tensor)]
        if flavor.is_addition(node.layer) and len(node.inputs) > 1:
            for position, shortcut in enumerate(node.inputs):
                others = [tensor for number, tensor in enumerate(node.inputs) if number != position]
                if same_kind(shortcut, node.outputs[0]) and all(
                    tensor is not shortcut and ancestors[id(tensor)] & bits[id(shortcut)] for tensor in others
                ):
                    yield node, position


def passing(removed: Sequence[Block]) -> dict[int, int]:
    """By `id` of an addition's node the input that it returns when its block is removed."""
    return {id(block.node.node): block.shortcut for block in removed}


def is_called(model: Model, block: Block, removed: Sequence[Block]) -> bool:
    """Whether the addition of a block is still called where others are removed."""
    return any(node.node is block.node.node for _, node in called(model, passing(removed)))


class MacsWithout:
    """The MACs of a model without some of its blocks."""

    def __init__(self, model: Model, walked: Model) -> None:
        counted = count_macs(model)
        self.total = counted.total
        self._per_layer = counted.per_layer
        self._model = walked
        self._layers = dict.fromkeys(name for name, _ in called(walked, {}))

    def removed_layers(self, removed: Sequence[Block]) -> list[str]:
        """The path names of the layers that are called no more."""
        left = {name for name, _ in called(self._model, passing(removed))}
        return [name for name in self._layers if name not in left]

    def without(self, removed: Sequence[Block]) -> int:
        """The MACs that are left."""
        gone = self.removed_layers(removed)
        return self.total - sum(
            macs
            for layer, macs in self._per_layer.items()
            if any(layer == name or layer.startswith(f"{name}/") for name in gone)
        )
