"""Calls on symbolic tensors of Keras 3 that have come to hold the size of the batch, made to fit every batch.

A layer's call may ask for the size of the batch (`ops.shape(x)[0]`), and symbolic tensors answer None, which few
functions accept. So the batch has a size of `BATCH` while a layer is looked into, and where that number has come to
stand in an argument, the call is made again in another way.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeprune.flavor.functions import call_function, function_arguments
from edgeprune.flavor.graphs import GraphNode, function_name
from edgeprune.flavor.kinds import KERAS_3, keras_module
from edgeprune.types import AnyTensor, Layer, Variable

BATCH = 1009  # a prime, so that its multiples stand out, and small enough for tensors that are made with it


_TENSORS_OF_TF_KERAS = "tf_keras.src.engine.keras_tensor"


class NotUnfoldedError(Exception):
    """Raised where a layer's call cannot be made call by call."""


def adds_a_loss() -> NotUnfoldedError:
    """The error of a layer that adds a loss."""
    return NotUnfoldedError("it adds a loss of its own, and without the layer there would be none")


def uses_weight_of_others(weight: Variable) -> NotUnfoldedError:
    """The error of a layer that uses a weight which another layer holds."""
    name = getattr(weight, "path", None) or weight.name  # tf_keras has the path in the name
    return NotUnfoldedError(f"it uses weights outside of the layers that hold them: {name}")


def is_symbolic(leaf: object) -> bool:
    """Whether it is a symbolic tensor of either Keras."""
    return isinstance(leaf, keras_module(KERAS_3).KerasTensor) or type(leaf).__module__ == _TENSORS_OF_TF_KERAS


def with_marked_batch(tensor: AnyTensor, times: int = 1) -> Any:
    """A symbolic tensor like another, with the marked size, so many times, in place of an open batch; its mask too."""
    keras = keras_module(KERAS_3)

    def like(tensor: AnyTensor) -> Any:
        shape = tuple(tensor.shape)
        shape = (times * BATCH, *shape[1:]) if shape and shape[0] is None else shape
        return keras.KerasTensor(shape, dtype=tensor.dtype)

    marked = like(tensor)
    if getattr(tensor, "_keras_mask", None) is not None:
        marked._keras_mask = like(tensor._keras_mask)
    return marked


def is_marked(size: object) -> bool:
    """Whether it is the marked size of a batch, or a multiple of it."""
    return isinstance(size, int | np.integer) and bool(size > 0 and size % BATCH == 0)


