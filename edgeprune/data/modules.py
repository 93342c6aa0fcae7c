"""Data that a function of the user's returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune.data.npz import memory
from edgeprune.data.ports import Ports
from edgeprune.data.samples import NAMES, PARTS, Data, assembled
from edgeprune.module_names import object_named
from edgeprune.progress import track

_RESULTS = (
    "an array, a tuple (x, y) or (x, y, sample_weight), a dict with arrays named x, y and so on, batches of these, or "
    "a tuple of two of these for training and testing"
)


def open_function(name: str) -> Callable[[Ports | None], Data]:
    """Find the function that a name stands for.

    Args:
        name: `module:function` or `path/to/file.py:function`.

    Returns:
        A function that calls it and returns its samples.

    Raises:
        FileNotFoundError, ImportError: it is not there, or its module stopped.
        ValueError: it is no function.
    """
    function = object_named(name)
    if not callable(function):
        raise ValueError(f"{name} is no function: its type is {type(function).__name__}.")

    def read(ports: Ports | None) -> Data:
        with _reported(name):
            result = function()
        return result if isinstance(result, Data) else assembled(name, _named(name, result))

    return read


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # whatever the user's code does
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ValueError(f"{name} stopped: {said}") from error


def _named(name: str, result: Any) -> dict[str, Any]:
    """What the function returned, by the names of samples."""
    if isinstance(result, Mapping):
        if unknown := [key for key in result if str(key).partition(".")[0] not in NAMES]:
            raise ValueError(f"{name} returned a dict with {unknown}; its keys are {', '.join(NAMES)}, or x.NAME.")
        return {str(key): value for key, value in result.items()}
    if isinstance(result, tuple) and len(result) == 2 and all(map(_has_parts, result)):
        train, test = (_parts(name, one) for one in result)
        return {f"{part}_train": train[part] for part in train} | {f"{part}_test": test[part] for part in test}
    return _parts(name, result)


def _has_parts(value: Any) -> bool:
    """Whether this is a pair of inputs and labels, or batches of them, rather than an array or arrays."""
    return isinstance(value, tuple) or not (isinstance(value, Mapping | list) or hasattr(value, "__array__"))


def _parts(name: str, samples: Any) -> dict[str, Any]:
    """Inputs, labels and sample weights of arrays or of all batches."""
    if _has_parts(samples) and not isinstance(samples, tuple):
        return _joined(name, _batches(name, samples))
    parts = samples if isinstance(samples, tuple) else (samples,)
    if not 1 <= len(parts) <= len(PARTS) or parts[0] is None:
        raise ValueError(f"{name} returned a tuple of {len(parts)}; expected {_RESULTS}.")
    return dict(zip(PARTS, parts, strict=False))


def _batches(name: str, stream: Any) -> Iterator[Any]:
    """The batches of a dataset, a PyDataset or a generator, to their end."""
    endless = f"{name} returned infinitely many batches: limit them, as with take()."
    if hasattr(stream, "cardinality") and int(stream.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(endless)
    if isinstance(stream, str | bytes) or not (isinstance(stream, Iterable) or hasattr(stream, "__getitem__")):
        raise ValueError(f"{name} returned {type(stream).__name__}; expected {_RESULTS}.")
    if hasattr(stream, "__getitem__") and hasattr(stream, "__len__"):  # a PyDataset has no end when iterated over
        stream = map(stream.__getitem__, range(len(stream)))
    batches = track(iter(stream), f"Reading {name}")
    room = memory() // 2  # the batches are joined to arrays of the same size
    while True:
        with _reported(name):
            batch = next(batches, None)
        if batch is None:
            return
        room -= sum(array.nbytes for array in _flat(batch))
        if room < 0:
            raise ValueError(f"{endless[:-1]}; those read so far fill half of this machine's memory.")
        yield batch


def _joined(name: str, batches: Iterable[Any]) -> dict[str, Any]:
    parts = [_parts_of_batch(name, batch) for batch in batches]
    if not parts:
        raise ValueError(f"{name} returned no batches.")
    if any(batch.keys() != parts[0].keys() for batch in parts):
        raise ValueError(f"{name} returned some batches with labels or weights and some without.")
    return {part: _concatenated(name, [batch[part] for batch in parts]) for part in parts[0]}


def _parts_of_batch(name: str, batch: Any) -> dict[str, Any]:
    parts = batch if isinstance(batch, tuple) else (batch,)
    if not 1 <= len(parts) <= len(PARTS) or parts[0] is None:
        raise ValueError(f"{name} returned a batch of {len(parts)} parts; expected x, (x, y) or (x, y, sample_weight).")
    return {part: value for part, value in zip(PARTS, parts, strict=False) if value is not None}


def _concatenated(name: str, batches: list[Any]) -> Any:
    first = batches[0]
    try:
        if isinstance(first, Mapping):
            return {key: np.concatenate([np.asarray(batch[key]) for batch in batches]) for key in first}
        if isinstance(first, list | tuple):
            return [np.concatenate([np.asarray(array) for array in arrays]) for arrays in zip(*batches, strict=True)]
        return np.concatenate([np.asarray(batch) for batch in batches])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} returned batches that do not fit together: {error}") from error


def _flat(batch: Any) -> Iterator[np.ndarray]:
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, list | tuple):
        for part in batch:
            yield from _flat(part)
    elif batch is not None:
        yield np.asarray(batch)
