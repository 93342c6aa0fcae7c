"""Keep divisors away from zero, in a file of integers.

A divisor that is small beside the largest of its values is rounded to zero, and a kernel of int8 stops at that with an
error. In a traced graph, one that is never negative is made one step of its range at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.conversion.traced_graph import have_read, is_squared_for_l2_norm, unrounded_of

if TYPE_CHECKING:
    import tensorflow as tf

_PLACES = {"RealDiv": 1, "Reciprocal": 0}  # of the divisor, by the type of the operation
_STEPS = 255  # of int8 between zero and the largest divisor
_SURELY_APART = 4  # steps from zero: divisors that were never nearer need no help


def has_divisions(graph: tf.Graph) -> bool:
    """Whether something is divided in the graph of a traced function by what it computes."""
    return next(_divisions(graph), None) is not None


def least_and_negated_most(graph: tf.Graph) -> list[Any]:
    """Of each divisor the least value, and the negative of the largest: tensors of the graph."""
    import tensorflow as tf

    divisors = [division.inputs[place] for division, place in list(_divisions(graph))]
    return [end for divisor in divisors for end in (tf.reduce_min(divisor), -tf.reduce_max(divisor))]


def keep_from_zero(
    graph: tf.Graph, ends: Sequence[float], is_in_floats: Callable[[str], bool] = lambda name: False
) -> None:
    """Make divisors a step at least, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
        ends: those of `least_and_negated_most`, the least of all samples, in the same order.
        is_in_floats: whether a file computes the operation of this name in floats, where nothing is rounded to zero.
    """
    import tensorflow as tf

    for (division, place), least, negated in zip(list(_divisions(graph)), ends[::2], ends[1::2], strict=True):
        step = -negated / _STEPS
        if 0 <= least < _SURELY_APART * step and not is_in_floats(division.name):
            divisor = division.inputs[place]
            with graph.name_scope(f"{division.name}/"):  # the operator in the file is named after the same layer
                apart = tf.maximum(divisor, tf.constant(step, divisor.dtype))
            have_read(division, place, apart)


def _divisions(graph: tf.Graph) -> Iterator[tuple[tf.Operation, int]]:
    """The divisions of floats by what is no constant, with the place of the divisor.

    What is divided by a root may become one operator with it: an L2 norm, or a reciprocal root.
    """
    import tensorflow as tf

    for operation in graph.get_operations():
        if operation.type in _PLACES and operation.outputs[0].dtype.is_floating:
            place = _PLACES[operation.type]
            divisor = operation.inputs[place]
            is_fused = unrounded_of(divisor).op.type == "Sqrt" if place == 0 else _is_l2_norm(divisor.op)
            if tf.get_static_value(divisor) is None and not is_fused:
                yield operation, place


def _is_l2_norm(operation: tf.Operation) -> bool:
    if operation.type != "Sqrt":
        return False
    added = operation.inputs[0].op
    total = added.inputs[0].op if added.type in ("AddV2", "Maximum") else added
    square = total.inputs[0].op if total.type == "Sum" else None
    return square is not None and square.type == "Square" and is_squared_for_l2_norm(square)
