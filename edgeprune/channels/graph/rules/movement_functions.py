"""Functions in the graph that move elements: reshaping, joining, cutting out, repeating."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.functions import Sizes, axes_of, operands, tensor
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule
from edgeprune.types import ArrayLike


def _as_list(sizes: ArrayLike) -> list[Any]:
    """A shape argument as a list; a list that holds tensors is returned as it is."""
    return list(sizes) if isinstance(sizes, list | tuple) else np.asarray(sizes).tolist()


@function_rule("reshape", "ravel")
def reshape(call: Call) -> Value:
    """The same elements in another shape."""
    x = call.x
    if any(isinstance(other, Sizes) or other.shape for other in call.inputs[1:]):
        raise CannotFollow("its shape is a tensor")
    given = call.space.reshape(x, call.output_shapes[0])
    if "newshape" in call.arguments or "shape" in call.arguments:
        key = call.argument_name("newshape", "shape")
        call.resize_shape(key, _as_list(call.argument(key)), given, of_function=True)
    return given


@function_rule("expanddims", "expanddimsv2", "squeeze", "squeezev2")
def with_ones(call: Call) -> Value:
    """Axes of size 1 come or go."""
    return call.space.reshape(tensor(call), call.output_shapes[0])


@function_rule("transpose", "transposev2")
def transpose(call: Call) -> Value:
    """The axes in another order; reversed by default."""
    x = tensor(call)
    axes = call.argument("axes", "perm")
    return call.space.transpose(x, range(x.rank)[::-1] if axes is None else _as_list(axes))


@function_rule("swapaxes")
def swap_axes(call: Call) -> Value:
    """Two axes change places."""
    x = tensor(call)
    order = list(range(x.rank))
    a, b = x.axis(call.argument("axis1")), x.axis(call.argument("axis2"))
    order[a], order[b] = order[b], order[a]
    return call.space.transpose(x, order)


@function_rule("moveaxis")
def move_axis(call: Call) -> Value:
    """Axes move to other places."""
    x = tensor(call)
    return call.space.transpose(x, _moved(x.rank, call))


def _moved(rank: int, call: Call) -> list[int]:
    sources, targets = (axes_of(call.argument(name), rank) for name in ("source", "destination"))
    order = [axis for axis in range(rank) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return order


@function_rule("concatenate", "concat", "concatv2")
def concatenate(call: Call) -> Value:
    """Tensors side by side; constants among them are kept."""
    return call.space.concatenate(operands(call), int(call.argument("axis", default=-1)))


@function_rule("stack")
def stack(call: Call) -> Value:
    """Tensors side by side along a new axis."""
    values = operands(call)
    axis = int(call.argument("axis", default=0)) % (values[0].rank + 1)
    rows = [call.space.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in values]
    return call.space.concatenate(rows, axis)


@function_rule("unstack")
def unstack(call: Call) -> list[Value]:
    """The slices along an axis; all of them are kept, and lose the same channels."""
    x = tensor(call)
    axis = x.axis(call.argument("axis", default=0))
    x = call.space.tied_along(x, axis)
    call.freeze(call.line(x, axis), f"{call.name} unstacks them")
    parts = [np.squeeze(part, axis) for part in x.parts if part.shape[axis] == 1]
    return [call.space.with_parts(shape, parts) for shape in call.output_shapes]


@function_rule("split", "splitv", "arraysplit")
def split(call: Call) -> list[Value]:
    """Neighbouring runs along an axis; what remains of each says where the next begins."""
    x = tensor(call)
    axis = x.axis(int(call.argument("axis", default=0)))
    x = call.space.tied_along(x, axis)
    sizes = [shape[axis] for shape in call.output_shapes]
    bounds = np.cumsum([0, *sizes])
    runs = list(zip(bounds[:-1], bounds[1:], strict=True))
    given = [call.space.along(x, axis, partial(_run_of, run)) for run in runs]
    line = call.line(x, axis)
    if line is not None:
        key = call.argument_name("indices_or_sections", "num_or_size_splits")
        pieces = [line[a:b] for a, b in runs]
        if key == "indices_or_sections":
            call.resize(key, *pieces, value=_ends, of_function=True)  # the last one too: equal parts may end
        else:
            call.resize(key, *pieces, value=_sizes, of_function=True)
        for piece in pieces:
            call.never_empty(piece)
    return given


def _ends(*sizes: int) -> list[int]:
    return np.cumsum(sizes[:-1]).tolist()


def _sizes(*sizes: int) -> list[int]:
    return list(sizes)


@function_rule("getitem", "stridedslice")
def get_item(call: Call) -> Value:
    """Indexing with integers, slices, `...` and new axes."""
    x = call.x
    key = call.argument_name("key", "slice_spec")
    entries = flavor.slice_entries(call.argument(key))
    if len(call.inputs) > 1 or any(hasattr(entry, "shape") for entry in entries):
        raise CannotFollow("it is indexed by a tensor")
    if isinstance(x, Sizes):
        return x.item(call, entries)
    entries = _spread(entries, x.rank)
    value, shape, axis, new_entries, runs = x, [], 0, [], []
    for entry in entries:
        new_entries.append(entry)
        if entry is None:
            shape.append(1)
            continue
        is_slice = isinstance(entry, slice)
        cut = entry if is_slice else slice(entry, entry + 1 or None)
        if cut != slice(None):
            value = call.space.tied_along(value, axis)
        line = call.line(value, axis) if cut != slice(None) else None
        if line is not None and not is_slice:
            call.freeze(line, f"{call.name} selects a single one of them")
        elif line is not None:
            start, stop, step = cut.indices(len(line))
            if step == 1:
                new_entries[-1] = ...
                runs += [line[:start], line[start:stop]]
            else:
                _tie_steps(call, line, start, stop, step)
            call.never_empty(line[cut])
        if cut != slice(None):
            value = call.space.along(value, axis, partial(_cut_of, cut))
        if is_slice:
            shape.append(value.shape[axis])
        axis += 1
    call.resize(key, *runs, value=_NewKey(new_entries), of_function=True)
    return call.space.reshape(value, shape)


class _NewKey:
    """A key whose slices (`...` here) follow the channels before and inside them."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def __call__(self, *sizes: int) -> tuple:
        runs = iter(zip(sizes[::2], sizes[1::2], strict=True))
        entries = []
        for entry in self.entries:
            if entry is ...:
                start, count = next(runs)
                entry = slice(start, start + count)
            entries.append(entry)
        return tuple(entries)


