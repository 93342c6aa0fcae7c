"""Both models run side by side, layer by layer, on all samples; what reads what was removed is solved on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import Step
from edgeprune.channels.reconstruct import batch_norm
from edgeprune.channels.reconstruct.linear import Part, cell_parts, linear_parts
from edgeprune.channels.reconstruct.order import nodes_of_steps, run_layer_by_layer
from edgeprune.channels.reconstruct.removal import Removal
from edgeprune.channels.reconstruct.report import SolvedLayer
from edgeprune.channels.reconstruct.solving import CannotSolve, Use, capture, solve_part
from edgeprune.channels.reconstruct.stream import Store, Stream, steps_folded
from edgeprune.types import Layer, Variable


@dataclass(frozen=True, eq=False)
class Pair:
    """A tensor of the graph for all samples: in the original and in the smaller model; one and the same where equal."""

    old: Stream
    new: Stream

    @property
    def same(self) -> bool:
        """Whether nothing on the way to it was changed."""
        return self.old is self.new

    def drop(self) -> None:
        """Free both."""
        self.old.drop()
        self.new.drop()


class Walk:
    """One run of both models on all samples.

    Attributes:
        solved: the layers that were solved.
        recalibrated: path names of the batch normalizations whose statistics changed.
        fitted: the variables of the smaller model that have new values.
        unsolved: path names of layers that keep what the removal left of their weights, with the reason.
    """

    def __init__(self, removal: Removal, store: Store, seed: int) -> None:
        self.graph = removal.graph
        self._removal, self._store, self._seed = removal, store, seed
        self._nodes = nodes_of_steps(self.graph)
        self._numbers = {id(step): number for number, step in enumerate(self.graph.steps)}
        self._sizes: list[int] = []
        self._seen_layers: set[int] = set()
        self.solved: list[SolvedLayer] = []
        self.recalibrated: list[str] = []
        self.fitted: list[Variable] = []
        self.unsolved: dict[str, str] = {}

    def run(self, inputs: Sequence[Stream], done: Callable[[str], None]) -> list[Pair]:
        """The outputs for the model's inputs; `done` is called with the name of each layer after it."""
        self._sizes = [int(x.shape[0]) for x in inputs[0]]

        def call(steps: list[Step], taken: list[list[Pair]]) -> list[list[Pair]]:
            given = self._calls(steps, taken)
            done(self.graph.name_of(steps[0].layer))
            return given

        return run_layer_by_layer(self.graph, [Pair(x, x) for x in inputs], call, self._fold)

    def _fold(self, pair: Pair, like: Pair | None) -> Pair:
        sizes = None if like is None else like.old
        old = steps_folded(pair.old, sizes)
        return Pair(old, old if pair.same else steps_folded(pair.new, sizes))

    def _calls(self, steps: list[Step], taken: list[list[Pair]]) -> list[list[Pair]]:
        """Make some calls of one layer in both models."""
        old = [self._made(step, [pair.old for pair in own], step.layer) for step, own in zip(steps, taken, strict=True)]
        if not any(map(self._is_changed, steps, taken)):
            return [[Pair(x, x) for x in given] for given in old]
        self._refit(steps, taken, old)
        new = [self._smaller(step, own, given) for step, own, given in zip(steps, taken, old, strict=True)]
        return [list(map(Pair, *pair)) for pair in zip(old, new, strict=True)]

    def _is_changed(self, step: Step, taken: list[Pair]) -> bool:
        """Whether a call of the smaller model returns something else."""
        return not all(pair.same for pair in taken) or self._removal.is_changed(step)

    def _made(
        self, step: Step, taken: list[Stream], layer: Layer, changes: Mapping[str, Any] | None = None
    ) -> list[Stream]:
        """What a call returns, for all batches."""
        node = self._nodes[id(step)]
        batches = zip(*taken, strict=True) if taken else ([] for _ in self._sizes)
        return self._store.streams(flavor.call_layer(node, list(batch), layer, changes) for batch in batches)

    def _smaller(self, step: Step, taken: list[Pair], old: list[Stream]) -> list[Stream]:
        """What a call returns in the smaller model."""
        if flavor.is_own_weight(step.layer):
            return self._store.streams([self._removal.left_of_tensor(step.outputs[0], x)] for x in old[0])
        new = [pair.new for pair in taken]
        if flavor.function_name(step.layer) is not None:
            return self._made(step, new, step.layer, self._removal.changes.get(id(step.node)))
        return self._made(step, new, self._removal.counterparts[id(step.layer)])

    def _refit(self, steps: list[Step], taken: list[list[Pair]], old: list[list[Stream]]) -> None:
        """Fit what the smaller model's layer holds to what the original returns."""
        layer = steps[0].layer
        if flavor.function_name(layer) is not None or id(layer) in self._seen_layers:
            return
        self._seen_layers.add(id(layer))
        if batch_norm.is_batch_norm(layer):
            self._fit_statistics(steps, taken, old)
        elif (
            self._removal.reduces(layer)
            or not all(pair.same for own in taken for pair in own)
            or any(True for _ in self._removal.to_solve(layer))  # that read what was cut inside the layer
        ):
            solved = self._solve_parts(steps, taken)
            self._list_unsolved(layer, solved | self._solve_cells(steps, taken, old))

    def _fit_statistics(self, steps: list[Step], taken: list[list[Pair]], old: list[list[Stream]]) -> None:
        layer = self._removal.counterparts[id(steps[0].layer)]
        axis = batch_norm.statistics_axis(layer)
        if axis is None:
            return
        moments = batch_norm.Moments()
        for step, (pair, *_), (given,) in zip(steps, taken, old, strict=True):
            for x, x_old, wanted in zip(pair.new, pair.old, given, strict=True):
                originals = (
                    self._removal.left_of_tensor(place, tensor)
                    for place, tensor in ((step.outputs[0], wanted), (step.inputs[0], x_old))
                )
                for own, *others in batch_norm.by_channel(axis, x, *originals):
                    moments.add(own)
                    moments.add_wanted(own, *others)
        best = batch_norm.best_statistics(layer, moments)
        if best is not None:
            batch_norm.assign(layer, *best)
            self.recalibrated.append(self.graph.name_of(steps[0].layer))
            self.fitted += [layer.moving_mean, layer.moving_variance]

    def _solve_parts(self, steps: list[Step], taken: list[list[Pair]]) -> set[int]:
        """Solve the linear parts of a layer, one after the other; returns the `id`s of the original's weights."""
        layer = steps[0].layer
        pairs = zip(linear_parts(layer), linear_parts(self._removal.counterparts[id(layer)]), strict=True)
        return {
            key
            for number, (old, new) in enumerate(pairs)
            for key in self._solve(number, self.graph.name_of(old.layer), old, new, steps, taken)
        }

    def _solve_cells(self, steps: list[Step], taken: list[list[Pair]], given: list[list[Stream]]) -> set[int]:
        """Solve the kernels of a recurrent layer that read states, on those of the original; as `_solve_parts`.

        The states of the smaller model are others: if its output gets worse, the kernels are as they were.
        """
        layer = steps[0].layer
        to_solve = {id(weight): name for weight, name in self._removal.to_solve(layer)}
        pairs = zip(cell_parts(layer), cell_parts(self._removal.counterparts[id(layer)]), strict=True)
        parts = [(old, new) for old, new in pairs if id(old.linear.kernel) in to_solve]
        if not parts:
            return set()
        weights = [one for _, new in parts for one in (new.linear.kernel, new.linear.bias) if one is not None]
        before, values, counted = self._output_error(steps, taken, given), values_of(weights), len(self.solved)
        first = len(linear_parts(layer))
        solved = set[int]()
        for number, (old, new) in enumerate(parts, first):
            solved |= self._solve(number, to_solve[id(old.linear.kernel)], old, new, steps, taken)
        if self._output_error(steps, taken, given) > before:
            for variable, value in values:
                variable.assign(value)
            reason = "solved on the original's states, it would make the output worse"
            self.unsolved |= {layer.name: reason for layer in self.solved[counted:]}
            del self.solved[counted:]
        return solved

    def _output_error(self, steps: list[Step], taken: list[list[Pair]], given: list[list[Stream]]) -> float:
        """The squares of the differences of what some calls return first in both models."""
        error = 0.0
        for step, pairs, (wanted, *_) in zip(steps, taken, given, strict=True):
            layer = self._removal.counterparts[id(step.layer)]
            for target, *batch in zip(wanted, *(pair.new for pair in pairs), strict=True):
                made = np.asarray(flavor.call_layer(self._nodes[id(step)], batch, layer)[0])
                left = np.asarray(self._removal.left_of_tensor(step.outputs[0], target))
                error += float(np.square(made.astype(np.float64) - left).sum())
        return error

    def _solve(
        self, number: int, name: str, old: Part, new: Part, steps: list[Step], taken: list[list[Pair]]
    ) -> set[int]:
        """Solve one linear part; returns the `id`s of the original's weights, none where it could not be solved."""
        try:
            one = solve_part(
                name,
                old,
                new,
                self._removal.wanted_kernel(old.linear),
                self._removal.solver(new.linear),
                self._uses(steps, taken, old, new),
                len(steps) * len(self._sizes),
                not old.inside and old.cell is None and batch_norm.is_normalized(self.graph, steps),
                np.random.default_rng([self._seed, self._numbers[id(steps[0])], number]),
            )
        except CannotSolve as error:
            self.unsolved[name] = str(error)
            return set()
        self.fitted += [one for one in (new.linear.kernel, new.linear.bias) if one is not None]
        self.solved += [] if one is None else [one]
        return {id(old.linear.kernel), id(old.linear.bias)}

    def _uses(self, steps: list[Step], taken: list[list[Pair]], old: Part, new: Part) -> Iterator[Use]:
        """What a linear part is called on in both models, for all batches of some calls."""
        firsts = np.cumsum([0, *self._sizes]).tolist()
        for step, pairs in zip(steps, taken, strict=True):
            before, after = (
                zip(*streams, strict=True) for streams in zip(*((p.old, p.new) for p in pairs), strict=True)
            )
            for first, samples, *batch in zip(firsts, self._sizes, before, after, strict=False):
                for x_old, x_new in self._seen(step, old, new, *batch):
                    yield Use(np.asarray(x_old), np.asarray(x_new), first, samples)

    def _seen(
        self, step: Step, old: Part, new: Part, before: Sequence[Any], after: Sequence[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """What a linear part is called on in both models when a layer is called on a batch."""
        if old.cell is not None:
            flowing = self._flowing(step, old, old.cell, before)
            yield flowing, self._removal.left_of_inputs(old.linear, flowing)
            return
        if not old.inside:
            contracted = [axis for position, axis, _ in step.reads if not position]
            yield self._removal.left_of_tensor(step.inputs[0], before[0], contracted), after[0]
            return
        layers = (step.layer, before), (self._removal.counterparts[id(step.layer)], after)
        node = self._nodes[id(step)]

        def seen(part: Part, layer: Layer, taken: Sequence[Any]) -> list[Any]:
            return capture(part.layer, lambda: flavor.call_layer(node, taken, layer))

        yield from zip(*(seen(part, *one) for part, one in zip((old, new), layers, strict=True)), strict=True)

    def _flowing(self, step: Step, part: Part, cell: Layer, batch: Sequence[Any]) -> np.ndarray:
        """What a cell of the original's layer is called on, or its own state, at each step: (samples, steps, ...)."""

        def which(x: Any, states: Any, *_: object, **__: object) -> Any:
            first = states[0] if isinstance(states, list | tuple) else states
            return first if part.state else x

        node = self._nodes[id(step)]
        with flavor.step_by_step(part.layer, unroll=True):
            seen = capture(cell, lambda: flavor.call_layer(node, batch, step.layer), which)
        return np.stack([np.asarray(one) for one in seen], axis=1)

    def _list_unsolved(self, layer: Layer, solved: set[int]) -> None:
        """Name the weights of a layer that keep what the removal left of them."""
        for weight, name in self._removal.to_solve(layer):
            if id(weight) not in solved:
                self.unsolved.setdefault(name, _reason(name))


def _reason(weight: str) -> str:
    if "recurrent" in weight.rpartition("/")[2]:
        return "it reads the layer's own state"
    return "the layer is not known to be linear in what it is called on"


def values_of(variables: Iterable[Variable]) -> list[tuple[Variable, np.ndarray]]:
    """Each variable with a copy of its values."""
    return [(variable, flavor.array_of(variable).copy()) for variable in variables]
