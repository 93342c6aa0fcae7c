"""The normalisation layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.elementwise import mix_along
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, rule, rule_for
from edgeprune.types import Layer


def normalized_axes(layer: Layer, rank: int) -> list[int]:
    """The axes a layer normalises, counted from 0, in order."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return sorted(axis % rank for axis in axes)


@rule("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(call: Call) -> Value:
    """Statistics, scale and offset for each channel apart."""
    layer = call.layer
    axes = normalized_axes(layer, call.x.rank)
    if len(axes) > 1:
        call.freeze(call.x, f"{call.name} has statistics along several axes")
        return call.x
    line = call.line(call.x, axes[0])
    for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        call.index(weight, 0, line)
    return call.x


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(call: Call) -> Value:
    """Statistics over the channels, scale and offset for each of them."""
    layer = call.layer
    axes = normalized_axes(layer, call.x.rank)
    for name in ("gamma", "beta", "scale"):
        weight = getattr(layer, name, None)
        if hasattr(weight, "shape"):
            for position, axis in enumerate(axes):
                call.index(weight, position, call.line(call.x, axis))
    mix_along(call, axes, "its statistics are those of the kept channels")
    return call.x


@rule("UnitNormalization")
def unit_normalization(call: Call) -> Value:
    """Divides by the length of the vector of channels."""
    mix_along(call, normalized_axes(call.layer, call.x.rank), "its length is that of the kept channels")
    return call.x


@rule("GroupNormalization")
def group_normalization(call: Call) -> Value:
    """Statistics over groups of neighbouring channels, which must remain equally large."""
    layer, x = call.layer, call.x
    axis = x.axis(layer.axis)
    line = call.channels(x, axis)
    if line is not None:
        groups = len(line) if layer.groups == -1 else layer.groups
        for weight in (layer.gamma, layer.beta):
            call.index(weight, 0, line)
        if groups == len(line):
            call.resize("groups", line)
        else:
            call.tie_repeats(line, groups)
            mix_along(call, [axis], "its statistics are those of the kept channels")
    return x


@rule("SpectralNormalization")
def spectral_normalization(call: Call) -> Value | Sequence[Value]:
    """Divides the wrapped layer's kernel by its largest singular value, in training only."""
    wrapper = call.layer
    call.layer = wrapper.layer
    try:
        given = rule_for(wrapper.layer)(call)
    finally:
        call.layer = wrapper
    kernel = wrapper.kernel
    made = call.record.line_of(kernel, len(kernel.shape) - 1)
    if math.prod(wrapper.vector_u.shape) != kernel.shape[-1]:
        raise CannotFollow("its vector does not fit its kernel")
    call.index(wrapper.vector_u, 1, made)
    return given
