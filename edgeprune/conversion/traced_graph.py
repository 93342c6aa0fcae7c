"""Look at the graph of a function, and change it, as the function is traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

ROUNDINGS = {"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"}
_L2_NORMS = [
    ("Sum", *least, *divided)
    for least in ((), ("Maximum",), ("AddV2",))
    for divided in (("Rsqrt", "Mul"), ("Sqrt", "RealDiv"))
]


def have_read(operation: tf.Operation, place: int, tensor: Any) -> None:
    """Have an operation read another tensor in the place of one of its inputs."""
    operation._update_input(place, tensor)  # TensorFlow has no public name for this


def readers(tensor: Any) -> Iterator[tuple[tf.Operation, int]]:
    """What reads a tensor, and at which place among its inputs."""
    for reader in tensor.consumers():
        for place, given in enumerate(reader.inputs):
            if given is tensor:
                yield reader, place


def is_followed_by(operation: tf.Operation, *types: str) -> bool:
    """Whether operations of these types read its result, one after the other."""
    if not types:
        return True
    following = [reader for reader in operation.outputs[0].consumers() if reader.type == types[0]]
    return any(is_followed_by(reader, *types[1:]) for reader in following)


def is_squared_for_l2_norm(square: tf.Operation) -> bool:
    """Whether a square is the begin of an L2 norm, of which the converter makes one operator."""
    return any(is_followed_by(square, *path) for path in _L2_NORMS)


def unrounded_of(tensor: Any) -> Any:
    """The tensor that another one holds the rounded values of; a tensor that is not rounded itself."""
    while tensor.op.type in ROUNDINGS:
        tensor = tensor.op.inputs[0]
    return tensor
