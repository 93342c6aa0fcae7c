"""Functions in the graph that keep tensors as they are or reduce them: element by element, over axes, over places.

They are operations of Keras 3 (`keras.ops`) and function layers of `tf_keras` (`tf.*`), under the names of
`flavor.function_name`: without module, lower case, without underscores. What moves elements is in
`movement_functions`, what multiplies tensors in `product_functions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.elementwise import EACH_ELEMENT
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule


def operands(call: Call) -> list[Value]:
    """The input tensors of a function, constants among them."""
    values = []
    for leaf in flavor.flatten((list(call.args), call.kwargs), call.layer):
        if isinstance(leaf, Value):
            values.append(leaf)
        elif not isinstance(leaf, str | type) and hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            values.append(Value(tuple(int(size) for size in leaf.shape)))
    return values


@function_rule(*EACH_ELEMENT)
def each_element(call: Call) -> Value:
    """Channels that meet live and die together."""
    return call.space.merge(
        operands(call), f"{call.name} joins it with a tensor whose channels cannot be dropped", call.output_shapes[0]
    )


def axes_of(axis: int | Sequence[int] | np.ndarray | None, rank: int) -> list[int]:
    """An axis argument as a list of axes counted from 0; None stands for all."""
    if axis is None:
        return list(range(rank))
    return [int(a) % rank for a in np.atleast_1d(axis)]


def tensor(call: Call) -> Value:
    """The one tensor whose channels a function moves."""
    if len(call.inputs) != 1:
        raise CannotFollow("its arguments are computed from other tensors")
    return call.x


class Sizes(Value):
    """The shape of a tensor as a tensor: harmless as long as no size that can shrink is taken from it."""

    of: Value

    def __init__(self, of: Value) -> None:
        super().__init__((of.rank,))
        object.__setattr__(self, "of", of)

    def item(self, call: Call, entries: list[Any]) -> Value:
        """One of the sizes, or some."""
        (entry,) = entries
        for axis in np.atleast_1d(np.arange(self.of.rank)[entry]).tolist():
            call.freeze(call.line(self.of, axis), f"{call.name} reads its size")
        return Value(call.output_shapes[0])


@function_rule("shape", "shapev2")
def shape_of(call: Call) -> Value:
    """The sizes of a tensor."""
    return Sizes(call.x)


@function_rule(
    *"mean reducemean max reducemax amax min reducemin amin std reducestd var variance reducevariance prod reduceprod "
    "logsumexp reducelogsumexp any all reduceany reduceall median countnonzero argmax argmin norm".split()
)
def reduce(call: Call) -> Value:
    """One value for all places along some axes."""
    x = tensor(call)
    axes = axes_of(call.argument("axis"), x.rank)
    # What could also lie along an axis that is left lies there: then nothing is mixed.
    lines = call.space.other_lines(x, axes)
    call.mixes(*(call.line(x, axis) for axis in axes), why="it is computed over the kept channels")
    return _reduced(call, x, axes, lines)


@function_rule("sum", "reducesum")
def reduce_sum(call: Call) -> Value:
    """A sum over channels consumes them as a kernel does."""
    x = tensor(call)
    axes = axes_of(call.argument("axis"), x.rank)
    lines = call.space.other_lines(x, axes)
    for axis in axes:
        call.contract(x, axis)
    return _reduced(call, x, axes, lines)


def _reduced(call: Call, x: Value, axes: list[int], lines: Mapping[int, np.ndarray]) -> Value:
    if call.argument("keepdims", "keep_dims"):
        return call.output(lines)
    left = [axis for axis in range(x.rank) if axis not in axes]
    return call.output({left.index(axis): line for axis, line in lines.items()})


@function_rule("softmax", "softmaxv2", "logsoftmax", "logsoftmaxv2", "sparsemax")
def softmax(call: Call) -> Value:
    """Weighs places along an axis against each other."""
    axis = call.argument("axis", default=-1)
    axes = [-1] if axis is None else axes_of(axis, call.x.rank)
    call.mixes(*(call.line(call.x, a) for a in axes), why="softmax over channels")
    return call.x


@function_rule("cumsum", "cumprod", "sort", "normalize", "l2normalize", "layernorm", "rmsnorm", "layernormalization")
def along_an_axis(call: Call) -> Value:
    """Each place along an axis depends on the others."""
    x = tensor(call)
    for axis in axes_of(call.argument("axis", default=-1), x.rank):
        call.mixes(call.line(x, axis), why="it is computed over the kept channels")
    return x


@function_rule("fft", "fft2", "rfft", "ifft2")
def fourier_transform(call: Call) -> list[Value]:
    """All places along the last axis, or the last two, are mixed."""
    for value in call.inputs:
        for axis in range(value.rank)[-2 if "2" in (flavor.function_name(call.layer) or "") else -1 :]:
            call.freeze(call.line(value, axis), f"{call.name} mixes all of it")
    return [Value(shape) for shape in call.output_shapes]


@function_rule(
    *"avgpool avgpool2d avgpool1d maxpool maxpoolv2 maxpool2d maxpool1d averagepool resize resizebilinear".split()
)
def over_places(call: Call) -> Value:
    """Works along space, for each channel apart."""
    x = tensor(call)
    if x.rank < 3 or str(call.argument("data_format", default="channels_last")) in ("NCHW", "NCW", "channels_first"):
        raise CannotFollow("it works on channels first")
    return call.output({-1: call.channels(x, -1)})
