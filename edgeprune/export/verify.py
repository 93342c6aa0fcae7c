"""Prove what a .tflite file does: run it, compare it with its Keras model, and count what it holds.

    print(verify_tflite("model.tflite", model, x_test[:200], y_test[:200]))

Every figure is measured on the file itself: its outputs by the LiteRT interpreter, its zeros in its own bytes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.measure.accuracy import choose_output, predict, predicted_classes, top_1
from edgeprune.measure.macs import MacCount, count_macs, count_macs_of_file
from edgeprune.measure.parameters import ParameterCount, count_parameters, own_weights
from edgeprune.measure.runtime import Runtime, in_number_order, named_samples
from edgeprune.measure.size import FileSize, file_size
from edgeprune.measure.tflite_file import ConstantTensor, TfliteFile, read_tflite

# The largest relative error (see OutputComparison) that is still the recipe's own rounding. Wrong kernels, wrong
# layouts and lost calibrations err by far more.
TOLERANCE = {None: 1e-3, "float16": 1e-2, "int16x8": 0.05, "dynamic": 0.15, "int8": 0.25}
# A Keras model that itself computes in half precision is no better reference than this.
_HALF_PRECISION_TOLERANCE = 0.03


@dataclass(frozen=True)
class OutputComparison:
    """One output of the file beside the Keras model's.

    Attributes:
        name: the output's name in the file.
        shape: its shape without the batch.
        largest_error: largest absolute difference.
        mean_error: mean absolute difference.
        relative_error: length of the difference over length of the Keras output (Euclidean, over all samples).
        agreement: share of samples for which both name the same class; `None` where the output is no list of
            classes.
    """

    name: str
    shape: tuple[int, ...]
    largest_error: float
    mean_error: float
    relative_error: float
    agreement: float | None


@dataclass(frozen=True)
class WeightZeros:
    """The zeros of one Keras weight beside those of the file's tensor that holds it.

    Attributes:
        layer: the Keras layer's name.
        shape: the Keras weight's shape.
        elements: number of its values.
        keras_zeros: how many are zero in the Keras model.
        tensor: the name of the file's tensor, `None` if none was found that holds the weight.
        file_zeros: how many values are zero in the file; `None` without a tensor.
        kept: how many are zero in both, at the same place; `None` without a tensor.
    """

    layer: str
    shape: tuple[int, ...]
    elements: int
    keras_zeros: int
    tensor: str | None
    file_zeros: int | None
    kept: int | None


@dataclass(frozen=True)
class Verification:
    """What was measured on a .tflite file.

    Attributes:
        path: the file.
        quantization: how it computes: `None` (float32), `"float16"`, `"dynamic"`, `"int8"` or `"int16x8"`.
        size: raw and gzip'd.
        operators: operator name to count.
        custom_operators: operators outside LiteRT's builtins.
        macs: multiply-accumulates of one inference.
        parameters: the Keras model's parameters, `None` without a model.
        samples: how many samples it was run on.
        outputs: each output beside the Keras model's; empty without a model or samples.
        tensors: the file's constant tensors with their zeros.
        weights: each Keras weight's zeros beside the file's; empty without a model.
        accuracy: top-1 accuracy of the file, `None` without labels.
        keras_accuracy: top-1 accuracy of the Keras model on the same samples.
        tolerance: the largest relative error taken for rounding.
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
    accuracy: float | None
    keras_accuracy: float | None
    tolerance: float
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def zeros_kept(self) -> float | None:
        """The share of the Keras weights' zeros that are zeros in the file too; `None` if there are none to compare."""
        found = [weight for weight in self.weights if weight.kept is not None]
        zeros = sum(weight.keras_zeros for weight in found)
        return sum(weight.kept for weight in found) / zeros if zeros else None

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
            "accuracy": self.accuracy,
            "keras_accuracy": self.keras_accuracy,
            "zeros_kept": self.zeros_kept,
            "weights": [asdict(weight) for weight in self.weights],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }


