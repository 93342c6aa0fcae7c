"""The counterpart of `tensorflow_model_optimization.quantization.keras.experimental`."""

from edgeprune.tfmot.quantization.keras.experimental import default_n_bit

__all__ = ["default_n_bit"]
