"""What a search may do to a model, beside choosing its widths."""

from __future__ import annotations

from dataclasses import dataclass

SPARSITIES = (0.5, 0.75)
_FIRST_PART = 3  # the first part of the training is one of so many
_ROUNDING_EPOCHS = 0.5  # of the epochs: training for the rounding begins with weights that are trained already


@dataclass(frozen=True)
class Directions:
    """What a search may do beside widths.

    Attributes:
        num_ways: how many ways to quantize there are.
        four_bits: the numbers of those with weights of 4 bits.
        quantize_aware: the numbers of those that models are trained for; each follows the same one without training.
        num_blocks: how many residual blocks can be removed.
        compresses_zeros: whether zeros make what is limited smaller.
        finer_widths: a rounding of widths that is finer than the target's, which then may be tried; None for none.
        plans_within: whether widths can be planned within the limits.
        epochs: passes over the training samples for each model that is measured; 0 without training.
    """

    num_ways: int = 1
    four_bits: tuple[int, ...] = ()
    quantize_aware: tuple[int, ...] = ()
    num_blocks: int = 0
    compresses_zeros: bool = False
    finer_widths: int | None = None
    plans_within: bool = False
    epochs: int = 0

    @property
    def parts(self) -> tuple[int, ...]:
        """The epochs in parts: after the first, models that are clearly behind are stopped.

        Example:
            >>> Directions(epochs=6).parts
            (2, 4)
        """
        first = -(-self.epochs // _FIRST_PART)
        return tuple(part for part in (first, self.epochs - first) if part)

    @property
    def rounding_epochs(self) -> int:
        """The epochs of training for the rounding, after the others."""
        return rounding_epochs(self.epochs)

    @property
    def untrained_four_bits(self) -> list[int]:
        """The ways with weights of 4 bits that no model is trained for."""
        return [way for way in self.four_bits if way not in self.quantize_aware]

    def untrained(self, way: int) -> int:
        """The same way to quantize, without training for its rounding."""
        return way - 1 if way in self.quantize_aware else way

    def ways_after(self, way: int) -> list[int]:
        """The ways that lose less by rounding: those behind it, but none of fewer bits."""
        return [one for one in range(way + 1, self.num_ways) if one not in self.four_bits or way in self.four_bits]


def rounding_epochs(epochs: int) -> int:
    """How many epochs a model is trained for the rounding of its file.

    Args:
        epochs: of the training before; 0 where nothing is trained.

    Example:
        >>> rounding_epochs(6), rounding_epochs(1), rounding_epochs(0)
        (3, 1, 0)
    """
    return max(1, round(_ROUNDING_EPOCHS * epochs)) if epochs else 0
