"""Layers with a kernel: dense, convolutions of every kind, EinsumDense, Embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.elementwise import follow_activation
from edgeprune.channels.graph.rules.registry import Call, factor, rule
from edgeprune.types import Layer


def channel_axis(layer: Layer) -> int:
    """The axis of a layer's tensors that its channels lie along."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def places(shape: tuple[int, ...], channels: int) -> int:
    """The number of places of a tensor, its channels not counted."""
    return math.prod(shape) // max(shape[channels], 1)


@rule("Dense")
def dense(call: Call) -> Value:
    """Its kernel (in, units) works along the last axis."""
    x, layer = call.x, call.layer
    read = call.read(x, -1, layer.kernel, 0)
    units = call.make(layer.kernel, 1)
    call.index(layer.bias, 0, units)
    call.resize("units", units)
    others = call.space.other_lines(x, [-1])
    rows = [factor(others.get(axis), size) for axis, size in enumerate(x.shape[:-1])]
    call.count_macs(1, *rows, factor(read, x.shape[-1]), units)
    follow_activation(call, layer.activation, units)
    return call.output({-1: units, **others})


@rule("Conv1D", "Conv2D", "Conv3D")
def convolution(call: Call) -> Value:
    """Its kernel is (*sizes, in / groups, filters); each group of filters reads its own part of the input."""
    x, layer, axis = call.x, call.layer, channel_axis(call.layer)
    call.channels(x, axis)
    kernel, groups, size = layer.kernel, layer.groups, math.prod(layer.kernel.shape[:-2])
    count = places(call.output_shapes[0], axis) * size
    line = call.line(x, axis)
    if groups > 1 and kernel.shape[-2] == 1 and line is not None:
        filters = np.repeat(line, kernel.shape[-1] // groups)
        call.index(kernel, -1, filters)
        call.resize("groups", line)
        call.count_macs(count, filters)
    else:
        call.tie_repeats(line, groups)
        read = call.read(x, axis, kernel, -2, via=lambda line: line[: kernel.shape[-2]])
        filters = call.make(kernel, -1)
        call.tie_repeats(filters, groups)
        call.count_macs(count, factor(None if read is None else read[: kernel.shape[-2]], kernel.shape[-2]), filters)
    call.index(layer.bias, 0, filters)
    call.resize("filters", filters)
    follow_activation(call, layer.activation, filters)
    return call.output({axis: filters})


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed_convolution(call: Call) -> Value:
    """Its kernel is (*sizes, filters, in)."""
    x, layer, axis = call.x, call.layer, channel_axis(call.layer)
    call.channels(x, axis)
    read = call.read(x, axis, layer.kernel, -1)
    filters = call.make(layer.kernel, -2)
    call.index(layer.bias, 0, filters)
    call.resize("filters", filters)
    size = math.prod(layer.kernel.shape[:-2])
    call.count_macs(places(x.shape, axis) * size, factor(read, x.shape[axis]), filters)
    follow_activation(call, layer.activation, filters)
    return call.output({axis: filters})


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_convolution(call: Call) -> Value:
    """Its kernel is (*sizes, in, multiplier): each channel makes `multiplier` neighbouring ones of its own."""
    x, layer, axis = call.x, call.layer, channel_axis(call.layer)
    call.channels(x, axis)
    kernel = depthwise_kernel(layer)
    line = call.line(x, axis)
    made = None if line is None else np.repeat(line, kernel.shape[-1])
    call.index(kernel, -2, line)
    call.index(layer.bias, 0, made)
    count = places(call.output_shapes[0], axis) * math.prod(kernel.shape[:-2]) * kernel.shape[-1]
    call.count_macs(count, factor(line, x.shape[axis]))
    follow_activation(call, layer.activation, made)
    return call.output({axis: made})


def depthwise_kernel(layer: Layer) -> Any:
    """The kernel of a depthwise convolution, which the two Kerases call differently."""
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


@rule("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D")
def separable_convolution(call: Call) -> Value:
    """A depthwise convolution (without bias) and a pointwise one whose kernel is (1, ..., in * multiplier, filters)."""
    x, layer, axis = call.x, call.layer, channel_axis(call.layer)
    call.channels(x, axis)
    depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    multiplier = depthwise.shape[-1]
    line = call.read(x, axis, pointwise, -2, via=lambda line: np.repeat(line, multiplier))
    call.index(depthwise, -2, line)
    filters = call.make(pointwise, -1)
    call.index(layer.bias, 0, filters)
    call.resize("filters", filters)
    count, size = places(call.output_shapes[0], axis), math.prod(depthwise.shape[:-2])
    call.count_macs(count * size * multiplier, factor(line, x.shape[axis]))
    call.count_macs(count * multiplier, factor(line, x.shape[axis]), filters)
    follow_activation(call, layer.activation, filters)
    return call.output({axis: filters})


@rule("Embedding")
def embedding(call: Call) -> Value:
    """Its table is (words, width)."""
    width = call.make(call.layer.embeddings, 1)
    reverse = getattr(call.layer, "reverse_embeddings", None)  # of a ReversibleEmbedding that has two tables
    call.index(reverse, 0, width)
    call.resize("output_dim", width)
    return call.output({-1: width})


@rule("ReversibleEmbedding")
def reversible_embedding(call: Call) -> Value | Sequence[Value]:
    """An Embedding that may also be called on what has its width, for the scores of all words."""
    layer = call.layer
    if not call.kwargs.get("reverse", len(call.args) > 1 and call.args[1]):
        return embedding(call)
    x = call.x
    read = call.read(x, -1, *((layer.embeddings, 1) if layer.tie_weights else (layer.reverse_embeddings, 0)))
    call.count_macs(places(x.shape, -1) * layer.input_dim, factor(read, x.shape[-1]))
    others = call.space.other_lines(x, [-1])
    return call.output(others)


@rule("EinsumDense")
def einsum_dense(call: Call) -> Value:
    """The letters of its equation say which axis of the kernel reads which axis of the input, or makes one."""
    x, layer = call.x, call.layer
    settled, shape = call.space.settled(x), call.output_shapes[0]
    terms, _, result = layer.equation.replace(" ", "").partition("->")
    taken, weights = terms.split(",")
    hidden = "0123456789"[: x.rank - len(taken.replace("...", ""))]  # the axes under an ellipsis
    taken, result = taken.replace("...", hidden), result.replace("...", hidden)
    lines: dict[str, np.ndarray] = {}
    factors: dict[str, np.ndarray | int] = dict(zip(taken, x.shape, strict=True))
    line: np.ndarray | None
    for axis, letter in enumerate(weights):
        factors[letter] = layer.kernel.shape[axis]
        if letter not in taken:
            lines[letter] = factors[letter] = call.make(layer.kernel, axis)
            continue
        if letter in result:
            line = call.line(settled, taken.index(letter))
            call.index(layer.kernel, axis, line)
        else:
            line = call.read(x, taken.index(letter), layer.kernel, axis)
        if line is not None:
            lines[letter] = factors[letter] = line
    for letter in taken:
        if letter not in weights and (line := call.line(settled, taken.index(letter))) is not None:
            if letter in result:
                lines[letter] = factors[letter] = line
            else:
                call.contract(x, taken.index(letter))
    if layer.bias is not None:
        for axis, letter in enumerate(reversed(result), start=1):
            if axis <= len(layer.bias.shape) and layer.bias.shape[-axis] > 1:
                call.index(layer.bias, -axis, lines.get(letter))
    given = call.output({axis: lines.get(letter) for axis, letter in enumerate(result)})
    stated = layer.partial_output_shape
    call.resize_shape("output_shape", stated, given, of_function=False, skip=len(shape) - len(stated))
    call.count_macs(1, *factors.values())
    follow_activation(call, layer.activation, lines.get(result[-1]))
    return given
