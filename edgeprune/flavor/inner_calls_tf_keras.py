"""Layers of tf_keras called on symbolic tensors: their `call` alone puts the calls inside down in the graph."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from edgeprune.flavor.inner_calls import symbolic_leaves
from edgeprune.flavor.kinds import is_keras_3
from edgeprune.flavor.marked_batch import NotUnfoldedError, adds_a_loss, is_symbolic, uses_weight_of_others
from edgeprune.flavor.own_weights import own_weights_symbolic, regularizers_in_tf_keras
from edgeprune.types import AnyTensor, Layer, Loss, TfTensor


def takes_training(layer: Layer) -> bool:
    """Whether the call of a layer accepts the argument `training`."""
    return layer._call_has_training_arg if is_keras_3(layer) else layer._call_spec.expects_training_arg


def called_in_tf_keras(layer: Layer, reference: AnyTensor, args: tuple, kwargs: dict[str, Any], training: bool) -> Any:
    """What a layer of tf_keras returns for symbolic tensors, which stem from the calls inside it.

    Raises:
        Exception: whatever it raises when it is called on symbolic tensors.
    """
    import tensorflow as tf

    if takes_training(layer):  # left open, what is called inside follows the model
        kwargs = {**kwargs, "training": training or None}
    regularizers_in_tf_keras(layer)  # which raises where there is another loss
    tensors = symbolic_leaves((args, kwargs))
    if layer._call_spec.expects_mask_arg and any(getattr(one, "_keras_mask", None) is not None for one in tensors):
        raise NotUnfoldedError("it is called with a mask")
    if layer._autocast and args and tf.as_dtype(layer.compute_dtype).is_floating:
        first = tf.nest.map_structure(functools.partial(_in_compute_dtype, layer.compute_dtype), args[0])
        args = (first, *args[1:])
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_weights_symbolic(layer, reference))
        layer.__dict__["add_loss"] = _refuse_loss
        stack.callback(layer.__dict__.pop, "add_loss")
        for part in layer._flatten_layers(include_self=False):
            if part.variables and "call" not in part.__dict__:
                part.__dict__["call"] = functools.partial(_in_graph_mode, part.call)
                stack.callback(part.__dict__.pop, "call")
        stack.enter_context(_eager_reads_refused())
        return layer.call(*args, **kwargs)


def _in_compute_dtype(dtype: str, tensor: TfTensor) -> Any:
    import tensorflow as tf

    is_other = is_symbolic(tensor) and tensor.dtype.is_floating and tensor.dtype != dtype
    return tf.cast(tensor, dtype) if is_other else tensor


def _in_graph_mode(call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    import tensorflow as tf

    if tf.executing_eagerly():  # called on symbolic tensors it would run in a graph
        raise NotUnfoldedError("it calls a layer with weights on constants")
    return call(*args, **kwargs)


@contextlib.contextmanager
def _eager_reads_refused() -> Iterator[None]:
    """While the body runs, a weight that is read outside of any layer's graph is an error.

    What comes from it would be a constant in a smaller model, and not trained.
    """
    import tensorflow as tf

    kind = importlib.import_module("tensorflow.python.ops.resource_variable_ops").BaseResourceVariable
    read = kind._read_variable_op

    def checked(variable: tf.Variable, *args: object, **kwargs: object) -> Any:
        if tf.executing_eagerly() and variable.dtype.is_floating:
            raise uses_weight_of_others(variable)
        return read(variable, *args, **kwargs)

    kind._read_variable_op = checked
    try:
        yield
    finally:
        kind._read_variable_op = read


def _refuse_loss(loss: Loss | None) -> None:
    raise adds_a_loss()
