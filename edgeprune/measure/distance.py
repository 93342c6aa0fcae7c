"""How far the outputs of a model are from those of another, whatever their units."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

# A deviation of less than this share of the values is the float computation's own error.
_FLOAT_ERROR = 1e-4


def distance(outputs: Iterable[Iterable[tuple[Any, Any]]]) -> float:
    """How far outputs are from what they were: the error of each over its own deviation, averaged over the outputs.

    Args:
        outputs: for each output its batches, pairs `(n, ..., channels)` of what it was and what it is.

    Returns:
        The norm of the change over that of the deviation of each channel from its mean: at 1 that mean would be as good
        a guess. Where nothing deviates (a constant, one sample) the norm of the change over that of the values.

    Example:
        >>> was, now = np.array([[300.0], [340.0]]), np.array([[302.0], [338.0]])
        >>> distance([[(was, now)]])
        0.1
    """
    return float(np.mean([_relative_error(batches) for batches in outputs]))


def _relative_error(batches: Iterable[tuple[Any, Any]]) -> float:
    change = squares = 0.0
    counts: dict[int, int] = defaultdict(int)  # by the number of channels, in which steps of some length may differ
    sums: dict[int, Any] = defaultdict(float)
    for pair in batches:
        old, new = (np.asarray(values).astype(np.float64) for values in pair)
        change += float(np.square(new - old).sum())
        squares += float(np.square(old).sum())
        rows = old.reshape(-1, old.shape[-1] if old.ndim > 1 else 1)
        counts[rows.shape[1]] += len(rows)
        sums[rows.shape[1]] += rows.sum(axis=0)
    of_means = sum(float(np.square(sums[width]).sum()) / count for width, count in counts.items())
    deviation = squares - of_means
    size = deviation if deviation > _FLOAT_ERROR**2 * squares else squares
    return math.sqrt(change / (size or 1.0))
