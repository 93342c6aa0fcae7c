"""Weights that a composite layer of Keras 3 uses itself: class tokens, tables of positions, scales.

While the layer is looked into, a symbolic tensor stands in for each, which `OwnWeight` gives. In a rebuilt model a
layer that comes with Keras holds it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeprune.flavor.kinds import KERAS_3, keras_module
from edgeprune.flavor.marked_batch import numbers_like
from edgeprune.types import Layer, Variable


@functools.cache
def own_weight_class() -> type:
    """The operation that gives a weight which a composite layer uses itself.

    Its instances have the attributes `variable`, `owner` (the composite layer) and `dtype` (that it computes in).
    """
    keras = keras_module(KERAS_3)

    class OwnWeight(keras.Operation):
        def __init__(self, variable: Variable, owner: Any) -> None:
            super().__init__()
            self.variable = variable
            self.owner = owner
            self.dtype = owner.compute_dtype if owner.autocast else variable.dtype

        def call(self, x: Any) -> Any:
            return keras.ops.cast(self.variable.value, self.dtype)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(tuple(self.variable.shape), dtype=self.dtype)

    return OwnWeight


def is_own_weight(operation: Any) -> bool:
    """Whether what stands in a graph gives a weight that a composite layer uses itself."""
    return isinstance(operation, own_weight_class())


def own_weights(layer: Layer) -> list[Any]:
    """The variables of a Keras 3 layer that no layer inside it holds."""
    inside = {id(v) for part in layer._flatten_layers(recursive=False, include_self=False) for v in part.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def own_weight_holder(operation: Any, shape: tuple[int, ...], name: str) -> Any:
    """A dense layer for a weight that a composite layer uses itself: called on a one it returns its kernel.

    Args:
        operation: the `OwnWeight` that it stands for.
        shape: of the weight.
        name: of the new layer.
    """
    keras, variable = keras_module(KERAS_3), operation.variable
    axes = "bcdefghij"[: len(shape)]
    return keras.layers.EinsumDense(
        f"az,z{axes}->a{axes}",
        output_shape=shape,
        name=name,
        dtype=operation.owner.dtype_policy,
        kernel_regularizer=variable.regularizer,
        kernel_constraint=variable.constraint,
    )


def give_own_weight(operation: Any, holder: Any, x: Any) -> Any:
    """The symbolic tensor with the weight of an `OwnWeight`, from the layer that holds it with a leading axis of one.

    Args:
        operation: the `OwnWeight`.
        holder: what `own_weight_holder` returned; the same for all calls that use the weight.
        x: a symbolic tensor of any shape and dtype.
    """
    ops = keras_module(KERAS_3).ops
    one = ops.ones_like(ops.reshape(ops.sum(numbers_like(x)), (1, 1)), dtype=operation.dtype)
    given = ops.reshape(holder(one), holder.kernel.shape[1:])
    holder.trainable = operation.variable.trainable
    return given


@contextlib.contextmanager
def own_weights_symbolic(layer: Layer, reference: Any) -> Iterator[None]:
    """While the body runs, symbolic tensors stand in for the weights that a layer uses itself.

    Whole numbers do not train: their values stand in for them.
    """
    import tensorflow as tf

    variables = own_weights(layer)
    if not variables:
        yield
        return
    stand_ins = {}
    for variable in variables:
        if tf.as_dtype(variable.dtype).is_floating:
            stand_ins[id(variable)] = own_weight_class()(variable, layer)(reference)
        else:
            stand_ins[id(variable)] = variable.numpy() if hasattr(variable, "numpy") else np.asarray(variable)
    undo: list[Callable[[], None]] = []
    tracked = {id(list_) for list_ in (layer._trainable_variables, layer._non_trainable_variables)}
    for key, value in list(layer.__dict__.items()):
        if id(value) in tracked:
            continue
        if id(value) in stand_ins:
            undo.append(functools.partial(layer.__dict__.__setitem__, key, value))
            layer.__dict__[key] = stand_ins[id(value)]
        elif isinstance(value, list | dict):
            places = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            setter = dict.__setitem__ if isinstance(value, dict) else list.__setitem__
            for place, element in places:
                if id(element) in stand_ins:
                    undo.append(functools.partial(setter, value, place, element))
                    setter(value, place, stand_ins[id(element)])
    try:
        yield
    finally:
        for restore in undo:
            restore()
