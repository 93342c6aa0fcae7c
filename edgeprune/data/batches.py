"""The one reader of data in any form: a stream of batches, read no further than it is used.

    for x, y, sample_weight in batches_of(data, batch_size=32, inputs=input_shapes(model)):
        ...

Data are

- arrays: `x`, `(x, y)` or `(x, y, sample_weight)`, each an array, or a list or dict of arrays for several inputs or
  outputs. They are cut into batches of `batch_size`;
- a stream: a `tf.data.Dataset`, a Keras `PyDataset` or `Sequence`, a generator or any other iterable of batches in
  these forms. Its batches are not changed; single samples are put together to batches of `batch_size`;
- a function without arguments that returns either: it is called each time the data are read, so a stream from it
  can be read twice.

Where the model's inputs are known, pass them: `[a, b]` is then both inputs of a model with two, and two batches, or
`(x, y)` as Keras reads it in a batch, for a model with one.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeprune.data.npz import memory
from edgeprune.data.structures import array_shape, as_array, flat, is_array, join_arrays, mapped
from edgeprune.number_checks import check_whole
from edgeprune.progress import track
from edgeprune.types import Arrays, DataLike

DATA_FORMS = (
    "arrays x, (x, y) or (x, y, sample_weight), a tf.data.Dataset, a PyDataset or Sequence, an iterable of batches, or "
    "a function that returns one of these"
)
# Input name to its shape without the samples, in the model's order; None for a size that is open.
InputShapes = Mapping[str, tuple[int | None, ...]]


class Batch(NamedTuple):
    """Some samples; None for what they lack.

    Attributes:
        x: inputs `(n, ...)`, a list or dict of them for several.
        y: labels or targets in the same forms.
        sample_weight: weights in the same forms.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None


def batches_of(
    data: DataLike,
    batch_size: int = 32,
    steps: int | None = None,
    *,
    inputs: InputShapes | None = None,
) -> Iterator[Batch]:
    """Read data batch by batch; only one batch is held at a time.

    Args:
        data: in any of the forms above.
        batch_size: samples in a batch, of arrays and of streams of single samples.
        steps: batches at most; None for all.
        inputs: what `input_shapes` returns for the model the data are for; None where that is unknown.

    Returns:
        The batches.

    Raises:
        TypeError: the data are in none of these forms, or a number is none.
        ValueError: a number is out of its range, arrays differ in length, a batch has too many parts, or a stream
            is infinite and `steps` is None.

    Example:
        >>> [len(batch.x) for batch in batches_of((np.zeros((5, 2)), np.zeros(5)), batch_size=2)]
        [2, 2, 1]
    """
    check_data(data, batch_size, steps)
    data = _opened(data)
    whole = _arrays_of(data, inputs)
    if whole is not None:
        return itertools.islice(_slices(whole, batch_size), steps)
    elements = elements_of(data) if steps is None else _elements(data)
    return itertools.islice(_grouped(elements, batch_size, inputs), steps)


