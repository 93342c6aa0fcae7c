"""Channels removed little by little while a model trains: masked by a callback, taken out by `strip` at the end.

    pruning = ChannelPruning(PolynomialDecay(0.0, 0.5), macs=0.5)
    model.fit(x, y, epochs=10, callbacks=[pruning])
    smaller = strip(model)

Masked channels are zero in every weight that makes or reads them, and the optimizer keeps them so. Whatever saves the
model meanwhile finds the zeros; `remove_dead_channels` takes them out of a model that was loaded from a file.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.channels.graph import ChannelGraph, Slot
from edgeprune.channels.importance import Importance
from edgeprune.channels.on_data import STATISTICS, is_float
from edgeprune.channels.plan import ChannelPlan, plan_graph
from edgeprune.channels.solve import Target, check_number
from edgeprune.channels.trace import trace
from edgeprune.sparsity import schedules, updates
from edgeprune.sparsity.callbacks import group_size, steps_left

# The attribute of a model that holds its masks; set past Keras's tracking, so that it is not saved.
_ATTRIBUTE = "edgeprune_channel_masks"


class ChannelPruning(flavor.callback_class()):
    """A callback for `fit` that masks the least important channels on a schedule; then call `strip_pruning`.

    The schedule says when channels go and how far along the way to the target a step is: its sparsity divided by the
    sparsity it ends with. A schedule of the user's own gives the way itself, from 0 to 1. Without a target the
    schedule's sparsity is the fraction of the channels that is removed.

    In a training loop of your own call `set_model(model)` and `on_train_begin()`, then for each step
    `on_train_batch_begin(batch)` and `on_train_batch_end(batch)`, and `on_train_end()`; give the schedule its end_step.
    A second `fit` with the same callback goes on; so does a new callback in a `fit` with `initial_epoch`.

    Args:
        schedule: `PolynomialDecay`, `ConstantSparsity` or another of TF-MOT's; an `end_step` left out is taken from
            `fit`. Steps are batches, counted from 1.
        macs: fraction of the MACs to keep, above 0 to 1.
        ratio: fraction of the channels to remove, 0 to below 1.
        params: fraction of the parameters to keep, above 0 to 1.
        importance: how channels are ranked at each update, as in `plan_channels`; those that need data take `data=`.
        scope: `"global"`, `"local"` or `"isomorphic"`.
        round_to: what is left of a group's channels is a multiple of this.
        ignore: layers, or names or patterns of layers, whose channels all stay.
        recover: soft filter pruning: what makes the channels is set to zero at each update, and may grow again. They
            are masked for good at the last update (He et al., Soft Filter Pruning, 2018).
        group_lasso: each step takes this fraction, times the way, off the norm of each channel, measured by the mean
            norm that its group had at the first step; channels that training does not hold up are near zero when they
            are masked. 0.5 divided by the number of steps is a good start. It is the proximal step of a group lasso
            with growing strength, on the groups of DepGraph (Fang et al., Towards Any Structural Pruning, 2023).
        **settings: `ratios`, `min_channels`, `max_ratio`, `data`, `loss`, `batch_size`, `steps`, `seed` of
            `plan_channels`.

    Attributes:
        plan: what is masked now, a `ChannelPlan`; None before the first update.

    Raises:
        TypeError: `schedule` is no schedule, or an argument is unknown.
        ValueError: more than one target is given, or a number is out of its range. When training begins: no channel
            can be removed, the target cannot be reached, or the callback has pruned another model.

    Example:
        >>> from edgeprune import PolynomialDecay
        >>> model.fit(x, y, callbacks=[ChannelPruning(PolynomialDecay(0.0, 0.5), macs=0.5)])  # doctest: +SKIP
    """

    def __init__(
        self,
        schedule: schedules.PruningSchedule,
        *,
        macs: float | None = None,
        ratio: float | None = None,
        params: float | None = None,
        importance: Importance = "l2",
        scope: str = "global",
        round_to: int | str | Callable[[Any], int] = 1,
        ignore: Any = (),
        recover: bool = False,
        group_lasso: float = 0.0,
        **settings: Any,
    ):
        super().__init__()
        if not isinstance(schedule, schedules.PruningSchedule):
            raise TypeError(f"schedule must be a PruningSchedule such as PolynomialDecay(0.0, 0.5), got {schedule!r}.")
        unknown = settings.keys() - (inspect.signature(plan_graph).parameters.keys() - {"graph", "target", "gone"})
        if unknown:
            raise TypeError(f"ChannelPruning takes no argument {', '.join(sorted(unknown))}.")
        if not group_lasso >= 0:
            raise ValueError(f"group_lasso is a fraction of a norm, 0 or more; got {group_lasso}.")
        self.schedule = copy.copy(schedule)  # an open end_step is set on the copy
        self.recover = recover
        self.group_lasso = group_lasso
        self.plan: ChannelPlan | None = None
        self._target = _Target(schedule, macs, ratio, params)
        self._settings = {
            **{"importance": importance, "scope": scope, "round_to": round_to, "ignore": ignore},
            **settings,
        }
        self._step = self._checked_step = self._open_group = 0
        self._last_step: int | None = None
        self._at_first_epoch = False

    def on_train_begin(self, logs=None):
        """Follow the model's channels, and make its optimizer hold the masks."""
        masks = masks_of(self.model)
        if masks is None:
            if self._step:
                raise ValueError(
                    f"This ChannelPruning has made {self._step} steps with another model, and its schedule is not for "
                    f"{self.model.name!r}: make a new one, and give fit initial_epoch= where a training goes on."
                )
            masks = ChannelMasks(trace(self.model))
            # With an importance that needs no data: whether the target can be reached does not depend on it.
            plan_graph(masks.graph, self._target.at(1.0), **{**self._settings, "importance": "l1"})
            object.__setattr__(self.model, _ATTRIBUTE, masks)
            masks.install()
        flavor.forget_compiled_step(self.model)
        self._at_first_epoch = True

    def on_epoch_begin(self, epoch=None, logs=None):
        """At the first epoch, learn how long the training is."""
        if not self._at_first_epoch:
            return
        self._at_first_epoch = False
        left = steps_left(self.params, epoch)
        if left is not None and not self._step:
            self._step = epoch * self.params["steps"]
        total = None if left is None else self._step + left
        updates.set_open_end(self.schedule, total)
        if total is not None:
            updates.warn_if_missed(self.schedule, self._step, total)
        self._last_step = _last_update(self.schedule, total)

    def on_train_batch_begin(self, batch=0, logs=None):
        """Mask what is due at the step about to run."""
        updates.set_open_end(self.schedule, None)  # a loop of the user's own has begun no epoch
        if self._last_step is None:
            self._last_step = _last_update(self.schedule, None)
        self._update_up_to(self._step + 1)
        self._open_group = group_size(self.model, self.params, batch)

    def on_train_batch_end(self, batch=0, logs=None):
        """Count the steps that have run, and shrink the channels."""
        self._step += self._open_group
        if self.group_lasso and not self._is_final:
            way = self._target.way(self.schedule, self._step)
            masks_of(self.model).shrink(self.group_lasso * way * self._open_group)

    def on_epoch_end(self, epoch=None, logs=None):
        """Leave exact zeros, also where the optimizer has put averaged weights in (`use_ema`)."""
        masks_of(self.model).apply(self.model)

    def on_train_end(self, logs=None):
        """Make the updates that fell between the last callbacks, and leave exact zeros."""
        self._update_up_to(self._step)
        masks = masks_of(self.model)
        if self.recover and self._last_step is None:  # a schedule without an end ends with the training
            self._mask(self._step, is_last=True)
        masks.apply(self.model)
        if self._last_step is not None and self._step < self._last_step:
            reached = self._target.way(self.schedule, self._step)
            warnings.warn(
                f"Training of {self.model.name!r} ended at step {self._step}, {reached:.0%} of the way to the target: "
                f"the schedule's last update is at step {self._last_step}."
            )

    @property
    def _is_final(self) -> bool:
        return self._last_step is not None and self._checked_step >= self._last_step

    def _update_up_to(self, step: int) -> None:
        """Make the last update that is due up to a step."""
        due = [one for one in range(self._checked_step + 1, step + 1) if schedules.is_due(self.schedule, one)]
        self._checked_step = max(self._checked_step, step)
        if due:
            self._mask(due[-1], is_last=self._last_step is not None and due[-1] >= self._last_step)

    def _mask(self, step: int, is_last: bool) -> None:
        """Choose the channels that go, and set them to zero."""
        masks = masks_of(self.model)
        kind, asked = self._target.at(self._target.way(self.schedule, step))
        gone = masks.silent() if not self.recover else None
        plan = plan_graph(masks.graph, (kind, asked), gone=gone, **self._settings)
        if not is_last and self._target.is_passed(plan.target):
            return  # rounding would take more than the whole training may, and it would not come back
        self.plan = plan
        if self.recover and not is_last:
            masks.silence_makers(self.plan.kept_mask)
        else:
            masks.keep(self.plan.kept_mask)


