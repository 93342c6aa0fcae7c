"""Arrays alone, in lists or in dicts, as data have them for one input or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np


def is_structure(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this is several arrays in a list or tuple."""
    return isinstance(value, tuple | list) and not is_array(value)


def is_array(value: object) -> bool:
    """Whether this is one array: an array, a tensor, or numbers in lists."""
    while isinstance(value, list) and value:
        value = value[0]
        if not isinstance(value, list):
            return not isinstance(value, tuple | Mapping) and not len(getattr(value, "shape", ()))
    return hasattr(value, "__array__")


def array_shape(value: object) -> tuple[int, ...] | None:
    """The shape of an array; None of lists that are not regular."""
    try:
        return tuple(np.shape(value) if isinstance(value, list | tuple) else getattr(value, "shape", ()))
    except (TypeError, ValueError):  # lists of different lengths; a tensor whose shape is unknown
        return None


def as_array(value: object) -> Any:
    """Lists of numbers as an array, where they are regular; what is an array is not changed."""
    return np.asarray(value) if isinstance(value, list) and array_shape(value) is not None else value


def mapped(function: Callable[[Any], Any], part: object) -> Any:
    """A function of each array in a part, in the same structure; None remains None."""
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {name: mapped(function, value) for name, value in part.items()}
    if is_structure(part):
        return [mapped(function, value) for value in part]
    return function(part)


def flat(part: object) -> Iterator[Any]:
    """The arrays of a part, one after the other."""
    if isinstance(part, Mapping):
        part = tuple(part.values())
    if is_structure(part):
        for value in part:
            yield from flat(value)
    elif part is not None:
        yield part


def join_arrays(parts: Sequence[Any]) -> Any:
    """Parts of the same structure, one behind the other."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {name: join_arrays([part[name] for part in parts]) for name in first}
    if is_structure(first):
        return [join_arrays(several) for several in zip(*parts, strict=True)]
    return first if len(parts) == 1 else np.concatenate([np.asarray(part) for part in parts])