def joined(data: DataLike, *, inputs: InputShapes | None = None, source: str = "The data") -> Batch:
    """All data at once: arrays as they are, the batches of a stream joined.

    Args:
        data: as `batches_of` accepts them.
        inputs: as `batches_of` accepts them.
        source: what the data are called in messages.

    Raises:
        TypeError: the data are in none of these forms.
        ValueError: there are no batches, they have different parts or shapes, are infinite, or more than fits
            into memory.

    Example:
        >>> joined([(np.zeros((3, 2)), np.zeros(3)), (np.ones((1, 2)), np.ones(1))]).y.tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    check_data(data)
    data = _opened(data)
    whole = _arrays_of(data, inputs)
    if whole is not None:
        return whole
    batches = []
    room = memory() // 2  # the joined arrays are as large again
    for batch in track(_grouped(elements_of(data, source), 1, inputs, source), f"Reading {_inside(source)}"):
        room -= sum(array.nbytes for array in map(np.asarray, flat(batch)))
        if room < 0:
            raise ValueError(f"{source}: infinitely many batches? Those so far fill half of this machine's memory.")
        batches.append(batch)
    if not batches:
        raise ValueError(f"{source} has no batches.")
    if any([part is None for part in batch] != [part is None for part in batches[0]] for batch in batches):
        raise ValueError(f"{source} has some batches with labels or weights and some without.")
    return Batch(*(_concatenated(parts, source) for parts in zip(*batches, strict=True)))


def samples_of(
    data: DataLike,
    num_samples: int,
    *,
    inputs: InputShapes | None = None,
    source: str = "The data",
) -> Any:
    """The inputs of a few samples, without their labels.

    Args:
        data: as `batches_of` accepts them.
        num_samples: how many at most: of arrays at even distances, as data are often sorted; of a stream the first
            ones, and no more is read.
        inputs: as `batches_of` accepts them.
        source: what the data are called in messages.

    Returns:
        The inputs, in the form that the data have them.

    Raises:
        TypeError: the data are in none of these forms.
        ValueError: there are no samples, or the inputs differ in length.

    Example:
        >>> samples_of(np.arange(9.0), 3).tolist()
        [0.0, 4.0, 8.0]
    """
    check_data(data)
    check_whole("num_samples", num_samples, 1)
    data = _opened(data)
    whole = _arrays_of(data, inputs)
    chosen, left = [], num_samples
    batches = iter([whole]) if whole is not None else _grouped(_elements(data), num_samples, inputs, source)
    for batch in track(batches, f"Reading {_inside(source)}"):
        count = sample_count(Batch(batch.x), source)
        rows = np.linspace(0, count - 1, min(left, count)).round().astype(int)
        chosen.append(mapped(lambda array: np.asarray(array)[rows], batch.x))  # noqa: B023
        left -= count
        if left <= 0:
            break
    if left == num_samples:
        raise ValueError(f"{source} is empty: there are no samples.")
    return _concatenated(chosen, source)


def unpack_batch(batch: Any, inputs: InputShapes | None = None, source: str = "The data") -> Batch:
    """Inputs, labels and sample weights of one batch, or of arrays.

    Args:
        batch: `x`, `(x, y)` or `(x, y, sample_weight)`.
        inputs: as `batches_of` accepts them.
        source: what the data are called in messages.

    Raises:
        ValueError: it has no inputs, or too many parts.
    """
    if isinstance(batch, Batch):
        return batch
    parts = (batch,) if _is_inputs(batch, inputs) else tuple(batch)
    if not 1 <= len(parts) <= 3 or parts[0] is None:
        given = f"{len(parts)} parts" if parts else "no inputs"
        raise ValueError(f"{source}: expected x, (x, y) or (x, y, sample_weight), or batches of them; got {given}.")
    x, *rest = parts
    if isinstance(x, list) and inputs is not None and len(x) == len(inputs) > 1:
        x = tuple(x)  # numbers in lists are now one array each
    elif isinstance(x, list) and inputs is not None and len(inputs) == 1 and are_samples(x, inputs):
        x = np.stack([np.asarray(one) for one in x])
    return Batch(x, *rest)


def count_of(
    data: DataLike,
    batch_size: int = 32,
    steps: int | None = None,
    *,
    inputs: InputShapes | None = None,
) -> int | None:
    """How many batches `batches_of` returns, for a progress bar; None where only reading them would show it.

    A stream of single samples is counted as if each were a batch.

    Raises:
        ValueError: arrays differ in length, or a stream is infinite and `steps` is None.
    """
    if _is_function(data):
        return steps
    whole = _arrays_of(data, inputs)
    known = _length(data) if whole is None else -(-sample_count(whole) // batch_size)
    if steps is None and known == math.inf:
        elements_of(data)  # raises
    if known is None or known == math.inf:
        return steps
    return int(min(known, math.inf if steps is None else steps))


def check_data(data: object, batch_size: object = 1, steps: object = None, name: str = "data") -> None:
    """Check that data are in a form that can be read, in such batches and in so many, without reading any.

    Args:
        data: the data.
        batch_size: samples in a batch.
        steps: batches at most, or None.
        name: the argument's name, for the message.

    Raises:
        TypeError: the data are in no known form, or a number is none.
        ValueError: a number is not whole, or less than 1.
    """
    if not is_data(data):
        raise TypeError(f"{name} must be {DATA_FORMS}; got {type(data).__name__}.")
    check_whole("batch_size", batch_size, 1)
    if steps is not None:
        check_whole("steps", steps, 1)


def is_data(value: object) -> bool:
    """Whether a value is in one of the forms that `batches_of` accepts, as far as can be seen without reading it."""
    if isinstance(value, str | bytes | type):
        return False
    return (
        callable(value) or isinstance(value, Iterable) or hasattr(value, "__getitem__") or hasattr(value, "__array__")
    )


def elements_of(stream: DataLike, source: str = "The data") -> Iterator[Any]:
    """What a stream holds, as it is: batches, or single samples.

    Args:
        stream: a `tf.data.Dataset`, a `PyDataset` or `Sequence`, or any iterable.
        source: what the data are called in messages.

    Raises:
        ValueError: it is infinite.
    """
    if _length(stream) == math.inf:
        raise ValueError(
            f"{source} is infinite: limit it, as with .take(n), or pass steps= where a function has the argument."
        )
    return _elements(stream)


def first_array(x: Arrays) -> Any:
    """The array of the first input (or output), or the only one."""
    if isinstance(x, Mapping):
        return next(iter(x.values()))
    return x[0] if isinstance(x, tuple) or (isinstance(x, list) and not is_array(x)) else x


# Which form it is


def _is_function(data: object) -> bool:
    return callable(data) and not (
        isinstance(data, Iterable) or hasattr(data, "__getitem__") or hasattr(data, "__array__")
    )


def _opened(data: Any) -> Any:
    """What a function returns; data of another form, whatever it is, as they are."""
    if not _is_function(data):
        return data
    name = getattr(data, "__name__", type(data).__name__)
    try:
        inspect.signature(data).bind()
    except TypeError as error:
        raise TypeError(f"{name} must return data without being passed any argument: {error}.") from error
    except ValueError:
        pass  # a function of C has no signature
    returned = data()
    if not is_data(returned) or _is_function(returned):
        raise TypeError(f"{name} must return {DATA_FORMS}; it returned {type(returned).__name__}.")
    return returned


def _arrays_of(data: DataLike, inputs: InputShapes | None) -> Batch | None:
    """The parts of data that are arrays in memory, whole; None for a stream."""
    if not _are_arrays(data, inputs):
        return None
    whole = unpack_batch(data, inputs)
    return _stacked([whole]) if _is_sample(whole.x, inputs) else whole


def _are_arrays(data: object, inputs: InputShapes | None) -> bool:
    single_input = inputs is not None and len(inputs) == 1
    if isinstance(data, list):
        if not data or is_array(data):
            return bool(data)
        if inputs is None:
            return all(map(is_array, data))
        return _is_inputs(data, inputs) or (single_input and len(data) == 1 and is_array(data[0]))
    if isinstance(data, tuple):
        return not (single_input and len(data) > 1 and all(isinstance(one, tuple) for one in data))  # batches
    return isinstance(data, Mapping) or hasattr(data, "__array__")


def _is_inputs(value: object, inputs: InputShapes | None) -> bool:
    """Whether a batch is inputs alone, rather than a tuple, or a list as some generators have it, of parts."""
    if not isinstance(value, tuple | list):
        return True
    if isinstance(value, list) and (inputs is None or is_array(value)):
        return True
    if inputs is None or not value:
        return False
    if len(inputs) > 1:
        has_parts = isinstance(value[0], Mapping | tuple | list)
        return not has_parts or (isinstance(value, list) and is_array(value[0]))
    return isinstance(value, list) and are_samples(value, inputs)


def are_samples(value: Sequence[Any], inputs: InputShapes) -> bool:
    """Whether a list or tuple has single samples for the inputs, rather than an array for each input."""
    return bool(value) and all(_is_sample(one, inputs) for one in value)


def _fits(value: object, shape: Sequence[int | None]) -> bool:
    """Whether a value has a shape in which None stands for any size."""
    own = array_shape(value)
    return own is not None and len(own) == len(shape) and all(b in (None, a) for a, b in zip(own, shape, strict=True))


# Streams, which are known by what they do and not by their class: `Any`


def _length(data: Any) -> float | None:
    """The number of a stream's batches: infinite for one without end, None where it is unknown."""
    if callable(getattr(data, "cardinality", None)):
        count = int(data.cardinality())
        return math.inf if count == -1 else None if count < 0 else count
    try:
        count = len(data) if hasattr(data, "__len__") else getattr(data, "num_batches", -1)
    except NotImplementedError:
        return None
    return math.inf if count is None else None if count == -1 else count  # None: a PyDataset without end


