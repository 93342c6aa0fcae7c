"""One run of TensorFlow's converter: a SavedModel in, the bytes of a .tflite file out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUANTIZATIONS = (None, "dynamic", "float16", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")


@dataclass(frozen=True)
class Recipe:
    """What the converter is asked for.

    Attributes:
        quantization: one of `QUANTIZATIONS`.
        sparse: whether weights with enough zeros are stored without them.
        integer_io: whether a calibrated model takes and gives integers, rather than floats.
        allow_flex: whether TensorFlow's own operators may be used.
        allow_custom: whether operators that the application brings may be used.
    """

    quantization: str | None = None
    sparse: bool = False
    integer_io: bool = True
    allow_flex: bool = False
    allow_custom: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether representative data is needed."""
        return self.quantization in CALIBRATED


def convert(
    saved_model: str | Path,
    recipe: Recipe,
    samples: Mapping[str, np.ndarray] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Convert a SavedModel with one signature.

    Args:
        saved_model: its folder.
        recipe: what to make of it.
        samples: input name to array `(samples, ...)`, where the recipe is calibrated.
        say: is told how far the calibration is.

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
        "int16x8": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    converter.target_spec.supported_ops = [builtins.get(recipe.quantization, tf.lite.OpsSet.TFLITE_BUILTINS)]
    if recipe.allow_flex:
        converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
    converter.allow_custom_ops = recipe.allow_custom
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if recipe.quantization else []
    if recipe.sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if recipe.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if recipe.calibrated:
        converter.representative_dataset = lambda: _calibration(samples, say)
        if recipe.integer_io:
            integer = tf.int8 if recipe.quantization == "int8" else tf.int16
            converter.inference_input_type = converter.inference_output_type = integer
    return converter.convert()


def in_order(content: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """Put a file's inputs and outputs, which the converter sorts by name, into the model's own order.

    Callers that use numbers rather than names, as microcontrollers do, then find them where the model has them.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(content)
    model = schema.Model.GetRootAs(content)
    signature, graph = model.SignatureDefs(0), model.Subgraphs(0)
    for names, count, entry, tensors in (
        (inputs, signature.InputsLength(), signature.Inputs, graph.InputsAsNumpy()),
        (outputs, signature.OutputsLength(), signature.Outputs, graph.OutputsAsNumpy()),
    ):
        tensor_of = {entry(number).Name().decode(): entry(number).TensorIndex() for number in range(count)}
        # The array is a view of the content. An input that the model does not use may be missing in the file.
        tensors[:] = [tensor_of[name] for name in names if name in tensor_of]
    return bytes(content)


def _calibration(samples: Mapping[str, np.ndarray], say: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(samples.values())))
    for number in range(count):
        say(f"Calibrating on sample {number + 1} of {count}")
        yield {name: array[number : number + 1] for name, array in samples.items()}
    say("Quantizing")
