"""What a name or pattern of layers means, the same in `layers=`, `ignore=`, `ratios=` and a dict of schedules.

A layer's path is its name after those of the models and layers around it: `"encoder/block_1/conv"`. A pattern fits a
layer if it fits

- its path, or the end of it: `"block_1/conv"` and `"conv"` fit that layer;
- a model or layer around it, which stands for all inside: so do `"encoder"` and `"block_1"`.

In a pattern `*` stands for any characters, `/` included, `?` for one, and `[ab]` for one of those. A pattern without
them is a name. Upper and lower case differ.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from typing import TypeVar

from edgeprune import flavor
from edgeprune.types import Model

_T = TypeVar("_T")


def fits_pattern(path: str, pattern: str) -> bool:
    """Whether a pattern fits the layer of this path.

    Example:
        >>> patterns = ("conv", "conv*", "block_?/conv", "encoder", "encoder/*", "block", "Conv")
        >>> [fits_pattern("encoder/block_1/conv", pattern) for pattern in patterns]
        [True, True, True, True, True, False, False]
    """
    parts = path.split("/")
    runs = ("/".join(parts[first:end]) for end in range(1, len(parts) + 1) for first in range(end))
    return any(run == pattern or fnmatch.fnmatchcase(run, pattern) for run in runs)


def of_first_pattern(path: str, values: Mapping[str, _T]) -> _T | None:
    """The value of the first pattern that fits the layer of this path; None where none does.

    Example:
        >>> of_first_pattern("block/conv", {"head": 4, "conv": 8, "block": 4})
        8
    """
    return next((value for pattern, value in values.items() if fits_pattern(path, pattern)), None)


def layers_fitting(model: Model, pattern: str, paths: Mapping[int, str]) -> set[int]:
    """The layers of a model that a pattern fits, and those inside them.

    Args:
        model: a model of either Keras.
        pattern: the name or pattern.
        paths: `id(layer)` to its path, of all layers of the model. A layer that stands in several models has one path,
            and each of those models stands for it.

    Returns:
        Their `id`s; empty where it fits none.
    """
    fitting = [layer for layer in flavor.layers_of(model) if fits_pattern(paths[id(layer)], pattern)]
    return {id(part) for layer in fitting for part in (layer, *flavor.layers_of(layer))}


def by_first_pattern(model: Model, values: Mapping[str, _T], paths: Mapping[int, str], source: str) -> dict[int, _T]:
    """By `id` the value of each layer that a pattern fits: that of the first that does.

    Args:
        model: a model of either Keras.
        values: name or pattern to value.
        paths: `id(layer)` to its path, of all layers of the model.
        source: what has the patterns, for the error.

    Raises:
        ValueError: a pattern fits no layer.
    """
    found: dict[int, _T] = {}
    for pattern, value in values.items():
        fitting = layers_fitting(model, pattern, paths)
        if not fitting:
            near = similar(pattern, paths.values())
            raise ValueError(f"{source} has the pattern {pattern!r}, which fits the name of no layer.{near}")
        found = {**dict.fromkeys(fitting, value), **found}
    return found


def similar(name: str, known: Iterable[str]) -> str:
    """A question that names what was probably meant; empty where nothing is near.

    Example:
        >>> similar("conv1", ["conv_1", "head"])
        " Did you mean 'conv_1'?"
    """
    near = difflib.get_close_matches(name, sorted(set(known)), n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