class _Target:
    """What a training is to reach, and how much of it a schedule asks for at a step."""

    def __init__(self, schedule: Any, macs: float | None, ratio: float | None, params: float | None) -> None:
        given = {
            kind: value for kind, value in (("macs", macs), ("ratio", ratio), ("params", params)) if value is not None
        }
        if len(given) > 1:
            found = " and ".join(f"{kind}={value}" for kind, value in given.items())
            raise ValueError(f"Give one of macs=, ratio= and params=, or none; got {found}.")
        self._final = schedules.final_sparsity(schedule)
        if self._final == 0:
            raise ValueError("The schedule ends with a sparsity of 0, so nothing would be removed: raise it.")
        if not given:
            given = {"ratio": 1.0 if self._final is None else self._final}
        ((self._kind, self._value),) = given.items()
        check_number(self._kind, self._value)
        if self._kind == "ratio" and not 0 <= self._value <= (0.999 if ratio is not None else 1):
            raise ValueError(f"ratio is the fraction of the channels to remove, from 0 to below 1; got {self._value}.")
        if self._kind != "ratio" and not 0 < self._value <= 1:
            raise ValueError(f"{self._kind} is the fraction to keep, above 0 and at most 1; got {self._value}.")

    def way(self, schedule: Any, step: int) -> float:
        """How far a step is on the way to the target, 0 to 1."""
        sparsity = schedules.sparsity_at(schedule, step)
        return float(np.clip(sparsity / (self._final or 1.0), 0.0, 1.0))

    def is_passed(self, target: Target | None) -> bool:
        """Whether a plan takes more than the whole training is to take."""
        if target is None:
            return False
        return target.got > self._value if self._kind == "ratio" else target.got < self._value

    def at(self, way: float) -> tuple[str, float]:
        """What to ask of a plan there."""
        if self._kind == "ratio":
            return self._kind, way * self._value
        return self._kind, 1 - way * (1 - self._value)


