"""The call of a composite layer of Keras 3, made on symbolic tensors, which then know the calls inside it."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeprune.flavor.kinds import KERAS_3, is_model, keras_module, nest
from edgeprune.flavor.marked_batch import NotUnfoldedError, is_symbolic, numbers_like, uses_weight_of_others
from edgeprune.flavor.own_weights import own_weights_symbolic
from edgeprune.types import AnyTensor, Layer, Variable


def symbolic_leaves(structure: object) -> list[Any]:
    """The symbolic tensors in a structure, flat."""
    return [leaf for leaf in nest(keras_3=True).flatten(structure) if is_symbolic(leaf)]


def called_in_place(
    layers: list[Layer], reference: AnyTensor, args: tuple, kwargs: dict[str, Any], training: bool = False
) -> tuple[Any, bool]:
    """What the first of some layers returns for symbolic tensors, which stem from the calls inside it and the others.

    And whether one of them adds losses.
    """
    if layers[0]._call_has_training_arg:
        kwargs = {**kwargs, "training": training}
    entered = set(map(id, layers))
    losses: list[Any] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_nodes(entered))
        stack.enter_context(_gather_of_keras())
        for layer in layers:
            stack.enter_context(own_weights_symbolic(layer, reference))
            layer.__dict__["symbolic_call"] = layer.call
            layer.__dict__["add_loss"] = losses.append
            for name in ("symbolic_call", "add_loss"):
                stack.callback(layer.__dict__.pop, name)
        for part in layers[0]._flatten_layers(include_self=False):
            if part.variables and id(part) not in entered and not is_model(part):
                part.__dict__["call"] = functools.partial(_called_on_constants, part, part.call, reference)
                stack.callback(part.__dict__.pop, "call", None)
        scope = stack.enter_context(_weights_read()())
        outputs = layers[0](*args, **kwargs)
    if scope.read is not None:
        raise uses_weight_of_others(scope.read)
    return outputs, bool(losses)


@contextlib.contextmanager
def _gather_of_keras() -> Iterator[None]:
    """While the body runs, `tf.gather` of a symbolic tensor of Keras 3 is made by functions of Keras.

    TensorFlow's own refuses symbolic tensors, and layers call it for reasons of other versions.
    """
    import tensorflow as tf

    ops, before = keras_module(KERAS_3).ops, tf.gather

    def gather(params: AnyTensor, indices: AnyTensor, *args: object, **kwargs: object) -> Any:
        last = len(params.shape) - 1
        if not (is_symbolic(params) or is_symbolic(indices)):
            return before(params, indices, *args, **kwargs)
        if not args and set(kwargs) <= {"axis"}:
            return ops.take(params, indices, kwargs.get("axis") or 0)
        if not args and kwargs == {"batch_dims": last} and len(indices.shape) == last + 1:
            return ops.take_along_axis(params, indices, last)
        raise NotUnfoldedError("it calls TensorFlow's gather")

    tf.gather = gather
    try:
        yield
    finally:
        tf.gather = before


@contextlib.contextmanager
def _without_nodes(layers: set[int]) -> Iterator[None]:
    """While the body runs, Keras does not put down the calls of these layers, by `id`, in its graph."""
    module = importlib.import_module("keras.src.layers.layer")
    kind = module.Node

    def node(operation: object, *args: object, **kwargs: object) -> Any:
        return None if id(operation) in layers else kind(operation, *args, **kwargs)

    vars(module)["Node"] = node
    try:
        yield
    finally:
        vars(module)["Node"] = kind


def _called_on_constants(
    layer: Layer, call: Callable[..., Any], reference: AnyTensor, *args: object, **kwargs: object
) -> Any:
    """What a layer with weights returns for constants, as a symbolic tensor: a table read at every position."""
    if symbolic_leaves((args, kwargs)) or not args or not _is_constant(args[0]):
        return call(*args, **kwargs)
    del layer.__dict__["call"]
    return layer(made_symbolic(args[0], reference), *args[1:], **kwargs)


def made_symbolic(value: object, reference: AnyTensor) -> Any:
    """A constant as a symbolic tensor, which is as if it stemmed from another; what is symbolic, or None, as it is."""
    if is_symbolic(value) or value is None:
        return value
    ops, value = keras_module(KERAS_3).ops, np.asarray(value)
    if value.dtype == bool:
        return ops.cast(made_symbolic(value.astype("int32"), reference), "bool")
    return ops.multiply(ops.cast(ops.ones_like(ops.sum(numbers_like(reference))), str(value.dtype)), value)


def _is_constant(value: object) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "numpy")  # tensors that stand for others have no values


@functools.cache
def _weights_read() -> type:
    """A scope whose attribute `read` is the first weight with real numbers that has been read in it, or None.

    What comes from a weight would be a constant in a smaller model, and not trained.
    """
    import tensorflow as tf

    base: Any = keras_module(KERAS_3).StatelessScope

    class WeightsRead(base):
        read: Variable | None = None

        def get_current_value(self, variable: Variable) -> Any:
            if self.read is None and tf.as_dtype(variable.dtype).is_floating:
                self.read = variable
            return super().get_current_value(variable)

    return WeightsRead
