"""Widths that keep most of the importance within limits on time, memory and size.

The time is that of the .tflite files the plans become: the model is converted as it is and once narrower, by which the
sizes of every operator are known at any widths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.channels.plan.choices import Choices, line_of, stairs
from edgeprune.channels.plan.limits import FRACTIONS, HeldLimit, Limits, PlannedLatency, parse_bytes, parse_time
from edgeprune.channels.plan.lines import probe_masks
from edgeprune.channels.plan.solver import PlanTarget, nothing_to_remove
from edgeprune.channels.plan.widths import RoundTo
from edgeprune.conversion.plain import converted
from edgeprune.latency.allocation import Limit, LimitError, allocate
from edgeprune.latency.cost import OperatorCosts
from edgeprune.latency.estimated import EstimatedCosts
from edgeprune.latency.footprint import file_terms, live_limits, planned_activations
from edgeprune.latency.measured import MeasuredCosts
from edgeprune.latency.npu import VelaCosts
from edgeprune.latency.predicted import CostModel
from edgeprune.latency.sizes import UnlikeFilesError
from edgeprune.latency.table import LatencyTable, read_latency_table, table_of_this_machine
from edgeprune.latency.template import FileTemplate
from edgeprune.measure.memory import activation_memory
from edgeprune.progress import status
from edgeprune.types import Quantization

_ATTEMPTS = 8
_NEAR = 0.01  # of the time that is asked for
_SLACK = 0.97


@dataclass(frozen=True, eq=False)
class FoundWidths:
    """Widths within limits.

    Attributes:
        kept_mask: bool array `(graph.class_count,)`, true where the class is kept.
        limits: each limit on channels, MACs, parameters or bytes, with what was reached.
        latency: the time where it is one of the limits.
        target: the time as a fraction.
    """

    kept_mask: np.ndarray
    limits: tuple[HeldLimit, ...]
    latency: PlannedLatency | None
    target: PlanTarget | None


def within_limits(
    graph: ChannelGraph,
    scores: np.ndarray,
    limits: Limits,
    *,
    scope: str,
    ratios: Mapping[str, float],
    round_to: RoundTo,
    min_channels: int,
    max_ratio: float,
) -> FoundWidths:
    """Choose the classes to keep.

    Args:
        graph: the traced model.
        scores: importance of each class, float, shape `(class_count,)`.
        limits: what must hold.
        scope: `"global"`: nothing else than the limits says how much each group loses.
        ratios: group name to the fraction removed from this group, whatever else is removed.
        round_to: as `plan_channels` accepts it; 1 follows the steps of the device.
        min_channels: channels that each group keeps at least.
        max_ratio: fraction of its channels that a group loses at most.

    Returns:
        The mask, and what was reached.

    Raises:
        ValueError: a limit cannot be held, or the scope is another one.
    """
    if scope != "global":
        raise ValueError(
            f"Within {' and '.join(limits.given)} the widths of all groups are chosen together: pass scope='global'; "
            f"got {scope!r}."
        )
    if all(group.frozen for group in graph.groups):
        raise ValueError(nothing_to_remove(graph))
    steps = stairs if limits.target_latency is not None and round_to == 1 else round_to
    choices = Choices.of(graph, scores, ratios, steps, min_channels, max_ratio)
    held = [(kind, _fraction_limit(choices, kind, limits.given[kind])) for kind in FRACTIONS if kind in limits.given]
    memory = model = None
    if limits.needs_file:
        costs = None if limits.target_latency is None else costs_of(limits)
        template = file_template(graph, choices, limits.quantization)
        flash = parse_bytes("max_flash", limits.max_flash)
        if flash is not None:
            four = limits.target.four_bit_operators() if limits.quantization == "int4" else ()
            terms = file_terms(template, half_floats=limits.quantization == "float16", four_bit_operators=four)
            held.append(("max_flash", Limit(flash, terms)))
        memory = _memory(graph, template, limits)
        model = None if costs is None else CostModel.of(template, costs, choices.points)
    chosen, latency = _solved(choices, held, memory, model, limits)
    reached = [_held(choices, kind, limits.given[kind], limit, chosen) for kind, limit in held]
    if memory is not None:
        reached.append(HeldLimit("max_ram", memory.most, memory.needed(choices.line_counts(chosen))))
    target = None if latency is None else PlanTarget("target_latency", min(latency.requested_share, 1.0), latency.kept)
    return FoundWidths(choices.mask(chosen), tuple(reached), latency, target)


def _held(choices: Choices, kind: str, asked: float, limit: Limit, chosen: np.ndarray) -> HeldLimit:
    ratio = choices.ratio(limit, chosen)
    if kind == "pruning_ratio":
        return HeldLimit(kind, asked, 1 - (1 - asked) * ratio)
    most = limit.most if kind == "max_flash" else asked
    return HeldLimit(kind, most, most * ratio)


@dataclass(frozen=True, eq=False)
class _Memory:
    """The limit on activations: `beside` is what an interpreter needs besides them."""

    template: FileTemplate
    most: int
    beside: int

    def limits(self, tightened: float) -> list[tuple[str, Limit]]:
        most = self.most * tightened - self.beside
        if most <= 0:
            raise ValueError(
                f"max_ram cannot be held: the interpreter needs {self.beside:,} bytes besides the activations."
            )
        return [("max_ram", limit) for limit in live_limits(self.template, most)]

    def needed(self, counts: np.ndarray) -> int:
        return self.beside + planned_activations(self.template, counts)


def _memory(graph: ChannelGraph, template: FileTemplate, limits: Limits) -> _Memory | None:
    most = parse_bytes("max_ram", limits.max_ram)
    if most is None:
        return None
    beside = 0
    if limits.target.kind == "microcontroller":
        dtype = {"int8": "int8", "int4": "int8", "int16x8": "int16"}.get(limits.quantization or "", "float32")
        whole = activation_memory(graph.model, dtype)
        beside = whole.arena - whole.planned
    return _Memory(template, most, beside)


def _fraction_limit(choices: Choices, kind: str, asked: float) -> Limit:
    """A limit on channels, MACs or parameters."""
    graph = choices.graph
    if kind == "pruning_ratio":
        amounts = [(group.count, [line_of(group)]) for group in choices.groups]
        asked = 1 - asked
    elif kind == "target_macs":
        amounts = [(cost.macs, list(cost.axes)) for cost in graph.costs]
    else:
        slots: dict[int, list[np.ndarray]] = {}
        for slot in graph.slots:
            slots.setdefault(id(slot.weight), []).append(slot.classes)
        amounts = [(math.prod(weight.shape), slots.get(id(weight), [])) for weight in flavor.weights_of(graph.model)]
    return Limit(
        asked * sum(amount for amount, _ in amounts), [choices.share(amount, axes) for amount, axes in amounts]
    )


def file_template(graph: ChannelGraph, choices: Choices, quantization: Quantization | None) -> FileTemplate:
    """The model's file at any widths: converted as it is, and narrower.

    Weights in float16 are floats: runtimes make floats of them when they load a file.
    """
    from edgeprune.channels.rebuild.slicing import rebuild

    masks = [graph.full_mask(), *probe_masks(graph, choices.lines, choices.groups)]
    with status("Converting") as say:
        contents = []
        for number, mask in enumerate(masks):
            say(f"Converting at widths {number + 1} of {len(masks)}")
            contents.append(converted(rebuild(graph, mask), None if quantization == "float16" else quantization))
    try:
        return FileTemplate(contents, np.stack([choices.lines.counts(mask) for mask in masks]))
    except UnlikeFilesError as error:
        raise ValueError(
            f"The time of model {graph.model.name!r} cannot be predicted, {error}: pass target_macs= instead."
        ) from error


def costs_of(limits: Limits) -> OperatorCosts:
    """Where the costs of operators on the device come from."""
    table, device = limits.latency_table, limits.target
    if isinstance(table, LatencyTable):
        return MeasuredCosts(table)
    if table is not None:
        return MeasuredCosts(read_latency_table(table))
    if device.kind == "npu":
        return VelaCosts(device.accelerator or "")
    if device.kind == "microcontroller":
        return EstimatedCosts()
    if device.accelerator is not None:
        raise ValueError(
            f"The time on {device.name} cannot be measured here: pass latency_table= with times of its operators."
        )
    return MeasuredCosts(table_of_this_machine(limits.num_threads))


def _allocated(choices: Choices, limits: Sequence[Limit], kinds: Sequence[str]) -> np.ndarray:
    try:
        return allocate(choices.knapsack(limits))
    except LimitError as error:
        limit = limits[error.limit]
        raise ValueError(
            f"{kinds[error.limit]} cannot be held: {error.least / limit.most:.4g} times as much is left when every "
            "group is as narrow as allowed. Raise max_ratio, lower min_channels or round_to, or ignore fewer layers."
        ) from error


def _solved(
    choices: Choices,
    held: Sequence[tuple[str, Limit]],
    memory: _Memory | None,
    model: CostModel | None,
    limits: Limits,
) -> tuple[np.ndarray, PlannedLatency | None]:
    """Widths within all limits. What sums do not say is made up for: a file's time, and gaps between its tensors."""
    requested = 0.0 if model is None else _requested(limits, model)
    time_factor = memory_factor = 1.0
    best: tuple[float, np.ndarray, PlannedLatency | None] | None = None
    tried: dict[float, float] = {}
    for _ in range(_ATTEMPTS):
        named = [*held, *([] if memory is None else memory.limits(memory_factor))]
        if model is not None:
            named.append(("target_latency", Limit(time_factor * requested, model.terms)))
        chosen = _allocated(choices, [limit for _, limit in named], [kind for kind, _ in named])
        counts = choices.line_counts(chosen)
        if memory is not None and memory.needed(counts) > memory.most:
            memory_factor *= 0.99 * memory.most / memory.needed(counts)
            continue
        if model is None:
            return chosen, None
        latency = _looked_at(model, counts, requested, limits)
        distance = abs(latency.after / requested - 1)
        if best is None or distance < best[0]:
            best = (distance, chosen, latency)
        slack = latency.after < requested and latency.predicted < _SLACK * time_factor * requested
        if latency.measured is None or distance <= _NEAR or slack:  # other limits say what is left
            break
        tried[time_factor] = latency.measured / requested
        time_factor = _next_factor(tried)
    if best is None:
        raise ValueError(f"max_ram={limits.max_ram} cannot be held together with the other limits: raise it.")
    return best[1], best[2]


