"""New masks at the steps a schedule names, and the counting of steps; the same for both Kerases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from edgeprune.sparsity import masks, schedules
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import Layer, TfTensor, Variable

# Steps to wait for the first gradient; loss scaling may skip its first 15 or so.
_PATIENCE = 20
# How far below the sparsity that was asked for counts as there.
_NEAR = 1e-3


class MaskedWeight(Protocol):
    """A weight under pruning, whichever Keras it belongs to."""

    name: str
    run: PruningRun
    variable: Variable
    threshold: float  # of the last update; 0 before the first

    @property
    def step(self) -> int:
        """The training step its masks have come to; 0 before the first."""

    def value(self) -> np.ndarray:
        """The weight as an array."""

    def importance(self) -> np.ndarray:
        """The importance of each weight, floats of the weight's shape."""

    def has_scores(self) -> bool:
        """Whether there is anything to rank by: with Taylor importance, whether a gradient has come in."""

    def mask(self) -> np.ndarray:
        """The mask, booleans of the weight's shape."""

    def set_mask(self, mask: np.ndarray) -> None:
        """Set a new mask; the weight itself is not changed."""


def update_masks(run: PruningRun, weights: list[MaskedWeight], sparsity: float) -> None:
    """Compute and set new masks; the weights themselves are not changed.

    Args:
        run: the settings the weights share.
        weights: the weights of the run.
        sparsity: fraction of zeros wanted, 0 to 1.

    Raises:
        ValueError: a weight is not finite any more.
    """
    importances = [_finite_importance(weight) for weight in weights]
    if run.scope == "global":
        new_masks = masks.global_masks(importances, sparsity)
    else:
        new_masks = [
            _local_mask(run, weight, importance, sparsity)
            for weight, importance in zip(weights, importances, strict=True)
        ]
    for weight, mask in zip(weights, new_masks, strict=True):
        weight.set_mask(mask)


def _local_mask(run: PruningRun, weight: MaskedWeight, importance: np.ndarray, sparsity: float) -> np.ndarray:
    if run.sparsity_m_by_n or run.in_blocks:
        return run.local_mask(importance, sparsity)
    weight.threshold = masks.threshold_at(importance, sparsity, near=weight.threshold)
    return importance >= weight.threshold


def _finite_importance(weight: MaskedWeight) -> np.ndarray:
    importance = weight.importance()
    if not np.isfinite(importance.max()):
        raise ValueError(
            f"{weight.name} holds NaN or infinite values at step {weight.run.step}: training has diverged, "
            "and there is nothing to rank. Lower the learning rate, or check the data."
        )
    return importance


def taylor_scores(weight: Variable, gradient: TfTensor) -> tf.Tensor:
    """|weight x gradient| of one step in float32; zero where loss scaling has overflowed."""
    weight = tf.cast(tf.convert_to_tensor(weight), tf.float32)
    gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)  # an Embedding's gradient is sparse
    scores = tf.abs(weight * gradient)
    return tf.where(tf.math.is_finite(scores), scores, 0.0)


class Pruning(Protocol):
    """The weights of one layer under pruning."""

    run: PruningRun

    @property
    def weights(self) -> Sequence[MaskedWeight]:
        """Those of the layer itself."""


