"""Write negations and squares as products, for which the converter has operators of integers.

For them it has none: it would turn their values into floats and back, and whatever moves them about on the way. Those
that it makes one operator of with others stay: in GELU, PReLU, the L2 norm, the square of a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_MOST_AXES = 4  # that the operator for the square of a difference takes: the converter parts it above


def write_as_products(graph: tf.Graph) -> None:
    """Replace `-x` by `-1 * x` and the square of `x` by `x * x`, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
    """
    for operation in graph.get_operations():
        factors = _FACTORS.get(operation.type)
        if factors is not None and operation.inputs[0].dtype.is_floating:
            readers = list(_readers(operation.outputs[0]))
            with graph.name_scope(f"{operation.name}/"):  # the operator in the file is named after the same layer
                found = factors(operation)
                product = found and found[0] * found[1]
            for reader, place in readers if found else ():
                reader._update_input(place, product)  # there is no public name for this


def _of_negation(operation: tf.Operation) -> tuple[Any, Any] | None:
    import tensorflow as tf

    if _is_followed_by(operation, "Relu") or _is_followed_by(operation, "Mul", "Erfc"):
        return None
    (value,) = operation.inputs
    return value, tf.constant(-1, value.dtype)


def _of_square(operation: tf.Operation) -> tuple[Any, Any] | None:
    value = operation.inputs[0]
    is_difference = value.op.type == "Sub" and (value.shape.rank or 0) <= _MOST_AXES
    if is_difference or _is_followed_by(operation, "Sum", "Maximum", "Rsqrt"):
        return None
    return value, value


def _of_power(operation: tf.Operation) -> tuple[Any, Any] | None:
    return _of_square(operation) if _is_two(operation.inputs[1]) else None


def _of_squared_difference(operation: tf.Operation) -> tuple[Any, Any] | None:
    if (operation.outputs[0].shape.rank or 0) <= _MOST_AXES:
        return None
    difference = operation.inputs[0] - operation.inputs[1]
    return difference, difference


# By the type of an operation, what its factors are; None of those that are no product.
_FACTORS: dict[str, Callable[[Any], tuple[Any, Any] | None]] = {
    "Neg": _of_negation,
    "Square": _of_square,
    "Pow": _of_power,
    "SquaredDifference": _of_squared_difference,
}


def _is_followed_by(operation: tf.Operation, *types: str) -> bool:
    """Whether operations of these types read its result, one after the other."""
    if not types:
        return True
    readers = [reader for reader in operation.outputs[0].consumers() if reader.type == types[0]]
    return any(_is_followed_by(reader, *types[1:]) for reader in readers)


def _is_two(exponent: Any) -> bool:
    import tensorflow as tf

    value = tf.get_static_value(exponent)
    return value is not None and np.size(value) == 1 and float(np.reshape(value, ())) == 2


def _readers(result: Any) -> Iterator[tuple[tf.Operation, int]]:
    """What reads a tensor, and at which place among its inputs."""
    for reader in result.consumers():
        for place, given in enumerate(reader.inputs):
            if given is result:
                yield reader, place
