"""The bits of each layer's weights in a file of a scheme."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune import flavor
from edgeprune.layer_patterns import by_first_pattern
from edgeprune.quantization.kinds import kernel_axes, reads_four_bits
from edgeprune.schemes import FLOAT_BITS, Scheme
from edgeprune.types import Model

_SOURCE = "The scheme's layers"


def weight_bits(model: Model, scheme: Scheme, names: Mapping[int, str]) -> dict[int, int]:
    """The bits of the integers that each layer's kernels are stored in.

    Args:
        model: a built model of either Keras.
        scheme: one whose weights are integers.
        names: `id` of a layer to its path name.

    Returns:
        `id` of a layer with kernels to 4 or 8. Operators that have no kernel for 4 bits have 8; layers in floats are
        left out.

    Raises:
        ValueError: a pattern of the scheme fits no layer.
    """
    of_pattern = by_first_pattern(model, scheme.layer_bits, names, _SOURCE)
    return {
        id(layer): bits if bits == 8 or reads_four_bits(layer) else 8
        for layer in flavor.layers_of(model)
        if (kernel_axes(layer) or reads_four_bits(layer))
        and (bits := of_pattern.get(id(layer), scheme.weight_bits)) != FLOAT_BITS
    }


def float_layers(model: Model, scheme: Scheme) -> set[int]:
    """The `id` of the layers of a model, and of those inside them, that a scheme leaves in floats.

    Raises:
        ValueError: a pattern of the scheme fits no layer.
    """
    of_pattern = by_first_pattern(model, scheme.layer_bits, flavor.layer_names(model), _SOURCE)
    return {key for key, bits in of_pattern.items() if bits == FLOAT_BITS}
