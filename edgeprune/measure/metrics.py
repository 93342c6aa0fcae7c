"""Which figures a model's outputs are scored by: custom metrics, or what its loss suggests.

A custom metric is a function of whole arrays, and may say which direction is better:

    def r_squared(y_true, y_pred):
        return 1 - ((y_true - y_pred) ** 2).sum() / ((y_true - y_true.mean()) ** 2).sum()

    ep.score(model, x, y, metric=ep.Metric(r_squared, higher_is_better=True))
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from edgeprune.data.losses import kind_of_loss, plain_names, setting
from edgeprune.flavor import fresh_metric
from edgeprune.measure.accuracy import predicted_classes, right_ones
from edgeprune.types import KerasMetric, Loss, TfTensor

_HIGHER = frozenset(
    """
    accuracy acc binaryaccuracy categoricalaccuracy sparsecategoricalaccuracy topkcategoricalaccuracy
    sparsetopkcategoricalaccuracy auc precision recall precisionatrecall recallatprecision sensitivityatspecificity
    specificityatsensitivity truepositives truenegatives f1score fbetascore iou binaryiou meaniou onehotiou
    onehotmeaniou cosinesimilarity r2score pearsoncorrelation concordancecorrelation
    """.split()
)
_LOWER = frozenset(
    """
    meansquarederror mse rootmeansquarederror rmse meanabsoluteerror mae meanabsolutepercentageerror mape
    meansquaredlogarithmicerror msle logcosh logcosherror huber meanrelativeerror poisson kldivergence kld
    kullbackleiblerdivergence hinge squaredhinge categoricalhinge falsepositives falsenegatives binarycrossentropy bce
    categoricalcrossentropy sparsecategoricalcrossentropy crossentropy ce binaryfocalcrossentropy
    categoricalfocalcrossentropy dice tversky
    """.split()
)


@dataclass(frozen=True)
class Metric:
    """A metric, with what cannot be seen from it.

    Attributes:
        of: a Keras metric, its name, or a function `f(y_true, y_pred)`. The function is called once on whole arrays
            `(samples, ...)` of NumPy and returns one number, or an array with one for each sample, which is averaged
            by the sample weights. One that has an argument `sample_weight` is passed them, `None` without.
        name: what it is called in reports; by default the metric's or the function's own name.
        higher_is_better: `True`, `False`, or `None` where it is unknown. By default it is looked up for Keras's own
            metrics and losses, and of others it is their attribute `higher_is_better`, if they have it.

    Raises:
        TypeError: `of` is nothing of these.

    Example:
        >>> Metric("mae").higher_is_better
        False
        >>> Metric(lambda y_true, y_pred: abs(y_true - y_pred).max(), name="largest error").name
        'largest error'
    """

    of: Any
    name: str = None  # type: ignore[assignment]  # where it is None, the metric's own takes its place below
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        """Look up the name and the direction."""
        if not isinstance(self.of, str) and not callable(self.of):
            raise TypeError(
                "A metric is a Keras metric, its name, or a function f(y_true, y_pred); got "
                f"{type(self.of).__name__}: {str(self.of)[:80]}"
            )
        if self.name is None:
            object.__setattr__(self, "name", _name(self.of))
        if self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", direction(self.of))

    @property
    def is_function(self) -> bool:
        """Whether it is a plain function, which is called on whole arrays."""
        return callable(self.of) and not isinstance(self.of, type) and not hasattr(self.of, "update_state")

    def call(self, y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None) -> Any:
        """What the function returns."""
        try:
            weighted = "sample_weight" in inspect.signature(self.of).parameters
        except ValueError:  # functions in C have no signature
            weighted = False
        named = {"sample_weight": sample_weight} if weighted else {}
        return self.of(y_true, y_pred, **named)

    def to_keras(self) -> Any:
        """What `compile` accepts in its place: a function's value for each batch, NaN where it raises."""
        if not self.is_function:
            return fresh_metric(self.of() if isinstance(self.of, type) else self.of)
        import tensorflow as tf

        def value(y_true: np.ndarray, y_pred: np.ndarray) -> np.float32:
            try:
                return np.float32(np.mean(self.call(y_true, y_pred, None)))
            except Exception:  # whatever a user's function raises is no reason to stop the training
                return np.float32(math.nan)

        def of_batch(y_true: TfTensor, y_pred: TfTensor) -> Any:
            return tf.ensure_shape(tf.numpy_function(value, [y_true, y_pred], tf.float32), ())

        of_batch.__name__ = str(self.name)
        return of_batch


