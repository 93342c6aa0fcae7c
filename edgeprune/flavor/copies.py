"""New layers and models made from old ones, and what is carried over."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.flavor.deep_graphs import followed_by_recursion
from edgeprune.flavor.graphs import graph_of
from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, is_keras_3, is_layer, keras_of, nest
from edgeprune.types import ArrayLike, Layer, Model, Variable


def clone_layer(layer: Layer, inside: Mapping[int, dict[str, Any]] | None = None, **changes: object) -> Any:
    """A new layer with the same configuration but for `changes`, without its weights.

    A function in the graph of a Keras 3 model (the operation behind `x + y`) has no state and is returned
    as it is. A Keras 3 layer of which nothing changes, and that its configuration does not make again, is copied.

    Args:
        layer: the layer.
        inside: `id` of a layer inside this one to changes of its configuration.
        changes: entries of the configuration with their new values.

    Raises:
        ValueError: its class does not make one from the configuration.
    """
    if not is_layer(layer):
        return layer
    kind = layer.__class__
    if isinstance(layer, keras_of(layer).layers.Lambda):
        # Its configuration holds the function's code without what the code refers to.
        kept = {name: value for name, value in layer.get_config().items() if name in ("name", "trainable", "dtype")}
        return kind(layer.function, layer._output_shape, layer.mask, layer.arguments, **kept)
    inside = inside or {}
    try:
        return _from_configuration(layer, changes, inside)
    except Exception as error:  # a layer of another maker may raise anything
        changed = set(changes) - {"name"} or any(inside.get(id(part)) for part in layer._flatten_layers())
        if not changed and is_keras_3(layer):
            with contextlib.suppress(Exception):  # what it holds may not be copied
                return _copied(layer, changes.get("name"))
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"Layer {layer.name!r} of the class {kind.__name__} cannot be made again from its configuration: mend its "
            f"get_config and from_config ({type(error).__name__}: {reason})."
        ) from error


def is_made_from_config(layer: Layer) -> bool:
    """Whether a layer's class makes one from its configuration, as loading a file does."""
    try:
        return layer.__class__.from_config(layer.get_config()) is not None
    except Exception:  # a layer of another maker may raise anything
        return False


def _from_configuration(layer: Layer, changes: dict[str, Any], inside: Mapping[int, dict[str, Any]]) -> Any:
    config = _changed_config(layer, changes, inside)
    # Layers inside are made by their class's name.
    custom = {type(part).__name__: type(part) for part in layer._flatten_layers(include_self=False)}
    with keras_of(layer).utils.custom_object_scope(custom) if custom else contextlib.nullcontext():
        new = layer.__class__.from_config(config)
    name = changes.get("name", layer.name)
    if new.name != name:  # its class takes none, and made one up
        new.__dict__["name" if is_keras_3(layer) else "_name"] = name
    return new


def _copied(layer: Layer, name: object = None) -> Any:
    """A copy of a Keras 3 layer with all that it holds, outside any graph."""
    parts = list(layer._flatten_layers())
    memo: dict[int, Any] = {id(part): part.__class__.__new__(part.__class__) for part in parts}
    for part in parts:
        memo.update({id(part._inbound_nodes): [], id(part._outbound_nodes): []})
    for part in parts:
        own = memo[id(part)].__dict__
        # What Keras wraps around `build` belongs to the one layer.
        held = {key: value for key, value in part.__dict__.items() if not (key in own and inspect.isfunction(value))}
        for value in held.values():
            if (
                id(value) not in memo and isinstance(value, list | dict) and hasattr(value, "tracker")
            ):  # it would track what is put in
                memo[id(value)] = _tracked_copy(value, memo)
        own.update(copy.deepcopy(held, memo))
    new = memo[id(layer)]
    if name is not None:
        new.__dict__["name"] = name
    return new


