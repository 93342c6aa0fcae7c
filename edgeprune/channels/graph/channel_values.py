"""What a trace knows of a tensor, and how adding, reshaping, joining and cutting tensors moves their channels.

A `Value` is a shape and *parts*. A part is an integer array of channel ids with the tensor's rank: full along
the axes where the ids differ, of size 1 along the others. A convolution's output (1, 56, 56, 64) has one part,
of shape (1, 1, 1, 64). An axis that no part varies along keeps all its places. A tensor may have several parts,
along different axes: tokens and channels can be dropped independently of each other.

A removal must cut a tensor along whole axes, so a part has to vary along one axis only in the end. Right
after a reshape it may vary along several; the call that uses it then says along which (`Space.line` ties the
ids along the others). What nobody decided varies along the last of its axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgeprune.channels.graph.ids import Ids


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor's shape, with 1 for the batch and for sizes that are not fixed, and its parts."""

    shape: tuple[int, ...]
    parts: tuple[np.ndarray, ...] = ()

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """The axis counted from 0."""
        return axis % self.rank

    def varies_along(self, axis: int) -> bool:
        """Whether any part differs from place to place along this axis."""
        return any(part.shape[axis] > 1 for part in self.parts)


def varying(part: np.ndarray) -> list[int]:
    """The axes along which a part varies."""
    return [axis for axis, size in enumerate(part.shape) if size > 1]


