"""TF-MOT's scheme of 8 bits."""

from __future__ import annotations

from edgeprune.schemes import Scheme

__all__ = ["Default8BitQuantizeScheme"]


class Default8BitQuantizeScheme:
    """Weights and activations of 8 bits.

    Args:
        disable_per_axis: as in TF-MOT, must be False: a file has a scale for each channel of a convolution.

    Raises:
        ValueError: `disable_per_axis` is true.
    """

    keeps_zeros = False

    def __init__(self, disable_per_axis: bool = False) -> None:
        if disable_per_axis:
            raise ValueError(
                "disable_per_axis=True: int8 files have a scale for each channel of a kernel. Leave it out; "
                "edgeprune.Scheme(8, 8, per_channel_dense=False) has one scale for a dense layer."
            )

    @property
    def scheme(self) -> Scheme:
        """The scheme of `edgeprune`."""
        return Scheme(8, 8)
