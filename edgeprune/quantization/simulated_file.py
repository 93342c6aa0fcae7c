"""A file in integers before it is written: what its rounding costs, found without the converter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.quantization.calibration import range_choosers, set_ranges
from edgeprune.quantization.ranges import RANGE_METHODS
from edgeprune.quantization.training import quantize_aware
from edgeprune.schemes import Scheme
from edgeprune.types import Model

_BATCH_SIZE = 32
_CONSTANT = 1e-8  # of the mean square: a variance of less is the computation's own


class SimulatedFile:
    """A model that rounds as its file will, with the ranges of every way to choose them.

    Args:
        model: a float model. It is not changed.
        scheme: what the file is to be.
        samples: for each input, in the model's order, samples `(samples, ...)` that the ranges are measured on.

    Attributes:
        model: the quantization-aware model; it has the ranges of the way that was asked for last.

    Raises:
        ValueError: the model cannot be followed, has no kernel to round, or returns values that are not finite.
    """

    def __init__(self, model: Model, scheme: Scheme, samples: Mapping[str, np.ndarray]) -> None:
        self.model = quantize_aware(model, scheme, keep_zeros=False)
        inputs = _named(self.model, samples)
        self._choosers = range_choosers(self.model, inputs, len(next(iter(inputs.values()))), tuple(RANGE_METHODS))
        self.set_ranges("min-max")

    def set_ranges(self, method: str) -> None:
        """Choose the ranges of activations in one of `RANGE_METHODS`."""
        set_ranges(self._choosers[method])

    def error(self, samples: Mapping[str, np.ndarray], wanted: list[np.ndarray]) -> float:
        """The mean squared error of the outputs on samples over the wanted outputs' variance, the mean of all.

        Of an output that does not vary it is the error over the mean square.
        """
        made = outputs_of(self.model, samples)
        errors = [float(np.square(one - other).mean() / _size(other)) for one, other in zip(made, wanted, strict=True)]
        return float(np.mean(errors))


def _size(values: np.ndarray) -> float:
    """The variance of values, or where they are constant their mean square."""
    variance, square = float(np.var(values)), float(np.square(values).mean())
    return variance if variance > _CONSTANT * square else max(square, 1e-12)


def outputs_of(model: Model, samples: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A model's outputs on samples, in float64, in its order."""
    shapes = input_shapes(model)
    made = [
        flavor.call_model(model, input_tensors(model, batch.x))
        for batch in batches_of((_named(model, samples),), _BATCH_SIZE, inputs=shapes)
    ]
    return [np.concatenate([np.asarray(one).astype(np.float64) for one in own]) for own in zip(*made, strict=True)]


def _named(model: Model, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The samples by the names of a model's inputs, which a rebuilt model may have others of than the original."""
    return dict(zip(input_shapes(model), samples.values(), strict=True))