def _last_update(schedule: Any, total_steps: int | None) -> int | None:
    """The step of a schedule's last update; None where neither the schedule nor the training has an end."""
    end = getattr(schedule, "end_step", None)
    last = total_steps if end is None or end < 0 else end
    if last is None:
        return None
    return next((step for step in range(last, 0, -1) if schedules.is_due(schedule, step)), None)


class ChannelMasks:
    """The masks of a model's channels, held by the constraints of its variables."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        slots: dict[int, list[Slot]] = {}
        for slot in graph.slots:
            if is_float(slot.weight) and slot.name not in STATISTICS:
                slots.setdefault(id(slot.weight), []).append(slot)
        self._slots = list(slots.values())
        self._weights = [of_weight[0].weight for of_weight in self._slots]
        self._variables = [flavor.tf_variable(weight) for weight in self._weights]
        strategy = getattr(self._variables[0], "distribute_strategy", None) or tf.distribute.get_strategy()
        with tf.init_scope(), strategy.scope():
            self._kept = tf.Variable(
                graph.everything(), trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
        self._unit: tf.Tensor | None = None
        self._scale_all = tf.function(self._scale, autograph=False)

    @property
    def kept_mask(self) -> np.ndarray:
        """Bool array (graph.class_count,), true where the class is not masked."""
        return self._kept.numpy()

    def install(self) -> None:
        """Let the optimizer mask the variables after each of its updates."""
        for weight, slots in zip(self._weights, self._slots, strict=True):
            flavor.constrain(weight, _Constraint(weight.constraint, self._kept, slots))

    def keep(self, kept_mask: np.ndarray) -> None:
        """Mask all other classes, and set them to zero."""
        self._kept.assign(kept_mask)
        self._zero()

    def apply(self, model: Any) -> None:
        """Set masked classes to zero, in the optimizer's moving averages too."""
        self._zero()
        trained = [n for n, weight in enumerate(self._weights) if weight.trainable]
        averages = flavor.moving_averages(getattr(model, "optimizer", None), [self._weights[n] for n in trained])
        for average, number in zip(averages, trained if averages else (), strict=True):
            average.assign(masked(average, self._kept, self._slots[number]))

    def silence_makers(self, kept_mask: np.ndarray) -> None:
        """Set to zero what makes the other classes; what reads them stays, so that they can come back."""
        for variable, slots in zip(self._variables, self._slots, strict=True):
            makers = [slot for slot in slots if slot.makes]
            if makers:
                variable.assign(masked(variable, tf.constant(kept_mask), makers))

    def alive(self) -> np.ndarray:
        """Bool for each class: whether anything that it owns is not zero."""
        alive = np.zeros(self.graph.class_count, bool)
        for variable, slots in zip(self._variables, self._slots, strict=True):
            nonzero = np.asarray(variable) != 0
            for slot in slots:
                others = tuple(axis for axis in range(nonzero.ndim) if axis != slot.axis)
                alive[slot.classes[nonzero.any(axis=others)]] = True
        return alive

    def silent(self) -> np.ndarray:
        """Bool for each class: whether it is masked, or all that it owns is zero, as in a model masked before."""
        alive = self.alive()
        masked_now = ~self.kept_mask
        for group in self.graph.groups:
            if not alive[group.classes].any():  # one must stay, so zeros do not tell which ones go
                alive[group.classes] = True
        return ~alive | masked_now

    def shrink(self, strength: float) -> None:
        """Take `strength` off the norm of each class that can be dropped, in units of its group's first mean norm."""
        if self._unit is None:
            self._unit = tf.constant(self._mean_norms())
        self._scale_all(tf.constant(strength, tf.float32))

    def _zero(self) -> None:
        for variable, slots in zip(self._variables, self._slots, strict=True):
            variable.assign(masked(variable, self._kept, slots))

    def _scale(self, strength: tf.Tensor) -> None:
        factors = tf.maximum(1 - tf.math.divide_no_nan(strength * self._unit, self._norms()), 0.0)
        for variable, slots in self._trained():
            scaled = tf.convert_to_tensor(variable)
            for slot in slots:
                scaled *= tf.cast(_along(tf.gather(factors, slot.classes), slot), scaled.dtype)
            variable.assign(scaled)

    def _trained(self) -> list[tuple[tf.Variable, list[Slot]]]:
        return [
            (variable, slots)
            for weight, variable, slots in zip(self._weights, self._variables, self._slots, strict=True)
            if weight.trainable
        ]

    def _norms(self) -> tf.Tensor:
        """The norm of all that each class owns and that is trained."""
        squares = tf.zeros([self.graph.class_count])
        for variable, slots in self._trained():
            of_all = tf.square(tf.cast(tf.convert_to_tensor(variable), tf.float32))
            for slot in slots:
                along = tf.reduce_sum(of_all, [axis for axis in range(len(of_all.shape)) if axis != slot.axis])
                squares += tf.math.unsorted_segment_sum(along, slot.classes, self.graph.class_count)
        return tf.sqrt(squares)

    def _mean_norms(self) -> np.ndarray:
        """For each class the mean norm of its group; zero for one that cannot be dropped."""
        norms, means = self._norms().numpy(), np.zeros(self.graph.class_count, np.float32)
        for group in self.graph.groups:
            if group.frozen is None:
                means[group.classes] = norms[group.classes].mean()
        return means


