"""What a classifier mistakes for what: its confusion matrix, with the recall and the precision of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from edgeprune.measure.accuracy import label_classes, predicted_classes
from edgeprune.types import Arrays


@final
@dataclass(frozen=True, eq=False)
class ClassScores:
    """How often each class was named for each.

    Attributes:
        counts: integers `(classes, classes)`: a row for each class that a label names, a column for each that an output
            does.
    """

    counts: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """How many samples there are of each class, `(classes,)`."""
        return self.counts.sum(axis=1)

    @property
    def recall(self) -> np.ndarray:
        """The share of the samples of each class that were named right, `(classes,)`; NaN for a class without any."""
        return _shares(np.diag(self.counts), self.labelled)

    @property
    def precision(self) -> np.ndarray:
        """The share of what was named each class that is of it, `(classes,)`; NaN for one that was never named."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        plain = {
            name: [None if np.isnan(value) else float(value) for value in getattr(self, name)]
            for name in ("recall", "precision")
        }
        return {"counts": self.counts.tolist(), **plain}


def count_classes(outputs: np.ndarray, labels: Arrays, threshold: float | None = None) -> ClassScores:
    """Count what a classifier named each sample, or each position of it.

    Args:
        outputs: `(samples, ..., classes)`, or `(samples, 1)` for two classes; logits or probabilities.
        labels: class numbers or one-hot, as `accuracy` accepts them.
        threshold: as in `accuracy`.

    Returns:
        The confusion matrix and what follows from it.

    Raises:
        ValueError: the labels do not fit the outputs.

    Example:
        >>> count_classes(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), [1, 1, 1]).counts.tolist()
        [[0, 0], [1, 2]]
    """
    named = predicted_classes(outputs, threshold)
    right = label_classes(np.asarray(labels), named.shape, outputs.shape)
    classes = outputs.shape[-1] if outputs.ndim > 1 and outputs.shape[-1] > 1 else 2
    counts = np.bincount(right.ravel() * classes + named.ravel(), minlength=classes**2)
    return ClassScores(counts.reshape(classes, classes))


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
