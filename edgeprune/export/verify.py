"""Prove what a .tflite file does: run it, compare it with its Keras model, and count what it holds.

    print(verify_tflite("model.tflite", model, x_test[:200], y_test[:200]))

Every figure is measured on the file itself: its outputs by the LiteRT interpreter, its zeros in its own bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.conversion.known_values import arbitrary_words, drawn, known_values
from edgeprune.export.agreement import OutputComparison, compare_output, pair_outputs
from edgeprune.export.weight_zeros import WeightZeros, zeros_of_weights
from edgeprune.measure.macs import MacCount, count_macs, count_macs_of_file
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.parameters import ParameterCount, count_parameters
from edgeprune.measure.predictions import keras_output_names, predict, samples_for_file
from edgeprune.measure.score import Scores, score_lines, score_outputs, scores_to_dict
from edgeprune.measure.size import FileSize, file_size
from edgeprune.schemes import CALIBRATED
from edgeprune.text_table import text_table
from edgeprune.tflite.file import TfliteFile, read_tflite
from edgeprune.tflite.runtime import Port, Runtime
from edgeprune.tflite.tensors import ConstantTensor
from edgeprune.types import Arrays, Model

# The largest relative error (see OutputComparison) that is still the recipe's own rounding. Wrong kernels, wrong
# layouts and lost calibrations err by far more.
FORMAT_TOLERANCE = {None: 1e-3, "float16": 1e-2, "int16x8": 0.05, "dynamic": 0.15, "int8": 0.25, "int4": 0.25}
_MADE_UP = 8  # samples, where none are given
# A Keras model that itself computes in half precision is no better reference than this.
_HALF_PRECISION_TOLERANCE = 0.03


@dataclass(frozen=True)
class Verification:
    """What was measured on a .tflite file.

    Attributes:
        path: the file.
        quantization: how it computes: `None` (float32), `"float16"`, `"dynamic"`, `"int8"`, `"int16x8"` or
            `"int4"`.
        size: raw and gzip'd.
        operators: operator name to count.
        custom_operators: operators outside LiteRT's builtins.
        macs: multiply-accumulates of one inference.
        parameters: the Keras model's parameters, `None` without a model.
        samples: how many samples were passed.
        outputs: each output beside the Keras model's; empty without a model, and for an int8 or int16x8 file without
            samples.
        tensors: the file's constant tensors with their zeros.
        weights: each Keras weight's zeros beside the file's; empty without a model.
        scores: how good the file is at its task on the samples, or why that is unknown; `None` without samples.
        keras_scores: the same of the Keras model; `None` where it was not run.
        tolerance: the largest relative error that counts as rounding.
        problems: what is wrong, in words; empty if nothing.
    """

    path: Path
    quantization: str | None
    size: FileSize
    operators: dict[str, int]
    custom_operators: tuple[str, ...]
    macs: MacCount
    parameters: ParameterCount | None
    samples: int
    outputs: tuple[OutputComparison, ...]
    tensors: tuple[ConstantTensor, ...]
    weights: tuple[WeightZeros, ...]
    scores: Scores | None
    keras_scores: Scores | None
    tolerance: float
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def accuracy(self) -> float | None:
        """The file's accuracy, 0 to 1; `None` where the task has none."""
        return None if self.scores is None else self.scores.get("accuracy")

    @property
    def keras_accuracy(self) -> float | None:
        """The Keras model's accuracy on the same samples."""
        return None if self.keras_scores is None else self.keras_scores.get("accuracy")

    @property
    def score_stages(self) -> dict[str, Scores]:
        """The figures of both, the file's first."""
        return {stage: s for stage, s in (("file", self.scores), ("Keras", self.keras_scores)) if s is not None}

    @property
    def zeros_kept(self) -> float | None:
        """The share of the Keras weights' zeros that are zeros in the file too; `None` if there are none to compare."""
        found = [weight for weight in self.weights if weight.kept is not None]
        zeros = sum(weight.keras_zeros for weight in found)
        return sum(weight.kept or 0 for weight in found) / zeros if zeros else None

    def __str__(self) -> str:
        """A report: the figures, the outputs, the zeros of each weight, the problems."""
        return "\n".join(_report(self))

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {
            "file": str(self.path),
            "passed": self.passed,
            "problems": list(self.problems),
            "quantization": self.quantization,
            "size": self.size.to_dict(),
            "operators": self.operators,
            "custom_operators": list(self.custom_operators),
            "macs": self.macs.to_dict(),
            "parameters": self.parameters and self.parameters.to_dict(),
            "samples": self.samples,
            "tolerance": self.tolerance,
            "outputs": [asdict(output) for output in self.outputs],
            **scores_to_dict(self.score_stages),
            "zeros_kept": self.zeros_kept,
            "weights": [asdict(weight) for weight in self.weights],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }


