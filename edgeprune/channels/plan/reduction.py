"""How the scores that a class of channels has in several layers are reduced to one.

A channel of a convolution owns a slice of its kernel, one of each layer that reads it, and more where layers are
coupled by an addition. Each of these slices has a score; the channel's is their sum, mean, largest or L2 norm.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeprune.channels.graph.coupling import Slot

REDUCTIONS = ("sum", "mean", "max", "l2")


def of_slot(slot: Slot, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The score of each class in one slot, where its positions are added.

    Args:
        slot: an axis of a variable.
        along: a score for each of `slot.classes`.

    Returns:
        The classes, each once, and their scores.
    """
    classes, place = np.unique(slot.classes, return_inverse=True)
    return classes, np.bincount(place.ravel(), weights=np.ravel(along))


def reduced(class_count: int, parts: Iterable[tuple[np.ndarray, np.ndarray]], reduction: str) -> np.ndarray:
    """One score for each class.

    Args:
        class_count: the number of classes.
        parts: for each slice of weights the classes (each at most once) and their scores, which are not negative.
        reduction: one of `REDUCTIONS`; the mean is that over the slices that a class owns.

    Returns:
        float64 array `(class_count,)`, zero for a class in no part.

    Example:
        >>> first, second = (np.array([0, 1]), np.array([3.0, 1.0])), (np.array([0]), np.array([4.0]))
        >>> for reduction in REDUCTIONS:
        ...     print(reduction, reduced(2, [first, second], reduction))
        sum [7. 1.]
        mean [3.5 1. ]
        max [4. 1.]
        l2 [5. 1.]
    """
    total, owned = np.zeros(class_count), np.zeros(class_count)
    for classes, scores in parts:
        scores = np.asarray(scores, np.float64)
        if reduction == "max":
            total[classes] = np.maximum(total[classes], scores)
        else:
            total[classes] += np.square(scores) if reduction == "l2" else scores
        owned[classes] += 1
    if reduction == "mean":
        return total / np.maximum(owned, 1)
    return np.sqrt(total) if reduction == "l2" else total
