"""The names, shapes and dtypes a model is called on, and a function with them that the converter can read."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeprune import flavor


def input_specs(model: Any) -> dict[str, Any]:
    """What a built model is called on, with a batch of one.

    Args:
        model: a built model of either Keras.

    Returns:
        Input name to `tf.TensorSpec`, in the model's order. A subclassed model's inputs have the keys of the
        dict it is called on; an input without a name is called `"input"`, and those of a list `"input_0"`, ...

    Raises:
        ValueError: the model is not built, a size other than the batch is not fixed, or an input's name cannot be
            kept.

    Example:
        >>> import keras
        >>> list(input_specs(keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(1)])))
        ['x']
    """
    import tensorflow as tf

    specs = {
        name: tf.TensorSpec(spec.shape, "float32" if spec.dtype.is_floating else spec.dtype, name)
        for name, spec in _leaves(flavor.call_specs(model), "input")
    }
    for name, spec in specs.items():
        if keyword.iskeyword(name):
            raise ValueError(
                f"Model {model.name!r} has an input named {name!r}, which is a word of Python's own and cannot be a "
                "name in the file's signature; give that Input another name."
            )
        if not spec.shape.is_fully_defined():
            shape = tuple(spec.shape)[1:]
            raise ValueError(
                f"Input {name!r} of model {model.name!r} has no fixed shape: {shape}. Fix it before converting, for "
                f"example: keras.Model(x := keras.Input({_example(shape)}), model(x))."
            )
    return specs


def write_saved_model(model: Any, specs: Mapping[str, Any], directory: str | Path) -> Any:
    """Write a SavedModel with one signature, from which the converter takes the names of inputs and outputs.

    Args:
        model: a built model of either Keras.
        specs: what `input_specs` gives for it.
        directory: an empty folder.

    Returns:
        The traced function, whose graph tells which operations the model is made of.
    """
    import tensorflow as tf

    structure = flavor.call_specs(model)

    @tf.function(input_signature=[dict(specs)])
    def serve(inputs):
        outputs = flavor.named_outputs(model, model(_filled(structure, inputs, "input"), training=False))
        # An operation of its own for each, so that one tensor may be given out under two names.
        return {name: tf.identity(output) for name, output in outputs.items()}

    module = tf.Module()
    # The variables alone: tracking the model itself would trace all its own functions too.
    module.state = flavor.tf_variables(model)
    tf.saved_model.save(module, str(directory), signatures=serve)
    return serve.get_concrete_function()


def _leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Name and spec of every input, in the order in which both Kerases flatten a structure."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _leaves(structure[key], key)
    elif isinstance(structure, list | tuple):
        for number, part in enumerate(structure):
            yield from _leaves(part, f"{name}_{number}")
    else:
        yield structure.name or name, structure


def _filled(structure: Any, tensors: Mapping[str, Any], name: str) -> Any:
    """The structure with each spec replaced by its tensor."""
    if isinstance(structure, Mapping):
        return {key: _filled(part, tensors, key) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        return [_filled(part, tensors, f"{name}_{number}") for number, part in enumerate(structure)]
    return tensors[structure.name or name]


def _example(shape: tuple[int | None, ...]) -> str:
    return str(tuple(96 if size is None else size for size in shape))
