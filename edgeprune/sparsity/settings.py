"""What a user asked of pruning: one validated object, shared by the layers of one call, and its step."""

from __future__ import annotations

import dataclasses
import math
import operator
import weakref
from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np

from edgeprune.sparsity import masks, schedules

SCOPES = ("local", "global")
IMPORTANCES = ("magnitude", "taylor")
POOLINGS = ("AVG", "MAX")
# Of N:M sparsity; a weight is filled up to whole groups.
_LONGEST_GROUP = 2**16


@dataclasses.dataclass(eq=False)
class PruningRun:
    """Settings of one call of `prune_low_magnitude` and how far its training has come.

    Args:
        schedule: when to prune and how much; a copy of the user's.
        block_size: (rows, columns) of a block; (1, 1) prunes single weights.
        block_pooling_type: `"AVG"` or `"MAX"`.
        sparsity_m_by_n: None, or (m, n): m zeros in every n weights.
        scope: `"local"`: each weight tensor has its own threshold; `"global"`: all are ranked together.
        importance: `"magnitude"` or `"taylor"` (|weight x gradient| summed over the steps since the
            last mask update).
        step: the training step that is running or ran last, counted from 1; 0 before the first.
        checked_step: the last step for which it was decided whether masks are updated.
        counter: the `StepCounter` that counts for it now; of two callbacks in one `fit` only one may.
        refused: the layers of the call that are not under pruning, with the reason.

    Raises:
        ValueError: a setting is unknown, out of range or does not go with another.
    """

    schedule: schedules.PruningSchedule
    block_size: tuple[int, int] = (1, 1)
    block_pooling_type: str = "AVG"
    sparsity_m_by_n: tuple[int, int] | None = None
    scope: str = "local"
    importance: str = "magnitude"
    step: int = 0
    checked_step: int = 0
    counter: Any = None
    refused: weakref.WeakKeyDictionary = dataclasses.field(default_factory=weakref.WeakKeyDictionary)

    def __post_init__(self) -> None:
        self.block_size = _two_positive_integers(self.block_size, "block_size")
        if self.sparsity_m_by_n is not None:
            self.sparsity_m_by_n = _two_positive_integers(self.sparsity_m_by_n, "sparsity_m_by_n")
            if self.sparsity_m_by_n[0] >= self.sparsity_m_by_n[1]:
                raise ValueError(f"sparsity_m_by_n={self.sparsity_m_by_n}: m zeros must be fewer than n.")
            if self.sparsity_m_by_n[1] > _LONGEST_GROUP:
                raise ValueError(f"sparsity_m_by_n={self.sparsity_m_by_n}: n may be {_LONGEST_GROUP:,} at most.")
        _one_of(self.block_pooling_type, POOLINGS, "block_pooling_type")
        _one_of(self.scope, SCOPES, "scope")
        _one_of(self.importance, IMPORTANCES, "importance")
        if self.scope == "global" and (self.in_blocks or self.sparsity_m_by_n):
            raise ValueError('scope="global" ranks single weights: pass no block_size and no sparsity_m_by_n.')
        if self.importance == "taylor" and self.sparsity_m_by_n:
            raise ValueError(
                'importance="taylor" needs training steps to gather gradients, and sparsity_m_by_n makes its masks '
                "before the first: use magnitude."
            )

    @property
    def in_blocks(self) -> bool:
        """Whether whole blocks are pruned rather than single weights; N:M overrides it, and then only shapes count."""
        return self.block_size != (1, 1)

    @property
    def final_sparsity(self) -> float | None:
        """The sparsity each weight ends with; None under a custom schedule."""
        if self.sparsity_m_by_n:
            return self.sparsity_m_by_n[0] / self.sparsity_m_by_n[1]
        return schedules.final_sparsity(self.schedule)

    def get_config(self) -> dict[str, Any]:
        """What was asked, for JSON; `call` is one number for the layers that share this object.

        The schedule is None where it is a function or another that cannot be written.
        """
        names = ("block_size", "block_pooling_type", "sparsity_m_by_n", "scope", "importance")
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "schedule": schedules.written(self.schedule), "call": id(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningRun:
        """The settings that `get_config` wrote.

        Raises:
            ValueError: the schedule was not written, or its class is unknown.
        """
        settings = {name: value for name, value in config.items() if name not in ("schedule", "call")}
        return cls(schedules.read(config["schedule"]), **settings)

    def sparsity_reached(self, step: int) -> float:
        """The sparsity of the last mask update up to a training step."""
        if self.sparsity_m_by_n:
            return self.sparsity_m_by_n[0] / self.sparsity_m_by_n[1] if step else 0.0
        return schedules.sparsity_reached(self.schedule, step)

    def local_mask(self, importance: np.ndarray, sparsity: float) -> np.ndarray:
        """Which weights one tensor keeps at a sparsity: booleans of its shape; N:M has a sparsity of its own."""
        if self.sparsity_m_by_n:
            return masks.m_by_n_mask(importance, self.sparsity_m_by_n)
        if self.in_blocks:
            return masks.block_mask(importance, sparsity, self.block_size, self.block_pooling_type)
        return masks.unstructured_mask(importance, sparsity)

    def ranked_together(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """A number for each weight of a tensor: those of one number are ranked with each other; None for blocks."""
        if self.sparsity_m_by_n:
            return masks.m_by_n_groups(shape, self.sparsity_m_by_n[1])
        return None if self.in_blocks else np.zeros(shape, int)

    def expects_zeros(self, shape: tuple[int, ...], sparsity: float) -> bool:
        """Whether a weight of this shape has zeros at a sparsity: at least one weight, or block, is always kept."""
        if self.sparsity_m_by_n:
            return bool(sparsity)
        blocks = self._blocks(shape)
        return masks.kept_count(blocks, sparsity) < blocks

    def why_not_shape(self, shape: tuple[int, ...]) -> str | None:
        """Why a weight of this shape cannot be pruned with these settings; None where it can."""
        if self.in_blocks and len(shape) != 2:
            return f"block_size needs a weight of 2 dimensions, and this one has shape {shape}"
        if self.in_blocks and not self.sparsity_m_by_n and self._blocks(shape) == 1:
            return f"one block of {self.block_size} covers this weight of shape {shape}, and one is always kept"
        if self.sparsity_m_by_n and len(shape) not in (2, 4):
            return f"sparsity_m_by_n needs a weight of 2 or 4 dimensions, and this one has shape {shape}"
        return None

    def _blocks(self, shape: tuple[int, ...]) -> int:
        """How many blocks, or single weights, a weight of this shape is pruned in."""
        block_size = self.block_size if self.in_blocks else (1,) * len(shape)
        return math.prod(-(-size // block) for size, block in zip(shape, block_size, strict=True))


def _two_positive_integers(value: Iterable[SupportsIndex], name: str) -> tuple[int, int]:
    try:
        pair = tuple(map(operator.index, value))
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be two positive integers, got {value!r}.")
    return pair[0], pair[1]


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, allowed))}.")
