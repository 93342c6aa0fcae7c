"""What a model accepts and returns, as far as data have to fit it: the names and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import flavor
from edgeprune.data.named_arrays import listed, named_arrays
from edgeprune.types import Arrays, Loss, Model


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a model.

    Attributes:
        model: what the model is called in messages.
        inputs: input name to its shape without the samples, in the model's order; None for a size that is not fixed.
        outputs: the outputs' names in the model's order; None where they are unknown, as of a subclassed model.
        takes_list: whether several inputs are passed in a list, by their order, rather than by name.
        one_hot: whether the model is trained on a one among zeros for each class, rather than on class numbers.
        channels_first: whether images have their channels first.
    """

    model: str
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...] | None
    takes_list: bool = False
    one_hot: bool = False
    channels_first: bool = False

    def inputs_of(self, source: str, x: Arrays) -> Any:
        """Inputs as the model expects them: the array of the only one, several by name.

        Raises:
            ValueError: they are for other inputs than the model's.
        """
        found = self._by_name(source, "x", x, self.inputs, "input")
        return list(found.values()) if self.takes_list and len(found) > 1 else self._packed(found)

    def targets_of(self, source: str, part: str, y: Arrays | None) -> Any:
        """Targets, or weights of samples, as the model expects them: those of the only output, several by name.

        Raises:
            ValueError: they are for other outputs than the model's.
        """
        if y is None or self.outputs is None:
            return y
        if part == "sample_weight" and not isinstance(y, dict | list):
            return y  # of the samples, whatever output is trained
        found = self._by_name(source, part, y, self.outputs, "output")
        return self._packed(found) if len(self.outputs) == 1 else found

    def _by_name(self, source: str, part: str, arrays: Arrays, names: Iterable[str], what: str) -> dict[str, Any]:
        """The arrays of a part by these names; a file names them, so that one with another name is a mistake."""
        names = list(names)
        if isinstance(arrays, dict) and (unknown := [name for name in arrays if name not in names]):
            raise ValueError(f"{source} has {_arrays(part, unknown)}, and {self._has(names, what)}.")
        try:
            return named_arrays(self.model, dict.fromkeys(names, ()), arrays, what=what, all_of_them=what == "input")
        except ValueError as error:
            raise ValueError(f"{source}: {error} Name an array for each of them: {_arrays(part, names)}.") from error

    def _has(self, names: Iterable[str], what: str) -> str:
        names = list(names)
        return f"{self.model} has the {what}{'s' * (len(names) > 1)} {listed(names)}"

    @staticmethod
    def _packed(arrays: Mapping[str, Any]) -> Any:
        return next(iter(arrays.values())) if len(arrays) == 1 else dict(arrays)


def ports_of(model: Model | str | Path) -> Ports:
    """The inputs and outputs of a model, or of a .tflite file.

    Args:
        model: a built model of `keras` 3 or `tf_keras`, or the path of a .tflite file.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: `model` is neither.
        ValueError: the file cannot be run, or the model is not built.
    """
    if isinstance(model, str | Path):
        return _ports_of_file(Path(model))
    if not flavor.is_model(model):
        raise TypeError(f"Expected a Keras model or the path of a .tflite file, got {type(model).__name__}.")
    specs = flavor.call_specs(model)
    outputs = None
    if flavor.is_graph_model(model):
        outputs = tuple(flavor.output_tensors(model))
    return Ports(
        model=f"model {model.name!r}",
        inputs=input_shapes(model),
        outputs=outputs,
        takes_list=not flavor.is_graph_model(model) and isinstance(specs, list | tuple),
        one_hot=_takes_one_hot(getattr(model, "loss", None)),
        channels_first=any(getattr(layer, "data_format", "") == "channels_first" for layer in flavor.layers_of(model)),
    )


def input_shapes(model: Model) -> dict[str, tuple[int | None, ...]]:
    """Input name to its shape without the samples, in the model's order; None for a size that is not fixed.

    Args:
        model: a built model of either Keras. The inputs of a subclassed one have the names of the dict that it is
            called on, or made-up ones.

    Raises:
        ValueError: the model is not built.
    """
    specs, names = flavor.call_specs(model), flavor.input_names(model)
    if names is None and isinstance(specs, Mapping):
        names = sorted(specs)
    flat = flavor.flatten(specs, model)
    names = names or ([f"input_{number}" for number in range(len(flat))] if len(flat) > 1 else ["input"])
    return {name: tuple(spec.shape)[1:] for name, spec in zip(names, flat, strict=True)}


def _ports_of_file(path: Path) -> Ports:
    from edgeprune.tflite.runtime import Runtime

    runtime = Runtime(path)
    return Ports(
        model=str(path),
        inputs={name: tuple(port.shape[1:]) for name, port in runtime.inputs.items()},
        outputs=tuple(runtime.outputs),
    )


def _arrays(part: str, names: Iterable[str]) -> str:
    return ", ".join(f"{part}.{name}" for name in names)


def _takes_one_hot(loss: Loss | None) -> bool:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return "categorical" in name.lower() and "sparse" not in name.lower()
