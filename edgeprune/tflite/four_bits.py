"""Weights of a .tflite file in 4 bits, where their values are on a grid of 15 steps and an operator reads such.

The format keeps two values in a byte. Operators of int8 activations read them with a version of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import edited
from edgeprune.tflite.graph import OperatorCall, operators, scales, tensors

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

# The operators whose kernels in LiteRT read weights of 4 bits, with the first version that does.
# Source: tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc
READ_FOUR_BITS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
# The versions of the same for weights of 8 bits with a scale for each channel.
_READ_EIGHT_BITS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5}
_LARGEST_INT4 = 7  # the largest integer of a symmetric grid of 4 bits
_LARGEST_INT8 = 127


def with_four_bit_weights(
    content: bytes, readers: Collection[str] = tuple(READ_FOUR_BITS), *, nearest: bool = False
) -> tuple[bytes, list[str]]:
    """Store in 4 bits the int8 weights whose values are on a grid of 4 bits.

    Args:
        content: the content of a .tflite file in int8, whose weights have a scale for each channel, or one.
        readers: the operators that read 4 bits where the file will run, some of `READ_FOUR_BITS`.
        nearest: whether values off the grid are moved to its nearest steps, as where the size alone is of interest.

    Returns:
        The content of a file that computes the same, but for biases, which are rounded to the larger steps; and the
        names of the weights that are stored so.
    """
    narrowed: list[str] = []

    def narrow(model: schema.ModelT) -> bool:
        done: dict[int, Any] = {}  # `id` of a weight to its scales before: several operators may read it
        for call in operators(model, *readers) if readers else ():  # without names it has all of them
            weight = call.input(1)
            if id(weight) not in done and (values := _four_bits(model, weight, nearest)) is not None:
                done[id(weight)] = np.asarray(weight.quantization.scale, np.float64)
                _store(model, weight, values)
                narrowed.append((weight.name or b"").decode())
            if id(weight) in done:
                _rescale_bias(model, call, done[id(weight)])
                call.operator.opcodeIndex = _operator_code(model, call, READ_FOUR_BITS[call.name])
        _drop_unused_codes(model)
        return bool(narrowed)

    return edited(content, narrow), narrowed


def with_eight_bit_weights(content: bytes) -> bytes:
    """Store in 8 bits what a file has in 4: the same integers, for kernels that read no others."""
    from ai_edge_litert.schema_py_generated import TensorType

    def widen(model: schema.ModelT) -> bool:
        done: set[int] = set()  # several operators may read a weight
        for call in operators(model, *READ_FOUR_BITS):
            weight = call.input(1)
            if weight.type == TensorType.INT4:
                done.add(id(weight))
                packed = np.asarray(model.buffers[weight.buffer].data, np.uint8)
                nibbles = np.stack([packed & 15, packed >> 4], axis=1).ravel()[: int(np.prod(weight.shape))]
                _put(model, weight, ((nibbles.astype(np.int8) ^ 8) - 8).view(np.uint8))
                weight.type = TensorType.INT8
            if id(weight) in done:
                call.operator.opcodeIndex = _operator_code(model, call, _READ_EIGHT_BITS[call.name])
        _drop_unused_codes(model)
        return bool(done)

    return edited(content, widen)


def _four_bits(model: schema.ModelT, weight: schema.TensorT, nearest: bool) -> np.ndarray | None:
    """The integers of a weight on the grid of 4 bits; None where it may not be moved to it, or is no int8 constant."""
    from ai_edge_litert.schema_py_generated import TensorType

    data = model.buffers[weight.buffer].data
    if weight.type != TensorType.INT8 or data is None or np.isscalar(data) or scales(weight) is None:
        return None
    values = np.asarray(data, np.uint8).view(np.int8).reshape(weight.shape).astype(np.float64)
    exact = values * _LARGEST_INT4 / _LARGEST_INT8
    off = np.abs(exact - np.round(exact)) * _LARGEST_INT8 / _LARGEST_INT4  # in steps of int8, to which it was rounded
    return np.round(exact).astype(np.int8) if nearest or off.max(initial=0.0) <= 0.5 + 1e-9 else None


def _store(model: schema.ModelT, weight: schema.TensorT, values: np.ndarray) -> None:
    from ai_edge_litert.schema_py_generated import TensorType

    flat = np.append(values.ravel(), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
    _put(model, weight, flat[::2] | (flat[1::2] << 4))
    weight.type = TensorType.INT4
    _set_scale(weight, np.asarray(scales(weight), np.float64) * _LARGEST_INT8 / _LARGEST_INT4)


def _rescale_bias(model: schema.ModelT, call: OperatorCall, before: np.ndarray) -> None:
    """Bring a bias to the steps of the products that it is added to."""
    bias = call.input(2)
    data = None if bias is None else model.buffers[bias.buffer].data
    if data is None or np.isscalar(data):
        return
    readers = [one for one in operators(model) if any(one.input(place) is bias for place in range(3))]
    if len(readers) > 1:  # the converter stores equal biases once
        bias = copy.copy(bias)
        call.graph.tensors.append(bias)
        inputs = [*call.operator.inputs[:2], len(call.graph.tensors) - 1, *call.operator.inputs[3:]]
        call.operator.inputs = np.array(inputs, np.int32)
    after = np.asarray(scales(call.input(1)), np.float64)
    values = np.asarray(data, np.uint8).view(np.int32) * before / after
    _put(model, bias, np.round(values).astype(np.int32).view(np.uint8))
    _set_scale(bias, np.asarray(scales(call.input(0)), np.float64) * after)


def _put(model: schema.ModelT, tensor: schema.TensorT, data: np.ndarray) -> None:
    """Replace the bytes of a tensor, in a buffer of its own where it shares one."""
    from ai_edge_litert.schema_py_generated import BufferT

    if sum(one.buffer == tensor.buffer for one in tensors(model)) > 1:
        model.buffers.append(BufferT())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = data


def _set_scale(tensor: schema.TensorT, scale: np.ndarray) -> None:
    tensor.quantization = copy.copy(tensor.quantization)  # which may be another tensor's too
    tensor.quantization.scale = scale.astype(np.float32)


def _operator_code(model: schema.ModelT, call: OperatorCall, version: int) -> int:
    """The number of the operator's code in a version."""
    code = copy.copy(model.operatorCodes[call.operator.opcodeIndex])
    code.version = version
    for number, known in enumerate(model.operatorCodes):
        if (known.builtinCode, known.version) == (code.builtinCode, code.version):
            return number
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _drop_unused_codes(model: schema.ModelT) -> None:
    """Remove the codes of no operator: an interpreter asks for a kernel of each."""
    calls = [operator for graph in model.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in calls})
    model.operatorCodes = [model.operatorCodes[number] for number in used]
    for operator in calls:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
