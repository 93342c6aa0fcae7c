"""Which Keras an object belongs to, and what kind of object it is."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeGuard, cast

import numpy as np

from edgeprune.types import Layer, Model, Variable

KERAS_3 = "keras"
TF_KERAS = "tf_keras"


def flavor_of(keras_object: object) -> str:
    """Which Keras a model, layer, optimizer or callback belongs to.

    Args:
        keras_object: any object whose class derives from a class of `keras` 3 or of `tf_keras`.

    Returns:
        `"keras"` or `"tf_keras"`: the name of the package.

    Raises:
        TypeError: the object belongs to neither.

    Example:
        >>> import keras, edgeprune.flavor
        >>> edgeprune.flavor.flavor_of(keras.layers.Dense(1))
        'keras'
    """
    kind: type = type(keras_object)
    flavor = flavor_of_class(kind)
    if flavor is None:
        raise TypeError(
            f"Expected a model or a layer of `keras` 3 or `tf_keras`, got {type(keras_object).__name__}: "
            f"{str(keras_object)[:80]}"
        )
    return flavor


@functools.lru_cache(maxsize=1024)  # asked several times for every layer of a model
def flavor_of_class(kind: type) -> str | None:
    """The name of the Keras a class derives from, `None` if from neither."""
    packages = {cls.__module__.partition(".")[0] for cls in kind.__mro__}
    return next((flavor for flavor in (TF_KERAS, KERAS_3) if flavor in packages), None)


def is_keras_3(keras_object: object) -> bool:
    """Whether the object belongs to Keras 3 (otherwise to `tf_keras`)."""
    return flavor_of(keras_object) == KERAS_3


@functools.cache  # asked several times for every layer of a model
def keras_module(flavor: str) -> ModuleType:
    """Import and return the `keras` or the `tf_keras` package."""
    if flavor == KERAS_3:
        keras = importlib.import_module(KERAS_3)
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"edgeprune needs Keras on the TensorFlow backend, and it runs on {keras.backend.backend()!r}: "
                "set KERAS_BACKEND=tensorflow before keras is imported."
            )
        return keras
    return importlib.import_module(TF_KERAS)


def keras_of(keras_object: object) -> ModuleType:
    """The Keras package the object belongs to, so that `keras_of(model).layers.Dense` fits the model."""
    return keras_module(flavor_of(keras_object))


def is_model(keras_object: object) -> TypeGuard[Model]:
    """Whether the object is a Keras model (of either Keras) rather than a layer or something else."""
    try:
        return isinstance(keras_object, keras_of(keras_object).Model)
    except TypeError:
        return False


def built_in_kind(layer: object) -> str:
    """The name of Keras's own class whose `call` a layer or an operation has; empty where it has a call of its own."""
    kind: Any = type(layer)
    for ancestor in kind.__mro__:
        if ancestor.__module__.partition(".")[0] in (KERAS_3, TF_KERAS):
            same = getattr(kind, "call", None) is getattr(ancestor, "call", None)
            return str(ancestor.__name__) if same else ""
    return ""


def has_linear_activation(layer: Layer) -> bool:
    """Whether a layer has no activation, or one that returns what it is called on."""
    activation = getattr(layer, "activation", None)
    return activation is None or getattr(activation, "__name__", "") == "linear"


def check_model(keras_object: object) -> None:
    """See that an argument is a Keras model.

    Raises:
        TypeError: it is something else.
    """
    if not is_model(keras_object):
        raise TypeError(f"Expected a Keras model, got {type(keras_object).__name__}: {str(keras_object)[:80]}")


def check_built(layer: Layer) -> None:
    """See that a model or layer is built.

    Raises:
        ValueError: it is not.
    """
    if not layer.built:
        kind = "Model" if is_model(layer) else "Layer"
        raise ValueError(f"{kind} {layer.name!r} is not built: call it on an example, or add an Input.")


def check_built_model(keras_object: object) -> None:
    """See that an argument is a Keras model, and built.

    Raises:
        TypeError: it is no model.
        ValueError: it is not built.
    """
    check_model(keras_object)
    check_built(cast(Model, keras_object))


def is_layer(keras_object: object) -> TypeGuard[Layer]:
    """Whether the object is a Keras layer (of either Keras); a model is a layer too."""
    try:
        return isinstance(keras_object, keras_of(keras_object).layers.Layer)
    except TypeError:
        return False


def is_graph_model(model: Layer) -> bool:
    """Whether the model is Functional or Sequential, so that its graph of layers is known."""
    if is_keras_3(model):
        from keras.src.models.functional import Functional

        return isinstance(model, Functional | keras_of(model).Sequential)
    return bool(model._is_graph_network) or isinstance(model, keras_of(model).Sequential)


def is_sequential(model: Layer) -> bool:
    """Whether the model is a Sequential of either Keras."""
    return isinstance(model, keras_of(model).Sequential)