def direction(metric: MetricLike | None) -> bool | None:
    """Whether more of a metric is better, `None` where that is unknown."""
    if isinstance(own := getattr(metric, "higher_is_better", None), bool):
        return own
    for name in plain_names(metric):
        if name in _HIGHER | _LOWER:
            return name in _HIGHER
    return None


def as_metrics(metric: MetricLike | None) -> list[Metric]:
    """What a user passed as a metric, or a list of them, as a list."""
    several = metric if isinstance(metric, list | tuple) else [metric]
    return [one if isinstance(one, Metric) else Metric(one) for one in several]


def chosen_metrics(outputs: Iterable[str], metric: MetricLike | None) -> dict[str, list[Metric]]:
    """What a user passed as `metric=`, by the name of the output it is for.

    Raises:
        TypeError: it is no metric.
        ValueError: it names an output that is not there.
    """
    if not isinstance(metric, Mapping):
        return dict.fromkeys(outputs, as_metrics(metric))
    if unknown := [name for name in metric if name not in outputs]:
        raise ValueError(f"The model's outputs are {list(outputs)}, got metrics for {unknown}.")
    return {name: as_metrics(metric[name]) if name in metric else [] for name in outputs}


def metrics_by_output(names: Iterable[str], metrics: object, keras_3: bool) -> dict[str, list[Any]]:
    """The compiled metrics by the name of the output they are for.

    Args:
        names: the names of the model's outputs, in their order.
        metrics: what was passed to `compile`.
        keras_3: whether to Keras 3's, where a flat list as long as there are outputs has one for each.
    """
    names = list(names)
    if len(names) == 1:
        return {names[0]: _flat(metrics)}
    if isinstance(metrics, Mapping):
        return {name: _flat(metrics.get(name)) for name in names}
    several = list(metrics) if isinstance(metrics, list | tuple) else _flat(metrics)
    nested = any(one is None or isinstance(one, list | tuple | Mapping) for one in several)
    if len(several) == len(names) and (keras_3 or nested):
        return {name: _flat(one) for name, one in zip(names, several, strict=True)}
    return {name: _flat(several) for name in names}


def suggested_metrics(loss: Loss | None, y_true: np.ndarray, y_pred: np.ndarray, keras: ModuleType) -> list[Metric]:
    """The figures that a loss asks for.

    Args:
        loss: the loss of one output.
        y_true: its labels or targets `(samples, ...)`.
        y_pred: what was computed `(samples, ...)`.
        keras: the Keras that the metrics are of.

    Returns:
        The mean absolute error for real numbers; accuracy for classes, after the mean IoU where each pixel has a class;
        accuracy and AUC for zeros and ones; none for a loss that is unknown.
    """
    kind, classes = kind_of_loss(loss, y_true.shape, y_pred.shape), y_pred.shape[-1] if y_pred.ndim > 1 else 1
    pixels = y_pred.ndim > 3
    if kind == "binary":
        if not np.isin(y_true, (0, 1)).all():  # shades, not classes
            return [mean_absolute_error()]
        threshold, from_logits = (0.0, True) if setting(loss, "from_logits") else (0.5, False)
        accuracy = partial(binary_accuracy, threshold=threshold)
        if pixels and classes == 1:
            return [
                Metric(partial(mean_iou, threshold=threshold), "mean_iou", True),
                Metric(accuracy, "accuracy", True),
            ]
        both = 0 < np.count_nonzero(y_true) < y_true.size
        auc = [Metric(keras.metrics.AUC(from_logits=from_logits, name="auc"))] if both else []
        return [Metric(accuracy, "accuracy" if classes == 1 else "binary_accuracy", True), *auc]
    if kind in ("sparse", "categorical"):
        ignored = setting(loss, "ignore_class")
        by_class = Metric(partial(class_accuracy, ignored=ignored), "accuracy", True)
        return [Metric(partial(mean_iou, ignored=ignored), "mean_iou", True), by_class] if pixels else [by_class]
    return [mean_absolute_error()] if kind == "regression" else []


