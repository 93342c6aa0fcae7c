"""Which groups of channels the user's names, patterns and layers mean, and groups frozen by wish."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group
from edgeprune.layer_patterns import fits_pattern, layers_fitting, similar
from edgeprune.types import Layer

ATTENTION = ("heads", "dims", "both")


def freeze(graph: ChannelGraph, reasons: Mapping[str, str]) -> ChannelGraph:
    """The graph with some more groups frozen.

    Args:
        graph: a traced model.
        reasons: group name to the reason. Groups that are frozen already keep theirs.

    Returns:
        A new graph.
    """
    groups = tuple(
        dataclasses.replace(group, frozen=reasons.get(group.name)) if group.frozen is None else group
        for group in graph.groups
    )
    frozen_classes = {int(number): group.frozen for group in groups if group.frozen for number in group.classes}
    return dataclasses.replace(graph, groups=groups, frozen_reason={**frozen_classes, **graph.frozen_reason})


def freeze_in_attention(graph: ChannelGraph, attention: str) -> ChannelGraph:
    """The graph with only those groups of attention layers free that are asked for, of `ATTENTION`.

    Args:
        graph: a traced model.
        attention: `"heads"`: whole heads; `"dims"`: the channels inside the heads; `"both"`.

    Returns:
        A new graph. Projections in composite layers, such as an `EinsumDense` of their own, are left as they are.
    """
    heads = {
        id(slots[slot.axis - 1])
        for slots in graph.weight_slots.values()
        for slot in slots.values()
        if slot.classes.ndim == 2 and slot.axis - 1 in slots
    }
    reasons = {}
    for group in graph.groups:
        if attention == "heads" and group.heads is not None:
            reasons[group.name] = "the channels inside heads are kept with attention='heads'"
        if attention == "dims" and any(id(slot) in heads for slot in group.slots):
            reasons[group.name] = "whole heads are kept with attention='dims'"
    return freeze(graph, reasons)


def matching(graph: ChannelGraph, entry: str | Layer) -> list[Group]:
    """The groups whose channels a layer makes or is indexed by; not those it only reads.

    Args:
        graph: a traced model.
        entry: a layer or nested model, or a name or pattern of layers as `edgeprune.layer_patterns` reads it.

    Returns:
        The groups, at least one.

    Raises:
        ValueError: there is none.
    """
    known: list[str] = []
    if isinstance(entry, str):
        inside = layers_fitting(graph.model, entry, graph.names)
        known = [name for group in graph.groups for name in (group.name, *group.layers)]
    elif flavor.is_layer(entry):
        inside = {id(entry), *map(id, flavor.layers_of(entry))}
    else:
        raise ValueError(f"Expected a layer, or the name or pattern of layers; got {entry!r}.")

    def belongs(group: Group) -> bool:
        # A group may bear the names of functions, which are no layers of the model.
        by_name = isinstance(entry, str) and any(fits_pattern(name, entry) for name in (group.name, *group.layers))
        return by_name or any(id(layer) in inside for layer in _owners(group))

    found = [group for group in graph.groups if belongs(group)]
    if not found:
        name = entry if isinstance(entry, str) else entry.name
        raise ValueError(f"No channels of model {graph.model.name!r} belong to {name!r}.{similar(name, known)}")
    return found


def _owners(group: Group) -> list[Any]:
    return [slot.layer for slot in group.slots if not slot.reads]


def entries(ignore: str | Layer | Iterable[str | Layer]) -> Sequence[Any]:
    """The entries of an `ignore=`, one or several.

    Raises:
        TypeError: it is no name, no layer and no collection of them.
    """
    if isinstance(ignore, str) or flavor.is_layer(ignore):
        return [ignore]
    if not isinstance(ignore, Iterable):
        raise TypeError(f"ignore must be layers, or names or patterns of layers; got {ignore!r}.")
    return list(ignore)
