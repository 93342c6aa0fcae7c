"""Have attention mask its scores within their range, in a file of integers.

A mask puts a number such as -1e9 in the place of a score, or adds it, so that softmax makes zero of it. The 256 steps
of int8 hold the range of a whole tensor: with that number in it, all other scores become equal. In a traced graph, the
number is replaced by one that is some way below the least score, of which softmax makes next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.traced_graph import have_read, unrounded_of
from edgeprune.types import TfTensor

if TYPE_CHECKING:
    import tensorflow as tf

# What is as far from zero is no score but a mask's number: some use -1e4, and may add it to a score.
FAR = 9_999.0
LEAST_SCORE = -FAR / 2
# How far below the least score softmax makes next to nothing of a value, beside a single other one.
_ROOM = 8.0

_READERS = {"Softmax", "LogSoftmax", "Max", "ArgMax"}
_TO_OTHER_PLACES = {"Reshape", "Transpose", "Squeeze", "ExpandDims", "StridedSlice", "BroadcastTo", "Tile"}
_MOVES = {"Identity", "StopGradient", "Cast", "FakeQuantWithMinMaxVars", *_TO_OTHER_PLACES}
_SUMS = {"Add", "AddV2", "BiasAdd", "Sub"}


def is_far(value: object) -> bool:
    """Whether something is a number, or a tensor of one, that no score is but a mask uses.

    Example:
        >>> is_far(-1e9), is_far(-100), is_far("-1e9")
        (True, False, False)
    """
    import tensorflow as tf

    if isinstance(value, tf.Tensor):
        return value.shape == () and is_far(value.numpy())
    return isinstance(value, int | float | np.number) and abs(float(value)) >= FAR


def room_below(count: int | None) -> float:
    """How far below the least of some scores a masked one is put, so that all together weigh next to nothing.

    Args:
        count: of the scores that one softmax sees; None where it is unknown.

    Example:
        >>> round(room_below(64), 1)
        12.2
    """
    return _ROOM + math.log(max(count or 1, 1))


def has_masked_scores(graph: tf.Graph) -> bool:
    """Whether masks put such numbers into scores in the graph of a traced function."""
    with graph.as_default():
        return next(_masks(graph), None) is not None


def least_scores(graph: tf.Graph) -> list[TfTensor]:
    """Of each mask on scores whose range is not in a graph, how low its number should be: a tensor of the graph."""
    import tensorflow as tf

    return [
        tf.reduce_min(mask.scores) - room_below(mask.scores.shape[-1])
        for mask in list(_masks(graph))
        if mask.end_of_range() is None
    ]


def put_within_range(graph: tf.Graph, numbers: Sequence[float]) -> None:
    """Replace the numbers that masks put into scores, as a function is traced.

    Args:
        graph: that of the function, before it is finished.
        numbers: the least of all samples of `least_scores`, in the same order; without them, masks stay on scores that
            have no range.
    """
    import tensorflow as tf

    left = iter(numbers)
    for mask in list(_masks(graph)):
        number = mask.end_of_range()
        number = next(left, None) if number is None else number
        if number is not None:
            mask.replace(tf.cast(number, mask.scores.dtype))


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores, and where they count.

    Attributes:
        scores: float `(..., places)`, without the mask.
        condition: bool, of a shape that is broadcast to that of the scores.
        keeps: the value of the condition where a score counts.
    """

    scores: TfTensor
    condition: TfTensor
    keeps: bool


@dataclass(frozen=True, eq=False)
class _Mask(_Scores):
    """A mask on scores.

    Attributes:
        reader: the operation that reads the masked scores first.
    """

    reader: tf.Operation

    def end_of_range(self) -> Any:
        """The lower end of the range that the scores are rounded in; None where the graph has none."""
        rounding = next((one for one in (self.reader, _unmoved_but_rounded(self.scores).op) if _is_rounding(one)), None)
        return None if rounding is None else rounding.inputs[1]

    def replace(self, number: TfTensor) -> None:
        """Put a number in the place of the mask's."""
        import tensorflow as tf

        first, second = (self.scores, number) if self.keeps else (number, self.scores)
        have_read(self.reader, 0, tf.where(self.condition, first, second))


def _masks(graph: tf.Graph) -> Iterator[_Mask]:
    """The masks on scores in a graph, in the order of what reads them."""
    for operation in graph.get_operations():
        if operation.type in _READERS:
            reader = operation
            while reader.inputs[0].op.type in _MOVES:
                reader = reader.inputs[0].op
            masked = reader.inputs[0].op
            found = _chosen(masked) or _added(masked)
            if found is not None:
                yield _Mask(found.scores, found.condition, found.keeps, reader)