def mean_absolute_error(name: str = "mae") -> Metric:
    """The mean absolute error of real numbers."""
    return Metric(_absolute_error, name, False)


def class_accuracy(y_true: np.ndarray, y_pred: np.ndarray, ignored: int | None = None) -> np.ndarray:
    """For each sample (and position) whether the largest output is that of its class; ignored classes are masked."""
    if ignored is None:
        return right_ones(y_pred, y_true)
    left_out = y_true.reshape(y_pred.shape[:-1]) == ignored
    return np.ma.masked_where(left_out, right_ones(y_pred, np.where(left_out, 0, y_true.reshape(left_out.shape))))


def mean_iou(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    ignored: int | None = None,
) -> float:
    """The intersection over union of each class that occurs, averaged.

    Keras's own metric cannot be used: it accepts no weights of samples for pixels, and cuts fractions of weights off.
    """
    given, classes = predicted_classes(y_pred, threshold), max(y_pred.shape[-1], 2)
    one_hot = y_true.shape == y_pred.shape and y_pred.shape[-1] > 1
    expected = y_true.argmax(axis=-1) if one_hot else y_true.reshape(given.shape).astype(np.int64)
    weights = np.ones(given.shape) if sample_weight is None else _spread(sample_weight, given)
    counted = expected != ignored
    pairs = (expected * classes + given)[counted]
    table = np.bincount(pairs, weights[counted], classes**2).reshape(classes, classes)
    both, either = table.diagonal(), table.sum(axis=0) + table.sum(axis=1) - table.diagonal()
    return float(np.mean(both[either > 0] / either[either > 0])) if either.any() else math.nan


def _spread(sample_weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weights of samples, or of samples and positions, for each of the values."""
    if sample_weight.ndim == values.ndim + 1 and sample_weight.shape[-1] == 1:
        sample_weight = sample_weight[..., 0]
    missing = values.ndim - sample_weight.ndim
    return np.broadcast_to(sample_weight.reshape(sample_weight.shape + (1,) * missing), values.shape)


def binary_accuracy(y_true: np.ndarray, y_pred: np.ndarray, threshold: float) -> np.ndarray:
    """For each value whether it lies on the right side of the threshold."""
    return (y_pred > threshold) == (y_true.reshape(y_pred.shape) > 0.5)


def _absolute_error(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    return np.abs(y_true.reshape(y_pred.shape).astype(np.float64) - y_pred)


def weighted_mean(values: np.ndarray, sample_weight: np.ndarray | None) -> float:
    """The mean of values `(samples, ...)`, without masked ones, by weights `(samples,)` or of more axes."""
    weights = (~np.ma.getmaskarray(values)).astype(np.float64)
    if sample_weight is not None:
        weights *= _spread(sample_weight, values)
    total = weights.sum()
    return float((np.ma.getdata(values) * weights).sum() / total) if total else math.nan


def _flat(metrics: object) -> list[Any]:
    """The metrics in any nesting of lists and dicts."""
    if metrics is None:
        return []
    if isinstance(metrics, Mapping):
        metrics = list(metrics.values())
    return [one for part in metrics for one in _flat(part)] if isinstance(metrics, list | tuple) else [metrics]


def _name(metric: str | Callable[..., Any]) -> str:
    """What a metric is called: its name, or that of the function or the class."""
    own = metric if isinstance(metric, str) else getattr(metric, "name", None) or getattr(metric, "__name__", None)
    name = own if isinstance(own, str) else type(metric).__name__
    return "metric" if name == "<lambda>" else name


# What `metric=` accepts: one, several, or those of each output by its name.
MetricLike: TypeAlias = str | Metric | KerasMetric | Callable[..., Any] | Sequence[Any] | Mapping[str, Any]
