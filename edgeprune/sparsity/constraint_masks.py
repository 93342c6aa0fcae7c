"""Masks for Keras 3: held by the `constraint` of each pruned variable, applied by the optimizer.

The optimizer calls a variable's constraint after each of its updates, inside the compiled step. So the model
stays a plain model, its zeros are exact after every step, and whatever saves it finds them. What a run must
remember besides the zeros (masks and step) is saved inside the model's own file, under a name that loading
without this package ignores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.saving.keras_saveable import KerasSaveable

from edgeprune import flavor
from edgeprune.sparsity import masks, prunable, updates
from edgeprune.sparsity.settings import PruningRun

# The attribute of a layer that holds its pruning; set past Keras's tracking, so that it is no weight.
_ATTRIBUTE = "edgeprune_pruning"
# For each model the function that masks its weights, which takes time to compile, with the weights it masks.
_COMPILED_APPLIES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class MaskedVariable:
    """One variable under pruning: its mask and, for Taylor importance, the scores gathered so far.

    Called as the variable's `constraint`, it puts zeros where the mask is false.
    """

    def __init__(self, name: str, variable: Any, pruning: LayerPruning):
        self.name = name
        self.variable = variable
        self.run = pruning.run
        self.threshold = 0.0
        self._pruning = pruning
        self._own_constraint = variable.constraint
        with _scope_of(variable):
            self._mask = _state_variable(np.ones(variable.shape, bool), tf.VariableAggregation.ONLY_FIRST_REPLICA)
            self._scores = None
            if self.run.importance == "taylor":
                self._scores = _state_variable(np.zeros(variable.shape, np.float32), tf.VariableAggregation.SUM)
        variable.constraint = self

    @property
    def step(self) -> int:
        """The training step that is running or ran last; 0 before the first."""
        return self.run.step

    def __call__(self, value: Any) -> Any:
        """The value with zeros where the mask is false; called by the optimizer after each update."""
        on_eager_step = self._pruning.training.on_eager_step
        if on_eager_step is None and self.run.step == 0:
            raise RuntimeError(
                f"{self.name} is being trained under pruning without the callback that updates its mask: "
                "pass callbacks=[edgeprune.UpdatePruningStep()] to fit; in a loop of your own call its "
                "set_model(model) and on_train_begin() first."
            )
        if self._own_constraint is not None:
            value = self._own_constraint(value)
        self._mask_moving_average()
        masked = tf.where(self._mask, tf.convert_to_tensor(value), tf.zeros((), value.dtype))
        if tf.executing_eagerly() and on_eager_step is not None:
            on_eager_step(self)
        return masked

    def importance(self) -> np.ndarray:
        """The importance of each weight now, floats of the variable's shape."""
        if self._scores is not None:
            return masks.taylor_importance(_first_replica(self._scores).numpy(), self.value())
        value = np.abs(self.value())
        return value if value.dtype in (np.float32, np.float64) else value.astype(np.float32)

    def has_scores(self) -> bool:
        """Whether there is anything to rank by: with Taylor importance, whether a gradient has come in."""
        return self._scores is None or bool(_first_replica(self._scores).numpy().any())

    def value(self) -> np.ndarray:
        """The variable as an array."""
        return _first_replica(self.variable.value).numpy()

    def mask(self) -> np.ndarray:
        """The mask as a boolean array, true where the weight is kept."""
        return _first_replica(self._mask).numpy()

    def set_mask(self, mask: np.ndarray) -> None:
        """Take a new mask, and start gathering scores anew; the variable itself stays as it is."""
        self._mask.assign(mask)
        if self._scores is not None:
            self._scores.assign(tf.zeros_like(_first_replica(self._scores)))

    def apply(self) -> None:
        """Put zeros into the variable where the mask is false; exactly +0.0, also for negative weights."""
        value = _first_replica(self.variable.value)
        self.variable.assign(tf.where(_first_replica(self._mask), value, tf.zeros((), value.dtype)))

    def gather_scores(self, gradient: Any) -> None:
        """Add |weight x gradient| of one step to the scores; called inside the compiled step."""
        self._scores.assign_add(updates.taylor_scores(self.variable.value, gradient))

    def release(self) -> None:
        """Give the variable back the constraint it came with; steps compiled with this one mask no more."""
        self._mask.assign(tf.ones_like(_first_replica(self._mask)))
        self.variable.constraint = self._own_constraint

    def _mask_moving_average(self) -> None:
        """Mask the optimizer's moving average of the weight (`use_ema`), which would bring zeros back."""
        average = _moving_average(self._pruning.training.optimizer, self.variable)
        if average is not None:
            average.assign(tf.where(self._mask, tf.convert_to_tensor(average), tf.zeros((), average.dtype)))


