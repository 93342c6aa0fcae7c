"""Measures all that a report says of a Keras model and of the files beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from edgeprune import flavor
from edgeprune.crash_guard import try_out
from edgeprune.data.labels import by_output
from edgeprune.data.losses import kind_of_loss
from edgeprune.export.agreement import OutputComparison, compare_output, pair_outputs
from edgeprune.export.diagnosis import paths_behind
from edgeprune.latency.operators import OperatorCost, operator_costs
from edgeprune.measure.class_scores import ClassScores, count_classes
from edgeprune.measure.latency import Benchmark, Latency, benchmark
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.predictions import gather, predict
from edgeprune.measure.score import Scores, parts_by_output, score_outputs
from edgeprune.report.file_errors import QuantizationErrorReport, quantization_error
from edgeprune.report.file_inspection import FileInspection, inspect_tflite
from edgeprune.report.inspection import Inspection, inspect
from edgeprune.search.budget import Budget, Excess
from edgeprune.search.journal.search_record import this_environment
from edgeprune.search.trial.file_costs import file_costs, file_outputs
from edgeprune.targets import Target
from edgeprune.types import Arrays, DataLike, Loss, Model

_Measured = TypeVar("_Measured")
MOST_CLASSES = 60  # of a confusion matrix: those of a thousand would not fit into a page
_FROM_MEMORIES = ("max_flash", "max_ram")


@final
@dataclass(frozen=True)
class NotMeasured:
    """Why a figure is missing, in a sentence."""

    reason: str


@final
@dataclass(frozen=True, eq=False)
class FileFigures:
    """What was measured on one file.

    Attributes:
        inspection: what it holds.
        latency: how long a run takes, among the other files.
        scores: how good it is at its task.
        classes: by output that names classes, what it mistakes for what.
        outputs: each output beside the Keras model's.
        operators: what each operator costs.
        layers: for each operator the path names of the layers behind it.
        errors: how far each layer is from the Keras model that the file was converted from; None for float files.
        costs: flash and RAM on the target, by the limits' names without `max_`; empty without a target.
        exceeded: the limits that do not hold.
    """

    inspection: FileInspection
    latency: Latency
    scores: Scores
    classes: dict[str, ClassScores]
    outputs: tuple[OutputComparison, ...]
    operators: tuple[OperatorCost, ...] | NotMeasured
    layers: tuple[tuple[str, ...], ...]
    errors: QuantizationErrorReport | NotMeasured | None
    costs: dict[str, float] | NotMeasured
    exceeded: tuple[Excess, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.inspection.path

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        rows = self.operators if isinstance(self.operators, tuple) else ()
        return {
            **self.inspection.to_dict(),
            "latency": asdict(self.latency),
            **self.scores.to_dict(),
            "classes": _class_figures(self.classes),
            "outputs": [asdict(one) for one in self.outputs],
            "operator_costs": [
                {**row.to_dict(), "layers": list(layers)} for row, layers in zip(rows, self.layers, strict=True)
            ],
            "quantization_error": self.errors.to_dict() if isinstance(self.errors, QuantizationErrorReport) else None,
            "costs": self.costs if isinstance(self.costs, dict) else {},
            "exceeded": [asdict(one) for one in self.exceeded],
            "not_measured": [part.reason for part in vars(self).values() if isinstance(part, NotMeasured)],
        }


@final
@dataclass(frozen=True, eq=False)
class ModelFigures:
    """What was measured on a model and its files.

    Attributes:
        model: the Keras model, layer by layer.
        smaller: the model that the files were converted from, where it is another.
        samples: how many samples were scored.
        scores: how good the model is at its task.
        classes: by output that names classes, what it mistakes for what.
        class_names: what the classes are called; None where they have no names.
        files: what was measured on each file.
        timed: their latencies, measured in turns.
        target: the device; None where none was named.
        budget: the limits; None where there are none.
        environment: what it was measured with: versions of packages, the machine.
    """

    model: Inspection
    smaller: Inspection | None
    samples: int
    scores: Scores
    classes: dict[str, ClassScores]
    class_names: tuple[str, ...] | None
    files: tuple[FileFigures, ...]
    timed: Benchmark
    target: Target | None
    budget: Budget | None
    environment: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {
            "model": self.model.to_dict(),
            "smaller": self.smaller and self.smaller.to_dict(),
            **self.scores.to_dict(),
            "classes": _class_figures(self.classes),
            "class_names": self.class_names and list(self.class_names),
            "files": [one.to_dict() for one in self.files],
            "latency": self.timed.to_dict(),
            "target": self.target and self.target.to_dict(),
            "limits": self.budget and self.budget.limits,
            "environment": dict(self.environment),
        }


def measure_model(
    model: Model,
    files: Sequence[str | Path],
    data: DataLike,
    *,
    converted_from: Model | None,
    target: Target | None,
    budget: Budget | None,
    metric: MetricLike | None,
    class_names: Sequence[str] | None,
    num_samples: int,
    num_runs: int,
    num_threads: int,
    say: Callable[[str], None],
) -> ModelFigures:
    """Measure a model and its files on data; the arguments are those of `write_report`."""
    for path in files:
        try_out(Path(path))
    x, y, sample_weight = gather(model, data)
    say("the Keras model")
    keras_outputs = predict(model, x)
    source = model if converted_from is None else converted_from

    def scored(outputs: Mapping[str, np.ndarray]) -> Scores:
        return score_outputs(outputs, y, sample_weight, inputs=x, metric=metric, model=model)

    model_scores = scored(keras_outputs)
    timed = benchmark([str(path) for path in files], num_runs=num_runs, num_threads=num_threads)
    measured = []
    for path, latency in zip(map(Path, files), timed.rows, strict=True):
        say(path.name)
        outputs = file_outputs(path, model, x)
        compared = _compared(path, outputs, keras_outputs, model)
        scores = scored(outputs)
        operators = _or_reason(partial(operator_costs, path, num_threads=num_threads))
        costs, inspection = _costs(path, target), inspect_tflite(path)
        figures: dict[str, float | None] = {
            "accuracy_drop": _drop(model_scores, scores),
            "size": inspection.size.bytes,
            "gzip_size": inspection.size.gzip_bytes,
            "latency_ms": latency.milliseconds,
        }
        figures |= costs if isinstance(costs, dict) else {}
        rows = operators if isinstance(operators, tuple) else ()
        measured.append(
            FileFigures(
                inspection=inspection,
                latency=latency,
                scores=scores,
                classes=_classes(model, outputs, y),
                outputs=compared,
                operators=operators,
                layers=tuple(tuple(paths_behind(row.tensor, source)) for row in rows),
                errors=None
                if inspection.quantization is None
                else _or_reason(partial(quantization_error, source, path, x, num_samples=num_samples)),
                costs=costs,
                exceeded=() if budget is None else budget.exceeded(figures),
            )
        )
    return ModelFigures(
        model=inspect(model),
        smaller=None if converted_from is None else inspect(converted_from),
        samples=len(next(iter(keras_outputs.values()))),
        scores=model_scores,
        classes=_classes(model, keras_outputs, y),
        class_names=None if class_names is None else tuple(class_names),
        files=tuple(measured),
        timed=timed,
        target=target,
        budget=budget,
        environment=this_environment(),
    )


def _class_figures(classes: Mapping[str, ClassScores]) -> dict[str, Any]:
    """The scores of each class as plain values; without the matrix where it is large."""
    figures = {name: one.to_dict() for name, one in classes.items()}
    for name, one in classes.items():
        if len(one.counts) > MOST_CLASSES:
            del figures[name]["counts"]
    return figures


def _or_reason(measure: Callable[[], _Measured]) -> _Measured | NotMeasured:
    """What is measured, or why it cannot be: a report on the rest is worth having."""
    try:
        return measure()
    except (ValueError, ImportError) as error:
        return NotMeasured(" ".join(str(error).split()))


def _costs(path: Path, target: Target | None) -> dict[str, float] | NotMeasured:
    if target is None or target.kind not in ("microcontroller", "npu"):
        return {}
    return _or_reason(partial(file_costs, path, target, _FROM_MEMORIES))


def _drop(before: Scores, after: Scores) -> float | None:
    """How much worse the first figure with a direction is; None where there is none."""
    for one in before:
        value = after.get(one.name)
        if value is not None and one.higher_is_better is not None:
            return one.value - value if one.higher_is_better else value - one.value
    return None


def _compared(
    path: Path, outputs: Mapping[str, np.ndarray], keras_outputs: Mapping[str, np.ndarray], model: Model
) -> tuple[OutputComparison, ...]:
    paired, problems = pair_outputs(outputs, keras_outputs, model)
    if problems:
        raise ValueError(f"{path} is no file of model {model.name!r}: {' '.join(problems)}")
    return tuple(compare_output(name, outputs[name], paired[name], 0.0, np.inf)[0] for name in paired)


def _classes(model: Model, outputs: Mapping[str, np.ndarray], y: Arrays | None) -> dict[str, ClassScores]:
    """What the outputs that name classes mistake for what."""
    if y is None:
        return {}
    compiled = flavor.compilation_of(model)
    losses: Mapping[str, Any] = {} if compiled is None else by_output(outputs, compiled.loss, "losses")
    found = {}
    for name, labels in parts_by_output(outputs, y, "labels", None).items():
        if not _names_classes(losses.get(name), labels, outputs[name]):
            continue
        try:
            found[name] = count_classes(outputs[name], labels)
        except ValueError:  # several labels at once, or labels that name no class
            continue
    return found


def _names_classes(loss: Loss | None, labels: np.ndarray, output: np.ndarray) -> bool:
    """Whether an output names one class of several, or yes or no: by its loss, else by labels of whole numbers."""
    kind = kind_of_loss(loss, labels.shape, output.shape)
    if kind is not None:
        return kind in ("sparse", "categorical") or (kind == "binary" and output.shape[-1] == 1)
    return labels.dtype.kind in "biu"
