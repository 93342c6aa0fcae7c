"""The settings of a plan, checked before a model is looked at: by a plan at once, by a callback when it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from edgeprune.channels.graph.coupling import Group
from edgeprune.channels.plan.data_importance import check_loss
from edgeprune.channels.plan.importance import ImportanceLike, check_importance
from edgeprune.channels.plan.selection import ATTENTION, entries
from edgeprune.channels.plan.solver import check_limits
from edgeprune.data.batches import check_data
from edgeprune.flavor.example_shapes import InputShape
from edgeprune.number_checks import check_number, check_seed
from edgeprune.types import Attention, DataLike, Layer, Loss, Reduction, Scope


class PlanSettings(TypedDict, total=False):
    """The arguments of `plan_channels` after the model, for functions that hand them on."""

    pruning_ratio: float | None
    target_macs: float | None
    target_params: float | None
    importance: ImportanceLike
    reduction: Reduction | None
    scope: Scope
    ratios: Mapping[str, float] | None
    round_to: int | str | Callable[[Group], int]
    ignore: str | Layer | Iterable[str | Layer]
    attention: Attention
    min_channels: int
    max_ratio: float
    data: DataLike | None
    loss: Loss | None
    batch_size: int
    steps: int | None
    seed: int
    input_shape: InputShape


def check_settings(
    *,
    importance: Any,
    reduction: Any,
    scope: Any,
    ratios: Any,
    round_to: Any,
    ignore: Any,
    attention: Any,
    min_channels: Any,
    max_ratio: Any,
    data: Any,
    loss: Any,
    batch_size: Any,
    steps: Any,
    seed: Any,
) -> None:
    """Check the settings of `plan_channels`, as far as that needs no model.

    Raises:
        TypeError: one is of the wrong type.
        ValueError: one is out of its range, or data are missing.
    """
    check_importance(importance, data, reduction)
    check_limits(scope, round_to, min_channels, max_ratio)
    entries(ignore)
    if attention not in ATTENTION:
        raise ValueError(f"attention must be one of {list(ATTENTION)}; got {attention!r}.")
    check_data(() if data is None else data, batch_size, steps)
    check_seed(seed)
    check_loss(loss)
    if not isinstance(ratios, Mapping | None):
        raise TypeError(f"ratios must be a dict of layer names or patterns to fractions; got {ratios!r}.")
    for pattern, ratio in (ratios or {}).items():
        check_number(f"The ratio of {pattern!r}", ratio)
        if not 0 <= ratio <= max_ratio:
            raise ValueError(f"The ratio of {pattern!r} must be between 0 and max_ratio={max_ratio}; got {ratio}.")