@dataclasses.dataclass(frozen=True)
class Training:
    """What a layer's pruning knows of the training it is in.

    Args:
        optimizer: the optimizer that updates the weights; None before the first training.
        on_eager_step: while the callback is at work, told of each step taken in eager mode.
    """

    optimizer: Any = None
    on_eager_step: Callable[[MaskedVariable], None] | None = None


class LayerPruning(KerasSaveable):
    """The pruning of one layer: saved and loaded with the model that holds the layer."""

    def __init__(self, run: PruningRun):
        self.run = run
        self.weights: list[MaskedVariable] = []
        # The compiled training steps, of any model, that apply these masks.
        self.steps: weakref.WeakSet = weakref.WeakSet()
        # Behind an object of its own: Keras saves every optimizer it finds among the attributes here.
        self.training = Training()

    def install(self, layer: Any) -> None:
        """Make the masks of a layer that is built."""
        self.weights = [
            MaskedVariable(f"{layer.name}/{name}", variable, self)
            for name, variable in prunable.prunable_weights(layer).items()
            if self.run.why_not_shape(tuple(variable.shape)) is None
            and not isinstance(variable.constraint, MaskedVariable)  # of a layer inside this one
        ]

    def _obj_type(self) -> str:
        return "Layer"

    def save_own_variables(self, store: Any) -> None:
        """Write step and masks, a bit a weight."""
        store["step"] = np.int64(self.run.step)
        store["checked_step"] = np.int64(self.run.checked_step)
        for index, weight in enumerate(self.weights):
            store[f"shape_{index}"] = np.asarray(weight.variable.shape)
            store[f"mask_{index}"] = np.packbits(weight.mask())

    def load_own_variables(self, store: Any) -> None:
        """Go on from a file written under pruning; a file without pruning changes nothing.

        Raises:
            ValueError: the file's masks are of other shapes.
        """
        if "step" not in store:
            return
        count = sum(key.startswith("shape_") for key in store.keys())
        saved = [tuple(np.asarray(store[f"shape_{index}"]).tolist()) for index in range(count)]
        shapes = [tuple(weight.variable.shape) for weight in self.weights]
        if saved != shapes:
            raise ValueError(f"The file holds pruning masks of the shapes {saved}, and these weights are {shapes}.")
        self.run.step = int(np.asarray(store["step"]))
        self.run.checked_step = int(np.asarray(store["checked_step"]))
        for index, weight in enumerate(self.weights):
            bits = np.unpackbits(np.asarray(store[f"mask_{index}"]), count=int(np.prod(weight.variable.shape)))
            weight.set_mask(bits.astype(bool).reshape(weight.variable.shape))
            weight.apply()


def attach(layer: Any, run: PruningRun) -> None:
    """Put a layer under pruning; the masks of one that is not built are made when it is."""
    detach(layer)
    pruning = LayerPruning(run)
    object.__setattr__(layer, _ATTRIBUTE, pruning)
    if layer.built:
        pruning.install(layer)
    else:
        _install_when_built(layer, pruning)


def detach(layer: Any) -> None:
    """Free a layer from pruning; its weights stay as they are."""
    pruning = pruning_of(layer)
    if pruning is None:
        return
    for weight in pruning.weights:
        weight.release()
    object.__delattr__(layer, _ATTRIBUTE)


