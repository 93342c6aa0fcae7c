"""Layers that lost channels or weights solved again, from sums over what they read in the original.

One pass over the samples adds up the products of all inputs of each layer. From these sums alone the weights for any
choice of channels or zeros follow, so that a candidate costs a solve for each layer that lacks some, and no pass. Each
layer is solved on what it reads in the original, where `ChannelPlan.reconstruct` runs the smaller model up to it.

Source: Frantar and Alistarh, Optimal Brain Compression, 2022, for solving layers from the products of their inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Slot, Step
from edgeprune.channels.graph.execution import run
from edgeprune.channels.reconstruct.batch_norm import is_batch_norm
from edgeprune.channels.reconstruct.linear import Linear, Part, linear_parts
from edgeprune.channels.reconstruct.ridge import Equations, solve_ridge
from edgeprune.channels.reconstruct.solving import HELD_OUT, LEAST_ROWS, MOST_INPUTS, ROWS_PER_INPUT
from edgeprune.channels.reconstruct.windows import Chosen
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.one_shot.sparse_solver import SparseSolver
from edgeprune.progress import track
from edgeprune.types import DataLike, Layer, Variable

if TYPE_CHECKING:
    import tensorflow as tf

SUMS_MEMORY = 1 << 30  # bytes of sums that are held at once


@dataclass(eq=False)
class _Sums:
    """Sums over rows of what a layer reads, for each of its groups.

    Attributes:
        count: the number of rows.
        input_sums: (groups, inputs).
        gram: (groups, inputs, inputs), of the inputs' products.
    """

    count: int
    input_sums: np.ndarray
    gram: np.ndarray

    @classmethod
    def zeros(cls, groups: int, inputs: int) -> _Sums:
        return cls(0, np.zeros((groups, inputs)), np.zeros((groups, inputs, inputs)))

    def add(self, rows: np.ndarray) -> None:
        """Add rows (groups, rows, inputs)."""
        self.count += rows.shape[1]
        self.input_sums += rows.sum(axis=1)
        self.gram += rows.transpose(0, 2, 1) @ rows

    def equations(self, kept: np.ndarray, kernel: np.ndarray) -> Equations:
        """The equations of groups that read some of their inputs alone.

        Args:
            kept: bool (groups, inputs), as many in each group.
            kernel: (groups, inputs, outputs), what the groups make of all inputs.
        """
        groups, outputs = len(kernel), kernel.shape[2]
        made = Equations.zeros(groups, int(kept[0].sum()), outputs)
        made.count = self.count
        for group, (x, gram, own) in enumerate(zip(self.input_sums, self.gram, kept, strict=True)):
            lost = kernel[group][~own]
            made.input_sums[group] = x[own]
            made.residual_sums[group] = x[~own] @ lost
            made.gram[group] = gram[np.ix_(own, own)]
            made.cross[group] = gram[np.ix_(own, ~own)] @ lost
            made.residual_squares[group] = np.einsum("io,io->o", lost, gram[np.ix_(~own, ~own)] @ lost)
        return made

    def equations_of_change(self, lost: np.ndarray) -> Equations:
        """The equations of outputs that lack what a matrix (groups, inputs, outputs) makes of the inputs."""
        products = self.gram @ lost
        return Equations(
            self.count,
            self.input_sums,
            np.einsum("gi,gio->go", self.input_sums, lost),
            self.gram,
            products,
            np.einsum("gio,gio->go", lost, products),
        )

    def of(self, groups: np.ndarray) -> _Sums:
        """Those of some groups."""
        return _Sums(self.count, self.input_sums[groups], self.gram[groups])


@dataclass(frozen=True, eq=False)
class _Reader:
    """A layer that reads channels with a kernel of its own.

    Attributes:
        number: of its first call.
        part: the layer with its matrix.
        steps: its calls.
        slots: the axes of the kernel that channels lie along.
        means: the moving means of the batch normalizations that alone read its output.
    """

    number: int
    part: Part
    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]
    means: tuple[Variable, ...]

    @property
    def linear(self) -> Linear:
        return self.part.linear

    @cached_property
    def matrix(self) -> np.ndarray:
        """The kernel as (groups, inputs, outputs)."""
        return self.linear.matrix(flavor.array_of(self.linear.kernel))

    @property
    def bytes(self) -> int:
        """Those of its sums, which rows held out have of their own."""
        groups, inputs, _ = self.matrix.shape
        return 2 * 8 * groups * inputs * inputs

    @property
    def has_shift(self) -> bool:
        """Whether its outputs can be shifted."""
        return self.linear.bias is not None or bool(self.means)

    def reads_less(self, kept_mask: np.ndarray) -> bool:
        """Whether it reads a channel that is removed."""
        return any(slot.reads and not kept_mask[slot.classes].all() for slot in self.slots)

    def kept(self, kept_mask: np.ndarray, reads: bool) -> np.ndarray:
        """Which entries of `matrix` the kept channels own, of those that it reads or of those that it makes."""
        flags = np.ones(tuple(self.linear.kernel.shape), bool)
        for slot in self.slots:
            if slot.reads == reads:
                flags &= kept_mask[slot.classes].reshape(slot.spread)
        return self.linear.matrix(flags) > 0

    def values(self, matrix: np.ndarray, shifts: np.ndarray) -> dict[int, np.ndarray]:
        """`id`s of the kernel, and of what absorbs a shift of the outputs, with their values.

        Args:
            matrix: the new kernel, as `matrix` has the old one.
            shifts: (groups, outputs).
        """
        kernel, bias = self.linear.kernel, self.linear.bias
        old = flavor.array_of(kernel)
        values = {id(kernel): self.linear.kernel_of(matrix, old.shape).astype(old.dtype)}
        if bias is not None:
            old = flavor.array_of(bias)
            values[id(bias)] = (old + self.linear.shift_of(shifts, old.shape)).astype(old.dtype)
        for mean in self.means:
            old = flavor.array_of(mean)
            values[id(mean)] = (old - shifts.reshape(old.shape)).astype(old.dtype)
        return values


class QuickReconstruction:
    """The weights of layers that read removed channels, or that lost weights of their own, solved on samples.

    Args:
        graph: the traced model, which is not changed.
        data: samples in any form that `model.fit` accepts, held in memory; labels are not looked at.
        batch_size: samples at once where `data` are arrays.
        seed: of the choice of the places that layers are solved on.
        all_kernels: whether those of layers that read no channels are solved too.

    Raises:
        ValueError: there are no samples, or they do not fit the model.
    """

    def __init__(
        self, graph: ChannelGraph, data: DataLike, batch_size: int = 32, seed: int = 0, all_kernels: bool = False
    ) -> None:
        self._graph, self._seed = graph, seed
        batches = batches_of(data, batch_size, inputs=input_shapes(graph.walked))
        self.batches = [input_tensors(graph.walked, batch.x) for batch in batches]
        if not self.batches:
            raise ValueError("The data has no batches.")
        self._readers = [one for one in _readers(graph) if all_kernels or any(slot.reads for slot in one.slots)]
        self._sums: dict[int, tuple[_Sums, _Sums]] = {}

    def values(self, kept_mask: np.ndarray) -> dict[int, np.ndarray]:
        """The weights for a choice of channels.

        Args:
            kept_mask: bool array `(graph.class_count,)`, True for the classes that are kept.

        Returns:
            `id` of each variable of the original that changes to its values, in the original's shape.
        """
        values: dict[int, np.ndarray] = {}
        for reader in self._readers:
            if reader.reads_less(kept_mask):
                values.update(_solved(reader, kept_mask, *self._sums_of(reader)))
        return values

    def sparse_values(self, kernel: Variable, mask: np.ndarray) -> dict[int, np.ndarray]:
        """The weights for as many zeros in a kernel as a mask has, where its layer's output suffers least.

        Args:
            kernel: a variable of the original.
            mask: bool array of its shape, True where the value is kept.

        Returns:
            As `values`; empty where the kernel is not that of a layer that can be solved by itself.
        """
        reader = next((one for one in self._readers if one.linear.kernel is kernel), None)
        if reader is None:
            return {}
        matrix = np.where(reader.linear.matrix(mask) > 0, reader.matrix, 0.0)
        fitted, tested = (sums.equations_of_change(reader.matrix - matrix) for sums in self._sums_of(reader))
        solve = SparseSolver(reader.linear, mask, np.zeros(mask.shape, int))
        solution = solve(matrix, reader.matrix, fitted, tested, reader.has_shift)
        if (fitted + tested).error(solution.change, solution.shift) < (fitted + tested).residual_squares.sum():
            return reader.values(matrix + solution.change, solution.shift)
        return {}

    def _sums_of(self, reader: _Reader) -> tuple[_Sums, _Sums]:
        """The sums of the rows that are solved on and of those held out; in a pass for it and those after it."""
        if reader.number not in self._sums:
            self._sums = {}
            held, wanted = 0, list[_Reader]()
            for other in self._readers[self._readers.index(reader) :]:
                held += other.bytes
                if held > SUMS_MEMORY and wanted:
                    break
                wanted.append(other)
            self._add_up(wanted)
        return self._sums[reader.number]

    def _add_up(self, readers: Sequence[_Reader]) -> None:
        of_step = {id(step): reader for reader in readers for step in reader.steps}
        randoms = {reader.number: np.random.default_rng([self._seed, reader.number, 0]) for reader in readers}
        for reader in readers:
            groups, inputs, _ = reader.matrix.shape
            self._sums[reader.number] = _Sums.zeros(groups, inputs), _Sums.zeros(groups, inputs)
        first = 0

        def call(step: Step, node: flavor.GraphNode, taken: list[tf.Tensor]) -> list[tf.Tensor]:
            if (reader := of_step.get(id(step))) is not None:
                random = randoms[reader.number]
                rows, is_held_out = self._rows(reader, np.asarray(taken[0]), first, samples, random)
                for sums, own in zip(self._sums[reader.number], (~is_held_out, is_held_out), strict=True):
                    sums.add(rows[:, own])
            return flavor.call_layer(node, taken)

        with flavor.state_restored(self._graph.model):
            for batch in track(self.batches, "What layers read"):
                samples = len(batch[0])
                run(self._graph, batch, call)
                first += samples

    def _rows(
        self, reader: _Reader, x: np.ndarray, first: int, samples: int, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a batch at places chosen at random, and which of them are held out."""
        folded = x.reshape(-1, *x.shape[1 + reader.part.folded :])
        places = reader.linear.places(folded.shape)
        of_all = len(folded) * places
        wanted = max(LEAST_ROWS, ROWS_PER_INPUT * reader.matrix.shape[1])
        count = -(-wanted // (len(self.batches) * len(reader.steps)))
        flat = np.arange(of_all) if count >= of_all else np.sort(random.choice(of_all, count, replace=False))
        sample, inside = np.divmod(flat, max(places, 1))
        numbers = first + sample * samples // len(folded)
        return reader.linear.rows(folded, Chosen(sample, inside)), numbers % HELD_OUT == HELD_OUT - 1


def _solved(reader: _Reader, kept_mask: np.ndarray, fit: _Sums, held_out: _Sums) -> dict[int, np.ndarray]:
    """The kernel, and what absorbs a shift of the outputs, by the `id`s of the variables."""
    matrix = reader.matrix.copy()
    shifts = np.zeros((matrix.shape[0], matrix.shape[2]))
    reads = np.asarray(reader.kept(kept_mask, reads=True).any(axis=2))
    makes = np.asarray(reader.kept(kept_mask, reads=False).any(axis=1))
    whole = np.flatnonzero(np.any(reads, axis=1) & np.any(makes, axis=1))  # the groups that are not removed
    wanted = np.stack([matrix[group][:, makes[group]] for group in whole])  # all lose as many
    fitted, tested = (sums.of(whole).equations(reads[whole], wanted) for sums in (fit, held_out))
    total, solution = fitted + tested, solve_ridge(fitted, tested, reader.has_shift)
    if total.error(solution.change, solution.shift) < total.residual_squares.sum():
        for group, change, shift in zip(whole, solution.change, solution.shift, strict=True):
            matrix[group][np.ix_(reads[group], makes[group])] += change
            shifts[group, makes[group]] = shift
    return reader.values(matrix, shifts)


def _readers(graph: ChannelGraph) -> Iterator[_Reader]:
    """The layers with one kernel of their own that are not too wide to solve."""
    calls: dict[int, list[tuple[int, Step]]] = {}
    for number, step in enumerate(graph.steps):
        calls.setdefault(id(step.layer), []).append((number, step))
    for own in calls.values():
        (number, first), *_ = own
        parts = linear_parts(first.layer)
        if len(parts) != 1 or parts[0].inside:
            continue
        slots = tuple(graph.weight_slots.get(id(parts[0].linear.kernel), {}).values())
        steps = tuple(step for _, step in own)
        means = () if parts[0].linear.bias is not None else tuple(_means_behind(graph, steps, parts[0]))
        reader = _Reader(number, parts[0], steps, slots, means)
        if reader.matrix.shape[1] <= MOST_INPUTS:
            yield reader


def _means_behind(graph: ChannelGraph, steps: Sequence[Step], part: Part) -> list[Variable]:
    """The moving means of the batch normalizations that read a layer's output, where nothing else does."""
    given = {place for step in steps for place in step.outputs}
    readers: list[Layer] = [step.layer for step in graph.steps if given & set(step.inputs)]
    elsewhere = given & (set(graph.outputs) | {fold.taken for fold in graph.folds})
    outputs = part.linear.matrix(np.ones(tuple(part.linear.kernel.shape)))[:, 0].size
    inside = [step.layer for step in graph.steps if not given.issuperset(step.inputs)]  # called on something else too
    norms = [
        layer
        for layer in readers
        if is_batch_norm(layer)
        and tuple(layer.moving_mean.shape) == (outputs,)
        and not any(layer is one for one in inside)
    ]
    return [layer.moving_mean for layer in norms] if len(norms) == len(readers) and not elsewhere else []
