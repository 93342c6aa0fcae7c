"""Callbacks, constraints, optimizers and precision while a model trains."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeprune.flavor.kinds import (
    KERAS_3,
    TF_KERAS,
    array_of,
    is_keras_3,
    is_keras_3_variable,
    keras_module,
    layers_of,
    weights_of,
)
from edgeprune.types import Layer, Model, Variable

CALLBACK_HOOKS = tuple(
    f"on_{moment}"
    for what in ("train", "test", "predict")
    for moment in (f"{what}_begin", f"{what}_end", f"{what}_batch_begin", f"{what}_batch_end")
) + ("on_epoch_begin", "on_epoch_end")


@functools.cache
def callback_class(name: str = "Callback") -> type:
    """A base class for callbacks that serve the `fit` of either Keras and are instances of its own class.

    What it inherits runs as Keras 3's, which answers all that `tf_keras` asks of a callback too.

    Args:
        name: the name of a class in the `callbacks` of both Kerases.
    """
    bases = tuple(getattr(keras_module(one).callbacks, name) for one in (KERAS_3, TF_KERAS))
    return type(name, bases, {"__doc__": f"A {name} of both Kerases.", "__module__": __name__})


@contextlib.contextmanager
def computing_in_float32(model: Model) -> Iterator[None]:
    """While the body runs, the layers of a model in mixed precision compute in float32."""
    keras_3, changed = is_keras_3(model), []

    def set_policy(layer: Layer, policy: object) -> None:
        if keras_3:
            layer.dtype_policy = policy
        else:
            layer._set_dtype_policy(policy)

    try:
        for layer in (model, *layers_of(model)):
            if layer.compute_dtype in ("float16", "bfloat16", "float64"):
                changed.append((layer, layer.dtype_policy if keras_3 else layer._dtype_policy))
                set_policy(layer, "float32")
        yield
    finally:
        for layer, policy in changed:
            set_policy(layer, policy)


def type_beside_float32(layer: Layer) -> str | None:
    """The type that weights of a layer keep where it computes in float32; None where all are cast to that."""
    kept = ("float64",) if is_keras_3(layer) else ("float16", "bfloat16", "float64")
    types = [str(getattr(weight.dtype, "name", weight.dtype)) for weight in weights_of(layer)]
    return next((one for one in types if one in kept), None)


def constrain(variable: Variable, constraint: Callable[[Any], Any] | None) -> None:
    """Set what the optimizer does to a variable after each of its updates: `constraint(value)` is the new value."""
    if is_keras_3_variable(variable):
        variable.constraint = constraint
    else:
        # Under mixed precision the variable is one inside another.
        getattr(variable, "_variable", variable)._constraint = constraint


def forget_compiled_step(model: Model) -> None:
    """Have the training step of a model that has trained before recompiled, as its constraints have changed."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def moving_averages(optimizer: Any, variables: Sequence[Variable]) -> list[Any]:
    """The optimizer's moving average of each variable, as `tf.Variable`s; empty without `use_ema`.

    The optimizer is of either Keras, one that scales the loss around it, or None.
    """
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not getattr(optimizer, "use_ema", False) or not averages:
        return []
    if is_keras_3(optimizer):
        return [averages[optimizer._get_variable_index(variable)].value for variable in variables]
    return [averages[optimizer._index_dict[optimizer._var_key(variable)]] for variable in variables]


def rounds_values(layer: Layer) -> bool:
    """Whether a layer rounds to the steps of a quantized file: it has a flag `rounds`."""
    return isinstance(getattr(layer, "rounds", None), bool)


@contextlib.contextmanager
def without_rounding(*models: Model) -> Iterator[None]:
    """While the body runs, layers that round to the steps of a quantized file do not.

    Args:
        *models: of either Keras, to be called eagerly.
    """
    rounding: list[Any] = [layer for model in models for layer in layers_of(model) if rounds_values(layer)]
    before = [layer.rounds for layer in rounding]
    try:
        for layer in rounding:
            layer.rounds = False
        yield
    finally:
        for layer, value in zip(rounding, before, strict=True):
            layer.rounds = value


@contextlib.contextmanager
def state_restored(model: Model) -> Iterator[None]:
    """Restore afterwards what calls of a model change: moving statistics, counters, states, random seeds.

    The states of recurrent layers that carry them from batch to batch are zero while the body runs.
    """
    carried = [
        state
        for layer in layers_of(model)
        if getattr(layer, "stateful", False)
        for state in _flat(getattr(layer, "states", None))
    ]
    variables = {id(one): one for one in [*carried, *_changeable(model)]}.values()
    before = [array_of(one).copy() for one in variables]
    for state in carried:
        state.assign(np.zeros(tuple(state.shape)))
    try:
        with losses_restored([model, *layers_of(model)]):
            yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            if not np.array_equal(array_of(variable), value):  # looking is cheaper than assigning
                variable.assign(value)


@contextlib.contextmanager
def losses_restored(layers: Iterable[Layer]) -> Iterator[None]:
    """Restore afterwards the losses that layers hold of their last call (activity regularizers, `add_loss`)."""
    names = ("_losses", "_eager_losses")  # the second of tf_keras, which keeps it for each thread
    held = [(getattr(layer, name), layer, name) for layer in layers for name in names if hasattr(layer, name)]
    before = [list(losses) for losses, _, _ in held]
    try:
        yield
    finally:
        for (losses, layer, name), values in zip(held, before, strict=True):
            losses[:] = values
            if getattr(layer, name) is not losses:
                setattr(layer, name, losses)


def _flat(states: object) -> list[Any]:
    if isinstance(states, list | tuple):
        return [one for state in states for one in _flat(state)]
    return [states] if hasattr(states, "assign") else []


def _changeable(model: Model) -> list[Any]:
    """The variables that a call may change; in Keras 3 the seeds of random layers are among them."""
    if not is_keras_3(model):
        return [variable for variable in model.non_trainable_variables if hasattr(variable, "assign")]
    trained = {id(variable) for variable in model.trainable_variables}
    measured = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in trained | measured]
