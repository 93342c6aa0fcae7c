"""Whether the outputs of a .tflite file agree with its Keras model's, as a whole and each channel by itself.

An output of an integer file has one step for all its values. Where parts of it have other units (boxes in pixels beside
scores) or all values a large offset (1013 hPa and a little), the error relative to the whole is small although a part
carries no information any more. So the error of each channel is also measured against the channel's own spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.measure.accuracy import predicted_classes
from edgeprune.measure.predictions import keras_output_names
from edgeprune.types import Model

# A channel is lost where its error is this much of its spread or more: its mean would be as good a guess.
_LOST = 0.9
# An error of this many times the step, or the other channels' error, is the recipe's own rounding.
_ROUNDING = 4.0
# Channels whose spread is smaller than others' by this factor are of another kind than those: another unit.
_OTHER_KIND = 8.0
# A spread of less than this share of the channel's values is the float computation's own error.
_FLOAT_ERROR = 1e-4
# A spread of fewer values than this says little: one sample near a decision is enough for the error.
_FEWEST = 3.0
# Outputs between 0 and 1 with a step below this are probabilities, of which the small ones may become 0.
_PROBABILITY_STEP = 0.01


@dataclass(frozen=True)
class OutputComparison:
    """One output of the file beside the Keras model's.

    Attributes:
        name: the output's name in the file.
        shape: its shape without the batch.
        largest_error: largest absolute difference.
        mean_error: mean absolute difference.
        relative_error: length of the difference over length of the Keras output (Euclidean, over all samples).
        spread_error: standard deviation of the error over that of the Keras output, both around the mean over the
            samples: at 1 the mean would be as good a guess. `None` where there is no spread: constant outputs, very
            few samples.
        agreement: share of samples for which both name the same class; `None` where the output is no list of
            classes.
    """

    name: str
    shape: tuple[int, ...]
    largest_error: float
    mean_error: float
    relative_error: float
    spread_error: float | None
    agreement: float | None


def pair_outputs(
    file_outputs: Mapping[str, np.ndarray], keras_outputs: Mapping[str, np.ndarray], model: Model
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Name the Keras outputs as the file does.

    Args:
        file_outputs: what the file gave, by name.
        keras_outputs: what the model gave, as `flavor.named_outputs` names it.
        model: the Keras model.

    Returns:
        The file's names to Keras outputs, empty where they do not fit; and what does not fit, in words.
    """
    if len(file_outputs) != len(keras_outputs):
        return {}, [f"The file has {len(file_outputs)} outputs, the Keras model has {len(keras_outputs)}."]
    names = keras_output_names(file_outputs, keras_outputs, model)
    paired = {name: keras_outputs[own] for name, own in names.items()}
    problems = [
        f"Output {name!r} has shape {file_outputs[name].shape[1:]} in the file and {paired[name].shape[1:]} in Keras."
        for name in paired
        if file_outputs[name].shape != paired[name].shape
    ]
    return ({} if problems else paired), problems


def compare_output(
    name: str, file_output: np.ndarray, keras_output: np.ndarray, step: float, tolerance: float
) -> tuple[OutputComparison, list[str]]:
    """Compare one output of a file with the Keras model's.

    Args:
        name: the output's name in the file.
        file_output: real values `(samples, ...)`.
        keras_output: the same of the Keras model.
        step: the real value of one step of an output computed in integers, else 0.
        tolerance: the largest relative error to accept.

    Returns:
        The figures, and what is wrong, in words.
    """
    if keras_output.dtype == object:
        return _compare_strings(name, file_output, keras_output)
    # Channels are the last axis with most outputs, and another where a layer's layout is turned around.
    by_axis = [_channels(file_output, keras_output, axis) for axis in range(max(keras_output.ndim, 2) - 1, 0, -1)]
    row = _figures(name, file_output, keras_output, by_axis[0])
    # Probabilities spread over many classes may all lie below one step of an integer output.
    if not (row.relative_error <= tolerance or row.largest_error <= 2 * step):
        return row, [
            f"Output {name!r} differs from the Keras model's by a relative error of {row.relative_error:.3g}, "
            f"more than the tolerance {tolerance:g}."
        ]
    probabilities = step <= _PROBABILITY_STEP and keras_output.min() >= 0 and keras_output.max() <= 1
    findings = (_finding(channels, step, max(tolerance, _LOST), probabilities) for channels in by_axis)
    return row, [f"Output {name!r}{finding}" for finding in findings if finding][:1]


def _compare_strings(
    name: str, file_output: np.ndarray, keras_output: np.ndarray
) -> tuple[OutputComparison, list[str]]:
    """The same for strings, which are equal or not: the error is the share of those that are not."""
    different = file_output != keras_output
    share = float(np.mean(different))
    row = OutputComparison(name, file_output.shape[1:], float(different.any()), share, share, None, None)
    return row, [f"Output {name!r}: {share:.1%} of its strings differ from the Keras model's."] if share else []


