"""Batches as tensors: the inputs in the order, shapes and dtypes of a model's."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.named_inputs import named_inputs
from edgeprune.types import AnyTensor, Array, Arrays, Model


def input_tensors(model: Model, x: Arrays) -> list[Any]:
    """A tensor for each of the model's inputs, in their order and dtype.

    Args:
        model: a built Functional or Sequential model of either Keras.
        x: the inputs of a batch, as `named_inputs` accepts them. Where an input's last size is 1, an array may lack
            it, as Keras has it.

    Raises:
        ValueError: there are not as many arrays as inputs, they have another shape, or values that the type of an input
            cannot hold, such as fractions for whole numbers.
    """
    arrays, symbolic = named_inputs(model, x), flavor.graph_nodes(model)[0]
    return [_as_input(name, array, to) for (name, array), to in zip(arrays.items(), symbolic, strict=True)]


def _as_input(name: str, array: Array, symbolic: AnyTensor) -> Any:
    import tensorflow as tf

    dtype = tf.as_dtype(symbolic.dtype)
    try:
        tensor = tf.convert_to_tensor(array)
    except (ValueError, TypeError) as error:  # Python objects, which NumPy holds too
        kind = np.asarray(array).dtype
        raise ValueError(f"Input {name!r} is of type {dtype.name}; got data of type {kind}: {error}") from error
    if tensor.dtype.is_complex > dtype.is_complex or (tensor.dtype == tf.string) != (dtype == tf.string):
        raise ValueError(f"Input {name!r} is of type {dtype.name}; got data of type {tensor.dtype.name}.")
    shape = tf.TensorShape([None, *symbolic.shape[1:]])
    if len(tensor.shape) == len(shape) - 1 and shape[-1] == 1:
        tensor = tensor[..., None]
    if not shape.is_compatible_with(tensor.shape):
        raise ValueError(f"Input {name!r} expects samples of shape {tuple(shape)[1:]}; got {tensor.shape}.")
    if dtype == tf.string:
        return tensor
    made = tf.cast(tensor, dtype)
    if dtype.is_integer and not bool(tf.reduce_all(tf.cast(made, tensor.dtype) == tensor)):
        raise ValueError(
            f"Input {name!r} expects whole numbers of type {dtype.name}, got values from {tf.reduce_min(tensor):g} to "
            f"{tf.reduce_max(tensor):g} of type {tensor.dtype.name} that it cannot hold."
        )
    return made


def as_tensors(structure: object) -> Any:
    """Arrays in any structure as tensors; None, alone or in it, remains None."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), structure)
