"""The format of .tflite files: read, repaired, cut short, and their metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.tflite.file import read_tflite as read_tflite
    from edgeprune.tflite.metadata import ModelMetadata as ModelMetadata
    from edgeprune.tflite.metadata import TensorMetadata as TensorMetadata
    from edgeprune.tflite.metadata import read_metadata as read_metadata
    from edgeprune.tflite.metadata import write_metadata as write_metadata

# Each public name and the module that defines it.
_HOME = {
    "ModelMetadata": "edgeprune.tflite.metadata",
    "TensorMetadata": "edgeprune.tflite.metadata",
    "read_metadata": "edgeprune.tflite.metadata",
    "read_tflite": "edgeprune.tflite.file",
    "write_metadata": "edgeprune.tflite.metadata",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
