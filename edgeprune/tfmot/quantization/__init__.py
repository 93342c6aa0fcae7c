"""The counterpart of `tensorflow_model_optimization.quantization`."""

from edgeprune.tfmot.quantization import keras

__all__ = ["keras"]