def verify_tflite(
    path: str | Path,
    model: Model | None = None,
    x: Arrays | None = None,
    y: Arrays | None = None,
    *,
    sample_weight: Arrays | None = None,
    metric: MetricLike | None = None,
    tolerance: float | None = None,
    output: str | None = None,
    num_threads: int = 1,
    use_xnnpack: bool = True,
    isolated: bool = True,
) -> Verification:
    """Run a .tflite file, compare it with the Keras model it came from, and count what it holds.

    Args:
        path: the .tflite file.
        model: the Keras model it was converted from (`keras` 3 or `tf_keras`), stripped of pruning wrappers.
        x: real values with a leading axis over the samples: an array, a list in the order of the model's
            inputs, or a dict of input name to array. Without them the file is run on random values; on those it
            is compared with the model too, except where it was calibrated on values like the real ones (int8, int16x8).
        y: labels or targets, for the scores of both, as `edgeprune.score` accepts them. What the scores are the
            model's compiled metrics and loss define.
        sample_weight: weights of the samples, as `edgeprune.score` accepts them.
        metric: what to score by instead, as `edgeprune.score` accepts it.
        tolerance: the largest relative error (see `OutputComparison`) to accept; by default that of the file's
            quantization in `FORMAT_TOLERANCE`. Errors of up to two steps of an integer output are accepted, unless a
            channel's values differ by less than its error, so that they carry no information.
        output: name of the output that the labels belong to, needed where there are several and the labels are one
            array.
        num_threads: threads for the interpreter.
        use_xnnpack: whether the interpreter may use XNNPACK.
        isolated: run the file in a process of its own first, which a malformed one may end instead of this. A file that
            was just converted needs none.

    Returns:
        What was measured. What is wrong with the file stands in `problems` and raises nothing.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `model` is no Keras model, or `path` no path.
        ValueError: the file is no readable .tflite file, does not load or does not run; the samples do not fit
            its inputs or hold NaN; there are not as many labels or weights as samples; `tolerance` is NaN or negative.

    Example:
        >>> verify_tflite("model.tflite", model, x, y).passed
        True
    """
    if model is not None:
        flavor.check_model(model)
    if y is not None and x is None:
        raise ValueError("y was passed without x.")
    if tolerance is not None and not tolerance >= 0:  # NaN is not
        raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}.")
    file = read_tflite(path)
    runtime = Runtime(path, num_threads=num_threads, use_xnnpack=use_xnnpack, isolated=isolated)
    arrays = _random_samples_for(runtime, model) if x is None else samples_for_file(runtime, model, x)
    count = len(next(iter(arrays.values())))
    if tolerance is None:
        tolerance = _default_tolerance(file.quantization, model)

    file_outputs = runtime.run_all(arrays, f"Verifying {file.path.name}")
    problems = [f"Output {name!r} holds NaN or infinity." for name in _not_finite(file_outputs)]
    predicted: dict[str, np.ndarray] = {}
    keras_outputs: dict[str, np.ndarray] = {}
    comparisons: list[OutputComparison] = []
    weights: tuple[WeightZeros, ...] = ()
    if model is not None:
        problems += (mismatch := _mismatch(runtime, model))
        if not mismatch and not (x is None and file.quantization in CALIBRATED):
            # The only input needs no name: a model that was rebuilt or loaded may have another than the file.
            samples = arrays if len(arrays) > 1 else next(iter(arrays.values()))
            predicted = predict(model, samples)
            keras_outputs, misfits = pair_outputs(file_outputs, predicted, model)
            if misfits:  # the model may compare the samples of a batch with each other, as CLIP; a file has one
                predicted = predict(model, samples, batch_size=1)
                keras_outputs, misfits = pair_outputs(file_outputs, predicted, model)
            comparisons, wrong = _compared(file, runtime, file_outputs, keras_outputs, tolerance)
            problems += [*misfits, *wrong]
        weights = zeros_of_weights(model, file)
        problems += _foreign_weights(file, weights)

    def scored(outputs: Mapping[str, np.ndarray]) -> Scores:
        if model is not None and not keras_outputs:
            return Scores((), count, "the file does not fit the Keras model, which defines the metrics.")
        return score_outputs(
            outputs,
            y,
            sample_weight,
            inputs=x,
            metric=metric,
            model=model,
            output=output and names.get(output, output),
        )

    names = keras_output_names(file_outputs, predicted, model) if model is not None and keras_outputs else {}
    by_own_name = {own: file_outputs[name] for own in predicted for name in names if names[name] == own}
    return Verification(
        path=file.path,
        quantization=file.quantization,
        size=file_size(path),
        operators=file.operator_counts,
        custom_operators=file.custom_operators,
        macs=_macs(file, model),
        parameters=None if model is None else count_parameters(model),
        samples=0 if x is None else count,
        outputs=tuple(comparisons),
        tensors=file.tensors,
        weights=weights,
        scores=None if x is None else scored(by_own_name or file_outputs),
        keras_scores=scored(predicted) if keras_outputs and x is not None else None,
        tolerance=tolerance,
        problems=tuple(problems),
    )


