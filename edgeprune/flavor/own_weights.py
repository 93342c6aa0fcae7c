"""Weights that a composite layer uses itself: class tokens, tables of positions, scales.

While the layer is looked into, a symbolic tensor stands in for each, which `OwnWeight` returns. In a rebuilt model a
layer that comes with Keras holds it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeprune.flavor.graphs import function_name
from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, is_keras_3, keras_module, keras_of
from edgeprune.flavor.marked_batch import adds_a_loss, numbers_like
from edgeprune.types import AnyTensor, Layer, Variable


@functools.cache
def own_weight_class(keras_3: bool = True) -> type:
    """The operation, in tf_keras the layer, that returns a weight which a composite layer uses itself.

    Its instances have the attributes `variable`, `owner` (the composite layer) and `dtype` (that it computes in).
    """
    if not keras_3:
        return _own_weight_layer()
    keras = keras_module(KERAS_3)

    base: Any = keras.Operation

    class OwnWeight(base):
        def __init__(self, variable: Variable, owner: Layer) -> None:
            super().__init__()
            self.variable = variable
            self.owner = owner
            self.dtype = owner.compute_dtype if owner.autocast else variable.dtype

        def call(self, x: AnyTensor) -> Any:
            return keras.ops.cast(self.variable.value, self.dtype)

        def compute_output_spec(self, x: AnyTensor) -> Any:
            return keras.KerasTensor(tuple(self.variable.shape), dtype=self.dtype)

    return OwnWeight


def _own_weight_layer() -> type:
    import tensorflow as tf

    base: Any = keras_module(TF_KERAS).layers.Layer

    class OwnWeight(base):
        symbol = "OwnWeight"  # as functions in the graph have one

        def __init__(self, variable: Variable, owner: Layer) -> None:
            super().__init__(dtype=owner._dtype_policy)
            # Past Keras's tracking, so that it is no weight of this layer.
            self.__dict__.update(variable=variable, owner=owner)
            own_dtype = tf.as_dtype(variable.dtype)
            is_cast = owner._autocast and own_dtype.is_floating
            self.__dict__["given_dtype"] = owner.compute_dtype if is_cast else own_dtype.name

        def call(self, x: AnyTensor) -> Any:
            return tf.cast(tf.convert_to_tensor(self.variable), self.given_dtype)

    return OwnWeight


def is_own_weight(operation: Layer) -> bool:
    """Whether what stands in a graph is a weight that a composite layer uses itself."""
    return function_name(operation) == "ownweight"


def own_weights(layer: Layer) -> list[Any]:
    """The variables of a layer that no layer inside it holds."""
    inside = {id(v) for part in layer._flatten_layers(recursive=False, include_self=False) for v in part.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def own_weight_holder(operation: Layer, shape: tuple[int, ...], name: str) -> Any:
    """A dense layer for a weight that a composite layer uses itself: called on a one it returns its kernel.

    Args:
        operation: the `OwnWeight` that it stands for.
        shape: of the weight.
        name: of the new layer.
    """
    keras, variable = keras_of(operation.owner), operation.variable
    owner, keras_3 = operation.owner, is_keras_3(operation.owner)
    return keras.layers.EinsumDense(
        _holder_equation(len(shape)),
        output_shape=shape,
        name=name,
        dtype=owner.dtype_policy if keras_3 else owner._dtype_policy,
        kernel_regularizer=variable.regularizer if keras_3 else regularizers_in_tf_keras(owner).get(id(variable)),
        kernel_constraint=getattr(variable, "constraint", None),
    )


def regularizers_in_tf_keras(layer: Layer) -> dict[int, Any]:
    """`id` of a weight that a layer of tf_keras uses itself to its regularizer.

    Raises:
        NotUnfoldedError: the layer adds a loss that is none of a weight.
    """
    found = {}
    for tagged in layer._callable_losses:
        (loss,) = tagged.args
        inside = inspect.getclosurevars(loss.func).nonlocals if isinstance(loss, functools.partial) else {}
        if "regularizer" not in inside:
            raise adds_a_loss()
        found[id(loss.args[0])] = inside["regularizer"]
    return found


def _holder_equation(rank: int) -> str:
    axes = "bcdefghij"[:rank]
    return f"az,z{axes}->a{axes}"


def own_weight_name(operation: Layer, owner: str | None = None) -> str:
    """The name of the layer that uses a weight itself, or another one for it, and what it calls the weight."""
    name = operation.variable.name.rpartition("/")[2].partition(":")[0]  # tf_keras names layers and a number too
    return f"{owner or operation.owner.name}_{name}"


def holds_own_weight(layer: Layer) -> bool:
    """Whether a layer is one that `own_weight_holder` returned, in a model that was loaded from a file too."""
    if type(layer) is not keras_of(layer).layers.EinsumDense or not layer.built or layer.bias is not None:
        return False
    shape = tuple(layer.kernel.shape)
    return shape[0] == 1 and layer.equation == _holder_equation(len(shape) - 1)


def broadcast_own_weight(operation: Layer, holder: Layer, x: AnyTensor) -> Any:
    """The symbolic tensor with the weight of an `OwnWeight`, from the layer that holds it with a leading axis of one.

    Args:
        operation: the `OwnWeight`.
        holder: what `own_weight_holder` returned; the same for all calls that use the weight.
        x: a symbolic tensor of any shape and dtype.
    """
    if is_keras_3(operation.owner):
        ops = keras_module(KERAS_3).ops
        one = ops.ones_like(ops.reshape(ops.sum(numbers_like(x)), (1, 1)), dtype=operation.dtype)
        given = ops.reshape(holder(one), holder.kernel.shape[1:])
    else:
        import tensorflow as tf

        one = tf.ones_like(tf.reshape(tf.reduce_sum(tf.shape(x)), (1, 1)), dtype=operation.given_dtype)
        given = tf.reshape(holder(one), tuple(holder.kernel.shape[1:]))
    holder.trainable = operation.variable.trainable and operation.owner.trainable
    return given


@contextlib.contextmanager
def own_weights_symbolic(layer: Layer, reference: AnyTensor) -> Iterator[None]:
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
            stand_ins[id(variable)] = own_weight_class(is_keras_3(layer))(variable, layer)(reference)
        else:
            stand_ins[id(variable)] = variable.numpy() if hasattr(variable, "numpy") else np.asarray(variable)
    undo: list[Callable[[], None]] = []
    kind = "variables" if is_keras_3(layer) else "weights"
    tracked = {id(layer.__dict__.get(f"_{name}_{kind}")) for name in ("trainable", "non_trainable")}
    for key, value in list(layer.__dict__.items()):
        if id(value) in tracked:
            continue
        if id(value) in stand_ins:
            undo.append(functools.partial(layer.__dict__.__setitem__, key, value))
            layer.__dict__[key] = stand_ins[id(value)]
        elif isinstance(value, list | dict):
            places = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            setter: Callable[..., None] = dict.__setitem__ if isinstance(value, dict) else list.__setitem__
            for place, element in places:
                if id(element) in stand_ins:
                    undo.append(functools.partial(setter, value, place, element))
                    setter(value, place, stand_ins[id(element)])
    try:
        yield
    finally:
        for restore in undo:
            restore()
