"""The names, shapes and dtypes a model is called on, and a function with them that the converter can read."""

from __future__ import annotations

import contextlib
import keyword
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.conversion import divisors, integer_forms, masked_scores, unrounded
from edgeprune.types import Model

if TYPE_CHECKING:
    import tensorflow as tf

# What TensorFlow accepts as the name of a signature's input, and of a scope.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def signature_specs(model: Model) -> dict[str, Any]:
    """What a built model is called on, with a batch of one.

    Args:
        model: a built model of either Keras.

    Returns:
        Input name to `tf.TensorSpec`, in the model's order. A subclassed model's inputs have the keys of the
        dict it is called on; an input without a name is called `"input"`, and those of a list `"input_0"`, ...

    Raises:
        ValueError: the model is not built, or a size other than the batch is not fixed.

    Example:
        >>> import keras
        >>> list(signature_specs(keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(1)])))
        ['x']
    """
    import tensorflow as tf

    specs = {
        name: tf.TensorSpec(spec.shape, "float32" if spec.dtype.is_floating else spec.dtype, name)
        for name, spec in _leaves(flavor.call_specs(model), "input")
    }
    for name, spec in specs.items():
        if not spec.shape.is_fully_defined():
            shape = tuple(spec.shape)[1:]
            raise ValueError(
                f"Input {name!r} of model {model.name!r} has no fixed shape: {shape}. Fix it before converting, for "
                f"example: keras.Model(x := keras.Input({_example(shape)}), model(x))."
            )
    return specs


def inputs_of_strings(specs: Mapping[str, Any]) -> str:
    """The names of the inputs that are strings, in words; empty without. The converter ends the process if it is to
    calibrate on them."""
    return ", ".join(repr(name) for name, spec in specs.items() if spec.dtype.name == "string")


def names_to_trace(names: Iterable[str]) -> dict[str, str]:
    """The names under which inputs are traced: their own, or a stand-in where TensorFlow does not accept those.

    A SavedModel needs names like Python's. A file's signature may hold any, so a stand-in has as many bytes as the name
    in UTF-8, and `tflite.edit.with_names` puts the name in its place.

    Example:
        >>> names_to_trace(["image", "Größe in m"])
        {'image': 'image', 'Größe in m': 'a___________'}
    """
    names, traced, taken = list(names), {}, set()
    for name in names:
        # TensorFlow passes inputs on as keyword arguments to methods of its own, whose first argument is `self`.
        plain = _NAME.fullmatch(name) and not keyword.iskeyword(name) and name != "self"
        if plain and _sanitized(name) not in taken:
            traced[name] = name
            taken.add(_sanitized(name))
    for name in names:
        if name not in traced:
            candidates = (letter.ljust(len(name.encode()), "_") for letter in string.ascii_letters)
            traced[name] = next(made for made in candidates if made not in taken)
            taken.add(traced[name])
    return {name: traced[name] for name in names}


def _sanitized(name: str) -> str:
    """What TensorFlow makes of a name, by which inputs must differ."""
    word = re.sub(r"[^A-Za-z0-9]", "_", name)
    return word if word[0].isalpha() else f"arg_{word}"


@contextlib.contextmanager
def traceable_names(model: Model) -> Iterator[None]:
    """While the body runs, the model, its layers and variables have names that TensorFlow accepts."""
    named = []
    if flavor.is_keras_3(model):
        named += [(layer, "name", "") for layer in (model, *flavor.layers_of(model))]
        # TensorFlow has no other way to rename a variable; the suffix is the output's number.
        named += [(variable, "_handle_name", ":0") for variable in flavor.tf_variables(model)]
    own = [(thing, field, getattr(thing, field), suffix) for thing, field, suffix in named]
    changed = [entry for entry in own if not _SCOPE.fullmatch(entry[2].removesuffix(entry[3]))]
    try:
        for thing, field, name, suffix in changed:
            setattr(thing, field, "x" + re.sub(r"[^A-Za-z0-9/]", "_", name.removesuffix(suffix)) + suffix)
        yield
    finally:
        for thing, field, name, _ in changed:
            setattr(thing, field, name)


