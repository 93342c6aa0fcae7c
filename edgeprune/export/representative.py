"""Representative data in any of the forms people keep it in, checked and cut into single samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.batches import check_data, samples_of
from edgeprune.data.named_arrays import named_arrays
from edgeprune.tflite.runtime import texts
from edgeprune.types import DataLike

if TYPE_CHECKING:
    import tensorflow as tf


def samples(data: DataLike, specs: Mapping[str, Any], count: int = 100) -> dict[str, np.ndarray]:
    """Some samples of representative data, as the model's inputs expect them.

    Args:
        data: an array `(samples, ...)`; a dict of input name to array, or a list of arrays, for several inputs;
            or a stream: a `tf.data.Dataset`, a Keras `PyDataset` or `tf_keras` `Sequence`, a function that
            returns a generator, or anything else that can be iterated over. A stream yields batches or single
            samples, with labels (a tuple of inputs and labels) or without.
        specs: input name to `tf.TensorSpec` with a batch of one, as `input_specs` returns them.
        count: how many samples at most. From arrays they are taken at even distances, as data is often sorted;
            from a stream the first ones, and no more is read.

    Returns:
        Input name to array `(samples, ...)`, in the input's dtype.

    Raises:
        TypeError: `data` is none of these.
        ValueError: there is no sample; an input is missing or unknown, has another shape, a dtype that does not
            fit, or holds NaN or infinity. The message names the input and what was expected.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> samples(np.zeros((500, 4)), {"x": tf.TensorSpec((1, 4))}, count=10)["x"].shape
        (10, 4)
    """
    check_data(data, name="representative_data")
    inputs = {name: tuple(spec.shape)[1:] for name, spec in specs.items()}
    read = samples_of(data, count, inputs=inputs, source="The representative data")
    try:
        found = named_arrays("the model", inputs, read)
    except ValueError as error:
        raise ValueError(f"Expected representative data for {_listed(specs)}: {error}") from error
    return {name: _checked(name, found[name], spec) for name, spec in specs.items()}


def _checked(name: str, array: np.ndarray, spec: tf.TensorSpec) -> np.ndarray:
    """The values in the input's dtype, where that loses nothing that matters."""
    if array.dtype.kind not in ("OSU" if spec.dtype.name == "string" else "biuf"):
        raise ValueError(f"Input {name!r} expects {_described(spec)}; got values of type {array.dtype}.")
    if array.shape[1:] != tuple(spec.shape)[1:]:
        raise ValueError(f"Input {name!r} expects samples of {_described(spec)}; got an array of shape {array.shape}.")
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    if spec.dtype.name == "string":
        return texts(name, array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0]
        raise ValueError(f"Input {name!r}: sample {bad} of the representative data holds NaN or infinity.")
    values = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(values, array):
        raise ValueError(
            f"Input {name!r} expects {_described(spec)}; the representative data holds values that do not fit "
            f"({array.dtype}, {array.min()} to {array.max()})."
        )
    return values


def _described(spec: tf.TensorSpec) -> str:
    return f"shape {tuple(spec.shape)[1:]} and dtype {spec.dtype.name}"


def _listed(specs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r} ({_described(spec)})" for name, spec in specs.items())
