"""Split a model at its lookup layers: what TFLite can hold is in the file, the rest in the application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.flavor.running import Caller, Enterer
from edgeprune.types import AnyTensor, Layer, Model

# What of a lookup layer's configuration says how it makes numbers of words, besides its vocabulary.
_SETTINGS = (
    "standardize split ngrams output_mode output_sequence_length num_oov_indices mask_token num_bins mask_value salt"
)


@dataclass(frozen=True)
class SplitModel:
    """A model in two parts, which one after the other compute what the whole does.

    Attributes:
        preprocessing: from the model's inputs to the outputs of its lookup layers; it runs in the application.
        rest: from there to the outputs, compiled as the model is. Its inputs are named after those layers;
            an input that no lookup layer reads is passed on.
        vocabularies: name of a lookup layer to its words or numbers: the place in the list is the number it returns.
        settings: name of a lookup layer to how it is called with its other settings, such as
            `"TextVectorization(split='whitespace', output_mode='int')"`.
        given: the inputs of the rest that the preprocessing computes, in its order.
    """

    preprocessing: Any
    rest: Any
    vocabularies: dict[str, list[Any]]
    settings: dict[str, str]
    given: tuple[str, ...]

    def preprocess(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rest's inputs for the whole model's.

        Args:
            inputs: name of each input of the whole model to its array `(samples, ...)`.

        Returns:
            Name of each input of `rest` to its array.

        Example:
            >>> city = keras.Input((1,), dtype="string", name="city")
            >>> number = layers.StringLookup(vocabulary=["rome", "oslo"], name="lookup")(city)
            >>> split = split_preprocessing(keras.Model(city, layers.Embedding(3, 4)(number)))
            >>> split.preprocess({"city": np.array([["oslo"], ["bonn"]])})
            {'lookup': array([[2],
                   [0]])}
        """
        import tensorflow as tf

        read = [tf.constant(inputs[name]) for name in flavor.input_names(self.preprocessing) or ()]
        made = flavor.flatten(self.preprocessing(_alone(read)), self.preprocessing)
        values = {**inputs, **dict(zip(self.given, made, strict=True))}
        specs = flavor.flatten(flavor.call_specs(self.rest), self.rest)
        return {spec.name: np.asarray(values[spec.name]).astype(spec.dtype.as_numpy_dtype) for spec in specs}


def split_preprocessing(model: Model, *, only_strings: bool = False) -> SplitModel:
    """Split a model at its lookup layers into preprocessing and the numeric rest.

    Lookup layers are `TextVectorization`, `StringLookup`, `IntegerLookup`, `Hashing` and `HashedCrossing`. Where they
    lie in a nested model, its layers become those of the parts, under both names (`"encoder_words"`). The model is not
    changed and both parts hold copies of its layers.

    Args:
        model: a built Functional or Sequential model of either Keras.
        only_strings: split only at the layers that read or return strings, or hash; an `IntegerLookup`, which TFLite
            runs, remains in the rest.

    Returns:
        Both parts, the vocabularies and the settings.

    Raises:
        TypeError: it is no Keras model.
        ValueError: the model is subclassed or not built, has no lookup layer in its own graph, or nothing behind them.

    Example:
        >>> import keras
        >>> layers = keras.layers
        >>> city = keras.Input((1,), dtype="string")
        >>> number = layers.StringLookup(vocabulary=["rome"], name="lookup")(city)
        >>> split = split_preprocessing(keras.Model(city, layers.Embedding(2, 3)(number)))
        >>> split.vocabularies
        {'lookup': ['[UNK]', 'rome']}
    """
    flavor.check_model(model)
    whole, model = model, _entered(model)
    inputs, nodes, structure = flavor.graph_nodes(model)
    before = _calls_before(nodes, _handles_strings if only_strings else lambda node: is_lookup(node.layer))
    if not before:
        kind = "lookup layer that reads strings" if only_strings else "lookup layer"
        raise ValueError(f"Model {model.name!r} has no {kind} in its graph to be split at.")
    made = {id(tensor): node for node in before for tensor in node.outputs}
    behind = [node for node in nodes if id(node.node) not in {id(other.node) for other in before}]
    outputs = flavor.flatten(structure, model)
    needed = {id(tensor): tensor for node in behind for tensor in node.inputs} | {id(out): out for out in outputs}
    cut = [tensor for key, tensor in needed.items() if key in made]
    if not behind or any(id(tensor) in made for tensor in outputs):
        raise ValueError(f"Model {model.name!r} ends with its lookup layers: no numeric part would be left.")

    keras = flavor.keras_of(model)
    given = {id(tensor): flavor.clone_input(flavor.input_layer(tensor)).output for tensor in inputs}
    first = _copied(before, given, cut)
    names = _names(cut, made, taken={node.layer.name for node in behind} | set(flavor.input_names(model) or ()))
    passed = [tensor for tensor in inputs if id(tensor) in needed]
    entries = {id(tensor): flavor.clone_input(flavor.input_layer(tensor)).output for tensor in passed}
    for tensor, name in zip(cut, names, strict=True):
        entries[id(tensor)] = keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name)
    last = flavor.pack_outputs(model, _copied(behind, entries, outputs))
    preprocessing = keras.Model(
        _alone([given[id(tensor)] for tensor in inputs if id(tensor) in _read(before)]),
        _alone(first),
        name=f"{model.name}_preprocessing",
    )
    rest = keras.Model(_alone(list(entries.values())), last, name=model.name)
    flavor.copy_compile_state(whole, rest)
    found = {node.layer.name: node.layer for node in before if is_lookup(node.layer)}
    return SplitModel(
        preprocessing,
        rest,
        {name: _vocabulary(layer) for name, layer in found.items() if _has_vocabulary(layer)},
        {name: _settings(layer) for name, layer in found.items()},
        tuple(names),
    )


