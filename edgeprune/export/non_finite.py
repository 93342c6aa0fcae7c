"""Refuse what the converter does not survive: it ends the whole process where NaN or infinity is to be quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.export.diagnosis import ConversionError, origin
from edgeprune.measure.parameters import weights_by_layer
from edgeprune.tflite.graph import OperatorCall, operators, scales, tensors, type_name, unpacked
from edgeprune.types import Model


def check_weights(model: Model) -> None:
    """Refuse a model whose weights hold NaN or infinity, in float32.

    Raises:
        ConversionError: names the layer and the weight.
    """
    for weight, layer in weights_by_layer(model):
        if not hasattr(weight, "dtype"):  # a vocabulary of tf_keras
            continue
        with np.errstate(over="ignore"):
            values = np.asarray(weight, np.float32)
        count = values.size - np.count_nonzero(np.isfinite(values))
        if count:
            name = weight.name.partition(":")[0].rpartition("/")[2]
            raise ConversionError(
                f"Weight {name!r} of layer {layer!r} holds NaN or infinity in {count} of {values.size} values, and "
                "such a model is not exported. Train it again with a lower learning rate, or load an older one."
            )


def check_finite_outputs(
    function: Callable[[Any], Mapping[str, Any]], samples: Mapping[str, np.ndarray], model: Model
) -> None:
    """Refuse to calibrate a model that returns NaN or infinity for a representative sample.

    Args:
        function: the traced model, which takes a dict of inputs with a batch of one.
        samples: what it is calibrated on: input name to `(samples, ...)`.
        model: the Keras model, for its name.

    Raises:
        ConversionError: names the output and the sample.
    """
    run = flavor.with_kernels(function, model)
    for number in range(len(next(iter(samples.values())))):
        outputs = run({name: array[number : number + 1] for name, array in samples.items()})
        for name, values in outputs.items():
            if values.dtype.is_floating and not np.isfinite(np.asarray(values, np.float64)).all():
                raise ConversionError(
                    f"Output {name!r} of model {model.name!r} is NaN or infinite for sample {number} of the "
                    "representative data, so that there is no range to quantize. Scale the data as in training, or "
                    "look for weights that are far too large."
                )


# Beyond it any sum but zero leaves the range of int8, and XNNPACK refuses to load the file.
_LARGEST_FACTOR = 256.0
_EMPTY_RANGE = 2e-6  # what the converter makes of a range without width


def check_scales(content: bytes, model: Model) -> None:
    """Refuse a file with a tensor that was infinite in calibration, though no output was, or with one far too narrow.

    Raises:
        ConversionError: names the layer.
    """
    unpacked_model = unpacked(content)
    for tensor in tensors(unpacked_model):
        if scales(tensor) is None or np.isfinite(scales(tensor)).all():
            continue
        raise ConversionError(
            f"The values of {origin(tensor.name.decode(), model)} in model {model.name!r} are too large for "
            "float32 on the representative data, so that there is no range to quantize. Scale the data as in "
            "training, or check for weights that are far too large."
        )
    for call in operators(unpacked_model, "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        _check_factors(call, model)


def _check_factors(call: OperatorCall, model: Model) -> None:
    """Refuse an operator in int8 whose sums leave the range of its output as soon as they are not zero."""
    taken, weights, made = call.input(0), call.input(1), call.output(0)
    if {type_name(taken), type_name(made)} != {"int8"}:
        return
    factor = float(np.max(np.asarray(scales(taken), np.float64) * scales(weights) / scales(made)))
    if factor >= _LARGEST_FACTOR:
        layer = origin((weights.name or b"").decode(), model)
        if float(np.max(scales(made))) * 255 <= 1.01 * _EMPTY_RANGE:
            raise ConversionError(
                f"{layer[:1].upper()}{layer[1:]} in model {model.name!r} returns nothing but zeros for the "
                "representative data, so that there is no range to quantize. Calibrate on data like those in training, "
                "and more of them, or remove the layer."
            )
        raise ConversionError(
            f"The weights of {layer} in model {model.name!r} are far too large for the range of what it returns: a "
            f"channel's sums are multiplied by {factor:,.0f}, and int8 has 256 values. Calibrate on data like those in "
            "training, or look for a training that has diverged."
        )