def _install_when_built(layer: Any, pruning: LayerPruning) -> None:
    build = layer.build

    @functools.wraps(build)
    def build_and_install(*args, **kwargs):
        object.__setattr__(layer, "build", build)
        build(*args, **kwargs)
        if pruning_of(layer) is pruning:
            pruning.install(layer)

    object.__setattr__(layer, "build", build_and_install)


def pruning_of(layer: Any) -> LayerPruning | None:
    """The pruning a layer is under, or None."""
    return vars(layer).get(_ATTRIBUTE)


def pruned_layers(model: Any) -> list[Any]:
    """The layers of a model, at any depth, that are under pruning."""
    return [layer for layer in flavor.layers_of(model) if pruning_of(layer) is not None]


def masked_weights(model: Any) -> list[MaskedVariable]:
    """The variables of a model that are under pruning."""
    return [weight for layer in pruned_layers(model) for weight in pruning_of(layer).weights]


def candidates(model: Any) -> list[Any]:
    """The layers that may be put under pruning: all, at any depth."""
    return list(flavor.layers_of(model))


def parts_of(layer: Any) -> list[Any]:
    """The layers that go under pruning with a candidate: itself alone."""
    return [layer]


def why_not(layer: Any, run: PruningRun) -> str | None:
    """What keeps masks from a layer that has prunable weights: nothing."""
    return None


def prune_model(model: Any, runs: dict[int, PruningRun]) -> Any:
    """Put the layers with a run, by the layer's id, under pruning, in place."""
    for layer in candidates(model):
        if id(layer) in runs:
            attach(layer, runs[id(layer)])
    _forget_compiled_steps(model)
    return model


def prune_layer(layer: Any, run: PruningRun, **arguments: Any) -> Any:
    """Put a layer and the layers inside it under pruning, in place."""
    if arguments:
        raise TypeError(f"A Keras 3 layer is not wrapped and takes no arguments {', '.join(arguments)}")
    for part in flavor.layers_of(layer):
        if prunable.can_be_pruned(part):
            attach(part, run)
    return layer


def strip(model: Any) -> Any:
    """Apply the masks a last time and free the layers, in place."""
    apply_masks(model)
    end_training(model)
    for layer in pruned_layers(model):
        detach(layer)
    _forget_compiled_steps(model)
    return model


def begin_training(model: Any, in_fit: bool) -> updates.StepCounter:
    """Make the model's training step apply the masks; returns the counter of its steps."""
    optimizer = _innermost_optimizer(model)
    prunings = [pruning_of(layer) for layer in pruned_layers(model)]
    counter = updates.StepCounter(prunings, _compiled_apply(model, prunings), in_fit)
    for pruning in prunings:
        pruning.training = Training(optimizer, counter.count_eager_step)
    if optimizer is not None and any(pruning.run.importance == "taylor" for pruning in prunings):
        _gather_scores_in(optimizer, prunings)
    _compile_with_masks(model, prunings)
    return counter


def runs(model: Any) -> list[PruningRun]:
    """What was asked of pruning, each run once."""
    return list(dict.fromkeys(pruning_of(layer).run for layer in pruned_layers(model)))


def scheduled(model: Any) -> list[tuple[Any, int]]:
    """The schedules at work in a model, each with the step it has come to."""
    return [(run.schedule, run.step) for run in runs(model) if not run.sparsity_m_by_n]


def is_pruned(model: Any) -> bool:
    """Whether any layer of the model is under pruning."""
    return bool(pruned_layers(model))


def current_step(model: Any) -> int:
    """The training step the model's pruning has come to; -1 before training has begun."""
    return max((run.step if run.step or run.counter else -1 for run in runs(model)), default=-1)


def apply_masks(model: Any) -> None:
    """Put zeros where the masks say so, and tell where weights had come in from elsewhere."""
    strays = sum(np.count_nonzero(weight.value()[~weight.mask()]) for weight in masked_weights(model))
    if strays:
        warnings.warn(
            f"{strays:,} weights of {model.name!r} that its masks prune were not zero and are set to zero now: the "
            "weights are not those the masks were made for. EarlyStopping(restore_best_weights=True) and set_weights "
            "bring back weights without their masks; ModelCheckpoint and load_weights bring back both."
        )
    for weight in masked_weights(model):
        weight.apply()


