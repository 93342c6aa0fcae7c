"""One run of TensorFlow's converter: a SavedModel in, the bytes of a .tflite file out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.calibrated_ranges import measured_again
from edgeprune.schemes import CALIBRATED, FLOAT_BITS, QUANTIZATIONS

if TYPE_CHECKING:
    import tensorflow as tf

_INTEGER = {"int8": "int8", "int16x8": "int16", "int4": "int8"}  # what each computes in


@dataclass(frozen=True)
class ConverterSettings:
    """What the converter is asked for.

    Attributes:
        quantization: one of `QUANTIZATIONS`.
        sparse: whether weights with enough zeros are stored without them.
        integer_io: the integers that a calibrated file has for inputs and outputs: `True` for those it computes in,
            `"int8"` or `"uint8"`; `False` for floats.
        per_channel_dense: whether the dense layers of a calibrated file have a scale per unit, rather than one.
        allow_flex: whether TensorFlow's own operators may be used.
        allow_custom: whether operators that the application brings may be used.
        layers: bits of single layers, as `Scheme.layers` has them; those of 32 compute in floats in a calibrated file.
        four_bit_operators: of a file with weights of 4 bits, the operators that read such where it will run; those of
            others are on the same grid in 8 bits. None for all of LiteRT's.

    Raises:
        TypeError: an attribute is of another type.
        ValueError: an attribute has no such value, or two do not go together.
    """

    quantization: str | None = None
    sparse: bool = False
    integer_io: bool | str = True
    per_channel_dense: bool = True
    allow_flex: bool = False
    allow_custom: bool = False
    layers: tuple[tuple[str, int], ...] = ()
    four_bit_operators: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what the converter would read as something else."""
        if self.quantization not in QUANTIZATIONS:
            known = ", ".join(map(repr, QUANTIZATIONS))
            raise ValueError(f"quantization must be one of {known}; got {self.quantization!r}.")
        check_flags(
            sparse=self.sparse,
            per_channel_dense=self.per_channel_dense,
            allow_flex=self.allow_flex,
            allow_custom=self.allow_custom,
        )
        if not isinstance(self.integer_io, bool) and self.integer_io not in ("int8", "uint8"):
            raise ValueError(f"integer_io must be True, False, 'int8' or 'uint8'; got {self.integer_io!r}.")
        if isinstance(self.integer_io, str) and self.quantization not in ("int8", "int4"):
            raise ValueError(
                f"integer_io={self.integer_io!r} needs quantization='int8', got {self.quantization!r}. "
                "A file in int16x8 has int16 inputs and outputs, the others have floats: leave integer_io out."
            )
        if not self.per_channel_dense and not self.calibrated:
            raise ValueError(f"per_channel_dense=False needs 'int8', 'int16x8' or 'int4', got {self.quantization!r}.")
        if self.sparse and self.has_float_layers:
            raise ValueError("A file with layers in floats cannot be sparse: leave sparse out, or those layers.")

    @property
    def has_four_bits(self) -> bool:
        """Whether weights of any layer have 4 bits."""
        return self.quantization == "int4" or 4 in dict(self.layers).values()

    @property
    def has_float_layers(self) -> bool:
        """Whether single layers compute in floats."""
        return FLOAT_BITS in dict(self.layers).values()

    @property
    def calibrated(self) -> bool:
        """Whether representative data is needed."""
        return self.quantization in CALIBRATED

    @property
    def io_type(self) -> str | None:
        """The integer type of inputs and outputs; `None` where they are floats."""
        if not self.calibrated or not self.integer_io:
            return None
        return _INTEGER[self.quantization or ""] if self.integer_io is True else self.integer_io


def check_flags(**flags: object) -> None:
    """Refuse an argument that must be true or false and is neither.

    Raises:
        TypeError: names the argument.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}.")


def run_converter(
    saved_model: str | Path,
    recipe: ConverterSettings,
    samples: Mapping[str, np.ndarray] | None = None,
    say: Callable[[str], None] = lambda text: None,
    in_floats: Callable[[bytes], list[str]] | None = None,
) -> bytes:
    """Convert a SavedModel with one signature.

    Args:
        saved_model: its folder.
        recipe: what to make of it.
        samples: input name to array `(samples, ...)`, where the recipe is calibrated.
        say: called with the progress of the calibration.
        in_floats: where single operators are to compute in floats, is passed the calibrated file, whose operators are
            not integers yet, and returns the names of the first outputs of those.

    Returns:
        The content of the .tflite file.

    Raises:
        Exception: whatever the converter raises; `diagnosis.explain` makes it readable.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    builtins = {
        "int8": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        "int4": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,  # of which `tflite.four_bits` stores the weights in 4 bits
        "int16x8": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    # Without samples, the ranges are in the graph; the set of integer operators alone asks for samples all the same.
    integer = builtins.get(recipe.quantization or "") if samples is not None else None
    converter.target_spec.supported_ops = [integer or tf.lite.OpsSet.TFLITE_BUILTINS]
    if recipe.allow_flex:
        converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
    converter.allow_custom_ops = recipe.allow_custom
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if recipe.quantization else []
    if recipe.sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if recipe.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if recipe.calibrated:
        if samples is not None:
            converter.representative_dataset = lambda: _calibration(samples, say)
        if recipe.io_type is not None:
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(recipe.io_type)
        # TensorFlow has no public name for this.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = not recipe.per_channel_dense
    if samples is not None and _INTEGER.get(recipe.quantization or "") == "int8":
        _measure_again(converter, samples, in_floats)
    return converter.convert()


def _measure_again(
    converter: tf.lite.TFLiteConverter,
    samples: Mapping[str, np.ndarray],
    in_floats: Callable[[bytes], list[str]] | None,
) -> None:
    """Have a converter quantize by ranges that are put right, and leave single operators in floats.

    The latter as TensorFlow's quantization debugger does.
    Source: https://www.tensorflow.org/lite/performance/quantization_debugger, "Selective quantization"
    """
    from tensorflow.lite.python.convert import mlir_quantize

    calibrate = converter._quantize  # TensorFlow has no public name for what lies between calibration and integers

    def quantize(content: bytes, input_type: Any, output_type: Any, *more: Any) -> bytes:
        converter._experimental_calibrate_only = True
        calibrated = measured_again(calibrate(content, input_type, output_type, *more), samples)
        *_, quantizes_variables, debugging = more
        return mlir_quantize(
            calibrated,
            input_data_type=input_type,
            output_data_type=output_type,
            denylisted_nodes=None if in_floats is None else in_floats(calibrated),
            enable_variable_quantization=quantizes_variables,
            debug_options_str=debugging.SerializeToString(),
            disable_per_channel_for_dense_layers=converter._experimental_disable_per_channel_quantization_for_dense_layers,
        )

    converter._quantize = quantize


def _calibration(samples: Mapping[str, np.ndarray], say: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(samples.values())))
    for number in range(count):
        say(f"Calibrating on sample {number + 1} of {count}")
        yield {name: array[number : number + 1] for name, array in samples.items()}
    say("Quantizing")
