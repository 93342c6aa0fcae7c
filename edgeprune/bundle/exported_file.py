"""The file of a bundle: calibrated, converted with the scales that suit the device, and proven against the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeprune.bundle.dense_scales import export_with_better_scales
from edgeprune.conversion.converter_run import ConverterSettings
from edgeprune.export.calibration_choice import calibrated
from edgeprune.export.convert import ValidationData, write_tflite
from edgeprune.export.diagnosis import LoopError, OperatorError
from edgeprune.export.prepared import PreparedModel
from edgeprune.export.result import ExportResult
from edgeprune.export.verify import Verification
from edgeprune.schemes import Scheme
from edgeprune.targets import Target
from edgeprune.types import Calibration, Model


def exported_file(
    prepared: PreparedModel,
    path: Path,
    device: Target,
    calibration: Calibration,
    scheme: Scheme,
    settings: ConverterSettings,
    per_channel_dense: bool | None,
    validation: ValidationData | None,
) -> tuple[ExportResult, Verification]:
    """Write the bundle's file.

    Args:
        prepared: the model, with its samples.
        path: the file.
        device: what it is for.
        calibration: how a float model is calibrated.
        scheme: what it is converted to; `per_channel_dense` decides on the scales of dense layers.
        settings: what the converter is asked for.
        per_channel_dense: whether each unit of a dense layer has a scale; None where that is to be measured.
        validation: the data to verify on; None for the samples.

    Returns:
        What was written, and what was measured on it.

    Raises:
        ValueError: the model cannot be converted for the device, or the file does not compute what the model does; the
            errors name what a bundle has arguments for.
    """

    def export(settings: ConverterSettings) -> ExportResult:
        own = dataclasses.replace(scheme, per_channel_dense=settings.per_channel_dense)
        found = calibrated(prepared, calibration, own)
        return write_tflite(found, path, settings, overwrite=True, verbose=False, validation=validation)

    try:
        exported = export_with_better_scales(export, prepared.model, device, settings, per_channel_dense)
    except LoopError as error:
        raise error.among(device.quantizations) from error
    except OperatorError as error:
        raise error.without_options() from error
    assert exported.verification is not None, "a bundle's file is verified when it is exported"
    _check_verification(exported.verification, prepared.model, settings.quantization, device)
    return exported, exported.verification


def _check_verification(verification: Verification, model: Model, quantization: str | None, device: Target) -> None:
    """Refuse a file in which nothing is left to run, or that does not compute what the model does."""
    if not verification.operators and device.runtime != "litert":
        raise ValueError(
            f"Model {model.name!r} returns its inputs unchanged: no operator is left to run on {device.name!r}."
        )
    if not verification.passed:
        others = " or ".join(repr(one) for one in device.quantizations if one != quantization)
        raise ValueError(
            f"Model {model.name!r} as {quantization or 'float32'} does not compute what the Keras model does: "
            f"{' '.join(verification.problems)} Pass more representative data"
            f"{f', or use quantization={others}' if others else ''}."
        )
