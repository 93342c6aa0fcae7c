"""Leave a product of nothing but weights to the converter in floats, as a learned query times its kernel.

It is computed once, when the file is written. With its factors rounded, the converter would store one of them in
integers and the other in floats, and then has no kernel for the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
_ROUNDINGS = {"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"}
_OF_SHAPES_ALONE = {"Shape", "ShapeN", "Size", "Rank"}


def leave_in_floats(graph: tf.Graph, inputs: Iterable[Any]) -> None:
    """Take the rounding off the factors of constant products, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
        inputs: the tensors that the function is called with.
    """
    varying = _varying(graph, inputs)
    for product in graph.get_operations():
        if product.type in _PRODUCTS and product not in varying:
            for operation in _before(product):
                for place, given in enumerate(operation.inputs):
                    if given.op.type in _ROUNDINGS:
                        operation._update_input(place, given.op.inputs[0])  # there is no public name for this


def _varying(graph: tf.Graph, inputs: Iterable[Any]) -> set[tf.Operation]:
    """The operations whose results inputs change; sizes are fixed."""
    varying = {tensor.op for tensor in inputs}
    for operation in graph.get_operations():  # in the order in which they were made
        if operation.type not in _OF_SHAPES_ALONE and any(given.op in varying for given in operation.inputs):
            varying.add(operation)
    return varying


def _before(operation: tf.Operation) -> set[tf.Operation]:
    """An operation and all that its result is made of."""
    found, waiting = set(), [operation]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [given.op for given in one.inputs]
    return found
