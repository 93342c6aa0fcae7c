"""How good a model is at its task, whatever the task: on the Keras model and on the .tflite file by one rule.

ep.score(model, x_test, y_test)                                the compiled metrics, or what the loss suggests
ep.score("model.tflite", x_test, y_test, model=model)          the same of the file
ep.score("model.tflite", x_test, y_test, metric="mae")         without the model
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.labels import by_output
from edgeprune.data.losses import kind_of_loss
from edgeprune.measure.accuracy import choose_output
from edgeprune.measure.metrics import MetricLike, chosen_metrics
from edgeprune.measure.output_scores import NoScoreError, Score, ScoredOutput
from edgeprune.measure.predictions import gather, keras_output_names, predict, samples_for_file
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Arrays, DataLike, Model


@dataclass(frozen=True)
class Scores:
    """All figures for how good a model is on some data.

    Attributes:
        scores: the figures; those of the first output first.
        samples: how many samples they were measured on.
        reason: why there is none, or why some are missing; `None` otherwise.
    """

    scores: tuple[Score, ...]
    samples: int
    reason: str | None = None

    def __iter__(self) -> Iterator[Score]:
        """The figures."""
        return iter(self.scores)

    def __len__(self) -> int:
        """How many figures there are."""
        return len(self.scores)

    def __getitem__(self, name: str) -> float:
        """The value of the figure of this name."""
        if (value := self.get(name)) is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> float | None:
        """The value of the figure of this name, `None` where there is none."""
        return next((score.value for score in self.scores if score.name == name), None)

    def __str__(self) -> str:
        """The figures in one line, or why there are none."""
        figures = ", ".join(f"{score.name} {score.text}" for score in self.scores)
        return figures or f"no score: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        figures = {one.name: {"value": one.value, "higher_is_better": one.higher_is_better} for one in self.scores}
        return {"scores": figures, "samples": self.samples, "no_score": self.reason}


def score(
    path_or_model: str | Path | Model,
    x: DataLike,
    y: Arrays | None = None,
    *,
    sample_weight: Arrays | None = None,
    metric: MetricLike | None = None,
    model: Model | None = None,
    output: str | None = None,
    batch_size: int = 32,
    num_threads: int = 1,
    use_xnnpack: bool = True,
) -> Scores:
    """Measure how good a Keras model or a .tflite file is at its task.

    Without `metric` the figures are the compiled metrics, as `evaluate` returns them; for an output without any, what
    its loss suggests: the mean absolute error for real numbers, accuracy for classes, accuracy and AUC for zeros and
    ones, mean IoU and accuracy where each pixel has a class, the reconstruction error where the targets are the inputs,
    and for other losses the loss itself. Of a file, or of a model that is not compiled, labels that are class numbers
    or one-hot are scored by accuracy.

    Args:
        path_or_model: a .tflite file, or a model of `keras` 3 or `tf_keras`. Nothing of the model changes.
        x: the samples, real values with a leading axis over them: an array, a list of arrays in the order of
            the inputs, or a dict of input name to array. Or batches `(x, y)` or `(x, y, sample_weight)`: a
            `tf.data.Dataset`, a Keras `PyDataset`, or any iterable.
        y: labels or targets `(samples, ...)`; a dict by output name or a list for several outputs, of which some may
            be left out of a dict. Left out for batches, and for an autoencoder.
        sample_weight: weights `(samples,)` or of the shape of the labels; a dict or a list for several outputs.
        metric: instead of the compiled ones, a Keras metric, its name, a function `f(y_true, y_pred)`, an
            `edgeprune.Metric`, a list of them, or a dict of these by output name. Or the name of one figure of those
            that are scored without it, such as `"kind_accuracy"` of an output `kind`.
        model: the compiled model that defines the metrics, and for a file which output is which; by default the model
            that is scored.
        output: name of the output that `y` belongs to, needed where there are several and `y` is one array.
        batch_size: samples at once.
        num_threads: threads for the interpreter.
        use_xnnpack: whether the interpreter may use XNNPACK.

    Returns:
        The figures, each with the direction that is better.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: `path_or_model` is neither a path nor a Keras model, or `metric` is no metric.
        ValueError: the samples do not fit the inputs, the labels or weights not the samples. Where no figure can be
            computed it is a `NoScoreError`, whose `reason` says why.

    Example:
        >>> classes = model.predict(x, verbose=0).argmax(-1)
        >>> score(model, x, classes)["accuracy"]
        1.0
    """
    if isinstance(path_or_model, str | Path):
        runtime = Runtime(path_or_model, num_threads=num_threads, use_xnnpack=use_xnnpack)
        samples, labels, weights = gather(runtime, x, y, sample_weight)
        arrays = samples_for_file(runtime, model, samples)
        outputs = runtime.run_all(arrays, f"Scoring {runtime.path.name}")
        if model is not None:
            outputs = outputs_by_keras_name(outputs, model, samples)
    elif flavor.is_model(path_or_model):
        model = model or path_or_model
        samples, labels, weights = gather(path_or_model, x, y, sample_weight)
        outputs = predict(path_or_model, samples, batch_size=batch_size)
    else:
        raise TypeError(f"Expected a .tflite file or a Keras model, got {type(path_or_model).__name__}.")
    scores = score_outputs(
        outputs, labels, weights, inputs=samples, metric=metric, model=model, output=output, batch_size=batch_size
    )
    if not scores:
        raise NoScoreError(scores.reason or "")
    return scores


def score_outputs(
    outputs: Mapping[str, np.ndarray],
    y: Arrays | None,
    sample_weight: Arrays | None = None,
    *,
    inputs: Arrays | None = None,
    metric: MetricLike | None = None,
    model: Model | None = None,
    output: str | None = None,
    batch_size: int = 32,
) -> Scores:
    """The figures of outputs that were computed already.

    Args:
        outputs: output name to values `(samples, ...)`, by the names that `model` assigns them.
        y: as `score` accepts them.
        sample_weight: as `score` accepts them.
        inputs: the samples, which are the targets of an autoencoder.
        metric: as `score` accepts it.
        model: the compiled model that defines the metrics; `None` where there is none.
        output: as `score` accepts it.
        batch_size: samples at once.

    Returns:
        The figures, or the reason why there are none.

    Raises:
        TypeError: `metric` is no metric.
        ValueError: the labels or the weights do not fit the samples or the outputs.
    """
    samples = len(next(iter(outputs.values())))
    keras = flavor.keras_module(flavor.KERAS_3) if model is None else flavor.keras_of(model)
    several = metric if isinstance(metric, list | tuple) else [metric]
    if any(isinstance(one, str) and not flavor.knows_metric(keras, one) for one in several):
        by = partial(
            score_outputs, outputs, y, sample_weight, inputs=inputs, model=model, output=output, batch_size=batch_size
        )
        if isinstance(metric, str):
            return _figure_named(metric, list(outputs), keras, by)
        parts = [by(metric=one) for one in several]
        reasons = [part.reason for part in parts if part.reason]
        return Scores(tuple(one for part in parts for one in part), samples, " ".join(reasons) or None)
    chosen = None if metric is None else chosen_metrics(outputs, metric)
    compiled = None if model is None else flavor.compilation_of(model)
    if y is None and (y := _own_targets(outputs, inputs, compiled)) is None:
        return Scores((), samples, "no labels were passed.")
    targets = parts_by_output(outputs, y, "labels", output)
    weights = {} if sample_weight is None else parts_by_output(outputs, sample_weight, "sample weights", output)
    scores, reasons = [], []
    for name, y_true in targets.items():
        scored = ScoredOutput(
            name=name,
            y_true=_with_last_axis(y_true, outputs[name]),
            y_pred=outputs[name],
            sample_weight=weights.get(name),
            is_input=_is_input(y_true, inputs),
            keras=keras,
            batch_size=batch_size,
        )
        found: list[Score] = []
        try:
            if outputs[name].dtype == object:
                raise NoScoreError(f"output {name!r} holds strings.")
            if not np.isfinite(outputs[name]).all():
                raise NoScoreError(f"output {name!r} holds NaN or infinity.")
            if chosen is not None:
                figures = scored.by_metrics(chosen[name])
            elif compiled is not None:
                figures = scored.by_compilation(compiled, list(outputs))
            else:
                figures = scored.by_labels()
            for one in figures:
                found.append(one)
        except NoScoreError as error:
            reasons.append(error.reason)
        prefix = f"{name}_" if len(outputs) > 1 and output is None else ""
        scores += [replace(one, name=prefix + one.name, output=name) for one in found if math.isfinite(one.value)]
        reasons += [f"{prefix}{one.name} is {one.value}." for one in found if not math.isfinite(one.value)]
    return Scores(tuple(scores), samples, " ".join(reasons) or None)


def _figure_named(name: str, outputs: Sequence[str], keras: ModuleType, scored: Callable[..., Scores]) -> Scores:
    """The figure of a name that is no metric's: one of those without `metric`, or a metric behind an output's name."""
    own = scored(metric=None)
    if found := [one for one in own if one.name == name]:
        return Scores(tuple(found), own.samples)
    for output in outputs:
        metric = name.removeprefix(f"{output}_")
        if metric != name and flavor.knows_metric(keras, metric):
            return scored(metric={output: metric})
    listed = f", or one of {', '.join(repr(one.name) for one in own)}" if own else ""
    unknown = f"Keras has no metric {name!r}: pass the name of one{listed}."
    return Scores((), own.samples, f"{unknown} {own.reason}" if own.reason else unknown)


def scores_to_dict(stages: Mapping[str, Scores]) -> dict[str, Any]:
    """The figures of several stages side by side, as plain values for JSON.

    Args:
        stages: the name of the stage, such as `"before"`, to its figures.

    Returns:
        `"scores"`, by name the direction and the value of each stage, and `"no_score"`, the reason where some are
        missing.
    """
    figures: dict[str, dict[str, Any]] = {}
    for stage, scores in stages.items():
        for one in scores:
            figures.setdefault(one.name, {"higher_is_better": one.higher_is_better})[stage] = one.value
    return {"scores": figures, "no_score": _reason(stages)}


def score_lines(stages: Mapping[str, Scores]) -> Iterator[str]:
    """The figures of several stages side by side, a line for each figure, and why some are missing.

    Args:
        stages: as `scores_to_dict` accepts them.
    """
    if not stages:
        return
    figures: dict[str, dict[str, Score]] = {}
    for stage, scores in stages.items():
        for one in scores:
            figures.setdefault(one.name, {})[stage] = one
    samples = max(scores.samples for scores in stages.values())
    for name, found in figures.items():
        values = ", ".join(f"{one.text} {stage}" for stage, one in found.items())
        direction = direction_words(next(iter(found.values())).higher_is_better)
        yield f"{name} {values} ({direction}), on {samples:,} samples"
    if reason := _reason(stages):
        yield f"no score: {reason}"


def direction_words(higher_is_better: bool | None) -> str:
    """Which direction is better, in words."""
    if higher_is_better is None:
        return "which direction is better is unknown"
    return "higher is better" if higher_is_better else "lower is better"


def _reason(stages: Mapping[str, Scores]) -> str | None:
    """Why figures are missing, each reason once."""
    return " ".join(dict.fromkeys(scores.reason for scores in stages.values() if scores.reason)) or None


def outputs_by_keras_name(outputs: Mapping[str, np.ndarray], model: Model, samples: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a file by the names that the model assigns them."""
    own = predict(model, _first_sample(samples))
    if len(own) != len(outputs):
        raise ValueError(f"The file has {len(outputs)} outputs, the Keras model has {len(own)}.")
    names = keras_output_names(outputs, own, model)
    return {names[name]: outputs[name] for name in sorted(outputs, key=lambda name: list(own).index(names[name]))}


