"""The settings of a plan, checked before a model is looked at: by a plan at once, by a callback when it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

from edgeprune.channels.graph.coupling import Group
from edgeprune.channels.plan.curve_scores import GroupCurves
from edgeprune.channels.plan.data_importance import check_loss
from edgeprune.channels.plan.importance import ImportanceLike, check_importance
from edgeprune.channels.plan.selection import ATTENTION, entries
from edgeprune.channels.plan.solver import check_limits
from edgeprune.data.batches import check_data
from edgeprune.flavor.example_shapes import InputShape
from edgeprune.latency.table import LatencyTable
from edgeprune.number_checks import check_number, check_seed
from edgeprune.targets import Target
from edgeprune.types import Attention, DataLike, Layer, Loss, PathLike, Quantization, Reduction, Scope


class AdvancedSettings(TypedDict, total=False):
    """The arguments of `plan_channels` that every function with a plan accepts, and none has in its own signature."""

    reduction: Reduction | None
    ratios: Mapping[str, float] | None
    attention: Attention
    min_channels: int
    max_ratio: float
    data: DataLike | None
    loss: Loss | None
    batch_size: int
    steps: int | None
    seed: int


class GraphSettings(AdvancedSettings, total=False):
    """The arguments of `plan_channels` that say what is removed from a model once it is traced, but for the target."""

    importance: ImportanceLike
    scope: Scope | GroupCurves
    round_to: int | str | Callable[[Group], int]
    ignore: str | Layer | Iterable[str | Layer]


class PlanSettings(GraphSettings, total=False):
    """The arguments of `plan_channels` after the model, for functions that hand them on."""

    pruning_ratio: float | None
    target_macs: float | None
    target_params: float | None
    target_latency: float | str | None
    max_ram: int | str | None
    max_flash: int | str | None
    target: str | Target
    quantization: Quantization | None
    latency_table: LatencyTable | PathLike | None
    num_threads: int
    input_shape: InputShape


def check_settings(settings: GraphSettings) -> None:
    """Check the settings of `plan_channels`, as far as that needs no model.

    Args:
        settings: all of them, those that were left out with their defaults.

    Raises:
        TypeError: one is of the wrong type.
        ValueError: one is out of its range, or data are missing.
    """
    ratios, max_ratio = settings["ratios"], settings["max_ratio"]
    check_importance(settings["importance"], settings["data"], settings["reduction"])
    scope = "global" if isinstance(settings["scope"], GroupCurves) else settings["scope"]
    check_limits(scope, settings["round_to"], settings["min_channels"], max_ratio)
    entries(settings["ignore"])
    if settings["attention"] not in ATTENTION:
        raise ValueError(f"attention must be one of {list(ATTENTION)}; got {settings['attention']!r}.")
    check_data(() if settings["data"] is None else settings["data"], settings["batch_size"], settings["steps"])
    check_seed(settings["seed"])
    check_loss(settings["loss"])
    if not isinstance(ratios, Mapping | None):
        raise TypeError(f"ratios must be a dict of layer names or patterns to fractions; got {ratios!r}.")
    for pattern, ratio in (ratios or {}).items():
        check_number(f"The ratio of {pattern!r}", ratio)
        if not 0 <= ratio <= max_ratio:
            raise ValueError(f"The ratio of {pattern!r} must be between 0 and max_ratio={max_ratio}; got {ratio}.")
