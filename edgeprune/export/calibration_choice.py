"""Where the ranges of an int8 file come from: from the converter, or put into the graph; and whether to equalize first.

With `"auto"` each way is tried on files made from half of the samples and measured on the other half; one is kept only
where the measured error falls. Where the converter's own ranges leave next to none, nothing else is tried.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.export.agreement import pair_outputs
from edgeprune.export.prepared import PreparedModel
from edgeprune.measure.predictions import predict
from edgeprune.output_capture import captured_output
from edgeprune.quantization.calibration import calibrate
from edgeprune.quantization.equalization import equalize
from edgeprune.quantization.ranges import RANGE_METHODS
from edgeprune.quantization.training import quantize_aware
from edgeprune.schemes import Scheme
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Model

MIN_MAX, AUTO = "min-max", "auto"
CALIBRATIONS = (*RANGE_METHODS, AUTO)
_FALLS = 0.95  # an error that is less than this share of another is smaller
_NEGLIGIBLE = 1e-3  # of the outputs' variance: 30 dB
_MEASURED_ON = 64  # samples at most

# Converts a prepared model, calibrated on its samples; returns the content of the file.
Converter = Callable[[PreparedModel], bytes]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A way to convert a model, and what it led to on samples that it was not calibrated on."""

    prepared: PreparedModel
    words: str
    error: float


def check_calibration(calibration: str, quantization: str | None, model_has_ranges: bool) -> None:
    """Refuse a way of choosing ranges that is none, or that a file has no use for.

    Raises:
        ValueError: names what is accepted.
    """
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {', '.join(map(repr, CALIBRATIONS))}; got {calibration!r}.")
    if calibration == MIN_MAX:
        return
    if quantization != "int8":
        raise ValueError(
            f"calibration={calibration!r} is for quantization='int8', got {quantization!r}: leave it out, as "
            "other files have room for the whole range of values."
        )
    if model_has_ranges:
        raise ValueError(
            f"calibration={calibration!r} is for a float model; this one is quantization-aware and has its ranges: "
            "leave it out."
        )


def calibrated(prepared: PreparedModel, calibration: str, scheme: Scheme, convert: Converter) -> PreparedModel:
    """A prepared model with the ranges of its activations, if any other than the converter's shall be used.

    Args:
        prepared: the model, with its samples.
        calibration: one of `CALIBRATIONS`.
        scheme: what it is converted to.
        convert: makes a file, for `"auto"`.

    Returns:
        The same model, or one that computes the same, with what was chosen among its notes.

    Raises:
        ValueError: the ranges of the model cannot be put into its graph.
    """
    if calibration == MIN_MAX:
        return prepared
    if calibration != AUTO:
        return _with_ranges(prepared, calibration, scheme)
    return _chosen(prepared, scheme, convert)


def _with_ranges(prepared: PreparedModel, method: str, scheme: Scheme) -> PreparedModel:
    rounding = quantize_aware(prepared.model, scheme, keep_zeros=False)
    samples = prepared.samples or {}
    calibrate(rounding, samples, len(next(iter(samples.values()))), method)
    return dataclasses.replace(prepared, in_file=rounding)


def _equalized(prepared: PreparedModel) -> PreparedModel:
    found = equalize(prepared.model, prepared.samples)
    if not found.scaled:
        raise ValueError("no channel can be scaled")
    return dataclasses.replace(prepared, model=found.model)


def _chosen(prepared: PreparedModel, scheme: Scheme, convert: Converter) -> PreparedModel:
    """The best of what is tried, made again from all the samples."""
    samples = prepared.samples or {}
    half = dataclasses.replace(prepared, samples={name: array[::2] for name, array in samples.items()})
    # With one sample there is no other to measure on.
    held_out = {name: (array[1::2] if len(array) > 1 else array)[:_MEASURED_ON] for name, array in samples.items()}
    wanted = predict(prepared.model, held_out if len(held_out) > 1 else next(iter(held_out.values())))
    tried: list[_Candidate] = []
    failed: list[str] = []

    def attempt(words: str, make: Callable[[], PreparedModel]) -> None:
        try:
            made = make()
            tried.append(_Candidate(made, words, _file_error(convert(made), made.model, held_out, wanted)))
        except ValueError as error:
            failed.append(f"{words}: {str(error)[:120]}")

    attempt("min-max", lambda: half)
    if tried and tried[0].error > _NEGLIGIBLE:
        attempt("equalized", lambda: _equalized(half))
        base = _better(tried)
        before = "" if base is tried[0] else f"{base.words}, "
        for method in RANGE_METHODS:
            if method != MIN_MAX:
                attempt(f"{before}{method}", functools.partial(_with_ranges, base.prepared, method, scheme))
    if not tried:  # the conversion says what is wrong
        return prepared
    best = _better(tried)
    listed = ", ".join(f"{one.words} {one.error:.2%}" for one in tried)
    note = f"Calibration: {best.words}. Error on samples that were held out, of the outputs' variance: {listed}."
    if failed:
        note += f" Not tried: {'; '.join(failed)}."
    made = prepared
    if best.words.startswith("equalized"):
        made = _equalized(made)
    if best.words.endswith(("percentile", "mse")):
        made = _with_ranges(made, best.words.rpartition(" ")[2], scheme)
    return dataclasses.replace(made, notes=(*prepared.notes, note))


def _better(tried: list[_Candidate]) -> _Candidate:
    """The first whose error no later one is clearly below: what is simpler comes first."""
    best = tried[0]
    for one in tried[1:]:
        if one.error < best.error * _FALLS:
            best = one
    return best


def _file_error(
    content: bytes, model: Model, samples: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> float:
    """The mean squared error of a file's outputs over their variance, the mean of all outputs.

    Raises:
        ValueError: the file does not run, or has other outputs.
    """
    with tempfile.TemporaryDirectory() as folder, captured_output():
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        made = Runtime(path).run_all(samples, "Measuring")
    expected, problems = pair_outputs(made, wanted, model)
    if problems:
        raise ValueError(problems[0])
    errors = []
    for name, values in expected.items():
        difference = np.square(made[name].astype(np.float64) - values).mean()
        errors.append(float(difference / max(np.var(values.astype(np.float64)), 1e-12)))
    return float(np.mean(errors))
