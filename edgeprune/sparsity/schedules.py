"""When to prune and how much: TF-MOT's schedules, with an `end_step` that may be left out."""

from __future__ import annotations

import copy

import numpy as np
import tensorflow as tf

from edgeprune import flavor

_tfmot = flavor.import_tfmot().sparsity.keras

PruningSchedule = _tfmot.PruningSchedule
ConstantSparsity = _tfmot.ConstantSparsity

# With no end_step given, at least this many mask updates are fitted into the training.
_FEWEST_UPDATES = 10


class PolynomialDecay(_tfmot.PolynomialDecay):
    """Sparsity that rises fast at first and slowly towards the end.

    sparsity(step) = final + (initial - final) * (1 - (step - begin) / (end - begin)) ** power

    Args:
        initial_sparsity: fraction of zeros at `begin_step`, 0 to below 1.
        final_sparsity: fraction of zeros at `end_step`, 0 to below 1.
        begin_step: training step (batches, counted from 1) of the first mask update.
        end_step: step of the last one. Left out, the `UpdatePruningStep` callback sets it from the number of
            steps that `fit` is about to run, so that the last update falls on or just before the last
            step, and lowers `frequency` where fewer than ten updates would fit.
        power: exponent of the decay.
        frequency: steps between mask updates.

    Raises:
        ValueError: a number is out of its range.

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
        super().__init__(
            initial_sparsity,
            final_sparsity,
            begin_step,
            begin_step if end_step is None else end_step,
            power=power,
            frequency=frequency,
        )
        self.end_step = end_step

    def __call__(self, step):
        """Whether to prune at a step, and the sparsity there; never before `end_step` is known."""
        if self.end_step is None:
            return tf.constant(False), tf.constant(self.initial_sparsity, tf.float32)
        return super().__call__(step)

    def get_config(self):
        """The configuration; under a name of its own while `end_step` is open, which TF-MOT's class cannot hold."""
        config = super().get_config()
        return {**config, "class_name": "edgeprune>PolynomialDecay"} if self.end_step is None else config

    def set_end_step(self, total_steps: int) -> None:
        """Fix an open `end_step` for a training of `total_steps` steps; does nothing where it is given.

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
        return float(schedule(tf.constant(step, tf.int64))[1])
    if isinstance(schedule, ConstantSparsity):
        return float(np.float32(schedule.target_sparsity))
    # TF-MOT's formula in float32; only the power is TensorFlow's, whose last bit differs from NumPy's.
    span = np.float32(schedule.end_step - schedule.begin_step)
    done = np.float32(step - schedule.begin_step) / span if span else np.float32(1)
    left = tf.math.pow(np.float32(1) - np.clip(done, np.float32(0), np.float32(1)), schedule.power).numpy()
    change = np.float32(schedule.initial_sparsity - schedule.final_sparsity)
    return float(change * left + np.float32(schedule.final_sparsity))


def sparsity_reached(schedule: PruningSchedule, step: int) -> float:
    """The sparsity of the last mask update up to a step; for a schedule of the user's own, that of the step itself."""
    if not _is_well_known(schedule):
        return sparsity_at(schedule, step)
    due = (one for one in range(step, max(1, schedule.begin_step) - 1, -1) if is_due(schedule, one))
    last = next(due, None)
    return 0.0 if last is None else sparsity_at(schedule, last)


def final_sparsity(schedule: PruningSchedule) -> float | None:
    """The sparsity the schedule ends with; None for a schedule of the user's own."""
    if not _is_well_known(schedule):
        return None
    constant = isinstance(schedule, ConstantSparsity)
    return schedule.target_sparsity if constant else schedule.final_sparsity


def _is_well_known(schedule: PruningSchedule) -> bool:
    return type(schedule) in (ConstantSparsity, _tfmot.PolynomialDecay, PolynomialDecay)
