"""Layers that only move data: reshaping, joining, repeating."""

from __future__ import annotations

import numpy as np

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, factor, rule


@rule("Flatten")
def flatten_layer(call: Call) -> Value:
    """All axes into one; where the channels come first they are moved last before."""
    x = call.x
    if call.layer.data_format == "channels_first" and x.rank > 2:
        x = call.space.transpose(x, [0, *range(2, x.rank), 1])
    return call.space.reshape(x, call.output_shapes[0])


@rule("Reshape")
def reshape_layer(call: Call) -> Value:
    """Another shape for each sample."""
    given = call.space.reshape(call.x, call.output_shapes[0])
    call.resize_shape("target_shape", call.layer.target_shape, given, of_function=False, skip=1)
    return given


@rule("Permute")
def permute(call: Call) -> Value:
    """The axes in another order, counted from 1."""
    return call.space.transpose(call.x, [0, *call.layer.dims])


@rule("RepeatVector")
def repeat_vector(call: Call) -> Value:
    """The vector once for each step."""
    return call.output({-1: call.line(call.x, -1)})


@rule("Concatenate")
def concatenate_layer(call: Call) -> Value:
    """Channels side by side."""
    return call.space.concatenate(call.inputs, call.layer.axis)


@rule("Dot")
def dot(call: Call) -> Value:
    """The product of two tensors along an axis of each."""
    a, b = call.inputs
    axes = call.layer.axes
    axes = (axes, axes) if isinstance(axes, int | np.integer) else tuple(axes)
    axes = (a.axis(axes[0]), b.axis(axes[1]))
    read = call.line(a, axes[0])
    call.unite(read, call.line(b, axes[1]))
    call.mixes(read, why="its lengths are those of the kept channels" if call.layer.normalize else None)
    rest = [(v, other) for v, axis in zip((a, b), axes, strict=True) for other in range(1, v.rank) if other != axis]
    lines = [call.line(value, axis) for value, axis in rest]
    call.count_macs(
        1, factor(read, a.shape[axes[0]]), *(factor(line, v.shape[k]) for line, (v, k) in zip(lines, rest, strict=True))
    )
    return call.output(dict(enumerate(lines, start=1)))
