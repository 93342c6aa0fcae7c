"""What people look at: tables and plots of figures that other modules measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.report.file_errors import LayerComparison as LayerComparison
    from edgeprune.report.file_errors import QuantizationErrorReport as QuantizationErrorReport
    from edgeprune.report.file_errors import quantization_error as quantization_error
    from edgeprune.report.file_inspection import FileInspection as FileInspection
    from edgeprune.report.file_inspection import inspect_tflite as inspect_tflite
    from edgeprune.report.inspection import GroupRow as GroupRow
    from edgeprune.report.inspection import Inspection as Inspection
    from edgeprune.report.inspection import LayerRow as LayerRow
    from edgeprune.report.inspection import inspect as inspect
    from edgeprune.report.model_report import write_report as write_report
    from edgeprune.report.search_report import write_search_report as write_search_report

# Each public name and the module that defines it.
_HOME = {
    "FileInspection": "edgeprune.report.file_inspection",
    "GroupRow": "edgeprune.report.inspection",
    "Inspection": "edgeprune.report.inspection",
    "LayerComparison": "edgeprune.report.file_errors",
    "LayerRow": "edgeprune.report.inspection",
    "QuantizationErrorReport": "edgeprune.report.file_errors",
    "inspect": "edgeprune.report.inspection",
    "inspect_tflite": "edgeprune.report.file_inspection",
    "quantization_error": "edgeprune.report.file_errors",
    "write_report": "edgeprune.report.model_report",
    "write_search_report": "edgeprune.report.search_report",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
