"""The operators of an integer file that stay in floats, because a scheme says so of their layers."""

from __future__ import annotations

from edgeprune.export.diagnosis import ConversionError, paths_behind
from edgeprune.layer_patterns import of_first_pattern
from edgeprune.schemes import FLOAT_BITS
from edgeprune.tflite.graph import operators, unpacked
from edgeprune.types import Model

_Layers = tuple[tuple[str, int], ...]  # as `Scheme.layers` has them


def is_in_floats(location: str, model: Model, layers: _Layers) -> bool:
    """Whether a scheme leaves an operator in floats: it does so with one of the layers that the operator computes.

    Args:
        location: the name of the operator's first output.
        model: the Keras model that is converted.
        layers: bits of single layers.
    """
    return any(of_first_pattern(path, dict(layers)) == FLOAT_BITS for path in paths_behind(location, model))


def float_locations(content: bytes, model: Model, layers: _Layers) -> list[str]:
    """The names of the first outputs of the operators that are to compute in floats.

    Args:
        content: the .tflite file in which they are not integers yet.
        model: the Keras model that is converted.
        layers: bits of single layers.

    Raises:
        ConversionError: a layer that the scheme leaves in floats has no operator in the file.
    """
    locations = [call.location for call in operators(unpacked(content))]
    paths = {path for location in locations for path in paths_behind(location, model)}
    for pattern in (pattern for pattern, bits in layers if bits == FLOAT_BITS):
        if not any(of_first_pattern(path, {pattern: True}) for path in paths):
            raise ConversionError(
                f"No operator of the file is named after the layer {pattern!r} that the scheme leaves in floats: the "
                "operator of a layer before or behind it does its work. Name that one too."
            )
    return [location for location in locations if is_in_floats(location, model, layers)]