def _first_sample(samples: Arrays) -> Any:
    if isinstance(samples, Mapping):
        return {name: np.asarray(one)[:1] for name, one in samples.items()}
    return [np.asarray(one)[:1] for one in samples] if isinstance(samples, list | tuple) else np.asarray(samples)[:1]


def parts_by_output(
    outputs: Mapping[str, np.ndarray], part: Any, what: str, output: str | None
) -> dict[str, np.ndarray]:
    """Labels or weights as arrays by the name of the output they are for, those that are there."""
    names = list(outputs)
    if output is not None:
        choose_output(outputs, output)
        part = part if isinstance(part, Mapping) else {output: part}
    elif len(names) == 1 and not isinstance(part, Mapping):
        (only,) = part if _is_list_of_one(part, len(outputs[names[0]])) else (part,)
        part = {names[0]: only}
    elif what == "labels" and not _has_parts(part):
        choose_output(outputs, None)  # which of several is not said
    arrays = {name: np.asarray(one) for name, one in by_output(names, part, what).items() if one is not None}
    for name, array in arrays.items():
        count = len(outputs[name])
        if array.ndim == 0 or len(array) != count:
            given = len(array) if array.ndim else "no list of"
            raise ValueError(f"Got {count} samples and {given} {what}: one a sample is needed.")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"The {what} must be real numbers, got values of type {array.dtype}.")
    return arrays


