"""How the numbers of a file are stored and computed: bits and granularity of weights and activations.

A scheme has a name for the common cases (`"int8"`) and is an object where more is to be said
(`Scheme(weight_bits=8, activation_bits=8, per_channel_dense=False)`); a function that accepts one accepts either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
FLOAT_BITS = 32
CALIBRATED = tuple(name for name, (_, activations) in _BITS.items() if activations < 32)


@dataclass(frozen=True)
class Scheme:
    """A quantization scheme.

    Args:
        weight_bits: 32 for float32, 16 for float16, 8 for int8, 4 for int4.
        activation_bits: 32 for float32, 16 for int16, 8 for int8. int16 and int8 need representative data.
        per_channel_dense: whether each unit of a dense layer has a scale of its own where activations are integers.
            With `False` the layer has one scale, which needs less RAM on a microcontroller and is less accurate.
        layers: the bits of the weights of single layers, 4, 8, or 32 for a layer that computes in floats, by name or
            pattern; the first that fits counts. Pairs or a dict: `Scheme(4, 8, layers={"head": 8, "block_*": 4})`.
            `plan_quantization` chooses them.

    Raises:
        TypeError: an argument is of another type.
        ValueError: there is no such combination of bits; or `per_channel_dense=False` or `layers` with activations
            that are not integers of 8 bits.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec

    Example:
        >>> scheme_of("int16x8")
        Scheme(weight_bits=8, activation_bits=16, per_channel_dense=True, layers=())
        >>> Scheme(weight_bits=8, activation_bits=8).name
        'int8'
        >>> print(Scheme(4, 8, layers={"head": 8, "gate": 32}))
        int4; weights of 8 bits: head; in floats: gate
    """

    weight_bits: int = 32
    activation_bits: int = 32
    per_channel_dense: bool = True
    layers: Mapping[str, int] | tuple[tuple[str, int], ...] = ()

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
        object.__setattr__(self, "layers", _pairs(self.layers))
        if self.layers and self.name not in ("int8", "int4"):
            raise ValueError(f"Bits of single layers need 'int8' or 'int4', got {self.name!r}.")

    def __str__(self) -> str:
        """The name, and what differs from it."""
        parts = [self.name or "float32", *([self.layers_text] if self.layers else [])]
        parts += [] if self.per_channel_dense else ["one scale for a dense layer"]
        return "; ".join(parts)

    @property
    def layers_text(self) -> str:
        """The bits of single layers in words; empty where none has its own.

        Example:
            >>> Scheme(4, 8, layers={"head": 8, "gate": 32, "stem": 8}).layers_text
            'weights of 8 bits: head, stem; in floats: gate'
        """
        of_bits: dict[int, list[str]] = {}
        for pattern, bits in self.layer_bits.items():
            of_bits.setdefault(bits, []).append(pattern)
        return "; ".join(
            f"{'in floats' if bits == FLOAT_BITS else f'weights of {bits} bits'}: {', '.join(patterns)}"
            for bits, patterns in of_bits.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The arguments as JSON has them.

        Example:
            >>> Scheme(4, 8, layers={"head": 8}).to_dict()["layers"]
            {'head': 8}
        """
        return asdict(self) | {"layers": self.layer_bits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scheme:
        """The scheme of these arguments, as `to_dict` returns them.

        Raises:
            TypeError: one is unknown, or of another type.
            ValueError: as for a scheme.
        """
        return cls(**values)

    @property
    def name(self) -> Quantization | None:
        """The scheme's name, None for float32; granularity is not part of it, nor are single layers."""
        return next(name for name, bits in _BITS.items() if bits == (self.weight_bits, self.activation_bits))

    @property
    def layer_bits(self) -> dict[str, int]:
        """Name or pattern of layers to the bits of their weights."""
        return dict(self.layers)

    @property
    def has_four_bits(self) -> bool:
        """Whether weights of any layer have 4 bits."""
        return self.weight_bits == 4 or 4 in self.layer_bits.values()

    @property
    def has_float_layers(self) -> bool:
        """Whether single layers compute in floats where the others compute in integers."""
        return FLOAT_BITS in self.layer_bits.values()

    @property
    def is_calibrated(self) -> bool:
        """Whether activations are integers, whose ranges are found from representative data."""
        return self.activation_bits < 32


def _pairs(layers: Mapping[str, int] | Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Bits of single layers, checked."""
    pairs: tuple[Any, ...] = tuple(layers.items()) if isinstance(layers, Mapping) else tuple(map(tuple, layers))
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"layers of a Scheme are names or patterns with their bits, got {layers!r}.")
        if pair[1] not in (4, 8, FLOAT_BITS):
            raise ValueError(
                f"Weights of layer {pair[0]!r} have 4 or 8 bits, or 32 for a layer in floats; got {pair[1]!r}. "
                "Activations of 16 bits are for whole files, 'int16x8'."
            )
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"layers of a Scheme name a pattern twice: {layers!r}.")
    return pairs


def scheme_of(quantization: str | Scheme | None) -> Scheme:
    """The scheme of this name, or the scheme itself.

    Args:
        quantization: one of `QUANTIZATIONS`, or a `Scheme`.

    Raises:
        ValueError: there is no scheme of this name.

    Example:
        >>> scheme_of(None)
        Scheme(weight_bits=32, activation_bits=32, per_channel_dense=True, layers=())
    """
    if isinstance(quantization, Scheme):
        return quantization
    if quantization not in QUANTIZATIONS:
        known = ", ".join(map(repr, QUANTIZATIONS))
        raise ValueError(f"quantization must be one of {known}, or a Scheme; got {quantization!r}.")
    return Scheme(*_BITS[quantization])