def write_saved_model(
    model: Model,
    specs: Mapping[str, Any],
    traced: Mapping[str, str],
    directory: str | Path,
    *,
    is_calibrated: bool = False,
    samples: Mapping[str, np.ndarray] | None = None,
    is_in_floats: Callable[[str], bool] = lambda name: False,
) -> Any:
    """Write a SavedModel with one signature, from which the converter reads the names of inputs and outputs.

    Args:
        model: a built model of either Keras.
        specs: what `signature_specs` returned for it, or for a model of the same inputs under other names: one that
            was rebuilt has names of its own where the user named none.
        traced: what `names_to_trace` returned for its inputs.
        directory: an empty folder.
        is_calibrated: whether it is converted to integers, so that masks on scores keep within their range.
        samples: representative samples by the traced names, `(samples, ...)`; None without.
        is_in_floats: whether the operation of this name is to compute in floats all the same.

    Returns:
        The traced function, whose graph has the operations that the model is made of.
    """
    import tensorflow as tf

    structure = flavor.call_specs(model)
    own = [name for name, _ in _leaves(structure, "input")]
    names = dict(zip(specs if set(own) == set(specs) else own, specs, strict=True))

    signature = [{traced[name]: _renamed(spec, traced[name]) for name, spec in specs.items()}]
    measured: _Measured | None = None

    def called(given: Mapping[str, Any]) -> Any:
        inputs = {own_name: given[traced[name]] for own_name, name in names.items()}
        return flavor.named_outputs(model, model(_filled(structure, inputs, "input"), training=False))

    def serve(given: Mapping[str, Any]) -> dict[str, Any]:
        # An operation of its own for each, so that one tensor may be given out under two names.
        outputs = {name: tf.identity(output) for name, output in called(given).items()}
        if is_calibrated:
            _prepare_for_integers(tf.compat.v1.get_default_graph(), given, measured, is_in_floats)
        return outputs

    def measure(given: Mapping[str, Any]) -> Any:
        called(given)
        graph = tf.compat.v1.get_default_graph()
        return masked_scores.least_scores(graph), divisors.least_and_negated_most(graph)

    module = tf.Module()
    function = tf.function(serve, input_signature=signature).get_concrete_function()
    if is_calibrated and (masked_scores.has_masked_scores(function.graph) or divisors.has_divisions(function.graph)):
        measured = _least_of_all(tf.function(measure, input_signature=signature), samples or {})
        function = tf.function(serve, input_signature=signature).get_concrete_function()
    # Its state alone: tracking the model itself would trace all its own functions too.
    module.state = [*flavor.tf_variables(model), *flavor.tf_resources(model)]
    tf.saved_model.save(module, str(directory), signatures=function)
    return function


# The numbers of masks on scores, and the ends of divisors; empty without samples.
_Measured = tuple[list[float], list[float]]


def _prepare_for_integers(
    graph: tf.Graph, inputs: Mapping[str, Any], measured: _Measured | None, is_in_floats: Callable[[str], bool]
) -> None:
    """Change the graph of a function, as it is traced, so that integers compute the same."""
    unrounded.take_rounding_off(graph, inputs.values())
    if measured is not None:
        scores, ends = measured
        masked_scores.put_within_range(graph, scores)
        if ends:
            divisors.keep_from_zero(graph, ends, is_in_floats)
    integer_forms.write_for_integers(graph)


def _least_of_all(measure: Callable[[Mapping[str, Any]], Any], samples: Mapping[str, np.ndarray]) -> _Measured:
    """The least of what is measured of batches of one, of all representative samples."""
    if not samples:
        return [], []
    count = len(next(iter(samples.values())))
    found = [measure({name: values[place : place + 1] for name, values in samples.items()}) for place in range(count)]
    scores, ends = (np.min([np.asarray(one[part], np.float64) for one in found], axis=0).tolist() for part in range(2))
    return scores, ends


def _renamed(spec: tf.TensorSpec, name: str) -> Any:
    return type(spec)(spec.shape, spec.dtype, name)


def _leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Name and spec of every input, in the order in which both Kerases flatten a spec or any nest of them."""
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
