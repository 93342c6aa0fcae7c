"""TF-MOT's scheme that keeps the zeros of pruning; its other ones are about clustering, which is not here."""

from __future__ import annotations

from edgeprune.tfmot.quantization.keras.default_8bit import Default8BitQuantizeScheme

__all__ = ["Default8BitPrunePreserveQuantizeScheme"]


class Default8BitPrunePreserveQuantizeScheme(Default8BitQuantizeScheme):
    """Weights and activations of 8 bits; weights that are zero are kept."""

    keeps_zeros = True
