"""Representative data in any of the forms people keep it in, checked and cut into single samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgeprune.export.known_values import arbitrary_words, drawn
from edgeprune.progress import track
from edgeprune.tflite.runtime import texts

SAMPLE_FORMS = (
    "an array, a dict or a list of arrays (one for each input), a tf.data.Dataset, a Keras PyDataset or Sequence, "
    "or a function that returns a generator"
)


def samples(data: Any, specs: Mapping[str, Any], count: int = 100) -> dict[str, np.ndarray]:
    """Some samples of representative data, as the model's inputs take them.

    Args:
        data: an array `(samples, ...)`; a dict of input name to array, or a list of arrays, for several inputs;
            or a stream: a `tf.data.Dataset`, a Keras `PyDataset` or `tf_keras` `Sequence`, a function that
            returns a generator, or anything else that can be iterated over. A stream gives batches or single
            samples, with labels (a tuple of inputs and labels) or without.
        specs: input name to `tf.TensorSpec` with a batch of one, as `input_specs` gives them.
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
    if count < 1:
        raise ValueError(f"The number of representative samples must be 1 or more, got {count}.")
    if _is_whole(data, specs):
        batches = [_batch(data, specs, count)]
    else:
        batches = _read(_stream(data), specs, count)
    if not sum(map(_length, batches)):
        raise ValueError(f"The representative data is empty; expected samples of {_listed(specs)}.")
    return {
        name: np.concatenate([_checked(name, batch[name], specs[name]) for batch in batches])[:count] for name in specs
    }


def random_samples(
    specs: Mapping[str, Any], count: int = 16, known: Mapping[str, list[Any]] | None = None
) -> dict[str, np.ndarray]:
    """Made-up samples, the same at every call: normally distributed floats, integers and booleans of 0 and 1, words.

    Args:
        specs: input name to `tf.TensorSpec` with a batch of one.
        count: how many.
        known: what `known_values` gives for the model: values to draw from instead.

    Returns:
        Input name to array `(count, ...)`, in the input's dtype.
    """
    rng = np.random.default_rng(0)
    made = {}
    for name, spec in specs.items():
        shape = (count, *spec.shape[1:])
        if spec.dtype.name == "string" or name in (known or {}):
            values = drawn((known or {}).get(name) or arbitrary_words(), shape, rng)
            made[name] = values.astype(spec.dtype.as_numpy_dtype)
            continue
        values = rng.standard_normal(shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        made[name] = values.astype(spec.dtype.as_numpy_dtype)
    return made


def _is_whole(data: Any, specs: Mapping[str, Any]) -> bool:
    """Whether the data lies in memory in one piece, rather than coming as a stream."""
    if isinstance(data, list):
        return len(data) == len(specs) and all(
            np.ndim(part) == len(spec.shape) for part, spec in zip(data, specs.values(), strict=True)
        )
    return isinstance(data, Mapping | tuple) or hasattr(data, "__array__")


def _stream(data: Any) -> Iterable[Any]:
    if callable(data):
        data = data()
    if isinstance(data, str | bytes) or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
        raise TypeError(f"representative_data must be {SAMPLE_FORMS}; got {type(data).__name__}.")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset has no end when iterated over
        return (data[number] for number in range(len(data)))
    return data


def _read(stream: Iterable[Any], specs: Mapping[str, Any], count: int) -> list[dict[str, np.ndarray]]:
    batches = []
    for element in track(stream, "Reading representative data"):
        batches.append(_batch(element, specs, count))
        count -= _length(batches[-1])
        if count <= 0:
            break
    return batches


def _batch(element: Any, specs: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """One element of the data as input name to array `(samples, ...)`, with at most `count` samples."""
    batch = {name: _with_batch_axis(name, value, specs[name]) for name, value in _by_name(element, specs).items()}
    lengths = {name: len(array) for name, array in batch.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The inputs have different numbers of representative samples: {lengths}.")
    length = _length(batch)
    chosen = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return {name: array[chosen] for name, array in batch.items()}


def _by_name(element: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs in one element, without its labels and sample weights."""
    if isinstance(element, tuple) and element and (len(specs) == 1 or isinstance(element[0], dict | list | tuple)):
        element = element[0]
    if isinstance(element, Mapping):
        if set(element) != set(specs):
            raise ValueError(f"Expected representative data for {_listed(specs)}; got {sorted(map(str, element))}.")
        return {name: element[name] for name in specs}
    if len(specs) == 1 and not (isinstance(element, list) and len(element) == 1):
        return {next(iter(specs)): element}
    if not isinstance(element, list | tuple) or len(element) != len(specs):
        given = f"{len(element)} arrays" if isinstance(element, list | tuple) else f"one {type(element).__name__}"
        raise ValueError(f"Expected representative data for {len(specs)} inputs, {_listed(specs)}; got {given}.")
    return dict(zip(specs, element, strict=True))


def _with_batch_axis(name: str, value: Any, spec: Any) -> np.ndarray:
    sample_shape = tuple(spec.shape)[1:]
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"Input {name!r}: the representative data is no regular array: {error}") from error
    if array.dtype.kind not in ("OSU" if spec.dtype.name == "string" else "biuf"):
        raise ValueError(f"Input {name!r} expects {_described(spec)}; got values of type {array.dtype}.")
    if array.shape == sample_shape:
        return array[None]
    if array.ndim == 0 or array.shape[1:] != sample_shape:
        raise ValueError(f"Input {name!r} expects samples of {_described(spec)}; got an array of shape {array.shape}.")
    return array


def _checked(name: str, array: np.ndarray, spec: Any) -> np.ndarray:
    """The values in the input's dtype, where that loses nothing that matters."""
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


def _length(batch: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(batch.values())))


def _described(spec: Any) -> str:
    return f"shape {tuple(spec.shape)[1:]} and dtype {spec.dtype.name}"


def _listed(specs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r} ({_described(spec)})" for name, spec in specs.items())
