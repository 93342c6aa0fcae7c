"""Convert a Keras model to a .tflite file, open the file, and compare it with the model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import numbers
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune import flavor
from edgeprune.atomic import atomic_paths
from edgeprune.conversion import equal_calls
from edgeprune.conversion.converter_run import ConverterSettings, check_flags, run_converter
from edgeprune.conversion.known_values import known_values, random_samples
from edgeprune.conversion.signature import (
    inputs_of_strings,
    names_to_trace,
    traceable_names,
    write_saved_model,
)
from edgeprune.data.batches import DATA_FORMS
from edgeprune.export import calibration_choice, diagnosis, non_finite, sparse_encoding, vocabulary_files
from edgeprune.export.float_layers import float_locations, is_in_floats
from edgeprune.export.loop_refusal import refuse_loops
from edgeprune.export.prepared import PreparedModel, prepare
from edgeprune.export.result import ExportResult
from edgeprune.export.verify import FORMAT_TOLERANCE, Verification, verify_tflite
from edgeprune.measure.size import file_size
from edgeprune.output_capture import captured_output
from edgeprune.progress import status
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.targets import Target
from edgeprune.targets import target as target_named
from edgeprune.tflite.compact import compact
from edgeprune.tflite.edit import in_order, with_names
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.four_bits import READ_FOUR_BITS, with_four_bit_weights
from edgeprune.tflite.integer_elu import in_integers
from edgeprune.tflite.repairs import repaired
from edgeprune.types import Calibration, DataLike, Model, Quantization

# What the converter says where it must not measure a model that has ranges: what only moves would have one scale before
# and another behind; and its interpreter divides by no integer 0, though that stands for another number in int8.
_NOT_TO_MEASURE = ("violate the same scale constraint", "kernels/div.cc")


@dataclass(frozen=True)
class ValidationData:
    """Labelled data to verify a file on.

    Attributes:
        x: the inputs, as the Keras model expects them.
        y: the targets; None without.
        sample_weight: a weight for each sample; None without.
        metric: what to score by, as `ep.score` accepts it; None for the model's own.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    metric: Any = None


