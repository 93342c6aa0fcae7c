"""Which classes to drop, so that a model keeps the channels, MACs or parameters it is asked to keep.

All of it is NumPy on a `ChannelGraph` and one score for each class. Every scope is one total order over the
classes, least important first; a solution drops a prefix of it, group by group rounded to a width that is
allowed. What is kept shrinks as the prefix grows, so the prefix that meets a target is found by bisection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group, Slot, by_reason, shortened
from edgeprune.channels.plan.widths import TILES, Widths, check_widths
from edgeprune.number_checks import check_number, check_target, check_whole

TARGET_KINDS = ("pruning_ratio", "target_macs", "target_params")
PLAN_KINDS = (*TARGET_KINDS, "target_latency")
RANKING_SCOPES = ("local", "global", "isomorphic")
TARGET_TOLERANCE = 0.01
# To come nearer to a target all allowed widths are tried where they are few, else the nearest of a few groups.
MOST_TRIALS = 2000
FEW_GROUPS = 6  # 3 ** 6 trials
MOST_REASONS = 8  # in one error


class Amount:
    """MACs or parameters of a model, as a function of the classes that are kept.

    It is a sum of terms; each is an amount now, times the kept fraction of each axis it is proportional to.

    Args:
        terms: pairs of an amount and the class vectors (int arrays) of the axes it is proportional to.

    Example:
        >>> dense = Amount([(12, [np.array([0, 1, 2]), np.array([3, 4, 5, 6])])])  # a kernel of 3 x 4
        >>> dense(np.array([True, True, False, True, True, False, False]))
        4
    """

    def __init__(self, terms: Sequence[tuple[int, Sequence[np.ndarray]]]) -> None:
        numbers: dict[bytes, int] = {}  # the same vector stands on many axes: of a kernel, its bias, a norm
        vectors: list[np.ndarray] = []
        factors: list[list[int]] = []
        for _, axes in terms:
            factors.append([])
            for axis in (axis.ravel() for axis in axes if axis.size):
                number = numbers.setdefault(np.asarray(axis, np.int64).tobytes(), len(vectors))
                if number == len(vectors):
                    vectors.append(axis)
                factors[-1].append(number)
        most = max(map(len, factors), default=0)
        whole = len(vectors)  # the fraction at this position is one
        self._factors = np.array([row + [whole] * (most - len(row)) for row in factors], int).reshape(len(terms), most)
        self._amounts = np.array([amount for amount, _ in terms], float)
        self._lengths = np.array([*map(len, vectors)], float)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)[:-1]]).astype(int)[:whole]
        self._classes = np.concatenate([np.zeros(0, int), *vectors]).astype(int)

    def __call__(self, kept_mask: np.ndarray) -> int:
        """The amount that is left with these classes (bool, one for each class)."""
        if not len(self._lengths):
            return round(self._amounts.sum())
        counts = np.add.reduceat(kept_mask[self._classes].astype(np.int64), self._starts)
        fractions = np.append(counts / self._lengths, 1.0)
        return int(np.rint(self._amounts * fractions[self._factors].prod(axis=1)).sum())


def macs_of(graph: ChannelGraph) -> Amount:
    """The MACs of one inference as a function of the kept classes."""
    return Amount([(cost.macs, cost.axes) for cost in graph.costs])


def params_of(graph: ChannelGraph) -> Amount:
    """The parameters of the model as a function of the kept classes."""
    axes: dict[int, list[np.ndarray]] = {}
    for slot in graph.slots:
        axes.setdefault(id(slot.weight), []).append(slot.classes)
    return Amount([(math.prod(weight.shape), axes.get(id(weight), ())) for weight in flavor.weights_of(graph.model)])


@dataclass(frozen=True)
class PlanTarget:
    """What a plan is requested for and what it achieved.

    Attributes:
        kind: `"pruning_ratio"` (the fraction of the channels to remove), `"target_macs"`, `"target_params"` or
            `"target_latency"` (the fraction to keep).
        requested: that fraction.
        achieved: what the plan comes to.
    """

    kind: str
    requested: float
    achieved: float

    @property
    def met(self) -> bool:
        """Whether what is kept is within 1 % of what was requested to be kept."""
        requested, achieved = (
            (1 - self.requested, 1 - self.achieved) if self.kind == "pruning_ratio" else (self.requested, self.achieved)
        )
        return abs(achieved - requested) <= TARGET_TOLERANCE * requested

    def __str__(self) -> str:
        what = {
            "pruning_ratio": "channels removed",
            "target_macs": "MACs kept",
            "target_params": "parameters kept",
            "target_latency": "time kept",
        }[self.kind]
        how = "" if self.met else ", the closest that the ranking and the allowed widths allow"
        return f"{what}: {self.achieved:.4f} (requested {self.requested:g}{how})"


def solve(
    graph: ChannelGraph,
    scores: np.ndarray,
    kind: str,
    asked: float,
    *,
    scope: str = "global",
    ratios: Mapping[str, float] | None = None,
    round_to: int | str | Callable[[Group], int] = 1,
    min_channels: int = 1,
    max_ratio: float = 0.9,
    gone: np.ndarray | None = None,
) -> tuple[np.ndarray, PlanTarget]:
    """Choose the classes to keep.

    Args:
        graph: the traced model; its frozen groups keep all their classes.
        scores: importance of each class, float, shape `(class_count,)`. Ties are broken by index.
        kind: what `asked` is: `"pruning_ratio"`, the fraction of the channels to remove, or `"target_macs"` or
            `"target_params"`, the fraction of the model's MACs or parameters to keep.
        asked: the fraction, 0 to 1.
        scope: `"local"`: every group loses the same fraction. `"global"`: all classes are ranked together.
            `"isomorphic"`: groups of the same structure are ranked together, and every such set loses the same
            fraction (Fang et al., "Isomorphic Pruning for Vision Models", 2024).
        ratios: group name to the fraction removed from this group, whatever the target removes of the others.
        round_to: what is left of a group's channels is a multiple of this number (or all of them): a number, a
            function of the group, or `"tile"` / `"tile-int8"` for widths that fill the runtime's tiles.
        min_channels: channels that each group keeps at least.
        max_ratio: fraction of its channels that a group loses at most.
        gone: bool, shape `(class_count,)`: classes that have been removed before.

    Returns:
        The kept mask (bool, shape `(class_count,)`), and the target with what was reached.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of its range, nothing can be removed, or the target cannot be reached.
    """
    check_limits(scope, round_to, min_channels, max_ratio)
    _check(graph, scores, kind, asked, max_ratio)
    groups = [group for group in graph.groups if group.frozen is None]
    check_widths(groups, round_to=round_to, min_channels=min_channels)
    scores, gone = np.asarray(scores, float), np.zeros(graph.class_count, bool) if gone is None else gone
    scores = np.where(gone, scores.min(initial=0.0) - 1, scores)
    widths = Widths.of(groups, round_to, min_channels, max_ratio, gone)
    removal = _Removal.of(graph, groups, scores, scope, widths, ratios or {})
    if kind == "pruning_ratio":
        whole = len(removal.order)
        left: Callable[[np.ndarray], float] = removal.ranked_left
        goal = (1 - asked) * whole
    else:
        amount = macs_of(graph) if kind == "target_macs" else params_of(graph)
        whole = amount(graph.full_mask())
        goal = asked * whole

        def left_of_amount(counts: np.ndarray) -> float:
            return amount(removal.mask(counts))

        left = left_of_amount

    if kind == "pruning_ratio" and scope != "global":  # the fraction that each set of groups loses, not a sum over all
        counts = removal.counts(int(np.searchsorted(removal.priorities, asked * (1 - 1e-12))))
    else:
        counts = _refine(_bisect(removal, left, goal), left, goal, removal)
    got = left(counts) / whole if whole else 1.0
    target = PlanTarget(kind, asked, 1 - got if kind == "pruning_ratio" else got)
    if kind != "pruning_ratio" and not target.met:
        least, most = (left(removal.counts(removed)) / whole for removed in (len(removal.order), 0))
        _check_reachable(least, 1.0 if gone.any() else most, target)
    return removal.mask(counts), target


def per_cost(graph: ChannelGraph, scores: np.ndarray, kind: str) -> np.ndarray:
    """Errors divided by what a channel of their group costs of a target, so that what is saved costs little error.

    Args:
        graph: the traced model.
        scores: an error for each class, as `solve` accepts them.
        kind: of the target; of `"pruning_ratio"` all channels cost the same.
    """
    if kind == "pruning_ratio":
        return scores
    amount = macs_of(graph) if kind == "target_macs" else params_of(graph)
    scores = scores.copy()
    for group in graph.groups:
        without_one = graph.full_mask()
        without_one[group.classes[:1]] = False
        scores[group.classes] /= max(amount(graph.full_mask()) - amount(without_one), 1)
    return scores


def structure(group: Group) -> tuple:
    """What a group is made of: the kinds of its slices and how many of each, but no width and no name."""

    def kind(slot: Slot) -> tuple:
        shape = tuple(slot.weight.shape)
        # A kernel's first axes are its window: 1x1 and 3x3 convolutions are different structures.
        window = shape[:-2] if len(shape) > 2 else ()
        return type(slot.layer).__name__, slot.name, slot.axis - len(shape), slot.reads, window

    return tuple(sorted(map(kind, group.slots)))


@dataclass(frozen=True)
class _Removal:
    """Removing classes one after the other in a fixed order, as counts of what each group keeps.

    Attributes:
        class_count: the number of classes of the model.
        classes: the classes of all groups, group by group.
        group_of: for each of them the number of its group.
        ranks: for each of them its place in its group, 0 for the most important; inside attention heads, in its head.
        order: the groups that lose a class, or one in each head, in the order in which they do.
        priorities: what the order is made by, ascending.
        by_hand: whether a group's count is set by the user rather than found.
        given: the counts of those, before rounding.
        widths: the counts that are allowed.
    """

    class_count: int
    classes: np.ndarray
    group_of: np.ndarray
    ranks: np.ndarray
    order: np.ndarray
    priorities: np.ndarray
    by_hand: np.ndarray
    given: np.ndarray
    widths: Widths

    @staticmethod
    def of(
        graph: ChannelGraph,
        groups: Sequence[Group],
        scores: np.ndarray,
        scope: str,
        widths: Widths,
        ratios: Mapping[str, float],
    ) -> _Removal:
        classes = np.concatenate([group.classes for group in groups])
        group_of = np.repeat(np.arange(len(groups)), [group.size for group in groups])
        heads = itertools.accumulate((group.heads or 1 for group in groups), initial=0)
        head_of = np.concatenate(
            [
                first + np.repeat(np.arange(group.heads or 1), group.count)
                for first, group in zip(heads, groups, strict=False)
            ]
        )
        ranks = _ranks(head_of, scores[classes])
        # All heads lose one at a time: the least important one of each. They are ranked by their mean score.
        of_each, together = np.unique(group_of * len(classes) + ranks, return_inverse=True)
        means = np.bincount(together, weights=scores[classes]) / np.bincount(together)
        groups_of_each = of_each // len(classes)
        by_hand = np.array([group.name in ratios for group in groups])
        ranked = np.flatnonzero(~by_hand[groups_of_each])
        priorities = _priorities(groups, groups_of_each, means, of_each % len(classes), scope)[ranked]
        order = np.argsort(priorities, kind="stable")
        given = widths.sizes * (1 - np.array([ratios.get(group.name, 0.0) for group in groups]))
        return _Removal(
            graph.class_count,
            classes,
            group_of,
            ranks,
            groups_of_each[ranked][order],
            priorities[order],
            by_hand,
            given,
            widths,
        )

    def counts(self, removed: int) -> np.ndarray:
        """How many classes each group keeps when this many are removed, rounded to what is allowed."""
        left = self.widths.sizes - np.bincount(self.order[:removed], minlength=len(self.given))
        return self.widths.nearest(np.where(self.by_hand, self.given, left))

    def mask(self, counts: np.ndarray) -> np.ndarray:
        """The kept mask in which each group keeps so many of its classes, the most important ones."""
        kept = np.ones(self.class_count, bool)
        kept[self.classes] = self.ranks < counts[self.group_of]
        return kept

    def ranked_left(self, counts: np.ndarray) -> int:
        """The classes kept in groups whose count is found."""
        return int(counts[~self.by_hand].sum())


def _ranks(group_of: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The place of each class in its group: 0 for the most important one; of equals, the first."""
    order = np.lexsort((np.arange(len(scores)), -scores, group_of))
    starts = np.searchsorted(group_of, group_of)  # the groups lie one after the other
    ranks = np.empty(len(scores), int)
    ranks[order] = np.arange(len(scores)) - starts
    return ranks


