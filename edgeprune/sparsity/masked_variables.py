"""A Keras 3 variable under pruning, and what a layer's pruning saves in the model's own file.

What a run must remember besides the zeros (masks, step and settings) is saved under a name that loading without
this package ignores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.saving.keras_saveable import KerasSaveable

from edgeprune.sparsity import masks, prunable, updates
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import Layer, Optimizer, TfTensor, Variable


class MaskedVariable:
    """One variable under pruning: its mask and, for Taylor importance, the scores gathered so far.

    Called as the variable's `constraint`, it puts zeros where the mask is false.
    """

    def __init__(self, name: str, variable: Variable, pruning: LayerPruning):
        self.name = name
        self.variable = variable
        self.run = pruning.run
        self.threshold = 0.0
        self._pruning = pruning
        self._own_constraint = variable.constraint
        with _scope_of(variable):
            self._mask = _state_variable(np.ones(variable.shape, bool), tf.VariableAggregation.ONLY_FIRST_REPLICA)
            self._scores: Variable | None = None
            if self.run.importance == "taylor":
                self._scores = _state_variable(np.zeros(variable.shape, np.float32), tf.VariableAggregation.SUM)
        variable.constraint = self

    @property
    def step(self) -> int:
        """The training step that is running or ran last; 0 before the first."""
        return self.run.step

    def __call__(self, value: TfTensor) -> Any:
        """The value with zeros where the mask is false; called by the optimizer after each update."""
        on_eager_step = self._pruning.training.on_eager_step
        if on_eager_step is None and self.run.step == 0:
            # The class of error that TF-MOT's wrapper raises.
            raise tf.errors.InvalidArgumentError(
                None,
                None,
                f"{self.name} is being trained under pruning without the callback that updates its mask: "
                "pass callbacks=[edgeprune.UpdatePruningStep()] to fit; in a custom training loop call its "
                "set_model(model) and on_train_begin() first.",
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
        """Set a new mask, and start gathering scores from zero; the variable itself is not changed."""
        self._mask.assign(mask)
        if self._scores is not None:
            self._scores.assign(tf.zeros_like(_first_replica(self._scores)))

    def apply(self) -> None:
        """Put zeros into the variable where the mask is false; exactly +0.0, also for negative weights."""
        value = _first_replica(self.variable.value)
        self.variable.assign(tf.where(_first_replica(self._mask), value, tf.zeros((), value.dtype)))

    def gather_scores(self, gradient: TfTensor) -> None:
        """Add |weight x gradient| of one step to the scores; called inside the compiled step."""
        assert self._scores is not None, "only Taylor importance gathers scores"
        self._scores.assign_add(updates.taylor_scores(self.variable.value, gradient))

    def release(self) -> None:
        """Set the variable's first constraint again; steps compiled with this one mask no more."""
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
        on_eager_step: while the callback is active, called after each eager step.
    """

    optimizer: Optimizer | None = None
    on_eager_step: Callable[[updates.MaskedWeight], None] | None = None


class LayerPruning(KerasSaveable):
    """The pruning of one layer: saved and loaded with the model that holds the layer."""

    def __init__(self, run: PruningRun):
        self.run = run
        self.weights: list[MaskedVariable] = []
        # The compiled training steps, of any model, that apply these masks.
        self.steps: weakref.WeakSet = weakref.WeakSet()
        # Behind an object of its own: Keras saves every optimizer it finds among the attributes here.
        self.training = Training()

    def install(self, layer: Layer) -> None:
        """Make the masks of a layer that is built."""
        self.weights = [
            MaskedVariable(f"{layer.name}/{name}", variable, self)
            for name, variable in prunable.prunable_weights(layer).items()
            if not isinstance(variable.constraint, MaskedVariable)  # of a layer inside this one
        ]

    def _obj_type(self) -> str:
        return "Layer"

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Write settings, step and masks, a bit a weight."""
        store["settings"] = np.frombuffer(json.dumps(self.run.get_config()).encode(), np.uint8)
        store["step"] = np.int64(self.run.step)
        store["checked_step"] = np.int64(self.run.checked_step)
        for index, weight in enumerate(self.weights):
            store[f"shape_{index}"] = np.asarray(weight.variable.shape)
            store[f"mask_{index}"] = np.packbits(weight.mask())

    def load_own_variables(self, store: dict[str, Any]) -> None:
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


@contextlib.contextmanager
def _scope_of(variable: Variable) -> Iterator[None]:
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


def _first_replica(variable: Variable) -> Any:
    """The variable itself, or its first copy under a distribution strategy; all copies are equal."""
    return variable.values[0] if hasattr(variable, "values") else variable


def _moving_average(optimizer: Optimizer | None, variable: Variable) -> Any:
    """The optimizer's moving average of a variable, or None without `use_ema`."""
    if optimizer is None or not optimizer.use_ema:
        return None
    averages = optimizer._model_variables_moving_average
    return averages[optimizer._get_variable_index(variable)].value