def is_lookup(layer: Layer) -> bool:
    """Whether a layer turns strings or any numbers into those of a vocabulary or of hashed buckets."""
    if not flavor.is_layer(layer):
        return False
    layers = flavor.keras_of(layer).layers
    return _has_vocabulary(layer) or isinstance(layer, (layers.Hashing, layers.HashedCrossing))


def _has_vocabulary(layer: Layer) -> bool:
    return hasattr(layer, "get_vocabulary")


def lookup_names(model: Model) -> list[str]:
    """The path names of the lookup layers that a model could be split at."""
    if not (flavor.is_graph_model(model) and model.built):
        return []
    names = flavor.layer_names(model)
    return [names[id(layer)] for layer in flavor.layers_of(model) if is_lookup(layer)]


def _vocabulary(layer: Layer) -> list[str] | list[int]:
    words = layer.get_vocabulary()
    return [word.item() if hasattr(word, "item") else word for word in words]


def _settings(layer: Layer) -> str:
    config = layer.get_config()
    shown = [f"{name}={config[name]!r}" for name in _SETTINGS.split() if config.get(name) is not None]
    return f"{type(layer).__name__}({', '.join(shown)})"


def _handles_strings(node: flavor.GraphNode) -> bool:
    """Whether a call of a lookup layer reads or returns strings, or hashes."""
    if not is_lookup(node.layer):
        return False
    dtypes = [getattr(tensor.dtype, "name", tensor.dtype) for tensor in (*node.inputs, *node.outputs)]
    return "string" in dtypes or not _has_vocabulary(node.layer)


def _entered(model: Model) -> Any:
    """The model with the layers of nested models that hold lookup layers as its own; itself where there are none."""
    inputs, nodes, structure = flavor.graph_nodes(model)
    if not any(map(_holds_lookups, nodes)):
        return model
    given = {id(tensor): flavor.clone_input(flavor.input_layer(tensor)).output for tensor in inputs}
    outputs = flavor.pack_outputs(model, _copied(nodes, given, flavor.flatten(structure, model)))
    return flavor.keras_of(model).Model(_alone(list(given.values())), outputs, name=model.name)


def _holds_lookups(node: flavor.GraphNode) -> bool:
    return flavor.is_nested(node.layer) and any(map(is_lookup, flavor.layers_of(node.layer)))


def _calls_before(nodes: list[flavor.GraphNode], is_cut: Callable[[Any], bool]) -> list[flavor.GraphNode]:
    """The calls that a model is cut behind, and those whose outputs they need."""
    return flavor.needed_calls(nodes, [tensor for node in nodes if is_cut(node) for tensor in node.outputs])


def _read(nodes: list[flavor.GraphNode]) -> set[int]:
    return {id(tensor) for node in nodes for tensor in node.inputs}


def _copied(nodes: list[flavor.GraphNode], values: dict[int, Any], outputs: list[Any]) -> list[Any]:
    """What copies of the layers make of these tensors; a layer that is called twice is copied once."""
    renamed: dict[int, str] = {}
    rebuilder = flavor.Rebuilder(renamed=renamed)
    made = flavor.run_calls(nodes, values, outputs, *_copying(rebuilder, renamed, ""))
    rebuilder.fill()
    return made


def _copying(rebuilder: flavor.Rebuilder, renamed: dict[int, str], within: str) -> tuple[Caller, Enterer]:
    """What makes the calls; nested models that hold lookup layers are entered, and names inside begin with `within`."""

    def call(node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
        if within and flavor.function_name(node.layer) is None:
            renamed.setdefault(id(node.layer), within + node.layer.name)
        args, kwargs = node.filled(dict(zip(map(id, node.inputs), taken, strict=True)))
        return flavor.flatten(rebuilder.call(node, args, kwargs), node.layer)

    def enter(node: flavor.GraphNode, inner: Model, axes: int, taken: list[Any]) -> Sequence[Any]:
        if not _holds_lookups(node):
            return call(node, taken)
        copying = _copying(rebuilder, renamed, f"{within}{node.layer.name}_")
        return flavor.run_model(inner, flavor.first_argument(node, taken), *copying)

    return call, enter


def _names(cut: list[Any], made: dict[int, flavor.GraphNode], taken: set[str]) -> list[str]:
    names: list[str] = []
    for tensor in cut:
        plain = name = made[id(tensor)].layer.name
        number = 1
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _alone(tensors: list[AnyTensor]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors
