"""When to prune and how much: TF-MOT's schedules, their settings checked, with an `end_step` that may be left out."""

from __future__ import annotations

import copy
import json
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.types import AnyTensor

if TYPE_CHECKING:
    from tensorflow_model_optimization.sparsity import keras as _tfmot
else:
    _tfmot = flavor.import_tfmot().sparsity.keras

PruningSchedule = _tfmot.PruningSchedule
"""The base class of schedules, which is TF-MOT's own.

A custom one overrides `__call__(step)`, which returns whether to update the masks at this step and the sparsity, and
`get_config()`.
"""

# Without an end_step, at least this many mask updates are fitted into the training.
_FEWEST_UPDATES = 10


class ConstantSparsity(_tfmot.ConstantSparsity):
    """The same sparsity from `begin_step` on.

    Args:
        target_sparsity: fraction of zeros, 0 to below 1.
        begin_step: training step (batches, counted from 1) of the first mask update, a whole number.
        end_step: step of the last one; -1 for the end of the training.
        frequency: steps between mask updates, a whole number from 1.

    Raises:
        ValueError: a setting is out of its range, not finite, or no whole number where steps are counted.

    Example:
        >>> due, sparsity = ConstantSparsity(0.5, begin_step=0, frequency=10)(20)
        >>> bool(due), float(sparsity)
        (True, 0.5)
    """

    def __init__(self, target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100):
        _check_fraction("target_sparsity", target_sparsity)
        steps = _whole_numbers(begin_step=begin_step, end_step=end_step, frequency=frequency)
        super().__init__(target_sparsity, **steps)


