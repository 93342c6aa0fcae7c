"""The counterpart of `tensorflow_model_optimization.experimental.combine`, without what is about clustering."""

from edgeprune.tfmot.quantization.keras.collab_opts import Default8BitPrunePreserveQuantizeScheme

__all__ = ["Default8BitPrunePreserveQuantizeScheme"]