def _priorities(
    groups: Sequence[Group],
    group_of: np.ndarray,
    scores: np.ndarray,
    ranks: np.ndarray,
    scope: str,
) -> np.ndarray:
    """A number for each class; the classes with the lowest are dropped first."""
    if scope == "global":
        return scores
    if scope == "local":
        set_of, places = group_of, ranks
    else:
        structures: dict[tuple, int] = {}
        numbers = np.array([structures.setdefault(structure(group), len(structures)) for group in groups])
        order = np.argsort(numbers[group_of], kind="stable")
        set_of, places = numbers[group_of], np.empty(len(scores), int)
        places[order] = _ranks(set_of[order], scores[order])
    counts = np.bincount(set_of)
    # The middle of its step between the least important class (0) and the most important one (1).
    return (counts[set_of] - places - 0.5) / counts[set_of]


def _bisect(removal: _Removal, left: Callable[[np.ndarray], float], goal: float) -> np.ndarray:
    """The counts, between removing nothing and removing all, that leave what is nearest to the goal."""
    low, high = 0, len(removal.order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if left(removal.counts(middle)) >= goal else (low, middle)
    return min(removal.counts(low), removal.counts(high), key=lambda counts: abs(left(counts) - goal))


def _refine(counts: np.ndarray, left: Callable[[np.ndarray], float], goal: float, removal: _Removal) -> np.ndarray:
    """Where rounding keeps the counts from the goal, move single groups by a step, then a few together."""

    def gap(trial: np.ndarray) -> float:
        return abs(left(trial) - goal)

    groups = np.flatnonzero(~removal.by_hand)
    for _ in range(8):
        if gap(counts) <= TARGET_TOLERANCE * goal:
            return counts
        moved = removal.widths.neighbours(counts)[int(left(counts) < goal)]
        nearest = min((_moved(counts, group, moved[group]) for group in groups), key=gap, default=counts)
        if gap(nearest) >= gap(counts):
            break
        counts = nearest
    start = counts

    def distance_to_goal(trial: np.ndarray) -> tuple[float, float]:
        # Of several that come near enough, the one nearest to what the ranking asks.
        return max(gap(trial) - TARGET_TOLERANCE * goal, 0.0), float(
            (np.abs(trial - start) / removal.widths.sizes).sum()
        )

    finest, choices = _combinations(counts, groups, left, removal.widths)
    trials = (_moved(counts, finest, np.array(ways)) for ways in itertools.product(*choices))
    return min(trials, key=distance_to_goal)


def _combinations(
    counts: np.ndarray, groups: np.ndarray, left: Callable[[np.ndarray], float], widths: Widths
) -> tuple[np.ndarray, Sequence[Sequence[int]]]:
    """Groups to vary together, and the counts of each: all that are allowed, or the nearest ones of a few groups."""
    everything = [widths.allowed(group) for group in groups]
    if math.prod(map(len, everything)) <= MOST_TRIALS:
        return groups, everything
    below, above = widths.neighbours(counts)
    step = {
        group: abs(left(_moved(counts, group, below[group])) - left(_moved(counts, group, above[group])))
        for group in groups
    }
    finest = np.array(sorted(groups, key=step.__getitem__)[:FEW_GROUPS])
    return finest, [(counts[group], below[group], above[group]) for group in finest]


def _moved(counts: np.ndarray, groups: int | np.integer | np.ndarray, to: np.ndarray) -> np.ndarray:
    """The counts with those of some groups replaced."""
    moved = counts.copy()
    moved[groups] = to
    return moved


def check_limits(scope: object, round_to: object, min_channels: object, max_ratio: float) -> None:
    """Check that the limits of a plan are such as `solve` accepts.

    Raises:
        TypeError: one is of the wrong type.
        ValueError: one is out of its range.
    """
    if not isinstance(scope, str) or scope not in RANKING_SCOPES:
        raise ValueError(f"scope must be one of {list(RANKING_SCOPES)}; got {scope!r}.")
    if isinstance(round_to, str) and round_to not in TILES:
        raise ValueError(f"round_to must be a number, a function or one of {list(TILES)}; got {round_to!r}.")
    if not (isinstance(round_to, str) or callable(round_to)):
        check_whole("round_to", round_to, 1)
    check_whole("min_channels", min_channels, 1)
    check_number("max_ratio", max_ratio)
    if not 0 < max_ratio < 1:
        raise ValueError(f"max_ratio must be between 0 and 1; got {max_ratio}.")


def _check(graph: ChannelGraph, scores: np.ndarray, kind: str, asked: float, max_ratio: float) -> None:
    if kind not in TARGET_KINDS:
        raise ValueError(f"The target must be one of {list(TARGET_KINDS)}; got {kind!r}.")
    check_target(kind, asked)
    if kind == "pruning_ratio" and asked > max_ratio:
        raise ValueError(
            f"pruning_ratio={asked} is more than max_ratio={max_ratio} allows for a group; raise max_ratio."
        )
    scores = np.asarray(scores)
    if scores.shape != (graph.class_count,) or not np.isfinite(scores).all():
        raise ValueError(f"The scores must be {graph.class_count} finite numbers, one for each class.")
    if all(group.frozen for group in graph.groups):
        raise ValueError(nothing_to_remove(graph))


def nothing_to_remove(graph: ChannelGraph) -> str:
    """Why no channels of a model can be removed, where that is so."""
    folded = [f"{names}: {reason}" for names, reason in by_reason(graph.frozen, "inspect")]
    said = shortened(folded, "inspect", MOST_REASONS) or "None of its layers makes channels that can be followed."
    return f"No channels of model {graph.model.name!r} can be removed. {said}"


def _check_reachable(least: float, most: float, target: PlanTarget) -> None:
    if least > target.requested * (1 + TARGET_TOLERANCE):
        raise ValueError(
            f"{target.kind}={target.requested:g} cannot be reached: {least:.4f} is left when every group is as narrow "
            "as allowed. Raise max_ratio, lower min_channels or round_to, or ignore fewer layers."
        )
    if most < target.requested * (1 - TARGET_TOLERANCE):
        raise ValueError(f"{target.kind}={target.requested:g} cannot be reached: ratios= alone leaves {most:.4f}.")