class PolynomialDecay(_tfmot.PolynomialDecay):
    """Sparsity that rises fast at first and slowly towards the end.

    sparsity(step) = final + (initial - final) * (1 - (step - begin) / (end - begin)) ** power

    Args:
        initial_sparsity: fraction of zeros at `begin_step`, 0 to below 1.
        final_sparsity: fraction of zeros at `end_step`, 0 to below 1.
        begin_step: training step (batches, counted from 1) of the first mask update, a whole number.
        end_step: step of the last one. Left out, the `UpdatePruningStep` callback sets it from the number of
            steps that `fit` is about to run, so that the last update falls on or just before the last
            step, and lowers `frequency` where fewer than ten updates would fit.
        power: exponent of the decay, above 0.
        frequency: steps between mask updates, a whole number from 1.

    Raises:
        ValueError: a setting is out of its range, not finite, or no whole number where steps are counted.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878

    Example:
        >>> schedule = PolynomialDecay(0.0, 0.8, begin_step=0, end_step=1000)
        >>> float(schedule(500)[1])  # 0.8 - 0.8 * 0.5 ** 3
        0.699999988079071
    """

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int = 0,
        end_step: int | None = None,
        power: float = 3,
        frequency: int = 100,
    ):
        _check_fraction("initial_sparsity", initial_sparsity)
        _check_fraction("final_sparsity", final_sparsity)
        _check_power(power)
        known_end = begin_step if end_step is None else end_step
        steps = _whole_numbers(begin_step=begin_step, end_step=known_end, frequency=frequency)
        super().__init__(initial_sparsity, final_sparsity, power=power, **steps)
        self.end_step = None if end_step is None else steps["end_step"]

    def __call__(self, step: AnyTensor | int) -> tuple[AnyTensor, AnyTensor]:
        """Whether to prune at a step, and the sparsity there; never before `end_step` is known."""
        if self.end_step is None:
            return tf.constant(False), tf.constant(self.initial_sparsity, tf.float32)
        return super().__call__(step)

    def get_config(self) -> dict[str, Any]:
        """The configuration; under a name of its own while `end_step` is open, which TF-MOT's class cannot hold."""
        config = super().get_config()
        return {**config, "class_name": "edgeprune>PolynomialDecay"} if self.end_step is None else config

    def set_end_step(self, total_steps: int) -> None:
        """Fix an open `end_step` for a training of `total_steps` steps; does nothing where it is set.

        Raises:
            ValueError: the training ends before `begin_step`.
        """
        if self.end_step is not None:
            return
        steps = total_steps - self.begin_step
        if steps < 1:
            raise ValueError(
                f"Pruning begins at step {self.begin_step}, but training has only {total_steps} steps: "
                "lower begin_step or train longer."
            )
        self.frequency = max(1, min(self.frequency, steps // _FEWEST_UPDATES))
        self.end_step = self.begin_step + steps // self.frequency * self.frequency


flavor.keras_module(flavor.TF_KERAS).utils.register_keras_serializable("edgeprune")(PolynomialDecay)


def own_schedule(schedule: PruningSchedule) -> PruningSchedule:
    """A copy where the end is open, which the callback will set; any other schedule itself."""
    is_open = isinstance(schedule, PolynomialDecay) and schedule.end_step is None
    return copy.copy(schedule) if is_open else schedule


class FunctionSchedule(PruningSchedule):
    """A plain function as a schedule.

    Args:
        function: `function(step)`, for an int64 scalar tensor, returns whether to prune at this step and the sparsity
            there, as a `PruningSchedule` does.

    Raises:
        ValueError: it returns something else for step 1.
    """

    def __init__(self, function: Callable[[AnyTensor | int], tuple[bool | AnyTensor, float | AnyTensor]]):
        self.function = function
        returned = function(tf.constant(1, tf.int64))
        try:
            _, sparsity = returned
            sparsity = float(sparsity)
        except (TypeError, ValueError):
            raise ValueError(
                f"A schedule returns whether to prune at a step and the sparsity there, and {function!r} returned "
                f"{returned!r}."
            ) from None
        _check_returned(sparsity, 1)

    def __call__(self, step: AnyTensor | int) -> tuple[AnyTensor, AnyTensor]:
        """What the function returns, as tensors."""
        due, sparsity = self.function(step)
        return tf.convert_to_tensor(due), tf.cast(sparsity, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """There is none: a function is not written into a file."""
        raise ValueError(
            f"{self.function!r} is the schedule of this model and cannot be saved with it: derive a class from "
            "PruningSchedule, or save the weights alone."
        )


def checked(schedule: Any, name: str) -> PruningSchedule:
    """Whatever was passed as a schedule, as one; its settings are checked, also where the class is TF-MOT's own.

    Raises:
        ValueError: it is none, or a setting is out of its range.
    """
    if isinstance(schedule, type) or not callable(schedule):
        raise ValueError(f"{name} must be a PruningSchedule or a function of the step, got {schedule!r}")
    if not hasattr(schedule, "get_config"):
        return FunctionSchedule(schedule)
    if type(schedule) in (_tfmot.ConstantSparsity, _tfmot.PolynomialDecay):
        for setting in ("target_sparsity", "initial_sparsity", "final_sparsity"):
            if hasattr(schedule, setting):
                _check_fraction(setting, getattr(schedule, setting))
        _check_power(getattr(schedule, "power", 1))
        _whole_numbers(**{setting: getattr(schedule, setting) for setting in ("begin_step", "end_step", "frequency")})
    return schedule


def written(schedule: PruningSchedule) -> dict[str, Any] | None:
    """The configuration of a schedule as plain data; None where it has none, as a function."""
    try:
        return json.loads(json.dumps(schedule.get_config(), default=lambda value: value.item()))
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None


def read(config: dict[str, Any] | None) -> PruningSchedule:
    """The schedule that `written` wrote; a custom class must be registered with Keras, or in its scope.

    Raises:
        ValueError: it was not written, or its class is unknown.
    """
    if config is None:
        raise ValueError("its schedule is a function, which is not in the file.")
    name = config["class_name"]
    ours = {one.__name__: one for one in (ConstantSparsity, PolynomialDecay)}
    kind = ours.get(name.removeprefix("edgeprune>"))
    for keras in () if kind else map(flavor.keras_module, (flavor.KERAS_3, flavor.TF_KERAS)):
        kind = kind or keras.saving.get_registered_object(name)
    if kind is None:
        raise ValueError(f"the class {name!r} of its schedule is unknown: load it in a custom_object_scope.")
    return kind.from_config(config["config"])


def _check_fraction(name: str, value: SupportsFloat | str) -> None:
    if not 0 <= _number(name, value) < 1:
        raise ValueError(f"{name} must be a fraction of zeros, 0 to below 1, got {value!r}.")


def _check_power(value: SupportsFloat | str) -> None:
    if not 0 < _number("power", value) < math.inf:
        raise ValueError(f"power must be a finite number above 0, got {value!r}.")


def _check_returned(sparsity: float, step: int) -> None:
    if not 0 <= sparsity <= 1:
        raise ValueError(f"The pruning schedule returned the sparsity {sparsity} at step {step}, which is not in 0..1.")


def _number(name: str, value: SupportsFloat | str) -> float:
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, got {value!r}.") from None


def _whole_numbers(**values: SupportsIndex) -> dict[str, int]:
    """The values as integers, which steps are counted in.

    Raises:
        ValueError: one is no whole number (1.5, NaN and 3.0 are none) or too large for a step, which has 64 bits.
    """
    whole = {}
    for name, value in values.items():
        try:
            whole[name] = operator.index(value)
        except TypeError:
            raise ValueError(f"{name} must be a whole number of training steps, got {value!r}.") from None
        if whole[name] >= 2**63:
            raise ValueError(f"{name}={value!r} is more steps than can be counted.")
    return whole


def is_due(schedule: PruningSchedule, step: int) -> bool:
    """Whether the masks are to be updated at a step, without running TensorFlow where that can be avoided."""
    if not _is_well_known(schedule):
        return bool(schedule(tf.constant(step, tf.int64))[0])
    if schedule.end_step is None or step < schedule.begin_step:
        return False
    in_range = schedule.end_step < 0 or step <= schedule.end_step
    return in_range and (step - schedule.begin_step) % schedule.frequency == 0


def sparsity_at(schedule: PruningSchedule, step: int) -> float:
    """The sparsity wanted at a step, to the last bit what the schedule itself returns."""
    if not _is_well_known(schedule) or schedule.end_step is None:
        sparsity = float(schedule(tf.constant(step, tf.int64))[1])
        _check_returned(sparsity, step)
        return sparsity
    if isinstance(schedule, _tfmot.ConstantSparsity):
        return float(np.float32(schedule.target_sparsity))
    # TF-MOT's formula in float32; only the power is TensorFlow's, whose last bit differs from NumPy's.
    span = np.float32(schedule.end_step - schedule.begin_step)
    done = np.float32(step - schedule.begin_step) / span if span else np.float32(1)
    left = tf.math.pow(np.float32(1) - np.clip(done, np.float32(0), np.float32(1)), schedule.power).numpy()
    change = np.float32(schedule.initial_sparsity - schedule.final_sparsity)
    return float(change * left + np.float32(schedule.final_sparsity))


def sparsity_reached(schedule: PruningSchedule, step: int) -> float:
    """The sparsity of the last mask update up to a step; for a custom schedule, that of the step itself."""
    if not _is_well_known(schedule):
        return sparsity_at(schedule, step)
    due = (one for one in range(step, max(1, schedule.begin_step) - 1, -1) if is_due(schedule, one))
    last = next(due, None)
    return 0.0 if last is None else sparsity_at(schedule, last)


def final_sparsity(schedule: PruningSchedule) -> float | None:
    """The sparsity the schedule ends with; None for a custom schedule."""
    if not _is_well_known(schedule):
        return None
    constant = isinstance(schedule, _tfmot.ConstantSparsity)
    return schedule.target_sparsity if constant else schedule.final_sparsity


def _is_well_known(schedule: PruningSchedule) -> bool:
    return type(schedule) in (ConstantSparsity, _tfmot.ConstantSparsity, PolynomialDecay, _tfmot.PolynomialDecay)
