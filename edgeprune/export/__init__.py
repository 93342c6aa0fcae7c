"""From a Keras model to a .tflite file that was opened and compared with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.export.agreement import OutputComparison as OutputComparison
    from edgeprune.export.bundle import Bundle as Bundle
    from edgeprune.export.bundle import export_bundle as export_bundle
    from edgeprune.export.bundle_content import Preprocessing as Preprocessing
    from edgeprune.export.diagnosis import ConversionError as ConversionError
    from edgeprune.export.diagnosis import LoopError as LoopError
    from edgeprune.export.diagnosis import OperatorError as OperatorError
    from edgeprune.export.metadata import ModelMetadata as ModelMetadata
    from edgeprune.export.metadata import TensorMetadata as TensorMetadata
    from edgeprune.export.metadata import read_metadata as read_metadata
    from edgeprune.export.metadata import write_metadata as write_metadata
    from edgeprune.export.preprocessing_split import SplitModel as SplitModel
    from edgeprune.export.preprocessing_split import split_preprocessing as split_preprocessing
    from edgeprune.export.tflite import ExportResult as ExportResult
    from edgeprune.export.tflite import export_tflite as export_tflite
    from edgeprune.export.verify import Verification as Verification
    from edgeprune.export.verify import verify_tflite as verify_tflite
    from edgeprune.export.weight_zeros import WeightZeros as WeightZeros

# Each public name and the module that defines it.
_HOME = {
    "Bundle": "edgeprune.export.bundle",
    "ConversionError": "edgeprune.export.diagnosis",
    "ExportResult": "edgeprune.export.tflite",
    "LoopError": "edgeprune.export.diagnosis",
    "ModelMetadata": "edgeprune.export.metadata",
    "OperatorError": "edgeprune.export.diagnosis",
    "OutputComparison": "edgeprune.export.agreement",
    "Preprocessing": "edgeprune.export.bundle_content",
    "SplitModel": "edgeprune.export.preprocessing_split",
    "TensorMetadata": "edgeprune.export.metadata",
    "Verification": "edgeprune.export.verify",
    "WeightZeros": "edgeprune.export.weight_zeros",
    "export_bundle": "edgeprune.export.bundle",
    "export_tflite": "edgeprune.export.tflite",
    "read_metadata": "edgeprune.export.metadata",
    "split_preprocessing": "edgeprune.export.preprocessing_split",
    "verify_tflite": "edgeprune.export.verify",
    "write_metadata": "edgeprune.export.metadata",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