def _elements(data: Any) -> Iterator[Any]:
    if hasattr(data, "__getitem__") and _length(data) is not None:  # a PyDataset has no end when iterated over
        length = _length(data)
        return map(data.__getitem__, itertools.count() if length == math.inf else range(int(length or 0)))
    return iter(data)


def _grouped(
    elements: Iterable[Any], batch_size: int, inputs: InputShapes | None, source: str = "The data"
) -> Iterator[Batch]:
    """The batches of a stream; single samples are put together."""
    samples: list[Batch] = []
    for element in elements:
        batch = Batch(*(mapped(as_array, part) for part in unpack_batch(element, inputs, source)))
        if not _is_sample(batch.x, inputs):
            if samples:
                yield _stacked(samples, source)
                samples = []
            yield batch
            continue
        samples.append(batch)
        if len(samples) == batch_size:
            yield _stacked(samples, source)
            samples = []
    if samples:
        yield _stacked(samples, source)


def _is_sample(x: Arrays, inputs: InputShapes | None) -> bool:
    if not inputs:
        return False
    if isinstance(x, Mapping):
        return x.keys() == inputs.keys() and all(_fits(x[name], shape) for name, shape in inputs.items())
    several = x if isinstance(x, list | tuple) and len(inputs) > 1 else [x]
    return len(several) == len(inputs) and all(map(_fits, several, inputs.values()))


