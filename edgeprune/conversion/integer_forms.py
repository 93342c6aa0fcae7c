"""Write what the converter has no operators of integers for as what it has: negations and squares as products.

It would turn their values into floats and back, and whatever moves them about on the way. Those that it makes one
operator of with others stay: in GELU, PReLU, the L2 norm, the square of a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.traced_graph import (
    have_read,
    is_followed_by,
    is_squared_for_l2_norm,
    readers,
    unrounded_of,
)

if TYPE_CHECKING:
    import tensorflow as tf

_MOST_AXES = 4  # that the operator for the square of a difference takes: the converter parts it above


def write_for_integers(graph: tf.Graph) -> None:
    """Replace `-x` by `-1 * x`, a square by `x * x`, and `1 / sqrt(x)` by one operation, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
    """
    for operation in graph.get_operations():
        form = _FORMS.get(operation.type)
        if form is not None and operation.inputs[0].dtype.is_floating:
            reading = list(readers(operation.outputs[0]))
            with graph.name_scope(f"{operation.name}/"):  # the operator in the file is named after the same layer
                made = form(operation)
            for reader, place in reading if made is not None else ():
                have_read(reader, place, made)


def _negation(operation: tf.Operation) -> Any:
    import tensorflow as tf

    if is_followed_by(operation, "Relu") or is_followed_by(operation, "Mul", "Erfc"):
        return None
    (value,) = operation.inputs
    return value * tf.constant(-1, value.dtype)


def _square(operation: tf.Operation) -> Any:
    value = operation.inputs[0]
    is_difference = value.op.type == "Sub" and (value.shape.rank or 0) <= _MOST_AXES
    if is_difference or is_squared_for_l2_norm(operation):
        return None
    return _product_with_itself(value)


def _product_with_itself(value: Any) -> Any:
    """The product, before the value is reshaped: the converter changes that order, and forgets ranges in between."""
    import tensorflow as tf

    if value.op.type != "Reshape":
        return value * value
    before, shape = value.op.inputs
    return tf.reshape(before * before, shape)


def _power(operation: tf.Operation) -> Any:
    return _square(operation) if _is_two(operation.inputs[1]) else None


def _squared_difference(operation: tf.Operation) -> Any:
    if (operation.outputs[0].shape.rank or 0) <= _MOST_AXES:
        return None
    difference = operation.inputs[0] - operation.inputs[1]
    return difference * difference


def _reciprocal(operation: tf.Operation) -> Any:
    import tensorflow as tf

    root = unrounded_of(operation.inputs[0]).op  # the one operator has no steps in between
    return tf.math.rsqrt(root.inputs[0]) if root.type == "Sqrt" else None


# By the type of an operation, what makes another of it; None of those that stay.
_FORMS: dict[str, Callable[[Any], Any]] = {
    "Neg": _negation,
    "Square": _square,
    "Pow": _power,
    "SquaredDifference": _squared_difference,
    "Reciprocal": _reciprocal,
}


def _is_two(exponent: Any) -> bool:
    import tensorflow as tf

    value = tf.get_static_value(exponent)
    return value is not None and np.size(value) == 1 and float(np.reshape(value, ())) == 2
