"""Masks for `tf_keras`: TF-MOT's own wrappers around layers.

TF-MOT's wrappers count the steps and update the masks themselves, inside the step. What they do not know
(one threshold over all layers, Taylor importance) is done by the callback, which sets the wrappers' masks;
their own updates then rest.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.sparsity import masks, prunable, schedules, updates
from edgeprune.sparsity.settings import PruningRun

tfmot_sparsity = flavor.import_tfmot().sparsity.keras


class _SetByCallback(schedules.PruningSchedule):
    """A schedule that never fires: the callback sets the masks by the real one."""

    def __init__(self, run: PruningRun):
        self.run = run

    def __call__(self, step):
        return tf.constant(False), self.run.schedule(step)[1]

    def get_config(self):
        return self.run.schedule.get_config()


class WrappedWeight:
    """One weight in one of TF-MOT's wrappers, its mask set from outside."""

    def __init__(self, name: str, run: PruningRun, variable: Any, mask: Any):
        self.name = name
        self.run = run
        self.variable = variable
        self._mask = mask
        self._scores = tf.Variable(tf.zeros_like(variable)) if run.importance == "taylor" else None

    def importance(self) -> np.ndarray:
        """The importance of each weight now, floats of the variable's shape."""
        value = self.variable.numpy()
        return np.abs(value) if self._scores is None else masks.taylor_importance(self._scores.numpy(), value)

    def mask(self) -> np.ndarray:
        """The mask as a boolean array, true where the weight is kept."""
        return self._mask.numpy().astype(bool)

    def set_mask(self, mask: np.ndarray) -> None:
        """Take a new mask, and start gathering scores anew; the variable itself stays as it is."""
        self._mask.assign(mask)
        if self._scores is not None:
            self._scores.assign(tf.zeros_like(self._scores))

    def gather_scores(self, gradient: Any) -> None:
        """Add |weight x gradient| of one step to the scores; called inside the compiled step."""
        self._scores.assign_add(tf.abs(self.variable * tf.convert_to_tensor(gradient)))


@dataclasses.dataclass
class WrapperPruning:
    """The weights of one wrapper whose masks the callback sets."""

    run: PruningRun
    weights: list[WrappedWeight]


def layers_to_wrap(model: Any) -> list[Any]:
    """The layers TF-MOT may wrap: those of the graph and of nested models, but no parts of layers."""
    layers = []
    for layer in model.layers:
        layers += layers_to_wrap(layer) if flavor.is_model(layer) else [layer]
    return list(dict.fromkeys(layers))


def is_wrapper(layer: Any) -> bool:
    """Whether a layer is TF-MOT's pruning wrapper."""
    return isinstance(layer, _wrapper_class())


def wrappers_in(model: Any) -> list[Any]:
    """The pruning wrappers of a model, at any depth."""
    return [layer for layer in flavor.layers_of(model) if is_wrapper(layer)]


def wrap(layer: Any, run: PruningRun, **wrapper_arguments: Any) -> Any:
    """Wrap one layer with TF-MOT's wrapper.

    Raises:
        ValueError: TF-MOT does not know the layer.
    """
    by_callback = run.scope == "global" or run.importance == "taylor"
    return tfmot_sparsity.prune_low_magnitude(
        layer,
        pruning_schedule=_SetByCallback(run) if by_callback else run.schedule,
        block_size=run.block_size,
        block_pooling_type=run.block_pooling_type,
        sparsity_m_by_n=run.sparsity_m_by_n,
        **wrapper_arguments,
    )


def wrap_model(model: Any, runs: dict[int, PruningRun]) -> Any:
    """Clone a model with wrappers around some of its layers.

    Args:
        model: a Functional or Sequential `tf_keras` model.
        runs: the run of each layer to wrap, by the layer's id.

    Returns:
        A model of the same graph that shares the layers, not compiled.
    """
    return _clone(model, lambda layer: wrap(layer, runs[id(layer)]) if id(layer) in runs else layer)


def strip(model: Any) -> Any:
    """Apply the masks a last time and clone the model without wrappers."""
    apply_masks(model)
    return tfmot_sparsity.strip_pruning(model)


