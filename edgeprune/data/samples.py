"""Training and test samples: how their parts are named, and what has to be true of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from edgeprune.data.ports import Ports
from edgeprune.types import Arrays

PARTS = ("x", "y", "sample_weight")
# The names of arrays: of all samples, of those to train on and of those to measure on.
NAMES = tuple(f"{part}{suffix}" for suffix in ("", "_train", "_test") for part in PARTS)


@final
@dataclass(frozen=True)
class Data:
    """Samples to train on and samples to measure on; the first dimension of every array is the sample.

    For a model with several inputs or outputs each part is a dict by their names, as `fit` accepts it.

    Attributes:
        x_train: inputs to train on and to calibrate a quantization with.
        y_train: their labels or targets, or None.
        sample_weight_train: how much each of them counts, or None.
        x_test: inputs to measure on; the training inputs where there are no others.
        y_test: their labels or targets, or None.
        sample_weight_test: how much each of them counts, or None.
        held_out: whether the samples to measure on are others than those to train on.
        class_names: the classes in the order of their numbers, where the data name them; otherwise None.
        source: where the samples are from, for messages.
    """

    x_train: Any
    y_train: Any
    sample_weight_train: Any
    x_test: Any
    y_test: Any
    sample_weight_test: Any
    held_out: bool
    class_names: tuple[str, ...] | None
    source: str

    @property
    def train(self) -> tuple[Any, Any, Any]:
        """Inputs, targets and weights of the samples to train on."""
        return self.x_train, self.y_train, self.sample_weight_train

    @property
    def test(self) -> tuple[Any, Any, Any]:
        """Inputs, targets and weights of the samples to measure on."""
        return self.x_test, self.y_test, self.sample_weight_test

    def fitted(self, ports: Ports) -> Data:
        """The same samples as a model expects them: one array alone, several by the names of its inputs and outputs.

        Raises:
            ValueError: they are for other inputs or outputs than the model's.
        """
        changes = {}
        for name in ("train", "test"):
            changes[f"x_{name}"] = ports.inputs_of(self.source, getattr(self, f"x_{name}"))
            for part in PARTS[1:]:
                changes[f"{part}_{name}"] = ports.targets_of(self.source, part, getattr(self, f"{part}_{name}"))
        return replace(self, **changes)


def assembled(source: str, arrays: Mapping[str, Any], class_names: tuple[str, ...] | None = None) -> Data:
    """The samples that some arrays are.

    Args:
        source: where they are from, for messages.
        arrays: some of `NAMES` to an array, or to a list or dict of arrays for several inputs or outputs; or, for
            these, names such as `x.left` and `x.right` to the arrays. None for one that is not there.
        class_names: the classes in the order of their numbers.

    Raises:
        ValueError: arrays are missing, there under two names, empty, of unequal length, NaN or infinite.
    """
    parts = _by_part(source, {name: array for name, array in arrays.items() if array is not None})
    _check_names(source, parts)
    for name, part in parts.items():
        for of, array in _arrays(name, part):
            _check_finite(source, of, array)
    whole, test = ({part: parts.get(f"{part}{suffix}") for part in PARTS} for suffix in ("", "_test"))
    train = {part: whole[part] if (own := parts.get(f"{part}_train")) is None else own for part in PARTS}
    held_out = train["x"] is not None and test["x"] is not None
    train, test = (test if train["x"] is None else train), (train if test["x"] is None else test)
    for name, samples in (("train", train), ("test", test)):
        _check_lengths(source, name, samples)
    x_train, y_train, sample_weight_train = (train[part] for part in PARTS)
    x_test, y_test, sample_weight_test = (test[part] for part in PARTS)
    return Data(
        x_train, y_train, sample_weight_train, x_test, y_test, sample_weight_test, held_out, class_names, source
    )


def _by_part(source: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """By part the array, the list of arrays, or the dict of those whose names have the part's and a dot before."""
    parts: dict[str, Any] = {}
    for key, value in arrays.items():
        part, dot, name = key.partition(".")
        value = _as_arrays(source, key, value)
        if dot and isinstance(parts.setdefault(part, {}), dict):
            parts[part][name] = value
        elif dot or part in parts:
            raise ValueError(f"{source} has both {part} and {part}.NAME: leave one of them out.")
        else:
            parts[part] = value
    return parts


def _as_arrays(source: str, name: str, part: Arrays) -> Any:
    """Whatever NumPy makes arrays of, as arrays: alone, in a list, or in a dict."""
    if isinstance(part, Mapping):
        return {str(key): _as_array(source, f"{name}.{key}", value) for key, value in part.items()}
    if isinstance(part, list | tuple) and any(np.ndim(value) for value in part if hasattr(value, "__array__")):
        return [_as_array(source, f"{name}[{number}]", value) for number, value in enumerate(part)]
    return _as_array(source, name, part)


def _as_array(source: str, name: str, value: object) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {name} is no regular array: {error}") from error
    if array.dtype == object and not all(isinstance(one, str | bytes) for one in array.flat):
        raise ValueError(f"{source}: {name} is no regular array of numbers or of text.")
    return array


def _arrays(
    name: str, part: np.ndarray | list[np.ndarray] | dict[str, np.ndarray] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Each array of a part, with the name to report it by."""
    if isinstance(part, dict):
        yield from ((f"{name}.{key}", array) for key, array in part.items())
    elif isinstance(part, list):
        yield from ((f"{name}[{number}]", array) for number, array in enumerate(part))
    elif part is not None:
        yield name, part


def _check_names(source: str, parts: Mapping[str, Any]) -> None:
    """Refuse arrays of which it is not clear what they are for, and labels that would not be used."""
    for name in PARTS:
        if name in parts and f"{name}_train" in parts:
            raise ValueError(f"{source} has both {name} and {name}_train: leave one of them out.")
    if not {"x", "x_train", "x_test"} & set(parts):
        raise ValueError(f"{source} has no array named x, x_train or x_test.")
    for name in PARTS[1:]:
        for suffix, inputs in {"_test": ("x_test",), "": ("x", "x_train"), "_train": ("x", "x_train")}.items():
            if name + suffix in parts and not set(inputs) & set(parts):
                raise ValueError(f"{source} has {name}{suffix} without {inputs[-1]}.")


def _check_finite(source: str, name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and (wrong := array.size - np.count_nonzero(np.isfinite(array))):
        raise ValueError(f"{source}: {wrong:,} of {array.size:,} values of {name} are NaN or infinite.")


def _check_lengths(source: str, name: str, samples: Mapping[str, Any]) -> None:
    inputs = list(_arrays("x", samples["x"]))
    if not inputs or any(not array.ndim or not array.size for _, array in inputs):
        raise ValueError(f"{source}: the {name} inputs are empty.")
    lengths = {of: len(array) for of, array in inputs}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{source}: the {name} inputs have different numbers of samples, {lengths}.")
    count = len(inputs[0][1])
    for part, what in (("y", "labels"), ("sample_weight", "weights")):
        for of, array in _arrays("", samples[part]):
            if not array.ndim or len(array) != count:
                of_output = f" {of.lstrip('.')}" if of else ""
                raise ValueError(f"{source}: {count} {name} inputs, but {what}{of_output} of shape {array.shape}.")
