"""How important each class of channels is: one number, summed over all the slices of weights that the class owns.

    scores = class_scores(trace(model), "l2")
    scores = class_scores(trace(model), "taylor", data=(x, y), loss="sparse_categorical_crossentropy")

Magnitudes (`l1`, `l2`, `lamp`, `fpgm`, `bn_scale`) need no data; `on_data` has those that do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.arguments import check_seed
from edgeprune.channels.graph import ChannelGraph, Group, Slot
from edgeprune.channels.on_data import ON_DATA, STATISTICS, is_float, score_on_data
from edgeprune.progress import status

Importance = str | Callable[[Group], Any]

# Vectors that shift a channel: their size says nothing about what it is worth.
_SHIFTS = ("bias", "beta", "alpha")

# Scores that compare between groups as they are. Estimates of the loss do not: of many channels that go at once they
# say too little, and ranked as they are they empty single layers.
COMPARABLE = ("lamp", "random")


def class_scores(
    graph: ChannelGraph,
    importance: Importance,
    data: Any = None,
    seed: int = 0,
    *,
    loss: Any = None,
    batch_size: int = 32,
    steps: int | None = None,
) -> np.ndarray:
    """Score every class of channels; the least important ones are removed first.

    Args:
        graph: the traced model.
        importance: a name, or a function that takes a `Group` and returns one number for each of its channels.

            - `"l1"`, `"l2"`: the norm of the weights (Li et al., Pruning Filters for Efficient ConvNets, 2017).
            - `"bn_scale"`: |gamma| of batch normalization (Liu et al., Network Slimming, 2017).
            - `"lamp"`: squared weight over the squares of all that is as large or larger in its group (Lee et al.,
              Layer-Adaptive Sparsity for the Magnitude-based Pruning, 2021).
            - `"fpgm"`: the distances to all other filters of the layer; filters near the geometric median can be
              replaced by the others (He et al., Filter Pruning via Geometric Median, 2019).
            - `"taylor"`: |weight x gradient|, the first-order change of the loss (Molchanov et al., Importance
              Estimation for Neural Network Pruning, 2019). Needs labels and a loss.
            - `"fisher"`: weight² x gradient² / 2, the second-order change of the loss with the empirical Fisher
              matrix as the Hessian's diagonal (LeCun et al., Optimal Brain Damage, 1990; Theis et al., Faster gaze
              prediction with dense networks and Fisher pruning, 2018). Smaller batches come nearer to it.
            - `"activation"`: the mean absolute value of the channel where it is read (Molchanov et al., Pruning
              Convolutional Neural Networks for Resource Efficient Inference, 2017). Needs inputs only.
            - `"random"`: by chance, from `seed`.
        data: `(x, y)` arrays, or batches of `(x, y)`: a `tf.data.Dataset`, a Keras `PyDataset`, any iterable. For
            `"activation"` the labels may be missing.
        seed: of `"random"`.
        loss: a Keras loss or its name, or a list or dict of them for several outputs; left out, the compiled one.
        batch_size: samples at once where `data` are arrays.
        steps: batches at most; left out, all.

    Returns:
        float64 array of shape `(class_count,)`, none of them negative for the importances above. NaN for all
        classes of a group about which the importance says nothing (`"bn_scale"` without batch normalization).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the importance is unknown; data, labels or a loss are missing or do not fit the model, or give no
            finite scores; a number is out of its range; a function's result does not fit.

    Example:
        >>> class_scores(trace(model), lambda group: np.arange(group.size))  # doctest: +SKIP
    """
    check_importance(importance, data)
    if callable(importance):
        return _by_function(graph, importance)
    if importance == "random":
        check_seed(seed)
        return np.random.default_rng(seed).random(graph.class_count)
    if importance in _MAGNITUDES:
        with status(f"Importance ({importance})"):
            return _MAGNITUDES[importance](graph)
    return score_on_data(graph, importance, data, loss, batch_size, steps)


def check_importance(importance: Any, data: Any) -> None:
    """See that an importance is known, and that it has the data that it is measured on.

    Raises:
        ValueError: it is not, or the data are missing.
    """
    known = [*_MAGNITUDES, *ON_DATA, "random"]
    if not callable(importance) and not (isinstance(importance, str) and importance in known):
        raise ValueError(f"importance must be a function of a group or one of {known}; got {importance!r}.")
    if isinstance(importance, str) and importance in ON_DATA and data is None:
        raise ValueError(f"importance={importance!r} is measured on data: pass data=(x, y) or a dataset of batches.")


def relative(graph: ChannelGraph, scores: np.ndarray) -> np.ndarray:
    """Scores divided by the mean of their group, so that groups of different magnitude can be ranked together."""
    scores = scores.copy()
    for group in graph.groups:
        mean = np.abs(scores[group.classes]).mean() if group.size else 0.0
        if mean > 0:
            scores[group.classes] /= mean
    return scores


def _l1(graph: ChannelGraph) -> np.ndarray:
    return _summed(graph, ((slot, _along(np.abs(values), slot.axis)) for slot, values in _magnitudes(graph)))


def _squares(graph: ChannelGraph) -> np.ndarray:
    return _summed(graph, ((slot, _squares_along(values, slot.axis)) for slot, values in _magnitudes(graph)))


def _l2(graph: ChannelGraph) -> np.ndarray:
    return np.sqrt(_squares(graph))


def _lamp(graph: ChannelGraph) -> np.ndarray:
    scores = _squares(graph)
    for group in graph.groups:
        own = scores[group.classes]
        order = np.argsort(own, kind="stable")
        as_large = np.cumsum(own[order][::-1])[::-1]  # the sum over this one and all that are larger
        ranked = np.divide(own[order], as_large, out=np.zeros_like(own), where=as_large > 0)
        scores[group.classes[order]] = ranked
    return scores


def _bn_scale(graph: ChannelGraph) -> np.ndarray:
    gammas = [
        (slot, np.abs(_array(slot.weight)))
        for slot in graph.slots
        if slot.name == "gamma" and "BatchNormalization" in type(slot.layer).__name__
    ]
    scores = _summed(graph, gammas)
    silent = np.ones(graph.class_count, bool)
    for slot, _ in gammas:
        silent[slot.classes] = False
    return np.where(silent, np.nan, scores)


def _fpgm(graph: ChannelGraph) -> np.ndarray:
    def distances(slot: Slot, values: np.ndarray) -> np.ndarray:
        """For each filter the sum of its distances to all others; some rows at a time, as wide layers have many."""
        filters = np.moveaxis(values, slot.axis, 0).reshape(values.shape[slot.axis], -1)
        squares = np.einsum("ij,ij->i", filters, filters)
        sums = []
        for start in range(0, len(filters), 1024):
            rows = slice(start, start + 1024)
            products = filters[rows] @ filters.T
            products *= -2
            products += squares
            products += squares[rows, None]
            np.fill_diagonal(products[:, start:], 0)  # rounding leaves a little, of which the root is much
            sums.append(np.sqrt(np.maximum(products, 0, out=products), out=products).sum(axis=1, dtype=np.float64))
        return np.concatenate(sums)

    makers = ((slot, values) for slot, values in _magnitudes(graph) if slot.makes and values.ndim > 1)
    return _summed(graph, ((slot, distances(slot, values)) for slot, values in makers))


def _by_function(graph: ChannelGraph, importance: Callable[[Group], Any]) -> np.ndarray:
    scores = np.zeros(graph.class_count)
    for group in graph.groups:
        if group.frozen is None:
            own = np.asarray(importance(group), float)
            if own.shape != (group.size,):
                raise ValueError(
                    f"The importance gave group {group.name!r} scores of shape {own.shape}, expected ({group.size},)."
                )
            if np.isinf(own).any():
                raise ValueError(f"The importance gave group {group.name!r} scores that are infinite.")
            scores[group.classes] = own
    return scores


_MAGNITUDES = {"l1": _l1, "l2": _l2, "bn_scale": _bn_scale, "lamp": _lamp, "fpgm": _fpgm}


def _magnitudes(graph: ChannelGraph) -> Iterator[tuple[Slot, np.ndarray]]:
    """The slots whose values multiply a channel, with the values; a weight's slots come one after the other."""
    of_weight: dict[int, list[Slot]] = {}
    for slot in graph.slots:
        if slot.name not in (*_SHIFTS, *STATISTICS) and is_float(slot.weight):
            of_weight.setdefault(id(slot.weight), []).append(slot)
    for slots in of_weight.values():
        values = _array(slots[0].weight)
        yield from ((slot, values) for slot in slots)


def _summed(graph: ChannelGraph, parts: Iterable[tuple[Slot, np.ndarray]]) -> np.ndarray:
    """One number for each class, from one for each position of the slots."""
    total = np.zeros(graph.class_count)
    for slot, vector in parts:
        total += np.bincount(slot.classes, weights=vector, minlength=graph.class_count)
    return total


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """The sums over all axes but one."""
    return values.sum(axis=tuple(other for other in range(values.ndim) if other != axis), dtype=np.float64)


def _squares_along(values: np.ndarray, axis: int) -> np.ndarray:
    """The sums of squares over all axes but one, without a copy of the values."""
    before, after = math.prod(values.shape[:axis]), math.prod(values.shape[axis + 1 :])
    folded = values.reshape(before, values.shape[axis], after)
    return np.einsum("ijk,ijk->j", folded, folded, optimize=False)


def _array(weight: Any) -> np.ndarray:
    values = flavor.array_of(weight)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
