"""The figures of one output: by metrics that were passed, by the compiled ones, by what its loss suggests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.labels import by_output, check_output_labels, labels_of
from edgeprune.data.losses import kind_of_loss
from edgeprune.measure.metrics import (
    Metric,
    MetricLike,
    as_metrics,
    class_accuracy,
    mean_absolute_error,
    metrics_by_output,
    suggested_metrics,
    weighted_mean,
)
from edgeprune.types import Loss


class NoScoreError(ValueError):
    """There is no figure for how good the model is.

    Attributes:
        reason: why not; also in the message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"No score: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Score:
    """One figure for how good a model is.

    Attributes:
        name: the metric, after the output's name where the model has several outputs.
        value: the figure.
        higher_is_better: `True`, `False`, or `None` where it is unknown.
        output: the name of the output it is of.
    """

    name: str
    value: float
    higher_is_better: bool | None
    output: str = ""

    @property
    def text(self) -> str:
        """The value for a report: in percent where it is a share of right ones."""
        return f"{self.value:.2%}" if "accuracy" in self.name or self.name == "acc" else f"{self.value:.4g}"


@dataclass(frozen=True)
class ScoredOutput:
    """One output of a model with what it is scored on.

    Attributes:
        name: the output's name.
        y_true: labels or targets `(samples, ...)`.
        y_pred: what was computed `(samples, ...)`.
        sample_weight: weights `(samples, ...)`, or `None`.
        is_input: whether the targets are the model's input, as with an autoencoder.
        keras: the Keras that names of metrics are looked up in.
        batch_size: samples at once for Keras's metrics.
    """

    name: str
    y_true: np.ndarray
    y_pred: np.ndarray
    sample_weight: np.ndarray | None
    is_input: bool
    keras: ModuleType
    batch_size: int

    def by_metrics(self, metrics: Sequence[Metric]) -> Iterator[Score]:
        """The figures by metrics that were passed, or suggested."""
        for metric in metrics:
            if isinstance(metric.of, str) and not flavor.knows_metric(self.keras, metric.of):
                raise NoScoreError(f"Keras has no metric {metric.of!r}.")
            if metric.is_function:
                value = self._by_function(metric)
            else:  # a metric may return several values, by names of its own
                values = self._by_keras(_keras_of(metric.of, self.keras), weighted_metrics=[metric.of])
                value = float(np.mean(list(values.values())))
            yield Score(metric.name, value, metric.higher_is_better)

    def by_compilation(self, compiled: flavor.Compilation, names: Sequence[str]) -> Iterator[Score]:
        """The figures that `evaluate` would return for this output, or those that its loss suggests.

        Args:
            compiled: what the model was compiled with.
            names: the names of all outputs of the model.

        Raises:
            ValueError: the loss does not accept the labels.
        """
        loss, keras_3 = by_output(names, compiled.loss, "losses")[self.name], self.keras.__name__ == flavor.KERAS_3
        if compiled.own_step is None and loss is not None:
            check_output_labels(labels_of(self.name, names), self.y_true, self.y_pred.shape, loss)
        metrics, weighted = (
            metrics_by_output(names, part, keras_3)[self.name] for part in (compiled.metrics, compiled.weighted_metrics)
        )
        if metrics or weighted:
            values = self._by_keras(
                self.keras, metrics=metrics, weighted_metrics=weighted, run_eagerly=compiled.run_eagerly
            )
            known = {metric.name: metric.higher_is_better for metric in as_metrics([*metrics, *weighted])}
            for name in sorted(values, key=lambda name: list(known).index(name) if name in known else len(known)):
                # tf_keras has put the output's name before that of its metrics.
                own = name if keras_3 else name.removeprefix(f"{self.name}_")
                yield Score(own, values[name], known.get(name, known.get(name.removeprefix("weighted_"))))
        elif compiled.own_step is not None:
            raise NoScoreError(
                f"the model has a {compiled.own_step} of its own and no metrics, so that its scores are unknown: "
                "compile it with metrics, or pass metric=."
            )
        elif loss is None:
            raise NoScoreError(f"output {self.name!r} was compiled without loss and metrics: pass metric=.")
        else:
            yield from self._by_loss(loss)

    def by_labels(self) -> Iterator[Score]:
        """The accuracy where the labels are class numbers or one-hot; there is no loss that defines more.

        Raises:
            ValueError: the labels fit the output neither as classes nor as real numbers.
        """
        try:
            right = class_accuracy(self.y_true, self.y_pred)
        except ValueError as error:
            if self.y_true.size != self.y_pred.size:
                raise
            raise NoScoreError(
                f"no compiled model defines what the targets are compared by, and they name no classes ({error}): pass "
                "metric=, or a compiled model."
            ) from error
        yield Score("accuracy", weighted_mean(right, self.sample_weight), True)

    def _by_loss(self, loss: Loss | None) -> Iterator[Score]:
        kind = kind_of_loss(loss, self.y_true.shape, self.y_pred.shape)
        if self.is_input and kind in ("regression", "binary"):
            yield from self.by_metrics([mean_absolute_error("reconstruction_error")])
        elif metrics := suggested_metrics(loss, self.y_true, self.y_pred, self.keras):
            yield from self.by_metrics(metrics)
        else:
            yield Score("loss", self._by_keras(self.keras, loss=loss)["loss"], False)

    def _by_function(self, metric: Metric) -> float:
        with _naming(metric.name):
            values = np.ma.asanyarray(metric.call(self.y_true, self.y_pred, self.sample_weight))
            if values.ndim == 0:
                return float(values)
        if len(values) != len(self.y_true):
            raise NoScoreError(
                f"metric {metric.name!r} returned an array of shape {values.shape} for {len(self.y_true)} samples: it "
                "must return one number, or one for each sample."
            )
        with _naming(metric.name):
            return weighted_mean(values, self.sample_weight)

    def _by_keras(self, keras: ModuleType, **metrics: Any) -> dict[str, float]:  # arguments of `flavor.metric_values`
        names = [one.name for part in ("metrics", "weighted_metrics") for one in as_metrics(metrics.get(part, []))]
        with _naming(*names):
            values = flavor.metric_values(
                keras,
                self.y_true,
                self.y_pred,
                self.sample_weight,
                batch_size=self.batch_size,
                **metrics,
            )
            return {name: float(np.mean(value)) for name, value in values.items()}


def _message(error: Exception) -> str:
    """What an error says; TensorFlow's begins with the whole stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "[[{{node" not in line]
    from_graph = bool(lines) and lines[0].startswith("Graph execution error")
    return " ".join(" ".join(lines[-1:] if from_graph else lines).split())[:200]


def _keras_of(metric: MetricLike | None, default: ModuleType) -> ModuleType:
    """The Keras that a metric belongs to; names belong to any."""
    return default if isinstance(metric, str | type) else flavor.keras_of(metric)


@contextlib.contextmanager
def _naming(*names: str) -> Iterator[None]:
    """Say which metric raised, whatever it was."""
    try:
        yield
    except Exception as error:
        raised = f"{type(error).__name__}: {_message(error)}"
        raise NoScoreError(f"{', '.join(names) or 'the loss'} raised {raised}") from error
