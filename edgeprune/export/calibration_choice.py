"""What is done to a float model before its file is made: equalized or not, its weights solved, its ranges chosen.

With `"auto"`, the default, each of these is tried on a simulation of the file that is calibrated on half of the
samples, and measured on the other half; one is kept only where the measured error falls. Where the plain file loses
next to nothing, nothing else is tried. The converter runs once, for the file that is written.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor, strip
from edgeprune.data.ports import input_shapes
from edgeprune.depth.bypass import walkable
from edgeprune.export.prepared import PreparedModel
from edgeprune.quantization.calibration import calibrate
from edgeprune.quantization.equalization import equalize
from edgeprune.quantization.planning import with_wider_layers
from edgeprune.quantization.ranges import RANGE_METHODS
from edgeprune.quantization.rounding import round_weights
from edgeprune.quantization.simulated_file import SimulatedFile, outputs_of
from edgeprune.quantization.training import quantize_aware
from edgeprune.schemes import Scheme
from edgeprune.types import Model

MIN_MAX, AUTO = "min-max", "auto"
CALIBRATIONS = (*RANGE_METHODS, AUTO)
_CHOSEN_FOR = ("int8", "int4")
_FALLS = 0.95  # an error that is less than this share of another is smaller
_NEGLIGIBLE = 1e-3  # of the outputs' variance: 30 dB
_LOSSY = 1e-2  # where the weights of 8 bits are worth the time to solve for them
_MOST_SOLVED = 1_000_000  # parameters of a model whose weights are solved for in a trial, which takes minutes beyond
_MEASURED_ON = 64  # samples at most
_FEWEST = 8  # samples: fewer say little about others


def check_calibration(calibration: str, quantization: str | None, model_has_ranges: bool) -> None:
    """Refuse a way of choosing ranges that is none, or that a file has no use for.

    Raises:
        ValueError: names what is accepted.
    """
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {', '.join(map(repr, CALIBRATIONS))}; got {calibration!r}.")
    if calibration in (MIN_MAX, AUTO):  # which any file may have, or which chooses nothing where there is no choice
        return
    if quantization not in _CHOSEN_FOR:
        raise ValueError(
            f"calibration={calibration!r} is for quantization='int8' or 'int4', got {quantization!r}: leave it out, as "
            "other files have room for the whole range of values."
        )
    if model_has_ranges:
        raise ValueError(
            f"calibration={calibration!r} is for a float model; this one is quantization-aware and has its ranges: "
            "leave it out."
        )


def calibrated(prepared: PreparedModel, calibration: str, scheme: Scheme) -> PreparedModel:
    """A prepared model as it is converted: with weights of 4 bits, and with ranges other than the converter's.

    Args:
        prepared: the model, with its samples.
        calibration: one of `CALIBRATIONS`.
        scheme: what it is converted to.

    Returns:
        The same model, or one that computes the same, with what was done among its notes.

    Raises:
        ValueError: the ranges of the model cannot be put into its graph, or it cannot be followed; a pattern of the
            scheme fits no layer; or it leaves layers in floats, and there are no samples.
    """
    if scheme.has_float_layers and prepared.samples is None:
        raise ValueError(
            "A scheme with layers in floats needs representative_data, also for a model from quantize_aware: the "
            "ranges behind these layers are found from them."
        )
    if strip.is_quantize_aware(prepared.model) or scheme.name not in _CHOSEN_FOR:
        return prepared
    if calibration == AUTO and _count(prepared) < _FEWEST:
        made = _made(prepared, _Way(MIN_MAX, solved=scheme.has_four_bits), scheme)
        note = f"Calibration: min-max, as {_FEWEST} samples or more are needed to measure other ways."
        return dataclasses.replace(made, notes=(*made.notes, note))
    if calibration == AUTO:
        return _chosen(prepared, scheme)
    return _made(prepared, _Way(calibration, solved=scheme.has_four_bits), scheme)


def _chosen(prepared: PreparedModel, scheme: Scheme) -> PreparedModel:
    """The best of what is tried, made again from all the samples."""
    trials = _Trials(prepared, scheme)
    trials.attempt(_Way(MIN_MAX))
    for change, least in _changes(scheme, prepared.model.count_params() <= _MOST_SOLVED):
        if trials.errors and trials.errors[trials.best] > least:
            trials.attempt(dataclasses.replace(trials.best, **change))
    if scheme.has_four_bits:  # that solved weights are better needs no trial
        trials.best = dataclasses.replace(trials.best, solved=True)
    made = _made(prepared, trials.best, trials.scheme(trials.best))
    return dataclasses.replace(made, notes=(*made.notes, trials.note))


def _changes(scheme: Scheme, is_small: bool) -> Iterator[tuple[dict[str, Any], float]]:
    """What is tried, each with the error up to which it is not."""
    yield {"equalized": True}, _NEGLIGIBLE
    if scheme.has_four_bits and is_small:  # by 4 bits more is lost than by ranges
        yield {"solved": True}, _NEGLIGIBLE
        if scheme.weight_bits == 4 and not scheme.layers:
            yield {"wider": True}, _NEGLIGIBLE
    for method in RANGE_METHODS:
        yield {"method": method}, _NEGLIGIBLE
    if not scheme.has_four_bits and is_small:
        yield {"solved": True}, _LOSSY


@dataclass(frozen=True)
class _Way:
    """A way to make a file of a float model.

    Attributes:
        method: how ranges are chosen.
        equalized: whether channels are scaled before.
        solved: whether the rounded weights are solved for, and biases take up what is left.
        wider: whether some layers keep 8 bits where the others have 4.
    """

    method: str
    equalized: bool = False
    solved: bool = False
    wider: bool = False

    def __str__(self) -> str:
        """In words."""
        named = (
            ("equalized", self.equalized),
            ("layers of 8 bits", self.wider),
            ("weights solved", self.solved),
            (self.method, self.method != MIN_MAX),
        )
        return ", ".join(words for words, is_done in named if is_done) or MIN_MAX


def _made(prepared: PreparedModel, way: _Way, scheme: Scheme) -> PreparedModel:
    """A prepared model as it is converted."""
    prepared = _with_new_weights(prepared, way, scheme)
    if way.method == MIN_MAX and (way.solved or not scheme.has_four_bits):
        return prepared
    rounding = quantize_aware(prepared.to_convert, scheme, keep_zeros=False)
    samples = _inputs(rounding, prepared)
    calibrate(rounding, samples, len(next(iter(samples.values()))), way.method)
    return dataclasses.replace(prepared, in_file=rounding)


def _with_new_weights(prepared: PreparedModel, way: _Way, scheme: Scheme) -> PreparedModel:
    """A prepared model, in floats, with its channels equalized, or its weights solved, or neither."""
    if way.equalized:
        model = walkable(prepared.model)
        equalized = _equalized(model, _inputs(model, prepared))
        prepared = dataclasses.replace(prepared, in_file=equalized)
    if way.solved:
        model = walkable(prepared.to_convert)  # once: each graph of a subclassed model has inputs of other names
        found = round_weights(model, _inputs(model, prepared), scheme)
        note = (
            f"Weights: solved on {found.num_samples:,} samples, an error of the outputs of {found.after:.2%}; at their "
            f"nearest steps it is {found.before:.2%}."
        )
        prepared = dataclasses.replace(prepared, in_file=found.model, notes=(*prepared.notes, note))
    return prepared


def _count(prepared: PreparedModel) -> int:
    return len(next(iter((prepared.samples or {}).values()), ()))


def _inputs(model: Model, prepared: PreparedModel) -> dict[str, np.ndarray]:
    """The samples by the names that a model's inputs have in Keras, which need not be those in a file."""
    return dict(zip(input_shapes(walkable(model)), (prepared.samples or {}).values(), strict=True))


