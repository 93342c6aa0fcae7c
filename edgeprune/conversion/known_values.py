"""Values that the lookup layers of a model know, and some that they do not: what its text inputs are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.types import Layer, Model

_UNKNOWN_WORDS = ("", "[not in the vocabulary]", "Größe")
_WORDS_A_TEXT = 4


def known_values(model: Model) -> dict[str, list[Any]]:
    """For each input that lookup layers read, values that they know and values that they do not.

    Args:
        model: a built model of either Keras.

    Returns:
        Input name to strings or whole numbers; an input that no lookup layer reads is left out. Of a subclassed model
        nobody knows which input a layer reads: every name has the values of all of them.

    Example:
        >>> import keras
        >>> city = keras.Input((1,), dtype="string", name="city")
        >>> known_values(keras.Model(city, keras.layers.StringLookup(vocabulary=["rome"])(city)))["city"][:2]
        ['[UNK]', 'rome']
    """
    found = {name: _of_layers(layers) for name, layers in _readers(model).items()}
    return {name: values for name, values in found.items() if values}


def drawn(values: list[Any], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An array of these values: each of them, as far as there is space, then some at random."""
    size = int(np.prod(shape))
    first = rng.permutation(len(values))[:size]
    chosen = np.concatenate([first, rng.integers(0, len(values), size - len(first))])
    drawn = np.empty(size, object if isinstance(values[0], str) else np.int64)
    drawn[:] = [values[index] for index in chosen]
    return drawn.reshape(shape)


def arbitrary_words() -> list[str]:
    """Strings for an input whose layers are unknown."""
    return [*_UNKNOWN_WORDS, "a", "b"]


def random_samples(
    specs: Mapping[str, Any], count: int = 16, known: Mapping[str, list[Any]] | None = None
) -> dict[str, np.ndarray]:
    """Made-up samples, the same at every call: normally distributed floats, integers and booleans of 0 and 1, words.

    Args:
        specs: input name to `tf.TensorSpec` with a batch of one.
        count: how many.
        known: what `known_values` returned for the model: values to draw from instead.

    Returns:
        Input name to array `(count, ...)`, in the input's dtype.
    """
    rng = np.random.default_rng(0)
    made = {}
    for name, spec in specs.items():
        shape = (count, *spec.shape[1:])
        if spec.dtype.name == "string" or name in (known or {}):
            values = drawn((known or {}).get(name) or arbitrary_words(), shape, rng)
            made[name] = values.astype(spec.dtype.as_numpy_dtype)
            continue
        values = rng.standard_normal(shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        made[name] = values.astype(spec.dtype.as_numpy_dtype)
    return made


def _readers(model: Model) -> Mapping[str, list[Any]]:
    """The layers that each input flows into, at any distance."""
    names = flavor.input_names(model)
    if names is None:
        layers = list(flavor.layers_of(model))
        return {name: layers for name in flavor.input_specs(model)}
    try:
        calls, _ = flavor.layer_calls(model)
    except ValueError:  # a subclassed model inside
        return {name: list(flavor.layers_of(model)) for name in names}
    readers: dict[str, list[Any]] = {name: [] for name in names}
    reached = [{name} for name in names]
    for call in calls[len(names) :]:
        reached.append(set().union(*(reached[producer] for producer in call.producers)))
        for name in reached[-1]:
            readers[name].append(call.layer)
    return readers


def _of_layers(layers: list[Layer]) -> list[Any]:
    values = [value for layer in layers for value in _of_layer(layer)]
    words = [value for value in values if isinstance(value, str)]
    return list(dict.fromkeys(words or values))  # a text that becomes words, whose numbers become others


def _of_layer(layer: Layer) -> list[Any]:
    if not hasattr(layer, "get_vocabulary"):
        return []
    vocabulary = layer.get_vocabulary()
    if getattr(layer, "invert", False):
        return list(range(len(vocabulary)))
    if not isinstance(vocabulary[-1], str):
        numbers = [int(number) for number in vocabulary]
        return [*numbers, max(numbers) + 1]
    if not isinstance(layer, flavor.keras_of(layer).layers.TextVectorization):
        return [*map(str, vocabulary), *_UNKNOWN_WORDS]
    texts = [" ".join(vocabulary[at : at + _WORDS_A_TEXT]) for at in range(0, len(vocabulary), _WORDS_A_TEXT)]
    return [*texts, *_UNKNOWN_WORDS]
