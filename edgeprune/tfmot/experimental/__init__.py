"""The counterpart of `tensorflow_model_optimization.experimental`."""

from edgeprune.tfmot.experimental import combine

__all__ = ["combine"]