def placed(line: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector of ids as a part along one axis."""
    return line.reshape([-1 if a == axis else 1 for a in range(rank)])


class Space:
    """The ids of one model, with the operations on values; it remembers the values to settle in the end."""

    def __init__(self) -> None:
        self.ids = Ids()
        self._loose: list[Value] = []

    def value(self, shape: Sequence[int], lines: Mapping[int, np.ndarray | None]) -> Value:
        """A value whose channels lie along the given axes; None and axes of size 1 have no channels of their own."""
        shape = tuple(shape)
        parts = tuple(
            placed(line, axis % len(shape), len(shape))
            for axis, line in lines.items()
            if line is not None and len(line) > 1
        )
        return Value(shape, parts)

    def with_parts(self, shape: Sequence[int], parts: Iterable[np.ndarray]) -> Value:
        """A value of these parts: those that do not vary are left out, those on one axis are sorted out."""
        kept: list[np.ndarray] = []
        for part in parts:
            axes = varying(part)
            if not axes:
                continue
            for other in kept:
                if set(varying(other)) & set(axes):
                    self.ids.freeze(other, "it is folded into one axis with other channels")
            kept = [other for other in kept if not set(varying(other)) & set(axes)] + [part]
        value = Value(tuple(shape), tuple(kept))
        if any(len(varying(part)) > 1 for part in kept):
            self._loose.append(value)
        return value

    def settled_part(self, part: np.ndarray) -> np.ndarray:
        """A part as it stands after all unions, varying along one axis at most."""
        part = self.narrowed(part)
        for axis in varying(part)[:-1]:
            self.ids.tie(part, axis)
            part = self.ids.find(np.take(part, [0], axis=axis))
        return part

    def settle(self) -> None:
        """Decide, for every value that is still loose, that its channels lie along the last axis they vary along."""
        for value in self._loose:
            for part in value.parts:
                self.settled_part(part)

    def line(self, value: Value, axis: int) -> np.ndarray | None:
        """The ids along an axis (value.shape[axis],); None where nothing is dropped along it.

        The ids along the other axes of the same part are tied.
        """
        axis = value.axis(axis)
        lines = []
        for part in value.parts:
            if part.shape[axis] > 1:
                tied = self._tied_but_along(part, axis)
                if tied is not None:
                    lines.append(tied.reshape(-1))
        for line in lines[1:]:
            self.ids.unite(lines[0], line)
        return lines[0] if lines else None

    def _tied_but_along(self, part: np.ndarray, axis: int) -> np.ndarray | None:
        """A part that varies along one axis only; None where earlier ties left it none to vary along there."""
        if len(varying(part)) > 1:
            part = self.narrowed(part)
            if part.shape[axis] == 1:
                return None
            for other in varying(part):
                if other != axis:
                    self.ids.tie(part, other)
                    part = np.take(part, [0], axis=other)
        return part

    def tied_along(self, value: Value, axis: int) -> Value:
        """The value with what could lie along an axis or along others lying along the others."""
        parts = []
        for part in value.parts:
            part = self.narrowed(part) if len(varying(part)) > 1 else part
            if part.shape[axis] > 1 and len(varying(part)) > 1:
                self.ids.tie(part, axis)
                part = np.take(part, [0], axis=axis)
            parts.append(part)
        return Value(value.shape, tuple(parts))

    def other_lines(self, value: Value, axes: Iterable[int]) -> dict[int, np.ndarray]:
        """The lines of a value along all axes but these; of a part that could lie along several, along the last."""
        skipped = {value.axis(axis) for axis in axes}
        lines: dict[int, np.ndarray] = {}
        for part in value.parts:
            left = [axis for axis in varying(part) if axis not in skipped]
            if left and len(varying(part)) > 1:
                left = [axis for axis in varying(self.narrowed(part)) if axis not in skipped]
            if left:
                lines[left[-1]] = cast(np.ndarray, self.line(value, left[-1]))
        return lines

    def settled(self, value: Value) -> Value:
        """The value with each part along one axis."""
        if all(len(varying(part)) < 2 for part in value.parts):
            return value
        return Value(value.shape, tuple(self.settled_part(part) for part in value.parts))

    def narrowed(self, part: np.ndarray) -> np.ndarray:
        """A part without the axes along which it does not vary, as things stand."""
        return self._narrow(self.ids.find(part))

    def constant_line(self, size: int, reason: str) -> np.ndarray:
        """Ids for places that cannot be dropped."""
        line = self.ids.fresh(size)
        self.ids.freeze(line, reason)
        return line

    def freeze(self, value: Value, reason: str) -> None:
        """Keep every channel of a value from being dropped."""
        for part in value.parts:
            self.ids.freeze(part, reason)

    def merge(self, values: Sequence[Value], reason: str, shape: Sequence[int] | None = None) -> Value:
        """An element-wise operation under broadcasting: channels that meet are united.

        An operand of size 1 along an axis fits whatever is dropped from the others along it. One that has all
        places there and no channels of its own (a model's input, a constant) freezes them, for `reason`.
        """
        first = values[0]
        if all(v.shape == first.shape and len(v.parts) == 1 for v in values) and len(varying(first.parts[0])) == 1:
            if all(v.parts[0].shape == first.parts[0].shape for v in values):
                for value in values[1:]:
                    self.ids.unite(first.parts[0], value.parts[0])
                return first
        shape = tuple(shape) if shape is not None else np.broadcast_shapes(*(v.shape for v in values))
        rank = len(shape)
        # Operands of a lower rank are aligned on the right.
        sizes = [(1,) * (rank - v.rank) + v.shape for v in values]
        parts = [[part.reshape((1,) * (rank - v.rank) + part.shape) for part in v.parts] for v in values]
        merged: list[np.ndarray] = []
        for own in parts:
            for part in own:
                part = self._tied_where_whole(part, sizes, parts)
                axes = set(varying(part))
                for size, other_parts in zip(sizes, parts, strict=True):
                    for axis in axes:
                        if size[axis] > 1 and not any(other.shape[axis] > 1 for other in other_parts):
                            self.ids.freeze(part, reason)
                for number, other in enumerate(merged):
                    if axes & set(varying(other)):
                        self.ids.unite(part, other)
                        merged[number] = max(part, other, key=lambda p: p.size)
                        break
                else:
                    merged.append(part)
        return self.with_parts(shape, merged)

    def _tied_where_whole(
        self, part: np.ndarray, sizes: list[tuple[int, ...]], parts: list[list[np.ndarray]]
    ) -> np.ndarray:
        """A part that may still lie along several axes lies along those where all places of no operand must be kept."""
        axes = varying(part)
        if len(axes) < 2:
            return part
        part = self.narrowed(part)
        axes = varying(part)
        whole = [
            axis
            for axis in axes
            if any(
                size[axis] > 1 and not any(other.shape[axis] > 1 for other in others)
                for size, others in zip(sizes, parts, strict=True)
            )
        ]
        if len(whole) < len(axes):
            for axis in whole:
                self.ids.tie(part, axis)
                part = np.take(part, [0], axis=axis)
        return part

    def transpose(self, value: Value, axes: Sequence[int]) -> Value:
        """The axes in another order."""
        axes = [value.axis(axis) for axis in axes]
        return Value(tuple(value.shape[a] for a in axes), tuple(part.transpose(axes) for part in value.parts))

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The same elements in another shape.

        Only the axes that a part's own axes are folded into are written out: the shapes are cut into blocks of
        equal products, and the other blocks remain of size 1.
        """
        shape = tuple(shape)
        if shape == value.shape:
            return value
        places, rest = math.prod(value.shape), math.prod(shape[1:])
        if math.prod(shape) != places:
            if not (shape and rest) or places % rest:
                self.freeze(value, "it is reshaped with a size that is not fixed")
                return Value(shape)
            shape = (places // rest, *shape[1:])  # places are folded into the batch, or come out of it
        blocks = _blocks(value.shape, shape)
        parts = []
        for part in value.parts:
            old, new = list(part.shape), [1] * len(shape)
            for (start, stop), (new_start, new_stop) in blocks:
                if any(size > 1 for size in part.shape[start:stop]):
                    old[start:stop] = value.shape[start:stop]
                    new[new_start:new_stop] = shape[new_start:new_stop]
            part = self._narrow(np.broadcast_to(part, old).reshape(new))
            if shape[0] != value.shape[0] and part.shape[0] > 1:
                self.ids.freeze(part, "it is folded into the batch")
            else:
                parts.append(part)
        return self.with_parts(shape, parts)

    def into_batch(self, value: Value, reason: str) -> Value:
        """The places along axis 1 as samples of their own; all of them are kept, for `reason`."""
        line = self.line(value, 1)
        if line is not None:
            self.ids.freeze(line, reason)
        shape = (value.shape[0] * value.shape[1], *value.shape[2:])
        return Value(shape, tuple(np.squeeze(part, 1) for part in value.parts if part.shape[1] == 1))

    def out_of_batch(self, value: Value, size: int) -> Value:
        """The samples as `size` places along a new axis 1."""
        shape = (value.shape[0] // size, size, *value.shape[1:])
        return self.with_parts(shape, [np.expand_dims(part, 1) for part in value.parts])

    def _narrow(self, part: np.ndarray) -> np.ndarray:
        """A part without the axes along which it does not vary."""
        for axis in varying(part):
            first = np.take(part, [0], axis=axis)
            if (part == first).all():
                part = first
        return part

    def along(self, value: Value, axis: int, change: Callable[[np.ndarray, int], np.ndarray]) -> Value:
        """The same operation on every line along one axis: slicing, tiling, flipping, repeating.

        Args:
            value: the value.
            axis: the axis.
            change: `change(array, axis)` is NumPy's operation; it is run on shapes and on ids.

        Returns:
            The value that the operation makes.
        """
        axis = value.axis(axis)
        size = change(np.zeros(value.shape[axis], int), 0).shape[0]
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        return self.with_parts(shape, [change(part, axis) if part.shape[axis] > 1 else part for part in value.parts])

    def concatenate(self, values: Sequence[Value], axis: int) -> Value:
        """Values joined along an axis; along the others they are united as an element-wise operation would."""
        axis = values[0].axis(axis)
        shape = list(values[0].shape)
        shape[axis] = sum(v.shape[axis] for v in values)
        joined = None
        if any(v.varies_along(axis) for v in values):
            lines = []
            for value in values:
                line = self.line(value, axis)
                if line is None:
                    line = self.constant_line(value.shape[axis], "it is joined from a tensor without channels")
                lines.append(line)
            joined = placed(np.concatenate(lines), axis, len(shape))
        if all(len(v.parts) <= 1 and all(part.shape[axis] > 1 for part in v.parts) for v in values):
            return Value(tuple(shape), () if joined is None else (joined,))
        # Along the other axes the operands' sizes must remain equal.
        rest = [
            Value(
                (*v.shape[:axis], 1, *v.shape[axis + 1 :]),
                tuple(placed(line, a, v.rank) for a, line in self.other_lines(v, [axis]).items()),
            )
            for v in values
        ]
        parts = list(self.merge(rest, "it is joined with a tensor without channels").parts)
        return self.with_parts(shape, parts if joined is None else [*parts, joined])

    def run(self, value: Value, operation: Callable[[np.ndarray], np.ndarray]) -> list[Value]:
        """Any data movement: the very operation is run on the ids, written out in full.

        Args:
            value: what it moves.
            operation: called with an int64 array of the value's shape, returns the moved array or several.

        Returns:
            What comes out, one value for each array. Zero stands for places that the operation filled up.
        """
        results: list[list[np.ndarray]] = []
        shapes: list[tuple[int, ...]] = []
        parts = value.parts or (np.zeros((1,) * value.rank, int),)
        for part in parts:
            made = operation(np.ascontiguousarray(np.broadcast_to(part + 1, value.shape)))
            moved = made if isinstance(made, list | tuple) else [made]
            shapes = [tuple(array.shape) for array in moved]
            results.append([self._filled(np.asarray(array, np.int64)) for array in moved])
        if not value.parts:
            return [Value(shape) for shape in shapes]
        return [
            self.with_parts(shape, [self._narrow(own[number]) for own in results])
            for number, shape in enumerate(shapes)
        ]

    def _filled(self, moved: np.ndarray) -> np.ndarray:
        """Ids after a movement; those it filled up with zero are fresh ones that are kept."""
        empty = moved == 0
        ids = moved - 1
        if empty.any():
            ids[empty] = self.constant_line(1, "it is padded")
        return ids


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The finest cut of two shapes of equal product into runs of axes with equal products."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, new_start = i, j
        a, b = 1, 1
        if i < len(old):
            a, i = old[i], i + 1
        if j < len(new):
            b, j = new[j], j + 1
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        blocks.append(((start, i), (new_start, j)))
    return blocks