def _foreign_weights(file: TfliteFile, weights: Sequence[WeightZeros]) -> list[str]:
    """Whether a quantized file has none of the model's weights; a float file of another model fails on its outputs."""
    if file.quantization is None or len(weights) < 2 or any(row.tensor is not None for row in weights):
        return []
    return ["None of the Keras model's weights are in the file: it was converted from another model."]


def _compared(
    file: TfliteFile,
    runtime: Runtime,
    file_outputs: Mapping[str, np.ndarray],
    keras_outputs: Mapping[str, np.ndarray],
    tolerance: float,
) -> tuple[list[OutputComparison], list[str]]:
    """Each output of the file beside Keras's, and what is wrong with them."""
    problems = [f"The Keras output {name!r} holds NaN or infinity." for name in _not_finite(keras_outputs)]
    comparisons = []
    for name, keras_output in keras_outputs.items():
        step = file.output_steps.get(runtime.outputs[name].index, 0.0)
        comparison, wrong = compare_output(name, file_outputs[name], keras_output, step, tolerance)
        comparisons.append(comparison)
        problems += wrong
    return comparisons, problems


def _random_samples_for(runtime: Runtime, model: Model | None) -> dict[str, np.ndarray]:
    """A few random samples: floats from 0 to 1, integers that the model's embeddings hold, words known and others."""
    generator = np.random.default_rng(0)
    known = {} if model is None else known_values(model)
    if len(runtime.inputs) == len(known) == 1:  # a model that was loaded may have another name for it
        known = dict(zip(runtime.inputs, known.values(), strict=True))
    classes = 1 if model is None else _smallest_index_range(model)

    def values(port: Port) -> np.ndarray:
        shape = (_MADE_UP, *port.shape[1:])
        if port.holds_text or (port.name in known and not port.quantized):
            values = drawn(known.get(port.name) or arbitrary_words(), shape, generator)
            return values if port.holds_text else values.astype(port.dtype)
        if port.quantized or port.dtype.kind == "f":
            return generator.random(shape, np.float32)
        return generator.integers(0, classes, shape).astype(port.dtype)

    return {name: values(port) for name, port in runtime.inputs.items()}


def _smallest_index_range(model: Model) -> int:
    """How many different integers every layer that looks something up by them knows; 2 where there is none."""
    layers = flavor.keras_of(model).layers
    embeddings = [layer.input_dim for layer in flavor.layers_of(model) if isinstance(layer, layers.Embedding)]
    encodings = [layer.num_tokens for layer in flavor.layers_of(model) if isinstance(layer, layers.CategoryEncoding)]
    return min([size for size in embeddings + encodings if size], default=2)


