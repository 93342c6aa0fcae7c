"""How important each class of channels is: one number, reduced from all the slices of weights that the class owns.

    scores = class_scores(trace(model), "l2")
    scores = class_scores(trace(model), "taylor", data=(x, y), loss="sparse_categorical_crossentropy")

Magnitudes (`l1`, `l2`, `lamp`, `fpgm`, `bn_scale`) need no data; `on_data` has those that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group, Slot
from edgeprune.channels.plan.data_importance import ON_DATA, STATISTICS, is_float, score_on_data
from edgeprune.channels.plan.reconstruction_importance import score_by_reconstruction
from edgeprune.channels.plan.reduction import REDUCTIONS, of_slot, reduced
from edgeprune.number_checks import check_seed
from edgeprune.progress import status
from edgeprune.types import DataLike, Importance, Loss, Variable

ImportanceLike = Importance | Callable[[Group], Any]

# Vectors that shift a channel: their size says nothing about what it is worth.
_SHIFTS = ("bias", "beta", "alpha")

# Scores that compare between groups as they are. Estimates of the loss do not: of many channels that go at once they
# say too little, and ranked as they are they empty single layers.
COMPARABLE = ("lamp", "random", "reconstruction")


@dataclass(frozen=True)
class Ranking:
    """What channels were ranked by.

    Attributes:
        importance: its name, or `"a function"`.
        reduction: how the scores of several layers were reduced; None for the importance's own default.
    """

    importance: str
    reduction: str | None


def class_scores(
    graph: ChannelGraph,
    importance: ImportanceLike,
    data: DataLike | None = None,
    seed: int = 0,
    *,
    reduction: str | None = None,
    loss: Loss | None = None,
    batch_size: int = 32,
    steps: int | None = None,
) -> np.ndarray:
    """Score every class of channels; the least important ones are removed first.

    Args:
        graph: the traced model.
        importance: a name, or a function that is passed a `Group`, as `plan_channels` describes them.
        data: `(x, y)` arrays, or batches of `(x, y)`: a `tf.data.Dataset`, a Keras `PyDataset`, any iterable. For
            `"activation"` and `"reconstruction"` the labels may be missing.
        seed: of `"random"`, and of the places that `"reconstruction"` measures.
        reduction: how the scores of the slices that a class owns are reduced to one: `"sum"`, `"mean"`, `"max"` or
            `"l2"` (Torch-Pruning's `group_reduction`). Left out: `"l2"` of `"l2"`, so that it is the norm of all
            slices together, and `"sum"` of the others. A channel whose slice of one kernel is `[3, -4]`, and of the
            next kernel `[12]`, has the scores

            ===============  ====  =====  =====  ====
            importance        sum   mean    max    l2
            ===============  ====  =====  =====  ====
            `"l1"` (7, 12)     19    9.5     12  13.9
            `"l2"` (5, 12)     17    8.5     12    13
            ===============  ====  =====  =====  ====

            Of `"lamp"` the squared norms are reduced. `"random"`, `"reconstruction"` and functions have no slices.
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
        >>> from edgeprune.channels.graph.trace import trace
        >>> dense = [layers.Dense(units, use_bias=False) for units in (2, 1)]
        >>> net = keras.Sequential([keras.Input((2,)), *dense])
        >>> net.set_weights([np.array([[3, 1], [-4, 0]]), np.array([[12], [2]])])  # units [3, -4], [12] and [1, 0], [2]
        >>> graph, data = trace(net), (np.array([[1.0, 0.0]] * 3), np.array([[0.0]] * 3))
        >>> (units,) = [group.classes for group in graph.groups if group.frozen is None]
        >>> for name in ("l1", "l2", "lamp", "fpgm", "activation", "taylor", "fisher", "reconstruction"):
        ...     print(name, class_scores(graph, name, data, loss="mae")[units].round(2).tolist())
        l1 [19.0, 3.0]
        l2 [13.0, 2.24]
        lamp [1.0, 0.03]
        fpgm [4.47, 4.47]
        activation [3.0, 1.0]
        taylor [72.0, 4.0]
        fisher [1296.0, 4.0]
        reconstruction [16.0, 0.0]
    """
    check_importance(importance, data, reduction)
    if callable(importance):
        return _by_function(graph, importance)
    if importance == "random":
        check_seed(seed)
        return np.random.default_rng(seed).random(graph.class_count)
    reduction = reduction or ("l2" if importance == "l2" else "sum")
    if importance in _MAGNITUDES:
        with status(f"Importance ({importance})"):
            return _MAGNITUDES[importance](graph, reduction)
    assert data is not None, "check_importance"
    if importance == "reconstruction":
        return score_by_reconstruction(graph, data, batch_size, steps, seed)
    return score_on_data(graph, importance, data, loss, batch_size, steps, reduction)


def check_importance(importance: object, data: object, reduction: object = None) -> None:
    """Check that an importance and a reduction are known, and that there are the data that it is measured on.

    Raises:
        ValueError: they are not, the data are missing, or there is nothing to reduce.
    """
    known = [*_MAGNITUDES, *ON_DATA, "reconstruction", "random"]
    if not callable(importance) and not (isinstance(importance, str) and importance in known):
        raise ValueError(
            f"importance must be a function of a group or one of {known}; got {importance!r:.60}. "
            "Curves of sensitivity are passed as scope."
        )
    if importance == "reconstruction" and data is None:
        raise ValueError("importance='reconstruction' is measured on data: pass data=, samples without labels.")
    if isinstance(importance, str) and importance in ON_DATA and data is None:
        raise ValueError(f"importance={importance!r} is measured on data: pass data=(x, y) or a dataset of batches.")
    if reduction is None:
        return
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {list(REDUCTIONS)}; got {reduction!r}.")
    if callable(importance) or importance in ("random", "reconstruction"):
        what = "a function" if callable(importance) else repr(importance)
        raise ValueError(
            f"reduction={reduction!r} is for scores of several layers; importance is {what}: leave it out."
        )


def relative(graph: ChannelGraph, scores: np.ndarray) -> np.ndarray:
    """Scores divided by the mean of their group, so that groups of different magnitude can be ranked together."""
    scores = scores.copy()
    for group in graph.groups:
        mean = np.abs(scores[group.classes]).mean() if group.size else 0.0
        if mean > 0:
            scores[group.classes] /= mean
    return scores


def _l1(graph: ChannelGraph, reduction: str) -> np.ndarray:
    return reduced(graph.class_count, (of_slot(*part) for part in _along_slots(graph, np.abs)), reduction)


def _squares(graph: ChannelGraph) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return (of_slot(*part) for part in _along_slots(graph, np.square))


def _l2(graph: ChannelGraph, reduction: str) -> np.ndarray:
    norms = ((classes, np.sqrt(squares)) for classes, squares in _squares(graph))
    return reduced(graph.class_count, norms, reduction)


def _lamp(graph: ChannelGraph, reduction: str) -> np.ndarray:
    scores = reduced(graph.class_count, _squares(graph), reduction)
    for group in graph.groups:
        own = scores[group.classes]
        order = np.argsort(own, kind="stable")
        as_large = np.cumsum(own[order][::-1])[::-1]  # the sum over this one and all that are larger
        ranked = np.divide(own[order], as_large, out=np.zeros_like(own), where=as_large > 0)
        scores[group.classes[order]] = ranked
    return scores


def _bn_scale(graph: ChannelGraph, reduction: str) -> np.ndarray:
    gammas = [
        of_slot(slot, np.abs(_array(slot.weight)))
        for slot in graph.slots
        if slot.name == "gamma" and "BatchNormalization" in type(slot.layer).__name__
    ]
    silent = np.ones(graph.class_count, bool)
    for classes, _ in gammas:
        silent[classes] = False
    return np.where(silent, np.nan, reduced(graph.class_count, gammas, reduction))


def _fpgm(graph: ChannelGraph, reduction: str) -> np.ndarray:
    def distances(slot: Slot, values: np.ndarray) -> np.ndarray:
        """For each filter the sum of its distances to all others; inside attention heads, to those of its head."""
        filters = values.transpose([*slot.axes, *slot.other_axes])
        heads = (
            filters.reshape(*slot.classes.shape, -1) if slot.classes.ndim == 2 else [filters.reshape(len(filters), -1)]
        )
        return np.concatenate([_distances(rows) for rows in heads])

    makers = ((slot, values) for slot, values in _magnitudes(graph) if slot.makes and values.ndim > 1)
    parts = (of_slot(slot, distances(slot, values)) for slot, values in makers)
    return reduced(graph.class_count, parts, reduction)


def _distances(filters: np.ndarray) -> np.ndarray:
    """For each row the sum of its distances to all others; some rows at a time, as wide layers have many."""
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


def _by_function(graph: ChannelGraph, importance: Callable[[Group], Any]) -> np.ndarray:
    scores = np.zeros(graph.class_count)
    for group in graph.groups:
        if group.frozen is None:
            own = np.asarray(importance(group), float)
            if own.shape != (group.size,):
                raise ValueError(
                    f"The importance returned scores of shape {own.shape} for {group.name!r}; expected ({group.size},)."
                )
            if np.isinf(own).any():
                raise ValueError(f"The importance returned infinite scores for group {group.name!r}.")
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


def _along_slots(graph: ChannelGraph, size: Callable[[np.ndarray], np.ndarray]) -> Iterator[tuple[Slot, np.ndarray]]:
    """For each slot the sums of `size` of its values over all axes but those of its classes."""
    weight, sizes = None, np.zeros(0)
    for slot, values in _magnitudes(graph):
        if slot.weight is not weight:
            weight, sizes = slot.weight, size(values)
        yield slot, sizes.sum(axis=slot.other_axes, dtype=np.float64)


def _array(weight: Variable) -> np.ndarray:
    values = flavor.array_of(weight)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
