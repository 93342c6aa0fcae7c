"""How large each channel of a model's tensors gets: measured on data, or without any estimated from the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import Step
from edgeprune.channels.graph.execution import run
from edgeprune.quantization.channel_scales import NORMALIZATIONS, ChannelScales, ScaledCall
from edgeprune.quantization.scaled_weights import input_matrices
from edgeprune.types import AnyTensor

_DEVIATIONS = 3.0  # a value of a normal distribution hardly ever lies further out


def measured_ranges(scales: ChannelScales, batches: Iterable[list[AnyTensor]]) -> np.ndarray:
    """The largest magnitude of each channel that is stored between operators.

    Args:
        scales: the nodes of a traced model.
        batches: for each batch a tensor for each input of the model that was walked.

    Returns:
        For each node its largest magnitude; NaN for those that are not stored.

    Raises:
        ValueError: there is no batch, or a value is NaN or infinite.
    """
    import tensorflow as tf

    graph = scales.graph
    lines = {place: scales.nodes(place) for place in range(len(graph.tensors)) if scales.is_stored(place)}
    ranges = np.full(len(scales.roots), np.nan)

    def call(step: Step, node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
        given = flavor.call_layer(node, taken)
        for place, tensor in zip(step.outputs, given, strict=True):
            nodes = lines.get(place)
            if nodes is not None:
                others = [axis for axis in range(len(tensor.shape)) if axis != scales.axis(place)]
                largest = tf.reduce_max(tf.abs(tensor), others)
                np.fmax.at(ranges, nodes, np.asarray(largest, np.float64))
                if not np.isfinite(np.asarray(largest)).all():
                    raise ValueError(
                        f"What layer {scales.name_of(step)!r} returns is NaN or infinite on this data: look for such "
                        "values in it."
                    )
        return given

    with flavor.state_restored(graph.model):
        count = 0
        for inputs in batches:
            run(graph, inputs, call)
            count += 1
    if not count:
        raise ValueError("The data has no batches.")
    return ranges


def estimated_ranges(scales: ChannelScales) -> np.ndarray:
    """About how large each channel gets, as far as the weights say: inputs are taken for normal values.

    A batch normalization says it itself: three times gamma about beta. What a kernel makes of independent values adds
    up as their squares.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2

    Returns:
        For each node an estimate.
    """
    ranges = np.full(len(scales.roots), np.nan)
    calls = {id(call.step): call for call in scales.calls}
    for step in scales.graph.steps:
        call = calls.get(id(step))
        if call is not None and call.outputs is not None:
            np.fmax.at(ranges, call.outputs, _made(call, call.outputs, ranges))
            continue
        for new in step.outputs:
            for old in step.inputs:
                before, after = scales.shared(old, new)
                np.fmax.at(ranges, after, ranges[before])
            line = scales.nodes(new)
            if line is not None:
                ranges[line] = np.where(np.isnan(ranges[line]), _DEVIATIONS, ranges[line])
    return ranges


def _made(call: ScaledCall, outputs: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """The range of each channel that a call makes."""
    layer: Any = call.step.layer
    bias = getattr(layer, "beta" if call.kind in NORMALIZATIONS else "bias", None)
    offset = 0.0 if bias is None else np.abs(flavor.array_of(bias).astype(np.float64))
    if call.kind in NORMALIZATIONS:
        gamma = 1.0 if layer.gamma is None else flavor.array_of(layer.gamma).astype(np.float64)
        return np.broadcast_to(_DEVIATIONS * np.abs(gamma) + offset, len(outputs))
    made = np.zeros(len(outputs))
    for taken, given, matrix in input_matrices(call, squared=True):
        sizes = np.full(len(taken), _DEVIATIONS) if call.inputs is None else ranges[call.inputs[taken]]
        sizes = np.where(np.isnan(sizes), _DEVIATIONS, sizes)
        made[given] += np.square(sizes) @ matrix
    return np.sqrt(made) + offset