def export_tflite(
    model: Model,
    path: str | Path,
    quantization: Quantization | Scheme | None = None,
    representative_data: DataLike | None = None,
    *,
    sparse: bool = False,
    integer_io: bool | Literal["int8", "uint8"] = True,
    per_channel_dense: bool = True,
    num_samples: int = 100,
    calibration: Calibration = "auto",
    target: str | Target | None = None,
    without_preprocessing: bool = False,
    overwrite: bool = False,
    allow_flex: bool = False,
    allow_custom: bool = False,
    verify: bool = True,
    verbose: bool | Literal[0, 1] = True,
) -> ExportResult:
    """Convert a Keras model to a .tflite file and prove the file against the model.

    The file runs on one sample at a time (a batch of 1), and its signature has the names of the model's inputs and
    outputs: those of the `Input` layers and of the output layers, or the keys of a dict. A model in mixed
    precision is converted as a float32 one. It is written whole or not at all.

    Recurrent layers are loops in floats. In int8 an LSTM with its default activations is one operator, whose state a
    file carries between runs until it is reset (a note says so); all others, and all in int16x8, are unrolled.

    Args:
        model: a built model of `keras` 3 or `tf_keras`: Sequential, Functional or subclassed. Pruning is ended
            first where it carries any; the model itself is not changed.
        path: the file to write, by convention `*.tflite`. Its folder is made if it does not exist.
        quantization: `None` keeps float32; `"float16"` stores weights in half the bytes; `"dynamic"` stores weights
            as int8 and computes in floats; `"int8"` computes in int8; `"int16x8"` has int16 activations and
            int8 weights; `"int4"` computes in int8 with weights of 4 bits, those of a model from `quantize_aware`, or
            solved on the data by `round_weights`. Or a `Scheme` object, which can have other bits for single layers.
        representative_data: samples of what the model will see, needed for `"int8"`, `"int16x8"` and `"int4"` but of a
            model from `quantize_aware`, which has its ranges, and used to verify the file. An array; a dict of input
            name to array, or a list, for several inputs; a `tf.data.Dataset`, a Keras `PyDataset` or `Sequence`, or a
            function that returns a generator.
        sparse: store weights without their zeros, where runtimes compute that right.
        integer_io: whether the inputs and outputs of an `"int8"` or `"int16x8"` file are integers, int8 or int16,
            rather than floats. `"uint8"` makes those of an `"int8"` file uint8 (`"int8"` is the same as `True`).
            Inputs of whole numbers, such as tokens, are not changed.
        per_channel_dense: whether each unit of a dense layer has a scale of its own in an `"int8"` or `"int16x8"`
            file, which is more accurate. With `False` the layer has one scale: the file is smaller, and a
            microcontroller needs less RAM, as TFLM keeps two numbers for each scale.
        num_samples: how many representative samples to use at most, 1 or more.
        calibration: how an `"int8"` or `"int4"` file of a float model is calibrated. `"auto"` simulates the file: on
            half of the samples it tries the ways below, `equalize` and `round_weights`, measures each on the other
            half, and keeps what lowers the error, until next to none is left; a note reports the figures. In an
            `"int4"` file it may let some layers keep 8 bits (a tenth of the weights' bytes at most). Or only a way to
            choose the ranges of activations: `"min-max"` takes all values that occur in the samples; `"percentile"`
            leaves out one in a thousand; `"mse"` takes the range with the smallest squared error. A model from
            `quantize_aware` keeps its own.
        target: the device that the file is for, by name or a `Target`: weights of 4 bits that its runtime does not read
            so are stored in 8, on the same grid. Left out, they have 4 wherever LiteRT reads them.
        without_preprocessing: leave the lookup layers that handle strings, or hash, to the application, as
            `split_preprocessing(model, only_strings=True)` does. Beside the file lies `vocabulary.txt`, an entry a line
            (of several layers `vocabulary_LAYER.txt`), and its metadata say what to do before it. The data are still
            those of the whole model.
        overwrite: whether existing files may be replaced.
        allow_flex: whether operators of TensorFlow that need the Flex delegate on the device are allowed.
        allow_custom: whether operators whose kernels the application must provide are allowed.
        verify: whether to run the file with the LiteRT interpreter and compare it with the model.
        verbose: whether to draw a spinner; 0 and 1 as in Keras are accepted.

    Returns:
        The file's size, what was measured on it, and notes.

    Raises:
        TypeError: `model` is no Keras model, `representative_data` is of an unsupported type, or another argument is of
            another type than stated.
        ValueError: an argument is out of range or conflicts with another, the model is not built, the data do not
            fit the model's inputs, a weight, or an output of the model for the data it is calibrated on, is NaN or
            infinite, the model cannot be converted as asked (the message names the layer), or the written file does
            not run.
        FileExistsError: the file exists and `overwrite` is false.
        IsADirectoryError: `path` is a folder.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/convert_tf

    Example:
        >>> result = export_tflite(model, "float16.tflite", "float16")
        >>> result.verification.passed
        True
    """
    from edgeprune import strip  # imports TensorFlow

    flavor.check_model(model)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, got {type(path).__name__}.")
    verbose = bool(verbose) if verbose in (0, 1) else verbose
    check_flags(without_preprocessing=without_preprocessing, overwrite=overwrite, verify=verify, verbose=verbose)
    scheme = scheme_of(quantization)
    per_channel_dense = per_channel_dense and scheme.per_channel_dense
    if scheme.has_four_bits and strip.is_quantize_aware(model):  # which was trained with scales of its own
        per_channel_dense = strip.has_dense_channel_scales(model)
    layers = tuple(scheme.layer_bits.items())
    readers = None if target is None else target_named(target).four_bit_operators(per_channel_dense)
    settings = ConverterSettings(
        scheme.name, sparse, integer_io, per_channel_dense, allow_flex, allow_custom, layers, readers
    )
    if not isinstance(num_samples, numbers.Integral) or isinstance(num_samples, bool):
        raise TypeError(f"num_samples must be a whole number, got {num_samples!r}.")
    if num_samples < 1:
        raise ValueError(f"num_samples must be 1 or more, got {num_samples}.")
    if sparse:
        sparse_encoding.check_quantization(scheme.name)
    calibration_choice.check_calibration(calibration, scheme.name, strip.is_quantize_aware(model))
    if representative_data is None and settings.calibrated and not strip.has_ranges(model):
        raise ValueError(
            f"quantization={scheme.name!r} needs representative_data: about 100 samples of what the model will see, "
            f"as {DATA_FORMS}."
        )
    if scheme.activation_bits == 16 and strip.has_ranges(model):
        raise ValueError(
            f"Model {model.name!r} was trained for activations of 8 bits, and its ranges are for those: pass "
            "quantization='int8', or train what quantize_aware(model, 'int16x8') returns."
        )
    flavor.check_built(model)
    prepared = prepare(
        model,
        representative_data,
        functools.partial(_refuse_strings, settings),
        calibrated=settings.calibrated,
        num_samples=num_samples,
        without_preprocessing=without_preprocessing,
    )
    with status("Calibrating", verbose=bool(verbose) and settings.calibrated):
        prepared = calibration_choice.calibrated(prepared, calibration, scheme)
    return write_tflite(prepared, path, settings, overwrite=overwrite, verify=verify, verbose=bool(verbose))