def _spread(entries: list[Any], rank: int) -> list[Any]:
    """A key with `...` written out."""
    given = sum(entry is not None and entry is not ... for entry in entries)
    full = [slice(None)] * (rank - given)
    if ... in entries:
        place = entries.index(...)
        return [*entries[:place], *full, *entries[place + 1 :]]
    return [*entries, *full]


def _tie_steps(call: Call, line: np.ndarray, start: int, stop: int, step: int) -> None:
    """A slice with steps keeps its share only if whole runs of that length are removed."""
    if not 0 <= start < step or stop != len(line) or len(line) % step:
        raise CannotFollow("its slice has a step that does not divide the channels")
    call.space.ids.tie(line.reshape(-1, step), 1)


@function_rule("pad", "padv2", "mirrorpad")
def pad(call: Call) -> Value:
    """Places before and after; along channels the new ones are kept."""
    x = tensor(call)
    widths = np.asarray(call.argument("pad_width", "paddings"))
    widths = np.broadcast_to(widths, (x.rank, 2))
    value = x
    for axis, (before, after) in enumerate(widths.tolist()):
        if not (before or after):
            continue
        line = call.line(value, axis)
        if line is None:
            value = call.space.along(value, axis, partial(_padded, before=before, after=after))
            continue
        if str(call.argument("mode", default="constant")).lower() != "constant":
            raise CannotFollow("it mirrors channels")
        ends = [call.space.constant_line(size, f"{call.name} pads with it") for size in (before, after)]
        shape = list(value.shape)
        shape[axis] += before + after
        lines = call.space.other_lines(value, [axis])
        value = call.space.value(shape, {**lines, axis: np.concatenate([ends[0], line, ends[1]])})
    return value


def _run_of(run: tuple[int, int], array: np.ndarray, axis: int) -> np.ndarray:
    return np.take(array, range(*run), axis=axis)


def _cut_of(cut: slice, array: np.ndarray, axis: int) -> np.ndarray:
    return array[(slice(None),) * axis + (cut,)]


def _tiled(count: int, array: np.ndarray, axis: int) -> np.ndarray:
    return np.tile(array, [count if a == axis else 1 for a in range(array.ndim)])