class _Constraint:
    """The constraint of a variable under channel pruning: its own one, then zeros."""

    def __init__(self, own: Callable[[Any], Any] | None, kept: tf.Variable, slots: Sequence[Slot]) -> None:
        self.own = own
        self.kept = kept
        self.slots = slots

    def __call__(self, value: Any) -> Any:
        """The new value of the variable; called inside the compiled step."""
        return masked(value if self.own is None else self.own(value), self.kept, self.slots)


def masked(value: Any, kept: Any, slots: Sequence[Slot]) -> tf.Tensor:
    """A weight with zeros where a class is not kept.

    Args:
        value: the weight, a tensor or a variable.
        kept: bool tensor (class_count,).
        slots: its axes.
    """
    value = tf.convert_to_tensor(value)
    for slot in slots:
        value = tf.where(_along(tf.gather(kept, slot.classes), slot), value, tf.zeros((), value.dtype))
    return value


def _along(vector: tf.Tensor, slot: Slot) -> tf.Tensor:
    """A vector along an axis of a weight."""
    return tf.reshape(vector, [-1 if axis == slot.axis else 1 for axis in range(len(slot.weight.shape))])


def masks_of(model: Any) -> ChannelMasks | None:
    """The masks that `ChannelPruning` has put on a model, or None."""
    return getattr(model, _ATTRIBUTE, None)


