"""What each group of channels may keep, and what that does to the axes of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.channels.plan.lines import Lines
from edgeprune.channels.plan.widths import Widths, width_of
from edgeprune.latency.allocation import Knapsack, Limit
from edgeprune.latency.cost import CostTerm, total
from edgeprune.latency.predicted import points_of_lines


@dataclass(frozen=True, eq=False)
class Choices:
    """What each group may keep, in terms of the lines of the model.

    Attributes:
        graph: the traced model.
        groups: those that are not frozen.
        lines: the axes whose lengths follow the groups.
        ranked: for each group its classes, the most important first.
        counts: for each group the numbers of classes that it may keep, ascending.
        values: the importance that is kept at each of them.
        adds: for each group a dict of line to what the group adds to it at each of them.
        fixed: what each line has besides.
        points: line to its possible counts.
    """

    graph: ChannelGraph
    groups: Sequence[Group]
    lines: Lines
    ranked: Sequence[np.ndarray]
    counts: Sequence[np.ndarray]
    values: Sequence[np.ndarray]
    adds: Sequence[Mapping[int, np.ndarray]]
    fixed: np.ndarray
    points: Mapping[int, np.ndarray]

    @staticmethod
    def of(
        graph: ChannelGraph,
        scores: np.ndarray,
        ratios: Mapping[str, float],
        round_to: int | str | Callable[[Group], int],
        min_channels: int,
        max_ratio: float,
    ) -> Choices:
        """What the settings of a plan allow; `ratios` by group name."""
        groups = [group for group in graph.groups if group.frozen is None]
        widths = Widths.of(groups, round_to, min_channels, max_ratio, np.zeros(graph.class_count, bool))
        by_hand = widths.nearest(widths.sizes * (1 - np.array([ratios.get(group.name, 0.0) for group in groups])))
        counts = [
            np.array([by_hand[number]] if group.name in ratios else widths.allowed(number))
            for number, group in enumerate(groups)
        ]
        lines = Lines.of(graph)
        ranked = [_ranked(group, scores) for group in groups]
        of_all = lines.contributions(graph.class_count, ranked)
        fixed = lines.counts(graph.full_mask())
        for adds in of_all:
            for line, added in adds.items():
                fixed[line] -= added[-1]
        values = []
        for classes, allowed in zip(ranked, counts, strict=True):
            worth = np.maximum(scores[classes].reshape(len(classes), -1).mean(axis=1), 0.0)
            values.append(np.concatenate([[0.0], np.cumsum(worth)])[allowed])
        chosen_adds = [
            {line: added[allowed] for line, added in adds.items()} for adds, allowed in zip(of_all, counts, strict=True)
        ]
        # The original, at which a cost is looked at first, need not be among the choices.
        whole = [
            {line: np.append(added, of_one[line][-1]) for line, added in adds.items()}
            for adds, of_one in zip(chosen_adds, of_all, strict=True)
        ]
        return Choices(graph, groups, lines, ranked, counts, values, chosen_adds, fixed, points_of_lines(fixed, whole))

    def knapsack(self, limits: Sequence[Limit]) -> Knapsack:
        """The choices under limits."""
        return Knapsack(self.values, self.adds, self.fixed, limits)

    def line_counts(self, chosen: np.ndarray) -> np.ndarray:
        """The count of each line where each group makes this choice, by its number."""
        return self.knapsack([]).counts(chosen)

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """The kept mask."""
        mask = self.graph.full_mask()
        for ranked, counts, choice in zip(self.ranked, self.counts, chosen, strict=True):
            mask[ranked[counts[choice] :]] = False
        return mask

    def ratio(self, limit: Limit, chosen: np.ndarray) -> float:
        """A cost relative to its limit."""
        return total(limit.terms, self.line_counts(chosen)) / limit.most

    def share(self, amount: float, axes: Sequence[np.ndarray]) -> CostTerm:
        """An amount that is proportional to what is kept of some axes."""
        numbers = [(self.lines.number(classes), classes) for classes in axes if classes.size]
        used = [(line, classes.shape[-1]) for line, classes in numbers if line is not None]
        sizes = math.prod(size for _, size in used)
        return CostTerm(tuple(line for line, _ in used), lambda *counts: amount * _product(counts) / sizes)


def _product(counts: Sequence[Any]) -> Any:
    product: Any = 1.0
    for count in counts:
        product = product * count
    return product


def _ranked(group: Group, scores: np.ndarray) -> np.ndarray:
    """A group's classes by importance, the most important first: (classes,), or (classes, heads)."""
    of_heads = group.classes.reshape(group.heads or 1, -1)
    order = np.argsort(-scores[of_heads], axis=1, kind="stable")
    ranked = np.take_along_axis(of_heads, order, axis=1).T
    return ranked if group.heads else ranked[:, 0]


def stairs(group: Group) -> int:
    """Channels from one width of a group to the next: multiples of which every runtime's tiles are made."""
    width = width_of(group)
    if width < 32:
        return max(1, 2 ** int(math.log2(max(width, 1)) - 2))
    return 8 if width <= 256 else 16 if width <= 512 else 32


def line_of(group: Group) -> np.ndarray:
    """A group's classes as they lie along an axis; inside attention heads a row for each head."""
    return group.classes.reshape(group.heads, -1) if group.heads else group.classes