class StepCounter:
    """Counts the training steps of runs and updates their masks when they are due.

    A group is the steps that run without a callback in between (`steps_per_execution`); updates that fall
    inside a group are made before the next one. `fit` ends every group that ran; a custom training loop may leave
    the ends out, as TF-MOT's guide does. A run is counted by the counter that came last: an earlier one (a second
    callback in the same `fit`, a training that was interrupted) closes a group it left open.

    Args:
        prunings: what is under pruning in a model.
        apply_masks: puts zeros into all of its weights where their masks are false.
        in_fit: whether `fit` calls, rather than a custom training loop.
    """

    def __init__(self, prunings: Iterable[Pruning], apply_masks: Callable[[], None], in_fit: bool = True):
        self._apply_masks = apply_masks
        self._prunings: dict[PruningRun, list[Pruning]] = {}
        self._open_group = 0
        self._ends_are_left_out = not in_fit
        for pruning in prunings:
            self.add(pruning)
        self.has_counted = not self._prunings

    def add(self, pruning: Pruning) -> None:
        """Count for one more layer, in place of the counter that did."""
        run = pruning.run
        if run.counter is not None and run.counter is not self:
            run.counter.close_group()
        run.counter = self
        self._prunings.setdefault(run, []).append(pruning)

    def begin_group(self, size: int = 1) -> None:
        """A group of steps is about to run: update the masks that are due at its first step."""
        if self._open_group:
            self._ends_are_left_out = True
        self.close_group()
        for run in self._runs():
            self._update_up_to(run, run.step + 1)
            run.step += size
        self._open_group = size
        self.has_counted = True

    def end_group(self) -> None:
        """The group has run."""
        self._ends_are_left_out = False
        self._group_has_run()

    def close_group(self) -> None:
        """A group that was not ended did not run (the data had come to its end), unless no group is ever ended."""
        if not self._open_group:
            return
        if self._ends_are_left_out:
            self._group_has_run()
            return
        for run in self._runs():
            run.step -= self._open_group
        self._open_group = 0

    def count_eager_step(self, weight: MaskedWeight) -> None:
        """A weight was updated in eager mode; the last one of a run that is trained ends the step."""
        trained = [other for other in self._weights(weight.run) if other.variable.trainable]
        if self._open_group or weight is not trained[-1]:
            return
        self.has_counted = True
        weight.run.step += 1
        self._update_up_to(weight.run, weight.run.step + 1)

    def finish(self) -> None:
        """Training has ended: make the updates that fell into the last group, and apply all masks."""
        self.close_group()
        for run in self._runs():
            if not self._update_up_to(run, run.step):
                raise _no_gradient(self._weights(run))
        self._apply_masks()

    def _group_has_run(self) -> None:
        self._open_group = 0

    def weights(self) -> list[MaskedWeight]:
        """The weights it counts for."""
        return [weight for run in self._prunings for weight in self._weights(run)]

    def _runs(self) -> list[PruningRun]:
        return [run for run in self._prunings if run.counter is self]

    def _weights(self, run: PruningRun) -> list[MaskedWeight]:
        return [weight for pruning in self._prunings[run] for weight in pruning.weights]

    def _update_up_to(self, run: PruningRun, step: int) -> bool:
        """Make the last update that is due up to a step; false where it must wait for a gradient."""
        weights = self._weights(run)
        if step <= run.checked_step or not weights:  # none before the layers are built
            return True
        due = [candidate for candidate in range(run.checked_step + 1, step + 1) if is_update_due(run, candidate)]
        if due and not any(weight.has_scores() for weight in weights):
            if step - due[0] > _PATIENCE:
                raise _no_gradient(weights)
            return False
        run.checked_step = step
        if due:
            update_masks(run, weights, schedules.sparsity_at(run.schedule, due[-1]))
            self._apply_masks()
        return True


def _no_gradient(weights: list[MaskedWeight]) -> RuntimeError:
    return RuntimeError(
        f'importance="taylor" has nothing to rank by: no gradient has reached {weights[0].name} or any other weight '
        "under pruning through the model's optimizer. Is every one of them frozen? A model that trains with "
        'optimizers of its own needs importance="magnitude".'
    )


def is_update_due(run: PruningRun, step: int) -> bool:
    """Whether a run's masks are to be updated at a step; N:M masks are made once, at step 1, as in TF-MOT."""
    return step == 1 if run.sparsity_m_by_n else schedules.is_due(run.schedule, step)


