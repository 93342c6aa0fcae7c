"""From a graph of channels and a mask to a smaller plain model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.channels.graph.trace import garbage_collection_off, trace
from edgeprune.types import Model, Variable


def whole_copy(model: Model) -> Any:
    """Build a model again with all its channels: under the strategy in whose scope this is called, or under none.

    Args:
        model: a model that can be traced, which is not changed.
    """
    graph = trace(model)
    return rebuild(graph, graph.full_mask())


def rebuild(graph: ChannelGraph, kept_mask: np.ndarray) -> Any:
    """Build the model that remains when channels are dropped.

    Args:
        graph: the channels of a model; the model is not changed.
        kept_mask: bool array (graph.class_count,), True for the kept classes.

    Returns:
        A new model of the same Keras: the same names, nested and shared layers, trainable flags, dtype policies,
        initializers, regularizers and constraints, with weights cut from the old ones. It is compiled as the old
        one was, with a fresh optimizer. It needs nothing of this package. What was Sequential or Functional
        remains so; a subclassed model becomes Functional.

    Raises:
        ValueError: the mask does not fit the graph, drops what is frozen, or leaves a weight without channels; or the
            rule of a custom layer does not say which of its arguments follow the channels.
    """
    kept_mask = checked_mask(graph, kept_mask)
    rebuilder = flavor.Rebuilder(
        cut=partial(remaining, graph, kept_mask),
        changes=changed_arguments(graph, kept_mask),
        renamed=graph.renamed,
        taken_names=graph.rebuilt_names.values(),
    )
    with garbage_collection_off():
        model = rebuilder.build(graph.walked)
        flavor.copy_compile_state(graph.model, model)
    return model


def checked_mask(graph: ChannelGraph, kept_mask: np.ndarray) -> np.ndarray:
    """The mask as a bool array, if the graph's channels can be dropped so."""
    kept_mask = np.asarray(kept_mask, bool)
    if kept_mask.shape != (graph.class_count,):
        raise ValueError(f"kept_mask must have the shape ({graph.class_count},), got {kept_mask.shape}.")
    for number in np.flatnonzero(~kept_mask).tolist():
        if number in graph.frozen_reason:
            raise ValueError(f"Class {number} cannot be dropped: {graph.frozen_reason[number]}.")
    for slot in graph.slots:
        if len(slot.classes) and not kept_mask[slot.classes].any():
            name = graph.names.get(id(slot.layer), slot.layer.name)
            raise ValueError(f"The mask drops every channel of {name!r} ({slot.name}, axis {slot.axis}): keep one.")
    for group in graph.groups:
        group.kept(kept_mask)
    for run in graph.runs:
        if not kept_mask[run].any():
            raise ValueError("The mask drops every channel of a part that is cut out of a tensor: keep at least one.")
    return kept_mask


def remaining(
    graph: ChannelGraph, kept_mask: np.ndarray, weight: Variable, values: np.ndarray | None = None
) -> np.ndarray:
    """What remains of a weight, or of other values for it."""
    kept = graph.kept_indices(weight, kept_mask)
    values = cut_values(flavor.array_of(weight) if values is None else values, kept)
    for rescale in graph.rescales:
        if rescale.weight is weight:
            values = (values * rescale.factor(kept_mask)).astype(values.dtype)
    return values


def counterparts(graph: ChannelGraph, rebuilt: Model) -> dict[int, Any]:
    """`id` of a layer of the old model to the rebuilt model's layer of the same path name."""
    names = flavor.layer_names(rebuilt)
    by_name = {names[id(layer)]: layer for layer in flavor.layers_of(rebuilt)}
    return {key: by_name.get(name) for key, name in graph.rebuilt_names.items()}


def cut(weight: Variable, kept: dict[int, np.ndarray]) -> np.ndarray:
    """The values of a weight at the kept indices of each axis."""
    return cut_values(flavor.array_of(weight), kept)


def cut_values(values: np.ndarray, kept: dict[int, np.ndarray]) -> np.ndarray:
    """The same for values of a weight."""
    for axis, indices in sorted(kept.items(), reverse=True):  # inside heads before the heads
        if indices.ndim == 2:
            indices = indices.reshape(*indices.shape, *(1 for _ in values.shape[axis + 1 :]))
            values = np.take_along_axis(
                values, indices.reshape((1,) * (values.ndim - indices.ndim) + indices.shape), axis
            )
        else:
            values = np.take(values, indices, axis=axis)
    return values if kept else values.copy()


def changed_arguments(graph: ChannelGraph, kept_mask: np.ndarray) -> dict[int, dict[str, Any]]:
    """`id` of a layer or of a function's node to the arguments that change, with their new values."""
    changes: dict[int, dict[str, Any]] = {}
    for resize in graph.resizes:
        if not all(kept_mask[classes].all() for classes in resize.vectors):
            changes.setdefault(id(resize.owner), {})[resize.key] = resize.new_value(kept_mask)
    return changes
