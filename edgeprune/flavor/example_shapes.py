"""The sizes at which a model of open length or size is looked at: those that are asked for, or some that it accepts.

MACs and memory are those of inputs of one size. Where a model accepts any (`Input((None, None, 3))`), it is looked at
with the first of a few sizes that none of its layers refuses, and what is printed says which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgeprune import flavor
from edgeprune.types import Model

# Of images and volumes with several open sizes, of films, and of all other sequences: the first that is accepted.
SIDES = {2: (224, 512, 1024), 3: (64, 128, 256)}
FRAMES = (8, 32, 128)
LENGTHS = (64, 256, 1024)

InputShape = Sequence[int] | Mapping[str, Sequence[int]] | None
Found = TypeVar("Found")


@dataclass(frozen=True)
class ExampleShapes:
    """The shapes that a model's figures are for.

    Attributes:
        shapes: name of an input to its shape, with a batch of one.
        chosen: whether sizes are among them that the model leaves open and nobody asked for.
    """

    shapes: Mapping[str, tuple[int, ...]]
    chosen: bool

    def __str__(self) -> str:
        """The sizes of one sample: `224x224x3`, or several with the names of their inputs."""
        sizes = {name: "x".join(map(str, shape[1:])) for name, shape in self.shapes.items()}
        return " and ".join(sizes.values() if len(sizes) == 1 else [f"{name} {size}" for name, size in sizes.items()])


def at_example_shapes(
    model: Model, input_shape: InputShape, compute: Callable[[list[Any]], Found]
) -> tuple[ExampleShapes, Found]:
    """What a function returns for inputs of the shape asked for, or of the first shape that the model accepts.

    Args:
        model: a built model of either Keras.
        input_shape: the shape of the input, with or without the batch; by input name where there are several. Left out,
            sizes that are not fixed are chosen.
        compute: called with a `tf.TensorSpec` for each input, in the model's order.

    Returns:
        The shapes, and what `compute` returned.

    Raises:
        TypeError: `input_shape` is neither a shape nor a dict of shapes.
        ValueError: it does not fit the model's inputs, or the model accepts none of the shapes.
    """
    import tensorflow as tf

    inputs = flavor.input_specs(model)
    asked = _by_name(model, inputs, input_shape)
    joined = {name: _joined(name, asked.get(name), tuple(spec.shape)) for name, spec in inputs.items()}
    chosen = any(None in shape for shape in joined.values())
    for number in range(len(LENGTHS) if chosen else 1):
        shapes = {name: _filled(shape, number) for name, shape in joined.items()}
        specs = [
            tf.TensorSpec((spec.shape[0] or 1, *shapes[name][1:]), spec.dtype, name=name)
            for name, spec in inputs.items()
        ]
        try:
            return ExampleShapes(shapes, chosen), compute(specs)
        except Exception as error:  # a model raises what it likes at inputs that are not its own
            if not chosen and input_shape is None:
                raise
            refused = error.__cause__ or error
    reason = " ".join(re.split(r"\n\n +\w+Error: ", str(refused))[-1].split())[:200]  # without TensorFlow's traceback
    tried = ExampleShapes(shapes, chosen=False)
    raise ValueError(
        f"Model {model.name!r} cannot be called on inputs of {tried}: pass a shape that it accepts as input_shape=. "
        f"{reason}"
    ) from refused


def example_and_call_shapes(
    model: Model, input_shape: InputShape = None
) -> tuple[ExampleShapes | None, list[list[tuple[int | None, ...]]]]:
    """The shapes of what the calls of a model of open length or size return; nothing where its sizes are fixed.

    Args:
        model: a built Functional or Sequential model of either Keras.
        input_shape: as `at_example_shapes` accepts it.

    Returns:
        The shapes of the inputs, None where every size is fixed or the model accepts none of those that are tried; and
        for each call, in the order of `flavor.run_model`, the shapes of the tensors it returns.

    Raises:
        TypeError: `input_shape` is neither a shape nor a dict of shapes.
        ValueError: it does not fit the model's inputs.
    """
    if not flavor.has_open_sizes(model):
        at_example_shapes(model, input_shape, lambda specs: None)  # a shape that does not fit is refused
        return None, []
    try:
        return at_example_shapes(model, input_shape, lambda specs: flavor.shapes_of_calls(model, specs))
    except ValueError:
        if input_shape is not None:
            raise
        return None, []


def _by_name(model: Model, inputs: Mapping[str, Any], input_shape: InputShape) -> dict[str, Sequence[int]]:
    if input_shape is None:
        return {}
    if isinstance(input_shape, Mapping):
        unknown = [name for name in input_shape if name not in inputs]
        if unknown:
            raise ValueError(f"Model {model.name!r} has the inputs {list(inputs)}; input_shape= names {unknown[0]!r}.")
        return dict(input_shape)
    if len(inputs) > 1:
        raise ValueError(f"Model {model.name!r} has the inputs {list(inputs)}: pass input_shape= as a dict by name.")
    return {next(iter(inputs)): input_shape}


def _joined(name: str, asked: object, expected: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape of an input, with a batch of one and the sizes asked for in place of open ones."""
    if asked is None:
        return (1, *expected[1:])
    if isinstance(asked, str) or not isinstance(asked, Sequence) or not all(_is_size(size) for size in asked):
        raise TypeError(f"input_shape= accepts sizes such as (1, 128, 128, 3); got {asked!r} for input {name!r}.")
    sizes = tuple(asked) if len(asked) == len(expected) - 1 else tuple(asked)[1:]
    fits = len(asked) in (len(expected), len(expected) - 1) and all(
        taken in (None, size) for size, taken in zip(sizes, expected[1:], strict=True)
    )
    if not fits or not all(size is None or size > 0 for size in asked):
        raise ValueError(f"input_shape={tuple(asked)} does not fit input {name!r}, whose shape is {expected}.")
    return (1, *(taken if size is None else size for size, taken in zip(sizes, expected[1:], strict=True)))


def _is_size(size: object) -> bool:
    return size is None or isinstance(size, int) and not isinstance(size, bool)


def _filled(shape: tuple[int | None, ...], number: int) -> tuple[int, ...]:
    """A shape whose open sizes are the `number`-th of those that fit its kind."""
    count = shape.count(None)
    sizes = SIDES.get(count) if len(shape) == count + 2 else FRAMES if len(shape) == 5 else None
    return tuple((sizes or LENGTHS)[number] if size is None else size for size in shape)
