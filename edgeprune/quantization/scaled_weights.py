"""The weights of a layer whose channels are multiplied by factors, and what its kernel makes of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.quantization.channel_scales import (
    CONVOLUTIONS,
    DEPTHWISE,
    NORMALIZATIONS,
    SEPARABLE,
    TRANSPOSED,
    ScaledCall,
    kernels_of,
)
from edgeprune.types import Layer, Variable


def scaled_weights(call: ScaledCall, factors: np.ndarray) -> Iterator[tuple[Variable, np.ndarray]]:
    """The weights with which a layer does on scaled inputs what it did, and scales its outputs.

    Args:
        call: the call.
        factors: the factor of each node.

    Yields:
        Each weight that changes, with its new values.
    """
    layer: Any = call.step.layer
    taken = None if call.inputs is None else factors[call.inputs]
    given = None if call.outputs is None else factors[call.outputs]
    if (taken is None or (taken == 1).all()) and (given is None or (given == 1).all()):
        return
    if call.kind in NORMALIZATIONS:
        yield from _normalization(layer, taken, given)
        return
    if call.kind == "Embedding":
        if given is not None:
            yield layer.embeddings, _values(layer.embeddings) * given
        return
    kernel = kernels_of(layer, call.kind)[-1]
    yield kernel, _scaled_kernel(call, _values(kernel), taken, given)
    if layer.bias is not None and given is not None:
        yield layer.bias, _values(layer.bias) * given


def _scaled_kernel(
    call: ScaledCall, kernel: np.ndarray, taken: np.ndarray | None, given: np.ndarray | None
) -> np.ndarray:
    """The kernel that is applied last, which reads the input's factors and makes the output's."""
    if call.kind in DEPTHWISE:
        after = 1.0 if given is None else given.reshape(kernel.shape[-2:])
        return kernel * after / (1.0 if taken is None else taken[:, None])
    if call.kind in TRANSPOSED:
        return kernel * (1.0 if given is None else given[:, None]) / (1.0 if taken is None else taken)
    if taken is not None:
        if call.kind in SEPARABLE:
            taken = np.repeat(taken, kernel.shape[-2] // len(taken))
        kernel = kernel / _by_group(taken, kernel.shape)
    return kernel * (1.0 if given is None else given)


def _by_group(taken: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The factors of the input channels beside the two last axes of a kernel, whose filters each read one group."""
    groups = len(taken) // shape[-2]
    return np.repeat(taken.reshape(groups, -1).T, shape[-1] // groups, axis=1)


def _normalization(
    layer: Layer, taken: np.ndarray | None, given: np.ndarray | None
) -> Iterator[tuple[Variable, np.ndarray]]:
    """The statistics follow the input, so that training continues from there; gamma and beta follow the output."""
    mean, variance = _values(layer.moving_mean), _values(layer.moving_variance)
    before = np.ones(len(mean)) if taken is None else taken
    after = np.ones(len(mean)) if given is None else given
    if taken is not None:
        wanted = (variance + layer.epsilon) * np.square(before)
        moved = np.maximum(wanted - layer.epsilon, 0.0)
        yield layer.moving_mean, mean * before
        yield layer.moving_variance, moved
        after = after * np.sqrt((moved + layer.epsilon) / wanted)
    if layer.gamma is not None:
        yield layer.gamma, _values(layer.gamma) * after
    if layer.beta is not None and given is not None:
        yield layer.beta, _values(layer.beta) * given


def input_matrices(call: ScaledCall, *, squared: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What a kernel makes of each input channel for each output channel.

    Args:
        call: the call of a layer with a kernel.
        squared: add the squares of a window's values up, instead of the largest magnitude.

    Yields:
        For each group of channels that are read together the positions of its inputs, those of its outputs, and a
        matrix (inputs, outputs).
    """
    layer: Any = call.step.layer
    if call.kind in NORMALIZATIONS or call.kind == "Embedding":
        return
    first, last = (_window(_values(kernel), squared) for kernel in (kernels_of(layer, call.kind) * 2)[:2])
    if call.kind in DEPTHWISE:
        multiplier = first.shape[1]
        for channel, row in enumerate(first):
            yield np.array([channel]), channel * multiplier + np.arange(multiplier), row[None]
    elif call.kind in SEPARABLE:
        both = first.reshape(-1, 1) * last
        summed = both.reshape(len(first), first.shape[1], -1)
        matrix = summed.sum(axis=1) if squared else summed.max(axis=1)
        yield np.arange(len(matrix)), np.arange(matrix.shape[1]), matrix
    else:
        matrix = last.T if call.kind in TRANSPOSED else last
        groups = layer.groups if call.kind in CONVOLUTIONS else 1
        inputs, outputs = matrix.shape[0], matrix.shape[1] // groups
        for group in range(groups):
            own = slice(group * outputs, (group + 1) * outputs)
            yield group * inputs + np.arange(inputs), np.arange(matrix.shape[1])[own], matrix[:, own]


def _window(kernel: np.ndarray, squared: bool) -> np.ndarray:
    """A kernel's last two axes; its window's values are put together."""
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    return np.square(flat).sum(axis=0) if squared else np.abs(flat).max(axis=0)


def _values(variable: Variable) -> np.ndarray:
    return flavor.array_of(variable).astype(np.float64)