def _has_parts(part: object) -> bool:
    """Whether these are arrays for several outputs rather than one array."""
    return isinstance(part, Mapping) or (isinstance(part, list | tuple) and any(np.ndim(one) for one in part))


def _with_last_axis(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Targets `(samples,)` for outputs `(samples, 1)`, which would be stretched to `(samples, samples)`, as those."""
    return y_true[..., None] if (*y_true.shape, 1) == y_pred.shape else y_true


def _is_list_of_one(part: object, samples: int) -> bool:
    """Whether this is a list of arrays for outputs, of which there is one, rather than a list of labels."""
    return isinstance(part, list | tuple) and len(part) == 1 and np.ndim(part[0]) > 0 and len(part[0]) == samples


def _only_input(inputs: Arrays | None) -> np.ndarray | None:
    """The samples of a model with one input; `None` where it has several."""
    if isinstance(inputs, Mapping | list | tuple):
        several = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        return np.asarray(several[0]) if len(several) == 1 else None
    return None if inputs is None else np.asarray(inputs)


def _is_input(y_true: np.ndarray, inputs: Arrays | None) -> bool:
    """Whether the targets are the input, as with an autoencoder."""
    only = _only_input(inputs)
    return only is not None and (only is y_true or (only.shape == y_true.shape and np.array_equal(only, y_true)))


def _own_targets(outputs: Mapping[str, np.ndarray], inputs: Arrays | None, compiled: flavor.Compilation | None) -> Any:
    """The input, where it is what an autoencoder without labels is to return; else `None`."""
    only, (first, *others) = _only_input(inputs), outputs.values()
    if only is None or others or compiled is None or compiled.own_step or only.shape != first.shape:
        return None
    loss = by_output(outputs, compiled.loss, "losses")[next(iter(outputs))]
    return only if kind_of_loss(loss, only.shape, first.shape) == "regression" else None
