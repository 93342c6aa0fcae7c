"""Layers that only the ready-made models of `keras.applications` bring along."""

from __future__ import annotations

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, rule


@rule("LayerScale")
def layer_scale(call: Call) -> Value:
    """One factor for each channel."""
    line = call.line(call.x, -1)
    call.index(call.layer.gamma, 0, line)
    call.resize("projection_dim", line)
    return call.x


@rule("StochasticDepth")
def stochastic_depth(call: Call) -> Value:
    """Drops whole samples, in training."""
    return call.x


@rule("CustomScaleLayer")
def custom_scale_layer(call: Call) -> Value:
    """A tensor plus a multiple of another."""
    return call.merge(call.inputs)
