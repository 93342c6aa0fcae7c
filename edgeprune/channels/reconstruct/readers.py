"""The layers that read the channels of a model, each as a matrix and the moments of what it reads on data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.execution import run
from edgeprune.channels.reconstruct.batch_norm import is_normalized
from edgeprune.channels.reconstruct.elimination import Reader
from edgeprune.channels.reconstruct.linear import Part, linear_parts
from edgeprune.channels.reconstruct.ridge import Equations
from edgeprune.channels.reconstruct.solving import (
    BLOCK,
    LEAST_ROWS,
    MOST_INPUTS,
    ROWS_PER_INPUT,
    capture,
    chosen_places,
    folded,
)
from edgeprune.channels.reconstruct.stream import Store, input_streams
from edgeprune.progress import track
from edgeprune.types import AnyTensor, DataLike


@dataclass(frozen=True, eq=False)
class _Watched:
    """A linear part of a layer that reads channels that can go.

    Attributes:
        part: the layer.
        name: its path name.
        classes: int array (axes, groups, inputs), the classes of each input.
        matrix: (groups, inputs, outputs).
        intercept: whether a shift of its outputs can be made up for.
        equations: the sums over what it reads.
    """

    part: Part
    name: str
    classes: np.ndarray
    matrix: np.ndarray
    intercept: bool
    equations: Equations

    def add(self, taken: Any, count: int, random: np.random.Generator) -> None:
        """Add some of the places of what it is called on."""
        x = folded(np.asarray(taken), self.part.folded)
        _, groups, inputs = self.classes.shape
        places = self.part.linear.places(x.shape)
        for chosen in chosen_places(len(x), places, count, max(BLOCK // inputs, 1), random):
            rows = self.part.linear.rows(x, chosen)
            nothing = np.zeros((groups, rows.shape[1], 0))
            self.equations.add(rows, nothing, nothing)

    def readers(self) -> Iterator[Reader]:
        """One for each of its groups."""
        moments, _ = self.equations.moments(self.intercept)
        if not np.isfinite(moments).all():
            raise ValueError(f"What {self.name!r} reads is NaN or infinite on this data: look for such values in it.")
        size = np.einsum("gio,gij,gjo->", self.matrix, moments, self.matrix, optimize=True)
        for own, matrix, classes in zip(moments, self.matrix, self.classes.swapaxes(0, 1), strict=True):
            yield Reader(own, matrix / np.sqrt(max(size, 1e-30)), classes)


def readers_of(
    graph: ChannelGraph, data: DataLike, *, batch_size: int = 32, steps: int | None = None, seed: int = 0
) -> list[Reader]:
    """What reads the channels of a model that are not frozen, on data; each one's outputs have a mean square of one.

    Args:
        graph: the traced model.
        data: samples in any form that `model.fit` accepts; labels are not looked at.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.
        seed: of the choice of places.

    Raises:
        ValueError: the data have no batches or do not fit the model, or what a layer reads is not finite.
    """
    random = np.random.default_rng(seed)
    with Store() as store, flavor.state_restored(graph.model):
        inputs = input_streams(graph.walked, data, batch_size, steps, store)
        watched = _watched(graph)
        batches = len(inputs[0])

        def call(step: Step, node: flavor.GraphNode, taken: list[AnyTensor]) -> list[AnyTensor]:
            for one in watched.get(id(step.layer), ()):
                count = -(-max(LEAST_ROWS, ROWS_PER_INPUT * one.classes.shape[-1]) // batches)
                for x in _seen(one.part, node, taken):
                    one.add(x, count, random)
            return flavor.call_layer(node, taken)

        for batch in track(zip(*inputs, strict=True), "Importance (reconstruction)", batches):
            run(graph, list(batch), call)
    return [reader for of_layer in watched.values() for one in of_layer for reader in one.readers()]


def _seen(part: Part, node: flavor.GraphNode, taken: Sequence[AnyTensor]) -> list[AnyTensor]:
    """What a linear part is called on in a call of its layer."""
    if not part.inside:
        return [taken[0]]
    return capture(part.layer, lambda: flavor.call_layer(node, taken))


def _watched(graph: ChannelGraph) -> dict[int, list[_Watched]]:
    """`id` of a layer to those of its linear parts that read channels which can go."""
    of_layer: dict[int, list[Step]] = {}
    for step in graph.steps:
        of_layer.setdefault(id(step.layer), []).append(step)
    free = np.zeros(graph.class_count, bool)
    for group in graph.groups:
        free[group.classes] = group.frozen is None
    watched: dict[int, list[_Watched]] = {}
    for key, steps in of_layer.items():
        for part in linear_parts(steps[0].layer):
            classes = _input_classes(graph, part)
            if not (classes.size and free[classes].any()) or classes.shape[-1] > MOST_INPUTS:
                continue
            matrix = part.linear.matrix(flavor.array_of(part.linear.kernel))
            intercept = part.linear.bias is not None or (not part.inside and is_normalized(graph, steps))
            sums = Equations.zeros(classes.shape[1], classes.shape[2], 0)
            name = graph.name_of(part.layer)
            watched.setdefault(key, []).append(_Watched(part, name, classes, matrix, intercept, sums))
    return watched


def _input_classes(graph: ChannelGraph, part: Part) -> np.ndarray:
    """The classes of each input of a linear part: int array (axes, groups, inputs), for each axis that channels lie on.

    Inside attention an input belongs to a head, and to a channel of that head.
    """
    kernel = part.linear.kernel
    slots = graph.weight_slots.get(id(kernel), {}).items()
    spread = [slot.classes.reshape(slot.spread) for axis, slot in slots if axis in part.linear.contracted]
    matrices = [part.linear.matrix(np.broadcast_to(one, tuple(kernel.shape))) for one in spread]
    return np.array([matrix[:, :, 0] for matrix in matrices], int)
