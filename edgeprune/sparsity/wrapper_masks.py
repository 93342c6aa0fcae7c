"""Masks for `tf_keras`: TF-MOT's own wrappers around layers.

TF-MOT's wrappers count the steps and update the masks themselves, inside the step. What they do not know
(one threshold over all layers, Taylor importance, layers that are called with `training=False`) is done by the
callback, which sets the wrappers' masks; their own updates then rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.sparsity import masks, prunable, schedules, updates
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import AnyTensor, Layer, Model, Shape, TfTensor, Variable

tfmot_sparsity = flavor.import_tfmot().sparsity.keras


def _wrapper_class() -> type:
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return PruneLowMagnitude


# The attribute of a wrapper that holds what was asked; a wrapper loaded from a file has none.
_RUN = "edgeprune_run"
_tf_keras = flavor.keras_module(flavor.TF_KERAS)


@_tf_keras.utils.register_keras_serializable("edgeprune")
class SetByCallback(schedules.PruningSchedule):
    """A schedule that never fires: the callback sets the masks by the real one."""

    def __init__(self, run: PruningRun):
        self.run = run

    def __call__(self, step: AnyTensor | int) -> tuple[AnyTensor, AnyTensor]:
        """Never prune; the sparsity is the real schedule's."""
        return tf.constant(False), self.run.schedule(step)[1]

    def get_config(self) -> dict[str, Any]:
        """The real schedule and the settings that TF-MOT's wrapper does not keep."""
        config = {"schedule": self.run.schedule.get_config(), "scope": self.run.scope}
        return {"class_name": "edgeprune>SetByCallback", "config": {**config, "importance": self.run.importance}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SetByCallback:
        """The schedule of a wrapper that is loaded from a file."""
        return cls(PruningRun.from_config(config))


if TYPE_CHECKING:
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import (
        PruneLowMagnitude as _PruneLowMagnitude,
    )
else:
    _PruneLowMagnitude = _wrapper_class()


class PruneLowMagnitude(_PruneLowMagnitude):
    """TF-MOT's wrapper, which names no layer in its errors and leaves N:M sparsity out of its configuration."""

    def build(self, input_shape: Shape) -> None:
        """Build the layer, then its masks.

        Raises:
            ValueError: a weight does not fit the settings.
        """
        _tf_keras.layers.Wrapper.build(self, input_shape)
        run = _run_of(self)
        for part in filter(prunable.can_be_pruned, flavor.layers_of(self.layer)):
            reason = prunable.why_not_settings(part, run)
            if reason:
                raise ValueError(f"Layer {self.layer.name!r} cannot be pruned: {reason}")
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The configuration, as TF-MOT's own class accepts it."""
        return {**super().get_config(), "sparsity_m_by_n": self.sparsity_m_by_n}


class WrappedWeight:
    """One weight in one of TF-MOT's wrappers; `step` is the step its wrapper had come to."""

    def __init__(self, name: str, run: PruningRun, step: int, variable: Variable, mask: Variable):
        self.name = name
        self.run = run
        self.step = step
        self.variable = variable
        self.threshold = 0.0
        self._mask = mask
        self._scores: Variable | None = None  # of Taylor importance, once training begins

    def value(self) -> np.ndarray:
        """The variable as an array."""
        return self.variable.numpy()

    def importance(self) -> np.ndarray:
        """The importance of each weight now, floats of the variable's shape."""
        value = self.value()
        return np.abs(value) if self._scores is None else masks.taylor_importance(self._scores.numpy(), value)

    def has_scores(self) -> bool:
        """Whether there is anything to rank by: with Taylor importance, whether a gradient has come in."""
        return self._scores is None or bool(self._scores.numpy().any())

    def mask(self) -> np.ndarray:
        """The mask as a boolean array, true where the weight is kept."""
        return self._mask.numpy().astype(bool)

    def set_mask(self, mask: np.ndarray) -> None:
        """Set a new mask, and start gathering scores from zero; the variable itself is not changed."""
        self._mask.assign(mask)
        if self._scores is not None:
            self._scores.assign(tf.zeros_like(self._scores))

    def start_scores(self) -> None:
        """Make what the scores of Taylor importance are gathered in."""
        self._scores = tf.Variable(tf.zeros(self.variable.shape))

    def gather_scores(self, gradient: TfTensor) -> None:
        """Add |weight x gradient| of one step to the scores; called inside the compiled step."""
        assert self._scores is not None, "start_scores comes first"
        self._scores.assign_add(updates.taylor_scores(self.variable, gradient))


@dataclasses.dataclass
class WrapperPruning:
    """The weights of one wrapper whose masks the callback sets."""

    run: PruningRun
    weights: Sequence[updates.MaskedWeight]


def candidates(model: Layer) -> list[Layer]:
    """The layers TF-MOT may wrap: those of the graph and of nested models, but no parts of layers.

    Raises:
        ValueError: the model is subclassed.
    """
    if not flavor.is_graph_model(model):
        raise prunable.wrong_type(
            model,
            f"Model {model.name!r} is a subclassed tf_keras model, which TF-MOT cannot wrap: prune its layers where "
            "they are made (self.dense = prune_low_magnitude(Dense(...))), or use Keras 3.",
        )
    layers: list[Layer] = []
    for layer in model.layers:
        layers += candidates(layer) if flavor.is_model(layer) else [layer]
    return list(dict.fromkeys(layers))


def parts_of(layer: Layer) -> list[Layer]:
    """The layers that go under pruning with a candidate: itself and everything inside it."""
    return list(flavor.layers_of(layer))


def is_wrapper(layer: Layer) -> bool:
    """Whether a layer is TF-MOT's pruning wrapper."""
    return isinstance(layer, _wrapper_class())


def wrappers_in(model: Layer) -> list[Layer]:
    """The pruning wrappers of a model, at any depth."""
    return [layer for layer in flavor.layers_of(model) if is_wrapper(layer)]


def has_masks(model: Layer) -> bool:
    """Whether any layer of the model is wrapped, or the layer itself."""
    return bool(wrappers_in(model)) or is_wrapper(model)


def prune_layer(layer: Layer, run: PruningRun, **arguments: object) -> Layer:
    """Wrap one layer with TF-MOT's wrapper; one that is wrapped, or makes no weights, is returned as it is.

    Raises:
        ValueError: TF-MOT does not know the layer.
    """
    if is_wrapper(layer) or type(layer).__name__ == "InputLayer":
        return layer
    by_callback = run.scope == "global" or run.importance == "taylor"
    wrapper = PruneLowMagnitude(
        layer,
        pruning_schedule=SetByCallback(run) if by_callback else run.schedule,
        block_size=run.block_size,
        block_pooling_type=run.block_pooling_type,
        sparsity_m_by_n=run.sparsity_m_by_n,
        **arguments,
    )
    object.__setattr__(wrapper, _RUN, run)
    return wrapper


def prune_model(model: Model, runs: dict[int, PruningRun]) -> Model:
    """Clone a model with wrappers around some of its layers.

    Args:
        model: a Functional or Sequential `tf_keras` model.
        runs: the run of each layer to wrap, by the layer's id.

    Returns:
        A model of the same graph that shares the layers, not compiled.
    """
    return _clone(model, lambda layer: prune_layer(layer, runs[id(layer)]) if id(layer) in runs else layer)


def strip(model: Layer) -> Any:
    """Apply the masks a last time and clone the model without wrappers."""
    apply_masks(model)
    return clone_without_wrappers(model)


def clone_without_wrappers(model: Layer) -> Any:
    """Clone the model without wrappers; it shares the layers, and the weights are not changed.

    Raises:
        ValueError: the model is subclassed, so that only its own code can put other layers in their places.
    """
    if flavor.is_model(model) and not flavor.is_graph_model(model):
        raise ValueError(
            f"Model {model.name!r} is a subclassed tf_keras model, which cannot be cloned without its wrappers: strip "
            "its layers where they are held (model.dense = strip_pruning(model.dense))."
        )
    return model.layer if is_wrapper(model) else tfmot_sparsity.strip_pruning(model)


def holds(layer: Layer) -> bool:
    """Whether this very layer is under pruning, whatever is inside it."""
    return is_wrapper(layer)


def may_add_sublayers(layer: Layer) -> bool:
    """Whether a layer may make parts that can be pruned when it is built: TF-MOT wraps what there is."""
    return False


def why_not_alone(layer: Layer, run: PruningRun) -> str | None:
    """What keeps TF-MOT from wrapping a layer that was passed by itself."""
    return None if type(layer).__name__ == "InputLayer" else why_not(layer, run)


def why_not(layer: Layer, run: PruningRun) -> str | None:
    """What keeps TF-MOT from wrapping a layer that has prunable weights; None where nothing does."""
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    if not hasattr(layer, "get_prunable_weights") and not PruneRegistry.supports(layer):
        return f"TF-MOT's wrapper does not know {type(layer).__name__}; define get_prunable_weights() on it"
    squeezed = layer.built and run.in_blocks and not run.sparsity_m_by_n
    for weight in prunable.prunable_weights(layer).values() if squeezed else ():
        blocks = [-(-size // block) for size, block in zip(weight.shape, run.block_size, strict=False)]
        if 1 in blocks:  # TF-MOT squeezes such a row away while training, and then stops
            return f"TF-MOT cannot prune a single row of {run.block_size} blocks, and this weight is {weight.shape}"
    return None


class WrapperCounter(updates.StepCounter):
    """Counts also for the wrappers that stand still.

    A wrapper counts, and updates its masks, only where it is called in training. The layers of a base model that is
    called with `training=False`, as in transfer learning, are not, and may be trained all the same. Which ones
    they are is seen after the first group of steps.
    """

    def __init__(self, wrappers: list[Layer], apply_masks: Callable[[], None], in_fit: bool):
        by_callback = [_pruning_of(wrapper) for wrapper in wrappers if _is_set_by_callback(wrapper)]
        super().__init__(by_callback, apply_masks, in_fit)
        self._run_recorded = [(wrapper, _step_of(wrapper)) for wrapper in wrappers]
        self._idle: list[tuple[Any, PruningRun]] = []

    def _group_has_run(self) -> None:
        steps = self._open_group
        super()._group_has_run()
        if steps:
            self._take_over(steps)
        for wrapper, run in self._idle:
            wrapper.pruning_step.assign(run.step)

    def _take_over(self, steps: int) -> None:
        """Count from now on for the wrappers that have not counted these steps themselves."""
        watched, self._run_recorded = self._run_recorded, []
        for wrapper, step_before in watched:
            if _step_of(wrapper) != step_before:
                continue
            if _is_set_by_callback(wrapper):
                run = wrapper.pruning_schedule.run
            else:
                pruning = _pruning_of(wrapper)
                run = pruning.run
                run.step += steps
                self.add(pruning)
            self._idle.append((wrapper, run))


def begin_training(model: Model, in_fit: bool) -> WrapperCounter:
    """Start the wrappers' count of steps; returns the counter for those whose masks the callback sets.

    Raises:
        ValueError: a wrapped layer is not built.
    """
    wrappers = wrappers_in(model)
    for wrapper in wrappers:
        if not wrapper.built:
            raise ValueError(
                f"Layer {wrapper.layer.name!r} is under pruning and not built: pass the model an input shape, or call "
                "model.build(input_shape), before fit."
            )
        if _step_of(wrapper) < 0:
            wrapper.pruning_step.assign(0)
    counter = WrapperCounter(wrappers, lambda: apply_masks(model), in_fit)
    scored = [
        weight
        for weight in counter.weights()
        if isinstance(weight, WrappedWeight) and weight.run.importance == "taylor"
    ]
    if scored:
        _gather_scores_in(model, scored)
    return counter


def _is_set_by_callback(wrapper: Layer) -> bool:
    return isinstance(wrapper.pruning_schedule, SetByCallback)


def _step_of(wrapper: Layer) -> int:
    """The step a wrapper has come to; -1 before its first training."""
    return int(wrapper.pruning_step.numpy()) if wrapper.built else -1


def _pruning_of(wrapper: Layer) -> WrapperPruning:
    """What the callback needs to set a wrapper's masks, at the step the wrapper has come to."""
    run = _run_of(wrapper)
    run.step = run.checked_step = max(0, _step_of(wrapper))
    return WrapperPruning(run, _weights_of(wrapper, run))


def _run_of(wrapper: Layer) -> PruningRun:
    """The settings of a wrapper, also of one that was loaded from a file."""
    if _is_set_by_callback(wrapper):
        return wrapper.pruning_schedule.run
    return PruningRun(wrapper.pruning_schedule, wrapper.block_size, wrapper.block_pooling_type, wrapper.sparsity_m_by_n)


def _weights_of(wrapper: Layer, run: PruningRun) -> list[WrappedWeight]:
    step = max(0, _step_of(wrapper))
    return [
        WrappedWeight(variable.name.removesuffix(":0"), run, step, variable, mask)
        for variable, mask, _ in wrapper.pruning_vars
    ]


def masked_weights(model: Layer) -> list[WrappedWeight]:
    """The weights of a model that are under pruning."""
    return [weight for wrapper in wrappers_in(model) for weight in _weights_of(wrapper, _run_of(wrapper))]


def scheduled(model: Model) -> list[tuple[schedules.PruningSchedule, int]]:
    """The schedules at work in a model, each with the step it has come to."""
    found = {}
    for wrapper in wrappers_in(model):
        if not wrapper.sparsity_m_by_n:
            schedule = _run_of(wrapper).schedule
            found[id(schedule)] = (schedule, max(0, _step_of(wrapper)))
    return list(found.values())


def runs(model: Layer) -> list[PruningRun]:
    """What was asked of pruning, each run once; wrappers loaded from a file do not know it."""
    found = (vars(wrapper).get(_RUN) for wrapper in wrappers_in(model))
    return list(dict.fromkeys(run for run in found if run is not None))


def current_step(model: Layer) -> int:
    """The training step the model's pruning has come to; -1 before training has begun."""
    return max(map(_step_of, wrappers_in(model)), default=-1)


def apply_masks(model: Layer) -> None:
    """Put zeros where the masks say so: the optimizer has just moved the weights. The zeros are +0.0."""
    for wrapper in wrappers_in(model):
        for variable, mask, _ in wrapper.pruning_vars:
            variable.assign(tf.where(mask != 0, variable, tf.zeros((), variable.dtype)))


def end_training(model: Model) -> None:
    """Apply the masks a last time, and undo what `begin_training` did to the optimizer."""
    apply_masks(model)
    if getattr(model, "optimizer", None) is not None:
        vars(model.optimizer).pop("apply_gradients", None)


def _gather_scores_in(model: Model, weights: Sequence[WrappedWeight]) -> None:
    for weight in weights:
        weight.start_scores()
    scored = {weight.variable.ref(): weight for weight in weights}
    optimizer = model.optimizer
    apply_gradients = type(optimizer).apply_gradients

    def apply_and_gather(grads_and_vars: Iterable[tuple[Any, Any]], *args: object, **kwargs: object) -> Any:
        pairs = list(grads_and_vars)
        for gradient, variable in pairs:
            if variable.ref() in scored and gradient is not None:
                scored[variable.ref()].gather_scores(gradient)
        return apply_gradients(optimizer, pairs, *args, **kwargs)

    vars(optimizer)["apply_gradients"] = apply_and_gather
    model.make_train_function(force=True)


def _clone(model: Model, replace: Callable[[Any], Any]) -> Any:
    """Clone a graph of layers, nested models included, with some layers replaced."""
    keras = flavor.keras_of(model)

    def clone_layer(layer: Layer) -> Layer:
        return _clone(layer, replace) if flavor.is_model(layer) else replace(layer)

    return keras.models.clone_model(model, clone_function=clone_layer)