def _figures(name: str, file_output: np.ndarray, keras_output: np.ndarray, channels: _Channels) -> OutputComparison:
    reference = keras_output.astype(np.float64)
    difference = np.abs(file_output.astype(np.float64) - reference)
    length = np.linalg.norm(reference)
    spread, error = (np.linalg.norm(values[channels.judged]) for values in (channels.spread, channels.error))
    classifier = reference.ndim == 2 and reference.shape[1] > 1
    agreement = np.mean(predicted_classes(file_output) == predicted_classes(keras_output)) if classifier else None
    return OutputComparison(
        name=name,
        shape=file_output.shape[1:],
        largest_error=float(difference.max()),
        mean_error=float(difference.mean()),
        relative_error=float(np.linalg.norm(difference) / length) if length else float(difference.max()),
        spread_error=float(error / spread) if spread else None,
        agreement=None if agreement is None else float(agreement),
    )


def _finding(channels: _Channels, step: float, lost_from: float, probabilities: bool) -> str | None:
    """What is wrong with single channels, `None` if nothing."""
    lost = channels.judged & (channels.error >= lost_from * channels.spread)
    kept = channels.judged & ~lost
    rounding = _ROUNDING * max(step, np.median(channels.error[kept]) if kept.any() else 0.0)
    wrong = lost & (channels.error > rounding)
    if wrong.any():
        ratio = np.max(channels.error[wrong] / channels.spread[wrong])
        return f"{channels.named(wrong)}: the error is {ratio:.2g} times the spread of the Keras model's values."
    spread = channels.spread[lost].max(initial=0.0)
    # A few weak channels among many alike, as in a feature map, are no loss.
    if not spread or not step or probabilities or (kept.any() and channels.spread[kept].min() < _OTHER_KIND * spread):
        return None
    return (
        f"{channels.named(lost)}: no information is left. One step of the file's integers is {step:.3g}, and the Keras "
        f"model's values spread by {spread:.3g} over the samples. Make parts of different ranges outputs of their own, "
        "scale them alike (remove Rescaling from the model and scale in the application), or choose a finer "
        "quantization: int16x8, or dynamic or float16, whose outputs are floats."
    )


@dataclass(frozen=True)
class _Channels:
    """The error and the spread of each channel along one axis of an output, root mean squares over the rest.

    Attributes:
        axis: the axis.
        spread: deviation of the Keras output from its mean over the samples.
        error: deviation of the file's error from its mean over the samples; a constant offset is the whole's matter.
        judged: whether the spread is more than chance and float error.
    """

    axis: int
    spread: np.ndarray
    error: np.ndarray
    judged: np.ndarray

    def named(self, chosen: np.ndarray) -> str:
        """Some of the channels in words, the first few by number; nothing where there is but one."""
        numbers = np.flatnonzero(chosen)
        if len(chosen) == 1:
            return ""
        listed = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        return f", channel{'s' * (len(numbers) > 1)} {listed} of {len(chosen)} (axis {self.axis})"


def _channels(file_output: np.ndarray, keras_output: np.ndarray, axis: int) -> _Channels:
    count = len(keras_output)
    shape = (count, -1, keras_output.shape[axis]) if keras_output.ndim > 1 else (count, 1, 1)
    reference, given = (
        (np.moveaxis(values, axis, -1) if values.ndim > 1 else values).reshape(shape).astype(np.float32)
        for values in (keras_output, file_output)
    )
    with np.errstate(invalid="ignore"):  # infinite values are reported by themselves
        deviation, error = (_deviation_from_mean(values) for values in (reference, given - reference))
        squares = np.square(deviation)
        energy = squares.sum(axis=(0, 1), dtype=np.float64)
        fourth = np.einsum("spc,spc->c", squares, squares, dtype=np.float64)
        counted = np.divide(energy**2, fourth, out=np.zeros_like(energy), where=fourth > 0)  # values that make it up
        places = squares.shape[0] * squares.shape[1]
        spread, error = (
            np.sqrt(energy / places),
            np.sqrt(np.einsum("spc,spc->c", error, error, dtype=np.float64) / places),
        )
    judged = (counted >= _FEWEST) & (spread > _FLOAT_ERROR * np.abs(reference).max(axis=(0, 1)))
    return _Channels(axis, spread, error, judged)


def _deviation_from_mean(values: np.ndarray) -> np.ndarray:
    """The deviation from the mean over the samples; of a single sample, over its places."""
    axis = 0 if len(values) > 1 else 1
    return values - values.mean(axis=axis, keepdims=True, dtype=np.float64).astype(values.dtype)
