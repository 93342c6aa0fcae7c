"""Calls of what stands in a graph: layers, and functions that are no layers.

Such functions are Keras 3's operations and the function layers of `tf_keras`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from edgeprune.flavor.copies import clone_layer
from edgeprune.flavor.kinds import is_keras_3, is_layer
from edgeprune.types import Layer


def call_for_inference(layer: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a layer on arrays as a Functional model that is called with `training=False` calls it.

    Of a layer that is called with `training=True` in the graph, Keras 3 overrides this and `tf_keras` does not. Without
    the argument, random layers of images would run as in training.
    """
    decided = not is_keras_3(layer) and layer._call_spec.arg_was_passed("training", args, kwargs, inputs_in_args=True)
    return layer(*args, **(kwargs if decided else {**kwargs, "training": False}))


def function_arguments(function: Layer, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a function in the graph by their names, wherever they are kept.

    A Keras 3 operation keeps some in its configuration and is called on the others; `tf_keras` passes all.
    """
    if is_layer(function):
        signature, settings = _signature(function.function), {}
    else:
        signature, settings = _signature(function.call), function.get_config()
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return {**settings, **bound.arguments}


def call_function(function: Layer, args: tuple, kwargs: dict[str, Any], changes: dict[str, Any]) -> Any:
    """Call a function in the graph again, with other values for some of its arguments.

    Args:
        function: the Keras 3 operation, or the function layer of `tf_keras`.
        args: the positional arguments of its call, the new tensors in place of the old.
        kwargs: the keyword arguments of its call.
        changes: argument name to new value, named as in `function_arguments`; `...` inside a tuple stands for
            what the call has there.

    Returns:
        What the call returns.
    """
    if not is_layer(function):
        settings = function.get_config()
        changed = {**settings, **{name: value for name, value in changes.items() if name in settings}}
        changes = {name: value for name, value in changes.items() if name not in settings}
        function = function.__class__.from_config(changed)
        signature = _signature(function.call)
    else:
        signature = _signature(function.function)
        function = clone_layer(function)
        changes = {name: _slices_as_dicts(value) for name, value in changes.items()}
    if changes:
        bound = signature.bind(*args, **kwargs)
        for name, value in changes.items():
            if isinstance(value, tuple) and ... in value:
                value = tuple(old if new is ... else new for old, new in zip(bound.arguments[name], value, strict=True))
            bound.arguments[name] = value
        args, kwargs = bound.args, bound.kwargs
    return function(*args, **kwargs)


def run_function(function: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute a function in the graph on arrays."""
    return function.call(*args, **kwargs)


@functools.cache
def _signature_of(function: Callable[..., Any]) -> Any:
    return inspect.signature(function)


def _signature(function: Callable[..., Any]) -> Any:
    """The signature; of a bound method, read once for its class."""
    if inspect.ismethod(function):
        signature = _signature_of(function.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return _signature_of(function)


def _slices_as_dicts(value: object) -> Any:
    """An argument as `tf_keras` keeps it in its graph."""
    if isinstance(value, tuple):
        return tuple(map(_slices_as_dicts, value))
    return {name: getattr(value, name) for name in ("start", "stop", "step")} if isinstance(value, slice) else value


def slice_entries(key: object) -> list[Any]:
    """The entries of an index into a tensor of the graph, slices as slices; `tf_keras` keeps them as dicts."""
    entries = list(key) if isinstance(key, list | tuple) else [key]
    return [slice(*(e[name] for name in ("start", "stop", "step"))) if isinstance(e, dict) else e for e in entries]