def is_channel_pruned(model: Any) -> bool:
    """Whether a model trains or has trained with `ChannelPruning`, so that `strip` has something to do."""
    return masks_of(model) is not None


def strip(model: Any, verify: bool = True) -> Any:
    """Take the masked channels out of a model that was trained with `ChannelPruning`.

    Args:
        model: the model; it is not changed.
        verify: prove that the smaller model computes the same.

    Returns:
        A plain smaller model, compiled as the given one is with a fresh optimizer.

    Raises:
        ValueError: the model was not trained with `ChannelPruning`, or its channels may still recover.
        RuntimeError: the proof failed.

    Example:
        >>> smaller = strip(model)  # doctest: +SKIP
    """
    masks = masks_of(model)
    if masks is None:
        raise ValueError(
            f"Model {model.name!r} was not trained with ChannelPruning. For one that was loaded from a file written "
            "while it was: remove_dead_channels."
        )
    if masks.kept_mask.all():
        raise ValueError(
            f"No channel of {model.name!r} is masked yet: train to the schedule's first update, with recover=True to "
            "its last."
        )
    if (masks.alive() & ~masks.kept_mask).any():
        warnings.warn(
            f"Channels of {model.name!r} that are masked hold weights: they were put in after the training, as "
            "EarlyStopping(restore_best_weights=True) does. The smaller model goes without them, so it does not give "
            "what this one gives now. Let the best epoch be one after the schedule's end (start_from_epoch=...)."
        )
    return ChannelPlan(masks.graph, masks.kept_mask).apply(verify)
