"""The counterpart of `tensorflow_model_optimization.sparsity`."""

from edgeprune.tfmot.sparsity import keras

__all__ = ["keras"]