def _mismatch(runtime: Runtime, model: Model) -> list[str]:
    """Whether the file has other inputs than the model, in words."""
    ports = runtime.inputs.values()
    taken = [(port.shape[1:], _kind(port.dtype.kind, port.quantized)) for port in ports]
    specs = flavor.flatten(flavor.call_specs(model), model)
    own = [(tuple(spec.shape)[1:], _kind(np.dtype(spec.dtype.as_numpy_dtype).kind)) for spec in specs]
    type_known = flavor.is_graph_model(model) or not flavor.is_keras_3(model)
    left = list(own)
    for shape, kind in taken:
        fitting = [entry for entry in left if _fits(shape, entry[0]) and (not type_known or entry[1] == kind)]
        if not fitting:
            break
        left.remove(fitting[0])
    if len(taken) == len(own) and not left:
        return []
    theirs, ours = (" and ".join(f"{kind} {shape}" for shape, kind in inputs) for inputs in (taken, own))
    return [f"The file has inputs {theirs}, the Keras model {ours}: the file was converted from another model."]


def _kind(letter: str, quantized: bool = False) -> str:
    """What values of a NumPy type stand for; those of a quantized input are real numbers."""
    return "strings" if letter in "OSU" else "real numbers" if quantized or letter == "f" else "whole numbers"


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))


def _not_finite(outputs: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, values in outputs.items() if values.dtype != object and not np.isfinite(values).all()]


def _default_tolerance(quantization: str | None, model: Model | None) -> float:
    layers = () if model is None else flavor.layers_of(model)
    half = any(getattr(layer, "compute_dtype", None) in ("float16", "bfloat16") for layer in layers)
    return max(FORMAT_TOLERANCE[quantization], _HALF_PRECISION_TOLERANCE if half else 0.0)


def _macs(file: TfliteFile, model: Model | None) -> MacCount:
    """The file's own count; the model's where the file holds loops, whose length only the model has."""
    macs = count_macs_of_file(file.path)
    if not macs.uncounted or model is None:
        return macs
    try:
        return count_macs(model)
    except ValueError:  # a side of unknown length: the incomplete count says so itself
        return macs


def _report(result: Verification) -> Iterator[str]:
    yield f"{result.path}: {'passed' if result.passed else 'FAILED'}"
    yield from (f"  problem       {problem}" for problem in result.problems)
    yield f"  quantization  {result.quantization or 'none (float32)'}"
    yield f"  size          {result.size}"
    uncounted = f" (not counted: {', '.join(result.macs.uncounted)})" if result.macs.uncounted else ""
    yield f"  MACs          {result.macs.total:,}{uncounted}"
    if result.parameters is not None:
        yield f"  parameters    {result.parameters.total:,}, {result.parameters.nonzero:,} non-zero"
    yield "  operators     " + ", ".join(f"{name} {count}" for name, count in result.operators.items())
    if result.custom_operators:
        yield f"  custom        {', '.join(result.custom_operators)}"
    yield from (f"  {line}" for line in score_lines(result.score_stages))
    if result.zeros_kept is not None:
        yield f"  zeros kept    {result.zeros_kept:.2%}"
    if result.outputs:
        yield ""
        yield _outputs_table(result)
    yield ""
    yield _weights_table(result.weights) if result.weights else _tensors_table(result.tensors)


def _outputs_table(result: Verification) -> str:
    samples = f"{result.samples} samples" if result.samples else "random samples"
    return text_table(
        [f"output, {samples}", "largest error", "mean error", "relative", "of spread", "same class"],
        [
            [
                row.name,
                f"{row.largest_error:.3g}",
                f"{row.mean_error:.3g}",
                f"{row.relative_error:.3g}",
                "" if row.spread_error is None else f"{row.spread_error:.3g}",
                "" if row.agreement is None else f"{row.agreement:.2%}",
            ]
            for row in result.outputs
        ],
    )


def _weights_table(weights: Sequence[WeightZeros]) -> str:
    rows = []
    for row in weights:
        in_file = ["not found", ""]
        if row.tensor is not None:
            kept = f"{(row.kept or 0) / row.keras_zeros:.2%}" if row.keras_zeros else ""
            in_file = [f"{(row.file_zeros or 0) / row.elements:.2%}", kept]
        rows.append([row.layer, "x".join(map(str, row.shape)), f"{row.keras_zeros / row.elements:.2%}", *in_file])
    return text_table(["layer", "shape", "zeros in Keras", "in the file", "kept"], rows)


def _tensors_table(tensors: Sequence[ConstantTensor]) -> str:
    return text_table(
        ["tensor", "shape", "type", "bytes", "zeros"],
        [
            [row.name, "x".join(map(str, row.shape)), row.dtype, f"{row.bytes:,}", f"{row.sparsity:.2%}"]
            for row in tensors
            if row.is_weight
        ],
    )
