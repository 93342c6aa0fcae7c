"""Take a model apart at its lookup layers: what TFLite holds goes into the file, the rest into the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeprune import flavor


@dataclass(frozen=True)
class SplitModel:
    """A model in two parts, which one after the other compute what the whole does.

    Attributes:
        preprocessing: from the model's inputs to what its lookup layers give; it stays with the application.
        rest: from there to the outputs. Its inputs are named after the layers that give them; an input that no lookup
            layer reads is passed on.
        vocabularies: name of a lookup layer to its words or numbers: the place in the list is the number it gives.
    """

    preprocessing: Any
    rest: Any
    vocabularies: dict[str, list[Any]]


def split_preprocessing(model: Any) -> SplitModel:
    """Split a model at its lookup layers into preprocessing and the numeric rest.

    Lookup layers are `TextVectorization`, `StringLookup`, `IntegerLookup`, `Hashing` and `HashedCrossing`. The model is
    not changed and both parts hold copies of its layers.

    Args:
        model: a built Functional or Sequential model of either Keras.

    Returns:
        Both parts, and the vocabularies.

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
    if not flavor.is_model(model):
        raise TypeError(f"split_preprocessing takes a model of keras or tf_keras, got {type(model).__name__}.")
    inputs, nodes, structure = flavor.graph_nodes(model)
    before = _calls_before(model, nodes)
    if not before:
        raise ValueError(f"Model {model.name!r} has no lookup layer in its graph to be split at.")
    made = {id(tensor): node for node in before for tensor in node.outputs}
    behind = [node for node in nodes if id(node.node) not in {id(other.node) for other in before}]
    outputs = flavor.flatten(structure, model)
    needed = {id(tensor): tensor for node in behind for tensor in node.inputs} | {id(out): out for out in outputs}
    cut = [tensor for key, tensor in needed.items() if key in made]
    if not behind or any(id(tensor) in made for tensor in outputs):
        raise ValueError(f"Model {model.name!r} gives out what its lookup layers give: no numeric rest would be left.")

    keras = flavor.keras_of(model)
    given = {id(tensor): flavor.clone_input(flavor.input_layer(tensor)).output for tensor in inputs}
    first = _called(before, given)
    names = _names(cut, made, taken={node.layer.name for node in behind} | set(flavor.input_names(model)))
    passed = [tensor for tensor in inputs if id(tensor) in needed]
    entries = {id(tensor): flavor.clone_input(flavor.input_layer(tensor)).output for tensor in passed}
    for tensor, name in zip(cut, names, strict=True):
        entries[id(tensor)] = keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name)
    last = _called(behind, entries)
    return SplitModel(
        keras.Model(
            _alone([given[id(tensor)] for tensor in inputs if id(tensor) in _read(before)]),
            _alone([first[id(tensor)] for tensor in cut]),
            name=f"{model.name}_preprocessing",
        ),
        keras.Model(
            _alone(list(entries.values())),
            flavor.map_structure(lambda tensor: last[id(tensor)], structure, model),
            name=model.name,
        ),
        {node.layer.name: _vocabulary(node.layer) for node in before if _has_vocabulary(node.layer)},
    )


def is_lookup(layer: Any) -> bool:
    """Whether a layer turns strings or any numbers into those of a vocabulary or of hashed buckets."""
    if not flavor.is_layer(layer):
        return False
    layers = flavor.keras_of(layer).layers
    return _has_vocabulary(layer) or isinstance(layer, (layers.Hashing, layers.HashedCrossing))


def _has_vocabulary(layer: Any) -> bool:
    return hasattr(layer, "get_vocabulary")


def lookups(model: Any) -> list[Any]:
    """The lookup layers that a model could be split at; none where its graph is not known."""
    if not (flavor.is_graph_model(model) and model.built):
        return []
    return [node.layer for node in flavor.graph_nodes(model)[1] if is_lookup(node.layer)]


def _vocabulary(layer: Any) -> list[str] | list[int]:
    words = layer.get_vocabulary()
    return [word.item() if hasattr(word, "item") else word for word in words]


def _calls_before(model: Any, nodes: list[flavor.GraphNode]) -> list[flavor.GraphNode]:
    """The calls of lookup layers, and those whose outputs they need."""
    wanted: set[int] = set()
    found = []
    for node in reversed(nodes):
        if is_lookup(node.layer) or wanted.intersection(map(id, node.outputs)):
            found.append(node)
            wanted.update(map(id, node.inputs))
    return found[::-1]


def _read(nodes: list[flavor.GraphNode]) -> set[int]:
    return {id(tensor) for node in nodes for tensor in node.inputs}


def _called(nodes: list[flavor.GraphNode], tensors: dict[int, Any]) -> dict[int, Any]:
    """Copies of the layers, called on these tensors; a layer that is called twice is copied once."""
    tensors, copies = dict(tensors), {}
    for node in nodes:
        new = node.filled(tensors)
        known = id(node.layer) in copies
        layer = copies.setdefault(id(node.layer), node.layer if known else flavor.clone_layer(node.layer))
        made = flavor.flatten(layer(*new[0], **new[1]), layer if flavor.is_layer(layer) else node.layer)
        tensors.update(zip(map(id, node.outputs), made, strict=True))
        if not known and flavor.is_layer(layer):
            weights = [flavor.array_of(weight) for weight in flavor.variables_to_copy(node.layer)]
            flavor.copy_layer_state(node.layer, layer, weights)
    return tensors


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


def _alone(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors
