"""One scale for a dense layer or one for each of its units: what is better on a microcontroller is found by measuring.

The interpreter for microcontrollers keeps 8 bytes of its arena for each unit with a scale of its own, and while it
prepares the layer it needs 4 more. A phone keeps them in memory that nobody misses. Weights of 4 bits that have one
scale are read by its dense layers as they are; with more scales they take 8 bits each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgeprune.conversion.converter_run import ConverterSettings
from edgeprune.export.result import ExportResult
from edgeprune.export.verify import Verification
from edgeprune.measure.memory import activation_memory
from edgeprune.measure.tflm import MicroError, measure_arena
from edgeprune.targets import Target
from edgeprune.types import Model

# One scale is chosen where the arena shrinks to this share or less (of 4 bits, the file at all), and the error grows to
# this multiple or less.
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
        return export(_with(settings, device, per_channel_dense))
    each = export(_with(settings, device, per_channel_dense=True))
    if device.kind != "microcontroller" or not settings.calibrated:
        return each
    if settings.has_four_bits:
        return _smaller(export, device, settings, each)
    return _lighter(export, device, settings, each) if _may_shrink_arena(model, settings.quantization) else each


def _with(settings: ConverterSettings, device: Target, per_channel_dense: bool) -> ConverterSettings:
    readers = device.four_bit_operators(per_channel_dense)
    return dataclasses.replace(settings, per_channel_dense=per_channel_dense, four_bit_operators=readers)


def _lighter(
    export: Callable[[ConverterSettings], ExportResult], device: Target, settings: ConverterSettings, each: ExportResult
) -> ExportResult:
    """The export with one scale for each dense layer where that makes the arena smaller."""
    content = each.path.read_bytes()
    try:
        arena = measure_arena(each.path).bytes
        one = export(_with(settings, device, per_channel_dense=False))
        lighter = measure_arena(one.path).bytes
    except MicroError:  # the writer says why it does not run
        each.path.write_bytes(content)
        return each
    return _kept(
        each, one, lighter <= _LIGHTER * arena, f"the arena is {lighter:,} bytes rather than {arena:,}", content
    )


def _smaller(
    export: Callable[[ConverterSettings], ExportResult], device: Target, settings: ConverterSettings, each: ExportResult
) -> ExportResult:
    """The export with one scale for each dense layer where the runtime reads 4 bits with no others."""
    more = device.four_bit_operators(per_channel_dense=False) - device.four_bit_operators()
    if more.isdisjoint(_verified(each).operators):
        return each
    content = each.path.read_bytes()
    one = export(_with(settings, device, per_channel_dense=False))
    gained = f"they are read in 4 bits, the file is {one.bytes:,} bytes rather than {each.bytes:,}"
    return _kept(each, one, one.bytes < each.bytes, gained, content)


def _kept(each: ExportResult, one: ExportResult, pays: bool, gained: str, content: bytes) -> ExportResult:
    """The export with one scale for each dense layer where it pays and errs little more; else the other's content."""
    before, after = _error(each), _error(one)
    figures = f"{gained}, the relative error {after:.3g} rather than {before:.3g}"
    if _verified(one).passed and pays and after <= _ERROR * before:
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
