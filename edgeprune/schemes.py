"""How the numbers of a file are stored and computed: bits and granularity of weights and activations.

A scheme has a name for the common cases (`"int8"`) and is an object where more is to be said
(`Scheme(weight_bits=8, activation_bits=8, per_channel_dense=False)`); a function that accepts one accepts either.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.types import Quantization

# Bits of weights and of activations, by the name of the scheme; None is float32.
_BITS: dict[Quantization | None, tuple[int, int]] = {
    None: (32, 32),
    "dynamic": (8, 32),
    "float16": (16, 32),
    "int8": (8, 8),
    "int16x8": (8, 16),
    "int4": (4, 8),
}
QUANTIZATIONS = tuple(_BITS)
CALIBRATED = tuple(name for name, (_, activations) in _BITS.items() if activations < 32)


@dataclass(frozen=True)
class Scheme:
    """A quantization scheme.

    Args:
        weight_bits: 32 for float32, 16 for float16, 8 for int8, 4 for int4.
        activation_bits: 32 for float32, 16 for int16, 8 for int8. int16 and int8 need representative data.
        per_channel_dense: whether each unit of a dense layer has a scale of its own where activations are integers.
            With `False` the layer has one scale, which needs less RAM on a microcontroller and is less accurate.

    Raises:
        ValueError: there is no such combination of bits, or `per_channel_dense=False` with activations in floats.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec

    Example:
        >>> scheme_of("int16x8")
        Scheme(weight_bits=8, activation_bits=16, per_channel_dense=True)
        >>> Scheme(weight_bits=8, activation_bits=8).name
        'int8'
    """

    weight_bits: int = 32
    activation_bits: int = 32
    per_channel_dense: bool = True

    def __post_init__(self) -> None:
        """Refuse what no converter makes."""
        bits = (self.weight_bits, self.activation_bits)
        if bits not in _BITS.values():
            known = "; ".join(f"{pair[0]} and {pair[1]} ({name or 'float32'})" for name, pair in _BITS.items())
            raise ValueError(f"Weights of {bits[0]} bits with activations of {bits[1]} bits: pass one of {known}.")
        if not isinstance(self.per_channel_dense, bool):
            raise TypeError(f"per_channel_dense must be True or False, got {self.per_channel_dense!r}.")
        if not self.per_channel_dense and not self.is_calibrated:
            raise ValueError(f"per_channel_dense=False needs 'int8', 'int16x8' or 'int4', got {self.name!r}.")

    @property
    def name(self) -> Quantization | None:
        """The scheme's name, None for float32; granularity is not part of it."""
        return next(name for name, bits in _BITS.items() if bits == (self.weight_bits, self.activation_bits))

    @property
    def is_calibrated(self) -> bool:
        """Whether activations are integers, whose ranges are found from representative data."""
        return self.activation_bits < 32


def scheme_of(quantization: str | Scheme | None) -> Scheme:
    """The scheme of this name, or the scheme itself.

    Args:
        quantization: one of `QUANTIZATIONS`, or a `Scheme`.

    Raises:
        ValueError: there is no scheme of this name.

    Example:
        >>> scheme_of(None)
        Scheme(weight_bits=32, activation_bits=32, per_channel_dense=True)
    """
    if isinstance(quantization, Scheme):
        return quantization
    if quantization not in QUANTIZATIONS:
        known = ", ".join(map(repr, QUANTIZATIONS))
        raise ValueError(f"quantization must be one of {known}, or a Scheme; got {quantization!r}.")
    return Scheme(*_BITS[quantization])