def verify_tflite(
    path: str | Path,
    model: Any = None,
    samples: Any = None,
    labels: Any = None,
    *,
    tolerance: float | None = None,
    output: str | None = None,
    threads: int = 1,
    xnnpack: bool = True,
) -> Verification:
    """Run a .tflite file, compare it with the Keras model it came from, and count what it holds.

    Args:
        path: the .tflite file.
        model: the Keras model it was converted from (`keras` 3 or `tf_keras`), stripped of pruning wrappers.
        samples: real values with a leading axis over the samples: an array, a list in the order of the model's
            inputs, or a dict of input name to array. Without them the file is run once on random values, and
            nothing is compared.
        labels: class numbers or one-hot, one for each sample, for the accuracy of both.
        tolerance: the largest relative error (see `OutputComparison`) to accept; by default that of the file's
            quantization in `TOLERANCE`. Errors of up to two steps of an integer output are always accepted.
        output: name of the output that holds the classes, needed for labels where there are several outputs.
        threads: threads for the interpreter.
        xnnpack: whether the interpreter may use XNNPACK.

    Returns:
        What was measured. What is wrong with the file stands in `problems` and raises nothing.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `model` is no Keras model.
        ValueError: the file is no readable .tflite file, does not load or does not run; the samples do not fit
            its inputs or hold NaN; the labels do not fit the samples or the outputs.

    Example:
        >>> verify_tflite("model.tflite", model, x_test[:200], y_test[:200]).passed  # doctest: +SKIP
        True
    """
    if model is not None and not flavor.is_model(model):
        raise TypeError(f"Expected a Keras model, got {type(model).__name__}: {str(model)[:80]}")
    if labels is not None and samples is None:
        raise ValueError("Labels came without samples.")
    file = read_tflite(path)
    runtime = Runtime(path, threads=threads, xnnpack=xnnpack)
    arrays = _arrays(runtime, model, samples)
    count = len(next(iter(arrays.values())))
    if labels is not None and len(np.asarray(labels)) != count:
        raise ValueError(f"Got {count} samples and {len(np.asarray(labels))} labels: one label a sample is needed.")
    if tolerance is None:
        tolerance = _default_tolerance(file.quantization, model)

    file_outputs = runtime.run_all(arrays, f"Verifying {file.path.name}")
    problems = [f"Output {name!r} holds NaN or infinity." for name in _not_finite(file_outputs)]
    keras_outputs, comparisons = {}, []
    if model is not None and samples is not None:
        # The only input needs no name: a model that was rebuilt or loaded may have another than the file.
        given = arrays if len(arrays) > 1 else next(iter(arrays.values()))
        keras_outputs, mismatches = _pair(file_outputs, predict(model, given), model)
        problems += mismatches + [f"The Keras output {n!r} holds NaN or infinity." for n in _not_finite(keras_outputs)]
        comparisons = [_compare(name, file_outputs[name], keras_outputs[name]) for name in keras_outputs]
        steps = {name: file.output_steps.get(port.index, 0.0) for name, port in runtime.outputs.items()}
        problems += [_disagreement(row, tolerance) for row in comparisons if _disagrees(row, tolerance, steps)]

    weights = () if model is None else zeros_of_weights(model, file)
    # A float file of another model fails on its outputs; quantized ones are allowed to differ by more.
    if file.quantization is not None and len(weights) > 1 and all(row.tensor is None for row in weights):
        problems.append("None of the Keras model's weights are in the file: it was converted from another model.")

    def score(outputs: dict[str, np.ndarray]) -> float | None:
        if labels is None or not outputs or _not_finite(outputs):
            return None
        return top_1(choose_output(outputs, output), labels)

    return Verification(
        path=file.path,
        quantization=file.quantization,
        size=file_size(path),
        operators=file.operator_counts,
        custom_operators=file.custom_operators,
        macs=_macs(file, model),
        parameters=None if model is None else count_parameters(model),
        samples=0 if samples is None else count,
        outputs=tuple(comparisons),
        tensors=file.tensors,
        weights=weights,
        accuracy=score(file_outputs),
        keras_accuracy=score(keras_outputs),
        tolerance=tolerance,
        problems=tuple(problems),
    )


