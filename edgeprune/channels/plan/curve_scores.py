"""Scores by which groups are weighed by measured curves: what the next channel of a group costs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.channels.plan.solver import macs_of, params_of


@runtime_checkable
class GroupCurves(Protocol):
    """What knows how much worse the model gets as channels of one group are removed: `edgeprune.Sensitivity` does."""

    def drop_per_channel(self, name: str, removed: np.ndarray) -> np.ndarray | None:
        """What one more channel adds to the drop where so many of a group are removed; None if it is unknown."""


def curve_scores(graph: ChannelGraph, scores: np.ndarray, curves: GroupCurves, kind: str) -> np.ndarray:
    """A score for each class that compares between groups: the predicted drop that its removal adds, for what it saves.

    Within a group the order of the scores is kept. The channel removed as the n-th of its group costs what the curve
    says of it, but no less than one removed before it. What it saves is its share of the target: MACs, parameters or
    channels. (A greedy solution of the knapsack problem.)

    Args:
        graph: the traced model.
        scores: importance of each class, float, shape `(class_count,)`.
        curves: what predicts the drops.
        kind: the name of the target: for `"pruning_ratio"` a removed channel saves 1, for `"target_params"` its
            parameters, else its MACs.

    Returns:
        float64 array `(class_count,)`.

    Raises:
        ValueError: a group that is not frozen has no curve.
    """
    made = np.zeros(graph.class_count)
    for group in graph.groups:
        if group.frozen is None:
            added = curves.drop_per_channel(group.name, np.arange(group.count) + 0.5)
            if added is None:
                raise ValueError(
                    f"scope= has no curve for group {group.name!r}: measure the curves of this model, or ignore it."
                )
            steps = np.maximum.accumulate(np.maximum(added, 0.0)) / _saved(graph, group, kind)
            # Where a curve is flat, the channels still go in their order.
            steps = steps + 1e-9 * steps.max() * np.arange(group.count) / group.count
            for classes in group.classes.reshape(group.heads or 1, -1):
                order = np.lexsort((-np.arange(len(classes)), scores[classes]))  # of equals, the last is removed first
                made[classes[order]] = steps
    return made


def _saved(graph: ChannelGraph, group: Group, kind: str) -> float:
    """What the removal of one channel of a group alone saves."""
    if kind == "pruning_ratio":
        return 1.0
    amount = params_of(graph) if kind == "target_params" else macs_of(graph)
    whole, fewer = graph.full_mask(), graph.full_mask()
    fewer[group.classes.reshape(group.heads or 1, -1)[:, 0]] = False
    return max(amount(whole) - amount(fewer), 1)
