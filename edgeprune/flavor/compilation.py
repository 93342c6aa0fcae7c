"""How a model is compiled, and its metrics computed on outputs of something else: a file, another model."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from edgeprune.flavor.kinds import is_keras_3, keras_of
from edgeprune.types import AnyTensor, Loss, Model

# What a model overrides that trains or evaluates in its own way, so that its loss alone does not define its task.
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")

_kept_evaluators: ContextVar[dict[Any, Any] | None] = ContextVar("kept_evaluators", default=None)


@dataclass(frozen=True)
class Compilation:
    """What a model was compiled with, as the user passed it.

    Attributes:
        loss: a loss, its name, or a list or dict of them by output; `None` without.
        loss_weights: a list or dict of numbers by output; `None` without.
        metrics: a list or dict of metrics; `None` without.
        weighted_metrics: the same of those that sample weights count for.
        run_eagerly: whether its metrics need Python at every batch.
        own_step: the first of its methods that trains or evaluates in a way of its own, such as `"train_step"`.
    """

    loss: Any
    loss_weights: Any
    metrics: Any
    weighted_metrics: Any
    run_eagerly: bool
    own_step: str | None


def compilation_of(model: Model) -> Compilation | None:
    """What a model of either Keras was compiled with; `None` where it is not compiled."""
    settings = _settings(model)
    if settings is None:
        return None
    plain = keras_of(model).Model
    own = [name for name in _STEPS if getattr(type(model), name, None) is not getattr(plain, name, None)]
    return Compilation(
        loss=settings.get("loss"),
        loss_weights=settings.get("loss_weights"),
        metrics=settings.get("metrics"),
        weighted_metrics=settings.get("weighted_metrics"),
        run_eagerly=bool(settings.get("run_eagerly")),
        own_step=own[0] if own else None,
    )


def fresh_compilation(model: Model) -> dict[str, Any]:
    """The arguments a model was compiled with, optimizers and metrics with a state of their own; empty without.

    Raises:
        Exception: whatever an optimizer or a custom metric raises when it is made from its configuration.
    """
    settings = _settings(model) or {}
    with keras_of(model).utils.custom_object_scope(_classes_in(settings)):
        return {name: _fresh(value, model) for name, value in settings.items()}


def copy_compile_state(old: Model, new: Model) -> None:
    """Compile a model as another is: optimizer, losses and metrics with the same settings and a fresh state."""
    if _settings(old) is None:
        return
    try:
        new.compile(**fresh_compilation(old))
    except Exception as error:  # whatever an optimizer or a custom metric raises when it is made again
        reason = " ".join(str(error).split())[:200]
        warnings.warn(
            f"Model {new.name!r} is not compiled, as the one it was made from could not be compiled again "
            f"({type(error).__name__}: {reason}): compile it before training."
        )


def fresh_metric(metric: Any) -> Any:
    """The same metric with a state of its own; names, functions and `None`, which have no state, as they are.

    Raises:
        Exception: whatever a custom class raises when it is made from its configuration.
    """
    if isinstance(metric, type) or not hasattr(metric, "update_state"):
        return metric
    keras = keras_of(metric)
    if type(metric) is keras.metrics.MeanMetricWrapper:  # its function may be known to nobody else
        return type(metric)(metric._fn, name=metric.name, dtype=metric.dtype, **metric._fn_kwargs)
    with keras.utils.custom_object_scope({type(metric).__name__: type(metric)}):
        return type(metric).from_config(metric.get_config())


def knows_metric(keras: ModuleType, name: str) -> bool:
    """Whether a Keras has a metric of this name, a registered one too."""
    if name in ("accuracy", "acc", "crossentropy", "ce"):  # of which `compile` chooses one by the shapes
        return True
    try:
        return not isinstance(keras.metrics.get(name), str)  # tf_keras returns what it does not know
    except ValueError:
        return False
    except TypeError:  # it cannot be made without arguments
        return True


def metric_values(
    keras: ModuleType,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    metrics: Sequence[Any] = (),
    weighted_metrics: Sequence[Any] = (),
    loss: Loss | None = None,
    run_eagerly: bool = False,
    batch_size: int = 32,
) -> dict[str, Any]:
    """What `evaluate` of a model with this one output returns, without that model.

    Args:
        keras: the Keras that the metrics are of.
        y_true: labels or targets `(samples, ...)`.
        y_pred: outputs `(samples, ...)`.
        sample_weight: a weight for each sample, or `None`.
        metrics: names, functions or metrics, which are left as they are.
        weighted_metrics: the same of those that the weights count for.
        loss: a loss or its name; its value is returned as `"loss"`.
        run_eagerly: whether to run the metrics' Python at every batch.
        batch_size: samples at once, which matters for functions that return one number for a batch.

    Returns:
        Name to value.

    Raises:
        Exception: whatever a metric raises.

    Example:
        >>> import keras
        >>> metric_values(keras, np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]]), metrics=["mae"])
        {'mae': 1.0}
    """
    settings: Any = {
        "metrics": tuple(metrics),
        "weighted_metrics": tuple(weighted_metrics),
        "loss": loss,
        "run_eagerly": run_eagerly,
    }
    shapes = tuple((array.shape[1:], array.dtype) for array in (y_true, y_pred))
    kept = _kept_evaluators.get()
    # By identity, as a metric need not be hashable; what is kept holds the metrics, so that no other gets their place.
    one_by_one = [*metrics, None, *weighted_metrics, None, loss]
    key = (keras, tuple(map(id, one_by_one)), run_eagerly, shapes, sample_weight is None)
    model, _ = (_evaluator(keras, **settings), one_by_one) if kept is None or key not in kept else kept[key]
    if kept is not None:
        kept[key] = model, one_by_one
    values = model.evaluate(y_pred, y_true, batch_size, 0, sample_weight, return_dict=True)
    return values if loss is not None else {name: value for name, value in values.items() if name != "loss"}


@contextlib.contextmanager
def evaluators_kept() -> Iterator[None]:
    """Let `metric_values` trace the metrics of the same arguments once, until the context ends.

    To trace them takes longer than to run them. Outside of this each call does so, as a function may compute something
    else each time.

    Example:
        >>> import keras
        >>> with evaluators_kept():
        ...     [metric_values(keras, np.ones((4, 1)), np.full((4, 1), y), metrics=["mae"])["mae"] for y in (1.0, 3.0)]
        [0.0, 2.0]
    """
    token = _kept_evaluators.set({})
    try:
        yield
    finally:
        _kept_evaluators.reset(token)


def _evaluator(
    keras: ModuleType,
    metrics: Sequence[Any],
    weighted_metrics: Sequence[Any],
    loss: Loss | None,
    run_eagerly: bool,
) -> Any:
    """A model that returns what it is called on, with metrics of its own."""
    model = _identity_model_class(keras)()
    model.compile(
        loss=loss,
        metrics=[fresh_metric(metric) for metric in metrics],
        weighted_metrics=[fresh_metric(metric) for metric in weighted_metrics],
        run_eagerly=run_eagerly,
    )
    return model


@functools.cache
def _identity_model_class(keras: ModuleType) -> type:
    """A class of models that return what they are called on."""
    import tensorflow as tf

    base: Any = keras.Model

    class Outputs(base):
        def call(self, outputs: AnyTensor) -> Any:
            return outputs

        def compute_loss(self, *arguments: object, **named: object) -> Any:
            return super().compute_loss(*arguments, **named) if self.loss else tf.zeros(())

    return Outputs


def _settings(model: Model) -> dict[str, Any] | None:
    """The arguments of the call of `compile`; `None` where there was none."""
    settings = getattr(model, "_compile_config", None)
    if settings is None or not (model.compiled if is_keras_3(model) else model._is_compiled):
        return None
    return dict(settings.config)


def _fresh(value: object, model: Model) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_fresh(part, model) for part in value)
    if isinstance(value, dict):
        return {key: _fresh(part, model) for key, part in value.items()}
    if isinstance(value, keras_of(model).optimizers.Optimizer):
        return value.__class__.from_config(value.get_config())
    return fresh_metric(value)


def _classes_in(settings: Mapping[str, Any]) -> dict[str, type]:
    """By name the classes that a compiled model's settings are made of, schedules of learning rates too."""
    optimizer = settings.get("optimizer")
    found = [optimizer, getattr(optimizer, "_learning_rate", None)]
    for value in settings.values():
        found += value if isinstance(value, list | tuple) else [value]
    return {type(value).__name__: type(value) for value in found if value is not None}
