"""Take the rounding off what the converter cannot read rounded.

Such is a product of nothing but weights, as a learned query times its kernel. It is computed once, when the file is
written; with its factors rounded, the converter would store one of them in integers and the other in floats, and then
has no kernel for the two. And such are ones among zeros, which any steps hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
_ROUNDINGS = {"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"}
_MOVES = {"Identity", "Reshape", "Transpose", "ExpandDims", "Squeeze"}
_OF_SHAPES_ALONE = {"Shape", "ShapeN", "Size", "Rank"}


def take_rounding_off(graph: tf.Graph, inputs: Iterable[Any]) -> None:
    """Take the rounding off the factors of constant products and off `one_hot`, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
        inputs: the tensors that the function is called with.
    """
    varying = _varying(graph, inputs)
    for operation in graph.get_operations():
        if operation.type in _PRODUCTS and operation not in varying:
            for part in _before(operation):
                _read_unrounded(part, [given for given in part.inputs if given.op.type in _ROUNDINGS])
        else:
            _read_unrounded(operation, [given for given in operation.inputs if _is_rounded_one_hot(given.op)])


def _read_unrounded(operation: tf.Operation, rounded: list[Any]) -> None:
    """Have an operation read what is rounded before it is."""
    for place, given in enumerate(operation.inputs):
        if any(given is one for one in rounded):
            operation._update_input(place, given.op.inputs[0])  # there is no public name for this


def _is_rounded_one_hot(operation: tf.Operation) -> bool:
    if operation.type not in _ROUNDINGS:
        return False
    source = operation.inputs[0].op
    while source.type in _MOVES:
        source = source.inputs[0].op
    return source.type == "OneHot"


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
