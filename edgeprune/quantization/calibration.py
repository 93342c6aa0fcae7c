"""The ranges of activations, measured by running a model in floats on data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of, samples_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.quantization.fake_quantize import FakeQuantizeLogic, fake_quantizers
from edgeprune.quantization.ranges import RangeChooser, range_method
from edgeprune.quantization.rounding_state import observed
from edgeprune.types import DataLike, Model

_BATCH_SIZE = 32


def calibrate(model: Model, data: DataLike, num_samples: int = 256, method: str = "min-max") -> None:
    """Measure the ranges of a quantization-aware model again, as its activations are in floats.

    Args:
        model: a quantization-aware model; the ranges in it are changed.
        data: samples in any form that `model.fit` accepts; labels are not looked at.
        num_samples: how many to use at most.
        method: how a range is chosen from the values: `"min-max"`, `"percentile"` (one in a thousand is cut off) or
            `"mse"` (the smallest squared error).

    Raises:
        TypeError: the data are in no known form.
        ValueError: there are none, they do not fit the model, a layer refuses them, or an activation is NaN or infinite
            on them.
    """
    set_ranges(range_choosers(model, data, num_samples, (method,))[method])


# Each layer that rounds activations in a range that is measured, with what has seen its values.
Choosers = list[tuple[FakeQuantizeLogic, RangeChooser]]


def range_choosers(model: Model, data: DataLike, num_samples: int, methods: Sequence[str]) -> dict[str, Choosers]:
    """Show the activations of a model to several ways of choosing ranges at once; the model is not changed.

    Args:
        model: a quantization-aware model.
        data: samples, as `calibrate` accepts them.
        num_samples: how many to use at most.
        methods: the ways to choose.

    Raises:
        TypeError, ValueError: as `calibrate`, but for values that are not finite.
    """
    layers = [layer for layer in fake_quantizers(model) if layer.fixed_range is None]
    choosers = {id(layer): [range_method(method)() for method in methods] for layer in layers}
    samples = samples_of(data, num_samples, inputs=input_shapes(model), source="The calibration data")
    with flavor.state_restored(model), observed(model, {key: _All(own) for key, own in choosers.items()}):
        for batch in batches_of((samples,), _BATCH_SIZE, inputs=input_shapes(model)):
            inputs = input_tensors(model, batch.x)
            with flavor.refusing_values(model):
                model(flavor.pack_inputs(model, inputs), training=False)
    return {method: [(layer, choosers[id(layer)][number]) for layer in layers] for number, method in enumerate(methods)}


def set_ranges(choosers: Choosers) -> None:
    """Set the ranges that were chosen.

    Raises:
        ValueError: an activation is NaN or infinite.
    """
    for layer, chooser in choosers:
        low, high = chooser.range()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"The values that {layer.name!r} rounds are NaN or infinite on the calibration data: no range holds "
                "them. See to finite weights and inputs, or pass other data."
            )
        layer.set_range(low, high)


class _All:
    """Shows values to several choosers."""

    def __init__(self, choosers: Sequence[RangeChooser]) -> None:
        self._choosers = choosers

    def update(self, values: np.ndarray) -> None:
        """Show them the values of a batch."""
        for chooser in self._choosers:
            chooser.update(values)
