"""Callbacks for `fit`: one moves pruning forward, one writes it to TensorBoard. Both are callbacks of both Kerases.

In a custom training loop, or with `train_on_batch`, call the callback's methods yourself:

    pruning = edgeprune.UpdatePruningStep()
    pruning.set_model(model)
    pruning.on_train_begin()
    for epoch in range(epochs):
        for batch, (x, y) in enumerate(data):
            pruning.on_train_batch_begin(batch)
            model.train_on_batch(x, y)
            pruning.on_train_batch_end(batch)
        pruning.on_epoch_end(epoch)
    pruning.on_train_end()

`on_train_batch_end` may be left out, as in TF-MOT's guide. Loops that call only `on_train_begin` and `on_epoch_end`
work where the step runs eagerly, and with `tf_keras`. Outside of `fit` pass the schedule its `end_step`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.sparsity import updates
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.types import Model

if TYPE_CHECKING:
    from edgeprune.types import CallbackOfBoth, TensorBoardOfBoth
else:
    CallbackOfBoth, TensorBoardOfBoth = flavor.callback_class(), flavor.callback_class("TensorBoard")


class UpdatePruningStep(CallbackOfBoth):
    """Updates the masks of a model under pruning while it trains; must be among the callbacks of `fit`.

    Example:
        >>> model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
        >>> history = model.fit(x, y, callbacks=[UpdatePruningStep()], verbose=0)
    """

    def __init__(self) -> None:
        super().__init__()
        self._counter = updates.StepCounter([], lambda: None)
        self._at_first_epoch = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find what is under pruning in the model, and make its training step apply the masks."""
        self._counter = mechanism_of(self.model).begin_training(self.model, in_fit=bool(self.params))
        self._at_first_epoch = True
        if not mechanism_of(self.model).has_masks(self.model):
            warnings.warn(
                f"Model {self.model.name!r} is not under pruning, so UpdatePruningStep has nothing to do: "
                "call edgeprune.prune_low_magnitude first."
            )

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """At the first epoch, fix an open `end_step` and warn of a schedule that training will not reach."""
        if not self._at_first_epoch:
            return
        self._at_first_epoch = False
        left = steps_left(self.params, epoch)
        for schedule, step in mechanism_of(self.model).scheduled(self.model):
            updates.set_open_end(schedule, None if left is None else step + left)
            if left is not None:
                updates.warn_if_missed(schedule, step, step + left)

    def on_train_batch_begin(self, batch: int = 0, logs: dict[str, Any] | None = None) -> None:
        """Update the masks that are due at the step about to run."""
        self._counter.begin_group(group_size(self.model, self.params, batch))

    def on_train_batch_end(self, batch: int = 0, logs: dict[str, Any] | None = None) -> None:
        """The step has run."""
        self._counter.end_group()

    def on_epoch_end(
        self, epoch: int | None = None, logs: dict[str, Any] | None = None, batch: int | None = None
    ) -> None:
        """Count only steps that ran. (TF-MOT's loops call the first argument `batch`.)"""
        self._counter.close_group()
        self._refuse_open_end()
        mechanism_of(self.model).apply_masks(self.model)
        if not self._counter.has_counted:
            raise RuntimeError(
                "UpdatePruningStep has seen no training step. In a custom training loop call its "
                "on_train_batch_begin(batch) before each step. (Without it count only eager steps on Keras 3 and, on "
                "tf_keras, local magnitude pruning.)"
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave exact zeros, also where the optimizer has just put averaged weights in (`use_ema`)."""
        self._refuse_open_end()
        mechanism_of(self.model).apply_masks(self.model)
        self._counter.finish()
        mechanism_of(self.model).end_training(self.model)

    def _refuse_open_end(self) -> None:
        """A custom training loop has begun no epoch, and an open `end_step` would never prune."""
        for schedule, _ in mechanism_of(self.model).scheduled(self.model):
            updates.set_open_end(schedule, None)


def steps_left(params: dict[str, Any] | None, epoch: int | None) -> int | None:
    """How many steps `fit` is still going to run; None where it does not know.

    Args:
        params: the `params` of a callback.
        epoch: the epoch that begins, counted from 0.
    """
    if epoch is None or not params or not params.get("steps") or not params.get("epochs"):
        return None
    return (params["epochs"] - epoch) * params["steps"]


def group_size(model: Model, params: dict[str, Any] | None, batch: int) -> int:
    """How many steps run until the next callback; the last group of an epoch may be shorter.

    Args:
        model: the model in training.
        params: the `params` of a callback.
        batch: the step of the epoch that begins, counted from 0.
    """
    if not params:  # `train_on_batch` runs one
        return 1
    size = getattr(model, "steps_per_execution", None)
    size = int(getattr(size, "values", [size])[0] or 1)  # in `tf_keras` a variable, under a strategy a mirrored one
    steps = params.get("steps")
    return max(1, min(size, steps - batch)) if steps else size


class PruningSummaries(TensorBoardOfBoth):
    """A TensorBoard callback that also logs each weight's sparsity, at the start of every epoch.

    The smallest magnitude that is kept is logged beside it as the threshold. It is an instance of the `TensorBoard`
    class of both Kerases; which of the two does the work is known once there is a model.

    Args:
        log_dir: folder of the event files; the pruning scalars are in its sub-folder `metrics`, as with TF-MOT.
        update_freq: `"epoch"`, `"batch"` or a number of batches, for TensorBoard's own scalars.
        **kwargs: further arguments of Keras's `TensorBoard` callback: `histogram_freq`, `write_graph`,
            `profile_batch` and so on.

    Raises:
        TypeError: `TensorBoard` has no such argument.
        ValueError: `log_dir` is empty or no string.
        ImportError: TensorBoard is not installed.

    Example:
        >>> callbacks = [UpdatePruningStep(), PruningSummaries("logs")]
    """

    def __init__(self, log_dir: str, update_freq: str | int = "epoch", **kwargs: object):
        if not isinstance(log_dir, str) or not log_dir:
            raise ValueError(f"log_dir must be the name of a folder, got {log_dir!r}")
        if importlib.util.find_spec("tensorboard") is None:  # TensorFlow does not bring it
            raise ImportError("PruningSummaries needs TensorBoard: pip install edgeprune[tensorboard]")
        super().__init__(log_dir, update_freq=update_freq, **kwargs)
        self._arguments = {"log_dir": log_dir, "update_freq": update_freq, **kwargs}
        self._tensorboard: Any = None  # TensorBoard's callback and
        self._writer: Any = None  # TensorFlow's writer, once there is a model

    def set_model(self, model: Model) -> None:
        """Make the TensorBoard callback of the Keras that the model belongs to."""
        self._model = model
        self._tensorboard = flavor.keras_of(model).callbacks.TensorBoard(**self._arguments)
        self._tensorboard.set_params(self.params)
        self._tensorboard.set_model(model)
        self._writer = tf.summary.create_file_writer(f"{self.log_dir}/metrics")

    def set_params(self, params: dict[str, Any]) -> None:
        """Hand the parameters of `fit` on."""
        super().set_params(params)
        if self._tensorboard is not None:
            self._tensorboard.set_params(params)

    @property
    def _train_writer(self) -> Any:
        """The writer of TensorBoard's own scalars, for subclasses that write more of them."""
        return self._tensorboard._train_writer

    @property
    def _val_writer(self) -> Any:
        """The writer of those of the validation data."""
        return self._tensorboard._val_writer

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Write the sparsity and the threshold of every weight under pruning."""
        self._tensorboard.on_epoch_begin(epoch, logs)
        with self._writer.as_default():
            for weight in mechanism_of(self.model).masked_weights(self.model):
                mask = weight.mask()
                kept = np.abs(weight.value()[mask])
                tf.summary.scalar(f"{weight.name}/sparsity", 1.0 - mask.mean(), step=weight.step)
                tf.summary.scalar(f"{weight.name}/threshold", kept.min() if kept.size else 0.0, step=weight.step)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event files."""
        self._tensorboard.on_train_end(logs)
        self._writer.close()


def _forwarding(hook: str) -> Callable[..., None]:
    def forward(self: PruningSummaries, *arguments: object, **keywords: object) -> None:
        getattr(self._tensorboard, hook)(*arguments, **keywords)

    forward.__name__ = hook
    forward.__doc__ = f"Hand `{hook}` on to TensorBoard."
    return forward


# TensorBoard needs every other hook too.
for _hook in flavor.CALLBACK_HOOKS:
    if _hook not in vars(PruningSummaries):
        setattr(PruningSummaries, _hook, _forwarding(_hook))
