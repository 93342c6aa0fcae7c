"""The calls of a model made layer by layer, each for all samples; calls of one layer wait for one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Fold, Step
from edgeprune.types import Model


class Droppable(Protocol):
    """What stands for a tensor of the graph for all samples."""

    def drop(self) -> None:
        """Free it."""


Streamed = TypeVar("Streamed", bound=Droppable)


def run_layer_by_layer(
    graph: ChannelGraph,
    inputs: Sequence[Streamed],
    call: Callable[[list[Step], list[list[Streamed]]], list[list[Streamed]]],
    fold: Callable[[Streamed, Streamed | None], Streamed],
) -> list[Streamed]:
    """Run a traced model, one layer after the other.

    Args:
        graph: the traced model.
        inputs: a value for each of its inputs, in their order. What nothing reads any more is dropped.
        call: is passed calls of one layer, each with its inputs, and returns the outputs of each.
        fold: is given a value whose steps become samples, or become steps again, as many as the second has.

    Returns:
        A value for each of the model's outputs, flat.
    """
    values = dict(zip(graph.inputs, inputs, strict=True))
    parts: list[Step | Fold] = [*graph.steps, *graph.folds]
    readers = Counter([*graph.outputs, *(place for part in parts for place in _taken(part))])

    def free(places: Sequence[int]) -> None:
        for place in set(places):
            if not readers[place]:
                values.pop(place).drop()

    for one in _in_order(graph):
        if isinstance(one, Fold):
            values[one.given] = fold(values[one.taken], None if one.like is None else values[one.like])
            taken = _taken(one)
        else:
            made = call(one, [[values[place] for place in step.inputs] for step in one])
            for step, own in zip(one, made, strict=True):
                values.update(zip(step.outputs, own, strict=True))
                free(step.outputs)
            taken = [place for step in one for place in step.inputs]
        readers.subtract(taken)
        free(taken)
    return [values[place] for place in graph.outputs]


def _taken(one: Step | Fold) -> list[int]:
    """The places that a call or a fold reads."""
    if isinstance(one, Step):
        return list(one.inputs)
    return [one.taken] if one.like is None else [one.taken, one.like]


def _in_order(graph: ChannelGraph) -> Iterator[list[Step] | Fold]:
    """All calls and folds of a graph, producers first.

    Yields:
        The calls of one layer together, so that it can be solved for all its uses at once. Where one of them works on
        what another made, those that can be made come first.
    """
    ready = set(graph.inputs)
    steps, folds = list(graph.steps), list(graph.folds)
    while steps or folds:
        fold = next((fold for fold in folds if ready.issuperset(_taken(fold))), None)
        if fold is not None:
            folds.remove(fold)
            ready.add(fold.given)
            yield fold
            continue
        made = _next(steps, ready)
        steps = [step for step in steps if not any(step is one for one in made)]
        ready.update(place for step in made for place in step.outputs)
        yield made


def _next(steps: list[Step], ready: set[int]) -> list[Step]:
    """The first calls of a layer all of which can be made; else the first that can."""
    by_layer: dict[int, list[Step]] = {}
    for step in steps:
        key = id(step.layer) if flavor.weights_of(step.layer) else id(step)
        by_layer.setdefault(key, []).append(step)
    possible = [[step for step in uses if ready.issuperset(step.inputs)] for uses in by_layer.values()]
    whole = (made for made, uses in zip(possible, by_layer.values(), strict=True) if len(made) == len(uses))
    return next(whole, None) or next(filter(None, possible))


def nodes_of(model: Model) -> Iterator[flavor.GraphNode]:
    """The calls of a model and of those nested in it, in the order of a trace."""
    for node in flavor.graph_nodes(model)[1]:
        inner, _ = flavor.model_inside(node.layer)
        if inner is None:
            yield node
        else:
            yield from nodes_of(inner)


def nodes_of_steps(graph: ChannelGraph) -> dict[int, flavor.GraphNode]:
    """`id` of a step to the call in the model's graph."""
    return {id(step): node for step, node in zip(graph.steps, nodes_of(graph.walked), strict=True)}
