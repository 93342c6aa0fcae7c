"""Take the rounding off what the converter cannot read rounded.

Such is what is computed of nothing but weights, as a learned query times its kernel, or the sines of positions. It is
computed once, when the file is written; rounded in between, the converter would store some of it in integers and some
in floats, and then has no kernel for the two. And such are ones among zeros, which any steps hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgeprune.conversion.traced_graph import ROUNDINGS, have_read

if TYPE_CHECKING:
    import tensorflow as tf

_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
_MOVES = {"Identity", "Reshape", "Transpose", "ExpandDims", "Squeeze"}
_OF_SHAPES_ALONE = {"Shape", "ShapeN", "Size", "Rank"}


def take_rounding_off(graph: tf.Graph, inputs: Iterable[Any]) -> None:
    """Take the rounding off what constants are made of, and off `one_hot`, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
        inputs: the tensors that the function is called with.
    """
    varying = _varying(graph, inputs)
    for operation in graph.get_operations():
        if operation in varying:
            _read_unrounded(operation, [given for given in operation.inputs if _is_rounded_one_hot(given.op)])
        elif operation.type not in {*_MOVES, *ROUNDINGS}:
            is_rounding = _is_rounding if operation.type in _PRODUCTS else _rounds_activations
            for part in _before(operation):
                _read_unrounded(part, [given for given in part.inputs if is_rounding(given.op)])


def _is_rounding(operation: tf.Operation) -> bool:
    return operation.type in ROUNDINGS


def _rounds_activations(operation: tf.Operation) -> bool:
    """Whether an operation rounds to 8 bits, which kernels in a graph are not: the converter does that."""
    return operation.type == "FakeQuantWithMinMaxVars" and operation.get_attr("num_bits") == 8


def _read_unrounded(operation: tf.Operation, rounded: list[Any]) -> None:
    """Have an operation read what is rounded before it is."""
    for place, given in enumerate(operation.inputs):
        if any(given is one for one in rounded):
            have_read(operation, place, given.op.inputs[0])


def _is_rounded_one_hot(operation: tf.Operation) -> bool:
    if operation.type not in ROUNDINGS:
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
