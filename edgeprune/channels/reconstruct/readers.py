"""The layers that read the channels of a model, each as a matrix and the moments of what it reads on data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.execution import run
from edgeprune.channels.reconstruct.batch_norm import is_normalized
from edgeprune.channels.reconstruct.elimination import Parts, Reader
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
from edgeprune.channels.reconstruct.span import MOST_ROWS
from edgeprune.channels.reconstruct.stream import Store, input_streams
from edgeprune.progress import track
from edgeprune.types import AnyTensor, DataLike

# What the squared error of a model's outputs is worth beside that inside, which the layers behind make up for in part.
OUTPUT_WORTH = 16.0


@dataclass(frozen=True, eq=False)
class _Watched:
    """A linear part of a layer that reads channels that can go.

    Attributes:
        part: the layer.
        name: its path name.
        classes: int array (axes, groups, inputs), the classes of each input.
        matrix: (groups, inputs, outputs).
        intercept: whether a shift of its outputs can be made up for.
        worth: of its squared error.
        sums: over what it reads.
    """

    part: Part
    name: str
    classes: np.ndarray
    matrix: np.ndarray
    intercept: bool
    worth: float
    sums: Equations | _Outputs

    @classmethod
    def of(cls, graph: ChannelGraph, part: Part, classes: np.ndarray, steps: Sequence[Step]) -> _Watched:
        """One that has seen nothing."""
        _, groups, inputs = classes.shape
        matrix = part.linear.matrix(flavor.array_of(part.linear.kernel))
        intercept = part.linear.bias is not None or (not part.inside and is_normalized(graph, steps))
        sums = _Outputs.of(matrix, classes) if inputs > MOST_INPUTS else Equations.zeros(groups, inputs, 0)
        worth = OUTPUT_WORTH if _gives_outputs(graph, steps) else 1.0
        return cls(part, graph.name_of(part.layer), classes, matrix, intercept, worth, sums)

    def add(self, taken: AnyTensor, batches: int, random: np.random.Generator) -> None:
        """Add some of the places of what it is called on, as many for each batch."""
        x = folded(np.asarray(taken), self.part.folded)
        _, groups, inputs = self.classes.shape
        count = MOST_ROWS if inputs > MOST_INPUTS else max(LEAST_ROWS, ROWS_PER_INPUT * inputs)
        places = self.part.linear.places(x.shape)
        for chosen in chosen_places(len(x), places, -(-count // batches), max(BLOCK // inputs, 1), random):
            rows = self.part.linear.rows(x, chosen)
            nothing = np.zeros((groups, rows.shape[1], 0))
            self.sums.add(rows, nothing, nothing)

    def readers(self) -> Iterator[Reader | Parts]:
        """One for each of its groups."""
        if isinstance(self.sums, _Outputs):
            yield self.sums.parts(self.name, self.intercept, self.worth)
            return
        moments, _ = self.sums.moments(self.intercept)
        _check_finite(self.name, moments)
        size = np.einsum("gio,gij,gjo->", self.matrix, moments, self.matrix, optimize=True)
        is_short = self.sums.count < moments.shape[-1]
        for own, matrix, classes in zip(moments, self.matrix, self.classes.swapaxes(0, 1), strict=True):
            yield Reader(
                shrunk(own, self.sums.count) if is_short else own,
                matrix * np.sqrt(self.worth / max(size, 1e-30)),
                classes,
            )


def shrunk(moments: np.ndarray, rows: int) -> np.ndarray:
    """Moments of too few rows, in which each input seems to follow from others: drawn towards independent inputs.

    Args:
        moments: (inputs, inputs), positive semidefinite.
        rows: that they were measured on.

    Returns:
        Moments with the same diagonal.

    Source: Chen et al., Shrinkage Algorithms for MMSE Covariance Estimation, 2010 (the oracle approximating shrinkage),
    here of the correlations.

    Example:
        >>> shrunk(np.array([[1.0, 1.0], [1.0, 1.0]]), 4)  # half of what the inputs seem to share
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    inputs, sizes = len(moments), np.sqrt(np.maximum(np.diag(moments), 1e-30))
    squares = float(np.square(moments / np.outer(sizes, sizes)).sum())
    apart = (rows + 1 - 2 / inputs) * (squares - inputs)
    share = min(((1 - 2 / inputs) * squares + inputs**2) / apart, 1.0) if apart > 0 else 1.0
    return (1 - share) * moments + share * np.diag(np.diag(moments))


@dataclass
class _Outputs:
    """Sums of what each class adds to the outputs of a matrix; the last is what all add together.

    Attributes:
        inputs: for each class its inputs, as (groups, inputs) bool arrays.
        matrix: (groups, inputs, outputs).
        classes: int array, each class once.
        count: the number of rows.
        y: (classes + 1, groups, outputs), of the outputs.
        output_squares: (classes + 1,), of their squares.
    """

    inputs: list[np.ndarray]
    matrix: np.ndarray
    classes: np.ndarray
    count: int
    y: np.ndarray
    output_squares: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, classes: np.ndarray) -> _Outputs:
        """The sums over no rows."""
        numbers = np.unique(classes)
        inputs = [(classes == one).any(axis=0) for one in numbers]
        shape = len(numbers) + 1, len(matrix), matrix.shape[2]
        return cls([*inputs, np.ones_like(inputs[0])], matrix, numbers, 0, np.zeros(shape), np.zeros(shape[0]))

    def add(self, x: np.ndarray, *_: np.ndarray) -> None:
        """Add rows: float64 array (groups, rows, inputs)."""
        self.count += x.shape[1]
        for number, inputs in enumerate(self.inputs):
            for group, own in enumerate(inputs):
                made = x[group][:, own] @ self.matrix[group][own]
                self.y[number, group] += made.sum(axis=0)
                self.output_squares[number] += np.square(made).sum()

    def parts(self, name: str, intercept: bool, worth: float) -> Parts:
        """The mean squares of what the classes add, relative to that of the outputs, times what an error is worth."""
        squares = self.output_squares / self.count
        if intercept:
            squares = squares - np.square(self.y / self.count).sum(axis=(1, 2))
        _check_finite(name, squares)
        return Parts(self.classes, worth * squares[:-1] / max(squares[-1], 1e-30))


def _gives_outputs(graph: ChannelGraph, steps: Sequence[Step]) -> bool:
    """Whether only calls without weights lie between some calls and an output of the model."""
    reached = {place for step in steps for place in step.outputs}
    for step in graph.steps:  # producers come first
        if reached & set(step.inputs) and not flavor.weights_of(step.layer):
            reached |= set(step.outputs)
    return bool(reached & set(graph.outputs))


def _check_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"What {name!r} reads is NaN or infinite on this data: look for such values in it.")


def readers_of(
    graph: ChannelGraph, data: DataLike, *, batch_size: int = 32, steps: int | None = None, seed: int = 0
) -> list[Reader | Parts]:
    """What reads the channels of a model that are not frozen, on data.

    The outputs of each have a mean square of one, those that only functions are called on before the model's outputs
    one of `OUTPUT_WORTH`.

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
                for x in _seen(one.part, node, taken):
                    one.add(x, batches, random)
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
            if classes.size and free[classes].any():
                watched.setdefault(key, []).append(_Watched.of(graph, part, classes, steps))
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
