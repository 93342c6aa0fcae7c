"""What the layers of a quantization-aware model do with channels, so that channels can be removed from it."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules import Call, rule


@rule("edgeprune.FakeQuantize")
def fake_quantize(call: Call) -> Value:
    """Rounds every value; all channels have one range."""
    return call.x


@rule("edgeprune.QuantizedLayer")
def quantized_layer(call: Call) -> Sequence[Value]:
    """The layer inside, whose kernels have masks of their shape for the zeros that are kept."""
    layer = call.layer
    given = call.follow(layer.layer, call.inputs, call.output_shapes)
    for name in layer.kept_zeros:
        kernel, mask = layer.kernel(name), layer.mask(name)
        for axis in range(len(kernel.shape)):
            call.index(mask, axis, call.record.line_of(kernel, axis))
    return given
