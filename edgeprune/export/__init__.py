"""From a Keras model to a .tflite file that was opened and compared with the model."""

from edgeprune.export.tflite import ExportResult, export_tflite

__all__ = ["ExportResult", "export_tflite"]