def end_training(model: Any) -> None:
    """Undo what `begin_training` did."""
    optimizer = _innermost_optimizer(model)
    if optimizer is not None:
        vars(optimizer).pop("apply", None)
    for layer in pruned_layers(model):
        pruning_of(layer).training = Training(optimizer)


def _forget_compiled_steps(model: Any) -> None:
    """Have the training steps of a model and the models in it compiled anew, without the masks they knew."""
    for part in (model, *flavor.layers_of(model)):
        if getattr(part, "train_function", None) is not None:
            part.make_train_function(force=True)


def _compile_with_masks(model: Any, prunings: list[LayerPruning]) -> None:
    """Have the training step compiled anew, unless it was compiled with these masks."""
    step = getattr(model, "train_function", None)
    if step is None or all(step in pruning.steps for pruning in prunings):
        return
    model.make_train_function(force=True)
    for pruning in prunings:
        pruning.steps.add(model.train_function)


def _compiled_apply(model: Any, prunings: list[LayerPruning]) -> Callable[[], None]:
    """A function that puts zeros into all the weights at once: compiled, it is six times faster than one by one."""
    weights = [weight for pruning in prunings for weight in pruning.weights]
    known = _COMPILED_APPLIES.get(model)
    if known is not None and known[0] == weights:
        return known[1]

    @functools.partial(tf.function, autograph=False)
    def apply_all():
        for pruning in prunings:  # looked up while it is traced: by then every layer is built
            for weight in pruning.weights:
                weight.apply()

    _COMPILED_APPLIES[model] = (weights, apply_all)
    return apply_all


def _innermost_optimizer(model: Any) -> Any:
    """The optimizer that sees the true gradients, inside any loss scaling; None before `compile`."""
    optimizer = getattr(model, "optimizer", None)
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _gather_scores_in(optimizer: Any, prunings: list[LayerPruning]) -> None:
    """Let the optimizer show its gradients to the weights with Taylor importance."""
    apply = type(optimizer).apply

    def apply_and_gather(grads, trainable_variables=None):
        # Looked up while the step is traced: by then every layer is built.
        weights = [weight for pruning in prunings for weight in pruning.weights]
        scored = {id(weight.variable): weight for weight in weights if weight.run.importance == "taylor"}
        variables = optimizer._trainable_variables if trainable_variables is None else trainable_variables
        pairs = list(zip(grads, variables, strict=True))
        for gradient, variable in pairs:
            if id(variable) in scored and gradient is not None:
                scored[id(variable)].gather_scores(gradient)
        return apply(optimizer, [gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    vars(optimizer)["apply"] = apply_and_gather


@contextlib.contextmanager
def _scope_of(variable: Any) -> Iterator[None]:
    """The distribution strategy the variable was made under, so that its mask has the same replicas."""
    strategy = getattr(variable.value, "distribute_strategy", None)
    if strategy is None:
        yield
        return
    with strategy.scope():
        yield


def _state_variable(initial: np.ndarray, aggregation: tf.VariableAggregation) -> tf.Variable:
    # ON_READ would not do for scores: the mask update reads them outside of any replica.
    with tf.init_scope():
        return tf.Variable(initial, trainable=False, aggregation=aggregation)


def _first_replica(variable: Any) -> Any:
    """The variable itself, or its first copy under a distribution strategy; all copies are equal."""
    return variable.values[0] if hasattr(variable, "values") else variable


def _moving_average(optimizer: Any, variable: Any) -> Any:
    """The optimizer's moving average of a variable, or None without `use_ema`."""
    if optimizer is None or not optimizer.use_ema:
        return None
    averages = optimizer._model_variables_moving_average
    return averages[optimizer._get_variable_index(variable)].value
