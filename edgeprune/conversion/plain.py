"""A model's file as the converter makes it, for its operators and their sizes: nothing is calibrated on real data."""

from __future__ import annotations

import tempfile

from edgeprune import flavor
from edgeprune.conversion import equal_calls
from edgeprune.conversion.converter_run import ConverterSettings, run_converter
from edgeprune.conversion.known_values import known_values, random_samples
from edgeprune.conversion.signature import (
    inputs_of_strings,
    names_to_trace,
    signature_specs,
    traceable_names,
    write_saved_model,
)
from edgeprune.output_capture import captured_output
from edgeprune.tflite.compact import compact
from edgeprune.tflite.integer_elu import in_integers
from edgeprune.tflite.repairs import repaired
from edgeprune.types import Model, Quantization


def converted(model: Model, quantization: Quantization | None) -> bytes:
    """Convert a plain model; where the scheme is calibrated, on one random sample.

    Args:
        model: a built model of either Keras, without pruning.
        quantization: what it is converted to.

    Returns:
        The content of the .tflite file. Its operators, shapes and types are those of an export; its scales are not.

    Raises:
        ValueError: the model cannot be converted.
    """
    settings = ConverterSettings(quantization)
    specs = signature_specs(model)
    if settings.calibrated and (strings := inputs_of_strings(specs)):
        raise ValueError(
            f"Model {model.name!r} has inputs of strings, {strings}, and the converter cannot calibrate "
            f"{quantization!r} on them: pass split.rest of split = ep.split_preprocessing(model), or a quantization "
            "that is not calibrated."
        )
    names = names_to_trace(specs)
    samples = random_samples(specs, 1, known_values(model)) if settings.calibrated else None
    samples = samples and {names[name]: array for name, array in samples.items()}
    with tempfile.TemporaryDirectory() as folder, captured_output():
        try:
            with flavor.computing_in_float32(model), traceable_names(model), equal_calls.replaced(model, quantization):
                write_saved_model(model, specs, names, folder, is_calibrated=settings.calibrated, samples=samples)
            content = repaired(run_converter(folder, settings, samples))
            return compact(in_integers(content) if settings.calibrated else content, model.name)
        except Exception as error:  # the converter raises many kinds
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"Model {model.name!r} cannot be converted to {quantization or 'float32'}, which a plan for its time "
                f"or memory needs: {reason} export_tflite says more."
            ) from error
