"""Find a Keras model's weights in a .tflite file, and set their zeros side by side."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeprune.measure.parameters import weights_by_layer
from edgeprune.tflite.file import TfliteFile
from edgeprune.tflite.tensors import ConstantTensor
from edgeprune.types import Model


@dataclass(frozen=True)
class WeightZeros:
    """The zeros of one Keras weight beside those of the file's tensor that holds it.

    Attributes:
        layer: the Keras layer's name.
        shape: the Keras weight's shape.
        elements: number of its values.
        keras_zeros: how many are zero in the Keras model.
        tensor: the name of the file's tensor, `None` if none was found that holds the weight.
        file_zeros: how many values are zero in the file; `None` without a tensor.
        kept: how many are zero in both, at the same place; `None` without a tensor.
    """

    layer: str
    shape: tuple[int, ...]
    elements: int
    keras_zeros: int
    tensor: str | None
    file_zeros: int | None
    kept: int | None


def zeros_of_weights(model: Model, file: TfliteFile) -> tuple[WeightZeros, ...]:
    """Find each Keras weight in a file by its content, and set their zeros side by side.

    Converters transpose weights, merge axes and fold batch normalisation into them, channel by channel. So a
    weight's tensor is the one with as many values whose channels point the same way (cosine similarity) under
    one of the usual transpositions; names decide between equals. Where none has, channels that `equalize` scaled on
    both sides are compared without their scales.

    Args:
        model: a built Keras model.
        file: what `read_tflite` read from the file converted from it.

    Returns:
        One row for each weight with two axes or more (kernels, embeddings), biases left out.
    """
    tensors = [(tensor, tensor.values()) for tensor in file.weights if tensor.elements > 1]
    return tuple(
        _zeros_of_weight(name, np.asarray(weight, np.float32), tensors)
        for weight, name in weights_by_layer(model)
        if len(weight.shape) >= 2 and "bias" not in weight.name
    )


_ROUNDS = 20  # of making lengths equal, axis by axis, which converges
_Tensors = list[tuple[ConstantTensor, np.ndarray]]


def _zeros_of_weight(layer: str, weight: np.ndarray, tensors: _Tensors) -> WeightZeros:
    found = [_find(layer, weight, tensors)]
    if found == [None] and weight.shape[-1] % 4 == 0:  # the fused LSTM stores its four gates apart
        found = [_find(layer, gate, tensors) for gate in np.split(weight, 4, axis=-1)]
    zeros = int(np.count_nonzero(weight == 0))
    facts = (layer, weight.shape, weight.size, zeros)
    if None in found:
        return WeightZeros(*facts, None, None, None)
    names, file_zeros, kept = zip(*found, strict=True)
    return WeightZeros(*facts, "; ".join(names), sum(file_zeros), sum(kept))


def _find(layer: str, weight: np.ndarray, tensors: _Tensors) -> tuple[str, int, int] | None:
    """The tensor that holds a weight: its name, its zeros, and how many of them are the weight's too."""
    alike = [(tensor, values) for tensor, values in tensors if tensor.elements == weight.size]
    return _most_alike(layer, weight, alike, _unchanged) or _most_alike(layer, weight, alike, _without_scales)


def _most_alike(
    layer: str, weight: np.ndarray, tensors: _Tensors, seen: Callable[[np.ndarray], np.ndarray]
) -> tuple[str, int, int] | None:
    best: tuple[float, tuple[str, int, int] | None] = (0.9, None)
    for tensor, values in tensors:
        named = layer.rpartition("/")[2] in re.split("[/;]", tensor.name)
        for layout in _layouts(weight):
            candidate = layout.reshape(values.shape)
            likeness = _likeness(seen(values), seen(candidate)) + 0.01 * named
            if likeness > best[0]:
                best = (likeness, (tensor.name, tensor.zeros, int(np.count_nonzero((values == 0) & (candidate == 0)))))
    return best[1]


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


def _without_scales(values: np.ndarray) -> np.ndarray:
    """The values with channels of equal length on the first and the last axis, which undoes factors on either."""
    for _ in range(_ROUNDS):
        for axis in (0, -1):
            others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
            lengths = np.sqrt(np.square(values).sum(others, keepdims=True))
            values = values / np.where(lengths == 0, 1.0, lengths)
    return values


def _layouts(weight: np.ndarray) -> Iterator[np.ndarray]:
    """A weight in the orders of axes that converters use, its own first."""
    if weight.ndim <= 3:
        orders: Iterable[tuple[int, ...]] = itertools.permutations(range(weight.ndim))
    else:  # as it is: depthwise, 3D; last axis first: convolution; last but one first: transposed convolution
        *window, before_last, last = range(weight.ndim)
        orders = [
            (*window, before_last, last),
            (last, *window, before_last),
            (before_last, *window, last),
        ]
    for order in orders:
        yield weight.transpose(order)


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine similarity, without sign, of the channels of two arrays of one shape, 0 to 1."""
    return max(_channel_likeness(a, b, axis) for axis in (0, -1))


def _channel_likeness(a: np.ndarray, b: np.ndarray, axis: int) -> float:
    if a.shape[axis] == a.size:  # channels of one value say nothing
        return 0.0
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (a, b))
    product = np.abs(np.einsum("ci,ci->c", a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_empty = ~(a.any(axis=1) | b.any(axis=1))
    return float(np.mean(np.where(both_empty, 1.0, product / np.where(lengths == 0, 1.0, lengths))))