def _equalized(model: Model, samples: dict[str, np.ndarray]) -> Model:
    found = equalize(model, samples)
    if not found.scaled:
        raise ValueError("no channel can be scaled")
    return found.model


class _Trials:
    """What was tried on half of the samples, and its errors on the other half.

    Args:
        prepared: the float model, with its samples.
        scheme: what the file is to be.

    Attributes:
        best: what is kept so far; the first, or one that was clearly better.
        errors: what was tried to its error.
    """

    def __init__(self, prepared: PreparedModel, scheme: Scheme) -> None:
        samples = _inputs(prepared.model, prepared)
        self.best = _Way(MIN_MAX)
        self.errors: dict[_Way, float] = {}
        self._failed: list[str] = []
        self._half = dataclasses.replace(prepared, samples={name: array[::2] for name, array in samples.items()})
        self._held_out = {name: array[1::2][:_MEASURED_ON] for name, array in samples.items()}
        self._wanted = outputs_of(walkable(prepared.model), self._held_out)
        self._scheme = scheme
        self._wider_scheme: Scheme | None = None
        self._simulated: dict[_Way, SimulatedFile] = {}  # of ways with the plain ranges

    def attempt(self, way: _Way) -> None:
        """Measure a way that was not tried yet."""
        if way in self.errors:
            return
        try:
            simulated = self._simulation(dataclasses.replace(way, method=MIN_MAX))
            simulated.set_ranges(way.method)
            self.errors[way] = simulated.error(self._held_out, self._wanted)
        except Exception as error:  # of layers of the user's own too: the plain file does not need any of this
            self._failed.append(f"{way}: {flavor.first_line(error)}")
            return
        if self.errors[way] < self.errors.get(self.best, np.inf) * _FALLS:
            self.best = way

    def _simulation(self, way: _Way) -> SimulatedFile:
        if way not in self._simulated:
            base = _with_new_weights(self._half, dataclasses.replace(way, solved=False), self._scheme)
            if way.wider and self._wider_scheme is None:
                model = walkable(base.to_convert)
                self._wider_scheme = with_wider_layers(model, _inputs(model, base))
            with warnings.catch_warnings():  # of half of the samples being few
                warnings.simplefilter("ignore", UserWarning)
                made = _with_new_weights(base, _Way(MIN_MAX, solved=way.solved), self.scheme(way))
            model = made.to_convert
            self._simulated[way] = SimulatedFile(model, self.scheme(way), _inputs(model, base))
        return self._simulated[way]

    def scheme(self, way: _Way) -> Scheme:
        """The scheme of a way that was tried."""
        return self._wider_scheme if way.wider and self._wider_scheme else self._scheme

    @property
    def note(self) -> str:
        """What is kept, what was tried, and what could not be."""
        listed = ", ".join(f"{way} {error:.2%}" for way, error in self.errors.items())
        note = f"Calibration: {self.best}{f' ({self._wider_scheme})' if self.best.wider else ''}."
        if listed:
            note += f" Error on samples that were held out, of the outputs' variance: {listed}."
        return f"{note} Not tried: {'; '.join(self._failed)}." if self._failed else note
