"""Costs in cycles of a Cortex-M, by a model of the kernels in CMSIS-NN: an estimate, not a measurement.

The constants are of the order of what Lai et al., CMSIS-NN: Efficient Neural Network Kernels for Arm Cortex-M CPUs
(2018, arXiv 1801.06601) measure for a net on CIFAR-10 on a Cortex-M7: 1.4 to 2.8 cycles for a multiply-accumulate of a
convolution, about 2 for one of a dense layer. A depthwise convolution cannot share what it loads between channels.
Boards differ by their memories and caches: a table that was measured on one is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeprune.latency.template import FileTemplate

# Cycles for each: a multiply-accumulate, by operator; a value that is gathered into a column; a result that is scaled
# back; a value that any other operator touches; a call.
_MAC = {"CONV_2D": 1.4, "FULLY_CONNECTED": 2.0, "DEPTHWISE_CONV_2D": 4.0, "TRANSPOSE_CONV": 4.0}
_GATHERED, _RESULT, _TOUCHED, _CALL = 2.0, 10.0, 4.0, 500.0
_WIDER = {"float32": 3.0, "int16": 1.6}  # than in int8
_TOGETHER = 4  # values of one instruction


class EstimatedCosts:
    """Cycles of a Cortex-M with the DSP extension (M4, M7, M33), estimated from sizes alone."""

    unit = "cycles"
    estimated = True
    source = "a model of CMSIS-NN's kernels"

    def of_nothing(self) -> float:
        """No cycles."""
        return 0.0

    def of_operators(self, template: FileTemplate, wanted: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
        """Cycles of each operator."""
        return np.array([_cycles(template, place, counts) for place, counts in wanted])

    def of_model(self, template: FileTemplate, counts: Sequence[np.ndarray]) -> np.ndarray:
        """Cycles of whole models: the sums over their operators."""
        places = [place for place, operator in enumerate(template.operators) if operator.alone]
        return np.array([sum(_cycles(template, place, row) for place in places) for row in counts])


def _cycles(template: FileTemplate, place: int, counts: np.ndarray) -> float:
    operator = template.operators[place]
    results = math.prod(template.shape(operator.outputs[0], counts))
    wider = _WIDER.get(template.tensors[operator.outputs[0]].dtype, 1.0)
    each = _MAC.get(operator.name)
    if each is None:
        computed = [n for n in operator.inputs if n >= 0 and template.tensors[n].data is None]
        values = sum(math.prod(template.shape(n, counts)) for n in computed) + results
        return _CALL + _TOUCHED * wider * values
    kernel = template.shape(operator.inputs[1], counts)
    # Weights lie as OHWI, of a depthwise convolution as 1HWC.
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    inner = math.prod(kernel[1:3]) if depthwise else math.prod(kernel[1:])
    macs = results * (inner if depthwise else -(-inner // _TOGETHER) * _TOGETHER)
    places = results / kernel[-1 if depthwise else 0]
    gathered = 0.0 if operator.name == "FULLY_CONNECTED" else places * math.prod(kernel[1:])
    return _CALL + wider * (each * macs + _GATHERED * gathered + _RESULT * results)
