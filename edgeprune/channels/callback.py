"""Channels removed little by little in training: masked by a callback, taken out by `strip_channels` at the end.

    pruning = ChannelPruning(PolynomialDecay(0.0, 0.5), target_macs=0.5)
    model.fit(x, y, epochs=10, callbacks=[pruning])
    smaller = strip(model)

Masked channels are zero in every weight that makes or reads them, and the optimizer keeps them so. Whatever saves the
model meanwhile finds the zeros; `remove_dead_channels` removes them from a model that was loaded from a file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import Group
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.masks import (
    ChannelMasks,
    alive_classes,
    is_channel_pruned,
    masked_channels,
    masks_of,
    put_masks_on,
)
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.curve_scores import GroupCurves
from edgeprune.channels.plan.importance import ImportanceLike
from edgeprune.channels.plan.limits import one_target
from edgeprune.channels.plan.plan_settings import AdvancedSettings, GraphSettings, check_settings
from edgeprune.channels.plan.planning import plan_graph, with_defaults
from edgeprune.channels.plan.solver import PlanTarget
from edgeprune.number_checks import check_number, check_target
from edgeprune.sparsity import schedules, updates
from edgeprune.sparsity.callbacks import group_size, steps_left
from edgeprune.sparsity.prune import without_wrappers
from edgeprune.types import Layer, SameLayer, Scope

if TYPE_CHECKING:
    from edgeprune.sparsity.schedules import PruningSchedule
    from edgeprune.types import CallbackOfBoth
else:
    CallbackOfBoth = flavor.callback_class()


class ChannelPruning(CallbackOfBoth):
    """A callback for `fit` that masks the least important channels on a schedule; then call `strip_pruning`.

    The schedule says when channels are masked, and what fraction of the target a step has: its sparsity divided by the
    sparsity it ends with. A custom schedule returns the fraction itself, from 0 to 1. Pass exactly one of
    `pruning_ratio`, `target_macs` and `target_params`.

    In a custom training loop call `set_model(model)` and `on_train_begin()`, then for each step
    `on_train_batch_begin(batch)` and `on_train_batch_end(batch)`, and `on_train_end()`; pass the schedule its end_step.
    A second `fit` with the same callback continues; so does a new callback in a `fit` with `initial_epoch`.

    Args:
        schedule: `PolynomialDecay`, `ConstantSparsity` or another of TF-MOT's; an `end_step` left out follows from
            `fit`. Steps are batches, counted from 1.
        pruning_ratio: fraction of the channels to remove, 0 to below 1.
        target_macs: fraction of the MACs to keep, above 0 to 1.
        target_params: fraction of the parameters to keep, above 0 to 1.
        importance: how channels are ranked at each update, as in `plan_channels`; those that need data use `data=`.
        scope: `"global"`, `"local"`, `"isomorphic"`, or the curves of `edgeprune.sensitivity`.
        round_to: what is left of a group's channels is a multiple of this.
        ignore: layers, or names or patterns of layers, whose channels are all kept.
        recover: soft filter pruning: what makes the channels is set to zero at each update, and may grow again. They
            are masked for good at the last update (He et al., Soft Filter Pruning, 2018).
        group_lasso: each step shrinks the norm of each channel by this fraction, times the schedule's, of the mean
            norm in its group at the first step; channels that training does not hold up are near zero when they
            are masked. 0.5 divided by the number of steps is a good start. It is the proximal step of a group lasso
            with growing strength, on the groups of DepGraph (Fang et al., Towards Any Structural Pruning, 2023).
        **settings: `reduction`, `ratios`, `attention`, `min_channels`, `max_ratio`, `data`, `loss`, `batch_size`,
            `steps`, `seed` of `plan_channels`.

    Attributes:
        plan: what is masked now, a `ChannelPlan`; None before the first update.

    Raises:
        TypeError: `schedule` is no schedule, or an argument is unknown or of the wrong type.
        ValueError: not exactly one target is passed, a number is out of its range, or the importance needs data. When
            training begins: no channel can be removed, the target cannot be reached, or the callback has pruned another
            model.

    Example:
        >>> from edgeprune import PolynomialDecay
        >>> pruning = ChannelPruning(PolynomialDecay(0.0, 0.5), target_macs=0.5)
        >>> history = model.fit(x, y, epochs=2, callbacks=[pruning], verbose=0)
        >>> ep.count_macs(ep.strip_pruning(model)).total <= 0.5 * ep.count_macs(model).total
        True
    """

    def __init__(
        self,
        schedule: schedules.PruningSchedule,
        *,
        pruning_ratio: float | None = None,
        target_macs: float | None = None,
        target_params: float | None = None,
        importance: ImportanceLike = "l2",
        scope: Scope | GroupCurves = "global",
        round_to: int | str | Callable[[Group], int] = 1,
        ignore: str | Layer | Iterable[str | Layer] = (),
        recover: bool = False,
        group_lasso: float = 0.0,
        **settings: Unpack[AdvancedSettings],
    ):
        super().__init__()
        if not isinstance(schedule, schedules.PruningSchedule):
            raise TypeError(f"schedule must be a PruningSchedule such as PolynomialDecay(0.0, 0.5), got {schedule!r}.")
        if unknown := settings.keys() - AdvancedSettings.__optional_keys__:
            raise TypeError(f"ChannelPruning has no argument {', '.join(sorted(unknown))}.")
        own = GraphSettings(importance=importance, scope=scope, round_to=round_to, ignore=ignore)
        self._settings = with_defaults({**own, **settings})
        check_settings(self._settings)
        if not isinstance(recover, bool):
            raise TypeError(f"recover must be True or False; got {recover!r}.")
        check_number("group_lasso", group_lasso)
        if group_lasso < 0:
            raise ValueError(f"group_lasso is a fraction of a norm, 0 or more; got {group_lasso}.")
        self.schedule = copy.copy(schedule)  # an open end_step is set on the copy
        self.recover = recover
        self.group_lasso = group_lasso
        self.plan: ChannelPlan | None = None
        self._target = _Target(schedule, pruning_ratio, target_macs, target_params)
        self._step = self._checked_step = self._open_group = 0
        self._last_step: int | None = None
        self._at_first_epoch = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Follow the model's channels, and make its optimizer hold the masks."""
        masks = masks_of(self.model)
        if masks is None:
            if self._step:
                raise ValueError(
                    f"This ChannelPruning has made {self._step} steps with another model, and its schedule is not for "
                    f"{self.model.name!r}: make a new one, or pass initial_epoch= to fit to continue a training."
                )
            # With an importance that needs no data: whether the target can be reached does not depend on it.
            graph = trace(without_wrappers(self.model))
            without_data: GraphSettings = {**self._settings, "importance": "l1"}
            plan_graph(graph, self._target.at(1.0), **without_data)
            put_masks_on(self.model, graph)
        flavor.forget_compiled_step(self.model)
        self._at_first_epoch = True

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
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

    @property
    def _masks(self) -> ChannelMasks:
        masks = masks_of(self.model)
        assert masks is not None, "on_train_begin has put them on the model"
        return masks

    def on_train_batch_begin(self, batch: int = 0, logs: dict[str, Any] | None = None) -> None:
        """Mask what is due at the step about to run."""
        updates.set_open_end(self.schedule, None)  # a custom training loop has begun no epoch
        if self._last_step is None:
            self._last_step = _last_update(self.schedule, None)
        self._update_up_to(self._step + 1)
        self._open_group = group_size(self.model, self.params, batch)

    def on_train_batch_end(self, batch: int = 0, logs: dict[str, Any] | None = None) -> None:
        """Count the steps that have run, and shrink the channels."""
        self._step += self._open_group
        if self.group_lasso and not self._is_final:
            fraction = self._target.fraction_at(self.schedule, self._step)
            self._masks.shrink(self.group_lasso * fraction * self._open_group)

    def on_epoch_end(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Leave exact zeros, also where the optimizer has put averaged weights in (`use_ema`)."""
        self._masks.apply(self.model)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Make the updates that fell between the last callbacks, and leave exact zeros."""
        self._update_up_to(self._step)
        if self.recover and self._last_step is None:  # a schedule without an end ends with the training
            self._mask(self._step, is_last=True)
        self._masks.apply(self.model)
        if self._last_step is not None and self._step < self._last_step:
            reached = self._target.fraction_at(self.schedule, self._step)
            warnings.warn(
                f"Training of {self.model.name!r} ended at step {self._step}, {reached:.0%} of the target reached: "
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
        masks = self._masks
        kind, asked = self._target.at(self._target.fraction_at(self.schedule, step))
        gone = masks.silent() if not self.recover else None
        plan = plan_graph(masks.graph, (kind, asked), gone=gone, **self._settings)
        if not is_last and self._target.is_exceeded(plan.target):
            return  # rounding would remove more than the whole training may, and that could not be undone
        self.plan = plan
        if self.recover and not is_last:
            masks.zero_producers(self.plan.kept_mask)
        else:
            masks.keep(self.plan.kept_mask)


class _Target:
    """What a training is to reach, and how much of it a schedule asks for at a step."""

    def __init__(
        self,
        schedule: schedules.PruningSchedule,
        pruning_ratio: float | None,
        target_macs: float | None,
        target_params: float | None,
    ) -> None:
        self._final = schedules.final_sparsity(schedule)
        if self._final == 0:
            raise ValueError("The schedule ends with a sparsity of 0, so nothing would be removed: raise it.")
        self._kind, self._value = one_target(
            pruning_ratio=pruning_ratio, target_macs=target_macs, target_params=target_params
        )
        check_target(self._kind, self._value)

    def fraction_at(self, schedule: schedules.PruningSchedule, step: int) -> float:
        """The fraction of the target at a step, 0 to 1."""
        sparsity = schedules.sparsity_at(schedule, step)
        return float(np.clip(sparsity / (self._final or 1.0), 0.0, 1.0))

    def is_exceeded(self, target: PlanTarget | None) -> bool:
        """Whether a plan removes more than the whole training is to remove."""
        if target is None:
            return False
        return target.achieved > self._value if self._kind == "pruning_ratio" else target.achieved < self._value

    def at(self, fraction: float) -> tuple[str, float]:
        """The kind and value of the target of a plan after this fraction."""
        if self._kind == "pruning_ratio":
            return self._kind, fraction * self._value
        return self._kind, 1 - fraction * (1 - self._value)


def _last_update(schedule: PruningSchedule, total_steps: int | None) -> int | None:
    """The step of a schedule's last update; None where neither the schedule nor the training has an end."""
    end = getattr(schedule, "end_step", None)
    last = total_steps if end is None or end < 0 else end
    if last is None:
        return None
    return next((step for step in range(last, 0, -1) if schedules.is_due(schedule, step)), None)


def strip_channels(model: SameLayer, verify: bool = True) -> SameLayer:
    """Remove the masked channels of a model that was trained with `ChannelPruning`.

    Args:
        model: the model that was in `fit`, one inside it such as the student of a distiller, or one built around it. It
            is not changed. Of a model inside, the channels of its inputs and outputs are kept.
        verify: prove that the smaller model computes the same.

    Returns:
        A plain smaller model, compiled as the one passed is with a fresh optimizer. What was subclassed, as a distiller
        is, becomes a Functional model that computes what its call does at inference.

    Raises:
        TypeError: it is a layer, and channels go together with those of other layers.
        ValueError: the model was not trained with `ChannelPruning`, or its channels may still recover.
        RuntimeError: the proof failed.
    """
    if not flavor.is_model(model):
        raise TypeError(f"Channels of layer {model.name!r} are coupled with those of other layers: strip the model.")
    if not is_channel_pruned(model):
        raise ValueError(
            f"Model {model.name!r} was not trained with ChannelPruning. For one that was loaded from a file written "
            "while it was: remove_dead_channels."
        )
    graph, kept_mask = masked_channels(model)
    if kept_mask.all():
        others = "" if masks_of(model) else ", or only those of its inputs and outputs"
        raise ValueError(
            f"No channel of {model.name!r} is masked yet{others}: train to the schedule's first update, with "
            "recover=True to its last."
        )
    if (alive_classes(graph) & ~kept_mask).any():
        warnings.warn(
            f"Channels of {model.name!r} that are masked hold weights: they were set after the training, as "
            "EarlyStopping(restore_best_weights=True) does. The smaller model does not have them, so it does not "
            "compute what this one computes. Choose the best epoch after the schedule's end (start_from_epoch=...)."
        )
    return cast(SameLayer, ChannelPlan(graph, kept_mask).apply(verify))
