"""TF-MOT's scheme with a choice of bits."""

from __future__ import annotations

from edgeprune.schemes import Scheme
from edgeprune.tfmot.quantization.keras.default_8bit import Default8BitQuantizeScheme

__all__ = ["DefaultNBitQuantizeScheme"]


class DefaultNBitQuantizeScheme(Default8BitQuantizeScheme):
    """Weights and activations of a number of bits that a file can have.

    Args:
        disable_per_axis: as in TF-MOT, must be False.
        num_bits_weight: 8 or 4.
        num_bits_activation: 8; or 16, with weights of 8 bits, and activations are not rounded.

    Raises:
        ValueError: no file has this combination.
    """

    def __init__(self, disable_per_axis: bool = False, num_bits_weight: int = 8, num_bits_activation: int = 8) -> None:
        super().__init__(disable_per_axis)
        self._scheme = Scheme(num_bits_weight, num_bits_activation)

    @property
    def scheme(self) -> Scheme:
        """The scheme of `edgeprune`."""
        return self._scheme
