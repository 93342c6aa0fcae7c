"""How sure a difference of two models on the same samples is: the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from edgeprune.number_checks import check_number, check_seed, check_whole

_ROWS = 4_000_000  # numbers that are drawn at once


@final
@dataclass(frozen=True)
class Interval:
    """A figure with the interval that it lies in.

    Attributes:
        value: the figure on the samples.
        low: the lower end.
        high: the upper end.
        confidence: the share of such intervals that hold the true figure, such as 0.95.
    """

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        """The figure and its interval."""
        return f"{self.value:.4g} ({self.confidence:.0%} interval {self.low:.4g} to {self.high:.4g})"


def mean_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int | None = 0,
) -> Interval:
    """The mean of values of samples, such as what each lost, with its bootstrap percentile interval.

    Args:
        values: one for each sample, `(n,)`.
        weights: of the samples, `(n,)`; each resample is weighed again.
        confidence: above 0 and below 1.
        num_resamples: how often the samples are drawn again, with replacement.
        seed: of the draws; the same one leads to the same interval.

    Raises:
        ValueError: there are no samples, an argument is out of its range, or the weights sum to 0.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

    Example:
        >>> mean_interval(np.array([0.0, 0.0, 1.0, 1.0])).value
        0.5
    """
    values = np.asarray(values, np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    _check(len(values), confidence, num_resamples, seed)
    if not weights.sum() > 0:
        raise ValueError("The weights of the samples sum to 0.")
    rng, count, means = np.random.default_rng(seed), len(values), []
    at_once = max(1, _ROWS // count)
    for start in range(0, num_resamples, at_once):
        rows = rng.integers(0, count, (min(at_once, num_resamples - start), count))
        totals = weights[rows].sum(axis=1)
        sums = (values * weights)[rows].sum(axis=1)
        means.append(np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0))
    return _percentiles(float(np.average(values, weights=weights)), np.concatenate(means), confidence)


def statistic_interval(
    count: int,
    statistic: Callable[[np.ndarray], float],
    *,
    confidence: float = 0.95,
    num_resamples: int = 200,
    seed: int | None = 0,
) -> Interval:
    """Any figure of samples with its bootstrap percentile interval, such as a difference of two areas under a curve.

    Args:
        count: how many samples there are.
        statistic: returns the figure of the samples with these numbers `(count,)`, of which some are twice there; NaN
            where it has none.
        confidence: as in `mean_interval`.
        num_resamples: as in `mean_interval`.
        seed: as in `mean_interval`.

    Raises:
        ValueError: as `mean_interval`; or the figure is NaN for all samples.

    Example:
        >>> statistic_interval(3, lambda rows: float(np.max(rows))).high
        2.0
    """
    _check(count, confidence, num_resamples, seed)
    rng = np.random.default_rng(seed)
    value = statistic(np.arange(count))
    if np.isnan(value):
        raise ValueError("The figure of all samples is NaN.")
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(num_resamples)])
    return _percentiles(value, drawn, confidence)


def _percentiles(value: float, drawn: np.ndarray, confidence: float) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Interval(value, value, value, confidence)
    outside = (1 - confidence) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return Interval(value, float(low), float(high), confidence)


def _check(count: int, confidence: float, num_resamples: int, seed: int | None) -> None:
    if count < 1:
        raise ValueError("There are no samples to draw from.")
    check_number("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1; got {confidence}.")
    check_whole("num_resamples", num_resamples, 1)
    check_seed(seed)
