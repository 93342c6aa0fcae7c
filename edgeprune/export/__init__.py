"""From a Keras model to a .tflite file that was opened and compared with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.export.agreement import OutputComparison as OutputComparison
    from edgeprune.export.convert import export_tflite as export_tflite
    from edgeprune.export.diagnosis import ConversionError as ConversionError
    from edgeprune.export.diagnosis import LoopError as LoopError
    from edgeprune.export.diagnosis import OperatorError as OperatorError
    from edgeprune.export.preprocessing_split import SplitModel as SplitModel
    from edgeprune.export.preprocessing_split import split_preprocessing as split_preprocessing
    from edgeprune.export.result import ExportResult as ExportResult
    from edgeprune.export.verify import Verification as Verification
    from edgeprune.export.verify import verify_tflite as verify_tflite
    from edgeprune.export.weight_zeros import WeightZeros as WeightZeros

# Each public name and the module that defines it.
_HOME = {
    "ConversionError": "edgeprune.export.diagnosis",
    "ExportResult": "edgeprune.export.result",
    "LoopError": "edgeprune.export.diagnosis",
    "OperatorError": "edgeprune.export.diagnosis",
    "OutputComparison": "edgeprune.export.agreement",
    "SplitModel": "edgeprune.export.preprocessing_split",
    "Verification": "edgeprune.export.verify",
    "WeightZeros": "edgeprune.export.weight_zeros",
    "export_tflite": "edgeprune.export.convert",
    "split_preprocessing": "edgeprune.export.preprocessing_split",
    "verify_tflite": "edgeprune.export.verify",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
