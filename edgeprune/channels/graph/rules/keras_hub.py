"""Layers of KerasHub that keep their class: their calls ask for sizes that a graph of plain calls does not know.

All others are followed through the calls that they make inside.
"""

from __future__ import annotations

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, rule


@rule("keras_hub.PositionEmbedding")
def position_embedding(call: Call) -> Value:
    """As many rows of its table (positions, width) as the input has places, whatever the values there."""
    line = call.line(call.x, -1)
    call.index(call.layer.position_embeddings, 1, line)
    return call.output({-1: line})


@rule("keras_hub.RotaryEmbedding")
def rotary_embedding(call: Call) -> Value:
    """Turns pairs of channels by angles that follow from their number."""
    x = call.space.tied_along(call.x, call.x.axis(call.layer.feature_axis))
    call.freeze(call.line(x, call.layer.feature_axis), f"{call.name} turns it by pairs")
    return x
