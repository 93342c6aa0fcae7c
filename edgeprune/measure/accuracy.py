"""Top-1 accuracy on labelled data, of a .tflite file or of a Keras model, by one rule for both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import first_array
from edgeprune.data.named_inputs import named_samples
from edgeprune.measure.predictions import gather, predict
from edgeprune.number_checks import check_whole
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Arrays, DataLike, Model


def accuracy(
    path_or_model: str | Path | Model,
    x: DataLike,
    y: Arrays | None = None,
    *,
    output: str | None = None,
    threshold: float | None = None,
    batch_size: int = 32,
    num_threads: int = 1,
    use_xnnpack: bool = True,
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
            output for each position (a segmentation) needs labels of the positions' shape. Left out for
            batches.
        output: name of the output that holds the classes, needed where there are several.
        threshold: for a single output value, what counts as class 1: above it. By default 0.5 if all outputs
            lie in [0, 1] (a sigmoid) and else 0 (a logit).
        batch_size: samples that a Keras model computes at once.
        num_threads: threads for the interpreter.
        use_xnnpack: whether the interpreter may use XNNPACK.

    Returns:
        The accuracy, 0 to 1.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: `path_or_model` is neither a path nor a Keras model.
        ValueError: the samples do not fit the inputs, are no numbers or not finite; the labels do not fit the samples
            or the outputs; an option is out of range.

    Example:
        >>> classes = model.predict(x, verbose=0).argmax(-1)
        >>> accuracy(model, x, classes), accuracy(model, x, (classes + 1) % 10)
        (1.0, 0.0)
    """
    _check_options(threshold, batch_size)
    if isinstance(path_or_model, str | Path):
        runtime = Runtime(path_or_model, num_threads=num_threads, use_xnnpack=use_xnnpack)
        samples, labels = _labelled(runtime, x, y)
        outputs = runtime.run_all(named_samples(runtime, samples), f"Accuracy of {runtime.path.name}")
        return top_1(choose_output(outputs, output), labels, threshold)
    if not flavor.is_model(path_or_model):
        raise TypeError(f"Expected a .tflite file or a Keras model, got {type(path_or_model).__name__}.")
    samples, labels = _labelled(path_or_model, x, y)
    outputs = predict(path_or_model, samples, batch_size=batch_size)
    return top_1(choose_output(outputs, output), labels, threshold)


def top_1(outputs: np.ndarray, labels: Arrays, threshold: float | None = None) -> float:
    """The share of outputs that predict the label's class.

    Args:
        outputs: `(samples, ..., classes)`, or `(samples, 1)` for two classes; logits or probabilities.
        labels: class numbers or one-hot, as `accuracy` accepts them.
        threshold: as in `accuracy`.

    Returns:
        The accuracy, 0 to 1.

    Raises:
        ValueError: the labels do not fit the outputs, or an output is NaN.

    Example:
        >>> top_1(np.array([[0.1, 0.9], [0.8, 0.2]]), [1, 1])
        0.5
    """
    return float(np.mean(right_ones(outputs, labels, threshold)))


def right_ones(outputs: np.ndarray, labels: Arrays, threshold: float | None = None) -> np.ndarray:
    """Which outputs predict the label's class: booleans `(samples, ...)`, one for each sample and position.

    Args:
        outputs: as `top_1` accepts them.
        labels: as `top_1` accepts them.
        threshold: as in `accuracy`.

    Raises:
        ValueError: as `top_1`.
    """
    if not np.isfinite(outputs).all():
        raise ValueError("The model's outputs hold NaN or infinity, so they name no class.")
    given = predicted_classes(outputs, threshold)
    return given == label_classes(np.asarray(labels), given.shape, outputs.shape)


def predicted_classes(outputs: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The class each output names: the largest of several values, or a single value above the threshold."""
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    if threshold is None:
        threshold = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0.0
    return (outputs.reshape(len(outputs), *outputs.shape[1:-1]) > threshold).astype(np.int64)


def choose_output(outputs: Mapping[str, np.ndarray], name: str | None) -> np.ndarray:
    """The output that holds the classes: the only one, or the one named."""
    listed = ", ".join(map(repr, outputs))
    if name is None and len(outputs) != 1:
        raise ValueError(f"The model has several outputs ({listed}): name the one to score as output=.")
    if name is not None and name not in outputs:
        raise ValueError(f"The model has no output {name!r}; it has {listed}.")
    return outputs[name] if name is not None else next(iter(outputs.values()))


def _labelled(judged: Model | Runtime, x: DataLike, y: Arrays | None) -> tuple[Any, np.ndarray]:
    """Samples and as many labels."""
    samples, labels, _ = gather(judged, x, y)
    if labels is None:
        raise ValueError("Labels are missing: pass y, or batches (x, y) as a dataset.")
    count = len(first_array(samples))
    if np.ndim(labels) == 0 or len(labels) != count:
        shape = np.shape(labels)
        raise ValueError(f"Got {count} samples and labels of shape {shape}: one label a sample is needed.")
    return samples, np.asarray(labels)


def label_classes(labels: np.ndarray, shape: tuple[int, ...], outputs: tuple[int, ...]) -> np.ndarray:
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


def _check_options(threshold: float | None, batch_size: int) -> None:
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}.")
    check_whole("batch_size", batch_size, 1)