def zeros_of_weights(model: Any, file: TfliteFile) -> tuple[WeightZeros, ...]:
    """Find each Keras weight in a file by its content, and set their zeros side by side.

    Converters transpose weights, merge axes and fold batch normalisation into them, channel by channel. So a
    weight's tensor is the one with as many values whose channels point the same way (cosine similarity) under
    one of the usual transpositions; names decide between equals.

    Args:
        model: a built Keras model.
        file: what `read_tflite` read from the file converted from it.

    Returns:
        One row for each weight with two axes or more (kernels, embeddings), biases left out.
    """
    tensors = [(tensor, tensor.values()) for tensor in file.weights if tensor.elements > 1]
    return tuple(
        _zeros_of_weight(name, np.asarray(weight, np.float32), tensors)
        for weight, name in own_weights(model)
        if len(weight.shape) >= 2 and "bias" not in weight.name
    )


_Tensors = list[tuple[ConstantTensor, np.ndarray]]


def _zeros_of_weight(layer: str, weight: np.ndarray, tensors: _Tensors) -> WeightZeros:
    found = [_find(layer, weight, tensors)]
    if found == [None] and weight.shape[-1] % 4 == 0:  # the fused LSTM stores its four gates apart
        found = [_find(layer, gate, tensors) for gate in np.split(weight, 4, axis=-1)]
    zeros = int(np.count_nonzero(weight == 0))
    facts = (layer, weight.shape, weight.size, zeros)
    if None in found:
        return WeightZeros(*facts, None, None, None)
    names, file_zeros, kept = zip(*found, strict=True)
    return WeightZeros(*facts, "; ".join(names), sum(file_zeros), sum(kept))


def _find(layer: str, weight: np.ndarray, tensors: _Tensors) -> tuple[str, int, int] | None:
    """The tensor that holds a weight: its name, its zeros, and how many of them are the weight's too."""
    best = (0.9, None)
    for tensor, values in tensors:
        if tensor.elements != weight.size:
            continue
        named = layer.rpartition("/")[2] in re.split("[/;]", tensor.name)
        for layout in _layouts(weight):
            candidate = layout.reshape(values.shape)
            likeness = _likeness(values, candidate) + 0.01 * named
            if likeness > best[0]:
                best = (likeness, (tensor.name, tensor.zeros, int(np.count_nonzero((values == 0) & (candidate == 0)))))
    return best[1]


def _layouts(weight: np.ndarray) -> Iterator[np.ndarray]:
    """A weight in the orders of axes that converters use, its own first."""
    if weight.ndim <= 3:
        orders = itertools.permutations(range(weight.ndim))
    else:  # as it is: depthwise, 3D; last axis first: convolution; last but one first: transposed convolution
        *window, before_last, last = range(weight.ndim)
        orders = [
            (*window, before_last, last),
            (last, *window, before_last),
            (before_last, *window, last),
        ]
    for order in orders:
        yield weight.transpose(order)


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine similarity, without sign, of the channels of two arrays of one shape, 0 to 1."""
    return max(_channel_likeness(a, b, axis) for axis in (0, -1))


def _channel_likeness(a: np.ndarray, b: np.ndarray, axis: int) -> float:
    if a.shape[axis] == a.size:  # channels of one value say nothing
        return 0.0
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (a, b))
    product = np.abs(np.einsum("ci,ci->c", a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_empty = ~(a.any(axis=1) | b.any(axis=1))
    return float(np.mean(np.where(both_empty, 1.0, product / np.where(lengths == 0, 1.0, lengths))))


def _arrays(runtime: Runtime, model: Any, samples: Any) -> dict[str, np.ndarray]:
    """The samples by input name; without any, one random sample."""
    if samples is None:
        generator = np.random.default_rng(0)
        return {
            name: generator.random((1, *port.shape[1:]), np.float32)
            if port.quantized or port.dtype.kind == "f"
            else np.zeros((1, *port.shape[1:]), port.dtype)
            for name, port in runtime.inputs.items()
        }
    order = None
    if model is not None and len(runtime.inputs) > 1:
        order = flavor.input_names(model) or in_number_order(runtime.inputs)
    return named_samples(runtime, samples, order)


def _pair(
    file_outputs: dict[str, np.ndarray], keras_outputs: dict[str, np.ndarray], model: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The Keras outputs under the file's names, and what does not fit."""
    if len(file_outputs) != len(keras_outputs):
        return {}, [f"The file has {len(file_outputs)} outputs, the Keras model has {len(keras_outputs)}."]
    values = list(keras_outputs.values())
    paired = dict(zip(in_number_order(file_outputs), values, strict=True))
    for names in (list(keras_outputs), list(getattr(model, "output_names", None) or ())):
        if set(names) == set(file_outputs):
            paired = dict(zip(names, values, strict=True))
    problems = [
        f"Output {name!r} has shape {file_outputs[name].shape[1:]} in the file and {paired[name].shape[1:]} in Keras."
        for name in paired
        if file_outputs[name].shape != paired[name].shape
    ]
    return ({} if problems else paired), problems


