"""Batches as tensors: the inputs in the order, shapes and dtypes of a model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune import flavor
from edgeprune.types import Model


def input_tensors(model: Model, x: Any) -> list[Any]:
    """A tensor for each of the model's inputs, in their order and dtype.

    Args:
        model: a built Functional or Sequential model of either Keras.
        x: the inputs of a batch, an array for one; a dict by name, or structured as in the model's call, for several.
            Where an input's last size is 1, an array may lack it, as Keras has it.

    Raises:
        ValueError: there are not as many arrays as inputs, they have another shape, or hold what an input does not
            take.
    """
    names, symbolic = flavor.input_names(model) or [], flavor.graph_nodes(model)[0]
    arrays = _in_order(model, names, x)
    if len(arrays) != len(names):
        raise ValueError(f"Model {model.name!r} has {len(names)} inputs {names}, got {len(arrays)}.")
    return [_as_input(*parts) for parts in zip(names, arrays, symbolic, strict=True)]


def _in_order(model: Model, names: list[str], x: Any) -> list[Any]:
    """The arrays of inputs in the model's order: by the names of its inputs, or structured as in its call."""
    if not isinstance(x, Mapping):
        return flavor.flatten(x, model)
    by_name = flavor.pack_inputs(model, names) if not x.keys() >= set(names) else {name: name for name in names}
    if not isinstance(by_name, Mapping) or not x.keys() >= by_name.keys():
        raise ValueError(f"Model {model.name!r} has the inputs {names}, got {list(x)}.")
    arrays = {by_name[key]: x[key] for key in by_name}
    return [arrays[name] for name in names]


def _as_input(name: str, array: Any, symbolic: Any) -> Any:
    import tensorflow as tf

    tensor, dtype = tf.convert_to_tensor(array), tf.as_dtype(symbolic.dtype)
    if tensor.dtype.is_complex > dtype.is_complex or (tensor.dtype == tf.string) != (dtype == tf.string):
        raise ValueError(f"Input {name!r} is of type {dtype.name}; got data of type {tensor.dtype.name}.")
    shape = tf.TensorShape([None, *symbolic.shape[1:]])
    if len(tensor.shape) == len(shape) - 1 and shape[-1] == 1:
        tensor = tensor[..., None]
    if not shape.is_compatible_with(tensor.shape):
        raise ValueError(f"Input {name!r} expects samples of shape {tuple(shape)[1:]}; got {tensor.shape}.")
    return tf.cast(tensor, dtype) if dtype != tf.string else tensor


def as_tensors(structure: Any) -> Any:
    """Arrays in any structure as tensors; None, alone or in it, remains None."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), structure)
