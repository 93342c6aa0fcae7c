"""Top-1 accuracy on labelled data, of a .tflite file or of a Keras model, by one rule for both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.measure.runtime import Runtime, in_number_order, named_samples
from edgeprune.progress import track
from edgeprune.trial import try_out


def accuracy(
    path_or_model: str | Path | Any,
    x: Any,
    y: Any = None,
    *,
    output: str | None = None,
    threshold: float | None = None,
    batch_size: int = 32,
    threads: int = 1,
    xnnpack: bool = True,
) -> float:
    """Measure the share of samples whose most likely class is the right one.

    A file is run with the LiteRT interpreter, its inputs quantized and its outputs dequantized by the
    parameters it carries.

    Args:
        path_or_model: a .tflite file, or a model of `keras` 3 or `tf_keras`.
        x: the samples, real values with a leading axis over them: an array, a list of arrays in the order of
            the inputs, or a dict of input name to array. Or batches `(x, y)`: a `tf.data.Dataset`, a Keras
            `PyDataset`, or any iterable.
        y: the labels: class numbers `(samples,)` or `(samples, 1)`, or one-hot `(samples, classes)`. An
            output for each position (a segmentation) takes labels of the positions' shape. Left out for
            batches.
        output: name of the output that holds the classes, needed where there are several.
        threshold: for a single output value, what counts as class 1: above it. By default 0.5 if all outputs
            lie in [0, 1] (a sigmoid) and else 0 (a logit).
        batch_size: samples a Keras model takes at once.
        threads: threads for the interpreter.
        xnnpack: whether the interpreter may use XNNPACK.

    Returns:
        The accuracy, 0 to 1.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: `path_or_model` is neither a path nor a Keras model.
        ValueError: the samples do not fit the inputs, are no numbers or not finite; the labels do not fit the samples
            or the outputs; an option is out of range.

    Example:
        >>> accuracy("model.tflite", x_test, y_test)  # doctest: +SKIP
        0.914
    """
    _check_options(threshold, batch_size)
    if isinstance(path_or_model, str | Path):
        try_out(path_or_model)
        runtime = Runtime(path_or_model, threads=threads, xnnpack=xnnpack)
        samples, labels = gather(x, y)
        outputs = runtime.run_all(named_samples(runtime, samples), f"Accuracy of {runtime.path.name}")
        return top_1(choose_output(outputs, output), labels, threshold)
    if not flavor.is_model(path_or_model):
        raise TypeError(f"Expected a .tflite file or a Keras model, got {type(path_or_model).__name__}.")
    samples, labels = gather(x, y)
    outputs = predict(path_or_model, samples, batch_size=batch_size)
    return top_1(choose_output(outputs, output), labels, threshold)


def top_1(outputs: np.ndarray, labels: Any, threshold: float | None = None) -> float:
    """The share of outputs that give the label's class.

    Args:
        outputs: `(samples, ..., classes)`, or `(samples, 1)` for two classes; logits or probabilities.
        labels: class numbers or one-hot, as `accuracy` takes them.
        threshold: as in `accuracy`.

    Returns:
        The accuracy, 0 to 1.

    Raises:
        ValueError: the labels do not fit the outputs, or an output is NaN.

    Example:
        >>> top_1(np.array([[0.1, 0.9], [0.8, 0.2]]), [1, 1])
        0.5
    """
    if not np.isfinite(outputs).all():
        raise ValueError("The model's outputs hold NaN or infinity, so they name no class.")
    given = predicted_classes(outputs, threshold)
    expected = _label_classes(np.asarray(labels), given.shape, outputs.shape)
    return float(np.mean(given == expected))


def predicted_classes(outputs: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The class each output names: the largest of several values, or a single value above the threshold."""
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    if threshold is None:
        threshold = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0.0
    return (outputs.reshape(len(outputs), *outputs.shape[1:-1]) > threshold).astype(np.int64)


