"""Put right in a file what the converter writes wrong, or so that fewer devices can read it than could."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.tflite.edit import edited, new_operator
from edgeprune.tflite.graph import operators, scales, type_name

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

# Places among an LSTM operator's inputs and intermediates.
_LSTM_OUTPUT_STATE, _LSTM_CELL_STATE, _LSTM_HIDDEN = 18, 19, 4
_SMALLEST_CELL_STEP = 2.0**-15
_ON_VALUE, _OFF_VALUE = 2, 3  # among the inputs of ONE_HOT


def repaired(content: bytes) -> bytes:
    """The content of a .tflite file, with scales that its kernels compute with and operators that more devices have."""
    return edited(content, _repair)


def _repair(model: schema.ModelT) -> bool:
    repairs = (_repair_lstms, _repair_reversals, _repair_one_hots, _use_select_v2)
    return any([repair(model) for repair in repairs])


def _repair_lstms(model: schema.ModelT) -> bool:
    """Set scales of the states of int8 LSTM operators for which the kernels are right; whether there are any.

    A kernel writes a step's output into the state and copies it from there, so that both have the output's scale;
    the converter sets another for the state. And a cell that remains below 0.5 in calibration gets a step below 2^-15,
    for which the kernels have no tanh. Neither is an error: the values are wrong.
    Source: tensorflow/lite/kernels/lstm_eval.cc and internal/reference/portable_tensor_utils.cc
    """
    found = False
    for call in operators(model, "UNIDIRECTIONAL_SEQUENCE_LSTM"):
        graph, operator = call.graph, call.operator
        output = call.output(0).quantization
        if scales(call.output(0)) is None:
            continue
        for place in (operator.inputs[_LSTM_OUTPUT_STATE], operator.intermediates[_LSTM_HIDDEN]):
            graph.tensors[place].quantization = copy.copy(output)
        cell = graph.tensors[operator.inputs[_LSTM_CELL_STATE]].quantization
        cell.scale = np.maximum(cell.scale, np.float32(_SMALLEST_CELL_STEP))
        found = True
    return found


def _repair_reversals(model: schema.ModelT) -> bool:
    """Have what is reversed keep its scale, and be brought to the result's afterwards; whether any had another.

    The kernels of REVERSE_V2 copy the values, whatever the scales of their input and output are.
    """
    found = False
    for call in operators(model, "REVERSE_V2"):
        graph, operator = call.graph, call.operator
        source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
        if scales(source) is not None and not _same_scale(source.quantization, result.quantization):
            reversed_only = copy.copy(result)
            reversed_only.name, reversed_only.quantization = result.name + b"/reversed", source.quantization
            graph.tensors.append(reversed_only)
            number = len(graph.tensors) - 1
            rescaling = new_operator(model, "QUANTIZE", [number], [operator.outputs[0]], version=2)
            operator.outputs = np.array([number], np.int32)
            graph.operators.insert(graph.operators.index(operator) + 1, rescaling)
            found = True
    return found


def _repair_one_hots(model: schema.ModelT) -> bool:
    """Give the two values of a ONE_HOT of integers the steps of its result; whether any had others.

    The kernel copies the integers, whatever the scales of its inputs are, and the converter gives each value its own.
    """
    found = False
    for call in operators(model, "ONE_HOT"):
        operator, result = call.operator, call.output(0)
        operator.inputs = np.array(operator.inputs)  # as it was read, it cannot be written to
        for place in (_ON_VALUE, _OFF_VALUE) if scales(result) is not None else ():
            given = call.input(place)
            is_constant = model.buffers[given.buffer].data is not None
            if is_constant and not _same_scale(given.quantization, result.quantization):
                operator.inputs[place] = _by_other_steps(model, call.graph, given, result)
                found = True
    return found


def _by_other_steps(model: schema.ModelT, graph: schema.SubGraphT, constant: Any, like: Any) -> int:
    """The number of a new tensor with the values of a constant one, by the steps of another."""
    from ai_edge_litert import schema_py_generated as schema

    own, steps, dtype = constant.quantization, like.quantization, np.dtype(type_name(like))
    stored = np.asarray(model.buffers[constant.buffer].data, np.uint8).view(type_name(constant))
    values = (stored.astype(np.float64) - own.zeroPoint[0]) * own.scale[0]
    integers = np.round(values / steps.scale[0]) + steps.zeroPoint[0]
    buffer, made = schema.BufferT(), copy.copy(constant)
    buffer.data = np.clip(integers, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype).view(np.uint8)
    model.buffers.append(buffer)
    made.buffer, made.quantization = len(model.buffers) - 1, copy.copy(steps)
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _use_select_v2(model: schema.ModelT) -> bool:
    """Replace SELECT by SELECT_V2, which microcontrollers have, where both are the same; whether there is one.

    They differ in a condition of another shape than the values: SELECT reads it as one value a row.
    """
    from ai_edge_litert import schema_py_generated as schema

    selections = list(operators(model, "SELECT"))
    if not all(np.array_equal(call.input(0).shape, call.input(1).shape) for call in selections):
        return False
    for call in selections:
        code = model.operatorCodes[call.operator.opcodeIndex]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SELECT_V2
        code.version = 1
        call.operator.builtinOptionsType = schema.BuiltinOptions.SelectV2Options
        call.operator.builtinOptions = schema.SelectV2OptionsT()
    return bool(selections)


def _same_scale(one: schema.QuantizationParametersT, other: schema.QuantizationParametersT) -> bool:
    return np.array_equal(one.scale, other.scale) and np.array_equal(one.zeroPoint, other.zeroPoint)
