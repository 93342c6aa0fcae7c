"""A quantization-aware model that rounds otherwise for a while: as it is converted, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from edgeprune import flavor
from edgeprune.quantization.fake_quantize import Observer, fake_quantizers, quantized_layers
from edgeprune.types import Model


@contextlib.contextmanager
def kernels_on_grid(model: Model) -> Iterator[None]:
    """While the body runs, kernels hold the rounded values, and nothing rounds them: the model as it is converted.

    Nor are activations rounded behind layers in floats.
    """
    held = []
    try:
        for layer in quantized_layers(model):
            for name in layer.kernel_axes:
                variable = layer.kernel(name)
                rounded = np.asarray(layer.rounded(name))
                held.append((variable, flavor.array_of(variable).copy()))
                variable.assign(rounded)
            layer.rounds = False
        for one in fake_quantizers(model):
            one.rounds = one.in_file
        yield
    finally:
        for variable, value in held:
            variable.assign(value)
        for rounding in (*quantized_layers(model), *fake_quantizers(model)):
            rounding.rounds = True


@contextlib.contextmanager
def observed(model: Model, observers: dict[int, Observer]) -> Iterator[None]:
    """While the body runs, a model computes in floats, and shows the values of its activations.

    Args:
        model: a quantization-aware model, to be called eagerly.
        observers: `id` of a layer among `fake_quantizers(model)` to what is shown its values.
    """
    layers = fake_quantizers(model)
    try:
        for layer in layers:
            layer.observer = observers.get(id(layer))
        with flavor.without_rounding(model):
            yield
    finally:
        for layer in layers:
            layer.observer = None
