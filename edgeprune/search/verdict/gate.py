"""The last check: a file against every limit on samples that nothing before has seen, with the interval of its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import first_array
from edgeprune.number_checks import check_number, check_seed
from edgeprune.search.budget import Budget, Excess
from edgeprune.search.verdict.bootstrap import Interval, mean_interval, statistic_interval
from edgeprune.search.verdict.judge import Judge, Outputs, taken
from edgeprune.types import Arrays


@final
@dataclass(frozen=True)
class Verdict:
    """Whether a file holds a budget.

    Attributes:
        accepted: whether every limit holds.
        exceeded: the limits that do not, the most broken one first.
        metric: the figure that was compared.
        before: the original's.
        after: the file's.
        lost: how much worse the file is, with its interval.
        measured: the figures that were held against the limits.
        num_samples: how many samples it was measured on.
        allowed_drop: how much worse it may be; None where that is not limited.
    """

    accepted: bool
    exceeded: tuple[Excess, ...]
    metric: str
    before: float
    after: float
    lost: Interval
    measured: Mapping[str, float]
    num_samples: int
    allowed_drop: float | None

    def __str__(self) -> str:
        """The verdict, a line for each limit that does not hold."""
        head = "accepted" if self.accepted else "not accepted"
        figures = f"{self.metric} {self.before:.4g} before, {self.after:.4g} after; lost {self.lost}"
        return "\n".join([f"{head}: {figures}, on {self.num_samples:,} samples", *map(str, self.exceeded)])

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "accepted": self.accepted,
            "exceeded": [
                {"limit": one.limit, "allowed": one.allowed, "measured": one.measured} for one in self.exceeded
            ],
            "metric": self.metric,
            "before": self.before,
            "after": self.after,
            "lost": self.lost.value,
            "lost_low": self.lost.low,
            "lost_high": self.lost.high,
            "confidence": self.lost.confidence,
            "measured": dict(self.measured),
            "num_samples": self.num_samples,
        }


def verdict_on(
    budget: Budget,
    measured: Mapping[str, float],
    judge: Judge,
    before: Outputs,
    after: Outputs,
    *,
    confidence: float = 0.95,
    seed: int | None = 0,
) -> Verdict:
    """Hold a file against a budget.

    Args:
        budget: the limits.
        measured: what was measured on the file, by the limits' names without `max_`; the drop is computed here.
        judge: what scores outputs of the samples that were held out.
        before: the original's outputs of these samples.
        after: the file's, by the same names.
        confidence: of the interval of what was lost.
        seed: of the bootstrap.

    Returns:
        The verdict.

    Raises:
        ValueError: an argument is out of its range.
    """
    scores = judge.score(before), judge.score(after)  # these say why there is none
    lost = _lost(judge, before, after, confidence, seed)
    figures = {**measured, "accuracy_drop": lost.value}
    exceeded = budget.exceeded(figures)
    return Verdict(
        accepted=not exceeded,
        exceeded=exceeded,
        metric=judge.name,
        before=scores[0],
        after=scores[1],
        lost=lost,
        measured=figures,
        num_samples=len(next(iter(before.values()))),
        allowed_drop=budget.limits.get("max_accuracy_drop"),
    )


def _lost(judge: Judge, before: Outputs, after: Outputs, confidence: float, seed: int | None) -> Interval:
    """How much worse the figure is: from the loss of each sample where the figure is their mean, else drawn again."""
    sign = 1.0 if judge.higher_is_better else -1.0
    own, others = judge.of_samples(before), judge.of_samples(after)
    if own is not None and others is not None:
        (first, weights), (second, _) = own, others
        return mean_interval(sign * (first - second), weights, confidence=confidence, seed=seed)

    def lost(rows: np.ndarray) -> float:
        try:
            drawn = judge.of_rows(rows)
            return sign * (drawn.baseline - drawn.score(taken(after, rows)))
        except ValueError:  # the figure may have no value where one class alone was drawn
            return math.nan

    with flavor.evaluators_kept():
        return statistic_interval(len(next(iter(before.values()))), lost, confidence=confidence, seed=seed)


def hold_out(
    x: Arrays, y: Arrays | None = None, sample_weight: Arrays | None = None, *, share: float = 0.5, seed: int | None = 0
) -> Any:
    """Split samples in two: those that a search looks at, and those that only the last check sees.

    Args:
        x: inputs `(n, ...)`; a dict or a list for several.
        y: labels or targets in the same forms, or None. Where they are class numbers, or one-hot, of one output, each
            class is split alike.
        sample_weight: weights in the same forms, or None.
        share: of the samples that is held out, above 0 and below 1.
        seed: of the split; the same one splits the same samples alike.

    Returns:
        Two tuples `(x, y, sample_weight)`: for the search, and held out.

    Raises:
        ValueError: `share` is out of its range, or a part would be empty.

    Example:
        >>> (x_search, _, _), (x_last, _, _) = hold_out(np.arange(10.0), share=0.3)
        >>> len(x_search), len(x_last)
        (7, 3)
    """
    check_number("share", share)
    check_seed(seed)
    if not 0 < share < 1:
        raise ValueError(f"share is the fraction that is held out, above 0 and below 1; got {share}.")
    count = len(first_array(x))
    rng = np.random.default_rng(seed)
    classes = _classes(y)
    kinds = np.zeros(count, int) if classes is None else np.unique(classes, return_inverse=True)[1]
    # Samples stand in a row class by class, each class in random order; every 1/share-th is held out.
    row = np.lexsort((rng.random(count), kinds))
    places = np.floor((np.arange(count + 1) + rng.random()) * share)
    is_held = np.zeros(count, bool)
    is_held[row[np.diff(places) > 0]] = True
    if not is_held.any() or is_held.all():
        several = "1 sample is" if count == 1 else f"{count} samples are"
        raise ValueError(f"{several} too few to hold {share:.0%} of them out: pass more.")
    parts = []
    for chosen in (np.flatnonzero(~is_held), np.flatnonzero(is_held)):
        parts.append(tuple(taken(part, chosen) for part in (x, y, sample_weight)))
    return parts[0], parts[1]


def _classes(y: Arrays | None) -> np.ndarray | None:
    """The class of each sample; None where the labels name none."""
    if y is None or isinstance(y, Mapping | list | tuple):
        return None
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1)
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] == 1 and labels.dtype.kind in "biu" and len(np.unique(flat)) <= max(2, len(flat) // 2):
        return flat[:, 0]
    return None