def write_tflite(
    prepared: PreparedModel,
    path: str | Path,
    settings: ConverterSettings,
    *,
    overwrite: bool = False,
    verify: bool = True,
    verbose: bool = True,
    validation: ValidationData | None = None,
) -> ExportResult:
    """Convert a prepared model, write the file, and prove it against the model.

    Args:
        prepared: the model, with its samples.
        path: the file to write; the vocabularies of layers that are left to the application lie beside it.
        settings: what the converter is asked for.
        overwrite: whether existing files may be replaced.
        verify: whether to run the file and compare it with the model.
        verbose: whether to draw a spinner.
        validation: the data to verify on; left out, the samples, or random input where there are none.

    Raises:
        ValueError: the model cannot be converted as asked, or the written file does not run.
        FileExistsError: a file exists and `overwrite` is false.
    """
    model, specs, split = prepared.model, prepared.specs, prepared.split
    notes = list(prepared.notes)
    vocabularies = {} if split is None else vocabulary_files.vocabulary_texts(split)
    paths = (path, *(Path(path).parent / name for name in vocabularies))
    with (
        atomic_paths(*paths, overwrite=overwrite) as (unfinished, *texts),
        status("Converting", verbose=verbose) as say,
    ):
        convert = functools.partial(
            _converted, prepared.to_convert, specs, settings, prepared.samples, say=say, notes=notes
        )
        try:
            content, outputs = convert()
        except diagnosis.ConversionError as error:
            # Behind an operator in floats the converter measures a range beside that of the model.
            expected = any(text in str(error) for text in _NOT_TO_MEASURE)
            if not expected or settings.has_float_layers or not _has_ranges(prepared.to_convert):
                raise
            content, outputs = convert(has_all_ranges=True)
        unfinished.write_bytes(content)
        if split is not None:
            vocabulary_files.describe_preprocessing(unfinished, split)
        for file, text in zip(texts, vocabularies.values(), strict=True):
            file.write_text(text, encoding="utf-8")
        verification = None
        if verify:
            say("Verifying")
            with _called(unfinished, Path(path)), traceable_names(model):
                verification = _verified(unfinished, prepared, settings, validation, notes)
        size = file_size(unfinished)
    return ExportResult(
        path=Path(path),
        quantization=settings.quantization,
        sparse=settings.sparse,
        bytes=size.bytes,
        gzip_bytes=size.gzip_bytes,
        inputs=tuple(specs),
        outputs=tuple(outputs),
        notes=tuple(notes),
        verification=verification and dataclasses.replace(verification, path=Path(path)),
    )


def _converted(
    model: Model,
    specs: Mapping[str, Any],
    recipe: ConverterSettings,
    samples: Mapping[str, np.ndarray] | None,
    say: Callable[[str], None],
    notes: list[str],
    has_all_ranges: bool = False,
) -> tuple[bytes, list[str]]:
    """The file's content and the names of its outputs; what the user should know is added to the notes.

    With `has_all_ranges` the converter measures none beside those of the model.
    """
    from edgeprune import strip  # imports TensorFlow

    names = names_to_trace(specs)
    samples = samples and {names[name]: array for name, array in samples.items()}
    is_asked = functools.partial(is_in_floats, model=model, layers=recipe.layers)
    with tempfile.TemporaryDirectory() as saved_model, contextlib.ExitStack() as quietly:
        captured = quietly.enter_context(captured_output())
        try:
            with (
                strip.kernels_on_grid(model),
                flavor.computing_in_float32(model),
                traceable_names(model),
                equal_calls.replaced(model, recipe.quantization) as unrolled,
            ):
                function = write_saved_model(
                    model,
                    specs,
                    names,
                    saved_model,
                    is_calibrated=recipe.calibrated,
                    samples=samples,
                    is_in_floats=is_asked,
                )
            if recipe.calibrated and samples is not None:
                non_finite.check_finite_outputs(function, samples, model)
            outputs = list(function.structured_outputs)
            refuse_loops(function, saved_model, recipe, model)
            in_floats = functools.partial(float_locations, model=model, layers=recipe.layers)
            chosen = in_floats if recipe.has_float_layers else None
            to_measure = None if has_all_ranges else samples
            content = _mended(run_converter(saved_model, recipe, to_measure, say, chosen), model, recipe)
            dense = b""
            if recipe.sparse:
                plain = dataclasses.replace(recipe, sparse=False)
                dense = _mended(run_converter(saved_model, plain, to_measure), model, plain)
        except diagnosis.ConversionError:
            raise
        except Exception as error:  # the converter raises many kinds
            quietly.close()
            raise diagnosis.explain(error, captured.text, model) from error
    notes += equal_calls.unrolled_notes(model, unrolled, recipe.quantization)
    notes += diagnosis.state_notes(content)
    notes += diagnosis.runtime_notes(content, model)
    diagnosis.refuse_custom(content, model, allow_flex=recipe.allow_flex, allow_custom=recipe.allow_custom)
    if recipe.calibrated:
        non_finite.check_scales(content, model)
        notes += diagnosis.float_notes(content, model, is_asked)
    content = _as_written(content, names, outputs, model.name)
    if recipe.sparse:
        dense = _as_written(dense, names, outputs, model.name)
        notes += sparse_encoding.check(content, dense, recipe.quantization, model)
    return content, outputs


