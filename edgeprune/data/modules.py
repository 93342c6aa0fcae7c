"""Data that a function of the user's returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeprune.data.batches import InputShapes, elements_of, is_data, joined, unpack_batch
from edgeprune.data.ports import Ports
from edgeprune.data.samples import NAMES, PARTS, Data, assembled
from edgeprune.module_names import object_named

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
        if isinstance(result, Data):
            return result
        return assembled(name, _named(name, result, None if ports is None else ports.inputs))

    return read


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # whatever the user's code does
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ValueError(f"{name} stopped: {said}") from error


def _named(name: str, result: object, inputs: InputShapes | None) -> dict[str, Any]:
    """What the function returned, by the names of samples."""
    if isinstance(result, Mapping):
        if unknown := [key for key in result if str(key).partition(".")[0] not in NAMES]:
            raise ValueError(f"{name} returned a dict with {unknown}; its keys are {', '.join(NAMES)}, or x.NAME.")
        return {str(key): value for key, value in result.items()}
    if isinstance(result, tuple) and len(result) == 2 and all(map(_has_parts, result)):
        train, test = (_parts(name, one, inputs) for one in result)
        return {f"{part}_train": train[part] for part in train} | {f"{part}_test": test[part] for part in test}
    return _parts(name, result, inputs)


def _has_parts(value: object) -> bool:
    """Whether this is a pair of inputs and labels, or batches of them, rather than an array or arrays."""
    return isinstance(value, tuple) or not (isinstance(value, Mapping | list) or hasattr(value, "__array__"))


def _parts(name: str, samples: Any, inputs: InputShapes | None) -> dict[str, Any]:
    """Inputs, labels and sample weights of arrays or of all batches; a user's function may return anything."""
    if isinstance(samples, list):
        samples = (samples,)  # of several inputs, or of numbers
    if not is_data(samples) or callable(samples):
        raise ValueError(f"{name} returned {type(samples).__name__}; expected {_RESULTS}.")
    if isinstance(samples, tuple) or hasattr(samples, "__array__"):
        whole = unpack_batch(samples, source=name)
    else:
        whole = joined(_reported_batches(name, samples), inputs=inputs, source=name)
    return {part: value for part, value in zip(PARTS, whole, strict=True) if value is not None}


def _reported_batches(name: str, stream: Any) -> Iterator[Any]:  # as `elements_of`
    batches = elements_of(stream, name)
    while True:
        with _reported(name):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
