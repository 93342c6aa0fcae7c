"""One scale for a dense layer or one for each of its units: what is better on a microcontroller is found by measuring.

The interpreter for microcontrollers keeps 8 bytes of its arena for each unit with a scale of its own, and while it
prepares the layer it needs 4 more. A phone keeps them in memory that nobody misses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgeprune.conversion.converter_run import ConverterSettings
from edgeprune.export.convert import ExportResult
from edgeprune.export.verify import Verification
from edgeprune.measure.memory import activation_memory
from edgeprune.measure.tflm import MicroError, measure_arena
from edgeprune.targets import Target
from edgeprune.types import Model

# One scale is chosen where the arena shrinks to this share or less, and the error grows to this multiple or less.
_LIGHTER = 0.9
_ERROR = 2.0


def export_with_better_scales(
    export: Callable[[ConverterSettings], ExportResult],
    model: Model,
    device: Target,
    settings: ConverterSettings,
    per_channel_dense: bool | None,
) -> ExportResult:
    """Export a model with a scale for each unit of its dense layers, or with one for each layer.

    Args:
        export: writes the file of the model with these settings.
        model: the Keras model.
        device: what the file is for.
        settings: what the converter is asked for.
        per_channel_dense: what the user chose; `None` leaves the choice to this function.

    Returns:
        What was exported last, with a note where there was a choice.
    """
    if per_channel_dense is not None:
        return export(dataclasses.replace(settings, per_channel_dense=per_channel_dense))
    if settings.quantization == "int4":  # whose weights were solved with a scale for each unit
        return export(settings)
    each = export(settings)
    if (
        device.kind != "microcontroller"
        or not settings.calibrated
        or not _may_shrink_arena(model, settings.quantization)
    ):
        return each
    content = each.path.read_bytes()
    try:
        arena = measure_arena(each.path).bytes
        one = export(dataclasses.replace(settings, per_channel_dense=False))
        lighter = measure_arena(one.path).bytes
    except MicroError:  # the writer says why it does not run
        each.path.write_bytes(content)
        return each
    before, after = _error(each), _error(one)
    figures = (
        f"the arena is {lighter:,} bytes rather than {arena:,}, the relative error {after:.3g} rather than {before:.3g}"
    )
    if _verified(one).passed and lighter <= _LIGHTER * arena and after <= _ERROR * before:
        note = f"Dense layers have one scale each: so {figures}. per_channel_dense=True uses one for each unit."
        return dataclasses.replace(one, notes=(*one.notes, note))
    each.path.write_bytes(content)
    note = f"The units of dense layers have a scale each. With per_channel_dense=False {figures}."
    return dataclasses.replace(each, notes=(*each.notes, note))


def _may_shrink_arena(model: Model, quantization: str | None) -> bool:
    """Whether one scale for each dense layer would make the arena smaller by enough, by the estimate."""
    dtype = "int16" if quantization == "int16x8" else "int8"
    try:
        each, one = (activation_memory(model, dtype, per_channel_dense=wanted).arena for wanted in (True, False))
    except ValueError:  # the graph is not available
        return False
    return one <= _LIGHTER * each


def _error(exported: ExportResult) -> float:
    return max(output.relative_error for output in _verified(exported).outputs)


def _verified(exported: ExportResult) -> Verification:
    assert exported.verification is not None, "a bundle's file is verified when it is exported"
    return exported.verification