def _has_ranges(model: Model) -> bool:
    from edgeprune import strip  # imports TensorFlow

    return strip.has_ranges(model)


def _mended(content: bytes, model: Model, recipe: ConverterSettings) -> bytes:
    """What the converter wrote, with what it does not do itself."""
    content = repaired(content)
    if recipe.calibrated and not recipe.has_float_layers:  # which may be the user's wish
        content = in_integers(content)
    if recipe.has_four_bits:
        content = _in_four_bits(content, model, recipe.four_bit_operators)
    return content


def _as_written(content: bytes, names: Mapping[str, str], outputs: list[str], model_name: str) -> bytes:
    """A file with inputs and outputs in the model's order and under its names, in as few bytes as say the same."""
    return compact(with_names(in_order(content, list(names.values()), outputs), names), model_name)


def _in_four_bits(content: bytes, model: Model, readers: frozenset[str] | None) -> bytes:
    """The file with weights of 4 bits, where the model rounds them so."""
    content, narrowed = with_four_bit_weights(content, tuple(READ_FOUR_BITS) if readers is None else readers)
    if not narrowed and readers is None:
        raise diagnosis.ConversionError(
            f"No weight of model {model.name!r} is on a grid of 4 bits that an operator reads: pass what "
            "quantize_aware(model, 'int4') returns. Only dense layers, EinsumDense, attention and convolutions have "
            "such operators: without any of them use 'int8'."
        )
    return content


def _refuse_strings(settings: ConverterSettings, model: Model, specs: Mapping[str, Any]) -> None:
    """Refuse to calibrate on strings: the converter would end the whole process."""
    strings = inputs_of_strings(specs)
    if strings and settings.calibrated:
        raise diagnosis.ConversionError(
            f"quantization={settings.quantization!r} is not possible for a model with inputs of strings, "
            f"{strings}: the converter cannot calibrate on them. Use quantization='dynamic' or "
            "'float16', or pass without_preprocessing=True to export_tflite."
        )


@contextlib.contextmanager
def _called(unfinished: Path, path: Path) -> Iterator[None]:
    """Have errors about the unfinished file name the path the user knows."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(str(unfinished), str(path))) from error


def _verified(
    path: Path,
    prepared: PreparedModel,
    settings: ConverterSettings,
    validation: ValidationData | None,
    notes: list[str],
) -> Verification | None:
    """Run the file and compare it with the model; what does not fit is added to the notes."""
    from edgeprune import strip  # imports TensorFlow

    custom = read_tflite(path).custom_operators
    if custom:
        notes.append(f"Not verified: the operators {', '.join(custom)} are not in LiteRT.")
        return None
    if validation is None:
        validation = ValidationData(prepared.samples)
    if validation.x is None:
        random = random_samples(prepared.specs, known=known_values(prepared.model))
        validation = dataclasses.replace(validation, x=random)
        notes.append("Verified on random input; pass representative_data to verify on real samples.")
    # A file that is quantized in part does not show how it was asked for.
    tolerance = FORMAT_TOLERANCE[settings.quantization] if settings.calibrated else None
    with captured_output():
        verification = verify_tflite(
            path,
            prepared.model,
            validation.x,
            validation.y,
            sample_weight=validation.sample_weight,
            metric=validation.metric,
            tolerance=tolerance,
            # One such file ended the process that had trained its model when LiteRT opened it.
            isolated=strip.is_quantize_aware(prepared.model),
        )
    if settings.quantization == "dynamic" and verification.quantization is None:
        notes.append(
            "No weight is stored as int8: the converter skips those under 1,024 values and those of a fused LSTM."
        )
    notes += verification.problems
    return verification
