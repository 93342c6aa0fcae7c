"""Run a Keras model on samples, and bring samples, labels and weights into one form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import InputShapes, joined
from edgeprune.data.named_inputs import named_inputs, named_samples
from edgeprune.data.ports import input_shapes
from edgeprune.progress import track
from edgeprune.tflite.runtime import Runtime, in_number_order
from edgeprune.types import Arrays, DataLike, Model


def predict(model: Model, samples: Arrays, *, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Run a Keras model on samples, with a progress bar.

    Args:
        model: a built model of either Keras.
        samples: as `accuracy` accepts them.
        batch_size: samples at once; a model with a fixed batch uses its own.

    Returns:
        Output name to values `(samples, ...)`, in the model's order; the names are the converter's.

    Raises:
        ValueError: there are no samples, not as many as the model has inputs, or they are of another shape, no
            numbers or not finite.
    """
    arrays = checked_inputs(model, samples)
    fixed = model.inputs[0].shape[0] if flavor.is_graph_model(model) else None
    size = fixed or batch_size
    count = len(arrays[0])
    parts, predict_on_batch = [], flavor.batch_predictor(model)
    for start in track(range(0, count, size), f"Running {model.name}"):
        batch = [array[start : start + size] for array in arrays]
        missing = size - len(batch[0])
        if missing and (fixed or start):  # another size would be traced again
            batch = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in batch]
        parts.append(flavor.named_outputs(model, predict_on_batch(flavor.packed_as_called(model, batch))))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def checked_inputs(model: Model, samples: Arrays) -> list[np.ndarray]:
    """The arrays of a model's inputs, in its order, checked.

    Args:
        model: a built model of either Keras.
        samples: as `accuracy` accepts them.

    Raises:
        ValueError: as `predict`.
    """
    arrays = [np.asarray(array) for array in named_inputs(model, samples).values()]
    _check_values(model, arrays)
    if len(arrays[0]) == 0:
        raise ValueError(f"Model {model.name!r} was called on no samples.")
    return arrays


def gather(
    judged: Model | Runtime, x: DataLike, y: Arrays | None = None, sample_weight: Arrays | None = None
) -> tuple[Any, Any, Any]:
    """Samples, labels and weights as arrays, whether passed as arrays or as batches.

    Args:
        judged: the model or the opened file that they are for.
        x: arrays, a list or a dict of them; or batches of `(x, y)` or `(x, y, sample_weight)`, in any form that
            `edgeprune.data.batches` reads.
        y: labels, an array, a list or a dict of arrays; `None` for batches, or without labels.
        sample_weight: weights in the same forms, or `None`.

    Returns:
        The three; `None` for those that are not there.

    Raises:
        TypeError: the samples are in no form that can be read.
        ValueError: there are no samples, or batches without end, of another form or of different forms.
    """
    if isinstance(x, Mapping | tuple | list) and not x and (y is not None or not isinstance(x, list)):
        raise ValueError("There are no samples.")
    if y is not None:
        return x, y, sample_weight
    inputs: InputShapes
    if isinstance(judged, Runtime):
        inputs = {name: tuple(port.shape)[1:] for name, port in judged.inputs.items()}
    else:
        inputs = input_shapes(judged)
    read = joined(x, inputs=inputs)
    return read.x, read.y, read.sample_weight if sample_weight is None else sample_weight


def samples_for_file(runtime: Runtime, model: Model | None, samples: Arrays) -> dict[str, np.ndarray]:
    """Samples as a file expects them, by the names of its inputs; a list is in the order of the model's inputs.

    Args:
        runtime: the opened file.
        model: the Keras model it was converted from, or `None`.
        samples: as `named_samples` accepts them.
    """
    order = None
    if model is not None and len(runtime.inputs) > 1:
        order = flavor.input_names(model) or in_number_order(runtime.inputs)
    return named_samples(runtime, samples, order)


def keras_output_names(file_outputs: Iterable[str], keras_outputs: Iterable[str], model: Model) -> dict[str, str]:
    """Which output of a file is which of its Keras model, where both have as many.

    Args:
        file_outputs: the names in the file.
        keras_outputs: the names that `flavor.named_outputs` assigns, in its order.
        model: the Keras model.

    Returns:
        The file's name to the model's.
    """
    own, of_file = list(keras_outputs), list(file_outputs)
    if set(own) == set(of_file):
        return {name: name for name in own}
    # tf_keras's own conversion writes the layers' names, others names that only count
    by_layer = flavor.output_names(model, len(own))
    names = by_layer if set(by_layer) == set(of_file) else in_number_order(of_file)
    flattened = own if own == by_layer else sorted(own)  # a dict is flattened by its sorted keys
    # What a function returns is called after what rounds it, in a file of calibrated ranges; other names stay.
    only_count = len({re.sub(r"\d+", "", name) for name in of_file}) == 1
    known = set() if only_count else set(own) & set(of_file)
    others = zip(
        (one for one in names if one not in known), (one for one in flattened if one not in known), strict=True
    )
    return {name: name for name in known} | dict(others)


def _check_values(model: Model, arrays: list[np.ndarray]) -> None:
    """Refuse what is no number, which TensorFlow cuts to one or names no input at, and what has another shape."""
    import tensorflow as tf

    known = flavor.is_graph_model(model)
    specs = tf.nest.flatten(flavor.call_specs(model)) if known else [tf.TensorSpec(None, tf.string)] * len(arrays)
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype.kind not in ("biufOSU" if spec.dtype == tf.string else "biuf"):
            raise ValueError(f"Model {model.name!r} expects numbers, got samples of type {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"The samples for model {model.name!r} hold NaN or infinity; clean them first.")
        if array.ndim == 0 or not spec.shape[1:].is_compatible_with(array.shape[1:]):
            shape = tuple(spec.shape)[1:]
            raise ValueError(
                f"Model {model.name!r} expects samples of shape {shape}, got an array of shape {array.shape}."
            )
