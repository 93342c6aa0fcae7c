"""The bytes of a model's file and of its activations at any widths."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from edgeprune.latency.allocation import Limit
from edgeprune.latency.cost import CostTerm, total
from edgeprune.latency.template import FileTemplate, SizedTensor
from edgeprune.measure.memory import Lifetime, aligned, planned_bytes
from edgeprune.tflite.graph import scales
from edgeprune.tflite.tensors import tensor_shape

_HALF_SAVES = 2  # bytes of a weight
_FOUR_BITS_SAVE = 0.5
_SCALE_BYTES = 4
_ZERO_POINT_BYTES = 8
_ITEM_BYTES = {"float16": 2, "float32": 4, "float64": 8, "int16": 2, "int32": 4, "int64": 8, "uint16": 2, "uint32": 4}


def file_terms(
    template: FileTemplate, *, half_floats: bool = False, four_bit_operators: Collection[str] = ()
) -> list[CostTerm]:
    """The bytes of a file: its constants, by their lines, and the rest.

    Args:
        template: the model's file.
        half_floats: whether weights in float32 will be stored in float16.
        four_bit_operators: the operators whose weights in int8 will be stored in 4 bits.
    """
    terms: list[CostTerm] = []
    zero_points: dict[tuple[tuple[int, ...], float], CostTerm] = {}  # a file has equal lists of them once
    for tensor in (tensor for tensor in template.tensors.values() if tensor.data is not None):
        assert tensor.data is not None
        each = len(tensor.data) / max(math.prod(tensor_shape(tensor.tensor)), 1)
        terms.append(_proportional(tensor, each))
        of_axis = scales(tensor.tensor)
        if of_axis is not None and len(of_axis) > 1:
            size = tensor.shape[tensor.tensor.quantization.quantizedDimension]
            terms.append(_product_term(size.lines, _SCALE_BYTES * size.factor))
            zero_points[size.lines, size.factor] = _product_term(size.lines, _ZERO_POINT_BYTES * size.factor)
    terms += zero_points.values()
    rest = max(size - total(terms, counts) for counts, size in template.files)
    if half_floats:
        halves = [
            tensor for tensor in template.tensors.values() if tensor.data is not None and tensor.dtype == "float32"
        ]
        terms += [_proportional(tensor, -_HALF_SAVES) for tensor in halves]
    read = {one.inputs[1] for one in template.operators if one.name in four_bit_operators}
    weights = [template.tensors[number] for number in sorted(read)]
    terms += [_proportional(one, -_FOUR_BITS_SAVE) for one in weights if one.data is not None and one.dtype == "int8"]
    return [*terms, _product_term((), rest)]


def live_limits(template: FileTemplate, most: float) -> list[Limit]:
    """What the activations alive while an operator runs may come to, for each operator that might need more."""
    limits = []
    for tensors in alive_tensors(template):
        terms = [_proportional(template.tensors[number], item_bytes(template.tensors[number])) for number in tensors]
        if total(terms, template.counts) > most:
            limits.append(Limit(most, terms))
    return limits


def planned_activations(template: FileTemplate, counts: np.ndarray) -> int:
    """The bytes that an interpreter needs for the activations at these counts: each tensor has a fixed place."""
    first, last = _lifetimes(template)
    lifetimes = [
        Lifetime(
            aligned(math.prod(template.shape(number, counts)) * item_bytes(template.tensors[number])),
            first[number],
            last[number],
        )
        for number in first
    ]
    return planned_bytes(sorted(lifetimes, key=lambda tensor: tensor.first))


def item_bytes(tensor: SizedTensor) -> int:
    """The bytes of one value of a tensor."""
    return _ITEM_BYTES.get(tensor.dtype, 1)


def _proportional(tensor: SizedTensor, bytes_each: float) -> CostTerm:
    lines = tuple(line for size in tensor.shape for line in size.lines)
    return _product_term(lines, bytes_each * math.prod(size.factor for size in tensor.shape))


def _product_term(lines: tuple[int, ...], factor: float) -> CostTerm:
    def product(*counts: np.ndarray) -> np.ndarray:
        found = np.asarray(factor, float)
        for count in counts:
            found = found * count
        return found

    return CostTerm(lines, product)


def _lifetimes(template: FileTemplate) -> tuple[dict[int, int], dict[int, int]]:
    """The first and the last operator, by number, at which each computed tensor is alive."""
    first: dict[int, int] = {number: 0 for number in template.inputs}
    last = dict(first)
    for time, operator in enumerate(template.operators):
        for number in (*operator.inputs, *operator.outputs):
            if number >= 0 and template.tensors[number].data is None:
                first.setdefault(number, time)
                last[number] = time
    end = len(template.operators) - 1
    return first, last | {number: end for number in template.outputs if number in first}


def alive_tensors(template: FileTemplate) -> Sequence[list[int]]:
    """The numbers of the computed tensors that are alive while each operator runs."""
    first, last = _lifetimes(template)
    return [
        [number for number in first if first[number] <= time <= last[number]] for time in range(len(template.operators))
    ]