def layers_of(model: Layer) -> Iterator[Layer]:
    """Every layer inside a model, at any depth, once, models and composite layers before their parts.

    A layer that is not a model yields itself first. Layers inside layers (the dense projections of attention,
    the cells of recurrent layers, nested models) are included.
    """
    seen = {id(model)} if is_model(model) else set()
    for layer in model._flatten_layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def layer_names(model: Model, renamed: Mapping[int, str] | None = None) -> dict[int, str]:
    """A name for every layer at any depth: the path to it, as in `"block/conv"`.

    Args:
        model: a model or a layer of either Keras.
        renamed: `id(layer)` to the name that it has here, of those that have another.

    Returns:
        `id(layer)` to name, for all of `layers_of(model)`; where several ways lead to a layer, the first.
    """
    names: dict[int, str] = {}
    renamed = renamed or {}

    def visit(parent: Layer, prefix: str) -> None:
        for layer in parent._flatten_layers(recursive=False, include_self=False):
            if id(layer) not in names:
                name = renamed.get(id(layer), layer.name)
                names[id(layer)] = prefix + name
                visit(layer, f"{prefix}{name}/")

    if not is_model(model):
        names[id(model)] = model.name
    visit(model, "")
    return names


def nest(keras_3: bool) -> ModuleType:
    """The module with `flatten` and `map_structure` for this Keras's nested structures."""
    if keras_3:
        return keras_module(KERAS_3).tree
    import tensorflow as tf

    return tf.nest


def flatten(structure: object, keras_object: object) -> list[Any]:
    """The leaves of a nested structure in the order in which the object's Keras expects them."""
    return nest(is_keras_3(keras_object)).flatten(structure)


def map_structure(function: Callable[..., Any], structure: object, keras_object: object) -> Any:
    """The nested structure with `function` applied to each leaf, in the manner of the object's Keras."""
    return nest(is_keras_3(keras_object)).map_structure(function, structure)


def tf_variable(variable: Variable) -> Any:
    """The `tf.Variable` behind a variable of either Keras."""
    import tensorflow as tf

    return variable if isinstance(variable, tf.Variable) else variable.value


def array_of(variable: Variable) -> np.ndarray:
    """The values of a variable of either Keras, to be read only: without a copy where NumPy has their type."""
    import tensorflow as tf

    tensor = tf.convert_to_tensor(tf_variable(variable))
    try:
        return np.asarray(memoryview(tensor))
    except (BufferError, TypeError, ValueError):  # bfloat16, a distributed variable
        return np.asarray(tensor)


def weights_of(layer: Layer) -> list[Variable]:
    """The weights of a model or layer, in the order of its `weights`; none where an operation has no such list.

    tf_keras lists the table of an adapted vocabulary among them, which is no variable and is left out.
    """
    return [weight for weight in getattr(layer, "weights", ()) if hasattr(weight, "shape")]


def weight_values(layer: Layer) -> list[np.ndarray]:
    """A copy of the values of each of `weights_of(layer)`."""
    return [array_of(weight).copy() for weight in weights_of(layer)]


def set_weight_values(layer: Layer, values: Sequence[np.ndarray]) -> None:
    """Assign what `weight_values` returned of a layer that is the same."""
    for weight, value in zip(weights_of(layer), values, strict=True):
        weight.assign(value)


def tf_variables(model: Layer) -> list[Any]:
    """The model's variables, state that is not trained included, as `tf.Variable`s."""
    return [variable.value if is_keras_3(model) else variable for variable in model.variables]


def tf_resources(model: Layer) -> list[Any]:
    """What layers hold in TensorFlow's memory besides variables: the tables of lookup layers."""
    import tensorflow as tf

    kind = tf.saved_model.experimental.TrackableResource
    return [value for layer in layers_of(model) for value in vars(layer).values() if isinstance(value, kind)]


def is_keras_3_variable(variable: Variable) -> bool:
    """Whether a variable belongs to Keras 3; those of `tf_keras` are TensorFlow's own."""
    return not isinstance(variable, importlib.import_module("tensorflow").Variable)


def is_quantized_by_keras(layer: Layer) -> bool:
    """Whether Keras's own `quantize()` has put integers, or other small numbers, in the place of a layer's weights."""
    return getattr(layer, "quantization_mode", None) is not None


def check_not_quantized_by_keras(model: Model) -> None:
    """Refuse a model whose kernels are integers already.

    Raises:
        ValueError: the message names the layer.
    """
    for layer in layers_of(model):
        if is_quantized_by_keras(layer):
            raise ValueError(
                f"Layer {layer.name!r} is quantized already, by Keras's own quantize(): pass the model before that."
            )


def check_kernels_can_be_rounded(model: Model) -> None:
    """Refuse a model whose kernels are integers already, or sums of several weights.

    Raises:
        ValueError: the message names the layer.
    """
    check_not_quantized_by_keras(model)
    for layer in layers_of(model):
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"Layer {layer.name!r} has LoRA: its kernel is a sum, which cannot be rounded. Merge it first: make "
                "the layer without LoRA, and assign the `kernel` of this one to it."
            )