def _chosen(operation: tf.Operation) -> _Scores | None:
    """What is masked by `where(condition, scores, -1e9)`, or the other way round."""
    if operation.type not in ("Select", "SelectV2"):
        return None
    condition, first, second = operation.inputs
    if _is_far_below(second):
        return _Scores(first, condition, True)
    return _Scores(second, condition, False) if _is_far_below(first) else None


def _added(operation: tf.Operation) -> _Scores | None:
    """What is masked by `scores + (1 - mask) * -1e9`, `scores - mask * 1e9` or `scores + where(mask, bias, -1e9)`."""
    if operation.type not in _SUMS:
        return None
    first, second = operation.inputs
    if operation.type == "Sub":
        return _beside_product(first, second, -1)
    pairs = ((first, second), (second, first))
    found = (_beside_product(*pair, 1) or _beside_masked(*pair) for pair in pairs)
    return next((one for one in found if one is not None), None)


def _beside_product(scores: TfTensor, term: TfTensor, sign: int) -> _Scores | None:
    """The scores that `(1 - mask) * -1e9` is added to; or, with a sign of -1, that `mask * 1e9` is taken from."""
    product = _unmoved(term).op
    if product.type != "Mul":
        return None
    for mask, number in (tuple(product.inputs), tuple(product.inputs)[::-1]):
        factor = _values(number)
        if factor is None or factor.size != 1 or sign * factor.item() > -FAR or mask.shape != product.outputs[0].shape:
            continue
        condition, keeps = _booleans(mask)
        return _Scores(scores, _moved_as(term, condition), keeps)
    return None


def _moved_as(moved: TfTensor, tensor: TfTensor) -> Any:
    """A tensor with its values in other places, as another one has those of `_unmoved`."""
    operation = moved.op
    if operation.type not in _MOVES:
        return tensor
    before = _moved_as(operation.inputs[0], tensor)
    if operation.type not in _TO_OTHER_PLACES:
        return before
    from tensorflow.core.framework import attr_value_pb2

    attributes = {**operation.node_def.attr, "T": attr_value_pb2.AttrValue(type=tensor.dtype.as_datatype_enum)}
    return moved.graph.create_op(
        operation.type, [before, *operation.inputs[1:]], [tensor.dtype], attrs=attributes
    ).outputs[0]


def _booleans(mask: TfTensor) -> tuple[TfTensor, bool]:
    """A mask of ones and zeros as booleans, from what it was made of, and which of them is 0."""
    import tensorflow as tf

    source, of_zero = mask, False
    maker = unrounded_of(mask).op
    if maker.type == "Sub" and (one := _values(maker.inputs[0])) is not None and (one == 1).all():
        source, of_zero = maker.inputs[1], True
    cast = unrounded_of(source).op
    if cast.type == "Cast" and cast.inputs[0].dtype.name == "bool":
        return cast.inputs[0], of_zero
    if cast.type == "Cast" and cast.inputs[0].dtype.is_integer:
        return tf.greater(cast.inputs[0], 0), of_zero
    return tf.greater(source, 0.5), of_zero


def _beside_masked(scores: TfTensor, term: TfTensor) -> _Scores | None:
    """The scores that a masked bias is added to, with the bias."""
    bias = _chosen(unrounded_of(term).op) or _added(unrounded_of(term).op)
    return bias and _Scores(scores + bias.scores, bias.condition, bias.keeps)


def _is_far_below(tensor: TfTensor) -> bool:
    """Whether a tensor is a mask's number, or scores that one is added to."""
    operation = _unmoved(tensor).op
    if operation.type not in _SUMS:
        values = _values(tensor)
    else:
        values = _values(operation.inputs[1])
        values = None if values is None else -values if operation.type == "Sub" else values
    return values is not None and values.size > 0 and bool((values <= -FAR).all())


def _unmoved(tensor: TfTensor) -> Any:
    """The tensor that another one holds the values of: in other places, or rounded."""
    while tensor.op.type in _MOVES:
        tensor = tensor.op.inputs[0]
    return tensor


def _unmoved_but_rounded(tensor: TfTensor) -> Any:
    """The tensor that another one holds the values of in other places."""
    while tensor.op.type in _MOVES and not _is_rounding(tensor.op):
        tensor = tensor.op.inputs[0]
    return tensor


def _is_rounding(operation: tf.Operation) -> bool:
    return operation.type == "FakeQuantWithMinMaxVars"


def _values(tensor: TfTensor) -> np.ndarray | None:
    """The values of a tensor that no input changes; None of others."""
    import tensorflow as tf

    values = tf.get_static_value(_unmoved(tensor))
    return None if values is None or values.dtype.kind not in "fiu" else np.asarray(values)