def set_open_end(schedule: schedules.PruningSchedule, total_steps: int | None) -> None:
    """Fix a schedule's open `end_step`.

    Raises:
        ValueError: it is open, and the number of steps is unknown.
    """
    if not (isinstance(schedule, schedules.PolynomialDecay) and schedule.end_step is None):
        return
    if total_steps is None:
        raise ValueError(
            "The schedule's end_step was left out, and the number of training steps is unknown: pass "
            "end_step to PolynomialDecay, or steps_per_epoch to fit."
        )
    schedule.set_end_step(total_steps)


def warn_if_missed(schedule: schedules.PruningSchedule, step: int, total_steps: int) -> None:
    """Warn where a training from `step` to `total_steps` ends without the sparsity its schedule promises."""
    wanted = schedules.final_sparsity(schedule)
    if wanted is None or schedule.end_step > total_steps or step >= total_steps:
        return
    reached = schedules.sparsity_reached(schedule, total_steps)
    if reached < wanted - _NEAR:
        warnings.warn(
            f"Training ends at step {total_steps} with a sparsity of {reached:.3f} rather than {wanted:.3f}: "
            f"masks are updated every {schedule.frequency} steps from step {schedule.begin_step}"
            + (f" to {schedule.end_step}" if schedule.end_step >= 0 else "")
            + ". Lower the schedule's frequency, or set end_step to begin_step + n * frequency."
        )


def warn_of_missing_zeros(model: Layer, weights: Sequence[MaskedWeight]) -> None:
    """Warn where pruning ends without the zeros that were asked for: nothing was trained, a schedule is not
    through, or the masks of a layer were never updated.

    Args:
        model: the model or the layer whose pruning ends.
        weights: what is under pruning in it.
    """
    step = max((weight.step for weight in weights), default=0)
    if not step:
        warnings.warn(
            f"{model.name!r} was never trained under pruning, so its schedule never ran and it has no zeros: pass "
            "callbacks=[edgeprune.UpdatePruningStep()] to fit before strip_pruning; in a custom training loop call its "
            "on_train_batch_begin(batch) before each step."
        )
        return
    by_run: dict[PruningRun, list[MaskedWeight]] = {}
    for weight in weights:
        by_run.setdefault(weight.run, []).append(weight)
    for schedule in {id(run.schedule): run.schedule for run in by_run if not run.sparsity_m_by_n}.values():
        _warn_if_unfinished(schedule, step)
    dense = [weight for run, members in by_run.items() for weight in _without_zeros(run, members, step)]
    if dense:
        warnings.warn(
            f"{', '.join(weight.name for weight in dense)}: no zeros after {step} steps under pruning. The masks were "
            "never updated (a layer that is not called in training, or a loop without on_train_batch_begin), all the "
            "magnitudes are equal and there is nothing to rank, or there are fewer inputs than each group of N:M keeps."
        )


def _without_zeros(run: PruningRun, weights: list[MaskedWeight], step: int) -> list[MaskedWeight]:
    """The weights of a run that have no zeros at a step at which they should."""
    wanted = run.sparsity_reached(step)
    dense = [weight for weight in weights if weight.mask().all() and weight.value().all()]
    if run.scope == "global" and len(dense) < len(weights):
        return []
    return [weight for weight in dense if run.expects_zeros(tuple(weight.variable.shape), wanted)]


def _warn_if_unfinished(schedule: schedules.PruningSchedule, step: int) -> None:
    """Warn where pruning ends at a step before the schedule has come to its end."""
    wanted = schedules.final_sparsity(schedule)
    if wanted is None or schedule.end_step is None:
        return
    reached = schedules.sparsity_reached(schedule, step + 1)
    if reached < wanted - _NEAR:
        end = f" of {schedule.end_step}" if schedule.end_step >= 0 else ""
        warnings.warn(
            f"Pruning was stripped at step {step}{end}, with a sparsity of {reached:.3f} rather than {wanted:.3f}: "
            "train to the end of the schedule first, or pass an earlier end_step or a lower frequency (it "
            f"updates masks every {schedule.frequency} steps from step {schedule.begin_step})."
        )
