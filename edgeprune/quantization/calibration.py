"""The ranges of activations, measured by running a model in floats on data."""

from __future__ import annotations

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of, samples_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.quantization.fake_quantize import FakeQuantizeLogic, fake_quantizers, observed
from edgeprune.quantization.ranges import RangeChooser, range_method
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
        ValueError: there are none, they do not fit the model, or an activation is NaN or infinite on them.
    """
    chooser = range_method(method)
    measured = {id(layer): (layer, chooser()) for layer in fake_quantizers(model) if layer.fixed_range is None}
    samples = samples_of(data, num_samples, inputs=input_shapes(model), source="The calibration data")
    with flavor.state_restored(model), observed(model, {key: observer for key, (_, observer) in measured.items()}):
        for batch in batches_of((samples,), _BATCH_SIZE, inputs=input_shapes(model)):
            inputs = input_tensors(model, batch.x)
            model(flavor.pack_inputs(model, inputs), training=False)
    for layer, observer in measured.values():
        _take(layer, observer)


def _take(layer: FakeQuantizeLogic, observer: RangeChooser) -> None:
    low, high = observer.range()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"The values that {layer.name!r} rounds are NaN or infinite on the calibration data: no range holds them. "
            "See to finite weights and inputs, or pass other data."
        )
    layer.set_range(low, high)
