"""Weights that a composite layer uses itself: class tokens, tables of positions, scales."""

from __future__ import annotations

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, function_rule


@function_rule("ownweight")
def own_weight(call: Call) -> Value:
    """Each axis makes channels: what is done with the weight decides whether they can be dropped."""
    variable, owner = call.layer.variable, call.layer.owner
    lines = {axis: call.make(variable, axis, layer=owner) for axis, size in enumerate(variable.shape) if size > 1}
    return call.space.value(tuple(variable.shape), lines)