# Arrays


def _slices(whole: Batch, batch_size: int) -> Iterator[Batch]:
    count = sample_count(whole)
    parts = [mapped(as_array, part) for part in whole]
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        yield Batch(*(mapped(lambda array: array[rows], part) for part in parts))  # noqa: B023


def sample_count(whole: Batch, source: str = "The data") -> int:
    """The number of samples in a batch.

    Raises:
        ValueError: the arrays differ in length, or one is a single number.
    """
    shapes = [array_shape(array) for array in flat(whole)]
    if not shapes or not all(shapes):
        raise ValueError(f"{source} must be regular arrays with a row for each sample.")
    counts = {shape[0] for shape in shapes if shape}
    if len(counts) != 1:
        raise ValueError(f"The arrays of {_inside(source)} have different numbers of samples: {sorted(counts)}.")
    return counts.pop()


def _stacked(samples: Sequence[Batch], source: str = "The data") -> Batch:
    """Single samples as one batch."""
    with_axis = (Batch(*(mapped(lambda value: np.asarray(value)[None], part) for part in one)) for one in samples)
    return Batch(*(_concatenated(parts, source) for parts in zip(*with_axis, strict=True)))


def _concatenated(parts: Sequence[Any], source: str) -> Any:
    """Parts of the same structure as one."""
    try:
        return join_arrays(parts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} has batches that do not fit together: {error}") from error


def _inside(source: str) -> str:
    """What the data are called inside a sentence."""
    return "the " + source[4:] if source.startswith("The ") else source