@contextlib.contextmanager
def einsum_sizes_kept() -> Iterator[None]:
    """While the body runs, Keras 3's EinsumDense returns symbolic tensors of the sizes that it is called on.

    Those that were open when it was built are else open in what it returns, though the input's are known.
    """
    kind = keras_module(KERAS_3).layers.EinsumDense
    before = kind.compute_output_shape

    def compute_output_shape(self: Layer, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        given = before(self, input_shape)
        taken, _, made = re.split("->|,", self.equation.replace(" ", ""))
        sizes = dict(zip(taken, input_shape, strict=False))
        if "..." in self.equation or len(taken) != len(input_shape):
            return given
        return tuple(sizes.get(letter) if size is None else size for letter, size in zip(made, given, strict=True))

    kind.compute_output_shape = compute_output_shape
    try:
        yield
    finally:
        kind.compute_output_shape = before


def holds_mark(value: object) -> bool:
    """Whether an argument holds the marked size, or one that follows from it."""
    if isinstance(value, list | tuple):
        return any(map(holds_mark, value))
    if isinstance(value, slice):
        return any(map(is_marked, (value.start, value.stop, value.step)))
    return is_marked(value) or any(map(is_marked, getattr(value, "shape", None) or ()))


_TAKE_SIZES = ("reshape", "broadcastto", "tile", "repeat", "slice", "full", "arange")


def _holds_none(value: object) -> bool:
    return isinstance(value, list | tuple) and any(part is None for part in value)


def call_for_any_batch(node: GraphNode, args: tuple, kwargs: dict[str, Any], reference: AnyTensor | None) -> Any:
    """Call a function in the graph whose arguments may hold the marked size; what it returns fits every batch.

    Raises:
        NotUnfoldedError: it cannot be unfolded.
    """
    function, name = node.layer, function_name(node.layer)
    if name in _BROADCAST:
        return _call_on_few_places(function, args, kwargs)
    arguments = function_arguments(function, args, kwargs)
    if name in _TAKE_SIZES and any(map(_holds_none, arguments.values())):
        raise NotUnfoldedError(f"{name} is called on a size that is not fixed")
    marked = [name for name, value in arguments.items() if not is_symbolic(value) and holds_mark(value)]
    if not marked:
        return call_function(function, args, kwargs, {})
    ops = keras_module(KERAS_3).ops
    x: Any = next((value for value in arguments.values() if is_symbolic(value)), None)
    if name == "reshape":
        sizes = tuple(-1 if size is None or is_marked(size) else size for size in node.outputs[0].shape)
        if sizes.count(-1) == 1:
            return ops.reshape(x, sizes)
        if sizes.count(-1) == 2 and sizes[0] == -1 and node.outputs[0].shape[0] == node.inputs[0].shape[0]:
            return keras_module(KERAS_3).layers.Reshape(sizes[1:])(x)
    elif name == "broadcastto" and not any(map(is_marked, arguments["shape"][1:])):
        shape = tuple(arguments["shape"])
        if len(x.shape) < len(shape) or x.shape[0] == 1:
            return _for_each_sample(ops.broadcast_to(x, (1, *shape[1:])), reference)
        if tuple(x.shape[1:]) == shape[1:]:
            return x
        if len(x.shape) == len(shape) and node.inputs[0].shape[0] == shape[0]:
            ones = np.ones((1, *shape[1:]), x.dtype)
            return (ops.logical_and if x.dtype == "bool" else ops.multiply)(x, ones)
    elif name == "tile" and x.shape[0] == 1 and is_marked(arguments["repeats"][0]):
        repeats = tuple(arguments["repeats"])
        if not any(map(is_marked, repeats[1:])):
            tiled = x if set(repeats[1:]) <= {1} else ops.tile(x, (1, *repeats[1:]))
            return _for_each_sample(tiled, reference)
    elif name == "repeat" and arguments["axis"] == 0 and x.shape[0] == 1:
        return _for_each_sample(x, reference)
    raise NotUnfoldedError(f"{name} is called on the size of the batch")


# Functions that broadcast, to the number of last axes along which they do not.
_BROADCAST = dict.fromkeys(
    "add subtract multiply divide truedivide minimum maximum logicaland logicalor greater less where".split(), 0
) | {"matmul": 2, "takealongaxis": 1}


def _call_on_few_places(function: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a function that broadcasts; a constant that does not vary along an axis is given a single place there.

    So it fits every batch, and channels along that axis may go.
    """
    arguments, name = function_arguments(function, args, kwargs), function_name(function)
    shapes = [tuple(value.shape) for value in arguments.values() if is_symbolic(value)]
    rank = max(map(len, shapes), default=0)
    sizes = [[shape[axis - rank] for shape in shapes if len(shape) >= rank - axis] for axis in range(rank)]
    changes = {}
    for key, value in arguments.items():
        if is_symbolic(value) or not 0 < len(getattr(value, "shape", ())) <= rank:
            continue
        values = few = np.asarray(value)
        for axis in range(values.ndim - _BROADCAST[name or ""]):
            is_met = is_marked(values.shape[axis]) or any(size != 1 for size in sizes[axis - values.ndim])
            if is_met and (few == few.take([0], axis)).all():
                few = few.take([0], axis)
        if few.shape != values.shape:
            changes[key] = few
    if any(holds_mark(changes.get(key, value)) for key, value in arguments.items() if not is_symbolic(value)):
        raise NotUnfoldedError(f"{name} is called on the size of the batch")
    return call_function(function, args, kwargs, changes)


def numbers_like(x: AnyTensor) -> Any:
    """A symbolic tensor of the same shape that can be summed: itself, or ones in place of strings and of booleans."""
    can_be_summed = x.dtype.startswith(("float", "bfloat", "int", "uint"))
    return x if can_be_summed else keras_module(KERAS_3).ops.ones_like(x, dtype="float32")


def _for_each_sample(x: AnyTensor, reference: AnyTensor | None) -> Any:
    """A symbolic tensor `(1, ...)` once for each sample of another tensor: it is multiplied by a one for each.

    Zeros would not do: Keras takes a vector that is added for a bias where there are as many samples as channels.
    """
    ops = keras_module(KERAS_3).ops
    assert reference is not None, "only calls inside a layer know the size of the batch"
    numbers = numbers_like(reference)
    one = ops.ones_like(ops.sum(numbers, axis=tuple(range(1, len(numbers.shape)))), dtype=x.dtype)
    return ops.multiply(x, ops.reshape(one, (-1, *(1,) * (len(x.shape) - 1))))