def predict(model: Any, samples: Any, *, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Run a Keras model on samples, with a progress bar.

    Args:
        model: a built model of either Keras.
        samples: as `accuracy` takes them.
        batch_size: samples at once; a model with a fixed batch takes its own.

    Returns:
        Output name to values `(samples, ...)`, in the model's order; the names are those the converter gives.

    Raises:
        ValueError: there are no samples, not as many as the model has inputs, or they are of another shape, no
            numbers or not finite.
    """
    arrays, packed = _call_arrays(model, samples)
    _check_values(model, arrays)
    fixed = model.inputs[0].shape[0] if flavor.is_graph_model(model) else None
    size = fixed or batch_size
    count = len(arrays[0])
    if count == 0:
        raise ValueError(f"Model {model.name!r} was given no samples.")
    parts, predict_on_batch = [], flavor.batch_predictor(model)
    for start in track(range(0, count, size), f"Running {model.name}"):
        batch = [array[start : start + size] for array in arrays]
        missing = size - len(batch[0]) if fixed else 0
        if missing:
            batch = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in batch]
        parts.append(flavor.named_outputs(model, predict_on_batch(packed(batch))))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def gather(x: Any, y: Any = None) -> tuple[Any, np.ndarray]:
    """Samples and labels as arrays, whether given as arrays or as batches `(x, y)`."""
    if y is not None:
        if isinstance(x, Mapping | list | tuple) and not len(x):
            raise ValueError("There are no samples.")
        labels = np.asarray(y)
        count = len(_first_array(x))
        if labels.ndim == 0 or len(labels) != count:
            raise ValueError(f"Got {count} samples and labels of shape {labels.shape}: one label a sample is needed.")
        return x, labels
    if isinstance(x, np.ndarray | Mapping | str) or not (hasattr(x, "__iter__") or hasattr(x, "__getitem__")):
        raise ValueError("Labels are missing: pass y, or batches (x, y) as a dataset.")
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:
        raise ValueError("The dataset repeats without end: take a number of its batches with .take(n).")
    samples, labels = [], []
    for batch in track(_batches(x), "Reading the data"):
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise ValueError("Each batch of the data must be (x, y): labels are missing.")
        samples.append(batch[0])
        labels.append(np.asarray(batch[1]))
    if not samples:
        raise ValueError("The data has no batches.")
    return _joined(samples), np.concatenate(labels)


def choose_output(outputs: Mapping[str, np.ndarray], name: str | None) -> np.ndarray:
    """The output that holds the classes: the only one, or the one named."""
    listed = ", ".join(map(repr, outputs))
    if name is None and len(outputs) != 1:
        raise ValueError(f"The model has several outputs ({listed}): name the one to score as output=.")
    if name is not None and name not in outputs:
        raise ValueError(f"The model has no output {name!r}; it has {listed}.")
    return outputs[name] if name is not None else next(iter(outputs.values()))


def _label_classes(labels: np.ndarray, shape: tuple[int, ...], outputs: tuple[int, ...]) -> np.ndarray:
    """Labels as class numbers of the shape `shape`."""
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"Labels must be class numbers or one-hot, got values of type {labels.dtype}.")
    classes = outputs[-1] if len(outputs) > 1 and outputs[-1] > 1 else 2
    if labels.shape == outputs and classes == outputs[-1] and labels.shape != shape:
        if not (labels.min() >= 0 and np.allclose(labels.sum(axis=-1), 1, atol=1e-3)):  # label smoothing may be
            raise ValueError("One-hot labels must be 0 or more and sum to 1 for each sample.")
        return labels.argmax(axis=-1)
    if labels.shape not in (shape, (*shape, 1)):
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit outputs of shape {outputs}: expected class numbers "
            f"of shape {shape}, or one-hot of shape {outputs}."
        )
    labels = labels.reshape(shape)
    if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.rint(labels)):
        raise ValueError("Labels must be whole class numbers or one-hot.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels run from {labels.min():g} to {labels.max():g}, but the model has {classes} classes.")
    return labels.astype(np.int64)


def _call_arrays(model: Any, samples: Any) -> tuple[list[np.ndarray], Callable[[list[np.ndarray]], Any]]:
    """The samples as a flat list, and a function that puts a batch of them into the form the model takes."""
    names = flavor.input_names(model)
    if names is None:
        return _subclassed_call_arrays(model, samples)
    if isinstance(samples, Mapping):
        if set(samples) != set(names):
            raise ValueError(f"Model {model.name!r} has the inputs {names}, got {list(samples)}.")
        samples = [samples[name] for name in names]
    elif not (isinstance(samples, list | tuple) and len(names) > 1):
        samples = [samples]
    if len(samples) != len(names):
        raise ValueError(f"Model {model.name!r} has {len(names)} inputs {names}, got {len(samples)}.")
    return [*map(np.asarray, samples)], partial(flavor.pack_inputs, model)


def _subclassed_call_arrays(model: Any, samples: Any) -> tuple[list[np.ndarray], Callable[[list[np.ndarray]], Any]]:
    """The same for a subclassed model, whose inputs have an order and a structure, but names only in a dict."""
    import tensorflow as tf

    structure = flavor.call_specs(model)
    count = len(tf.nest.flatten(structure))
    if isinstance(samples, Mapping):
        same_keys = isinstance(structure, Mapping) and set(samples) == set(structure)
        samples = [samples[name] for name in (sorted(samples) if same_keys else in_number_order(samples))]
    elif count == 1 or not isinstance(samples, list | tuple):
        samples = [samples]
    if len(samples) != count:
        raise ValueError(f"Model {model.name!r} takes {count} inputs, got {len(samples)}.")
    return [*map(np.asarray, samples)], partial(tf.nest.pack_sequence_as, structure)


def _check_values(model: Any, arrays: list[np.ndarray]) -> None:
    """Refuse what is no number, which TensorFlow cuts to one or names no input at, and what has another shape."""
    import tensorflow as tf

    known = flavor.is_graph_model(model)
    specs = tf.nest.flatten(flavor.call_specs(model)) if known else [tf.TensorSpec(None, tf.string)] * len(arrays)
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype.kind not in ("biufOSU" if spec.dtype == tf.string else "biuf"):
            raise ValueError(f"Model {model.name!r} takes numbers, got samples of type {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"The samples for model {model.name!r} hold NaN or infinity; clean them first.")
        if array.ndim == 0 or not spec.shape[1:].is_compatible_with(array.shape[1:]):
            shape = tuple(spec.shape)[1:]
            raise ValueError(
                f"Model {model.name!r} takes samples of shape {shape}, got an array of shape {array.shape}."
            )


def _check_options(threshold: float | None, batch_size: int) -> None:
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}.")
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number, 1 or more; got {batch_size!r}.")


def _first_array(x: Any) -> Any:
    if isinstance(x, Mapping):
        return next(iter(x.values()))
    return x[0] if isinstance(x, list | tuple) else x


def _batches(x: Any) -> Iterator[Any]:
    """Batches of a dataset; a Keras PyDataset is indexed, and has no end of its own."""
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return (x[index] for index in range(len(x)))
    return iter(x)


def _joined(batches: list[Any]) -> Any:
    first = batches[0]
    if isinstance(first, Mapping):
        return {name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in first}
    if isinstance(first, list | tuple):
        return [np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*batches, strict=True)]
    return np.concatenate([np.asarray(batch) for batch in batches])