def _next_factor(tried: Mapping[float, float]) -> float:
    """What to ask the operators for next, as a factor of the time.

    A file's time jumps where operators change together, so the next is between one that was too fast and one that was
    too slow.

    Args:
        tried: each factor so far to the time of its file, relative to what is asked for.

    Example:
        >>> _next_factor({1.0: 0.5}), _next_factor({1.0: 0.5, 1.4: 1.2})
        (1.4, 1.2)
    """
    fast = max((factor for factor, share in tried.items() if share <= 1), default=0.0)
    slow = min((factor for factor, share in tried.items() if share > 1), default=math.inf)
    if 0 < fast < slow < math.inf:
        return (fast + slow) / 2
    factor, share = list(tried.items())[-1]
    return factor * min(max(1 / share, 0.7), 1.4)


def _requested(limits: Limits, model: CostModel) -> float:
    """The time to keep at most, in the unit of the costs."""
    given = parse_time(limits.target_latency)
    if given is None:
        return float(limits.target_latency or 1.0) * model.original
    if given[1] != model.costs.unit:
        raise ValueError(
            f"target_latency={limits.target_latency!r}: the cost of {limits.target.name} is in {model.costs.unit}: "
            "pass such a number, or a fraction."
        )
    return given[0]


def _looked_at(model: CostModel, counts: np.ndarray, requested: float, limits: Limits) -> PlannedLatency:
    share = model.looked_at(counts)
    return PlannedLatency(
        device=limits.target.name,
        quantization=limits.quantization,
        unit=model.costs.unit,
        source=model.costs.source,
        before=model.original,
        requested=requested,
        predicted=model.predicted(counts),
        measured=None if share is None else share * model.original,
        sum_of_operators=model.sum_of_operators,
        estimated=model.costs.estimated,
    )