def why_not_wrappable(layer: Any, run: PruningRun) -> str | None:
    """Why TF-MOT cannot wrap a layer that has prunable weights; None where it can."""
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    if not hasattr(layer, "get_prunable_weights") and not PruneRegistry.supports(layer):
        return f"TF-MOT's wrapper does not know {type(layer).__name__}; define get_prunable_weights() on it"
    for weight in prunable.prunable_weights(layer).values() if run.in_blocks else ():
        blocks = [-(-size // block) for size, block in zip(weight.shape, run.block_size, strict=False)]
        if 1 in blocks:  # TF-MOT squeezes such a row away while training, and then stops
            return f"TF-MOT cannot prune a single row of {run.block_size} blocks, and this weight is {weight.shape}"
    return None


def begin_training(model: Any) -> updates.StepCounter:
    """Start TF-MOT's count of steps; returns the counter for the wrappers whose masks the callback sets."""
    starter = tfmot_sparsity.UpdatePruningStep()
    starter.set_model(model)
    starter.on_train_begin()
    prunings = [
        _pruning_of(wrapper) for wrapper in wrappers_in(model) if isinstance(wrapper.pruning_schedule, _SetByCallback)
    ]
    if any(pruning.run.importance == "taylor" for pruning in prunings):
        _gather_scores_in(model, prunings)
    return updates.StepCounter(prunings, lambda: apply_masks(model))


def _pruning_of(wrapper: Any) -> WrapperPruning:
    run = wrapper.pruning_schedule.run
    run.step = run.checked_step = int(wrapper.pruning_step.numpy())
    weights = [
        WrappedWeight(f"{wrapper.layer.name}/{variable.name}", run, variable, mask)
        for variable, mask, _ in wrapper.pruning_vars
    ]
    return WrapperPruning(run, weights)


def scheduled(model: Any) -> list[tuple[Any, int]]:
    """The schedules at work in a model, each with the step it has come to."""
    found = {}
    for wrapper in wrappers_in(model):
        schedule = real_schedule(wrapper)
        if not wrapper.sparsity_m_by_n:
            found[id(schedule)] = (schedule, max(0, int(wrapper.pruning_step.numpy())))
    return list(found.values())


def real_schedule(wrapper: Any) -> Any:
    """The user's schedule of a wrapper, also where the callback sets the masks."""
    schedule = wrapper.pruning_schedule
    return schedule.run.schedule if isinstance(schedule, _SetByCallback) else schedule


def has_masks(model: Any) -> bool:
    """Whether any weight of the model is under pruning."""
    return bool(wrappers_in(model))


def current_step(model: Any) -> int:
    """The training step the model's pruning has come to."""
    return max((int(wrapper.pruning_step.numpy()) for wrapper in wrappers_in(model)), default=0)


def weights_and_masks(model: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, values and boolean mask of every weight under pruning."""
    return [
        (f"{wrapper.layer.name}/{variable.name}", variable.numpy(), mask.numpy().astype(bool))
        for wrapper in wrappers_in(model)
        for variable, mask, _ in wrapper.pruning_vars
    ]


def apply_masks(model: Any) -> None:
    """Put zeros where the masks say so: the optimizer has just moved the weights. The zeros are +0.0."""
    for wrapper in wrappers_in(model):
        for variable, mask, _ in wrapper.pruning_vars:
            variable.assign(tf.where(mask != 0, variable, tf.zeros((), variable.dtype)))


def end_training(model: Any) -> None:
    """Apply the masks a last time, and undo what `begin_training` did to the optimizer."""
    apply_masks(model)
    vars(model.optimizer).pop("apply_gradients", None)


def _gather_scores_in(model: Any, prunings: list[WrapperPruning]) -> None:
    weights = [weight for pruning in prunings for weight in pruning.weights]
    scored = {weight.variable.ref(): weight for weight in weights if weight.run.importance == "taylor"}
    optimizer = model.optimizer
    apply_gradients = type(optimizer).apply_gradients

    def apply_and_gather(grads_and_vars, *args, **kwargs):
        pairs = list(grads_and_vars)
        for gradient, variable in pairs:
            if variable.ref() in scored and gradient is not None:
                scored[variable.ref()].gather_scores(gradient)
        return apply_gradients(optimizer, pairs, *args, **kwargs)

    vars(optimizer)["apply_gradients"] = apply_and_gather
    model.make_train_function(force=True)


def _clone(model: Any, replace: Any) -> Any:
    """Clone a graph of layers, nested models included, with some layers replaced."""
    keras = flavor.keras_of(model)

    def clone_layer(layer):
        return _clone(layer, replace) if flavor.is_model(layer) else replace(layer)

    return keras.models.clone_model(model, clone_function=clone_layer)


def _wrapper_class() -> type:
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return PruneLowMagnitude
