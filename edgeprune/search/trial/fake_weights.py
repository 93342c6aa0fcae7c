"""Weights as a sparse or a 4-bit file would have them, without making one: what a quick trial computes with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph
from edgeprune.quantization.grid_solver import last_step
from edgeprune.search.trial.candidates import Values
from edgeprune.sparsity.prunable import prunable_weights
from edgeprune.types import Layer, Variable


def with_zeros(graph: ChannelGraph, kept_mask: np.ndarray, values: Values, sparsity: float) -> Values:
    """The weights of a smaller model with their smallest magnitudes set to zero.

    Args:
        graph: the traced model.
        kept_mask: bool array `(graph.class_count,)`, True for the classes that are kept.
        values: weights that are not the original's, by `id`.
        sparsity: the fraction of what is kept of each prunable weight that becomes zero.
    """
    found = dict(values)
    for _, weight, array, kept in _prunable(graph, kept_mask, values):
        sizes = np.where(kept, np.abs(array), np.inf)
        count = round(sparsity * np.count_nonzero(kept))
        smallest = np.argsort(sizes, axis=None, kind="stable")[:count]
        pruned = array.copy()
        pruned.flat[smallest] = 0
        found[id(weight)] = pruned
    return found


def rounded_to_four_bits(graph: ChannelGraph, kept_mask: np.ndarray, values: Values) -> Values:
    """The weights of a smaller model on a grid of 4 bits, around zero, with a scale for each output channel.

    Args:
        graph: the traced model.
        kept_mask: as in `with_zeros`.
        values: as in `with_zeros`.
    """
    found, last = dict(values), last_step(4)
    for layer, weight, array, kept in _prunable(graph, kept_mask, values):
        is_depthwise = flavor.built_in_kind(layer).startswith("Depthwise")
        axes = tuple(range(array.ndim - (2 if is_depthwise else 1)))
        largest = np.abs(np.where(kept, array, 0)).max(axis=axes, keepdims=True)
        scale = np.where(largest > 0, largest, 1.0) / last
        levels = np.clip(np.rint(array / scale), -last, last)
        found[id(weight)] = (levels * scale).astype(array.dtype)
    return found


def _prunable(
    graph: ChannelGraph, kept_mask: np.ndarray, values: Values
) -> Iterator[tuple[Layer, Variable, np.ndarray, np.ndarray]]:
    """The kernels, each with its layer, its present values, and which of them are kept."""
    called = {id(step.layer): step.layer for step in graph.steps if flavor.function_name(step.layer) is None}
    for layer in {id(one): one for outer in called.values() for one in outer._flatten_layers()}.values():
        for weight in prunable_weights(layer).values():
            array = values.get(id(weight), flavor.array_of(weight))
            kept = np.ones(array.shape, bool)
            for slot in graph.weight_slots.get(id(weight), {}).values():
                kept &= kept_mask[slot.classes].reshape(slot.spread)
            yield layer, weight, array, kept
