"""From a model and a target to a plan: which channels go, and how many.

plan = plan_channels(model, target_macs=0.5, round_to=8)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Unpack, cast

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.curve_scores import GroupCurves, curve_scores
from edgeprune.channels.plan.importance import COMPARABLE, ImportanceLike, Ranking, class_scores, relative
from edgeprune.channels.plan.limited import within_limits
from edgeprune.channels.plan.limits import Limits
from edgeprune.channels.plan.plan_settings import GraphSettings, PlanSettings, check_settings
from edgeprune.channels.plan.selection import entries, freeze, freeze_in_attention, matching
from edgeprune.channels.plan.solver import per_cost, solve
from edgeprune.channels.plan.widths import unprunable
from edgeprune.flavor.example_shapes import InputShape
from edgeprune.latency.table import LatencyTable
from edgeprune.progress import status
from edgeprune.targets import Target
from edgeprune.types import Attention, DataLike, Layer, Loss, Model, PathLike, Quantization, Reduction, Scope


def plan_channels(
    model: Model,
    *,
    pruning_ratio: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency: float | str | None = None,
    max_ram: int | str | None = None,
    max_flash: int | str | None = None,
    target: str | Target = "phone",
    quantization: Quantization | None = None,
    latency_table: LatencyTable | PathLike | None = None,
    num_threads: int = 1,
    importance: ImportanceLike = "l2",
    reduction: Reduction | None = None,
    scope: Scope | GroupCurves = "global",
    ratios: Mapping[str, float] | None = None,
    round_to: int | str | Callable[[Group], int] = 1,
    ignore: str | Layer | Iterable[str | Layer] = (),
    attention: Attention = "heads",
    min_channels: int = 1,
    max_ratio: float = 0.9,
    data: DataLike | None = None,
    loss: Loss | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
    input_shape: InputShape = None,
) -> ChannelPlan:
    """Choose the channels of a model to remove.

    Pass one or more of `pruning_ratio`, `target_macs`, `target_params`, `target_latency`, `max_ram` and `max_flash`;
    none with `ratios` alone. One of the first three is met as closely as the ranking allows. Of several, or with a time
    or bytes, all hold, and the widths are chosen to keep the most importance within them (a knapsack, as Shen et al.,
    Structural Pruning via Latency-Saliency Knapsack, 2022).

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        pruning_ratio: fraction of the channels to remove, 0 to below 1. Coupled channels count once.
        target_macs: fraction of the MACs to keep, above 0 to 1.
        target_params: fraction of the parameters to keep, above 0 to 1.
        target_latency: fraction of the time to keep, above 0 to 1, or a time such as `"4 ms"`. The operators of the
            model's file are timed one by one at many widths, and the file that a plan comes to as a whole.
        max_ram: bytes of the activations that are alive at once, a number or a text such as `"256 kB"`.
        max_flash: bytes of the file, likewise.
        target: the device that the time and the bytes are for, as `ep.target` accepts it.
        quantization: what the model will be converted to, as `export_tflite` accepts it.
        latency_table: times of operators that were measured on the device, or their file. Left out, this machine's
            are measured, and kept for the next plan.
        num_threads: threads of the interpreter.
        importance: how channels are ranked: a name, or a function that is passed a group and returns a number for
            each of its channels. Scores are over all weights that a channel owns; the numbers here are those of a
            unit with the weights `[3, -4]` in its own kernel and `[12]` in the next one:

            - `"l1"`: absolute weights, 3 + 4 + 12 = 19 (Li et al., Pruning Filters for Efficient ConvNets, 2017).
            - `"l2"`: the norm of the weights, sqrt(9 + 16 + 144) = 13 (the same).
            - `"lamp"`: squared weights, 169, over those of all channels of the group that are as large or larger
              (Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, 2021).
            - `"fpgm"`: distances to the other filters of its layer, to `[1, 0]` sqrt(4 + 16) = 4.47 (He et al., Filter
              Pruning via Geometric Median, 2019).
            - `"bn_scale"`: the absolute scale of its batch normalization (Liu et al., Network Slimming, 2017).
            - `"activation"`: its mean absolute activation on `data`, 3 for the input `[1, 0]` (Molchanov et al.,
              Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017).
            - `"taylor"`: |weight x gradient|, |3 x 12| + |-4 x 0| + |12 x 3| = 72 for that input and a loss whose
              gradient at the output is 1 (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019).
            - `"fisher"`: (weight x gradient)² / 2, (36² + 0 + 36²) / 2 = 1296 (LeCun et al., Optimal Brain Damage,
              1990; Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018). Smaller
              batches estimate it better.
            - `"reconstruction"`: what the other channels of its group cannot make up for. One after the other the
              channel goes whose removal adds the smallest error, relative to the outputs of the layers that read the
              group, once their weights for the others are solved again on unlabelled `data`; that error is the score.
              At the model's outputs it counts 16 times, as no layer behind makes up for it. For that input a second
              unit that is any multiple of this one would take its place, so the smaller of the two scores 0, and the
              one left 16 (Hassibi and Stork, Optimal Brain Surgeon, 1993, for channels).
            - `"random"`: chance, from `seed`.
        reduction: how a channel's scores in the layers that it runs through are reduced to one: `"sum"`, `"mean"`,
            `"max"` or `"l2"`; left out, `"l2"` of `"l2"` and `"sum"` of the others.
            The channels of a group own as many slices each, and scores are relative to their group: here the mean
            chooses as the sum does.
        scope: `"global"` ranks all channels together, `"local"` removes the same fraction of each group, `"isomorphic"`
            ranks groups of the same structure together. Scores are ranked relative to the mean of their group, those
            of `"lamp"`, `"random"` and of a function as they are. Those of `"reconstruction"` are errors: they are
            divided by the MACs or parameters, whichever the target counts, that a channel of the group costs. The
            curves of `edgeprune.sensitivity` weigh the groups by what was measured: the next channel is that of
            the least important ones of each group whose removal adds least to the predicted drop for what it saves.
        ratios: layer name or pattern (`"block_?/conv*"`) to the fraction removed from the groups it matches, whatever
            the target removes of the others. The first pattern that matches a group counts.
        round_to: what is left of a group's channels is a multiple of this: a number, a function of the group, or
            `"tile"` / `"tile-int8"` for widths that run fast on a phone. A group may also lose nothing. Left out, a
            plan for a time follows the steps that were measured.
        ignore: layers, or names or patterns of layers, whose channels are kept. A nested model stands for its layers.
        attention: what attention layers lose: `"heads"`, whole heads; `"dims"`, channels inside the heads, of the query
            and the key (`key_dim`) and of the value (`value_dim`): all heads lose as many, each its own; or `"both"`.
            The layer's scale does not change. Kernels for flash attention want multiples of 8: `round_to=8`.
        min_channels: channels that each group keeps at least.
        max_ratio: fraction of its channels that a group loses at most.
        data: `(x, y)` or a dataset of batches, for an importance that is measured on data; the labels may be missing
            for `"activation"` and `"reconstruction"`.
        loss: for such an importance, where the model is not compiled.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.
        seed: of `"random"`, and of the places that `"reconstruction"` measures.
        input_shape: of a model of open length or size, the shape that MACs are counted for, with or without the batch;
            by input name where there are several. Left out, one that the model accepts.

    Returns:
        The plan. `plan.target` has what was requested and achieved, `plan.limits` each of several limits, and
        `plan.latency` the time.

    Raises:
        TypeError: `model` is no Keras model, or an argument is of the wrong type.
        ValueError: the model is not built, an argument is out of its range, data do not fit the model or labels its
            loss, a name matches nothing, nothing can be removed, or the target cannot be reached.

    Example:
        >>> plan = plan_channels(model, target_macs=0.6, round_to=8, ignore=["stem*"])
        >>> [layer.filters for layer in plan.apply().layers[:2]]  # they were 8 and 16
        [8, 8]
    """
    limits = Limits(
        pruning_ratio=pruning_ratio,
        target_macs=target_macs,
        target_params=target_params,
        target_latency=target_latency,
        max_ram=max_ram,
        max_flash=max_flash,
        device=target,
        quantization=quantization,
        latency_table=latency_table,
        num_threads=num_threads,
    )
    wanted = ("pruning_ratio", 0.0) if ratios and not limits.given else limits.alone or limits
    with status("Following the channels"):
        graph = trace(model, input_shape)
    return plan_graph(
        graph,
        wanted,
        importance=importance,
        reduction=reduction,
        scope=scope,
        ratios=ratios,
        round_to=round_to,
        ignore=ignore,
        attention=attention,
        min_channels=min_channels,
        max_ratio=max_ratio,
        data=data,
        loss=loss,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
    )


def with_defaults(settings: GraphSettings) -> GraphSettings:
    """The settings, and the defaults of `plan_channels` for those that were left out."""
    parameters = inspect.signature(plan_channels).parameters
    defaults = {name: parameters[name].default for name in GraphSettings.__optional_keys__}
    return cast(GraphSettings, {**defaults, **settings})


def plan_graph(
    graph: ChannelGraph,
    target: tuple[str, float] | Limits,
    *,
    gone: np.ndarray | None = None,
    **settings: Unpack[GraphSettings],
) -> ChannelPlan:
    """Choose the channels to remove from a model that is traced already.

    Args:
        graph: the traced model, whose weights are scored as they are now.
        target: `("pruning_ratio" | "target_macs" | "target_params", fraction)`, or several limits that hold together.
        gone: bool array `(graph.class_count,)`: classes that have been removed before.
        **settings: as `plan_channels` accepts them.

    Returns:
        The plan.

    Raises:
        TypeError, ValueError: as `plan_channels`.
    """
    settings = with_defaults(settings)
    check_settings(settings)
    importance, reduction = settings["importance"], settings["reduction"]
    graph = freeze_in_attention(graph, settings["attention"])
    ignored = (group for entry in entries(settings["ignore"]) for group in matching(graph, entry))
    graph = freeze(graph, {group.name: "ignored" for group in ignored})
    scores = class_scores(
        graph,
        importance,
        settings["data"],
        settings["seed"],
        reduction=reduction,
        loss=settings["loss"],
        batch_size=settings["batch_size"],
        steps=settings["steps"],
    )
    graph, scores = _without_unscored(graph, scores, importance)
    if importance not in COMPARABLE and not callable(importance):
        scores = relative(graph, scores)
    scope = settings["scope"]
    # Within limits a channel is worth what it is: what it costs is weighed by the knapsack.
    kind, asked = ("pruning_ratio", 0.0) if isinstance(target, Limits) else target
    if isinstance(scope, GroupCurves):
        scores, scope = curve_scores(graph, scores, scope, kind), "global"
    elif importance == "reconstruction":
        scores = per_cost(graph, scores, kind)
    round_to, min_channels, max_ratio = settings["round_to"], settings["min_channels"], settings["max_ratio"]
    ranking = Ranking(importance if isinstance(importance, str) else "a function", reduction)
    by_hand = _by_group(graph, settings["ratios"] or {})
    if isinstance(target, Limits):
        found = within_limits(
            graph,
            scores,
            target,
            scope=scope,
            ratios=by_hand,
            round_to=round_to,
            min_channels=min_channels,
            max_ratio=max_ratio,
        )
        return ChannelPlan(graph, found.kept_mask, found.target, ranking, {}, found.limits, found.latency)
    kept_mask, reached = solve(
        graph,
        scores,
        kind,
        asked,
        scope=scope,
        ratios=by_hand,
        round_to=round_to,
        min_channels=min_channels,
        max_ratio=max_ratio,
        gone=gone,
    )
    free = [group for group in graph.groups if group.frozen is None]
    whole = unprunable(free, round_to, min_channels, max_ratio, gone)
    return ChannelPlan(graph, kept_mask, reached if asked else None, ranking, whole)


def prune_channels(
    model: Model, *, verify: bool = True, reconstruct: DataLike | None = None, **settings: Unpack[PlanSettings]
) -> Model:
    """Remove channels from a model: `plan_channels(model, **settings).apply(verify, reconstruct=reconstruct)`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        verify: prove that the smaller model is equal to the original without these channels, before reconstruction.
        reconstruct: unlabelled samples to make up for the cut on, as `ChannelPlan.reconstruct` accepts them.
        **settings: as `plan_channels` accepts them.

    Returns:
        A plain model of the same kind and the same Keras, with the same names.

    Raises:
        TypeError: as `plan_channels`.
        ValueError: as `plan_channels`, or the model cannot be run or compared on random inputs.
        RuntimeError: the proof failed.

    Example:
        >>> smaller = prune_channels(model, pruning_ratio=0.5, scope="local")
        >>> [layer.filters for layer in smaller.layers[:2]]  # they were 8 and 16
        [4, 8]
    """
    return plan_channels(model, **settings).apply(verify, reconstruct=reconstruct)


def _by_group(graph: ChannelGraph, ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratios by group name; the first pattern that matches a group counts."""
    of_group: dict[str, float] = {}
    for pattern, ratio in ratios.items():
        groups = matching(graph, pattern)
        if ratio and all(group.frozen for group in groups):
            raise ValueError(f"Nothing can be removed from {pattern!r}: {groups[0].frozen}.")
        for group in groups:
            of_group.setdefault(group.name, ratio)
    return of_group


def _without_unscored(
    graph: ChannelGraph, scores: np.ndarray, importance: ImportanceLike
) -> tuple[ChannelGraph, np.ndarray]:
    """Groups of which the importance knows nothing keep all their channels.

    Raises:
        ValueError: it knows nothing because a weight is NaN.
    """
    unscored = np.isnan(scores)
    for group in graph.groups if unscored.any() else ():
        for slot in group.slots if unscored[group.classes].any() else ():
            if not np.isfinite(np.sum(np.asarray(slot.weight))):
                name = graph.names.get(id(slot.layer), slot.layer.name)
                raise ValueError(f"{name}/{slot.name} holds NaN or infinite values: its channels cannot be ranked.")
    reason = f"{importance if isinstance(importance, str) else 'the importance'} has no scores for these channels"
    graph = freeze(graph, {group.name: reason for group in graph.groups if unscored[group.classes].any()})
    return graph, np.where(unscored, 0.0, scores)