def _padded(array: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    return np.pad(array, [(before, after) if a == axis else (0, 0) for a in range(array.ndim)])


@function_rule("repeat")
def repeat(call: Call) -> Value:
    """Each place several times in a row."""
    times = call.argument("repeats")
    if not isinstance(times, int | np.integer) or call.argument("axis") is None:
        raise CannotFollow("it repeats by a list or over all axes")
    return call.space.along(tensor(call), call.argument("axis"), lambda a, k: np.repeat(a, times, axis=k))


@function_rule("tile")
def tile(call: Call) -> Value:
    """All places along an axis several times over."""
    x = value = tensor(call)
    times = _as_list(call.argument("repeats", "multiples"))
    times = [1] * (x.rank - len(times)) + times
    for axis, count in enumerate(times):
        if count != 1:
            value = call.space.along(value, axis, partial(_tiled, count))
    return value


@function_rule("flip", "reverse", "reversev2")
def flip(call: Call) -> Value:
    """Places in the opposite order."""
    x = value = tensor(call)
    for axis in axes_of(call.argument("axis"), x.rank):
        value = call.space.along(value, axis, lambda a, k: np.flip(a, axis=k))
    return value


@function_rule("roll")
def roll(call: Call) -> Value:
    """Places moved along, around the end; channels do not move."""
    x = tensor(call)
    for axis in axes_of(call.argument("axis"), x.rank):
        call.freeze(call.line(x, axis), f"{call.name} moves it by a fixed number of places")
    return x


@function_rule("broadcastto")
def broadcast_to(call: Call) -> Value:
    """Axes of size 1 grow."""
    x = tensor(call)
    given = call.space.merge([x, Value(tuple(1 for _ in call.output_shapes[0]))], "", call.output_shapes[0])
    key = call.argument_name("shape")
    call.resize_shape(key, _as_list(call.argument(key)), given, of_function=True)
    return given


@function_rule("take", "gather", "gatherv2")
def take(call: Call) -> Value:
    """Some places along an axis, by a constant list; those of a table of channels by a tensor."""
    indices = call.argument("indices")
    axis = call.argument("axis", default=0)
    if isinstance(indices, Value) or axis is None or call.argument("batch_dims", default=0):
        raise CannotFollow("its indices are a tensor")
    x = tensor(call)
    call.freeze(call.line(x, int(axis)), f"{call.name} indexes them")
    rows, axis = np.asarray(indices).ndim, x.axis(int(axis))
    lines = call.space.other_lines(x, [axis])
    return call.output({a if a < axis else a + rows - 1: line for a, line in lines.items()})


@function_rule("takealongaxis")
def take_along_axis(call: Call) -> Value:
    """Some places along an axis, named by a tensor that has one size with the others or names the same for all."""
    x, indices = call.argument("x"), call.argument("indices")
    axis = call.argument("axis", default=-1)
    if not isinstance(x, Value) or axis is None:
        raise CannotFollow("it indexes a constant, or all axes at once")
    sizes = indices.shape if isinstance(indices, Value) else np.shape(indices)
    named = {a for a in range(x.rank) if sizes[a] > 1} | {x.axis(axis)}
    for a in named:
        call.freeze(call.line(x, a), f"{call.name} indexes them")
    return call.output(call.space.other_lines(x, named))


@function_rule("depthtospace", "spacetodepth")
def depth_and_space(call: Call) -> Value:
    """Blocks of places become channels, or the other way round."""
    x, block = tensor(call), int(call.argument("block_size"))
    first = str(call.argument("data_format", default="channels_last")) in ("NCHW", "channels_first")
    if first:
        raise CannotFollow("it works on channels first")
    deepens = flavor.function_name(call.layer) == "spacetodepth"

    def move(array: np.ndarray) -> np.ndarray:
        n, h, w, c = array.shape
        if deepens:
            array = array.reshape(n, h // block, block, w // block, block, c).transpose(0, 1, 3, 2, 4, 5)
            return array.reshape(n, h // block, w // block, block * block * c)
        array = array.reshape(n, h, w, block, block, c // block**2).transpose(0, 1, 3, 2, 4, 5)
        return array.reshape(n, h * block, w * block, c // block**2)

    if 1 in x.shape[1:3] and deepens:
        raise CannotFollow("the size of its input is not fixed")
    return call.space.run(x, move)[0]


@function_rule("extractpatches", "extractimagepatches")
def extract_patches(call: Call) -> Value:
    """A place's neighbourhood becomes its channels: each offset has all the channels."""
    x, shape = tensor(call), call.output_shapes[0]
    line = call.channels(x, -1)
    return call.output({-1: None if line is None else np.tile(line, shape[-1] // len(line))})
