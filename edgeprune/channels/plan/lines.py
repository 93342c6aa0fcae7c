"""The axes of a model whose lengths follow the channels that are kept, as sums over its groups.

lines = Lines.of(graph)
lines.counts(kept_mask)  # the length of each
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.channels.graph.coupling import ChannelGraph, Group, count_kept

_MOST_PROBES = 3


@dataclass(frozen=True, eq=False)
class Lines:
    """Axes that differ in which classes lie along them.

    Attributes:
        vectors: the classes along each; those inside attention heads are a row for each head, and the line's count is
            that of one head.
    """

    vectors: tuple[np.ndarray, ...]
    _numbers: Mapping[tuple, int]

    @staticmethod
    def of(graph: ChannelGraph) -> Lines:
        """The lines of a traced model along which anything can be dropped."""
        free = np.array([number not in graph.frozen_reason for number in range(graph.class_count)], bool)
        found: dict[tuple, np.ndarray] = {}
        for classes in _vectors(graph):
            if classes.size and free[classes].any():
                found.setdefault(_identity(classes), classes)
        return Lines(tuple(found.values()), {key: number for number, key in enumerate(found)})

    def number(self, classes: np.ndarray) -> int | None:
        """The line along which these classes lie, in any order; None where nothing can be dropped along it."""
        return self._numbers.get(_identity(classes))

    def counts(self, kept_mask: np.ndarray) -> np.ndarray:
        """The length of each line, int array `(lines,)`, where only the classes of the mask are kept."""
        return np.array([count_kept(classes, kept_mask) for classes in self.vectors], np.int64)

    def contributions(self, class_count: int, ranked: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]]:
        """What each group adds to the lines, by how many of its classes it keeps.

        Args:
            class_count: the number of classes of the model.
            ranked: for each group its classes, those first that are kept longest; int array `(classes,)`, or
                `(classes, heads)` where each head keeps as many.

        Returns:
            For each group a dict of line to int array `(classes + 1,)`: what it adds where it keeps 0, 1, ... of them.
        """
        occurrences = [np.bincount(classes.ravel(), minlength=class_count) for classes in self.vectors]
        heads = [len(classes) if classes.ndim == 2 else 1 for classes in self.vectors]

        def added(line: int, classes: np.ndarray) -> np.ndarray:
            of_each = occurrences[line][classes].reshape(len(classes), -1).sum(axis=1)
            return np.concatenate([[0], np.cumsum(of_each)]) // heads[line]

        return [
            {line: added(line, classes) for line, times in enumerate(occurrences) if times[classes].any()}
            for classes in ranked
        ]


def _identity(classes: np.ndarray) -> tuple:
    return classes.shape[:-1], np.sort(classes, axis=None).astype(np.int64).tobytes()


def _vectors(graph: ChannelGraph) -> Iterator[np.ndarray]:
    for tensor in graph.tensors:
        yield from tensor.axes.values()
    for slot in graph.slots:
        yield slot.classes
    for cost in graph.costs:
        yield from cost.axes
    for group in graph.groups:
        yield group.classes.reshape(group.heads, -1) if group.heads else group.classes


def probe_masks(graph: ChannelGraph, lines: Lines, groups: Sequence[Group]) -> list[np.ndarray]:
    """Masks that keep different numbers of channels of each group, by which the lines can be told apart in a file.

    Args:
        graph: the traced model.
        lines: its lines.
        groups: those that may lose channels.

    Returns:
        Up to three masks besides the one that keeps all.
    """
    masks: list[np.ndarray] = []
    for number in range(_MOST_PROBES):
        masks.append(_probe(graph, groups, number))
        counts = np.stack([lines.counts(mask) for mask in (graph.full_mask(), *masks)])
        if len(np.unique(counts, axis=1).T) == len(lines.vectors):
            break
    return masks


def _probe(graph: ChannelGraph, groups: Sequence[Group], number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    mask, taken = graph.full_mask(), set()
    for group in groups:
        least = max(1, group.count // 2)
        fresh = [kept for kept in range(least, group.count) if (group.count, kept) not in taken]
        kept = int(rng.choice(fresh or np.arange(least, group.count + 1)))
        taken.add((group.count, kept))
        dropped = group.classes.reshape(group.heads or 1, -1)[:, kept:]
        mask[dropped] = False
    return mask
