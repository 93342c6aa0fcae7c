"""A model made ready for the converter, once however many files are written of it: plain, checked, with its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.conversion import equal_calls
from edgeprune.conversion.signature import signature_specs
from edgeprune.export import non_finite, representative, vocabulary_files
from edgeprune.export.preprocessing_split import SplitModel, split_preprocessing
from edgeprune.export.sample_ranges import range_notes
from edgeprune.types import DataLike, Model


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """A plain model to convert.

    Attributes:
        model: without pruning, and without the layers that are left to the application.
        specs: input name to `tf.TensorSpec`, with a batch of one.
        samples: input name to representative samples `(samples, ...)`; None without.
        whole_specs: the inputs of the model with the layers that are left to the application.
        split: where these were taken off; None where the model is whole.
        notes: what the user should know, a sentence each.
        in_file: a model that computes the same, or nearly, and is converted in its place, as its channels are
            equalized, its weights rounded, or it holds the ranges of its activations; None without.
    """

    model: Model
    specs: Mapping[str, Any]
    samples: dict[str, np.ndarray] | None
    whole_specs: Mapping[str, Any]
    split: SplitModel | None
    notes: tuple[str, ...]
    in_file: Model | None = None

    @property
    def to_convert(self) -> Model:
        """The model whose graph and weights are in the file."""
        return self.model if self.in_file is None else self.in_file


def prepare(
    model: Model,
    representative_data: DataLike | None,
    check_inputs: Callable[[Model, Mapping[str, Any]], None],
    *,
    calibrated: bool = True,
    num_samples: int = 100,
    without_preprocessing: bool = False,
) -> PreparedModel:
    """Make a built model ready to be converted; the model itself is not changed.

    Args:
        model: a built model of `keras` 3 or `tf_keras`.
        representative_data: samples as `export_tflite` accepts them; None without.
        check_inputs: raises where the model that is converted has inputs that are not available, before data are read.
        calibrated: whether a file has integer activations, and so has the ranges of a quantization-aware model.
        num_samples: how many of them to use at most.
        without_preprocessing: whether layers that handle strings, or hash, are left to the application.

    Raises:
        TypeError: `representative_data` is of no known kind.
        ValueError: the model keeps a state between calls, a weight is NaN or infinite, the data do not fit it, or it is
            one of Keras 3 inside the scope of a `tf.distribute` strategy.
    """
    from edgeprune import strip  # imports TensorFlow

    if flavor.is_keras_3(model):  # tf_keras can be converted there
        flavor.check_outside_scope(model)
    if calibrated:
        flavor.check_not_quantized_by_keras(model)
    notes = []
    if strip.is_pruned(model):
        notes.append(
            "The model is under pruning: what was converted is a plain model, its masks applied, masked channels gone."
        )
    model = strip.without_pruning(model)
    if strip.is_quantize_aware(model) and not calibrated:
        notes.append(
            "The model is quantization-aware, and what was converted is the float model in it: pass "
            "quantization='int8' for a file with its ranges."
        )
        model = strip.strip_quantization(model)
    equal_calls.refuse_stateful(model)
    non_finite.check_weights(model)
    specs = whole_specs = signature_specs(model)
    split = split_preprocessing(model, only_strings=True) if without_preprocessing else None
    if split is not None:
        model, specs = split.rest, signature_specs(split.rest)
        notes += vocabulary_files.preprocessing_lines(split)
    check_inputs(model, specs)
    samples = None
    if representative_data is not None:
        samples = representative.samples(representative_data, whole_specs, num_samples)
        samples = samples if split is None else split.preprocess(samples)
    if samples is not None:
        notes += range_notes(model, samples)
    return PreparedModel(model, specs, samples, whole_specs, split, tuple(notes))