def _compare(name: str, file_output: np.ndarray, keras_output: np.ndarray) -> OutputComparison:
    reference = keras_output.astype(np.float64)
    difference = np.abs(file_output.astype(np.float64) - reference)
    length = np.linalg.norm(reference)
    classifier = reference.ndim == 2 and reference.shape[1] > 1
    agreement = np.mean(predicted_classes(file_output) == predicted_classes(keras_output)) if classifier else None
    return OutputComparison(
        name=name,
        shape=file_output.shape[1:],
        largest_error=float(difference.max()),
        mean_error=float(difference.mean()),
        relative_error=float(np.linalg.norm(difference) / length) if length else float(difference.max()),
        agreement=None if agreement is None else float(agreement),
    )


def _disagrees(row: OutputComparison, tolerance: float, steps: dict[str, float]) -> bool:
    # Probabilities spread over many classes may all lie below one step of an integer output.
    within_rounding = row.largest_error <= 2 * steps[row.name]
    return not (row.relative_error <= tolerance or within_rounding)


def _disagreement(row: OutputComparison, tolerance: float) -> str:
    return (
        f"Output {row.name!r} differs from the Keras model's by a relative error of {row.relative_error:.3g}, "
        f"more than the tolerance {tolerance:g}."
    )


def _not_finite(outputs: dict[str, np.ndarray]) -> list[str]:
    return [name for name, values in outputs.items() if not np.isfinite(values).all()]


def _default_tolerance(quantization: str | None, model: Any) -> float:
    layers = () if model is None else flavor.layers_of(model)
    half = any(getattr(layer, "compute_dtype", None) in ("float16", "bfloat16") for layer in layers)
    return max(TOLERANCE[quantization], _HALF_PRECISION_TOLERANCE if half else 0.0)


def _macs(file: TfliteFile, model: Any) -> MacCount:
    """The file's own count; the model's where the file holds loops, whose length only the model tells."""
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
    if result.accuracy is not None:
        keras = "" if result.keras_accuracy is None else f" (Keras {result.keras_accuracy:.2%})"
        yield f"  accuracy      {result.accuracy:.2%}{keras} on {result.samples} samples"
    if result.zeros_kept is not None:
        yield f"  zeros kept    {result.zeros_kept:.2%}"
    if result.outputs:
        yield ""
        yield from _table(
            [f"output, {result.samples} samples", "largest error", "mean error", "relative", "same class"],
            [
                [
                    row.name,
                    f"{row.largest_error:.3g}",
                    f"{row.mean_error:.3g}",
                    f"{row.relative_error:.3g}",
                    "" if row.agreement is None else f"{row.agreement:.2%}",
                ]
                for row in result.outputs
            ],
        )
    yield ""
    if result.weights:
        yield from _table(
            ["layer", "shape", "zeros in Keras", "in the file", "kept"],
            [
                [
                    row.layer,
                    "x".join(map(str, row.shape)),
                    f"{row.keras_zeros / row.elements:.2%}",
                    *(
                        ("not found", "")
                        if row.tensor is None
                        else (
                            f"{row.file_zeros / row.elements:.2%}",
                            f"{row.kept / row.keras_zeros:.2%}" if row.keras_zeros else "",
                        )
                    ),
                ]
                for row in result.weights
            ],
        )
    else:
        yield from _table(
            ["tensor", "shape", "type", "bytes", "zeros"],
            [
                [row.name[-60:], "x".join(map(str, row.shape)), row.dtype, f"{row.bytes:,}", f"{row.sparsity:.2%}"]
                for row in result.tensors
                if row.is_weight
            ],
        )


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Lines of a table, the first column to the left and the others to the right."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        aligned = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        yield "  " + "  ".join(aligned).rstrip()
