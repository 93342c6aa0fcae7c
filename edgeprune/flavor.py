"""The one room that knows there are two Kerases: `keras` 3 and the legacy `tf_keras`.

Everything else asks here: which Keras does this model belong to, what are its layers, who feeds whom.
Importing this module imports neither of them.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

KERAS_3 = "keras"
TF_KERAS = "tf_keras"


def flavor_of(keras_object: Any) -> str:
    """Tell which Keras a model, layer, optimizer or callback belongs to.

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
    packages = {cls.__module__.partition(".")[0] for cls in type(keras_object).__mro__}
    if TF_KERAS in packages:
        return TF_KERAS
    if KERAS_3 in packages:
        return KERAS_3
    raise TypeError(
        f"Expected a model or a layer of `keras` 3 or `tf_keras`, got {type(keras_object).__name__}: "
        f"{str(keras_object)[:80]}"
    )


def is_keras_3(keras_object: Any) -> bool:
    """Whether the object belongs to Keras 3 (otherwise to `tf_keras`)."""
    return flavor_of(keras_object) == KERAS_3


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


def keras_of(keras_object: Any) -> ModuleType:
    """The Keras package the object belongs to, so that `keras_of(model).layers.Dense` fits the model."""
    return keras_module(flavor_of(keras_object))


def is_model(keras_object: Any) -> bool:
    """Whether the object is a Keras model (of either Keras) rather than a layer or something else."""
    try:
        return isinstance(keras_object, keras_of(keras_object).Model)
    except TypeError:
        return False


def is_layer(keras_object: Any) -> bool:
    """Whether the object is a Keras layer (of either Keras); a model is a layer too."""
    try:
        return isinstance(keras_object, keras_of(keras_object).layers.Layer)
    except TypeError:
        return False


def is_graph_model(model: Any) -> bool:
    """Whether the model is Functional or Sequential, so that its graph of layers is known."""
    if is_keras_3(model):
        from keras.src.models.functional import Functional

        return isinstance(model, Functional | keras_of(model).Sequential)
    return bool(model._is_graph_network) or isinstance(model, keras_of(model).Sequential)


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer inside a model, at any depth, once, models and composite layers before their parts.

    A layer that is not a model yields itself first. Layers inside layers (the dense projections of attention, the cells of
    recurrent layers, nested models) are included.
    """
    seen = {id(model)} if is_model(model) else set()
    for layer in model._flatten_layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def layer_graph(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The graph of a Functional or Sequential model: each call of a layer with the layers that feed it.

    Args:
        model: a built Functional or Sequential model of either Keras. Nested models are one layer here.

    Returns:
        Pairs `(layer, producers)` in an order in which producers come first. A shared layer appears once
        per call. In Keras 3 a function in the graph (`x + y`) is an operation and appears as a layer does.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    if not is_graph_model(model):
        raise ValueError(
            f"Model {model.name!r} is subclassed, so its graph of layers is not known; "
            "a Functional or Sequential model is needed here."
        )
    if not model.built:
        raise ValueError(f"Model {model.name!r} is not built: call it on an input or give it an Input first.")
    keras_3 = is_keras_3(model)
    graph = model._functional if keras_3 and isinstance(model, keras_of(model).Sequential) else model

    def layer_of(node):
        return node.operation if keras_3 else node.layer

    pairs = []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            pairs.append((layer_of(node), tuple(layer_of(parent) for parent in node.parent_nodes)))
    return pairs


def load_model(path: str | Path) -> Any:
    """Load a model of either Keras: `.keras`, `.h5`, or a SavedModel folder that `tf_keras` wrote.

    Keras 3 is tried first, then `tf_keras`. Keras's `safe_mode` stays on: a file that carries Python
    code (a Lambda layer) is refused.

    Args:
        path: the file or the folder.

    Returns:
        A `keras.Model` or a `tf_keras.Model`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: neither Keras can read it; the message holds both reasons.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No model at {path}")
    reasons = []
    flavors = (TF_KERAS,) if path.is_dir() else (KERAS_3, TF_KERAS)
    for flavor in flavors:
        try:
            return keras_module(flavor).models.load_model(path)
        except Exception as error:  # each Keras raises many kinds; both reasons are told below
            reasons.append(f"{flavor}: {' '.join(str(error).split())[:300]}")
    raise ValueError(f"{path} could not be read as a Keras model. " + " | ".join(reasons))


@functools.cache
def import_tfmot() -> ModuleType:
    """Import TensorFlow Model Optimization without changing what `tf.keras` means in this process.

    TF-MOT sets `TF_USE_LEGACY_KERAS=1` when it is imported, and `tf.keras` decides which Keras it is at
    its first use. So `tf.keras` is made to decide first, and the variable is put back afterwards.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow as tf

    _ = tf.keras.layers  # the first use
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


def is_imported(flavor: str) -> bool:
    """Whether the process has already imported this Keras."""
    return flavor in sys.modules