def _tracked_copy(collection: Any, memo: dict[int, Any]) -> Any:
    """A copy of a list or dictionary that Keras 3 keeps count of; the counts are copied with the layer."""
    new = type(collection)()
    if isinstance(collection, dict):
        new.update(copy.deepcopy(dict(collection), memo))
    else:
        new.extend(copy.deepcopy(list(collection), memo))
    new.tracker = copy.deepcopy(collection.tracker, memo)
    return new


def clone_wrapper(wrapper: Layer, layer: Layer, **changes: object) -> Any:
    """A new wrapper with the same configuration around another layer."""
    inner = wrapper.__dict__["layer"]
    wrapper.__dict__["layer"] = keras_of(wrapper).layers.Activation("linear")  # the inner one's may not be had
    try:
        config = {key: value for key, value in wrapper.get_config().items() if key != "layer"}
    finally:
        wrapper.__dict__["layer"] = inner
    return wrapper.__class__(layer, **{**config, **changes})


def _changed_config(layer: Layer, changes: dict[str, Any], inside: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    own = _config(layer)
    config = own | {key: value for key, value in changes.items() if key != "name" or key in own}
    for key, value in config.items():
        part = _part_of(layer, key)
        if _is_custom_function(part):  # which might not be found by its name
            config[key] = part
        if is_keras_3(layer) and isinstance(value, keras_of(layer).Variable):  # it took the place of a number
            config[key] = np.asarray(value).tolist()
        elif isinstance(value, dict) and "config" in value and is_layer(part):
            config[key] = _changed_part(part, value, inside)
        elif isinstance(value, list) and _are_described(part, value):
            config[key] = [_changed_part(*pair, inside) for pair in zip(part, value, strict=True)]
    return config


def _config(layer: Layer) -> dict[str, Any]:
    """A layer's configuration. Keras's Identity has none where it was made with what cannot be written to a file."""
    if is_keras_3(layer) and type(layer) is keras_of(layer).layers.Identity:
        return {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
    return layer.get_config()


def _are_described(parts: object, values: list[Any]) -> bool:
    """Whether entries of a configuration describe these layers; a Sequential model's describe its input too."""
    return isinstance(parts, list | tuple) and 0 < len(parts) == len(values) and all(map(is_layer, parts))


def _is_custom_function(part: object) -> bool:
    return inspect.isfunction(part) and part.__module__.partition(".")[0] not in (KERAS_3, TF_KERAS, "tensorflow")


def _changed_part(part: Layer, serialized: dict[str, Any], inside: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """A layer inside another's configuration; the shapes that it was built for are left out."""
    kept = {key: value for key, value in serialized.items() if key != "build_config"}
    config = _changed_config(part, inside.get(id(part), {}), inside)
    if "name" in config:  # Bidirectional renames its parts
        config["name"] = serialized["config"]["name"]
    return {**kept, "config": config}


def _part_of(layer: Layer, key: str) -> Any:
    """The layer that an entry of a layer's configuration describes."""
    if key == "layer" and hasattr(layer, "forward_layer"):  # Bidirectional works on copies of what it is passed
        return layer.forward_layer
    return getattr(layer, key, None)


def clone_built_layer(layer: Layer) -> Any:
    """A new layer with the same configuration and with weights of the same shapes, outside any model."""
    copy, keras_3 = clone_layer(layer), is_keras_3(layer)
    if keras_3:
        copy.build_from_config(layer.get_build_config())
    else:
        copy.build(layer._build_input_shape)
        for old, new in zip(layer._flatten_layers(), copy._flatten_layers(), strict=True):
            if not new.built:  # attention builds its parts when it is called
                new.build(old._build_input_shape)
    return copy


def clone_input(layer: Layer, batch_shape: tuple[int | None, ...] | None = None) -> Any:
    """A new input layer like this one, for tensors of another shape where one is passed."""
    config = layer.get_config()
    if batch_shape is not None:
        config["batch_shape" if is_keras_3(layer) else "batch_input_shape"] = tuple(batch_shape)
    return layer.__class__.from_config(config)


def functional_model(like: Model, inputs: list[Any], outputs: object, name: str | None = None) -> Any:
    """A Functional model on these tensors, of the class (and name) of `like` and with inputs structured as its."""
    keras_3 = is_keras_3(like)
    if keras_3:
        from keras.src.models.functional import Functional, functional_like_constructor

        structure = graph_of(like)._inputs_struct
    else:
        from tf_keras.src.engine.functional import Functional

        structure = like._nested_inputs
        functional_like_constructor = functools.partial(_takes_inputs_and_outputs, Functional)
    kind = like.__class__ if functional_like_constructor(like.__class__) else Functional
    with followed_by_recursion():
        return kind(nest(keras_3).pack_sequence_as(structure, inputs), outputs, name=name or like.name)


def _takes_inputs_and_outputs(functional: type[Model], kind: type[Model]) -> bool:
    """Whether a class of model is made as Functional models are, and asks for nothing more."""
    more = list(inspect.signature(kind.__init__).parameters.values())[3:]
    plain = all(one.default is not one.empty or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in more)
    return (
        plain
        and inspect.getfullargspec(kind.__init__).args[1:3] == inspect.getfullargspec(functional.__init__).args[1:3]
    )


def sequential_class(model: Model) -> type:
    """The class of a Sequential model; Keras's own where the model's class is made in another way."""
    plain = keras_of(model).Sequential
    return type(model) if type(model).__init__ is plain.__init__ else plain


def names_of_plain_weights(layer: Layer) -> list[str]:
    """What a layer that comes with Keras 3 calls its variables, in the order of `layer.weights`.

    Empty where it has none, or where what they hold does not follow from their values alone: layers of other makers,
    which may do anything when they are built, layers with layers inside, and those that are adapted to data.
    """
    of_keras = type(layer).__module__.startswith("keras.src.layers.")
    if not of_keras or hasattr(layer, "finalize_state") or any(True for _ in layer._flatten_layers(include_self=False)):
        return []
    names = [weight.name for weight in layer.weights]
    return names if len(set(names)) == len(names) else []


@contextlib.contextmanager
def initialize_with(values: dict[str, Any]) -> Iterator[None]:
    """While the body runs, variables of Keras 3 are made with these values instead of drawn at random first.

    TensorFlow's own names are left without the layer's: TensorFlow prepares a kernel for each name it meets, which
    takes longer than all else about a variable. Keras 3 has names of its own.

    Args:
        values: name of a variable (`"kernel"`) to its value; what has been used is taken out.
    """
    import tensorflow as tf

    def creator(next_creator: Callable[..., Any], **settings: object) -> Any:
        name = settings.get("name")
        if name not in values:
            return next_creator(**settings)
        settings["initial_value"] = values.pop(name)
        with tf.name_scope(""):
            return next_creator(**settings)

    with tf.variable_creator_scope(creator):
        yield


def variables_to_copy(layer: Layer) -> list[Any]:
    """The variables of a layer that are copied one by one; a vocabulary is copied as a whole."""
    return [] if hasattr(layer, "get_vocabulary") else list(layer.weights)


def copy_layer_state(old: Layer, new: Layer, weights: Sequence[ArrayLike]) -> None:
    """Set a layer's weights, values for `variables_to_copy(new)`, and what an adapted layer knows besides them."""
    if hasattr(old, "get_vocabulary"):
        if len(new.get_vocabulary()) != len(old.get_vocabulary()):
            new.set_vocabulary(old.get_vocabulary())
        return
    if not weights:
        return
    if is_keras_3(old):
        variables: Sequence[Variable] = new.weights
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)
    else:
        new.set_weights(weights)
    if hasattr(old, "finalize_state"):
        new.finalize_state()


def copy_trainable(old: Layer, new: Layer) -> None:
    """Set the trainable flags of a layer and of those inside it as they are in another."""
    for old_part, new_part in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        if new_part.trainable != old_part.trainable:
            new_part.trainable = old_part.trainable
